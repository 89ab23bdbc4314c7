#!/usr/bin/env python3
"""Every op in every form that it has had: what ONNX changed between opsets, beside ONNX Runtime or ONNX's own evaluator.

    opset_forms.py QCOMPILE [NAME ...]

FORMS holds, by op, forms with the opsets in which they may be written.  Each is made at every opset at which ONNX changed the op, and at the
newest, and run by the interpreter and by machine code.  The right values are ONNX Runtime's, or, where it refuses the model, those of
ONNX's reference evaluator.  What ONNX's text leaves open (the mask of Dropout in inference, nearest Resize to fewer elements in opset 10)
has no form.  An imported op that ONNX changed and that no form covers is an error.

Needs onnx, onnxruntime and numpy; exit code 77, which ctest reports as skipped, without.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnx.defs
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

OLDEST, NEWEST = 7, 26  # of this importer, and of what ONNX Runtime takes
SOURCES = pathlib.Path(__file__).resolve().parents[2]
rng = np.random.default_rng(5)


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def positive(*shape):
    return np.abs(f(*shape)) + np.float32(0.1)


def i(*values):
    return np.array(values, dtype=np.int64)


def s(value, dtype=np.float32):
    return np.array(value, dtype=dtype)


class Form:
    """inputs: arrays fed at run time, constants behind them (None: absent); opsets from `since` up to `until`."""

    def __init__(self, *inputs, constants=(), attrs=None, outputs=1, since=OLDEST, until=NEWEST):
        self.inputs, self.constants, self.attrs, self.outputs = inputs, constants, attrs or {}, outputs
        self.since, self.until = since, until


def alike(*ops, forms):
    return {op: forms for op in ops}


X = f(2, 3, 4, 5)
IMAGE = f(1, 4, 6, 7)
EXTREME = np.array([-3e38, -1.5, -0.0, 0.0, 1.5, 3e38, np.nan], dtype=np.float32)  # infinite values: ONNX's text and its
# evaluator are of two minds whether Clip without a bound leaves them
VAST = np.array([[200, 190, -300], [-500, -501, -499], [3, -np.inf, 100]], dtype=np.float32)  # whose exponentials are no numbers, or 0
REDUCED = [
    Form(X, attrs={"axes": [1, -1]}, since=11, until=17), Form(X, attrs={"axes": [2], "keepdims": 0}, until=17), Form(X, until=17),
    Form(X, constants=[i(1, -1)], since=18), Form(X, constants=[i(2)], attrs={"keepdims": 0}, since=18), Form(X, since=18),
    Form(X, constants=[i()], since=18), Form(X, constants=[i()], attrs={"noop_with_empty_axes": 1}, since=18),
    Form(X, attrs={"noop_with_empty_axes": 1}, since=18),
]
BINARY = [Form(f(3, 4), f(3, 4)), Form(f(3, 4), f(4)), Form(f(4), f(3, 1))]
SOFTMAX = [Form(f(2, 3, 4)), Form(f(2, 3, 4), attrs={"axis": 0}), Form(f(2, 3, 4), attrs={"axis": 2}), Form(f(2, 3, 4), attrs={"axis": -2}, since=11)]
POOL = [
    Form(IMAGE, attrs={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Form(IMAGE, attrs={"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Form(IMAGE, attrs={"kernel_shape": [3, 2], "ceil_mode": 1, "strides": [2, 2]}, since=10),
    Form(IMAGE, attrs={"kernel_shape": [3, 3], "ceil_mode": 1, "strides": [3, 3], "pads": [1, 0, 1, 1]}, since=10),
]
RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op):
    gates = RECURRENT[op]
    weights = [f(1, gates * 5, 3), f(1, gates * 5, 5), f(1, 2 * gates * 5)]
    outputs = 3 if op == "LSTM" else 2
    # ONNX Runtime leaves the cell of an LSTM unclipped: ONNX's text has every input of an activation clipped.
    clipped = [] if op == "LSTM" else [Form(f(4, 2, 3), constants=weights, attrs={"hidden_size": 5, "clip": 0.5}, outputs=outputs)]
    return [*clipped, Form(f(4, 2, 3), constants=weights, attrs={"hidden_size": 5}, outputs=outputs),
            Form(f(2, 4, 3), constants=weights, attrs={"hidden_size": 5, "layout": 1}, outputs=outputs, since=14)]


QUANTIZED = f(4, 6) * 50
FORMS = {
    **alike("Abs", "Ceil", "Floor", "Exp", "Neg", "Relu", "Sigmoid", "Tanh", "Identity", "Softplus", "Softsign", "Atan", "Sin", "Cos", "Sinh", "Cosh",
            "Asinh", "Erf", "Sign", "Tan", "HardSigmoid", "Elu", "Selu", "LeakyRelu", "HardSwish", "Shape", "Size", forms=[Form(X)]),
    **alike("Round", "IsNaN", "IsInf", forms=[Form(np.append(EXTREME, [np.inf, -np.inf]).astype(np.float32), since=10)]),
    **alike("Swish", "Mish", "Celu", "Gelu", forms=[Form(X, since=12)]),
    **alike("Log", "Sqrt", "Reciprocal", "Acosh", forms=[Form(positive(2, 3) + 1)]),
    **alike("Acos", "Asin", "Atanh", forms=[Form(np.tanh(X))]),
    **alike("Add", "Sub", "Mul", "Div", "Greater", "Less", "Max", "Min", "Sum", forms=BINARY),
    "Mean": BINARY[:2],
    **alike("GreaterOrEqual", "LessOrEqual", forms=[Form(f(3, 4), f(4), since=12)]),
    **alike("And", "Or", "Xor", forms=[Form(f(3, 4) > 0, f(4) > 0)]),
    "Not": [Form(f(3, 4) > 0)],
    "Equal": [Form(rng.integers(0, 3, (3, 4)), rng.integers(0, 3, (4,))), Form(s([1, 2, np.nan]), s([1, 3, np.nan]), since=11)],
    "Mod": [Form(i(-5, 5, 7), i(3, -3, 4), since=10), Form(f(6), f(6), attrs={"fmod": 1}, since=10)],
    "Pow": [Form(positive(3, 4), f(4)), Form(positive(3, 4), i(2, 3, 0, -1), since=12)],
    "Where": [Form(f(3, 4) > 0, f(4), f(3, 1), since=9)],
    "PRelu": [Form(f(2, 4, 4), constants=[f(4, 1)]), Form(f(2, 3, 4), constants=[f(4)]), Form(f(2, 4, 4), constants=[f(4)])],
    "ThresholdedRelu": [Form(X, since=10), Form(X, attrs={"alpha": 0.5}, since=10)],
    "Shrink": [Form(X, attrs={"lambd": 0.7, "bias": 0.2}, since=9),
               *[Form(np.arange(-4, 5).astype(t), attrs={"lambd": 1.5, "bias": 0.7}, since=9) for t in (np.int8, np.uint8, np.int32, np.int64)]],
    "Clip": [Form(EXTREME), Form(EXTREME, attrs={"min": -2.0, "max": 2.0}, until=10), Form(EXTREME, attrs={"max": 2.0}, until=10),
             Form(EXTREME, constants=[s(-2), s(2)], since=11), Form(EXTREME, constants=[None, s(2)], since=11),
             Form(EXTREME, s(-1), since=11), Form(i(-5, 0, 5), constants=[s(-2, np.int64)], since=12),
             Form(EXTREME, constants=[s(2), s(-2)], since=11)],
    "Cast": [Form(s([-1.5, 0.0, 2.7, 300.0]), attrs={"to": to}) for to in (TensorProto.INT32, TensorProto.BOOL, TensorProto.DOUBLE)]
            + [Form(s([-1.5, 0.0, 2.7]), attrs={"to": TensorProto.INT64, "saturate": 1}, since=19)],
    "CastLike": [Form(s([-1.5, 0.0, 2.7]), i(1), since=15)],
    "ArgMax": [Form(f(3, 4), attrs={"axis": 1}), Form(s([[1, 3, 3]]), attrs={"axis": 1, "select_last_index": 1, "keepdims": 0}, since=12),
               Form(f(3, 4), attrs={"axis": -1}, since=11)],
    "ArgMin": [Form(f(3, 4)), Form(s([[3, 1, 1]]), attrs={"axis": 1, "select_last_index": 1}, since=12)],
    "TopK": [Form(f(3, 8), attrs={"k": 3}, outputs=2, until=9), Form(f(8, 3), attrs={"k": 3, "axis": 0}, outputs=2, until=9),
             Form(f(3, 8), constants=[i(3)], outputs=2, since=10), Form(f(3, 8), constants=[i(3)], attrs={"largest": 0}, outputs=2, since=11),
             Form(s([[1, 2, 2, 1, 2]]), constants=[i(4)], outputs=2, since=11)],
    "CumSum": [Form(X, constants=[s(1, np.int32)], since=11), Form(X, constants=[s(-2, np.int64)], attrs={"exclusive": 1, "reverse": 1}, since=11)],
    "CumProd": [Form(X, constants=[s(1, np.int32)], since=26), Form(X, constants=[s(-2, np.int64)], attrs={"exclusive": 1, "reverse": 1}, since=26)],
    **alike("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", forms=REDUCED),
    "ReduceLogSumExp": [*REDUCED, *(Form(s(VAST), constants=[i(1)], attrs={"keepdims": keep}, since=18) for keep in (0, 1))],
    "ReduceLogSum": [Form(positive(2, 3, 4), attrs={"axes": [1]}, until=17), Form(positive(2, 3, 4), constants=[i(1)], since=18),
                     Form(positive(2, 3), constants=[i()], attrs={"noop_with_empty_axes": 1}, since=18)],
    "ReduceSum": [Form(X, attrs={"axes": [1, 2]}, until=12), Form(X, until=12), Form(X, constants=[i(1, -1)], since=13), Form(X, since=13),
                  Form(X, constants=[i()], since=13), Form(X, constants=[i()], attrs={"noop_with_empty_axes": 1}, since=13)],
    **alike("Softmax", "LogSoftmax", "Hardmax", forms=SOFTMAX),
    "AveragePool": POOL + [Form(IMAGE, attrs={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
                           Form(IMAGE, attrs={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}, since=10),
                           Form(IMAGE, attrs={"kernel_shape": [2, 2], "dilations": [2, 3], "pads": [1, 1, 1, 1]}, since=19),
                           Form(IMAGE, attrs={"kernel_shape": [2, 2], "dilations": [2, 2], "strides": [2, 3], "ceil_mode": 1}, since=19)],
    "MaxPool": POOL + [Form(IMAGE, attrs={"kernel_shape": [2, 2], "dilations": [2, 3]}, since=10)]
               + [Form(f(2, *IMAGE.shape[1:]), attrs={"kernel_shape": [2, 3], "strides": [2, 2], **more}, outputs=2, since=12) for more in (
                   {}, {"pads": [1, 1, 0, 2]}, {"storage_order": 1}, {"ceil_mode": 1}, {"dilations": [2, 2]}, {"auto_pad": "SAME_UPPER"})]
               + [Form(f(1, 2, 3, 4, 5), attrs={"kernel_shape": [2, 2, 2]}, outputs=2, since=12), Form(f(2, 3, 7), attrs={"kernel_shape": [3], "strides": [2]}, outputs=2, since=12)],
    "LpPool": [Form(IMAGE, attrs={"kernel_shape": [2, 2], "strides": [2, 2]}), Form(IMAGE, attrs={"kernel_shape": [2, 3], "p": 3}),
               Form(IMAGE, attrs={"kernel_shape": [2, 2], "dilations": [2, 2], "ceil_mode": 1, "strides": [2, 2]}, since=18)],
    **alike("GlobalAveragePool", "GlobalMaxPool", forms=[Form(IMAGE)]),
    "GlobalLpPool": [Form(IMAGE, until=21)],
    "Conv": [Form(IMAGE, constants=[f(5, 4, 3, 3), f(5)], attrs={"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
             Form(IMAGE, constants=[f(4, 2, 2, 3)], attrs={"group": 2, "pads": [0, 1, 2, 1]})],
    "ConvTranspose": [Form(IMAGE, constants=[f(4, 3, 3, 3), f(3)], attrs={"strides": [2, 2], **more}) for more in (
        {}, {"output_padding": [1, 1], "pads": [1, 1, 1, 1]}, {"output_shape": [12, 13]}, {"output_shape": [12, 14], "auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"}, {"auto_pad": "SAME_UPPER"})],
    "BatchNormalization": [Form(X, constants=[f(3), f(3), f(3), positive(3)], attrs={"epsilon": 1e-3})],
    "InstanceNormalization": [Form(X, constants=[f(3), f(3)])],
    "GroupNormalization": [Form(IMAGE, constants=[f(2), f(2)], attrs={"num_groups": 2}, since=18, until=20),
                           Form(IMAGE, f(2), f(2), attrs={"num_groups": 2, "epsilon": 0.1}, since=18, until=20),
                           Form(f(2, 4, 5), constants=[f(4), f(4)], attrs={"num_groups": 4}, since=18, until=20),
                           Form(f(2, 6, 3, 2, 2), constants=[f(1), f(1)], attrs={"num_groups": 1}, since=18, until=20),
                           Form(IMAGE, constants=[f(4), f(4)], attrs={"num_groups": 2}, since=21),
                           Form(IMAGE, f(4), f(4), attrs={"num_groups": 1}, since=21)],
    "LayerNormalization": [Form(X, constants=[f(5), f(5)], since=17), Form(X, constants=[f(4, 5)], attrs={"axis": 2}, outputs=3, since=17)],
    "RMSNormalization": [Form(X, constants=[f(5)], since=23), Form(X, constants=[f(4, 5)], attrs={"axis": -2}, since=23)],
    "LRN": [Form(IMAGE, attrs={"size": 3, "alpha": 0.2, "bias": 0.5})],
    "LpNormalization": [Form(X), Form(X, attrs={"p": 1, "axis": 1})],
    "MeanVarianceNormalization": [Form(X, since=9), Form(X, attrs={"axes": [1, 2]}, since=9)],
    "Gemm": [Form(f(3, 4), constants=[f(5, 4), f(5)], attrs={"transB": 1, "alpha": 0.5, "beta": 2.0}), Form(f(3, 4), f(4, 5), f(3, 1)),
             Form(f(3, 4), f(4, 5), since=11)],
    "MatMul": [Form(f(2, 3, 4), f(4, 5)), Form(f(4), f(2, 4, 3))],
    "Einsum": [Form(f(2, 3), f(3, 4), attrs={"equation": "ij,jk->ki"}, since=12)],
    "Reshape": [Form(X, constants=[i(0, -1, 5)]), Form(f(0, 3), constants=[i(3, 0)], attrs={"allowzero": 1}, since=14)],
    "Flatten": [Form(X), Form(X, attrs={"axis": 0}), Form(X, attrs={"axis": -1}, since=11)],
    "Squeeze": [Form(f(1, 3, 1), attrs={"axes": [0]}, until=12), Form(f(1, 3, 1)), Form(f(1, 3, 1), constants=[i(-1)], since=13)],
    "Unsqueeze": [Form(f(3, 4), attrs={"axes": [0, 3]}, until=12), Form(f(3, 4), constants=[i(3, 0)], since=13),
                  Form(f(3, 4), attrs={"axes": [-1, 1]}, since=11, until=12)],
    "Transpose": [Form(X), Form(X, attrs={"perm": [0, 2, 3, 1]})],
    "Concat": [Form(f(2, 3), f(2, 1), attrs={"axis": 1}), Form(f(2, 3), f(1, 3), attrs={"axis": -2}, since=11)],
    "Split": [Form(f(2, 6), attrs={"axis": 1}, outputs=3, until=17), Form(f(2, 6), attrs={"axis": 1, "split": [1, 5]}, outputs=2, until=12),
              Form(f(2, 6), constants=[i(2, 4)], attrs={"axis": -1}, outputs=2, since=13),
              Form(f(7, 2), attrs={"num_outputs": 3}, outputs=3, since=18), Form(f(2, 6), attrs={"axis": 1, "num_outputs": 2}, outputs=2, since=18)],
    "Slice": [Form(X, attrs={"starts": [1, -2], "ends": [3, 100], "axes": [1, 3]}, until=9), Form(X, attrs={"starts": [0, 1], "ends": [1, 3]}, until=9),
              Form(X, constants=[i(1, -1), i(3, -100), i(1, 3), i(1, -2)], since=10), Form(X, constants=[i(1), i(2**62)], since=10),
              Form(X, constants=[i(3, 1), i(-2**63, 2), i(-1, 2), i(-1, 1)], since=11)],
    "Pad": [Form(f(2, 3), attrs={"pads": [0, 1, 2, 0], "value": 0.5}, until=10), Form(f(4, 3), attrs={"pads": [1, 1, 2, 0], "mode": "reflect"}, until=10),
            Form(f(2, 3), constants=[i(0, 1, 2, 0), s(0.5)], since=11), Form(f(2, 3), constants=[i(0, 1, 2, 0)], since=11),
            Form(f(2, 3), constants=[i(1, 2), None, i(-1)], attrs={"mode": "edge"}, since=18),
            Form(f(4, 3), constants=[i(5, 1, 3, 4)], attrs={"mode": "wrap"}, since=19), Form(f(4, 3), constants=[i(-1, 1, 2, -1)], since=11)],
    "Expand": [Form(f(3, 1), constants=[i(2, 1, 4)], since=8)],
    "Tile": [Form(f(2, 3), constants=[i(2, 3)])],
    "Gather": [Form(f(4, 3), i(0, 3, 1)), Form(f(4, 3), i(-1, 2), attrs={"axis": 1}, since=11)],
    "GatherElements": [Form(f(3, 3), np.array([[0, 2, -1]]), since=11)],
    "GatherND": [Form(f(2, 3, 4), np.array([[0, 1], [1, -1]]), since=11), Form(f(2, 3, 4), np.array([[1], [0]]), attrs={"batch_dims": 1}, since=12)],
    "Scatter": [Form(f(3, 3), np.array([[0, 2, 1]]), f(1, 3), since=9, until=10)],
    "ScatterElements": [Form(f(3, 3), np.array([[0, 2, -1]]), f(1, 3), since=11), Form(f(3, 3), np.array([[0, 2, 1], [0, 1, 1]]), f(2, 3), attrs={"reduction": "add"}, since=16),
                        Form(f(3, 3), np.array([[0, 2, 1], [0, 1, 1]]), f(2, 3), attrs={"reduction": "max", "axis": 1}, since=18)],
    "ScatterND": [Form(f(4, 3), np.array([[1], [3]]), f(2, 3), since=11), Form(f(4, 3), np.array([[1], [1]]), f(2, 3), attrs={"reduction": "mul"}, since=16),
                  Form(f(4, 3), np.array([[1], [1]]), f(2, 3), attrs={"reduction": "min"}, since=18)],
    "DepthToSpace": [Form(f(1, 8, 2, 3), attrs={"blocksize": 2}), Form(f(1, 8, 2, 3), attrs={"blocksize": 2, "mode": "CRD"}, since=11)],
    "SpaceToDepth": [Form(f(1, 2, 4, 6), attrs={"blocksize": 2})],
    "ConstantOfShape": [Form(constants=[i(2, 3)], attrs={"value": numpy_helper.from_array(s([7], np.int64))}, since=9), Form(constants=[i(2, 3)], since=9),
                        Form(constants=[i(2, 3)], attrs={"value": numpy_helper.from_array(s([7], np.float16))}, since=9)],
    "Range": [Form(constants=[s(1.0), s(4.5), s(0.7)], since=11), Form(constants=[s(5, np.int64), s(0, np.int64), s(-2, np.int64)], since=11)],
    "OneHot": [Form(i(0, 2, -1), constants=[s(4, np.int64), s([0.5, 2.0])], since=11), Form(np.array([[1, 0]]), constants=[s(3, np.int64), s([0, 1])], attrs={"axis": 1}, since=9)],
    "Trilu": [Form(f(3, 4), since=14), Form(f(3, 4), constants=[s(-1, np.int64)], attrs={"upper": 0}, since=14)],
    "EyeLike": [Form(f(3, 4), attrs={"k": 1}, since=9)],
    "CenterCropPad": [Form(f(5, 4), constants=[i(3, 7)], since=18)],
    "Dropout": [Form(X, attrs={"ratio": 0.3}, until=11), Form(X, constants=[s(0.5)], outputs=2, since=12),
                Form(X, constants=[s(0.5), s(False, bool)], since=12)],
    "Upsample": [Form(f(1, 1, 3, 4), attrs={"scales": [1.0, 1.0, 2.0, 1.6], "mode": mode}, until=8) for mode in ("nearest", "linear")]
                + [Form(f(1, 1, 3, 4), constants=[s([1, 1, 2, 1.6])], attrs={"mode": mode}, since=9, until=9) for mode in ("nearest", "linear")],
    "Resize": [Form(f(1, 1, 4, 5), constants=[s([1, 1, *scale])], attrs={"mode": mode}, since=10, until=10)
               for mode, scale in (("nearest", (2, 1.7)), ("linear", (2, 1.7)), ("linear", (0.5, 0.7)))]
              + [Form(f(1, 1, 4, 5), constants=[s([]), s([1, 1, *scale])], attrs={"mode": mode, "coordinate_transformation_mode": where}, since=11)
                 for mode in ("nearest", "linear", "cubic") for scale in ((2, 1.7), (0.5, 0.7)) for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")]
              + [Form(f(1, 1, 4, 5), constants=[s([]), s([1, 1, 2, 1.7])], attrs={"coordinate_transformation_mode": "tf_half_pixel_for_nn"}, since=11, until=12)]
              + [Form(f(1, 1, 4, 5), constants=[None, None, i(1, 1, 7, 3)], attrs={"mode": "linear"}, since=13),
                 Form(f(1, 1, 4, 5), constants=[None, None, i(3, 7)], attrs={"mode": "linear", "axes": [3, 2]}, since=18),
                 Form(f(1, 1, 4, 5), constants=[None, None, i(9, 9)], attrs={"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}, since=18),
                 Form(f(1, 1, 4, 5), constants=[None, s([1, 1, 1.3, 0.6])], attrs={"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}, since=19)],
    **{op: recurrent(op) for op in RECURRENT},
    "ReverseSequence": [Form(f(4, 3, 2), i(2, 4, 1), since=10), Form(f(3, 4, 2), i(2, 4, 1), attrs={"time_axis": 1, "batch_axis": 0}, since=10)],
    "QuantizeLinear": [Form(QUANTIZED, constants=[s(0.4), s(100, np.uint8)], since=10), Form(QUANTIZED, constants=[s(0.4)], since=10),
                       Form(QUANTIZED, constants=[positive(4), s([1, 2, 3, 4], np.int8)], attrs={"axis": 0}, since=13),
                       Form(QUANTIZED, constants=[s(0.4)], attrs={"output_dtype": TensorProto.INT8}, since=21),
                       Form(QUANTIZED, constants=[positive(4, 3)], attrs={"axis": 1, "block_size": 2}, since=21)],
    "DequantizeLinear": [Form(s([[1, 200], [3, 4]], np.uint8), constants=[s(0.4), s(100, np.uint8)], since=10),
                         Form(s([[1, -2], [3, 4]], np.int8), constants=[positive(2), s([1, 2], np.int8)], attrs={"axis": 0}, since=13),
                         Form(constants=[s([[1, -2], [3, 4]], np.int8), s([0.5, -0.25]), s([1, 2], np.int8)], attrs={"axis": 0}, since=13),
                         Form(s([[1, -2, 3, 4]], np.int8), constants=[positive(1, 2)], attrs={"axis": 1, "block_size": 2}, since=21)],
    "DynamicQuantizeLinear": [Form(QUANTIZED, outputs=3, since=11)],
    "ConvInteger": [Form(s(rng.integers(0, 255, (1, 2, 4, 4)), np.uint8), constants=[s(rng.integers(-9, 9, (3, 2, 2, 2)), np.int8), s(3, np.uint8)], since=10)],
    "MatMulInteger": [Form(s(rng.integers(0, 255, (2, 3)), np.uint8), constants=[s(rng.integers(-9, 9, (3, 4)), np.int8), s(3, np.uint8)], since=10)],
    "QLinearConv": [Form(s(rng.integers(0, 255, (1, 2, 4, 4)), np.uint8), constants=[s(0.1), s(9, np.uint8), s(rng.integers(-9, 9, (3, 2, 2, 2)), np.int8), s(0.2), s(0, np.int8), s(0.3), s(7, np.uint8)], since=10)],
    "QLinearMatMul": [Form(s(rng.integers(0, 255, (2, 3)), np.uint8), constants=[s(0.1), s(9, np.uint8), s(rng.integers(-9, 9, (3, 4)), np.int8), s(0.2), s(0, np.int8), s(0.3), s(7, np.uint8)], since=10)],
    "Attention": [Form(f(1, 2, 3, 4), f(1, 2, 5, 4), f(1, 2, 5, 4), since=23), Form(f(1, 2, 3, 4), f(1, 2, 5, 4), f(1, 2, 5, 4), f(3, 5), attrs={"softcap": 2.0}, since=23),
                  Form(f(1, 3, 8), f(1, 3, 8), f(1, 3, 8), attrs={"is_causal": 1, "q_num_heads": 2, "kv_num_heads": 2}, since=23)]
                 + [Form(f(1, 2, 3, 4), f(1, 2, 5, 4), f(1, 2, 5, 4), f(3, 5), None, None, attrs={"softcap": 2.0, "qk_matmul_output_mode": mode}, outputs=4, since=23) for mode in range(4)],
    "AffineGrid": [Form(f(1, 2, 3), constants=[i(1, 1, 4, 5)], since=20), Form(f(2, 3, 4), constants=[i(2, 1, 3, 4, 5)], attrs={"align_corners": 1}, since=20)],
    "BitShift": [Form(s([1, 2, 200], np.uint8), s([1, 2, 3], np.uint8), attrs={"direction": way}, since=11) for way in ("LEFT", "RIGHT")],
    **alike("BitwiseAnd", "BitwiseOr", "BitwiseXor", forms=[Form(i(-5, 12, 7), i(3, 10, -1), since=18), Form(s([5, 12, 7], np.uint8), s([3], np.uint8), since=18)]),
    "BitwiseNot": [Form(i(-5, 12, 7), since=18)],
    "Col2Im": [Form(f(1, 5, 5), constants=[i(5, 5), i(1, 5)], since=18)],
    "Compress": [Form(f(3, 2), s([0, 1, 1], bool), attrs={"axis": 0}, since=9), Form(f(3, 2), s([0, 1, 0, 0, 1], bool), since=9), Form(f(3, 2), s([[0, 1], [0, 0], [1, 0]], bool), since=9),
                 Form(f(3, 2), s([0, 1], bool), attrs={"axis": -1}, since=11)],
    "DFT": [Form(f(2, 6, 1), since=17), Form(f(2, 6, 2), attrs={"inverse": 1}, since=17), Form(f(2, 7, 1), attrs={"onesided": 1}, since=17),
            Form(f(2, 6, 1), constants=[s(8, np.int64)], since=17), Form(f(2, 6, 2), constants=[s(4, np.int64)], since=17),
            Form(f(3, 4, 5, 2), attrs={"axis": 2}, since=17, until=19), Form(f(3, 4, 5, 1), attrs={"axis": 0, "onesided": 1}, since=17, until=19),
            Form(f(3, 4, 5, 2), constants=[None, s(1, np.int64)], since=20), Form(f(3, 4, 5, 1), constants=[s(6, np.int64), s(-4, np.int64)], attrs={"onesided": 1}, since=20),
            Form(f(2, 5, 2), attrs={"inverse": 1, "onesided": 1}, since=20)],  # of other lengths it is NumPy's, not ONNX Runtime's
    "STFT": [Form(f(2, 20, 1), constants=[s(4, np.int64), np.hanning(8).astype(np.float32)], since=17),
             Form(f(2, 21, 1), constants=[s(3, np.int64), None, s(7, np.int64)], since=17),
             Form(f(1, 21, 2), constants=[s(5, np.int64), positive(6), s(6, np.int64)], attrs={"onesided": 0}, since=17)],
    **alike("HannWindow", "HammingWindow", "BlackmanWindow", forms=[Form(constants=[s(10, np.int64)], attrs={"periodic": periodic}, since=17) for periodic in (0, 1)]),
    "MelWeightMatrix": [Form(constants=[s(8, np.int64), s(16, np.int64), s(8192, np.int64), s(0), s(4096)], since=17),
                        Form(constants=[s(40, np.int32), s(512, np.int32), s(16000, np.int32), s(20), s(7600)], since=17)],
    "DeformConv": [Form(f(1, 4, 5, 6), constants=[f(6, 4, 3, 3), *more], attrs={"pads": [1, 1, 1, 1], **attrs}, since=19) for more, attrs in (
        ([f(1, 18, 5, 6)], {}), ([2 * f(1, 36, 5, 6), f(6)], {"offset_group": 2}), ([f(1, 18, 3, 3), f(6), positive(1, 9, 3, 3)], {"strides": [2, 2]}),
        ([f(1, 36, 3, 4), None, positive(1, 18, 3, 4)], {"offset_group": 2, "dilations": [2, 2]}))]
                  + [Form(f(2, 4, 5, 6), f(6, 2, 2, 3), f(2, 12, 4, 4), None, positive(2, 6, 4, 4), attrs={"group": 2}, since=19)],
    "GridSample": [Form(f(1, 2, 4, 5), np.tanh(f(1, 3, 3, 2)), attrs={"mode": mode, "padding_mode": padding}, since=16, until=19)
                   for mode in ("bilinear", "nearest", "bicubic") for padding in ("zeros", "border", "reflection")]
                  + [Form(f(1, 2, 4, 5), np.tanh(f(1, 3, 3, 2)), attrs={"mode": mode, "align_corners": 1}, since=20) for mode in ("linear", "nearest", "cubic")]
                  + [Form(f(2, 2, 4, 5), 4 * f(2, 3, 7, 2), attrs={"mode": mode, "padding_mode": padding, "align_corners": corners}, since=20)  # far outside too
                     for mode in ("linear", "nearest", "cubic") for padding in ("zeros", "border", "reflection") for corners in (0, 1)]
                  + [Form(f(1, 2, 3, 4, 5), 1.5 * f(1, 2, 3, 3, 3), attrs={"mode": mode, "padding_mode": padding}, since=20)
                     for mode in ("linear", "nearest") for padding in ("zeros", "border", "reflection")],
    "NonMaxSuppression": [Form(np.sort(positive(1, 6, 4), axis=-1), positive(1, 2, 6), constants=[i(3), s([0.5]), s([0.2])], since=10),
                          Form(positive(1, 6, 4), positive(1, 2, 6), constants=[i(3)], attrs={"center_point_box": 1}, since=10)],
    "NonZero": [Form(s([[1, 0, 2], [0, 0, 3]]), since=9)],
    "RoiAlign": [Form(f(2, 3, 6, 6), s([[0, 0, 3, 3.5], [1, 1, 5, 4]]), i(0, 1), attrs={"output_height": 2, "output_width": 3, "mode": mode}, since=10) for mode in ("avg", "max")],
    "Unique": [Form(s([2, 1, 1, 3, 4, 3]), outputs=4, since=11), Form(s([2, 1, 1, 3, 4, 3]), attrs={"sorted": 0}, outputs=4, since=11),
               Form(s([[1, 0, 0], [1, 0, 0], [2, 3, 4]]), attrs={"axis": 0}, outputs=4, since=11)],
    "RotaryEmbedding": [Form(f(1, 2, 3, 4), f(1, 3, 2), f(1, 3, 2), since=23), Form(f(1, 3, 8), f(1, 3, 2), f(1, 3, 2), attrs={"num_heads": 2, "interleaved": 1}, since=23)],
}


def history(op):
    return sorted(schema.since_version for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == "" and schema.name == op)


def imported_ops():
    converters = {name for source in SOURCES.glob("frontend/onnx/ops_*.cpp") for name in re.findall(r'\.name = "([A-Z]\w*)"', source.read_text())}
    return converters | set(re.findall(r'\{"([A-Z]\w*)", "', (SOURCES / "ir" / "onnx_names.cpp").read_text()))


def opsets_of(op, form):
    since = history(op)
    wanted = {max(v, OLDEST) for v in since if v <= NEWEST} | {v - 1 for v in since if v > OLDEST} | {NEWEST}
    return sorted(v for v in wanted if max(form.since, since[0]) <= v <= form.until)


def model_of(op, form, opset):
    feeds, names, initializers, inputs = {}, [], [], []
    for k, array in enumerate([*form.inputs, *form.constants]):
        if array is None:
            names.append("")
            continue
        array = np.asarray(array)
        names.append(f"x{k}")
        if k < len(form.inputs):
            inputs.append(helper.make_tensor_value_info(names[-1], helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
            feeds[names[-1]] = array
        else:
            initializers.append(numpy_helper.from_array(array, names[-1]))
    while names and not names[-1]:
        names.pop()
    outputs = [f"y{k}" for k in range(form.outputs)]
    node = helper.make_node(op, names, outputs, **form.attrs)
    graph = helper.make_graph([node], "form", inputs, [onnx.ValueInfoProto(name=o) for o in outputs], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model), feeds


# What ONNX Runtime transforms in float by way of other lengths, to fewer digits than are compared: ONNX's evaluator has NumPy do it.
BY_OTHER_LENGTHS = {"DFT", "STFT"}


def right_values(model, feeds):
    try:
        if model.graph.node[0].op_type in BY_OTHER_LENGTHS:
            return "reference", ReferenceEvaluator(model).run(None, feeds)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return "ONNX Runtime", session.run(None, feeds)
    except Exception as refused:
        first = refused
    try:
        return "reference", ReferenceEvaluator(model).run(None, feeds)
    except Exception as second:
        raise RuntimeError(f"no right values: {str(first)[:150]}; {str(second)[:150]}") from None


def close(expected, found):
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"{found.dtype}{found.shape} instead of {expected.dtype}{expected.shape}"
    if np.issubdtype(expected.dtype, np.floating):
        same = np.isclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    else:
        same = found == expected
    return "" if np.all(same) else f"{found.ravel()[:8]} instead of {expected.ravel()[:8]} ({np.sum(~same)} of {same.size})"


def found_values(qcompile, engine, path, feeds, outputs, work):
    options = []
    for name, array in feeds.items():
        np.save(work / f"{name}.npy", array)
        options += ["--input", f"{name}={work / (name + '.npy')}"]
    done = subprocess.run([qcompile, "run", path, *options, "--engine", engine, "--output-dir", work / "out"], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split())[:300])
    return [np.load(work / "out" / f"y{k}.npy") for k in outputs]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qcompile")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    faults, runs = [], 0
    if not args.names:
        uncovered = sorted(op for op in imported_ops() if op not in FORMS and len(history(op)) > 0)
        faults += [f"{op}: no form" for op in uncovered]
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for op, forms in FORMS.items():
            if args.names and op not in args.names:
                continue
            for k, form in enumerate(forms):
                for opset in opsets_of(op, form):
                    model, feeds = model_of(op, form, opset)
                    path = work / "form.onnx"
                    onnx.save(model, path)
                    label = f"{op} {k} opset {opset} {dict((a, v) for a, v in form.attrs.items() if a != 'value')}"
                    try:
                        who, expected = right_values(model, feeds)
                        for engine in ("interpreter", "jit"):
                            runs += 1
                            for e, v in zip(expected, found_values(args.qcompile, engine, path, feeds, range(form.outputs), work)):
                                if text := close(np.asarray(e), v):
                                    faults.append(f"{label}: {engine} beside {who}: {text}")
                    except RuntimeError as fault:
                        faults.append(f"{label}: {fault}")
    print("\n".join(faults))
    print(f"{runs} runs, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
