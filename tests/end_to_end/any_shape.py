#!/usr/bin/env python3
"""Free dims in the verbs: shapes come from the data, every sample has its own.

    any_shape.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import random
import struct
import tempfile
import zipfile

import onnx_bytes
from command_line import npy_header, run, write_npy

WIDTH, CLASSES = 8, 4


def drawn(seed, count, scale=1.0):
    rng = random.Random(seed)
    return [rng.gauss(0, scale) for _ in range(count)]


def net():
    """Scores of every step of a sequence, and their mean over it."""
    w, v = drawn(1, WIDTH * 16, 0.4), drawn(2, 16 * CLASSES, 0.4)
    nodes = [onnx_bytes.node("MatMul", ["x", "w"], ["h"]), onnx_bytes.node("Relu", ["h"], ["r"]), onnx_bytes.node("MatMul", ["r", "v"], ["steps"]),
             onnx_bytes.node("ReduceMean", ["steps"], ["mean"], onnx_bytes.ints("axes", [1]), onnx_bytes.integer("keepdims", 0))]
    return onnx_bytes.model(nodes, [onnx_bytes.port("x", "batch", "steps of x", WIDTH)],
                            [onnx_bytes.port("mean", "batch", CLASSES), onnx_bytes.port("steps", "batch", "steps of x", CLASSES)],
                            [onnx_bytes.tensor("w", [WIDTH, 16], w), onnx_bytes.tensor("v", [16, CLASSES], v)])


def two_lengths():
    """A sum that needs two inputs of one length, which their names do not say."""
    return onnx_bytes.model([onnx_bytes.node("Neg", ["a"], ["n"]), onnx_bytes.node("Add", ["n", "b"], ["y"], name="/join/Add")],
                            [onnx_bytes.port("a", "N", "T", 4), onnx_bytes.port("b", "N", "S", 4)], [onnx_bytes.port("y", "N", "U", 4)])


def values(path):
    raw = path.read_bytes()
    return raw[10 + struct.unpack("<H", raw[8:10])[0]:]


def expected(x, batch, steps):
    """The same by hand."""
    w, v = drawn(1, WIDTH * 16, 0.4), drawn(2, 16 * CLASSES, 0.4)
    mean = []
    for n in range(batch):
        rows = []
        for t in range(steps):
            row = x[(n * steps + t) * WIDTH:][:WIDTH]
            h = [max(0.0, sum(row[k] * w[k * 16 + j] for k in range(WIDTH))) for j in range(16)]
            rows.append([sum(h[k] * v[k * CLASSES + j] for k in range(16)) for j in range(CLASSES)])
        mean += [sum(r[j] for r in rows) / steps for j in range(CLASSES)]
    return mean


def arrays(work, model):
    """run takes the shapes of its arrays, and of every sample; both engines."""
    for engine in ("jit", "interpreter"):
        for batch, steps in ((1, 3), (2, 5), (4, 1)):
            x = drawn(steps, batch * steps * WIDTH)
            write_npy(work / "x.npy", (batch, steps, WIDTH), x)
            done = run("run", model, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out", "--engine", engine)
            assert f"mean f32[{batch},{CLASSES}] " in done.stdout and f"steps f32[{batch},{steps},{CLASSES}] " in done.stdout, done.stdout
            assert not done.stderr, done.stderr
            got = struct.unpack(f"<{batch * CLASSES}f", values(work / "out/mean.npy"))
            assert all(abs(a - b) < 1e-4 for a, b in zip(got, expected(x, batch, steps))), (got, expected(x, batch, steps))


def samples(work, model):
    """Outputs of one shape are stacked, others written apart; the bytes are those of the samples alone."""
    sources, alone = [], []
    for k, steps in enumerate((3, 7, 3)):
        x = drawn(10 + k, 2 * steps * WIDTH)
        (work / f"s{k}.npy").write_bytes(npy_header((2, steps, WIDTH)) + struct.pack(f"<{len(x)}f", *x))
        sources += ["-d", f"npy:{work / f's{k}.npy'}"]
        for i in range(2):
            write_npy(work / "x.npy", (1, steps, WIDTH), x[i * steps * WIDTH:(i + 1) * steps * WIDTH])
            run("run", model, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out")
            alone.append((values(work / "out/mean.npy"), values(work / "out/steps.npy")))
    done = run("run", model, *sources, "--output-dir", work / "all")
    assert f"mean f32[6,1,{CLASSES}]" in done.stdout and f"steps f32[1,7,{CLASSES}] {work / 'all/steps.002.npy'}" in done.stdout, done.stdout
    assert values(work / "all/mean.npy") == b"".join(mean for mean, _ in alone)
    assert [values(work / f"all/steps.{i:03}.npy") for i in range(6)] == [steps for _, steps in alone]
    (work / "labels.tsv").write_text("".join(f"{i}\t{i % CLASSES}\n" for i in range(2)))
    table = json.loads(run("eval", model, *sources, "--labels", work / "labels.tsv", "--predictions", work / "p.tsv", "--output", "mean",
                           "--json").stdout)
    assert table["samples"] == 6, table
    best = [line.split("\t")[1] for line in (work / "p.tsv").read_text().splitlines()[1:]]
    means = [struct.unpack(f"<{CLASSES}f", mean) for mean, _ in alone]
    assert best == [str(m.index(max(m))) for m in means], (best, means)
    return sources


def scores(work, model, x, batch, steps):
    write_npy(work / "x.npy", (batch, steps, WIDTH), x)
    run("run", model, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out")
    return values(work / "out/mean.npy"), values(work / "out/steps.npy")


def quantized(work, model, sources):
    """One int8 file from samples of several lengths: it has the free dims, and runs at any; ranges may be shared out and joined."""
    report = json.loads(run("quantize", model, *sources, "-o", work / "q.onnx", "--json").stdout)
    assert report["samples"] == 6 and sum(row["int8"] for row in report["coverage"]) >= 2, report["coverage"]
    assert report["layers"] and all(layer["sqnr_db"] > 25 for layer in report["layers"]), report["layers"]
    shown = json.loads(run("inspect", work / "q.onnx", "--json").stdout)
    assert shown["quantized"] and [d["symbol"] for d in shown["free"]] == ["batch", "steps of x"], shown
    assert shown["outputs"][0]["type"] == f"f32[batch,{CLASSES}]", shown
    for engine in ("jit", "interpreter"):
        run("run", work / "q.onnx", *sources, "--output-dir", work / engine, "--engine", engine)
    assert values(work / "jit/mean.npy") == values(work / "interpreter/mean.npy")
    for steps in (1, 3, 12):  # 12 is longer than any sample
        x = drawn(steps + 50, 4 * steps * WIDTH)
        both = [struct.unpack(f"<{4 * CLASSES}f", scores(work, m, x, 4, steps)[0]) for m in (model, work / "q.onnx")]
        assert all(abs(a - b) < 0.15 for a, b in zip(*both)), both
        # A batch has the bytes of its samples alone.
        whole = scores(work, work / "q.onnx", x, 4, steps)
        alone = [scores(work, work / "q.onnx", x[i * steps * WIDTH:(i + 1) * steps * WIDTH], 1, steps) for i in range(4)]
        assert whole == tuple(b"".join(parts) for parts in zip(*alone)), steps
    run("calibrate", model, *sources, "-o", work / "whole.qcal")
    for i in range(2):
        run("calibrate", model, *sources, "--shard", f"{i}/2", "-o", work / f"part{i}.qcal")
    run("merge", work / "part0.qcal", work / "part1.qcal", "-o", work / "joined.qcal")
    assert (work / "whole.qcal").read_bytes() == (work / "joined.qcal").read_bytes()
    run("quantize", model, "--ranges", work / "joined.qcal", "-o", work / "r.onnx")
    assert [d["symbol"] for d in json.loads(run("inspect", work / "r.onnx", "--json").stdout)["free"]] == ["batch", "steps of x"]
    run("quantize", model, "--mode", "dynamic", "-o", work / "d.onnx")
    scores(work, work / "d.onnx", drawn(1, 2 * 9 * WIDTH), 2, 9)
    # --shape fixes a dim, of samples and file.
    run("quantize", model, "-d", sources[1], "--shape", "steps of x=3", "-o", work / "fixed.onnx")
    assert [d["symbol"] for d in json.loads(run("inspect", work / "fixed.onnx", "--json").stdout)["free"]] == ["batch"]
    other = run("quantize", model, *sources, "--shape", "steps of x=3", "-o", work / "fixed.onnx", code=1).stderr
    assert "s1.npy[0]' is f32[1,7,8], the model takes [batch,3,8]" in other, other


def bench(work, model, sources):
    """A table over sizes; samples one after another; what has to be bound."""
    table = json.loads(run("bench", model, "--shape", "steps of x=1..9:4", "--shape", "batch=2", "--seconds", "0", "--json").stdout)
    assert table["symbol"] == "steps of x" and [row["size"] for row in table["sizes"]] == [1, 5, 9], table
    assert all(0 < row["min_ms"] <= row["median_ms"] for row in table["sizes"]), table
    text = run("bench", model, "--shape", "steps of x=2..6:4,9", "--seconds", "0").stdout.splitlines()
    assert [line.split()[0] for line in text[1:]] == ["2", "6", "9"], text
    served = json.loads(run("bench", work / "q.onnx", *sources, "--json", "--threads", "2").stdout)
    assert served["samples"] == 6 and served["plans"] == 2 and served["threads"] == 2, served
    assert 0 < served["p50_ms"] <= served["p99_ms"] and served["first_ms"] <= served["total_ms"] and served["peak_mb"] > 1, served
    assert "6 samples in" in run("bench", model, *sources).stdout
    for verb in (("bench",), ("profile",), ("compile", "-o", work / "m.o")):
        text = run(verb[0], model, *verb[1:], code=1).stderr
        assert "dim 1 of 'x' [batch,steps of x,8] is free" in text and "--shape steps of x=N" in text, text
    for args, part in ((("--shape", "steps of x=3..1"), "is not a range"), (("--shape", "steps of x=1..2", "--shape", "batch=1..2"), "two lists"),
                       (("--shape", "steps of x=1..2", *sources[:2]), "-d has no effect with several"), (("--shape", "steps=1..2"), "nor a symbol of one"),
                       (("--shape", "batch=1..2"), "--shape \"steps of x\"=N"), (("--shape", "steps of x=0..5000"), "at most 1000"),
                       ((*sources, "--seconds", "1"), "--seconds has no effect with samples")):
        refused = run("bench", model, *args, code=1).stderr
        assert part in refused or part.replace('"', "") in refused, refused
    run("bench", model, *sources[:2], "--layers", code=2)


def bound_all_the_same(work):
    """A model whose dims cannot stay free is taken at one shape, which is said, with the node that needs it."""
    nodes = [onnx_bytes.node("SplitToSequence", ["x"], ["s"], onnx_bytes.integer("axis", 1), onnx_bytes.integer("keepdims", 0)),
             onnx_bytes.node("SequenceErase", ["s"], ["rest"], name="/head/Erase"), onnx_bytes.node("SequenceAt", ["rest", "first"], ["y"])]
    model = work / "split.onnx"
    model.write_bytes(onnx_bytes.model(nodes, [onnx_bytes.port("x", "N", "T", 4)], [onnx_bytes.port("y", "N", 4)],
                                       [onnx_bytes.counts("first", [], [0])], opset=11))
    write_npy(work / "x.npy", (1, 5, 4), drawn(1, 20))
    done = run("run", model, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out")
    assert "y f32[1,4]" in done.stdout, done.stdout
    for part in ("note: ", "is taken at x f32[1,5,4], its dims cannot stay free: node '/head/Erase'", "must be known"):
        assert part in done.stderr, done.stderr
    text = run("quantize", model, "-d", "random:2", "-o", work / "s.onnx", code=1).stderr
    assert "has to be bound, its dims cannot stay free: node '/head/Erase'" in text and "--shape T=N" in text, text
    write_npy(work / "three.npy", (3, 5, 4), drawn(2, 60))
    for verb, file in (("quantize", "s.onnx"), ("calibrate", "s.qcal"), ("bench", None)):
        done = run(verb, model, "-d", f"npy:{work / 'three.npy'}", *(("-o", work / file) if file else ()))
        assert "is taken at T=5, which cannot stay free: node '/head/Erase'" in done.stderr, (verb, done.stderr)
    assert "y f32[1,4]" in run("run", work / "s.onnx", "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out").stdout
    write_npy(work / "two.npy", (2, 5, 4), drawn(4, 40))
    assert "y f32[2,4]" in run("run", work / "s.onnx", "--input", f"x={work / 'two.npy'}", "--output-dir", work / "out").stdout
    write_npy(work / "other.npy", (1, 6, 4), drawn(3, 24))
    text = run("quantize", model, "-d", f"npy:{work / 'three.npy'}", "-d", f"npy:{work / 'other.npy'}", "-o", work / "s.onnx", code=1).stderr
    assert "other.npy[0]' is f32[1,6,4], the model takes [N,5,4]" in text, text


def read_for_all_sizes_but_one(work):
    """Where a node does something else at one size, the model is read for the others, and that one is refused by a file, but not by the model."""
    nodes = [onnx_bytes.node("Squeeze", ["x"], ["s"], name="/head/Squeeze"), onnx_bytes.node("MatMul", ["s", "w"], ["y"])]
    model = work / "squeeze.onnx"
    model.write_bytes(onnx_bytes.model(nodes, [onnx_bytes.port("x", 1, "N", "T", WIDTH)], [onnx_bytes.port("y", "N", "T", 16)],
                                       [onnx_bytes.tensor("w", [WIDTH, 16], drawn(1, WIDTH * 16))], opset=11))
    samples = []
    for k, (n, t) in enumerate(((1, 5), (2, 5), (3, 7), (4, 1))):
        write_npy(work / f"s{k}.npy", (1, n, t, WIDTH), drawn(k, n * t * WIDTH))
        samples.append(work / f"s{k}.npy")
    single = run("run", model, "--input", f"x={samples[0]}", "--output-dir", work / "out")
    assert "y f32[5,16]" in single.stdout and "is taken at N=1: node '/head/Squeeze' does something else at other sizes" in single.stderr, single
    several = run("run", model, "--input", f"x={samples[1]}", "--output-dir", work / "out")
    assert "y f32[2,5,16]" in several.stdout and "note" not in several.stderr, several
    int8 = work / "squeeze.int8.onnx"
    run("quantize", model, "-d", f"npy:{samples[1]}", "-d", f"npy:{samples[2]}", "-o", int8)
    assert "y f32[3,7,16]" in run("run", int8, "--input", f"x={samples[2]}", "--output-dir", work / "out").stdout
    for sample, said in ((samples[0], "N is 1"), (samples[3], "T is 1")):
        text = run("run", int8, "--input", f"x={sample}", "--output-dir", work / "out", code=1).stderr
        assert "node '/head/Squeeze'" in text and said in text, text
    run("quantize", model, "-d", f"npy:{samples[0]}", "-o", int8)
    assert "y f32[5,16]" in run("run", int8, "--input", f"x={samples[0]}", "--output-dir", work / "out").stdout
    for verb in (("run", model), ("debug", model, int8), ("compare", model, int8)):
        assert "is taken at N=1: node '/head/Squeeze'" in run(*verb, "-d", f"npy:{samples[0]}", *(("--output-dir", work / "out") if verb[0] == "run" else ())).stderr


def mistakes(work, model):
    """What does not fit is named: input, dim, node and sizes; no flag but those that were given."""
    write_npy(work / "x.npy", (1, 5, WIDTH), drawn(1, 5 * WIDTH))
    write_npy(work / "flat.npy", (5, WIDTH + 1), drawn(1, 5 * (WIDTH + 1)))
    x = f"x={work / 'x.npy'}"

    def refused(*args):
        text = run(*args, code=1).stderr
        assert [w for w in text.split() if w.startswith("--") and not any(str(a).startswith(w.strip(",:;")) for a in args)] == [], text
        return text

    assert "'x': this input is f32[batch,\"steps of x\",8], and [5,9] was given" in refused("run", model, "--input", f"x={work / 'flat.npy'}")
    assert "dim 1 is 7, and 5 was given" in refused("run", model, "--input", x, "--shape", "steps of x=7")
    other = refused("run", model, "--input", x, "--input", f"xx={work / 'x.npy'}")
    assert "--input xx: the model has no such input" in other and "it has 'x'" in other, other
    unknown = refused("run", model, "--input", x, "--shape", "step=7")
    assert "'step', which is neither an input of the model nor a symbol of one" in unknown and all(f"'{n}'" in unknown for n in ("steps of x", "batch", "x")), unknown
    assert "did you mean 'steps of x'? the model has 'steps of x', " in unknown, unknown
    missing = run("run", model, code=1).stderr
    assert "'x': no array was given for this input" in missing, missing
    two = work / "two.onnx"
    two.write_bytes(two_lengths())
    write_npy(work / "a.npy", (1, 5, 4), drawn(1, 20))
    write_npy(work / "b.npy", (1, 3, 4), drawn(1, 12))
    text = refused("run", two, "--input", f"a={work / 'a.npy'}", "--input", f"b={work / 'b.npy'}")
    for part in ("node '/join/Add'", "5 against 3", "dim 1 of 'a' is 5", "dim 1 of 'b' is 3"):
        assert part in text, text
    write_npy(work / "b.npy", (2, 5, 4), drawn(1, 40))
    text = refused("run", two, "--input", f"a={work / 'a.npy'}", "--input", f"b={work / 'b.npy'}")
    assert "'b': dim 0 is N, which is 2 here and 1 in dim 0 of 'a'" in text, text
    # In a set, the sample is named too.
    for name, steps in (("a", 5), ("b", 3)):
        (work / f"{name}.npy").write_bytes(npy_header((2, 1, steps, 4)) + struct.pack(f"<{8 * steps}f", *drawn(1, 8 * steps)))
    with zipfile.ZipFile(work / "ab.npz", "w") as archive:
        for name in "ab":
            archive.write(work / f"{name}.npy", f"{name}.npy")
    (work / "labels.tsv").write_text("0\t0\n1\t0\n")
    for verb, *args in (("run", "--output-dir", work / "out"), ("run", "--output-dir", work / "out", "--engine", "interpreter"),
                        ("eval", "--labels", work / "labels.tsv"), ("bench",), ("calibrate", "-o", work / "t.qcal"), ("quantize", "-o", work / "t.onnx")):
        text = run(verb, two, "-d", f"npz:{work / 'ab.npz'}", *args, code=1).stderr
        assert "ab.npz[0]'" in text and "5 against 3" in text and "dim 1 of 'b' is 3" in text, (verb, text)
    text = run("run", model, "-d", "random:2", "--output-dir", work / "out", code=1).stderr
    assert "dim 1 of 'x' [batch,\"steps of x\",8] is free, and noise has no sizes of its own" in text and "bind it: --shape" in text, text
    run("run", model, "-d", "random:2", "--shape", "steps of x=4", "--output-dir", work / "out")


def in_text_form(work):
    """A graph in text form is bound by the same flags."""
    graph = work / "g.qir"
    graph.write_text("graph @g(%x: f32[N,T], %m: f32[N,2*T]) {\n  %y = relu %x : f32[N,T]\n  %z = neg %m : f32[N,2*T]\n  return %y, %z\n}\n")
    inputs = []
    for name, steps in (("x", 3), ("m", 6)):
        write_npy(work / f"{name}.npy", (2, steps), drawn(1, 2 * steps))
        inputs += ["--input", f"{name}={work / name}.npy"]
    assert "y f32[2,3]" in run("run", graph, *inputs, "--output-dir", work / "out").stdout
    assert "free   T : dim 1 of 'x', dim 1 of 'm'" in run("inspect", graph).stdout
    open_dims = run("bench", graph, code=1).stderr
    assert "dim 1 of 'x' [N,T], dim 1 of 'm' [N,2*T] are free" in open_dims and "bind it: --shape T=N" in open_dims, open_dims
    assert "min " in run("bench", graph, "--shape", "T=4", "--seconds", "0").stdout
    assert "'x': dim 1 is 4, and 3 was given" in run("run", graph, *inputs, "--shape", "N=2", "--shape", "T=4", code=1).stderr
    assert "neither an input of the model nor a symbol" in run("bench", graph, "--shape", "U=4", code=1).stderr
    assert "is for ONNX models" in run("bench", graph, "--shape", "T=4", "--bind", "x=1", code=1).stderr


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        model = work / "net.onnx"
        model.write_bytes(net())
        arrays(work, model)
        sources = samples(work, model)
        quantized(work, model, sources)
        bench(work, model, sources)
        bound_all_the_same(work)
        read_for_all_sizes_but_one(work)
        mistakes(work, model)
        in_text_form(work)
    print("any shape: passed")


if __name__ == "__main__":
    main()
