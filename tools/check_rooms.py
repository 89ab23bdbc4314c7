#!/usr/bin/env python3
"""Refuses an include against the arrows: a room includes only rooms to its left; and names that are there twice.

    ir <- quantizer <- passes <- codegen <- runtime <- tools        ir <- frontend <- runtime

Inside runtime, workflow stands behind the rest, training and insight behind workflow: only the umbrella header qcompile.h includes them.
LLVM's headers belong to codegen alone, ONNX's to frontend alone; runtime/rt, the C library under all of
them, includes no room and may be included by each.

Rooms are linked into one program: of two types of one name outside of unnamed namespaces the linker takes the destructor of either for both.
Sources of one room may be compiled as one (QC_PCH): what stands in their unnamed namespaces has to be unlike, whichever come to lie together.
"""
import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAY = {"ir": {"ir"}, "frontend": {"ir", "frontend"}, "quantizer": {"ir", "quantizer"}, "passes": {"ir", "quantizer", "passes"}}
MAY["codegen"] = MAY["passes"] | {"codegen"}
MAY["runtime"] = MAY["codegen"] | {"frontend", "runtime"}
MAY["tools"] = MAY["runtime"] | {"tools"}
FLOORS = {"workflow": {"workflow", "training", "insight"}, "training": {"training"}, "insight": {"insight"}}  # of runtime, and who of it may include them
TOGETHER = ["ir", "frontend", "quantizer", "passes", "runtime", "runtime/workflow", "runtime/training", "runtime/insight", "tools"]  # as CMakeLists.txt has it
OWNER = {"llvm": "codegen", "llvm-c": "codegen", "onnx": "frontend", "google": "frontend"}


def offences():
    for room, allowed in MAY.items():
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix not in {".h", ".cpp", ".c", ".def"}:
                continue
            standalone = "runtime/rt/" in path.as_posix()
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                found = re.match(r'\s*#\s*include\s*["<](?:qcompile/)?([\w-]+)/(\w+)', line)
                if not found:
                    continue
                target, inner = found[1], found[2]
                library = (target, inner) == ("runtime", "rt")
                wrong = (target in MAY and target not in allowed and not library) or OWNER.get(target, room) != room
                if room == "runtime" and target == "runtime" and inner in FLOORS:
                    wrong = wrong or not (path.relative_to(ROOT).parts[1] in FLOORS[inner] or path.name == "qcompile.h")
                if standalone and target in MAY and not library:
                    wrong = True
                if wrong:
                    yield f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


TYPE = re.compile(r"(?:struct|class|union|enum|enum class) (\w+)(?: final)?(?: : [^;{]*)?(?: \{.*)?$")


def types(path):
    """Qualified names of the types that a file defines at the level of its namespaces, unnamed ones left out."""
    spaces = []
    for line in path.read_text(errors="replace").splitlines():
        if opened := re.match(r"namespace ?([\w:]*) ?\{", line):
            spaces.append(opened[1])
        elif line.startswith("}  // namespace"):
            spaces.pop()
        elif "" not in spaces and (found := TYPE.match(line)):
            yield "::".join([*spaces, found[1]])


def twins():
    places = collections.defaultdict(list)
    for room in MAY:
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in {".h", ".cpp"}:
                for name in types(path):
                    places[name].append(str(path.relative_to(ROOT)))
    return [f"{name} is defined in {' and '.join(where)}: give one of them another name" for name, where in sorted(places.items()) if len(where) > 1]


TYPE_ALIAS = re.compile(r"using (\w+) = (.*);")
CONSTANT = re.compile(r"(?!using |namespace )[\w:<>, *&]+?\b(\w+)(?:\[\d*\])* = ")
FUNCTION = re.compile(r"(?!template|using )[\w:<>, *&]+?\b(\w+)\((.*)\)(?: const)?(?: \{.*| -> .*\{)$")


def own(path):
    """What a source defines in unnamed namespaces, on one line each: functions by the types of their parameters, other names by themselves, and
    what may be said twice, an alias, by what it says."""
    inside = False
    for line in path.read_text(errors="replace").splitlines():
        if line == "namespace {" or line == "}  // namespace":
            inside = line == "namespace {"
        elif not inside or line[:1] in {" ", "/", "#", "}"}:
            continue
        elif found := TYPE.match(line):
            yield found[1], ""
        elif found := TYPE_ALIAS.match(line):
            yield found[1], found[2]
        elif found := FUNCTION.match(line):
            yield f"{found[1]}({re.sub(r' ?[*&]?(?<=[ *&])[a-z][A-Za-z]*(?=,|$)', '', found[2])})", ""
        elif found := CONSTANT.match(line):
            yield found[1], ""


def neighbours():
    for room in TOGETHER:
        places = collections.defaultdict(dict)
        for path in sorted((ROOT / room).rglob("*.cpp")):
            inner = path.relative_to(ROOT / room).parts[0]
            if room == "runtime" and (inner == "rt" or f"runtime/{inner}" in TOGETHER):
                continue
            for name, meaning in own(path):
                places[name].setdefault(str(path.relative_to(ROOT)), meaning)
        for name, where in sorted(places.items()):
            meanings = set(where.values())
            if len(where) > 1 and (len(meanings) > 1 or "" in meanings):
                yield f"{name} is of its own in {' and in '.join(where)}: give all but one other names"


if __name__ == "__main__":
    found = [*offences(), *twins(), *neighbours()]
    print("\n".join(found) or "includes follow the arrows, and names are told apart")
    sys.exit(1 if found else 0)
