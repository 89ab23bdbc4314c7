#!/usr/bin/env python3
"""Every form and type setting of ONNX Runtime's quantizers, imported here and held against ONNX Runtime on the same file.

    ort_quantizers.py QCOMPILE SHARED_DIR [--only WORD] [--timing]

Models: a two-layer BERT with embeddings, a CNN with residuals, an LSTM tagger (all made here with random weights), and
SHARED_DIR/models/all_minilm_l6_v2.  Forms: quantize_static as QDQ and as QOperator, quantize_dynamic.  Types of activations and weights: u8 u8,
u8 s8, s8 s8, and u8 s8 per channel with reduced range.  Every output within 40 dB of ONNX Runtime's (without its fusions: what the file says),
and no layer with integer weights without a kernel.

Where an output departs more (a range that an attention mask stretched makes one step of an early layer 40% of the result), node by node: one whose
inputs have the same bytes in both may give integers that are one step apart (ONNX Runtime adds integers in another order, so that ties fall
otherwise), and nothing else.

Needs numpy, onnx and onnxruntime, of the Python that runs it; exit code 77, which ctest reports as skipped, when one is missing.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

try:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto as T
    from onnx import helper, numpy_helper
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

import logging
logging.disable(logging.WARNING)
onnxruntime.set_default_logger_severity(4)
OPTIONS = onnxruntime.SessionOptions()  # what the file says: with its fusions ONNX Runtime itself departs from that, by 30 dB and more
OPTIONS.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
LEAST_DB = 40
FORMS = ("qdq", "qoperator", "dynamic")
TYPES = {"u8u8": ("QUInt8", "QUInt8", {}), "u8s8": ("QUInt8", "QInt8", {}), "s8s8": ("QInt8", "QInt8", {}),
         "u8s8-channel-reduced": ("QUInt8", "QInt8", {"per_channel": True, "reduce_range": True})}


class Builder:
    def __init__(self, seed):
        self.random, self.nodes, self.weights, self.count = np.random.default_rng(seed), [], [], 0

    def weight(self, *shape, scale=None):
        name = f"w{len(self.weights)}"
        scale = scale or 1 / np.sqrt(shape[0] if len(shape) < 3 else np.prod(shape[1:]))
        self.weights.append(numpy_helper.from_array((self.random.normal(size=shape) * scale).astype(np.float32), name))
        return name

    def array(self, value):
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def __call__(self, op, *inputs, outputs=1, **attributes):
        names = [f"v{self.count + i}" for i in range(outputs)]
        self.count += outputs
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op}_{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def model(self, inputs, output, shape):
        graph = helper.make_graph(self.nodes + [helper.make_node("Identity", [output], ["y"], name="out")], "g", inputs,
                                  [helper.make_tensor_value_info("y", T.FLOAT, shape)], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bert(length=12, width=48, heads=4, vocabulary=60):
    b = Builder(1)
    words = b("Gather", b.weight(vocabulary, width, scale=0.5), "ids")
    places = b("Gather", b.weight(length, width, scale=0.5), b.array(np.arange(length)))
    kinds = b("Gather", b.weight(2, width, scale=0.5), "kinds")
    x = b("Add", b("Add", words, places), kinds)
    norm = lambda v: b("LayerNormalization", v, b.array(1 + 0.1 * b.random.normal(size=width).astype(np.float32)), b.weight(width), axis=-1)
    dense = lambda v, size, to: b("Add", b("MatMul", v, b.weight(size, to)), b.weight(to, scale=0.1))
    x = norm(x)
    split = lambda v, perm: b("Transpose", b("Reshape", v, b.array(np.array([0, 0, heads, width // heads]))), perm=perm)
    for _ in range(2):
        q, k, v = (split(dense(x, width, width), p) for p in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        scores = b("Softmax", b("Div", b("MatMul", q, k), b.array(np.float32(np.sqrt(width // heads)))), axis=-1)
        mixed = b("Reshape", b("Transpose", b("MatMul", scores, v), perm=[0, 2, 1, 3]), b.array(np.array([0, 0, width])))
        x = norm(b("Add", x, dense(mixed, width, width)))
        h = dense(x, width, 4 * width)
        h = b("Mul", b("Mul", h, b.array(np.float32(0.5))), b("Add", b("Erf", b("Div", h, b.array(np.float32(np.sqrt(2))))), b.array(np.float32(1))))
        x = norm(b("Add", x, dense(h, 4 * width, width)))
    inputs = [helper.make_tensor_value_info(n, T.INT64, [1, length]) for n in ("ids", "kinds")]
    return b.model(inputs, x, [1, length, width]), lambda r: {"ids": r.integers(0, vocabulary, (1, length)), "kinds": r.integers(0, 2, (1, length))}


def cnn(size=24):
    b = Builder(2)
    conv = lambda x, i, o, k=3, **more: b("Conv", x, b.weight(o, i, k, k), b.weight(o, scale=0.1), pads=[k // 2] * 4, **more)
    x = b("Relu", conv("x", 3, 16))
    for i, o, s in ((16, 16, 1), (16, 32, 2), (32, 32, 1)):
        y = conv(b("Relu", conv(x, i, o, strides=[s, s])), o, o)
        x = b("Relu", b("Add", y, x if i == o else conv(x, i, o, 1, strides=[s, s])))
    x = b("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b("Flatten", b("GlobalAveragePool", x))
    x = b("Gemm", x, b.weight(32, 10), b.weight(10))
    return b.model([helper.make_tensor_value_info("x", T.FLOAT, [1, 3, size, size])], x, [1, 10]), \
        lambda r: {"x": r.normal(size=(1, 3, size, size)).astype(np.float32)}


def tagger(length=10, width=32, hidden=24, vocabulary=80):
    b = Builder(3)
    x = b("Transpose", b("Gather", b.weight(vocabulary, width, scale=0.7), "ids"), perm=[1, 0, 2])
    uniform = lambda *shape: b.array((b.random.uniform(-1, 1, shape) / np.sqrt(hidden)).astype(np.float32))
    y = b("LSTM", x, uniform(2, 4 * hidden, width), uniform(2, 4 * hidden, hidden), uniform(2, 8 * hidden), direction="bidirectional",
          hidden_size=hidden)
    y = b("Reshape", b("Transpose", y, perm=[2, 0, 1, 3]), b.array(np.array([0, 0, -1])))
    y = b("Add", b("MatMul", y, b.weight(2 * hidden, 9)), b.weight(9))
    return b.model([helper.make_tensor_value_info("ids", T.INT64, [1, length])], y, [1, length, 9]), \
        lambda r: {"ids": r.integers(0, vocabulary, (1, length))}


def minilm(shared):
    folder = shared / "models" / "all_minilm_l6_v2"
    model = onnx.load(folder / "model.onnx")
    for value in model.graph.input:
        for d, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.ClearField("dim_param")
            dim.dim_value = (1, 16)[d]
    names = [v.name for v in model.graph.input]

    def feed(r):
        ids = r.integers(1000, 20000, (1, 16))
        return {n: ids if "ids" in n and "type" not in n else np.ones((1, 16), np.int64) if "mask" in n else np.zeros((1, 16), np.int64) for n in names}
    return model, feed


class Samples(CalibrationDataReader):
    def __init__(self, feed, count=8):
        random = np.random.default_rng(5)
        self.rest = iter([feed(random) for _ in range(count)])

    def get_next(self):
        return next(self.rest, None)


def quantized(source, target, form, types, feed):
    activations, weights, more = TYPES[types]
    activations, weights = getattr(QuantType, activations), getattr(QuantType, weights)
    if form == "dynamic":
        quantize_dynamic(source, target, weight_type=weights, **more)
    else:
        quantize_static(source, target, Samples(feed), quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator,
                        activation_type=activations, weight_type=weights, **more)


def decibels(expected, actual):
    if expected.shape != actual.shape:
        raise RuntimeError(f"{actual.shape} instead of {expected.shape}")
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    noise = ((e - a) ** 2).sum()
    return 999.0 if noise == 0 else float(10 * np.log10((e ** 2).sum() / noise))


def tool(*arguments):
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(done.stderr.split())[:300]}")
    return done.stdout


# Ops that hold integer weights or the products of integers: they must not be left to the evaluation.
def without_kernel(qcompile, model):
    steps = json.loads(tool(qcompile, "inspect", model, "--kernels", "--json"))["kernels"]
    layers = ("q.", "k.", "conv", "linear", "matmul", "gather", "lstm")
    return [s["op"] + " " + s["node"] for s in steps if s["kernel"] == "reference" and s["op"].startswith(layers)]


def check(qcompile, model, feed, form, types, work):
    onnx.save(model, work / "float.onnx")
    quantized(work / "float.onnx", work / "q.onnx", form, types, feed)
    session = onnxruntime.InferenceSession(str(work / "q.onnx"), OPTIONS, providers=["CPUExecutionProvider"])
    names, worst = [o.name for o in session.get_outputs()], 999.0
    for sample in range(3):
        arrays = feed(np.random.default_rng(100 + sample))
        arguments = []
        for name, array in arrays.items():
            np.save(work / f"{name}.npy", array)
            arguments += ["--input", f"{name}={work / name}.npy"]
        out = tool(qcompile, "run", work / "q.onnx", *arguments, "--output-dir", work / "out")
        paths = {line.rsplit(" ", 2)[0]: line.rsplit(" ", 1)[1] for line in out.splitlines() if line.endswith(".npy")}
        for name, expected in zip(names, session.run(names, arrays)):
            worst = min(worst, decibels(expected, np.load(paths[name])))
    left = without_kernel(qcompile, work / "q.onnx")
    return worst, left, session, arrays


# Nodes that compute something else from the same inputs.
def departing(qcompile, arrays, work):
    model = onnx.load(work / "q.onnx")
    names = [o for n in model.graph.node for o in n.output if o]
    del model.graph.output[:]
    for i, name in enumerate(names):
        model.graph.node.append(helper.make_node("Identity", [name], [f"value{i:05d}"]))
        model.graph.output.append(helper.make_empty_tensor_value_info(f"value{i:05d}"))
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), OPTIONS, providers=["CPUExecutionProvider"]).run(None, arrays)
    del model.graph.output[:]
    for i, value in enumerate(theirs):
        model.graph.output.append(helper.make_tensor_value_info(f"value{i:05d}", helper.np_dtype_to_tensor_dtype(value.dtype), value.shape))
    onnx.save(model, work / "values.onnx")
    arguments = [x for name in arrays for x in ("--input", f"{name}={work / name}.npy")]
    tool(qcompile, "run", work / "values.onnx", *arguments, "--output-dir", work / "values")
    same, found = {}, []
    for i, (name, value) in enumerate(zip(names, theirs)):
        ours = np.load(work / "values" / f"value{i:05d}.npy")
        difference = np.abs(ours.astype(np.float64) - value.astype(np.float64)).max(initial=0)
        largest = np.abs(value.astype(np.float64)).max(initial=0)
        same[name] = difference == 0 if value.dtype.kind in "iub" else difference <= 1e-5 * largest
        step = value.dtype in (np.uint8, np.int8) and difference <= 1
        node = next(n for n in model.graph.node if name in n.output)
        if not same[name] and not step and all(same.get(x, True) for x in node.input):
            found.append(f"{node.op_type} {node.name}: {difference:g} of {largest:g}")
    return found


def timing(qcompile, session, arrays, work):
    best = 1e9
    for _ in range(30):
        start = time.perf_counter()
        session.run(None, arrays)
        best = min(best, time.perf_counter() - start)
    out = json.loads(tool(qcompile, "bench", work / "q.onnx", "--json", "--seconds", "1"))
    return f", {out['min_ms'] if 'min_ms' in out else out} ms, ONNX Runtime {best * 1e3:.3f} ms"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--only", default="", help="those whose name has this word")
    parser.add_argument("--timing", action="store_true")
    args = parser.parse_args()
    models = {"bert": bert, "cnn": cnn, "tagger": tagger, "minilm": lambda: minilm(args.shared)}
    failed = done = 0
    for name, make in models.items():
        for form in FORMS:
            for types in TYPES:
                label = f"{name}/{form}/{types}"
                if args.only not in label:
                    continue
                model, feed = make()
                done += 1
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        work = pathlib.Path(folder)
                        db, left, session, arrays = check(args.qcompile, model, feed, form, types, work)
                        apart = departing(args.qcompile, arrays, work) if db < LEAST_DB else []
                        good = not apart and not left
                        words = f"{db:.1f} dB" + (" by steps of one at ties" if db < LEAST_DB and not apart else "")
                        words += "".join(f"; {a}" for a in apart[:3]) + (f", without a kernel: {', '.join(left[:3])} ({len(left)})" if left else "")
                        words += timing(args.qcompile, session, arrays, work) if args.timing else ""
                    except Exception as error:  # noqa: BLE001  one failure is reported beside the others
                        good, words = False, f"{type(error).__name__} {error}"
                print(f"{label:38} {'ok ' if good else 'BAD'} {words}", flush=True)
                failed += not good
    print(f"{done - failed} of {done} as ONNX Runtime {onnxruntime.__version__}, on kernels")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
