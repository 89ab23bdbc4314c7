#!/usr/bin/env python3
"""How the time of every pass grows with the number of nodes.

  growth.py BUILD/bin/qcompile [--kinds chain,outputs] [--nodes 1000,30000] [--pipeline lower,layout] [--command-nodes 1000,8000]

Graphs of one kind are made at both sizes and sent through the pipeline with `opt --time-passes`.  Printed is, per kind and pass, the time
at each size and the growth: the ratio of times over the ratio of nodes, 1 for a pass that is linear.  Passes below a millisecond at the
larger size are left out.  A small graph lies in the caches and a large one does not, which alone makes passes of a few nanoseconds per
node grow by 2 to 8; so the exit code is 1 only when a pass that takes a tenth of its pipeline's time grows by more than 2.

Then come whole commands, machine code and files included, at sizes of their own; they too must not grow by more than 2.
"""
import argparse
import collections
import pathlib
import re
import subprocess
import sys
import tempfile
import time

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
}


def run(qcompile, kind, n, command):
    """What a command writes on stderr, and its seconds."""
    constants, lines, result = KINDS[kind](n)
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder, "model.qir")
        model.write_text("\n".join(constants + ["graph @g(%x: f32[1,4]) {"] + lines + [f"  return {result}", "}"]) + "\n")
        start = time.monotonic()
        done = subprocess.run([qcompile, command[0], model, *(word.replace("OUT", folder) for word in command[1:])], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
        seconds = time.monotonic() - start
    if done.returncode != 0:
        sys.exit(f"{command[0]} of {kind} with {n} nodes: {done.stderr.strip()}")
    return done.stderr, seconds


def times(qcompile, kind, n, pipeline):
    sums = collections.Counter()
    for line in run(qcompile, kind, n, ["opt", f"--pipeline={pipeline}", "--time-passes"])[0].splitlines():
        if match := ROW.match(line):
            sums[match[2]] += float(match[1])
    return sums


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qcompile")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--nodes", default="1000,30000")
    parser.add_argument("--pipeline", default="lower,project-recurrences,expand-dynamic,layout,split-conv-transpose,canonicalize,cse,dce")
    parser.add_argument("--command-nodes", default="1000,8000", help="empty: no commands")
    args = parser.parse_args()
    small, large = (int(n) for n in args.nodes.split(","))
    worst = 0
    print(f"{'kind':10}{'pass':24}{small:>10}{large:>10}  ms{'growth':>8}")
    for kind in args.kinds.split(","):
        before, after = (times(args.qcompile, kind, n, args.pipeline) for n in (small, large))
        for name, ms in sorted(after.items(), key=lambda item: -item[1]):
            if ms < 1:
                continue
            growth = ms / max(before[name], 1e-3) / (large / small)
            if ms > sum(after.values()) / 10:
                worst = max(worst, growth)
            print(f"{kind:10}{name:24}{before[name]:10.2f}{ms:10.2f}    {growth:8.2f}")
    if not args.command_nodes:
        return worst > 2
    small, large = (int(n) for n in args.command_nodes.split(","))
    print(f"\n{'kind':10}{'command':24}{small:>10}{large:>10}   s{'growth':>8}")
    for kind in args.kinds.split(","):
        for verb, words in COMMANDS.items():
            before, after = (run(args.qcompile, kind, n, [verb, *words])[1] for n in (small, large))
            growth = after / before / (large / small)
            worst = max(worst, growth)
            print(f"{kind:10}{verb:24}{before:10.2f}{after:10.2f}    {growth:8.2f}")
    return worst > 2


if __name__ == "__main__":
    sys.exit(main())
