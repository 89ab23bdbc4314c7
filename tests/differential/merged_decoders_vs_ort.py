#!/usr/bin/env python3
"""Decoders whose first and later steps are the branches of an If on a boolean input, as optimum and transformers.js distribute them.

    merged_decoders_vs_ort.py QCOMPILE [NAME ...]

`decoder_model_merged.onnx`: `use_cache_branch` chooses between the model without a cache and that with one, both exported by themselves, by each
of PyTorch's exporters, with random weights; the weights that both have lie outside of the branches, once.  A prompt and then a growing cache, five
steps, are run by qcompile and by ONNX Runtime without optimizations, and must agree to 100 dB; then the model is quantized to one file, statically
and dynamically.  ONNX Runtime runs that file at every step with the same values to 80 dB, the file has the If with the weights of both branches
outside, once, and read again it gives the bits of the graph that it was made of.  A branch that no sample takes stays float, and the ledger says
so.  The other verbs take it as well.  What is in the branch that is not taken costs nothing: `--speed` prints the time of a step beside that of the decoder that is not merged.

Needs torch, transformers, onnxscript, onnx and onnxruntime; exit code 77, which ctest reports as skipped, when one is missing.
"""
import argparse
import contextlib
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import decoders_vs_ort as plain
import numpy as np
import onnx
import onnx.numpy_helper
import torch
import transformers
from transformers.cache_utils import DynamicCache

SAME, SAME_INTEGERS, STATIC, DYNAMIC, UNSEEN = 100, 80, 12, 30, 25  # UNSEEN: layers of both branches are int8, and lie outside
PROMPT, STEPS, CONDITION = 6, 5, "use_cache_branch"


class First(torch.nn.Module):
    """The first step: nothing is cached."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=DynamicCache(), use_cache=True)
        return (out.logits, *plain.flat(out.past_key_values))


class FirstOfWhisper(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, source):
        cache = transformers.EncoderDecoderCache(DynamicCache(), DynamicCache())
        out = self.model(input_ids=input_ids, encoder_hidden_states=source, past_key_values=cache, use_cache=True)
        return (out.last_hidden_state, *plain.flat(out.past_key_values.self_attention_cache))


FIRST = {"gpt2": First, "llama": First, "whisper_decoder": FirstOfWhisper}


def feed_of(name, heads, tokens, cached, random, batch=1):
    return plain.feed_of(name, heads, (batch, tokens, cached), random)


def export(module, feed, file, total, dynamo):
    outputs = ["hidden"] + [f"present_{i}" for i in range(2 * plain.LAYERS)]
    axes = {port: {0: "batch", 2: "cached"} if port.startswith("past") else
            {0: "batch", 1: {"attention_mask": total, "source": "source"}.get(port, "tokens")} for port in feed}
    names = {"input_names": list(feed), "output_names": outputs}
    arguments = tuple(torch.from_numpy(v) for v in feed.values())
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            free = [{axis: torch.export.Dim.DYNAMIC for axis in axes[port]} for port in feed]
            fixed = len([port for port in feed if not port.startswith("past")])
            shapes = (*free[:fixed], tuple(free[fixed:])) if fixed < len(feed) else tuple(free)
            torch.onnx.export(module.eval(), arguments, str(file), dynamo=True, opset_version=18, dynamic_shapes=shapes, **names)
        else:
            torch.onnx.export(module.eval(), arguments, str(file), dynamo=False, opset_version=17, dynamic_axes=axes, **names)
    return onnx.load(str(file))


def merged(first, later):
    """As optimum.onnx.merge_decoders has it: weights that both have are shared, short integers and scalars stay in the branches, and what both
    read is declared as the first step has it, where a mask is as long as the tokens."""
    shared, names = [], {}
    for number, model in enumerate((first, later)):
        own = {}
        for tensor in model.graph.initializer:
            if not tensor.dims or (len(tensor.dims) == 1 and tensor.data_type in (6, 7)):
                continue
            key = (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
            if key not in names:
                names[key] = f"{tensor.name}_merged_{len(names)}"
                shared.append(onnx.helper.make_tensor(names[key], tensor.data_type, tensor.dims, onnx.numpy_helper.to_array(tensor).tobytes(), raw=True))
            own[tensor.name] = names[key]
        for node in model.graph.node:
            node.input[:] = [own.get(i, i) for i in node.input]
    branches = [onnx.helper.make_graph(m.graph.node, name, [], m.graph.output, [t for t in m.graph.initializer if not t.dims or
                                                                                 (len(t.dims) == 1 and t.data_type in (6, 7))])
                for m, name in ((first, "no_past"), (later, "with_past"))]
    inputs = list(first.graph.input)
    inputs += [i for i in later.graph.input if i.name not in {j.name for j in inputs}]
    inputs += [onnx.helper.make_tensor_value_info(CONDITION, onnx.TensorProto.BOOL, [1])]
    node = onnx.helper.make_node("If", [CONDITION], [o.name for o in first.graph.output], name="optimum::if", then_branch=branches[1],
                                 else_branch=branches[0])
    graph = onnx.helper.make_graph([node], "merged", inputs, first.graph.output, shared)
    return onnx.helper.make_model(graph, opset_imports=first.opset_import, ir_version=9)


def made(name, dynamo, work):
    """The merged model and the two that it is made of, the number of heads in the cache."""
    torch.manual_seed(0)
    module, heads = plain.MODELS[name]()
    random = np.random.default_rng(0)
    later = export(module, feed_of(name, heads, 3, 4, random, 2), work / "later.onnx", "total", dynamo)
    feed = {k: v for k, v in feed_of(name, heads, 3, 0, random, 2).items() if not k.startswith("past")}
    first = export(FIRST[name](module.model), feed, work / "first.onnx", "tokens", dynamo)
    model = merged(first, later)
    onnx.checker.check_model(model)
    onnx.save(model, str(work / "model.onnx"))
    return work / "model.onnx", work / "later.onnx", heads


def steps(name, heads, model, seed, batch=1):
    """A prompt, and then token after token with what was cached: the feeds, and what ONNX Runtime gives."""
    random = np.random.default_rng(seed)
    feed = feed_of(name, heads, PROMPT + seed % 3, 0, random, batch) | {CONDITION: np.array([False])}
    for step in range(STEPS):
        expected = plain.run_there(model, feed)
        yield feed, expected
        cached = expected[1].shape[2]
        source = {k: v for k, v in feed.items() if k == "source"}
        feed = feed_of(name, heads, 1, cached, random, batch) | source | {CONDITION: np.array([True])}
        feed |= {f"past_{i}": v for i, v in enumerate(expected[1:])}


def written(feeds, folder):
    for number, feed in enumerate(feeds):
        own = folder / f"test_data_set_{number}"
        own.mkdir(parents=True)
        for port, (key, value) in enumerate(feed.items()):
            (own / f"input_{port}.pb").write_bytes(onnx.numpy_helper.from_array(value, key).SerializeToString())
    return f"testdata:{folder}"


def bytes_of(graph):
    """Of the initializers of a graph and of its branches: outside, inside."""
    inside = 0
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inside += sum(bytes_of(attribute.g))
    return sum(len(t.raw_data) for t in graph.initializer), inside


def check(qcompile, name, dynamo, work):
    """A row of the table, and what is wrong."""
    model, later, heads = made(name, dynamo, work)
    run = list(steps(name, heads, model, 3)) + list(steps(name, heads, model, 4, batch=2))
    feeds, expected = [feed for feed, _ in run], [e for _, e in run]
    row, wrong = [], []

    def hold(what, figures, least):
        row.append(f"{what} {min(figures):.0f}")
        wrong.extend(f"{what} {figure:.0f} dB at step {i % STEPS}" for i, figure in enumerate(figures) if figure < least)

    hold("float", [plain.sqnr(e, plain.run_here(qcompile, model, feed, work)) for e, feed in zip(expected, feeds)], SAME)
    of_both = [feed for seed in (5, 6, 7) for feed, _ in steps(name, heads, model, seed)]
    both, later_only = written(of_both, work / "both"), written([f for f in of_both if f[CONDITION][0]], work / "later_only")
    weights = sum(len(t.raw_data) for t in onnx.load(str(later)).graph.initializer)
    for mode, least, how in (("static", STATIC, ["-d", both]), ("dynamic", DYNAMIC, ["--mode", "dynamic"])):
        file = work / f"{mode}.onnx"
        plain.tool(qcompile, "quantize", model, *how, "-o", file)
        here = [plain.run_here(qcompile, file, feed, work) for feed in feeds]
        hold(f"{mode}: ONNX Runtime", [plain.sqnr(plain.run_there(file, feed), h) for feed, h in zip(feeds, here)], SAME_INTEGERS)
        hold("of float", [plain.sqnr(e, h) for e, h in zip(expected, here)], least)
        plain.tool(qcompile, "quantize", model, *how, "-o", work / f"{mode}.qir")
        for i, feed in enumerate(feeds):
            graph_itself = plain.run_here(qcompile, work / f"{mode}.qir", feed, work, like=file)
            if any(a.tobytes() != b.tobytes() for a, b in zip(graph_itself, here[i])):
                wrong.append(f"{mode}: the file and the graph that it was made of differ at step {i % STEPS}")
        graph = onnx.load(str(file)).graph
        if [n.op_type for n in graph.node].count("If") != 1:
            wrong.append(f"{mode}: the file has {[n.op_type for n in graph.node].count('If')} Ifs")
        outside, inside = bytes_of(graph)
        row.append(f"{outside >> 10} kB outside, {inside >> 10} in the branches")
        if outside + inside > 0.6 * weights:
            wrong.append(f"{mode}: {outside + inside} bytes of constants of what were {weights} of float weights")
    again = ["quantize", model, "-o", work / "again.onnx"]
    for verb in (["debug", model, work / "static.onnx"], ["sensitivity", model], [*again, "--reconstruct", "on"], [*again, "--never-slower"], [*again, "--target-sqnr", "20"],
                 ["bench", work / "static.onnx"]):
        plain.tool(qcompile, *verb, "-d", both)
    # The prompt and a later step, each timed in its branch alone.
    for step, holds in ((0, False), (1, True)):
        profile = [qcompile, "profile", work / "static.onnx", "-d", f"{both}?skip={step}", "--runs", "3", "--json"]
        found = json.loads(subprocess.run(profile, capture_output=True, text=True, check=True).stdout)
        if {(d["condition"], d["holds"]) for d in found["decisions"]} != {(CONDITION, holds)} or {layer.get("where", "") for layer in found["layers"]} - {
                "", f"'{CONDITION}' is {str(holds).lower()}"}:
            wrong.append(f"the profile of step {step} is of the other branch")
    done = subprocess.run([qcompile, "quantize", model, "-d", later_only, "-o", work / "half.onnx"], capture_output=True, text=True)
    if done.returncode or f"no sample takes the branch where '{CONDITION}' is false" not in done.stdout + done.stderr:
        wrong.append(f"of one branch: {(done.stdout + done.stderr)[-400:]}")
    else:
        half = [plain.sqnr(e, plain.run_here(qcompile, work / "half.onnx", feed, work)) for e, feed in zip(expected, feeds)]
        hold("the branch that no sample takes", half[::STEPS], UNSEEN)
        hold("the other", [h for i, h in enumerate(half) if i % STEPS], STATIC)
        (node,) = [n for n in onnx.load(str(work / "half.onnx")).graph.node if n.op_type == "If"]
        rounded = {a.name: sum(n.op_type == "QuantizeLinear" for n in a.g.node) for a in node.attribute}
        if rounded["else_branch"] or not rounded["then_branch"]:
            wrong.append(f"of one branch: {rounded} QuantizeLinear")
    return ", ".join(row), wrong


def speed(qcompile, name, dynamo, work):
    model, later, heads = made(name, dynamo, work)
    run = [feed for feed, _ in steps(name, heads, model, 3)][1:]
    data = {model: written(run, work / "merged"), later: written([{k: v for k, v in f.items() if k != CONDITION} for f in run], work / "plain")}
    for file, source in data.items():
        done = subprocess.run([qcompile, "bench", file, "-d", source, "--json"], capture_output=True, text=True)
        print(name, file.name, done.stdout.strip() or done.stderr.strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qcompile")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIRST))
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    failures = 0
    for name in options.names or FIRST:
        for dynamo in (False, True):
            with tempfile.TemporaryDirectory() as work:
                if options.speed:
                    speed(options.qcompile, name, dynamo, pathlib.Path(work))
                    continue
                row, wrong = check(options.qcompile, name, dynamo, pathlib.Path(work))
            failures += bool(wrong)
            print(f"{name:16} {'dynamo' if dynamo else 'script':7} {'; '.join(wrong) if wrong else 'ok'}  ({row})", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
