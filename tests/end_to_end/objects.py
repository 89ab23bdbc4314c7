#!/usr/bin/env python3
"""Objects of models that look rows up, read images at positions and take spectra, linked into a C program: the bytes of `qcompile run`, and an
index outside of the table.

    objects.py QCOMPILE DATA_DIR LIBQCOMPILE_RT SOURCE_DIR [CC]

Without a C compiler nothing is run, and the script says so.  Standard library only.
"""
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

from command_line import npy_header, run, write_npy

RT, ROOT = (pathlib.Path(a).resolve() for a in sys.argv[3:5])
CC = sys.argv[5] if len(sys.argv) > 5 else shutil.which("cc")
ROWS, COUNT = 60, 4096  # enough to be split among threads

MODEL = f"""const #table : f32[{ROWS},33] = rand(3, -1, 1)
const #w : f32[5,33] = rand(4, -1, 1)
graph @words(%ids: s64[1,{COUNT}]) -> ("scores") {{
  %table = const #table : f32[{ROWS},33]
  %w = const #w : f32[5,33]
  %0 = gather %table, %ids {{axis=0}} : f32[1,{COUNT},33] loc("/words/Gather")
  %1 = linear %0, %w : f32[1,{COUNT},5] loc("/head/MatMul")
  return %1
}}
"""

# Reads indices for one run after another; writes the status, and the scores or what the status means.
PROGRAM = rf"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "words.h"
int main(int argc, char** argv) {{
  const int threads = argc > 1 ? atoi(argv[1]) : 1;
  static long long ids[{COUNT}];
  static float scores[{COUNT * 5}];
  qcrt_pool* pool = threads ? qcrt_pool_create(threads) : NULL;  // none: the thread of the caller alone
  void* memory = aligned_alloc(64, (words_memory_bytes(threads) + 63) / 64 * 64);
  const void* inputs[] = {{ids}};
  void* outputs[] = {{scores}};
  if (words_memory_bytes(0) != words_memory_bytes(1) || words_memory_bytes(-3) != words_memory_bytes(1)) return 3;  // as pools have it
  if (strcmp(words_error(0), "done") != 0 || strcmp(words_error(-1), words_error(1000)) != 0) return 2;
  while (fread(ids, sizeof(ids), 1, stdin) == 1) {{
    const int status = words_run(inputs, outputs, memory, pool);
    if (status == 0) fwrite(scores, sizeof(scores), 1, stdout);
    else printf("%s\n", words_error(status));
  }}
  free(memory);
  qcrt_pool_destroy(pool);
  return 0;
}}
"""

# Images read at the positions of a grid, and spectra of frames there and back; enough of both to be split among threads.
SIGNALS = """graph @signals(%x: f32[2,16,20,18], %grid: f32[2,40,30,2], %wave: f32[70,400,1]) -> ("sampled", "spectra", "again") {
  %0 = grid_sample %x, %grid {padding_mode="reflection"} : f32[2,16,40,30]
  %1 = dft %wave {length=[400], onesided=1} : f32[70,201,2]
  %2 = dft %1 {length=[400], inverse=1, onesided=1} : f32[70,400,1]
  return %0, %1, %2
}
"""
SIGNAL_INPUTS = {"x": (2, 16, 20, 18), "grid": (2, 40, 30, 2), "wave": (70, 400, 1)}
SIGNAL_OUTPUTS = {"sampled": 2 * 16 * 40 * 30, "spectra": 70 * 201 * 2, "again": 70 * 400}

SIGNAL_PROGRAM = rf"""
#include <stdio.h>
#include <stdlib.h>
#include "signals.h"
int main(int argc, char** argv) {{
  static float x[{math.prod(SIGNAL_INPUTS["x"])}], grid[{math.prod(SIGNAL_INPUTS["grid"])}], wave[{math.prod(SIGNAL_INPUTS["wave"])}];
  static float sampled[{SIGNAL_OUTPUTS["sampled"]}], spectra[{SIGNAL_OUTPUTS["spectra"]}], again[{SIGNAL_OUTPUTS["again"]}];
  const int threads = atoi(argv[argc - 1]);
  void* memory = aligned_alloc(64, (signals_memory_bytes(threads) + 63) / 64 * 64);
  const void* inputs[] = {{x, grid, wave}};
  void* outputs[] = {{sampled, spectra, again}};
  if (!fread(x, sizeof(x), 1, stdin) || !fread(grid, sizeof(grid), 1, stdin) || !fread(wave, sizeof(wave), 1, stdin)) return 2;
  if (signals_run(inputs, outputs, memory, qcrt_pool_create(threads))) return 3;
  fwrite(sampled, sizeof(sampled), 1, stdout), fwrite(spectra, sizeof(spectra), 1, stdout), fwrite(again, sizeof(again), 1, stdout);
  return 0;
}}
"""


def write_indices(path, values):
    payload = struct.pack(f"<{len(values)}q", *values)
    path.write_bytes(npy_header((1, len(values)), "<i8") + payload)
    return payload


def linked(work, program, name):
    """The C program that holds the object `name`."""
    (work / "main.c").write_text(program)
    subprocess.run([CC, work / "main.c", work / f"{name}.o", RT, "-I", ROOT, "-lpthread", "-lm", "-o", work / "main"], check=True, cwd=work)
    return work / "main"


def check(work, model):
    good, bad = [(i * 37) % (2 * ROWS) - ROWS for i in range(COUNT)], [0] * (COUNT - 1) + [ROWS]
    payloads = [write_indices(work / "good.npy", good), write_indices(work / "bad.npy", bad)]
    run("run", model, "--input", f"ids={work}/good.npy", "--output-dir", work)
    scores = (work / "scores.npy").read_bytes()[-COUNT * 20:]
    refused = run("run", model, "--input", f"ids={work}/bad.npy", "--output-dir", work, code=1).stderr
    assert "Gather" in refused and f"index {ROWS} is outside" in refused, refused
    run("compile", model, "-o", work / "words.o")
    program = linked(work, PROGRAM, "words")
    for threads in "0", "1", "2":
        done = subprocess.run([program, threads], input=b"".join([payloads[0], payloads[1], payloads[0]]), capture_output=True, check=True).stdout
        said = done[len(scores):-len(scores)].decode()
        assert done.startswith(scores) and done.endswith(scores), f"{model}: the object gives other bytes"
        assert "Gather" in said and f"outside a dim of {ROWS}" in said, said


def check_signals(work):
    (work / "signals.qir").write_text(SIGNALS)
    given, named = b"", []
    for name, shape in SIGNAL_INPUTS.items():
        given += write_npy(work / f"{name}.npy", shape, [math.sin(k * k + len(named)) * 1.5 for k in range(math.prod(shape))])
        named += ["--input", f"{name}={work}/{name}.npy"]
    run("run", work / "signals.qir", *named, "--output-dir", work)
    wanted = b"".join((work / f"{name}.npy").read_bytes()[-4 * count:] for name, count in SIGNAL_OUTPUTS.items())
    run("compile", work / "signals.qir", "-o", work / "signals.o")
    program = linked(work, SIGNAL_PROGRAM, "signals")
    for threads in "1", "2":
        assert subprocess.run([program, threads], input=given, capture_output=True, check=True).stdout == wanted, "signals: the object gives other bytes"


def main():
    if not CC:
        print("objects: left out, there is no C compiler")
        return
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        os.environ["QC_CACHE_DIR"] = str(work / "cache")
        (work / "words.qir").write_text(MODEL)
        check(work, work / "words.qir")
        modes = {"weights8": ["--mode", "weight-only"], "weights4": ["--mode", "weight-only", "--weight-bits", 4, "--group-size", 16],
                 "dynamic": ["--mode", "dynamic"], "half": ["--mode", "fp16-weights"]}
        for name, options in modes.items():
            run("quantize", work / "words.qir", *options, "-o", work / f"{name}.onnx")
            check(work, work / f"{name}.onnx")
        check_signals(work)
        print("objects: passed")


main()
