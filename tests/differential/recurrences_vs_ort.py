#!/usr/bin/env python3
"""LSTM, GRU and RNN that quantize at run time, written as ONNX: what ONNX Runtime computes of the files beside what we do.

    recurrences_vs_ort.py QCOMPILE [WORD]

Each case (those with WORD in their name) is a small model made here: a linear layer and a recurrent one, with every activation, direction, clip,
order of operations, batch order, with and without biases and initial states; each also as a Loop and a Scan over a sequence of any
length, which become the layer.  The file must pass ONNX's checker and hold integer products
(DynamicQuantizeLSTM, or a function of the file for GRU and RNN), every output must be within 40 dB of ONNX Runtime's on that file, and what is
read back must give the bytes of the .qir, on kernels and in the interpreter.  The float model is held beside ONNX Runtime as well.

Needs numpy, onnx and onnxruntime, of the Python that runs it; exit code 77, which ctest reports as skipped, when one is missing.
"""
import itertools
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

LEAST_DB, LEAST_FLOAT_DB = 40, 100
GATES, STATES = {"LSTM": 4, "GRU": 3, "RNN": 1}, {"LSTM": 3, "GRU": 2, "RNN": 1}  # activations of one direction
STEPS, BATCH, FEATURES, INPUT, HIDDEN = 9, 3, 12, 20, 19
LENGTHS = [4, STEPS, 0]
PARAMETERS = {"Affine": (0.5, 0.1), "LeakyRelu": (0.1, None), "ThresholdedRelu": (0.2, None), "ScaledTanh": (0.8, 0.6), "HardSigmoid": (0.2, 0.5), "Elu": (0.7, None)}
ACTIVATIONS = ["Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", *PARAMETERS]


def with_parameters(names):
    given = [PARAMETERS[n] for n in names if n in PARAMETERS]
    attributes = {"activations": names, "activation_alpha": [a for a, _ in given], "activation_beta": [b for _, b in given if b is not None]}
    return {key: value for key, value in attributes.items() if value}


def cases():
    for op, direction in itertools.product(("GRU", "RNN"), ("forward", "reverse", "bidirectional")):
        yield f"{op} {direction}", op, {"direction": direction}, "Bh"
        yield f"{op} {direction} clipped, plain", op, {"direction": direction, "clip": 0.4}, ""
        yield f"{op} {direction} batch first", op, {"direction": direction, "layout": 1}, "Bh"
        if op == "GRU":
            yield f"{op} {direction} linear before reset", op, {"direction": direction, "linear_before_reset": 1}, "B"
    for name in ACTIVATIONS:
        yield f"RNN {name}", "RNN", with_parameters([name]), "B"
        yield f"GRU both ways, {name}", "GRU", {"direction": "bidirectional", **with_parameters(["Sigmoid", name, "HardSigmoid", "Tanh"])}, "Bh"
    yield "LSTM", "LSTM", {}, "Bh"
    yield "LSTM both ways", "LSTM", {"direction": "bidirectional"}, "B"
    for op in GATES:
        for direction in ("forward", "reverse", "bidirectional"):
            yield f"{op} {direction} with lengths", op, {"direction": direction}, "BhL"
    yield "GRU batch first with lengths", "GRU", {"direction": "bidirectional", "layout": 1}, "BL"
    for kind in ("Loop", "Scan"):
        for op, attributes in (("RNN", {}), ("RNN", {"activations": ["Relu"]}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {})):
            yield f"{op} {' '.join(map(str, attributes.values()))} as a {kind}", op, {"as": kind, **attributes}, "Bh"


def written_out(op, attributes, weights):
    """The layer forwards with biases as a node Loop or Scan over front_x, [steps, BATCH, INPUT], and initializers."""
    w, r, b, h = (numpy_helper.to_array(weight)[0] for weight in weights)
    rows, linear = GATES[op] * HIDDEN, attributes.get("linear_before_reset")
    parts = {"Wt": w.T, "Wb": b[:rows], "Rb": b[rows:], "R_last": r[-HIDDEN:].T, "Rb_last": b[-HIDDEN:], "one": np.float32(1),
             "c": -h, "Rt": r[:-HIDDEN].T if op == "GRU" and not linear else r.T, "h": h, "zero": np.int64(0), "next_by": np.int64(1), "true": np.bool_(True)}
    if op == "GRU" and not linear:
        parts["Rb"] = b[rows:-HIDDEN]
    node = helper.make_node
    nodes = [node("MatMul", ["in", "Wt"], ["in_w"]), node("Add", ["in_w", "Wb"], ["in_b"]),
             node("MatMul", ["state", "Rt"], ["state_r"]), node("Add", ["state_r", "Rb"], ["state_b"])]
    if op == "RNN":
        nodes += [node("Add", ["in_b", "state_b"], ["sum"]), node(attributes.get("activations", ["Tanh"])[0], ["sum"], ["new"])]
    elif op == "LSTM":
        nodes += [node("Add", ["in_b", "state_b"], ["sum"]), node("Split", ["sum"], ["sum_i", "sum_o", "sum_f", "sum_g"], axis=1),
                  node("Sigmoid", ["sum_i"], ["i"]), node("Sigmoid", ["sum_o"], ["o"]), node("Sigmoid", ["sum_f"], ["f"]), node("Tanh", ["sum_g"], ["g"]),
                  node("Mul", ["f", "cell"], ["kept"]), node("Mul", ["i", "g"], ["fresh"]), node("Add", ["fresh", "kept"], ["new_cell"]),
                  node("Tanh", ["new_cell"], ["squashed"]), node("Mul", ["o", "squashed"], ["new"])]
    else:
        nodes += [node("Split", ["in_b"], ["in_z", "in_r", "in_h"], axis=1),
                  node("Split", ["state_b"], ["state_z", "state_r", "state_h"][:3 if linear else 2], axis=1),
                  node("Add", ["in_z", "state_z"], ["sum_z"]), node("Add", ["in_r", "state_r"], ["sum_r"]),
                  node("Sigmoid", ["sum_z"], ["z"]), node("Sigmoid", ["sum_r"], ["r"])]
        nodes[2].output[0] = nodes[3].input[0] = "state_product"
        nodes += [node("Mul", ["r", "state_h"], ["add_h"])] if linear else [
            node("Mul", ["r", "state"], ["reset"]), node("MatMul", ["reset", "R_last"], ["reset_r"]), node("Add", ["reset_r", "Rb_last"], ["add_h"])]
        nodes += [node("Add", ["in_h", "add_h"], ["sum_h"]), node("Tanh", ["sum_h"], ["candidate"]), node("Sub", ["one", "z"], ["left"]),
                  node("Mul", ["left", "candidate"], ["fresh"]), node("Mul", ["z", "state"], ["kept"]), node("Add", ["fresh", "kept"], ["new"])]
    nodes.append(node("Identity", ["new"], ["seen"]))
    value = helper.make_tensor_value_info
    states = ["state", "cell"] if op == "LSTM" else ["state"]
    initial, last = ["h", "c"][:len(states)], ["last_", "last_cell"][:len(states)]
    before, behind = ([value(name, T.FLOAT, (BATCH, HIDDEN)) for name in names] for names in (states, ["new", "new_cell"][:len(states)] + ["seen"]))
    if attributes["as"] == "Scan":
        body = helper.make_graph(nodes, "body", [*before, value("in", T.FLOAT, (BATCH, INPUT))], behind)
        outside = [node("Scan", [*initial, "front_x"], [*last, "y_"], name="layer", body=body, num_scan_inputs=1)]
    else:
        nodes += [node("Add", ["at", "next_by"], ["at_next"]), node("Less", ["at_next", "steps"], ["goes_on"])]
        nodes.insert(0, node("Gather", ["front_x", "at"], ["in"]))
        body = helper.make_graph(nodes, "body", [value("round", T.INT64, ()), value("goes", T.BOOL, ()), value("at", T.INT64, ()), *before],
                                 [value("goes_on", T.BOOL, ()), value("at_next", T.INT64, ()), *behind])
        outside = [node("Shape", ["front_x"], ["sizes"]), node("Gather", ["sizes", "zero"], ["steps"]),
                   node("Loop", ["steps", "true", "zero", *initial], ["count", *last, "y_"], name="layer", body=body)]
    outside += [node("Unsqueeze", ["last_", "zeros"], ["last"]), node("Unsqueeze", ["y_", "ones"], ["y"])]
    parts |= {"zeros": np.array([0]), "ones": np.array([1])}
    return outside, [numpy_helper.from_array(np.array(part, order="C"), name) for name, part in parts.items()]


def model(op, attributes, operands, seed):
    random = np.random.default_rng(seed)
    directions, rows = 2 if attributes.get("direction") == "bidirectional" else 1, GATES[op] * HIDDEN
    array = lambda name, *shape, scale: numpy_helper.from_array((random.uniform(-1, 1, shape) * scale).astype(np.float32), name)
    state = (BATCH, directions, HIDDEN) if attributes.get("layout") else (directions, BATCH, HIDDEN)
    weights = [array("front", FEATURES, INPUT, scale=0.5), array("W", directions, rows, INPUT, scale=0.3), array("R", directions, rows, HIDDEN, scale=0.25),
               array("B", directions, 2 * rows, scale=0.3), array("h", *state, scale=0.5), numpy_helper.from_array(np.array(LENGTHS, np.int32), "lengths")]
    given = ["front_x", "W", "R", "B" if "B" in operands else "", "lengths" if "L" in operands else "", "h" if "h" in operands else ""]
    while not given[-1]:
        given.pop()
    time = (BATCH, STEPS) if attributes.get("layout") else (STEPS, BATCH)
    nodes = [helper.make_node("MatMul", ["x", "front"], ["front_x"], name="front")]
    shape = (*time, FEATURES)
    if "as" in attributes:
        outside, parts = written_out(op, attributes, weights[1:5])
        nodes += outside
        weights = [weights[0], *parts]
        shape = ("steps", BATCH, FEATURES)
    else:
        nodes.append(helper.make_node(op, given, ["y", "last"], name="layer", hidden_size=HIDDEN, **attributes))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", T.FLOAT, shape)],
                              [helper.make_tensor_value_info(name, T.FLOAT, None) for name in ("y", "last")], weights)
    feed = random.normal(size=(*time, FEATURES)).astype(np.float32)
    if op == "LSTM" and "L" in operands:  # DynamicQuantizeLSTM of ONNX Runtime looks for its range behind the ends of sequences, too
        for entry, length in enumerate(LENGTHS):
            feed[length:, entry] = 0
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), feed


def db(reference, other):
    noise = np.mean(np.square(reference.astype(np.float64) - other)) or 1e-30
    return 10 * np.log10(max(np.mean(np.square(reference.astype(np.float64))), 1e-30) / noise)


def run(qcompile, file, feed, engine, work):
    np.save(work / "x.npy", feed)
    call([qcompile, "run", file, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out", "--engine", engine])
    return [np.load(work / "out" / f"{name}.npy") for name in ("y", "last")]


def call(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-600:])
    return done


def check(qcompile, op, attributes, operands, seed, work):
    floats, feed = model(op, attributes, operands, seed)
    onnx.save(floats, work / "m.onnx")
    for suffix in ("onnx", "qir"):
        call([qcompile, "quantize", work / "m.onnx", "--mode", "dynamic", "-o", work / f"q.{suffix}"])
    written = onnx.load(work / "q.onnx")
    onnx.checker.check_model(written, full_check=True)
    ops = [node.op_type for node in written.graph.node if node.name == "layer"]
    if not any(name.startswith("DynamicQuantize" + op) for name in ops):
        return False, f"the layer is {ops}"
    session = onnxruntime.InferenceSession(str(work / "q.onnx"), providers=["CPUExecutionProvider"])
    worst = quantization = floats_db = float("inf")
    same = read_back = True
    for feed in [feed, feed[:1], feed[:4]] if "as" in attributes else [feed]:
        there, here = session.run(["y", "last"], {"x": feed}), run(qcompile, work / "q.onnx", feed, "jit", work)
        text = run(qcompile, work / "q.qir", feed, "jit", work)
        same &= all(a.tobytes() == b.tobytes() for a, b in zip(here, run(qcompile, work / "q.onnx", feed, "interpreter", work)))
        read_back &= all(a.tobytes() == b.tobytes() for a, b in zip(here, text))
        worst = min(worst, *(db(a, b) for a, b in zip(there, here)))
        exact = run(qcompile, work / "m.onnx", feed, "jit", work)
        quantization = min(quantization, *(db(a, b) for a, b in zip(exact, here)))
        if not attributes.get("layout"):  # which ONNX Runtime lacks
            there = onnxruntime.InferenceSession(floats.SerializeToString(), providers=["CPUExecutionProvider"]).run(["y", "last"], {"x": feed})
            floats_db = min(floats_db, *(db(a, b) for a, b in zip(there, exact)))
    good = worst >= LEAST_DB and floats_db >= LEAST_FLOAT_DB and same and read_back
    return good, (f"{worst:.0f} dB to ONNX Runtime, {quantization:.0f} dB to float, which is {floats_db:.0f} dB to ONNX Runtime's"
                                                      f"{'' if same else ', interpreter DIFFERS'}{'' if read_back else ', .qir DIFFERS'}")


def main():
    qcompile, word = pathlib.Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    failed, count = [], 0
    onnxruntime.set_default_logger_severity(4)
    for seed, (name, op, attributes, operands) in enumerate(cases()):
        if word not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                good, words = check(qcompile, op, attributes, operands, seed, pathlib.Path(folder))
            except Exception as error:  # noqa: BLE001
                good, words = False, f"FAILED {' '.join(str(error).split())[:600]}"
        count += 1
        print(f"{name:40} {'ok ' if good else 'BAD'} {words}", flush=True)
        failed += [] if good else [name]
    print("not the same: " + ", ".join(failed) if failed else f"{count} recurrent layers agree with ONNX Runtime {onnxruntime.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
