#!/usr/bin/env python3
"""Gradients of whole networks beside PyTorch's: loss = sum(output * random numbers), differentiated by the inputs and by every weight.

    gradients_vs_torch.py PROBE SHARED_DIR [--engine jit|interpreter] [--only NAME,..]

The weights become inputs of the model, so that both differentiate the same values under the same names.  PyTorch runs the graph node by
node (the small table below), in float32 as we do and in float64.  Per network: the largest relative error (of norms) of a gradient beside
PyTorch's in float64, ours and that of PyTorch in float32.  Fails above 1e-4.
Needs torch, onnx, numpy; exit code 77, which ctest reports as skipped, when something is missing.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import torch
    from onnx import helper, numpy_helper
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

F = torch.nn.functional
LIMIT = 1e-4
# Name: sizes of the float input, or the three inputs of a text.
NETWORKS = {
    "cifar10_resnet20": (4, 3, 32, 32),
    "mlperftiny_kws_dscnn": (4, 1, 49, 10),
    "kwt1_transformer": (2, 98, 40),
    "all_minilm_l6_v2": (2, 16),
    "easyocr_en_g2": (1, 1, 64, 128),
    "yolox_nano": (1, 3, 416, 416),
}
PIXELS = {"yolox_nano"}  # takes them as they are, 0 to 255


def attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def pads_of(a, spatial):
    return list(a.get("pads", [0] * 2 * spatial))


def padded(x, a, spatial, value):
    p = pads_of(a, spatial)
    return F.pad(x, [v for d in reversed(range(spatial)) for v in (p[d], p[d + spatial])], value=value)


def conv(a, x, w, b=None):
    n = x.dim() - 2
    f = [F.conv1d, F.conv2d, F.conv3d][n - 1]
    return f(padded(x, a, n, 0.0), w, b, stride=a.get("strides", [1] * n), dilation=a.get("dilations", [1] * n), groups=a.get("group", 1))


def max_pool(a, x):
    n = x.dim() - 2
    f = [F.max_pool1d, F.max_pool2d, F.max_pool3d][n - 1]
    return f(padded(x, a, n, float("-inf")), a["kernel_shape"], a.get("strides", [1] * n), 0, a.get("dilations", [1] * n), bool(a.get("ceil_mode", 0)))


def avg_pool(a, x):
    n = x.dim() - 2
    assert not any(pads_of(a, n)) and not a.get("ceil_mode", 0)
    return [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d][n - 1](x, a["kernel_shape"], a.get("strides", [1] * n))


def gemm(a, x, w, b=None):
    y = a.get("alpha", 1.0) * ((x.T if a.get("transA") else x) @ (w.T if a.get("transB") else w))
    return y if b is None else y + a.get("beta", 1.0) * b


def batch_norm(a, x, scale, bias, mean, var):
    shape = [1, -1] + [1] * (x.dim() - 2)
    return (x - mean.reshape(shape)) / torch.sqrt(var.reshape(shape) + a.get("epsilon", 1e-5)) * scale.reshape(shape) + bias.reshape(shape)


def slices(a, x, starts, ends, axes=None, steps=None):
    starts, ends = starts.tolist(), ends.tolist()
    axes = list(range(len(starts))) if axes is None else axes.tolist()
    steps = [1] * len(starts) if steps is None else steps.tolist()
    for start, end, axis, step in zip(starts, ends, axes, steps):
        index = torch.tensor(range(x.shape[axis])[slice(start, None if step < 0 and end < -x.shape[axis] else end, step)], dtype=torch.long)
        x = x.index_select(axis, index)
    return x


def pad(a, x, pads, value=None, axes=None):
    pads, n = pads.tolist(), x.dim()
    return F.pad(x, [v for d in reversed(range(n)) for v in (pads[d], pads[d + n])], value=0.0 if value is None else float(value))


def unsqueeze(a, x, axes):
    rank = x.dim() + len(axes)
    for axis in sorted(v % rank for v in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def layer_norm(a, x, scale, bias=None):
    axis = a.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, bias, a.get("epsilon", 1e-5))


def resize(a, x, roi=None, scales=None, sizes=None):
    assert a["mode"] == b"nearest" and a["coordinate_transformation_mode"] == b"asymmetric"
    size = [int(v) for v in sizes.tolist()][2:] if sizes is not None else [int(s * f) for s, f in zip(x.shape[2:], scales.tolist()[2:])]
    return F.interpolate(x, size=size, mode="nearest")


def lstm(a, x, w, r, b=None, lengths=None, h=None, c=None):
    hidden, directions = a["hidden_size"], w.shape[0]
    outputs, hs, cs = [], [], []
    for d in range(directions):
        backwards = directions == 2 and d == 1 or a.get("direction", b"forward") == b"reverse"
        state = h[d] if h is not None else torch.zeros(x.shape[1], hidden, dtype=x.dtype)
        cell = c[d] if c is not None else torch.zeros(x.shape[1], hidden, dtype=x.dtype)
        wb, rb = (b[d][: 4 * hidden], b[d][4 * hidden:]) if b is not None else (0, 0)
        ys = [None] * x.shape[0]
        for t in reversed(range(x.shape[0])) if backwards else range(x.shape[0]):
            i, o, f, g = (x[t] @ w[d].T + wb + state @ r[d].T + rb).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            state = torch.sigmoid(o) * torch.tanh(cell)
            ys[t] = state
        outputs.append(torch.stack(ys))
        hs.append(state)
        cs.append(cell)
    return torch.stack(outputs, 1), torch.stack(hs), torch.stack(cs)


def reshape(a, x, shape):
    return x.reshape([x.shape[i] if v == 0 else v for i, v in enumerate(shape.tolist())])


def cast(a, x):
    kind = helper.tensor_dtype_to_np_dtype(a["to"])
    return x.to(torch.get_default_dtype() if kind == np.float32 else torch.from_numpy(np.zeros(0, kind)).dtype)


def constant_of_shape(a, shape):
    value = numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    return torch.full(shape.tolist(), value.item(), dtype=from_numpy(value).dtype)


def from_numpy(array):
    t = torch.from_numpy(np.array(array))
    return t.to(torch.get_default_dtype()) if t.is_floating_point() else t


OPS = {
    "Conv": conv, "MaxPool": max_pool, "AveragePool": avg_pool, "Gemm": gemm, "BatchNormalization": batch_norm, "Slice": slices, "Pad": pad,
    "Unsqueeze": unsqueeze, "LayerNormalization": layer_norm, "Resize": resize, "LSTM": lstm, "Reshape": reshape, "Cast": cast,
    "ConstantOfShape": constant_of_shape,
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "Relu": lambda a, x: torch.relu(x), "Sigmoid": lambda a, x: torch.sigmoid(x), "Tanh": lambda a, x: torch.tanh(x),
    "Erf": lambda a, x: torch.erf(x), "Sqrt": lambda a, x: torch.sqrt(x), "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "Add": lambda a, x, y: x + y, "Sub": lambda a, x, y: x - y, "Mul": lambda a, x, y: x * y, "Div": lambda a, x, y: x / y,
    "Pow": lambda a, x, y: torch.pow(x, y), "MatMul": lambda a, x, y: x @ y, "Equal": lambda a, x, y: x == y,
    "Where": lambda a, c, x, y: torch.where(c, x, y), "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Transpose": lambda a, x: x.permute(a["perm"]), "Flatten": lambda a, x: x.flatten(a.get("axis", 1)),
    "Shape": lambda a, x: torch.tensor(x.shape), "Expand": lambda a, x, shape: x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist()))),
    "Gather": lambda a, x, i: torch.index_select(x, a.get("axis", 0), i.reshape(-1) % x.shape[a.get("axis", 0)]).reshape(
        x.shape[: a.get("axis", 0)] + i.shape + x.shape[a.get("axis", 0):][1:]),
    "ReduceMean": lambda a, x, axes=None: x.mean(tuple(a["axes"] if axes is None else axes.tolist()), keepdim=bool(a.get("keepdims", 1))),
    "ReduceSum": lambda a, x, axes=None: x.sum() if axes is None else x.sum(tuple(axes.tolist()), keepdim=bool(a.get("keepdims", 1))),
}


def gradients_of_torch(model, feeds, dtype):
    torch.set_default_dtype(dtype)
    values = {i.name: from_numpy(numpy_helper.to_array(i)) for i in model.graph.initializer}
    values.update({name: from_numpy(v) for name, v in feeds.items()})
    leaves = {name: values[name].requires_grad_() for name in feeds if values[name].is_floating_point()}
    for node in model.graph.node:
        a = attributes(node)
        if node.op_type == "Constant":
            values[node.output[0]] = from_numpy(numpy_helper.to_array(a["value"]))
            continue
        results = OPS[node.op_type](a, *[values[i] if i else None for i in node.input])
        for name, result in zip(node.output, results if isinstance(results, tuple) else (results,)):
            values[name] = result
    values["loss"].sum().backward()
    return {name: leaf.grad.numpy() for name, leaf in leaves.items()}, values["loss"].item()


def prepared(path, name, sizes, random):
    """The model with its weights as inputs and one output, the loss; and what to feed it."""
    model = onnx.load(path)
    graph = model.graph
    feeds = {}
    for i in graph.input:
        if i.name in {w.name for w in graph.initializer}:
            continue
        if i.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            feeds[i.name] = (random.uniform(0, 255, sizes) if name in PIXELS else random.normal(size=sizes)).astype(np.float32)
        else:
            feeds[i.name] = np.ones(sizes, np.int64) if "ids" not in i.name else random.integers(0, 2 if "type" in i.name else 1000, sizes)
    weights = [w for w in graph.initializer if w.data_type == onnx.TensorProto.FLOAT and len(w.dims) > 0 and np.prod(w.dims) > 1]
    read = {i for n in graph.node for i in n.input}
    fixed = {i for n in graph.node if n.op_type in ("Resize", "Reshape", "Pad") for i in n.input[1:]}
    for w in weights:
        graph.initializer.remove(w)
        if w.name not in read:
            continue
        if w.name in fixed:
            graph.initializer.append(w)
            continue
        feeds[w.name] = numpy_helper.to_array(w).astype(np.float32)
        if w.name not in {i.name for i in graph.input}:
            graph.input.append(helper.make_tensor_value_info(w.name, onnx.TensorProto.FLOAT, list(w.dims)))
    torch.set_default_dtype(torch.float32)
    output = graph.output[0].name
    shape = shape_of_output(model, feeds, output)
    graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), "loss_weights"))
    graph.node.append(helper.make_node("Mul", [output, "loss_weights"], ["weighted_output"]))
    graph.node.append(helper.make_node("ReduceSum", ["weighted_output"], ["loss"], keepdims=0))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("loss", onnx.TensorProto.FLOAT, []))
    return model, feeds


def shape_of_output(model, feeds, output):
    import onnxruntime
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run([output], feeds)[0].shape


def gradients_here(probe, model, feeds, engine):
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        onnx.save(model, work / "model.onnx")
        (work / "inputs.txt").write_text("".join(n + "\n" for n in feeds))
        for i, v in enumerate(feeds.values()):
            np.save(work / f"in{i}.npy", v)
        done = subprocess.run([probe, work / "model.onnx", work, engine], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")
        names = (work / "outputs.txt").read_text().splitlines()
        return {n: np.load(work / f"out{i}.npy") for i, n in enumerate(names)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--engine", default="jit", choices=["jit", "interpreter"])
    parser.add_argument("--only", default=",".join(NETWORKS))
    args = parser.parse_args()
    failed = 0
    for name in args.only.split(","):
        model, feeds = prepared(args.shared / "models" / name / "model.onnx", name, NETWORKS[name], np.random.default_rng(5))
        try:
            ours = gradients_here(args.probe.resolve(), model, feeds, args.engine)
        except RuntimeError as problem:
            print(f"{name:22} FAIL {problem}")
            failed += 1
            continue
        exact, loss = gradients_of_torch(model, feeds, torch.float64)
        single, _ = gradients_of_torch(model, feeds, torch.float32)
        largest = max(np.linalg.norm(g) for g in exact.values())
        rows = []
        for key, g in exact.items():
            # What is zero but for rounding (a bias that a softmax takes off again) is measured beside the other gradients.
            scale = np.linalg.norm(g) if np.linalg.norm(g) > 1e-9 * largest else largest
            rows.append((np.linalg.norm(ours["grad." + key].astype(np.float64) - g) / scale, np.linalg.norm(single[key].astype(np.float64) - g) / scale, key))
        worst = max(rows)
        bad = worst[0] > LIMIT
        failed += bad
        print(f"{name:22} {'FAIL' if bad else 'ok  '} {len(rows):4} gradients, worst {worst[0]:.1e} at {worst[2]} (PyTorch in float32 there {worst[1]:.1e}, "
              f"its worst {max(r[1] for r in rows):.1e}); loss {ours['loss'].item():.6g} against {loss:.6g}", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(bool(main()))
