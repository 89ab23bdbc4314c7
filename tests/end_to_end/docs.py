#!/usr/bin/env python3
"""The handbook names what there is; and whatever is wrong with a page is found.

    docs.py QCOMPILE SOURCE_DIR

Standard library only.
"""
import pathlib
import sys
import tempfile

PROGRAM, ROOT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
sys.path.insert(0, str(ROOT / "tools"))
import check_docs  # noqa: E402

GRAPH = "graph @g(%x: f32[2]) {\n  %y = relu %x : f32[2]\n  return %y\n}\n"
# What a page says, and what is to be found wrong with it; nothing, where it is right.
PAGES = [
    ("`ir/graph.h`, `graph.h`, `tests/golden/cse/`, `codegen/emit/*.cpp`, `ir/{type,attr}.h`, `cmd_VERB.cpp`", None),
    ("`ir/graf.h`", "there is no ir/graf.h"),
    ("`graf.h`", "there is no graf.h"),
    ("`ir/{type,atr}.h`", "there is no ir/atr.h"),
    ("`tests/golden/cze/`", "there is no tests/golden/cze/"),
    ("`Graph`, `qc::Graph`, `Graph::addInput()`, `kElementwise`, `runPipeline()`, `leaky_relu`, `fold-batch-norm`, `q.conv`", None),
    ("`GraphOfOld`", "the code has no GraphOfOld"),
    ("`Graph::addOutcome()`", "the code has no Graph::addOutcome()"),
    ("`kNoSuchTrait`", "the code has no kNoSuchTrait"),
    ("`runPipelineTwice()`", "the code has no runPipelineTwice()"),
    ("`leaky_relu_of_old`", "the tree does not know leaky_relu_of_old"),
    ("`fold-batch-norms`", "the tree does not know fold-batch-norms"),
    ("| PyTorch | here |\n| --- | --- |\n| `NoSuchObserver` | `Observer` |\n", None),
    ("| here | PyTorch |\n| --- | --- |\n| `NoSuchObserver` | `MinMaxObserver` |\n", "the code has no NoSuchObserver"),
    ("`--threads 2`, `--require-int8`, `qcompile bench m.onnx --threads 2`", None),
    ("`--thread-count`", "nothing has an option --thread-count"),
    ("`qcompile benchmark m.onnx`", "qcompile has no verb 'benchmark'"),
    ("`qcompile bench m.onnx --thread-count 2`", "qcompile bench has no option --thread-count"),
    ("```sh\nqcompile bench m.onnx --threads 2 | tee log\nqcompile run m.onnx \\\n  --layers\n```", "qcompile run has no option --layers"),
    ("[a](README.md) [b](https://example.com/none) [c](#here)\n\n# Here\n", None),
    ("[a](nowhere.md)", "the link to nowhere.md leads nowhere"),
    ("[a](README.md#nowhere)", "README.md has no heading #nowhere"),
    ("```cpp ir/graph.h\nclass Graph {\n...\nclass Builder {\n```", None),
    ("```cpp ir/graph.h\nclass Builder {\n...\nclass Graph {\n```", "ir/graph.h has no line (any more, or here): class Graph {"),
    ("```cpp ir/graf.h\nclass Graph {\n```", "the block quotes ir/graf.h, which is not here"),
    (f"```qir\n{GRAPH}```\n\n```text cse\n%y = relu %x : f32[2]\n```\n\n```text run x=[-1,2]\n%y = f32[2] [0.0, 2.0]\n```", None),
    (f"```qir\n{GRAPH.replace('relu', 'relo')}```", "the block does not parse"),
    (f"```qir\n{GRAPH}```\n\n```text cse\n%y = sigmoid %x : f32[2]\n```", "cse does not print: %y = sigmoid %x : f32[2]"),
    ("<!-- qcompile doctor --recipes -->\n| a |\n", "run tools/check_docs.py with --write"),
    (f"```qir\n{GRAPH}```\n\n```text run x=[-1,2]\n%y = f32[2] [-1.0, 2.0]\n```", "run does not print: %y = f32[2] [-1.0, 2.0]"),
]


def main():
    tree, program = check_docs.Tree(ROOT), check_docs.CommandLine(PROGRAM)
    with tempfile.TemporaryDirectory() as work:
        page = pathlib.Path(work, "page.md")
        pathlib.Path(work, "README.md").write_text("# Title\n")
        for text, wanted in PAGES:
            page.write_text(text + "\n")
            found = check_docs.Page(page, tree, program).check()
            as_wanted = len(found) == 1 and wanted in found[0] if wanted else not found
            if not as_wanted:
                sys.exit(f"of\n{text}\nwas said {found}, not {wanted}")
    found = check_docs.problems(tree, program)
    print("\n".join(found) or "the pages name what there is, and faults in a page are found")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
