#!/usr/bin/env python3
"""Answers of models: predictions as a table, confusions, and two models side by side with McNemar's p.

    answers.py QCOMPILE DATA_DIR

What the tables say is counted again here, from the predictions of either model.  Standard library only.
"""
import collections
import csv
import json
import math
import pathlib
import struct
import tempfile
import zipfile

from command_line import DATA, npy_header, run, write_npy

TEST = ("-d", f"npy:{DATA}/test.npy?std=255")
LABELS = ("--labels", DATA / "labels.tsv")


def exact_p(b, c):
    n = b + c
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n)


def predictions(work, model, name):
    told = json.loads(run("eval", model, *TEST, *LABELS, "--predictions", work / name, "--json").stdout)
    with open(work / name, newline="") as f:
        rows = list(csv.reader(f))
    assert rows[0] == ["sample", "answer", "label", "score"], rows[0]
    rows = rows[1:]
    assert told["samples"] == len(rows)
    assert told["correct"] == sum(r[1] == r[2] for r in rows)
    counts = collections.Counter((int(r[2]), int(r[1])) for r in rows if r[1] != r[2])
    assert {(c["label"], c["answer"]): c["count"] for c in told["confusions"]} == counts, told["confusions"]
    most = [c["count"] for c in told["confusions"]]
    assert most == sorted(most, reverse=True)
    return rows


def compared(work, good, bad):
    mine, theirs = predictions(work, good, "good.csv"), predictions(work, bad, "bad.csv")
    told = json.loads(run("compare", good, bad, *TEST, *LABELS, "--json").stdout)
    answers = told["answers"]
    assert told["samples"] == len(mine) and "largest of the 10 numbers of output 'scores'" in told["compared"]
    differ = [(a[0], int(a[1]), int(b[1]), int(a[2])) for a, b in zip(mine, theirs) if a[1] != b[1]]
    assert differ, "the models of this test answer alike: it would show nothing"
    assert [(d["sample"], d["a"], d["b"], d["label"]) for d in answers["differences"]] == differ
    assert answers["agreed"] == len(mine) - len(differ)
    rows = [(int(a[2]), a[1] == a[2], b[1] == b[2]) for a, b in zip(mine, theirs)]

    def check(counts, of):
        only_a, only_b = sum(a and not b for _, a, b in of), sum(b and not a for _, a, b in of)
        assert (counts["only_a"], counts["only_b"], counts["samples"]) == (only_a, only_b, len(of)), counts
        assert (counts["a"], counts["b"]) == (sum(a for _, a, _ in of), sum(b for _, _, b in of))
        assert math.isclose(counts["p"], exact_p(only_a, only_b), rel_tol=1e-9), (counts, exact_p(only_a, only_b))

    check(answers["top1"], rows)
    for c in answers["classes"]:
        check(c, [r for r in rows if r[0] == c["label"]])
    drops = [c["a"] - c["b"] for c in answers["classes"]]
    assert len(drops) == len({r[0] for r in rows}) and drops == sorted(drops, reverse=True)
    swapped = json.loads(run("compare", bad, good, *TEST, *LABELS, "--json").stdout)["answers"]["top1"]
    assert (swapped["only_a"], swapped["only_b"], swapped["p"]) == (answers["top1"]["only_b"], answers["top1"]["only_a"], answers["top1"]["p"])
    text = run("compare", good, bad, *TEST, *LABELS, "--all").stdout
    assert "McNemar, exact binomial" in text and text.count("test.npy[") == len(differ)


def of_other_kinds(work):
    """What no answer can be read from is compared by its numbers, and that is said."""
    (work / "two.qir").write_text("graph @m(%x: f32[1,4]) -> (\"mean\", \"all\") {\n  %a = reduce_mean %x {axes=[1], keepdims=1} : f32[1,1]\n"
                                  "  %b = relu %x : f32[1,4]\n  return %a, %b\n}\n")
    (work / "one.qir").write_text("graph @m(%x: f32[1,4]) -> (\"mean\") {\n  %a = reduce_mean %x {axes=[1], keepdims=1} : f32[1,1]\n"
                                  "  return %a\n}\n")
    with zipfile.ZipFile(work / "x.npz", "w") as archive:
        archive.writestr("x.npy", npy_header((3, 4)) + struct.pack("<12f", *range(-4, 8)))
    data = ("-d", f"npz:{work}/x.npz")
    two = json.loads(run("compare", work / "two.qir", work / "two.qir", *data, "--json").stdout)
    assert two["answers"]["output"] == "all" and two["answers"]["agreed"] == 3 and "the other 1" in two["compared"], two
    assert [o["output"] for o in two["outputs"]] == ["mean", "all"] and all(o["max_error"] == 0 for o in two["outputs"])
    one = json.loads(run("compare", work / "one.qir", work / "one.qir", *data, "--json").stdout)
    assert "answers" not in one and "numbers are compared, not answers" in one["compared"], one
    assert "outputs" in run("compare", work / "one.qir", work / "two.qir", *data, code=1).stderr
    assert "output 'mean', the first of 2" in run("eval", work / "two.qir", *data, "--predictions", work / "p.csv").stderr
    (work / "other.qir").write_text("graph @m(%z: f32[1,4]) -> (\"mean\") {\n  %a = reduce_mean %z {axes=[1], keepdims=1} : f32[1,1]\n"
                                    "  return %a\n}\n")
    assert "takes an input 'z' of f32" in run("compare", work / "one.qir", work / "other.qir", *data, code=1).stderr


def not_numbers(work):
    """Values that are numbers in one model alone are counted, in either direction: a figure over the numbers does not show them."""
    text = """graph @g(%x: f32[4,8]) -> ("y") {
  %y = BODY : f32[4,8] loc("a\\nb")
  return %y
}
"""
    (work / "log.qir").write_text(text.replace("BODY", "log %x"))
    (work / "abs.qir").write_text(text.replace("BODY", "abs %x"))
    write_npy(work / "x.npy", (3, 4, 8), [(-1 if i == 5 else 1) * (0.5 + i / 100) for i in range(96)])
    for a, b, which in (("log", "abs", "a"), ("abs", "log", "b")):
        done = run("compare", work / f"{a}.qir", work / f"{b}.qir", "-d", f"npy:{work}/x.npy", "--json")
        row = json.loads(done.stdout)["outputs"][0]
        assert row["elements"] == 96 and row["not_finite_in_a_alone"] == (which == "a") and row["not_finite_in_b_alone"] == (which == "b"), row
        assert f"1 of 96 values are NaN or infinite in {which.upper()} alone" in done.stderr, done.stderr
    same = run("compare", work / "log.qir", work / "log.qir", "-d", f"npy:{work}/x.npy")
    assert "NaN" not in same.stderr, same.stderr
    # A name with a line break stays on its line.
    told = run("debug", work / "log.qir", work / "log.qir", "-d", f"npy:{work}/x.npy").stdout
    assert any("NaN first in the first model" in line and "value 'y'" in line for line in told.splitlines()), told


def held_out(work, good, bad):
    """Figures of a quantized model say whether its samples calibrated it; those of a float model need not."""
    others = ("--calibrated", f"npy:{DATA}/test.npy?std=255&limit=5"), ("--calibrated", f"images:{DATA}/calib?order=grey&std=255")
    for verb in (("eval", bad, *TEST, *LABELS), ("compare", good, bad, *TEST, *LABELS)):
        for given, kind, words in (((), "unknown", "whether they calibrated is not known: --calibrated"), (others[0], "in_sample", "in-sample, which flatters: 5"),
                                   (others[1], "held_out", "held out: none")):
            told = json.loads(run(*verb, *given, "--json").stdout)["measured_on"]
            assert told["kind"] == kind and told.get("seen") == (5 if kind == "in_sample" else None), told
            assert words in run(*verb, *given).stdout, (verb, given)
    told = json.loads(run("eval", good, *TEST, *LABELS, "--json").stdout)["measured_on"]
    assert told["kind"] == "float", told
    assert "calibrated" not in run("eval", good, *TEST, *LABELS).stdout
    assert "--calibrated has no effect" in run("eval", good, *TEST, *LABELS, *others[0], code=1).stderr


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        run("quantize", DATA / "digits.onnx", "-d", f"images:{DATA}/calib?order=grey&std=255", "--observer", "percentile:percentile=60",
            "--round-weights", "nearest", "--bias-correction", "off", "-o", work / "bad.onnx")
        compared(work, DATA / "digits.onnx", work / "bad.onnx")
        of_other_kinds(work)
        not_numbers(work)
        held_out(work, DATA / "digits.onnx", work / "bad.onnx")
    print("predictions, confusions and pairs of answers are as counted here")


main()
