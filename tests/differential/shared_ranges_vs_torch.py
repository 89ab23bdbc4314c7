#!/usr/bin/env python3
"""Values that share an observer, in training: moving averages beside PyTorch's PT2E.

    shared_ranges_vs_torch.py QCOMPILE

What goes into a Concat shares one observer with what comes out, in PyTorch as here.  There each of them calls it, so that its average moves once
for each value in every step, one after the other.  Both begin with the same ranges and see the same batches, whose values are far smaller than
what calibration saw once: the ranges at the end agree within 1e-3, for one value, for the three of a Concat, and for the five of two, one in the other.
Needs torch, torchao, onnx, numpy; exit code 77, which ctest reports as skipped, when something is missing.
"""
import json
import pathlib
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
try:
    import logging

    logging.disable(logging.WARNING)
    import numpy as np
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper
    from qat_vs_torch import PLAIN, order_of, tool
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer, get_default_x86_inductor_quantization_config
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

BATCH, STEPS, SEED, CLOSE = 4, 12, 5, 1e-3
N = helper.make_node


class Single(torch.nn.Module):
    calls, names = 1, ["h"]

    def __init__(self):
        super().__init__()
        self.a, self.c = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.c(self.a(x))

    nodes = [N("Conv", ["x", "a.weight", "a.bias"], ["h"]), N("Conv", ["h", "c.weight", "c.bias"], ["y"])]


class Concat(torch.nn.Module):
    calls, names = 3, ["h"]

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.c(torch.cat([self.a(x), self.b(x)], 1))

    nodes = [N("Conv", ["x", "a.weight", "a.bias"], ["i"]), N("Conv", ["x", "b.weight", "b.bias"], ["j"]), N("Concat", ["i", "j"], ["h"], axis=1),
             N("Conv", ["h", "c.weight", "c.bias"], ["y"])]


class Nested(torch.nn.Module):
    calls, names = 5, ["h"]

    def __init__(self):
        super().__init__()
        self.a, self.b, self.d, self.c = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(10, 4, 1)

    def forward(self, x):
        return self.c(torch.cat([torch.cat([self.a(x), self.b(x)], 1), self.d(x)], 1))

    nodes = [N("Conv", ["x", "a.weight", "a.bias"], ["i"]), N("Conv", ["x", "b.weight", "b.bias"], ["j"]), N("Concat", ["i", "j"], ["k"], axis=1),
             N("Conv", ["x", "d.weight", "d.bias"], ["l"]), N("Concat", ["k", "l"], ["h"], axis=1), N("Conv", ["h", "c.weight", "c.bias"], ["y"])]


def data():
    x = np.random.default_rng(3).normal(size=(BATCH * STEPS, 3, 6, 6)).astype(np.float32) * 0.2
    x[7] *= 12
    return x


def torch_range(module, x):
    """Scale and zero point of the observer that is called `calls` times, after every batch was seen once."""
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    prepared = prepare_qat_pt2e(torch.export.export(module, (torch.from_numpy(x[:BATCH]),)).module(), quantizer)
    calls = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module" and "activation_post_process" in node.target and node.args[0].op != "get_attr":
            calls.setdefault(prepared.get_submodule(node.target), []).append(node)
    found = {}
    for observer in calls:
        observer.disable_fake_quant()
        observer.disable_observer()
        observer.register_forward_pre_hook(lambda m, args: found.setdefault(m, []).extend([args[0].min().item(), args[0].max().item()]))
    with torch.no_grad():
        for i in range(0, len(x), BATCH):  # the graph is of this size
            prepared(torch.from_numpy(x[i:i + BATCH]))
    for observer, ends in found.items():
        inner = observer.activation_post_process
        inner.min_val, inner.max_val = torch.tensor(min(0.0, *ends)), torch.tensor(max(0.0, *ends))
        scale, zero = inner.calculate_qparams()
        top = inner.quant_max
        inner.min_val, inner.max_val = ((0 - zero) * scale).reshape(()).float(), ((top - zero) * scale).reshape(()).float()
        observer.enable_fake_quant()
        observer.enable_observer()
    order = np.array(order_of(len(x), SEED, 0))
    with torch.no_grad():
        for place in range(STEPS):
            prepared(torch.from_numpy(x[order[place * BATCH:(place + 1) * BATCH]]))
    shared = [observer for observer, nodes in calls.items() if len(nodes) == module.calls and not any("x" == n.args[0].name for n in nodes)]
    inner = shared[0].activation_post_process
    return float((inner.max_val - inner.min_val) / (inner.quant_max - inner.quant_min))


def range_here(qcompile, module, x, work):
    np.save(work / "x.npy", x)
    weights = [numpy_helper.from_array(p.detach().numpy(), name) for name, p in module.named_parameters()]
    graph = helper.make_graph(module.nodes, "shared", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), work / "m.onnx")
    rules = {**PLAIN, "force": True, "global": {"activation": {"dtype": "u8", "observer": "minmax"}, "weight": {"dtype": "s8"}}}
    (work / "rules.json").write_text(json.dumps(rules))
    tool(qcompile, "finetune", work / "m.onnx", "-d", f"npy:{work}/x.npy", "--config", work / "rules.json", "--hold-out", 0, "--ranges", "observed", "--scales", "observed", "--optimizer", "sgd",
         "--schedule", "constant", "--momentum", 0, "--lr", 1e-9, "--batch", BATCH, "--epochs", 1, "--seed", SEED, "-o", work / "o.onnx")
    written = onnx.load(work / "o.onnx").graph
    stored = {i.name: numpy_helper.to_array(i) for i in written.initializer}
    return float(next(stored[n.input[1]] for n in written.node if n.op_type == "QuantizeLinear" and n.input[0] in module.names))


def main():
    qcompile, x, failed = pathlib.Path(sys.argv[1]).resolve(), data(), False
    for kind in (Single, Concat, Nested):
        torch.manual_seed(2)
        module = kind()
        with tempfile.TemporaryDirectory() as work:
            ours = range_here(qcompile, module, x, pathlib.Path(work))
        theirs = torch_range(module, x)
        bad = abs(ours / theirs - 1) > CLOSE
        failed |= bad
        print(f"{kind.__name__:8} {'FAIL' if bad else 'ok  '} {kind.calls} values, {STEPS} steps: scale {ours:.6f}, PyTorch {theirs:.6f}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
