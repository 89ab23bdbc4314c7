#!/usr/bin/env python3
"""A server's day: samples one after another, each at its own length, beside ONNX Runtime and OpenVINO in one run.

    serving.py QCOMPILE MODEL.onnx SAMPLES.npz [--calibration CALIB.npz] [--work DIR] [--engines ours,ort] [--threads 1,2] [--rounds 3]
               [--limit N] [--json FILE]

MODEL.onnx is a float model whose inputs are [batch, length].  SAMPLES.npz holds them padded, `attention_mask` among them, which says how long
each sample is; names may end in _a and _b: pairs, whose samples alternate.  The int8 files are made first (kept in --work): ours static and
dynamic, ONNX Runtime's static (QDQ) and dynamic, and OpenVINO reads the latter's static file.

Each measurement is a process of its own.  Engines take turns for --rounds rounds and the round with the least processor time counts, since
other programs may run at the same time.  Of ours `cold` starts with an empty folder of compiled kernels, `warm` with that of the run before.
Printed are milliseconds of all runs together (loading left out), of the first run, and of loading before it; median and 99th percentile
of a run; processor time of the whole process, loading included; peak memory; and plans, programs that were made for a length.  Needs
onnx, onnxruntime, numpy, and openvino for its rows.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np


def samples_of(path, limit=None):
    """Arrays by input name of each sample, at its own length."""
    data = dict(np.load(path))
    pairs = any(name.endswith("_a") for name in data)
    parts = [{n[:-2]: v for n, v in data.items() if n.endswith(end)} for end in ("_a", "_b")] if pairs else [data]
    mask = parts[0]["attention_mask"]
    names = [n for n, v in parts[0].items() if v.shape == mask.shape]
    samples = []
    for i in range(len(mask)):
        for part in parts:
            length = int(part["attention_mask"][i].sum())
            samples.append({n: part[n][i : i + 1, :length] for n in names})
    return samples[:limit]


def write_samples(samples, inputs, folder):
    """As test data sets, whose arrays stand in the order of the model's inputs."""
    from onnx import numpy_helper

    for k, sample in enumerate(samples):
        one = folder / f"test_data_set_{k}"
        one.mkdir(parents=True)
        for i, name in enumerate(inputs):
            (one / f"input_{i}.pb").write_bytes(numpy_helper.from_array(sample[name], name).SerializeToString())


def quantize_with_ort(model, calibration, dynamic, static):
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

    onnxruntime.set_default_logger_severity(3)

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter(calibration[:100])

        def get_next(self):
            return next(self.rest, None)

    quantize_dynamic(str(model), str(dynamic), per_channel=True, weight_type=QuantType.QInt8)
    quantize_static(str(model), str(static), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def serve(engine, model, samples, threads):
    """In a process of its own: prints what `bench --json` prints."""
    start = time.perf_counter()
    if engine == "ort":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        run = lambda sample: session.run(None, {n: sample[n] for n in names})
    else:
        import openvino

        core = openvino.Core()
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1})
        compiled = core.compile_model(model, "CPU")
        request, names = compiled.create_infer_request(), [i.get_any_name() for i in compiled.inputs]
        run = lambda sample: request.infer({n: sample[n] for n in names})
    load, times = (time.perf_counter() - start) * 1e3, []
    for sample in samples:
        before = time.perf_counter()
        run(sample)
        times.append((time.perf_counter() - before) * 1e3)
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    print(json.dumps({"total_ms": sum(times), "first_ms": times[0], "load_ms": load, "p50_ms": float(np.percentile(times, 50)),
                      "p99_ms": float(np.percentile(times, 99)), "peak_mb": peak, "plans": None}))


def measured(command, environment):
    """What the command prints, with the processor time of its process."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # From a small process: what a program says of its peak memory counts that of its parent, which it was forked from.
        small = ["sh", "-c", '"$@"; exit $?', "sh"]
        process = subprocess.Popen([*small, *(str(c) for c in command)], stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(str(c) for c in command)}: {err.read().decode()[-2000:]}")
        row = json.loads(out.read().decode().strip().splitlines()[-1])
    row["cpu_ms"] = (usage.ru_utime + usage.ru_stime) * 1e3
    return row


COLUMNS = [("total_ms", 0), ("first_ms", 0), ("load_ms", 0), ("p50_ms", 3), ("p99_ms", 2), ("cpu_ms", 0), ("peak_mb", 0), ("plans", 0)]


def main():
    if sys.argv[1:2] == ["--serve"]:
        _, _, engine, model, samples, limit, threads = sys.argv
        return serve(engine, model, samples_of(samples, int(limit) or None), int(threads))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile")
    parser.add_argument("model")
    parser.add_argument("samples")
    parser.add_argument("--calibration")
    parser.add_argument("--work", help="where files are kept for another run; else a temporary folder")
    parser.add_argument("--engines", default="ours,ours-dynamic,ort-dynamic,ort-static,openvino")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=int, default=0, help="the first samples only")
    parser.add_argument("--json", help="all rows of all rounds")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(a, pathlib.Path(a.work or temporary))


def run(a, work):
    import onnx

    work.mkdir(parents=True, exist_ok=True)
    inputs = [i.name for i in onnx.load(a.model, load_external_data=False).graph.input]
    folders = {}
    calibration = samples_of(a.calibration or a.samples, 300)
    for name, samples in (("samples", samples_of(a.samples, a.limit or None)), ("calibration", calibration)):
        folders[name] = work / name
        shutil.rmtree(folders[name], ignore_errors=True)
        write_samples(samples, inputs, folders[name])
    files = {name: work / f"{name}.onnx" for name in ("ours", "ours-dynamic", "ort-dynamic", "ort-static")}
    if not files["ours"].exists():
        subprocess.run([a.qcompile, "quantize", a.model, "-d", f"testdata:{folders['calibration']}", "-o", files["ours"]],
                       check=True, capture_output=True)
    if not files["ours-dynamic"].exists():
        subprocess.run([a.qcompile, "quantize", a.model, "--mode", "dynamic", "-o", files["ours-dynamic"]], check=True, capture_output=True)
    if not (files["ort-dynamic"].exists() and files["ort-static"].exists()):
        quantize_with_ort(a.model, [{n: s[n] for n in inputs} for s in calibration], files["ort-dynamic"], files["ort-static"])

    def ours(file, threads, cache):
        def once():
            if cache == "cold":
                shutil.rmtree(work / "kernels", ignore_errors=True)
            return measured([a.qcompile, "bench", file, "-d", f"testdata:{folders['samples']}", "--threads", threads, "--json"],
                            dict(os.environ, QC_CACHE_DIR=str(work / "kernels")))
        return once

    def peer(engine, file, threads):
        return lambda: measured([sys.executable, __file__, "--serve", engine, file, a.samples, a.limit, threads], dict(os.environ))

    contestants = []
    for threads in a.threads.split(","):
        for engine in a.engines.split(","):
            if engine.startswith("ours"):
                for cache in ("cold", "warm"):
                    contestants.append((f"{engine} {cache}", threads, ours(files[engine], threads, cache)))
            elif engine == "openvino":
                contestants.append((engine, threads, peer("openvino", files["ort-static"], threads)))
            else:
                contestants.append((engine, threads, peer("ort", files[engine], threads)))
    print(f"{len(list(folders['samples'].iterdir()))} samples; load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    rows = {}
    for _ in range(a.rounds):
        for name, threads, once in contestants:
            rows.setdefault((name, threads), []).append(once())
    print(f"load after: {os.getloadavg()[0]:.1f}; of {a.rounds} rounds that with the least processor time")
    print(f"{'engine':18} {'threads':>7} " + " ".join(f"{c:>8}" for c, _ in COLUMNS))
    for (name, threads), rounds in rows.items():
        best = min(rounds, key=lambda r: r["cpu_ms"])
        cells = ("-" if best[c] is None else f"{best[c]:.{digits}f}" for c, digits in COLUMNS)
        print(f"{name:18} {threads:>7} " + " ".join(f"{c:>8}" for c in cells))
    if a.json:
        with open(a.json, "w") as file:
            json.dump([{"engine": n, "threads": int(t), "rounds": r} for (n, t), r in rows.items()], file, indent=1)


if __name__ == "__main__":
    main()
