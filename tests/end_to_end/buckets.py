#!/usr/bin/env python3
"""compile at several sizes: one object whose buckets give the bytes of `qcompile run` at their sizes, the choice among them, and what is refused.

    buckets.py QCOMPILE DATA_DIR LIBQCOMPILE_RT SOURCE_DIR [CC]

Without a C compiler only the header and the refusals are looked at; another machine is where its compiler and emulator are.  Standard library only.
"""
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

from command_line import npy_header, run

RT, ROOT = (pathlib.Path(a).resolve() for a in sys.argv[3:5])
CC = sys.argv[5] if len(sys.argv) > 5 else shutil.which("cc")
# --target, C compiler and emulator of a machine that is not this one, by the names of Debian's packages.
OTHER = ("aarch64+dotprod", shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static"))
BATCHES, LENGTHS, WIDTH, HIDDEN = (1, 2), (4, 8, 20), 16, 4096

MODEL = f"""const #w : f32[{HIDDEN},{WIDTH}] = rand(3, -1, 1)
const #v : f32[{WIDTH},{HIDDEN}] = rand(4, -1, 1)
graph @net(%x: f32[batch,T-1,{WIDTH}]) -> ("y") {{
  %w = const #w : f32[{HIDDEN},{WIDTH}]
  %v = const #v : f32[{WIDTH},{HIDDEN}]
  %0 = linear %x, %w : f32[batch,T-1,{HIDDEN}] loc("/up")
  %1 = relu %0 : f32[batch,T-1,{HIDDEN}]
  %2 = linear %1, %v : f32[batch,T-1,{WIDTH}] loc("/down")
  %3 = softmax %2 {{axis=1}} : f32[batch,T-1,{WIDTH}]
  return %3
}}
""".replace("T-1", "int")  # a keyword of C as a name

# Reads a batch, a length and the input of the bucket that holds them, until the end; writes status, bucket and output.
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net.h"
int main(void) {
  qcrt_pool* pool = qcrt_pool_create(2);
  void* memory = aligned_alloc(64, (net_memory_bytes(2) + 63) / 64 * 64);
  int64_t wanted[2];
  if (net_run(-1, NULL, NULL, memory, pool) != 2 || net_run(net_BUCKETS, NULL, NULL, memory, pool) != 2 || !strstr(net_error(2), "bucket"))
    return 2;
  while (fread(wanted, sizeof(wanted), 1, stdin) == 1) {
    net_sizes sizes = {0};
    net_bucket bucket = {-7};
    sizes.batch = wanted[0];
    sizes.int_2 = wanted[1];
    const int status = net_pick(&sizes, &bucket);
    printf("%d %d %d %d %d %d\n", status, (int)bucket.index, (int)bucket.sizes.batch, (int)bucket.sizes.int_2, (int)bucket.padding.batch,
           (int)bucket.padding.int_2);
    if (status) continue;
    void* x = malloc(bucket.input_bytes[0]);
    void* y = malloc(bucket.output_bytes[0]);
    const void* inputs[] = {x};
    void* outputs[] = {y};
    if (fread(x, bucket.input_bytes[0], 1, stdin) != 1 || net_run((int)bucket.index, inputs, outputs, memory, pool) != 0) return 3;
    fwrite(y, bucket.output_bytes[0], 1, stdout);
    free(x);
    free(y);
  }
  free(memory);
  qcrt_pool_destroy(pool);
  return 0;
}
"""


def cases(work, model):
    """What goes into the program and what it must give, for sizes that a bucket has, that it has more of, and that none has."""
    sizes = sorted(((b, t) for b in BATCHES for t in LENGTHS), key=lambda s: s[0] * s[1])
    rng, fed, wanted = random.Random(1), b"", b""
    for batch, length in sizes + [(1, 3), (2, 5), (1, 0), (3, 4), (1, 21), (-1, 4)]:
        fed += struct.pack("<2q", batch, length)
        index = next((i for i, (b, t) in enumerate(sizes) if 0 <= batch <= b and length <= t), None)
        if index is None:
            wanted += b"2 -7 0 0 0 0\n"
            continue
        b, t = sizes[index]
        x = struct.pack(f"<{b * t * WIDTH}f", *(rng.gauss(0, 1) for _ in range(b * t * WIDTH)))
        (work / "x.npy").write_bytes(npy_header((b, t, WIDTH)) + x)
        run("run", model, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out")
        fed += x
        wanted += f"0 {index} {b} {t} {b - batch} {t - length}\n".encode() + (work / "out/y.npy").read_bytes()[-len(x):]
    return fed, wanted


def check(work, model):
    batches, lengths = ",".join(map(str, BATCHES)), "8,4..8:4,20"  # in any order, twice, and as a range
    command = ["compile", model, "--shape", f"batch={batches}", "--shape", f"int={lengths}"]
    said = run(*command, "-o", work / "net.o").stdout
    assert "6 buckets of batch, int" in said, said
    header = (work / "net.h").read_text()
    assert "bucket 5: batch = 2, int = 20" in header and "int64_t int_2; /* int */" in header, header
    one = ["compile", model, "--shape", "batch=2", "--shape", "int=20", "-o", work / "one.o"]
    run(*one)
    more = (work / "net.o").stat().st_size - (work / "one.o").stat().st_size
    assert more < 2 * WIDTH * HIDDEN, f"{more} bytes for five more buckets: less than one more copy of the weights as bytes is due"
    if not CC:
        return
    fed, wanted = cases(work, model)
    (work / "main.c").write_text(PROGRAM)
    for output, link in (("net.o", [RT]), ("net.so", [])):
        run(*command, "-o", work / output)
        subprocess.run([CC, "main.c", output, *link, "-I", ROOT, "-Wl,-rpath," + str(work), "-lpthread", "-lm", "-o", "main"], check=True, cwd=work)
        got = subprocess.run([work / "main"], input=fed, capture_output=True, check=True).stdout
        assert got == wanted, f"{model} as {output} gives other bytes"
    target, compiler, emulator = OTHER
    if compiler and emulator:
        run(*command, "-o", work / "net.o", "--target", target)
        sources = sorted(ROOT.glob("runtime/rt/*.c"))
        subprocess.run([compiler, "-O2", "-static", "main.c", "net.o", *sources, "-I", ROOT, "-lpthread", "-lm", "-o", "other"], check=True, cwd=work)
        got = subprocess.run([emulator, work / "other"], input=fed, capture_output=True, check=True).stdout
        assert got == wanted, f"{model} gives other bytes on {target}"


def refusals(work, model):
    def refused(*options):
        return run("compile", model, *options, "-o", work / "r.o", code=1).stderr

    assert "'int'" in refused("--shape", "batch=1,2") or "int" in refused("--shape", "batch=1,2")
    for text in ("int=4..", "int=8..4", "int=1..9:0", "int=4,,8", "int=4,x", "int=,"):
        assert "is not a" in refused("--shape", text), text
    assert "more than 256 buckets" in refused("--shape", "int=1..40", "--shape", "batch=1..40")
    assert "neither an input" in refused("--shape", "steps=1,2", "--shape", "int=4")
    assert "given twice" in refused("--shape", "int=1,2", "--shape", "int=4")
    assert "fit" in refused("--shape", f"x=1x4x{WIDTH},1x4x{WIDTH + 1}")
    (work / "fixed.qir").write_text(model.read_text().replace("batch", "1").replace("int", "4"))
    assert "are fixed" in run("compile", work / "fixed.qir", "--shape", "T=1,2", "-o", work / "r.o", code=1).stderr
    assert not (work / "r.o").exists()


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        os.environ["QC_CACHE_DIR"] = str(work / "cache")
        (work / "net.qir").write_text(MODEL)
        check(work, work / "net.qir")
        run("quantize", work / "net.qir", "--mode", "dynamic", "-o", work / "q.onnx")
        check(work, work / "q.onnx")
        refusals(work, work / "net.qir")
    there = "" if all(OTHER) else f"; LEFT OUT: {OTHER[0]}, which no compiler and emulator are here for"
    print(f"buckets: passed{there}" if CC else "buckets: the header and refusals only, there is no C compiler")


main()
