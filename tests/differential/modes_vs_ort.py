#!/usr/bin/env python3
"""Models quantized without samples, exported as ONNX: what ONNX Runtime computes of the files beside what we do.

    modes_vs_ort.py QCOMPILE SHARED_DIR [--mode MODE] [NAME ...]

For every mode and model, on 3 samples of its own kind of input (model_inputs.py).  weight-only and fp16-weights keep float arithmetic: the
bounds are those of float_vs_ort.py.  dynamic rounds activations at run time: engines that differ in the last bit round some of them to
another step, and all that follows sees other integers.  So there, unless it is within the bounds of float anyway, the difference between
the engines must be at most half of what the quantization itself changed, or twice what ONNX Runtime's own outputs change when its float
inputs move by one part in a million.

Needs numpy, scipy, Pillow, onnx and onnxruntime, of the Python that runs it; exit code 77, which ctest reports as skipped, when one is missing.
"""
import argparse
import pathlib
import sys
import tempfile

try:
    import model_inputs
    import numpy as np
    import onnxruntime
    from float_vs_ort import model_options, ours, tool, worst_error
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

SHARE, JITTER = 0.5, 1e-6
MODES = {
    "dynamic": ["--mode", "dynamic"], "per-tensor": ["--mode", "dynamic", "--per-tensor"], "per-token": ["--mode", "dynamic", "--per-token"], "weight-only": ["--mode", "weight-only"],
    "int4": ["--mode", "weight-only", "--weight-bits", "4", "--group-size", "32"], "fp16-weights": ["--mode", "fp16-weights"],
}
MODELS = ["all_minilm_l6_v2", "kwt1_transformer", "ncf_mlp_ml1m", "resemblyzer_lstm", "g2pm_bilstm", "easyocr_en_g2", "silero_vad", "g2p_en_decoder",
          "plcmos_v2", "mlperftiny_kws_dscnn"]


def node_by_node():
    """As the file says.  Its optimizer makes MatMulNBits of integer weights with a float MatMul, which rounds the activations to 8 bits."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def nudge(feed):
    rng = np.random.default_rng(0)
    move = lambda v: (v * (1 + JITTER * rng.standard_normal(v.shape))).astype(v.dtype)  # noqa: E731
    return {key: move(value) if value.dtype == np.float32 else value for key, value in feed.items()}


def rms(pairs):
    """Root of the mean, over outputs, of the mean square difference in units of the output's own mean square."""
    return float(np.sqrt(np.mean([np.mean(np.square(a - b)) / max(np.mean(np.square(a)), 1e-30) for a, b in pairs])))


def check(qcompile, shared, name, mode, work):
    model, quantized = shared / "models" / name / "model.onnx", work / "q.onnx"
    feeds = model_inputs.MODELS[name](shared)[:3]
    options = model_options(name, feeds[0])
    tool(qcompile, "quantize", model, *options, *MODES[mode], "-o", quantized)
    plain = model_inputs.session(shared, name)
    ports = [port.name for port in plain.get_outputs()]
    constants = {key: np.array(value, np.int64) for key, value in model_inputs.BOUND.get(name, {}).items()}
    session = onnxruntime.InferenceSession(str(quantized), node_by_node(), providers=["CPUExecutionProvider"])
    taken = {port.name for port in session.get_inputs()}
    exact = [plain.run(ports, {**feed, **constants}) for feed in feeds]
    run = lambda feed: session.run(ports, {key: value for key, value in feed.items() if key in taken})  # noqa: E731
    there, nudged = [run(feed) for feed in feeds], [run(nudge(feed)) for feed in feeds]
    here = ours(qcompile, quantized, model_options("", feeds[0]), feeds, ports, "jit", work)
    flat = lambda runs: [v.astype(np.float64) for run in runs for v in run]  # noqa: E731
    worst = max(worst_error(*t)[0] for e, f in zip(there, here) for t in zip(ports, e, f))
    between, change = rms(zip(flat(there), flat(here))), rms(zip(flat(exact), flat(there)))
    own = rms(zip(flat(there), flat(nudged)))
    good = worst <= 1 or ("dynamic" in MODES[mode] and between <= max(SHARE * change, 2 * own))
    return good, f"{quantized.stat().st_size / 1e6:6.2f} MB, between the engines {between:.1e}, quantization {change:.1e}, ONNX Runtime nudged {own:.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="models; all when none is named")
    parser.add_argument("--mode", choices=MODES, action="append")
    args = parser.parse_intermixed_args()
    failed = []
    for name in args.names or MODELS:
        for mode in args.mode or MODES:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    good, words = check(args.qcompile, args.shared, name, mode, pathlib.Path(folder))
                except Exception as error:  # noqa: BLE001
                    good, words = False, f"FAILED {' '.join(str(error).split())[:400]}"
            print(f"{name:22} {mode:13} {'ok ' if good else 'BAD'} {words}", flush=True)
            failed += [] if good else [f"{name} ({mode})"]
    print("not the same: " + ", ".join(failed) if failed else f"all agree with ONNX Runtime {onnxruntime.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
