"""Every function that requires something of its caller is broken by a test, and its header says what it requires.

usage: requirements.py SOURCE_DIR
"""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
faults = []
rooms = ["ir", "frontend", "quantizer", "passes", "codegen", "runtime"]
named = {}
for room in rooms:
    for path in sorted((root / room).rglob("*")):
        if path.suffix in (".cpp", ".h") and path.name != "status.h":
            for name in re.findall(r'QC_REQUIRE\("([^"]+)"', path.read_text()):
                named.setdefault(name, path.relative_to(root))
            for function in re.findall(r'channelOf\("(\w+)"|checked\("(\w+)"', path.read_text()):
                named.setdefault(function[0] or function[1], path.relative_to(root))
broken = set(re.findall(r'^    \{"([^"]+)",', (root / "tests/unit/requirements_test.cpp").read_text(), re.M))
for name in sorted(named.keys() - broken):
    faults.append(f"{named[name]}: what {name}() requires is not broken in tests/unit/requirements_test.cpp")
for name in sorted(broken - named.keys()):
    faults.append(f"tests/unit/requirements_test.cpp: {name}() requires nothing")

# A check that stands in an installed header is reached by programs: it is the caller's mistake.
for line in (root / "public_headers.txt").read_text().splitlines():
    if not line.endswith(".h") or line == "ir/status.h":
        continue
    if re.search(r"\bQC_CHECK\(", re.sub("//.*", "", (root / line).read_text())):
        faults.append(f"{line}: what programs can break is QC_REQUIRE or a Result, not QC_CHECK")

print("\n".join(faults) or f"{len(named)} functions require something; each is tested")
sys.exit(bool(faults))
