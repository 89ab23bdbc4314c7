#!/usr/bin/env python3
"""Tensors of size zero through every kind of op: the values of ONNX Runtime or ONNX's evaluator, and an object file of every model.

    empties.py QCOMPILE [NAME ...]

Needs onnx, onnxruntime and numpy; exit code 77, which ctest reports as skipped, without.
"""
import pathlib
import subprocess
import sys
import tempfile

from opset_forms import Form, close, f, found_values, i, model_of, np, onnx, positive, right_values, s

OPSET = 17
NO_ROWS, NO_COLUMNS, NO_IMAGES = f(0, 3), f(3, 0), f(0, 3, 4, 4)
FORMS = {
    **{op: [Form(NO_ROWS), Form(NO_COLUMNS)] for op in ("Relu", "Sigmoid", "Exp", "Neg", "HardSwish", "Softmax", "LogSoftmax", "Trilu", "Identity", "Softplus")},
    **{op: [Form(NO_ROWS, f(3)), Form(f(2, 0), f(2, 1))] for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Less")},
    **{op: [Form(NO_ROWS, attrs={"axes": [1]}), Form(NO_IMAGES, attrs={"axes": [2, 3], "keepdims": 0})] for op in ("ReduceMean", "ReduceMax", "ReduceProd", "ReduceL2", "ReduceLogSumExp")},
    "ReduceProd": [Form(NO_COLUMNS, attrs={"axes": [1]})],
    "ReduceSum": [Form(NO_ROWS, constants=[i(0)]), Form(NO_ROWS), Form(NO_ROWS, constants=[i(1)])],
    "MatMul": [Form(NO_ROWS, f(3, 4)), Form(f(2, 0), f(0, 4)), Form(NO_ROWS, constants=[f(3, 4)])],
    "Gemm": [Form(NO_ROWS, constants=[f(3, 4), f(4)]), Form(f(2, 0), constants=[f(0, 4), f(4)])],
    "Conv": [Form(NO_IMAGES, constants=[f(2, 3, 3, 3)])],
    "ConvTranspose": [Form(NO_IMAGES, constants=[f(3, 2, 3, 3)])],
    **{op: [Form(NO_IMAGES, attrs={"kernel_shape": [2, 2]})] for op in ("MaxPool", "AveragePool")},
    "GlobalAveragePool": [Form(NO_IMAGES)],
    "BatchNormalization": [Form(NO_IMAGES, constants=[f(3), f(3), f(3), positive(3)])],
    "InstanceNormalization": [Form(NO_IMAGES, constants=[f(3), f(3)])],
    "LayerNormalization": [Form(NO_ROWS, constants=[f(3)])],
    "Transpose": [Form(f(0, 3, 2), attrs={"perm": [2, 0, 1]})],
    "Reshape": [Form(NO_ROWS, constants=[i(3, 0)], attrs={"allowzero": 1})],
    "Slice": [Form(f(4, 3), constants=[i(2), i(2)]), Form(NO_ROWS, constants=[i(0), i(5)])],
    "Concat": [Form(NO_ROWS, f(2, 3), attrs={"axis": 0}), Form(NO_ROWS, NO_ROWS, attrs={"axis": 0})],
    "Split": [Form(f(4, 3), constants=[i(0, 4)], outputs=2)],
    "Pad": [Form(NO_ROWS, constants=[i(1, 0, 1, 0)])],
    "Tile": [Form(f(4, 3), constants=[i(0, 1)])],
    "Expand": [Form(f(1, 3), constants=[i(0, 3)])],
    "Gather": [Form(f(4, 3), constants=[i()]), Form(f(4, 3), i())],
    "GatherND": [Form(f(4, 3), np.zeros((0, 1), np.int64))],
    "GatherElements": [Form(f(4, 3), np.zeros((0, 3), np.int64))],
    "ScatterND": [Form(f(4, 3), np.zeros((0, 1), np.int64), NO_ROWS)],
    "ScatterElements": [Form(f(4, 3), np.zeros((0, 3), np.int64), NO_ROWS)],
    "CumSum": [Form(NO_ROWS, constants=[i(0)])],
    "CumProd": [Form(NO_ROWS, constants=[i(0)])],
    "TopK": [Form(f(4, 3), constants=[i(0)], outputs=2)],
    "ArgMax": [Form(NO_ROWS, attrs={"axis": 1})],
    "Where": [Form(np.zeros((0, 3), bool), NO_ROWS, f(3))],
    "Cast": [Form(NO_ROWS, attrs={"to": 7})],
    "OneHot": [Form(i(), constants=[s(3, np.int64), f(2)])],
    "Resize": [Form(f(0, 1, 2, 2), constants=[s([]), s([1, 1, 2, 2])])],
    "DepthToSpace": [Form(f(0, 4, 2, 2), attrs={"blocksize": 2})],
    "Einsum": [Form(NO_ROWS, f(3, 2), attrs={"equation": "ij,jk->ik"})],
    "QuantizeLinear": [Form(NO_ROWS, constants=[s(0.1), s(3, np.uint8)])],
    "LSTM": [Form(f(0, 2, 3), constants=[f(1, 20, 3), f(1, 20, 5)], attrs={"hidden_size": 5})],
}


def main():
    qcompile, names = sys.argv[1], sys.argv[2:]
    faults, checked = [], 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for op, forms in FORMS.items():
            for k, form in enumerate(forms):
                if names and op not in names:
                    continue
                checked += 1
                model, feeds = model_of(op, form, OPSET)
                path = work / "form.onnx"
                onnx.save(model, path)
                try:
                    who, expected = right_values(model, feeds)
                    for engine in ("interpreter", "jit"):
                        for e, v in zip(expected, found_values(qcompile, engine, path, feeds, range(form.outputs), work)):
                            if text := close(np.asarray(e), v):
                                faults.append(f"{op} {k}: {engine} beside {who}: {text}")
                except RuntimeError as fault:
                    faults.append(f"{op} {k}: {fault}")
                done = subprocess.run([qcompile, "compile", path, "-o", work / "form.o"], capture_output=True, text=True, timeout=60)
                if done.returncode:
                    faults.append(f"{op} {k}: no object: {' '.join(done.stderr.split())}")
    print("\n".join(faults))
    print(f"{checked} models, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
