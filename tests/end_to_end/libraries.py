#!/usr/bin/env python3
"""compile -o NAME.so, NAME.a, --pack-weights and what it says of other names and of missing linkers.

    libraries.py QCOMPILE DATA_DIR LIBQCOMPILE_RT SOURCE_DIR CMAKE

A shared library is loaded as it stands and gives the bytes of `qcompile run`; so does one of a bare linker.  Standard library only.
"""
import ctypes
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

from command_line import DATA, npy_header, present_targets, run, write_sample

RT, ROOT = (pathlib.Path(a).resolve() for a in sys.argv[3:5])
CMAKE = sys.argv[5]
MODEL = DATA / "digits.onnx"
LINKERS = [name for name in ("cc", "clang-19", "ld.lld-19", "ld.lld", "ld") if shutil.which(name)]


def scores_of(library, name, pixels, threads):
    lib = ctypes.CDLL(str(library), mode=ctypes.RTLD_LOCAL)
    lib.qcrt_pool_create.restype = ctypes.c_void_p
    memory_bytes, infer = getattr(lib, f"{name}_memory_bytes"), getattr(lib, f"{name}_run")
    memory_bytes.restype = ctypes.c_size_t
    pool = ctypes.c_void_p(lib.qcrt_pool_create(threads))
    memory = ctypes.create_string_buffer(memory_bytes(threads) + 64)
    aligned = ctypes.c_void_p((ctypes.addressof(memory) + 63) // 64 * 64)
    image, scores = ctypes.create_string_buffer(pixels, len(pixels)), ctypes.create_string_buffer(40)
    status = infer((ctypes.c_void_p * 1)(ctypes.addressof(image)), (ctypes.c_void_p * 1)(ctypes.addressof(scores)), aligned, pool)
    assert status == 0
    error = getattr(lib, f"{name}_error")
    error.restype = ctypes.c_char_p
    assert error(0) == b"done"
    lib.qcrt_pool_destroy(pool)
    return scores.raw


def shared(work, pixels, wanted):
    if not LINKERS:
        print("shared libraries: left out, there is no linker")
        return
    for i, linker in enumerate([None, *LINKERS]):
        out = work / f"digits{i}.so"
        run("compile", MODEL, "-o", out, *(["--linker", linker] if linker else []))
        for threads in 1, 2:
            assert scores_of(out, f"digits{i}", pixels, threads) == wanted, f"{linker}: other bytes"
    assert "holds qcompile_rt" in (work / "digits0.h").read_text()
    run("compile", MODEL, "-o", work / "digits.so.1.2", "--rt", RT)
    assert scores_of(work / "digits.so.1.2", "digits", pixels, 1) == wanted
    left = sorted(p.name for p in work.iterdir())
    assert not [n for n in left if "tmp" in n or "link" in n], left
    print(f"shared libraries: passed with {', '.join(LINKERS)}")


# Weights of 4 bits, a layer of them large enough to be unpacked by two threads, one that is not a whole number of blocks, and one of 8 bits.
WIDE = """!x = q<u8, scale=0.02, zp=100>
!w = q<s4, scale=0.01, zp=0>
!v = q<s8, scale=0.01, zp=0>
const #w : s4[512,784] = rand(4, -8, 7)
const #n : s4[37,512] = rand(5, -8, 7)
const #v : s8[10,37] = rand(6, -128, 127)
graph @wide(%image: f32[1,1,28,28]) -> ("scores") {
  %wq = const #w : !w[512,784]
  %w = dequantize %wq : f32[512,784]
  %nq = const #n : !w[37,512]
  %n = dequantize %nq : f32[37,512]
  %vq = const #v : !v[10,37]
  %v = dequantize %vq : f32[10,37]
  %flat = reshape %image {shape=[1,784]} : f32[1,784]
  %0 = quantize %flat : !x[1,784]
  %1 = dequantize %0 : f32[1,784]
  %2 = linear %1, %w : f32[1,512]
  %3 = quantize %2 : !x[1,512]
  %4 = dequantize %3 : f32[1,512]
  %5 = linear %4, %n : f32[1,37]
  %6 = quantize %5 : !x[1,37]
  %7 = dequantize %6 : f32[1,37]
  %8 = linear %7, %v : f32[1,10]
  return %8
}
"""


def packed(work):
    if not LINKERS:
        print("packed weights: left out, there is no linker")
        return
    model = work / "wide.qir"
    model.write_text(WIDE)
    values = [math.sin(0.37 * i) for i in range(784)]
    pixels = struct.pack("<784f", *values)
    (work / "wide.npy").write_bytes(npy_header((1, 1, 28, 28), "<f4") + pixels)
    for target in present_targets():
        if target == "amx-emulated":
            continue
        run("run", model, "--input", f"image={work}/wide.npy", "--output-dir", work, "--target", target)
        wanted = (work / "scores.npy").read_bytes()[-40:]
        sizes = {}
        for flags in [], ["--pack-weights"]:
            out = work / f"wide{len(flags)}.so"
            run("compile", model, "-o", out, "--name", "wide", "--target", target, *flags)
            sizes[len(flags)] = out.stat().st_size
            for threads in 1, 2, 3:
                assert scores_of(out, "wide", pixels, threads) == wanted, f"{target} {flags}, {threads} threads: other bytes"
            out.unlink()
        saved = sizes[0] - sizes[1]
        assert (512 * 784 + 37 * 512) * 0.45 < saved, (target, sizes)
    print("packed weights: passed")


def static(work, pixels, wanted):
    cc = shutil.which("cc")
    run("compile", MODEL, "-o", work / "digits.a")
    assert (work / "digits.a").read_bytes().startswith(b"!<arch>\n")
    if not cc:
        print("static libraries: not linked, there is no cc")
        return
    subprocess.run([cc, "-shared", "-o", work / "own.so", "-Wl,--whole-archive", work / "digits.a", RT, "-Wl,--no-whole-archive", "-lpthread", "-lm"], check=True)
    assert scores_of(work / "own.so", "digits", pixels, 1) == wanted
    print("static libraries: passed")


def other_machines(work):
    for target, prefix in (("aarch64", "aarch64-linux-gnu"), ("riscv64", "riscv64-linux-gnu"), ("armv7", "arm-linux-gnueabihf")):
        if not shutil.which(f"{prefix}-gcc"):
            print(f"shared library for {target}: left out, there is no {prefix}-gcc")
            continue
        refused = run("compile", MODEL, "-o", work / "x.so", "--target", target, code=1).stderr
        assert "qcompile_rt of that machine" in refused and "--rt" in refused and "cmake -S runtime/rt" in refused, refused
        for step in (["-S", ROOT / "runtime/rt", "-B", work / target, f"-DCMAKE_C_COMPILER={prefix}-gcc", "-DCMAKE_SYSTEM_NAME=Linux"], ["--build", work / target]):
            subprocess.run([CMAKE, *step], check=True, capture_output=True)
        run("compile", MODEL, "-o", work / "x.so", "--target", target, "--rt", work / target / "libqcompile_rt.a")
        symbols = subprocess.run([f"{prefix}-nm", "-D", "--defined-only", work / "x.so"], check=True, capture_output=True, text=True).stdout
        names = {line.split()[-1] for line in symbols.splitlines()}
        assert {"x_run", "x_error", "x_memory_bytes", "qcrt_pool_create"} <= names and not [n for n in names if n.startswith("x_k")], names
        print(f"shared library for {target}: passed")


def refusals(work):
    for name in ("plain", "plain.obj", "plain.dll", "plain.so.x", "plain.h", "plain.onnx", "plain.O", "so"):
        refused = run("compile", MODEL, "-o", work / name, code=1).stderr
        assert "does not say what to write" in refused and all(s in refused for s in (".o", ".a", ".so")) and not (work / name).exists(), refused
    assert "no program" in run("compile", MODEL, "-o", work / "x.so", "--linker", "no-such-linker", code=1).stderr
    assert "no file" in run("compile", MODEL, "-o", work / "x.so", "--rt", work / "absent.a", code=1).stderr
    assert "is for shared libraries" in run("compile", MODEL, "-o", work / "x.o", "--rt", RT, code=1).stderr
    (work / "bad.a").write_text("no library")
    assert "does not link" in run("compile", MODEL, "-o", work / "x.so", "--rt", work / "bad.a", code=1).stderr
    path = os.environ["PATH"]
    os.environ["PATH"] = str(work / "nothing")
    refused = run("compile", MODEL, "-o", work / "x.so", code=1).stderr
    os.environ["PATH"] = path
    assert "needs a linker" in refused and "ld.lld" in refused and ".o" in refused, refused
    print("refusals: passed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        os.environ["QC_CACHE_DIR"] = str(work / "cache")
        (work / "TMP").mkdir()
        os.environ["TMPDIR"] = str(work / "TMP")
        pixels = write_sample(work / "x.npy", 3)
        run("run", MODEL, "--input", f"image={work}/x.npy", "--output-dir", work)
        wanted = (work / "scores.npy").read_bytes()[-40:]
        shared(work, pixels, wanted)
        packed(work)
        static(work, pixels, wanted)
        other_machines(work)
        refusals(work)
        assert not list((work / "TMP").iterdir())


main()
