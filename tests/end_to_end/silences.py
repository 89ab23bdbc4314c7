#!/usr/bin/env python3
"""What is left out or comes out otherwise than a user may think is said.

    silences.py QCOMPILE DATA_DIR

Standard library only.
"""
import pathlib
import tempfile

from command_line import DATA, run

MODEL = DATA / "digits.onnx"
SAMPLES = f"images:{DATA}/calib?order=grey&mean=0&std=255"


def nothing_quantized(work):
    rules = work / "float.json"
    rules.write_text('{"global": "float"}')
    done = run("quantize", MODEL, "-d", SAMPLES, "--config", rules, "-o", work / "x.onnx")
    assert "no op was quantized" in done.stderr, done.stderr


def required(work):
    out = work / "required.onnx"
    run("quantize", MODEL, "-d", SAMPLES, "--require-int8", "100%", "--require-int8", "/Conv|/Gemm|a.0", "-o", out)
    out.unlink()
    rules = work / "some.json"
    rules.write_text('{"global": "float"}')
    for text, word in (("0.5", "15 of 15 ops stay float"), ("90%", "stay float"), ("/a/a.0/Conv", "1 of 1 ops stays float"),
                       ("nowhere", "no node has such a name"), ("(", "regular expression")):
        done = run("quantize", MODEL, "-d", SAMPLES, "--config", rules, "--require-int8", text, "-o", out, code=1)
        assert word in done.stderr, done.stderr
        assert not out.exists(), "nothing is written"


def ranges_alone(work):
    run("calibrate", MODEL, "-d", SAMPLES, "-o", work / "r.qcal")
    done = run("quantize", MODEL, "--ranges", work / "r.qcal", "-o", work / "r.onnx")
    assert "biases are not corrected and nothing is measured" in done.stdout and "-d SOURCE" in done.stdout, done.stdout
    assert "biases are not corrected" not in run("quantize", MODEL, "--ranges", work / "r.qcal", "-d", SAMPLES, "-o", work / "r.onnx").stdout


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for test in (nothing_quantized, required, ranges_alone):
            test(work)
            print(f"{test.__name__}: passed")


if __name__ == "__main__":
    main()
