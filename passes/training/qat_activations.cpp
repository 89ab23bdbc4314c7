#include "passes/training/qat_activations.h"

#include <algorithm>

namespace qc {

using E = ScalarExpr;

Result<QuantPtr> QatActivations::calibrated(const Node& observe, const QuantSpec& spec) const {
  if (const auto* fixed = std::get_if<FixedSpec>(&spec)) return std::make_shared<const QuantParams>(fixed->params);
  const auto it = params_.find(observe.integer("id"));
  if (it != params_.end()) return it->second;
  return fail(ErrorCode::kInvalidData, "no range was calibrated for observer {}", observe.integer("id"))
      .at(observe.location())
      .on(observe.operand(0)->name())
      .help("calibrate with samples that reach this value, or keep it float by a rule");
}

std::string QatActivations::wayOf(const ObservedSpec& spec) const {
  if (options_.activations != "auto") return options_.activations;
  constexpr int64_t kStepsOf7Bits = 127;
  return spec.qmax - spec.qmin < kStepsOf7Bits ? "learned" : options_.ofManyBits;
}

Status QatActivations::round(Node* observe, std::vector<Value*>& outputs) {
  const QuantSpec spec = observe->annotation() ? observe->annotation()->output : QuantSpec();
  QC_ASSIGN(const QuantPtr params, calibrated(*observe, spec));
  Value* x = observe->operand(0);
  if (!x->type().isStatic())
    return fail(ErrorCode::kUnsupported, "training needs sizes, this is {}", x->type().str()).on(x->name()).help("bind its shapes first");
  r_.b.before(observe).at(observe->location());
  const auto* observed = std::get_if<ObservedSpec>(&spec);
  Value* result = nullptr;
  if (observed && wayOf(*observed) == "observed") {
    QC_ASSIGN(result, averaged(*observe, *observed, params));
  } else {
    QC_ASSIGN(result, withConstants(*observe, observed, params));
  }
  observe->annotation().reset();
  observe->result()->replaceAllUsesWith(result);
  for (Value*& v : outputs)
    if (v == observe->result()) v = result;
  r_.graph.erase(observe);
  return {};
}

void QatActivations::giveStates(std::vector<Value*>& outputs, std::vector<std::string>& names) const {
  for (const auto& [id, state] : averages_) {
    outputs.push_back(state.min);
    names.push_back("next." + state.name.first);
    outputs.push_back(state.max);
    names.push_back("next." + state.name.second);
  }
}

Result<Value*> QatActivations::averaged(const Node& observe, const ObservedSpec& spec, const QuantPtr& params) {
  Value* x = observe.operand(0);
  const int64_t id = observe.integer("id");
  auto state = averages_.find(id);
  if (state == averages_.end()) {
    Value* min = r_.graph.addInput("min." + x->name(), {DType::f32, {}});
    Value* max = r_.graph.addInput("max." + x->name(), {DType::f32, {}});
    state = averages_.emplace(id, Average{{min->name(), max->name()}, min, max}).first;
    const float scale = params->scale();
    const auto zero = static_cast<float>(params->zeroPoint());
    const bool mirrored = spec.scheme == QScheme::symmetric;
    const float half = static_cast<float>(spec.qmax - spec.qmin) / 2 * scale;
    plan_.states[min->name()] = scalarTensor(mirrored ? -half : (static_cast<float>(spec.qmin) - zero) * scale);
    plan_.states[max->name()] = scalarTensor(mirrored ? half : (static_cast<float>(spec.qmax) - zero) * scale);
    plan_.activations.push_back({id, spec, min->name(), max->name(), {}, {}, params});
  }
  if (!observing_) {
    observing_ = r_.graph.addInput("observing", {DType::f32, {}});
    plan_.observing = observing_->name();
  }
  Average& average = state->second;
  const Attr* named = spec.observerArgs.find("averaging_constant");
  const auto constant = static_cast<float>(named ? std::get<double>(*named) : options_.averagingConstant);
  const E next = expr::select(E::arg(2), E::arg(0) + constant * (E::arg(1) - E::arg(0)), E::arg(0));
  QC_ASSIGN(Value * lowest, r_.extreme("reduce_min", x, -1));
  QC_ASSIGN(Value * highest, r_.extreme("reduce_max", x, -1));
  QC_ASSIGN(average.min, r_.map(next, {average.min, lowest, observing_}));
  QC_ASSIGN(average.max, r_.map(next, {average.max, highest, observing_}));
  const RangeFormulas formulas(spec, E::arg(0), E::arg(1));
  QC_ASSIGN(Value * scale, r_.map(formulas.scale, {average.min, average.max}));
  QC_ASSIGN(Value * zero, r_.map(formulas.zeroPoint, {average.min, average.max}));
  return r_.rounded(x, scale, zero, spec.qmin, spec.qmax, false, x->name() + "_fake");
}

Result<Value*> QatActivations::withConstants(const Node& observe, const ObservedSpec* spec, const QuantPtr& params) {
  Value* x = observe.operand(0);
  const int64_t id = observe.integer("id");
  const bool learns = spec && wayOf(*spec) == "learned";
  auto known = constants_.find(id);
  if (known == constants_.end()) {
    Value* scale = r_.b.constant("scale." + x->name(), scalarTensor(params->scale()));
    Value* zero = r_.b.constant("zero_point." + x->name(), scalarTensor(static_cast<float>(params->zeroPoint())));
    known = constants_.emplace(id, std::pair(scale, zero)).first;
    if (spec)
      plan_.activations.push_back({id,
                                   *spec,
                                   {},
                                   {},
                                   learns ? scale->name() : std::string(),
                                   learns && spec->scheme == QScheme::affine ? zero->name() : std::string(),
                                   params});
  }
  const auto [scale, zero] = known->second;
  // One that is fixed is read behind a node that no gradient passes.
  return r_.rounded(x, scale, learns && spec->scheme != QScheme::affine ? r_.untrained(zero) : zero, params->qmin, params->qmax, learns,
                    x->name() + "_fake");
}

}  // namespace qc
