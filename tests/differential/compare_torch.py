#!/usr/bin/env python3
"""Runs our quantizer beside PyTorch and torchao on random and edge inputs, item by item.

    compare_torch.py PROBE [--rounds N] [--seed S]

PROBE is the built quantizer_probe.  Needs torch and torchao; exit code 77 without them.  For every item the table says how many
values have equal bits and, where they may differ, by how much and why.  Exit code 1 if anything differs beyond what is documented.
"""
import argparse
import json
import subprocess
import sys
import warnings

warnings.filterwarnings("ignore")
try:
    import logging

    logging.disable(logging.WARNING)
    import numpy as np
    import torch
    import torch.ao.quantization.fx._decomposed  # noqa: F401  registers quantized_decomposed
    from torchao.quantization.pt2e import observer as tao
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


class Probe:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question, **fields):
        self.process.stdin.write(json.dumps({"ask": question, **fields}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def bits(t):
    return np.asarray(t, dtype=np.float32).reshape(-1).view(np.uint32).tolist()


def floats(b):
    return np.asarray(b, dtype=np.uint32).view(np.float32)


def tensor(t):
    return {"shape": list(t.shape), "bits": bits(t.detach().numpy())}


class Item:
    """One row: equal and different values, the largest allowed difference and the reason for it."""

    def __init__(self, name, allowed=0.0, why=""):
        self.name, self.allowed, self.why = name, allowed, why
        self.equal = self.total = self.refused = 0
        self.worst = 0.0
        self.failed = []

    def compare(self, ours, theirs, unit=1.0, note=""):
        ours, theirs = np.asarray(ours, dtype=np.float64).reshape(-1), np.asarray(theirs, dtype=np.float64).reshape(-1)
        if ours.shape != theirs.shape:
            self.failed.append(f"{note}: {ours.shape} and {theirs.shape} values")
            return
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        self.equal += int(same.sum())
        self.total += same.size
        if not same.all():
            worst = float(np.nanmax(np.where(same, 0, np.abs(ours - theirs)) / unit))
            self.worst = max(self.worst, worst)
            if not worst <= self.allowed:
                self.failed.append(f"{note}: differs by {worst:g}")

    def refuse(self, answer, note):
        if "error" not in answer:
            return False
        self.failed.append(f"{note}: {answer['error']}")
        return True


def samples(rng, shape, kind):
    x = rng.standard_normal(shape).astype(np.float32)
    if kind == "shifted":
        x = x * 3 + 5
    elif kind == "positive":
        x = np.abs(x)
    elif kind == "negative":
        x = -np.abs(x) - np.float32(0.25)
    elif kind == "tiny":
        x = x * np.float32(1e-6)
    elif kind == "huge":
        x = x * np.float32(1e20)
    elif kind == "constant":
        x = np.full(shape, np.float32(2))
    elif kind == "zero":
        x = np.zeros(shape, np.float32)
    elif kind == "outlier":
        x.reshape(-1)[0] = 100
    elif kind == "ties":
        x = np.round(x * 8).astype(np.float32) / 16
    return x


KINDS = ["normal", "shifted", "positive", "negative", "tiny", "huge", "constant", "zero", "outlier", "ties"]
DTYPES = {"u8": (torch.uint8, 0, 255), "s8": (torch.int8, -128, 127)}


def observer_items(probe, rng, rounds):
    """Observers after several batches of varying shapes: scale and zero point."""
    table = [
        ("minmax", tao.MinMaxObserver, {}, False),
        ("moving_average", tao.MovingAverageMinMaxObserver, {}, False),
        ("per_channel_minmax", tao.PerChannelMinMaxObserver, {}, True),
        ("per_channel_moving_average", tao.MovingAveragePerChannelMinMaxObserver, {}, True),
        ("histogram", tao.HistogramObserver, {"search": "reference"}, False),
    ]
    for name, theirs, args, per_channel in table:
        histogram = name == "histogram"
        item = Item(f"observer {name}", 0.02 if histogram else 0.0,
                    "bins are added up in double, theirs in float32: one bin of 2048 in the searched range" if histogram else "")
        for _ in range(rounds):
            kind = rng.choice(KINDS[:4] + KINDS[6:] if histogram else KINDS)
            dtype_name = rng.choice(list(DTYPES))
            dtype, qmin, qmax = DTYPES[dtype_name]
            symmetric = bool(rng.integers(2)) and dtype_name == "s8"
            scheme = {(0, 0): torch.per_tensor_affine, (0, 1): torch.per_tensor_symmetric, (1, 0): torch.per_channel_affine,
                      (1, 1): torch.per_channel_symmetric}[(int(per_channel), int(symmetric))]
            batches = [samples(rng, (int(rng.integers(1, 5)), 3, int(rng.integers(1, 40))), kind) for _ in range(int(rng.integers(1, 4)))]
            extra = {"ch_axis": 1} if per_channel else {}
            eps = float(rng.choice([2.0**-23, 2.0**-12]))
            observer = theirs(dtype=dtype, qscheme=scheme, quant_min=qmin, quant_max=qmax, eps=eps, **extra)
            for batch in batches:
                observer(torch.from_numpy(batch))
            scale, zero = observer.calculate_qparams()
            spec = {"dtype": dtype_name, "scheme": "symmetric" if symmetric else "affine", "eps": eps, "observer": name, "args": args}
            if per_channel:
                spec["axis"] = 1
            answer = probe.ask("observe", spec=spec, batches=[tensor(torch.from_numpy(b)) for b in batches])
            if item.refuse(answer, kind):
                continue
            channels = scale.numel()
            ours_zero = answer["zero_point"] if len(answer["zero_point"]) == channels else answer["zero_point"] * channels
            s = scale.numpy().reshape(-1)
            item.compare(floats(answer["scale"]), s, unit=s if not histogram else s.max(), note=f"{kind} scale")
            # A zero point of the histogram follows its range: in units of 50 steps to share the bound with the scale.
            item.compare(ours_zero, zero.numpy(), unit=100.0 if histogram else 1.0, note=f"{kind} zero point")
        yield item


def qparam_items(probe, rng, rounds):
    item = Item("choose_qparams (decomposed)")
    edges = [(-1, 3), (0, 0), (0, 1e-30), (-1e-30, 0), (-3, -0.5), (0.5, 3), (2, 2), (-3e38, 3e38), (-1, 1)]
    ranges = edges + [tuple(sorted(rng.standard_normal(2) * 10 ** rng.uniform(-5, 5))) for _ in range(rounds)]
    for low, high in ranges:
        for name, (dtype, qmin, qmax) in DTYPES.items():
            x = torch.tensor([low, high], dtype=torch.float32)
            if not torch.isfinite(x).all() or (x[1] - x[0]).isinf():
                continue
            scale, zero = torch.ops.quantized_decomposed.choose_qparams.tensor(x, qmin, qmax, 2.0**-23, dtype)
            answer = probe.ask("qparams", spec={"dtype": name}, range=bits(x.numpy()))
            if not item.refuse(answer, f"{low} {high}"):
                item.compare(floats(answer["scale"]), np.float32(scale.item()), note=f"[{low}, {high}]")
                item.compare(answer["zero_point"], zero.item(), note=f"[{low}, {high}]")
    yield item
    item = Item("choose_qparams (run time)")
    for low, high in ranges:
        x = torch.tensor([low, high], dtype=torch.float32)
        if not torch.isfinite(x).all() or (x[1] - x[0]).isinf():
            continue
        scale, zero = torch._choose_qparams_per_tensor(x, False)
        answer = probe.ask("qparams", variant="aten", qmin=0, qmax=255, range=bits(x.numpy()))
        if not item.refuse(answer, f"{low} {high}"):
            item.compare(floats(answer["scale"]), np.float32(scale), note=f"[{low}, {high}]")
            item.compare(answer["zero_point"], zero, note=f"[{low}, {high}]")
    yield item


def quantize_items(probe, rng, rounds):
    item = Item("quantize", 1.0, "true division as ONNX defines it, theirs multiplies by the reciprocal: one step at exact ties")
    for _ in range(rounds):
        scale = np.float32(2.0 ** rng.integers(-6, 3) if rng.integers(2) else rng.uniform(0.001, 2))
        zero = int(rng.integers(0, 256))
        x = torch.from_numpy(samples(rng, (64,), rng.choice(KINDS[:4] + ["ties", "tiny", "outlier"])))
        q = torch.ops.quantized_decomposed.quantize_per_tensor(x, float(scale), zero, 0, 255, torch.uint8)
        answer = probe.ask("quantize", x=tensor(x), qmin=0, qmax=255, scale=bits(scale), zero_point=[zero])
        item.compare(answer["q"], q.numpy())
    yield item


def fake_quantize_items(probe, rng, rounds):
    forward, mask = Item("fake_quantize"), Item("fake_quantize gradient")
    channels, channel_mask = Item("fake_quantize per channel"), Item("fake_quantize per channel gradient")
    for _ in range(rounds):
        qmin, qmax = [(0, 255), (-128, 127), (-8, 7), (0, 15)][rng.integers(4)]
        x = torch.from_numpy(samples(rng, (4, 3, 8), rng.choice(KINDS[:4] + ["ties", "tiny", "outlier"]))).requires_grad_()
        scale, zero = np.float32(rng.uniform(0.001, 0.5)), int(rng.integers(qmin, qmax + 1))
        y = torch.fake_quantize_per_tensor_affine(x, float(scale), zero, qmin, qmax)
        y.sum().backward()
        answer = probe.ask("fake_quantize", x=tensor(x), qmin=qmin, qmax=qmax, scale=bits(scale), zero_point=[zero])
        forward.compare(floats(answer["y"]), y.detach().numpy())
        mask.compare(answer["passes"], x.grad.numpy())
        x.grad = None
        axis = int(rng.integers(3))
        n = x.shape[axis]
        scales = rng.uniform(0.001, 0.5, n).astype(np.float32)
        zeros = rng.integers(qmin, qmax + 1, n).astype(np.int32)
        y = torch.fake_quantize_per_channel_affine(x, torch.from_numpy(scales), torch.from_numpy(zeros), axis, qmin, qmax)
        y.sum().backward()
        answer = probe.ask("fake_quantize", x=tensor(x), qmin=qmin, qmax=qmax, axis=axis, scale=bits(scales), zero_point=zeros.tolist())
        channels.compare(floats(answer["y"]), y.detach().numpy())
        channel_mask.compare(answer["passes"], x.grad.numpy())
    yield from (forward, mask, channels, channel_mask)
    item = Item("learnable scale and zero point", 1e-4, "sums of gradients are added in another order")
    for _ in range(rounds):
        x = torch.from_numpy(samples(rng, (3, 10), "normal")).requires_grad_()
        scale = torch.tensor([rng.uniform(0.05, 0.5)], dtype=torch.float32, requires_grad=True)
        zero = torch.tensor([float(rng.integers(0, 16))], requires_grad=True)
        dy = torch.from_numpy(samples(rng, (3, 10), "normal"))
        y = torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero, 0, 15, 0.5)
        y.backward(dy)
        answer = probe.ask("learn", x=tensor(x), dy=bits(dy.numpy()), qmin=0, qmax=15, scale=bits(scale.detach().numpy()),
                           zero_point=bits(zero.detach().numpy()), grad_factor=0.5)
        item.compare(floats(answer["y"]), y.detach().numpy(), note="y")
        item.compare(floats(answer["dx"]), x.grad.numpy(), note="dx")
        item.compare(floats(answer["dscale"]), scale.grad.numpy(), unit=max(1.0, float(dy.abs().sum()) * 16), note="dscale")
        item.compare(floats(answer["dzero_point"]), zero.grad.numpy(), unit=max(1.0, float(dy.abs().sum())), note="dzero_point")
    yield item


def fused_items(probe, rng, rounds):
    """The op behind FusedMovingAvgObsFakeQuantize, over several batches."""
    for per_channel in (False, True):
        item = Item("fused moving average" + (" per channel" if per_channel else ""))
        for _ in range(rounds):
            symmetric = bool(rng.integers(2))
            qmin, qmax = [(-128, 127), (-127, 127)][rng.integers(2)] if symmetric else (0, 255)
            n, constant = (4 if per_channel else 1), float(rng.choice([0.01, 1.0]))
            low, high = (torch.full((n,), v) for v in (float("inf"), float("-inf")))
            scale, zero, on = torch.ones(n), torch.zeros(n, dtype=torch.int32), torch.tensor([1])
            batches = [torch.from_numpy(samples(rng, (4, 16), rng.choice(KINDS[:4] + ["outlier", "zero"]))) for _ in range(3)]
            answer = probe.ask("fused", batches=[tensor(b) for b in batches], qmin=qmin, qmax=qmax, symmetric=symmetric, per_channel=per_channel,
                               averaging_constant=constant)
            if item.refuse(answer, "fused"):
                continue
            for batch, step in zip(batches, answer["steps"]):
                y, mask = torch.ops.aten._fused_moving_avg_obs_fq_helper(batch, on, on, low, high, scale, zero, constant, qmin, qmax, 0, per_channel, symmetric)
                item.compare(floats(step["params"]["scale"]), scale.numpy(), note="scale")
                item.compare(step["params"]["zero_point"], zero.numpy(), note="zero point")
                item.compare(floats(step["y"]), y.numpy(), note="y")
                item.compare(step["passes"], mask.numpy(), note="gradient")
        yield item


def group_items(probe, rng, rounds):
    """Groups and tokens: torchao's affine quantization of large language models."""
    from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine

    mappings = {"asymmetric": MappingType.ASYMMETRIC, "symmetric": MappingType.SYMMETRIC, "no_clipping": MappingType.SYMMETRIC_NO_CLIPPING_ERR}
    for name, mapping in mappings.items():
        item = Item(f"groups, {name}")
        for _ in range(rounds):
            group = int(rng.choice([4, 8, 16]))
            qmin, qmax = [(-128, 127), (-8, 7)][rng.integers(2)]
            x = torch.from_numpy(samples(rng, (3, 32), rng.choice(KINDS[:4] + ["outlier", "zero", "constant"])))
            scale, zero = choose_qparams_affine(x, mapping, (1, group), torch.int8, qmin, qmax)
            answer = probe.ask("groups", x=tensor(x), mapping=name, group=group, qmin=qmin, qmax=qmax)
            if not item.refuse(answer, name):
                item.compare(floats(answer["scale"]), scale.numpy(), unit=scale.numpy().reshape(-1))
                item.compare(answer["zero_point"], zero.numpy())
        yield item
    item = Item("tokens, symmetric and not")
    for _ in range(rounds):
        x = torch.from_numpy(samples(rng, (5, 16), rng.choice(KINDS[:4] + ["outlier", "zero"])))
        for name, op in (("token", "_choose_qparams_per_token_asymmetric_impl"), ("token_symmetric", "choose_qparams_per_token")):
            scale, zero = getattr(torch.ops.quantized_decomposed, op)(x, torch.int8)
            answer = probe.ask("groups", x=tensor(x), mapping=name)
            if not item.refuse(answer, name):
                item.compare(floats(answer["scale"]), scale.to(torch.float32).numpy())
                item.compare(answer["zero_point"], zero.numpy())
    yield item
    item = Item("float zero points per channel")
    for _ in range(rounds):
        x = torch.from_numpy(samples(rng, (5, 16), rng.choice(KINDS[:4] + ["outlier", "zero", "constant"])))
        observer = tao.PerChannelMinMaxObserver(dtype=torch.uint8, qscheme=torch.per_channel_affine_float_qparams, ch_axis=0, quant_min=0, quant_max=255)
        observer(x)
        scale, zero = observer.calculate_qparams()
        answer = probe.ask("observe", spec={"dtype": "u8", "scheme": "float_qparams", "observer": "per_channel_minmax", "axis": 0}, batches=[tensor(x)])
        if not item.refuse(answer, "float zero points"):
            item.compare(floats(answer["scale"]), scale.numpy())
            item.compare(floats(answer["zero_point"]), zero.numpy())
    yield item


def embedding_items(probe, rng, rounds):
    for width in (8, 4, 2):
        item = Item(f"embedding rows of {width} bits", 128.0, "the sign of a bias of zero")
        for _ in range(rounds):
            w = torch.from_numpy(samples(rng, (3, 16), rng.choice(KINDS[:4] + ["constant", "zero"])))
            packed = getattr(torch.ops.quantized, "embedding_bag_byte_prepack" if width == 8 else f"embedding_bag_{width}bit_prepack")(w)
            answer = probe.ask("pack", weight=tensor(w), bits=width)
            if not item.refuse(answer, "pack"):
                item.compare(answer["bytes"], packed.numpy())
        yield item


def net_text(name, layers, weights, shape):
    """The same layers as a graph in text form."""
    text, body, value, size = "", "", "x", list(shape)
    for i, layer in enumerate(layers):
        if layer == "relu":
            body += f"  %v{i} = relu %{value} : f32[{','.join(map(str, size))}]\n"
        else:
            w, b = weights[i]
            payload = lambda t: "[" + ", ".join(repr(float(v)) for v in t.detach().reshape(-1)) + "]"
            dims = ",".join(map(str, w.shape))
            text += f"const #w{i} : f32[{dims}] = {payload(w)}\nconst #b{i} : f32[{w.shape[0]}] = {payload(b)}\n"
            body += f"  %w{i} = const #w{i} : f32[{dims}]\n  %b{i} = const #b{i} : f32[{w.shape[0]}]\n"
            if layer == "conv":
                size[1] = w.shape[0]
                body += f"  %v{i} = conv %{value}, %w{i}, %b{i} {{pads=[1,1,1,1]}} : f32[{','.join(map(str, size))}]\n"
            else:
                size[-1] = w.shape[0]
                body += f"  %v{i} = linear %{value}, %w{i}, %b{i} : f32[{','.join(map(str, size))}]\n"
        value = f"v{i}"
    return f"{text}graph @{name}(%x: f32[{','.join(map(str, shape))}]) -> (\"y\") {{\n{body}  return %{value}\n}}\n"


def model_items(probe, rng, rounds):
    """Converted reference models (quantize, dequantize around float ops), calibrated on the same batches."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    item = Item("converted model, X86 quantizer", 2.0, "in steps of the coarsest observer: ties, where one step moves what follows")
    for round_ in range(max(2, rounds // 10)):
        torch.manual_seed(round_)
        linear = round_ % 2 == 0
        layers = ["linear", "relu", "linear"] if linear else ["conv", "relu", "conv"]
        shape = (4, 8) if linear else (2, 3, 6, 6)
        make = (lambda a, b: torch.nn.Linear(a, b)) if linear else (lambda a, b: torch.nn.Conv2d(a, b, 3, padding=1))
        first, second = make(shape[1], 6), make(6, 5)
        net = torch.nn.Sequential(first, torch.nn.ReLU(), second).eval()
        batches = [torch.randn(shape) for _ in range(3)]
        x = torch.randn(shape)
        exported = torch.export.export(net, (x,), strict=True).module()
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        prepared = prepare_pt2e(exported, quantizer)
        for batch in batches:
            prepared(batch)
        y = convert_pt2e(prepared)(x)
        weights = {0: (first.weight, first.bias), 2: (second.weight, second.bias)}
        answer = probe.ask("model", qir=net_text("net", layers, weights, shape), quantizer="x86", calibration=[tensor(b) for b in batches], input=tensor(x))
        if not item.refuse(answer, str(layers)):
            item.compare(floats(answer["y"]), y.detach().numpy(), unit=answer["step"])
    yield item


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    probe = Probe(options.probe)
    print(f"torch {torch.__version__}, {options.rounds} rounds, seed {options.seed}")
    print(f"{'item':<40} {'equal':>9} {'of':>9}  worst    documented deviation")
    failed = False
    for group in (observer_items, qparam_items, quantize_items, fake_quantize_items, fused_items, group_items, embedding_items, model_items):
        for item in group(probe, rng, options.rounds):
            verdict = "equal bits" if item.equal == item.total else item.why or "none"
            print(f"{item.name:<40} {item.equal:>9} {item.total:>9}  {item.worst:<8.3g} {verdict}")
            for text in item.failed[:5]:
                print(f"    FAILED {text}")
            failed = failed or bool(item.failed) or item.total == 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
