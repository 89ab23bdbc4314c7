#!/usr/bin/env python3
"""`qcompile debug` beside PyTorch's Numeric Suite (torch.ao.ns._numeric_suite_fx) on four small networks.

    debug_vs_torch.py QCOMPILE

PyTorch quantizes each (prepare_fx, convert_fx) and compares weights and outputs itself; the same weights, scales and zero points, written as ONNX with
quantize and dequantize, are compared by `debug`, on the same inputs.  Every layer within 0.5 dB, and the same layer the worst of each comparison; the
order of all is told as well.  Shadows are not set side by side: the suite feeds a float layer with the quantized model's values, `debug` a quantized
layer with the float model's.  Needs torch, numpy and onnx.
"""
import copy
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.ao.ns import _numeric_suite_fx as ns
from torch.ao.ns.fx.utils import compute_sqnr
from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

warnings.filterwarnings("ignore")
SAMPLES, CALIBRATION, MOST_APART = 16, 64, 0.5


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16 * 64, 10)
        self.relu0, self.relu1, self.relu2, self.pool, self.flat = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()

    def forward(self, x):
        x = self.relu0(self.stem(x))
        x = self.relu2(x + self.b(self.relu1(self.a(x))))
        return self.head(self.flat(self.pool(x)))


def uneven(layer, spread):
    """Channels of unlike size, so that layers differ."""
    with torch.no_grad():
        layer.weight *= torch.logspace(0, np.log10(spread), layer.weight.shape[0]).reshape(-1, *[1] * (layer.weight.dim() - 1))
    return layer


NETWORKS = {
    "convolutions": (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), uneven(nn.Conv2d(16, 24, 3, stride=2), 20), nn.ReLU(), nn.Conv2d(24, 8, 3), nn.ReLU(),
                                           nn.Flatten(), nn.Linear(8 * 16, 10)), (3, 16, 16)),
    "layers": (lambda: nn.Sequential(nn.Linear(40, 64), nn.ReLU(), uneven(nn.Linear(64, 64), 50), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)), (40,)),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), uneven(nn.Conv2d(12, 12, 3, padding=1, groups=12), 30), nn.ReLU(),
                                        nn.Conv2d(12, 24, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24 * 16, 6)), (3, 8, 8)),
    "residual": (Residual, (3, 16, 16)),
}


class Writer:
    """ONNX of a traced module, float or converted."""

    def __init__(self, shape):
        self.nodes, self.constants, self.shape = [], [], shape

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=output + "/" + op, **attributes))
        return output

    def rounded(self, value, scale, zero):
        q = [self.constant(value + "_scale", np.float32(scale)), self.constant(value + "_zero", np.uint8(zero))]
        self.node("QuantizeLinear", [value, *q], value + "_QuantizeLinear_Output")
        return self.node("DequantizeLinear", [value + "_QuantizeLinear_Output", *q], value + "_DequantizeLinear_Output")

    def layer(self, module, x, name, scale_of_input):
        kind = type(module).__name__
        quantized = "quantized" in type(module).__module__
        weight, bias = (module.weight(), module.bias()) if quantized else (module.weight, module.bias)
        if quantized:
            scales = weight.q_per_channel_scales().numpy().astype(np.float32)
            w = self.node("DequantizeLinear", [self.constant(name + ".weight_quantized", weight.int_repr().numpy()), self.constant(name + ".weight_scale", scales),
                                               self.constant(name + ".weight_zero", np.zeros(len(scales), np.int8))], name + ".weight_DequantizeLinear_Output", axis=0)
            sb = np.float32(scale_of_input) * scales
            b = self.node("DequantizeLinear", [self.constant(name + ".bias_quantized", np.rint(bias.detach().numpy() / sb).astype(np.int32)),
                                               self.constant(name + ".bias_scale", sb), self.constant(name + ".bias_zero", np.zeros(len(sb), np.int32))],
                          name + ".bias_DequantizeLinear_Output", axis=0)
        else:
            w, b = self.constant(name + ".weight", weight.detach().numpy()), self.constant(name + ".bias", bias.detach().numpy())
        if "Conv" in kind:
            pads = list(module.padding) * 2
            y = self.node("Conv", [x, w, b], name, strides=list(module.stride), pads=pads, group=module.groups, kernel_shape=list(module.kernel_size))
        else:
            y = self.node("Gemm", [x, w, b], name, transB=1)
        return self.node("Relu", [y], name + "_relu") if "ReLU" in kind else y

    def module(self, traced, path):
        values, scales = {}, {}
        modules = dict(traced.named_modules())
        for n in traced.graph.nodes:
            at = [values.get(a) if isinstance(a, torch.fx.Node) else a for a in n.args]
            if n.op == "placeholder":
                values[n] = "x"
            elif n.op == "get_attr":
                values[n] = float(getattr(traced, n.target))
            elif n.op == "output":
                self.node("Identity", [values[n.args[0]]], "y")
            elif n.target is torch.quantize_per_tensor:
                values[n], scales[n] = self.rounded(at[0], at[1], int(at[2])), at[1]
            elif n.target == "dequantize":
                values[n] = at[0]
            elif n.op == "call_module" and hasattr(modules[n.target], "weight"):
                m = modules[n.target]
                values[n] = self.layer(m, at[0], n.target, scales.get(n.args[0], 1))
                if "quantized" in type(m).__module__:
                    values[n], scales[n] = self.rounded(values[n], m.scale, int(m.zero_point)), float(m.scale)
            elif n.op == "call_module" and isinstance(modules[n.target], nn.ReLU):
                values[n] = self.node("Relu", [at[0]], at[0] + "_relu")
            elif n.op == "call_module" and isinstance(modules[n.target], nn.MaxPool2d):
                values[n], scales[n] = self.node("MaxPool", [at[0]], n.name, kernel_shape=[2, 2], strides=[2, 2]), scales.get(n.args[0])
            elif n.op == "call_module" and isinstance(modules[n.target], nn.Flatten):
                values[n], scales[n] = self.node("Flatten", [at[0]], n.name), scales.get(n.args[0])
            elif getattr(n.target, "__name__", "") in ("add", "add_relu"):
                values[n] = self.node("Add", at[:2], "sum")
                if "relu" in n.target.__name__:
                    values[n] = self.node("Relu", [values[n]], "sum_relu")
                if len(at) > 2:
                    values[n], scales[n] = self.rounded(values[n], at[2], int(at[3])), at[2]
            else:
                raise ValueError(f"{n.format_node()}: not written")
        port = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
        graph = helper.make_graph(self.nodes, "g", [port("x", ["N", *self.shape])], [port("y", None)], self.constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def suite(floating, converted, data):
    """dB by layer, of weights and of outputs."""
    weights, found = ns.extract_weights("float", copy.deepcopy(floating), "int8", copy.deepcopy(converted)), {"weights": {}, "outputs": {}}
    ns.extend_logger_results_with_comparison(weights, "float", "int8", compute_sqnr, "sqnr")
    for row in weights.values():
        for entry in row["weight"]["int8"]:
            found["weights"][entry["fqn"]] = float(entry["sqnr"][0])
    a, b = ns.add_loggers("float", copy.deepcopy(floating), "int8", copy.deepcopy(converted), ns.OutputLogger)
    a(data), b(data)
    outputs = ns.extract_logger_info(a, b, ns.OutputLogger, "int8")
    ns.extend_logger_results_with_comparison(outputs, "float", "int8", compute_sqnr, "sqnr")
    for row in outputs.values():
        for entry in row["node_output"]["int8"]:
            if entry["fqn"] in found["weights"]:
                found["outputs"][entry["fqn"]] = float(entry["sqnr"][0])
    return found


def main():
    qcompile, failed = sys.argv[1], 0
    torch.backends.quantized.engine = "fbgemm"
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for name, (make, shape) in NETWORKS.items():
            torch.manual_seed(3)
            model = make().eval()
            prepared = quantize_fx.prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping("fbgemm"), (torch.zeros(1, *shape),))
            with torch.no_grad():
                prepared(torch.randn(CALIBRATION, *shape))
            converted = quantize_fx.convert_fx(copy.deepcopy(prepared))
            data = torch.randn(SAMPLES, *shape)
            with torch.no_grad():
                theirs = suite(prepared, converted, data)
            Writer(shape).module(torch.fx.symbolic_trace(model), work / "float.onnx")
            Writer(shape).module(converted, work / "int8.onnx")
            np.savez(work / "data.npz", x=data.numpy()[:, None])
            done = subprocess.run([qcompile, "debug", work / "float.onnx", work / "int8.onnx", "-d", f"npz:{work / 'data.npz'}", "--json"], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            report = json.loads(done.stdout)
            layers = {row["layer"].rsplit("/", 1)[0]: row for row in report["layers"]}
            for what, want in theirs.items():
                ours = {layer: layers[layer][what] for layer in want}
                apart = max(abs(ours[layer] - want[layer]) for layer in want)
                order = [sorted(side, key=side.get) for side in (want, ours)]
                bad = apart > MOST_APART or order[0][0] != order[1][0]
                failed += bad
                print(f"{name} {what}: {len(want)} layers, at most {apart:.3f} dB apart, worst {order[0][0]} / {order[1][0]}, "
                      f"{'the same' if order[0] == order[1] else 'another'} order{'  <-- ' + str((want, ours)) if bad else ''}", flush=True)
            failed += bool(report["unmatched"])
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
