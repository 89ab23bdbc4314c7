#!/usr/bin/env python3
"""What models begin and end in, in every verb that holds two of them against each other: figures of one thing are the same in all.

    ends.py QCOMPILE DATA_DIR

Outputs in another order, answers without scores, halves, values that are no numbers, sizes that data decides, inputs of no elements.  Standard
library only.
"""
import json
import math
import pathlib
import random
import re
import struct
import tempfile
import zipfile

import onnx_bytes
from command_line import npy_header, run
from onnx_bytes import integer, node, port, tensor

CLASSES, WIDTH = 6, 16
LAYERS = [node("MatMul", ["x", "w"], ["m"], name="first"), node("Relu", ["m"], ["r"], name="act"), node("MatMul", ["r", "v"], ["s"], name="second")]
HALF, INT64 = 10, 7


def drawn(seed, count, scale=0.4):
    rng = random.Random(seed)
    return [rng.gauss(0, scale) for _ in range(count)]


WEIGHTS = [tensor("w", [8, WIDTH], drawn(1, 8 * WIDTH)), tensor("v", [WIDTH, CLASSES], drawn(2, WIDTH * CLASSES))]


def write(work, name, nodes, outputs, inputs=None, weights=WEIGHTS):
    path = work / f"{name}.onnx"
    path.write_bytes(onnx_bytes.model([*LAYERS, *nodes], inputs or [port("x", 1, 8)], outputs, weights))
    return path


def samples(work, name, **arrays):
    """arrays: (shape, values)."""
    path = work / f"{name}.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key, (shape, values) in arrays.items():
            archive.writestr(f"{key}.npy", npy_header(shape) + struct.pack(f"<{len(values)}f", *values))
    return f"npz:{path}"


def told(verb, *args):
    return json.loads(run(verb, *args, "--json").stdout)


def of_outputs(report):
    return {row["layer"]: row["outputs"] for row in report["model_outputs"]}


def other_order(work):
    """By name where the names are the same."""
    more = [node("MatMul", ["r", "u"], ["a"], name="aside")]
    weights = [*WEIGHTS, tensor("u", [WIDTH, 4], drawn(3, WIDTH * 4))]
    ends = [port("s", 1, CLASSES), port("a", 1, 4)]
    model, turned = write(work, "two", more, ends, weights=weights), write(work, "turned", more, ends[::-1], weights=weights)
    data = ("-d", samples(work, "x", x=((24, 1, 8), drawn(4, 24 * 8, 1))))
    report = told("debug", model, turned, *data)
    assert of_outputs(report) == {"s": 120, "a": 120} and all(r["outputs"] == 120 for r in report["layers"]), report
    assert {o["output"]: o["sqnr"] for o in told("compare", model, turned, *data)["outputs"]} == {"s": 120, "a": 120}
    run("quantize", model, *data, "-o", work / "two.q.onnx")
    run("quantize", turned, *data, "-o", work / "turned.q.onnx")
    want = told("explain", model, work / "two.q.onnx", *data)["given_db"]
    assert want > 10 and abs(told("explain", model, work / "turned.q.onnx", *data)["given_db"] - want) < 0.01, want


def answers_alone(work):
    """Integers have no noise: it is measured in front of them, as where the scores are an output."""
    data = ("-d", samples(work, "x", x=((24, 1, 8), drawn(4, 24 * 8, 1))))
    scores = write(work, "scores", [], [port("s", 1, CLASSES)])
    for name, ends in (("label", [port("y", 1, dtype=INT64)]), ("both", [port("s", 1, CLASSES), port("y", 1, dtype=INT64)])):
        model = write(work, name, [node("ArgMax", ["s"], ["y"], integer("axis", 1), integer("keepdims", 0))], ends)
        for verb, key in (("explain", "int8_db"), ("sensitivity", "all_int8_db")):
            want, is_ = told(verb, scores, *data)[key], told(verb, model, *data)[key]
            assert 10 < want < 70 and abs(want - is_) < 1, (name, verb, want, is_)
        noise = [row for row in told("quantize", model, *data, "-o", work / "l.q.onnx")["layers"] if row["op"] == "output"]
        assert len(noise) == 1 and 10 < noise[0]["sqnr_db"] < 70, noise
        path = told("quantize", model, *data, "--target-sqnr", "100", "-o", work / "t.onnx")["target"]["path"]
        assert not path[0]["met"] and path[0]["sqnr_db"] < 70, path
    # The answer is right or wrong, with eval, compare and a target alike; and the same as of the scores.
    label = work / "label.onnx"
    labels = work / "labels.tsv"
    labels.write_text("".join(f"{i}\t{i % CLASSES}\n" for i in range(24)))
    top1 = told("eval", scores, *data, "--labels", labels)["top1"]
    assert told("eval", label, *data, "--labels", labels)["top1"] == top1
    both = told("compare", label, label, *data, "--labels", labels)["answers"]
    assert both["top1"]["a"] == round(top1 * 24) and both["agreed"] == 24, both
    run("eval", label, *data, "--labels", labels, "--predictions", work / "p.csv")
    lines = (work / "p.csv").read_text().split()
    assert lines[1].endswith(",") and [line.split(",")[1] for line in lines[1:]] == [str(d) for d in answers_of(work, scores, data)], lines
    run("quantize", label, *data, "--labels", labels, "--target-drop", "10", "-o", work / "t.onnx")
    assert "one answer, not scores" in run("eval", label, *data, "--labels", labels, "--metric", "top5", code=1).stderr
    one = write(work, "one", [node("ReduceMean", ["s"], ["y"], integer("keepdims", 0))], [port("y")])
    assert "no score for each class" in run("eval", one, *data, "--labels", labels, code=1).stderr


def answers_of(work, model, data):
    run("eval", model, *data, "--predictions", work / "scores.csv")
    return [int(line.split(",")[1]) for line in (work / "scores.csv").read_text().split()[1:]]


def halves(work):
    """A file in halves beside the one in floats, and a model that takes and gives halves."""
    cast = lambda x, y, to: node("Cast", [x], [y], integer("to", to))
    plain = write(work, "plain", [], [port("s", 1, CLASSES)])
    whole = work / "halves.onnx"
    whole.write_bytes(onnx_bytes.model([cast("h", "x", 1), *LAYERS, cast("s", "y", HALF)], [port("h", 1, 8, dtype=HALF)], [port("y", 1, CLASSES, dtype=HALF)], WEIGHTS))
    data = ("-d", samples(work, "h", h=((24, 1, 8), drawn(4, 24 * 8, 1))))
    run("quantize", whole, *data, "-o", work / "halves.q.onnx")
    report = told("debug", whole, work / "halves.q.onnx", *data)
    assert 10 < of_outputs(report)["y"] < 70 and not report["notes"], report
    assert 10 < told("explain", whole, *data)["int8_db"] < 70
    # Floats of one kind are fed as those of the other.
    ends = work / "ends.onnx"
    ends.write_bytes(onnx_bytes.model([cast("x", "f", 1), node("MatMul", ["f", "w"], ["m"], name="first"), *LAYERS[1:]], [port("x", 1, 8, dtype=HALF)],
                                      [port("s", 1, CLASSES)], WEIGHTS))
    data = ("-d", samples(work, "x", x=((24, 1, 8), drawn(4, 24 * 8, 1))))
    for a, b in ((plain, ends), (ends, plain)):
        assert of_outputs(told("debug", a, b, *data))["s"] > 60
        assert told("compare", a, b, *data)["outputs"][0]["sqnr"] > 60


def no_numbers(work):
    """Where the float model has no number there is nothing to be near to, in any table; where int8 alone has none, all is lost."""
    more = [node("Add", ["s", "mask"], ["y"], name="masked")]
    model = write(work, "masked", more, [port("y", 1, CLASSES)], [port("x", 1, 8), port("mask", 1, CLASSES)])
    mask = [-math.inf if i % 5 == 0 else 0.0 for i in range(24 * CLASSES)]
    data, again = (samples(work, name, x=((24, 1, 8), drawn(4, 24 * 8, 1)), mask=((24, 1, CLASSES), mask)) for name in ("masked", "again"))
    report = told("quantize", model, "-d", data, "--check", again, "--compare-samples", "24", "-o", work / "masked.q.onnx")
    noise = {row["node"]: row["sqnr_db"] for row in report["layers"] if row["op"] == "output"}
    debugged = of_outputs(told("debug", model, work / "masked.q.onnx", "-d", data, "--samples", "24"))
    compared = {o["output"]: o["sqnr"] for o in told("compare", model, work / "masked.q.onnx", "-d", data)["outputs"]}
    explained = told("explain", model, work / "masked.q.onnx", "-d", data, "--check", again, "--compare-samples", "24")["given_db"]
    for other in (debugged["y"], compared["y"], explained):
        assert noise["y"] > 10 and abs(noise["y"] - other) < 0.05, (noise, debugged, compared, explained)


def decided_by_data(work):
    """Another number of results for some samples: these are left out, which is said; what has no counterpart counts as lost where mixtures are judged."""
    more = [node("Greater", ["s", "half"], ["g"]), node("NonZero", ["g"], ["n"]), node("Transpose", ["n"], ["t"]), node("GatherND", ["s", "t"], ["y"])]
    model = write(work, "picked", more, [port("y", "K"), port("s", 1, CLASSES)], weights=[*WEIGHTS, tensor("half", [1], [0.05])])
    data = ("-d", samples(work, "x", x=((200, 1, 8), drawn(4, 200 * 8, 1))))
    run("quantize", model, *data, "--config", rough(work), "-o", work / "picked.q.onnx")
    done = run("compare", model, work / "picked.q.onnx", *data, "--json")
    rows = {o["output"]: o for o in json.loads(done.stdout)["outputs"]}
    unlike = rows["y"]["other_size_on_samples"]
    assert unlike > 0 and rows["s"]["other_size_on_samples"] == 0, rows
    assert f"another number of values for {unlike} of 200 samples" in done.stderr, done.stderr
    report = told("debug", model, work / "picked.q.onnx", *data, "--samples", "200")
    assert any(f"'y': the models give another number of values for {unlike} of 200" in n for n in report["notes"]), report["notes"]
    assert abs(of_outputs(report)["y"] - rows["y"]["sqnr"]) < 0.05
    # eval: no answer in an output without elements.
    nothing = ("-d", samples(work, "zeros", x=((2, 1, 8), [0.0] * 16)))
    assert "there is no answer in it" in run("eval", model, *nothing, "--predictions", work / "p.csv", "--output", "y", code=1).stderr
    told_ = told("compare", model, model, "-d", samples(work, "mixed", x=((3, 1, 8), drawn(4, 16, 1) + [0.0] * 8)), "--output", "s")
    assert told_["answers"]["agreed"] == 3


def rough(work):
    rules = work / "rough.json"
    rules.write_text(json.dumps({"global": {"activation": {"observer": "percentile", "args": {"percentile": 99.0}}}}))
    return rules


def wrong_order(work):
    model = write(work, "m", [], [port("s", 1, CLASSES)])
    data = ("-d", samples(work, "x", x=((24, 1, 8), drawn(4, 24 * 8, 1))))
    run("quantize", model, *data, "-o", work / "m.q.onnx")
    assert any("the float model comes first" in n for n in told("debug", work / "m.q.onnx", model, *data)["notes"])
    assert told("debug", model, work / "m.q.onnx", *data)["notes"] == []
    assert "takes an input 'h' of f16" in run("debug", model, work / "halves.onnx", *data, code=1).stderr


def no_elements(work):
    """A cache that is empty at the first step, and has steps later."""
    nodes = [node("Concat", ["x", "past"], ["c"], integer("axis", 1)), node("MatMul", ["c", "w"], ["m"], name="first"), *LAYERS[1:]]
    model = work / "cache.onnx"
    model.write_bytes(onnx_bytes.model(nodes, [port("x", 1, "T", 8), port("past", 1, "P", 8)], [port("s", 1, "S", CLASSES)], WEIGHTS))
    empty = samples(work, "empty", x=((12, 1, 3, 8), drawn(4, 12 * 24, 1)), past=((12, 1, 0, 8), []))
    some = samples(work, "some", x=((12, 1, 1, 8), drawn(5, 12 * 8, 1)), past=((12, 1, 2, 8), drawn(6, 12 * 16, 1)))
    run("quantize", model, "-d", empty, "-d", some, "-o", work / "cache.q.onnx")
    for data in (("-d", empty), ("-d", empty, "-d", some)):
        report = told("debug", model, work / "cache.q.onnx", *data)
        assert 10 < of_outputs(report)["s"] < 70, report
        assert 10 < told("compare", model, work / "cache.q.onnx", *data)["outputs"][0]["sqnr"] < 70
    nothing = samples(work, "nothing", x=((12, 1, 0, 8), []), past=((12, 1, 0, 8), []))
    assert re.search("holds no elements.*prepare the data again", run("debug", model, model, "-d", nothing, code=1).stderr, re.S)


with tempfile.TemporaryDirectory() as name:
    for test in (other_order, answers_alone, halves, no_numbers, decided_by_data, wrong_order, no_elements):
        test(pathlib.Path(name))
        print(f"{test.__name__}: ok", flush=True)
