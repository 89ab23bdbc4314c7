#!/usr/bin/env python3
"""What is left out or comes out otherwise than a user may think is said.

    silences.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import zipfile

from command_line import DATA, QCOMPILE, run, write_npy

MODEL = DATA / "digits.onnx"
SAMPLES = f"images:{DATA}/calib?order=grey&mean=0&std=255"


def nothing_quantized(work):
    rules = work / "float.json"
    rules.write_text('{"global": "float"}')
    done = run("quantize", MODEL, "-d", SAMPLES, "--config", rules, "-o", work / "x.onnx")
    assert "no op was quantized" in done.stderr, done.stderr


def only_integers(work):
    """A model without floats computes none afterwards."""
    (work / "ints.qir").write_text('graph @g(%x: s32[4]) -> ("y") {\n  %y = add %x, %x : s32[4]\n  return %y\n}\n')
    for mode in (("-d", "random:3"), ("--mode", "dynamic"), ("--mode", "weight-only")):
        said = run("quantize", work / "ints.qir", *mode, "-o", work / "ints.q.qir").stderr
        assert "no op of this model computes on floats" in said and "in float" not in said, said
        assert json.loads(run("quantize", work / "ints.qir", *mode, "-o", work / "ints.q.qir", "--json").stdout)["coverage"] == []


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


def unmeasured(work):
    """Where no noise is told it is said, with what tells it; what flatters is not told either."""
    for mode in ("dynamic", "weight-only", "fp16-weights"):
        out = work / "mode.onnx"
        done = run("quantize", MODEL, "--mode", mode, "-o", out)
        assert f"qcompile debug {MODEL} {out} -d SOURCE" in done.stdout, done.stdout
        json.loads(run("debug", MODEL, out, "-d", SAMPLES, "--samples", "2", "--json").stdout)
    done = run("quantize", MODEL, "--ranges", work / "r.qcal", "-d", SAMPLES, "-o", work / "r.onnx")
    assert "equalize is left out" in done.stdout and "in one run" in done.stdout, done.stdout
    off = run("quantize", MODEL, "--ranges", work / "r.qcal", "-d", SAMPLES, "-o", work / "r.onnx", "--smooth-quant", "off", "--equalize", "off").stdout
    assert "left out: what moves channels" not in off, off
    # One sample: what moves channels is not tried.  Loud channels, so that there is something to move.
    def listed(values):
        return "[" + ", ".join(f"{v:.6f}" for v in values) + "]"
    first = [(((o * 31 + i * 17) % 23) / 11 - 1) * (60 if o == 2 else 1) for o in range(8) for i in range(8)]
    second = [(((o * 13 + i * 7) % 19) / 9 - 1) / (60 if i == 2 else 1) for o in range(8) for i in range(8)]
    (work / "loud.qir").write_text(f"const #w : f32[8,8] = {listed(first)}\nconst #v : f32[8,8] = {listed(second)}\n" + """graph @g(%x: f32[32,8]) -> ("y", "label") {
  %w = const #w : f32[8,8]
  %v = const #v : f32[8,8]
  %a = linear %x, %w : f32[32,8]
  %r = relu %a : f32[32,8]
  %y = linear %r, %v : f32[32,8]
  %i = argmax %y {axis=1, keepdims=0} : s64[32]
  return %y, %i
}
""")
    def samples(name, count):
        values = [((i * 7919 + k * 104729) % 2003) / 1001 - 1 for i in range(count * 32) for k in range(8)]
        write_npy(work / name, (count, 32, 8), values)
        return f"npy:{work / name}"
    one = run("quantize", work / "loud.qir", "-d", samples("one.npy", 1), "-o", work / "loud.q.qir").stdout
    assert "is used without a trial" in one and "give more samples" in one, one
    many = run("quantize", work / "loud.qir", "-d", samples("many.npy", 40), "-o", work / "loud.q.qir").stdout
    assert "without a trial" not in many, many
    # An output of integers has no noise, and no line that says 120 dB.
    rows = json.loads(run("quantize", work / "loud.qir", "-d", samples("many.npy", 40), "-o", work / "loud.q.qir", "--json").stdout)["layers"]
    assert [row["node"] for row in rows if row["op"] == "output"] == ["y"], rows
    # Where there is no other output, what is tried is measured in front of it.
    (work / "label.qir").write_text((work / "loud.qir").read_text().replace('("y", "label")', '("label")').replace("return %y, %i", "return %i"))
    label = run("quantize", work / "label.qir", "-d", samples("many.npy", 40), "-o", work / "label.q.qir").stdout
    assert "without a trial" not in label and "120.0" not in label, label
    rows = json.loads(run("quantize", work / "label.qir", "-d", samples("many.npy", 40), "-o", work / "label.q.qir", "--json").stdout)["layers"]
    assert [row["node"] for row in rows if row["op"] == "output"] == ["label"], rows


def no_wolf(work):
    """Ends that an op has by itself are not a sample's: a clip that two samples of many reach, at every layer."""
    body, x = [], "x"
    for i in range(6):
        body += [f"  %l{i} = linear %{x}, %w : f32[1,16]", f"  %c{i} = clip %l{i} {{min=0.0, max=6.0}} : f32[1,16]"]
        x = f"c{i}"
    eye = ", ".join("1.0" if i == k else "0.0" for i in range(16) for k in range(16))
    (work / "clips.qir").write_text(f"const #w : f32[16,16] = [{eye}]\ngraph @g(%x: f32[1,16]) {{\n  %w = const #w : f32[16,16]\n" + "\n".join(body) +
                                    f"\n  return %{x}\n}}\n")
    values = [((i * 7919 + k * 104729) % 2003) / 2003 + (8 if i == 5 else 0) for i in range(40) for k in range(16)]
    write_npy(work / "clips.npy", (40, 1, 16), values)
    done = run("calibrate", work / "clips.qir", "-d", f"npy:{work}/clips.npy", "-o", work / "clips.qcal")
    assert "outlier" not in done.stderr and "set most" not in done.stdout, done.stdout + done.stderr


EMPTY = """const #w : f32[4,4] = rand(1, -1.0, 1.0)
graph @g(%x: f32[1,{n},4]) -> ("y") {{
  %w = const #w : f32[4,4]
  %a = linear %x, %w : f32[1,{n},4]
  %b = linear %a, %w : f32[1,{n},4]
  %y = reduce_mean %b {{axes=[1], keepdims=0}} : f32[1,4]
  return %y
}}
"""


def tensor(sizes, values):
    """An ONNX TensorProto of float32."""
    dims = b"".join(b"\x08" + bytes([d]) for d in sizes)
    payload = struct.pack(f"<{len(values)}f", *values)
    assert len(payload) < 16384
    return dims + b"\x10\x01" + b"\x4a" + bytes([len(payload) & 127 | 128, len(payload) >> 7]) + payload


def nothing_in_samples(work):
    """Arrays without elements, folders without files, models with dims of 0: a result or a refusal that names sample and input."""
    model = work / "empty.qir"
    model.write_text(EMPTY.format(n=0))
    folder = work / "sets"
    for i in range(3):
        (folder / f"test_data_set_{i}").mkdir(parents=True)
        (folder / f"test_data_set_{i}" / "input_0.pb").write_bytes(tensor((1, 0, 4), []))
    for source in ("random:3", f"testdata:{folder}"):
        for args in (("calibrate", model, "-d", source, "-o", work / "e.qcal"), ("quantize", model, "-d", source, "-o", work / "e.qir"),
                     ("quantize", model, "-d", f"{source}?limit=1", "-d", f"{source}?limit=1", "--check", f"{source}?skip=1", "-o", work / "e.qir")):
            done = run(*args)
            assert "input 'x': the samples hold no elements" in done.stderr and "samples are empty" in done.stderr, done.stderr
            assert "no op" in done.stderr and "as fed: no elements" in done.stdout, done.stderr
        (work / "labels.tsv").write_text("".join(f"{i}\t0\n" for i in range(3)))
        done = run("eval", model, "-d", source, "--predictions", work / "p")
        assert "input 'x' as fed: no elements" in done.stdout and "3 of 3 samples have scores that are not numbers" in done.stderr, done.stderr
        assert "nan" not in run("eval", model, "-d", source, "--predictions", work / "p", "--json").stdout.lower()
    done = run("eval", model, "-d", "random:3", "--labels", work / "labels.tsv", "--json")
    assert json.loads(done.stdout)["top1"] == 0, "what is not a number is not right"
    for args in (("bench", "--seconds", "0"), ("inspect",), ("profile",), ("run", "--output-dir", work / "out", "-d", "random:2"),
                 ("quantize", "--mode", "dynamic", "-o", work / "d.qir"), ("quantize", "--mode", "weight-only", "-o", work / "d.qir")):
        run(args[0], model, *args[1:])
    for name, shape in (("rows", (0, 1, 5, 4)), ("dims", (3, 1, 0, 4))):
        write_npy(work / f"{name}.npy", shape, [])
        done = run("calibrate", model, "-d", f"npy:{work}/{name}.npy", "-o", work / "e.qcal", code=1)
        assert f"tensor 'x': '{work}/{name}.npy' holds no elements" in done.stderr, done.stderr
    (work / "none").mkdir()
    for source in (f"images:{work}/none", f"raw:{work}/none", f"testdata:{work}/none"):
        assert "holds no" in run("calibrate", model, "-d", source, "-o", work / "e.qcal", code=1).stderr
    # All of them, and one among others, of a model that takes any number.
    for i in range(3):
        (folder / f"test_data_set_{i}" / "input_0.pb").write_bytes(tensor((0, 1, 16, 16), []))
    for verb, out in (("calibrate", "all.qcal"), ("quantize", "all.onnx")):
        done = run(verb, MODEL, "-d", f"testdata:{folder}", "-o", work / out, code=1)
        assert "tensor 'image': sample 'test_data_set_0' " in done.stderr and "holds no elements, nor does any of the others" in done.stderr, done.stderr
        assert not (work / out).exists()
    with zipfile.ZipFile(work / "member.npz", "w") as archive:
        archive.writestr("image.npy", b"")
    assert "member.npz:image.npy" in run("calibrate", MODEL, "-d", f"npz:{work}/member.npz", "-o", work / "e.qcal", code=1).stderr
    for i in range(12):
        there = work / "digits" / f"test_data_set_{i:02}"
        there.mkdir(parents=True)
        there.joinpath("input_0.pb").write_bytes(tensor((0 if i == 7 else 1, 1, 16, 16), [] if i == 7 else [((k * 7 + i) % 11) / 11 for k in range(256)]))
    done = run("calibrate", MODEL, "-d", f"testdata:{work}/digits", "-o", work / "one.qcal")
    assert "input 'image': 1 of 12 samples are empty" in done.stderr, done.stderr
    done = run("quantize", MODEL, "-d", f"testdata:{work}/digits", "-o", work / "one.onnx", "--ranges", work / "one.qcal")
    done = run("quantize", MODEL, "-d", f"testdata:{work}/digits", "-o", work / "one.onnx")
    assert "input 'image': 1 of 12 samples are empty" in done.stderr, done.stderr
    assert "nan" not in (work / "one.qcal").read_text().lower()


def needless(work):
    """Options that work on ranges, where the rules ask for none; a run that is to go on and has nothing to go on from."""
    rules = work / "dynamic.json"
    rules.write_text('{"global": "dynamic"}')
    run("calibrate", MODEL, "-d", SAMPLES, "-o", work / "n.qcal")
    refused = run("quantize", MODEL, "--config", rules, "--ranges", work / "n.qcal", "-o", work / "n.onnx", code=1)
    assert "--ranges has no effect: the rules observe no values" in refused.stderr, refused.stderr
    done = run("quantize", MODEL, "-d", SAMPLES, "--config", rules, "--bias-correction", "fast", "-o", work / "n.onnx")
    assert "--bias-correction has no effect" in done.stderr, done.stderr
    done = run("calibrate", MODEL, "-d", SAMPLES, "--resume", "-o", work / "resumed.qcal")
    assert "resumed.qcal.partial' to go on from" in done.stderr, done.stderr


def left_in_folders(work):
    """Pictures in subfolders are not read, which is said."""
    folder = work / "pictures"
    (folder / "more").mkdir(parents=True)
    for i, picture in enumerate(sorted((DATA / "calib").iterdir())[:5]):
        (folder / ("more" if i > 2 else ".") / picture.name).write_bytes(picture.read_bytes())
    said = run("run", MODEL, "-d", f"images:{folder}?order=grey&mean=0&std=255", "--output-dir", work / "out").stderr
    assert "2 of the JPEG or PNG files lie in subfolders" in said, said
    assert "subfolders" not in run("run", MODEL, "-d", f"images:{folder}/more?order=grey&mean=0&std=255", "--output-dir", work / "out").stderr


def nothing_calibrated(work):
    """Where no value is observed, samples are measured on and had no part in the result."""
    for mode in ("weight-only", "fp16-weights"):
        done = run("quantize", MODEL, "-d", SAMPLES, "--mode", mode, "-o", work / "m.onnx")
        assert "had no part in the result" in done.stdout and ", 0 calibration samples" in done.stdout and "left out" not in done.stdout, done.stdout
        told = json.loads(run("quantize", MODEL, "-d", SAMPLES, "--mode", mode, "-o", work / "m.onnx", "--json").stdout)
        assert told["samples"] == 0 and told["measured_on"] == {"samples": 16, "kind": "unseen", "used_afterwards": False}, told["measured_on"]
        assert told["warnings"] == [] and told["notes"] == []
    rules = work / "float.json"
    rules.write_text('{"global": "float"}')
    told = json.loads(run("quantize", MODEL, "-d", SAMPLES, "--config", rules, "-o", work / "x.onnx", "--json").stdout)
    assert any("no op was quantized" in w for w in told["warnings"]), told["warnings"]


def unscored(work):
    write_npy(work / "nan.npy", (3, 1, 16, 16), [float("nan")] * 256 + [0.5] * 512)
    told = json.loads(run("eval", MODEL, "-d", f"npy:{work}/nan.npy", "--predictions", work / "p.csv", "--json").stdout)
    assert told["unscored"] == 1, told


def environment(work):
    """Values of variables that set nothing; each is told once."""
    def said(**variables):
        done = subprocess.run([QCOMPILE, "bench", MODEL, "--seconds", "0"], env={**os.environ, **variables}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr
    for size in ("2G", "3000M", "2000000000", ""):
        assert "QC_MEMORY_LIMIT" not in said(QC_MEMORY_LIMIT=size)
    for size in ("abc", "-5", "0", "2X"):
        assert said(QC_MEMORY_LIMIT=size).count(f"QC_MEMORY_LIMIT={size} is not a size") == 1
    done = subprocess.run([QCOMPILE, "bench", MODEL], env={**os.environ, "QC_MEMORY_LIMIT": "1K"}, capture_output=True, text=True)
    assert done.returncode == 1 and "limit of 1024" in done.stderr, done.stderr
    (work / "file").write_text("")
    assert said(QC_CACHE_DIR=str(work / "file")).count("is not a folder") == 1
    assert "QC_CACHE_DIR" not in said(QC_CACHE_DIR=str(work / "cache"))


def passes(work):
    (work / "g.qir").write_text('graph @g(%x: f32[2]) -> ("y") {\n  %y = relu %x : f32[2]\n  return %y\n}\n')
    done = run("opt", work / "g.qir", "--pipeline", "canonicalize", "--print-after", "nope")
    assert "--print-after nope: no pass of that name runs; those that run are canonicalize" in done.stderr, done.stderr
    assert "no pass" not in run("opt", work / "g.qir", "--pipeline", "canonicalize", "--print-after", "canon").stderr
    done = run("opt", work / "g.qir", "--run", "--input", "zz=[1]", code=1)
    assert done.stdout == "" and "no graph has an input 'zz'" in done.stderr, done.stdout + done.stderr


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for test in (nothing_quantized, only_integers, required, ranges_alone, unmeasured, no_wolf, nothing_in_samples, needless, left_in_folders,
                     nothing_calibrated, unscored, environment, passes):
            test(work)
            print(f"{test.__name__}: passed")


if __name__ == "__main__":
    main()
