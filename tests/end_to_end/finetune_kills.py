#!/usr/bin/env python3
"""finetune, killed at random points of its run and resumed: the same file every time.

    finetune_kills.py QCOMPILE DATA_DIR [POINTS]

Points are spread over the whole run, each with a run of its own; every third is killed once more after it went on.  Standard library only.
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from command_line import DATA, QCOMPILE, run

POINTS = int(sys.argv[3]) if len(sys.argv) > 3 else 6


def killed(command, seconds, state=None):
    """Whether it was still running so many seconds after its start, or after it wrote its first state."""
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while state and victim.poll() is None and not state.exists():
        time.sleep(0.001)
    try:
        code = victim.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        victim.kill()
        victim.wait()
        return True
    assert code == 0, code
    return False


def main():
    rng = random.Random(11)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "m.onnx"
        state = out.with_name("m.onnx.partial")
        plain = pathlib.Path(folder) / "plain.json"  # a run is to be training more than anything before it
        plain.write_text(json.dumps({"recipes": {"reconstruct": "off", "round-weights": "nearest", "bias-correction": "off"}}))
        source = f"npy:{DATA}/test.npy?std=255"
        args = ["finetune", DATA / "digits.onnx", "-d", f"{source}&limit=96", "--weight-bits", "4", "--config", plain, "--epochs", "12", "--batch", "16", "--optimizer", "adamw", "--weight-decay", "0.01",
                "--labels", DATA / "labels.tsv", "--teacher-share", "0.5", "--augment", "flip,crop", "--freeze-bn-after", "40", "--check", f"{source}&skip=256&limit=32", "--check-labels", DATA / "labels.tsv",
                "--checkpoint-seconds", "0", "-o", out]
        begun, first = time.monotonic(), None
        whole = subprocess.Popen([str(a) for a in (QCOMPILE, *args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while whole.poll() is None:
            first = first or (time.monotonic() - begun if state.exists() else None)
            time.sleep(0.001)
        took, want = time.monotonic() - begun, out.read_bytes()
        command = [str(a) for a in (QCOMPILE, *args, "--resume")]
        running = resumed = 0
        for point in range(POINTS):
            out.unlink()
            # One in three before there is a state, the others while it is written again after every step.
            early = point % 3 == 0
            running += killed(command, rng.random() * (first if early else took - first), None if early else state)
            resumed += state.exists()
            if point % 3 == 2 and killed(command, took * rng.random()):
                running += 1
            if not out.exists() or state.exists():
                run(*args, "--resume")
            assert out.read_bytes() == want, f"another file, killed at point {point} of {POINTS}"
            left = [p.name for p in out.parent.iterdir() if p not in (out, plain)]
            assert not left, left
    print(f"passed: {running} kills, {resumed} of {POINTS} with a state to go on from; {took:.2f} s a run, {first:.2f} s before its first state")


main()
