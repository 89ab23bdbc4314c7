#include "runtime/insight/pairing.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "ir/guarded.h"
#include "quantizer/quantizer.h"
#include "quantizer/rules/op_policy.h"
#include "runtime/insight/paired_ends.h"
#include "runtime/insight/signals.h"
#include "runtime/workflow/measured_ends.h"

namespace qc {
namespace {

// What tools fold into what stands in front of it: a file without it rounds where the float model goes on.
bool mayBeFolded(const Node& n) { return n.is("relu") || n.is("clip") || n.is("identity") || n.is("batch_norm"); }

// Of a node with weights: what it reads beside them.
int dataOperand(const Node& n) {
  const std::vector<int> weights = weightOperands(n);
  int i = 0;
  while (std::find(weights.begin(), weights.end(), i) != weights.end()) ++i;
  return i;
}

// The node of this op that computes a value, with what may be folded into it behind it; null: another one does.
const Node* computing(const Value* value, std::string_view op) {
  const Node* n = value ? value->producer() : nullptr;
  while (n && n->op() != op && mayBeFolded(*n)) n = n->operand(0)->producer();
  return n && n->op() == op ? n : nullptr;
}

// Names that both branches of an If have are told apart by where they are: the conditions around, by name where that is an input's.
class Branches {
 public:
  explicit Branches(const Graph& graph) : conditions_(conditionsOf(graph)) {}
  std::string of(const Value& v) const {
    std::string text;
    for (const auto& [condition, side] : conditionsOf(conditions_, v.producer()))
      text += fmt::format("{}={} ", condition->producer() ? std::string("a value") : condition->name(), side);
    return text;
  }

 private:
  std::map<const Node*, Conditions> conditions_;
};

class Matching {
 public:
  Matching(const Graph& reference, const Graph& actual, std::vector<size_t> outputs, Pairing& found)
      : reference_(reference),
        actual_(actual),
        outputs_(std::move(outputs)),
        found_(found),
        theirs_(Signals::of(reference, found.notes)),
        ours_(Signals::of(actual, found.notes)),
        ofTheirs_(reference),
        ofOurs_(actual),
        counterpart_(ours_.all().size(), -1),
        taken_(theirs_.all().size(), false) {}

  void run() {
    for (size_t k = 0; k < counterpart_.size(); ++k) byName(k);
    goOnBehindBatchNorm();
    byTopology();
    goOnBehindFolded();
    layers();
    for (size_t k = 0; k < counterpart_.size(); ++k)
      if (counterpart_[k] >= 0 && ours_.all()[k].compared() && nth(theirs_.all(), counterpart_[k]).compared())
        found_.values.push_back(pairOf(k));
    decisions();
  }

 private:
  bool comparable(size_t ours, size_t theirs) const {
    const Value *a = ours_.all()[ours].compared(), *b = theirs_.all()[theirs].compared();
    return !a || !b || (mayBeOne(a->type().shape, b->type().shape) && ofOurs_.of(*a) == ofTheirs_.of(*b));
  }

  bool match(size_t ours, int theirs) {
    if (theirs < 0 || taken_[usize(theirs)] || !comparable(ours, usize(theirs))) return false;
    counterpart_[ours] = theirs;
    taken_[usize(theirs)] = true;
    return true;
  }

  void byName(size_t ours) {
    for (const std::string& name : ours_.all()[ours].names)
      if (const int theirs = theirs_.find(name); theirs >= 0) {
        // Several may be of one value: x, and x divided for its readers.
        if (comparable(ours, usize(theirs))) {
          counterpart_[ours] = theirs;
          taken_[usize(theirs)] = true;
        }
        return;
      }
  }

  // The signals that a node computes from, constants aside, as numbers of the reference.
  using Key = std::pair<std::string, std::vector<int>>;
  std::optional<Key> keyOfReference(const Node& n) const {
    Key key(std::string(n.op()), {});
    for (const Value* v : n.operands())
      if (const int index = v ? theirs_.indexOf(v) : -1; index >= 0) key.second.push_back(index);
    return key.second.empty() ? std::nullopt : std::optional(std::move(key));
  }

  // Behind what may be folded into it, one step; -1: nothing of the kind.
  int behind(int theirs) const {
    const Signal& signal = nth(theirs_.all(), theirs);
    const Value* v = signal.compared();
    if (!v || v->users().size() != 1) return -1;
    const Node* user = v->users().front();
    return mayBeFolded(*user) && user->numResults() == 1 ? theirs_.indexOf(user->result()) : -1;
  }

  void byTopology() {
    std::map<Key, std::vector<const Node*>> nodes;
    for (const Node* n = reference_.front(); n; n = n->next())
      if (const auto key = keyOfReference(*n)) nodes[*key].push_back(n);
    for (const Node* n = actual_.front(); n; n = n->next()) {
      if (n->is("const") || n->numResults() == 0) continue;
      const int result = ours_.indexOf(n->result());
      if (result < 0 || ours_.indexOf(n->operand(0)) == result) continue;  // a quantize or dequantize
      std::vector<int> operands;
      bool known = true;
      for (const Value* v : n->operands()) {
        const int ours = v ? ours_.indexOf(v) : -1;
        if (ours < 0) continue;
        operands.push_back(ours);
        known &= nth(counterpart_, ours) >= 0;
      }
      if (known && !operands.empty()) follow(*n, operands, nodes);
    }
  }

  void follow(const Node& n, const std::vector<int>& operands, const std::map<Key, std::vector<const Node*>>& nodes) {
    constexpr size_t kMostOperands = 4;
    if (nth(counterpart_, ours_.indexOf(n.result())) >= 0 || operands.size() > kMostOperands) return;
    // First as they are, then with one of them further on.
    for (size_t moved = 0; moved <= operands.size(); ++moved) {
      Key key(std::string(n.op()), {});
      for (const int ours : operands) key.second.push_back(nth(counterpart_, ours));
      for (int steps = 0; steps < 3; ++steps) {
        if (moved > 0) {
          int& further = key.second[moved - 1];
          further = behind(further);
          if (further < 0 || taken_[usize(further)]) break;
        }
        if (followTo(n, key, nodes)) {
          if (moved > 0) advance(nth(operands, moved - 1), key.second[moved - 1]);
          return;
        }
        if (moved == 0) break;
      }
    }
  }

  static bool feedsBatchNorm(const Signals& signals, const Node& n) {
    const int index = signals.indexOf(n.result());
    const Value* v = index < 0 ? nullptr : nth(signals.all(), index).compared();
    return v && v->users().size() == 1 && v->users().front()->is("batch_norm");
  }

  bool followTo(const Node& n, const Key& key, const std::map<Key, std::vector<const Node*>>& nodes) {
    const auto it = nodes.find(key);
    if (it == nodes.end()) return false;
    for (const Node* candidate : it->second) {
      // A layer that BatchNorm is folded into does not give what one in front of a BatchNorm gives.
      if (candidate->numResults() != n.numResults() || (feedsBatchNorm(ours_, n) && !feedsBatchNorm(theirs_, *candidate))) continue;
      bool all = true;
      for (int i = 0; i < n.numResults(); ++i) {
        const int ours = ours_.indexOf(n.result(i)), theirs = theirs_.indexOf(candidate->result(i));
        all &= ours >= 0 && theirs >= 0 && !taken_[usize(theirs)] && comparable(usize(ours), usize(theirs));
      }
      if (!all) continue;
      for (int i = 0; i < n.numResults(); ++i) match(usize(ours_.indexOf(n.result(i))), theirs_.indexOf(candidate->result(i)));
      return true;
    }
    return false;
  }

  // A value with the name of what stood in front of a relu has the values behind it where its readers read it at once.
  void goOnBehindFolded() {
    for (const Node* n = actual_.front(); n; n = n->next()) {
      const int result = n->numResults() > 0 ? ours_.indexOf(n->result()) : -1;
      if (result < 0 || nth(counterpart_, result) < 0) continue;
      const Node* other = computing(nth(theirs_.all(), nth(counterpart_, result)).raw, n->op());
      if (!other) continue;
      for (int i = 0; i < n->numOperands() && i < other->numOperands(); ++i) {
        const int ours = n->operand(i) ? ours_.indexOf(n->operand(i)) : -1,
                  read = other->operand(i) ? theirs_.indexOf(other->operand(i)) : -1;
        if (ours < 0 || read < 0 || ours == result || nth(counterpart_, ours) < 0 || !nth(ours_.all(), ours).rounded) continue;
        int further = nth(counterpart_, ours);
        for (int steps = 0; steps < 3 && further >= 0 && further != read; ++steps) further = behind(further);
        if (further == read && further != nth(counterpart_, ours) && !taken_[usize(further)]) advance(ours, further);
      }
    }
  }

  // The result of a layer with BatchNorm in its weights has the name of what stood in front of the BatchNorm, and the values behind it.
  void goOnBehindBatchNorm() {
    for (const Node* n = actual_.front(); n; n = n->next()) {
      const int result = n->numResults() > 0 && hasWeights(*n) ? ours_.indexOf(n->result()) : -1;
      if (result < 0 || nth(counterpart_, result) < 0 || feedsBatchNorm(ours_, *n)) continue;
      const int theirs = nth(counterpart_, result);
      const Value* raw = nth(theirs_.all(), theirs).raw;
      if (!raw || !raw->producer() || raw->producer()->op() != n->op() || !feedsBatchNorm(theirs_, *raw->producer())) continue;
      const int further = behind(theirs);
      if (further >= 0 && !taken_[usize(further)]) advance(result, further);
    }
  }

  void advance(int ours, int theirs) {
    taken_[usize(nth(counterpart_, ours))] = false;
    counterpart_[usize(ours)] = -1;
    match(usize(ours), theirs);
  }

  ValuePair pairOf(size_t ours) const {
    const Signal &x = nth(theirs_.all(), counterpart_[ours]), &y = ours_.all()[ours];
    ValuePair pair;
    pair.reference = x.compared() ? x.compared()->name() : std::string();
    pair.actual = y.compared()->name();
    pair.computed = (y.raw ? y.raw : y.compared())->name();
    pair.rounded = y.rounded && y.seen;
    pair.params = pair.rounded ? y.params : nullptr;
    pair.border = borders_.contains(static_cast<int>(ours)) && y.raw && y.raw->producer();
    pair.axis = y.factors.empty() ? x.axis : y.axis;
    pair.factors = y.factors;
    // Both may have been moved.
    if (!x.factors.empty() && (y.factors.empty() || (x.factors.size() == y.factors.size() && x.axis == y.axis))) {
      pair.factors.resize(x.factors.size(), 1);
      for (size_t c = 0; c < x.factors.size(); ++c) pair.factors[c] /= x.factors[c];
    }
    return pair;
  }

  // All results of a node, or none.
  void decisions() {
    for (const Node* n = actual_.front(); n; n = n->next()) {
      std::vector<std::string> names;
      for (int i = 0; i < n->numResults(); ++i) {
        const Value *own = n->result(i), *other = reference_.findValue(own->name());
        if (other && other->producer() && other->producer()->op() == n->op() && other->type().dtype == own->type().dtype)
          names.push_back(own->name());
      }
      if (!decidedSymbols(*n).empty() && names.size() == usize(n->numResults()))
        found_.decisions.insert(found_.decisions.end(), names.begin(), names.end());
    }
  }

  // ---- Layers ----

  // The nodes between the end of a layer and the ends in front of it.
  std::vector<const Node*> nodesOf(const Value* end, const std::set<int>& ends) const {
    std::vector<const Node*> nodes, open;
    std::set<const Node*> seen;
    const auto look = [&](const Value* v) {
      if (v && v->producer() && ours_.indexOf(v) >= 0 && seen.insert(v->producer()).second) open.push_back(v->producer());
    };
    look(end);
    const int last = ours_.indexOf(end);
    while (!open.empty()) {
      const Node* n = open.back();
      open.pop_back();
      nodes.push_back(n);
      for (const Value* v : n->operands())
        if (v && ours_.indexOf(v) != last && !ends.contains(ours_.indexOf(v))) look(v);
    }
    return nodes;
  }

  std::vector<const Node*> weightedOf(int signal, const std::set<int>& ends) const {
    std::vector<const Node*> nodes;
    for (const Node* n : nodesOf(nth(ours_.all(), signal).raw, ends))
      if (hasWeights(*n)) nodes.push_back(n);
    return nodes;
  }

  // The node of the reference with the weights of this one; BatchNorm may stand behind it.
  const Node* referenceOf(const Node& node) const {
    constexpr std::string_view kProduct = "_MatMul";  // ONNX Runtime's of a Gemm, beside an Add of its bias
    const std::string plain = plainName(node.location());
    const std::string whole = plain.ends_with(kProduct) ? plain.substr(0, plain.size() - kProduct.size()) : plain;
    for (const std::string& name : {node.location(), plain, whole})
      if (const auto it = byLocation_.find(name); it != byLocation_.end()) return it->second;
    const int ours = ours_.indexOf(node.result());
    if (ours < 0 || nth(counterpart_, ours) < 0) return nullptr;
    return computing(nth(theirs_.all(), nth(counterpart_, ours)).raw, node.op());
  }

  std::vector<float> factorsAt(const Value* v) const {
    const int ours = ours_.indexOf(v);
    return ours >= 0 && nth(counterpart_, ours) >= 0 ? pairOf(usize(ours)).factors : std::vector<float>();
  }

  // Where a layer ends that nothing rounds: its result, or where that has no counterpart what a bias or a scale makes of it.
  int endOf(const Node& weighted) const {
    const int own = ours_.indexOf(weighted.result());
    const Value* v = weighted.result();
    for (int steps = 0; steps < 2; ++steps) {
      const int here = ours_.indexOf(v);
      if (here >= 0 && nth(counterpart_, here) >= 0) return here;
      const std::vector<Node*> users = v->users();
      if (users.size() != 1 || !(users[0]->is("add") || users[0]->is("mul"))) return own;
      v = users[0]->result();
    }
    const int here = ours_.indexOf(v);
    return here >= 0 && nth(counterpart_, here) >= 0 ? here : own;
  }

  void addLayer(int ours, const Node* weighted) {
    LayerPair layer;
    static_cast<ValuePair&>(layer) = pairOf(usize(ours));
    const int theirs = nth(counterpart_, ours);
    const Value* last = nth(theirs_.all(), theirs).raw;
    const Node* reference = weighted ? referenceOf(*weighted) : last ? last->producer() : nullptr;
    const Node* named = reference ? reference : weighted ? weighted : nth(ours_.all(), ours).raw->producer();
    layer.layer = displayName(*named);
    layer.op = named->op();
    if (weighted && reference && hasWeights(*reference)) {
      layer.referenceNode = displayName(*reference);
      layer.actualNode = displayName(*weighted);
      layer.factorsOfResult = factorsAt(weighted->result());
      layer.factorsOfInput = factorsAt(weighted->operand(dataOperand(*weighted)));
    } else if (weighted) {
      found_.notes.push_back(fmt::format("the weights of '{}' are not compared: the first model has no counterpart of it", layer.layer));
    }
    found_.layers.push_back(std::move(layer));
  }

  void layers() {
    for (const Node* n = reference_.front(); n; n = n->next())
      if (!n->location().empty() && hasWeights(*n)) byLocation_.emplace(n->location(), n);
    std::set<int> ends;
    for (size_t k = 0; k < ours_.all().size(); ++k) {
      const Signal& s = ours_.all()[k];
      if (s.rounded && s.seen && s.raw && s.raw->producer()) ends.insert(static_cast<int>(k));
    }
    // A layer ends at its own result where nothing rounds it before the next.
    std::set<const Node*> inside;
    std::set<int> more;
    for (const int end : ends) {
      const std::vector<const Node*> weighted = weightedOf(end, ends);
      for (const Node* n : weighted) {
        inside.insert(n);
        if (weighted.size() > 1) more.insert(endOf(*n));
      }
    }
    for (const Node* n = actual_.front(); n; n = n->next())
      if (hasWeights(*n) && !inside.contains(n) && ours_.indexOf(n->result()) >= 0) more.insert(endOf(*n));
    ends.insert(more.begin(), more.end());
    borders_ = ends;
    for (const Node* n = actual_.front(); n; n = n->next())
      if (hasWeights(*n)) borders_.insert(ours_.indexOf(n->operand(dataOperand(*n))));
    for (const int end : ends) {
      if (!nth(ours_.all(), end).raw) continue;
      const std::vector<const Node*> weighted = weightedOf(end, ends);
      if (nth(counterpart_, end) < 0 || !nth(theirs_.all(), nth(counterpart_, end)).compared())
        found_.unmatched.push_back(nth(ours_.all(), end).raw->name());
      else
        addLayer(end, weighted.size() == 1 ? weighted[0] : nullptr);
    }
    // Of floats that are narrower or wider at the very end, those in front.
    const std::vector<const Value*> theirEnds = measuredEnds(reference_), ourEnds = measuredEnds(actual_);
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const Value *x = theirEnds[i], *y = ourEnds[outputs_[i]];
      if (!isFloat(reference_.outputs()[i]->type().dtype) || x->type().dtype != DType::f32 || y->type().dtype != DType::f32) continue;
      LayerPair output;
      output.reference = x->name();
      output.actual = output.computed = y->name();
      output.layer = reference_.outputNames()[i];
      output.op = "output";
      output.output = true;
      if (const int ours = ours_.indexOf(y); ours >= 0 && ours_.all()[usize(ours)].seen == y)
        output.params = ours_.all()[usize(ours)].params;
      found_.layers.push_back(std::move(output));
    }
  }

  const Graph &reference_, &actual_;
  const std::vector<size_t> outputs_;  // of the actual, for each of the reference
  Pairing& found_;
  Signals theirs_, ours_;
  const Branches ofTheirs_, ofOurs_;
  std::vector<int> counterpart_;  // of ours, among theirs; -1: none
  std::vector<bool> taken_;
  std::set<int> borders_;
  std::map<std::string, const Node*, std::less<>> byLocation_;  // nodes of the reference with weights
};

// x[i] times by[channel], or divided.
void scale(std::span<float> x, std::span<const int64_t> sizes, int axis, const std::vector<float>& by, bool divide) {
  if (by.empty()) return;
  int64_t inner = 1;
  for (size_t d = usize(axis) + 1; d < sizes.size(); ++d) inner *= sizes[d];
  inner = std::max<int64_t>(1, inner);
  for (size_t i = 0; i < x.size(); ++i) {
    const float factor = by[i / usize(inner) % by.size()];
    x[i] = divide ? x[i] / factor : x[i] * factor;
  }
}

}  // namespace

QuantPtr ValuePair::paramsOfReference() const {
  if (!params || factors.empty()) return params;
  if (params->perChannel() && (params->axis != axis || params->blockSize > 0 || params->scales.size() != factors.size())) return nullptr;
  QuantParams moved = *params;
  moved.axis = axis;
  moved.scales.resize(factors.size());
  for (size_t c = 0; c < factors.size(); ++c) moved.scales[c] = params->scale(static_cast<int64_t>(c)) / factors[c];
  return std::make_shared<const QuantParams>(std::move(moved));
}

void ValuePair::toActual(std::span<float> x, std::span<const int64_t> sizes) const { scale(x, sizes, axis, factors, false); }
void ValuePair::toReference(std::span<float> x, std::span<const int64_t> sizes) const { scale(x, sizes, axis, factors, true); }

const ValuePair* Pairing::find(std::string_view actual) const {
  for (const ValuePair& pair : values)
    if (pair.actual == actual || pair.computed == actual) return &pair;
  return nullptr;
}

Result<Pairing> pairModels(const Graph& reference, const Graph& actual) {
  return withoutExceptions([&]() -> Result<Pairing> {
    QC_ASSIGN(std::vector<size_t> outputs, pairOutputs(reference, actual));
    Pairing found;
    Matching(reference, actual, std::move(outputs), found).run();
    return found;
  });
}

}  // namespace qc
