#!/usr/bin/env python3
"""`qcompile debug` on files that other tools quantized: layers are found, and their figures are those of ONNX Runtime's values.

    debug_vs_ort.py QCOMPILE

Small networks, made here, are quantized by ONNX Runtime (QuantizeLinear and DequantizeLinear, QOperator, dynamic; after BatchNorm was folded, or
before) and, where it is installed, by NNCF, and written again as other exporters write them (a Cast between quantize and dequantize, no names of
nodes).  Each file beside its float model: SQNR, cosine and mean squared error of every layer are computed again with numpy from what ONNX Runtime
has at the two values that the layer names; every layer whose weights the file holds in integers is matched, its weights as well.  Needs
onnxruntime, onnx and numpy; exit code 77 without.
"""
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)
try:
    import nncf
except ImportError:
    nncf = None

warnings.filterwarnings("ignore")
onnxruntime.set_default_logger_severity(4)
QCOMPILE = sys.argv[1]
SAMPLES, MOST_APART, LEAST_WEIGHTS = 12, 0.5, 25
RNG = np.random.default_rng(7)


def drawn(*shape, scale=0.3):
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


class Net:
    def __init__(self, inputs, outputs):
        self.nodes, self.constants, self.inputs, self.outputs = [], [], inputs, outputs

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"/{name}/{op}", **attributes))
        return name

    def conv(self, x, name, cin, cout, size, group=1, norm=True):
        w, b = self.constant(f"{name}.w", drawn(cout, cin // group, size, size)), self.constant(f"{name}.b", drawn(cout))
        y = self.add("Conv", [x, w, b], name, kernel_shape=[size, size], pads=[size // 2] * 4, group=group)
        if not norm:
            return y
        parts = [self.constant(f"{name}.{k}", v) for k, v in (("s", 1 + abs(drawn(cout))), ("o", drawn(cout)), ("m", drawn(cout)), ("v", 1 + abs(drawn(cout))))]
        return self.add("BatchNormalization", [y, *parts], f"{name}.norm")

    def save(self, path):
        graph = helper.make_graph(self.nodes, "g", [helper.make_tensor_value_info(*i) for i in self.inputs],
                                  [helper.make_tensor_value_info(*o) for o in self.outputs], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def convolutions(norm=True):
    net = Net([("image", TensorProto.FLOAT, ["N", 3, 12, 12])], [("scores", TensorProto.FLOAT, ["N", 6]), ("aux", TensorProto.FLOAT, ["N", 3])])
    zero, six = net.constant("zero", np.float32(0)), net.constant("six", np.float32(6))
    x = net.add("Relu", [net.conv("image", "stem", 3, 16, 3, norm=norm)], "act")
    x = net.add("Clip", [net.conv(x, "deep", 16, 16, 3, group=16, norm=norm), zero, six], "bounded")
    y = net.add("Add", [net.conv(x, "wide", 16, 16, 1, norm=norm), x], "sum")
    y = net.add("ReduceMean", [net.add("Relu", [y], "last")], "mean", axes=[2, 3], keepdims=0)
    for name, out in (("scores", 6), ("aux", 3)):
        net.add("Gemm", [y, net.constant(f"{name}.w", drawn(out, 16)), net.constant(f"{name}.b", drawn(out))], name, transB=1)
    return net, [{"image": drawn(1, 3, 12, 12, scale=1)} for _ in range(SAMPLES)]


def folded():
    return convolutions(norm=False)


def tokens():
    """Integer inputs, products of values, a product whose input is a table of integers in dynamic files."""
    net = Net([("ids", TensorProto.INT64, ["N", "T"]), ("mask", TensorProto.FLOAT, ["N", "T", "T"])], [("y", TensorProto.FLOAT, ["N", "T", 5])])
    x = net.add("Gather", [net.constant("table", drawn(30, 16)), "ids"], "rows")
    q, k, v = (net.add("MatMul", [x, net.constant(f"{n}.w", drawn(16, 16))], n) for n in "qkv")
    s = net.add("Add", [net.add("MatMul", [q, net.add("Transpose", [k], "turned", perm=[0, 2, 1])], "pairs"), "mask"], "scores")
    x = net.add("Add", [net.add("MatMul", [net.add("Softmax", [s], "shares", axis=-1), v], "mixed"), x], "sum")
    x = net.add("Relu", [net.add("MatMul", [x, net.constant("f.w", drawn(16, 32))], "f")], "act")
    net.add("MatMul", [x, net.constant("g.w", drawn(32, 5))], "y")
    return net, [{"ids": RNG.integers(0, 30, (1, n)), "mask": drawn(1, n, n)} for n in [7] * (SAMPLES - 2) + [7, 7]]


def shared():
    net = Net([("x", TensorProto.FLOAT, [1, 4, 8])], [("y", TensorProto.FLOAT, [1, 4, 8])])
    w = net.constant("w", drawn(8, 8))
    x = net.add("Relu", [net.add("MatMul", ["x", w], "first")], "act")
    net.add("MatMul", [net.add("Add", [net.add("MatMul", [x, w], "second"), "x"], "sum"), w], "y")
    return net, [{"x": drawn(1, 4, 8, scale=1)} for _ in range(SAMPLES)]


class Reader(CalibrationDataReader):
    def __init__(self, samples):
        self.left = iter(samples)

    def get_next(self):
        return next(self.left, None)


def with_casts(source, path):
    """Between every QuantizeLinear and what reads its integers, as PyTorch's exporter puts them there; nodes lose their names."""
    model = onnx.load(source)
    made = {n.output[0]: n for n in model.graph.node if n.op_type == "QuantizeLinear"}
    nodes = []
    for n in model.graph.node:
        if n.op_type == "DequantizeLinear" and n.input[0] in made:
            nodes.append(helper.make_node("Cast", [n.input[0]], [f"{n.output[0]}_cast"], to=TensorProto.UINT8))
            n.input[0] = f"{n.output[0]}_cast"
        nodes.append(n)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for n in model.graph.node:
        n.ClearField("name")
    onnx.save(model, path)


def files_of(work, float_model, samples):
    """(how, path) of every way in which the float model is quantized."""
    for how, make in {
        "QDQ": lambda p: quantize_static(float_model, p, Reader(samples), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
                                         weight_type=QuantType.QInt8),
        "QOperator": lambda p: quantize_static(float_model, p, Reader(samples), quant_format=QuantFormat.QOperator, activation_type=QuantType.QUInt8,
                                               weight_type=QuantType.QInt8),
        "dynamic": lambda p: quantize_dynamic(float_model, p, weight_type=QuantType.QInt8),
        "casts": lambda p: with_casts(work / "QDQ.onnx", p),
        "nncf": lambda p: onnx.save(nncf.quantize(onnx.load(float_model), nncf.Dataset(samples), subset_size=len(samples)), p) if nncf else None,
    }.items():
        path = work / f"{how}.onnx"
        make(path)
        if path.exists():
            yield how, path
            path.unlink() if how != "QDQ" else None


def values(path, names, samples):
    """What ONNX Runtime has at these values, for each sample; those that the file does not name are left out."""
    model = onnx.load(path)
    known = {o for n in model.graph.node for o in n.output} | {i.name for i in model.graph.input}
    outputs = {o.name for o in model.graph.output}
    wanted = sorted(set(names) & known)
    for name in set(wanted) - outputs:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {i.name for i in session.get_inputs()}
    runs = [session.run(wanted, {k: v for k, v in s.items() if k in inputs}) for s in samples]
    return {name: np.concatenate([r[i].ravel() for r in runs]).astype(np.float64) for i, name in enumerate(wanted)}


def check(what, float_model, path, source, samples):
    done = subprocess.run([QCOMPILE, "debug", float_model, path, "-d", source, "--samples", str(SAMPLES), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, f"{what}: {done.stderr}"
    report = json.loads(done.stdout)
    rows = report["layers"] + report["model_outputs"]
    x, y = (values(p, [r["values"][k] for r in rows], samples) for k, p in enumerate((float_model, path)))
    checked = 0
    for row in rows:
        reference, actual = row["values"]
        if row["moved"] or reference not in x or actual not in y:
            continue
        a, b = x[reference], y[actual]
        noise, signal = np.square(a - b).sum(), np.square(a).sum()
        figures = row["metrics"]["outputs"]
        want = 10 * np.log10(signal / noise) if noise > 0 else 120
        assert abs(min(120, want) - figures["sqnr"]) < (MOST_APART if want < 90 else 40), f"{what}: {row['layer']}: {want:.2f} dB, told {figures['sqnr']:.2f}"
        assert abs(figures["cosine"] - (a * b).sum() / np.sqrt(signal * np.square(b).sum())) < 1e-4, f"{what}: {row['layer']}"
        if want < 90:
            assert abs(np.log(figures["mse"] / (noise / len(a)))) < 0.15, f"{what}: {row['layer']}"
        checked += 1
    assert checked >= (1 if "QOperator" in what else 2), f"{what}: of {len(rows)} rows only {checked} could be checked"
    # Layers with weights: all of the float model are there, and so are their weights.
    layers = {r["layer"]: r for r in report["layers"]}
    constants = {t.name for t in onnx.load(float_model).graph.initializer}
    for node in onnx.load(float_model).graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in constants:
            row = layers.get(node.name)
            assert row, f"{what}: {node.name} is not among {sorted(layers)}; {report['unmatched']}"
            assert row["weights"] is not None and row["weights"] > LEAST_WEIGHTS, f"{what}: weights of {node.name}: {row['weights']}; {report['notes']}"
            assert row["outputs"] > 15 and row["shadow"] > 15, f"{what}: {row}"
    return checked


def main():
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for make in (convolutions, folded, tokens, shared):
            net, samples = make()
            float_model = work / "float.onnx"
            net.save(float_model)
            np.savez(work / "samples.npz", **{k: np.stack([s[k] for s in samples]) for k in samples[0]})
            for how, path in files_of(work, float_model, samples):
                total += check(f"{make.__name__}, {how}", float_model, path, f"npz:{work}/samples.npz", samples)
                print(f"{make.__name__}, {how}: ok", flush=True)
        # A file whose BatchNorm was folded, beside the model that has it.
        net, samples = convolutions()
        net.save(float_model)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(work / "basic.onnx")
        onnxruntime.InferenceSession(str(float_model), options, providers=["CPUExecutionProvider"])
        assert all(n.op_type != "BatchNormalization" for n in onnx.load(work / "basic.onnx").graph.node)
        np.savez(work / "samples.npz", **{k: np.stack([s[k] for s in samples]) for k in samples[0]})
        for how, path in itertools.chain([("float", work / "basic.onnx")], files_of(work, work / "basic.onnx", samples)):
            total += check(f"BatchNorm folded, {how}", float_model, path, f"npz:{work}/samples.npz", samples)
            print(f"BatchNorm folded, {how}: ok", flush=True)
    print(f"{total} layers have the figures of ONNX Runtime's values")


main()
