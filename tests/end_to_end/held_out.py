#!/usr/bin/env python3
"""Few calibration samples: what recovery does with them helps on other samples too, and tables say what they were measured on.

    held_out.py QCOMPILE DATA_DIR

Networks of random weights are calibrated with a handful of samples and measured on new ones of the same kind (--check), with recovery and
without it.  Standard library only.
"""
import json
import math
import pathlib
import random
import struct
import sys
import tempfile
import zipfile

from command_line import npy_header, recipes_off, run

OFF = recipes_off()
NEW = 32
MOST_LOST = 1.0  # dB


def network(shape, layers):
    """Layers of relu between: (op, shape of the weight, result, attributes)"""
    def make(rng):
        constants, body, x = [], [], "x"
        for i, (op, weight, result, attributes) in enumerate(layers):
            fan = math.prod(weight[1:])
            values = ", ".join(f"{rng.gauss(0, math.sqrt(2 / fan)):.7g}" for _ in range(math.prod(weight)))
            bias = ", ".join(f"{rng.gauss(0, 0.1):.7g}" for _ in range(weight[0]))
            shapes = ",".join(map(str, weight)), ",".join(map(str, result))
            constants += [f"const #w{i} : f32[{shapes[0]}] = [{values}]", f"const #b{i} : f32[{weight[0]}] = [{bias}]"]
            body += [f"  %w{i} = const #w{i} : f32[{shapes[0]}]", f"  %b{i} = const #b{i} : f32[{weight[0]}]",
                     f"  %l{i} = {op} %{x}, %w{i}, %b{i}{attributes} : f32[{shapes[1]}]"]
            x = f"l{i}"
            if i + 1 < len(layers):
                body.append(f"  %r{i} = relu %{x} : f32[{shapes[1]}]")
                x = f"r{i}"
        head = f"graph @m(%x: f32[{','.join(map(str, shape))}]) -> (\"y\") {{"
        return "\n".join([*constants, head, *body, f"  return %{x}", "}", ""]), shape
    return make


KINDS = {
    "linear": network((1, 48), [("linear", (48, 48), (1, 48), ""), ("linear", (48, 48), (1, 48), ""), ("linear", (10, 48), (1, 10), "")]),
    "conv": network((1, 3, 10, 10), [("conv", (12, 3, 3, 3), (1, 12, 8, 8), ""), ("conv", (16, 12, 3, 3), (1, 16, 6, 6), ""),
                                     ("conv", (8, 16, 3, 3), (1, 8, 4, 4), "")]),
    "conv of 3 dims": network((1, 2, 6, 6, 6), [("conv", (8, 2, 3, 3, 3), (1, 8, 4, 4, 4), ""), ("conv", (8, 8, 3, 3, 3), (1, 8, 2, 2, 2), "")]),
}


def write_samples(path, shape, count, rng):
    values = count * math.prod(shape)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_header((count, *shape)) + struct.pack(f"<{values}f", *(rng.gauss(0, 1) for _ in range(values))))


def output_db(report):
    return [row["sqnr_db"] for row in report["layers"] if row["op"] == "output"][-1]


def few_samples(work):
    failed = 0
    for kind, make in KINDS.items():
        for count in (1, 4, 16, 64):
            gains = []
            for seed in range(3):
                rng = random.Random(f"{kind} {count} {seed}")
                text, shape = make(rng)
                (work / "m.qir").write_text(text)
                write_samples(work / "few.npz", shape, count, rng)
                write_samples(work / "new.npz", shape, NEW, rng)
                args = ("quantize", work / "m.qir", "-d", f"npz:{work}/few.npz", "--check", f"npz:{work}/new.npz", "--compare-samples", NEW, "-o",
                        work / "q.qir", "--json")
                plain, better = (json.loads(run(*args, *flags).stdout) for flags in (OFF, []))
                assert better["measured_on"] == {"samples": NEW, "kind": "check", "used_afterwards": False} and better["samples"] == count
                gains.append(output_db(better) - output_db(plain))
            ok = min(gains) > -MOST_LOST
            failed += not ok
            print(f"{kind}, {count} samples: {' '.join(f'{g:+.1f}' for g in gains)} dB on {NEW} new ones{'' if ok else ' FAILED'}")
    return failed


def what_it_was_measured_on(work):
    rng = random.Random(3)
    text, shape = KINDS["linear"](rng)
    (work / "m.qir").write_text(text)
    write_samples(work / "many.npz", shape, 100, rng)

    def measured(*args, samples):
        report = json.loads(run("quantize", work / "m.qir", "-o", work / "q.qir", "--json", *args).stdout)
        assert report["samples"] == samples, report["samples"]
        return tuple(report["measured_on"][key] for key in ("samples", "kind", "used_afterwards"))

    source = f"npz:{work}/many.npz"
    assert measured("-d", source, samples=100) == (16, "left_out", True)
    assert measured("-d", source + "?limit=10", samples=10) == (2, "left_out", True)
    assert measured("-d", source + "?limit=1", samples=1) == (1, "calibration", False)
    assert measured("-d", source, "--calibration-limit", 50, samples=50) == (16, "left_out", False), "what the limit leaves over"
    assert measured("-d", source, "-d", source, samples=160) == (16, "left_out", False), "enough without"
    assert measured("-d", source + "?limit=90", "--check", source + "?skip=90", samples=90) == (10, "check", False)
    assert measured("--mode", "weight-only", "--check", source + "?limit=3", samples=0) == (3, "check", False)
    assert measured("--mode", "weight-only", samples=0) == (0, "none", False)
    run("calibrate", work / "m.qir", "-d", source, "-o", work / "m.qcal")
    assert measured("--ranges", work / "m.qcal", "-d", source, samples=100) == (16, "calibration", False)
    for args, words in ((["-d", source, "-d", source], "16 samples left out of calibration;"), (["-d", source + "?limit=10"], "calibrated with all"),
                        (["-d", source + "?limit=1", "--check", source + "?skip=1"], "16 samples of --check;"), (["-d", source + "?limit=1"], "1 of the calibration samples, which flatters")):
        text = run("quantize", work / "m.qir", *args, "-o", work / "q.qir").stdout
        assert words in text, text
    refused = run("quantize", work / "m.qir", "-d", source, "--check", source + "?skip=90", "-o", work / "q.qir", code=1).stderr
    assert "many.npz[90]' of --check calibrates as well" in refused, refused
    run("quantize", work / "m.qir", "-d", source, "--check", "npz:nowhere.npz", "-o", work / "q.qir", code=1)
    print("what it was measured on: passed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        what_it_was_measured_on(work)
        sys.exit(1 if few_samples(work) else 0)


main()
