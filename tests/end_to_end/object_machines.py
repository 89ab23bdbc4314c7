#!/usr/bin/env python3
"""Objects of several machines give the bytes of `qcompile run`, whatever the floating-point state of the caller, and leave that state alone.

    object_machines.py QCOMPILE DATA_DIR SOURCE_DIR CMAKE

For this machine and for every other one with a cross compiler and an emulator here: qcompile_rt is built alone from runtime/rt and installed,
a C program finds it with find_package(qcompile COMPONENTS rt), and runs each model in every state.  Standard library only.
"""
import os
import pathlib
import platform
import shutil
import struct
import subprocess
import sys
import tempfile

from command_line import DATA, npy_header, run, write_npy, write_sample

SOURCE, CMAKE = pathlib.Path(sys.argv[3]).resolve(), sys.argv[4]
# --target, C compiler, emulator; where the names of Debian's packages put them.
MACHINES = {
    "host": ("host", "cc", None),
    "aarch64": ("aarch64+dotprod", "aarch64-linux-gnu-gcc", "qemu-aarch64-static"),
    "riscv64": ("riscv64", "riscv64-linux-gnu-gcc", "qemu-riscv64-static"),
    "armv7": ("armv7-linux-gnueabihf", "arm-linux-gnueabihf-gcc", "qemu-arm-static"),
}

# Products of these sizes are denormal on the way.
TINY = """const #a : f32[1] = [1e-20]
const #b : f32[1] = [3e-21]
const #c : f32[1] = [1e30]
graph @tiny(%x: f32[1,1,16,16]) -> ("y") {
  %a = const #a : f32[1]
  %b = const #b : f32[1]
  %c = const #c : f32[1]
  %0 = mul %x, %a : f32[1,1,16,16]
  %1 = mul %0, %b : f32[1,1,16,16]
  %2 = mul %1, %c : f32[1,1,16,16]
  %3 = sigmoid %2 : f32[1,1,16,16]
  %4 = mul %3, %2 : f32[1,1,16,16]
  return %4
}
"""
WORDS = """const #table : f32[60,33] = rand(3, -1, 1)
const #w : f32[5,33] = rand(4, -1, 1)
graph @words(%ids: s64[1,512]) -> ("y") {
  %table = const #table : f32[60,33]
  %w = const #w : f32[5,33]
  %0 = gather %table, %ids {axis=0} : f32[1,512,33] loc("/words/Gather")
  %1 = linear %0, %w : f32[1,512,5] loc("/head/MatMul")
  return %1
}
"""

PROGRAM = r"""
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "m.h"
#if defined(__x86_64__)
#include <xmmintrin.h>
/* The default; rounding down, up, to zero; denormals flushed and taken for zero; every exception unmasked; all of it. */
static const unsigned states[] = {0x1f80, 0x3f80, 0x5f80, 0x7f80, 0x9fc0, 0x0000, 0xe040};
static unsigned state(void) { return _mm_getcsr(); }
static void enter(unsigned s) { _mm_setcsr(s); }
#elif defined(__aarch64__)
static const unsigned states[] = {0, 1u << 22, 2u << 22, 3u << 22, 1u << 24, 1u << 25, 0x9f00u, 0x3c09f00u};
static unsigned state(void) { unsigned long s; __asm__ volatile("mrs %0, fpcr" : "=r"(s)); return (unsigned)s; }
static void enter(unsigned s) { __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)s)); }
#elif defined(__arm__)
static const unsigned states[] = {0, 1u << 22, 2u << 22, 3u << 22, 1u << 24, 1u << 25, 0x3c00000u};
static unsigned state(void) { unsigned s; __asm__ volatile("vmrs %0, fpscr" : "=r"(s)); return s; }
static void enter(unsigned s) { __asm__ volatile("vmsr fpscr, %0" : : "r"(s)); }
#elif defined(__riscv)
static const unsigned states[] = {0, 1u << 5, 2u << 5, 3u << 5, 4u << 5};
static unsigned state(void) { unsigned long s; __asm__ volatile("frcsr %0" : "=r"(s)); return (unsigned)s; }
static void enter(unsigned s) { __asm__ volatile("fscsr %0" : : "r"((unsigned long)s)); }
#endif
int main(int argc, char** argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 1;
  static char input[INPUT_BYTES], output[OUTPUT_BYTES];
  const void* inputs[] = {input};
  void* outputs[] = {output};
  const int count = (int)(sizeof states / sizeof *states);
  if (fread(input, 1, sizeof input, stdin) != sizeof input) return 2;
  for (int i = 0; i < 2 * count; ++i) { /* the pool is made in one state and used in the same, then in the next */
    const unsigned usual = state();
    void* memory = aligned_alloc(64, (m_memory_bytes(threads) + 63) / 64 * 64);
    enter(states[i % count]);
    qcrt_pool* pool = qcrt_pool_create(threads);
    if (i >= count) enter(states[(i + 1) % count]);
    const unsigned before = state();
    memset(output, 7, sizeof output);
    const int status = m_run(inputs, outputs, memory, pool);
    const unsigned after = state();
    qcrt_pool_destroy(pool);
    enter(usual);
    if (before != after) { fprintf(stderr, "state %x became %x\n", before, after); return 4; }
    if (status > 1) fprintf(stderr, "%s\n", m_error(status));
    else if (status == 1) return 5;
    else fwrite(output, 1, sizeof output, stdout);
    free(memory);
  }
  return 0;
}
"""

PROJECT = """cmake_minimum_required(VERSION 3.22)
project(user LANGUAGES C)
find_package(qcompile 0.1 REQUIRED COMPONENTS rt)
add_executable(main ${OBJECT_DIR}/main.c ${OBJECT_DIR}/m.o)
target_include_directories(main PRIVATE ${OBJECT_DIR})
target_compile_definitions(main PRIVATE INPUT_BYTES=${INPUT_BYTES} OUTPUT_BYTES=${OUTPUT_BYTES})
target_link_libraries(main PRIVATE qcompile::rt)
"""


def sh(*args, **more):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=more.pop("text", True), **more)
    if done.returncode:
        sys.exit(f"{' '.join(str(a) for a in args)}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Machine:
    def __init__(self, work, name):
        self.target, compiler, emulator = MACHINES[name]
        self.folder = work / name
        self.folder.mkdir()
        self.launcher = [] if emulator is None else [emulator, "-L", f"/usr/{compiler.removesuffix('-gcc')}"]
        self.cross = [f"-DCMAKE_C_COMPILER={compiler}", "-DCMAKE_BUILD_TYPE=Release"]
        if emulator:
            self.cross += ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={name}"]
        sh(CMAKE, "-S", SOURCE / "runtime/rt", "-B", self.folder / "rt", *self.cross)
        sh(CMAKE, "--build", self.folder / "rt")
        sh(CMAKE, "--install", self.folder / "rt", "--prefix", self.folder / "prefix")
        (self.folder / "CMakeLists.txt").write_text(PROJECT)
        (self.folder / "main.c").write_text(PROGRAM)

    def results(self, model, options, payload, wanted):
        """What the program writes and says, for 1 and 2 threads."""
        run("compile", model, *options, "-o", self.folder / "m.o", "--target", self.target)
        sh(CMAKE, "-S", self.folder, "-B", self.folder / "build", *self.cross, f"-DCMAKE_PREFIX_PATH={self.folder}/prefix", "-DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=BOTH",
           f"-DOBJECT_DIR={self.folder}", f"-DINPUT_BYTES={len(payload)}", f"-DOUTPUT_BYTES={len(wanted)}")
        sh(CMAKE, "--build", self.folder / "build")
        for threads in "1", "2":
            done = subprocess.run([*self.launcher, self.folder / "build/main", threads], input=payload, capture_output=True)
            if done.returncode:
                sys.exit(f"{model} on {self.target}: exit code {done.returncode}\n{done.stderr.decode()}")
            yield done.stdout, done.stderr.decode()


def check(machine, work, model, name, array):
    payload = array.read_bytes()[-(array.stat().st_size - 128):]
    run("run", model, "--input", f"{name}={array}", "--output-dir", work / "out")
    (output,) = (work / "out").glob("*.npy")
    wanted = output.read_bytes()[128:]
    output.unlink()
    for written, _ in machine.results(model, [], payload, wanted):
        assert written == wanted * (len(written) // len(wanted)) and len(written) >= 10 * len(wanted), f"{model} on {machine.target}: other bytes"


def check_refusal(machine, work):
    bad = struct.pack("<512q", *([0] * 511 + [60]))
    for written, said in machine.results(work / "words.qir", [], bad, bytes(512 * 20)):
        assert not written and said.count("/words/Gather") >= 10, (machine.target, said)


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        os.environ["QC_CACHE_DIR"] = str(work / "cache")
        (work / "tiny.qir").write_text(TINY)
        (work / "words.qir").write_text(WORDS)
        run("quantize", DATA / "digits.onnx", "-d", f"images:{DATA}/calib?order=grey&mean=0&std=255", "-o", work / "int8.onnx")
        run("quantize", DATA / "digits.onnx", "--mode", "dynamic", "-o", work / "dynamic.onnx")
        write_sample(work / "x.npy", 3)
        ids = struct.pack("<512q", *((i * 37) % 120 - 60 for i in range(512)))
        (work / "ids.npy").write_bytes(npy_header((1, 512), "<i8") + ids)
        write_npy(work / "t.npy", (1, 1, 16, 16), [(i - 100) * 0.37 for i in range(256)])
        for name, (target, compiler, emulator) in MACHINES.items():
            if name == platform.machine():
                continue
            if not shutil.which(compiler) or (emulator and not shutil.which(emulator)):
                print(f"{name}: left out, there is no {compiler} or no {emulator}")
                continue
            machine = Machine(work, name)
            for model, key, array in (("tiny.qir", "x", "t.npy"), ("words.qir", "ids", "ids.npy"), ("int8.onnx", "image", "x.npy"), ("dynamic.onnx", "image", "x.npy")):
                check(machine, work, work / model, key, work / array)
            check(machine, work, DATA / "digits.onnx", "image", work / "x.npy")
            check_refusal(machine, work)
            print(f"{name} ({target}): passed")


main()
