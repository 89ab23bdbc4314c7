#!/usr/bin/env python3
"""Which layers lose the accuracy: the layer made hard to quantize is named, and a run that is killed goes on where it ended.

    sensitivity.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

from command_line import DATA, npy_header, run

LAYERS, WIDTH, HARD = 24, 32, 9


def network(rng):
    """A chain of linear layers.  One has a channel 300 times the others, and the next takes it back."""
    constants, body, x = [], [], "x"
    for i in range(LAYERS):
        rows = [300.0 if i == HARD and r == 3 else 1.0 for r in range(WIDTH)]
        columns = [1 / 300.0 if i == HARD + 1 and c == 3 else 1.0 for c in range(WIDTH)]
        values = ", ".join(f"{rng.gauss(0, (2 / WIDTH) ** 0.5) * r * c:.7g}" for r in rows for c in columns)
        constants.append(f"const #w{i} : f32[{WIDTH},{WIDTH}] = [{values}]")
        body += [f"  %w{i} = const #w{i} : f32[{WIDTH},{WIDTH}]", f'  %l{i} = linear %{x}, %w{i} : f32[64,{WIDTH}] loc("net/l{i}")',
                 f'  %r{i} = relu %l{i} : f32[64,{WIDTH}] loc("net/r{i}")']
        x = f"r{i}"
    return "\n".join([*constants, f"graph @m(%x: f32[64,{WIDTH}]) -> (\"y\") {{", *body, f"  return %{x}", "}", ""])


def write_samples(path, count, rng):
    values = count * 64 * WIDTH
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_header((count, 64, WIDTH)) + struct.pack(f"<{values}f", *(rng.gauss(0, 1) for _ in range(values))))


def branches(work, rng):
    """Two layers of which a condition takes one.  A layer that no sample runs is said to be such, and has no figures."""
    (work / "if.qir").write_text("""const #w : f32[32,32] = rand(1, -0.5, 0.5)
const #v : f32[32,32] = rand(2, -0.5, 0.5)
graph @m(%c: bool[1], %x: f32[64,32]) -> ("y") {
  %w = const #w : f32[32,32]
  %v = const #v : f32[32,32]
  %a = linear %x, %w : f32[64,32] loc("taken")
  %b = linear %x, %v : f32[64,32] loc("other")
  %y = choose %c, %a, %b {axes=[], sizes=[]} : f32[64,32] loc("either")
  return %y
}
""")

    def write(path, taken):
        values = len(taken) * 64 * 32
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("c.npy", npy_header((len(taken), 1), "|b1") + bytes(taken))
            archive.writestr("x.npy", npy_header((len(taken), 64, 32)) + struct.pack(f"<{values}f", *(rng.gauss(0, 1) for _ in range(values))))

    (work / "rules.json").write_text('{"global": "default", "force": true}')
    write(work / "one.npz", [1] * 8)
    write(work / "measured.npz", [1] * 8)
    write(work / "both.npz", [0, 1] * 4)
    for calibration, why in (("one", "no sample takes the branch where 'c' is false: it stays float"),
                             ("both", "none of the 8 samples that are measured on runs it")):
        args = ["sensitivity", work / "if.qir", "-d", f"npz:{work / calibration}.npz", "--check", f"npz:{work}/measured.npz", "--config", work / "rules.json"]
        found = json.loads(run(*args, "--json").stdout)
        assert [row["layer"] for row in found["layers"]] == ["taken"] and found["measured"] == 1, found
        assert [(row["layer"], row["why"]) for row in found["unseen"]] == [("other", why)], found["unseen"]
        assert f"other: {why}" in run(*args).stdout


def metrics(work, digits):
    """A state is of its labels, too, whatever their file is called; samples that are measured on are looked at like those of the calibration."""
    state, labels = work / "points.json", work / "labels.tsv"
    labels.write_bytes((DATA / "labels.tsv").read_bytes())
    args = [*digits, "--labels", labels, "--top", "1", "--resume", state]
    run(*args)
    assert json.loads(run(*args, "--json").stdout)["resumed"] == 1
    head, *lines = labels.read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    labels.write_text("\n".join([head, *("\t".join([*row[:-1], str((int(row[-1]) + 1) % 10)]) for row in rows)]) + "\n")
    for other in ([], ["--metric", "f1"]):
        said = run(*args, *other, code=1).stderr
        assert "another metric" in said and "delete it, or name another file" in said, said
    values = [float("nan"), *([0.5] * 255), *([0.25] * 256)]
    (work / "nan.npy").write_bytes(npy_header((2, 1, 16, 16)) + struct.pack("<512f", *values))
    done = run(*digits[:4], "--check", f"npy:{work}/nan.npy", "--top", "0")
    assert "1 of 512 values are not finite" in done.stderr and "input 'image' as fed" in done.stdout, done.stderr + done.stdout


def main():
    rng = random.Random(3)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        (work / "m.qir").write_text(network(rng))
        write_samples(work / "s.npz", 20, rng)
        args = ["sensitivity", work / "m.qir", "-d", f"npz:{work}/s.npz", "--equalize", "off"]
        whole = json.loads(run(*args, "--json").stdout)
        assert whole["measured"] == LAYERS and whole["measured_on"] == {"samples": 4, "kind": "left_out"}, whole
        worst = whole["layers"][0]
        assert worst["layer"] in (f"net/l{HARD}", f"net/l{HARD + 1}"), worst
        # The channel is rounded where the next layer reads it: without that one, all is well.
        best = max(whole["layers"], key=lambda row: row["alone_float_db"])
        assert best["layer"] == f"net/l{HARD + 1}" and best["alone_float_db"] > whole["all_int8_db"] + 3, (best, whole["all_int8_db"])

        # The first-order figures alone find it as well.
        guess = json.loads(run(*args, "--top", "0", "--json").stdout)
        assert guess["measured"] == 0 and guess["layers"][0]["alone_int8_db"] is None
        assert f"net/l{HARD}" in [row["layer"] for row in guess["layers"][:3]], [row["layer"] for row in guess["layers"][:3]]

        # Killed in the middle, it goes on to the same end.
        state = work / "state.json"
        command = [sys.argv[1], *map(str, args), "--resume", str(state)]
        victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while victim.poll() is None and not (state.exists() and len(json.loads(state.read_text())["layers"]) >= 2):
            time.sleep(0.002)
        victim.kill()
        victim.wait()
        again = json.loads(run(*args, "--resume", state, "--json").stdout)
        assert again["resumed"] >= 2, again["resumed"]
        assert again["layers"] == whole["layers"], "another result behind a resumed run"

        digits = ["sensitivity", DATA / "digits.onnx", "-d", f"images:{DATA}/calib?order=grey&std=255", "--check", f"npy:{DATA}/test.npy?std=255"]
        labelled = json.loads(run(*digits, "--labels", DATA / "labels.tsv", "--json").stdout)
        assert all(abs(row["alone_int8_drop"]) < 5 for row in labelled["layers"]) and labelled["all_int8_drop"] is not None, labelled

        metrics(work, digits)
        branches(work, rng)
        modules = json.loads(run(*args, "--by", "module", "--json").stdout)
        assert [row["layer"] for row in modules["layers"]] == ["net"], modules["layers"]
        text = run(*args, "--top", "3").stdout
        assert worst["layer"] in text and "all int8:" in text, text
        other = run(*args, "--observer", "minmax", "--resume", state, code=1)
        assert "state of another model" in other.stderr, other.stderr
        write_samples(work / "s.npz", 20, rng)  # others under the same name
        assert "state of another model" in run(*args, "--resume", state, code=1).stderr
    print("passed")


main()
