#!/usr/bin/env python3
"""How the time of every pass and of whole commands grows with the number of nodes.

  growth.py BUILD/bin/qcompile [--kinds chain,outputs] [--nodes 1000,30000] [--pipeline lower,layout] [--command-nodes 1000,8000]

Graphs of one kind are made at both sizes and sent through the pipeline with `opt --time-passes`; of several runs the least time counts.
Growth is the ratio of times over the ratio of nodes: 1 where a pass is linear, 2 where a quadratic one meets twice the nodes.

A pass is within bounds if it grows by at most 2.  A small graph lies in the caches of the processor and a large one does not, which alone
makes passes that do little more than look at each node grow by 3 or more; but those are steps, and they end.  So where a pass grows by more
than 2 the graph is made again at 4 and at 8 times the larger size, far outside the caches (--behind).  There the pass must grow by at most
1.5 from the one to the other, or take at most 0.5 us for each node of the largest.  The first holds what could be quadratic in it below a
quarter of its time at the larger size (growth by 2 alone would let half of it pass), the second below 4 ps for each pair of nodes.  Passes
below a millisecond are left out.

Then come whole commands, machine code and files included, at sizes of their own, by the time of the processor that they take; they must not
grow by more than 2.
"""
import argparse
import collections
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

ROW = re.compile(r"^\s*([\d.]+)\s+\d+%\s+\d+ -> +\d+ +(\S+)$")


def chain(n):
    """Activations one behind the other."""
    lines, last = [], "%x"
    for i in range(n):
        lines.append(f"  %v{i} = sigmoid {last} : f32[1,4]")
        last = f"%v{i}"
    return [], lines, last


def linears(n):
    """Linear layers one behind the other, each with weights of its own."""
    constants, lines, last = [], [], "%x"
    for i in range(n // 2):
        constants.append(f"const #w{i} : f32[4,4] = rand({i + 1}, -1.0, 1.0)")
        lines.append(f"  %w{i} = const #w{i} : f32[4,4]")
        lines.append(f"  %v{i} = linear {last}, %w{i} : f32[1,4]")
        last = f"%v{i}"
    return constants, lines, last


def outputs(n):
    """As many outputs as nodes."""
    lines = [f"  %v{i} = leaky_relu %x {{alpha={0.001 + i / 1e6:.7f}}} : f32[1,4]" for i in range(n)]
    return [], lines, ", ".join(f"%v{i}" for i in range(n))


def concat(n):
    """One node with as many operands as there are nodes."""
    lines = [f"  %v{i} = leaky_relu %x {{alpha={0.001 + i / 1e6:.7f}}} : f32[1,4]" for i in range(n)]
    lines.append("  %y = concat " + ", ".join(f"%v{i}" for i in range(n)) + f" {{axis=0}} : f32[{n},4]")
    return [], lines, "%y"


def fanout(n):
    """One value that half of the nodes read."""
    lines, last = [], "%x"
    for i in range(n // 2):
        lines.append(f"  %s{i} = leaky_relu %x {{alpha={0.001 + i / 1e6:.7f}}} : f32[1,4]")
        lines.append(f"  %v{i} = add {last}, %s{i} : f32[1,4]")
        last = f"%v{i}"
    return [], lines, last


KINDS = {f.__name__: f for f in (chain, linears, outputs, concat, fanout)}


# The verb, and what stands behind the model; OUT is a folder of the run's own.
COMMANDS = {
    "inspect": [],
    "bench": ["--no-cache", "--seconds", "0"],
    "quantize": ["-d", "random:2", "-o", "OUT/quantized.onnx"],
    "run": ["--engine", "interpreter", "--input", "x=OUT/x.npy", "--output-dir", "OUT"],
}


def npy(floats):
    """Ones, as a row."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {floats}), }}"
    header += " " * (-(11 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack("<f", 1) * floats


def run(qcompile, kind, n, command):
    """What a command writes on stderr, and its seconds on the processor."""
    constants, lines, result = KINDS[kind](n)
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder, "model.qir")
        model.write_text("\n".join(constants + ["graph @g(%x: f32[1,4]) {"] + lines + [f"  return {result}", "}"]) + "\n")
        pathlib.Path(folder, "x.npy").write_bytes(npy(4))
        before = os.times()
        done = subprocess.run([qcompile, command[0], model, *(word.replace("OUT", folder) for word in command[1:])], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
        after = os.times()
    if done.returncode != 0:
        sys.exit(f"{command[0]} of {kind} with {n} nodes: {done.stderr.strip()}")
    return done.stderr, after.children_user + after.children_system - before.children_user - before.children_system


def times(qcompile, kind, n, pipeline, runs):
    """Milliseconds of every pass, the least of several runs."""
    least = {}
    for _ in range(runs):
        sums = collections.Counter()
        for line in run(qcompile, kind, n, ["opt", f"--pipeline={pipeline}", "--time-passes"])[0].splitlines():
            if match := ROW.match(line):
                sums[match[2]] += float(match[1])
        least = {name: min(ms, least.get(name, ms)) for name, ms in sums.items()}
    return least


MOST_GROWTH, MOST_BEHIND_THE_STEPS = 2, 1.5
NS_OF_A_LOOK = 500


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qcompile")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--nodes", default="1000,30000")
    parser.add_argument("--behind", default="120000,240000")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pipeline", default="lower,project-recurrences,expand-dynamic,layout,split-conv-transpose,canonicalize,cse,dce")
    parser.add_argument("--command-nodes", default="1000,8000", help="empty: no commands")
    args = parser.parse_args()
    sizes = [int(n) for n in args.nodes.split(",")]
    beyond = []
    print(f"{'kind':10}{'pass':24}" + "".join(f"{n:>10}" for n in sizes) + f"  ms{'growth':>8}")
    for kind in args.kinds.split(","):
        small, large = (times(args.qcompile, kind, n, args.pipeline, args.runs) for n in sizes)
        steps = []
        for name, ms in sorted(large.items(), key=lambda item: -item[1]):
            if ms < 1:
                continue
            growth = ms / max(small[name], 1e-3) / (sizes[1] / sizes[0])
            print(f"{kind:10}{name:24}{small[name]:10.2f}{ms:10.2f}    {growth:8.2f}{'' if growth <= MOST_GROWTH else ' grows'}", flush=True)
            if growth > MOST_GROWTH:
                steps.append(name)
        if not steps:
            continue
        far = [int(n) for n in args.behind.split(",")]
        small, large = (times(args.qcompile, kind, n, args.pipeline, args.runs) for n in far)
        print(f"{kind:10}{'behind the caches':24}" + "".join(f"{n:>10}" for n in far))
        for name in steps:
            growth = large[name] / small[name] / (far[1] / far[0])
            within = growth <= MOST_BEHIND_THE_STEPS or large[name] * 1e6 / far[1] <= NS_OF_A_LOOK
            print(f"{kind:10}{name:24}{small[name]:10.2f}{large[name]:10.2f}    {growth:8.2f}{'' if within else ' grows'}", flush=True)
            if not within:
                beyond.append(f"{name} of {kind}")
    if args.command_nodes:
        sizes = [int(n) for n in args.command_nodes.split(",")]
        print(f"\n{'kind':10}{'command':24}" + "".join(f"{n:>10}" for n in sizes) + f"   s{'growth':>8}")
        for kind in args.kinds.split(","):
            for verb, words in COMMANDS.items():
                small, large = (run(args.qcompile, kind, n, [verb, *words])[1] for n in sizes)
                growth = large / small / (sizes[1] / sizes[0])
                print(f"{kind:10}{verb:24}{small:10.2f}{large:10.2f}    {growth:8.2f}{'' if growth <= MOST_GROWTH else ' grows'}", flush=True)
                if growth > MOST_GROWTH:
                    beyond.append(f"{verb} of {kind}")
    if beyond:
        print("\nbeyond the bounds: " + ", ".join(beyond))
    return bool(beyond)


if __name__ == "__main__":
    sys.exit(main())
