// convert: observers become quantize / dequantize pairs with the parameters of their group; constants that a spec asks for
// become integer constants behind a dequantize; derived biases become int32.  A bias that would not fit in int32 at scale
// sx * sw widens that channel's weight scale instead, and is reported.
// An input with parameters found at run time gets dynamic_qparams, quantize_with and dequantize_with; a recurrent layer becomes its
// q.dynamic_* form, which quantizes by itself.  Weights in float16 become a float16 constant behind a cast.
// Parameters come from cx.provide(GroupParams) (what calibration found); the option `range` stands in for groups without, so
// that a pipeline can be written and timed without data.  Likewise `guard_biases` where no cx.provide(QConfigMapping) says it.  Tests:
// tests/golden/convert.
#include <algorithm>
#include <cmath>

#include "ir/ops/dynamic.h"
#include "ir/ops/epilogue.h"
#include "ir/qmath.h"
#include "ir/rewriter.h"
#include "ir/verify.h"
#include "passes/bias_guard.h"
#include "passes/passes.h"
#include "passes/quantize/convert_parts.h"
#include "quantizer/group_params.h"
#include "quantizer/observers/observer.h"
#include "quantizer/observers/qparams.h"
#include "quantizer/rules/qconfig.h"

namespace qc {
namespace {

Tensor quantizeTensor(const Tensor& t, const QuantParams& q) {
  Tensor out(q.storage, t.sizes());
  storeIntegers({q.storage, out.sizes(), out.mutableData()}, quantized(t.ref(), q).data());
  return out;
}

// Float16 with what is too large for it at its ends.
Tensor halfTensor(const Tensor& t) {
  constexpr float kLargest = 65504;
  Tensor out(DType::f16, t.sizes());
  const auto from = t.as<float>();
  const auto to = out.mutableAs<uint16_t>();
  for (size_t i = 0; i < from.size(); ++i) to[i] = floatToHalf(std::clamp(from[i], -kLargest, kLargest));
  return out;
}

bool guardsBiases(PassContext& cx) {
  const QConfigMapping* rules = cx.get<QConfigMapping>();
  return rules ? rules->guards().biases : cx.options.integer("guard_biases") != 0;
}

class Conversion {
 public:
  Conversion(Graph& graph, PassContext& cx) : graph_(graph), cx_(cx), guardsBiases_(guardsBiases(cx)) {}

  Status run() {
    QC_TRY(readDefaultRange());
    if (const auto* params = cx_.get<GroupParams>(); params && !defaultRange_) keepUnseenFloat(graph_, *params, cx_);
    for (Node* node : graph_.nodes())
      if (node->is("observe")) QC_TRY(convertObserver(node));
    for (Node* node : graph_.nodes()) {
      if (!node->annotation()) continue;
      QC_TRY(convertConstants(node));
      const QuantAnnotation annotation = std::move(*node->annotation());
      node->annotation().reset();
      QC_TRY(convertDynamic(node, annotation));
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
    const QuantSpec spec = observe.annotation() ? observe.annotation()->output : QuantSpec();  // text has observers without one
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
    return std::make_shared<const QuantParams>(
        QuantParams{observed->dtype, observed->qmin, observed->qmax, -1, 0, {sz.scale}, {sz.zeroPoint}});
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

  // Widens scales of output channels whose bias would overflow; only says so when that is not wanted.
  QuantPtr biasSafe(const Node& node, const QuantPtr& weight, const Tensor* bias, const QuantParams* x) {
    if (!bias || !x || bias->dtype() != DType::f32) return weight;
    const BiasSafe safe = biasSafeParams(weight, bias->as<float>(), x->scale());
    if (!guardsBiases_ && !safe.widened.empty()) {
      cx_.remark(&node, fmt::format("the bias of {} output channels leaves int32 and is cut off there; the guard of biases is off",
                                    safe.widened.size()));
      return weight;
    }
    // Below what PyTorch's observers take for the smallest scale, a channel's weights are next to nothing.
    const auto notable = std::count_if(safe.widened.begin(), safe.widened.end(), [](float s) { return s > static_cast<float>(kEpsTorch); });
    if (notable > 0) cx_.remark(&node, fmt::format("weight scale of {} output channels widened so that the bias fits in int32", notable));
    return safe.params;
  }

  Status convertConstants(Node* node) {
    const QuantAnnotation annotation = *node->annotation();
    for (size_t i = 0; i < annotation.inputs.size(); ++i) {
      const auto operand = static_cast<int>(i);
      Value* v = node->operand(operand);
      if (!v || !v->constant() || v->type().dtype != DType::f32) continue;
      QuantPtr params;
      if (std::holds_alternative<CastSpec>(annotation.inputs[i])) {
        node->setOperand(operand, halfConstant(v));
        continue;
      }
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
      if (Status fits = checkQuantParams(*params, v->type().shape); !fits)
        return tl::make_unexpected(std::move(fits).error().at(node->location()).on(v->name()));
      const Value* bias = node->operand("bias");
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
    const QuantParams* w = paramsBehind(node->operand("w"));
    if (!bias || !bias->constant() || bias->type().dtype != DType::f32 || !x || !w) return {};
    const int64_t channels = bias->type().numElements();
    if (w->perChannel() && std::ssize(w->scales) != channels)
      return fail(ErrorCode::kInvalidModel, "the weights have {} scales along axis {}, a bias for {} channels needs one for each of these",
                  w->scales.size(), w->axis, channels)
          .at(node->location())
          .on(bias->name());
    QuantParams q{DType::s32, rangeOf(DType::s32).min, rangeOf(DType::s32).max, w->perChannel() ? 0 : -1, 0, {}, {0}};
    for (const float scale : w->scales) q.scales.push_back(x->scale() * scale);
    Tensor t(DType::s32, bias->type().sizes());
    for (int64_t c = 0; c < channels; ++c)
      nth(t.mutableAs<int32_t>(), c) = qmath::quantizeBias(nth(bias->constant()->as<float>(), c), x->scale(), w->scale(c));
    Builder b(graph_);
    b.before(node);
    Value* quantized = b.constant(bias->name() + "_q", std::move(t), std::make_shared<const QuantParams>(std::move(q)));
    QC_ASSIGN(Value * dq, b.create("dequantize", {quantized}, {}, bias->name() + "_dq"));
    node->setOperand(operand, dq);
    return {};
  }

  Value* halfConstant(Value* constant) {
    Value*& known = constants_[{constant, "f16"}];
    if (known) return known;
    Builder b(graph_);
    b.before(constant->producer()->next());
    Value* half = b.constant(constant->name() + "_f16", halfTensor(*constant->constant()));
    known = b.make("cast", {half}, {{"to", DType::f32}}, constant->name() + "_f32");
    return known;
  }

  static AttrDict rangeAttrs(const ObservedSpec& spec) {
    return {{"storage", spec.dtype}, {"qmin", spec.qmin},
            {"qmax", spec.qmax},     {"scheme", std::string(spec.scheme == QScheme::symmetric ? "symmetric" : "affine")},
            {"eps", spec.eps},       {"granularity", std::string(scalesOf(spec) == ScalesPer::token ? "token" : "tensor")}};
  }

  Status convertDynamic(Node* node, const QuantAnnotation& annotation) {
    const ObservedSpec* spec = annotation.dynamicInput(0);
    if (!spec || node->operand(0)->constant()) return {};
    if (OpRegistry::get().find("q.dynamic_" + std::string(node->op())) && !node->attrs().find("post")) return convertRecurrent(node, *spec);
    Value*& known = dynamic_[{node->operand(0), toString(QuantSpec(*spec))}];
    if (!known) {
      Value* x = node->operand(0);
      Builder b(graph_);
      b.before(node);
      QC_ASSIGN(Node * params, b.createNode("dynamic_qparams", {x}, rangeAttrs(*spec), x->name() + "_scale"));
      QC_ASSIGN(Value * q, b.create("quantize_with", {x, params->result(0), params->result(1)},
                                    {{"storage", spec->dtype}, {"qmin", spec->qmin}, {"qmax", spec->qmax}}, x->name() + "_q"));
      QC_ASSIGN(known, b.create("dequantize_with", {q, params->result(0), params->result(1)}, {}, x->name() + "_dq"));
    }
    node->setOperand(0, known);
    return {};
  }

  // Integer weights straight in the operands; their dequantize goes when nothing else reads it.
  Status convertRecurrent(Node* node, const ObservedSpec& spec) {
    std::vector<Value*> operands = node->operands();
    for (const size_t i : {size_t{1}, size_t{2}}) {
      Node* dequantize = operands[i]->producer();
      if (!dequantize || !dequantize->is("dequantize")) return {};  // float weights: by another quantizer's annotation
      operands[i] = dequantize->operand(0);
    }
    AttrDict attrs = node->attrs();
    for (const auto& [name, value] : rangeAttrs(spec)) attrs.set(name, value);
    Builder b(graph_);
    b.before(node);
    QC_ASSIGN(Node * dynamic, b.createNode("q.dynamic_" + std::string(node->op()), std::move(operands), std::move(attrs)));
    if (!isPortableRecurrence(*dynamic))
      cx_.remark(node, fmt::format("ONNX has no {} that quantizes at run time in this way: in an ONNX file this layer has integer weights "
                                   "and float arithmetic; .qir keeps it",
                                   node->op()));
    Rewriter rewriter(graph_);
    std::vector<Value*> results;
    for (int i = 0; i < dynamic->numResults(); ++i) results.push_back(dynamic->result(i));
    rewriter.replace(node, results);
    return {};
  }

  Graph& graph_;
  PassContext& cx_;
  std::map<std::pair<Value*, std::string>, Value*> dynamic_;
  const bool guardsBiases_;
  std::optional<std::pair<float, float>> defaultRange_;
  std::map<std::pair<Value*, std::string>, Value*> constants_;
};

}  // namespace

Status convert(Graph& graph, PassContext& cx) { return Conversion(graph, cx).run(); }

}  // namespace qc
