#!/usr/bin/env python3
"""The cost model's ratio of int8 to float beside the measured one, at targets that this machine can be held to.

    what_if.py QCOMPILE MODELS_DIR [--targets avx2,avxvnni,avx512vnni] [--runs 60] [--only NAME,..] [--json OUT]

MODELS_DIR/NAME/model.onnx each, calibrated with noise.  Per model and target: the ratio of the sums over all steps, predicted and measured
(minima of steps, int8 and float in turns), its error, the rank correlation of the int8 layers, and that of two measurements (`again`), above
which no prediction can be told from another.  At the end the median error and median correlation; exit code 1 where the median error is above
15% or the correlation below 0.9.  --layers: every int8 layer, predicted and measured twice.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from fit_costs import rank_correlation  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qcompile")
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--targets", default="avx2,avxvnni,avx512vnni")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--only", default="")
    parser.add_argument("--json")
    parser.add_argument("--layers", action="store_true")
    o = parser.parse_args()
    only = set(filter(None, o.only.split(",")))

    def tool(*args):
        done = subprocess.run([o.qcompile, *map(str, args)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(" ".join(done.stderr.split())[-200:])
        return json.loads(done.stdout)

    rows = []
    print(f"{'model':28} {'target':11} predicted  measured    error  layers   rank  again  load")
    with tempfile.TemporaryDirectory() as folder:
        int8 = pathlib.Path(folder) / "int8.onnx"
        for path in sorted(o.models.glob("*/model.onnx")):
            name = path.parent.name
            if only and name not in only:
                continue
            try:
                tool("quantize", path, "-d", "random:2", "--json", "--compare-samples", "0", "-o", int8)
                for target in o.targets.split(","):
                    there = tool("profile", int8, "--predict", "--target", target, "--json")
                    here, again = (tool("profile", int8, "--compare", "float", "--target", target, "--runs", o.runs, "--json") for _ in range(2))
                    predicted, measured = (r["total_us"] / r["other_total_us"] for r in (there, here))
                    theirs, twice = ({r["layer"]: r["us"] for r in run["layers"]} for run in (here, again))
                    kept = [r for r in there["layers"] if theirs.get(r["layer"], 0) > 0 and twice.get(r["layer"], 0) > 0 and r["us"] > 0]
                    pairs = [(r["us"], theirs[r["layer"]], twice[r["layer"]]) for r in kept]
                    columns = list(map(list, zip(*pairs)))
                    rank, same = (rank_correlation(columns[i], columns[j]) if pairs else None for i, j in ((0, 1), (1, 2)))
                    error = predicted / measured - 1
                    rows.append({"model": name, "target": target, "predicted": predicted, "measured": measured, "error": error, "rank": rank, "again": same})
                    print(f"{name:28} {target:11} {predicted:9.3f} {measured:9.3f} {100 * error:+8.1f}% {len(pairs):6}  "
                          f"{'   -' if rank is None or same is None else f'{rank:.3f}  {same:.3f}'}  {os.getloadavg()[0]:.1f}", flush=True)
                    if o.layers:
                        for r in sorted(kept, key=lambda r: theirs[r["layer"]]):
                            print(f"    {r['us']:9.2f} {theirs[r['layer']]:9.2f} {twice[r['layer']]:9.2f}  {r['us'] / theirs[r['layer']]:5.2f}  "
                                  f"{r['op']:12} {r['kernels'][:60]:60}  {r['layer']}")
            except RuntimeError as failure:
                print(f"{name:28} left out: {failure}")
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(rows, indent=1))
    if not rows:
        return 1
    error = statistics.median(abs(r["error"]) for r in rows)
    rank = statistics.median([r["rank"] for r in rows if r["rank"] is not None] or [0])
    for target in o.targets.split(","):
        own = [abs(r["error"]) for r in rows if r["target"] == target]
        print(f"{target}: median error {100 * statistics.median(own):.1f}% of {len(own)} models" if own else f"{target}: none")
    print(f"median error {100 * error:.1f}%, median rank correlation of layers {rank:.3f}")
    return 1 if error > 0.15 or rank < 0.9 else 0


sys.exit(main())
