#!/usr/bin/env python3
"""Beside the peers' quantizers, answer by answer: is a difference between two metrics more than luck?

    accuracy_vs_peers.py QCOMPILE SHARED_DIR [--only NAME,..] [--methods ort-minmax,..] [--json OUT] [--jobs N]

Peers quantize and run here, on the calibration samples that qcompile gets (SHARED_DIR/peers/accuracy.py).  One row per model and method:

    ours, peer          the metric, and the float model's
    only ours/only peer answers that one gets right and the other wrong
    p                   how often a fair coin splits those answers at least as unevenly (two-sided sign test, McNemar's exact test); for
                        a rank correlation: share of 2000 paired resamplings on the other side of 0, twice
    changed             answers of ours, and of the peer, that differ from the float model's in being right
    SQNR                of ours, and of the peer: signal to quantization noise of the outputs against the float model's, dB

A peer that changes more answers and has the lower SQNR is farther from the model it was given, wherever its score happens to fall.
Needs what SHARED_DIR/peers/accuracy.py needs; exit code 77, which ctest reports as skipped, when one is missing.
"""
import argparse
import contextlib
import json
import pathlib
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import accuracy as ours
import numpy as np

try:
    import nncf  # noqa: F401
    import onnxruntime  # noqa: F401
    import openvino  # noqa: F401
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)
from scipy.stats import binomtest, spearmanr

METHODS = ["ort-minmax", "ort-percentile", "ort-s8-minmax", "nncf"]


def sign_test(a, b):
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return only_a, only_b, binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0


def similarities(outs, feeds):
    """Cosine of the mean-pooled sentences of each pair; the feeds are all first sentences, then all second ones."""
    pooled = np.stack([(o[0] * f["attention_mask"][0][:, None]).sum(0) for o, f in zip(outs, feeds)])
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    half = len(pooled) // 2
    return (pooled[:half] * pooled[half:]).sum(1)


def resampled(a, b, truth):
    """Two-sided p of spearmanr(a, truth) == spearmanr(b, truth), pairs drawn with replacement."""
    rng, below = np.random.default_rng(0), 0
    for _ in range(2000):
        rows = rng.integers(0, len(truth), len(truth))
        below += spearmanr(a[rows], truth[rows]).statistic < spearmanr(b[rows], truth[rows]).statistic
    return min(1.0, 2 * min(below, 2000 - below) / 2000)


def peer_outputs(peers, name, method, feeds, work):
    path = work / ("int8.xml" if method == "nncf" else "int8.onnx")
    made = peers.step("quantize", name, method, path, peers.CALIBRATION_LIMIT)
    if "error" in made:
        raise RuntimeError(made["error"])
    return (peers.run_openvino if method == "nncf" else peers.run_ort)(path, feeds)


def rows_of(args, peers, name):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        (work / "ours").mkdir()
        feeds, score, float_outs, our_outs, *_ = ours.answers(args.qcompile, args.shared, peers, name, [], work / "ours")
        rows = []
        for method in args.methods.split(","):
            row = {"model": name, "method": method, "float": score(float_outs), "ours": score(our_outs), "sqnr": ours.sqnr(float_outs, our_outs)}
            rows.append(row)
            (work / method).mkdir()
            try:
                outs = peer_outputs(peers, name, method, feeds, work / method)
            except Exception as error:  # noqa: BLE001  a method that fails is a row with its error
                row["error"] = " ".join(str(error).split())[:120]
                continue
            row |= {"peer": score(outs), "peer_sqnr": ours.sqnr(float_outs, outs)}
            if peers.TABLE[name].metric not in ours.NOT_COUNTED:
                right = [ours.each(score, o) for o in (float_outs, our_outs, outs)]
                only_ours, only_peer, p = sign_test(right[1], right[2])
                row |= {"only_ours": only_ours, "only_peer": only_peer, "p": p, "changed": int((right[0] != right[1]).sum()),
                        "peer_changed": int((right[0] != right[2]).sum())}
            elif peers.TABLE[name].metric.startswith("Spearman"):
                step = 3 if name.endswith("padded") else 1
                truth = np.load(args.shared / "data/stsb/stsb_test.npz")["score"][::step]
                row["p"] = resampled(similarities(our_outs, feeds), similarities(outs, feeds), truth)
        return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(n for n, best in ours.PEERS.items() if best), help="default: all that a peer can do")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    args.qcompile, args.shared = args.qcompile.resolve(), args.shared.resolve()
    args.json = args.json and args.json.resolve()
    peers = ours.load_peers(args.shared)
    print("| model | method | float | ours | peer | only ours/only peer | p | changed ours/peer | SQNR ours/peer dB |\n" + "| --- " * 9 + "|")
    table, worse = [], 0
    # ONNX Runtime's preprocessing leaves files in the current folder.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), ThreadPoolExecutor(args.jobs) as pool:
        for rows in pool.map(lambda name: rows_of(args, peers, name), args.only.split(",")):
            for row in rows:
                if "error" in row:
                    print(f"| {row['model']} | {row['method']} | FAILED: {row['error']} |", flush=True)
                    continue
                worse += row["peer"] > row["ours"] and row.get("p", 0) < 0.05
                pair = f"{row['only_ours']}/{row['only_peer']}" if "only_ours" in row else "-"
                changed = f"{row['changed']}/{row['peer_changed']}" if "changed" in row else "-"
                p = f"{row['p']:.2f}" if "p" in row else "-"
                print(f"| {row['model']} | {row['method']} | {row['float']:.2f} | {row['ours']:.2f} | {row['peer']:.2f} | {pair} | {p} | {changed} | "
                      f"{row['sqnr']:.1f}/{row['peer_sqnr']:.1f} |", flush=True)
            table += rows
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))
    print(f"{worse} rows where a peer is better by more than luck (p < 0.05)")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
