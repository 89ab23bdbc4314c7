#!/usr/bin/env python3
"""Integers beside float: `quantize --never-slower`, `bench --compare`, `profile --compare`, `--predict` and targets that are not here.

    ledger.py QCOMPILE DATA_DIR

What is decided is decided by the cost model of a named target, so that nothing here depends on a clock.  Standard library only.
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
        model, plain, out, again = DATA / "digits.onnx", work / "plain.onnx", work / "q.onnx", work / "again.onnx"
        args = ["quantize", model, "-d", CALIBRATION, "--json", "-o"]
        assert "ledger" not in json.loads(run(*args, plain).stdout)

        for target in ("avx2", "avx512vnni", "aarch64+dotprod"):
            rules = work / "rules.json"
            report = json.loads(run(*args, out, "--never-slower", "--target", target, "--write-rules", rules).stdout)
            ledger = report["ledger"]
            assert not ledger["measured"] and ledger["regions"], ledger
            assert ledger["ms"] <= ledger["float_ms"] * 1.02 and ledger["ms"] <= ledger["int8_ms"] * 1.02, ledger
            for row in ledger["regions"]:
                assert abs(row["gain_ms"] - (row["float_ms"] - row["int8_ms"])) < 1e-9 and row["reason"] and row["nodes"], row
                if row["became"] == "int8":
                    assert row["gain_ms"] > 0, row
            quantized = {row["node"]: row["int8"] for row in report["coverage"]}
            assert not any(quantized.get(node) for node in ledger["made_float"]), ledger["made_float"]
            # The same once more, and by the rules alone: to the byte.
            run(*args, again, "--never-slower", "--target", target)
            assert again.read_bytes() == out.read_bytes(), target
            run(*args, again, "--config", rules)
            assert again.read_bytes() == out.read_bytes(), target
            if not ledger["made_float"]:
                assert out.read_bytes() == plain.read_bytes(), target

        kept = json.loads(run(*args, out, "--never-slower", "--keep-int8", ".").stdout)["ledger"]
        assert kept["measured"] and kept["made_float"] == [] and out.read_bytes() == plain.read_bytes(), kept
        text = run(*args[:-2], "-o", out, "--never-slower").stdout
        assert "regions of integers beside float, measured" in text and "chosen:" in text, text

        for flags, wanted in [(["--keep-int8", "x"], "--never-slower"), (["--target", "avx2"], "--never-slower"),
                              (["--never-slower", "--keep-int8", "nowhere"], "'nowhere'"), (["--never-slower", "--target", "pentium"], "pentium"),
                              (["--never-slower", "--mode", "dynamic"], "calibration samples"), (["--never-slower", "--target-sqnr", "9"], "excludes")]:
            refused = run(*args, out, *flags, code=1).stderr
            assert wanted in refused, (flags, refused)

        short = ["--seconds", "0.01", "--json"]
        for other, wanted in [("float", "float"), (model, str(model))]:
            beside = json.loads(run("bench", plain, "--compare", other, *short).stdout)
            names = [m["model"] for m in beside["models"]]
            assert names == ["plain", wanted] and beside["iterations"] >= 10 and beside["ratio_min"] > 0, beside
            for m in beside["models"]:
                assert 0 < m["min_ms"] <= m["p50_ms"] <= m["p90_ms"] <= m["p99_ms"] and m["runs_per_s"] > 0, m
        assert "times as long as float" in run("bench", plain, "--compare", "float", "--seconds", "0.01").stdout
        assert "holds no integers" in run("bench", model, "--compare", "float", code=1).stderr

        measured = json.loads(run("profile", plain, "--compare", "float", "--runs", "3", "--json").stdout)
        assert not measured["predicted"] and all(row["us"] >= 0 for row in measured["layers"]) and measured["other_total_us"] > 0
        for target in ("amx-int8", "aarch64+dotprod", "avx512vnni"):
            there = json.loads(run("profile", plain, "--predict", "--target", target, "--json").stdout)
            assert there["predicted"] and there["total_us"] > 0 and there["other_total_us"] > 0 and target.split("+")[-1] in there["target"], there
            assert there["model"]["kernel_error"] >= 0 and there["model"]["origins"], there
            assert [row["layer"] for row in there["layers"]] and all(row["loses"] == (row["us"] > row["other_us"]) for row in there["layers"])
        there = run("profile", plain, "--target", "aarch64+dotprod").stdout
        assert "predicted for aarch64" in there and "layers lose" in there, there
        for how in (["--compare", "float"], ["--predict"], ["--predict", "--target", "aarch64+dotprod"]):
            run("profile", plain, *how, "--runs" if "--predict" not in how else "--threads", "2", "--report", work / "r.html")
            page = (work / "r.html").read_text()
            assert 'id="beside"' in page and "layers lose" in page, how
        assert "no effect" in run("profile", plain, "--target", "aarch64", "--runs", "3", code=1).stderr
        alone = json.loads(run("profile", model, "--predict", "--json").stdout)
        assert alone["predicted"] and "compared_with" not in alone and alone["layers"], alone
    print("passed")


main()
