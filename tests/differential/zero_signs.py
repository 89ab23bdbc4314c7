#!/usr/bin/env python3
"""Zeros of both signs through convolutions, padding and neutral operands: the same bits from the interpreter and from every instruction set.

    zero_signs.py QCOMPILE

A tap that lies in padding adds +0 or nothing, which a sum of -0 alone can tell: kernels that pass over such taps must agree with those that do not.

Needs onnx, onnxruntime and numpy; exit code 77, which ctest reports as skipped, without.
"""
import itertools
import pathlib
import subprocess
import sys
import tempfile

from opset_forms import Form, model_of, np, onnx

OPSET = 17
WAYS = (["--engine", "interpreter"], [], ["--target", "avx2"], ["--target", "generic"])
rng = np.random.default_rng(3)


def zeros(*shape):
    return np.where(rng.random(shape) < 0.5, np.float32(-0.0), np.float32(0.0)).astype(np.float32)


def signs(*shape):
    return np.where(rng.random(shape) < 0.5, np.float32(-1), np.float32(1)).astype(np.float32)


def convolutions():
    for (channels, outputs, group), (dilation, pad), bias, shape in itertools.product(
            ((1, 1, 1), (3, 5, 1), (8, 16, 1), (16, 16, 16), (8, 8, 2)), ((1, 1), (8, 8), (3, 3)), ("none", "minus", "both"), ((6,), (4, 5), (3, 4, 4))):
        rank = len(shape)
        biases = {"none": [], "minus": [np.full(outputs, -0.0, np.float32)], "both": [zeros(outputs)]}[bias]
        yield "Conv", Form(zeros(1, channels, *shape), constants=[signs(outputs, channels // group, *[3] * rank), *biases],
                           attrs={"dilations": [dilation] * rank, "pads": [pad] * 2 * rank, "group": group})


def neutral():
    for op, constant in itertools.product(("Add", "Sub", "Mul", "Div", "Max", "Min"), (0.0, -0.0, 1.0, -np.inf, np.inf)):
        if op != "Div" or constant:
            yield op, Form(zeros(37), constants=[np.float32(constant)])
            yield op, Form(zeros(37), constants=[np.full(37, constant, np.float32)])


def main():
    qcompile, faults, checked = sys.argv[1], [], 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for op, form in itertools.chain(convolutions(), neutral()):
            model, feeds = model_of(op, form, OPSET)
            onnx.save(model, work / "m.onnx")
            np.save(work / "x.npy", feeds["x0"])
            checked += 1
            bits = []
            for way in WAYS:
                done = subprocess.run([qcompile, "run", work / "m.onnx", "--input", f"x0={work / 'x.npy'}", *way, "--output-dir", work / "out"],
                                      capture_output=True, text=True, timeout=60)
                bits.append(np.load(work / "out" / "y0.npy").view(np.uint32) if done.returncode == 0 else None)
                if done.returncode:
                    faults.append(f"{op} {way}: {' '.join(done.stderr.split())}")
            for way, found in zip(WAYS[1:], bits[1:]):
                if bits[0] is not None and found is not None and not np.array_equal(bits[0], found):
                    faults.append(f"{op} {[a.shape for a in form.constants]} {form.attrs}: {way} differs from the interpreter in {np.sum(bits[0] != found)} of {found.size}")
            if op in ("Add", "Sub") and bits[0] is not None:
                x, c = form.inputs[0], form.constants[0]
                if not np.array_equal((x + c if op == "Add" else x - c).astype(np.float32).view(np.uint32), bits[0]):
                    faults.append(f"{op} {c}: not the sum that IEEE 754 has")
    print("\n".join(faults))
    print(f"{checked} models, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
