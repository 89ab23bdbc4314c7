#!/usr/bin/env python3
"""Architectures whose export says sizes in ways of its own, with all of them free, by PyTorch's older exporter: Longformer, RT-DETR, EnCodec, and
a graph network.

    architectures_vs_ort.py QCOMPILE [NAME ...]

Small ones with random weights.  Each must stay free (a model that is taken at the shape of a sample is an error), agree with ONNX Runtime without
optimizations to 100 dB at every size, and become one int8 file, from samples of all these sizes, on which both engines agree to 40 dB (a number
between two integers may go either way) and which keeps 10 dB of the float model.  With sizes given it runs as one program, as `compile` plans it.

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

from decoders_vs_ort import np, onnx, run_here, run_there, sqnr, tool, torch, transformers

SAME, SAME_INTEGERS, STATIC, VOCABULARY = 100, 40, 10, 64


class Wrapped(torch.nn.Module):
    def __init__(self, call, **modules):
        super().__init__()
        self.call = call
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *arguments):
        return self.call(self, *arguments)


def normal(random, *shape):
    return random.standard_normal(shape).astype(np.float32)


def longformer():
    """Windows of a padded length, cut out of what slices and constants are written into."""
    config = transformers.LongformerConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
                                           max_position_embeddings=128, attention_window=[8])
    module = Wrapped(lambda own, ids, mask: own.model(input_ids=ids, attention_mask=mask).last_hidden_state,
                     model=transformers.LongformerModel(config))
    feed = lambda random, batch, tokens: {"ids": random.integers(5, VOCABULARY, (batch, tokens)), "mask": np.ones((batch, tokens), np.int64)}  # noqa: E731
    return module, feed, {"ids": ["batch", "tokens"], "mask": ["batch", "tokens"]}, [(2, 7), (3, 20), (4, 2)]


def rtdetr():
    """Positions counted in doubles; anchors of three levels."""
    backbone = transformers.RTDetrResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic",
                                               out_features=["stage2", "stage3", "stage4"])
    config = transformers.RTDetrConfig(backbone_config=backbone, encoder_in_channels=[16, 24, 32], encoder_hidden_dim=32, encoder_ffn_dim=48,
                                       encoder_attention_heads=4, d_model=32, decoder_in_channels=[32, 32, 32], decoder_layers=1,
                                       decoder_attention_heads=4, decoder_ffn_dim=48, num_queries=12, num_denoising=0, decoder_n_points=2)

    def detections(own, image):
        found = own.model(pixel_values=image)
        return found.logits, found.pred_boxes

    return (Wrapped(detections, model=transformers.RTDetrForObjectDetection(config)),
            lambda random, *sizes: {"image": normal(random, sizes[0], 3, *sizes[1:])}, {"image": ["batch", None, "height", "width"]},
            [(2, 64, 64), (1, 64, 96), (3, 32, 64), (1, 128, 96)])


def encodec():
    """Padding to whole frames, which are counted in floats."""
    config = transformers.EncodecConfig(hidden_size=16, num_filters=4, upsampling_ratios=[4, 2], num_lstm_layers=1, codebook_size=32, codebook_dim=16,
                                        target_bandwidths=[24.0], sampling_rate=2400)
    model = transformers.EncodecModel(config)
    return (Wrapped(lambda own, sound: own.decoder(own.encoder(sound)), encoder=model.encoder, decoder=model.decoder),
            lambda random, batch, samples: {"sound": normal(random, batch, 1, samples)}, {"sound": ["batch", None, "samples"]},
            [(2, 64), (1, 100), (3, 77)])


def graph_network():
    """Messages along edges, added up at their ends."""

    def messages(own, nodes, edges):
        for _ in range(2):
            sums = torch.zeros_like(nodes).index_add(0, edges[1], own.message(nodes)[edges[0]])
            nodes = torch.relu(own.update(torch.cat([nodes, sums], 1)))
        return nodes

    return (Wrapped(messages, message=torch.nn.Linear(8, 8), update=torch.nn.Linear(16, 8)),
            lambda random, nodes, edges: {"nodes": normal(random, nodes, 8), "edges": random.integers(0, nodes, (2, edges))},
            {"nodes": ["nodes"], "edges": [None, "edges"]}, [(5, 9), (1, 1), (12, 40), (7, 3)])


MODELS = {"longformer": longformer, "rtdetr": rtdetr, "encodec": encodec, "graph_network": graph_network}


def exported(name, file):
    """What makes its inputs, and sizes to make them of."""
    torch.manual_seed(0)
    module, feed_of, dims, sizes = MODELS[name]()
    feed = feed_of(np.random.default_rng(0), *sizes[0])
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), tuple(torch.from_numpy(v) for v in feed.values()), str(file), dynamo=False, opset_version=17,
                          input_names=list(feed), dynamic_axes={port: {axis: dim for axis, dim in enumerate(names) if dim} for port, names in dims.items()})
    return feed_of, sizes


def check(qcompile, name, work):
    """A row of the table, and what is wrong."""
    model, int8 = work / "model.onnx", work / "int8.onnx"
    feed_of, sizes = exported(name, model)
    random = np.random.default_rng(2)
    feeds = [feed_of(random, *size) for size in sizes]
    for number, feed in enumerate(feeds):
        folder = work / "samples" / f"test_data_set_{number}"
        folder.mkdir(parents=True)
        for port, (key, value) in enumerate(feed.items()):
            (folder / f"input_{port}.pb").write_bytes(onnx.numpy_helper.from_array(value, key).SerializeToString())
    row, wrong = [], []

    def hold(what, figures, least):
        row.append(f"{what} {min(figures):.0f}")
        wrong.extend(f"{what} {figure:.0f} dB at {size}" for figure, size in zip(figures, sizes) if figure < least)

    inspected = subprocess.run([str(qcompile), "inspect", str(model)], capture_output=True, text=True)
    wrong.extend(line for line in (inspected.stdout + inspected.stderr).splitlines() if inspected.returncode or "have to be bound" in line)
    expected = [run_there(model, feed) for feed in feeds]
    hold("float", [sqnr(e, run_here(qcompile, model, feed, work)) for e, feed in zip(expected, feeds)], SAME)
    tool(qcompile, "quantize", model, "-d", f"testdata:{work / 'samples'}", "-o", int8)
    here = [run_here(qcompile, int8, feed, work, like=model) for feed in feeds]
    hold("int8: ONNX Runtime", [sqnr(run_there(int8, feed), h) for feed, h in zip(feeds, here)], SAME_INTEGERS)
    hold("of float", [sqnr(e, h) for e, h in zip(expected, here)], STATIC)
    shapes = [a for port, value in feeds[0].items() for a in ("--shape", f"{port}={'x'.join(map(str, value.shape))}")]
    for file in (model, int8):
        tool(qcompile, "bench", file, *shapes)
    return ", ".join(row), wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile", type=pathlib.Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    options = parser.parse_args()
    failures = 0
    for name in options.names or MODELS:
        with tempfile.TemporaryDirectory() as work:
            row, wrong = check(options.qcompile.resolve(), name, pathlib.Path(work))
        failures += bool(wrong)
        print(f"{name:16} {'; '.join(wrong) if wrong else 'ok'}  ({row} dB)", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
