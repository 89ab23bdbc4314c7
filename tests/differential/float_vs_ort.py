#!/usr/bin/env python3
"""Float models against ONNX Runtime: every output within rtol 1e-3 and atol 1e-4 of the output's largest value.

    float_vs_ort.py QCOMPILE SHARED_DIR [--engine jit|interpreter|export] [--samples N] [NAME ...]

Every model of SHARED_DIR/models, on samples of its own kind of input (model_inputs.py): 3 of them, 1 for the interpreter.  With export, the
model is not run here: it is written back as ONNX, with every op kept float, and ONNX Runtime runs both files.  A model folder without
samples is a failure, and so are samples without a model: nothing is left out silently.  Models of ops that ONNX never standardized must be
refused with those ops named.

Where an output departs, an evaluation in float64 (float64.py) decides: it must be ONNX Runtime that departs from it (its sigmoid is wrong by
about 1e-7, much where a whole output is near 0: no face in the picture), and ours must be within the same bounds of it.  With export, where it is ONNX
Runtime that runs both files, ours must be no farther from float64 than the original.

Needs numpy, scipy, Pillow, onnx and onnxruntime, of the Python that runs it; exit code 77, which ctest reports as skipped, when one is missing.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import float64
    import model_inputs
    import numpy as np
    import onnxruntime
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

RTOL, ATOL = 1e-3, 1e-4
REFUSED = {"style_candy": ("Affine", "Crop", "ImageScaler")}
onnxruntime.set_default_logger_severity(4)


def tool(*arguments):
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())


def model_options(name, feed):
    bound = model_inputs.BOUND.get(name, {})
    return [a for key, value in bound.items() for a in ("--bind", f"{key}={value}")] + \
           [a for key, value in feed.items() for a in ("--shape", f"{key}={'x'.join(map(str, value.shape))}")]


def stacked(feeds, work):
    np.savez(work / "samples.npz", **{key: np.stack([f[key] for f in feeds]) for key in feeds[0]})
    return f"npz:{work / 'samples.npz'}"


def ours(qcompile, model, options, feeds, ports, engine, work):
    tool(qcompile, "run", model, *options, "-d", stacked(feeds, work), "--output-dir", work / "out", "--engine", engine)
    arrays = [np.load(work / "out" / (re.sub(r"[/\\:]", "_", port) + ".npy")) for port in ports]
    return [[a[i] for a in arrays] for i in range(len(feeds))]


def exported(qcompile, model, options, feeds, ports, constants, work):
    """The outputs of ONNX Runtime on the model as written back."""
    (work / "float.json").write_text('{"global": "float"}')
    tool(qcompile, "quantize", model, *options, "-d", stacked(feeds, work), "--config", work / "float.json", "-o", work / "out.onnx")
    session = onnxruntime.InferenceSession(str(work / "out.onnx"), providers=["CPUExecutionProvider"])
    taken = {port.name for port in session.get_inputs()}
    return [session.run(ports, {key: value for key, value in {**feed, **constants}.items() if key in taken}) for feed in feeds]


def worst_error(name, expected, actual):
    """Largest |difference| in units of what is allowed, and of the largest value."""
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise RuntimeError(f"output {name}: {actual.dtype}{actual.shape} instead of {expected.dtype}{expected.shape}")
    if not expected.size:
        return 0.0, 0.0
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    largest = np.abs(e).max() or 1.0
    difference = np.abs(e - a)
    return float((difference / (RTOL * np.abs(e) + ATOL * largest)).max()), float(difference.max() / largest)


def arbitrated(model, feeds, ports, expected, found, worst, engine):
    """Errors to float64 in the place of those to ONNX Runtime that are too large; names the outputs."""
    named = set()
    for sample, feed in enumerate(feeds):
        departing = [k for k, (allowed, _) in enumerate(worst[sample]) if allowed > 1]
        exact = float64.evaluate(model, feed, [ports[k] for k in departing]) if departing else []
        for k, truth in zip(departing, exact):
            there = worst_error(ports[k], truth.astype(np.float32), expected[sample][k])
            here = worst_error(ports[k], truth.astype(np.float32), found[sample][k])
            if here[0] < there[0]:
                worst[sample][k] = (here[0] / there[0], here[1]) if engine == "export" else here
                named.add(f"{ports[k]} (ONNX Runtime: {there[1]:.1e})")
    return "; to float64: " + ", ".join(sorted(named)) if named else ""


def check_refusal(qcompile, model, ops, work):
    done = subprocess.run([str(qcompile), "inspect", str(model)], capture_output=True, text=True)
    good = done.returncode == 1 and all(op in done.stderr for op in ops)
    return good, "refused: " + " ".join(done.stderr.split())[:100] if good else f"is not refused for its ops: {done.stderr}"


def check(qcompile, shared, name, engine, count, work):
    model = shared / "models" / name / "model.onnx"
    if name in REFUSED:
        return check_refusal(qcompile, model, REFUSED[name], work)
    feeds = model_inputs.MODELS[name](shared)[:count]
    session = model_inputs.session(shared, name)
    ports = [port.name for port in session.get_outputs()]
    constants = {key: np.array(value, np.int64) for key, value in model_inputs.BOUND.get(name, {}).items()}
    expected = [session.run(ports, {**feed, **constants}) for feed in feeds]
    options = model_options(name, feeds[0])
    found = exported(qcompile, model, options, feeds, ports, constants, work) if engine == "export" else \
        ours(qcompile, model, options, feeds, ports, engine, work)
    worst = [[worst_error(*t) for t in zip(ports, e, f)] for e, f in zip(expected, found)]
    note = arbitrated(model, [{**feed, **constants} for feed in feeds], ports, expected, found, worst, engine)
    allowed, relative = max(max(w)[0] for w in worst), max(max(w, key=lambda x: x[1])[1] for w in worst)
    return allowed <= 1, f"largest difference {relative:.1e} of the largest value, {100 * allowed:.1f}% of what is allowed{note}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="models; all when none is named")
    parser.add_argument("--engine", default="jit", choices=["jit", "interpreter", "export"])
    parser.add_argument("--samples", type=int)
    args = parser.parse_intermixed_args()
    count = args.samples or (1 if args.engine == "interpreter" else 3)
    there = {path.parent.name for path in (args.shared / "models").glob("*/model.onnx")}
    names, failed = args.names or sorted(there | {*model_inputs.MODELS}), []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                good, words = check(args.qcompile, args.shared, name, args.engine, count, pathlib.Path(folder))
            except Exception as error:  # noqa: BLE001  a missing model, missing samples, a refusal of either side
                good, words = False, f"FAILED {type(error).__name__} {error}"
        print(f"{name:32} {'ok ' if good else 'BAD'} {words}", flush=True)
        failed += [] if good else [name]
    print(f"{len(names) - len(failed)} of {len(names)} as they must be beside ONNX Runtime {onnxruntime.__version__} ({args.engine})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
