#!/usr/bin/env python3
"""Fits the constants of the cost functions to measurements, or holds the two against each other.

  fit_costs.py                        fits codegen/costs/*.csv and writes codegen/plan/kernel_costs.def
  fit_costs.py --check                says whether that file is what it would write (no timing; run by ctest)
  fit_costs.py --compare FILE.csv...  predicted beside measured for rows of `bench_kernels --csv`: median error, order

A row of a CSV is one kernel on one problem: its time, and what its code does, counted by the kernel's own function (codegen/plan/cost.h).
For each kernel and width of vectors the constants are those that make the least relative error: weighted least squares by normal
equations, none below zero, with weights that make large deviations count no more than in proportion.  Documented constants stand where
nothing is measured.  Of several CPUs of a class the constants are means.  How to add a CPU: docs/costs.md.
"""
import csv
import glob
import math
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, "codegen", "costs")
TABLE = os.path.join(ROOT, "codegen", "plan", "kernel_costs.def")
DOCUMENTED = "documented.csv"


def counts(text):
    return {name: float(count) for name, count in (item.split("=") for item in text.split(";"))}


def cpu_class(row, facts):
    """What the table tells CPUs apart by, in its text: bytes of the target's vectors, whether there is a matrix unit."""
    return f"{{{row['vector_bytes']}, {'true' if 'amx' in facts.get('target', '') else 'false'}}}"


class Sample:
    def __init__(self, row, facts, origin):
        self.kernel, self.cpu = row["kernel"], cpu_class(row, facts)
        self.ns, self.problem, self.work, self.origin = float(row["ns"]), row["problem"], counts(row["work"]), origin


def read_csv(path):
    """Rows, and what the lines of comment say: {"cpu": ..., "date": ...}."""
    facts, lines = {}, []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("#"):
                name, _, value = line[1:].partition(":")
                facts[name.strip()] = value.strip()
            elif line.strip():
                lines.append(line)
    return list(csv.DictReader(lines)), facts


def measured():
    samples = {}
    for path in sorted(glob.glob(os.path.join(FOLDER, "*.csv"))):
        if os.path.basename(path) != DOCUMENTED:
            rows, facts = read_csv(path)
            for row in rows:
                s = Sample(row, facts, f"{facts['cpu']}, {facts['date']}")
                # What was measured more than once, for several targets, counts once: the fastest.
                key = s.kernel, s.cpu, s.problem, facts["cpu"], row["work"]
                if key not in samples or s.ns < samples[key].ns:
                    samples[key] = s
    return list(samples.values())


def solved(matrix, right, among):
    """Gaussian elimination with pivots of the rows and columns `among`; None where they do not determine x."""
    rows = [[matrix[i][j] for j in among] + [right[i]] for i in among]
    for k in range(len(rows)):
        pivot = max(range(k, len(rows)), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        if abs(rows[k][k]) < 1e-12:
            return None
        for i in range(len(rows)):
            if i != k and rows[i][k]:
                factor = rows[i][k] / rows[k][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k])]
    return {among[k]: row[-1] / row[k] for k, row in enumerate(rows)}


def nonnegative(rows, weights):
    """x >= 0 of the least weighted sum of (a . x - 1)^2: normal equations, solved by the active sets of Lawson and Hanson (Solving Least
    Squares Problems, chapter 23)."""
    n = len(rows[0])
    scale = [math.sqrt(sum(w * a[i] * a[i] for a, w in zip(rows, weights))) or 1.0 for i in range(n)]  # a diagonal of ones
    matrix = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            matrix[i][j] = matrix[j][i] = sum(w * a[i] * a[j] for a, w in zip(rows, weights)) / scale[i] / scale[j]
    right = [sum(w * a[i] for a, w in zip(rows, weights)) / scale[i] for i in range(n)]
    x, free, refused = [0.0] * n, [], set()
    while True:
        slopes = {i: right[i] - sum(matrix[i][j] * x[j] for j in free) for i in range(n) if i not in free and i not in refused}
        best = max(slopes, key=slopes.get, default=None)
        if best is None or slopes[best] < 1e-10:
            return [v / s for v, s in zip(x, scale)]
        free.append(best)
        while True:
            found = solved(matrix, right, free)
            if found is None or found[best] <= 0:  # says nothing that the others do not say
                free.remove(best)
                refused.add(best)
                break
            below = [i for i in free if found[i] <= 0]
            if not below:
                for i in free:
                    x[i] = found[i]
                refused.clear()
                break
            step = min(x[i] / (x[i] - found[i]) for i in below)  # up to where the first becomes zero
            for i in free:
                x[i] += step * (found[i] - x[i])
            zero = min(below, key=lambda i: x[i])
            x[zero] = 0.0
            free.remove(zero)


def fit(samples):
    """{name: nanoseconds} , and the relative errors."""
    names = list(dict.fromkeys(name for s in samples for name in s.work))
    rows = [[s.work.get(name, 0.0) / s.ns for name in names] for s in samples]
    weights = [1.0] * len(rows)
    for _ in range(12):
        x = nonnegative(rows, weights)
        errors = [abs(sum(a * v for a, v in zip(row, x)) - 1) for row in rows]
        weights = [1 / max(e, 0.05) for e in errors]
    x = [float(f"{v:.4g}") for v in x]
    return dict(zip(names, x)), [abs(sum(a * v for a, v in zip(row, x)) - 1) for row in rows]


def fit_of_cpus(samples):
    """The same of several CPUs: each is fitted alone, and the constants are means.  Together, the fit would take the side of one CPU for this
    kernel and of another for the next, and layers would change places."""
    cpus = {}
    for s in samples:
        cpus.setdefault(s.origin, []).append(s)
    fits = [fit(own)[0] for own in cpus.values()]
    names = list(dict.fromkeys(name for x in fits for name in x))
    x = {name: float(f"{sum(f.get(name, 0.0) for f in fits) / len(fits):.4g}") for name in names}
    return x, [abs(sum(count * x[name] for name, count in s.work.items()) / s.ns - 1) for s in samples]


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def line(kernel, cpu, count, median, p90, origin, constants):
    items = ", ".join(f'{{"{name}", {value:.4g}}}' for name, value in constants.items())
    return f'{{"{kernel}", {cpu}, {count}, {median:.3f}, {p90:.3f}, "{origin}",\n {{{items}}}}},\n'


def table():
    groups = {}
    for s in measured():
        groups.setdefault((s.kernel, s.cpu), []).append(s)
    text = [
        "// Written by tools/fit_costs.py from codegen/costs/*.csv; ctest holds the two together.  docs/costs.md says how to add a CPU.\n",
        "// Kernel, class of CPU (bytes of vectors, whether it has a matrix unit), samples (0: not measured, taken from documents), median and\n",
        "// 90th percentile of the relative error of the fit, CPU of origin; nanoseconds of one of each.\n",
    ]
    for (kernel, cpu), samples in sorted(groups.items()):
        constants, errors = fit_of_cpus(samples)
        origin = "; ".join(sorted({s.origin for s in samples}))
        text.append(line(kernel, cpu, len(samples), quantile(errors, 0.5), quantile(errors, 0.9), origin, constants))
    rows, _ = read_csv(os.path.join(FOLDER, DOCUMENTED))
    for row in rows:
        if row["kernel"] in {kernel for kernel, _ in groups}:
            continue
        ghz = float(row["clock"])
        constants = {name: value / ghz for name, value in counts(row["work"]).items()}
        text.append(line(row["kernel"], cpu_class(row, {}), 0, 0, 0, f"not measured: {row['origin']}, at {ghz} GHz", constants))
    return "".join(text)


def same(a, b):
    """Equal texts but for the last digits of numbers, which depend on how the machine at hand adds."""
    def words(text):
        return text.replace("{", " ").replace("}", " ").replace(",", " ").split()

    def close(p, q):
        try:
            return abs(float(p) - float(q)) <= 2e-3 * max(abs(float(p)), abs(float(q))) + 1.1e-3 * (len(p.partition(".")[2]) == 3)
        except ValueError:
            return p == q

    return len(words(a)) == len(words(b)) and all(close(p, q) for p, q in zip(words(a), words(b)))


def constants_of_table():
    """{(kernel, class of CPU): {name: ns}} of the file in the tree."""
    result = {}
    with open(TABLE, encoding="utf-8") as file:
        lines = [text for text in file if not text.startswith("//")]
    for head, items in zip(lines[0::2], lines[1::2]):
        kernel, cpu = head.strip("{\n ").split(",")[0], head[head.index("{", 1):head.index("}") + 1]
        pairs = items.strip("{}, \n").split("}, {")
        result[kernel.strip('"'), cpu] = {p.split(", ")[0].strip('"{} '): float(p.split(", ")[1].strip("{} ")) for p in pairs}
    return result


def ranks(values):
    """Equal values have the mean of their places: layers of one size are predicted alike, and their order in a list says nothing."""
    places = {}
    for place, v in enumerate(sorted(values)):
        places.setdefault(v, []).append(place)
    return [sum(places[v]) / len(places[v]) for v in values]


def rank_correlation(a, b):
    """Spearman's; None of fewer than three, or where all are equal."""
    x, y = ranks(a), ranks(b)
    mean = (len(x) - 1) / 2
    spread = math.sqrt(sum((p - mean) ** 2 for p in x) * sum((q - mean) ** 2 for q in y))
    return sum((p - mean) * (q - mean) for p, q in zip(x, y)) / spread if len(x) > 2 and spread > 0 else None


def distance(a, b):
    """As findKernelCost() chooses: first the matrix unit, then the width."""
    (width, unit), (other_width, other_unit) = (c.strip("{}").split(", ") for c in (a, b))
    return unit != other_unit, abs(int(width) - int(other_width))


def compare(paths):
    known, everything = constants_of_table(), {}
    print(f"{'measured us':>12} {'predicted':>10} {'error':>7}  kernel, layer")
    for path in paths:
        rows, facts = read_csv(path)
        pairs = []
        for s in (Sample(row, facts, "") for row in rows):
            classes = [c for k, c in known if k == s.kernel]
            if not classes:
                sys.exit(f"{s.kernel} is not in {TABLE}")
            cost = known[s.kernel, min(classes, key=lambda c: distance(c, s.cpu))]
            predicted = sum(count * cost.get(name, 0) for name, count in s.work.items())
            pairs.append((s.ns, predicted))
            everything.setdefault(s.kernel, []).append(predicted / s.ns - 1)
            print(f"{s.ns / 1e3:12.2f} {predicted / 1e3:10.2f} {100 * (predicted / s.ns - 1):+6.0f}%  {s.kernel}, {s.problem}")
        errors = [abs(p / m - 1) for m, p in pairs]
        total = sum(m for m, _ in pairs)
        order = rank_correlation([m for m, _ in pairs], [p for _, p in pairs])
        print(f"{os.path.basename(path)} ({facts.get('target')}): {len(pairs)} layers, median error {100 * quantile(errors, 0.5):.0f}%, rank "
              f"correlation {'-' if order is None else f'{order:.3f}'}, sum {total / 1e3:.1f} us measured, {sum(p for _, p in pairs) / 1e3:.1f} predicted")
    for kernel, errors in sorted(everything.items()):
        print(f"  {kernel:28} {len(errors):4} layers  median error {100 * quantile([abs(e) for e in errors], 0.5):4.0f}%  "
              f"bias {100 * quantile(errors, 0.5):+4.0f}%")


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--compare"] and len(arguments) > 1:
        compare(arguments[1:])
    elif arguments == ["--check"]:
        with open(TABLE, encoding="utf-8") as file:
            if not same(file.read(), table()):
                sys.exit(f"{TABLE} is not what {FOLDER} gives: run tools/fit_costs.py")
    elif not arguments:
        text = table()
        with open(TABLE, "w", encoding="utf-8") as file:
            file.write(text)
        for head in text.splitlines():
            if head.startswith('{"'):
                kernel, width, unit, count, median, p90 = head.replace("{", "").replace("}", "").split(", ")[:6]
                print(f"{kernel:28} {width:>3} bytes {'and unit' if unit == 'true' else '':8} {count:>5} samples  median error {100 * float(median):5.1f}%  90th {100 * float(p90):5.1f}%")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
