#!/usr/bin/env python3
"""Weights of 4 and 2 bits beside activations of 8: --weight-bits, rules that name them, and QDQ files of other tools.

    four_bits.py QCOMPILE DATA_DIR

They run on integer kernels, with the interpreter's bytes on every target; files hold two to a byte; tables say what they are.
Standard library only.
"""
import json
import pathlib
import random
import struct
import sys
import tempfile

import onnx_bytes as onnx
from command_line import DATA, present_targets, run, write_npy, write_sample

SAMPLES = f"npy:{DATA}/test.npy?mean=0&std=255"
CALIB = ["-d", f"images:{DATA}/calib?order=grey&mean=0&std=255"]
UINT4, INT4 = 21, 22


def top1(model):
    return json.loads(run("eval", model, "-d", SAMPLES, "--labels", DATA / "labels.tsv", "--json").stdout)["top1"]


def kernels(model):
    return [k.get("kernel") or "" for k in json.loads(run("inspect", model, "--kernels", "--json").stdout)["kernels"]]


def same_bytes(model, work, *inputs, output):
    results = {}
    runs = {"interpreter": ["--engine", "interpreter"], **{t: ["--target", t] for t in present_targets()}}
    for name, options in runs.items():
        run("run", model, *inputs, "--output-dir", work / "out", *options)
        results[name] = (work / "out" / output).read_bytes()
    differing = [name for name, bytes_ in results.items() if bytes_ != results["interpreter"]]
    assert not differing, f"{model.name}: not the interpreter's bytes: {differing}"
    return results["interpreter"]


def quantize(work, name, *flags, code=0):
    out = work / name
    done = run("quantize", DATA / "digits.onnx", *CALIB, *flags, "-o", out, code=code)
    return out, done


def digits(work):
    eight, _ = quantize(work, "eight.onnx")
    four, done = quantize(work, "four.onnx", "--weight-bits", 4, "--require-int8", "100%")
    assert "weights s4 per channel" in done.stdout, done.stdout
    assert four.stat().st_size < eight.stat().st_size * 0.85, (four.stat().st_size, eight.stat().st_size)
    layers = json.loads(run("inspect", eight, "--json").stdout)["weights"]["s8"]
    assert json.loads(run("inspect", four, "--json").stdout)["weights"] == {"s4": layers}
    assert f"weights s4 in {layers} layer" in run("inspect", four).stdout
    assert kernels(four) == kernels(eight), "other kernels than those of 8 bits"
    write_sample(work / "0.npy", 0)
    inputs = ["--input", f"image={work}/0.npy"]
    same_bytes(four, work, *inputs, output="scores.npy")
    exact, found = top1(DATA / "digits.onnx"), top1(four)
    print(f"float {exact:.3f}, weights of 4 bits {found:.3f}")
    assert found > exact - 0.05

    two, done = quantize(work, "two.onnx", "--weight-bits", 2)
    assert "weights s4[-2:1] per channel" in done.stdout
    same_bytes(two, work, *inputs, output="scores.npy")

    # The rules that were applied, as a file, give the same file.
    quantize(work, "four.onnx", "--weight-bits", 4, "--write-rules", work / "rules.json")
    again, _ = quantize(work, "again.onnx", "--config", work / "rules.json")
    assert again.read_bytes() == four.read_bytes()

    # Layers that rules name have what those say; the rest has the bits of the flag.
    (work / "some.json").write_text('{"rules": [{"object_type": "linear", "qconfig": "default"}]}')
    some, _ = quantize(work, "some.onnx", "--weight-bits", 4, "--config", work / "some.json")
    types = json.loads(run("inspect", some, "--json").stdout)["weights"]
    assert set(types) == {"s4", "s8"} and sum(types.values()) == layers, types

    # Unsigned ones, with zero points, by rules alone.
    (work / "u4.json").write_text('{"global": {"weight": {"dtype": "u4", "scheme": "affine"}}}')
    unsigned, _ = quantize(work, "unsigned.onnx", "--config", work / "u4.json")
    assert kernels(unsigned) == kernels(eight)
    same_bytes(unsigned, work, *inputs, output="scores.npy")
    assert top1(unsigned) > exact - 0.05

    for flags, said in ((["--weight-bits", 4, "--mode", "dynamic"], "--weight-bits is for --mode static and weight-only"),
                        (["--weight-bits", 2, "--mode", "weight-only"], "--weight-bits 2 is for --mode static"),
                        (["--group-size", 16, *CALIB], "--group-size is for weights that are quantized alone")):
        done = run("quantize", DATA / "digits.onnx", *flags, "-o", work / "no.onnx", code=1)
        assert said in done.stderr, done.stderr


def halves(name, type_, shape, values):
    data = bytes((a & 15) | (b & 15) << 4 for a, b in zip(values[::2], [*values[1::2], 0]))
    return onnx.field(1, onnx.packed(shape)) + onnx.field(2, type_) + onnx.field(8, name.encode()) + onnx.field(9, data)


def bytes_of(name, type_, shape, values):
    return onnx.field(1, onnx.packed(shape)) + onnx.field(2, type_) + onnx.field(8, name.encode()) + onnx.field(9, struct.pack(f"<{len(values)}B", *values))


def qdq(path, weight_type, blocks):
    """x -> Q -> DQ -> MatMul with DQ(weights) -> Q -> DQ, as other tools write it; blocks: scales per column ("channel"), or one block
    along all rows ("whole"), or blocks of 8 rows of unlike ("rows") or equal scales ("equal")."""
    rng = random.Random(7)
    rows, columns = 32, 24
    low = -8 if weight_type == INT4 else 0
    values = [rng.randint(low, low + 15) for _ in range(rows * columns)]
    scale = [0.01 * (1 + c % 5) for c in range(columns)]
    count = {"channel": 0, "whole": 1, "rows": 4, "equal": 4}[blocks]
    scales = scale if not count else [s * (1 + b if blocks == "rows" else 1) for b in range(count) for s in scale]
    shape = [columns] if not count else [count, columns]
    attributes = [onnx.integer("axis", 0 if count else 1)] + ([onnx.integer("block_size", rows // count)] if count else [])
    zeros = [(5 + i) % 16 if weight_type == UINT4 and not count else 0 for i in range(len(scales))]
    initializers = [halves("w", weight_type, [rows, columns], values), onnx.tensor("ws", shape, scales), halves("wz", weight_type, shape, zeros),
                    onnx.tensor("s", [], [0.02]), bytes_of("z", 2, [], [120]), onnx.tensor("t", [], [0.1]), bytes_of("y0", 2, [], [100])]
    nodes = [onnx.node("QuantizeLinear", ["x", "s", "z"], ["xq"]), onnx.node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
             onnx.node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], *attributes), onnx.node("MatMul", ["xd", "wd"], ["m"]),
             onnx.node("QuantizeLinear", ["m", "t", "y0"], ["yq"]), onnx.node("DequantizeLinear", ["yq", "t", "y0"], ["y"])]
    path.write_bytes(onnx.model(nodes, [onnx.port("x", 5, rows)], [onnx.port("y", 5, columns)], initializers, opset=21))
    # What it means, in exact integers and the floats of the definition.
    return lambda x: [[sum((x[r][k]) * (values[k * columns + c] - zeros[c % len(zeros)]) for k in range(rows)) * scale[c] * 0.02
                       for c in range(columns)] for r in range(5)]


def foreign(work):
    rng = random.Random(3)
    x = [rng.uniform(-2, 2) for _ in range(5 * 32)]
    write_npy(work / "x.npy", (5, 32), x)
    x = struct.unpack(f"<{len(x)}f", struct.pack(f"<{len(x)}f", *x))
    integers = [[min(max(round(v / 0.02) + 120, 0), 255) - 120 for v in x[r * 32:(r + 1) * 32]] for r in range(5)]
    for weight_type in (INT4, UINT4):
        for blocks in ("channel", "whole", "equal", "rows"):
            path = work / f"{blocks}_{weight_type}.onnx"
            meaning = qdq(path, weight_type, blocks)
            used = kernels(path)
            assert any("u8s8" in k for k in used) == (blocks != "rows"), (path.name, used)
            got = same_bytes(path, work, "--input", f"x={work}/x.npy", output="y.npy")[-5 * 24 * 4:]
            if blocks == "rows":
                said = run("inspect", path, "--kernels").stderr
                assert "stays float: its weights have a scale for every 8 along axis 1" in said, said
                continue
            want = [v for row in meaning(integers) for v in row]
            for g, w in zip(struct.unpack(f"<{5 * 24}f", got), want):
                clamped = min(max(w, -10.0), 15.5)
                assert abs(g - clamped) <= 0.0501, (path.name, g, w)


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        foreign(work)
        digits(work)


if __name__ == "__main__":
    sys.exit(main())
