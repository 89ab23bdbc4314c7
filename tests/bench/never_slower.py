#!/usr/bin/env python3
"""quantize --never-slower over a folder of models: is the mixture never slower than float, and never slower than all int8?

    never_slower.py QCOMPILE MODELS_DIR [--threads 1,2] [--runs 5] [--seconds 0.5] [--only NAME,..] [--json OUT]
                    [--with NAME=OPTIONS ..]

MODELS_DIR/NAME/model.onnx each.  For every number of threads a model is quantized plainly and with --never-slower; then mixture and float, and
mixture and all int8, take turns in paired runs of `bench --compare`.  A row is as good as its best run, as other programs can only add to a time.
Samples are noise (`random:2`), so accuracy says nothing here.  Exit code 1 where a mixture is slower than float by more than 2% (two runs of
one program differ by that), or than all int8 by more than 3%; where both are one file, there is nothing to compare.
Models with free dims need sizes, and some constants: SIZES has those of known models, --with 'NAME=--shape T=16' those of others.  All three
files then have these sizes.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

FLOAT, INT8 = 1.02, 1.03
SIZES = {
    "all_minilm_l6_v2": "--shape sequence=128",
    "easyocr_en_g2": "--shape W=320",
    "g2p_en_decoder": "--shape N=1 --shape T=1",
    "g2p_en_encoder": "--shape T=8",
    "g2pm_bilstm": "--shape T=32",
    "nnsplit_en": "--shape length=100",
    "plcmos_v2": "--shape batch_size=1 --shape frames=256",
    "ppocr_cls": "--shape x=1x3x48x192",
    "ppocrv4_det": "--shape x=1x3x320x320",
    "ppocrv4_rec": "--shape x=1x3x48x320",
    "resemblyzer_lstm": "--shape T=160",
    "silero_vad": "--shape input=1x512 --shape state=2x1x128 --bind sr=16000",
    "silero_vad_legacy": "--shape input=1x512 --shape h=2x1x64 --shape c=2x1x64 --bind sr=16000",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qcompile")
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", default="")
    parser.add_argument("--with", dest="options", action="append", default=[])
    parser.add_argument("--json")
    o = parser.parse_args()
    only = set(filter(None, o.only.split(",")))

    def tool(*args):
        done = subprocess.run([o.qcompile, *map(str, args)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(" ".join(done.stderr.split())[-200:])
        return json.loads(done.stdout)

    options = SIZES | dict(each.split("=", 1) for each in o.options)
    rows, failures = [], 0
    print(f"{'model':28} thr  float ms   int8 ms  mixture  /float   /int8  p50/float  int8 layers  load")
    with tempfile.TemporaryDirectory() as folder:
        all_float = pathlib.Path(folder) / "float.json"
        all_float.write_text('{"global": "float"}')
        for path in sorted(o.models.glob("*/model.onnx")):
            name = path.parent.name
            if only and name not in only:
                continue
            given = options.get(name, "").split()
            for threads in map(int, o.threads.split(",")):
                real, int8, mixture = (pathlib.Path(folder) / f"{kind}.onnx" for kind in ("float", "int8", "mixture"))
                common = [*given, "-d", "random:2", "--threads", threads, "--json", "--compare-samples", "0"]
                try:
                    if given:  # whatever has a size or a value in the other files has it here
                        tool("quantize", path, *common, "--config", all_float, "-o", real)
                    tool("quantize", path, *common, "-o", int8)
                    ledger = tool("quantize", path, *common, "--never-slower", "-o", mixture).get("ledger")
                    if not ledger:
                        print(f"{name:28} {threads}    nothing to weigh: no layer becomes int8", flush=True)
                        break
                    beside = {}
                    for other, file in (("float", real if given else path), ("int8", int8)):
                        if file.read_bytes() == mixture.read_bytes():
                            continue
                        # Both ways round would be the same: they take turns, and the order of the turns alternates.
                        runs = [tool("bench", mixture, "--compare", file, "--threads", threads, "--seconds", o.seconds, "--json")
                                for _ in range(o.runs)]
                        beside[other] = (min(r["models"][0]["min_ms"] for r in runs), min(r["models"][1]["min_ms"] for r in runs),
                                         statistics.median(r["ratio_p50"] for r in runs))
                except RuntimeError as error:
                    print(f"{name:28} {threads}    left out: {error}")
                    break
                # One file has one time: two runs of the same bytes differ by luck alone.
                own = beside.get("float", beside.get("int8", (0.0,)))[0]
                ours, floats, median = beside.get("float", (own, own, 1.0))
                again, integers, _ = beside.get("int8", (own, own, 1.0))
                left = ledger["path"][ledger["chosen"]]["int8_layers"], ledger["path"][0]["int8_layers"]
                bad = ours > FLOAT * floats or again > INT8 * integers
                failures += bad
                rows.append({"model": name, "threads": threads, "float_ms": floats, "int8_ms": integers, "mixture_ms": ours, "to_float": ours / floats,
                             "to_int8": again / integers, "median_to_float": median, "int8_layers": left, "load": os.getloadavg()[0]})
                print(f"{name:28} {threads}  {floats:9.4f} {integers:9.4f} {ours:9.4f} {ours / floats:7.3f} {again / integers:7.3f} {median:9.3f}   "
                      f"{left[0]:4} of {left[1]:4}   {os.getloadavg()[0]:.1f}{'  SLOWER' if bad else ''}", flush=True)
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(rows, indent=1))
    print(f"{len(rows)} rows, {failures} slower")
    return 1 if failures or not rows else 0


sys.exit(main())
