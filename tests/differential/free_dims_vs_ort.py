#!/usr/bin/env python3
"""One file for every shape: models with free dims are written once, and run at three combinations of sizes here and by ONNX Runtime.

    free_dims_vs_ort.py QCOMPILE SHARED_DIR [--mode float|static|dynamic] [NAME ...]

A file must pass ONNX's checker and have the dims of the model's inputs by their names.  A float one has the outputs of the model itself, within
what float_vs_ort.py allows.  A quantized one that is made of one sample has, computed node by node there, the outputs of the file that is made of
it for its sizes alone, to 60 dB.  One that is made of other samples has here what ONNX Runtime has to 45 dB, or is as near to that as both are to
the float model: where a number lies in the middle between two integers another order of sums decides for the other, and the layers behind follow.

Needs what float_vs_ort.py needs; exit code 77, which ctest reports as skipped, when something is missing.
"""
import argparse
import pathlib
import sys
import tempfile

try:
    import model_inputs
    import numpy as np
    import onnx
    import onnxruntime
    from float_vs_ort import arbitrated, stacked, tool, worst_error
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

SQNR, SAME = 45, 60
# Its positions are looked up in a table of integers, and at fixed sizes are a constant in float.
FOLDS = {"all_minilm_l6_v2"}
# Ops that nobody runs any more; a Squeeze without axes, by which one sample gives another rank than several.
NOT_FREE = {"style_candy", "plcmos_v2"}


def session(path, optimized=True):
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def given(option, shapes):
    return [a for key, value in shapes.items() for a in (option, f"{key}={value}")]


def shape_of(feed):
    return given("--shape", {key: "x".join(map(str, value.shape)) for key, value in feed.items()})


def written(qcompile, model, name, mode, feeds, shape, file):
    """Quantized with these samples, with free dims or, if `shape` is given, at that of the sample."""
    work = file.parent
    (work / "float.json").write_text('{"global": "float"}')
    data = [] if mode == "dynamic" else ["-d", stacked(feeds, work)]
    how = {"static": [], "dynamic": ["--mode", "dynamic"], "float": ["--config", work / "float.json"]}[mode]
    bound = given("--bind", model_inputs.BOUND.get(name, {})) + (shape_of(shape) if shape else [])
    tool(qcompile, "quantize", model, *bound, *data, *how, "-o", file)
    return file


def run_here(qcompile, model, feed, ports, work):
    inputs = []
    for key, value in feed.items():
        file = work / f"{len(inputs)}.npy"
        np.save(file, value)
        inputs += ["--input", f"{key}={file}"]
    tool(qcompile, "run", model, *inputs, "--output-dir", work / "here")
    return [np.load(work / "here" / (port.replace("/", "_").replace("\\", "_").replace(":", "_") + ".npy")) for port in ports]


def sqnr(expected, actual):
    e, a = (np.concatenate([x.astype(np.float64).ravel() for x in outputs]) for outputs in (expected, actual))
    noise = np.square(e - a).sum()
    return 200.0 if noise == 0 else 10 * float(np.log10(np.square(e).sum() / noise))


def check(qcompile, shared, name, mode, work):
    model = shared / "models" / name / "model.onnx"
    original = session(model)
    constants = {key: np.array(value, np.int64) for key, value in model_inputs.BOUND.get(name, {}).items()}
    free = model_inputs.free_dims(original.get_inputs(), constants)
    if not free:
        return None
    ports = [port.name for port in original.get_outputs()]
    feeds = model_inputs.MODELS[name](shared)
    out = written(qcompile, model, name, mode, feeds[:3], None, work / "out.onnx")
    onnx.checker.check_model(onnx.load(out), full_check=True)
    there, values = session(out), []
    kept = model_inputs.free_dims(there.get_inputs())
    if kept != free:
        return False, f"the dims are {kept} and were {free}"
    for k in range(3):
        feed = model_inputs.at_other_sizes(name, original.get_inputs(), feeds, k)
        found, expected = there.run(ports, feed), original.run(ports, {**feed, **constants})
        if mode == "float":
            worst = [[worst_error(*t) for t in zip(ports, expected, found)]]
            arbitrated(model, [{**feed, **constants}], ports, [expected], [found], worst, "export")
            values.append((max(worst[0])[0] <= 1, f"{100 * max(worst[0])[0]:.1f}%"))
            continue
        alike = sqnr(*(session(written(qcompile, model, name, mode, [feed], shape, work / "one.onnx"), optimized=False).run(ports, feed)
                       for shape in (feed, None)))
        here, noise = sqnr(found, run_here(qcompile, out, feed, ports, work)), sqnr(expected, found)
        words = f"{alike:.0f} {here:.0f}" + (f" (float {noise:.0f})" if here < SQNR else "")
        values.append((alike >= (noise - 6 if name in FOLDS else SAME) and here >= min(SQNR, noise - 6), words))
    return all(good for good, _ in values), ", ".join(words for _, words in values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="models; all with free dims when none is named")
    parser.add_argument("--mode", choices=["float", "static", "dynamic"], action="append")
    args = parser.parse_intermixed_args()
    names, failed, checked = args.names or sorted(set(model_inputs.MODELS) - NOT_FREE), [], 0
    for mode in args.mode or ["float", "static", "dynamic"]:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    outcome = check(args.qcompile, args.shared, name, mode, pathlib.Path(folder))
                except Exception as error:  # noqa: BLE001  a missing model, a refusal of either side
                    outcome = False, f"FAILED {type(error).__name__} {error}"
            if outcome is None:
                continue
            checked += 1
            print(f"{name:32} {mode:8} {'ok ' if outcome[0] else 'BAD'} {outcome[1]}", flush=True)
            failed += [] if outcome[0] else [f"{name} ({mode})"]
    print("not as they must be: " + ", ".join(failed) if failed else f"{checked} as they must be beside ONNX Runtime {onnxruntime.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
