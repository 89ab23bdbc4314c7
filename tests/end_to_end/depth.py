#!/usr/bin/env python3
"""Nothing recurses over a program: graphs of 30,000 nodes in one chain, and whatever else can nest, go through every pass, verifier, printer,
reader, planner, interpreter and code with a stack of 512 KB, 17 bytes for each node.

    depth.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import resource
import sys
import tempfile

from command_line import run, write_npy
from onnx_bytes import field, graph, model, node, port, tensor

DEPTH = 30000
STACK = 512 << 10

# One pass after another, as the stages follow; what passes ask for is given by their options.
PASSES = ("bind-shapes{sizes=\"N=1\"},recognize-integer,recognize-activations,recognize-means,fold-batch-norm,canonicalize,fold-constants,cse,"
          "dead-channels{dead=1},equalize-weights,equalize-layers{spread=64.0},smooth-quant{spread=64.0},annotate,prepare,round-weights{correlation=0.9},reconstruct{correlation=0.9},correct-bias{shift=0.5},"
          "convert{range=[-1.0,1.0]},quantize-io,duplicate-dequantize,lower-quant,unsigned-activations,lower-dynamic,lower-weights,"
          "project-recurrences,expand-dynamic,layout,split-conv-transpose,join-axes,divide-copies,fuse-elementwise,dce,simplify-bodies,lower-bodies,recompute")
SPELLED = "annotate,prepare,convert{range=[-1.0,1.0]},reference-ops,float-reference"
FROM_FLOAT = ("free-batch", "tie-weights", "annotate,prepare,prepare-qat{range=[-1.0,1.0]}")  # other ways from the start
TRAINED = ("differentiate", "train-step")  # of a graph that ends in one number


def text(shape, constants, lines, result):
    return "\n".join([*constants, f"graph @g(%x: f32[{shape}]) {{", *lines, f"  return {result}", "}"]) + "\n"


def activations():
    return text("N,4", [], [f"  %v{i} = sigmoid %{f'v{i - 1}' if i else 'x'} : f32[N,4]" for i in range(DEPTH)], f"%v{DEPTH - 1}")


def sums():
    """Every sum joins one chain with a value that all read."""
    lines = ["  %s = relu %x : f32[N,4]"]
    lines += [f"  %v{i} = add %{f'v{i - 1}' if i else 'x'}, %s : f32[N,4]" for i in range(DEPTH)]
    return text("N,4", [], lines, f"%v{DEPTH - 1}")


def layers(op, shape, weight, attributes, count):
    """Weighted layers, a relu behind each."""
    lines = [f"  %w = const #w : f32[{weight}]"]
    for i in range(count):
        lines.append(f"  %c{i} = {op} %{f'v{i - 1}' if i else 'x'}, %w{attributes} : f32[{shape}]")
        lines.append(f"  %v{i} = relu %c{i} : f32[{shape}]")
    return text(shape, [f"const #w : f32[{weight}] = rand(1, -0.3, 0.3)"], lines, f"%v{count - 1}")


def check_passes(folder):
    named = {word.split("{")[0] for word in ",".join((PASSES, SPELLED, *FROM_FLOAT, *TRAINED)).replace("},", ",").split(",") if not word[:1].isdigit()}
    missing = {p["name"] for p in json.loads(run("doctor", "--json").stdout)["passes"]} - named
    if missing:
        sys.exit(f"no graph is sent at depth through: {', '.join(sorted(missing))}")
    graphs = {"activations": activations(), "sums": sums(), "linears": layers("linear", "1,16", "16,16", "", DEPTH // 4),
              "convolutions": layers("conv", "1,4,8,8", "4,4,3,3", " {pads=[1,1,1,1]}", DEPTH // 6)}
    for name, source in graphs.items():
        start = folder / f"{name}.qir"
        start.write_text(source)
        passes = PASSES if "N" in source else PASSES.split(",", 1)[1]
        for pipeline in (passes, SPELLED if "N" not in source else "bind-shapes{sizes=\"N=1\"}," + SPELLED):
            end = folder / "end.qir"
            end.write_text(run("opt", start, f"--pipeline={pipeline}", "--verify-each", "--payloads").stdout)
            if pipeline == passes and name in ("linears", "convolutions") and f"= q.{name[:4]}" not in end.read_text():
                sys.exit(f"the {name} have not become integers")
            run("opt", end, "--pipeline=dce")
    for passes in FROM_FLOAT:
        run("opt", folder / "linears.qir", f"--pipeline={passes},dce", "--verify-each")
    loss = folder / "loss.qir"
    loss.write_text(layers("linear", "1,16", "16,16", "", DEPTH // 4).replace(
        f"  return %v{DEPTH // 4 - 1}", f"  %loss = reduce_sum %v{DEPTH // 4 - 1} {{axes=[0,1], keepdims=0}} : f32[]\n  return %loss"))
    for trained in TRAINED:
        run("opt", loss, f"--pipeline={trained},cse,dce", "--verify-each")


def chain(op, count, inputs=(), initializers=(), width=16):
    nodes = [node(op, [f"v{i}" if i else "x", *inputs], [f"v{i + 1}"]) for i in range(count)]
    return nodes, model(nodes, [port("x", 1, width)], [port(f"v{count}", 1, width)], initializers)


def check_commands(folder):
    sample = folder / "x.npy"
    write_npy(sample, [1, 16], [0.5] * 16)
    weight = tensor("w", [16, 16], [((7 * i) % 23 - 11) / 40 for i in range(256)])
    files = {"sigmoids": chain("Sigmoid", DEPTH)[1], "gemms": chain("Gemm", DEPTH, ["w"], [weight])[1]}
    nodes = chain("Sigmoid", DEPTH)[0]
    files["backwards"] = model(nodes[::-1], [port("x", 1, 16)], [port(f"v{DEPTH}", 1, 16)])
    for name, content in files.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(content)
        run("inspect", path)
        run("inspect", path, "--kernels")
        for how in (["--no-cache"], ["--no-cache", "--threads", 2], ["--engine", "interpreter"]):
            run("run", path, *how, "--input", f"x={sample}", "--output-dir", folder / "out")
    # Layers that become integers, and the file that has them, written and read.
    path, quantized = folder / "layers.onnx", folder / "quantized.onnx"
    count = DEPTH // 15
    path.write_bytes(chain("Gemm", count, ["w"], [weight])[1])
    run("quantize", path, "-d", "random:2", "-o", quantized)
    run("quantize", folder / "sigmoids.onnx", "-d", "random:2", "-o", folder / "floats.onnx")
    run("run", quantized, "--no-cache", "--input", f"x={sample}", "--output-dir", folder / "out")


def check_nesting(folder):
    def refused(path, *expected):
        error = run("inspect", path, code=1).stderr
        if not all(words in error for words in expected):
            sys.exit(f"{path.name}: {error}")

    # Functions that call one another: a few are unfolded, thousands are refused.
    for depth in (90, 5000):
        functions = []
        for i in range(depth):
            last = i + 1 == depth
            body = node("Sigmoid" if last else f"F{i + 1}", ["a"], ["b"]) + (b"" if last else field(7, b"f"))
            functions.append(field(25, field(1, f"F{i}".encode()) + field(4, b"a") + field(5, b"b") + field(7, body) + field(10, b"f")
                                   + field(9, field(1, b"") + field(2, 17)) + field(9, field(1, b"f") + field(2, 1))))
        path = folder / f"functions{depth}.onnx"
        path.write_bytes(model([node("F0", ["x"], ["y"]) + field(7, b"f")], [port("x", 1, 4)], [port("y", 1, 4)], opset=17)
                         + field(8, field(1, b"f") + field(2, 1)) + b"".join(functions))
        if depth < 100:
            run("inspect", path)
        else:
            refused(path, "functions that call one another more than 100 deep")

    # Subgraphs inside one another.
    for depth in (10, 40, 5000):
        inner = [node("Sigmoid", ["x"], ["b"])]
        output = "b"
        for i in range(depth):
            branch = graph(inner, [], [port(output, 1, 4)])
            names = ("then_branch", "else_branch") if depth < 12 else ("then_branch",)  # both double the file with every level
            inner = [node("If", ["c"], [f"o{i}"], *(field(1, name.encode()) + field(6, branch) + field(20, 5) for name in names))]
            output = f"o{i}"
        path = folder / f"ifs{depth}.onnx"
        known = field(1, b"") + field(2, 9) + field(8, b"c") + field(9, b"\x01")
        path.write_bytes(model(inner, [port("x", 1, 4)], [port(output, 1, 4)], [known], opset=17))
        if depth == 10:
            run("inspect", path)
        else:
            refused(path, "nested deeper than 16" if depth == 40 else "ONNX model")

    # Text.
    for name, source, words in (
            ("expression", text("1,4", [], ['  %y = map %x {expr="' + "-(" * 20000 + "a0" + ")" * 20000 + '"} : f32[1,4]'], "%y"), "expression"),
            ("dim", text("(" * 100000 + "N" + ")" * 100000, [], [], "%x"), "nests deeper"),
            ("list", text("1,4", [], ["  %y = map %x {expr=" + "[" * 100000 + "]" * 100000 + "} : f32[1,4]"], "%y"), "")):
        path = folder / f"{name}.qir"
        path.write_text(source)
        error = run("opt", path, "--pipeline=lower", code=1).stderr
        if words not in error:
            sys.exit(f"{name}: {error[:500]}")
    path = folder / "sum.qir"
    path.write_text(text("1,4", [], ['  %y = map %x {expr="' + "+".join(["a0"] * 20000) + '"} : f32[1,4]'], "%y"))
    run("opt", path, "--pipeline=lower")
    rules = folder / "rules.json"
    rules.write_text("[" * 200000 + "]" * 200000)
    run("quantize", folder / "layers.onnx", "-d", "random:2", "--config", rules, "-o", folder / "never.onnx", code=1)


def main():
    resource.setrlimit(resource.RLIMIT_STACK, (STACK, resource.getrlimit(resource.RLIMIT_STACK)[1]))  # of what is started from here
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for check in (check_passes, check_commands, check_nesting):
            check(folder)


main()
