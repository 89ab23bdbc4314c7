"""What the end-to-end scripts share: the command under test, the folder of the digits, and float32 arrays as files.

A script's first two arguments are the command and that folder.  Standard library only.
"""
import json
import pathlib
import struct
import subprocess
import sys

QCOMPILE, DATA = (pathlib.Path(a).resolve() for a in sys.argv[1:3])


TARGETS = ["generic", "avx2", "x86-64+avxvnni", "x86-64+avx512", "x86-64+avx512vnni", "x86-64+avx512vnni+amx-int8", "host"]


def run(*args, code=0):
    done = subprocess.run([QCOMPILE, *map(str, args)], capture_output=True, text=True, errors="replace")  # names are any bytes
    if done.returncode != code:
        sys.exit(f"qcompile {' '.join(map(str, args))}\nexit code {done.returncode}, expected {code}\n{done.stdout}{done.stderr}")
    return done


def recipe_rows():
    """What wins accuracy back, as the command under test has it: name, choices, the default, and the choice that does nothing."""
    return json.loads(run("doctor", "--recipes", "--json").stdout)["recipes"]


def recipes_off():
    """The words of a command line with all of them off."""
    return [word for row in recipe_rows() for word in (f"--{row['name']}", row["off"])]


def present_targets():
    """TARGETS that this machine has, after naming the others; AMX with emulated tiles where it has none."""
    host = {"generic", "host", "x86-64", *json.loads(run("doctor", "--json").stdout)["isas"]}
    missing = [t for t in TARGETS if not set(t.split("+")) <= host]
    if missing:
        print(f"left out, this machine lacks them: {', '.join(missing)}")
    present = [t for t in TARGETS if t not in missing]
    if any("amx" in t for t in missing) and "avx512vnni" in host:
        print("AMX kernels run with emulated tiles")
        present.append("amx-emulated")
    return present


def npy_header(shape, descr="<f4"):
    """What stands before the values of a .npy file, float32 unless said otherwise."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def write_npy(path, shape, values):
    """Writes float32 values; returns their bytes."""
    payload = struct.pack(f"<{len(values)}f", *values)
    path.write_bytes(npy_header(shape) + payload)
    return payload


def write_sample(path, index):
    """Image `index` of test.npy (u8, N x 1 x 16 x 16) as float32 in 0..1; returns its bytes."""
    raw = (DATA / "test.npy").read_bytes()
    start = 10 + struct.unpack("<H", raw[8:10])[0] + index * 256
    return write_npy(path, (1, 1, 16, 16), [v / 255 for v in raw[start:start + 256]])
