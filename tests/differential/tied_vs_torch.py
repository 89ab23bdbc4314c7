#!/usr/bin/env python3
"""Weights that a model reads in several forms, in training: one tensor of the file is one parameter, as in PyTorch.

    tied_vs_torch.py QCOMPILE [--only NAME,..]

Small models read one initializer twice, transposed, in other dims, in parts, as halves; or two biases of zeros, which are two parameters.  Each is trained as floats by `finetune --mode float` and by PyTorch node by node, the same batches and steps of SGD: losses agree
within 1e-4 of them, and so do the results of the file that is written.  Rounded, with all recipes of `quantize`, there are as many parameters.
Needs torch, onnx, onnxruntime, numpy; exit code 77, which ctest reports as skipped, when something is missing.
"""
import argparse
import json
import pathlib
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnxruntime
    import torch
    from onnx import TensorProto, helper, numpy_helper
    from gradients_vs_torch import OPS, attributes, from_numpy
    from qat_vs_torch import order_of, tool, written
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

SAMPLES, BATCH, EPOCHS, RATE, MOMENTUM, SEED = 64, 16, 5, 0.1, 0.9, 3
CLOSE = 1e-4
N = helper.make_node


def numbers(random, *sizes):
    return random.normal(size=sizes).astype(np.float32) / np.float32(np.sqrt(sizes[-1]))


def embedding(r):
    """Looked up by the ids, and transposed by the layer of the scores."""
    weights = {"e": numbers(r, 12, 8), "w": numbers(r, 8, 8), "b": numbers(r, 8)}
    return [N("Gather", ["e", "x"], ["rows"]), N("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0), N("Gemm", ["mean", "w", "b"], ["h"], transB=1),
            N("Relu", ["h"], ["a"]), N("Transpose", ["e"], ["t"], perm=[1, 0]), N("MatMul", ["a", "t"], ["y"])], weights, r.integers(0, 12, (SAMPLES, 4))


def embedding_other(r):
    """The same, stored as the layer of the scores reads it."""
    weights = {"e": numbers(r, 8, 12)}
    return [N("Transpose", ["e"], ["t"], perm=[1, 0]), N("Gather", ["t", "x"], ["rows"]), N("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0),
            N("Tanh", ["mean"], ["a"]), N("Gemm", ["a", "e"], ["y"])], weights, r.integers(0, 12, (SAMPLES, 4))


def both_ways(r):
    """An encoder whose decoder is its transpose."""
    weights = {"w": numbers(r, 6, 8), "b": numbers(r, 6)}
    return [N("Gemm", ["x", "w", "b"], ["h"], transB=1), N("Relu", ["h"], ["a"]), N("Gemm", ["a", "w"], ["y"])], weights, numbers(r, SAMPLES, 8) * 3


def twice(r):
    """Neither reader as it is stored."""
    weights = {"w": numbers(r, 8, 8)}
    return [N("MatMul", ["x", "w"], ["h"]), N("Relu", ["h"], ["a"]), N("Gemm", ["a", "w"], ["y"])], weights, numbers(r, SAMPLES, 8) * 3


def reshaped(r):
    """The kernel of a convolution, and a matrix."""
    weights = {"w": numbers(r, 8, 8), "dims": np.array([8, 8, 1, 1]), "flat": np.array([0, 8])}
    return [N("Reshape", ["w", "dims"], ["k"]), N("Conv", ["x", "k"], ["h"]), N("Relu", ["h"], ["a"]), N("GlobalAveragePool", ["a"], ["p"]),
            N("Reshape", ["p", "flat"], ["f"]), N("Gemm", ["f", "w"], ["y"], transB=1)], weights, numbers(r, SAMPLES, 8, 2, 2) * 3


def squeezed(r):
    """A dim of size 1 that one reader does not have."""
    weights = {"w": numbers(r, 8, 8, 1), "axis": np.array([2]), "flat": np.array([0, 8])}
    return [N("Conv", ["x", "w"], ["h"]), N("Relu", ["h"], ["a"]), N("GlobalAveragePool", ["a"], ["p"]), N("Reshape", ["p", "flat"], ["f"]),
            N("Squeeze", ["w", "axis"], ["m"]), N("Gemm", ["f", "m"], ["y"])], weights, numbers(r, SAMPLES, 8, 3) * 3


def cut(r):
    """All rows, and some."""
    weights = {"w": numbers(r, 8, 8), "from": np.array([2]), "to": np.array([7]), "axis": np.array([0])}
    return [N("Gemm", ["x", "w"], ["h"], transB=1), N("Relu", ["h"], ["a"]), N("Slice", ["w", "from", "to", "axis"], ["s"]),
            N("Gemm", ["a", "s"], ["y"], transB=1)], weights, numbers(r, SAMPLES, 8) * 3


def overlapping(r):
    """Two parts that have rows in common; nothing reads the whole."""
    weights = {"w": numbers(r, 8, 6), "zero": np.array([0]), "two": np.array([2]), "six": np.array([6]), "eight": np.array([8]), "axis": np.array([0])}
    return [N("Slice", ["w", "zero", "six", "axis"], ["s"]), N("Gemm", ["x", "s"], ["h"], transB=1), N("Relu", ["h"], ["a"]),
            N("Slice", ["w", "two", "eight", "axis"], ["u"]), N("Gemm", ["a", "u"], ["y"])], weights, numbers(r, SAMPLES, 6) * 3


def parts(r):
    """Three parts of one tensor that have nothing in common."""
    weights = {"w": numbers(r, 18, 6)}
    return [N("Split", ["w"], ["p", "q", "s"], axis=0, num_outputs=3), N("Gemm", ["x", "p"], ["h"], transB=1), N("Relu", ["h"], ["a"]), N("Gemm", ["a", "q"], ["i"]),
            N("Tanh", ["i"], ["c"]), N("Gemm", ["c", "s"], ["y"])], weights, numbers(r, SAMPLES, 6) * 3


def halves(r):
    """Stored in 16 bits, widened for each reader."""
    weights = {"w": numbers(r, 8, 8).astype(np.float16)}
    return [N("Cast", ["w"], ["wide"], to=1), N("Gemm", ["x", "wide"], ["h"], transB=1), N("Relu", ["h"], ["a"]), N("Cast", ["w"], ["other"], to=1),
            N("MatMul", ["a", "other"], ["y"])], weights, numbers(r, SAMPLES, 8) * 3


def unrolled(r):
    """The same layer three times."""
    weights = {"w": numbers(r, 8, 8), "b": numbers(r, 8)}
    nodes, x = [], "x"
    for i in range(3):
        nodes += [N("MatMul", [x, "w"], [f"m{i}"]), N("Add", [f"m{i}", "b"], [f"s{i}"]), N("Tanh", [f"s{i}"], [f"a{i}"])]
        x = f"a{i}"
    return nodes + [N("Gemm", [x, "w"], ["y"], transB=1)], weights, numbers(r, SAMPLES, 8) * 3


def apart(r):
    """Biases of zeros, stored twice: equal, and two parameters."""
    weights = {"w": numbers(r, 8, 8), "v": numbers(r, 8, 8), "b": np.zeros(8, np.float32), "c": np.zeros(8, np.float32)}
    return [N("Gemm", ["x", "w", "b"], ["h"], transB=1), N("Relu", ["h"], ["a"]), N("Gemm", ["a", "v", "c"], ["y"], transB=1)], weights, numbers(r, SAMPLES, 8) * 3


CASES = [embedding, embedding_other, both_ways, twice, reshaped, squeezed, cut, overlapping, parts, halves, unrolled, apart]


def model_of(nodes, weights, x):
    kind = TensorProto.FLOAT if x.dtype == np.float32 else TensorProto.INT64
    graph = helper.make_graph(nodes, "tied", [helper.make_tensor_value_info("x", kind, ["N", *x.shape[1:]])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "K"])],
                              [numpy_helper.from_array(w, name) for name, w in weights.items()])
    opset = 18 if any(n.op_type == "Split" for n in nodes) else 17
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def extra(name):
    return {"Split": lambda a, x: torch.chunk(x, a["num_outputs"], a["axis"]), "Squeeze": lambda a, x, axes: x.squeeze(tuple(axes.tolist()))}[name]


def scores(nodes, values, x):
    values = {**values, "x": torch.from_numpy(x)}
    for node in nodes:
        results = (OPS.get(node.op_type) or extra(node.op_type))(attributes(node), *[values[i] for i in node.input])
        for name, result in zip(node.output, results if isinstance(results, tuple) else (results,)):
            values[name] = result
    return values["y"]


def torch_training(nodes, weights, x, labels):
    values = {name: from_numpy(w) for name, w in weights.items()}
    parameters = [v.requires_grad_() for v in values.values() if v.is_floating_point()]
    optimizer, losses = torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM), []
    for epoch in range(EPOCHS):
        order = np.array(order_of(SAMPLES, SEED, epoch))
        for place in range(0, SAMPLES, BATCH):
            indices = order[place:place + BATCH]
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(scores(nodes, values, x[indices]), torch.from_numpy(labels[indices]))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return np.array(losses), scores(nodes, values, x).detach().numpy()


def training_here(qcompile, work, *more):
    (work / "rules.json").write_text('{"force": true}')  # layers as small as these would stay float
    said = json.loads(tool(qcompile, "finetune", work / "m.onnx", "-d", f"npy:{work}/train.npy", "--labels", work / "train.tsv", "--hold-out", 0, "--optimizer", "sgd", "--momentum", MOMENTUM,
                           "--schedule", "constant", "--lr", RATE, "--batch", BATCH, "--epochs", EPOCHS, "--seed", SEED, "--json", "-o", work / "o.onnx", *more))
    return said["trained"], np.array(said["losses"]), onnxruntime.InferenceSession(work / "o.onnx", providers=["CPUExecutionProvider"])


def compare(qcompile, case, work):
    nodes, weights, x = case(np.random.default_rng(11))
    onnx.save(model_of(nodes, weights, x), work / "m.onnx")
    with torch.no_grad():
        count = scores(nodes, {name: from_numpy(w) for name, w in weights.items()}, x).shape[1]
    labels = np.random.default_rng(5).integers(0, count, SAMPLES)
    written(work, "train", x, labels)
    wanted, results = torch_training(nodes, weights, x, labels)
    stored = 3 if case is parts else sum(w.dtype != np.int64 for w in weights.values())
    trained, losses, session = training_here(qcompile, work, "--mode", "float")
    found = session.run(None, {"x": x})[0]
    apart_by, results_by = np.max(np.abs(losses / wanted - 1)), np.max(np.abs(found - results)) / np.max(np.abs(results))
    bad = apart_by > CLOSE or results_by > 10 * CLOSE or trained != stored or not wanted[-4:].mean() < wanted[:4].mean()
    print(f"{case.__name__:16} {'FAIL' if bad else 'ok  '} {trained} of {stored} parameters, losses {wanted[:4].mean():.5f} to {wanted[-4:].mean():.5f}, apart by {apart_by:.1e}; "
          f"results of the file by {results_by:.1e}", flush=True)
    for scales in ("observed", "learned"):  # and as integers
        trained, losses, session = training_here(qcompile, work, "--config", work / "rules.json", "--scales", scales, "--ranges", "fixed")
        session.run(None, {"x": x})
        if (trained != stored if scales == "observed" else trained <= stored) or not losses[-4:].mean() < losses[:4].mean():
            print(f"{'':16} FAIL rounded, with scales that are {scales}: {trained} parameters, {losses[:4].mean():.5f} to {losses[-4:].mean():.5f}", flush=True)
            bad = True
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("--only")
    args = parser.parse_args()
    torch.set_default_dtype(torch.float32)
    failed = False
    for case in CASES:
        if args.only and case.__name__ not in args.only.split(","):
            continue
        with tempfile.TemporaryDirectory() as work:
            failed |= bool(compare(args.qcompile.resolve(), case, pathlib.Path(work)))
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
