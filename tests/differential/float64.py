"""A float32 ONNX model evaluated in float64 by onnx's reference evaluator: the arbiter where two float32 engines depart from one another."""
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun


class BatchNormalization(OpRun):
    """That of the evaluator takes models before opset 14 for ones in training."""
    op_domain = ""

    def _run(self, x, scale, bias, mean, variance, epsilon=1e-5, **_):
        across = lambda v: v.reshape([1, -1] + [1] * (x.ndim - 2))  # noqa: E731
        return ((x - across(mean)) / np.sqrt(across(variance) + epsilon) * across(scale) + across(bias),)


def widen(tensor):
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def widen_graph(graph):
    for tensor in graph.initializer:
        widen(tensor)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                widen(attribute.t)
            elif attribute.type == onnx.AttributeProto.GRAPH:
                widen_graph(attribute.g)
            elif node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE


def evaluate(path, feed, ports):
    model = onnx.load(path)
    widen_graph(model.graph)
    wide = {key: value.astype(np.float64) if value.dtype == np.float32 else value for key, value in feed.items()}
    return ReferenceEvaluator(model, new_ops=[BatchNormalization]).run(ports, wide)
