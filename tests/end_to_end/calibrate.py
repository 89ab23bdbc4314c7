#!/usr/bin/env python3
"""Calibration as a job, through the command line alone: shards, merging, interruption, warnings, limits.

    calibrate.py QCOMPILE DATA_DIR [KILLS [SEED]]

Kills the run at random points with SIGKILL, resumes it each time, and checks that the file at the end has the bytes of an uninterrupted
run.  SEED repeats the delays of a failed run.  Standard library only.
"""
import json
import math
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib

from command_line import DATA, QCOMPILE, npy_header, run, write_npy

KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else 30
MODEL = DATA / "digits.onnx"
SAMPLES = f"npy:{DATA}/test.npy?mean=0&std=255&limit=200"
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 30)
# Every observer that watches activations, those too that our own kernels cannot serve; of these the order of the samples does not matter, or it does.
MERGEABLE = {
    "minmax": {}, "histogram": {}, "histogram_reference": {"observer": "histogram", "args": {"search": "reference"}}, "percentile": {}, "entropy": {}, "mse": {},
    "per_channel_minmax": {"axis": 0}, "per_group": {"axis": 0, "block_size": 1}}
ORDERED = {
    "moving_average": {}, "per_channel_moving_average": {"axis": 0}, "histogram_split": {"observer": "histogram", "args": {"merge": "split"}},
    "histogram_old": {"observer": "histogram", "args": {"merge": "old"}}, "per_token": {}, "recording": {}}


def rules(name, more):
    config = {"activation": {"observer": name, **more}, "weight": {"observer": "per_channel_minmax", "dtype": "s8", "scheme": "symmetric"}}
    if not name.startswith("per_"):
        return {"global": config}
    return {"backend_config": "native", "global": "float", "rules": [{"object_type": "conv", "qconfig": config}]}


RULES = {name: rules(name, more) for name, more in {**MERGEABLE, **ORDERED}.items()}


def calibrate(output, *more, samples=SAMPLES, code=0):
    return run("calibrate", MODEL, "-d", samples, "-o", output, *more, code=code)


def write_images(path, images, sizes=(1, 16, 16)):
    write_npy(path, (len(images), *sizes), [v for image in images for v in image])


def shards_merge(work):
    for name, rules in RULES.items():
        config = work / f"{name}.json"
        config.write_text(json.dumps(rules))
        whole = work / f"{name}.qcal"
        calibrate(whole, "--config", config)
        parts = []
        for i in range(3):
            parts.append(work / f"{name}.{i}.qcal")
            calibrate(parts[-1], "--config", config, "--shard", f"{i}/3", "--threads", i % 2 + 1)
        merged = work / f"{name}.merged.qcal"
        if name in ORDERED:
            refused = run("merge", *parts, "-o", merged, code=1).stderr
            assert "depends on the order" in refused and "--approximate" in refused, refused
            assert not merged.exists()
            run("merge", *parts, "-o", merged, "--approximate")
            continue
        for order in ((0, 1, 2), (2, 0, 1)):
            run("merge", *(parts[i] for i in order), "-o", merged)
            assert merged.read_bytes() == whole.read_bytes(), f"{name}: shards in the order {order} give other bytes than one run"
        assert "in both" in run("merge", parts[0], merged, "-o", work / "x.qcal", code=1).stderr
    # One shard alone: the verdict counts its own samples, and whoever takes it is told that others are missing.
    part = work / "part.qcal"
    told = json.loads(calibrate(part, "--shard", "2/3", "--json").stdout)
    assert told["samples"] == 67 and all(0 < r["needed"] <= 67 for r in told["ranges"]) and told["enough"] <= 67, told
    missing = "67 of 200 samples are in: merge the other shards"
    assert missing in told["warnings"] and missing in run("quantize", MODEL, "--ranges", part, "-o", work / "part.onnx").stderr
    said = run("quantize", MODEL, "--ranges", part, "--backend", "qnnpack", "-o", work / "part.onnx", code=1).stderr
    assert "under other rules" in said and "with these rules" in said, said
    assert "merge the other shards" in run("merge", parts[0], "-o", work / "x.qcal").stderr
    calibrate(work / "x.qcal", "--shard", "3/3", code=1)
    print("shards: passed")


def kills(work):
    """moving_average is the hardest: its state depends on the order of every batch.

    A checkpoint after every sample makes the run long against the delays, and every point of it a place to go on from."""
    rng = random.Random(SEED)
    killed = resumed = 0
    for name in ("histogram", "moving_average"):
        config = work / f"{name}.json"
        whole = (work / f"{name}.qcal").read_bytes()
        start = time.time()
        calibrate(work / "timed.qcal", "--config", config, "--checkpoint-seconds", 0)
        duration = time.time() - start
        output = work / "killed.qcal"
        for _ in range(KILLS // 2):
            output.unlink(missing_ok=True)
            for attempt in range(1000):
                process = subprocess.Popen([QCOMPILE, "calibrate", MODEL, "-d", SAMPLES, "-o", output, "--config", config, "--resume", "--checkpoint-seconds", "0"],
                                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                try:
                    _, err = process.communicate(timeout=rng.uniform(0.02, duration) if attempt < 4 else None)
                except subprocess.TimeoutExpired:
                    process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                    _, err = process.communicate()
                    killed += 1
                    resumed += pathlib.Path(f"{output}.partial").exists()
                if process.returncode == 0:
                    break
                if process.returncode not in (-signal.SIGKILL, -signal.SIGTERM) and not (process.returncode == 1 and b"stopped after" in err):
                    sys.exit(f"seed {SEED}: exit code {process.returncode}: {err.decode()}")
            assert output.read_bytes() == whole, f"seed {SEED}: an interrupted run gives other bytes"
            left = [p.name for p in work.iterdir() if p.name.startswith("killed.qcal.")]
            assert not left, f"seed {SEED}: left behind: {left}"
    assert resumed > 0, f"seed {SEED}: no run of {killed} ended in the middle"
    print(f"interruption: passed, {killed} runs ended early, {resumed} of them with a part done")


def refusals(work):
    partial = work / "r.qcal.partial"
    partial.write_bytes((work / "histogram.0.qcal").read_bytes())
    assert "other rules" in calibrate(work / "r.qcal", "--config", work / "minmax.json", "--resume", code=1).stderr
    assert "other calibration data" in calibrate(work / "r.qcal", "--config", work / "histogram.json", "--resume", samples=SAMPLES + "&skip=1", code=1).stderr
    assert "another shard" in calibrate(work / "r.qcal", "--config", work / "histogram.json", "--resume", "--shard", "1/3", code=1).stderr
    partial.write_bytes(partial.read_bytes()[:-5])
    assert "damaged" in calibrate(work / "r.qcal", "--config", work / "histogram.json", "--resume", code=1).stderr
    assert "memory-limit" in calibrate(work / "r.qcal", "--memory-limit", "1M", code=1).stderr
    calibrate(work / "r.qcal", "--memory-limit", "lots", code=1)
    calibrate(work / "no_such_folder" / "r.qcal", code=1)
    print("refusals: passed")


def warnings(work):
    rng = random.Random(5)
    noise = [[rng.gauss(0, 1) for _ in range(256)] for _ in range(24)]
    path = work / "data.npy"

    def told(images):
        write_images(path, images)
        return calibrate(work / "w.qcal", samples=f"npy:{path}").stderr

    assert "constant" in told([[0.5] * 256 for _ in range(20)])
    assert "same" in told([noise[0]] * 20)
    broken = [list(image) for image in noise]
    broken[3][7], broken[4][7] = math.nan, math.inf
    assert "2 elements are NaN or infinite" in told(broken)
    # Where none is finite the samples are to blame, and not their number.
    write_images(path, [[math.nan] * 256] * 20)
    said = run("quantize", MODEL, "-d", f"npy:{path}", "-o", work / "w.onnx", code=1).stderr
    assert "every value that was seen is NaN or infinite" in said and "look at the samples" in said, said
    # Samples to check are looked at beside saved ranges, too.
    write_images(path, broken)
    calibrate(work / "w.qcal")
    done = run("quantize", MODEL, "--ranges", work / "w.qcal", "--check", f"npy:{path}", "-o", work / "w.onnx")
    assert "values are not finite" in done.stderr and "input 'image' as fed" in done.stdout, done.stderr + done.stdout
    outlier = [[v / 100 for v in image] for image in noise] + [[1000 * v for v in noise[0]]]
    report = json.loads(run("calibrate", MODEL, "-d", f"npy:{path}", "-o", work / "w.qcal", "--json").stdout)
    assert report["samples"] == 24 and len(report["ranges"]) == report["observers"], report
    write_images(path, outlier * 2)
    report = json.loads(run("calibrate", MODEL, "-d", f"npy:{path}", "-o", work / "w.qcal", "--json").stdout)
    assert report["influences"][0]["sample"] == 24 and any("outlier" in w for w in report["warnings"]), report["influences"]
    assert "only 2 calibration samples" in told(noise[:2])

    # Activations that stop at a bound: the first sample that reaches it is not an outlier; a few samples are too few to tell, not unfinished.
    bounded = work / "bounded.qir"
    stages = [f"  %r{i + 1} = clip %c{i} {{max=6.0, min=-6.0}} : f32[1,256]" for i in range(6)]
    layers = [f"  %c{i} = linear %r{i}, %w : f32[1,256]" for i in range(6)]
    body = [line for pair in zip(layers, stages) for line in pair]
    bounded.write_text("\n".join(["const #w : f32[256,256] = rand(1, -3.0, 3.0)", "graph @b(%r0: f32[1,256]) -> (\"y\") {", "  %w = const #w : f32[256,256]",
                                  *body, "  %y = linear %r6, %w : f32[1,256]", "  return %y", "}", ""]))
    done = run("calibrate", bounded, "-d", "random:40", "--observer", "minmax", "-o", work / "w.qcal")
    assert "outlier" not in done.stderr and "first 1 samples" not in done.stdout, done.stdout + done.stderr
    assert "too few to tell: 3 samples" in run("calibrate", bounded, "-d", "random:3", "-o", work / "w.qcal").stdout
    print("warnings: passed")


def archives(work):
    """Compressed and stored members give the ranges of the npy file; bombs are refused."""
    rng = random.Random(6)
    images = [[rng.random() for _ in range(256)] for _ in range(20)]
    npy = work / "image.npy"
    write_images(npy, images)
    calibrate(work / "npy.qcal", samples=f"npy:{npy}")
    ranges = json.loads(run("calibrate", MODEL, "-d", f"npy:{npy}", "-o", work / "z.qcal", "--json").stdout)["ranges"]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(work / "a.npz", "w", method) as archive:
            archive.write(npy, "image.npy")
        again = json.loads(run("calibrate", MODEL, "-d", f"npz:{work}/a.npz", "-o", work / "z.qcal", "--json").stdout)["ranges"]
        assert [(r["min"], r["max"]) for r in again] == [(r["min"], r["max"]) for r in ranges]
    # 16 GiB of zeros in 16 MB, made by hand: one deflated block again and again.

    size = 16 << 30
    head = npy_header((size // 1024, 1, 16, 16))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += block * (size >> 24) + packer.flush()
    extra = struct.pack("<HHQQ", 1, 16, size + len(head), len(packed))
    local = struct.pack("<IHHHHHIIIHH", 0x04034b50, 45, 0, 8, 0, 0, 0, 0xffffffff, 0xffffffff, 9, len(extra)) + b"image.npy" + extra
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014b50, 45, 45, 0, 8, 0, 0, 0, 0xffffffff, 0xffffffff, 9, len(extra), 0, 0, 0, 0, 0) + b"image.npy" + extra
    end = struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, 1, 1, len(entry), len(local) + len(packed), 0)
    (work / "bomb.npz").write_bytes(local + packed + entry + end)
    refused = calibrate(work / "b.qcal", samples=f"npz:{work}/bomb.npz", code=1)
    assert "more than the limit" in refused.stderr, refused.stderr
    print("archives: passed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        shards_merge(work)
        kills(work)
        refusals(work)
        warnings(work)
        archives(work)


main()
