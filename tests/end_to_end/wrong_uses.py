#!/usr/bin/env python3
"""Wrong uses of every verb: each with its exit code and a pattern of what is said.

    wrong_uses.py QCOMPILE DATA_DIR

Beyond the pattern, every message is one of ours (no exception's text, no internal error), leaves no file behind, and names in its first line no
flag that was not typed.  A progress line on a terminal ends before the result begins.  Standard library only.
"""
import os
import pathlib
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile

from command_line import DATA, QCOMPILE, npy_header, recipes_off, run, write_npy

MODEL = DATA / "digits.onnx"
SAMPLES = f"images:{DATA}/calib?order=grey&mean=0&std=255&limit=8"
RUN, EVAL, QUANT, CALIB = ["run", "{m}"], ["eval", "{m}", "-d", "{s}"], ["quantize", "{m}", "-d", "{s}", "-o", "{w}/q.onnx"], ["calibrate", "{m}", "-d", "{s}", "-o", "{w}/r.qcal"]

# (arguments, exit code, pattern); {m} the model, {s} its samples, {d} its folder, {w} a folder for results, {k} a folder of files of other kinds.
USAGE = [
    ([], "no verb.*inspect, calibrate"),
    (["quantise", "{m}"], "no verb 'quantise'.*did you mean 'quantize'"),
    (["bnch", "{m}"], "did you mean 'bench'"),
    (["{m}"], "no verb .*digits.onnx"),
    (["--treads", "2", "bench", "{m}"], "no option --treads"),
    (["--verison"], "did you mean '--version'"),
    (["-x"], "no option -x"),
    (["bench"], "MODEL is missing.*example: qcompile bench"),
    (["run"], "MODEL is missing"),
    (["inspect"], "MODEL is missing"),
    (["inspect", ""], "MODEL has an empty value"),
    (["profile"], "MODEL is missing"),
    (["compile"], "MODEL and -o FILE is missing"),
    (["compile", "{m}"], "-o FILE is missing"),
    (["quantize", "{m}", "-d", "{s}"], "-o FILE is missing"),
    (["calibrate", "{m}"], "-d SOURCE and -o FILE is missing"),
    (["calibrate", "{m}", "-d", "{s}"], "-o FILE is missing"),
    (["eval", "{m}"], "-d SOURCE is missing"),
    (["merge", "-o", "{w}/x"], "INPUTS is missing"),
    (["merge", "a.qcal"], "-o FILE is missing"),
    (["reduce", "{m}", "-o", "{w}/x.qir"], "--test COMMAND is missing"),
    (["debug", "{m}", "-d", "{s}"], "is missing"),
    (["compare", "{m}", "-d", "{s}"], "is missing"),
    (["sensitivity", "{m}"], "is missing"),
    (["explain", "{m}"], "is missing"),
    (["finetune", "{m}", "-d", "{s}"], "-o FILE is missing"),
    (["finetune", "{m}", "-d", "{s}", "-o", "{w}/x.onnx", "--weight-bits", "1"], "from 2 to 8, not '1'"),
    (["completion"], "missing"),
    (["completion", "fish"], "one of bash, zsh, not 'fish'"),
    (["bench", "{m}", "--treads", "2"], "no option --treads.*did you mean '--threads'.*options: "),
    (["bench", "{m}", "--thread", "2"], "did you mean '--threads'"),
    (["quantize", "{m}", "--ouput", "x"], "did you mean '--output'"),
    (["calibrate", "{m}", "--labels", "x", "-o", "x"], "no option --labels; it is one of .*eval"),
    (["run", "{m}", "--seconds", "1"], "it is one of bench"),
    (["bench", "{m}", "-q"], "no option -q"),
    (["inspect", "{m}", "--jsn"], "did you mean '--json'"),
    (["profile", "{m}", "--run", "3"], "did you mean '--runs'"),
    (["doctor", "--op"], "did you mean '--ops'"),
    (["doctor", "{m}"], "is too much"),
    (["man", "bench"], "is too much"),
    (["opt", "a", "b"], "'b' is too much: INPUT is given"),
    (["bench", "{m}", "{m}"], "is too much: MODEL is given"),
    (["bench", "{m}", "--threads"], "--threads lacks its value, a whole number from 1 to 1024"),
    (["quantize", "{m}", "-o"], "-o lacks its value"),
    (["quantize", "{m}", "-o", "--json"], "-o lacks its value"),
    (["bench", "{m}", "--shape"], "--shape lacks its value, NAME=SIZES"),
    (["bench", "{m}", "--threads", "0"], "from 1 to 1024, not '0'"),
    (["bench", "{m}", "--threads", "-3"], "from 1 to 1024, not '-3'"),
    (["bench", "{m}", "--threads=-3"], "not '-3'"),
    (["bench", "{m}", "--threads", "1.5"], "a whole number.*not '1.5'"),
    (["bench", "{m}", "--threads", "two"], "not 'two'"),
    (["bench", "{m}", "--threads", "99999999999999999999"], "not '99999999999999999999'"),
    (["bench", "{m}", "--threads", ""], "not ''"),
    (["bench", "{m}", "--seconds", "-1"], "0 or more, not '-1'"),
    (["bench", "{m}", "--seconds", "nan"], "not 'nan'"),
    (["bench", "{m}", "--seconds", "inf"], "not 'inf'"),
    (["bench", "{m}", "--seconds", "-inf"], "not '-inf'"),
    (["bench", "{m}", "--seconds", "1s"], "not '1s'"),
    (["profile", "{m}", "--runs", "0"], "from 1 to 1000000, not '0'"),
    (["profile", "{m}", "--sort", "tiem"], "order, time, not 'tiem'.*did you mean 'time'"),
    (["profile", "{m}", "--by", "node"], "layer, op, kernel"),
    (["run", "{m}", "--engine", "interpeter"], "did you mean 'interpreter'"),
    (["run", "{m}", "--output-dir", ""], "empty value"),
    ([*EVAL, "--metric", "top3"], "top1, top5, .*not 'top3'.*did you mean"),
    ([*EVAL, "--limit", "0"], "1 or more, not '0'"),
    ([*EVAL, "--limit", "-5"], "1 or more, not '-5'"),
    ([*QUANT, "--mode", "statc"], "did you mean 'static'"),
    ([*QUANT, "--weight-bits", "3"], "not '3'"),
    ([*QUANT, "--smooth-quant", "maybe"], "on, off, not 'maybe'"),
    ([*QUANT, "--equalize", "yes"], "not 'yes'"),
    ([*QUANT, "--bias-correction", "slow"], "off, fast, full"),
    ([*QUANT, "--round-weights", "up"], "calibrated, nearest"),
    ([*QUANT, "--calibration-limit", "0"], "--calibration-limit takes a whole number of 1 or more"),
    ([*QUANT, "--group-size", "-1"], "not '-1'"),
    ([*QUANT, "--compare-samples", "nan"], "not 'nan'"),
    ([*QUANT, "--recovery-samples", "1e3"], "not '1e3'"),
    ([*QUANT, "--threads", "1", "--threads", "2"], "--threads is given twice"),
    ([*QUANT, "-o", "{w}/other.onnx"], "-o is given twice"),
    (["quantize", "{m}", "-o", "{w}/a", "--output", "{w}/b"], "--output is given twice"),
    (["bench", "{m}", "--json", "--json"], "--json is given twice"),
    (["bench", "{m}", "--json=yes"], "--json takes no value"),
    (["bench", "{m}", "--stdio", "--json"], "--stdio"),
    (["bench", "{m}", "--stdio", "--seconds", "1"], "--stdio"),
    (["bench", "{m}", "--no-cache", "--cache-size", "1M"], "--cache-size"),
    (["inspect", "{m}", "--text", "--json"], "--text"),
    ([*QUANT, "--mode", "dynamic", "--per-token", "--per-tensor"], "--per-t"),
    ([*CALIB, "--checkpoint-seconds", "-0.5"], "not '-0.5'"),
    ([*CALIB, "--checkpoint-seconds", "nan"], "not 'nan'"),
    (["reduce", "{m}", "--test", "true", "-o", "{w}/x.qir", "--tries", "0"], "not '0'"),
    (["opt", "-", "--stop-after", "two"], "not 'two'"),
    (["merge", "a", "-o", "{w}/x", "-o", "{w}/y"], "-o is given twice"),
]
REQUESTS = [
    # Options that would have no effect.
    (["quantize", "{m}", "--mode", "dynamic", "-o", "{w}/q.onnx", "--calibration-limit", "3"], "--calibration-limit has no effect without samples"),
    (["quantize", "{m}", "--mode", "weight-only", "-o", "{w}/q.onnx", "--threads", "2"], "--threads has no effect without samples"),
    (["quantize", "{m}", "--mode", "dynamic", "-o", "{w}/q.onnx", "--guard-masked-scores", "off"], "--guard-masked-scores has no effect"),
    (["quantize", "{m}", "--mode", "fp16-weights", "-o", "{w}/q.onnx", "--guard-biases", "on"], "--guard-biases has no effect where biases stay float"),
    ([*QUANT, "--recovery-samples", "3", *recipes_off()],
     "--recovery-samples has no effect where nothing that uses them is on"),
    ([*QUANT, "--check", "{s}&skip=8", "--compare-samples", "0", *recipes_off()],
     "--check has no effect where nothing is compared"),
    ([*CALIB, "--guard-biases", "off"], "--guard-biases has no effect on ranges.*quantize"),
    ([*EVAL, "--predictions", "{w}/p", "--metric", "top5"], "--metric has no effect without labels"),
    ([*RUN, "--engine", "interpreter", "--threads", "2"], "--threads has no effect with --engine interpreter"),
    ([*RUN, "--engine", "interpreter", "--target", "avx2"], "--target has no effect with --engine interpreter"),
    ([*RUN, "--engine", "interpreter", "--no-cache"], "--no-cache has no effect with --engine interpreter"),
    ([*RUN, "--engine", "interpreter", "--cache-size", "1M"], "--cache-size has no effect with --engine interpreter"),
    (["inspect", "{m}", "--target", "avx2"], "--target has no effect where nothing is compiled.*--kernels"),
    (["inspect", "{m}", "--json", "--threads", "2"], "--threads has no effect where nothing is compiled"),
    (["profile", "{m}", "--by", "op", "--sort", "order"], "--sort has no effect with --by"),
    (["debug", "{m}", "{m}", "-d", "{s}", "--no-shadow", "--sort", "shadow"], "--sort shadow has no effect with --no-shadow"),
    (["opt", "{k}/graph.qir", "--input", "x=[1, 2]"], "--input has no effect where nothing is run.*--run"),
    (["opt", "{k}/graph.qir", "--run", "--memory-plan"], "--run has no effect with --memory-plan"),
    # One name, two values: which is meant?
    *((["{}".format(verb), "{m}", *more, "--shape", "N=1", "--shape", "N=2"], "--shape is given twice for 'N': '1' and '2'")
      for verb, more in (("inspect", []), ("profile", []), ("bench", []), ("compile", ["-o", "{w}/m.o"]), ("eval", ["-d", "{s}", "--predictions", "{w}/p"]),
                         ("quantize", ["-d", "{s}", "-o", "{w}/q.onnx"]), ("calibrate", ["-d", "{s}", "-o", "{w}/r.qcal"]))),
    (["bench", "{m}", "--shape", "N=2", "--shape", "N=1,4"], "given twice for 'N': '2' and '1,4'.*one list"),
    (["compile", "{m}", "--shape", "N=1,4", "--shape", "N=2", "-o", "{w}/m.o"], "given twice for 'N': '1,4' and '2'"),
    (["inspect", "{m}", "--bind", "image=1", "--bind", "image=0"], "--bind is given twice for 'image': '1' and '0'"),
    ([*RUN, "--input", "image={k}/x.npy", "--input", "image={k}/small.npy"], "--input is given twice for 'image': '.*x.npy' and '.*small.npy'"),
    (["opt", "{k}/graph.qir", "--run", "--input", "x=[1, 2]", "--input", "x=[3, 4]"], "--input is given twice for 'x'"),
    ([*QUANT, "--observer", "percentile:bins=256,bins=512"], "'bins' is given twice"),
    ([*QUANT, "--observer", "percentile:"], "behind the ':' a field and its value are missing.*bins"),
    ([*QUANT, "--observer", "percentile:bins"], "'bins' lacks NAME="),
    (["bench", "{m}", "--shape", "N=4,4"], "the size 4 is repeated"),
    (["compile", "{m}", "--shape", "N=4,4", "-o", "{w}/m.o"], "the size 4 is repeated"),
    # Samples that calibrate are not held out.
    ([*QUANT, "--check", "{s}"], "--check names .*calib.*not held out"),
    (["explain", "{m}", "-d", "{s}", "--check", "{s}"], "not held out"),
    *[([*verb, "--check", "images:{d}/calib?order=grey&mean=0&std=255&limit=4"], "sample '.*' of --check calibrates as well: it is not held out")
      for verb in (QUANT, ["explain", "{m}", "-d", "{s}"], ["sensitivity", "{m}", "-d", "{s}"], ["finetune", "{m}", "-d", "{s}", "-o", "{w}/q.onnx"])],
    (["sensitivity", "{m}", "-d", "{s}", "--check", "{s}"], "not held out"),
    (["debug", "{m}", "{m}", "-d", "{s}", "-d", "{s}"], "the last -d names .*not held out"),
    # Samples that do not fit.
    (["eval", "{m}", "-d", "npy:{k}/x.npy?layout=nhwc", "--predictions", "{w}/p"], r"f32\[1,1,16,16\], and \[1,16,1,16\] with layout=nhwc.*leave layout=nhwc out"),
    (["eval", "{m}", "-d", "npy:{k}/x.npy", "--shape", "N=0", "--predictions", "{w}/p"], "holds 0 samples"),
    (["eval", "{m}", "-d", "npy:{k}/x.npy", "--shape", "N=2", "--predictions", "{w}/p"], "takes 2 at once: leave --shape out"),
    ([*RUN, "--input", "image={k}/x64.npy"], "the array is f64.*convert the array's dtype to f32"),
    ([*EVAL, "--labels", "{k}/twice.tsv"], "sample 'a.png' in line 1, and another in line 3"),
    (["eval", "{m}", "-d", "{s}", "--metric", "spearman", "--labels", "{k}/twice.tsv"], "sample 'a.png' in line 1, and another in line 3"),
    (["eval", "{m}", "-d", "images:{k}/above", "--predictions", "{w}/p"], "holds no JPEG or PNG.*1 lie in subfolders"),
    (["run", "{k}/two.qir", "-d", "npy:{k}/x.npy"], "the model has 2 inputs.*npz:FILE"),
    (["run", "{k}/none.qir", "-d", "npy:{k}/x.npy"], "the model has no inputs"),
    # What is written says by its name what it is.
    (["quantize", "{m}", "-d", "{s}", "-o", "{w}/q.txt"], "q.txt' does not say in what form.*.onnx"),
    (["reduce", "{m}", "--test", "true", "-o", "{w}/small.txt"], "small.txt' does not say in what form"),
    (["inspect", "{w}/absent.onnx"], "no file .*absent"),
    (["inspect", "{k}/folder"], "is a folder"),
    (["inspect", "{k}/saved"], "TensorFlow SavedModel.*tf2onnx"),
    (["inspect", "{k}/holder"], "is a folder.*model.onnx"),
    (["inspect", "{k}/pipe"], "is a pipe"),
    (["inspect", "/dev/null"], "device"),
    (["inspect", "{k}/torch.pt"], "PyTorch.*torch.onnx.export"),
    (["inspect", "{k}/old.pth"], "pickle.*torch.onnx.export"),
    (["inspect", "{k}/m.tflite"], "TensorFlow Lite"),
    (["inspect", "{k}/saved/saved_model.pb"], "TensorFlow SavedModel"),
    (["inspect", "{k}/lfs.onnx"], "Git LFS pointer.*git lfs pull"),
    (["inspect", "{k}/m.onnx.gz"], "gzip"),
    (["inspect", "{k}/page.onnx"], "a web page"),
    (["inspect", "{k}/empty.onnx"], "empty"),
    (["inspect", "{k}/cut.onnx"], "cut off or damaged"),
    (["inspect", "{k}/text.onnx"], "a text file"),
    (["inspect", "{k}/m.json"], "a JSON file"),
    (["inspect", "{k}/m.h5"], "HDF5"),
    (["inspect", "{k}/x.npy"], "numpy array"),
    (["inspect", "{k}/x.npz"], "npz"),
    (["inspect", "{k}/w.safetensors"], "safetensors"),
    (["inspect", "{k}/m.gguf"], "GGUF"),
    (["inspect", "{k}/m.xml"], "XML"),
    (["inspect", "{k}/image.png"], "an image"),
    (["inspect", "{k}/graph.onnx"], ".qir"),
    (["inspect", "{k}/noise.onnx"], "not known here"),
    (["inspect", "{m}", "--shape", "image"], "lacks NAME="),
    (["inspect", "{m}", "--shape", "image=1xA"], "is not a shape"),
    (["inspect", "{m}", "--shape", "picture=1x1x16x16"], "picture"),
    (["inspect", "{m}", "--bind", "image"], "lacks NAME="),
    (["bench", "{m}", "--target", "avx3"], "unknown target 'avx3'.*did you mean 'avx2'"),
    (["bench", "{m}", "--target", "riscv64"], "this machine is"),
    (["bench", "{m}", "--cache-size", "lots"], "--cache-size lots"),
    (["bench", "{m}", "--cache-size", "-1M"], "-1M"),
    ([*RUN], "no array was given"),
    ([*RUN, "--input", "x.npy"], "lacks NAME="),
    ([*RUN, "--input", "image={w}/absent.npy"], "absent.npy"),
    ([*RUN, "--input", "picture={k}/x.npy"], "picture"),
    ([*RUN, "--input", "image={k}/text.onnx"], "text.onnx"),
    ([*RUN, "--input", "image={k}/small.npy"], "image"),
    ([*RUN, "--input", "image={k}/x.npy", "-d", "{s}"], "both --input and -d"),
    ([*EVAL], "nothing to be done"),
    ([*EVAL, "--labels", "{w}/absent.tsv"], "absent.tsv"),
    ([*EVAL, "--labels", "{k}/x.npz"], "x.npz"),
    ([*EVAL, "--labels", "{d}/labels.tsv", "--output", "logits"], "no output 'logits'.*scores"),
    (["eval", "{m}", "-d", "{s}", "--predictions", "{w}/no/such/p.tsv"], "p.tsv|no/such"),
    (["eval", "{m}", "-d", "calib", "--predictions", "{w}/p"], "is not a data source.*images:DIR"),
    (["eval", "{m}", "-d", "image:{d}/calib", "--predictions", "{w}/p"], "'image'.*did you mean 'images'"),
    (["eval", "{m}", "-d", "images:{w}/absent", "--predictions", "{w}/p"], "absent"),
    (["eval", "{m}", "-d", "images:{k}/folder", "--predictions", "{w}/p"], "holds no JPEG or PNG"),
    (["eval", "{m}", "-d", "images:{d}/calib?sise=16", "--predictions", "{w}/p"], "no option 'sise'.*did you mean 'size'"),
    (["eval", "{m}", "-d", "images:{d}/calib?order=gray", "--predictions", "{w}/p"], "order=gray.*grey"),
    (["eval", "{m}", "-d", "images:{d}/calib?order=grey&std=0", "--predictions", "{w}/p"], "std=0"),
    (["eval", "{m}", "-d", "images:{d}/calib?order=grey&mean=1,2,3", "--predictions", "{w}/p"], "3 values"),
    (["eval", "{m}", "-d", "images:{d}/calib?order=grey&mean=nan", "--predictions", "{w}/p"], "expected numbers"),
    (["eval", "{m}", "-d", "images:{d}/calib?order=grey&limit=-1", "--predictions", "{w}/p"], "limit"),
    (["eval", "{m}", "-d", "images:{d}/calib?order=grey&limit=0", "--predictions", "{w}/p"], "no samples"),
    (["eval", "{m}", "-d", "images:{d}/calib?order=grey&skip=9999", "--predictions", "{w}/p"], "no samples"),
    (["eval", "{m}", "-d", "images:{d}/calib?order=grey&order=rgb", "--predictions", "{w}/p"], "stands twice"),
    (["eval", "{m}", "-d", "images:{d}/calib?order", "--predictions", "{w}/p"], "lacks a value"),
    (["eval", "{m}", "-d", "npy:{w}/absent.npy", "--predictions", "{w}/p"], "absent.npy"),
    (["eval", "{m}", "-d", "npz:{k}/text.onnx", "--predictions", "{w}/p"], "text.onnx"),
    (["eval", "{m}", "-d", "raw:{k}/folder", "--predictions", "{w}/p"], "holds no .bin"),
    (["eval", "{m}", "-d", "raw:{k}/folder?dtype=f33", "--predictions", "{w}/p"], "dtype"),
    (["eval", "{m}", "-d", "testdata:{k}/folder", "--predictions", "{w}/p"], "holds no test_data_set"),
    ([*CALIB, "--shard", "1"], "'1' is not a shard.*--shard I/N"),
    ([*CALIB, "--shard", "2/2"], "'2/2' is not a shard"),
    ([*CALIB, "--shard", "-1/2"], "is not a shard"),
    ([*CALIB, "--shard", "0/0"], "is not a shard"),
    ([*CALIB, "--shard", "0/1000"], "cannot be cut"),
    ([*CALIB, "--memory-limit", "lots"], "--memory-limit lots"),
    ([*CALIB, "--memory-limit", "1K"], "below .* in use before the first sample"),
    ([*CALIB, "--memory-limit", "nan"], "--memory-limit nan"),
    ([*CALIB, "--config", "{w}/absent.json"], "absent.json"),
    ([*CALIB, "--config", "{k}/text.onnx"], "text.onnx"),
    ([*CALIB, "--backend", "x87"], "x87"),
    (["merge", "{w}/absent.qcal", "-o", "{w}/x.qcal"], "absent.qcal"),
    (["merge", "{m}", "-o", "{w}/x.qcal"], "digits.onnx"),
    (["quantize", "{m}", "-o", "{w}/q.onnx"], "no calibration data"),
    (["quantize", "{m}", "--ranges", "{w}/absent.qcal", "-o", "{w}/q.onnx"], "absent.qcal"),
    (["quantize", "{m}", "--ranges", "{m}", "-o", "{w}/q.onnx"], "digits.onnx"),
    (["quantize", "{m}", "--mode", "dynamic", "--ranges", "{w}/x", "-o", "{w}/q.onnx"], "--ranges is for"),
    (["quantize", "{m}", "--mode", "weight-only", "--per-token", "-o", "{w}/q.onnx"], "--per-token"),
    ([*QUANT, "--group-size", "32"], "--group-size"),
    (["quantize", "{m}", "--mode", "dynamic", "--bias-correction", "full", "-o", "{w}/q.onnx"], "--bias-correction"),
    (["quantize", "{m}", "--mode", "weight-only", "--smooth-quant", "on", "-o", "{w}/q.onnx"], "--smooth-quant"),
    (["quantize", "{w}/absent.onnx", "-d", "{s}", "-o", "{w}/q.onnx"], "no file"),
    (["compile", "{m}", "-o", "{w}/digits"], "does not say what to write.*\\.so"),
    (["compile", "{m}", "-o", "{w}/digits.dll"], "does not say what to write"),
    (["compile", "{m}", "-o", "{w}/digits.o", "--target", "s390x-linux-gnu"], "unknown target"),
    (["compile", "{m}", "-o", "{w}/digits.o", "--target", "avx2+neon"], "neon belongs to aarch64"),
    (["compile", "{m}", "-o", "{w}/digits.o", "--name", "not-c"], "is not a C identifier"),
    (["compile", "{m}", "-o", "{w}/digits.o", "--header", "{w}/digits.o"], "both"),
    (["compile", "{m}", "-o", "{w}/digits.so", "--linker", "no-such-linker"], "no program 'no-such-linker'"),
    (["compile", "{m}", "-o", "{w}/digits.so", "--rt", "{w}/absent.a"], "no file"),
    (["compile", "{m}", "-o", "{w}/no/such/digits.o"], "no/such"),
    (["reduce", "{m}", "--test", "false", "-o", "{w}/x.qir"], "does not succeed"),
    (["opt", "{w}/absent.qir"], "absent.qir"),
    (["opt", "{k}/text.onnx"], "expected"),
    (["opt", "{k}/graph.onnx", "--pipeline", "fold-batchnorm"], "fold-batchnorm"),
    (["opt", "{k}/graph.onnx", "--stage", "flaot"], "unknown stage 'flaot'"),
]


def other_kinds(folder):
    """Files that are given for models."""
    for name in ("folder", "saved", "holder"):
        (folder / name).mkdir()
    os.mkfifo(folder / "pipe")
    files = {"torch.pt": b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(64), "old.pth": b"\x80\x02\x8a\x0al\xfc", "m.tflite": b"\x1c\0\0\0TFL3" + bytes(64),
             "saved/saved_model.pb": b"\x08\x01\x12\x84\x01\x0a\x02" + bytes(64), "holder/model.onnx": b"x", "lfs.onnx": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
             "m.onnx.gz": b"\x1f\x8b\x08" + bytes(40), "page.onnx": b"\n<!DOCTYPE html><html></html>", "empty.onnx": b"", "cut.onnx": MODEL.read_bytes()[:3000],
             "text.onnx": b"some words\n", "m.json": b'{"a": 1}\n', "m.h5": b"\x89HDF\r\n\x1a\n" + bytes(40), "w.safetensors": struct.pack("<Q", 20) + b'{"w": {"dtype": 1}}  ' + bytes(40),
             "m.gguf": b"GGUF" + bytes(40), "m.xml": b"<?xml version='1.0'?><net/>", "image.png": b"\x89PNG\r\n\x1a\n" + bytes(40), "noise.onnx": bytes(range(200, 256)) * 9,
             "graph.onnx": b'graph @g(%x: f32[2]) -> ("y") {\n  %0 = relu %x : f32[2]\n  return %0\n}\n',
             "x.npz": b"PK\x03\x04" + bytes(26) + b"image.npy" + bytes(64)}
    files["graph.qir"] = files["graph.onnx"]
    files["two.qir"] = b'graph @g(%x: f32[2], %z: f32[2]) -> ("y") {\n  %0 = add %x, %z : f32[2]\n  return %0\n}\n'
    files["none.qir"] = b'const #w : f32[2] = [1.0, 2.0]\ngraph @g() -> ("y") {\n  %w = const #w : f32[2]\n  return %w\n}\n'
    files["twice.tsv"] = b"a.png\t1\nb.png\t1\na.png\t2\n"
    (folder / "above" / "below").mkdir(parents=True)
    files["above/below/image.png"] = files["image.png"]
    files["x64.npy"] = npy_header((1, 1, 16, 16), "<f8") + bytes(2048)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_npy(folder / "x.npy", (1, 1, 16, 16), [0.5] * 256)
    write_npy(folder / "small.npy", (1, 1, 4, 4), [0.5] * 16)


def flags(text):
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text))


def check(arguments, code, pattern, places):
    args = [a.format(**places) for a in arguments]
    done = subprocess.run([QCOMPILE, *args], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=120)
    shown = f"qcompile {' '.join(args)}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"
    faults = []
    if done.returncode != code:
        faults.append(f"expected exit code {code}")
    if not re.search(pattern, done.stderr, re.S):
        faults.append(f"expected /{pattern}/")
    if not done.stderr.startswith("qcompile") or "std::" in done.stderr or "internal error" in done.stderr or "exception" in done.stderr:
        faults.append("not a message of ours")
    first = "\n".join(line for line in done.stderr.splitlines() if line.startswith("qcompile"))
    typed = {f for a in args for f in (a.split("=")[0], a)}
    unasked = flags(first) - typed
    if code == 1 and unasked:
        faults.append(f"names {', '.join(sorted(unasked))}")
    left = [p.name for p in pathlib.Path(places["w"]).iterdir()]
    if left:
        faults.append(f"leaves {', '.join(left)}")
        for name in left:
            (pathlib.Path(places["w"]) / name).unlink()
    return f"{shown}{'; '.join(faults)}\n" if faults else ""


def helps():
    """Every verb has an example, every option of it a description; what stands in --help is in the manual page and the completions."""
    verbs = re.findall(r"^  (\w+) ", run("--help").stdout.split("Options:")[0].split("Verbs:")[1], re.M)
    assert len(verbs) >= 14, verbs
    manual, bash, zsh = run("man").stdout, run("completion", "bash").stdout, run("completion", "zsh").stdout
    for verb in verbs:
        text = run(verb, "--help").stdout
        assert f"Example:\n  qcompile {verb}" in text and run("help", verb).stdout == text, text
        for option in set(re.findall(r"^ {2}(?:-\w, | {4})(--[a-z0-9-]+)", text, re.M)):
            assert re.search(rf"{option}\b.*\n? .*\w", text), (verb, option)
            assert option.replace("-", "\\-") in manual and option in bash and option in zsh, (verb, option)
    for words in ("default 1", "images:DIR", "raw:DIR", "mean=", "dtype=", "default bilinear"):
        assert words in run("calibrate", "--help").stdout, words
    for shell, text in (("bash", bash), ("zsh", zsh)):
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=text, text=True, check=True)
    if shutil.which("bash"):
        ask = "\ncompopt() { :; }\nCOMP_WORDS=(qcompile quantize --mode d); COMP_CWORD=3; _qcompile; echo ${COMPREPLY[@]}\n" \
              "COMP_WORDS=(qcompile ben); COMP_CWORD=1; _qcompile; echo ${COMPREPLY[@]}\nCOMP_WORDS=(qcompile bench --thr); COMP_CWORD=2; _qcompile; echo ${COMPREPLY[@]}\n"
        said = subprocess.run(["bash", "--norc"], input=bash + ask, text=True, capture_output=True, check=True).stdout
        assert said.split() == ["dynamic", "bench", "--threads"], said
    print("help, manual page, completions: passed")


def quantized_models(work):
    """What a verb's help says of its model holds for a quantized one: it is taken, or the verb asks for a float one."""
    int8, checked = work / "int8.onnx", 0
    run("quantize", MODEL, "-d", SAMPLES, "-o", int8)
    for verb in re.findall(r"^  (\w+) ", run("--help").stdout.split("Options:")[0].split("Verbs:")[1], re.M):
        text = run(verb, "--help").stdout
        model = re.search(r"^  MODEL +(.*)", text, re.M)
        if not model:
            continue
        given = [verb, int8] + (["-d", SAMPLES] if "--data" in text else []) + (["-o", work / "out.onnx"] if "--output" in text else [])
        done = subprocess.run([QCOMPILE, *map(str, given)], capture_output=True, text=True)
        refused = "is quantized already" in done.stderr
        assert refused == ("float model" in model[1]) and refused != ("QDQ" in model[1]), (verb, model[1], done.stderr)
        checked += 1
    assert checked > 12, checked
    print("what verbs say of quantized models: passed")


def predictions(work):
    run("eval", MODEL, "-d", SAMPLES, "--labels", DATA / "labels.tsv", "--predictions", work / "p.tsv", "--json") if (DATA / "labels.tsv").exists() else None
    run("eval", MODEL, "-d", SAMPLES, "--predictions", work / "q.tsv")
    rows = [line.split("\t") for line in (work / "q.tsv").read_text().splitlines()]
    assert rows[0] == ["sample", "predicted", "score"] and len(rows) == 9 and all(0 <= int(r[1]) < 10 for r in rows[1:]), rows
    print("predictions: passed")


def terminal(work):
    """stdout and stderr on one terminal: the result begins on a line of its own."""
    for verb in (["eval", MODEL, "-d", SAMPLES, "--predictions", work / "t.tsv"], ["calibrate", MODEL, "-d", SAMPLES, "-o", work / "t.qcal"], ["quantize", MODEL, "-d", SAMPLES, "-o", work / "t.onnx"]):
        parent, child = pty.openpty()
        process = subprocess.Popen([QCOMPILE, *map(str, verb)], stdout=child, stderr=child, stdin=subprocess.DEVNULL)
        os.close(child)
        text = b""
        while True:
            try:
                piece = os.read(parent, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece
        os.close(parent)
        assert process.wait() == 0, text
        bars = [line for line in text.decode().replace("\r\n", "\n").split("\n") if "] " in line and "left" in line]
        assert bars and all(re.search(r"left\s*$", line) for line in bars), text.decode()
    print("terminal: passed")


def raw_source(work):
    """raw: takes mean=, std= and layout= as the others do."""
    folder = work / "raw"
    folder.mkdir()
    pixels = [(i * 7) % 256 for i in range(256)]
    (folder / "a.bin").write_bytes(bytes(pixels))
    write_npy(work / "same.npy", (1, 1, 16, 16), [(p - 10) / 255 for p in pixels])
    run("run", MODEL, "-d", f"raw:{folder}?dtype=u8&mean=10&std=255", "--output-dir", work / "a")
    run("run", MODEL, "-d", f"npy:{work}/same.npy", "--output-dir", work / "b")
    assert (work / "a/scores.npy").read_bytes() == (work / "b/scores.npy").read_bytes()
    print("raw: passed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        os.environ["QC_CACHE_DIR"] = str(root / "cache")
        for name in ("w", "k", "work"):
            (root / name).mkdir()
        other_kinds(root / "k")
        places = {"m": str(MODEL), "d": str(DATA), "s": SAMPLES, "w": str(root / "w"), "k": str(root / "k")}
        faults = [check(a, 2, p, places) for a, p in USAGE] + [check(a, 1, p, places) for a, p in REQUESTS]
        faults = [f for f in faults if f]
        if faults:
            sys.exit("\n".join(faults) + f"\n{len(faults)} of {len(USAGE) + len(REQUESTS)}")
        print(f"{len(USAGE) + len(REQUESTS)} wrong uses: passed")
        helps()
        quantized_models(root / "work")
        predictions(root / "work")
        raw_source(root / "work")
        terminal(root / "work")


main()
