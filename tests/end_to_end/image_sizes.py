#!/usr/bin/env python3
"""Images of any height and width from one int8 file and one process, whose sizes share code: on every instruction set, with one thread and
with two, they have the bytes of the interpreter.

    image_sizes.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import random
import struct
import tempfile

import onnx_bytes
from command_line import npy_header, run
from onnx_bytes import integer, ints, node, port, tensor

SIZES = ((40, 56), (41, 33), (17, 90), (5, 4), (64, 64), (23, 71), (90, 37))
TARGETS = ("generic", "avx2", "avx512vnni", "host")


def drawn(seed, count, scale=1.0):
    rng = random.Random(seed)
    return [rng.gauss(0, scale) for _ in range(count)]


def net():
    """What detectors begin with: strides, depthwise, pools, a branch over fewer pixels that joins again, and convolutions of either."""
    def conv(x, w, y, kernel, **attrs):
        pads = [kernel // 2] * 4
        return node("Conv", [x, w], [y], ints("kernel_shape", [kernel] * 2), ints("pads", attrs.get("pads", pads)),
                    ints("strides", [attrs.get("stride", 1)] * 2), integer("group", attrs.get("group", 1)))

    weights = {"w0": [16, 3, 3, 3], "w1": [16, 1, 3, 3], "w2": [24, 16, 1, 1], "w3": [24, 24, 3, 3], "w4": [24, 1, 5, 5], "w5": [8, 24, 2, 2]}
    nodes = [conv("image", "w0", "a", 3, stride=2), node("Relu", ["a"], ["b"]), conv("b", "w1", "c", 3, group=16), node("Relu", ["c"], ["d"]),
             conv("d", "w2", "e", 1), node("Relu", ["e"], ["f"]),
             node("MaxPool", ["f"], ["g"], ints("kernel_shape", [3, 3]), ints("strides", [1, 1]), ints("pads", [1, 1, 1, 1])),
             conv("g", "w3", "h", 3), node("Add", ["h", "g"], ["i"]), node("Relu", ["i"], ["j"]), conv("j", "w4", "k", 5, group=24, stride=2),
             node("AveragePool", ["k"], ["l"], ints("kernel_shape", [3, 3]), ints("strides", [1, 1]), ints("pads", [1, 1, 1, 1])),
             node("Resize", ["l", "", "scales"], ["m"]), conv("m", "w5", "scores", 2, pads=[0, 0, 0, 0])]
    constants = [tensor(name, sizes, drawn(i, sizes[0] * sizes[1] * sizes[2] * sizes[3], 0.3)) for i, (name, sizes) in enumerate(weights.items())]
    return onnx_bytes.model(nodes, [port("image", "N", 3, "H", "W")], [port("scores", "N", 8, "h", "w")],
                            constants + [tensor("scales", [4], [1, 1, 2, 2])])


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        (work / "net.onnx").write_bytes(net())
        sources = []
        for k, (h, w) in enumerate(SIZES):
            x = drawn(10 + k, 2 * 3 * h * w)
            (work / f"{k}.npy").write_bytes(npy_header((2, 3, h, w)) + struct.pack(f"<{len(x)}f", *x))
            sources += ["-d", f"npy:{work / f'{k}.npy'}"]
        run("quantize", work / "net.onnx", *sources[:6], "-o", work / "q.onnx")
        for model in ("net.onnx", "q.onnx"):
            run("run", work / model, *sources, "--output-dir", work / "wanted", "--engine", "interpreter")
            wanted = {p.name: p.read_bytes() for p in (work / "wanted").iterdir()}
            assert len(wanted) == 2 * len(SIZES), wanted.keys()
            for target in TARGETS:
                for threads in ("1", "2"):
                    run("run", work / model, *sources, "--output-dir", work / "got", "--target", target, "--threads", threads, "--no-cache")
                    got = {p.name: p.read_bytes() for p in (work / "got").iterdir()}
                    assert got == wanted, (model, target, threads, [name for name in wanted if got.get(name) != wanted[name]])
        # The weights are there once, and buckets of sizes are one object.
        text = run("compile", work / "q.onnx", "-o", work / "net.o", "--shape", "H=32", "--shape", "W=32,48,64").stdout
        assert (work / "net.o").stat().st_size > 0, text
        served = json.loads(run("bench", work / "q.onnx", *sources, "--json").stdout)
        assert served["plans"] == len(SIZES), served
    print("image sizes: passed")


if __name__ == "__main__":
    main()
