#!/usr/bin/env python3
"""Small models with their right values: every one runs and gives them, or is refused where it must be.

    reports.py QCOMPILE SHARED_DIR [--engine jit|interpreter] [NAME ...]

A folder of SHARED_DIR/reports holds model.onnx, case.json (which file belongs to which input and output, options of the command line) and
the arrays.  Each must give its outputs to 40 dB in float and, where it has samples, 20 dB when quantized; integers exactly.  EXPECTED says where
something else is asked for; a folder without a row is held to the default.  The kinds named in REFUSED are wrong: they must be refused in plain
words, with exit code 1.

Needs numpy; exit code 77, which ctest reports as skipped, without.  The folders of RECORDED_WRONG are left out without onnxruntime.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)
try:
    import onnxruntime
except ImportError:
    onnxruntime = None  # RECORDED_WRONG needs it

FLOAT_DB, INT8_DB = 40, 20
# What is wrong: refused with a message that has this word.
REFUSED = {"85_reshape_below_minus_one": "-2"}
# Outputs that were recorded of other weights (ONNX Runtime and ONNX's reference evaluator agree with one another, and not with them): ONNX
# Runtime is asked instead.
RECORDED_WRONG = {"83_weight_standardized"}
# Decibels asked of the quantized model where they are not INT8_DB.
EXPECTED = {"72_small_weights": 34}


def decibels(expected, actual):
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise RuntimeError(f"{actual.dtype}{actual.shape} instead of {expected.dtype}{expected.shape}")
    if not np.issubdtype(expected.dtype, np.floating):
        return 999.0 if np.array_equal(expected, actual) else -999.0
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    noise, signal = ((e - a) ** 2).sum(), (e ** 2).sum()
    return 999.0 if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise)) if np.isfinite(noise) else -999.0


def tool(*arguments):
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def options_of(case):
    meta = case.get("meta", {})
    return [x for s in meta.get("shape", []) for x in ("--shape", s)] + [x for b in meta.get("bind", []) for x in ("--bind", b)]


def outputs_of(qcompile, model, folder, case, options, work):
    feeds = [x for name, file in case["inputs"].items() for x in ("--input", f"{name}={folder / file}")]
    code, out, err = tool(qcompile, "run", model, *feeds, *options, "--output-dir", work)
    if code:
        raise RuntimeError(f"exit code {code}: {' '.join(err.split())}")
    paths = {line.rsplit(" ", 2)[0]: line.rsplit(" ", 1)[1] for line in out.splitlines() if line.endswith(".npy")}
    return {name: np.load(paths[name]) for name in case["outputs"]}


def worst(expected, found):
    return min(decibels(e, found[name]) for name, e in expected.items())


def check(qcompile, folder, engine, work):
    case = json.loads((folder / "case.json").read_text())
    model, options = folder / "model.onnx", options_of(case)
    word = REFUSED.get(folder.name)
    if word:
        code, _, err = tool(qcompile, "run", model, *[x for n, f in case["inputs"].items() for x in ("--input", f"{n}={folder / f}")],
                            *options, "--output-dir", work)
        return code == 1 and word in err, f"exit code {code}: {' '.join(err.split())[:140]}"
    expected = {name: np.load(folder / file) for name, file in case["outputs"].items()}
    if folder.name in RECORDED_WRONG:
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        expected = dict(zip(expected, session.run(list(expected), {n: np.load(folder / f) for n, f in case["inputs"].items()})))
    run = ["--engine", engine]
    db = worst(expected, outputs_of(qcompile, model, folder, case, options + run, work))
    good, words = db >= FLOAT_DB, f"{db:.1f} dB"
    if (folder / "calib.npz").exists() and case.get("meta", {}).get("modes") != []:  # none: a quantized model
        code, _, err = tool(qcompile, "quantize", model, "-d", f"npz:{folder / 'calib.npz'}", *options, "-o", work / "int8.onnx")
        if code:
            return False, words + f", quantize: {' '.join(err.split())[:200]}"
        int8 = worst(expected, outputs_of(qcompile, work / "int8.onnx", folder, case, run, work))
        good, words = good and int8 >= EXPECTED.get(folder.name, INT8_DB), words + f", quantized {int8:.1f} dB"
    return good, words


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--engine", default="jit", choices=["jit", "interpreter"])
    args = parser.parse_args()
    folders = sorted(p.parent for p in (args.shared / "reports").glob("*/case.json") if not args.names or p.parent.name in args.names)
    left_out = [] if onnxruntime else [f for f in folders if f.name in RECORDED_WRONG]
    for folder in left_out:
        print(f"{folder.name:30} left out: No module named 'onnxruntime'")
        folders.remove(folder)
    failed = 0
    for folder in folders:
        with tempfile.TemporaryDirectory() as work:
            try:
                good, words = check(args.qcompile, folder, args.engine, pathlib.Path(work))
            except Exception as error:  # noqa: BLE001  one folder's failure is reported beside the others
                good, words = False, f"{type(error).__name__} {error}"
        print(f"{folder.name:30} {'ok ' if good else 'BAD'} {words}", flush=True)
        failed += not good
    print(f"{len(folders) - failed} of {len(folders)} as they must be ({args.engine})")
    if not folders and left_out:
        return 77
    return 1 if failed or not folders else 0


if __name__ == "__main__":
    sys.exit(main())
