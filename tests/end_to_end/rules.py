#!/usr/bin/env python3
"""Tables of a backend, observers, noise as samples, and rules that force what does not pay, through the command line.

    rules.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import tempfile

from command_line import DATA, recipe_rows, recipes_off, run

MODEL = DATA / "digits.onnx"
SAMPLES = f"images:{DATA}/calib?order=grey&mean=0&std=255"

SMALL = """const #w : f32[4,4] = rand(1, -1.0, 1.0)
graph @g(%x: f32[1,4]) -> ("y") {
  %w = const #w : f32[4,4]
  %y = linear %x, %w : f32[1,4]
  return %y
}
"""


def coverage(*args):
    report = json.loads(run("quantize", *args, "--json").stdout)
    return {row["node"]: row for row in report["coverage"]}, report


def tables(work):
    """A table with [conv, relu] and [linear] alone, and one that cannot be read."""
    types = [{"input": "u8", "output": "u8", "weight": "s8", "bias": "f32"}]
    table = work / "npu.json"
    table.write_text(json.dumps({"name": "npu", "patterns": [{"ops": ["conv", "relu"], "dtypes": types}, {"ops": ["linear"], "dtypes": types}]}))
    rows, _ = coverage(MODEL, "-d", SAMPLES, "--backend", table, "-o", work / "q.onnx")
    ops = {op: [r["int8"] for r in rows.values() if r["op"] == op] for op in ("conv", "relu", "linear", "add")}
    assert sum(ops["conv"]) >= 4 and all(ops["linear"]) and not any(ops["add"]), ops
    assert sum(ops["conv"]) == sum(ops["relu"]), "each with the one behind it"
    run("calibrate", MODEL, "-d", SAMPLES, "--backend", table, "-o", work / "npu.qcal")
    run("quantize", MODEL, "--ranges", work / "npu.qcal", "--backend", table, "-o", work / "again.onnx")
    run("quantize", MODEL, "--mode", "weight-only", "--backend", table, "-o", work / "again.onnx")
    rules = work / "rules.json"
    rules.write_text('{"rules": [{"object_type": "linear", "qconfig": "float"}]}')
    rows, _ = coverage(MODEL, "-d", SAMPLES, "--config", rules, "--backend", table, "-o", work / "q.onnx")
    assert not any(r["int8"] for r in rows.values() if r["op"] == "linear") and any(r["int8"] for r in rows.values())
    assert "exclude each other" in run("quantize", MODEL, "-d", SAMPLES, "--config", rules, "--backend", "qnnpack", "-o", work / "q", code=1).stderr
    run("quantize", MODEL, "-d", SAMPLES, "--backend", work / "none.json", "-o", work / "q", code=1)
    table.write_text('{"name": "npu", "patterns": [{"ops": ["cnov"], "dtypes": []}]}')
    assert "conv" in run("quantize", MODEL, "-d", SAMPLES, "--backend", table, "-o", work / "q", code=1).stderr
    print("tables: passed")


def observers(work):
    ranges = set()
    for text in ("minmax", "percentile", "percentile:percentile=98,bins=512", "entropy", "mse", "moving_average:averaging_constant=0.3",
                 "histogram:search=reference", "histogram:bins=256"):
        report = json.loads(run("calibrate", MODEL, "-d", SAMPLES, "--observer", text, "-o", work / "o.qcal", "--json").stdout)
        assert f'"observer":"{text.split(":")[0]}"' in (work / "o.qcal").read_text()
        ranges.add(json.dumps(report["ranges"]))
        run("quantize", MODEL, "--ranges", work / "o.qcal", "--observer", text, "-o", work / "q.onnx")
        run("quantize", MODEL, "-d", SAMPLES, "--observer", text, "--backend", "qnnpack", "-o", work / "q.onnx")
    assert len(ranges) >= 6, "different ranges"
    for text, words in (("minimax", "histogram, minmax"), ("per_channel_minmax", "no such observer"), ("percentile:share=3", "no argument 'share'"),
                        ("percentile:percentile=30", "not in (50, 100]"), ("percentile:percentile=high", "is a real"), ("histogram:bins", "lacks NAME")):
        refused = run("quantize", MODEL, "-d", SAMPLES, "--observer", text, "-o", work / "q.onnx", code=1).stderr
        assert words in refused, refused
    assert "--mode static" in run("quantize", MODEL, "--mode", "dynamic", "--observer", "minmax", "-o", work / "q.onnx", code=1).stderr
    (work / "rules.json").write_text("{}")
    assert "exclude each other" in run("quantize", MODEL, "-d", SAMPLES, "--observer", "mse", "--config", work / "rules.json", "-o", work / "q", code=1).stderr
    print("observers: passed")


def noise(work):
    first = run("quantize", MODEL, "-d", "random:12", "-o", work / "a.onnx")
    assert "random:12 is noise" in first.stderr and "12 calibration samples" in first.stdout, first.stderr
    run("quantize", MODEL, "-d", "random:12", "-o", work / "b.onnx")
    run("quantize", MODEL, "-d", "random:12?seed=1", "-o", work / "c.onnx")
    a, b, c = ((work / f"{n}.onnx").read_bytes() for n in "abc")
    assert a == b != c, "the same noise every time, another by seed"
    assert "is noise" in run("calibrate", MODEL, "-d", "random:20", "-o", work / "n.qcal").stderr
    assert "is noise" in run("quantize", MODEL, "-d", SAMPLES, "--check", "random:3", "-o", work / "a.onnx").stderr
    for text in ("random:0", "random:-1", "random:x", "random:", "random:3?mean=1"):
        run("calibrate", MODEL, "-d", text, "-o", work / "n.qcal", code=1)
    print("noise: passed")


def force(work):
    (work / "small.qir").write_text(SMALL)
    args = (work / "small.qir", "-d", "random:20", "-o", work / "q.qir")
    rows, _ = coverage(*args)
    row = next(iter(rows.values()))
    assert not row["int8"] and "too little work" in row["reason"] and row["rule"] == {"name": row["node"], "qconfig": "default", "force": True}, row
    text = run("quantize", *args)
    assert '{"force":true,"name":"' in text.stdout and "a rule makes them integers" in text.stdout, text.stdout
    assert "no op of this model becomes int8" in run("calibrate", work / "small.qir", "-d", "random:20", "-o", work / "s.qcal").stderr
    (work / "force.json").write_text(json.dumps({"rules": [row["rule"]]}))
    rows, report = coverage(*args, "--config", work / "force.json")
    forced = rows[row["node"]]
    assert forced["int8"] and forced["rule"] is None and report["layers"][-1]["sqnr_db"] > 20, report
    run("quantize", *args, "--config", work / "force.json", "--write-rules", work / "written.json")
    written = json.loads((work / "written.json").read_text())["rules"]
    assert [rule.get("force") for rule in written if rule.get("name") == row["node"]] == [True], written
    print("force: passed")


def recipes(work):
    """Recipes by flags, by rules and by the rules that were written give the same files; a flag comes before the rules."""
    rows = recipe_rows()
    assert all({r["default"], r["off"]} <= set(r["choices"]) for r in rows), rows
    data = (MODEL, "-d", SAMPLES)
    def written(tag, *flags):
        out = run("quantize", *data, *flags, "--json", "-o", work / f"{tag}.onnx", "--write-rules", work / f"{tag}.json")
        rules = json.loads((work / f"{tag}.json").read_text())
        assert json.loads(out.stdout)["rules"]["recipes"] == rules["recipes"]
        return (work / f"{tag}.onnx").read_bytes(), rules["recipes"]
    default, choices = written("default")
    assert choices == {r["name"]: r["default"] for r in rows}
    plain = {r["name"]: r["off"] for r in rows}
    by_flags, choices = written("flags", *recipes_off())
    assert choices == plain and by_flags != default
    (work / "recipes.json").write_text(json.dumps({"recipes": plain}))
    by_rules, choices = written("rules", "--config", work / "recipes.json")
    assert choices == plain and by_rules == by_flags
    again, choices = written("again", "--config", work / "rules.json")
    assert choices == plain and again == by_flags
    mixed, choices = written("mixed", "--config", work / "recipes.json", *(word for r in rows for word in (f"--{r['name']}", r["default"])))
    assert choices == {r["name"]: r["default"] for r in rows} and mixed == default
    for wrong, words in (({"equalise": "off"}, "did you mean 'equalize'"), ({"equalize": "maybe"}, "choose on or off"), ({"equalize": False}, "recipes"), ("off", "recipes")):
        (work / "wrong.json").write_text(json.dumps({"recipes": wrong}))
        assert words in run("quantize", *data, "--config", work / "wrong.json", "-o", work / "q.onnx", code=1).stderr, wrong
    # What needs a recipe has no effect where the rules turn all of them off.
    assert "no effect" in run("quantize", *data, "--config", work / "recipes.json", "--recovery-samples", "3", "-o", work / "q.onnx", code=1).stderr
    print("recipes: passed")


def bits(work):
    """--weight-bits comes before the global rule, whichever has more; rules of a file that a later one replaces are named."""
    for name, dtype in (("w4", "s4"), ("w8", "s8")):
        (work / f"{name}.json").write_text(json.dumps({"global": {"weight": {"dtype": dtype}}}))
    for config, flag, found in (("w4", [], "s4"), ("w4", ["--weight-bits", 8], "s8"), ("w8", ["--weight-bits", 4], "s4"), ("w8", [], "s8")):
        run("quantize", MODEL, "-d", SAMPLES, "--config", work / f"{config}.json", *flag, "-o", work / "q.onnx")
        weights = json.loads(run("inspect", work / "q.onnx", "--json").stdout)["weights"]
        assert set(weights) == {found}, (config, flag, weights)
    (work / "float.json").write_text('{"global": "float", "rules": [{"object_type": "conv", "qconfig": "default"}]}')
    said = run("quantize", MODEL, "-d", SAMPLES, "--config", work / "float.json", "--weight-bits", 4, "-o", work / "q.onnx", code=1).stderr
    assert "the global rule leaves weights in float" in said, said
    for key in ({"object_type": "conv"}, {"name": "/a/a.0/Conv"}, {"name_regex": "/a/.*"}, {"name": "/a/a.0", "object_type": "Conv", "order": 0},
                {"from": "image", "to": "scores"}):
        (work / "twice.json").write_text(json.dumps({"rules": [{**key, "qconfig": "float"}, {**key, "qconfig": "default", "force": True}]}))
        said = run("quantize", MODEL, "-d", SAMPLES, "--config", work / "twice.json", "-o", work / "q.onnx").stderr
        assert "stands in the rules more than once" in said, (key, said)
    # Backends bring rules along, which one replaces without a word.
    (work / "once.json").write_text('{"backend": "fbgemm", "rules": [{"object_type": "conv_transpose", "qconfig": "float", "optional": true}]}')
    assert "more than once" not in run("quantize", MODEL, "-d", SAMPLES, "--config", work / "once.json", "-o", work / "q.onnx").stderr
    print("bits: passed")


def words(work):
    """Activations of 16 bits: the same layers as integers, on the kernels of machine code, nearer to the float model."""
    rules = work / "words.json"
    nearness = {}
    for dtype in ("u8", "u16", "s16"):
        rules.write_text(json.dumps({"global": {"activation": {"dtype": dtype}}}))
        rows, report = coverage(MODEL, "-d", SAMPLES, "--config", rules, "-o", work / f"{dtype}.onnx")
        assert all(r["int8"] for r in rows.values() if r["op"] in ("conv", "linear")), [r for r in rows.values() if not r["int8"]]
        nearness[dtype] = next(layer["sqnr_db"] for layer in report["layers"] if layer["op"] == "output")
        steps = json.loads(run("profile", work / f"{dtype}.onnx", "--json").stdout)["layers"]
        assert not any(s["kernel"] == "reference" for s in steps), steps
        assert dtype == "u8" or any("s16" in s["kernel"] for s in steps), steps
    assert nearness["u16"] > nearness["u8"] + 3 and nearness["s16"] > nearness["u8"] + 3, nearness
    reason = next(r["reason"] for r in rows.values() if r["op"] == "reduce_mean")
    assert "s16 activations" in reason, reason
    print("words: passed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        tables(work)
        observers(work)
        noise(work)
        force(work)
        recipes(work)
        bits(work)
        words(work)


main()
