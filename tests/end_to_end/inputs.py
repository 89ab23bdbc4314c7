#!/usr/bin/env python3
"""How samples are prepared and what a model is fed is told by every verb that takes samples, and what cannot be meant is warned of.

    inputs.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import random
import re
import struct
import tempfile

from command_line import DATA, npy_header, run, write_npy

MODEL = DATA / "digits.onnx"  # grey 16 x 16, std=255, a BatchNorm behind the first layer
CALIB = f"images:{DATA}/calib?order=grey"

NORMED = """const #w : f32[4,{c},3,3] = rand(7, -0.6, 0.6)
const #one : f32[4] = splat 1.0
const #zero : f32[4] = splat 0.0
const #mean : f32[4] = splat {mean}
const #var : f32[4] = splat {var}
graph @g(%image: f32[1,{c},8,8]) -> ("y") {{
  %w = const #w : f32[4,{c},3,3]
  %one = const #one : f32[4]
  %zero = const #zero : f32[4]
  %mean = const #mean : f32[4]
  %var = const #var : f32[4]
  %0 = conv %image, %w {{pads=[1,1,1,1]}} : f32[1,4,8,8]
  %1 = relu %0 : f32[1,4,8,8]
  %y = batch_norm %{normed}, %one, %zero, %mean, %var : f32[1,4,8,8]
  return %y
}}
"""


def warnings(done):
    return [line for line in done.stderr.splitlines() if line.startswith("warning: ") and ("npy:" in line or "images:" in line or "npz:" in line)]


def report(*args):
    return json.loads(run(*args, "--json").stdout)["fed"]


def told(work):
    """Settings and ranges, in text and JSON, of quantize, calibrate and eval; nothing is warned of where they are right."""
    good = f"{CALIB}&mean=0&std=255"
    for args in (("quantize", MODEL, "-d", good, "-o", work / "q.onnx"), ("calibrate", MODEL, "-d", good, "-o", work / "r.qcal"),
                 ("eval", MODEL, "-d", good, "--predictions", work / "p"), ("eval", work / "q.onnx", "-d", good, "--predictions", work / "p"),
                 ("quantize", MODEL, "-d", good, "--ranges", work / "r.qcal", "-o", work / "q2.onnx")):
        done = run(*args)
        assert not warnings(done), done.stderr
        line = next(x for x in done.stdout.splitlines() if x.startswith("samples "))
        assert f"samples images:{DATA}/calib: order=grey" in line and "mean=0, std=255, layout=nchw" in line and "size=16x16" in line, line
        assert re.search(r"input 'image' as fed: 0 to 1, mean 0\.\d+ \(\d+ of \d+ samples\)", done.stdout), done.stdout
        fed = report(*args)
        assert fed["warnings"] == [] and fed["sources"][0]["settings"]["std"] == "255", fed
        assert fed["sources"][0]["inputs"][0]["max"] == 1 and fed["sources"][0]["inputs"][0]["name"] == "image", fed
    fed = report("quantize", MODEL, "-d", good, "--check", f"npy:{DATA}/test.npy?std=255", "-o", work / "q3.onnx")
    assert [s["source"].split(":")[0] for s in fed["sources"]] == ["images", "npy"], fed


def units(work):
    """mean and std of the other unit; each with what to say in its place."""
    for text, remedy in (("mean=0.5&std=0.5", "mean=127.5&std=127.5"), ("std=0.3", "std=76.5"), ("mean=0.4", "mean=102"), ("mean=0.1&std=255", "mean=25.5"),
                         ("mean=100&std=0.25", "std=63.75")):
        for args in (("eval", MODEL, "-d", f"{CALIB}&{text}", "--predictions", work / "p"), ("calibrate", MODEL, "-d", f"{CALIB}&{text}", "-o", work / "u.qcal"),
                     ("eval", MODEL, "-d", f"npy:{DATA}/test.npy?{text}", "--predictions", work / "p")):
            said = warnings(run(*args))
            assert len(said) == 1 and "in units of 0 to 1" in said[0] and said[0].endswith(f"say {remedy}"), (text, said)
    random.seed(3)
    write_npy(work / "small.npy", (20, 1, 16, 16), [random.random() for _ in range(20 * 256)])
    for text, remedy in (("mean=127.5&std=127.5", "mean=0.5&std=0.5"), ("std=255", "std=1"), ("mean=102", "mean=0.4")):
        said = warnings(run("eval", MODEL, "-d", f"npy:{work}/small.npy?{text}", "--predictions", work / "p"))
        assert len(said) == 1 and "in units of 0 to 255" in said[0] and said[0].endswith(f"say {remedy}"), (text, said)
    assert not warnings(run("eval", MODEL, "-d", f"npy:{work}/small.npy?mean=0.1&std=0.8", "--predictions", work / "p"))


def first_layer(work):
    """What the first BatchNorm was trained with, directly behind a layer or behind its activation, or on the input itself."""
    said = warnings(run("eval", MODEL, "-d", CALIB, "--predictions", work / "p"))
    assert len(said) == 1 and "BatchNorm '/stem/stem.1/BatchNormalization'" in said[0] and "give the source the mean= and std=" in said[0], said
    assert "BatchNorm" in "".join(warnings(run("quantize", MODEL, "-d", CALIB, "-o", work / "q.onnx")))
    random.seed(5)
    values = [random.gauss(0, 1) for _ in range(16 * 3 * 64)]
    for name, change in (("right", lambda v: v), ("pixels", lambda v: v * 58 + 123), ("tiny", lambda v: v / 58), ("off", lambda v: v + 9), ("nan", lambda v: v)):
        shape = (16, 3, 8, 8)
        data = [change(v) for v in values]
        if name == "nan":
            data[5] = float("nan")
        write_npy(work / f"{name}.npy", shape, data)
    for normed, mean, var in ((0, 0, 3.0), (1, 0.7, 1.1)):
        (work / "m.qir").write_text(NORMED.format(c=3, mean=float(mean), var=var, normed=normed))
        for name, word in (("right", None), ("pixels", "times the spread"), ("tiny", "1/"), ("off", "BatchNorm"), ("nan", "1 of 3072 values are not finite")):
            said = warnings(run("calibrate", work / "m.qir", "-d", f"npy:{work}/{name}.npy", "-o", work / "m.qcal"))
            assert (not said) if word is None else any(word in s for s in said), (normed, name, said)
    said = warnings(run("calibrate", work / "m.qir", "-d", f"npy:{work}/pixels.npy", "-d", f"npy:{work}/right.npy", "-o", work / "m.qcal"))
    assert len(said) == 1 and "pixels.npy" in said[0], "each source by itself"


def biases(work):
    """Without a norm, biases that are nothing beside the results of the first layer, where pixels are fed as they are."""
    for bias, fires in ((0.5, True), (40.0, False)):
        (work / "b.qir").write_text(f"""const #w : f32[4,1,3,3] = rand(7, -0.6, 0.6)
const #b : f32[4] = splat {bias}
graph @g(%image: f32[1,1,16,16]) -> ("y") {{
  %w = const #w : f32[4,1,3,3]
  %b = const #b : f32[4]
  %y = conv %image, %w, %b {{pads=[1,1,1,1]}} : f32[1,4,16,16]
  return %y
}}
""")
        said = warnings(run("calibrate", work / "b.qir", "-d", CALIB, "-o", work / "b.qcal"))
        assert len(said) == fires and (not fires or "nothing beside it: the pixels are fed as 0 to 255" in said[0]), (bias, said)
        assert not warnings(run("calibrate", work / "b.qir", "-d", f"{CALIB}&std=255", "-o", work / "b.qcal"))


def calibrated(work):
    """Against a ranges file, and against the range of an int8 file's input."""
    good = f"{CALIB}&std=255"
    run("calibrate", MODEL, "-d", good, "-o", work / "r.qcal")
    run("quantize", MODEL, "-d", good, "-o", work / "q.onnx")
    for text, unlike in (("std=25", "0 to 10.2"), ("std=2550", "0 to 0.1"), ("mean=2550&std=255", "-10 to -9")):
        said = warnings(run("quantize", MODEL, "-d", f"{CALIB}&{text}", "--ranges", work / "r.qcal", "-o", work / "x.onnx"))
        assert any(f"it is {unlike}, and was 0 to 1 when the ranges were calibrated" in s for s in said), said
        said = warnings(run("eval", work / "q.onnx", "-d", f"{CALIB}&{text}", "--predictions", work / "p"))
        assert any("of this model's [" in s or "lie outside [" in s for s in said), said
        said = warnings(run("run", work / "q.onnx", "-d", f"{CALIB}&{text}&limit=9", "--output-dir", work))
        assert any("of this model's [" in s or "lie outside [" in s for s in said), said
    run("calibrate", MODEL, "-d", good, "--shard", "0/2", "-o", work / "a.qcal")
    run("calibrate", MODEL, "-d", good, "--shard", "1/2", "-o", work / "b.qcal")
    run("merge", work / "a.qcal", work / "b.qcal", "-o", work / "ab.qcal")
    assert (work / "ab.qcal").read_bytes() == (work / "r.qcal").read_bytes()
    # One dark sample is no evidence.
    dark = work / "dark.npy"
    dark.write_bytes(npy_header((1, 1, 16, 16)) + struct.pack("<256f", *([0.01] * 256)))
    assert not [s for s in warnings(run("eval", work / "q.onnx", "-d", f"npy:{dark}", "--predictions", work / "p")) if "step" in s]


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for test in (told, units, first_layer, biases, calibrated):
            test(work)
            print(f"{test.__name__}: passed")


main()
