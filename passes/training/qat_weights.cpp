#include "passes/training/qat_weights.h"

#include <algorithm>

#include "passes/correspondence.h"

namespace qc {

using E = ScalarExpr;

namespace {

bool followsItsWeights(const ObservedSpec& spec) { return spec.observer.ends_with("minmax") || spec.observer.ends_with("moving_average"); }

// Of parameters that were chosen: scales that learn stay symmetric where they are.
ObservedSpec specOf(const QuantParams& params) {
  const bool symmetric =
      isSigned(params.storage) && std::all_of(params.zeroPoints.begin(), params.zeroPoints.end(), [](int32_t z) { return z == 0; });
  ObservedSpec spec;
  spec.dtype = params.storage;
  spec.qmin = params.qmin;
  spec.qmax = params.qmax;
  spec.scheme = symmetric ? QScheme::symmetric : QScheme::affine;
  spec.axis = params.axis;
  return spec;
}

}  // namespace

bool QatWeights::roundsWeight(const Node& node) const {
  if (!node.annotation() || node.annotation()->inputs.size() < 2) return false;
  const QuantSpec& spec = node.annotation()->inputs[1];
  const auto* observed = std::get_if<ObservedSpec>(&spec);
  return observed ? !observed->dynamic : std::holds_alternative<FixedSpec>(spec);
}

Status QatWeights::takeOut(const FoldedBatchNorms& batchNorms) {
  QC_ASSIGN(const std::vector<Move> moves, movesOf(r_.graph));
  for (Node* layer : r_.graph.nodes()) {
    const std::string value = layer->numResults() == 1 ? layer->result()->name() : std::string();
    const auto folded = batchNorms.find(value);
    if (folded == batchNorms.end() || !roundsWeight(*layer)) continue;
    Value *weight = layer->operand(1), *bias = layer->operand(2);
    if (!weight || !bias || !weight->constant() || !bias->constant() || !weight->hasOneUse() || !bias->hasOneUse()) continue;
    if (!layer->result()->type().isStatic())
      return fail(ErrorCode::kUnsupported, "training needs sizes, this is {}", layer->result()->type().str())
          .on(value)
          .help("bind its shapes first");
    if (options_.takesStatistics && layer->result()->type().numElements() <= std::ssize(folded->second.gamma))
      return fail(ErrorCode::kInvalidArgument, "a batch gives one value a channel, which has no variance")
          .at(layer->location())
          .on(value)
          .help("train with a larger batch");
    std::vector<float> factor;
    for (const Move& move : moves)
      for (const Move::Pair& pair : move.values) {
        if (pair.value != value || pair.of != value || move.factors.size() != folded->second.gamma.size()) continue;
        factor.resize(move.factors.size(), 1.0f);
        for (size_t c = 0; c < factor.size(); ++c) factor[c] *= move.factors[c];
      }
    if (!byBatch_) {
      byBatch_ = r_.graph.addInput("by_batch", {DType::f32, {}});
      plan_.byBatch = byBatch_->name();
    }
    QC_ASSIGN(Unfolding made, unfoldBatchNorm(r_.graph, layer, folded->second, factor, byBatch_, options_.momentum));
    plan_.states[made.names.mean] = made.mean;
    plan_.states[made.names.var] = made.var;
    for (const std::string& name : {made.names.unfolded, made.names.gamma, made.names.beta}) plan_.parameters.push_back(name);
    plan_.batchNorms.push_back(made.names);
    unfolded_.emplace_back(weight, std::move(made));
  }
  if (unfolded_.empty())
    return fail(ErrorCode::kInvalidArgument, "no BatchNorm stands behind a layer whose weights are rounded")
        .help("train without statistics of batches; where an exporter has folded BatchNorm, export the model with it");
  return {};
}

std::string QatWeights::observedName(const Node* layer) const {
  for (const auto& [folded, unfolding] : unfolded_)
    if (unfolding.layer == layer) return unfolding.names.value;
  return layer->result()->name();
}

Value* QatWeights::sourceOf(Value* weight) const {
  for (const auto& [folded, unfolding] : unfolded_)
    if (folded == weight) return unfolding.scaled;
  return weight;
}

void QatWeights::giveStates(std::vector<Value*>& outputs, std::vector<std::string>& names) const {
  for (const auto& [folded, unfolding] : unfolded_) {
    outputs.push_back(unfolding.nextMean);
    names.push_back("next." + unfolding.names.mean);
    outputs.push_back(unfolding.nextVar);
    names.push_back("next." + unfolding.names.var);
  }
}

Status QatWeights::round(Node* node, int operand, const QuantSpec& given) {
  Value* w = node->operand(operand);
  if (!w || !w->constant() || w->type().dtype != DType::f32) return {};
  const auto* observed = std::get_if<ObservedSpec>(&given);
  const auto* fixed = std::get_if<FixedSpec>(&given);
  if (!fixed && (!observed || observed->dynamic)) return {};
  if (fixed ? fixed->params.blockSize > 0 : observed->blockSize > 0 || observed->scheme == QScheme::floatQparams)
    return fail(ErrorCode::kUnsupported, "weights in groups, and rows of embeddings, cannot be rounded while they learn")
        .at(node->location())
        .on(w->name())
        .help("give them one scale per channel, or keep this layer float by a rule");
  const auto key = std::pair(w, toString(given));
  if (const auto it = weights_.find(key); it != weights_.end()) {
    node->setOperand(operand, it->second.first);
    if (it->second.second >= 0) nth(plan_.weights, it->second.second).uses.emplace_back(observedName(node), operand);
    return {};
  }
  r_.b.before(sourceOf(w)->producer()->next()).at(node->location());
  const bool learns = options_.weights == "learned" || (observed && !followsItsWeights(*observed));
  Value* result = nullptr;
  if (learns || fixed) {
    QC_ASSIGN(const QuantParams params, fixed ? Result<QuantParams>(fixed->params) : observeConstant(*w->constant(), *observed));
    QC_ASSIGN(result, withConstantScale(w, params, observed ? *observed : specOf(params), learns));
  } else {
    QC_ASSIGN(result, followedWeight(w, *observed));
  }
  if (learns) plan_.weights.back().uses.emplace_back(observedName(node), operand);
  weights_.emplace(key, std::pair(result, learns ? std::ssize(plan_.weights) - 1 : -1));
  node->setOperand(operand, result);
  return {};
}

Result<Value*> QatWeights::followedWeight(Value* w, const ObservedSpec& spec) {
  if (spec.axis >= w->type().rank()) return fail(ErrorCode::kInvalidArgument, "axis {} of {}", spec.axis, w->type().str()).on(w->name());
  Value* source = sourceOf(w);
  QC_ASSIGN(Value * lowest, r_.extreme("reduce_min", source, spec.axis));
  QC_ASSIGN(Value * highest, r_.extreme("reduce_max", source, spec.axis));
  const RangeFormulas formulas(spec, E::arg(0), E::arg(1));
  QC_ASSIGN(Value * scale, r_.map(formulas.scale, {lowest, highest}));
  QC_ASSIGN(Value * zero, r_.map(formulas.zeroPoint, {lowest, highest}));
  return r_.rounded(source, scale, zero, spec.qmin, spec.qmax, false, w->name() + "_fake");
}

Result<Value*> QatWeights::withConstantScale(Value* w, const QuantParams& params, const ObservedSpec& spec, bool learns) {
  Tensor scales = spreadScales(params, w->type().sizes()), zeros(DType::f32, scales.sizes());
  for (int64_t i = 0; i < zeros.numElements(); ++i) nth(zeros.mutableAs<float>(), i) = static_cast<float>(params.zeroPoint(i));
  Value* scale = r_.b.constant("scale." + w->name(), std::move(scales));
  Value* zero = r_.b.constant("zero_point." + w->name(), std::move(zeros));
  const bool moves = learns && spec.scheme == QScheme::affine;
  if (learns) plan_.weights.push_back({spec, std::make_shared<const QuantParams>(params), scale->name(), moves ? zero->name() : "", {}});
  return r_.rounded(sourceOf(w), scale, moves || !learns ? zero : r_.untrained(zero), params.qmin, params.qmax, learns,
                    w->name() + "_fake");
}

}  // namespace qc
