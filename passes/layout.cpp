// layout: spatial ops run channel-last.  Each gets a transpose before and after it and layout="channels_last"; then
// transposes sink through ops that do not care about the order of dims (their axes are renamed) until they meet and
// cancel, or only move dims of size 1 and become a reshape; through a reshape where dims stay together.  1-d convolutions and pools become
// 2-d of height 1. Which ops let a transpose through, and which of their attributes name dims, is the table kAgnostic. Tests:
// tests/golden/layout.
#include <algorithm>
#include <numeric>
#include <set>

#include "ir/rewriter.h"
#include "passes/graph_util.h"
#include "passes/passes.h"

namespace qc {
namespace {

using Perm = std::vector<int64_t>;

Perm toChannelsLast(int rank) {
  Perm p{0};
  for (int i = 2; i < rank; ++i) p.push_back(i);
  p.push_back(1);
  return p;
}

Perm inverse(const Perm& p) {
  Perm q(p.size());
  for (size_t i = 0; i < p.size(); ++i) q[static_cast<size_t>(p[i])] = static_cast<int64_t>(i);
  return q;
}

Result<Value*> transposed(Builder& b, Value* v, const Perm& perm) { return b.create("transpose", {v}, {{"perm", perm}}); }

// ---- spatial ops to channels_last -------------------------------------------------------------

// Operands that are laid out like the input (the residual of a conv is; weights, bias and statistics are not).
std::vector<int> spatialOperands(const Node& node) {
  const auto& operands = node.def().operands;
  return operands.size() >= 4 && operands[3].name == "residual" ? std::vector<int>{0, 3} : std::vector<int>{0};
}

std::vector<int64_t> withFront(int64_t value, std::vector<int64_t> list) {
  if (!list.empty()) list.insert(list.begin(), value);
  return list;
}

// Height 1 in front of the one spatial dim, in attributes and weights.
Result<Value*> asTwoDimensional(Builder& b, Node* node, std::vector<Value*> operands, AttrDict attrs) {
  for (const char* name : {"strides", "dilations", "kernel_shape"})
    if (attrs.find(name)) attrs.set(name, withFront(1, attrs.integers(name)));
  if (attrs.find("output_padding")) attrs.set("output_padding", withFront(0, attrs.integers("output_padding")));
  if (const auto& pads = attrs.integers("pads"); pads.size() == 2) attrs.set("pads", std::vector<int64_t>{0, pads[0], 0, pads[1]});
  for (const int i : spatialOperands(*node)) {
    Value*& v = operands[static_cast<size_t>(i) < operands.size() ? static_cast<size_t>(i) : 0];
    if (static_cast<size_t>(i) >= operands.size() || !v) continue;
    std::vector<int64_t> shape = v->type().sizes();
    shape.insert(shape.begin() + 1, 1);
    QC_ASSIGN(v, b.create("reshape", {v}, {{"shape", shape}}));
  }
  if (operands.size() > 1 && node->def().operands.size() > 1 && operands[1]) {
    std::vector<int64_t> shape = operands[1]->type().sizes();
    shape.insert(shape.begin() + 2, 1);
    QC_ASSIGN(operands[1], b.create("reshape", {operands[1]}, {{"shape", shape}}));
  }
  QC_ASSIGN(Value * y, b.create(node->op(), std::move(operands), std::move(attrs)));
  std::vector<int64_t> shape = y->type().sizes();
  shape.erase(shape.begin() + 1);
  return b.create("reshape", {y}, {{"shape", shape}});
}

// A norm of groups of channels sums channel after channel, and is better off with the channels first.
bool isSpatialOp(const Node& node) {
  if (node.is("group_norm")) return false;
  const Attr* layout = node.attrs().find("layout");
  return layout && std::get<std::string>(*layout) == "channels_first" && node.numResults() == 1 && node.operand(0)->type().isStatic() &&
         node.operand(0)->type().rank() >= 3;
}

Result<bool> toChannelsLastForm(Node* node, Rewriter& rw) {
  const int rank = node->operand(0)->type().rank();
  const Perm last = toChannelsLast(rank);
  Builder b = rw.before(node);
  std::vector<Value*> operands = node->operands();
  for (const int i : spatialOperands(*node))
    if (Value* v = node->operand(i)) {
      QC_ASSIGN(operands[static_cast<size_t>(i)], transposed(b, v, last));
    }
  AttrDict attrs = node->attrs();
  attrs.set("layout", std::string("channels_last"));
  for (const char* name : {"sizes", "scales"}) {  // resize: full rank
    if (!attrs.find(name)) continue;
    const auto permute = [&](auto list) {
      auto moved = list;
      for (size_t i = 0; i < list.size(); ++i) moved[i] = list[static_cast<size_t>(last[i])];
      return moved;
    };
    if (const auto* ints = std::get_if<std::vector<int64_t>>(attrs.find(name)))
      attrs.set(name, permute(*ints));
    else
      attrs.set(name, permute(attrs.reals(name)));
  }
  const bool lift =
      rank == 3 && !attrs.find("sizes") && (attrs.find("kernel_shape") || node->def().operands.size() > 2) && attrs.find("strides");
  Value* y = nullptr;
  if (lift) {
    QC_ASSIGN(y, asTwoDimensional(b, node, std::move(operands), std::move(attrs)));
  } else {
    QC_ASSIGN(y, b.create(node->op(), std::move(operands), std::move(attrs)));
  }
  QC_ASSIGN(Value * back, transposed(b, y, inverse(last)));
  rw.replace(node, {back});
  return true;
}

// ---- sinking ----------------------------------------------------------------------------------

struct Agnostic {
  int dataOperands = -1;                // the first so many are permuted; -1: all
  bool broadcasts = false;              // operands may have other shapes, numpy-wise
  std::vector<std::string> axis;        // attributes that hold one axis
  std::vector<std::string> axes;        // attributes that hold a list of axes
  std::vector<std::string> perDim;      // attributes with one entry per dim
  std::vector<std::string> perDimPair;  // begins then ends
};

const Agnostic* agnosticRow(const Node& node) {
  static const std::map<std::string, Agnostic, std::less<>> kAgnostic = {
      {"map", {-1, true, {}, {}, {}, {}}},
      {"lut", {1, false, {}, {}, {}, {}}},
      {"quantize", {1, false, {}, {}, {}, {}}},
      {"dequantize", {1, false, {}, {}, {}, {}}},
      {"observe", {1, false, {}, {}, {}, {}}},
      {"fake_quantize", {1, false, {}, {}, {}, {}}},
      {"concat", {-1, false, {"axis"}, {}, {}, {}}},
      {"split", {1, false, {"axis"}, {}, {}, {}}},
      {"softmax", {1, false, {"axis"}, {}, {}, {}}},
      {"log_softmax", {1, false, {"axis"}, {}, {}, {}}},
      {"slice", {1, false, {}, {}, {"starts", "sizes", "steps"}, {}}},
      {"pad", {1, false, {}, {}, {}, {"pads"}}},
      {"tile", {1, false, {}, {}, {"repeats"}, {}}},
      {"reduce_mean", {1, false, {}, {"axes"}, {}, {}}},
      {"reduce_sum", {1, false, {}, {"axes"}, {}, {}}},
      {"reduce_max", {1, false, {}, {"axes"}, {}, {}}},
      {"reduce_min", {1, false, {}, {"axes"}, {}, {}}},
      {"q.reduce_mean", {1, false, {}, {"axes"}, {}, {}}},
  };
  static const Agnostic kElementwiseRow{-1, true, {}, {}, {}, {}};
  // Parameters per channel name an axis of their own, and integers with such parameters are not transposed.
  const auto perChannel = [](const Value* v) { return v && v->type().isQuantized() && v->type().quant->perChannel(); };
  if (perChannel(node.numOperands() > 0 ? node.operand(0) : nullptr) || perChannel(node.numResults() > 0 ? node.result() : nullptr))
    return nullptr;
  if (const auto it = kAgnostic.find(node.op()); it != kAgnostic.end()) return &it->second;
  return node.def().has(kElementwise) ? &kElementwiseRow : nullptr;
}

Node* transposeBehind(const Value* v) {
  Node* p = v ? v->producer() : nullptr;
  return p && p->is("transpose") ? p : nullptr;
}

AttrDict permutedAttrs(const Node& node, const Agnostic& row, const Perm& perm) {
  AttrDict attrs = node.attrs();
  for (const auto& name : row.axis) attrs.set(name, perm[static_cast<size_t>(attrs.integer(name))]);
  for (const auto& name : row.axes) {
    std::vector<int64_t> axes = attrs.integers(name);
    for (int64_t& a : axes) a = perm[static_cast<size_t>(a)];
    std::sort(axes.begin(), axes.end());
    attrs.set(name, axes);
  }
  for (const auto& name : row.perDim) {
    const std::vector<int64_t> list = attrs.integers(name);
    std::vector<int64_t> moved(list.size());
    for (size_t i = 0; i < list.size(); ++i) moved[static_cast<size_t>(perm[i])] = list[i];
    attrs.set(name, moved);
  }
  for (const auto& name : row.perDimPair) {
    const std::vector<int64_t> list = attrs.integers(name);
    const size_t rank = perm.size();
    std::vector<int64_t> moved(list.size());
    for (size_t i = 0; i < list.size(); ++i) moved[static_cast<size_t>(perm[i % rank]) + (i / rank) * rank] = list[i];
    attrs.set(name, moved);
  }
  return attrs;
}

// The permutation of the result: that of the operand, or what is left of it when reduced dims go.
Perm resultPerm(const Node& node, const Perm& perm) {
  const Attr* keep = node.attrs().find("keepdims");
  if (!keep || std::get<int64_t>(*keep) != 0) return perm;
  const auto& axes = node.integers("axes");
  Perm left;
  for (size_t i = 0; i < perm.size(); ++i)
    if (std::find(axes.begin(), axes.end(), static_cast<int64_t>(i)) == axes.end()) left.push_back(perm[i]);
  Perm sorted = left;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t& p : left) p = std::lower_bound(sorted.begin(), sorted.end(), p) - sorted.begin();
  return left;
}

// Undoes `perm` on an operand of an elementwise op, after giving it full rank.
Result<Value*> undone(Builder& b, Value* v, const Perm& perm) {
  if (Node* t = transposeBehind(v); t && t->integers("perm") == perm) return t->operand(0);
  if (v->type().isStatic() && v->type().numElements() == 1) return v;
  if (v->type().rank() < static_cast<int>(perm.size())) {
    std::vector<int64_t> shape = v->type().sizes();
    shape.insert(shape.begin(), perm.size() - shape.size(), 1);
    QC_ASSIGN(v, b.create("reshape", {v}, {{"shape", shape}}));
  }
  return transposed(b, v, inverse(perm));
}

// op(transpose(x)) -> transpose(op'(x)) when that removes more transposes than it adds.
Result<bool> sink(Node* node, Rewriter& rw) {
  const Agnostic* row = agnosticRow(*node);
  if (!row || node->numOperands() == 0) return false;
  const int data = row->dataOperands < 0 ? node->numOperands() : row->dataOperands;
  Perm perm;
  int moving = 0, standing = 0;
  for (int i = 0; i < data; ++i) {
    const Value* v = node->operand(i);
    if (!v || !v->type().isStatic()) return false;
    Node* t = transposeBehind(v);
    if (t && (perm.empty() || perm == t->integers("perm")) && t->result()->type().rank() == node->operand(i)->type().rank()) {
      perm = t->integers("perm");
      ++moving;
    } else if (!v->constant() && v->type().numElements() != 1) {
      // A broadcast operand is small: moving it is cheap.
      if (!(row->broadcasts && v->type().numElements() * 4 <= node->result()->type().numElements())) ++standing;
    }
  }
  if (moving == 0 || standing >= moving) return false;  // strictly fewer afterwards, or two ops could pass a transpose to and fro
  for (int i = 0; i < node->numResults(); ++i)
    if (row->broadcasts && node->result(i)->type().rank() != static_cast<int>(perm.size())) return false;
  Builder b = rw.before(node);
  std::vector<Value*> operands = node->operands();
  for (int i = 0; i < data; ++i) {
    QC_ASSIGN(operands[static_cast<size_t>(i)], undone(b, operands[static_cast<size_t>(i)], perm));
  }
  QC_ASSIGN(Node * moved, b.createNode(node->op(), std::move(operands), permutedAttrs(*node, *row, perm)));
  const Perm back = resultPerm(*node, perm);
  std::vector<Value*> results;
  for (int i = 0; i < moved->numResults(); ++i) {
    QC_ASSIGN(Value * y, transposed(b, moved->result(i), back));
    results.push_back(y);
  }
  rw.replace(node, results);
  return true;
}

// ---- sinking through reshapes -----------------------------------------------------------------

// A reshape as groups of neighbouring dims that hold the same elements before and after.
struct DimGroup {
  std::vector<int64_t> from, to;  // dims
};

std::vector<DimGroup> groupsOf(const std::vector<int64_t>& from, const std::vector<int64_t>& to) {
  std::vector<DimGroup> groups;
  size_t i = 0, j = 0;
  while (i < from.size() && j < to.size()) {
    DimGroup g{{static_cast<int64_t>(i)}, {static_cast<int64_t>(j)}};
    int64_t before = from[i++], after = to[j++];
    while (before != after) {
      if (before < after) {
        g.from.push_back(static_cast<int64_t>(i));
        before *= from[i++];
      } else {
        g.to.push_back(static_cast<int64_t>(j));
        after *= to[j++];
      }
    }
    groups.push_back(std::move(g));
  }
  for (; i < from.size() && !groups.empty(); ++i) groups.back().from.push_back(static_cast<int64_t>(i));  // dims of size 1
  for (; j < to.size() && !groups.empty(); ++j) groups.back().to.push_back(static_cast<int64_t>(j));
  return groups;
}

bool isIdentity(const Perm& p) { return std::is_sorted(p.begin(), p.end()); }

// Whether a transpose by `perm` of v would cancel one soon, behind ops that let it through.
bool wouldCancel(const Value* v, const Perm& perm, int depth) {
  for (const Node* user : v->users()) {
    if (user->is("transpose")) {
      if (user->integers("perm") == inverse(perm)) return true;
      continue;
    }
    if (depth == 0 || !agnosticRow(*user)) continue;
    for (int i = 0; i < user->numResults(); ++i)
      if (wouldCancel(user->result(i), perm, depth - 1)) return true;
  }
  return false;
}

// reshape(transpose(x)) -> transpose(reshape(x)) when each group's dims are together in x.  If they are together in another order
// (channels being shuffled), that order is made by a transpose in front, which pays only if the one behind cancels another.
Result<bool> sinkThroughReshape(Node* node, Rewriter& rw) {
  constexpr int kFarthest = 2;
  Node* t = node->is("reshape") ? transposeBehind(node->operand(0)) : nullptr;
  if (!t || !t->operand(0)->type().isStatic() || t->operand(0)->type().numElements() == 0) return false;
  if (const QuantPtr& quant = node->result()->type().quant; quant && quant->perChannel()) return false;
  const Perm& perm = t->integers("perm");
  std::vector<DimGroup> groups = groupsOf(t->result()->type().sizes(), node->integers("shape"));
  if (groups.empty()) return false;
  for (DimGroup& g : groups) {
    for (int64_t& d : g.from) d = perm[static_cast<size_t>(d)];
    const auto [low, high] = std::minmax_element(g.from.begin(), g.from.end());
    if (*high - *low + 1 != static_cast<int64_t>(g.from.size())) return false;
  }
  std::sort(groups.begin(), groups.end(), [](const DimGroup& a, const DimGroup& b) {
    return *std::min_element(a.from.begin(), a.from.end()) < *std::min_element(b.from.begin(), b.from.end());
  });
  Perm inner, order;
  std::vector<int64_t> shape;
  for (const DimGroup& g : groups) {
    inner.insert(inner.end(), g.from.begin(), g.from.end());
    order.insert(order.end(), g.to.begin(), g.to.end());
    for (const int64_t d : g.to) shape.push_back(node->integers("shape")[static_cast<size_t>(d)]);
  }
  const Perm outer = inverse(order);
  if (!isIdentity(inner) && (isIdentity(outer) || !wouldCancel(node->result(), outer, kFarthest))) return false;
  Builder b = rw.before(node);
  Value* x = t->operand(0);
  if (!isIdentity(inner)) {
    QC_ASSIGN(x, transposed(b, x, inner));
  }
  QC_ASSIGN(Value * y, b.create("reshape", {x}, {{"shape", shape}}));
  if (!isIdentity(outer)) {
    QC_ASSIGN(y, transposed(b, y, outer));
  }
  rw.replace(node, {y});
  return true;
}

}  // namespace

Status layout(Graph& graph, PassContext& cx) {
  Rewriter rw(graph);
  int spatial = 0;
  for (Node* node : graph.nodes()) {
    if (rw.wasErased(node) || !isSpatialOp(*node)) continue;
    QC_ASSIGN(const bool changed, toChannelsLastForm(node, rw));
    spatial += changed;
  }
  int sunk = 0;
  for (bool changed = true; changed;) {
    changed = false;
    Rewriter round(graph);
    for (Node* node : graph.nodes()) {
      if (round.wasErased(node)) continue;
      QC_ASSIGN(const bool done, node->is("reshape") ? sinkThroughReshape(node, round) : sink(node, round));
      changed |= done;
      sunk += done;
    }
    QC_TRY(canonicalize(graph, cx));  // cancels and composes what met
  }
  cx.countHits({{"spatial", spatial}, {"sunk", sunk}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
