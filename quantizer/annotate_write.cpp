// Annotations, from the decision and the units (annotate.cpp).
#include <algorithm>

#include "quantizer/annotator.h"
#include "quantizer/observers/observer.h"

namespace qc {
namespace {

// What weights of fewer than 8 bits are; empty: they have 8, or there are none.
std::string narrowWeights(QuantMode mode, const OpPolicy& policy, const QConfig* config) {
  if (mode != QuantMode::full || policy.role != Role::weighted || roleOf(config->weight) == ObserverRole::keepFloat) return {};
  const ObservedSpec& w = config->weight;
  if (!isInteger(w.dtype) || w.qmax - w.qmin >= 127) return {};
  const IntRange all = rangeOf(w.dtype);
  const std::string range = w.qmin == all.min && w.qmax == all.max ? "" : fmt::format("[{}:{}]", w.qmin, w.qmax);
  return fmt::format("weights {}{} per {}", toString(w.dtype), range, w.axis >= 0 ? "channel" : "tensor");
}

}  // namespace

bool Annotator::sharesResult(const Plan& p) { return p.shares && p.alone; }

// A known range that results fill is taken as it is, the others are observed and not clipped: a share that is cut off is missing in every
// sum it belongs to, while roundings of shares cancel out.
QuantSpec Annotator::fixedOr(const OpPolicy* fixed, const ObservedSpec& spec) const {
  const auto params = fixed ? fixedParams(*fixed, spec.dtype, spec.qmin, spec.qmax) : std::nullopt;
  if (!params) return spec;
  if (fixed->fillsRange || backend_) return FixedSpec{*params};
  ObservedSpec whole = spec;
  whole.observer = "minmax";
  whole.observerArgs = {};
  return whole;
}

int Annotator::firstDataOperand(const Node& node) const {
  for (int i = 0; i < node.numOperands(); ++i)
    if (isDataOperand(node, *plan(&node).policy, i)) return i;
  return 0;
}

QuantSpec Annotator::edgeSpec(const Node& user, int operand) const {
  const Value* v = user.operand(operand);
  const Node* producer = v->producer();
  // Only result 0 carries an output spec; the others take the parameters of what they were cut from.
  if (producer && v->resultIndex() > 0 && isInt8(producer)) return SharedSpec{{producer->result()->name(), firstDataOperand(*producer)}};
  return fixedOr(fixedOf(v), plan(&user).config->activation);
}

ObservedSpec Annotator::weightSpec(const Node& node) const {
  const Plan& p = plan(&node);
  ObservedSpec spec = p.config->weight;
  if (spec.axis < 0) return spec;
  spec.axis = weightChannelAxis(node);
  constexpr std::string_view kPrefix = "per_channel_";
  if (spec.axis < 0 && spec.observer.starts_with(kPrefix)) spec.observer = spec.observer.substr(kPrefix.size());
  return spec;
}

void Annotator::annotateInputs(Node& node, QuantAnnotation& a) const {
  const Plan& p = plan(&node);
  a.inputs.resize(usize(node.numOperands()));
  const std::string& self = node.result()->name();
  if (p.policy->role == Role::weighted) {
    const auto at = [&](std::string_view name) -> QuantSpec& { return nth(a.inputs, node.def().operandIndex(name)); };
    at("w") = weightSpec(node);
    if (node.operand("bias") && !p.floatBias) at("bias") = DerivedSpec{{{self, 0}, {self, 1}}, "bias", DType::s32};
  }
  int owner = -1;
  for (int i = 0; i < node.numOperands(); ++i) {
    if (!isDataOperand(node, *p.policy, i)) continue;
    const Node* producer = node.operand(i)->producer();
    if (producer && plan(producer).unit && plan(producer).unit == p.unit) continue;  // inside the unit: not rounded
    QuantSpec& spec = nth(a.inputs, i);
    if (!sharesResult(p)) {
      spec = edgeSpec(node, i);
    } else if (owner < 0) {
      owner = i;
      const QuantSpec edge = edgeSpec(node, i);
      spec = std::holds_alternative<SharedSpec>(edge) ? edge : fixedOr(fixedOf(node.result()), p.config->activation);
    } else {
      spec = SharedSpec{{self, owner}};
    }
  }
}

void Annotator::write() {
  for (Node* n = graph_.front(); n; n = n->next()) {
    Plan& p = plan(n);
    if (n->is("const") || p.claimed || n->numResults() == 0) continue;
    QuantAnnotation a;
    if (p.mode != QuantMode::none) {
      if (p.mode == QuantMode::full)
        annotateInputs(*n, a);
      else
        a.inputs = p.inputs;
      if (p.mode == QuantMode::full && p.unit == n && (sharesResult(p) || p.forced || wanted(*n))) a.output = outputSpec(*n);
      if (p.mode != QuantMode::full) p.reason = p.how + ", " + p.reason;
      if (p.mode == QuantMode::full && p.unitName != n->op()) p.reason = fmt::format("{} as one op, {}", p.unitName, p.reason);
      if (const std::string narrow = narrowWeights(p.mode, *p.policy, p.config); !narrow.empty()) p.reason = narrow + ", " + p.reason;
    }
    a.keepFloat = p.byRule;
    a.reason = p.reason;
    n->annotation() = std::move(a);
  }
}

QuantSpec Annotator::outputSpec(const Node& node) const {
  const Plan& p = plan(&node);
  if (sharesResult(p)) return SharedSpec{{node.result()->name(), firstDataOperand(node)}};
  return fixedOr(fixedOf(node.result()), p.config->activation);
}

}  // namespace qc
