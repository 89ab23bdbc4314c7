#!/usr/bin/env python3
"""Models whose weights or inputs are small lose no more to rounding than the same models at ordinary size.

    small_ranges.py QCOMPILE DATA_DIR

A model is scaled down by powers of two, which is exact, in its weights, its inputs or both; the signal to noise ratio of the quantized
model must stay what it is without, in every mode, and the report says that something is small.  Standard library only.
"""
import math
import pathlib
import random
import struct
import sys
import tempfile
import zipfile

from command_line import npy_header, run

SAMPLES = 24


def constants(tensors, rng, shrink):
    return [f"const #{n} : f32[{s}] = [{', '.join(f'{rng.gauss(0, 0.3) * shrink:.9g}' for _ in range(math.prod(map(int, s.split(',')))))}]"
            for n, s in tensors.items()]


def linear(rng, shrink):
    tensors = {"w": "32,48", "v": "16,32"}
    body = ["graph @m(%x: f32[8,48]) -> (\"y\") {", "  %w = const #w : f32[32,48]", "  %v = const #v : f32[16,32]",
            "  %a = linear %x, %w : f32[8,32]", "  %r = relu %a : f32[8,32]", "  %y = linear %r, %v : f32[8,16]", "  return %y", "}"]
    return constants(tensors, rng, shrink) + body, (8, 48)


def convolution(rng, shrink):
    tensors = {"w": "16,4,3,3", "v": "8,16,3,3"}
    body = ["graph @m(%x: f32[1,4,10,10]) -> (\"y\") {", "  %w = const #w : f32[16,4,3,3]", "  %v = const #v : f32[8,16,3,3]",
            "  %a = conv %x, %w : f32[1,16,8,8]", "  %r = relu %a : f32[1,16,8,8]", "  %y = conv %r, %v : f32[1,8,6,6]", "  return %y", "}"]
    return constants(tensors, rng, shrink) + body, (1, 4, 10, 10)


def decibels(reference, other):
    noise = sum((a - b) ** 2 for a, b in zip(reference, other))
    return 10 * math.log10(sum(a * a for a in reference) / noise) if noise else 200.0


def outputs(work, model):
    run("run", work / model, "--input", f"x={work}/x.npy", "--output-dir", work)
    raw = (work / "y.npy").read_bytes()
    start = 10 + struct.unpack("<H", raw[8:10])[0]
    return struct.unpack(f"<{(len(raw) - start) // 4}f", raw[start:])


def measured(make, shrinkWeights, shrinkInput, flags):
    """(SQNR on a sample of its own, report as text)"""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        rng = random.Random(11)
        text, shape = make(rng, shrinkWeights)
        (work / "m.qir").write_text("\n".join(text) + "\n")
        count = math.prod(shape)
        draw = lambda n: struct.pack(f"<{n}f", *(rng.gauss(0, 1) * shrinkInput for _ in range(n)))
        with zipfile.ZipFile(work / "calib.npz", "w") as archive:
            archive.writestr("x.npy", npy_header((SAMPLES, *shape)) + draw(SAMPLES * count))
        (work / "x.npy").write_bytes(npy_header(shape) + draw(count))
        data = ["-d", f"npz:{work}/calib.npz"] if "--mode" not in flags else []
        report = run("quantize", work / "m.qir", *data, *flags, "-o", work / "q.qir").stdout
        return decibels(outputs(work, "m.qir"), outputs(work, "q.qir")), report


MODES = {
    "static": [],
    "static, minmax": ["--round-weights", "nearest", "--backend", "onnxruntime"],
    "dynamic": ["--mode", "dynamic"],
    "weight-only": ["--mode", "weight-only"],
    "weight-only, 4 bits": ["--mode", "weight-only", "--weight-bits", "4"],
    "fp16-weights": ["--mode", "fp16-weights"],
}


def main():
    failed = 0
    for make in (linear, convolution):
        for mode, flags in MODES.items():
            usual, report = measured(make, 1, 1, flags)
            assert "are so small" not in report, report
            for weights, values in ((2.0**-23, 1), (1, 2.0**-20), (2.0**-20, 2.0**-16)):
                small, report = measured(make, weights, values, flags)
                said = "are so small" in report or "normal numbers of float16" in report
                wanted = mode.startswith("static") or (mode == "fp16-weights" and weights < 1)
                ok = small >= usual - 0.5 and said == wanted
                print(f"{make.__name__}, {mode}, weights x {weights:.1g}, inputs x {values:.1g}: {usual:.1f} -> {small:.1f} dB{'' if ok else ' FAILED'}")
                failed += not ok
    sys.exit(1 if failed else 0)


main()
