#!/usr/bin/env python3
"""Sizes that a model works out from the sizes of its input: padding up to a multiple, half an image, a window, a mask over two lengths.

    sizes_vs_ort.py QCOMPILE [NAME ...]

What exporters make of such code (Shape, Gather, arithmetic in integers and in float, Cast, Floor, Mod, Range, Trilu, OneHot, auto_pad, If): PyTorch's
two exporters on modules of this script, and models written by hand for what other tools write.  Each model runs at four sizes here and by ONNX Runtime,
outputs equal to 1e-4.  Then it is quantized from samples of two sizes to one file whose dims must be as free as the model's,
and that file runs at three sizes, also unseen ones: equal to ONNX Runtime's, or behind a resize that rounds (STEPS), to 2% of the largest value.

Needs torch, onnxscript, onnx and onnxruntime; exit code 77, which ctest reports as skipped, when one is missing.
"""
import contextlib
import io
import pathlib
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401
    import torch
    import torch.nn.functional as F
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)


def scaled(**how):
    return lambda x: F.interpolate(x, **how)


def resized(size, mode="nearest"):
    return lambda x: F.interpolate(x, size=size(x.shape[2], x.shape[3]), mode=mode)


def shifted_windows(x):
    """Three stages as Swin has them: padded to whole windows, turned by half of one, cut back, and every second pixel."""
    for _ in range(3):
        height, width = x.shape[2], x.shape[3]
        y = torch.roll(F.pad(x, (0, (4 - width % 4) % 4, 0, (4 - height % 4) % 4)), (-2, -2), (2, 3))
        windows = y.reshape(y.shape[0], y.shape[1], y.shape[2] // 4, 4, y.shape[3] // 4, 4)
        y = (windows - windows.mean((3, 5), keepdim=True)).reshape(y.shape)
        x = F.pad(x + torch.roll(y, (2, 2), (2, 3))[:, :, :height, :width], (0, width % 2, 0, height % 2))[:, :, ::2, ::2]
    return x


# Of images, [1,3,h,w].
IMAGES = {
    "twice": scaled(scale_factor=2.0),
    "half": scaled(scale_factor=0.5, mode="bilinear"),
    "seven_tenths": scaled(scale_factor=0.7, mode="bilinear"),
    "recomputed_half": scaled(scale_factor=0.5, recompute_scale_factor=True),
    "recomputed_three_halves": scaled(scale_factor=1.5, mode="bilinear", recompute_scale_factor=True),
    "half_by_size": resized(lambda h, w: (h // 2, w // 2), "bilinear"),
    "part_by_float": resized(lambda h, w: (int(h * 0.5), int(w * 0.75))),
    "shorter_side": scaled(scale_factor=None),
    "multiple_of_32": lambda x: F.pad(x, (0, (32 - x.shape[3] % 32) % 32, 0, (32 - x.shape[2] % 32) % 32)),
    "shifted_windows": shifted_windows,
    "square": lambda x: F.pad(x, (0, max(x.shape[2] - x.shape[3], 0), 0, max(x.shape[3] - x.shape[2], 0))),
}
IMAGES["shorter_side"] = lambda x: F.interpolate(x, scale_factor=32.0 / min(x.shape[2], x.shape[3]), mode="bilinear", recompute_scale_factor=True)

# Of sequences, [1,t,8].
SEQUENCES = {
    "triu": lambda x: x * torch.triu(torch.ones(x.shape[1], x.shape[2]), diagonal=x.shape[1] // 2),
    "tril": lambda x: x * torch.tril(torch.ones(x.shape[1], x.shape[2]), diagonal=x.shape[2] - x.shape[1]),
    "one_hot": lambda x: F.one_hot(x.argmax(1), x.shape[1]).float() @ x,
    "flip": lambda x: torch.flip(x, [1]),
    "counted_down": lambda x: x + torch.arange(x.shape[1] - 1, -1, -1)[None, :, None].float(),
    "counted_in_float": lambda x: x + torch.arange(x.shape[1], dtype=torch.float32)[None, :, None] / x.shape[1],
    "linspace": lambda x: x + torch.linspace(0, 1, x.shape[1])[None, :, None],
    "meshgrid": lambda x: x + torch.stack(torch.meshgrid(torch.arange(x.shape[1]), torch.arange(x.shape[2]), indexing="ij"), -1).float().sum(-1),
    "top_half": lambda x: torch.topk(x, x.shape[1] // 2, dim=1)[0],
    "roll": lambda x: torch.roll(x, x.shape[1] // 2, 1),
    "windows": lambda x: F.pad(x, (0, 0, 0, (4 - x.shape[1] % 4) % 4)).reshape(x.shape[0], -1, 4, x.shape[2]).mean(2),
    "mask": lambda x: x.masked_fill(torch.arange(x.shape[1])[:, None] > torch.arange(x.shape[2])[None], -1.0),
    "mean": lambda x: x.sum(1, keepdim=True) / x.shape[1],
    "root": lambda x: x / (x.shape[1] ** 0.5),
    "causal": lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True)[:, 0],
    "last": lambda x: x[:, x.shape[1] - 1],
    "second_half": lambda x: x[:, x.shape[1] // 2:],
    "places_of_ones": lambda x: x[:, torch.ones(x.shape[1]).nonzero()[:, 0]],
    "zeros": lambda x: torch.cat([x, torch.zeros(x.shape[0], 3, x.shape[2])], 1),
    "halves": lambda x: torch.cat([part * (k + 1) for k, part in enumerate(x.chunk(2, 1))], 1),
    "diagonal": lambda x: torch.einsum("btt->bt", x @ x.transpose(1, 2)),
    "cut_or_padded": lambda x: F.pad(x, (0, 0, 0, 20 - x.shape[1])),
}


def either(condition, one, other):
    """As a model written for torch.export has it; the older exporter keeps the branches of TorchScript (SCRIPTED)."""
    return lambda x: torch.cond(condition(x.shape[1]), one, other, (x,))


@torch.jit.script
def cut_or_padded_to_16(x):
    if x.size(1) > 16:
        y = x[:, :16]
    else:
        y = F.pad(x, [0, 0, 0, 16 - x.size(1)])
    return y


@torch.jit.script
def by_parity(x):
    if x.size(1) % 2 == 0:
        y = x * 2.0
    else:
        y = torch.relu(x) + 1.0
    return y


@torch.jit.script
def padded_or_not(x):
    rest = x.size(1) % 4
    if rest != 0:
        y = F.pad(x, [0, 0, 0, 4 - rest])
    else:
        y = x
    return y.reshape(x.size(0), -1, 4, x.size(2)).mean(2)


@torch.jit.script
def half_of_long_ones(x):
    if x.size(1) >= 16:
        y = x[:, : x.size(1) // 2]
    else:
        y = x
    if y.size(1) > 10:
        y = torch.tanh(y)
    return y


@torch.jit.script
def mean_unless_empty(x):
    if x.numel() == 0:
        y = torch.zeros(1, 8)
    else:
        y = x.mean(1)
    return y


# Where the two exporters take different code: what the older one has, and the newer one.
SCRIPTED = {
    "branch_cut_or_padded": (cut_or_padded_to_16, None),
    "branch_by_parity": (by_parity, either(lambda t: t % 2 == 0, lambda x: x * 2.0, lambda x: torch.relu(x) + 1.0)),
    "branch_by_length": (half_of_long_ones, either(lambda t: t > 16, torch.tanh, torch.neg)),
    "branch_padded_or_not": (padded_or_not, None),
    "branch_for_empty": (mean_unless_empty, None),
    "branch_squeezed": (lambda x: x.squeeze(1), None),
    "squeezed_without_axes": (lambda x: torch.stack([x, x]).squeeze().mean(0), None),
}


class Images(torch.nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what, self.first, self.last = what, torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        return self.last(self.what(torch.relu(self.first(x))))


class Sequences(torch.nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what, self.first = what, torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.what(F.gelu(self.first(x)))


def exported(module, x, axes, path, newer):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if newer:
            dims = {axis: torch.export.Dim(name, min=8, max=512) for axis, name in axes.items()}
            torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes={"x": dims}, input_names=["x"], output_names=["y"], external_data=False)
        else:
            torch.onnx.export(module, (x,), path, dynamo=False, opset_version=17, input_names=["x"], output_names=["y"], dynamic_axes={"x": axes})


def windowed(op, auto_pad, path, weight=None, **attributes):
    """conv -> op -> relu, as tf2onnx writes SAME where sizes are free"""
    rng = np.random.default_rng(3)
    constants = [numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")]
    operands = ["c"]
    if weight:
        constants.append(numpy_helper.from_array(rng.standard_normal(weight).astype(np.float32), "v"))
        operands.append("v")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node(op, operands, ["d"], auto_pad=auto_pad, **attributes),
             helper.make_node("Relu", ["d"], ["y"])]
    graph = helper.make_graph(nodes, "main", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w_"])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


def layers_in_branches(path):
    """Two layers for short sequences and two for long ones between layers of all; no sample is long."""
    rng = np.random.default_rng(4)
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (("one", 1), ("most", 16))]
    constants += [numpy_helper.from_array((rng.standard_normal(shape) * 0.3).astype(np.float32), name) for name, shape in (
        ("first", (8, 32)), ("short_a", (32, 24)), ("short_b", (24, 32)), ("long_a", (32, 24)), ("long_b", (24, 32)), ("last", (32, 4)))]

    def branch(name):
        nodes = [helper.make_node("MatMul", ["h", f"{name}_a"], [f"{name}_1"]), helper.make_node("Relu", [f"{name}_1"], [f"{name}_2"]),
                 helper.make_node("MatMul", [f"{name}_2", f"{name}_b"], [f"{name}_3"])]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_3", TensorProto.FLOAT, None)])

    nodes = [helper.make_node("MatMul", ["x", "first"], ["h"]), helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "one"], ["t"]),
             helper.make_node("Greater", ["t", "most"], ["is_long"]),
             helper.make_node("If", ["is_long"], ["c"], then_branch=branch("long"), else_branch=branch("short")), helper.make_node("MatMul", ["c", "last"], ["y"])]
    graph = helper.make_graph(nodes, "main", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "t", 8])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def by_shape(nodes, constants, path):
    """A model on x and the sizes of its image, `hw`, in the newest forms of the ops."""
    rng = np.random.default_rng(5)
    initializers = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (("two", [2]), ("four", [4]))]
    initializers += [numpy_helper.from_array(np.asarray(value), name) if not isinstance(value, tuple) else
                     numpy_helper.from_array((rng.standard_normal(value) * 0.5).astype(np.float32), name) for name, value in constants.items()]
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Slice", ["s", "two", "four"], ["hw"]), *nodes]
    graph = helper.make_graph(nodes, "main", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w_"])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def turned(aligned):
    """A spatial transformer: the image read along a grid of its own size."""
    return lambda path: by_shape([
        helper.make_node("AffineGrid", ["theta", "s"], ["grid"], align_corners=aligned),
        helper.make_node("GridSample", ["x", "grid"], ["g"], align_corners=aligned), helper.make_node("Conv", ["g", "w"], ["y"])],
        {"theta": np.array([[[0.8, 0.3, 0.1], [-0.3, 0.9, -0.2]]], np.float32), "w": (4, 3, 1, 1)}, path)


def folded(block, **how):
    """Two channels put together of blocks, as torch.nn.functional.fold has them; the blocks are what a convolution of the same windows gives."""
    return lambda path: by_shape([
        helper.make_node("Conv", ["x", "w"], ["c"], **how), helper.make_node("Reshape", ["c", "rows"], ["r"]),
        helper.make_node("Col2Im", ["r", "hw", "block"], ["y"], **how)],
        {"w": (2 * block[0] * block[1], 3, *block), "rows": np.array([1, 2 * block[0] * block[1], -1]), "block": np.array(block)}, path)


def spectrum(path):
    """Of rows of free length, and back."""
    by_shape([
        helper.make_node("Unsqueeze", ["x", "last"], ["u"]), helper.make_node("DFT", ["u", "", "three"], ["f"], onesided=1),
        helper.make_node("Mul", ["f", "f"], ["p"]), helper.make_node("ReduceSum", ["p", "last"], ["e"], keepdims=0), helper.make_node("Conv", ["e", "w"], ["c"]),
        helper.make_node("Unsqueeze", ["c", "last"], ["v"]), helper.make_node("Concat", ["v", "v"], ["z"], axis=4), helper.make_node("DFT", ["z", "", "three"], ["t"], inverse=1),
        helper.make_node("ReduceSum", ["t", "last"], ["y"], keepdims=0)], {"w": (4, 3, 1, 1), "last": np.array([4]), "three": np.array(3)}, path)


def frames(path):
    by_shape([
        helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Unsqueeze", ["flat", "two"], ["signal"]), helper.make_node("STFT", ["signal", "step", "window"], ["f"]),
        helper.make_node("Mul", ["f", "f"], ["p"]), helper.make_node("ReduceSum", ["p", "last"], ["e"], keepdims=0), helper.make_node("MatMul", ["e", "w"], ["y"])],
        {"step": np.array(5), "window": np.hanning(12).astype(np.float32), "last": np.array([3]), "w": (7, 6)}, path)


def deformed(path):
    by_shape([
        helper.make_node("Conv", ["x", "o"], ["offsets"], pads=[1, 1, 1, 1], strides=[2, 2]), helper.make_node("Conv", ["x", "m"], ["mask"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("DeformConv", ["x", "w", "offsets", "b", "mask"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])],
        {"o": (18, 3, 3, 3), "m": (9, 3, 3, 3), "w": (4, 3, 3, 3), "b": (4,)}, path)


def proportional(policy, mode, sizes=(20, 28)):
    return lambda path: by_shape([
        helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Resize", ["c", "", "", "sizes"], ["d"], axes=[2, 3], mode=mode, keep_aspect_ratio_policy=policy),
        helper.make_node("Relu", ["d"], ["y"])], {"w": (4, 3, 1, 1), "sizes": np.array(sizes)}, path)


def places(path):
    by_shape([
        helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("MaxPool", ["c"], ["d", "i"], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 1]),
        helper.make_node("Mod", ["i", "seven"], ["m"]), helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["d", "f"], ["y"])],
        {"w": (4, 3, 3, 3), "seven": np.array(7)}, path)


BY_SHAPE = {
    "spectrum": spectrum, "frames": frames, "deformed": deformed, "places_of_largest": places, "turned": turned(0), "turned_by_corners": turned(1), "folded": folded((3, 3)), "folded_apart": folded((2, 2), strides=[2, 2]),
    "folded_padded": folded((3, 2), strides=[3, 2], pads=[1, 0, 1, 1]), "folded_dilated": folded((2, 2), strides=[2, 3], dilations=[2, 1], pads=[0, 1, 2, 1]),
    "not_larger": proportional("not_larger", "nearest"), "not_larger_linear": proportional("not_larger", "linear"),
    "not_smaller": proportional("not_smaller", "linear", (31, 30)),
}

WINDOWS = {
    "conv": ("Conv", dict(weight=(4, 4, 3, 3), strides=[2, 2])),
    "conv_5x4": ("Conv", dict(weight=(4, 4, 5, 4), strides=[3, 2])),
    "max": ("MaxPool", dict(strides=[2, 2], kernel_shape=[3, 3])),
    "max_2x2": ("MaxPool", dict(strides=[2, 2], kernel_shape=[2, 2])),
    "average_of_all": ("AveragePool", dict(strides=[2, 2], kernel_shape=[3, 3], count_include_pad=1)),
    "average": ("AveragePool", dict(strides=[2, 2], kernel_shape=[3, 3])),
    "lp": ("LpPool", dict(strides=[2, 2], kernel_shape=[3, 3])),
    "transposed": ("ConvTranspose", dict(weight=(4, 4, 3, 3), strides=[2, 2])),
}
# With a last window that is not whole.
UNPADDED = {
    "lp_ceil": ("LpPool", dict(strides=[2, 2], kernel_shape=[3, 3], ceil_mode=1)),
    "lp_ceil_padded": ("LpPool", dict(strides=[3, 2], kernel_shape=[3, 4], pads=[1, 1, 1, 2], ceil_mode=1, p=3)),
}

# A step of an integer where a resize rounds in the middle between two, through the convolution behind it.
STEPS = {"half", "seven_tenths", "recomputed_three_halves", "half_by_size", "shorter_side"}


def models(work, names):
    for name, what in {**IMAGES, **SEQUENCES, **SCRIPTED}.items():
        if names and name not in names:
            continue
        image = name in IMAGES
        code = what if name in SCRIPTED else (what, what)
        x, axes = (torch.rand(1, 3, 40, 56), {2: "h", 3: "w"}) if image else (torch.rand(1, 12, 8), {1: "t"})
        sizes = [(1, 3, 40, 56), (1, 3, 33, 47), (1, 3, 64, 12), (1, 3, 24, 50)] if image else [(1, t, 8) for t in (12, 17, 9, 64)]
        for newer in (False, True):
            if code[newer] is None:
                continue
            module = (Images if image else Sequences)(code[newer]).eval()
            path = work / f"{name}_{'dynamo' if newer else 'torchscript'}.onnx"
            try:
                exported(module, x, axes, path, newer)
            except Exception as refused:  # what an exporter does not take is nothing to compare
                print(f"none {path.stem}: {type(refused).__name__}")
                continue
            yield name, path, sizes
    if not names or "layers_in_branches" in names:
        layers_in_branches(work / "layers_in_branches.onnx")
        yield "layers_in_branches", work / "layers_in_branches.onnx", [(1, t, 8) for t in (5, 9, 30, 40)]
    images = [(1, 3, 40, 56), (1, 3, 33, 47), (1, 3, 64, 12), (1, 3, 24, 51)]
    padded = [(name, auto_pad, op, how) for name, (op, how) in WINDOWS.items() for auto_pad in ("SAME_UPPER", "SAME_LOWER")]
    padded += [(name, "NOTSET", op, how) for name, (op, how) in UNPADDED.items()]
    for name, auto_pad, op, how in padded:
        if not names or name in names:
            path = work / f"{name}_{auto_pad}.onnx"
            windowed(op, auto_pad, path, **how)
            yield name, path, images
    for name, write in BY_SHAPE.items():
        if not names or name in names:
            write(work / f"{name}.onnx")
            yield name, work / f"{name}.onnx", images


def main():
    qcompile, names = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    rng, failures, count = np.random.default_rng(1), 0, 0

    def tool(*args):
        done = subprocess.run([qcompile, *map(str, args)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[0])

    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)

        def distance(path, size):
            x = rng.standard_normal(size).astype(np.float32)
            np.save(work / "x.npy", x)
            theirs, = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
            tool("run", path, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out")
            ours = np.load(work / "out" / "y.npy")
            return np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-9) if ours.shape == theirs.shape else np.inf

        for name, path, sizes in models(work, names):
            count += 1
            try:
                free = [d.dim_param for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim if d.dim_param]
                sizes = sizes if free else sizes[:1]  # the exporter fixed what was to be free
                floats = [distance(path, size) for size in sizes]
                samples = []
                for k, size in enumerate(sizes[:2]):
                    np.save(work / f"{k}.npy", rng.standard_normal(size).astype(np.float32))
                    samples += ["-d", f"npy:{work / f'{k}.npy'}"]
                quantized = work / "int8.onnx"
                tool("quantize", path, *samples, "-o", quantized)
                kept = [d.dim_param for d in onnx.load(quantized).graph.input[0].type.tensor_type.shape.dim if d.dim_param]
                integers = [distance(quantized, size) for size in sizes[1:] or sizes]
                ok = max(floats) < 1e-4 and max(integers) < (2e-2 if name in STEPS else 1e-4) and kept == free
                said = f"float {max(floats):.1e}, int8 {max(integers):.1e}, free: {' '.join(kept) or 'nothing'}"
            except RuntimeError as refused:
                ok, said = False, str(refused)
            failures += not ok
            print(f"{'ok  ' if ok else 'FAIL'} {path.stem}: {said}", flush=True)
    print(f"{count} models, {failures} faults")
    sys.exit(1 if failures or not count else 0)


main()
