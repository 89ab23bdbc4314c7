#!/usr/bin/env python3
"""Sizes that data decides, in the verbs: a detector of bright spots with its post-processing, and sizes that are computed.

    data_sizes.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import random
import struct
import tempfile

import onnx_bytes
from command_line import npy_header, run, write_npy

INT64, BOOL = 7, 9
BRIGHT, MOST = 20, 3


def spots():
    """Sums of 3x3 pixels; where they are bright, the brightest of them, and of boxes around those the ones that do not overlap."""
    n = onnx_bytes.node
    nodes = [n("Conv", ["x", "w"], ["c"], onnx_bytes.ints("pads", [1, 1, 1, 1])), n("Relu", ["c"], ["r"]), n("Reshape", ["r", "flat"], ["s"]),
             n("Greater", ["s", "bright"], ["mask"]), n("NonZero", ["mask"], ["places"], name="/post/NonZero"), n("Squeeze", ["places", "first"], ["at"]),
             n("Gather", ["s", "at"], ["found"]), n("Shape", ["found"], ["count"]), n("Min", ["count", "most"], ["k"]),
             n("TopK", ["found", "k"], ["best", "rank"]), n("Gather", ["at", "rank"], ["where"]),
             # Boxes of one row: from the place to 2 behind it.
             n("Cast", ["at"], ["left"], onnx_bytes.integer("to", 1)), n("Add", ["left", "two"], ["right"]), n("Mul", ["left", "zero"], ["top"]),
             n("Add", ["top", "one"], ["bottom"]),
             *(n("Unsqueeze", [v, "last"], [v + "1"]) for v in ("left", "right", "top", "bottom")),
             n("Concat", ["top1", "left1", "bottom1", "right1"], ["corners"], onnx_bytes.integer("axis", 1)), n("Unsqueeze", ["corners", "first"], ["boxes"]),
             n("Unsqueeze", ["found", "two_axes"], ["scores"]), n("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["left_over"])]
    c = onnx_bytes.counts
    constants = [onnx_bytes.tensor("w", [1, 1, 3, 3], [1.0] * 9), onnx_bytes.tensor("bright", [], [BRIGHT]), onnx_bytes.tensor("two", [], [2.0]),
                 onnx_bytes.tensor("zero", [], [0.0]), onnx_bytes.tensor("one", [], [1.0]), onnx_bytes.tensor("overlap", [1], [0.1]), c("flat", [1], [-1]),
                 c("first", [1], [0]), c("last", [1], [1]), c("two_axes", [2], [0, 1]), c("most", [1], [MOST])]
    outputs = [onnx_bytes.port("found", "n"), onnx_bytes.port("best", "k"), onnx_bytes.port("where", "k", dtype=INT64), onnx_bytes.port("left_over", "m", 3, dtype=INT64)]
    return onnx_bytes.model(nodes, [onnx_bytes.port("x", 1, 1, "h", "w")], outputs, constants)


def counted():
    """0, 1, .. so many as the input says, and the head of another."""
    n = onnx_bytes.node
    nodes = [n("Cast", ["x"], ["whole"], onnx_bytes.integer("to", INT64)), n("ReduceMax", ["whole"], ["n"], onnx_bytes.integer("keepdims", 0)),
             n("Range", ["zero", "n", "one"], ["numbers"], name="/count/Range"), n("Neg", ["n"], ["back"]), n("Unsqueeze", ["back", "axis"], ["from"]),
             n("Slice", ["x", "from", "end"], ["tail"])]
    c = onnx_bytes.counts
    return onnx_bytes.model(nodes, [onnx_bytes.port("x", "T")], [onnx_bytes.port("numbers", "n", dtype=INT64), onnx_bytes.port("tail", "m")],
                            [c("zero", [], [0]), c("one", [], [1]), c("axis", [1], [0]), c("end", [1], [1 << 40])])


def reshaped():
    """Two numbers and what is left of them as a target."""
    n = onnx_bytes.node
    nodes = [n("Cast", ["t"], ["target"], onnx_bytes.integer("to", INT64)), n("Reshape", ["x", "target"], ["y"], name="/head/Reshape")]
    return onnx_bytes.model(nodes, [onnx_bytes.port("t", 3), onnx_bytes.port("x", "N", 4)], [onnx_bytes.port("y", "a", "b", "c")])


def either():
    """A flag takes the one branch, two layers, or the other, one."""
    n, t = onnx_bytes.node, onnx_bytes.tensor
    rng = random.Random(7)
    weights = [t(name, [size, size], [rng.uniform(-0.2, 0.2) for _ in range(size * size)]) for name, size in (("w0", 64), ("w1", 64), ("w2", 64), ("w3", 64))]
    long = onnx_bytes.branch("then_branch", [n("MatMul", ["h", "w1"], ["a"], name="/long/first"), n("Relu", ["a"], ["b"], name="/long/act"),
                                             n("MatMul", ["b", "w2"], ["c"], name="/long/second")], [onnx_bytes.port("c", "T", 64)])
    short = onnx_bytes.branch("else_branch", [n("MatMul", ["h", "w3"], ["d"], name="/short/only")], [onnx_bytes.port("d", "T", 64)])
    nodes = [n("MatMul", ["x", "w0"], ["h"], name="/stem"), n("If", ["flag"], ["e"], long, short, name="/either"), n("Relu", ["e"], ["y"], name="/end")]
    return onnx_bytes.model(nodes, [onnx_bytes.port("x", "T", 64), onnx_bytes.port("flag", 1, dtype=BOOL)], [onnx_bytes.port("y", "T", 64)], weights)


def array(path):
    raw = path.read_bytes()
    size = 10 + struct.unpack("<H", raw[8:10])[0]
    return raw[10:size].decode(), raw[size:]


def numbers(path):
    header, data = array(path)
    kind = "f" if "<f4" in header else "q"
    return list(struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data))


def image(seed, h, w, dark=False):
    rng = random.Random(seed)
    return [0.0 if dark else float(rng.randrange(5)) for _ in range(h * w)]


def expected(x, h, w):
    """The same by hand: what is found, the best of it and where, and what is left."""
    sums = [sum(x[a * w + b] for a in range(max(i - 1, 0), min(i + 2, h)) for b in range(max(j - 1, 0), min(j + 2, w))) for i in range(h) for j in range(w)]
    at = [i for i, s in enumerate(sums) if s > BRIGHT]
    order = sorted(range(len(at)), key=lambda i: (-sums[at[i]], i))
    left = []
    for i in order:
        # Lengths 2 at a distance d overlap by 2 - d of 2 + d.
        if len(left) < MOST and all(abs(at[i] - at[j]) >= 2 or (2 - abs(at[i] - at[j])) / (2 + abs(at[i] - at[j])) <= 0.1 for j in left):
            left.append(i)
    return [sums[a] for a in at], [sums[at[i]] for i in order[:MOST]], [at[i] for i in order[:MOST]], [v for i in left for v in (0, 0, i)]


NAMES = ("found", "best", "where", "left_over")
SHAPES = ((6, 7, False), (5, 5, False), (9, 4, False), (3, 3, True), (12, 11, False))


def runs(work, model):
    """Both engines give what is found at every shape, also where nothing is."""
    seen = set()
    for engine in ("jit", "interpreter"):
        for k, (h, w, dark) in enumerate(SHAPES):
            x = image(k, h, w, dark)
            write_npy(work / "x.npy", (1, 1, h, w), x)
            done = run("run", model, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out", "--engine", engine)
            assert not done.stderr, done.stderr
            wanted = expected(x, h, w)
            seen.add(len(wanted[0]))
            for name, values in zip(NAMES, wanted):
                assert numbers(work / f"out/{name}.npy") == values, (engine, h, w, name, numbers(work / f"out/{name}.npy"), values)
    assert 0 in seen and len(seen) >= 4, seen


def quantized(work, model):
    """Samples that find different numbers make one int8 file; it is written with its ops, and both engines give the same bytes."""
    sources = []
    for k, (h, w, dark) in enumerate(SHAPES):
        (work / f"s{k}.npy").write_bytes(npy_header((1, 1, h, w)) + struct.pack(f"<{h * w}f", *image(k, h, w, dark)))
        sources += ["-d", f"npy:{work / f's{k}.npy'}"]
    report = json.loads(run("quantize", model, *sources, "-o", work / "q.onnx", "--json").stdout)
    assert report["samples"] == len(SHAPES) and sum(row["int8"] for row in report["coverage"]) >= 1, report["coverage"]
    shown = json.loads(run("inspect", work / "q.onnx", "--json").stdout)
    assert shown["quantized"] and [d["symbol"] for d in shown["free"]] == ["h", "w"], shown
    assert shown["ops"]["nonzero"] == shown["ops"]["non_max_suppression"] == shown["ops"]["topk"] == 1, shown["ops"]
    for engine in ("jit", "interpreter"):
        run("run", work / "q.onnx", *sources, "--output-dir", work / engine, "--engine", engine)
    files = sorted(p.name for p in (work / "jit").iterdir())
    assert files == sorted(p.name for p in (work / "interpreter").iterdir()) and len(files) >= 8, files
    for name in files:
        assert array(work / "jit" / name) == array(work / "interpreter" / name), name
    run("calibrate", model, *sources, "-o", work / "r.qcal")
    run("quantize", model, "--ranges", work / "r.qcal", "-o", work / "r.onnx")
    run("eval", work / "q.onnx", "-d", sources[1], "-d", sources[3], "--predictions", work / "p.tsv", "--output", "best")
    served = json.loads(run("bench", work / "q.onnx", *sources, "--json").stdout)
    assert served["samples"] == len(SHAPES) and served["plans"] > len(SHAPES), served  # a program for every segment
    again = json.loads(run("bench", work / "q.onnx", *sources[:2], *sources[:2], "--json").stdout)
    assert again["plans"] < served["plans"], (again, served)


def layer_by_layer(work, model):
    """`debug` feeds the layers behind what decides with what the float model found."""
    sources = [word for k in range(len(SHAPES)) for word in ("-d", f"npy:{work / f's{k}.npy'}")]
    found = json.loads(run("debug", model, work / "q.onnx", *sources, "--json").stdout)
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert layers["c"]["shadow"] > 20, layers
    run("sensitivity", model, *sources)


def shown(model):
    """Who decides which size, and what it cannot exceed."""
    decided = {d["op"]: d for d in json.loads(run("inspect", model, "--json").stdout)["decided"]}
    assert decided["nonzero"]["bound"] == "h*w" and decided["nonzero"]["node"] == "/post/NonZero", decided
    assert decided["non_max_suppression"]["bound"] == f"min({MOST},{decided['nonzero']['symbol']})", decided
    text = run("inspect", model).stdout
    assert f"size   {decided['nonzero']['symbol']} : at most h*w, decided by nonzero '/post/NonZero'" in text, text


def refused(work, model):
    """What needs one program for all sizes names the node."""
    text = run("compile", model, "-o", work / "m.o", "--shape", "h=4", "--shape", "w=4", code=1).stderr
    assert "node '/post/NonZero'" in text and "the data decides how large" in text, text


def timed(work):
    """What runs is timed step by step, with what decides, and the sizes that came out are told."""
    model, sizes = work / "q.onnx", ("--shape", "h=6", "--shape", "w=7")
    found = json.loads(run("bench", model, "--seconds", "0", "--layers", *sizes, "--json").stdout)
    decided = {d["op"]: d for d in found["decisions"]}
    assert found["min_ms"] > 0 and decided["nonzero"]["node"] == "/post/NonZero" and decided["nonzero"]["result"].startswith("s64[1,"), found
    assert {"nonzero", "non_max_suppression"} <= {layer["op"] for layer in found["layers"]}, found["layers"]
    h, w, dark = SHAPES[0]
    profiled = json.loads(run("profile", model, *sizes, "--runs", 3, "-d", f"npy:{work / 's0.npy'}", "--json").stdout)
    (nonzero,) = [d for d in profiled["decisions"] if d["op"] == "nonzero"]
    assert nonzero["result"] == f"s64[1,{len(expected(image(0, h, w, dark), h, w)[0])}]", nonzero
    assert {"nonzero", "topk", "non_max_suppression"} <= {layer["op"] for layer in profiled["layers"]}, profiled["layers"]
    done = run("bench", model, "--seconds", "0", "--shape", "h=6,9", "--shape", "w=7", "--json")
    assert [row["size"] for row in json.loads(done.stdout)["sizes"]] == [6, 9] and "these inputs are made up" in done.stderr, done
    beside = json.loads(run("bench", model, "--seconds", "0", "--compare", "float", *sizes, "--json").stdout)
    assert all(m["decisions"] for m in beside["models"]), beside
    run("profile", model, *sizes, "--predict")
    run("profile", model, *sizes, "--report", work / "page.html")


def branches(work):
    """An If on a flag: what is in the branch that is not taken is neither run nor timed, and what is chosen is weighed as often as samples take it."""
    model, int8 = work / "either.onnx", work / "either.int8.onnx"
    model.write_bytes(either())
    sources = []
    for k in range(8):
        folder = work / f"flags/test_data_set_{k}"
        folder.mkdir(parents=True)
        rng = random.Random(k)
        (folder / "input_0.pb").write_bytes(onnx_bytes.tensor("x", [5, 64], [rng.uniform(-1, 1) for _ in range(320)]))
        (folder / "input_1.pb").write_bytes(onnx_bytes.field(1, onnx_bytes.packed([1])) + onnx_bytes.field(2, BOOL) + onnx_bytes.field(8, b"flag") +
                                            onnx_bytes.field(9, bytes([k % 4 == 0])))
    sources = ["-d", f"testdata:{work / 'flags'}"]
    rules = work / "either.json"
    rules.write_text('{"global": "default", "force": true}')
    run("quantize", model, *sources, "--config", rules, "-o", int8)
    shape = ("--shape", "T=5")
    names = {True: {"/long/first", "/long/second"}, False: {"/short/only"}}
    for verb in (("bench", "--seconds", "0", "--layers"), ("profile", "--runs", 3)):
        found = json.loads(run(verb[0], int8, *verb[1:], *shape, "--json").stdout)
        (decision,) = found["decisions"]
        assert decision["condition"] == "flag" and decision["node"] == "/either", found
        layers = {layer["node"]: layer for layer in found["layers"]}
        assert names[decision["holds"]] <= set(layers) and not names[not decision["holds"]] & set(layers), (decision, layers)
        for name in names[decision["holds"]]:
            assert layers[name]["where"] == f"'flag' is {str(decision['holds']).lower()}", layers[name]
    done = run("profile", int8, *sources, "--runs", 3)  # at the sizes of the sample
    assert "'/either' takes the branch where 'flag' is true" in done.stdout and "made up" not in done.stderr, done
    bound = json.loads(run("profile", int8, *shape, "--bind", "flag=0", "--runs", 3, "--json").stdout)
    assert "decisions" not in bound and {"/stem", "/short/only"} <= {layer["node"] for layer in bound["layers"]}, bound
    for more in (("--compare", "float"), ("--predict",), ("--predict", "--target", "avx2")):
        assert "/short/only" in run("profile", int8, *shape, *more).stdout, more
    for other in ("float", model):
        done = run("profile", int8, *sources, "--runs", 3, "--compare", other)
        assert "/long/first" in done.stdout and "/short/only" not in done.stdout and "made up" not in done.stderr, done
    assert "/long/first" in run("profile", int8, *sources, "--predict").stdout
    kernels = json.loads(run("inspect", int8, *shape, "--kernels", "--json").stdout)["kernels"]
    assert {k["where"] for k in kernels if k["node"] == "/short/only"} == {"'flag' is false"}, kernels
    assert "// where 'flag' is false\n" in run("inspect", int8, *shape, "--kernels").stdout
    assert "takes the branch where 'flag' is false" in run("bench", int8, *shape, "--seconds", "0", "--compare", "float").stdout
    # Both branches are looked at, at whatever share of the samples takes them.
    for target in (("--never-slower",), ("--never-slower", "--target", "avx2")):
        weighed = json.loads(run("quantize", model, *sources, "--config", rules, *target, "-o", work / "n.onnx", "--json").stdout)["ledger"]
        nodes = {node for region in weighed["regions"] for node in region["nodes"]}
        assert {"/stem", "/long/first", "/long/second", "/short/only"} <= nodes, weighed
    for target in (("--target-sqnr", 60), ("--budget-ms", 1000)):
        reached = json.loads(run("quantize", model, *sources, "--config", rules, *target, "-o", work / "t.onnx", "--json").stdout)
        assert reached["target"]["chosen"]["met"], reached["target"]


def computed(work):
    """Numbers that become sizes: any that is one; others are refused in words, and nothing is allocated for them."""
    model = work / "counted.onnx"
    model.write_bytes(counted())
    for engine in ("jit", "interpreter"):
        for x in ([3.0, 1.0, 2.0, 0.0], [0.0, -1.0], [5.0], [2.0, 2.0]):
            write_npy(work / "x.npy", (len(x),), x)
            run("run", model, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out", "--engine", engine)
            n = int(max(x))
            assert numbers(work / "out/numbers.npy") == list(range(n)), (x, numbers(work / "out/numbers.npy"))
            assert numbers(work / "out/tail.npy") == (x[-n:] if n else x), (x, numbers(work / "out/tail.npy"))
        for far in (2.0**36, 2.0**39, 2.0**45, 2.0**62):
            write_npy(work / "x.npy", (1,), [far])
            text = run("run", model, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out", "--engine", engine, code=1).stderr
            assert "/count/Range" in text or "more than the limit" in text, (far, text)


def targets(work):
    """A target of Reshape that is computed: sizes, 0 for the input's, -1 for what is left; written and read back as well."""
    model, back = work / "reshaped.onnx", work / "back.onnx"
    model.write_bytes(reshaped())
    run("quantize", model, "--mode", "dynamic", "-o", back)
    x = [float(i) for i in range(12)]
    write_npy(work / "x.npy", (3, 4), x)
    for path in (model, back):
        for engine in ("jit", "interpreter"):
            for target, sizes in (((2, -1, 1), "2,6,1"), ((0, 2, -1), "3,2,2"), ((-1, 0, 1), "3,4,1"), ((12, 1, 1), "12,1,1"), ((5, -1, 1), None), ((-1, -1, 1), None),
                                  ((-7, 2, 2), None), ((4, 4, 4), None), ((2.0**30, 2.0**30, 2.0**30), None)):
                write_npy(work / "t.npy", (3,), target)
                done = run("run", path, "--input", f"x={work / 'x.npy'}", "--input", f"t={work / 't.npy'}", "--output-dir", work / "out", "--engine", engine,
                           code=0 if sizes else 1)
                if sizes:
                    assert f"y f32[{sizes}]" in done.stdout and numbers(work / "out/y.npy") == x, (target, done.stdout)
                else:
                    assert "/head/Reshape" in done.stderr, (target, done.stderr)


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        model = work / "spots.onnx"
        model.write_bytes(spots())
        shown(model)
        runs(work, model)
        quantized(work, model)
        layer_by_layer(work, model)
        refused(work, model)
        timed(work)
        branches(work)
        computed(work)
        targets(work)


main()
