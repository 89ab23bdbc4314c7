#!/usr/bin/env python3
"""How the time of every pass grows with the number of nodes.

  growth.py BUILD/bin/qcompile [--kinds chain,outputs] [--nodes 1000,30000] [--pipeline lower,layout]

Graphs of one kind are made at both sizes and sent through the pipeline with `opt --time-passes`.  Printed is, per kind and pass, the time
at each size and the growth: the ratio of times over the ratio of nodes, 1 for a pass that is linear.  Passes below a millisecond at the
larger size are left out.  A small graph lies in the caches and a large one does not, which alone makes passes of a few nanoseconds per
node grow by 2 to 8; so the exit code is 1 only when a pass that takes a tenth of its pipeline's time grows by more than 2.
"""
import argparse
import collections
import re
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


def times(qcompile, kind, n, pipeline):
    constants, lines, result = KINDS[kind](n)
    with tempfile.NamedTemporaryFile("w", suffix=".qir") as file:
        file.write("\n".join(constants + ["graph @g(%x: f32[1,4]) {"] + lines + [f"  return {result}", "}"]) + "\n")
        file.flush()
        done = subprocess.run([qcompile, "opt", file.name, f"--pipeline={pipeline}", "--time-passes"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{kind} of {n} nodes: {done.stderr.strip()}")
    sums = collections.Counter()
    for line in done.stderr.splitlines():
        if match := ROW.match(line):
            sums[match[2]] += float(match[1])
    return sums


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qcompile")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--nodes", default="1000,30000")
    parser.add_argument("--pipeline", default="lower,project-recurrences,expand-dynamic,layout,split-conv-transpose,canonicalize,cse,dce")
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
    return worst > 2


if __name__ == "__main__":
    sys.exit(main())
