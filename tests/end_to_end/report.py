#!/usr/bin/env python3
"""Pages of --report: well-formed, without anything from outside, safe whatever the names in a model are, and right in a browser.

    report.py QCOMPILE DATA_DIR [--keep DIR]

Models whose names are markup, quotes and bytes that are no text go through every verb that writes a page.  Where there is a Chromium, pages
are opened in it: no complaint, no request, nothing wider than a phone, a screenshot that is not blank, tables that sort.  Standard library only.
"""
import html.parser
import json
import math
import pathlib
import re
import resource
import struct
import sys
import tempfile
import zipfile

import browser
import onnx_bytes as onnx
from command_line import DATA, npy_header, run

HOSTILE = ["</script><script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'); alert(1); ('", "]]></svg>--><!--", "a&lt;b&amp;c @SECTIONS@",
           "\\\"];}\n//", "\u202egnp.exe", "javascript:alert(1)", "n" * 100_000]
VOID = {"meta", "br", "hr", "img", "input", "link", "path", "rect"}
TAGS = set("html head meta title style body header h1 h2 nav a main section footer script p code pre dl dt dd ol ul li div span i table thead tbody tr th td "
           "h3 button svg g path rect text title details summary".split())
ATTRIBUTES = set("lang charset name content http-equiv class id href style scope type data-v d x y width height viewbox role rx preserveaspectratio".split())
MOST_BYTES = 3_000_000
SLACK = 0.02  # seconds: what two runs of one command differ by


class Page(html.parser.HTMLParser):
    """Tags in their order, each closed where it has to be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.scripts, self.text = [], set(), [], 0, []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, f"a tag of the page is {tag}"
        self.scripts += tag == "script"
        for name, value in attrs:
            assert name in ATTRIBUTES, f"<{tag}> has {name}={value}"
            if name == "id":
                self.ids.add(value)
            if name == "href":
                self.links.append(value)
            if name == "style":
                assert re.fullmatch(r"flex-grow:[\d.]+", value), value
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open}"
            self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def checked(path, *wanted):
    data = path.read_bytes()
    text = data.decode()  # UTF-8 throughout
    assert len(data) < MOST_BYTES, f"{path}: {len(data)} bytes"
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text), f"{path} speaks of something outside"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", text), f"{path} holds bytes that are no text"
    page = Page(text)
    assert page.scripts == 1
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links), page.links
    for section in wanted:
        assert section in page.ids, f"{path} has no section {section}: {page.ids}"
    return "".join(page.text)


def hostile_model(path, names):
    """Convolutions in a row and a branch, every name one of them."""
    nodes, weights, x = [], [], "x"
    for i, name in enumerate(names):
        weights.append(onnx.tensor(f"w{i}", (4, 4, 3, 3), [((i + 3 * k) % 7 - 3) / 20 for k in range(144)]))
        nodes.append(onnx.node("Conv", [x, f"w{i}"], [f"{name} {i}"], onnx.ints("pads", [1, 1, 1, 1]), name=f"{name} {i}"))
        nodes.append(onnx.node("Relu", [f"{name} {i}"], [f"r{name} {i}"], name=f"relu {name} {i}"))
        x = f"r{name} {i}"
    nodes.append(onnx.node("Softmax", [x], ["<b>y</b>"], name="<u>"))
    path.write_bytes(onnx.model(nodes, [onnx.port("x", 1, 4, 8, 8)], [onnx.port("<b>y</b>", 1, 4, 8, 8)], weights))


def pages_of(work, model, data, name):
    """Of every verb: the page, and what it has to hold."""
    q, int8 = f"{work}/{name}", f"{work}/{name}.int8.onnx"
    run("quantize", model, "-d", data, "-o", int8, "--report", f"{q}.quantize.html")
    run("calibrate", model, "-d", data, "-o", f"{q}.qcal", "--report", f"{q}.calibrate.html")
    run("inspect", f"{q}.qcal", "--report", f"{q}.qcal.html")
    run("profile", int8, "--runs", 5, "--report", f"{q}.profile.html")
    run("debug", model, int8, "-d", data, "--report", f"{q}.debug.html")
    run("profile", int8, "--compare", "float", "--runs", 3, "--report", f"{q}.beside.html")
    run("profile", int8, "--predict", "--target", "avx2", "--report", f"{q}.predicted.html")
    run("compare", model, int8, "-d", data, "--report", f"{q}.compare.html")
    run("explain", model, int8, "-d", data, "--report", f"{q}.explain.html")
    run("quantize", model, "-d", data, "--never-slower", "--target", "avx512vnni", "-o", f"{q}.ledger.onnx", "--report", f"{q}.ledger.html")
    run("sensitivity", model, "-d", data, "--top", 2, "--report", f"{q}.sensitivity.html")
    return {f"{q}.quantize.html": "done next inputs coverage noise graph ranges weights rules", f"{q}.calibrate.html": "done inputs coverage ranges",
            f"{q}.qcal.html": "done ranges", f"{q}.profile.html": "done time graph", f"{q}.debug.html": "done layers graph weights",
            f"{q}.sensitivity.html": "done sensitivity", f"{q}.beside.html": "done beside", f"{q}.predicted.html": "done beside",
            f"{q}.compare.html": "done answers", f"{q}.explain.html": "done inputs causes", f"{q}.ledger.html": "done ledger coverage noise"}


def processor_time(*args):
    """Seconds of one run, which what else the machine does hardly changes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(*args)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cost_of_pages(work, model, int8, data):
    """A page is made in less than a tenth of the time of what it reports."""
    for verb, *args in (("quantize", model, "-d", data, "-o", work / "timed.onnx"), ("explain", model, int8, "-d", data), ("debug", model, int8, "-d", data),
                        ("compare", model, int8, "-d", "random:4000")):
        plain, page = math.inf, math.inf
        for _ in range(3):
            plain = min(plain, processor_time(verb, *args))
            page = min(page, processor_time(verb, *args, "--report", work / "timed.html"))
        print(f"{verb}: {plain:.2f} s of processor time, with a report {page:.2f} s")
        assert page < 1.1 * plain + SLACK, f"the page of {verb} takes {page - plain:.2f} s, the run {plain:.2f} s"


def many_layers(work):
    """What is too much for a page is cut, and that is said."""
    chain = [onnx.node("Conv", [f"x{i}" if i else "x", "w"], [f"x{i + 1}"], name=f"/block.{i}/conv/Conv_with_a_name_of_some_length") for i in range(2500)]
    (work / "many.onnx").write_bytes(onnx.model(chain, [onnx.port("x", 1, 8, 2, 2)], [onnx.port("x2500", 1, 8, 2, 2)],
                                                [onnx.tensor("w", (8, 8, 1, 1), [float(k % 9 == 0) for k in range(64)])]))
    with zipfile.ZipFile(work / "many.npz", "w") as archive:
        archive.writestr("x.npy", npy_header((2, 8, 2, 2)) + struct.pack("<64f", *(k % 7 - 3 for k in range(64))))
    run("quantize", work / "many.onnx", "-d", f"npz:{work}/many.npz", "-o", work / "many.int8.onnx", "--report", work / "many.html")
    text = checked(work / "many.html", "graph", "noise", "ranges", "weights")
    page = (work / "many.html").read_text()
    assert re.search(r"<title>\d+ nodes, to [.\w]+: [^<]*\n[.\w]+ /block.0/[^<]*\n[.\w]+ /block.1/", page), "what a box says has lines"
    assert "\\x0a" not in page
    assert "chains of one kind are one box" in text and "each is the lowest of its neighbours" in text and "The first 1000 of" in text


def ranges_as_text(work, qcal):
    told = json.loads(run("inspect", qcal, "--json").stdout)
    text = run("inspect", qcal).stdout
    assert told["samples"] > 0 and len(told["values"]) > 3
    for value in told["values"]:
        low, high = value["ranges"][0]
        assert low <= high and value["observer"] in text
        if "histogram" in value:
            h = value["histogram"]
            assert 0 <= h["clipped"] <= 1 and h["quarter"] <= h["median"] <= h["three_quarters"]
    assert any("histogram" in v for v in told["values"])
    whole = pathlib.Path(qcal).read_bytes()
    for name, damaged in (("short", whole[:len(whole) // 2]), ("changed", whole[:200] + b"9" + whole[201:]), ("empty", b"")):
        bad = work / f"{name}.qcal"
        bad.write_bytes(damaged)
        done = run("inspect", bad, "--report", work / "bad.html", code=1)
        assert done.stderr.startswith("qcompile: ") and not (work / "bad.html").exists(), done.stderr
    assert "--text has no effect" in run("inspect", qcal, "--text", code=1).stderr


def as_dot(model, int8):
    for path in (model, int8):
        text = run("inspect", path, "--dot").stdout
        assert text.startswith("digraph {\n") and text.endswith("}\n")
        rest = re.sub(r'"(?:[^"\\\n]|\\.)*"', "S", text)  # what is in quotes is one thing, whatever it holds
        for line in rest.splitlines()[2:-1]:
            assert re.fullmatch(r"  n\d+ (\[label=S, tooltip=S, fillcolor=S, class=S\]|-> n\d+);", line), line
    words = set(re.findall(r'class="(\w+)"', text))
    assert {"int8", "float", "border", "end"} <= words, words
    assert set(re.findall(r'class="(\w+)"', run("inspect", model, "--dot").stdout)) == {"float", "end"}


SORTS = """(function () {
  var tables = document.querySelectorAll("table.sortable"), checked = 0;
  if (!tables.length) return "no table";
  function key(cell) { var v = cell.getAttribute("data-v"); return v === null ? cell.textContent : v === "none" ? NaN : v === "inf" ? Infinity : +v; }
  for (var t = 0; t < tables.length; ++t)
    for (var c = 0; c < tables[t].tHead.rows[0].cells.length; ++c)
      for (var round = 0; round < 2; ++round) {
        var head = tables[t].tHead.rows[0].cells[c], rows = tables[t].tBodies[0].rows;
        var before = Array.prototype.map.call(rows, function (r) { return r.textContent; }).sort().join("|");
        head.querySelector("button").click();
        if (head.getAttribute("aria-sort") !== (round ? "descending" : "ascending")) return "no mark";
        if (Array.prototype.map.call(rows, function (r) { return r.textContent; }).sort().join("|") !== before) return "rows were lost";
        for (var i = 1; i < rows.length; ++i) {
          var a = key(rows[i - 1].cells[c]), b = key(rows[i].cells[c]);
          var way = typeof a === "string" || typeof b === "string" ? String(a).localeCompare(String(b)) : a - b;
          if (round ? way < 0 : way > 0) return "table " + t + ", column " + c + ": " + a + " in front of " + b;
          ++checked;
        }
      }
  return checked;
})()"""


def in_browser(program, pages, keep):
    with browser.Browser(program) as tab:
        for path in pages:
            for kind, width, height in (("desktop", 1280, 900), ("phone", 390, 844)):
                tab.open(path, width, height, kind == "phone")
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, f"{path} is wider than a {kind}"
                shot = tab.screenshot()
                seen = browser.colours(shot)
                assert len(seen) > 20 and max(seen.values()) < 0.99 * sum(seen.values()), f"{path}: a blank {kind}"
                if keep:
                    (keep / f"{pathlib.Path(path).stem}.{kind}.png").write_bytes(shot)
            found = tab.evaluate(SORTS)
            assert isinstance(found, int), f"{path}: {found}"  # none: a row in each
            assert tab.pdf()[:5] == b"%PDF-"
            assert not tab.complaints, f"{path}: {tab.complaints}"
            assert all(url.startswith("file:") for url in tab.requests) and len(tab.requests) == 1, tab.requests
    print(f"{len(pages)} pages in {program}: nothing to complain of, tables sort")


def main():
    keep = pathlib.Path(sys.argv[sys.argv.index("--keep") + 1]) if "--keep" in sys.argv else None
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        pages = pages_of(work, DATA / "digits.onnx", f"images:{DATA}/calib?order=grey&std=255", "digits")
        hostile_model(work / "hostile.onnx", HOSTILE)
        with zipfile.ZipFile(work / "x.npz", "w") as archive:
            archive.writestr("x.npy", npy_header((6, 4, 8, 8)) + struct.pack("<1536f", *(((k * 37) % 101) / 50 - 1 for k in range(1536))))
        pages |= pages_of(work, work / "hostile.onnx", f"npz:{work}/x.npz", "hostile")
        for path, sections in pages.items():
            text = checked(pathlib.Path(path), *sections.split())
            if "hostile.quantize" in path:
                for name in HOSTILE[:-1]:
                    shown = name.replace("\n", "\\x0a").replace("\u202e", "\\xe2\\x80\\xae")
                    assert shown in text, f"{path} does not tell of {name!r}"
        cost_of_pages(work, DATA / "digits.onnx", work / "digits.int8.onnx", f"images:{DATA}/calib?order=grey&std=255")
        many_layers(work)
        # Every step of a run is of a kind, that of its node; int8 layers take most of the time.
        kinds = re.findall(r'<g class="(\w+)"><title>[^<]*: [\d.]+ us', (work / "digits.profile.html").read_text())
        assert kinds.count("int8") > 4 and "border" in kinds and "end" not in kinds, kinds
        ranges_as_text(work, f"{work}/digits.qcal")
        ranges_as_text(work, f"{work}/hostile.qcal")
        as_dot(work / "hostile.onnx", work / "hostile.int8.onnx")
        refused = run("quantize", DATA / "digits.onnx", "-d", f"images:{DATA}/calib?order=grey&std=255", "-o", work / "q.onnx", "--report",
                      work / "q.onnx", code=1)
        assert "q.onnx" in refused.stderr
        print(f"{len(pages)} pages are well-formed, hold nothing from outside, and no name gets out of its place")
        program = browser.find()
        if not program:
            print("in a browser: left out, there is no Chromium")
            return
        in_browser(program, pages, keep)


main()
