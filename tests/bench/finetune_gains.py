#!/usr/bin/env python3
"""What training wins: float, `quantize` and `finetune` without and with labels, on samples that were not trained on (docs/training.md).

    finetune_gains.py QCOMPILE SHARED_DIR [--only ROW,..] [--seeds 0,1,2] [--keep DIR]

A row is a model with bits of weights and activations.  All of its commands get the same samples, options and rules.  Top-1 in percent, of
`finetune` the mean over the seeds with the least and the greatest; `se` is the standard error of one such figure.  Samples and models are
those of SHARED_DIR/peers/accuracy.py; see `ROWS` for how they are parted.  Needs numpy, scipy and Pillow.
"""
import argparse
import csv
import dataclasses
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "differential"))
import accuracy  # noqa: E402
import numpy as np  # noqa: E402


@dataclasses.dataclass
class Row:
    model: str
    title: str
    split: object                          # of the peers' samples: (to train on, their labels or None, to measure on, their labels)
    options: list                          # of quantize and finetune
    training: list                         # of finetune
    labelled: list = dataclasses.field(default_factory=list)  # and with labels
    rules: dict | None = None


def everything(peers, name):
    """All samples with labels, and these: the 100 that the peers calibrate with, which their table gives without, and the others."""
    calib, labelled = peers.TABLE[name].data()
    feeds, score = labelled()
    if name == "mlperftiny_kws_dscnn":
        first = [int(row[2]) for row in csv.reader(open(peers.DATA / "kws01_features/y_labels.csv"))]
    else:
        first = [int(row["index"]) for row in csv.DictReader(open(peers.DATA / "imagenet_sample/labels.tsv"), delimiter="\t")]
    return calib() + feeds, first[:100] + list(score.labels)


def parted(peers, name, is_measured):
    feeds, labels = everything(peers, name)
    train, test = ([i for i in range(len(feeds)) if is_measured(i, len(feeds)) == wanted] for wanted in (False, True))
    return [feeds[i] for i in train], [labels[i] for i in train], [feeds[i] for i in test], [labels[i] for i in test]


def halves(peers, name):
    return parted(peers, name, lambda i, count: i >= count // 2)


def every_fifth(peers, name):
    return parted(peers, name, lambda i, count: i % 5 == 4)


def apart(peers, name):
    """Samples to calibrate with and samples with labels come from other places."""
    calib, labelled = peers.TABLE[name].data()
    feeds, score = labelled()
    labels = peers.DATA / "cifar10/calib_from_train_labels_u8.npy"
    return calib(), [int(y) for y in np.load(labels)] if name.startswith("cifar10") else None, feeds, list(score.labels)


# One scale a layer; activations of 4 bits.
PER_TENSOR = {"global": {"weight": {"axis": -1, "observer": "minmax"}}}
FOUR_BITS = {"global": {"activation": {"range": [0, 15]}}}
RESNET = ["--loss", "kl", "--temperature", "4", "--batch", "25", "--epochs", "6"]
MOBILENET = ["--batch", "20", "--epochs", "2"]
ROWS = {
    "dscnn_w4_tensor": Row("mlperftiny_kws_dscnn", "DS-CNN, 4, 8 bits, one scale a layer", halves, ["--weight-bits", "4"], ["--lr", "0.0002", "--epochs", "12"],
                           rules=PER_TENSOR),
    "resnet20_w4a8": Row("cifar10_resnet20", "ResNet-20, 4, 8 bits", apart, ["--weight-bits", "4"], [*RESNET, "--lr", "0.0001"], ["--teacher-share", "0.5"]),
    "resnet20_w4a4": Row("cifar10_resnet20", "ResNet-20, 4, 4 bits", apart, ["--weight-bits", "4"], [*RESNET, "--lr", "0.0005"], ["--teacher-share", "0.5"],
                         rules=FOUR_BITS),
    "resnet20_w2a8": Row("cifar10_resnet20", "ResNet-20, 2, 8 bits", apart, ["--weight-bits", "2"], [*RESNET, "--lr", "0.0005"], ["--teacher-share", "0.5"]),
    "kwt1_w4a8": Row("kwt1_transformer", "KWT-1, 4, 8 bits", apart, ["--weight-bits", "4"], ["--batch", "10", "--epochs", "5"]),
    "mobilenet_w4a8": Row("mobilenet_v1_0.75_224", "MobileNet v1 0.75, 4, 8 bits", every_fifth, ["--weight-bits", "4"], [*MOBILENET, "--lr", "0.00003"], ["--teacher-share", "0.5"]),
    "mobilenet_w8_tensor": Row("mobilenet_v1_0.75_224", "MobileNet v1 0.75, 8, 8 bits, one scale a layer", every_fifth, [], [*MOBILENET, "--lr", "0.00003"], ["--teacher-share", "0.5"],
                               rules=PER_TENSOR),
    # Defaults, nothing chosen.
    "dscnn_default": Row("mlperftiny_kws_dscnn", "DS-CNN, defaults", halves, [], None),
    "resnet20_default": Row("cifar10_resnet20", "ResNet-20, defaults", apart, [], None),
    "kwt1_default": Row("kwt1_transformer", "KWT-1, defaults", apart, [], None),
    "mobilenet_default": Row("mobilenet_v1_0.75_224", "MobileNet v1 0.75, defaults", every_fifth, [], None),
}


def top1(qcompile, model, feeds, labels, work):
    options, order = accuracy.by_shape(feeds, work, "test")
    return accuracy.Top1(labels)(accuracy.evaluate(qcompile, model, options, order, work))


def measure(qcompile, shared, peers, row, seeds, work):
    model = shared / "models" / (peers.TABLE[row.model].folder or row.model) / "model.onnx"
    train, train_labels, test, labels = row.split(peers, row.model)
    data, _ = accuracy.by_shape(train, work, "train")
    options = list(row.options)
    if row.rules:
        (work / "rules.json").write_text(json.dumps(row.rules))
        options += ["--config", work / "rules.json"]
    found = {"float": top1(qcompile, model, test, labels, work)}

    def of(column, verb, more):
        out = work / f"{column}.onnx"
        accuracy.tool(qcompile, verb, model, *data, *options, *more, "-o", out)
        return top1(qcompile, out, test, labels, work)
    found["quantize"] = of("quantize", "quantize", [])
    training = row.training + ["--hold-out", "0"] if row.training else []
    found["no labels"] = [of("taught", "finetune", [*training, "--seed", seed]) for seed in seeds]
    if train_labels:
        (work / "labels.txt").write_text("".join(f"{i},{y}\n" for i, y in enumerate(train_labels)))
        found["labels"] = [of("labelled", "finetune", [*training, *row.labelled, "--labels", work / "labels.txt", "--seed", seed]) for seed in seeds]
    error = 100 * float(np.sqrt(max(found["float"] / 100 * (1 - found["float"] / 100), 0) / len(labels)))
    return found, error, len(train), len(test)


def cell(value):
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{np.mean(value):.2f} ({min(value):.2f} to {max(value):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(ROWS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--keep", type=pathlib.Path, help="leave samples and models here")
    args = parser.parse_args()
    peers = accuracy.load_peers(args.shared)
    print("| row | trained on, measured on | float | quantize | no labels | labels | se |\n" + "| --- " * 7 + "|")
    for name in args.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            work = args.keep / name if args.keep else pathlib.Path(folder)
            work.mkdir(parents=True, exist_ok=True)
            found, error, trained, measured = measure(args.qcompile.resolve(), args.shared, peers, ROWS[name], args.seeds.split(","), work)
        columns = [cell(found.get(c)) for c in ("float", "quantize", "no labels", "labels")]
        print(f"| {ROWS[name].title} | {trained}, {measured} | {' | '.join(columns)} | {error:.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
