#!/usr/bin/env python3
"""The main job on the small model of the quick start, through the command line alone.

    digits.py QCOMPILE DATA_DIR [MODELS_DIR]

Checks that int8 loses at most one point of accuracy, that the quantized file loads again, that the interpreter and every target this
machine can run give the same bytes at one and two threads, and that mistakes are answered with an error and the documented exit code.
Standard library only.
"""
import json
import pathlib
import sys
import tempfile

from command_line import DATA, present_targets, recipes_off, run, write_sample

SAMPLES = f"npy:{DATA}/test.npy?mean=0&std=255"


def top1(model):
    return json.loads(run("eval", model, "-d", SAMPLES, "--labels", DATA / "labels.tsv", "--json").stdout)


def same_bits(model, work, targets):
    differing = []
    for index in range(3):
        sample = work / f"{index}.npy"
        write_sample(sample, index)
        runs = {"interpreter": ["--engine", "interpreter"]}
        runs |= {f"{t} {n} thread(s)": ["--target", t, "--threads", str(n)] for t in targets for n in (1, 2)}
        results = {}
        for name, options in runs.items():
            out = work / name.replace(" ", "_")
            run("run", model, "--input", f"image={sample}", "--output-dir", out, *options)
            results[name] = (out / "scores.npy").read_bytes()
        differing += [f"{model.name} sample {index}: {n}" for n, r in results.items() if r != results["interpreter"]]
    if differing:
        sys.exit("not the interpreter's bytes: " + ", ".join(differing))


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        int8 = work / "digits.int8.onnx"
        calib = f"images:{DATA}/calib?order=grey&mean=0&std=255"
        report = json.loads(run("quantize", DATA / "digits.onnx", "-d", calib, "-o", int8, "--json").stdout)
        assert report["samples"] == 60 and all(row["int8"] for row in report["coverage"]), report
        exact, quantized = top1(DATA / "digits.onnx"), top1(int8)
        print("float", exact, "int8", quantized)
        assert exact["top1"] > 0.98 and quantized["top1"] >= exact["top1"] - 0.01
        assert int8.stat().st_size < (DATA / "digits.onnx").stat().st_size / 2

        # The rules that were applied, as a file, do the same again, in every mode.
        for mode, data in (("static", ["-d", calib]), ("dynamic", []), ("weight-only", []), ("fp16-weights", [])):
            first, second, rules = work / "first.onnx", work / "second.onnx", work / "rules.json"
            run("quantize", DATA / "digits.onnx", *data, "--mode", mode, "-o", first, "--write-rules", rules)
            run("quantize", DATA / "digits.onnx", *data, "--config", rules, "-o", second)
            assert first.read_bytes() == second.read_bytes(), f"{mode}: the rules that were written give another model"

        # Saved ranges hold nothing that needs the samples themselves.
        plain = work / "plain.onnx"
        run("quantize", DATA / "digits.onnx", "-d", calib, "-o", plain, *recipes_off())
        ranges = work / "digits.qcal"
        run("calibrate", DATA / "digits.onnx", "-d", calib, "-o", ranges)
        again = work / "again.onnx"
        run("quantize", DATA / "digits.onnx", "--ranges", ranges, "-o", again)
        assert again.read_bytes() == plain.read_bytes(), "saved ranges give another model"

        targets = present_targets()
        same_bits(int8, work, targets)
        same_bits(DATA / "digits.onnx", work, targets)

        # Mistakes.
        assert "help" in run("quantize", DATA / "digits.onnx", "-o", work / "x.onnx", code=1).stderr
        assert "no JPEG or PNG" in run("quantize", DATA / "digits.onnx", "-d", f"images:{work}", "-o", work / "x.onnx", code=1).stderr
        assert not (work / "x.onnx").exists()
        run("quantize", int8, "-d", calib, "-o", work / "x.onnx", code=1)
        run("eval", work / "none.onnx", "-d", SAMPLES, "--labels", DATA / "labels.tsv", code=1)
        run("bench", DATA / "digits.onnx", "--shape", "image=1x2", code=1)
        run("frobnicate", code=2)
        damaged = work / "damaged.onnx"
        damaged.write_bytes((DATA / "digits.onnx").read_bytes()[:5000])
        assert "no ONNX model" in run("inspect", damaged, code=1).stderr
    print("1 passed, 0 failed")


main()
