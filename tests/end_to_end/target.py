#!/usr/bin/env python3
"""quantize to a target: met on samples that calibration has not seen, told step by step, and given again by the rules that are written.

    target.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import sys
import tempfile

from command_line import DATA, run

CALIBRATION = f"images:{DATA}/calib?order=grey&std=255"


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        model, out = DATA / "digits.onnx", work / "q.onnx"
        args = ["quantize", model, "-d", CALIBRATION, "-o", out, "--json"]
        plain = json.loads(run(*args).stdout)
        before = [row["sqnr_db"] for row in plain["layers"] if row["op"] == "output"][0]
        assert "target" not in plain

        wanted = before + 2.5
        rules = work / "rules.json"
        found = json.loads(run(*args, "--target-sqnr", wanted, "--write-rules", rules).stdout)
        target = found["target"]
        assert not target["path"][0]["met"] and target["path"][0]["step"] == "all int8", target["path"]
        assert target["chosen"]["met"] and target["chosen"]["sqnr_db"] >= wanted, target["chosen"]
        # One of two layers in float goes back to int8: that is what was measured as the first of them.
        several = json.loads(run(*args, "--target-sqnr", before + 1).stdout)["target"]["path"]
        for path in (target["path"], several):
            kinds = [(s["changed"], s["sqnr_db"]) for s in path]
            assert len(set(kinds)) == len(kinds), path
        after = [row["sqnr_db"] for row in found["layers"] if row["op"] == "output"][0]
        assert abs(after - target["chosen"]["sqnr_db"]) < 0.01, (after, target["chosen"])  # the file is what was measured
        kept = [row for row in found["coverage"] if row["int8"]]
        assert kept and len(target["layers"]) < len(found["coverage"]), "nothing is left in int8"
        again = json.loads(run(*args, "--config", rules).stdout)
        assert [row["int8"] for row in again["coverage"]] == [row["int8"] for row in found["coverage"]]

        # Weights of few bits go from layer to layer: what one becomes depends on those before it, and still the file is what was measured.
        few = json.loads(run(*args, "--weight-bits", "4").stdout)
        wanted = [row["sqnr_db"] for row in few["layers"] if row["op"] == "output"][0] + 3
        found = json.loads(run(*args, "--weight-bits", "4", "--target-sqnr", wanted).stdout)
        after = [row["sqnr_db"] for row in found["layers"] if row["op"] == "output"][0]
        assert found["target"]["chosen"]["met"] and abs(after - found["target"]["chosen"]["sqnr_db"]) < 0.01, (after, found["target"]["chosen"])

        # Points of a metric, and one of a program of the user's own.
        labelled = ["--check", f"npy:{DATA}/test.npy?std=255", "--labels", DATA / "labels.tsv"]
        drop = json.loads(run(*args, *labelled, "--target-drop", "50").stdout)["target"]
        assert drop["chosen"]["met"] and "drop" in drop["path"][0] and 0 <= drop["float_metric"] <= 1, drop
        program = work / "metric.py"
        program.write_text("import pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\nnames = sorted(p.name for p in folder.iterdir())\n"
                           "assert names == ['samples.tsv', 'scores.npy'], names\n"
                           "print('looking at', len((folder / 'samples.tsv').read_text().splitlines()), 'samples')\nprint(7.5)\n")
        own = json.loads(run(*args, "--metric-command", f"{sys.executable} {program} {{}}", "--target-drop", "0.5").stdout)["target"]
        assert own["float_metric"] == 7.5 and own["chosen"]["drop"] == 0 and own["chosen"]["changed"] == 0, own
        # Whoever waits is told what was measured, one mixture after another.
        program.write_text("import time\ntime.sleep(1.1)\nprint(7.5)\n")
        slow = run(*args, "--metric-command", f"{sys.executable} {program}", "--target-drop", "0.5").stderr
        assert "mixture 1: all int8: " in slow and "0.00 points below float, as asked" in slow, slow
        program.write_text("print('none')\n")
        wrong = run(*args, "--metric-command", f"{sys.executable} {program}", "--target-drop", "0.5", code=1).stderr
        assert "is not a number" in wrong, wrong

        budget = json.loads(run(*args, "--budget-ms", "1000").stdout)["target"]
        assert budget["chosen"]["sqnr_db"] > before and budget["chosen"]["met"], budget["chosen"]
        for flags, text in [(["--budget-ms", "0.00001"], "the int8 model takes"), (["--target-drop", "1"], "give --labels FILE"),
                            (["--budget-ms", "1", "--target-sqnr", "3"], "exclude each other"), (["--labels", DATA / "labels.tsv"], "--target-drop"),
                            (["--target-sqnr", "30", "--mode", "dynamic"], "works on calibration samples")]:
            refused = run(*args, *flags, code=1).stderr
            assert text in refused, (flags, refused)
        text = run(*args[:-1], "--target-sqnr", wanted).stdout
        assert "to the target, on" in text and "chosen:" in text, text
    print("passed")


main()
