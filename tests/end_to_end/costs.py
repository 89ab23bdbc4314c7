#!/usr/bin/env python3
"""The fit of the costs of kernels: planted constants come back, and the table in the tree is what the measurements in it give."""
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import fit_costs  # noqa: E402


def sample(ns, work):
    text = ";".join(f"{name}={count:.6g}" for name, count in work.items())
    return fit_costs.Sample({"kernel": "k", "vector_bytes": "64", "ns": str(ns), "problem": "p", "work": text}, {}, "cpu")


def planted(noise, outliers=0):
    """Six constants, one of them zero, over sizes of four orders of magnitude; the clock's noise only adds."""
    dice = random.Random(1)
    truth = {"call": 20, "row": 3, "vector": 0.25, "division": 1.5, "load": 0.1, "unused": 0}
    samples = []
    for i in range(80):
        work = {name: 1 if name == "call" else 10 ** dice.uniform(0, 4) for name in truth}
        ns = sum(truth[name] * count for name, count in work.items()) * (1 + noise * abs(dice.gauss(0, 1)))
        samples.append(sample(ns * (8 if i < outliers else 1), work))
    return truth, fit_costs.fit(samples)


truth, (found, errors) = planted(0)
for name, value in truth.items():
    assert abs(found[name] - value) <= 0.01 * max(value, 0.05), (name, found)
assert max(errors) < 0.01, max(errors)
truth, (found, errors) = planted(0.03, outliers=6)  # runs that another process disturbed
for name in ("row", "vector", "division"):
    assert abs(found[name] / truth[name] - 1) < 0.15, (name, found)
assert fit_costs.quantile(errors, 0.5) < 0.06, errors
assert all(value >= 0 for value in found.values())

# Of two CPUs, the second of which takes three times as long and was measured more often, the constants are means: the same way for every kernel.
pair = []
for cpu, factor, count in (("a", 1, 20), ("b", 3, 60)):
    for i in range(1, count + 1):
        s = sample(factor * (10 + 2 * i), {"call": 1, "row": i})
        s.origin = cpu
        pair.append(s)
found, errors = fit_costs.fit_of_cpus(pair)
assert abs(found["call"] - 20) < 0.1 and abs(found["row"] - 4) < 0.02 and len(errors) == len(pair), found

assert fit_costs.same('{"k", 64, 0.123, {{"a", 1.000}}}', '{"k", 64, 0.123, {{"a", 1.001}}}')
assert not fit_costs.same('{"k", 64, 0.123, {{"a", 1.0}}}', '{"k", 64, 0.123, {{"a", 1.1}}}')
assert not fit_costs.same('{"k", 64, 0.123, {{"a", 1.0}}}', '{"k", 64, 0.123, {{"b", 1.0}}}')

# Layers that are predicted alike say nothing by their order; what scipy.stats.spearmanr gives.
assert fit_costs.ranks([3, 1, 3, 2]) == [2.5, 0, 2.5, 1]
predicted, took = [1, 1, 1, 5, 9], [1.2, 1.1, 1.0, 6, 8]
assert abs(fit_costs.rank_correlation(predicted, took) - 0.8944271909999159) < 1e-12
assert fit_costs.rank_correlation(predicted, took) == fit_costs.rank_correlation(predicted, [1.0, 1.1, 1.2, 6, 8])
assert fit_costs.rank_correlation([1, 1, 1], [1, 2, 3]) is None and fit_costs.rank_correlation([1, 2], [1, 2]) is None

# The nearest class stands in: a matrix unit counts more than a width.
assert fit_costs.distance("{64, true}", "{32, true}") < fit_costs.distance("{64, true}", "{64, false}")

check = subprocess.run([sys.executable, str(ROOT / "tools" / "fit_costs.py"), "--check"], capture_output=True, text=True)
assert check.returncode == 0, check.stderr
print("ok")
