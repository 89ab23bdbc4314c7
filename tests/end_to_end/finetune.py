#!/usr/bin/env python3
"""Training through the command line: it wins back what few bits lose, goes on after a kill to the same bytes, and says what is wrong.

    finetune.py QCOMPILE DATA_DIR

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

from command_line import DATA, npy_header, run

TRAIN = f"npy:{DATA}/test.npy?std=255&limit=256"
CHECK = f"npy:{DATA}/test.npy?std=255&skip=256&limit=128"
LABELS = DATA / "labels.tsv"
MODEL = DATA / "digits.onnx"


def top1(model):
    return json.loads(run("eval", model, "-d", CHECK, "--labels", LABELS, "--json").stdout)["top1"]


def killed_anywhere(command, output, want, rng):
    """Killed at random points and resumed until it ends."""
    state = output.with_name(output.name + ".partial")
    for kills in range(40):
        victim = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while kills == 0 and victim.poll() is None and not state.exists():
            time.sleep(0.001)
        try:
            code = victim.wait(timeout=rng.uniform(0.001, 0.01) if kills == 0 else rng.uniform(0.1, 1.0) * (1 + kills / 2))
            assert code == 0 and kills > 0, (code, kills)
            break
        except subprocess.TimeoutExpired:
            victim.kill()
            victim.wait()
    assert output.read_bytes() == want, "another file after kills"
    left = [p.name for p in output.parent.iterdir() if p.name.startswith(output.name) and p != output]
    assert not left, left


def main():
    rng = random.Random(5)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        out = work / "m.onnx"
        plain = work / "plain.json"  # nothing that wins accuracy back without training
        plain.write_text(json.dumps({"recipes": {"reconstruct": "off", "round-weights": "nearest", "bias-correction": "off"}}))
        args = ["finetune", MODEL, "-d", TRAIN, "--config", plain, "--weight-bits", "2", "--epochs", "3", "--batch", "32", "--lr", "0.001"]

        # Two bits cost much without training; the float model teaches.
        told = json.loads(run(*args, "--check", CHECK, "--check-labels", LABELS, "-o", out, "--json").stdout)
        check = told["check"]
        best = told["epochs"][told["best"]]["check"]
        assert best > check["untrained"] + 0.02, told
        assert abs(top1(out) - best) < 1e-9, (top1(out), best)
        assert told["steps"] == 3 * 8 and told["epochs"][0].get("loss") is None and told["epochs"][3]["loss"] < told["epochs"][1]["loss"], told
        assert len(told["losses"]) == told["steps"] and abs(sum(told["losses"][:8]) / 8 - told["epochs"][1]["loss"]) < 1e-6, told
        want = out.read_bytes()

        # The same bytes at another number of threads; another seed gives others.
        run(*args, "--check", CHECK, "--check-labels", LABELS, "-o", out, "--threads", "2")
        assert out.read_bytes() == want, "another file with two threads"
        run(*args, "--check", CHECK, "--check-labels", LABELS, "-o", out, "--seed", "1")
        assert out.read_bytes() != want

        # With labels, and mixed; values inside are matched as well.
        run(*args, "--labels", LABELS, "-o", out)
        labelled = out.read_bytes()
        run(*args, "--labels", LABELS, "--teacher-share", "0.5", "-o", out)
        assert out.read_bytes() != labelled
        text = run(*args, "-o", out, "--check", CHECK, "--ranges", "learned", "--optimizer", "sgd", "--schedule", "step", "--step-size",
                   "16").stdout
        assert "as quantize writes it: dB" in text, text
        plain = work / "plain.onnx"
        run(*args, "-o", plain)
        run(*args, "-o", out, "--augment", "flip,crop")
        changed = out.read_bytes()
        run(*args, "-o", out, "--augment", "flip,crop", "--threads", "2")
        assert out.read_bytes() == changed != plain.read_bytes()
        run(*args, "-o", out, "--disable-observers-after", "8", "--clip-norm", "1", "--warmup", "4")

        # With BatchNorm of the batches for a while.
        run(*args, "-o", out, "--freeze-bn-after", "16")
        changed = out.read_bytes()
        run(*args, "-o", out, "--freeze-bn-after", "16", "--threads", "2")
        assert out.read_bytes() == changed != plain.read_bytes()
        assert top1(out) > check["untrained"], top1(out)

        # What no epoch improves is written as `quantize` writes it: the same bytes, whether or not scales learn.
        for bits, recipes in ((8, {}), (8, {"reconstruct": "on"}), (4, {})):
            rules = work / "rules.json"
            rules.write_text(json.dumps({"recipes": recipes}))
            same = ["-d", TRAIN, "--config", rules, "--check", CHECK]
            run("quantize", MODEL, *same, *(["--weight-bits", "4"] if bits == 4 else []), "-o", out)
            quantized = out.read_bytes()
            far = ["finetune", MODEL, *same, "--weight-bits", bits, "--epochs", "1", "--lr", "5", "-o", out]
            told = json.loads(run(*far, "--json").stdout)
            assert told["best"] == 0 and told["written"] == "quantized" and out.read_bytes() == quantized, (bits, recipes, told["epochs"])
            assert "no epoch is better than what `quantize` makes of the same samples, which was written" in run(*far).stdout

        # So where some are held out: the file is made of all samples, as `quantize` takes them, many or few.
        for count in (256, 100):
            source = f"npy:{DATA}/test.npy?std=255&limit={count}"
            run("quantize", MODEL, "-d", source, "-o", out)
            quantized = out.read_bytes()
            told = json.loads(run("finetune", MODEL, "-d", source, "--batch", "16", "--epochs", "1", "--lr", "5", "-o", out, "--json").stdout)
            assert told["written"] == "quantized" and told["held_out"] > 0 and out.read_bytes() == quantized, (count, told)

        # Without samples to check, some of those given are held out: what is written is no worse on them than what `quantize` writes.
        told = json.loads(run(*args, "--labels", LABELS, "-o", out, "--json").stdout)
        losses = [e["held_out_loss"] for e in told["epochs"]]
        assert told["held_out"] == 32 and told["steps"] == 3 * 7 and len(losses) == 4 and losses[told["best"]] == min(losses) < losses[0], told
        assert all(e["luck"] > 0 for e in told["epochs"][1:]) and losses[0] - losses[told["best"]] > told["epochs"][told["best"]]["luck"], told
        told = json.loads(run(*args[:-1], "10", "-o", out, "--json").stdout)
        assert told["best"] == 0 and told["written"] == "quantized", told
        said = run(*args[:-1], "10", "-o", out).stdout
        assert "no epoch is better, by more than luck and for most samples, than what `quantize` makes of the same samples, which was written" in said, said
        told = json.loads(run(*args, "-o", out, "--json", "--hold-out", "0").stdout)
        assert "held_out" not in told and told["steps"] == 3 * 8 and told["best"] == 3 and told["written"] == "trained", told
        said = run("finetune", MODEL, "-d", TRAIN, "--batch", "64", "--epochs", "1", "-o", out).stderr
        assert "256 samples are too few to hold some out, which takes 320 with a batch of 64: " in said, said

        # What follows from the bits goes by those that the rules end in, whoever says them.
        for dtype, flag, rate in (("s8", [], 1e-5), ("s4", [], 1e-4), ("s4", ["--weight-bits", "8"], 1e-5), ("s8", ["--weight-bits", "2"], 5e-4)):
            (work / "bits.json").write_text(json.dumps({"global": {"weight": {"dtype": dtype}}}))
            short = ["finetune", MODEL, "-d", TRAIN, "--config", work / "bits.json", *flag, "--batch", "64", "--epochs", "1", "-o", out, "--json"]
            told = json.loads(run(*short).stdout)
            assert told["lr"] == rate and any("too few to hold some out" in note for note in told["notes"]), (dtype, flag, told)
        said = run("finetune", MODEL, "-d", TRAIN, "--mode", "float", "--weight-bits", "4", "-o", out, code=1).stderr
        assert "leave --weight-bits out, or leave --mode float out" in said, said
        # Samples to check are looked at as those to train with.
        checked = run("finetune", MODEL, "-d", TRAIN, "--check", CHECK.replace("std=255", "std=1"), "--epochs", "1", "-o", out)
        assert "std" in checked.stderr and checked.stdout.count("input 'image' as fed") == 2, checked.stderr + checked.stdout

        # Less memory: the same bytes, or the reason why not.
        run(*args, "-o", out)
        whole = out.read_bytes()
        run(*args, "-o", out, "--memory-limit", "3200K")
        assert out.read_bytes() == whole
        said = run(*args, "-o", out, "--memory-limit", "1K", code=1).stderr
        assert "alive together" in said and "smaller batch" in said, said

        # A float model stays one.
        run("finetune", MODEL, "-d", TRAIN, "--labels", LABELS, "--mode", "float", "--epochs", "1", "-o", work / "f.onnx")
        assert "float" in run("inspect", work / "f.onnx").stdout

        # Killed at any point, and resumed: the same file.
        again = work / "again.onnx"
        command = [sys.argv[1], *map(str, args), "--checkpoint-seconds", "0", "-o", str(again)]
        run(*args, "-o", again)
        whole = again.read_bytes()
        again.unlink()
        killed_anywhere(command, again, whole, rng)

        # What is wrong, in plain words.
        wrong = work / "wrong.tsv"
        wrong.write_text("index\tclass\n" + "".join(f"{i}\t{12 if i == 77 else 3}\n" for i in range(256)))
        said = run(*args, "--labels", wrong, "-o", out, code=1).stderr
        assert "label 12 of sample" in said and "outside the 10 scores" in said, said
        said = run(*args, "--match", "nowhere", "-o", out, code=1).stderr
        assert "no value is named 'nowhere'; nearest:" in said, said
        said = run(*args, "--scores", "nowhere", "--labels", LABELS, "-o", out, code=1).stderr
        assert "no output 'nowhere'" in said, said
        said = run(*args, "--augment", "flip,blur", "-o", out, code=1).stderr
        assert "no augmentation 'blur'" in said, said
        said = run("finetune", MODEL, "-d", TRAIN, "--mode", "float", "--freeze-bn-after", "4", "-o", out, code=1).stderr
        assert "--freeze-bn-after" in said and "has no effect" in said, said
        said = run(*args, "--momentum", "0.5", "-o", out, code=1).stderr
        assert "--momentum" in said and "has no effect" in said, said
        said = run("finetune", MODEL, "-d", TRAIN, "--batch", "300", "-o", out, code=1).stderr
        assert "256 samples do not fill a batch of 300" in said, said
        said = run(*args, "--temperature", "3", "--loss", "mse", "-o", out, code=1).stderr
        assert "--temperature" in said and "has no effect" in said, said
        said = run(*args, "--warmup", "24", "-o", out, code=1).stderr
        assert "the learning rate rises for 24 steps, and the training has 21" in said, said
        said = run(*args, "--schedule", "step", "--step-size", "24", "--hold-out", "0", "-o", out, code=1).stderr
        assert "the learning rate stays for 24 steps, and the training has 24" in said, said
        said = run(*args, "--disable-observers-after", "4", "--ranges", "learned", "-o", out, code=1).stderr
        assert "--disable-observers-after" in said and "has no effect" in said, said
        said = run("finetune", MODEL, "-d", TRAIN, "--mode", "float", "-o", out, code=1).stderr
        assert "is its own teacher: there is nothing to learn" in said and "give labels" in said, said
        few = work / "few.json"  # activations of 4 bits, whose ranges learn
        few.write_text(json.dumps({"global": {"activation": {"dtype": "u8", "range": [0, 15]}}}))
        said = run("finetune", MODEL, "-d", TRAIN, "--config", few, "--disable-observers-after", "4", "-o", out, code=1).stderr
        assert "no range follows the batches" in said, said
        said = run("finetune", MODEL, "-d", TRAIN, "--epochs", "0", "-o", out, code=2).stderr
        assert "--epochs" in said, said
        said = run("finetune", work / "plain.onnx", "-d", TRAIN, "-o", out, code=1).stderr
        assert "is quantized already" in said, said
        # A model for one sample at a time takes a batch by --free-batch, and says so.
        one = ["finetune", MODEL, "--shape", "image=1x1x16x16", "-d", TRAIN, "--epochs", "1", "-o", out]
        said = run(*one, code=1).stderr
        assert "the model takes 1 samples at a time, and a batch of 32 was asked for" in said and "--free-batch" in said, said
        run(*one, "--free-batch")
        assert abs(top1(out) - 0.9) < 0.1, top1(out)
        # A number that is none stops the run where it comes up, with what led there on disk.
        values = [rng.random() for _ in range(64 * 256)]
        values[1000] = float("nan")
        (work / "nan.npy").write_bytes(npy_header((64, 1, 16, 16)) + struct.pack(f"<{len(values)}f", *values))
        train = ["finetune", MODEL, "-d", f"npy:{work}/nan.npy", "--weight-bits", "4", "-o", work / "n.onnx"]
        said = run(*train, code=1).stderr
        assert "at step" in said and "tensor 'image'" in said and "number 3 of its source" in said and "n.onnx.partial" in said, said
        assert "leave out the samples that hold them" in said and "learning rate" not in said, said
        assert not (work / "n.onnx").exists()
        said = run(*train, "--resume", "--seed", "4", code=1).stderr
        assert "is the checkpoint of another model, other data or other options" in said, said
        # So where something else is checked: numbers of two measures cannot be compared.
        (work / "n.onnx.partial").unlink()
        run(*train, "--check", CHECK, code=1)
        for other in (["--check", TRAIN], ["--check", CHECK, "--check-labels", LABELS]):
            said = run(*train, "--resume", *other, code=1).stderr
            assert "is the checkpoint of another model, other data or other options" in said, said
        for damaged in (b"PK\x03\x04 nothing of the kind", (work / "n.onnx.partial").read_bytes()[:5000]):
            (work / "n.onnx.partial").write_bytes(damaged)
            assert "delete it and begin anew" in run(*train, "--resume", code=1).stderr
    print("passed")


main()
