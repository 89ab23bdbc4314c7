#!/usr/bin/env python3
"""Noise layer by layer, ours beside ONNX Runtime's static quantizer: where does a difference between two scores come from?

    layers_vs_ort.py QCOMPILE SHARED_DIR [--only NAME,..] [--method ort-s8-minmax] [--samples N] [--all]

Both quantize with the same calibration samples.  For every layer whose result both hold in int8: signal to quantization noise in dB against the
float model's value of the same name, over the first N calibration samples; ours as `qcompile quantize` reports it.
One line per model: layers compared, how many are closer to float here, lowest and median of either; --all: every layer.
Needs what SHARED_DIR/peers/accuracy.py needs; exit code 77, which ctest reports as skipped, when something is missing.
"""
import argparse
import contextlib
import json
import pathlib
import sys
import tempfile

import accuracy as ours
import numpy as np

try:
    import onnx
    import onnxruntime
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

MODELS = "squeezenet1.1_imagenet,efficientnet_lite0,cifar10_resnet20,cifar10_resnet56,mlperftiny_kws_dscnn,crepe_tiny,ncf_mlp_ml1m,all_minilm_l6_v2_padded"


def values_of(model, names, feeds):
    """name -> the arrays of that value, one per feed."""
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = [session.run(names, f) for f in feeds]
    return {n: [r[i] for r in results] for i, n in enumerate(names)}


def noise_of_ort(peers, method, model, calibration, feeds, work):
    """Name of a float value -> SQNR in dB of what ONNX Runtime's model holds in its place."""
    with contextlib.chdir(work):  # where it leaves files of its own
        peers.quantize_ort(method, model, calibration, work / "ort.onnx")
    quantized, ready = onnx.load(work / "ort.onnx"), onnx.load(work / "ort.ready.onnx")
    made = {o for node in ready.graph.node for o in node.output if node.op_type != "Constant"}
    source = {node.output[0]: node.input[0] for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    held = {}
    for node in quantized.graph.node:
        if node.op_type == "DequantizeLinear" and source.get(node.input[0]) in made:
            held.setdefault(source[node.input[0]], node.output[0])
    before = values_of(ready, list(held), feeds)
    after = values_of(quantized, list(held.values()), feeds)
    return {name: ours.sqnr(before[name], after[dq]) for name, dq in held.items()}


def noise_here(qcompile, model, calibration, samples, work):
    """The same of ours, by the name of the value; qcompile names nodes, so the model tells which values they make."""
    named = {}
    for node in onnx.load(model, load_external_data=False).graph.node:
        for output in node.output:
            named.setdefault(node.name or f"{node.op_type}:{output}", output)
    report = json.loads(ours.tool(qcompile, "quantize", model, "-d", ours.stack(calibration, work / "calib.npz"),
                                  "--check", f"npz:{work / 'calib.npz'}?limit={samples}", "--compare-samples", samples, "--json", "-o", work / "ours.onnx"))
    return {named.get(row["node"], row["node"]): row["sqnr_db"] for row in report["layers"] if row["op"] != "output"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--only", default=MODELS)
    parser.add_argument("--method", default="ort-s8-minmax")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    args.qcompile, args.shared = args.qcompile.resolve(), args.shared.resolve()
    peers = ours.load_peers(args.shared)
    print("| model | layers | closer to float here | lowest, ours/theirs | median, ours/theirs |\n" + "| --- " * 5 + "|")
    for name in args.only.split(","):
        entry = peers.TABLE[name]
        model = args.shared / "models" / (entry.folder or name) / "model.onnx"
        calibration = entry.data()[0]()[:peers.CALIBRATION_LIMIT]
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            theirs = noise_of_ort(peers, args.method, model, calibration, calibration[:args.samples], work)
            here = noise_here(args.qcompile, model, calibration, args.samples, work)
        both = [n for n in here if n in theirs]
        if not both:
            print(f"| {name} | no layer by the same name: ours {list(here)[:3]}, theirs {list(theirs)[:3]} |", flush=True)
            continue
        a, b = np.array([here[n] for n in both]), np.array([theirs[n] for n in both])
        print(f"| {name} | {len(both)} | {(a > b).sum()} | {a.min():.1f}/{b.min():.1f} | {np.median(a):.1f}/{np.median(b):.1f} |", flush=True)
        for n in both if args.all else []:
            print(f"|   {n} | | | {here[n]:.1f}/{theirs[n]:.1f} | |")


if __name__ == "__main__":
    main()
