#!/usr/bin/env python3
"""Loops and Scans whose number of rounds is known when they run: by data, by free sizes, by their own condition.

    loops_vs_ort.py QCOMPILE [WORD]

Each case (those with WORD in their name) is a small model made here, with a linear layer in front and one behind: bodies that read weights and
values around them, sizes of these, branches, loops in loops; carried values of fixed and of growing size; results stacked along every axis,
forwards and backwards; sequences of tensors, appended to and read by place; no round at all.  Layers in bodies are quantized with parameters found at run time.  The float model is held beside ONNX Runtime at several sizes and numbers of rounds, on kernels and in the
interpreter; then it is quantized to one file, statically and dynamically, which ONNX Runtime runs with the same values, and which read again gives
the bits of the graph that it was made of.

Needs numpy, onnx and onnxruntime; exit code 77, which ctest reports as skipped, when one is missing.
"""
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto as T
    from onnx import helper, numpy_helper
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

LEAST_FLOAT_DB, LEAST_SAME_DB, LEAST_STATIC_DB, LEAST_DYNAMIC_DB = 100, 60, 12, 28
WIDTH = 8
node = helper.make_node


def value(name, kind=T.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def sequence(name):
    return helper.make_tensor_sequence_value_info(name, T.FLOAT, None)


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def body(nodes, inputs, outputs, initializers=()):
    """Of names: inputs and outputs with the types of their first letters, i one s64, c one bool, q a sequence, else float."""
    kinds = {"i": (T.INT64, []), "c": (T.BOOL, [])}
    typed = [[sequence(n) if n[0] == "q" else value(n, *kinds.get(n[0], (T.FLOAT, None))) for n in names] for names in (inputs, outputs)]
    return helper.make_graph(nodes, "body", *typed, list(initializers))


W = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32) * 0.4
YES = [constant("c_yes", np.array(True))]
STEP = [node("MatMul", ["x_state", "W"], ["x_product"]), node("Tanh", ["x_product"], ["x_next"])]
GO = [node("Identity", ["c_in"], ["c_out"])]
ROW = [node("Gather", ["h", "i_at"], ["x_row"], axis=0), node("Add", ["x_row", "x_state"], ["x_next"])]


def cases():
    """Name, nodes from "h" [N, WIDTH] and "m" to "y", initializers, opset."""
    fixed = body(STEP + GO, ["i_at", "c_in", "x_state"], ["c_out", "x_next"])
    yield "rounds by data", [node("Loop", ["m", "", "h"], ["y"], body=fixed)], []
    stacks = body(STEP + GO + [node("Mul", ["x_next", "x_next"], ["x_out"])], ["i_at", "c_in", "x_state"], ["c_out", "x_next", "x_out"])
    yield "results of rounds", [node("Loop", ["m", "", "h"], ["z", "all"], body=stacks),
                                node("ReduceSum", ["all", "axis0"], ["sum"], keepdims=0), node("Add", ["z", "sum"], ["y"])], [constant("axis0", [0])]
    until = body([node("Mul", ["x_state", "more"], ["x_next"]), node("Abs", ["x_next"], ["x_abs"]), node("ReduceMax", ["x_abs"], ["x_max"], keepdims=0),
                  node("Less", ["x_max", "limit"], ["c_out"])], ["i_at", "c_in", "x_state"], ["c_out", "x_next"])
    limits = [constant("limit", np.float32(8)), constant("more", np.float32(1.5))]
    yield "a condition of the body's", [node("Loop", ["m", "", "h"], ["y"], body=until)], limits
    yield "no greatest number", [node("Loop", ["", "yes", "h"], ["y"], body=until)], [*limits, constant("yes", np.array(True))]
    yield "a condition in front", [node("ReduceMax", ["h"], ["most"], keepdims=0), node("Greater", ["most", "limit"], ["go"]),
                                   node("Loop", ["m", "go", "h"], ["y"], body=fixed)], [constant("limit", np.float32(1.0))]
    yield "rounds by a size", [node("Shape", ["h"], ["shape"]), node("Gather", ["shape", "zero"], ["rows"]), node("ReduceMean", ["h"], ["mean"], axes=[0]),
                               node("Loop", ["rows", "", "mean"], ["z"], body=body(ROW + GO, ["i_at", "c_in", "x_state"], ["c_out", "x_next"])),
                               node("Add", ["z", "h"], ["y"])], [constant("zero", np.int64(0))]
    per_row = body(ROW + GO, ["i_at", "c_in", "x_state"], ["c_out", "x_state", "x_next"])
    yield "a result for each row", [node("Shape", ["h"], ["shape"]), node("Gather", ["shape", "zero"], ["rows"]), node("ReduceMean", ["h"], ["mean"], axes=[0], keepdims=0),
                                    node("Loop", ["rows", "", "mean"], ["z", "all"], body=per_row), node("Mul", ["all", "h"], ["y"])], [constant("zero", np.int64(0))]
    grows = body([node("Concat", ["x_state", "h"], ["x_next"], axis=0)] + GO, ["i_at", "c_in", "x_state"], ["c_out", "x_next"])
    yield "grows", [node("Loop", ["m", "", "h"], ["y"], body=grows)], []
    from_nothing = body([node("Cast", ["i_at"], ["x_at"], to=T.FLOAT), node("Add", ["h", "x_at"], ["x_more"]), node("Concat", ["x_state", "x_more"], ["x_next"], axis=0)] + GO,
                        ["i_at", "c_in", "x_state"], ["c_out", "x_next"])
    yield "grows from nothing", [node("Loop", ["m", "", "empty"], ["z"], body=from_nothing), node("Concat", ["z", "h"], ["y"], axis=0)], \
        [constant("empty", np.zeros((0, WIDTH), np.float32))]
    sizes = body([node("Shape", ["h"], ["i_shape"]), node("Reshape", ["x_state", "flat"], ["x_flat"]), node("Mul", ["x_flat", "half"], ["x_less"]),
                  node("Reshape", ["x_less", "i_shape"], ["x_next"])] + GO, ["i_at", "c_in", "x_state"], ["c_out", "x_next"])
    yield "sizes of a value around", [node("Loop", ["m", "", "h"], ["y"], body=sizes)], [constant("flat", [-1]), constant("half", np.float32(0.5))]
    two = body([node("Add", ["x_a", "x_b"], ["x_sum"]), node("Mul", ["x_a", "half"], ["x_less"]), node("Add", ["i_n", "one"], ["i_next"])] + GO,
               ["i_at", "c_in", "x_a", "i_n", "x_b"], ["c_out", "x_sum", "i_next", "x_less", "i_n"])
    yield "several values", [node("Loop", ["m", "", "h", "one", "h"], ["p", "count", "q", "counts"], body=two), node("ReduceSum", ["counts"], ["total"], keepdims=0),
                             node("Cast", ["total"], ["total_f"], to=T.FLOAT), node("Cast", ["count"], ["count_f"], to=T.FLOAT), node("Add", ["p", "q"], ["pq"]),
                             node("Add", ["pq", "total_f"], ["pqt"]), node("Sub", ["pqt", "count_f"], ["y"])], [constant("half", np.float32(0.5)), constant("one", np.int64(1))]
    handed = body([node("MatMul", ["x_state", "x_weights"], ["x_product"]), node("Tanh", ["x_product"], ["x_next"])] + GO,
                  ["i_at", "c_in", "x_weights", "x_state", "x_unread"], ["c_out", "x_weights", "x_next", "x_unread"])
    yield "weights that are handed on", [node("Loop", ["m", "", "W", "h", "h"], ["same", "z", "also"], body=handed), node("MatMul", ["z", "same"], ["zw"]),
                                         node("Add", ["zw", "also"], ["y"])], []
    inner = body(STEP + GO, ["i_in", "c_in", "x_state"], ["c_out", "x_next"])
    outer = body([node("Loop", ["i_out", "", "x_outer"], ["x_y"], body=inner), node("Add", ["x_y", "x_outer"], ["x_z"]), node("Identity", ["c_o"], ["c_p"])],
                 ["i_out", "c_o", "x_outer"], ["c_p", "x_z"])
    yield "in one another", [node("Loop", ["m", "", "h"], ["y"], body=outer)], []
    branches = [helper.make_graph([node(op, ["x_state"], [name])], name, [], [value(name)]) for op, name in (("Neg", "then"), ("Tanh", "otherwise"))]
    chooses = body([node("Mod", ["i_at", "two"], ["i_odd"]), node("Cast", ["i_odd"], ["c_odd"], to=T.BOOL),
                    node("If", ["c_odd"], ["x_next"], then_branch=branches[0], else_branch=branches[1])] + GO, ["i_at", "c_in", "x_state"], ["c_out", "x_next"])
    yield "branches in it", [node("Loop", ["m", "", "h"], ["y"], body=chooses)], [constant("two", np.int64(2))]
    sides = [helper.make_graph([node("Loop", ["m", "", "h"], ["looped"], body=fixed)], "then", [], [value("looped")]),
             helper.make_graph([node("Relu", ["h"], ["plain"])], "otherwise", [], [value("plain")])]
    yield "in a branch", [node("Greater", ["m", "two"], ["c_more"]), node("If", ["c_more"], ["y"], then_branch=sides[0], else_branch=sides[1])], [constant("two", np.int64(2))]
    found = body([node("Greater", ["x_state", "limit"], ["c_mask"]), node("NonZero", ["c_mask"], ["i_places"]), node("Shape", ["i_places"], ["i_shape"]),
                  node("Gather", ["i_shape", "one"], ["i_found"]), node("Cast", ["i_found"], ["x_found"], to=T.FLOAT), node("Mul", ["x_state", "half"], ["x_less"]),
                  node("Concat", ["x_less", "x_less"], ["x_next"], axis=0)] + GO, ["i_at", "c_in", "x_state"], ["c_out", "x_next", "x_found"])
    yield "sizes by data in it", [node("Loop", ["m", "", "h"], ["z", "counts"], body=found), node("ReduceSum", ["counts"], ["total"], keepdims=0), node("Add", ["z", "total"], ["y"])], \
        [constant("limit", np.float32(0.1)), constant("half", np.float32(0.5)), constant("one", np.int64(1))]
    yield "many rounds", [node("Loop", ["many", "", "h"], ["y"], body=fixed)], [constant("many", np.int64(60000))]
    nothing, at_least_one = node("SequenceEmpty", [], ["nothing"], dtype=T.FLOAT), node("Max", ["m", "one"], ["often"])
    rows = [node("Shape", ["h"], ["shape"]), node("Gather", ["shape", "zero"], ["rows"]), node("ReduceMean", ["h"], ["mean"], axes=[0], keepdims=0)]
    append = [node("SequenceInsert", ["q_in", "x_next"], ["q_out"])]
    row_by_row = body(ROW + append + GO, ["i_at", "c_in", "x_state", "q_in"], ["c_out", "x_next", "q_out"])
    yield "a list of rows", [*rows, nothing, node("Loop", ["rows", "", "mean", "nothing"], ["z", "list"], body=row_by_row),
                             node("ConcatFromSequence", ["list"], ["y"], axis=0, new_axis=1)], [constant("zero", np.int64(0))]
    appends = body(STEP + append + GO, ["i_at", "c_in", "x_state", "q_in"], ["c_out", "x_next", "q_out"])
    one = [constant("one", np.int64(1))]
    yield "a list as long as data says", [nothing, at_least_one, node("Loop", ["often", "", "h", "nothing"], ["z", "list"], body=appends),
                                          node("ConcatFromSequence", ["list"], ["y"], axis=0)], one
    yield "a list that is not empty before", [node("SequenceConstruct", ["h"], ["before"]), at_least_one, node("Loop", ["often", "", "h", "before"], ["z", "list"], body=appends),
                                              node("ConcatFromSequence", ["list"], ["y"], axis=-2)], one
    two_lists = body(STEP + GO + [node("Neg", ["x_next"], ["x_other"]), node("SequenceInsert", ["q_in", "x_next"], ["q_one"]),
                                  node("SequenceInsert", ["q_one", "x_other"], ["q_out"]), node("SequenceInsert", ["q_also", "x_product"], ["q_more"])],
                     ["i_at", "c_in", "q_in", "x_state", "q_also"], ["c_out", "q_out", "x_next", "q_more"])
    yield "two lists, along the last axis", [nothing, at_least_one, node("Loop", ["often", "", "nothing", "h", "nothing"], ["list", "z", "more"], body=two_lists),
                                             node("ConcatFromSequence", ["list"], ["wide"], axis=1), node("ConcatFromSequence", ["more"], ["deep"], axis=-1, new_axis=1),
                                             node("ReduceMax", ["wide"], ["widest"], axes=[1]), node("ReduceMax", ["deep"], ["deepest"], axes=[2], keepdims=0),
                                             node("Add", ["z", "widest"], ["zw"]), node("Add", ["zw", "deepest"], ["y"])], one
    by_place = body([node("SequenceAt", ["parts", "i_at"], ["x_row"]), node("Add", ["x_row", "x_state"], ["x_sum"]), node("MatMul", ["x_sum", "W"], ["x_next"])] + append + GO,
                    ["i_at", "c_in", "x_state", "q_in"], ["c_out", "x_next", "q_out"])
    yield "a list read by place", [node("SplitToSequence", ["h"], ["parts"], axis=0), node("SequenceLength", ["parts"], ["rows"]), nothing,
                                   node("SequenceAt", ["parts", "zero"], ["first"]), node("Loop", ["rows", "", "first", "nothing"], ["z", "list"], body=by_place),
                                   node("ConcatFromSequence", ["list"], ["y"], axis=0)], [constant("zero", np.int64(0))]
    lists = [helper.make_graph([node("SequenceConstruct", items, [name])], name, [], [sequence(name)]) for items, name in ((["h", "h"], "twice"), (["h"], "once"))]
    yield "a list of a branch", [node("Greater", ["m", "two"], ["c_more"]), node("If", ["c_more"], ["list"], then_branch=lists[0], else_branch=lists[1]),
                                 node("ConcatFromSequence", ["list"], ["y"], axis=0)], [constant("two", np.int64(2))]
    element = body([node("MatMul", ["x_state", "W"], ["x_product"]), node("Add", ["x_product", "x_element"], ["x_sum"]), node("Relu", ["x_sum"], ["x_next"]),
                    node("Identity", ["x_next"], ["x_out"])], ["x_state", "x_element"], ["x_next", "x_out"])
    start = [constant("start", np.full((1, WIDTH), 0.1, np.float32)), constant("axis1", [1])]
    for back, out_back in ((0, 0), (1, 0), (0, 1), (1, 1)):
        yield f"a Scan {'backwards' if back else 'forwards'}, stacked {'backwards' if out_back else 'forwards'}", \
            [node("Scan", ["start", "h"], ["last", "all"], body=element, num_scan_inputs=1, scan_input_directions=[back], scan_output_directions=[out_back]),
             node("Squeeze", ["all", "axis1"], ["rows"]), node("Add", ["last", "rows"], ["y"])], start
    across = body([node("Unsqueeze", ["x_element", "axis0"], ["x_line"]), node("MatMul", ["x_line", "W"], ["x_product"]), node("Squeeze", ["x_product", "axis0"], ["x_out"])],
                  ["x_element"], ["x_out"])
    yield "a Scan without states, along another axis", \
        [node("Transpose", ["h"], ["turned"], perm=[1, 0]), node("Scan", ["turned"], ["all"], body=across, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[-1]),
         node("Transpose", ["all"], ["y"], perm=[1, 0])], [constant("axis0", [0])]


def model_of(nodes, initializers):
    random = np.random.default_rng(1)
    weights = [constant(name, random.standard_normal((WIDTH, WIDTH)).astype(np.float32) * 0.5) for name in ("front", "behind")]
    nodes = [node("MatMul", ["x", "front"], ["h"]), *nodes, node("MatMul", ["y", "behind"], ["out"])]
    used = {i for n in nodes for i in n.input}
    inputs = [value("x", T.FLOAT, ["N", WIDTH])] + ([value("m", T.INT64, [])] if "m" in used or any(n.op_type == "If" for n in nodes) else [])
    graph = helper.make_graph(nodes, "loops", inputs, [value("out", T.FLOAT, ["rows", WIDTH])], [*initializers, *weights, constant("W", W)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tool(qcompile, *arguments):
    done = subprocess.run([qcompile, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))[:120]}: {(done.stdout + done.stderr)[-600:]}")
    return done.stdout + done.stderr


def run_here(qcompile, model, feed, work, *options):
    arguments = []
    for name, array in feed.items():
        np.save(work / f"{name}.npy", array)
        arguments += ["--input", f"{name}={work / name}.npy"]
    out = work / "outputs"
    out.mkdir(exist_ok=True)
    tool(qcompile, "run", model, *arguments, "--output-dir", out, *options)
    return [np.load(file) for file in sorted(out.iterdir())]


def run_there(model, feed):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"]).run(None, feed)


def sqnr(expected, actual):
    worst = 400.0
    for a, b in zip(expected, actual, strict=True):
        if a.shape != b.shape:
            return -400.0
        noise = float(np.square(a.astype(np.float64) - b).sum())
        if noise:
            worst = min(worst, 10 * np.log10(float(np.square(a.astype(np.float64)).sum()) / noise + 1e-40))
    return worst


def feeds_of(model, seeds):
    names = [i.name for i in model.graph.input]
    for seed in seeds:
        random = np.random.default_rng(seed)
        feed = {"x": random.standard_normal((2 + seed % 4, WIDTH)).astype(np.float32)}
        yield feed | ({"m": np.array((3, 1, 5, 0)[seed % 4], np.int64)} if "m" in names else {})


def written(feeds, folder):
    for number, feed in enumerate(feeds):
        own = folder / f"test_data_set_{number}"
        own.mkdir(parents=True)
        for port, (name, array) in enumerate(feed.items()):
            (own / f"input_{port}.pb").write_bytes(numpy_helper.from_array(array, name).SerializeToString())
    return f"testdata:{folder}"


def graphs_of(graph):
    yield graph
    for inner in (a.g for n in graph.node for a in n.attribute if a.HasField("g")):
        yield from graphs_of(inner)


def check(qcompile, nodes, initializers, work):
    model, file = model_of(nodes, initializers), work / "model.onnx"
    onnx.checker.check_model(model)
    onnx.save(model, str(file))
    row, wrong = [], []

    def hold(what, figures, least):
        row.append(f"{what} {min(figures):.0f}")
        wrong.extend(f"{what}: {figure:.0f} dB at {i}" for i, figure in enumerate(figures) if figure < least)

    feeds = list(feeds_of(model, range(4)))
    expected = [run_there(file, feed) for feed in feeds]
    here = [run_here(qcompile, file, feed, work) for feed in feeds]
    hold("float", [sqnr(e, h) for e, h in zip(expected, here)], LEAST_FLOAT_DB)
    for feed, on_kernels in zip(feeds[:2], here):
        if any(a.tobytes() != b.tobytes() for a, b in zip(run_here(qcompile, file, feed, work, "--engine", "interpreter"), on_kernels)):
            wrong.append("kernels and interpreter differ")
    source = written(feeds_of(model, range(10, 22)), work / "data")
    for mode, least in (("static", LEAST_STATIC_DB), ("dynamic", LEAST_DYNAMIC_DB)):
        how = ["-d", source] if mode == "static" else ["--mode", "dynamic"]
        int8 = work / f"{mode}.onnx"
        tool(qcompile, "quantize", file, *how, "-o", int8)
        onnx.checker.check_model(onnx.load(str(int8)))
        floats = [t.name for graph in graphs_of(onnx.load(str(int8)).graph) for t in graph.initializer if t.data_type == T.FLOAT and len(t.dims) == 2 and t.dims[0] == WIDTH]
        if floats:
            wrong.append(f"{mode}: {floats} are float weights")
        tool(qcompile, "quantize", file, *how, "-o", work / f"{mode}.qir")
        here = [run_here(qcompile, int8, feed, work) for feed in feeds]
        itself = [run_here(qcompile, work / f"{mode}.qir", feed, work) for feed in feeds]
        if any(a.tobytes() != b.tobytes() for one, other in zip(here, itself) for a, b in zip(one, other)):
            wrong.append(f"{mode}: the file and the graph that it was made of differ")
        hold(f"{mode}: ONNX Runtime", [sqnr(run_there(int8, feed), h) for feed, h in zip(feeds, here)], LEAST_SAME_DB)
        hold("of float", [sqnr(e, h) for e, h in zip(expected, here)], least)
    return ", ".join(row), wrong


def main():
    qcompile, word = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else "")
    failures = 0
    for name, nodes, initializers in cases():
        if word not in name:
            continue
        with tempfile.TemporaryDirectory() as work:
            try:
                row, wrong = check(qcompile, nodes, initializers, pathlib.Path(work))
            except Exception as failure:  # of any kind: the other cases are to be seen as well
                row, wrong = "", [str(failure)]
        failures += bool(wrong)
        print(f"{name:45} {'; '.join(wrong) if wrong else 'ok'}  ({row})", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
