// prepare-qat: fake quantization in the place of observers, and between weights and what reads them.
// A moving average is a pair of inputs "min.NAME" and "max.NAME" with outputs "next.min.NAME" and "next.max.NAME"; the input "observing" is
// 1 while they follow.  So with the running statistics of BatchNorm and the input "by_batch".  A scale that learns is a constant
// "scale.NAME", which train-step finds as it finds weights. Parameters come from cx.provide(GroupParams); the option `range` stands in for
// them.  Tests: tests/golden/prepare_qat, tests/unit/prepare_qat_test.cpp.
#include "passes/training/prepare_qat.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ir/scalar_expr.h"
#include "passes/correspondence.h"
#include "passes/passes.h"
#include "quantizer/observers/observer.h"

namespace qc {
namespace {

using E = ScalarExpr;

Tensor scalar(float value) { return Tensor::ofFloats({}, std::vector<float>{value}); }

// Scale and zero point of a range, as calculateQParams() has them.
struct RangeFormulas {
  explicit RangeFormulas(const ObservedSpec& spec, const E& min, const E& max) : scale(0.f), zeroPoint(0.f) {
    const auto qmin = static_cast<float>(spec.qmin), qmax = static_cast<float>(spec.qmax);
    const E lo = expr::min(min, 0.f), hi = expr::max(max, 0.f);
    // Nothing but zeros has no scale of its own.
    const E eps = expr::select(expr::lt(lo, hi), static_cast<float>(spec.eps), static_cast<float>(std::max(spec.eps, kEpsTorch)));
    if (spec.scheme == QScheme::affine) {
      scale = expr::max((hi - lo) / (qmax - qmin), eps);
      zeroPoint = expr::clamp(qmin - expr::unary(E::Op::round, lo / scale), qmin, qmax);
      return;
    }
    scale = expr::max(expr::max(-lo, hi) / ((qmax - qmin) / 2), eps);
    if (isSigned(spec.dtype)) return;
    const IntRange own = rangeOf(spec.dtype);
    const bool custom = spec.qmin != own.min || spec.qmax != own.max;
    zeroPoint = static_cast<float>(custom ? (spec.qmin + spec.qmax) / 2 : (own.max + 1) / 2);
  }
  E scale, zeroPoint;
};

bool followsItsWeights(const ObservedSpec& spec) { return spec.observer.ends_with("minmax") || spec.observer.ends_with("moving_average"); }

class Preparation {
 public:
  Preparation(Graph& graph, const GroupParams& params, const QatOptions& options, const FoldedBatchNorms& batchNorms)
      : graph_(graph), b_(graph), params_(params), options_(options), batchNorms_(batchNorms) {}

  Result<QatPlan> run() {
    QC_TRY(checkOptions());
    names_ = graph_.outputNames();
    if (options_.batchNorm) QC_TRY(unfold());
    outputs_ = graph_.outputs();
    for (Node* node : graph_.nodes()) {
      if (node->is("observe")) {
        QC_TRY(activation(node));
      } else if (node->annotation()) {
        const QuantAnnotation annotation = *node->annotation();
        for (size_t i = 0; i < annotation.inputs.size(); ++i) QC_TRY(weight(node, static_cast<int>(i), annotation.inputs[i]));
        node->annotation().reset();
      }
    }
    for (const auto& [folded, unfolding] : unfolded_) {
      give(unfolding.nextMean, "next." + unfolding.names.mean);
      give(unfolding.nextVar, "next." + unfolding.names.var);
    }
    for (const auto& [id, state] : averages_) {
      give(state.min, "next." + state.name.first);
      give(state.max, "next." + state.name.second);
    }
    graph_.setOutputs(std::move(outputs_));
    graph_.setOutputNames(std::move(names_));
    return std::move(plan_);
  }
  int inserted() const { return inserted_; }

 private:
  struct Average {
    std::pair<std::string, std::string> name;
    Value *min, *max;  // by now
  };

  Status checkOptions() const {
    const auto isOneOf = [](const char* what, const std::string& value, std::initializer_list<const char*> choices) -> Status {
      if (std::find(choices.begin(), choices.end(), value) != choices.end()) return {};
      return fail(ErrorCode::kInvalidArgument, "unknown way for {}: '{}'", what, value);
    };
    QC_TRY(isOneOf("weights", options_.weights, {"observed", "learned"}));
    QC_TRY(isOneOf("activations", options_.activations, {"auto", "observed", "learned", "fixed"}));
    if (!(options_.averagingConstant > 0 && options_.averagingConstant <= 1))
      return fail(ErrorCode::kInvalidArgument, "an averaging constant of {}", options_.averagingConstant);
    return {};
  }

  void give(Value* value, std::string name) {
    outputs_.push_back(value);
    names_.push_back(std::move(name));
  }

  Result<Value*> map(const E& expression, std::vector<Value*> operands) {
    if (expression.op() == E::Op::constant) return b_.constant("", scalar(expression.value()));
    return b_.create("map", std::move(operands), {{"expr", expression}});
  }

  Result<Value*> extreme(const char* op, Value* x, int keptAxis) {
    std::vector<int64_t> axes;
    for (int d = 0; d < x->type().rank(); ++d)
      if (d != keptAxis) axes.push_back(d);
    return b_.create(op, {x}, {{"axes", axes}, {"keepdims", int64_t{keptAxis >= 0}}});
  }

  Result<Value*> rounded(Value* x, Value* scale, Value* zeroPoint, int64_t qmin, int64_t qmax, bool learns, const std::string& name) {
    ++inserted_;
    const double spread = static_cast<double>(x->type().numElements()) * static_cast<double>(std::max<int64_t>(qmax, 1));
    return b_.create(
        "fake_quantize_with", {x, scale, zeroPoint},
        {{"qmin", qmin}, {"qmax", qmax}, {"learnable", int64_t{learns}}, {"grad_factor", learns ? 1 / std::sqrt(spread) : 1.0}}, name);
  }

  // ---- BatchNorm ----------------------------------------------------------------------------------

  bool roundsWeight(const Node& node) const {
    if (!node.annotation() || node.annotation()->inputs.size() < 2) return false;
    const QuantSpec& spec = node.annotation()->inputs[1];
    const auto* observed = std::get_if<ObservedSpec>(&spec);
    return observed ? !observed->dynamic : std::holds_alternative<FixedSpec>(spec);
  }

  Status unfold() {
    QC_ASSIGN(const std::vector<Move> moves, movesOf(graph_));
    for (Node* layer : graph_.nodes()) {
      const std::string value = layer->numResults() == 1 ? layer->result()->name() : std::string();
      const auto folded = batchNorms_.find(value);
      if (folded == batchNorms_.end() || !roundsWeight(*layer)) continue;
      Value *weight = layer->operand(1), *bias = layer->operand(2);
      if (!weight || !bias || !weight->constant() || !bias->constant() || !weight->hasOneUse() || !bias->hasOneUse()) continue;
      if (!layer->result()->type().isStatic())
        return fail(ErrorCode::kUnsupported, "training needs sizes, this is {}", layer->result()->type().str())
            .on(value)
            .help("bind its shapes first");
      std::vector<float> factor;
      for (const Move& move : moves)
        for (const Move::Pair& pair : move.values) {
          if (pair.value != value || pair.of != value || move.factors.size() != folded->second.gamma.size()) continue;
          factor.resize(move.factors.size(), 1.0f);
          for (size_t c = 0; c < factor.size(); ++c) factor[c] *= move.factors[c];
        }
      if (!byBatch_) {
        byBatch_ = graph_.addInput("by_batch", {DType::f32, {}});
        plan_.byBatch = byBatch_->name();
      }
      QC_ASSIGN(Unfolding made, unfoldBatchNorm(graph_, layer, folded->second, factor, byBatch_, options_.momentum));
      plan_.states[made.names.mean] = made.mean;
      plan_.states[made.names.var] = made.var;
      for (const std::string& name : {made.names.unfolded, made.names.gamma, made.names.beta}) plan_.parameters.push_back(name);
      plan_.batchNorms.push_back(made.names);
      unfolded_.emplace_back(weight, std::move(made));
    }
    if (unfolded_.empty())
      return fail(ErrorCode::kInvalidArgument, "no BatchNorm stands behind a layer whose weights are rounded")
          .help("train with what it was folded into");
    return {};
  }

  // Of what the layer gives in the observed graph.
  std::string observedName(const Node* layer) const {
    for (const auto& [folded, unfolding] : unfolded_)
      if (unfolding.layer == layer) return unfolding.names.value;
    return layer->result()->name();
  }

  // What a layer reads for its weight before it is rounded.
  Value* sourceOf(Value* weight) const {
    for (const auto& [folded, unfolding] : unfolded_)
      if (folded == weight) return unfolding.scaled;
    return weight;
  }

  // ---- activations ------------------------------------------------------------------------------

  Result<QuantPtr> calibrated(const Node& observe, const QuantSpec& spec) const {
    if (const auto* fixed = std::get_if<FixedSpec>(&spec)) return std::make_shared<const QuantParams>(fixed->params);
    const auto it = params_.find(observe.integer("id"));
    if (it != params_.end()) return it->second;
    return fail(ErrorCode::kInvalidData, "no range was calibrated for observer {}", observe.integer("id"))
        .at(observe.location())
        .on(observe.operand(0)->name())
        .help("calibrate with samples that reach this value, or keep it float by a rule");
  }

  std::string wayOf(const ObservedSpec& spec) const {
    if (options_.activations != "auto") return options_.activations;
    constexpr int64_t kStepsOf7Bits = 127;
    return spec.qmax - spec.qmin < kStepsOf7Bits ? "learned" : "observed";
  }

  Status activation(Node* observe) {
    const QuantSpec spec = observe->annotation() ? observe->annotation()->output : QuantSpec();
    QC_ASSIGN(const QuantPtr params, calibrated(*observe, spec));
    Value* x = observe->operand(0);
    if (!x->type().isStatic())
      return fail(ErrorCode::kUnsupported, "training needs sizes, this is {}", x->type().str()).on(x->name()).help("bind its shapes first");
    b_.before(observe).at(observe->location());
    const auto* observed = std::get_if<ObservedSpec>(&spec);
    Value* result = nullptr;
    if (observed && wayOf(*observed) == "observed") {
      QC_ASSIGN(result, averaged(*observe, *observed, params));
    } else {
      QC_ASSIGN(result, withConstants(*observe, observed, params));
    }
    observe->annotation().reset();
    observe->result()->replaceAllUsesWith(result);
    for (Value*& v : outputs_)
      if (v == observe->result()) v = result;
    graph_.erase(observe);
    return {};
  }

  // The observer sees the batch first, then its parameters round it; values that share it follow one after another.
  Result<Value*> averaged(const Node& observe, const ObservedSpec& spec, const QuantPtr& params) {
    Value* x = observe.operand(0);
    const int64_t id = observe.integer("id");
    auto state = averages_.find(id);
    if (state == averages_.end()) {
      Value* min = graph_.addInput("min." + x->name(), {DType::f32, {}});
      Value* max = graph_.addInput("max." + x->name(), {DType::f32, {}});
      state = averages_.emplace(id, Average{{min->name(), max->name()}, min, max}).first;
      const float scale = params->scale();
      const auto zero = static_cast<float>(params->zeroPoint());
      const bool mirrored = spec.scheme == QScheme::symmetric;
      const float half = static_cast<float>(spec.qmax - spec.qmin) / 2 * scale;
      plan_.states[min->name()] = scalar(mirrored ? -half : (static_cast<float>(spec.qmin) - zero) * scale);
      plan_.states[max->name()] = scalar(mirrored ? half : (static_cast<float>(spec.qmax) - zero) * scale);
      plan_.activations.push_back({id, spec, min->name(), max->name(), {}, {}, params});
    }
    if (!observing_) {
      observing_ = graph_.addInput("observing", {DType::f32, {}});
      plan_.observing = observing_->name();
    }
    Average& average = state->second;
    const Attr* named = spec.observerArgs.find("averaging_constant");
    const auto constant = static_cast<float>(named ? std::get<double>(*named) : options_.averagingConstant);
    const E next = expr::select(E::arg(2), E::arg(0) + constant * (E::arg(1) - E::arg(0)), E::arg(0));
    QC_ASSIGN(Value * lowest, extreme("reduce_min", x, -1));
    QC_ASSIGN(Value * highest, extreme("reduce_max", x, -1));
    QC_ASSIGN(average.min, map(next, {average.min, lowest, observing_}));
    QC_ASSIGN(average.max, map(next, {average.max, highest, observing_}));
    const RangeFormulas formulas(spec, E::arg(0), E::arg(1));
    QC_ASSIGN(Value * scale, map(formulas.scale, {average.min, average.max}));
    QC_ASSIGN(Value * zero, map(formulas.zeroPoint, {average.min, average.max}));
    return rounded(x, scale, zero, spec.qmin, spec.qmax, false, x->name() + "_fake");
  }

  // spec: null: parameters known beforehand, which never learn.
  Result<Value*> withConstants(const Node& observe, const ObservedSpec* spec, const QuantPtr& params) {
    Value* x = observe.operand(0);
    const int64_t id = observe.integer("id");
    const bool learns = spec && wayOf(*spec) == "learned";
    auto known = constants_.find(id);
    if (known == constants_.end()) {
      Value* scale = b_.constant("scale." + x->name(), scalar(params->scale()));
      Value* zero = b_.constant("zero_point." + x->name(), scalar(static_cast<float>(params->zeroPoint())));
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
    return rounded(x, scale, learns && spec->scheme != QScheme::affine ? fixedZero(zero) : zero, params->qmin, params->qmax, learns,
                   x->name() + "_fake");
  }

  // ---- weights ----------------------------------------------------------------------------------

  // A constant that train-step does not take for a parameter.
  Value* fixedZero(Value* zero) { return b_.make("identity", {zero}); }

  Status weight(Node* node, int operand, const QuantSpec& given) {
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
    b_.before(sourceOf(w)->producer()->next()).at(node->location());
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

  // Of parameters that were chosen: scales that learn stay symmetric where they are.
  static ObservedSpec specOf(const QuantParams& params) {
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

  Result<Value*> followedWeight(Value* w, const ObservedSpec& spec) {
    if (spec.axis >= w->type().rank()) return fail(ErrorCode::kInvalidArgument, "axis {} of {}", spec.axis, w->type().str()).on(w->name());
    Value* source = sourceOf(w);
    QC_ASSIGN(Value * lowest, extreme("reduce_min", source, spec.axis));
    QC_ASSIGN(Value * highest, extreme("reduce_max", source, spec.axis));
    const RangeFormulas formulas(spec, E::arg(0), E::arg(1));
    QC_ASSIGN(Value * scale, map(formulas.scale, {lowest, highest}));
    QC_ASSIGN(Value * zero, map(formulas.zeroPoint, {lowest, highest}));
    return rounded(source, scale, zero, spec.qmin, spec.qmax, false, w->name() + "_fake");
  }

  Result<Value*> withConstantScale(Value* w, const QuantParams& params, const ObservedSpec& spec, bool learns) {
    std::vector<int64_t> sizes;
    if (params.axis >= 0) {
      sizes.assign(usize(w->type().rank() - params.axis), 1);
      sizes[0] = nth(w->type().sizes(), params.axis);
    }
    Tensor scales(DType::f32, sizes), zeros(DType::f32, sizes);
    for (int64_t i = 0; i < scales.numElements(); ++i) {
      nth(scales.mutableAs<float>(), i) = params.scale(i);
      nth(zeros.mutableAs<float>(), i) = static_cast<float>(params.zeroPoint(i));
    }
    Value* scale = b_.constant("scale." + w->name(), std::move(scales));
    Value* zero = b_.constant("zero_point." + w->name(), std::move(zeros));
    const bool moves = learns && spec.scheme == QScheme::affine;
    if (learns) plan_.weights.push_back({spec, std::make_shared<const QuantParams>(params), scale->name(), moves ? zero->name() : "", {}});
    return rounded(sourceOf(w), scale, moves || !learns ? zero : fixedZero(zero), params.qmin, params.qmax, learns, w->name() + "_fake");
  }

  Graph& graph_;
  Builder b_;
  const GroupParams& params_;
  const QatOptions& options_;
  const FoldedBatchNorms& batchNorms_;
  std::vector<Value*> outputs_;
  std::vector<std::string> names_;
  QatPlan plan_;
  Value *observing_ = nullptr, *byBatch_ = nullptr;
  std::vector<std::pair<Value*, Unfolding>> unfolded_;  // by the weight that BatchNorm is folded into
  std::map<int64_t, Average> averages_;
  std::map<int64_t, std::pair<Value*, Value*>> constants_;
  std::map<std::pair<Value*, std::string>, std::pair<Value*, int64_t>> weights_;  // and the place in the plan
  int inserted_ = 0;
};

// For golden tests: the same parameters for every observer.
Result<GroupParams> paramsOfRange(const Graph& graph, const std::vector<double>& range) {
  GroupParams params;
  if (range.empty()) return params;
  if (range.size() != 2 || !(range[0] <= range[1])) return fail(ErrorCode::kInvalidArgument, "range wants [low, high]");
  for (const Node* n = graph.front(); n; n = n->next()) {
    const auto* spec = n->is("observe") && n->annotation() ? std::get_if<ObservedSpec>(&n->annotation()->output) : nullptr;
    if (!spec) continue;
    QC_ASSIGN(const ScaleZero sz, calculateQParams(static_cast<float>(range[0]), static_cast<float>(range[1]), requestFor(*spec)));
    params[n->integer("id")] =
        std::make_shared<const QuantParams>(QuantParams{spec->dtype, spec->qmin, spec->qmax, -1, 0, {sz.scale}, {sz.zeroPoint}});
  }
  return params;
}

}  // namespace

Result<QatPlan> prepareQat(Graph& graph, const GroupParams& params, const QatOptions& options, const FoldedBatchNorms& batchNorms) {
  return Preparation(graph, params, options, batchNorms).run();
}

Status prepareQat(Graph& graph, PassContext& cx) {
  const QatOptions options{cx.options.string("weights"), cx.options.string("activations"), cx.options.real("averaging_constant"),
                           cx.options.integer("batch_norm") != 0};
  GroupParams params;
  if (const auto* given = cx.get<GroupParams>()) {
    params = *given;
  } else {
    QC_ASSIGN(params, paramsOfRange(graph, cx.options.reals("range")));
  }
  const auto* kept = cx.get<FoldedBatchNorms>();
  const FoldedBatchNorms batchNorms = kept ? *kept : FoldedBatchNorms();
  Preparation preparation(graph, params, options, batchNorms);
  QC_ASSIGN(const QatPlan plan, preparation.run());
  cx.countHits({{"fake_quantizations", preparation.inserted()}});
  return {};
}

}  // namespace qc
