// convert: observers become quantize / dequantize pairs with the parameters of their group; constants that a spec asks for
// become integer constants behind a dequantize; derived biases become int32.  A bias that would not fit in int32 at scale
// sx * sw widens that channel's weight scale instead, and is reported.
// Parameters come from cx.provide(GroupParams) (what calibration found); the option `range` stands in for groups without, so
// that a pipeline can be written and timed without data.  Tests: tests/golden/convert.
#include <cmath>

#include "ir/qmath.h"
#include "passes/convert_derived.h"
#include "passes/group_params.h"
#include "passes/passes.h"
#include "passes/quantize_table.h"
#include "quantizer/observer.h"
#include "quantizer/qparams.h"

namespace qc {
namespace {

// |bias / (sx * sw)| stays below this, which leaves the accumulator half of int32's range.
constexpr double kLargestBias = 1 << 30;

Tensor quantizeTensor(const Tensor& t, const QuantParams& q) {
  Tensor out(q.storage, t.sizes());
  const auto x = t.as<float>();
  int64_t inner = 1;
  for (int i = q.axis + 1; i < t.rank(); ++i) inner *= t.sizes()[static_cast<size_t>(i)];
  const int64_t channels = q.perChannel() ? t.sizes()[static_cast<size_t>(q.axis)] : 1;
  void* data = out.mutableData();
  for (int64_t i = 0; i < t.numElements(); ++i) {
    const int64_t c = q.perChannel() ? i / inner % channels : 0;
    const int32_t v = qmath::quantize(x[static_cast<size_t>(i)], q.scale(c), q.zeroPoint(c), static_cast<int32_t>(q.qmin), static_cast<int32_t>(q.qmax));
    storeElement(q.storage, data, i, v);
  }
  return out;
}

class Conversion {
 public:
  Conversion(Graph& graph, PassContext& cx) : graph_(graph), cx_(cx) {}

  Status run() {
    QC_TRY(readDefaultRange());
    for (Node* node : graph_.nodes())
      if (node->is("observe")) QC_TRY(convertObserver(node));
    for (Node* node : graph_.nodes()) {
      if (!node->annotation()) continue;
      QC_TRY(convertConstants(node));
      node->annotation().reset();
    }
    graph_.eraseDeadNodes();
    return {};
  }

 private:
  Status readDefaultRange() {
    const auto& range = cx_.options.reals("range");
    if (range.empty()) return {};
    if (range.size() != 2 || !(range[0] <= range[1])) return fail(ErrorCode::kInvalidArgument, "range wants [low, high]");
    defaultRange_ = {static_cast<float>(range[0]), static_cast<float>(range[1])};
    return {};
  }

  Result<QuantPtr> paramsOf(const Node& observe) {
    const QuantSpec& spec = observe.annotation()->output;
    if (const auto* fixed = std::get_if<FixedSpec>(&spec)) return std::make_shared<const QuantParams>(fixed->params);
    if (const auto* groups = cx_.get<GroupParams>())
      if (const auto it = groups->find(observe.integer("id")); it != groups->end()) return it->second;
    const auto* observed = std::get_if<ObservedSpec>(&spec);
    if (!observed || !defaultRange_)
      return fail(ErrorCode::kInvalidData, "no range was calibrated for observer {}", observe.integer("id"))
          .at(observe.location())
          .on(observe.operand(0)->name())
          .help("calibrate with samples that reach this value, or keep it float by a rule");
    QC_ASSIGN(const ScaleZero sz, calculateQParams(defaultRange_->first, defaultRange_->second, requestFor(*observed)));
    return std::make_shared<const QuantParams>(QuantParams{observed->dtype, observed->qmin, observed->qmax, -1, 0, {sz.scale}, {sz.zeroPoint}});
  }

  Status convertObserver(Node* observe) {
    QC_ASSIGN(const QuantPtr params, paramsOf(*observe));
    Builder b(graph_);
    b.before(observe);
    Value* source = observe->operand(0);
    QC_ASSIGN(Value * q, b.create("quantize", {source}, {{"to", QuantAttr{params}}}, source->name() + "_q"));
    QC_ASSIGN(Value * dq, b.create("dequantize", {q}, {}, source->name() + "_dq"));
    observe->annotation().reset();
    observe->result()->replaceAllUsesWith(dq);
    graph_.erase(observe);
    return {};
  }

  // Parameters of a constant from its own values.
  Result<QuantPtr> constantParams(const Tensor& t, const ObservedSpec& spec) {
    QC_ASSIGN(QuantParams params, observeConstant(t, spec));
    return std::make_shared<const QuantParams>(std::move(params));
  }

  Value* quantizedConstant(Node* user, Value* constant, const QuantPtr& params) {
    Value*& known = constants_[{constant, toString(*params)}];
    if (known) return known;
    Builder b(graph_);
    b.before(constant->producer()->next());
    b.at(user->location());
    Value* q = b.constant(constant->name() + "_q", quantizeTensor(*constant->constant(), *params), params);
    known = b.make("dequantize", {q}, {}, constant->name() + "_dq");
    return known;
  }

  static const QuantParams* paramsBehind(const Value* v) {
    const Node* producer = v ? v->producer() : nullptr;
    return producer && producer->is("dequantize") ? producer->operand(0)->type().quant.get() : nullptr;
  }

  // Widens scales of output channels whose bias would overflow.
  QuantPtr biasSafe(const Node& node, const QuantPtr& weight, const Tensor* bias, const QuantParams* x) {
    if (!bias || !x || bias->dtype() != DType::f32) return weight;
    auto safe = std::make_shared<QuantParams>(*weight);
    int widened = 0;
    for (int64_t c = 0; c < bias->numElements(); ++c) {
      float& scale = safe->scales.size() == 1 ? safe->scales[0] : safe->scales[static_cast<size_t>(c)];
      const double needed = std::fabs(static_cast<double>(bias->as<float>()[static_cast<size_t>(c)])) / kLargestBias / x->scale();
      if (needed > scale) {
        scale = static_cast<float>(needed * (1 + 1e-6));
        ++widened;
      }
    }
    if (widened) cx_.remark(&node, fmt::format("weight scale of {} output channels widened so that the bias fits in int32", widened));
    return widened ? QuantPtr(safe) : weight;
  }

  Status convertConstants(Node* node) {
    const QuantAnnotation annotation = *node->annotation();
    for (size_t i = 0; i < annotation.inputs.size(); ++i) {
      const auto operand = static_cast<int>(i);
      Value* v = node->operand(operand);
      if (!v || !v->constant() || v->type().dtype != DType::f32) continue;
      QuantPtr params;
      if (const auto* observed = std::get_if<ObservedSpec>(&annotation.inputs[i])) {
        if (observed->scheme == QScheme::floatQparams) {
          QC_TRY(quantizeTable(node, *observed));
          continue;
        }
        QC_ASSIGN(params, constantParams(*v->constant(), *observed));
      } else if (const auto* fixed = std::get_if<FixedSpec>(&annotation.inputs[i])) {
        params = std::make_shared<const QuantParams>(fixed->params);
      } else {
        continue;
      }
      const Value* bias = node->operand(2);
      const bool hasBias = annotation.inputs.size() > 2 && std::holds_alternative<DerivedSpec>(annotation.inputs[2]) && bias;
      if (i == 1 && hasBias) params = biasSafe(*node, params, bias->constant(), paramsBehind(node->operand(0)));
      node->setOperand(operand, quantizedConstant(node, v, params));
    }
    for (size_t i = 0; i < annotation.inputs.size(); ++i) {
      const auto* derived = std::get_if<DerivedSpec>(&annotation.inputs[i]);
      const Value* v = node->operand(static_cast<int>(i));
      if (!derived || !v) continue;
      const bool bias = derived->function == "bias" && v->constant();
      QC_TRY(bias ? convertBias(node, static_cast<int>(i)) : convertDerived(node, static_cast<int>(i), *derived));
    }
    if (const auto* derived = std::get_if<DerivedSpec>(&annotation.output)) QC_TRY(convertDerived(node, -1, *derived));
    return {};
  }

  Status convertBias(Node* node, int operand) {
    Value* bias = node->operand(operand);
    const QuantParams* x = paramsBehind(node->operand(0));
    const QuantParams* w = paramsBehind(node->operand(1));
    if (!bias || !bias->constant() || bias->type().dtype != DType::f32 || !x || !w) return {};
    const int64_t channels = bias->type().numElements();
    QuantParams q{DType::s32, rangeOf(DType::s32).min, rangeOf(DType::s32).max, w->perChannel() ? 0 : -1, 0, {}, {0}};
    for (const float scale : w->scales) q.scales.push_back(x->scale() * scale);
    Tensor t(DType::s32, bias->type().sizes());
    for (int64_t c = 0; c < channels; ++c)
      t.mutableAs<int32_t>()[static_cast<size_t>(c)] = qmath::quantizeBias(bias->constant()->as<float>()[static_cast<size_t>(c)], x->scale(), w->scale(c));
    Builder b(graph_);
    b.before(node);
    Value* quantized = b.constant(bias->name() + "_q", std::move(t), std::make_shared<const QuantParams>(std::move(q)));
    QC_ASSIGN(Value * dq, b.create("dequantize", {quantized}, {}, bias->name() + "_dq"));
    node->setOperand(operand, dq);
    return {};
  }

  Graph& graph_;
  PassContext& cx_;
  std::optional<std::pair<float, float>> defaultRange_;
  std::map<std::pair<Value*, std::string>, Value*> constants_;
};

}  // namespace

Status convert(Graph& graph, PassContext& cx) { return Conversion(graph, cx).run(); }

}  // namespace qc
