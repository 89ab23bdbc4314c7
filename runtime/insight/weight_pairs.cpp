#include "runtime/insight/weight_pairs.h"

#include <algorithm>
#include <map>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "ir/interp.h"
#include "ir/quantized.h"
#include "passes/pass_manager.h"
#include "quantizer/quantizer.h"
#include "quantizer/rules/op_policy.h"
#include "quantizer/signal_error.h"
#include "runtime/insight/signals.h"

namespace qc {

std::map<std::string, const Node*> weightedNodes(const Graph& graph) {
  std::map<std::string, const Node*> nodes;
  for (const Node* n = graph.front(); n; n = n->next())
    if (hasWeights(*n)) nodes.emplace(displayName(*n), n);
  return nodes;
}

namespace {

bool holdsBatchNorm(const Graph& graph) {
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->is("batch_norm")) return true;
  return false;
}

// What a value computed from constants is, as floats.
Result<std::optional<Tensor>> constantOf(const Value* value, int depth = 0) {
  constexpr int kDeepest = 16;
  if (!value || !value->producer() || depth > kDeepest) return std::nullopt;
  if (const Tensor* t = value->constant()) return std::optional(*t);
  std::vector<Tensor> operands;
  for (const Value* v : value->producer()->operands()) {
    if (!v) return std::nullopt;
    QC_ASSIGN(std::optional<Tensor> operand, constantOf(v, depth + 1));
    if (!operand) return std::nullopt;
    operands.push_back(*std::move(operand));
  }
  std::vector<const Tensor*> pointers;
  for (const Tensor& t : operands) pointers.push_back(&t);
  if (pointers.empty()) return std::nullopt;
  QC_ASSIGN(std::vector<Tensor> results, evaluateNode(*value->producer(), pointers));
  return std::optional(std::move(nth(results, value->resultIndex())));
}

// The channel of an element along one axis of a weight.
class ChannelsAlong {
 public:
  ChannelsAlong(const std::vector<int64_t>& sizes, int axis) : slices_(std::max<int64_t>(1, nth(sizes, axis))) {
    for (size_t d = usize(axis) + 1; d < sizes.size(); ++d) inner_ *= sizes[d];
    inner_ = std::max<int64_t>(1, inner_);
  }
  size_t of(size_t i) const { return i / usize(inner_) % usize(slices_); }
  size_t slices() const { return usize(slices_); }

 private:
  int64_t inner_ = 1, slices_;
};

WeightError errorOf(const Tensor& x, const Tensor& y, int axis) {
  struct Sums {
    double signal = 0, noise = 0;
  };
  const bool channels = axis >= 0 && axis < x.rank();
  const ChannelsAlong along(x.rank() > 0 ? x.sizes() : std::vector<int64_t>{1}, channels ? axis : 0);
  std::vector<Sums> by(channels ? along.slices() : 1);
  Sums all;
  const auto a = x.as<float>(), b = y.as<float>();
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - b[i], s = static_cast<double>(a[i]) * a[i];
    Sums& mine = by[channels ? along.of(i) : 0];
    mine.signal += s, mine.noise += d * d;
    all.signal += s, all.noise += d * d;
  }
  WeightError error{decibels(all.signal, all.noise), -1, 0};
  if (!channels) return error;
  for (size_t c = 0; c < by.size(); ++c) {
    if (by[c].signal == 0 && by[c].noise == 0) continue;
    const double db = decibels(by[c].signal, by[c].noise);
    if (error.worstChannel >= 0 && db >= error.worstSqnr) continue;
    error.worstChannel = static_cast<int64_t>(c);
    error.worstSqnr = db;
  }
  return error;
}

// ONNX writes the scales of an integer product's input and of its weight as one factor where both are constants.
bool sharesScaleWithInput(const Node& node) {
  for (const Value* v : node.operands())
    if (v && v->producer() && v->producer()->is("dequantize_with"))
      if (const Tensor* scale = v->producer()->operand(1)->constant(); scale && scale->numElements() == 1 && scale->at(0) == 1) return true;
  return false;
}

// Without the factor that is nearest to the reference.
void takeFactorOut(Tensor& w, const Tensor& reference) {
  const auto want = reference.as<float>();
  auto is = w.mutableAs<float>();
  double product = 0, square = 0;
  for (size_t i = 0; i < is.size(); ++i) {
    product += static_cast<double>(want[i]) * is[i];
    square += static_cast<double>(is[i]) * is[i];
  }
  if (!(product > 0)) return;
  for (float& v : is) v = static_cast<float>(v * product / square);
}

// Of several weights (a recurrent layer's) the worst.
Result<std::optional<WeightError>> errorBetween(const Node& reference, const Node& actual, const LayerPair& layer) {
  std::optional<WeightError> worst;
  if (reference.op() != actual.op()) return worst;
  for (const int i : weightOperands(reference)) {
    QC_ASSIGN(std::optional<Tensor> want, constantOf(reference.operand(i)));
    QC_ASSIGN(std::optional<Tensor> is, constantOf(actual.operand(i)));
    const bool fits = want && is && want->dtype() == DType::f32 && is->dtype() == DType::f32 && want->sizes() == is->sizes();
    if (!fits || !moveFactors(*is, actual, layer, Factors::out)) return std::nullopt;
    if (sharesScaleWithInput(actual)) takeFactorOut(*is, *want);
    const OperandSpec& spec = reference.def().operand(i);
    const int axis = spec.weight && weightOf(reference.def()) == &spec ? weightChannelAxis(reference)
                     : spec.weight                                     ? spec.weight->channel
                                                                       : -1;
    const WeightError error = errorOf(*want, *is, axis);
    if (!worst || error.sqnr < worst->sqnr) worst = error;
  }
  return worst;
}

Result<std::vector<std::optional<WeightError>>> compared(const Graph& reference, const Graph& actual, const std::vector<LayerPair>& layers,
                                                         std::vector<std::string>& notes) {
  const DefinedArithmetic defined;
  std::vector<std::optional<WeightError>> errors(layers.size());
  const bool keeps = holdsBatchNorm(actual);
  if (!keeps && holdsBatchNorm(reference) && isQuantized(reference)) {
    notes.emplace_back("weights are not compared: BatchNorm is folded into those of the second model, not into the first's");
    return errors;
  }
  const std::string pipeline =
      keeps ? "fold-constants{narrow_weights=1},recognize-integer,canonicalize,fold-constants,cse,dce" : "simplify";
  Graph x = reference.clone(), y = actual.clone();
  PassContext cx, cy;
  QC_TRY(runPipeline(pipeline, x, cx));
  QC_TRY(runPipeline(pipeline, y, cy));
  const auto theirs = weightedNodes(x), ours = weightedNodes(y);
  for (size_t k = 0; k < layers.size(); ++k) {
    const LayerPair& layer = layers[k];
    if (layer.actualNode.empty()) continue;
    const auto a = theirs.find(layer.referenceNode), b = ours.find(layer.actualNode);
    if (a != theirs.end() && b != ours.end()) {
      QC_ASSIGN(errors[k], errorBetween(*a->second, *b->second, layer));
    }
    if (!errors[k])
      notes.push_back(fmt::format("the weights of '{}' have another form in the second model, and are not compared", layer.layer));
  }
  return errors;
}

}  // namespace

bool moveFactors(Tensor& w, const Node& node, const LayerPair& layer, Factors way) {
  if (layer.factorsOfResult.empty() && layer.factorsOfInput.empty()) return true;
  if (!(node.is("conv") || node.is("linear")) || w.rank() < 2) return false;
  const ChannelsAlong outputs(w.sizes(), 0), inputs(w.sizes(), 1);
  const size_t groups = node.is("conv") ? usize(node.integer("group")) : 1, perGroup = outputs.slices() / std::max<size_t>(1, groups);
  if (!layer.factorsOfResult.empty() && layer.factorsOfResult.size() != outputs.slices()) return false;
  if (!layer.factorsOfInput.empty() && (layer.factorsOfInput.size() != inputs.slices() * groups || perGroup == 0)) return false;
  auto x = w.mutableAs<float>();
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t o = outputs.of(i);
    float up = 1, down = 1;
    if (!layer.factorsOfResult.empty()) up = layer.factorsOfResult[o];
    if (!layer.factorsOfInput.empty()) down = layer.factorsOfInput[o / perGroup * inputs.slices() + inputs.of(i)];
    x[i] = way == Factors::in ? x[i] * up / down : x[i] / up * down;
  }
  return true;
}

Result<std::vector<std::optional<WeightError>>> compareWeights(const Graph& reference, const Graph& actual,
                                                               const std::vector<LayerPair>& layers, std::vector<std::string>& notes) {
  return withoutExceptions([&] { return compared(reference, actual, layers, notes); });
}

}  // namespace qc
