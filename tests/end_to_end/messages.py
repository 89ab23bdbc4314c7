#!/usr/bin/env python3
"""What the command line says of odd names, of targets that this machine lacks, and of mistakes.

    messages.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import pathlib
import platform
import tempfile

from command_line import DATA, run

MODEL = DATA / "digits.onnx"
SAMPLES = f"images:{DATA}/calib?order=grey&mean=0&std=255"


def odd_names(work):
    """Names of models are any bytes; the JSON of every verb is UTF-8 all the same, and ranges are found again."""
    model = work / "odd.onnx"
    data = MODEL.read_bytes()
    for name, odd in ((b"scores", b"sc\xffres"), (b"/Relu_output_0", b"/Re\xffu_output_0"), (b"/a/a.0/Conv", b"/a/a.\xff/Conv")):
        assert name in data
        data = data.replace(name, odd)
    model.write_bytes(data)
    int8, ranges = work / "odd.int8.onnx", work / "odd.qcal"
    for args in (["inspect", model], ["inspect", model, "--kernels"], ["quantize", model, "-d", SAMPLES, "-o", int8], ["profile", int8, "--runs", 2],
                 ["bench", int8, "--seconds", 0.01, "--layers"], ["calibrate", model, "-d", SAMPLES, "-o", ranges]):
        assert "\ufffd" in json.dumps(json.loads(run(*args, "--json").stdout), ensure_ascii=False), args
    run("quantize", model, "--ranges", ranges, "-o", work / "again.onnx")
    run("merge", ranges, "-o", work / "merged.qcal")
    assert (work / "merged.qcal").read_bytes() == ranges.read_bytes()
    print("odd names: passed")


def targets():
    """A target that cannot run here is an error, or a warning that says what runs."""
    foreign, ours = ("avx2", "neon") if platform.machine() == "aarch64" else ("aarch64+dotprod", "avx2")
    for verb in (["bench", MODEL], ["inspect", MODEL, "--kernels"]):
        refused = run(*verb, "--target", foreign, code=1).stderr
        assert "this machine is" in refused and "qcompile compile" in refused, refused
    assert f"predicted for {foreign}" in run("profile", MODEL, "--target", foreign).stdout
    assert "warning" not in run("bench", MODEL, "--seconds", 0.01, "--target", "generic").stderr
    host = json.loads(run("doctor", "--json").stdout)
    for isa in ("avx2", "avx512vnni", "amx-int8") if ours == "avx2" else ("neon", "i8mm"):
        done = run("bench", MODEL, "--seconds", 0.01, "--target", isa, "--json")
        warnings = [line for line in done.stderr.splitlines() if "warning" in line]
        if isa in host["isas"]:
            assert not warnings, warnings
        else:
            assert len(warnings) == 1 and f"lacks {isa}" in warnings[0] and json.loads(done.stdout)["target"] in warnings[0], warnings
    print("targets: passed")


def mistakes(work):
    for number in ("-3", "0"):
        assert "--calibration-limit" in run("calibrate", MODEL, "-d", SAMPLES, "-o", work / "x", "--calibration-limit", number, code=2).stderr
        assert "--calibration-limit" in run("quantize", MODEL, "-d", SAMPLES, "-o", work / "x", "--calibration-limit", number, code=2).stderr
        assert "--limit" in run("eval", MODEL, "-d", SAMPLES, "--labels", DATA / "labels.tsv", "--limit", number, code=2).stderr

    rules = work / "rules.json"
    rules.write_text('{"global": ')
    refused = run("calibrate", MODEL, "-d", SAMPLES, "-o", work / "x", "--config", rules, code=1).stderr
    assert "parse error at line 1" in refused and "json.exception" not in refused, refused

    weights = {"observer": "per_channel_minmax", "axis": 0, "dtype": "s8", "scheme": "symmetric"}
    rules.write_text(json.dumps({"global": {"activation": {"observer": "placeholder"}, "weight": weights}}))
    assert "observe no values" in run("calibrate", MODEL, "-d", SAMPLES, "-o", work / "none.qcal", "--config", rules).stderr

    run("calibrate", MODEL, "-d", f"{SAMPLES}&limit=30", "-o", work / "a.qcal")
    refused = run("merge", work / "a.qcal", work / "none.qcal", "-o", work / "x", code=1).stderr
    assert f"'{work}/none.qcal' does not join '{work}/a.qcal'" in refused and "help:" in refused and "node" not in refused, refused
    assert not (work / "x").exists()
    print("mistakes: passed")


def decided_by_data(work):
    """What cannot be one program: the verb that runs it comes first, --bind where an input decides."""
    net = 'graph @g(%x: f32[4]{more}) -> ("y") {{\n{before}  %a = relu %x : f32[4]\n  %b = neg %x : f32[4]\n  %y = choose %c, %a, %b {{axes=[], sizes=[]}} : f32[4]\n  return %y\n}}\n'
    (work / "given.qir").write_text(net.format(more=", %c: bool[]", before=""))
    (work / "computed.qir").write_text(net.format(
        more="", before="  %s = reduce_sum %x {axes=[0], keepdims=0} : f32[]\n  %c = greater %s, %s : bool[]\n"))
    for name, binds in (("given", True), ("computed", False)):
        said = run("compile", work / f"{name}.qir", "-o", work / "m.o", code=1).stderr
        assert "run it with `qcompile run`" in said and ("fix 'c' with --bind" in said) == binds, said
    print("decided by data: passed")


def predicted():
    said = run("profile", MODEL, "--target", "riscv64").stdout.splitlines()[-1]
    origins = said.split("constants of ")[1].split("; kernels were")[0].split("; ")
    assert len(origins) == len(set(origins)), said
    print("predicted: passed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        odd_names(work)
        targets()
        mistakes(work)
        decided_by_data(work)
        predicted()


main()
