#!/usr/bin/env python3
"""compile, profile, reduce and the JSON of tables through the command line.

    verbs.py QCOMPILE DATA_DIR LIBQCOMPILE_RT SOURCE_DIR [CC]

An object of the quantized digits model is linked into a C program, which must give the bytes of `qcompile run`; without a C compiler this
part is left out and says so.  Standard library only.
"""
import json
import os
import pathlib
import platform
import shutil
import struct
import subprocess
import sys
import tempfile

from command_line import DATA, QCOMPILE, run, write_sample

RT, ROOT = (pathlib.Path(a).resolve() for a in sys.argv[3:5])
CC = sys.argv[5] if len(sys.argv) > 5 else shutil.which("cc")

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "digits.h"
int main(void) {
  static float image[256], scores[10];
  if (fread(image, sizeof(float), 256, stdin) != 256) return 2;
  qcrt_pool* pool = qcrt_pool_create(2);
  void* memory = aligned_alloc(64, (digits_memory_bytes(2) + 63) / 64 * 64);
  const void* inputs[] = {image};
  void* outputs[] = {scores};
  for (int i = 0; i < 3; ++i) if (digits_run(inputs, outputs, memory, pool) != 0) return 3;
  fwrite(scores, sizeof(float), 10, stdout);
  free(memory);
  qcrt_pool_destroy(pool);
  return 0;
}
"""


def objects(work, models):
    if not CC:
        print("compile: left out, there is no C compiler")
        return
    (work / "main.c").write_text(PROGRAM)
    pixels = write_sample(work / "x.npy", 3)
    for model in models:
        run("compile", model, "-o", work / "digits.o")
        subprocess.run([CC, work / "main.c", work / "digits.o", RT, "-I", ROOT, "-lpthread", "-lm", "-o", work / "main"], check=True, cwd=work)
        scores = subprocess.run([work / "main"], input=pixels, capture_output=True, check=True).stdout
        run("run", model, "--input", f"image={work}/x.npy", "--output-dir", work)
        assert scores == (work / "scores.npy").read_bytes()[-40:], f"{model}: the object gives other bytes"
    for target in ("generic", "avx2", "aarch64+dotprod"):
        run("compile", models[1], "-o", work / "cross.o", "--target", target)
        machine = {"aarch64+dotprod": 183}.get(target, 62)
        assert struct.unpack("<H", (work / "cross.o").read_bytes()[18:20])[0] == machine, f"{target}: the object is for another machine"
    run("compile", models[0], "-o", work / "digits.o", "--name", "not-c", code=1)
    run("compile", models[0], "-o", work / "digits.h", code=1)
    print("compile: passed")


def profiles(model):
    report = json.loads(run("profile", model, "--runs", 3, "--json").stdout)
    assert abs(sum(row["share"] for row in report["layers"]) - 1) < 1e-6 and any(row["operations"] for row in report["layers"])
    table = run("profile", model, "--runs", 3, "--sort", "time").stdout
    assert "GOP/s" in table and "GB/s" in table, table
    run("profile", model, "--runs", 3, "--by", "kernel")
    run("profile", model, "--sort", "colour", code=2)
    print("profile: passed")


def reductions(work, model):
    check = work / "check.sh"
    check.write_text(f'"{QCOMPILE}" inspect --text "$1" 2>/dev/null | grep -q clip\n')
    out = work / "small.qir"
    run("reduce", model, "--test", f"sh {check} {{}}", "-o", out)
    text = out.read_text()
    ops = [line for line in text.splitlines() if " = " in line]
    assert "clip" in text and len(ops) <= 2, text
    assert "does not succeed" in run("reduce", model, "--test", "false", "-o", out, code=1).stderr
    print("reduce: passed")


def tables(model):
    """Every flag that shows more is in the JSON, or is refused beside it."""
    shown = json.loads(run("inspect", model, "--kernels", "--json").stdout)
    assert any(row["kernel"] for row in shown["kernels"]) and shown["quantized"], shown
    measured = json.loads(run("bench", model, "--seconds", 0.05, "--layers", "--json").stdout)
    assert measured["layers"] and {row["node"] for row in measured["layers"]} <= {row["node"] for row in shown["kernels"]}, measured
    for flags in (["inspect", "--text", "--json"], ["inspect", "--text", "--kernels"], ["bench", "--stdio", "--json"], ["bench", "--stdio", "--layers"]):
        assert "excludes" in run(flags[0], model, *flags[1:], code=2).stderr
    assert {"target", "codegen", "isas", "ops", "passes", "kernels"} == set(json.loads(run("doctor", "--json").stdout))
    assert {"target", "codegen", "isas", "passes"} == set(json.loads(run("doctor", "--passes", "--json").stdout))
    ops = {row["name"]: row for row in json.loads(run("doctor", "--ops", "--json").stdout)["ops"]}
    forms = ("float", "static_int8", "dynamic", "integer")
    assert set(ops) == {row["name"] for row in json.loads(run("doctor", "--json").stdout)["ops"]}
    for row in ops.values():
        for form in (row[f] for f in forms):
            assert form["state"] in {"kernel", "view", "evaluation", "float", "none"} and form["object"] == (form["state"] in {"kernel", "view"}), row
    states = {name: [row[f]["state"] for f in forms] for name, row in ops.items()}
    assert states["conv"][:3] == states["linear"][:3] == ["kernel"] * 3 and states["add"][3] == "kernel", states
    assert states["softmax"][1] == "float" and ops["softmax"]["static_int8"]["why"] and states["lut"][1] == "kernel", states
    for name in ("relu", "sigmoid", "max_pool", "concat", "slice", "transpose", "q.conv", "q.linear"):
        assert states[name][1] == "kernel", (name, states[name])
    # What has code in float is never quantized into something that has none, and what stays float is given its reason.
    for name, row in ops.items():
        for form in (row["static_int8"], row["dynamic"]):
            assert not (row["float"]["object"] and form["state"] == "evaluation"), (name, form)
            assert form["state"] != "float" or form["why"], (name, form)
    if platform.machine() == "x86_64":  # none of the data ops is left without a form
        assert not [name for name, s in states.items() if set(s) == {"none"} and name != "const"], states
    print("tables: passed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        os.environ["QC_CACHE_DIR"] = str(work / "cache")
        int8 = work / "digits.int8.onnx"
        run("quantize", DATA / "digits.onnx", "-d", f"images:{DATA}/calib?order=grey&mean=0&std=255", "-o", int8)
        reductions(work, DATA / "digits.onnx")
        profiles(int8)
        modes = {"dynamic": ["--mode", "dynamic"], "tensor": ["--mode", "dynamic", "--per-tensor"], "token": ["--mode", "dynamic", "--per-token"], "weights8": ["--mode", "weight-only"],
                 "weights4": ["--mode", "weight-only", "--weight-bits", 4], "half": ["--mode", "fp16-weights"]}
        for name, options in modes.items():
            run("quantize", DATA / "digits.onnx", *options, "-o", work / f"{name}.onnx")
        objects(work, [DATA / "digits.onnx", int8, *(work / f"{name}.onnx" for name in modes)])
        tables(int8)
        first = json.loads(run("bench", int8, "--seconds", "0.05", "--json").stdout)
        again = json.loads(run("bench", int8, "--seconds", "0.05", "--json").stdout)
        anew = json.loads(run("bench", int8, "--seconds", "0.05", "--json", "--no-cache").stdout)
        assert again["cached_kernels"] == again["unique_kernels"] and anew["cached_kernels"] == 0, (first, again, anew)
        print("cache: passed")


main()
