#!/usr/bin/env python3
"""Every flag of `quantize` that wins accuracy back, alone, on a small model that has the trouble it is for.

    recovery.py QCOMPILE DATA_DIR

The signal to noise ratio of the outputs, float against int8, must rise by a stated number of dB with the flag on, all the others off; and
the file must be the same whatever the number of threads.  NaN and Inf in two of the samples must not take that away.  Standard library only.
"""
import json
import math
import pathlib
import random
import struct
import sys
import tempfile
import zipfile

from command_line import npy_header, recipe_rows, run

GUARDS_OFF = {"--guard-masked-scores": "off", "--guard-biases": "off"}
SAMPLES = 24
SPOILT = 1.5  # dB that samples with numbers that are not finite may cost of what is wanted


def matrix(rng, rows, columns, scale=lambda row, column: 1.0):
    return [rng.gauss(0, 1) * scale(r, c) for r in range(rows) for c in range(columns)]


def model(constants, body, inputs):
    """A graph in text form; constants: name -> (shape, values)."""
    text = [f"const #{n} : f32[{','.join(map(str, s))}] = [{', '.join(f'{v:.8g}' for v in values)}]" for n, (s, values) in constants.items()]
    text += [f"graph @model({', '.join(f'%{n}: f32[{d}]' for n, d in inputs.items())}) {{"]
    text += [f"  %{n} = const #{n} : f32[{','.join(map(str, s))}]" for n, (s, _) in constants.items()]
    return "\n".join(text + body + ["}", ""])


def outliers_behind_a_norm(rng):
    """Two channels of a norm are 50 times the others, which lose their bits to them; their weights are small."""
    loud = lambda c: 50.0 if c in (3, 17) else 1.0
    constants = {"g": ([32], [loud(c) for c in range(32)]), "b": ([32], [0.0] * 32),
                 "w": ([32, 32], matrix(rng, 32, 32, lambda _, c: 0.2 / loud(c)))}
    body = ["  %n = layer_norm %x, %g, %b {axis=2} : f32[1,16,32]", "  %y = linear %n, %w : f32[1,16,32]", "  return %y"]
    return model(constants, body, {"x": "1,16,32"}), {"x": ((1, 16, 32), lambda: rng.gauss(0, 1))}


def channels_of_unlike_size(rng):
    """Channels between two convolutions differ by 100, and the weights behind them make up for it."""
    size = [100.0 ** (c / 15) for c in range(16)]
    constants = {"v": ([16, 8, 1, 1], matrix(rng, 16, 8, lambda r, _: size[r])), "w": ([8, 16, 1, 1], matrix(rng, 8, 16, lambda _, c: 1 / size[c]))}
    body = ["  %a = conv %x, %v : f32[1,16,8,8]", "  %r = relu %a : f32[1,16,8,8]", "  %y = conv %r, %w : f32[1,8,8,8]", "  return %y"]
    return model(constants, body, {"x": "1,8,8,8"}), {"x": ((1, 8, 8, 8), lambda: rng.gauss(0, 1))}


def a_dead_channel(rng):
    """A channel is 0 whatever comes in, and what reads it, one scale for all, is the largest weight by far."""
    constants = {"v": ([16, 8, 1, 1], matrix(rng, 16, 8, lambda r, _: 0.0 if r == 5 else 1.0)), "w": ([16, 1, 3, 3], matrix(rng, 16, 9, lambda r, _: 100.0 if r == 5 else 1.0))}
    body = ["  %a = conv %x, %v : f32[1,16,8,8]", "  %r = relu %a : f32[1,16,8,8]", "  %y = conv %r, %w {group=16, pads=[1,1,1,1]} : f32[1,16,8,8]", "  return %y"]
    return model(constants, body, {"x": "1,8,8,8"}), {"x": ((1, 8, 8, 8), lambda: rng.gauss(0, 1))}


def weights_of_one_large_value(rng, mean):
    """One weight of each row sets the scale of the row; inputs around `mean` make the errors of the others add up."""
    constants = {"w": ([16, 64], matrix(rng, 16, 64, lambda _, c: 4.0 if c == 5 else 0.05))}
    return model(constants, ["  %y = linear %x, %w : f32[64,16]", "  return %y"], {"x": "64,64"}), {"x": ((64, 64), lambda: rng.gauss(mean, 1))}


def chain_of_few_bits(rng):
    """Four layers whose weights of 4 bits add their errors up, on inputs that go together."""
    constants = {f"w{k}": ([32, 32], matrix(rng, 32, 32, lambda r, c: 0.25)) for k in range(4)}
    body = [f"  %l{k} = linear %{f'r{k - 1}' if k else 'x'}, %w{k} : f32[64,32]\n  %r{k} = relu %l{k} : f32[64,32]" for k in range(4)]
    state = [0.0]

    def draw():
        state[0] = 0.9 * state[0] + 0.45 * rng.gauss(0, 1)
        return state[0]
    return model(constants, [*body, "  return %r3"], {"x": "64,32"}), {"x": ((64, 32), draw)}


def masked_attention(rng):
    """A mask's -10000 is added to scores of order 1 in front of a softmax; a linear layer reads them too (talking heads)."""
    constants = {"big": ([1], [-10000.0]), "v": ([32, 32], matrix(rng, 32, 32))}
    body = ["  %s = matmul %q, %k : f32[16,32]", "  %m = mul %mask, %big : f32[16,32]", "  %a = add %s, %m : f32[16,32]",
            "  %p = softmax %a {axis=1} : f32[16,32]", "  %y = linear %a, %v : f32[16,32]", "  return %p, %y"]
    inputs = {"q": "16,32", "k": "32,32", "mask": "16,32"}
    return model(constants, body, inputs), {"q": ((16, 32), lambda: rng.gauss(0, 0.5)), "k": ((32, 32), lambda: rng.gauss(0, 0.5)),
                                            "mask": ((16, 32), lambda: float(rng.random() < 0.3))}


def biases_beyond_int32(rng):
    """The weights of one output are so small that its bias, in steps of their scale, does not fit in int32."""
    constants = {"w": ([16, 32], matrix(rng, 16, 32, lambda r, _: 1e-12 if r == 4 else 0.1)), "b": ([16], [100.0] * 16)}
    return model(constants, ["  %y = linear %x, %w, %b : f32[8,16]", "  return %y"], {"x": "8,32"}), {"x": ((8, 32), lambda: rng.gauss(0, 1))}


# (the flag, what it is set to, model, the least gain in dB), and flags beside it.
CASES = [
    ("--smooth-quant", "on", outliers_behind_a_norm, 6),
    ("--dead-channels", "on", a_dead_channel, 6, {"--backend": "qnnpack"}),
    ("--equalize-weights", "on", channels_of_unlike_size, 6, {"--backend": "qnnpack"}),
    ("--equalize", "on", channels_of_unlike_size, 3),
    ("--reconstruct", "auto", chain_of_few_bits, 3, {"--weight-bits": "4"}),
    ("--reconstruct", "auto", chain_of_few_bits, 3, {"--weight-bits": "2"}),
    ("--reconstruct", "layers", chain_of_few_bits, 3, {"--weight-bits": "2"}),
    ("--reconstruct", "on", chain_of_few_bits, 1),
    ("--round-weights", "calibrated", lambda rng: weights_of_one_large_value(rng, 4), 3),
    ("--bias-correction", "fast", lambda rng: weights_of_one_large_value(rng, 2), 3),
    ("--bias-correction", "full", lambda rng: weights_of_one_large_value(rng, 2), 3),
    ("--guard-masked-scores", "on", masked_attention, 6),
    ("--guard-biases", "on", biases_beyond_int32, 6),
]


def write_samples(path, inputs, bad=None):
    """`bad`: two elements of the first input become this and its negative."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (shape, draw) in inputs.items():
            values = [draw() for _ in range(SAMPLES * math.prod(shape))]
            if bad is not None:
                values[len(values) // 3], values[len(values) // 2] = bad, -bad
                bad = None
            archive.writestr(f"{name}.npy", npy_header((SAMPLES, *shape)) + struct.pack(f"<{len(values)}f", *values))


def quantized(work, name, flags, threads=1):
    """(SQNR of the last output in dB, bytes of the file)"""
    out = work / name
    options = [o for pair in flags.items() for o in pair]
    report = json.loads(run("quantize", work / "model.qir", "-d", f"npz:{work}/samples.npz", "-o", out, *options, "--compare-samples", SAMPLES, "--threads", threads, "--json").stdout)
    return [row["sqnr_db"] for row in report["layers"] if row["op"] == "output"][-1], out.read_bytes()


def main():
    passed, failed = 0, []
    recipes = {f"--{row['name']}": row["off"] for row in recipe_rows()}
    assert {flag for flag, *_ in CASES} == {*recipes, *GUARDS_OFF}, "a recipe without a case"
    for flag, value, make, least, *beside in CASES:
        off = recipes | GUARDS_OFF | (beside[0] if beside else {})
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            text, inputs = make(random.Random(7))
            (work / "model.qir").write_text(text)
            write_samples(work / "samples.npz", inputs)
            before, plain = quantized(work, "plain.qir", off)
            after, better = quantized(work, "better.qir", off | {flag: value})
            _, threaded = quantized(work, "threaded.qir", off | {flag: value}, threads=2)
            # Numbers that are not finite are left out of what is won back, as of ranges.
            spoilt = []
            for bad in (math.nan, math.inf):
                write_samples(work / "samples.npz", inputs, bad)
                spoilt.append(quantized(work, "spoilt.qir", off | {flag: value})[0])
            print(f"{flag} {value}: {before:.1f} -> {after:.1f} dB, at least {least} more wanted; {spoilt[0]:.1f} and {spoilt[1]:.1f} with NaN and Inf")
            if min(spoilt) < before + least - SPOILT:
                failed.append(f"{flag} {value}: spoilt by what is not finite")
            elif after >= before + least and better != plain and better == threaded:
                passed += 1
            else:
                failed.append(f"{flag} {value}" + ("" if better == threaded else ": another file with 2 threads"))
    print(f"{passed} passed, {len(failed)} failed" + "".join(f"\n  {f}" for f in failed))
    sys.exit(1 if failed else 0)


main()
