"""Ops of other domains than ONNX's own beside ONNX Runtime: what contrib_vs_ort.py and ml_vs_ort.py have in common.

Forms are tuples of the op, operands (None: absent; arrays are constants; Free: fed), attributes, and which outputs are named.
"""
import argparse
import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from opset_forms import found_values


class Free:
    """An array fed at run time; names of the dims that are free."""

    def __init__(self, array, *names):
        self.array, self.names = array, names


def model_of(op, operands, attrs, outputs, free, domain, version):
    names, feeds, inputs, constants = [], {}, [], []
    for k, operand in enumerate(operands):
        names.append(f"x{k}" if operand is not None else "")
        if operand is None:
            continue
        if not isinstance(operand, Free):
            constants.append(numpy_helper.from_array(operand, names[-1]))
            continue
        dims = [name if free and name else size for name, size in zip(operand.names, operand.array.shape)]
        inputs.append(helper.make_tensor_value_info(names[-1], helper.np_dtype_to_tensor_dtype(operand.array.dtype), dims))
        feeds[names[-1]] = operand.array
    results = [f"y{k}" if k in outputs else "" for k in range(max(outputs) + 1)]
    node = helper.make_node(op, names, results, domain=domain, name="node", **attrs)
    graph = helper.make_graph([node], "forms", inputs, [onnx.ValueInfoProto(name=f"y{k}") for k in outputs], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(domain, version)], ir_version=8), feeds


def hold(forms, domain, version):
    """Faults of all forms, as they are and with free dims, by both engines; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("qcompile")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    faults, runs = [], 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for k, (op, operands, attrs, outputs) in enumerate(forms):
            if args.names and op not in args.names:
                continue
            for free in (False, True):
                shown = {name: value for name, value in attrs.items() if not isinstance(value, list) or len(value) < 8}
                label = f"{op} {k} {shown}{' with free dims' if free else ''}"
                model, feeds = model_of(op, operands, attrs, outputs, free, domain, version)
                path = work / "form.onnx"
                onnx.save(model, path)
                try:
                    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
                    expected = session.run(None, feeds)
                except Exception as error:
                    faults.append(f"{label}: ONNX Runtime: {str(error).splitlines()[0][:200]}")
                    continue
                for engine in ("interpreter", "jit"):
                    runs += 1
                    try:
                        for wanted, found in zip(expected, found_values(args.qcompile, engine, path, feeds, outputs, work)):
                            if wanted.shape != found.shape or wanted.dtype != found.dtype:
                                faults.append(f"{label}: {engine}: {found.dtype}{found.shape} instead of {wanted.dtype}{wanted.shape}")
                            elif not np.allclose(wanted, found, rtol=2e-4, atol=2e-4 * np.abs(wanted).max(initial=1)):
                                faults.append(f"{label}: {engine}: differs by {np.abs(wanted - found).max():.3g}")
                    except RuntimeError as error:
                        faults.append(f"{label}: {engine}: {error}")
    print("\n".join(faults))
    print(f"{runs} runs, {len(faults)} faults")
    return 1 if faults else 0
