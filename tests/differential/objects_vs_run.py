#!/usr/bin/env python3
"""Object files of real models, linked into C programs: the bytes of `qcompile run`, on one thread and on two.

    objects_vs_run.py QCOMPILE SHARED_DIR LIBQCOMPILE_RT SOURCE_DIR [--cc CC] [--modes float,dynamic,...] [NAME ...]

Every model of SHARED_DIR/models on two samples of its own kind of input (model_inputs.py), in float and as `qcompile quantize --mode` makes
it.  A model that the object cannot hold fails with the ops that have no generated code.  With --target T --emulator COMMAND the objects are
another machine's: CC and LIBQCOMPILE_RT must be, too.  Needs what model_inputs.py needs; exit code 77,
which ctest reports as skipped, when one is missing, or a C compiler.
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

try:
    import model_inputs
    import numpy as np
    from float_vs_ort import REFUSED, model_options
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

MODES = {"float": None, "dynamic": ["--mode", "dynamic"], "weights8": ["--mode", "weight-only"],
         "weights4": ["--mode", "weight-only", "--weight-bits", 4, "--group-size", 32], "half": ["--mode", "fp16-weights"]}
PORT = re.compile(r"^   (inputs|outputs)\[(\d+)\]  (.*): .*, (\d+) bytes$", re.MULTILINE)

# One run per sample; reads all inputs in order and writes all outputs, or fails with the meaning of the status.
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "model.h"
static const size_t in_bytes[] = {%s}, out_bytes[] = {%s};
enum { INS = sizeof(in_bytes) / sizeof(in_bytes[0]), OUTS = sizeof(out_bytes) / sizeof(out_bytes[0]) };
int main(int argc, char** argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 1;
  const void* inputs[INS];
  void* outputs[OUTS];
  qcrt_pool* pool = qcrt_pool_create(threads);
  void* memory = aligned_alloc(64, (model_memory_bytes(threads) + 63) / 64 * 64);
  for (int i = 0; i < INS; ++i) inputs[i] = malloc(in_bytes[i]);
  for (int i = 0; i < OUTS; ++i) outputs[i] = malloc(out_bytes[i]);
  for (;;) {
    for (int i = 0; i < INS; ++i) if (fread((void*)inputs[i], 1, in_bytes[i], stdin) != in_bytes[i]) return 0;
    const int status = model_run(inputs, outputs, memory, pool);
    if (status) return fprintf(stderr, "%%s\n", model_error(status)), 1;
    for (int i = 0; i < OUTS; ++i) fwrite(outputs[i], 1, out_bytes[i], stdout);
  }
}
"""


def tool(*arguments, **options):
    done = subprocess.run([*map(str, arguments)], capture_output=True, **options)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace").strip().splitlines()[0])
    return done.stdout


def expected(args, model, options, feed, ports, work):
    """Bytes of all outputs, in order."""
    flags = []
    for i, (name, value) in enumerate(feed.items()):
        np.save(work / f"in{i}.npy", value)
        flags += ["--input", f"{name}={work / f'in{i}.npy'}"]
    tool(args.qcompile, "run", model, *options, *flags, "--output-dir", work / "out")
    return b"".join(np.load(work / "out" / (re.sub(r"[/\\:]", "_", name) + ".npy")).tobytes() for name, _ in ports)


def check(args, model, options, feeds, work):
    tool(args.qcompile, "compile", model, *options, "--target", args.target, "-o", work / "model.o")
    ports = {"inputs": [], "outputs": []}
    for kind, _, name, size in PORT.findall((work / "model.h").read_text()):
        ports[kind].append((name, int(size)))
    (work / "main.c").write_text(PROGRAM % tuple(", ".join(str(size) for _, size in ports[kind]) for kind in ("inputs", "outputs")))
    libraries = [args.rt, "-I", args.source, "-lpthread", "-lm"]
    tool(args.cc, work / "main.c", work / "model.o", *libraries, "-o", work / "main")
    given = b"".join(np.ascontiguousarray(feed[name]).tobytes() for feed in feeds for name, _ in ports["inputs"])
    wanted = b"".join(expected(args, model, options, feed, ports["outputs"], work) for feed in feeds)
    for threads in 1, 2:
        if tool(*args.emulator.split(), work / "main", threads, input=given) != wanted:
            raise RuntimeError(f"the object gives other bytes on {threads} threads")


def main():
    parser = argparse.ArgumentParser()
    for name in ("qcompile", "shared", "rt", "source"):
        parser.add_argument(name, type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--cc", default=shutil.which("cc"))
    parser.add_argument("--modes", default="float,weights4")
    parser.add_argument("--target", default="host")
    parser.add_argument("--emulator", default="")
    parser.add_argument("names", nargs="*")
    args = parser.parse_intermixed_args()
    if not args.cc:
        print("left out: there is no C compiler")
        return 77
    failed = 0
    for name in args.names or sorted(set(model_inputs.MODELS) - set(REFUSED)):
        feeds = model_inputs.MODELS[name](args.shared)[:2]
        for mode in args.modes.split(","):
            with tempfile.TemporaryDirectory() as folder:
                work, model, options = pathlib.Path(folder), args.shared / "models" / name / "model.onnx", model_options(name, feeds[0])
                try:
                    if MODES[mode]:
                        tool(args.qcompile, "quantize", model, *options, *MODES[mode], "-o", work / "quantized.onnx")
                        model, options = work / "quantized.onnx", []  # for these shapes already
                    check(args, model, options, feeds, work)
                    print(f"{name:32} {mode:9} same bytes", flush=True)
                except RuntimeError as error:
                    failed += 1
                    print(f"{name:32} {mode:9} FAILED: {error}", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
