#!/usr/bin/env python3
"""Ops of ai.onnx.ml, which converters of scikit-learn, LightGBM and XGBoost write, beside ONNX Runtime: with the dims as they are and with
free ones, by the interpreter and by machine code.

    ml_vs_ort.py QCOMPILE [NAME ...]

Needs onnx, onnxruntime and numpy; exit code 77, which ctest reports as skipped, without.
"""
import sys

try:
    import numpy as np

    from domain_forms import Free, hold
except ImportError as missing:
    print(f"left out: {missing}")
    sys.exit(77)

rng = np.random.default_rng(5)
ROWS, FEATURES = 9, 6


def reals(count, spread=1.0):
    return [float(v) for v in (rng.standard_normal(count) * spread).astype(np.float32)]


def fed(array, *names):
    return Free(array, *(names or ("rows", None)))


X = fed(rng.standard_normal((ROWS, FEATURES)).astype(np.float32))
GAPS = fed(np.where(rng.random((ROWS, FEATURES)) < 0.2, np.nan, X.array).astype(np.float32))
DOUBLES = fed(rng.standard_normal((ROWS, FEATURES)))
INTEGERS = fed(rng.integers(-3, 4, (ROWS, FEATURES)))
CATEGORIES = fed(rng.integers(0, 5, ROWS), "rows")
ZEROS = fed(np.where(np.arange(ROWS)[:, None] % 3 == 0, 0, X.array).astype(np.float32))


def trees(count, depth, modes=("BRANCH_LEQ",), missing=False):
    """Attributes of nodes of trees that are full to a depth, and the leaves: (tree, node)."""
    nodes = {name: [] for name in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true")}
    leaves = []
    for tree in range(count):
        inner = 2**depth - 1
        for node in range(2 * inner + 1):
            leaf = node >= inner
            values = dict(treeids=tree, nodeids=node, featureids=0 if leaf else int(rng.integers(FEATURES)), modes="LEAF" if leaf else modes[node % len(modes)],
                          values=0.0 if leaf else float(np.float32(rng.choice(X.array.ravel()) if node % 2 else rng.normal())),
                          truenodeids=0 if leaf else 2 * node + 1, falsenodeids=0 if leaf else 2 * node + 2,
                          missing_value_tracks_true=int(missing and node % 2 == 0))
            for name, value in values.items():
                nodes[name].append(value)
            if leaf:
                leaves.append((tree, node))
    return {f"nodes_{name}": values for name, values in nodes.items()}, leaves


def weights(prefix, leaves, columns, spread=1.0):
    """One weight of each leaf: trees are of the columns in turn."""
    return {f"{prefix}_treeids": [t for t, _ in leaves], f"{prefix}_nodeids": [n for _, n in leaves],
            f"{prefix}_ids": [columns[t % len(columns)] for t, _ in leaves],
            f"{prefix}_weights": [abs(v) if spread < 0 else v for v in reals(len(leaves), spread)]}


def regression(targets=1, count=4, depth=3, modes=("BRANCH_LEQ",), missing=False, **more):
    nodes, leaves = trees(count, depth, modes, missing)
    return {"n_targets": targets, **nodes, **weights("target", leaves, range(targets)), **more}


def classification(labels, columns, spread=1.0, count=5, depth=3, **more):
    nodes, leaves = trees(count, depth)
    return {"classlabels_int64s": labels, **nodes, **weights("class", leaves, columns, spread), **more}


LINEAR = {"coefficients": reals(3 * FEATURES), "intercepts": reals(3)}
SUPPORT = {"n_supports": 4, "support_vectors": reals(4 * FEATURES), "coefficients": reals(4), "rho": [0.3]}

FORMS = [
    *(("Scaler", [x], {"offset": reals(FEATURES), "scale": reals(FEATURES)}, [0]) for x in (X, DOUBLES, INTEGERS)),
    ("Scaler", [X], {"offset": [0.5], "scale": [2.0]}, [0]),
    *(("Normalizer", [x], {"norm": norm}, [0]) for norm in ("MAX", "L1", "L2") for x in (X, ZEROS, INTEGERS)),
    ("Binarizer", [X], {"threshold": 0.25}, [0]),
    ("Imputer", [GAPS], {"imputed_value_floats": reals(FEATURES), "replaced_value_float": float("nan")}, [0]),
    ("Imputer", [X], {"imputed_value_floats": [2.0], "replaced_value_float": float(X.array[1, 2])}, [0]),
    ("Imputer", [INTEGERS], {"imputed_value_int64s": [7], "replaced_value_int64": 2}, [0]),
    ("ArrayFeatureExtractor", [X, np.array([4, 0, 4])], {}, [0]),
    ("ArrayFeatureExtractor", [X, np.array([[1], [3]])], {}, [0]),
    ("ArrayFeatureExtractor", [np.array([5, 6, 8]), fed(rng.integers(0, 3, (ROWS, 1)))], {}, [0]),
    ("FeatureVectorizer", [X, fed(rng.standard_normal((ROWS, 2)).astype(np.float32))], {"inputdimensions": [FEATURES, 2]}, [0]),
    ("OneHotEncoder", [CATEGORIES], {"cats_int64s": [3, 0, 1], "zeros": 1}, [0]),
    ("OneHotEncoder", [INTEGERS], {"cats_int64s": [-1, 0, 2], "zeros": 1}, [0]),
    ("OneHotEncoder", [fed(INTEGERS.array.astype(np.float32))], {"cats_int64s": [-1, 0, 2], "zeros": 1}, [0]),
    ("LabelEncoder", [CATEGORIES], {"keys_int64s": [0, 2, 2, 4], "values_floats": [0.5, -1.0, 3.0, 8.0], "default_float": 9.0}, [0]),
    ("LabelEncoder", [INTEGERS], {"keys_int64s": [0, 2, -3], "values_int64s": [10, 20, 30]}, [0]),
    ("LabelEncoder", [fed(np.array([[1, np.nan], [2.5, 7]], np.float32))], {"keys_floats": [1.0, 2.5, float("nan")], "values_int64s": [4, 5, 6]}, [0]),
    ("LinearRegressor", [X], {"coefficients": reals(FEATURES), "intercepts": [0.5]}, [0]),
    ("LinearRegressor", [X], {"coefficients": reals(FEATURES)}, [0]),
    ("LinearRegressor", [X], {"coefficients": reals(FEATURES), "intercepts": [0.5], "post_transform": "LOGISTIC"}, [0]),
    *(("LinearRegressor", [X], {**LINEAR, "targets": 3, "post_transform": how}, [0]) for how in ("NONE", "LOGISTIC", "SOFTMAX")),
    *(("LinearClassifier", [X], {**LINEAR, "classlabels_ints": [4, 7, -2], "post_transform": how}, [0, 1]) for how in ("NONE", "LOGISTIC", "SOFTMAX")),
    *(("LinearClassifier", [X], {"coefficients": reals(FEATURES), "intercepts": [0.1], "classlabels_ints": [4, 7], "post_transform": how}, [0, 1])
      for how in ("NONE", "LOGISTIC", "SOFTMAX")),
    ("LinearClassifier", [X], {"coefficients": reals(2 * FEATURES), "intercepts": reals(2), "classlabels_ints": [4, 7]}, [0, 1]),
    ("LinearClassifier", [INTEGERS], {**LINEAR, "classlabels_ints": [4, 7, -2]}, [0, 1]),
    *(("SVMRegressor", [X], {**SUPPORT, "kernel_type": kind, "kernel_params": [0.3, 0.5, 3.0]}, [0]) for kind in ("LINEAR", "RBF", "POLY", "SIGMOID")),
    ("SVMRegressor", [X], {**SUPPORT, "kernel_type": "RBF", "kernel_params": [0.1, 0.0, 0.0], "one_class": 1}, [0]),
    ("SVMRegressor", [X], {"n_supports": 0, "coefficients": reals(FEATURES), "rho": [0.2], "kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0]}, [0]),
    *(("TreeEnsembleRegressor", [x], regression(), [0]) for x in (X, GAPS)),
    ("TreeEnsembleRegressor", [DOUBLES], regression(), [0]),
    ("TreeEnsembleRegressor", [X], regression(base_values=[1.5]), [0]),
    ("TreeEnsembleRegressor", [X], regression(3, post_transform="SOFTMAX", base_values=[0.5, 0.0, -1.0]), [0]),
    *(("TreeEnsembleRegressor", [X], regression(aggregate_function=how), [0]) for how in ("AVERAGE", "MIN", "MAX")),
    *(("TreeEnsembleRegressor", [X], regression(modes=(mode,)), [0]) for mode in ("BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")),
    ("TreeEnsembleRegressor", [GAPS], regression(modes=("BRANCH_LEQ", "BRANCH_GT", "BRANCH_NEQ")), [0]),
    ("TreeEnsembleRegressor", [GAPS], regression(missing=True), [0]),
    ("TreeEnsembleRegressor", [X], regression(count=1, depth=0), [0]),
    *(("TreeEnsembleClassifier", [X], classification([5, 8, 6], [0, 1, 2], post_transform=how), [0, 1]) for how in ("NONE", "LOGISTIC", "SOFTMAX")),
    ("TreeEnsembleClassifier", [X], classification([5, 8, 6], [0, 1, 2], base_values=[1.0, 2.0, 0.5]), [0, 1]),
    *(("TreeEnsembleClassifier", [X], classification([5, 8], [0], spread, post_transform=how), [0, 1])
      for how in ("NONE", "LOGISTIC") for spread in (1.0, -0.1)),
    ("TreeEnsembleClassifier", [X], classification([5, 8], [0], base_values=[0.3], post_transform="LOGISTIC"), [0, 1]),
]

if __name__ == "__main__":
    sys.exit(hold(FORMS, "ai.onnx.ml", 4))
