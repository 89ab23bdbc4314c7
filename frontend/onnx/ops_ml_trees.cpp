// Ensembles of decision trees (ai.onnx.ml) as tensors: every row walks down all trees at once, one level a step. The place it has reached
// in each tree is an index into tables of all nodes; a leaf leads to itself.
#include <algorithm>
#include <map>
#include <set>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/ml.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Reals = std::vector<double>;

struct Forest {
  Ints roots, features, whenTrue, whenFalse;  // places are indices into the lists
  Reals thresholds;
  std::vector<std::string> modes;
  std::vector<bool> missingIsTrue, isLeaf;
  std::map<std::pair<int64_t, int64_t>, int64_t> places;  // by tree and node
  int64_t depth = 0;
  int64_t count() const { return static_cast<int64_t>(features.size()); }
};

// Reals, or a tensor of doubles in their place.
Result<Reals> realsOrTensor(OnnxNode& n, const std::string& name) {
  if (!n.has(name + "_as_tensor")) return n.reals(name, Reals{});
  QC_ASSIGN(const Tensor t, n.tensor(name + "_as_tensor"));
  Reals values;
  for (int64_t i = 0; i < t.numElements(); ++i) values.push_back(t.at(i));
  return values;
}

// The most decisions from a root to a leaf.  A node that leads to one that was there before is not a tree.
Status measureDepth(OnnxNode& n, Forest& f) {
  constexpr int64_t kMaxDepth = 512;
  std::vector<bool> seen(usize(f.count()));
  std::vector<std::pair<int64_t, int64_t>> open;
  for (const int64_t root : f.roots) open.emplace_back(root, 0);
  while (!open.empty()) {
    const auto [place, depth] = open.back();
    open.pop_back();
    if (seen[usize(place)]) return n.error(ErrorCode::kInvalidModel, "two nodes lead to node {} of its list", place);
    seen[usize(place)] = true;
    if (f.isLeaf[usize(place)]) continue;
    f.depth = std::max(f.depth, depth + 1);
    if (f.depth > kMaxDepth) return n.error(ErrorCode::kResource, "a tree deeper than {}", kMaxDepth);
    open.emplace_back(f.whenTrue[usize(place)], depth + 1);
    open.emplace_back(f.whenFalse[usize(place)], depth + 1);
  }
  return {};
}

Result<Forest> forestOf(OnnxNode& n) {
  Forest f;
  QC_ASSIGN(const Ints trees, n.integers("nodes_treeids"));
  QC_ASSIGN(const Ints ids, n.integers("nodes_nodeids"));
  QC_ASSIGN(f.features, n.integers("nodes_featureids"));
  QC_ASSIGN(f.modes, n.strings("nodes_modes"));
  QC_ASSIGN(f.thresholds, realsOrTensor(n, "nodes_values"));
  QC_ASSIGN(f.whenTrue, n.integers("nodes_truenodeids"));
  QC_ASSIGN(f.whenFalse, n.integers("nodes_falsenodeids"));
  QC_ASSIGN(Ints missing, n.integers("nodes_missing_value_tracks_true", Ints{}));
  const size_t count = trees.size();
  if (missing.empty()) missing.resize(count);
  for (const size_t size :
       {ids.size(), f.features.size(), f.modes.size(), f.thresholds.size(), f.whenTrue.size(), f.whenFalse.size(), missing.size()})
    if (size != count || count == 0) return n.error(ErrorCode::kInvalidModel, "lists of {} and {} nodes", count, size);
  std::set<int64_t> known;
  for (size_t i = 0; i < count; ++i) {
    if (!f.places.emplace(std::pair(trees[i], ids[i]), static_cast<int64_t>(i)).second)
      return n.error(ErrorCode::kInvalidModel, "node {} of tree {} is there twice", ids[i], trees[i]);
    if (known.insert(trees[i]).second) f.roots.push_back(static_cast<int64_t>(i));  // the first of a tree
    f.isLeaf.push_back(f.modes[i] == "LEAF");
    f.missingIsTrue.push_back(missing[i] != 0);
  }
  for (size_t i = 0; i < count; ++i) {
    if (f.isLeaf[i]) {
      f.whenTrue[i] = f.whenFalse[i] = static_cast<int64_t>(i);
      f.features[i] = 0;
      continue;
    }
    if (f.features[i] < 0) return n.error(ErrorCode::kInvalidModel, "node {} of tree {} reads feature {}", ids[i], trees[i], f.features[i]);
    for (int64_t* next : {&f.whenTrue[i], &f.whenFalse[i]}) {
      const auto found = f.places.find({trees[i], *next});
      if (found == f.places.end())
        return n.error(ErrorCode::kInvalidModel, "node {} of tree {} leads to {}, which is not there", ids[i], trees[i], *next);
      *next = found->second;
    }
  }
  QC_TRY(measureDepth(n, f));
  return f;
}

Result<Value*> looked(OnnxNode& n, Value* table, Value* places) { return n.create("gather", {table, places}, {{"axis", int64_t{0}}}); }

// Which of the modes the nodes have; a place has one.
Result<Value*> decision(OnnxNode& n, const Forest& f, Value* x, Value* threshold, Value* places) {
  static const std::map<std::string, const char*, std::less<>> kOps = {{"BRANCH_LEQ", "less_equal"},    {"BRANCH_LT", "less"},
                                                                       {"BRANCH_GTE", "greater_equal"}, {"BRANCH_GT", "greater"},
                                                                       {"BRANCH_EQ", "equal"},          {"BRANCH_NEQ", "equal"}};
  std::set<std::string> modes;
  for (const std::string& mode : f.modes)
    if (mode != "LEAF") modes.insert(mode);
  Value* holds = nullptr;
  for (const std::string& mode : modes) {
    const auto op = kOps.find(mode);
    if (op == kOps.end()) return n.error(ErrorCode::kInvalidModel, "a node's mode '{}'", mode);
    QC_ASSIGN(Value * own, n.create(op->second, {x, threshold}));
    if (mode == "BRANCH_NEQ") {
      QC_ASSIGN(own, n.create("not", {own}));
    }
    if (!holds) {
      holds = own;
      continue;
    }
    Reals has;
    for (const std::string& other : f.modes) has.push_back(other == mode);
    QC_ASSIGN(Value * isThat, looked(n, realList(n, DType::boolean, {f.count()}, has), places));
    QC_ASSIGN(holds, n.create("where", {isThat, own, holds}));
  }
  if (std::none_of(f.missingIsTrue.begin(), f.missingIsTrue.end(), [](bool b) { return b; })) return holds;
  QC_ASSIGN(Value * tracks,
            looked(n, realList(n, DType::boolean, {f.count()}, Reals(f.missingIsTrue.begin(), f.missingIsTrue.end())), places));
  QC_ASSIGN(Value * missing, n.create("isnan", {x}));
  QC_ASSIGN(missing, n.create("and", {missing, tracks}));
  return n.create("or", {holds, missing});
}

// [rows, trees]: the leaf that every row reaches in every tree.
Result<Value*> leaves(OnnxNode& n, const Forest& f) {
  QC_ASSIGN(Value * x, featureRows(n, true));
  const DType dtype = x->type().dtype;
  const auto trees = static_cast<int64_t>(f.roots.size());
  Value *features = n.ints(f.features), *thresholds = realList(n, dtype, {f.count()}, f.thresholds);
  Value *whenTrue = n.ints(f.whenTrue), *whenFalse = n.ints(f.whenFalse);
  QC_ASSIGN(Value * places, n.create("expand", {n.ints(f.roots)}, {{"shape", std::vector<DimExpr>{OnnxNode::dims(x)[0], trees}}}));
  for (int64_t level = 0; level < f.depth; ++level) {
    QC_ASSIGN(Value * feature, looked(n, features, places));
    QC_ASSIGN(Value * value, n.create("gather_elements", {x, feature}, {{"axis", int64_t{1}}}));
    QC_ASSIGN(Value * threshold, looked(n, thresholds, places));
    QC_ASSIGN(Value * holds, decision(n, f, value, threshold, places));
    QC_ASSIGN(Value * right, looked(n, whenTrue, places));
    QC_ASSIGN(Value * left, looked(n, whenFalse, places));
    QC_ASSIGN(places, n.create("where", {holds, right, left}));
  }
  return places;
}

struct LeafWeights {
  Ints trees, nodes, columns;
  Reals weights;
};

Result<LeafWeights> leafWeights(OnnxNode& n, const std::string& prefix, int64_t columns) {
  LeafWeights w;
  QC_ASSIGN(w.trees, n.integers(prefix + "_treeids"));
  QC_ASSIGN(w.nodes, n.integers(prefix + "_nodeids"));
  QC_ASSIGN(w.columns, n.integers(prefix + "_ids"));
  QC_ASSIGN(w.weights, realsOrTensor(n, prefix + "_weights"));
  const size_t count = w.weights.size();
  if (w.trees.size() != count || w.nodes.size() != count || w.columns.size() != count)
    return n.error(ErrorCode::kInvalidModel, "lists of {} and {} weights", w.trees.size(), count);
  for (const int64_t column : w.columns)
    if (column < 0 || column >= columns) return n.error(ErrorCode::kInvalidModel, "a weight of target {} of {}", column, columns);
  return w;
}

// What the leaves of all trees come to: [rows, columns].
Result<Value*> sums(OnnxNode& n, const LeafWeights& w, int64_t columns, const Reals& base) {
  constexpr int64_t kMaxTable = int64_t{1} << 28;
  QC_ASSIGN(const Forest f, forestOf(n));
  if (columns > kMaxTable / f.count()) return n.error(ErrorCode::kResource, "{} nodes with {} weights each", f.count(), columns);
  if (!base.empty() && static_cast<int64_t>(base.size()) != columns)
    return n.error(ErrorCode::kUnsupported, "{} base values for {} targets", base.size(), columns);
  Reals table(usize(f.count() * columns));
  for (size_t i = 0; i < w.weights.size(); ++i) {
    const auto place = f.places.find({w.trees[i], w.nodes[i]});
    if (place == f.places.end() || !f.isLeaf[usize(place->second)])
      return n.error(ErrorCode::kInvalidModel, "a weight at node {} of tree {}, which is no leaf", w.nodes[i], w.trees[i]);
    table[usize(w.columns[i] * f.count() + place->second)] += w.weights[i];
  }
  QC_ASSIGN(const std::string how, n.string("aggregate_function", "SUM"));
  QC_ASSIGN(Value * reached, leaves(n, f));
  // [columns, nodes], not rows of an embedding: they are numbers of their own, which may be indices, and must not be rounded.
  Value* weights = realList(n, DType::f32, {columns, f.count()}, table);
  QC_ASSIGN(Value * y, n.create("gather", {weights, reached}, {{"axis", int64_t{1}}}));
  const bool isExtreme = how == "MIN" || how == "MAX";
  if (!isExtreme && how != "SUM" && how != "AVERAGE") return n.error(ErrorCode::kInvalidModel, "aggregate_function '{}'", how);
  if (isExtreme && columns > 1)
    return n.error(ErrorCode::kUnsupported, "aggregate_function '{}' of {} targets", how, columns).help("export one model for each target");
  QC_ASSIGN(y, n.create(how == "MIN"   ? "reduce_min"
                        : how == "MAX" ? "reduce_max"
                                       : "reduce_sum",
                        {y}, {{"axes", Ints{2}}, {"keepdims", int64_t{0}}}));
  QC_ASSIGN(y, n.create("transpose", {y}, {{"perm", Ints{1, 0}}}));
  if (how == "AVERAGE") {
    QC_ASSIGN(y, n.create("div", {y, n.scalar(static_cast<float>(f.roots.size()))}));
  }
  if (base.empty()) return y;
  return n.create("add", {y, realList(n, DType::f32, {columns}, base)});
}

Status regressor(OnnxNode& n) {
  QC_ASSIGN(const int64_t targets, n.integer("n_targets", 1));
  if (targets < 1) return n.error(ErrorCode::kInvalidModel, "{} targets", targets);
  QC_ASSIGN(const Reals base, realsOrTensor(n, "base_values"));
  QC_ASSIGN(const LeafWeights w, leafWeights(n, "target", targets));
  QC_ASSIGN(Value * y, sums(n, w, targets, base));
  if (targets > 1) {
    QC_ASSIGN(y, postTransformed(n, y));
  }
  return n.setOutput(y);
}

// Weights of two classes that are all of class 0 are those of the one score that tells the second from the first: a probability where none
// is negative.
Status classifier(OnnxNode& n) {
  QC_ASSIGN(const ClassLabels labels, labelsOf(n, "classlabels_int64s", "classlabels_strings"));
  QC_ASSIGN(const Reals base, realsOrTensor(n, "base_values"));
  QC_ASSIGN(const LeafWeights w, leafWeights(n, "class", labels.count));
  const std::set<int64_t> classes(w.columns.begin(), w.columns.end());
  if (labels.count == 2 && classes.size() == 1) {
    if (*classes.begin() != 0 || base.size() > 1)
      return n.error(ErrorCode::kUnsupported, "of two classes, weights of class {} alone and {} base values", *classes.begin(), base.size())
          .help("export with weights of both classes, or with those of class 0 for the one score of both");
    const bool isProbability = std::all_of(w.weights.begin(), w.weights.end(), [](double weight) { return weight >= 0; });
    QC_ASSIGN(Value * score, sums(n, w, 1, base));
    QC_ASSIGN(Value * label, labelAbove(n, labels, score, isProbability ? 0.5f : 0.0f));
    QC_ASSIGN(Value * scores, bothClasses(n, score, isProbability));
    return n.setOutputs({label, scores});
  }
  QC_ASSIGN(Value * scores, sums(n, w, labels.count, base));
  QC_ASSIGN(Value * label, labelOfGreatest(n, labels, scores));
  QC_ASSIGN(scores, postTransformed(n, scores));
  return n.setOutputs({label, scores});
}

Status version5(OnnxNode& n) {
  return n.error(ErrorCode::kUnsupported, "the form of version 5 of ai.onnx.ml")
      .help("convert with target_opset={'': 18, 'ai.onnx.ml': 3}, which writes TreeEnsembleRegressor and TreeEnsembleClassifier");
}

}  // namespace

std::span<const OnnxOp> onnxMlTreeOps() {
  static const std::vector<OnnxOp> kOps = [] {
    std::vector<OnnxOp> rows = {
        {"TreeEnsembleRegressor", 1, 1, regressor}, {"TreeEnsembleClassifier", 1, 1, classifier}, {"TreeEnsemble", 1, 1, version5}};
    for (OnnxOp& row : rows) row.domain = "ai.onnx.ml", row.freeDims = true;
    return rows;
  }();
  return kOps;
}

}  // namespace qc
