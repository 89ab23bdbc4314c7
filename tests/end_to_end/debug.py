#!/usr/bin/env python3
"""`debug`: two models of one origin side by side.

    debug.py QCOMPILE DATA_DIR

The digits, float and int8, with faults planted into the text of the int8 graph: the comparison that each belongs to finds it, at its layer and
channel.  Files whose values were renamed or lost what was moved; free dims; NaN; held-out samples; dumps.  Standard library only.
"""
import json
import math
import pathlib
import random
import re
import struct
import tempfile
import zipfile

from command_line import DATA, npy_header, run

MODEL = DATA / "digits.onnx"
SAMPLES = f"images:{DATA}/calib?order=grey&mean=0&std=255"
FEW, REST = f"{SAMPLES}&limit=24", f"{SAMPLES}&skip=24"
CONVS = ["/stem/stem.0/Conv", "/a/a.0/Conv", "/b/b.0/Conv", "/down/down.0/Conv", "/depthwise/depthwise.0/Conv", "/pointwise/pointwise.0/Conv"]


def debug(*args):
    return json.loads(run("debug", *args, "--json").stdout)


def by_layer(report):
    return {row["layer"]: row for row in report["layers"]}


def finds_what_is_there(work):
    report = debug(MODEL, work / "q.onnx", "-d", SAMPLES)
    rows = by_layer(report)
    assert set(CONVS) < set(rows) and "/head/Gemm" in rows, list(rows)
    assert report["unmatched"] == [] and report["notes"] == [] and report["non_finite"] == []
    assert report["measured_on"] == {"samples": 16, "kind": "unknown"}
    for name in [*CONVS, "/head/Gemm"]:
        row = rows[name]
        assert row["op"] == ("linear" if name == "/head/Gemm" else "conv")
        assert 30 < row["outputs"] < 60 and row["shadow"] > row["outputs"] - 0.1 and 30 < row["weights"] < 70, row
        assert row["worst_channel"]["weights"] <= row["weights"] and row["metrics"]["outputs"]["cosine"] > 0.999
        assert "became" in row["metrics"]["outputs"]["max_error_at"]
    assert [row["layer"] for row in report["model_outputs"]] == ["scores"]
    # The file in text form is the same model.
    text = by_layer(debug(MODEL, work / "q.qir", "-d", SAMPLES))
    assert {k: (r["weights"], r["outputs"], r["shadow"]) for k, r in text.items()} == {k: (r["weights"], r["outputs"], r["shadow"]) for k, r in rows.items()}
    # A model is itself.
    same = debug(MODEL, MODEL, "-d", FEW)
    assert {row["weights"] for row in same["layers"]} == {120} and {row["shadow"] for row in same["layers"]} == {120}
    same = debug(work / "q.onnx", work / "q.onnx", "-d", FEW)
    assert {row["outputs"] for row in same["layers"]} == {120}
    shown = run("debug", MODEL, work / "q.onnx", "-d", FEW, "--sort", "shadow").stdout
    assert "weights dB" in shown and "whether they calibrated is not known" in shown, shown


def planted_faults(work):
    """Text of the int8 graph -> what was broken there, and alone there."""
    text = (work / "q.qir").read_text()
    good = by_layer(debug(MODEL, work / "q.qir", "-d", FEW))
    # A broken weight: channel 5 of one layer.
    at = re.search(r'const #a\.0\.weight\S* : s8\[16,16,3,3\] = hex"([0-9a-f]+)"', text)
    row = 16 * 9 * 2
    (work / "w.qir").write_text(text[:at.start(1) + 5 * row] + "07" * (row // 2) + text[at.start(1) + 6 * row:])
    rows = by_layer(debug(MODEL, work / "w.qir", "-d", FEW))
    assert min(rows, key=lambda n: rows[n]["weights"] if rows[n]["weights"] is not None else 999) == "/a/a.0/Conv"
    assert rows["/a/a.0/Conv"]["worst_channel"]["channel"] == 5 and rows["/a/a.0/Conv"]["worst_channel"]["weights"] < 10
    assert min(rows, key=lambda n: rows[n]["shadow"]) == "/a/a.0/Conv"
    for name in CONVS[2:]:  # those behind suffer, and are not at fault
        assert rows[name]["outputs"] < good[name]["outputs"] - 3 and abs(rows[name]["shadow"] - good[name]["shadow"]) < 0.01, name
        assert rows[name]["weights"] == good[name]["weights"]
    # A range that is cut off: the scale behind one layer is a tenth of what it was.
    at = re.search(r'"/Relu_2_output_0_q" = quantize \S+ : (!q\d+)\[', text)
    scale = re.search(rf"^{at[1]} = q<u8, scale=([0-9.e-]+), zp=\d+>$", text, re.M)
    (work / "s.qir").write_text(text[:scale.start(1)] + repr(float(scale[1]) / 10) + text[scale.end(1):])
    rows = by_layer(debug(MODEL, work / "s.qir", "-d", FEW))
    worst = rows["/b/b.0/Conv"]  # the add and the relu behind it are rounded with it
    # What reads those integers suffers as well, even when it is fed.
    assert set(sorted(rows, key=lambda n: rows[n]["shadow"])[:2]) == {"/b/b.0/Conv", "/down/down.0/Conv"} and worst["shadow"] < 15, worst
    assert abs(rows["/pointwise/pointwise.0/Conv"]["shadow"] - good["/pointwise/pointwise.0/Conv"]["shadow"]) < 0.01
    assert worst["metrics"]["outputs"]["clipped_high"] > 10 and good["/b/b.0/Conv"]["metrics"]["outputs"]["clipped_high"] < 1
    assert worst["weights"] == good["/b/b.0/Conv"]["weights"]


def other_names(work):
    """Names of another tool, or none: the same figures."""
    want = by_layer(debug(MODEL, work / "q.qir", "-d", FEW))
    text = (work / "q.qir").read_text()
    renamed = re.sub(r'^property.*\n', "", text, flags=re.M)
    renamed = renamed.replace('_dq"', '_DequantizeLinear_Output"').replace('_q"', '_QuantizeLinear_Output"')
    (work / "tool.qir").write_text(renamed)
    lost = re.sub(r'%("[^"]*"|[\w.$]+)', lambda m: m[0] if m[1] == "image" else "%v" + m[1].encode().hex(), text)
    lost = re.sub(r'^property.*\n| loc\("[^"]*"\)', "", lost, flags=re.M)
    (work / "lost.qir").write_text(lost)
    for file in ("tool.qir", "lost.qir"):
        report = debug(MODEL, work / file, "-d", FEW)
        rows = by_layer(report)
        assert report["unmatched"] == [], report["unmatched"]
        for name in [*CONVS, "/head/Gemm"]:
            assert abs(rows[name]["outputs"] - want[name]["outputs"]) < 1e-6 and abs(rows[name]["shadow"] - want[name]["shadow"]) < 1e-6, (file, name)
            assert rows[name]["weights"] == want[name]["weights"], (file, name)


def network(rng):
    """Two layers, one channel between them 60 times as loud; the batch is free."""
    def listed(values):
        return "[" + ", ".join(f"{v:.7g}" for v in values) + "]"
    first = [rng.gauss(0, 0.3) * (60 if o == 3 else 1) for o in range(16) for _ in range(8)]
    second = [rng.gauss(0, 0.3) / (60 if i == 3 else 1) for _ in range(8) for i in range(16)]
    return f"""const #w : f32[16,8] = {listed(first)}
const #b : f32[16] = {listed(rng.gauss(0, 0.1) for _ in range(16))}
const #v : f32[8,16] = {listed(second)}
graph @g(%x: f32[N,8]) {{
  %w = const #w : f32[16,8]
  %b = const #b : f32[16]
  %v = const #v : f32[8,16]
  %h = linear %x, %w, %b : f32[N,16] loc("first")
  %r = relu %h : f32[N,16] loc("act")
  %y = linear %r, %v : f32[N,8] loc("second")
  return %y
}}
"""


def write_npz(path, shape, values):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_header(shape) + struct.pack(f"<{len(values)}f", *values))


def moved_channels(work):
    rng = random.Random(5)
    (work / "loud.qir").write_text(network(rng))
    for name, shape in (("calib", (32, 4, 8)), ("one", (6, 3, 8)), ("two", (5, 7, 8))):
        write_npz(work / f"{name}.npz", shape, [rng.gauss(0, 1) for _ in range(math.prod(shape))])
    run("quantize", work / "loud.qir", "-d", f"npz:{work}/calib.npz", "--smooth-quant", "off", "-o", work / "loud.q.qir", "--all")
    text = (work / "loud.q.qir").read_text()
    assert 'property "qcompile.moved" = "equalize_layers %h, %r axis=1 f32[16]' in text, text[:300]
    run("quantize", work / "loud.qir", "-d", f"npz:{work}/calib.npz", "--smooth-quant", "off", "-o", work / "loud.q.onnx")
    # Samples of two shapes.
    data = ("-d", f"npz:{work}/one.npz", "-d", f"npz:{work}/two.npz")
    for file in ("loud.q.qir", "loud.q.onnx"):
        report = debug(work / "loud.qir", work / file, *data)
        rows = by_layer(report)
        assert report["measured_on"] == {"samples": 5, "kind": "held_out"} and report["notes"] == []
        assert rows["first"]["moved"] and rows["first"]["weights"] > 30 and rows["first"]["shadow"] > 25, rows["first"]
        assert rows["second"]["weights"] > 30 and rows["second"]["shadow"] > 25, rows["second"]
    # Without what the file knows, the same layers look broken.
    (work / "bare.qir").write_text(re.sub(r'^property.*\n', "", text, flags=re.M))
    rows = by_layer(debug(work / "loud.qir", work / "bare.qir", *data))
    assert rows["first"]["weights"] < 10 and rows["first"]["outputs"] < 10 and rows["second"]["shadow"] < 10, rows
    # What it says is not believed where it cannot be.
    for wrong, note in (("equalize_layers %h axis=1 f32[3] = [1.0, 2.0, 3.0]", "does not fit"), ("equalize_layers %h axis=7 f32[1] = [2.0]", "does not fit"),
                        ("equalize_layers %h, axis", "expected a value"), ("equalize_layers %gone of %h", None)):
        (work / "wrong.qir").write_text(re.sub(r'^property.*\n', lambda _: f'property "qcompile.moved" = "{wrong}"\n', text, flags=re.M))
        notes = debug(work / "loud.qir", work / "wrong.qir", *data)["notes"]
        assert (not notes) if note is None else any(note in n for n in notes), (wrong, notes)


def no_numbers(work):
    (work / "nan.qir").write_text("""const #w : f32[2,2] = [1.0, 0.5, 0.5, 1.0]
graph @g(%x: f32[1,2]) {
  %w = const #w : f32[2,2]
  %h = linear %x, %w : f32[1,2] loc("sum")
  %l = log %h : f32[1,2] loc("log")
  %y = linear %l, %w : f32[1,2] loc("end")
  return %y
}
""")
    write_npz(work / "nan.npz", (3, 1, 2), [1, 1, 0, 0, -1, -2])
    found = debug(work / "nan.qir", work / "nan.qir", "-d", f"npz:{work}/nan.npz")["non_finite"]
    first = [p for p in found if p["model"] == "first"]
    assert [(p["kind"], p["node"], p["sample"]) for p in first] == [("inf", "log", 1)], found
    write_npz(work / "nan.npz", (2, 1, 2), [1, 1, -1, -2])
    found = debug(work / "nan.qir", work / "nan.qir", "-d", f"npz:{work}/nan.npz")["non_finite"]
    assert {(p["model"], p["kind"], p["node"], p["value"], p["sample"]) for p in found} == {(m, "nan", "log", "l", 1) for m in ("first", "second")}
    write_npz(work / "nan.npz", (1, 1, 2), [math.inf, 1])
    found = debug(work / "nan.qir", work / "nan.qir", "-d", f"npz:{work}/nan.npz")["non_finite"]
    assert found[0]["input"] and found[0]["value"] == "x"
    assert "infinity first in the first model: the input itself" in run("debug", work / "nan.qir", work / "nan.qir", "-d", f"npz:{work}/nan.npz").stdout


def dumps(work):
    run("debug", MODEL, work / "q.onnx", "-d", FEW, "--samples", "3", "--dump", work / "values", "--layers", "a/a.0|stem")
    files = sorted((work / "values").iterdir())
    assert [f.name for f in files] == ["sample_00000.npz", "sample_00008.npz", "sample_00016.npz"], files
    with zipfile.ZipFile(files[1]) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        assert names == {f"{kind}:{layer}.npy" for kind in ("first", "second", "shadow") for layer in ("/stem/stem.0/Conv", "/a/a.0/Conv")} | {
            "first:scores.npy", "second:scores.npy"}, names
        data = archive.read("first:scores.npy")
        assert b"'<f4'" in data[:128] and b"(1, 10, )" in data[:128] and len(data) == 128 + 40, data[:128]


def values(path):
    data = path.read_bytes()
    start = 10 + struct.unpack("<H", data[8:10])[0]
    return struct.unpack(f"<{(len(data) - start) // 4}f", data[start:])


def float_numerics(work):
    """The roundings of the file, in float arithmetic: near to the integers, the same by machine code and by the reference."""
    def scores(*args):
        run("run", *args, "-d", FEW, "--output-dir", work / "out")
        return values(work / "out" / "scores.npy")
    for quantized in (["-d", SAMPLES], ["--mode", "dynamic"], ["--mode", "weight-only"]):
        run("quantize", MODEL, *quantized, "-o", work / "n.onnx")
        integers, plain = scores(work / "n.onnx"), scores(work / "n.onnx", "--numerics", "float")
        reference = scores(work / "n.onnx", "--numerics", "float", "--engine", "interpreter")
        signal = sum(v * v for v in plain)
        assert plain == reference, quantized
        assert sum((a - b) ** 2 for a, b in zip(plain, integers)) < 1e-4 * signal, quantized
        assert sum((a - b) ** 2 for a, b in zip(plain, scores(MODEL))) > 1e-7 * signal, "its roundings are in it"
    done = run("run", MODEL, "-d", FEW, "--output-dir", work / "out", "--numerics", "float", code=1)
    assert "is float" in done.stderr, done.stderr


def dynamic_files(work):
    """Layers over parameters found at run time are layers, their own error apart."""
    run("quantize", MODEL, "--mode", "dynamic", "-o", work / "dyn.onnx")
    report = debug(MODEL, work / "dyn.onnx", "-d", FEW)
    rows = by_layer(report)
    assert set(CONVS) | {"/head/Gemm"} <= set(rows), list(rows)
    assert all(rows[n]["weights"] > 30 and rows[n]["shadow"] > 30 for n in CONVS), rows


def other_sizes(work):
    """A batch that is free in one file alone: the same layers, with --shape and without."""
    (work / "free.qir").write_text(network(random.Random(5)))
    rng = random.Random(6)
    write_npz(work / "of_one.npz", (4, 1, 8), [rng.gauss(0, 1) for _ in range(32)])
    for mode in ([], ["--per-tensor"]):
        run("quantize", work / "free.qir", "--mode", "dynamic", *mode, "-o", work / "any.onnx")
        run("quantize", work / "free.qir", "--mode", "dynamic", *mode, "--shape", "N=1", "-o", work / "fixed.onnx")
        want = None
        for file in ("any.onnx", "fixed.onnx"):
            for shape in ([], ["--shape", "N=1"]):
                rows = by_layer(debug(work / "free.qir", work / file, "-d", f"npz:{work}/of_one.npz", *shape))
                assert {"first", "second"} <= set(rows), (mode, file, shape, rows)
                want = want or rows
                assert all(abs(rows[n]["outputs"] - want[n]["outputs"]) < 1e-6 for n in rows), (mode, file, shape)


def refusals(work):
    def says(pattern, *args):
        done = run("debug", *args, code=1)
        assert re.search(pattern, done.stderr, re.S), done.stderr
    says(r"is not held out", MODEL, work / "q.onnx", "-d", FEW, "-d", FEW)
    assert debug(MODEL, work / "q.onnx", "-d", FEW, "-d", REST)["measured_on"]["kind"] == "held_out"
    says(r"no layer of \d+ matches 'nothing'", MODEL, work / "q.onnx", "-d", FEW, "--layers", "nothing")
    says(r"not a regular expression", MODEL, work / "q.onnx", "-d", FEW, "--layers", "(")
    says(r"not of one origin", MODEL, work / "two.qir", "-d", FEW)
    says(r"no file", MODEL, work / "gone.onnx", "-d", FEW)


with tempfile.TemporaryDirectory() as name:
    work = pathlib.Path(name)
    (work / "two.qir").write_text("graph @g(%image: f32[1,1,16,16]) {\n  %a = relu %image : f32[1,1,16,16]\n  %b = neg %a : f32[1,1,16,16]\n  return %a, %b\n}\n")
    run("quantize", MODEL, "-d", SAMPLES, "-o", work / "q.onnx")
    run("quantize", MODEL, "-d", SAMPLES, "-o", work / "q.qir")
    for test in (finds_what_is_there, planted_faults, other_names, moved_channels, no_numbers, dumps, float_numerics, dynamic_files, other_sizes, refusals):
        test(work)
        print(f"{test.__name__}: ok", flush=True)
