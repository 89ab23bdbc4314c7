#!/usr/bin/env python3
"""Calibration beside ONNX Runtime's calibrators: time and peak memory, each in a process of its own, all in one run.

    calibration_vs_ort.py QCOMPILE MODEL IMAGES_DIR [--samples 40,400] [--image-options 'size=224&resize=256&mean=127.5&std=127.5']
                          [--peers entropy,percentile,minmax] [--repeat 1]

Needs a Python with onnxruntime, numpy and Pillow.  Both sides decode the same JPEG and PNG files to the same crop and use one thread.
ONNX Runtime gets its model preprocessed (`quant_pre_process`) beforehand, which is not counted, and its samples one by one; where its calibrator
cannot hold all samples, that is the result.  Prints a table, and JSON with --json.
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
import urllib.parse

PEER = r"""
import json, os, resource, sys, time
model, folder, count, method, options, work = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5]), sys.argv[6]
import numpy as np, onnx, onnxruntime as ort
from PIL import Image
from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator
from onnxruntime.quantization.shape_inference import quant_pre_process
size, resize = int(options["size"]), int(options["resize"])
mean, std = (np.array([float(v) for v in options[k].split(",")], np.float32).reshape(-1, 1, 1) for k in ("mean", "std"))
prepared = os.path.join(work, "prepared.onnx")
quant_pre_process(model, prepared)
name = ort.InferenceSession(prepared).get_inputs()[0].name
files = sorted(os.path.join(folder, f) for f in os.listdir(folder) if f.lower().endswith((".jpg", ".jpeg", ".png")))[:count]
class Reader(CalibrationDataReader):
    def __init__(self): self.at = 0
    def __len__(self): return len(files)
    def get_next(self):
        if self.at == len(files): return None
        image = Image.open(files[self.at]).convert("RGB"); self.at += 1
        w, h = image.size; s = resize / min(w, h)
        image = image.resize((round(w * s), round(h * s)), Image.BILINEAR)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        x = np.asarray(image.crop((left, top, left + size, top + size)), np.float32).transpose(2, 0, 1)
        return {name: ((x - mean) / std)[None]}
start = time.time()
calibrator = create_calibrator(prepared, augmented_model_path=os.path.join(work, "augmented.onnx"),
                               calibrate_method={"entropy": CalibrationMethod.Entropy, "percentile": CalibrationMethod.Percentile, "minmax": CalibrationMethod.MinMax}[method])
session = ort.SessionOptions(); session.intra_op_num_threads = 1
calibrator.infer_session = ort.InferenceSession(os.path.join(work, "augmented.onnx"), session, providers=["CPUExecutionProvider"])
calibrator.collect_data(Reader())
ranges = calibrator.compute_data()
print(json.dumps({"seconds": time.time() - start, "ranges": len(ranges.data)}))
"""


def measured(command, limit_bytes=None):
    """(seconds, peak bytes, stdout) of a process, or (None, peak, message)."""
    start = time.time()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        limit = (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))) if limit_bytes else None
        process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err, preexec_fn=limit)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.time() - start
        out.seek(0), err.seek(0)
        text, errors = out.read().decode(), err.read().decode()
    peak = usage.ru_maxrss * 1024
    if process.returncode != 0:
        return None, peak, errors.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
    return seconds, peak, text


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("qcompile"), p.add_argument("model"), p.add_argument("images")
    p.add_argument("--samples", default="40,400")
    p.add_argument("--image-options", default="size=224&resize=256&mean=127.5&std=127.5")
    p.add_argument("--peers", default="entropy,percentile")
    p.add_argument("--memory-limit-gb", type=float, default=0, help="address space of the peers' processes")
    p.add_argument("--json", action="store_true")
    args = p.parse_args()
    options = dict(urllib.parse.parse_qsl(args.image_options))
    rows = []
    for count in map(int, args.samples.split(",")):
        with tempfile.TemporaryDirectory() as work:
            work = pathlib.Path(work)
            for observer in ("histogram", "entropy", "percentile"):
                config = work / "rules.json"
                config.write_text(json.dumps({"backend": "x86"} if observer == "histogram" else {"global": {"activation": {"observer": observer}}}))
                rules = [] if observer == "histogram" else ["--config", config]
                seconds, peak, out = measured([args.qcompile, "calibrate", args.model, "-d", f"images:{args.images}?{args.image_options}", "-o", work / "m.qcal",
                                               "--calibration-limit", count, "--json", *rules])
                rows.append({"engine": "qcompile", "observer": observer, "samples": count, "seconds": seconds, "peak_mb": peak / 1e6,
                             "note": "" if seconds else str(out)})
            for method in filter(None, args.peers.split(",")):
                seconds, peak, out = measured([sys.executable, "-c", PEER, args.model, args.images, count, method, json.dumps(options), work],
                                              int(args.memory_limit_gb * (1 << 30)) or None)
                rows.append({"engine": "onnxruntime", "observer": method, "samples": count, "seconds": json.loads(out.splitlines()[-1])["seconds"] if seconds else None,
                             "peak_mb": peak / 1e6, "note": "" if seconds else str(out)})
    if args.json:
        print(json.dumps(rows))
        return
    print(f"{'engine':12} {'observer':11} {'samples':>7} {'seconds':>9} {'peak MB':>9}")
    for r in rows:
        print(f"{r['engine']:12} {r['observer']:11} {r['samples']:7} {r['seconds'] and format(r['seconds'], '9.2f') or '        -'} {r['peak_mb']:9.1f} {r['note']}")


main()
