#!/usr/bin/env python3
"""Generative models of `transformers` whose cache grows: GPT-2, a Llama with grouped queries, Whisper's encoder and decoder.

    decoders_vs_ort.py QCOMPILE [NAME ...]

Small ones with random weights, exported by both of PyTorch's exporters with all sizes free: batch, new tokens, tokens in the cache.  Each is run
at five combinations of sizes, an empty cache among them, by qcompile and by ONNX Runtime without optimizations, and must agree to 100 dB; then
quantized to one file, statically from samples of five other sizes and dynamically.  ONNX Runtime runs that file at every size as well, with the
same values to 80 dB (where a number lies between two integers another order of sums may decide for the other); static files keep 12 dB of the
float model where samples lack it (an empty cache), dynamic ones 30.

Needs torch, transformers, onnxscript, onnx and onnxruntime; exit code 77, which ctest reports as skipped, when one is missing.
"""
import argparse
import contextlib
import io
import pathlib
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
    import onnx
    import onnx.numpy_helper
    import onnxruntime
    import onnxscript  # noqa: F401
    import torch
    import transformers
    from transformers.cache_utils import DynamicCache
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

LAYERS, VOCABULARY, SOURCE_WIDTH = 2, 128, 64
SAME, SAME_INTEGERS, STATIC, DYNAMIC = 100, 80, 12, 30
SIZES = [(1, 1, 1), (1, 1, 9), (2, 3, 4), (1, 5, 0), (3, 1, 17)]  # batch, new tokens, tokens in the cache
SAMPLES = [(1, 1, 1), (1, 1, 9), (2, 3, 4), (1, 4, 6), (2, 2, 2)]


def cache_of(past):
    cache = DynamicCache()
    for layer in range(LAYERS):
        cache.update(past[2 * layer], past[2 * layer + 1], layer)
    return cache


def flat(cache):
    return [t for layer in cache.layers for t in (layer.keys, layer.values)]


class Decoder(torch.nn.Module):
    """Keys and values of the cache as inputs and outputs of their own."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, *past):
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache_of(past), use_cache=True)
        return (out.logits, *flat(out.past_key_values))


class WhisperDecoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, source, *past):
        cache = transformers.EncoderDecoderCache(cache_of(past), DynamicCache())
        out = self.model(input_ids=input_ids, encoder_hidden_states=source, past_key_values=cache, use_cache=True)
        return (out.last_hidden_state, *flat(out.past_key_values.self_attention_cache))


class WhisperEncoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, mel):
        return self.model(mel).last_hidden_state


def gpt2():
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_positions=128, n_embd=64, n_layer=LAYERS, n_head=4, attn_implementation="eager")
    return Decoder(transformers.GPT2LMHeadModel(config)), 4


def llama():
    config = transformers.LlamaConfig(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=4,
                                      num_key_value_heads=2, max_position_embeddings=128, attn_implementation="eager")
    return Decoder(transformers.LlamaForCausalLM(config)), 2


def whisper():
    config = transformers.WhisperConfig(vocab_size=VOCABULARY, d_model=SOURCE_WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS,
                                        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96,
                                        max_source_positions=50, max_target_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                                        decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None, attn_implementation="eager")
    return transformers.WhisperModel(config)


MODELS = {"gpt2": gpt2, "llama": llama, "whisper_decoder": lambda: (WhisperDecoder(whisper().decoder), 4),
          "whisper_encoder": lambda: (WhisperEncoder(whisper().encoder), 0)}


def feed_of(name, heads, sizes, random):
    batch, tokens, cached = sizes
    normal = lambda *shape: random.standard_normal(shape).astype(np.float32)
    if not heads:
        return {"mel": normal(batch, 80, 100)}
    feed = {"input_ids": random.integers(0, VOCABULARY, (batch, tokens))}
    if name == "whisper_decoder":
        feed["source"] = normal(batch, 7 + tokens, SOURCE_WIDTH)
    else:
        feed["attention_mask"] = np.ones((batch, cached + tokens), np.int64)
    return feed | {f"past_{i}": normal(batch, heads, cached, 16) for i in range(2 * LAYERS)}


def exported(name, dynamo, file):
    """The number of heads in the cache."""
    torch.manual_seed(0)
    module, heads = MODELS[name]()
    feed = feed_of(name, heads, (2, 3, 4), np.random.default_rng(0))
    arguments = tuple(torch.from_numpy(v) for v in feed.values())
    outputs = ["hidden"] + [f"present_{i}" for i in range(2 * LAYERS if heads else 0)]
    axes = {port: {0: "batch"} if port == "mel" else {0: "batch", 2: "cached"} if port.startswith("past") else
            {0: "batch", 1: {"attention_mask": "total", "source": "source"}.get(port, "tokens")} for port in feed}
    names = {"input_names": list(feed), "output_names": outputs}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            free = [{axis: torch.export.Dim.DYNAMIC for axis in axes[port]} for port in feed]
            fixed = len([port for port in feed if not port.startswith("past")])
            shapes = (*free[:fixed], tuple(free[fixed:])) if heads else tuple(free)
            torch.onnx.export(module.eval(), arguments, str(file), dynamo=True, opset_version=18, dynamic_shapes=shapes, **names)
        else:
            torch.onnx.export(module.eval(), arguments, str(file), dynamo=False, opset_version=17, dynamic_axes=axes, **names)
    return heads


def sqnr(expected, actual):
    def of(e, a):
        noise = np.square(e.astype(np.float64) - a).sum()
        return 200.0 if noise == 0 else 10 * float(np.log10(max(np.square(e.astype(np.float64)).sum(), 1e-300) / noise))
    return min(of(e, a) for e, a in zip(expected, actual) if e.size)


def tool(*arguments):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments[1:3]))}: {done.stderr.strip()[-300:]}")


def run_here(qcompile, model, feed, work, like=None):
    """The outputs of a model, in the order of `like`, a file in ONNX of it."""
    ports = [o.name for o in onnx.load(str(like or model), load_external_data=False).graph.output]
    inputs = []
    for port, value in feed.items():
        np.save(work / f"{port}.npy", value)
        inputs += ["--input", f"{port}={work / f'{port}.npy'}"]
    tool(qcompile, "run", model, *inputs, "--output-dir", work / "here")
    return [np.load(work / "here" / f"{port}.npy") for port in ports]


def run_there(model, feed):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"]).run(None, feed)


def samples(name, heads, work):
    random = np.random.default_rng(1)
    for number, sizes in enumerate(SAMPLES):
        folder = work / "samples" / f"test_data_set_{number}"
        folder.mkdir(parents=True)
        for port, (key, value) in enumerate(feed_of(name, heads, sizes, random).items()):
            (folder / f"input_{port}.pb").write_bytes(onnx.numpy_helper.from_array(value, key).SerializeToString())
    return f"testdata:{work / 'samples'}"


def check(qcompile, name, dynamo, work):
    """A row of the table, and what is wrong."""
    model = work / "model.onnx"
    heads = exported(name, dynamo, model)
    random = np.random.default_rng(2)
    feeds = [feed_of(name, heads, sizes, random) for sizes in SIZES]
    expected = [run_there(model, feed) for feed in feeds]
    row, wrong = [], []

    def hold(what, figures, least):
        row.append(f"{what} {min(figures):.0f}")
        wrong.extend(f"{what} {figure:.0f} dB at {sizes}" for figure, sizes in zip(figures, SIZES) if figure < least)

    hold("float", [sqnr(e, run_here(qcompile, model, feed, work)) for e, feed in zip(expected, feeds)], SAME)
    data = samples(name, heads, work)
    for mode, least, how in (("static", STATIC, ["-d", data]), ("dynamic", DYNAMIC, ["--mode", "dynamic"])):
        file = work / f"{mode}.onnx"
        tool(qcompile, "quantize", model, *how, "-o", file)
        here = [run_here(qcompile, file, feed, work) for feed in feeds]
        hold(f"{mode}: ONNX Runtime", [sqnr(run_there(file, feed), h) for feed, h in zip(feeds, here)], SAME_INTEGERS)
        hold("of float", [sqnr(e, h) for e, h in zip(expected, here)], least)
    return ", ".join(row), wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    options = parser.parse_args()
    failures = 0
    for name in options.names or MODELS:
        for dynamo in (False, True):
            with tempfile.TemporaryDirectory() as work:
                row, wrong = check(options.qcompile, name, dynamo, pathlib.Path(work))
            failures += bool(wrong)
            print(f"{name:16} {'dynamo' if dynamo else 'script':7} {'; '.join(wrong) if wrong else 'ok'}  ({row} dB)", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
