#!/usr/bin/env python3
"""`qcompile finetune` beside quantization-aware training in PyTorch: the same model, points, batches and steps.

    qat_vs_torch.py QCOMPILE SHARED_DIR [--only NAME,..] [--seeds 0,1,2] [--epochs 4] [--steps 100] [--json OUT]

PyTorch trains eagerly: its FakeQuantize modules with MovingAverageMinMaxObserver stand where `quantize` writes pairs of QuantizeLinear and
DequantizeLinear, weights have FakeQuantize with MovingAveragePerChannelMinMaxObserver that follows at once, layers with BatchNorm are its
ConvBn2d where a case says so; torch.optim.SGD makes the steps.  Both begin
with the same ranges.  Per case: the losses of `--steps` steps, which agree within 1e-3 for the first 20 and in their mean afterwards; and, for
`--seeds`, top-1 of both after `--epochs` epochs, on samples that were not trained on, which agree within twice the standard error of a difference.

Rounding to few steps makes large differences of small ones: PyTorch with its convolutions of another kind, which add in another order, is
apart from itself by more than 1e-3 with 8 bits, and a weight of 4 bits that passes the middle between two integers a step later is a jump.
So medians count, and what is not within 1e-3 is within 3 times the distance of PyTorch from itself.  With activations of 16 bits little of
this is left, which is where formulas are told apart.
Needs torch, onnx, numpy; exit code 77, which ctest reports as skipped, when something is missing.
"""
import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
    import onnx
    import torch
    from onnx import numpy_helper
    from torch.ao.nn.intrinsic.qat import ConvBn2d
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver, QConfig
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

from gradients_vs_torch import OPS, attributes, from_numpy, padded

warnings.filterwarnings("ignore")
F = torch.nn.functional
FIRST, CLOSE, LEVEL, AS_ITSELF = 20, 1e-3, 0.02, 3
# Nothing that changes weights or biases before the first step.
PLAIN = {"recipes": {"reconstruct": "off", "round-weights": "nearest", "bias-correction": "off", "equalize": "off", "equalize-weights": "off", "smooth-quant": "off"}}


def largest(bits):
    """Weights from -largest to largest: with one more below, the outermost weight of a channel would lie half way between two integers, where the last bit of a
    quotient, which PyTorch takes as a product with the reciprocal, decides."""
    return 2 ** (bits - 1) - 1


def cifar10(shared):
    """1000 training images and the 3000 test images: (x, labels) of both."""
    def load(kind, labels):
        x = np.load(shared / "data/cifar10" / kind).astype(np.float32) / 255
        x = ((x - [.485, .456, .406]) / [.229, .224, .225]).astype(np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), np.load(shared / "data/cifar10" / labels).astype(np.int64)
    return load("calib_from_train_images_u8_nhwc.npy", "calib_from_train_labels_u8.npy"), load("test_images_u8_nhwc.npy", "test_labels_u8.npy")


def keywords(shared):
    """500 samples to train on and 500 to measure on."""
    folder = shared / "data/kws01_features"
    rows = list(csv.reader(open(folder / "y_labels.csv")))
    x = np.stack([(np.fromfile(folder / r[0], np.int8).astype(np.float32) - 83) * np.float32(0.5847029) for r in rows]).reshape(-1, 1, 49, 10)
    labels = np.array([int(r[2]) for r in rows])
    return (x[:500], labels[:500]), (x[500:], labels[500:])


class Case:
    def __init__(self, model, data, weights, activations, batch, rate, momentum=0.9, freeze=None):
        self.model, self.data, self.bits, self.batch, self.rate, self.momentum = model, data, weights, batch, rate, momentum
        self.activations, self.freeze = activations, freeze  # freeze: steps with BatchNorm of the batch
        self.top = 2 ** activations - 1

    def rules(self):
        top = largest(self.bits)
        return {**PLAIN, "global": {"activation": {"dtype": f"u{self.activations}", "range": [0, self.top], "observer": "minmax"},
                                    "weight": {"dtype": "s8" if self.bits > 4 else "s4", "range": [-top, top]}}}


CASES = {
    "resnet20_w8a16": Case("cifar10_resnet20", cifar10, 8, 16, 50, 0.00001),
    "resnet20_w4a16": Case("cifar10_resnet20", cifar10, 4, 16, 50, 0.00001),
    "resnet20_w8a8": Case("cifar10_resnet20", cifar10, 8, 8, 50, 0.0001),
    "resnet20_w4a8": Case("cifar10_resnet20", cifar10, 4, 8, 50, 0.0001),
    "dscnn_w8a16": Case("mlperftiny_kws_dscnn", keywords, 8, 16, 50, 0.0001),
    "dscnn_bn_w8a16": Case("mlperftiny_kws_dscnn", keywords, 8, 16, 50, 0.001, freeze=30),
    "dscnn_bn_w4a8": Case("mlperftiny_kws_dscnn", keywords, 4, 8, 50, 0.001, freeze=60),
}


class Draws:
    """splitmix64."""

    def __init__(self, seed):
        self.state = seed % 2**64

    def below(self, count):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return (z ^ (z >> 31)) % count


def order_of(samples, seed, epoch):
    order, draws = list(range(samples)), Draws(seed * 0x100000001B3 + epoch)
    for i in range(samples, 1, -1):
        j = draws.below(i)
        order[i - 1], order[j] = order[j], order[i - 1]
    return order


def tool(*arguments):
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split())[-600:])
    return done.stdout


def conv_bn(a, parameters, norm, values, weights):
    """PyTorch's module for both.  It has no bias of the convolution, which BatchNorm takes off again."""
    w, scale, bias, mean, var = parameters[0], *(values[i] for i in norm.input[1:])
    n, group = attributes(norm), a.get("group", 1)
    module = ConvBn2d(w.shape[1] * group, w.shape[0], tuple(w.shape[2:]), tuple(a.get("strides", (1, 1))), 0, tuple(a.get("dilations", (1, 1))), group, bias=False,
                      eps=n.get("epsilon", 1e-5), momentum=0.1, qconfig=QConfig(activation=torch.nn.Identity, weight=weights))
    with torch.no_grad():
        for to, value in ((module.weight, w), (module.bn.weight, scale), (module.bn.bias, bias), (module.bn.running_var, var),
                          (module.bn.running_mean, mean - (parameters[1] if len(parameters) > 1 else 0))):
            to.copy_(value)
    return module.train()


class Network:
    """A float ONNX model that PyTorch runs node by node, rounded where a QDQ file of it has pairs."""

    def __init__(self, path, quantized, case):
        graph = onnx.load(path).graph
        self.nodes, self.input, self.output = list(graph.node), graph.input[0].name, graph.output[0].name
        self.values = {i.name: from_numpy(numpy_helper.to_array(i)) for i in graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                self.values[node.output[0]] = from_numpy(numpy_helper.to_array(attributes(node)["value"]))
        self.nodes = [n for n in self.nodes if n.op_type != "Constant"]
        if self.nodes[-1].op_type == "Softmax":  # cross-entropy reads what it reads
            self.output = self.nodes.pop().input[0]
        self.points, self.ranges, self.weights, self.top = {}, {}, {}, case.top
        rounded = onnx.load(quantized).graph
        for node in rounded.node:
            if node.op_type == "QuantizeLinear":
                self.points[node.input[0]] = node.input[1]  # values that share a scale share an observer
        for shared in set(self.points.values()):
            self.ranges[shared] = FakeQuantize(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=case.top, dtype=torch.quint8 if case.top < 256 else torch.uint16, qscheme=torch.per_tensor_affine)
        # Layers by the value that rounding finds: that of the BatchNorm behind it, where there is one.
        normalised = {n.input[0]: n for n in self.nodes if n.op_type == "BatchNormalization"}
        self.layers = {n.output[0] if n.output[0] not in normalised else normalised[n.output[0]].output[0]: n for n in self.nodes if n.op_type in ("Conv", "Gemm")}
        made = {n.output[0]: n.input[0] for n in rounded.node if n.op_type == "DequantizeLinear"}
        stored = {i.name for i in rounded.initializer}
        rounds = {n.output[0] for n in rounded.node if n.op_type in ("Conv", "Gemm") and made.get(n.input[1]) in stored}
        weights = FakeQuantize.with_args(observer=MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0, quant_min=-largest(case.bits), quant_max=largest(case.bits),
                                         dtype=torch.qint8, qscheme=torch.per_channel_symmetric, ch_axis=0)
        self.modules, folded = {}, {}
        for value, node in self.layers.items():
            if value in rounds and node.output[0] in normalised and case.freeze is not None:
                self.modules[value] = conv_bn(attributes(node), [self.values[i] for i in node.input[1:]], normalised[node.output[0]], self.values, weights)
            elif node.output[0] in normalised:
                folded[value] = node, normalised[node.output[0]]
            if value in rounds and value not in self.modules:
                self.weights[value] = weights()
        for value, (node, norm) in folded.items():
            self.fold(value, node, norm)
        self.parameters = {i: self.values[i].requires_grad_() for value, n in self.layers.items() for i in n.input[1:] if value not in self.modules}
        for value, module in self.modules.items():
            self.parameters |= {f"{value}.{name}": p for name, p in module.named_parameters()}

    def fold(self, value, node, norm):
        """BatchNorm into the weights of the layer, which takes its place."""
        scale, bias, mean, var = (self.values[i] for i in norm.input[1:])
        s = scale / torch.sqrt(var + attributes(norm).get("epsilon", 1e-5))
        w = self.values[node.input[1]]
        own = self.values[node.input[2]] if len(node.input) > 2 else 0
        self.values[node.input[1] + ".folded"] = w * s.reshape(-1, *[1] * (w.dim() - 1))
        self.values[node.input[1] + ".bias"] = (own - mean) * s + bias
        layer = onnx.helper.make_node("Conv", [node.input[0], node.input[1] + ".folded", node.input[1] + ".bias"], [value])
        layer.attribute.extend(node.attribute)
        self.nodes[self.nodes.index(norm)] = layer
        self.nodes.remove(node)
        self.layers[value] = layer

    def rounded(self, name, value):
        return self.ranges[self.points[name]](value) if name in self.points and self.rounding else value

    def observe(self, x):
        """Ranges to begin with: of all samples, as integers give them back."""
        self.rounding, found = False, {}
        with torch.no_grad():
            for name, value in self.run(torch.from_numpy(x)).items():
                if name in self.points:
                    low, high = found.get(self.points[name], (0.0, 0.0))
                    found[self.points[name]] = min(low, value.min().item()), max(high, value.max().item())
        self.rounding = True
        for name, (low, high) in found.items():
            observer = self.ranges[name].activation_post_process
            observer.min_val, observer.max_val = torch.tensor(low), torch.tensor(high)
            scale, zero = observer.calculate_qparams()
            observer.min_val, observer.max_val = (0 - zero[0]) * scale[0], (self.top - zero[0]) * scale[0]

    def run(self, x):
        values = {**self.values, self.input: self.rounded(self.input, x)}
        for node in self.nodes:
            name = node.output[0]
            if name in self.modules and self.rounding:
                layer = self.layers[name]
                values[name] = self.rounded(name, self.modules[name](padded(values[layer.input[0]], attributes(layer), 2, 0.0)))
                continue
            operands = [values[i] if i else None for i in node.input]
            if name in self.weights and self.rounding:
                operands[1] = self.weights[name](operands[1])
            values[name] = self.rounded(name, OPS[node.op_type](attributes(node), *operands))
        return values

    def follow(self, on):
        for module in [*self.ranges.values(), *self.weights.values(), *(m.weight_fake_quant for m in self.modules.values())]:
            module.enable_observer(on)
        for module in self.modules.values():
            module.train(on)

    def freeze(self):
        for module in self.modules.values():
            module.freeze_bn_stats()

    def top1(self, x, labels):
        self.follow(False)
        with torch.no_grad():
            right = sum((self.run(torch.from_numpy(x[i:i + 500]))[self.output].argmax(1).numpy() == labels[i:i + 500]).sum() for i in range(0, len(x), 500))
        self.follow(True)
        return 100 * right / len(x)


def torch_training(case, path, quantized, train, test, seed, epochs, steps):
    torch.set_default_dtype(torch.float32)
    network = Network(path, quantized, case)
    x, labels = train
    network.observe(x)
    optimizer = torch.optim.SGD(network.parameters.values(), lr=case.rate, momentum=case.momentum)
    losses, per_epoch = [], len(x) // case.batch
    for epoch in range(epochs):
        order = np.array(order_of(len(x), seed, epoch))
        for place in range(per_epoch):
            if steps and len(losses) == steps:
                break
            if case.freeze is not None and len(losses) == case.freeze:
                network.freeze()
            indices = order[place * case.batch:(place + 1) * case.batch]
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(network.run(torch.from_numpy(x[indices]))[network.output], torch.from_numpy(labels[indices]))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, network.top1(*test) if test else None


def training_here(qcompile, case, path, work, seed, epochs):
    said = json.loads(tool(qcompile, "finetune", path, "-d", f"npy:{work}/train.npy", "--labels", work / "train.tsv", "--config", work / "rules.json", "--scales", "observed", "--ranges", "observed", "--hold-out", "0",
                           "--optimizer", "sgd", "--schedule", "constant", "--momentum", case.momentum, "--lr", case.rate, "--batch", case.batch, "--epochs", epochs, "--seed", seed,
                           "--threads", 2, "--json", "-o", work / "trained.onnx", *(["--freeze-bn-after", case.freeze] if case.freeze is not None else [])))
    return said["losses"]


def top1_here(qcompile, work):
    return 100 * json.loads(tool(qcompile, "eval", work / "trained.onnx", "-d", f"npy:{work}/test.npy", "--labels", work / "test.tsv", "--threads", 2, "--json"))["top1"]


def written(work, name, x, labels):
    np.save(work / f"{name}.npy", x)
    (work / f"{name}.tsv").write_text("index\tclass\n" + "".join(f"{i}\t{label}\n" for i, label in enumerate(labels)))


def compare(name, case, args, work):
    train, test = case.data(args.shared)
    path = args.shared / "models" / case.model / "model.onnx"
    written(work, "train", *train)
    written(work, "test", *test)
    (work / "rules.json").write_text(json.dumps(case.rules()))
    tool(args.qcompile, "quantize", path, "-d", f"npy:{work}/train.npy", "--config", work / "rules.json", "-o", work / "points.onnx")
    per_epoch, failed = len(train[0]) // case.batch, False
    epochs = -(-args.steps // per_epoch)
    ours = training_here(args.qcompile, case, path, work, args.seeds[0], epochs)[:args.steps]
    theirs, _ = torch_training(case, path, work / "points.onnx", train, None, args.seeds[0], epochs, args.steps)
    with torch.backends.mkldnn.flags(enabled=False):  # the same in another order of sums
        again, _ = torch_training(case, path, work / "points.onnx", train, None, args.seeds[0], epochs, args.steps)
    ours, theirs, again = np.array(ours), np.array(theirs), np.array(again)
    typical_of = lambda x: np.median(np.abs(x - theirs)[:FIRST])  # noqa: E731
    level_of = lambda x: abs(x[FIRST:].mean() / theirs[FIRST:].mean() - 1)  # noqa: E731
    typical, largest_first, level = typical_of(ours), np.abs(ours - theirs)[:FIRST].max(), level_of(ours)
    bad = typical > max(CLOSE, AS_ITSELF * typical_of(again)) or level > max(LEVEL, AS_ITSELF * level_of(again))
    failed |= bad
    row = {"case": name, "typical": typical, "typical_of_torch": typical_of(again), "largest": largest_first, "level": level, "level_of_torch": level_of(again),
           "ours": ours.tolist(), "torch": theirs.tolist()}
    print(f"{name:16} {'FAIL' if bad else 'ok  '} losses of {len(ours)} steps: {ours[0]:.5f} to {ours[-10:].mean():.4f}, PyTorch {theirs[0]:.5f} to {theirs[-10:].mean():.4f}; of the first {FIRST} "
          f"apart by {typical:.1e}, at most {largest_first:.1e} (PyTorch from itself {typical_of(again):.1e}, {np.abs(again - theirs)[:FIRST].max():.1e}); the mean of the others by "
          f"{100 * level:.2f}% ({100 * level_of(again):.2f}%)", flush=True)
    if args.epochs == 0:
        return row, failed
    pairs = []
    for seed in args.seeds:
        training_here(args.qcompile, case, path, work, seed, args.epochs)
        pairs.append((top1_here(args.qcompile, work), torch_training(case, path, work / "points.onnx", train, test, seed, args.epochs, 0)[1]))
    means = np.mean(pairs, 0)
    noise = 2 * 100 * np.sqrt(2 * means[1] / 100 * (1 - means[1] / 100) / len(test[0]))
    bad = abs(means[0] - means[1]) > noise
    row |= {"top1": pairs}
    print(f"{'':16} {'FAIL' if bad else 'ok  '} top-1 after {args.epochs} epochs: {means[0]:.2f}, PyTorch {means[1]:.2f} (" +
          ", ".join(f"{a:.2f} / {b:.2f}" for a, b in pairs) + f"; noise {noise:.2f})", flush=True)
    return row, failed | bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=4, help="0: losses alone")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    args.qcompile, args.seeds = args.qcompile.resolve(), [int(s) for s in args.seeds.split(",")]
    rows, failed = [], False
    for name in args.only.split(","):
        with tempfile.TemporaryDirectory() as work:
            row, bad = compare(name, CASES[name], args, pathlib.Path(work))
        rows.append(row)
        failed |= bad
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
