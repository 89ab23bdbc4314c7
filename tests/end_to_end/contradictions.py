#!/usr/bin/env python3
"""Sizes that contradict a model, in every verb that takes them: flags, arrays and samples.  An error names the input, the dim, the node that needs
another size and both sizes, in the words of who gave them: never a flag that was not typed, never the library's names.  Nothing overflows, hangs or
is written.

    contradictions.py QCOMPILE DATA_DIR

Standard library only.
"""
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

import onnx_bytes
from command_line import QCOMPILE, npy_header
from onnx_bytes import counts, integer, ints, node, port, tensor

HUGE, MOST = 1 << 40, (1 << 63) - 1


def drawn(seed, count):
    rng = random.Random(seed)
    return [rng.gauss(0, 0.4) for _ in range(count)]


MODELS = {
    # A sequence; its steps are averaged.
    "net": ([node("MatMul", ["x", "w"], ["h"], name="/layer/MatMul"), node("Relu", ["h"], ["r"]),
             node("ReduceMean", ["r"], ["y"], ints("axes", [1]), integer("keepdims", 0))],
            [port("x", "batch", "steps", 8)], [port("y", "batch", 16)], [tensor("w", [8, 16], drawn(1, 128))]),
    # Two lengths that must be equal, which their names do not say.
    "two": ([node("MatMul", ["a", "w"], ["n"]), node("Add", ["n", "b"], ["y"], name="/join/Add")],
            [port("a", "N", "T", 4), port("b", "N", "S", 4)], [port("y", "N", "U", 4)], [tensor("w", [4, 4], drawn(2, 16))]),
    # A window that must fit.
    "image": ([node("Conv", ["x", "w"], ["c"], ints("kernel_shape", [3, 3]), name="/conv"), node("Relu", ["c"], ["y"])],
              [port("x", "N", 3, "H", "W")], [port("y", "N", 4, "A", "B")], [tensor("w", [4, 3, 3, 3], drawn(3, 108))]),
    # Pieces of four, into which the length must divide.
    "pieces": ([node("Reshape", ["x", "to"], ["p"], name="/cut/Reshape"), node("MatMul", ["p", "w"], ["y"])],
               [port("x", 1, "T")], [port("y", "P", 2)], [tensor("w", [4, 2], drawn(4, 8)), counts("to", [2], [-1, 4])]),
    # All fixed.
    "fixed": ([node("MatMul", ["x", "w"], ["y"], name="/only/MatMul")], [port("x", 1, 5, 8)], [port("y", 1, 5, 2)], [tensor("w", [8, 2], drawn(5, 16))]),
}
# (model, sizes, what is said): of verbs that need all sizes.
FLAGS = [
    ("two", ["T=3", "S=4"], ["/join/Add", "dim 1 of 'a' is 3", "dim 1 of 'b' is 4", "3 against 4"]),
    ("two", ["a=1x3x4", "b=1x4x4"], ["/join/Add", "dim 1 of 'a' is 3", "dim 1 of 'b' is 4"]),
    ("two", ["a=1x3x4", "b=2x3x4"], ["'N' is 1 by a=1x3x4 and 2 by b=2x3x4", "dim 0"]),
    ("two", ["N=3", "a=1x3x4", "S=3"], ["'N' is 3 by N=3 and 1 by a=1x3x4"]),
    ("net", ["x=3x4"], ["'x'", "it has 3 dims, not 2", "[3,4]"]),
    ("net", ["x=1x2x3x4"], ["'x'", "it has 3 dims, not 4"]),
    ("net", ["x=1x5x9"], ["'x'", "dim 2 is 8, not 9"]),
    ("net", ["nope=3"], ["'nope'", "did you mean"]),
    ("net", ["step=3"], ["'step'", "did you mean 'steps'"]),
    ("net", ["steps=1x2"], ["2 sizes for one symbol", "steps=N"]),
    ("net", ["batch=2"], ["dim 1 of 'x'", "steps=N"]),
    ("net", [f"steps={HUGE}"], ["'x'", str(HUGE)]),
    ("net", [f"steps={HUGE}", f"batch={HUGE}"], ["'x'", str(HUGE)]),
    ("net", [f"steps={MOST}", f"batch={MOST}"], ["'x'", str(MOST)]),
    ("net", [f"x={MOST}x{MOST}x8"], ["'x'", str(MOST)]),
    ("net", [f"steps={MOST + 1}"], [f"'{MOST + 1}' is not a shape"]),
    ("net", ["steps=-1"], ["'-1' is not a shape"]),
    ("image", ["H=1", "W=5"], ["/conv", "dim 2 of 'x' is 1"]),
    ("image", ["H=7", "W=0"], ["/conv", "dim 3 of 'x' is 0"]),
    ("image", ["x=1x4x8x8"], ["'x'", "dim 1 is 3, not 4"]),
    ("image", [f"H={HUGE}", f"W={HUGE}"], ["'x'", str(HUGE)]),
    ("pieces", ["T=6"], ["/cut/Reshape", "dim 1 of 'x' is 6"]),
    ("fixed", ["x=1x6x8"], ["'x'", "dim 1 is 5, not 6"]),
    ("fixed", ["x=5x8"], ["'x'", "it has 3 dims, not 2"]),
    ("fixed", ["N=2", "x=3x5x8"], ["samples"]),
    ("fixed", ["T=2"], ["'T'"]),
]
# The same of arrays and samples: the shapes of inputs.
ARRAYS = [
    ("two", {"a": (1, 3, 4), "b": (1, 4, 4)}, ["/join/Add", "dim 1 of 'a' is 3", "dim 1 of 'b' is 4"]),
    ("two", {"a": (1, 3, 4), "b": (2, 3, 4)}, ["'b'", "dim 0 is N", "2 here and 1 in dim 0 of 'a'"]),
    ("net", {"x": (3, 4)}, ["'x'", "[3,4]", "[batch,steps,8]"]),
    ("net", {"x": (1, 5, 9)}, ["'x'", "dim 2 is 8"]),
    ("image", {"x": (1, 3, 2, 9)}, ["/conv", "dim 2 of 'x' is 2"]),
    ("pieces", {"x": (1, 6)}, ["/cut/Reshape", "dim 1 of 'x' is 6"]),
    ("fixed", {"x": (1, 6, 8)}, ["'x'", "5", "6"]),
]
# (model, another, sizes, what each verb says).
PAIRS = [
    ("fixed", "net", [], {"compare": ["'y'", "[1,5,2]", "[batch,16]"], "debug": ["no layer in common"]}),
    ("fixed", "two", [], {"compare": ["takes an input 'a'", "not of one origin"], "debug": ["not of one origin"]}),
    ("fixed", "image", [], {"compare": ["'y'", "[1,5,2]", "[N,4,H-2,W-2]"], "debug": ["no layer in common"]}),
    ("net", "fixed", ["steps=7", "batch=1"], {"compare": ["'y'", "[1,16]", "[1,5,2]"], "debug": ["no layer in common"]}),
]
LIBRARY = re.compile(r"LoadOptions|CalibrateOptions|BuildOptions|std::|terminate|Sanitizer|internal", re.I)


def called(*arguments):
    done = subprocess.run([QCOMPILE, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def check(failed, arguments, needles, said, code):
    """One error of the user's, with all needles, that speaks of nothing else."""
    first = next((line for line in said.splitlines() if line.startswith("qcompile: ")), "")
    typed = {a.split("=")[0] for a in map(str, arguments) if a.startswith("-")}
    problems = []
    if code != 1:
        problems.append(f"exit code {code}")
    problems += [f"does not say {n!r}" for n in needles if n not in said]
    problems += [f"speaks of {flag}, which was not typed" for flag in set(re.findall(r"(?<![\w-])--[a-z][\w-]*", first)) - typed]
    if LIBRARY.search(said):
        problems.append("speaks of the library")
    if problems:
        failed.append(f"qcompile {' '.join(map(str, arguments))}\n  {'; '.join(problems)}\n  {said.strip()}")


def write(path, shape):
    count = 1
    for d in shape:
        count *= d
    path.write_bytes(npy_header(shape) + struct.pack(f"<{count}f", *drawn(len(shape), count)))


def main():
    failed, count = [], 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        files = {}
        for name, parts in MODELS.items():
            files[name] = work / f"{name}.onnx"
            files[name].write_bytes(onnx_bytes.model(*parts))
        for name, sizes, needles in FLAGS:
            shapes = [a for s in sizes for a in ("--shape", s)]
            for verb in (["bench", "--seconds", "0"], ["profile", "--runs", "1"], ["compile", "-o", work / "m.o"], ["inspect", "--kernels"]):
                arguments = [verb[0], files[name], *shapes, *verb[1:]]
                code, said = called(*arguments)
                check(failed, arguments, needles, said, code)
                count += 1
            for verb in ("compare", "debug"):  # both models have these sizes
                arguments = [verb, files[name], files[name], *shapes, "-d", "random:1"]
                code, said = called(*arguments)
                check(failed, arguments, needles, said, code)
                count += 1
            assert not (work / "m.o").exists()
        for name, shapes, needles in ARRAYS:
            given, sources = [], []
            for index, (port_name, shape) in enumerate(shapes.items()):
                write(work / f"in{index}.npy", shape)
                given += ["--input", f"{port_name}={work / f'in{index}.npy'}"]
            for engine in ("jit", "interpreter"):
                arguments = ["run", files[name], *given, "--output-dir", work / "out", "--engine", engine]
                code, said = called(*arguments)
                check(failed, arguments, needles, said, code)
                count += 1
            if len(shapes) > 1:
                continue
            sources = ["-d", f"npy:{work / 'in0.npy'}"]
            for verb in (["run", "--output-dir", work / "out"], ["eval", "--predictions", work / "p.csv"], ["calibrate", "-o", work / "r.qcal"],
                         ["quantize", "-o", work / "q.onnx"], ["bench"]):
                arguments = [verb[0], files[name], *sources, *verb[1:]]
                code, said = called(*arguments)
                check(failed, arguments, [], said, code)
                count += 1
            for verb in ("compare", "debug"):
                arguments = [verb, files[name], files[name], *sources]
                code, said = called(*arguments)
                check(failed, arguments, [], said, code)
                count += 1
            for left in ("p.csv", "r.qcal", "q.onnx"):
                assert not (work / left).exists(), (name, left)
        # Two models that cannot be held against each other: what is unlike, by its name.
        for one, other, sizes, needles in PAIRS:
            for verb in ("compare", "debug"):
                arguments = [verb, files[one], files[other], *[a for s in sizes for a in ("--shape", s)], "-d", "random:1"]
                code, said = called(*arguments)
                check(failed, arguments, [*needles[verb], "help:"], said, code)
                count += 1
        # What was bound when a file was made is gone from it: the sizes are those of the first model.
        sizes = ["--shape", "steps=7", "--shape", "batch=1"]
        for arguments in (["quantize", files["net"], *sizes, "-d", "random:2", "-o", work / "bound.onnx"],
                          *[[verb, files["net"], work / "bound.onnx", *sizes, "-d", "random:1"] for verb in ("compare", "debug")],
                          ["bench", files["net"], *sizes, "--compare", work / "bound.onnx", "--seconds", "0"]):
            code, said = called(*arguments)
            if code:
                failed.append(f"qcompile {' '.join(map(str, arguments))}\n  exit code {code}\n  {said.strip()}")
            count += 1
        # Nothing in a dim is a size as well: a result or an error of ours.
        for name, sizes in (("net", ["steps=0"]), ("net", ["batch=0", "steps=3"]), ("two", ["T=0", "S=0"]), ("pieces", ["T=0"])):
            for verb in (["bench", "--seconds", "0"], ["compile", "-o", work / "z.o"]):
                arguments = [verb[0], files[name], *[a for s in sizes for a in ("--shape", s)], *verb[1:]]
                code, said = called(*arguments)
                if code not in (0, 1) or LIBRARY.search(said):
                    failed.append(f"qcompile {' '.join(map(str, arguments))}\n  exit code {code}\n  {said.strip()}")
                count += 1
    for problem in failed:
        print(problem)
    print(f"contradictions: {count} commands, {len(failed)} not as expected")
    sys.exit(1 if failed else 0)


main()
