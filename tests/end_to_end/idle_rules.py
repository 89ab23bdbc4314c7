#!/usr/bin/env python3
"""A rule that matches changes what is written, or what it fails to do is said.

    idle_rules.py QCOMPILE DATA_DIR

Walks every setting of a configuration over an op of each family, then rules against rules, and force.  Standard library only.
"""
import json
import os
import pathlib
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor

from command_line import recipes_off, run

MODEL = """const #w : f32[8,3,3,3] = rand(1, -0.5, 0.5)
const #t : f32[8,8,2,2] = rand(2, -0.5, 0.5)
const #f : f32[32,64] = rand(3, -0.5, 0.5)
const #s : f32[2,32] = rand(4, -0.5, 0.5)
const #e : f32[20,32] = rand(5, -1.0, 1.0)
const #lw : f32[1,64,32] = rand(6, -0.4, 0.4)
const #lr : f32[1,64,16] = rand(7, -0.4, 0.4)
const #one : f32[32] = splat 1.0
const #zero : f32[32] = splat 0.0
graph @g(%x: f32[1,3,8,8], %ids: s64[1,4]) -> ("y", "z", "where") {
  %w = const #w : f32[8,3,3,3]
  %t = const #t : f32[8,8,2,2]
  %f = const #f : f32[32,64]
  %s = const #s : f32[2,32]
  %e = const #e : f32[20,32]
  %lw = const #lw : f32[1,64,32]
  %lr = const #lr : f32[1,64,16]
  %one = const #one : f32[32]
  %zero = const #zero : f32[32]
  %conv = conv %x, %w {pads=[1,1,1,1]} : f32[1,8,8,8]
  %relu = relu %conv : f32[1,8,8,8]
  %up = conv_transpose %relu, %t {strides=[2,2]} : f32[1,8,16,16]
  %down = avg_pool %up {kernel_shape=[2,2], strides=[2,2]} : f32[1,8,8,8]
  %most = max_pool %relu {kernel_shape=[3,3], pads=[1,1,1,1]} : f32[1,8,8,8]
  %sig = sigmoid %down : f32[1,8,8,8]
  %add = add %sig, %most : f32[1,8,8,8]
  %cat = concat %add, %relu {axis=1} : f32[1,16,8,8]
  %rows = reshape %cat {shape=[16,64]} : f32[16,64]
  %fc = linear %rows, %f : f32[16,32]
  %turned = transpose %fc {perm=[1,0]} : f32[32,16]
  %prod = matmul %fc, %turned : f32[16,16]
  %soft = softmax %prod {axis=1} : f32[16,16]
  %norm = layer_norm %fc, %one, %zero {axis=1} : f32[16,32]
  %small = linear %norm, %s : f32[16,2]
  %y = matmul %soft, %small : f32[16,2]
  %twice = add %ids, %ids : s64[1,4]
  %emb = gather %e, %twice {axis=0} : f32[1,4,32]
  %step = transpose %emb {perm=[1,0,2]} : f32[4,1,32]
  %z, %h, %c = lstm %step, %lw, %lr {hidden_size=16} : f32[4,1,1,16], f32[1,1,16], f32[1,1,16]
  %where = argmax %soft {axis=1} : s64[16,1]
  return %y, %z, %where
}
"""
WEIGHTED = {"conv", "fc", "emb", "z"}
NODES = sorted(WEIGHTED) + ["relu", "sig", "cat", "prod", "soft"]
FAST = [*recipes_off(), "--compare-samples", "0"]


def activation(**settings):
    return {"activation": settings}


def weight(**settings):
    return {"weight": settings}


# Every key of a configuration, alone and with those it needs, and every configuration that has a name.
CONFIGS = ["float", "dynamic", "dynamic_per_token", "weight_only", "weight_only_int4", "float16_weights",
           activation(dtype="s8"), activation(dtype="s16"), activation(range=[0, 63]), activation(dtype="s8", scheme="symmetric"), activation(axis=1, observer="per_channel_minmax"),
           activation(observer="minmax"), activation(observer="percentile", args={"percentile": 90.0}), activation(observer="fixed", args={"scale": 0.05, "zero_point": 7}),
           activation(observer="per_token"), activation(observer="placeholder"), activation(observer="reuse_input"), activation(eps=0.5), activation(dynamic=True, observer="minmax"),
           activation(args={"bins": 64}), weight(dtype="u8", scheme="affine"), weight(dtype="s4"), weight(range=[-7, 7]), weight(scheme="affine"), weight(axis=1), weight(observer="minmax", axis=-1),
           weight(observer="per_group", block_size=16), weight(eps=0.25), weight(observer="placeholder"), weight(observer="mse", axis=-1)]
FEW = [weight(range=[-7, 7]), weight(observer="placeholder"), weight(observer="minmax", axis=-1)]  # for what has no weights


class Workshop:
    def __init__(self, work):
        self.work, self.count = work, 0
        (work / "m.qir").write_text(MODEL)

    def quantize(self, rules, tag, *flags, **top):
        """(written text, what is said of rules)"""
        config, out = self.work / f"{tag}.json", self.work / f"{tag}.qir"
        config.write_text(json.dumps({"rules": rules, **top}))
        done = run("quantize", self.work / "m.qir", "-d", "random:8", "--config", config, *FAST, *flags, "-o", out, "--json")
        said = json.loads(done.stdout)["idle_rules"]
        for text in said:
            assert f"warning: {text}" in done.stderr, done.stderr
        text = out.read_bytes()
        out.unlink()
        return text, said


def walk(shop):
    plain, said = shop.quantize([], "plain")
    assert not said, said

    def one(job):
        node, k = job
        rule = {"name": node, "qconfig": CONFIGS[k]}
        text, said = shop.quantize([rule], f"{node}_{k}")
        return rule, text == plain, said

    jobs = [(n, k) for n in NODES for k in range(len(CONFIGS)) if n in WEIGHTED or "weight" not in CONFIGS[k] or CONFIGS[k] in FEW]
    for same in ("weight_only", activation(observer="placeholder")):  # as the defaults have it
        jobs.remove(("emb", CONFIGS.index(same)))
    changed = silent = 0
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for rule, same, said in pool.map(one, jobs):
            assert not same or said, f"nothing changed and nothing was said: {rule}"
            assert len(said) <= 2 and all(s.startswith(f"the rule for '{rule['name']}' ") for s in said), (rule, said)
            assert all("; " in s for s in said), f"no remedy: {said}"
            changed, silent = changed + (not same), silent + (not said)
    assert changed > 100 and silent > 70, "rules that work are met without a word"
    print(f"  {changed} of {len(jobs)} rules change the file, {silent} without a word")


def words(shop):
    """What is said, and the remedy."""
    fixed = activation(observer="fixed", args={"scale": 0.05, "zero_point": 7})
    for rules, pattern in (
            ([{"name": "soft", "qconfig": "float"}], "the rule for 'soft' has no effect: softmax '.*' stays in float without it"),
            ([{"name": "relu", "qconfig": weight(range=[-7, 7])}], "sets weight.range without effect: relu '.*' has no weights; name the layers"),
            ([{"name": "rows", "qconfig": fixed}], "moves values and takes the parameters of concat '.*'; name that in the rule"),
            ([{"name": "fc", "qconfig": activation(axis=1, observer="per_channel_minmax")}], "quantizes nothing: linear '.*' stays in float: its rule asks for several scales in one activation"),
            ([{"name": "fc", "qconfig": weight(dtype="s16")}], "its rule asks for s16 weights, integer kernels take s8, u8, s4 and u4"),
            ([{"name": "fc", "qconfig": weight(observer="per_group", block_size=16)}], 'a "weight_only" rule takes groups'),
            ([{"name": "twice", "qconfig": "default"}], "has no effect: add '.*' computes on plain integers, which stay as they are; leave it out"),
            ([{"name": "twice", "qconfig": "float"}], "has no effect: add '.*' computes on plain integers, which stay as they are; leave it out"),
            ([{"name": "add", "qconfig": "weight_only"}], "quantizes nothing: add '.*' stays in float: it has no weights"),
            ([{"name": "soft", "qconfig": "default", "force": True}], "which no rule forces"),
            ([{"name": "where", "qconfig": "default", "force": True}], "computes positions, not values, which no rule forces"),
            ([{"name": "small", "qconfig": "default"}], '"force": true in the rule makes integers'),
            ([{"name": "fc", "qconfig": {"activation": {"observer": "placeholder", "eps": 0.5}}}], "sets activation.eps without effect: only the weights of linear '.*' are rounded"),
            ([{"name_regex": "f.*", "qconfig": "float"}, {"name_regex": "fc", "qconfig": "dynamic"}], "the rule for names like 'fc' has no effect: the rule for names like 'f[.][*]' decides what it names and stands in front; put it in front"),
            ([{"name": "fc", "qconfig": "float"}, {"object_type": "linear", "qconfig": weight(range=[-7, 7])}, {"name": "small", "qconfig": "float"}],
             "the rule for type 'linear' has no effect: stronger rules, such as the rule for 'fc', decide what it names"),
            ([{"object_type": "conv", "qconfig": {"activation": {"dtype": "s8"}}}], None)):
        _, said = shop.quantize(rules, "words")
        assert any(re.search(pattern, s) for s in said) if pattern else not said, (rules, said)
    # A table of a backend that takes none of them; one that may match nothing; everything by one rule.
    _, said = shop.quantize([{"name": "fc", "qconfig": {"activation": {"dtype": "s8"}}}], "words", backend="qnnpack")
    assert any("backend 'qnnpack' wants for linear" in s for s in said), said
    _, said = shop.quantize([{"name": "soft", "qconfig": "float", "optional": True}], "words")
    assert not said, said
    _, said = shop.quantize([], "words", **{"global": {"activation": {"observer": "placeholder", "eps": 0.5}}})
    assert len(said) == 1 and said[0].startswith("the global rule sets activation.eps without effect"), said
    done = run("calibrate", shop.work / "m.qir", "-d", "random:8", "--config", shop.work / "words.json", "-o", shop.work / "r.qcal")
    assert "the global rule sets activation.eps without effect" in done.stderr, done.stderr
    # What --write-rules writes is every setting spelled out, and means the same.
    run("quantize", shop.work / "m.qir", "-d", "random:8", *FAST, "-o", shop.work / "w.qir", "--write-rules", shop.work / "written.json")
    assert "rule" not in run("quantize", shop.work / "m.qir", "-d", "random:8", *FAST, "-o", shop.work / "w.qir", "--config", shop.work / "written.json").stderr


def main():
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(pathlib.Path(folder))
        for test in (walk, words):
            test(shop)
            print(f"{test.__name__}: passed")


main()
