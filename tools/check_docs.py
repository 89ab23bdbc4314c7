#!/usr/bin/env python3
"""Holds the handbook to the tree: docs/, the READMEs and CONTRIBUTING.md.

  check_docs.py BUILD/bin/qcompile [--root DIR] [--write]

  links        of a page lead to a file, and to a heading where they name one
  `a/b.cpp`    a path or file name in backticks is one of the tree, from its root or the page's folder, or by its last parts
  `symbol`     a single word in backticks stands in the code: `Class` and `function()` outside of comments, both halves of
               `Class::member` in one file, ops, passes, attributes and options as a whole word
  `qcompile .` command lines, in the text and in blocks, have verbs and options that `qcompile VERB --help` lists
  ```cpp F     a block that names a file of the tree quotes it: every line stands there, whole or in part, in this order; a line "..."
               leaves some out
  ```qir       a block of text form parses; printed with its payloads it is read back and printed the same
  ```text P    behind it holds lines that the pipeline P prints of that graph; ```text run x=[1,2] what it computes
  <!-- qcompile ... -->
               a table behind such a line is what the command prints; --write puts it there

Words in capitals are placeholders (NAME.o, cmd_VERB.cpp).  A column of a table headed PyTorch or ONNX holds names of theirs.
"""
import argparse
import collections
import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys

CODE = {".h", ".cpp", ".c", ".def"}
FILES = CODE | {".py", ".md", ".qir", ".cmake", ".sh", ".txt"}
LEFT_OUT = {".git", "build", "__pycache__"}
PLACEHOLDER = re.compile(r"[A-Z]{3,}")
FOREIGN = {"PyTorch", "ONNX"}
PRINTED = re.compile(r"^<!-- qcompile ([^\n]*) -->\n((?:\|[^\n]*\n)*)", re.M)
OWN = {"tools/check_docs.py", "tests/end_to_end/docs.py"}  # these speak of what there is not


def without_comments(text):
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)


class Tree:
    """What a page may name: the files below the root, and the words in them."""

    def __init__(self, root):
        self.root = root
        self.files, self.folders = set(), set()
        for path in root.rglob("*"):
            parts = path.relative_to(root).parts
            if any(part in LEFT_OUT or part.startswith("build") for part in parts[:-1]) or parts[0] in LEFT_OUT:
                continue
            if path.is_file():
                self.files.add("/".join(parts))
                self.folders.update("/".join(parts[:n]) for n in range(1, len(parts)))
        self.tails = collections.defaultdict(set)  # "emit/scan.cpp" and "scan.cpp" -> the file
        for name in self.files | self.folders:
            parts = name.split("/")
            for n in range(len(parts)):
                self.tails["/".join(parts[n:])].add(name)
        self.words, self.code_words = set(), collections.defaultdict(set)
        self.joined = []  # everything, for words with other marks inside
        for name in sorted(self.files):
            suffix = pathlib.Path(name).suffix
            if (suffix not in FILES and suffix not in {".json", ".slurm", ".yaml"}) or suffix == ".md" or name in OWN:
                continue
            if name.startswith(("tests/conformance/", "tests/fuzz/corpus")):
                continue
            text = (root / name).read_text(errors="replace")
            self.words.update(re.findall(r"\w+", text))
            self.joined.append(text)
            if suffix in CODE or suffix == ".cmake" or name.endswith("CMakeLists.txt"):
                for word in set(re.findall(r"\w+", without_comments(text))):
                    self.code_words[word].add(name)
        self.joined = "\n".join(self.joined)

    def has_path(self, name, page):
        name = name.rstrip("/").removeprefix("./")
        near = (page.parent / name).resolve()
        if near.is_relative_to(self.root) and near.exists():
            return True
        return name in self.tails

    def has_code(self, names):
        return bool(set.intersection(*(self.code_words.get(name, set()) for name in names)))

    def has_word(self, word):
        if re.fullmatch(r"\w+", word):
            return word in self.words
        return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", self.joined) is not None


class CommandLine:
    """The verbs and options of the program, as its help tells them."""

    def __init__(self, program):
        self.program = program
        self.verbs = set(re.findall(r"^  (\w+) {2,}", self.help().split("Options:")[0], re.M))
        self.of_verb = {}

    def help(self, *verb):
        return subprocess.run([self.program, *verb, "--help"], check=True, capture_output=True, text=True).stdout

    def options(self, verb):
        if verb not in self.of_verb:
            told = "\n".join(line for line in self.help(verb).splitlines() if re.match(r"\s+-", line))
            self.of_verb[verb] = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", told))
        return self.of_verb[verb]

    def problems(self, line):
        line = line.replace("\\\n", " ")
        for part in re.split(r"\s(?:\||&&|;)\s|(?<=\S); ", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                words = part.split()
            while words and not re.fullmatch(r"(.*/)?qcompile|%opt", words[0]):
                words.pop(0)
            if len(words) < 2:
                continue
            if words[0] == "%opt":
                words.insert(1, "opt")
            verb = words[1]
            if verb.startswith("-") or verb == "help" or PLACEHOLDER.fullmatch(verb):
                continue
            if verb not in self.verbs:
                yield f"qcompile has no verb '{verb}'"
                continue
            for word in words[2:]:
                if not re.match(r"--?[a-zA-Z]", word):
                    continue
                name = word.split("=")[0]
                if name not in self.options(verb):
                    yield f"qcompile {verb} has no option {name}"

    def known_option(self, name):
        return any(name in self.options(verb) for verb in self.verbs)


def headings(text):
    slugs = set()
    for line in re.sub(r"```.*?```", "", text, flags=re.S).splitlines():
        if found := re.match(r"#+\s+(.*)", line):
            slugs.add(re.sub(r"[^\w\- ]", "", found[1].lower()).replace(" ", "-"))
    return slugs


def expand(name):
    """{onnx,data}/x -> onnx/x, data/x"""
    parts = [part[1:-1].split(",") if part.startswith("{") else [part] for part in re.split(r"(\{[^{}]*\})", name)]
    return ["".join(choice) for choice in itertools.product(*parts)]


class Page:
    def __init__(self, path, tree, program):
        self.path, self.tree, self.program = path, tree, program
        self.text = path.read_text()
        self.found = []
        self.graph = ""  # of the last block in text form

    def say(self, offset, message):
        line = self.text.count("\n", 0, offset) + 1
        self.found.append(f"{os.path.relpath(self.path, self.tree.root)}:{line}: {message}")

    def check(self):
        outside = self.text  # with blocks blanked, so that offsets stay
        for block in re.finditer(r"^[ ]*```([^\n]*)\n(.*?)^[ ]*```", self.text, re.M | re.S):
            self.block(block.start(2), block[1].split(), block[2])
            outside = outside[: block.start()] + re.sub(r"[^\n]", " ", block[0]) + outside[block.end() :]
        for table in PRINTED.finditer(self.text):
            if table[2] != self.table(table[1]):
                self.say(table.start(), f"the table is not what `qcompile {table[1]}` prints: run tools/check_docs.py with --write")
        for link in re.finditer(r"\[[^\]\n]*\]\(([^)\s]+)\)", outside):
            self.link(link.start(), link[1])
        columns, offset = [], 0
        for line in outside.splitlines(keepends=True):
            cells = re.split(r"(?<!\\)\|", line) if line.startswith("|") else None
            if cells is None:
                columns = []
                for span in re.finditer(r"`([^`]+)`", line):
                    self.span(offset + span.start(), span[1])
            else:
                columns = columns or [cell.strip() for cell in cells]
                at = offset
                for n, cell in enumerate(cells):
                    foreign = n < len(columns) and columns[n] in FOREIGN
                    for span in re.finditer(r"`([^`]+)`", cell):
                        if not foreign:
                            self.span(at + span.start(), span[1].replace("\\|", "|"))
                    at += len(cell) + 1
            offset += len(line)
        return self.found

    def table(self, line):
        done = subprocess.run([self.program.program, *shlex.split(line)], check=True, capture_output=True, text=True)
        return "".join(row for row in done.stdout.splitlines(keepends=True) if row.startswith("|"))

    def write_tables(self):
        self.path.write_text(PRINTED.sub(lambda table: f"<!-- qcompile {table[1]} -->\n{self.table(table[1])}", self.text))

    def block(self, offset, info, body):
        if info[:1] == ["text"] and len(info) > 1:
            self.printed(offset, info[1:], body)
        elif len(info) > 1 and info[0] != "qir":
            self.quotation(offset, info[1], body)
        if info[:1] == ["qir"]:
            self.text_form(offset, body, [word for word in info[1:] if "/" not in word])
            for name in info[1:]:
                if "/" in name:
                    self.quotation(offset, name, body)
        for line in body.replace("\\\n", "  ").splitlines():
            for problem in self.program.problems(line) if "qcompile " in line or "%opt" in line else ():
                self.say(offset, problem)

    def quotation(self, offset, name, body):
        if name not in self.tree.files:
            return self.say(offset, f"the block quotes {name}, which is not here")
        lines = [" ".join(line.split()) for line in (self.tree.root / name).read_text().splitlines()]
        at = 0
        for line in body.splitlines():
            line = " ".join(line.split())
            if not line or line == "...":
                continue
            at = next((n + 1 for n in range(at, len(lines)) if line in lines[n]), None)
            if at is None:
                return self.say(offset, f"{name} has no line (any more, or here): {line}")

    def opt(self, text, *options):
        return subprocess.run([self.program.program, "opt", "-", "--verify-each", *options], input=text, capture_output=True, text=True)

    def printed(self, offset, how, body):
        inputs = [word for value in how[1:] for word in ("--input", value)]
        done = self.opt(self.graph, "--run", *inputs) if how[0] == "run" else self.opt(self.graph, f"--pipeline={how[0]}")
        lines = {line.strip() for line in done.stdout.splitlines()}
        for line in map(str.strip, body.splitlines()):
            if line and line != "..." and line not in lines:
                return self.say(offset, f"{how[0]} does not print: {line}\n{done.stderr}{done.stdout}")

    def text_form(self, offset, body, info):
        self.graph = body
        first = self.opt(body, "--payloads", *(["--stage", info[0]] if info else []))
        if first.returncode:
            return self.say(offset, "the block does not parse: " + first.stderr.strip())
        again = self.opt(first.stdout, "--payloads")
        if again.stdout != first.stdout:
            self.say(offset, "the block is printed otherwise the second time: " + again.stderr.strip())

    def link(self, offset, target):
        if re.match(r"\w+:", target):
            return
        name, _, anchor = target.partition("#")
        path = (self.path.parent / name).resolve() if name else self.path
        if not path.exists():
            self.say(offset, f"the link to {target} leads nowhere")
        elif anchor and anchor not in headings(path.read_text()):
            self.say(offset, f"{name or 'this page'} has no heading #{anchor}")

    def span(self, offset, text):
        if re.match(r"(\S*/)?qcompile\s", text):
            for problem in self.program.problems(text):
                self.say(offset, problem)
        elif re.search(r"\s", text) or not re.search(r"[A-Za-z]", text):
            return  # a formula or a phrase
        else:
            for word in expand(text):
                self.word(offset, word)

    def word(self, offset, word):
        tree = self.tree
        suffix = pathlib.PurePath(word).suffix
        if re.match(r"[usf]\d+[.\[]", word):
            return  # a spec or a type in text form
        if word in tree.files or re.fullmatch(r"[a-z]+_|\.[a-z]+", word):
            return  # the pattern of a name, a suffix
        if re.fullmatch(r"[\w./*-]+", word) and ("/" in word.strip("/") or word.endswith("/") or suffix in FILES):
            if "*" in word:
                if not any(pathlib.PurePath(name).match(word) for name in tree.files):
                    self.say(offset, f"no file is called {word}")
            elif not tree.has_path(word, self.path) and not PLACEHOLDER.search(word):
                self.say(offset, f"there is no {word}")
        elif re.fullmatch(r"--[a-z][\w-]*(=\S*)?|-[a-zA-Z]", word):
            name = word.split("=")[0]
            if not self.program.known_option(name) and not tree.has_word(name):
                self.say(offset, f"nothing has an option {name}")
        elif symbol := re.fullmatch(r"((?:qc::)?(?:[A-Za-z_]\w*::)*[A-Za-z_]\w*)(<\w+>)?(\([^()]*\))?", word):
            names = symbol[1].split("::")
            names = names[names[0] in {"qc", "std"} and len(names) > 1 :]
            is_code = "::" in word or symbol[3] or re.match(r"k[A-Z]|[A-Z][a-z]\w*$|[a-z]+[A-Z]\w*$", names[-1])
            if is_code and not tree.has_code(names):
                self.say(offset, f"the code has no {word}")
            elif not is_code and not PLACEHOLDER.fullmatch(word) and not tree.has_word(names[-1]):
                self.say(offset, f"the tree does not know {word}")
        elif re.fullmatch(r"[\w.-]+", word) and not PLACEHOLDER.search(word):
            if suffix not in {".onnx", ".o", ".a", ".so", ".npy", ".qcal", ".json"} and not tree.has_word(word):
                self.say(offset, f"the tree does not know {word}")


def pages(tree, program):
    return [Page(tree.root / name, tree, program) for name in sorted(tree.files) if name.endswith(".md")]


def problems(tree, program):
    return [problem for page in pages(tree, program) for problem in page.check()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qcompile")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--write", action="store_true", help="first bring tables up to date that commands print")
    args = parser.parse_args()
    tree, program = Tree(args.root.resolve()), CommandLine(args.qcompile)
    if args.write:
        for page in pages(tree, program):
            page.write_tables()
    found = problems(tree, program)
    print("\n".join(found) or "the pages name what there is")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
