// layout: spatial ops run channel-last.  Each gets a transpose before and after it and layout="channels_last"; then
// transposes sink through ops that do not care about the order of dims (their axes are renamed) until they meet and
// cancel, or only move dims of size 1 and become a reshape; through a reshape where dims stay together.  1-d convolutions and pools become
// 2-d of height 1. Which ops let a transpose through (kPermutable), and which of their attributes and operands name dims, their
// declarations say.  Tests: tests/golden/layout, tests/unit/layout_test.cpp.
#include <algorithm>
#include <numeric>
#include <set>

#include "ir/rewriter.h"
#include "passes/graph_util.h"
#include "passes/passes.h"
#include "quantizer/observers/observer.h"

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
  for (size_t i = 0; i < p.size(); ++i) nth(q, p[i]) = static_cast<int64_t>(i);
  return q;
}

Result<Value*> transposed(Builder& b, Value* v, const Perm& perm) { return b.create("transpose", {v}, {{"perm", perm}}); }

// ---- spatial ops to channels_last -------------------------------------------------------------

// The indices of the operands that are laid out like the result.
std::vector<int> dataOperands(const Node& node) {
  std::vector<int> list;
  for (int i = 0; i < node.numOperands(); ++i) {
    const OperandRole role = node.def().operand(i).role;
    if (role == OperandRole::data || role == OperandRole::broadcast) list.push_back(i);
  }
  return list;
}

// The attributes for data whose dim d stands at where[d].
AttrDict renamed(const Node& node, const Perm& where) {
  AttrDict attrs = node.attrs();
  const auto moved = [&](const auto& list) {  // rank after rank: one entry per dim, or begins and then ends
    auto to = list;
    for (size_t i = 0; i < list.size(); ++i) to[usize(where[i % where.size()]) + i / where.size() * where.size()] = list[i];
    return to;
  };
  for (const AttrSpec& spec : node.def().attrs) {
    const Attr* attr = attrs.find(spec.name);
    if (!attr) continue;
    switch (spec.meaning) {
      case AttrMeaning::axis:
        if (const int64_t axis = attrs.integer(spec.name); axis >= 0) attrs.set(spec.name, nth(where, axis));
        break;
      case AttrMeaning::axes: {
        std::vector<int64_t> axes = attrs.integers(spec.name);
        for (int64_t& axis : axes) axis = nth(where, axis);
        std::sort(axes.begin(), axes.end());
        attrs.set(spec.name, axes);
        break;
      }
      case AttrMeaning::perDim:
      case AttrMeaning::perDimPair:
        if (const auto* reals = std::get_if<std::vector<double>>(attr))
          attrs.set(spec.name, moved(*reals));
        else
          attrs.set(spec.name, moved(attrs.integers(spec.name)));
        break;
      default: break;  // spatial dims keep their order, and the rest is not about dims
    }
  }
  return attrs;
}

// Whether windows over one spatial dim may as well be windows over two, the first of size 1.
bool canLift(const Node& node) {
  return node.operand(0)->type().rank() == 3 && std::any_of(node.def().attrs.begin(), node.def().attrs.end(), [](const AttrSpec& spec) {
           return spec.meaning == AttrMeaning::perSpatialDim;
         });
}

// A value of another shape of the same size; a constant stays one, for the passes that look into weights.
Result<Value*> reshaped(Builder& b, Value* v, const std::vector<int64_t>& shape) {
  if (const Tensor* t = v->constant()) return b.constant(v->name(), t->reshaped(shape), v->type().quant);
  return b.create("reshape", {v}, {{"shape", shape}});
}

// Height 1 in front of the one spatial dim, in attributes, data and weights; the operands are in channels_last.
Result<Value*> asTwoDimensional(Builder& b, Node* node, std::vector<Value*> operands, AttrDict attrs) {
  for (const AttrSpec& spec : node->def().attrs) {
    if (spec.meaning != AttrMeaning::perSpatialDim && spec.meaning != AttrMeaning::perSpatialDimPair) continue;
    std::vector<int64_t> list = attrs.integers(spec.name);
    if (list.empty()) continue;
    if (spec.meaning == AttrMeaning::perSpatialDimPair) list.insert(list.begin() + 1, spec.neutral);
    list.insert(list.begin(), spec.neutral);
    attrs.set(spec.name, list);
  }
  for (size_t i = 0; i < operands.size(); ++i) {
    const OperandRole role = node->def().operand(static_cast<int>(i)).role;
    if (!operands[i] || role == OperandRole::bias || role == OperandRole::parameter) continue;
    std::vector<int64_t> shape = operands[i]->type().sizes();
    shape.insert(shape.begin() + (role == OperandRole::weight ? 2 : 1), 1);
    QC_ASSIGN(operands[i], reshaped(b, operands[i], shape));
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
  for (const int i : dataOperands(*node))
    if (Value* v = node->operand(i)) {
      QC_ASSIGN(nth(operands, i), transposed(b, v, last));
    }
  AttrDict attrs = renamed(*node, inverse(last));
  attrs.set("layout", std::string("channels_last"));
  Value* y = nullptr;
  if (canLift(*node)) {
    QC_ASSIGN(y, asTwoDimensional(b, node, std::move(operands), std::move(attrs)));
  } else {
    QC_ASSIGN(y, b.create(node->op(), std::move(operands), std::move(attrs)));
  }
  QC_ASSIGN(Value * back, transposed(b, y, inverse(last)));
  rw.replace(node, {back});
  return true;
}

// ---- sinking ----------------------------------------------------------------------------------

// Parameters per channel name an axis of their own, and integers with such parameters are not transposed.
bool perChannel(const Value* v) { return v && v->type().isQuantized() && v->type().quant->perChannel(); }

// An observer sees the dims as its spec means them, unless it says that it does not care.
bool seesPermuted(const Node& node) {
  if (!node.is("observe")) return true;
  const auto* spec = node.annotation() ? std::get_if<ObservedSpec>(&node.annotation()->output) : nullptr;
  const ObserverDef* observer = spec ? findObserver(spec->observer) : nullptr;
  return observer && observer->anyOrder;
}

bool letsThrough(const Node& node) {
  if (!node.def().has(kPermutable) || node.numOperands() == 0 || node.numResults() == 0 || !seesPermuted(node)) return false;
  for (const auto& [name, attr] : node.attrs())  // of a float node, as fake_quantize is
    if (const auto* quant = std::get_if<QuantAttr>(&attr); quant && quant->params && quant->params->perChannel()) return false;
  return !perChannel(node.operand(0)) && !perChannel(node.result());
}

Node* transposeBehind(const Value* v) {
  Node* p = v ? v->producer() : nullptr;
  return p && p->is("transpose") ? p : nullptr;
}

// Constants are transposed when they are folded, and cost nothing at run time, whether they stand bare or behind a transpose by now.
bool foldsAway(const Value* v) {
  const Node* t = transposeBehind(v);
  return (t ? t->operand(0) : v)->constant() != nullptr;
}

// The permutation of the result: that of the operand, or what is left of it when reduced dims go.
Perm resultPerm(const Node& node, const Perm& perm) {
  const Attr* keep = node.attrs().find("keepdims");
  if (!keep || std::get<int64_t>(*keep) != 0) return perm;
  std::vector<int64_t> gone;
  for (const AttrSpec& spec : node.def().attrs) {
    if (spec.meaning == AttrMeaning::axis) gone.push_back(node.integer(spec.name));
    if (spec.meaning == AttrMeaning::axes) gone = node.integers(spec.name);
  }
  Perm left;
  for (size_t i = 0; i < perm.size(); ++i)
    if (std::find(gone.begin(), gone.end(), static_cast<int64_t>(i)) == gone.end()) left.push_back(perm[i]);
  Perm sorted = left;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t& p : left) p = std::lower_bound(sorted.begin(), sorted.end(), p) - sorted.begin();
  return left;
}

// Elements of a sum count in the order of its dims, which decides its last bit: dims that are reduced keep theirs.
bool keepsOrder(const Node& node, const Perm& perm) {
  for (const AttrSpec& spec : node.def().attrs) {
    if (spec.meaning != AttrMeaning::axes) continue;
    std::vector<int64_t> places;
    for (const int64_t axis : node.integers(spec.name))
      if (nth(node.operand(0)->type().shape, axis) != Dim(1)) places.push_back(nth(perm, axis));
    if (!std::is_sorted(places.begin(), places.end())) return false;
  }
  return true;
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

// op(transpose(x)) -> transpose(op'(x)) when that removes more transposes in front of the op than it adds there, in number and in elements.
// The elements that are transposed in front of an op fall with each step as long as nothing changes before it, which is how sinking ends:
// the ops before it come to rest first.
Result<bool> sink(Node* node, Rewriter& rw) {
  if (!letsThrough(*node)) return false;
  const std::vector<int> data = dataOperands(*node);
  const bool broadcasts = node->def().operand(0).role == OperandRole::broadcast;
  Perm perm;
  int moving = 0, standing = 0;
  int64_t removed = 0, added = 0;  // elements
  for (const int i : data) {
    const Value* v = node->operand(i);
    if (!v || !v->type().isStatic() || v->type().numElements() == 0) return false;
    if (foldsAway(v)) continue;
    Node* t = transposeBehind(v);
    if (t && (perm.empty() || perm == t->integers("perm")) && t->result()->type().rank() == node->operand(i)->type().rank()) {
      perm = t->integers("perm");
      ++moving;
      removed += v->type().numElements();
    } else if (v->type().numElements() != 1) {
      added += v->type().numElements();
      // A broadcast operand is small: moving it is cheap.
      if (!(broadcasts && v->type().numElements() * 4 <= node->result()->type().numElements())) ++standing;
    }
  }
  if (moving == 0 || standing >= moving || added >= std::max<int64_t>(removed, 1) || !keepsOrder(*node, perm)) return false;
  for (int i = 0; i < node->numResults(); ++i)
    if (broadcasts && node->result(i)->type().rank() != static_cast<int>(perm.size())) return false;
  Builder b = rw.before(node);
  std::vector<Value*> operands = node->operands();
  for (const int i : data) {
    QC_ASSIGN(nth(operands, i), undone(b, nth(operands, i), perm));
  }
  QC_ASSIGN(Node * moved, b.createNode(node->op(), std::move(operands), renamed(*node, perm)));
  moved->annotation() = node->annotation();
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
    if (depth == 0 || !letsThrough(*user)) continue;
    for (int i = 0; i < user->numResults(); ++i)
      if (wouldCancel(user->result(i), perm, depth - 1)) return true;
  }
  return false;
}

// reshape(transpose(x)) -> transpose(reshape(x)) when each group's dims are together in x.  If they are together in another order
// (channels being shuffled), that order is made by a transpose in front, which pays only if the one behind cancels another.
Result<bool> sinkThroughReshape(Node* node, Rewriter& rw) {
  constexpr int kMaxDistance = 2;
  Node* t = node->is("reshape") ? transposeBehind(node->operand(0)) : nullptr;
  if (!t || !t->operand(0)->type().isStatic() || t->operand(0)->type().numElements() == 0) return false;
  if (const QuantPtr& quant = node->result()->type().quant; quant && quant->perChannel()) return false;
  const Perm& perm = t->integers("perm");
  std::vector<DimGroup> groups = groupsOf(t->result()->type().sizes(), node->integers("shape"));
  if (groups.empty()) return false;
  for (DimGroup& g : groups) {
    for (int64_t& d : g.from) d = nth(perm, d);
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
    for (const int64_t d : g.to) shape.push_back(nth(node->integers("shape"), d));
  }
  const Perm outer = inverse(order);
  if (!isIdentity(inner) && (isIdentity(outer) || !wouldCancel(node->result(), outer, kMaxDistance))) return false;
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
  constexpr int64_t kMaxPerNode = 100;  // far above what real graphs take
  const int64_t nodes = graph.numNodes();
  Rewriter rw(graph);
  int spatial = 0;
  for (Node* node : graph.nodes()) {
    if (rw.wasErased(node) || !isSpatialOp(*node)) continue;
    QC_ASSIGN(const bool changed, toChannelsLastForm(node, rw));
    spatial += changed;
  }
  int64_t sunk = 0;
  for (bool changed = true; changed;) {
    changed = false;
    Rewriter round(graph);
    for (Node* node : graph.nodes()) {
      if (round.wasErased(node)) continue;
      const std::string_view op = node->op();
      const std::string location = node->location();  // the node may be gone afterwards
      QC_ASSIGN(const bool done, node->is("reshape") ? sinkThroughReshape(node, round) : sink(node, round));
      changed |= done;
      sunk += done;
      if (sunk > kMaxPerNode * (nodes + 1))
        return fail(ErrorCode::kInternal, "pass layout: transposes sink without end; the last one through '{}'", op).at(location);
    }
    QC_TRY(canonicalize(graph, cx));  // cancels and composes what met
  }
  cx.countHits({{"spatial", spatial}, {"sunk", static_cast<int>(sunk)}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
