#!/usr/bin/env python3
"""Every op on inputs whose dims are all free: they stay free, and the values of ONNX Runtime at several sizes.

    free_forms.py QCOMPILE [NAME ...]

The forms are those of opset_forms.py at the newest opset that each may be written in. The dims of a form's inputs become symbols of their own; it
is run at the form's sizes and, for every dim, at sizes that differ there (and at the same place of the other inputs), as far as ONNX Runtime, or
ONNX's evaluator, takes them. A form that can only be had at one shape is an error unless STAY says why, and so is an op that STAY names for nothing.

Needs onnx, onnxruntime and numpy; exit code 77, which ctest reports as skipped, without.
"""
import pathlib
import subprocess
import sys
import tempfile

from opset_forms import FORMS, Form, close, model_of, np, onnx, opsets_of, right_values

# Numbers that the ranks of results, heads, blocks or the pads themselves are made of: by op, what the note says of them.
STAY = {
    "Attention": ("the number of heads", "the size of all heads"), "RotaryEmbedding": ("the size of a head",), "GatherND": ("the last dim of indices",),
    "ScatterND": ("the last dim of indices",), "ConvTranspose": ("a size with output_shape",), "Squeeze": ("something else at other sizes",), "Col2Im": ("the number of rows",),
    "DFT": ("the last dim of x",), "STFT": ("the last dim of x",), "DeformConv": ("the number of channels", "whose dims are free"),
    "PRelu": ("something else at other sizes",), "QuantizeLinear": ("blocks of",), "DequantizeLinear": ("blocks of",),
}

# ONNX's evaluator gives scores behind the softcap for those in front of it, against ONNX's text.
WRONG_EVALUATION = {("Attention", 3)}

# One row, and scales of two: of the other dim then, as some quantizers write those of a bias; of free dims they are of the one that they name.
OTHER_SIZES = {("DequantizeLinear", ((1, 2),))}


def freed(model):
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{axis}"
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model


def resized(array, axis, size):
    """Its elements again and again, or the first of them."""
    return np.ascontiguousarray(np.take(array, np.arange(size) % array.shape[axis], axis))


def variants(feeds):
    """At the sizes of the form, and at others: one dim of one input, and the same dim, counted from either end, of all."""
    yield "as it is", feeds
    seen = set()
    for name, array in feeds.items():
        for axis, size in enumerate(array.shape):
            for other in {size + 1, 2 * size, max(size - 1, 1)} - {size}:
                for place in ("alone", axis, axis - array.ndim):
                    changed = {}
                    for key, value in feeds.items():
                        here = axis if place == "alone" and key == name else place if place != "alone" and -value.ndim <= place < value.ndim else None
                        fits = here is not None and value.shape[here] == size and size > 0
                        changed[key] = resized(value, here, other) if fits else value
                    shapes = tuple(v.shape for v in changed.values())
                    if shapes not in seen:
                        seen.add(shapes)
                        yield " ".join(map(str, shapes)), changed


def run(qcompile, path, feeds, outputs, work):
    options = []
    for name, array in feeds.items():
        np.save(work / f"{name}.npy", array)
        options += ["--input", f"{name}={work / (name + '.npy')}"]
    done = subprocess.run([qcompile, "run", path, *options, "--engine", "interpreter", "--output-dir", work / "out"], capture_output=True, text=True, timeout=60)
    said = " ".join(done.stderr.split())
    if done.returncode:
        raise RuntimeError(said[-300:])
    return [np.load(work / "out" / f"y{k}.npy") for k in range(outputs)], said[said.find("note:"):][:300] if "note:" in said else ""


def fixed_at(form, opset, op, feeds):
    """The model of these sizes alone."""
    inputs = iter(feeds.values())
    fixed = Form(*(None if x is None else next(inputs) for x in form.inputs), constants=form.constants, attrs=form.attrs, outputs=form.outputs)
    return model_of(op, fixed, opset)[0]


def refused_when_fixed(qcompile, form, opset, op, feeds, work):
    """Whether a model of these sizes alone is refused as well: where ONNX Runtime takes what ONNX does not mean."""
    onnx.save(fixed_at(form, opset, op, feeds), work / "fixed.onnx")
    try:
        run(qcompile, work / "fixed.onnx", feeds, form.outputs, work)
    except RuntimeError:
        return True
    return False


def main():
    qcompile, names = sys.argv[1], sys.argv[2:]
    faults, runs, stayed = 0, 0, set()

    def fault(text):
        nonlocal faults
        faults += 1
        print(f"FAIL {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for op, forms in FORMS.items():
            if (names and op not in names) or not forms:
                continue
            for k, form in enumerate(forms):
                opsets = opsets_of(op, form)
                if not opsets or not form.inputs:
                    continue
                model, feeds = model_of(op, form, opsets[-1])
                path = work / "form.onnx"
                onnx.save(freed(model), path)
                for what, changed in variants(feeds):
                    if (op, tuple(v.shape for v in changed.values())) in OTHER_SIZES:
                        continue
                    label = f"{op} {k} opset {opsets[-1]} {dict((a, v) for a, v in form.attrs.items() if a != 'value')} at {what}"
                    try:
                        source, expected = right_values(model, changed)
                        if source != "ONNX Runtime":  # which may take the sizes alone
                            source, expected = right_values(fixed_at(form, opsets[-1], op, changed), changed)
                        if source != "ONNX Runtime" and (op, k) in WRONG_EVALUATION:
                            continue
                    except Exception:  # noqa: BLE001  neither takes these sizes
                        continue
                    try:
                        runs += 1
                        found, note = run(qcompile, path, changed, form.outputs, work)
                        wrong = [w for w in (close(e, v) for e, v in zip(expected, found)) if w]
                        if any(words in note for words in STAY.get(op, ())):
                            stayed.add(op)
                            note = ""
                        if note or wrong:
                            fault(f"{label}: {note} {'; '.join(wrong)}")
                    except Exception as error:  # noqa: BLE001  any failure is a finding, unless these sizes are none for us
                        if not refused_when_fixed(qcompile, form, opsets[-1], op, changed, work):
                            fault(f"{label}: {str(error)[:300]}")
    if not names:
        for op in sorted(set(STAY) - stayed):
            fault(f"{op} stays at one shape no more")
    print(f"{runs} runs, {faults} faults")
    return 1 if faults or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
