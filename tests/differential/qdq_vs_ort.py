#!/usr/bin/env python3
"""Quantized models exchanged with ONNX Runtime, both ways: the same top-1 on at least 99% of the whole evaluation sets.

    qdq_vs_ort.py QCOMPILE SHARED_DIR [--way ours|theirs|qoperator] [--optimizations on|off] [NAME ...]

ours:      quantized here with default rules, exported as QDQ ONNX; run here and by ONNX Runtime.
theirs:    quantized by ONNX Runtime's quantize_static (QDQ, u8 activations, s8 weights per channel where that works); run here and by
           ONNX Runtime.
qoperator: likewise in its other format (QLinearConv and the like).

Samples whose two highest scores are equal in either result have no top-1 and are counted apart.  Needs numpy, Pillow, onnx and onnxruntime,
of the Python that runs it; exit code 77, which ctest reports as skipped, when one is missing.
"""
import argparse
import csv
import gzip
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnx.version_converter
    import onnxruntime
    from onnxruntime import quantization
    from PIL import Image
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

AGREEMENT = 0.99
FORMS = {"theirs": quantization.QuantFormat.QDQ, "qoperator": quantization.QuantFormat.QOperator}
WAYS = ["ours", *FORMS]
onnxruntime.set_default_logger_severity(4)


# ---- data: (calibration, evaluation), float32 arrays whose first axis is the sample ----

def imagenet(prepare, resample="BILINEAR"):
    def load(data):
        rows = list(csv.DictReader(open(data / "imagenet_sample/labels.tsv"), delimiter="\t"))
        images = []
        for row in rows:
            image = Image.open(data / "imagenet_sample" / row["file"]).convert("RGB")
            scale = 256 / min(image.size)
            width, height = (round(s * scale) for s in image.size)
            x, y = (width - 224) // 2, (height - 224) // 2
            image = image.resize((width, height), getattr(Image.Resampling, resample)).crop((x, y, x + 224, y + 224))
            images.append(prepare(np.asarray(image, np.float32)).astype(np.float32).transpose(2, 0, 1))
        return np.stack(images[:100]), np.stack(images[100:])
    return load


def cifar10(data):
    def read(file):
        x = np.load(data / "cifar10" / file).astype(np.float32) / 255
        return ((x - [.485, .456, .406]) / [.229, .224, .225]).astype(np.float32).transpose(0, 3, 1, 2)
    return read("calib_from_train_images_u8_nhwc.npy")[:300], read("test_images_u8_nhwc.npy")


def keywords(data):
    files = [row[0] for row in csv.reader(open(data / "kws01_features/y_labels.csv"))]
    x = np.stack([np.fromfile(data / "kws01_features" / f, np.int8) for f in files]).astype(np.float32)
    x = ((x - 83) * np.float32(0.5847029)).reshape(-1, 1, 49, 10)
    return x[:100], x[100:]


def digits(data):
    pixels = gzip.open(data / "mnist_test/t10k-images-idx3-ubyte.gz").read()[16:]
    x = np.frombuffer(pixels, np.uint8).reshape(-1, 1, 28, 28).astype(np.float32)
    return x[:100], x[100:2100]


MODELS = {
    "squeezenet1.1_imagenet": imagenet(lambda x: x[..., ::-1] - [104, 117, 123]),
    "mobilenet_v1_0.75_224": imagenet(lambda x: x / 127.5 - 1),
    "efficientnet_lite0": imagenet(lambda x: (x - 127) / 128, "BICUBIC"),
    "cifar10_resnet20": cifar10, "cifar10_resnet56": cifar10, "mlperftiny_kws_dscnn": keywords, "mnist_cntk": digits,
}
# quantize_static fails per channel on a MatMul with bias: "the truth value of an array with more than one element is ambiguous".
PER_TENSOR = {"mnist_cntk"}


# ---- quantizers ----

def quantize_here(qcompile, model, calibration, work):
    np.save(work / "calib.npy", calibration)
    done = subprocess.run([qcompile, "quantize", model, "-d", f"npy:{work / 'calib.npy'}", "-o", work / "q.onnx"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return work / "q.onnx"


def quantize_there(model, calibration, work, form, per_channel):
    ready, out = work / "ready.onnx", work / "q.onnx"
    proto = onnx.load(model)
    if proto.opset_import[0].version < 13:  # per channel needs it
        onnx.save(onnx.version_converter.convert_version(proto, 13), work / "opset13.onnx")
        model = work / "opset13.onnx"
    try:
        quantization.quant_pre_process(str(model), str(ready))
    except Exception:  # noqa: BLE001  its symbolic shape inference does not take every model
        quantization.quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
    name = onnxruntime.InferenceSession(str(ready), providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Reader(quantization.CalibrationDataReader):
        samples = iter([{name: x[None]} for x in calibration])

        def get_next(self):
            return next(self.samples, None)
    quantization.quantize_static(str(ready), str(out), Reader(), quant_format=form, per_channel=per_channel,
                                 activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)
    return out


# ---- engines: scores, one row per sample ----

def run_here(qcompile, model, output, evaluation, work):
    np.save(work / "eval.npy", evaluation)
    done = subprocess.run([qcompile, "run", model, "-d", f"npy:{work / 'eval.npy'}", "--output-dir", work / "out"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return np.load(work / "out" / f"{output}.npy").reshape(len(evaluation), -1)


def run_there(model, evaluation, optimizations):
    options = onnxruntime.SessionOptions()
    if optimizations == "off":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.stack([session.run(None, {name: x[None]})[0].ravel() for x in evaluation]), session.get_outputs()[0].name


def check(qcompile, shared, way, name, optimizations, work):
    calibration, evaluation = MODELS[name](shared / "data")
    model = shared / "models" / name / "model.onnx"
    if way == "ours":
        quantized = quantize_here(qcompile, model, calibration, work)
    else:
        quantized = quantize_there(model, calibration, work, FORMS[way], name not in PER_TENSOR)
    there, output = run_there(quantized, evaluation, optimizations)
    here = run_here(qcompile, quantized, output, evaluation, work)
    tied = np.array([np.any([np.sum(s[i] == s[i].max()) > 1 for s in (here, there)]) for i in range(len(here))])
    same = here.argmax(1) == there.argmax(1)
    agreement = float(np.mean(same[~tied]))
    largest = float(np.abs(here - there).max() / np.abs(there).max())
    print(f"{name:28} {way:9} same top-1 on {np.sum(same & ~tied)} of {len(here)} ({sum(tied)} without one), {100 * agreement:.2f}%, "
          f"largest difference {largest:.1e} of the largest score", flush=True)
    return agreement >= AGREEMENT


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="models; all when none is named")
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--optimizations", choices=["on", "off"], default="on", help="ONNX Runtime's own, off to have it compute node by node")
    args = parser.parse_intermixed_args()
    failed = []
    for way in args.way or WAYS:
        for name in args.names or list(MODELS):
            good = False
            with tempfile.TemporaryDirectory() as folder:
                try:
                    good = check(args.qcompile, args.shared, way, name, args.optimizations, pathlib.Path(folder))
                except Exception as error:  # noqa: BLE001
                    print(f"{name:28} {way:9} FAILED {error}", flush=True)
            failed += [] if good else [f"{name} ({way})"]
    print("not the same: " + ", ".join(failed) if failed else f"all agree with ONNX Runtime {onnxruntime.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
