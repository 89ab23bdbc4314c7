#!/usr/bin/env python3
"""A model made for one sample at a time, at any number of them: every verb, float and int8, and each sample has the bytes that it has alone.

    batches.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import random
import struct
import tempfile

import onnx_bytes
from command_line import DATA, npy_header, run, write_npy
from onnx_bytes import counts, integer, ints, node, port, tensor

SIZE, CHANNELS, CLASSES = 8, 8, 5
BATCHES = (2, 7, 16)


def drawn(seed, count, scale=1.0):
    rng = random.Random(seed)
    return [rng.gauss(0, scale) for _ in range(count)]


def fixed():
    """Convolution, pool, a target that says 1, a constant token beside the data, attention, and a target that counts all elements."""
    pixels = (SIZE // 2) ** 2
    nodes = [node("Conv", ["image", "w"], ["c"], ints("kernel_shape", [3, 3]), ints("pads", [1, 1, 1, 1])), node("Relu", ["c"], ["r"]),
             node("MaxPool", ["r"], ["p"], ints("kernel_shape", [2, 2]), ints("strides", [2, 2])),
             node("Reshape", ["p", "flat"], ["f"]), node("Transpose", ["f"], ["t"], ints("perm", [0, 2, 1])),
             node("Concat", ["token", "t"], ["all"], integer("axis", 1)), node("MatMul", ["all", "v"], ["h"]),
             node("Transpose", ["all"], ["keys"], ints("perm", [0, 2, 1])), node("MatMul", ["all", "keys"], ["s"]),
             node("Softmax", ["s"], ["a"], integer("axis", 2)), node("MatMul", ["a", "h"], ["o"]),
             node("Reshape", ["o", "rows"], ["tokens"]), node("ReduceMean", ["o"], ["scores"], ints("axes", [1]), integer("keepdims", 0))]
    return onnx_bytes.model(
        nodes, [port("image", 1, 3, SIZE, SIZE)], [port("scores", 1, CLASSES), port("tokens", pixels + 1, CLASSES)],
        [tensor("w", [CHANNELS, 3, 3, 3], drawn(1, CHANNELS * 27, 0.3)), tensor("v", [CHANNELS, CLASSES], drawn(2, CHANNELS * CLASSES, 0.5)),
         tensor("token", [1, 1, CHANNELS], drawn(3, CHANNELS)), counts("flat", [3], [1, CHANNELS, -1]), counts("rows", [2], [pixels + 1, CLASSES])])


def mixing():
    """A mean over the samples, of which nothing is left."""
    return onnx_bytes.model([node("Relu", ["image"], ["r"]), node("ReduceSum", ["r"], ["y"], integer("keepdims", 0), name="/head/ReduceSum")],
                            [port("image", 1, 3)], [port("y")])


def values(path):
    raw = path.read_bytes()
    return raw[10 + struct.unpack("<H", raw[8:10])[0]:]


def outputs(work, model, x, batch, *options):
    write_npy(work / "x.npy", (batch, 3, SIZE, SIZE), x)
    done = run("run", model, "--input", f"image={work / 'x.npy'}", "--output-dir", work / "out", *options)
    return [values(work / f"out/{name}.npy") for name in ("scores", "tokens")], done


def same_bytes(work, model, samples):
    """Arrays with a leading batch, both engines, one and two threads; a file that is run as it is says nothing."""
    alone = [outputs(work, model, x, 1)[0] for x in samples]
    for batch in BATCHES:
        together = sum(samples[:batch], [])
        wanted = [b"".join(parts) for parts in zip(*alone[:batch])]
        for options in (["--threads", "1"], ["--threads", "2"], ["--engine", "interpreter"], ["--shape", f"N={batch}"],
                        ["--shape", f"image={batch}x3x{SIZE}x{SIZE}"]):
            got, done = outputs(work, model, together, batch, *options)
            assert got == wanted, (model, batch, options)
            assert "is made for one sample at a time; N of them are stacked along dim 0 of 'image'" in done.stderr, done.stderr
            assert f"scores f32[{batch},{CLASSES}]" in done.stdout and f"tokens f32[{batch * 17},{CLASSES}]" in done.stdout, done.stdout
    assert not outputs(work, model, samples[0], 1)[1].stderr
    return alone


def sources(work, model, samples, alone):
    """run and eval take samples together; what is left over at the end as well."""
    with open(work / "all.npy", "wb") as file:
        file.write(npy_header((len(samples), 3, SIZE, SIZE)))
        for x in samples:
            file.write(struct.pack(f"<{len(x)}f", *x))
    (work / "labels.tsv").write_text("".join(f"{i}\t{i % CLASSES}\n" for i in range(len(samples))))
    data = ["-d", f"npy:{work / 'all.npy'}"]
    tables = []
    for batch in (1, *BATCHES):
        run("run", model, *data, "--batch", batch, "--output-dir", work / "d")
        assert values(work / "d/scores.npy") == b"".join(scores for scores, _ in alone), batch
        run("eval", model, *data, "--batch", batch, "--labels", work / "labels.tsv", "--predictions", work / f"p{batch}.csv")
        tables.append((work / f"p{batch}.csv").read_bytes())
    assert len(set(tables)) == 1
    unused = run("run", model, "--input", f"image={work / 'x.npy'}", "--batch", 2, code=1).stderr
    assert "--batch" in unused and "-d" in unused, unused


def machine_code(work, model):
    """bench and compile need all sizes; several batches in one object."""
    row = json.loads(run("bench", model, "--shape", "N=7", "--seconds", "0", "--json").stdout)
    assert row["median_ms"] > 0, row
    table = json.loads(run("bench", model, "--shape", "N=1,2,7,16", "--seconds", "0", "--json").stdout)
    assert [r["size"] for r in table["sizes"]] == [1, 2, 7, 16], table
    run("compile", model, "--shape", "N=7", "-o", work / "seven.o")
    assert f"image: f32[7,3,{SIZE},{SIZE}]" in (work / "seven.h").read_text() and f"scores: f32[7,{CLASSES}]" in (work / "seven.h").read_text()
    done = run("compile", model, "--shape", "N=1,7", "-o", work / "two.o")
    shown = json.loads(run("inspect", model, "--shape", "N=7", "--json").stdout)
    assert shown["inputs"][0]["type"] == f"f32[7,3,{SIZE},{SIZE}]" and shown["constant_bytes"] == json.loads(run("inspect", model, "--json").stdout)["constant_bytes"], shown
    assert "2 buckets of N" in done.stdout and "two_pick" in (work / "two.h").read_text(), done.stdout


def written(work, model, samples):
    """A file for any batch, which says so."""
    source = f"npy:{work / 'all.npy'}"
    run("quantize", model, "-d", source, "--free-batch", "-o", work / "any.onnx")
    shown = json.loads(run("inspect", work / "any.onnx", "--json").stdout)
    assert [d["symbol"] for d in shown["free"]] == ["N"] and shown["outputs"][0]["type"] == f"f32[N,{CLASSES}]", shown
    assert shown["outputs"][1]["type"] == f"f32[17*N,{CLASSES}]", shown
    run("quantize", model, "-d", source, "-o", work / "one.onnx")
    for batch in (1, 7):
        x = sum(samples[:batch], [])
        assert outputs(work, work / "any.onnx", x, batch)[0] == outputs(work, work / "one.onnx", x, batch)[0], batch


def refused(work):
    """Where samples would be mixed the node is named, and nothing that was not asked for."""
    model = work / "mixing.onnx"
    model.write_bytes(mixing())
    write_npy(work / "y.npy", (4, 3), drawn(1, 12))
    for arguments in (["run", model, "--input", f"image={work / 'y.npy'}", "--output-dir", work / "out"], ["bench", model, "--shape", "N=4"],
                      ["compile", model, "--shape", "image=4x3", "-o", work / "m.o"], ["bench", model, "--shape", "N=1,4"],
                      ["quantize", model, "--mode", "dynamic", "--free-batch", "-o", work / "m.onnx"]):
        said = run(*arguments, code=1).stderr
        assert "/head/ReduceSum" in said and "would mix the samples of a batch, in dim 0 of 'r' f32[1,3]" in said, said
        assert "LoadOptions" not in said, said
    # A model whose batch is free needs nothing: its single channel is not a batch.
    said = run("quantize", DATA / "digits.onnx", "--mode", "dynamic", "--free-batch", "-o", work / "m.onnx", code=1).stderr
    assert "dim 0 of f32[N,1,16,16] holds the samples of a batch already" in said and "take it as it is" in said, said
    contradicting = run("bench", model, "--shape", "N=4", "--shape", "image=3x3", code=1).stderr
    assert "3 samples by dim 0 of 'image'" in contradicting or "4 samples by N=4" in contradicting, contradicting
    wrong = run("bench", model, "--shape", "image=4x5", code=1).stderr
    assert "[4,5] does not fit the declared [1,3]" in wrong, wrong


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        model = work / "fixed.onnx"
        model.write_bytes(fixed())
        samples = [drawn(10 + k, 3 * SIZE * SIZE) for k in range(18)]
        alone = same_bytes(work, model, samples)
        sources(work, model, samples, alone)
        run("quantize", model, "-d", f"npy:{work / 'all.npy'}", "-o", work / "q.onnx")
        alone = same_bytes(work, work / "q.onnx", samples)
        sources(work, work / "q.onnx", samples, alone)
        for each in (model, work / "q.onnx"):
            machine_code(work, each)
        written(work, model, samples)
        refused(work)
    print("batches: all as expected")


main()
