#!/usr/bin/env python3
"""What the command line does with files: outputs that are devices, links or inputs; full disks and closed pipes; names that models make up; inputs
of any kind and size; memory that ends.

    files.py QCOMPILE DATA_DIR

Standard library only.
"""
import json
import os
import pathlib
import re
import resource
import signal
import struct
import subprocess
import tempfile
import time
import zipfile

from command_line import DATA, QCOMPILE, npy_header, run, write_npy
from onnx_bytes import field

MODEL = DATA / "digits.onnx"
SAMPLES = f"images:{DATA}/calib?order=grey&mean=0&std=255"
GRAPH = "graph @g(%x: f32[2,3]) {\n  %y = relu %x : f32[2,3]\n  return %y\n}\n"


def verbs(work):
    """One command line of each verb that prints a result."""
    qir, qcal = work / "g.qir", work / "r.qcal"
    qir.write_text(GRAPH)
    run("calibrate", MODEL, "-d", SAMPLES + "&limit=3", "-o", qcal)
    write_npy(work / "x.npy", (2, 3), [1.0] * 6)
    yield from (["inspect", MODEL], ["inspect", MODEL, "--json"], ["inspect", MODEL, "--text"], ["opt", qir], ["opt", qir, "--run"], ["opt", "--list-passes"],
                ["doctor"], ["doctor", "--json"], ["doctor", "--ops"], ["doctor", "--kernels"], ["--help"], ["--version"], ["quantize", "--help"],
                ["bench", MODEL, "--seconds", 0.01], ["bench", MODEL, "--seconds", 0.01, "--json"], ["profile", MODEL, "--runs", 1],
                ["profile", MODEL, "--runs", 1, "--json"], ["calibrate", MODEL, "-d", SAMPLES + "&limit=3", "-o", work / "o.qcal"],
                ["merge", qcal, "-o", work / "m.qcal"], ["quantize", MODEL, "-d", SAMPLES + "&limit=3", "-o", work / "o.onnx"],
                ["quantize", MODEL, "-d", SAMPLES + "&limit=3", "-o", work / "o.onnx", "--json"],
                ["eval", MODEL, "-d", SAMPLES, "--labels", DATA / "labels.tsv"], ["compile", MODEL, "-o", work / "o.o"],
                ["run", qir, "--input", f"x={work / 'x.npy'}", "--output-dir", work / "out"],
                ["reduce", qir, "--test", "true", "-o", work / "small.qir"])


def lost_results(work):
    """A result that cannot be printed is an error, in every verb."""
    for arguments in verbs(work):
        command = [QCOMPILE, *map(str, arguments)]
        run(*arguments)
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and "cannot write the standard output" in done.stderr, (arguments, done)
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
        os.close(write)
        assert done.returncode == 1 and "Broken pipe" in done.stderr, (arguments, done)
        done = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&-', *command], stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1, (arguments, done)
        with open("/dev/full", "w") as full:  # chatter may be lost
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=full)
        assert done.returncode == 0, (arguments, done)
    print("lost results: passed")


def writers(work):
    """Verb by verb, the arguments in front of the path that is written."""
    qir, qcal = work / "g.qir", work / "r.qcal"
    return {"calibrate": ["calibrate", MODEL, "-d", SAMPLES + "&limit=3", "-o"], "merge": ["merge", qcal, "-o"],
            "quantize": ["quantize", MODEL, "-d", SAMPLES + "&limit=3", "-o"], "rules": ["quantize", MODEL, "-d", SAMPLES + "&limit=3", "-o", work / "q.onnx", "--write-rules"],
            "header": ["compile", MODEL, "-o", work / "h.o", "--header"], "reduce": ["reduce", qir, "--test", "true", "-o"]}


def targets_of_writing(work):
    folder = work / "targets"
    folder.mkdir()
    listing = lambda: sorted(p.name for p in folder.iterdir())
    for verb, arguments in writers(work).items():
        suffix = {"reduce": ".qir", "quantize": ".onnx"}.get(verb, ".out")
        real, link, pipe, inside = folder / f"real{suffix}", folder / f"link{suffix}", folder / "pipe", folder / "folder"
        link.symlink_to(real.name)
        run(*arguments, link)
        assert link.is_symlink() and real.is_file() and not real.is_symlink() and real.stat().st_size > 0, verb
        os.chmod(real, 0o600)
        run(*arguments, link)
        assert real.stat().st_mode & 0o777 == 0o600, verb
        os.mkfifo(pipe)
        inside.mkdir()
        for target, word in ((pipe, "pipe"), (inside, "folder"), (folder / "none" / f"x{suffix}", "create the folder"), ("/dev/stdout", "standard output"), ("/dev/full", "full|space"),
                             (f"/proc/nothing{suffix}", "cannot write")):
            begin = time.time()
            done = run(*arguments, target, code=1)
            assert re.search(word, done.stderr, re.I), (verb, target, done.stderr)
            assert time.time() - begin < 20
        run(*arguments, "/dev/null")
        assert pathlib.Path("/dev/null").is_char_device()
        assert listing() == sorted([real.name, link.name, "pipe", "folder"]), (verb, listing())
        for path in (real, link, pipe):
            path.unlink()
        inside.rmdir()
    print("targets of writing: passed")


def inputs_stay(work):
    """No verb replaces what it reads."""
    qir, qcal = work / "in.qir", work / "in.qcal"
    model, rules, image = work / "in.onnx", work / "in.json", work / "images" / "000.png"
    image.parent.mkdir()
    image.write_bytes((DATA / "calib" / "000.png").read_bytes())
    model.write_bytes(MODEL.read_bytes())
    rules.write_text("{}")
    qir.write_text(GRAPH)
    run("calibrate", MODEL, "-d", SAMPLES + "&limit=3", "-o", qcal)
    write_npy(work / "y.npy", (2, 3), [1.0] * 6)
    (work / "same.onnx").symlink_to("in.onnx")
    images = f"images:{work}/images?order=grey&std=255"
    cases = [(model, ["quantize", model, "-d", SAMPLES, "-o", model]), (model, ["quantize", model, "-d", SAMPLES, "-o", work / "same.onnx"]),
             (model, ["quantize", model, "-d", SAMPLES, "-o", work / "images" / ".." / "in.onnx"]), (rules, ["quantize", model, "-d", SAMPLES, "--config", rules, "-o", rules]),
             (rules, ["quantize", model, "-d", SAMPLES, "--config", rules, "-o", work / "z.onnx", "--write-rules", rules]),
             (qcal, ["quantize", model, "--ranges", qcal, "-o", qcal]), (image, ["quantize", model, "-d", images, "-o", image]),
             (model, ["calibrate", model, "-d", SAMPLES, "-o", model]), (qcal, ["merge", qcal, "-o", qcal]), (model, ["compile", model, "-o", work / "z.o", "--header", model]),
             (qir, ["reduce", qir, "--test", "true", "-o", qir]), (work / "y.npy", ["run", qir, "--input", f"x={work / 'y.npy'}", "--output-dir", work])]
    for victim, arguments in cases:
        before = victim.read_bytes()
        done = run(*arguments, code=1)
        assert "input of this command" in done.stderr or "does not say in what form" in done.stderr, (arguments, done.stderr)
        assert victim.read_bytes() == before, arguments
    done = run("quantize", model, "-d", SAMPLES, "-o", work / "z", "--write-rules", work / "z", code=1)
    assert "two outputs" in done.stderr
    print("inputs stay: passed")


def limits_and_signals(work):
    folder = work / "limits"
    folder.mkdir()

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    for arguments in (["quantize", MODEL, "-d", SAMPLES, "-o", folder / "x.onnx"], ["calibrate", MODEL, "-d", SAMPLES, "-o", folder / "x.qcal"], ["compile", MODEL, "-o", folder / "x.o"]):
        done = subprocess.run([QCOMPILE, *map(str, arguments)], capture_output=True, text=True, preexec_fn=limited)
        assert done.returncode == 1 and "File too large" in done.stderr, done
        assert not list(folder.iterdir()), list(folder.iterdir())
    # Killed while it writes: the next run tidies up.
    (folder / f".x.onnx.{2 ** 22 + 5}.0123456789abcdef.tmp").write_text("half")  # no process has this number
    mine = folder / f".x.onnx.{os.getpid()}.0123456789abcdef.tmp"
    mine.write_text("of a living process")
    run("quantize", MODEL, "-d", SAMPLES + "&limit=3", "-o", folder / "x.onnx")
    assert sorted(p.name for p in folder.iterdir()) == sorted([mine.name, "x.onnx"])
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen([QCOMPILE, "reduce", str(work / "g.qir"), "--test", "sleep 1; true {}", "-o", str(folder / "y.qir")], env={**os.environ, "TMPDIR": str(folder)},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        there = lambda: any("qcompile-reduce" in p.name and any(p.iterdir()) for p in folder.iterdir() if p.is_dir())
        for _ in range(200):
            if there():
                break
            time.sleep(0.1)
        assert there()
        os.killpg(process.pid, number)  # as a terminal does
        process.wait(timeout=30)
        assert sorted(p.name for p in folder.iterdir()) == sorted([mine.name, "x.onnx"]), list(folder.iterdir())
    print("limits and signals: passed")


def names_of_files(work):
    """Outputs that would share a file, hide it or leave the folder; and all of them or none."""
    names = ["a:0", "a/0", "A_0", ".bashrc\\x00", "../../up", "\\x1b[31mred", "n" * 400, "n" * 400 + "2", "-rf", ""]
    graph = work / "names.qir"
    lines = [f"  %y{i} = mul %x, %c{i} : f32[1]" for i in range(len(names))]
    consts = [f"const #c{i} : f32[1] = [{i}.0]" for i in range(len(names))]
    loads = [f"  %c{i} = const #c{i} : f32[1]" for i in range(len(names))]
    quoted = ", ".join(f'"{n}"' for n in names)
    graph.write_text("\n".join(consts) + f"\ngraph @g(%x: f32[1]) -> ({quoted}) {{\n" + "\n".join(loads + lines) + "\n  return "
                     + ", ".join(f"%y{i}" for i in range(len(names))) + "\n}\n")
    write_npy(work / "one.npy", (1,), [1.0])
    for engine in ("jit", "interpreter"):
        out = work / f"names_{engine}"
        done = run("run", graph, "--input", f"x={work / 'one.npy'}", "--output-dir", out, "--engine", engine)
        files = sorted(p.name for p in out.iterdir())
        assert len(files) == len(names) == len({f.lower() for f in files}), files
        assert all(f.endswith(".npy") and f[0] not in ".-" and len(f) < 200 and f.isprintable() for f in files), files
        values = sorted(struct.unpack("<f", (out / f).read_bytes()[-4:])[0] for f in files)
        assert values == [float(i) for i in range(len(names))], values
        assert "\x1b" not in done.stdout and "\0" not in done.stdout
        (out / files[-1]).unlink()
        (out / files[-1]).mkdir()
        before = {f: (out / f).stat().st_ino for f in files}
        run("run", graph, "--input", f"x={work / 'one.npy'}", "--output-dir", out, "--engine", engine, code=1)
        assert before == {p.name: p.stat().st_ino for p in out.iterdir()}, "none is written where one cannot be"
    for arguments in (["inspect", graph], ["inspect", graph, "--text"], ["inspect", graph, "--kernels"], ["opt", graph], ["profile", graph, "--runs", 1], ["opt", graph, "--run"]):
        done = run(*arguments)
        assert "\x1b" not in done.stdout + done.stderr and "\0" not in done.stdout, arguments
    json.loads(run("inspect", graph, "--json").stdout)
    bad = work / "bad.qir"
    bad.write_text('graph @g(%"x\\x1b[2J": f32[2,3]) {\n  %y = relu %"x\\x1b[2J" : f32[2,3]\n  return %y\n}\n')
    done = run("run", bad, "--output-dir", work, code=1)
    assert "\\x1b[2J" in done.stderr and "\x1b" not in done.stderr, done.stderr
    print("names of files: passed")


def kinds_of_inputs(work):
    """Only regular files are read, of sizes that memory takes, and at once refused otherwise."""
    pipe, sparse = work / "in.pipe", work / "sparse"
    os.mkfifo(pipe)
    with open(sparse, "wb") as file:
        file.truncate(100 << 30)
    qir = work / "g.qir"
    qir.write_text(GRAPH)
    for kind, path in (("pipe", pipe), ("device", "/dev/zero"), ("folder", work), ("limit|2 GB", sparse)):
        named = lambda suffix: work / f"named{suffix}"
        for suffix in (".qir", ".onnx", ".npy", ".npz", ".json", ".qcal", ".tsv", ".png"):
            if named(suffix).is_symlink():
                named(suffix).unlink()
            named(suffix).symlink_to(path)
        images = work / "pictures"
        images.mkdir(exist_ok=True)
        for file in ("0.png", "0.bin"):
            if (images / file).is_symlink():
                (images / file).unlink()
            (images / file).symlink_to(path)
        samples = ["-o", work / "o.onnx"]
        for arguments in (["inspect", named(".qir")], ["inspect", named(".onnx")], ["opt", named(".qir")], ["run", qir, "--input", f"x={named('.npy')}"],
                          ["quantize", MODEL, "-d", f"npy:{named('.npy')}", *samples], ["quantize", MODEL, "-d", f"npz:{named('.npz')}", *samples],
                          ["quantize", MODEL, "-d", SAMPLES, "--config", named(".json"), *samples], ["quantize", MODEL, "--ranges", named(".qcal"), *samples],
                          ["merge", named(".qcal"), "-o", work / "o.qcal"], ["eval", MODEL, "-d", SAMPLES, "--labels", named(".tsv")],
                          ["eval", MODEL, "-d", SAMPLES, "--labels", named(".npy")], ["quantize", MODEL, "-d", f"images:{images}?order=grey", *samples],
                          ["quantize", MODEL, "-d", f"raw:{images}", *samples]):
            begin = time.time()
            done = run(*arguments, code=1)
            assert time.time() - begin < 10, arguments
            assert re.search(kind, done.stderr) or (kind.startswith("limit") and re.search("not an npy|not an npz|truncated", done.stderr)), (arguments, done.stderr)
            assert "internal" not in done.stderr and "bad_alloc" not in done.stderr, done.stderr
    print("kinds of inputs: passed")


def model_of_large_constants(path, count, location):
    """y = x + w0 + w1 + ...: each of 64 MiB, all in one file."""
    floats = field(2, field(1, field(1, 1) + field(2, field(1, field(1, 1)))))
    graph = b"".join(field(1, field(1, b"x" if i == 0 else b"s%d" % (i - 1)) + field(1, b"w%d" % i) + field(2, b"s%d" % i) + field(4, b"Add")) for i in range(count))
    graph += field(2, b"g") + field(11, field(1, b"x") + floats) + field(12, field(1, b"s%d" % (count - 1)))
    for i in range(count):
        entries = b"".join(field(13, field(1, k) + field(2, v)) for k, v in ((b"location", location), (b"offset", b"0"), (b"length", b"%d" % (64 << 20))))
        graph += field(5, field(1, 16 << 20) + field(2, 1) + field(8, b"w%d" % i) + entries + field(14, 1))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 13)))


def hostile_arrays(work):
    def npy(name, header, data=b"\0" * 24):
        text = header.encode()
        text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
        (work / name).write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
        return work / name

    qir = work / "g.qir"
    for header, word in (("{'descr':'<f4','fortran_order':True,'shape':(2,3)}", "Fortran"), ("{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (3,)}", "structured"),
                         ("{'descr': '<f4', 'shape': (2, 3)}", "fortran_order"), ("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3)}", ">f4")):
        assert word in run("run", qir, "--input", f"x={npy('h.npy', header)}", code=1).stderr, header
    run("run", qir, "--input", f"x={npy('g.npy', chr(123) + chr(34) + 'descr' + chr(34) + ': ' + repr('<f4') + ', ' + repr('shape') + ':(2,3),' + repr('fortran_order') + ':False}')}",
        "--output-dir", work / "out2")
    array = npy("x.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }").read_bytes()
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = work / "a.npz"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("x.npy", array)
            archive.writestr("other.npy", array)
        good = path.read_bytes()
        graph = work / "row.qir"
        graph.write_text(GRAPH.replace("[2,3]", "[1,3]"))
        quantize = ["calibrate", graph, "-d", f"npz:{path}", "-o", work / "o.qcal"]
        run(*quantize)
        entry = good.index(b"PK\x01\x02")
        for offset, value, word in ((16, b"\1\2\3\4", "checksum"), (20, struct.pack("<I", struct.unpack("<I", good[entry + 20:entry + 24])[0] + 50), "overlaps|damaged"),
                                    (10, b"\x08\0" if method == 0 else b"\0\0", "damaged")):
            path.write_bytes(good[:entry + offset] + value + good[entry + offset + len(value):])
            assert re.search(word, run(*quantize, code=1).stderr), (method, offset)
    for deep in ("[" * 200000, '{"a":' * 200000, '{"global":' + "[" * 200000 + "]" * 200000 + "}"):
        (work / "deep.json").write_text(deep)
        assert re.search("nested|parse error", run("quantize", MODEL, "-d", SAMPLES, "--config", work / "deep.json", "-o", work / "o.onnx", code=1).stderr)
    print("hostile arrays: passed")


def memory(work):
    """Whatever takes the memory, the outcome is an error with exit code 1 that names the limit."""
    big = "f32[1024,1024,64]"  # 256 MB
    chains = {
        "constants": "const #c : f32[1,1,1] = [1.0]\ngraph @g(%x: f32[1]) {\n  %c = const #c : f32[1,1,1]\n  %e0 = expand %c {shape=[1024,1024,16]} : f32[1024,1024,16]\n"
                     + "".join(f"  %e{i + 1} = {'exp' if i % 2 else 'sin'} %e{i} : f32[1024,1024,16]\n" for i in range(200)) + "  return "
                     + ", ".join(f"%e{i + 1}" for i in range(200)) + "\n}\n",
        "input": f"graph @g(%x: {big}) {{\n  %y = relu %x : {big}\n  return %y\n}}\n",
        "outputs": "graph @g(%x: f32[1,1,1]) {\n" + "".join(f"  %y{i} = expand %x {{shape=[1024,1024,{i + 1}]}} : f32[1024,1024,{i + 1}]\n" for i in range(20)) + "  return "
                   + ", ".join(f"%y{i}" for i in range(20)) + "\n}\n",
    }
    write_npy(work / "one.npy", (1, 1, 1), [1.0])
    write_npy(work / "x1.npy", (1,), [1.0])
    environment = {**os.environ, "QC_MEMORY_LIMIT": "200000000"}
    for name, text in chains.items():
        graph = work / f"{name}.qir"
        graph.write_text(text)
        ways = [["bench", graph, "--seconds", 0.01], ["profile", graph, "--runs", 1], ["opt", graph, "--run"]]
        if name != "input":
            array = work / ("one.npy" if name == "outputs" else "x1.npy")
            ways += [["run", graph, "--input", f"x={array}", "--output-dir", work / "out", "--engine", e] for e in ("jit", "interpreter")]
        for arguments in ways:
            begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            done = subprocess.run([QCOMPILE, *map(str, arguments)], env=environment, capture_output=True, text=True)
            assert done.returncode == 1 and "QC_MEMORY_LIMIT" in done.stderr, (arguments, done.returncode, done.stderr[-500:])
            assert max(begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) < 1_000_000, "kB"
    model = work / "large.onnx"
    with open(work / "large.bin", "wb") as file:
        file.truncate(64 << 20)
    for count, way, code in ((1, ["--text"], 0), (20, ["--text"], 1), (20, [], 0)):  # what headers tell needs no weights
        model_of_large_constants(model, count, b"large.bin")
        done = subprocess.run([QCOMPILE, "inspect", str(model), *way], env=environment, capture_output=True, text=True)
        assert done.returncode == code and (code == 0 or "QC_MEMORY_LIMIT" in done.stderr), (count, done)
    for location in (b"../large.bin", b"/etc/passwd", b"pipe", b"link", b".", b""):
        model_of_large_constants(model, 1, location)
        for name, target in (("pipe", None), ("link", "/etc/passwd")):
            if not os.path.lexists(work / name):
                os.mkfifo(work / name) if target is None else (work / name).symlink_to(target)
        begin = time.time()
        assert "external data" in run("inspect", model, code=1).stderr and time.time() - begin < 10, location
    print("memory: passed")


def free_dims(work):
    """inspect shows what is free and where; what has to be bound is told at once."""
    def port(name, *dims):
        shape = b"".join(field(1, field(1, d) if isinstance(d, int) else field(2, d)) for d in dims)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    nodes = b"".join(field(1, field(1, a) + field(1, b) + field(2, y) + field(4, b"Add")) for a, b, y in ((b"x", b"mask", b"s"), (b"s", b"other", b"y")))
    graph = nodes + field(2, b"g") + field(11, port(b"x", b"batch", b"seq")) + field(11, port(b"mask", b"batch", b"seq")) + field(11, port(b"other", 1, b"?"))
    model = work / "free.onnx"
    model.write_bytes(field(1, 8) + field(7, graph + field(12, port(b"y", b"batch", b"seq"))) + field(8, field(1, b"") + field(2, 13)))
    shown = json.loads(run("inspect", model, "--json").stdout)
    assert not shown["bound"] and shown["ops"] == {"add": 2} and shown["inputs"][0] == {"name": "x", "type": "f32[batch,seq]"}, shown
    assert [(d["symbol"], d["where"], d["bind"], d["size"]) for d in shown["free"]] == [
        ("batch", ["dim 0 of 'x'", "dim 0 of 'mask'"], "batch=N", 1), ("seq", ["dim 1 of 'x'", "dim 1 of 'mask'"], "seq=N", None), ("other.1", ["dim 1 of 'other'"], "other.1=N", None)], shown
    assert "free   seq : dim 1 of 'x', dim 1 of 'mask'; for bench and compile bind it with --shape seq=N" in run("inspect", model).stdout
    for other in ("other=1x3", "other.1=3"):
        bound = json.loads(run("inspect", model, "--json", "--shape", "seq=3", "--shape", other).stdout)
        assert bound["bound"] and bound["ops"] == {"add": 2} and bound["outputs"] == [{"name": "y", "type": "f32[batch,3]"}], bound
    assert "%x: f32[batch,seq], %mask: f32[batch,seq], %other: f32[1,other.1]" in run("inspect", model, "--text").stdout.replace('"', "")
    wrong = run("inspect", model, "--shape", "sq=3", code=1).stderr
    assert "'sq'" in wrong and all(f"'{name}'" in wrong for name in ("seq", "batch", "other.1", "x")), wrong
    refused = run("compile", model, "-o", work / "m.o", code=1).stderr
    assert all(word in refused for word in ("of 'x'", "of 'mask'", "of 'other'", "seq=N")), refused
    print("free dims: passed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        lost_results(work)
        targets_of_writing(work)
        inputs_stay(work)
        limits_and_signals(work)
        names_of_files(work)
        kinds_of_inputs(work)
        hostile_arrays(work)
        memory(work)
        free_dims(work)


main()
