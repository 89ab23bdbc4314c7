// What training found, written back into the observed graph.  Tests: tests/unit/trainer_test.cpp.
#include <algorithm>
#include <cmath>

#include "passes/training/prepare_qat.h"
#include "quantizer/observers/observer.h"

namespace qc {
namespace {

// A scale that learns could pass zero; with its sign turned the same numbers are reached.
float usableScale(float scale, double eps) { return std::max(std::fabs(scale), static_cast<float>(std::max(eps, kSmallestScale))); }

Result<QuantParams> learnedParams(const ObservedSpec& spec, const QuantParams& before, const Tensor* scales, const Tensor* zeros) {
  QuantParams params = before;
  for (int64_t i = 0; scales && i < scales->numElements(); ++i) {
    const float scale = nth(scales->as<float>(), i);
    if (!std::isfinite(scale)) return fail(ErrorCode::kInvalidData, "a scale became {} in training", scale);
    nth(params.scales, i) = usableScale(scale, spec.eps);
  }
  if (zeros) {
    params.zeroPoints.resize(params.scales.size(), 0);
    for (int64_t i = 0; i < zeros->numElements(); ++i) {
      const float zero = std::nearbyint(nth(zeros->as<float>(), i));
      nth(params.zeroPoints, i) = static_cast<int32_t>(std::clamp(zero, static_cast<float>(spec.qmin), static_cast<float>(spec.qmax)));
    }
  }
  return params;
}

}  // namespace

Result<GroupParams> applyTraining(Graph& observed, const QatPlan& plan, const std::map<std::string, Tensor>& trained) {
  std::map<std::string, Tensor> values = trained;
  for (const UnfoldedBatchNorm& u : plan.batchNorms)
    for (auto& [name, value] : foldedAgain(u, trained)) values.insert_or_assign(name, std::move(value));
  const auto valueOf = [&](const std::string& name) {
    const auto it = values.find(name);
    return it == values.end() ? nullptr : &it->second;
  };
  for (const TiedWeight& t : plan.tied) {
    const Tensor* parameter = valueOf(t.parameter);
    if (!parameter) continue;
    QC_ASSIGN(Tensor value, evaluateView(t.view, *parameter));
    values.insert_or_assign(t.constant, std::move(value));
  }
  GroupParams params;
  for (const QatPlan::Activation& a : plan.activations) {
    if (const Tensor *min = valueOf(a.min), *max = valueOf(a.max); min && max) {
      QC_ASSIGN(const ScaleZero sz, calculateQParams(min->as<float>()[0], max->as<float>()[0], requestFor(a.spec)));
      params[a.id] =
          std::make_shared<const QuantParams>(QuantParams{a.spec.dtype, a.spec.qmin, a.spec.qmax, -1, 0, {sz.scale}, {sz.zeroPoint}});
    } else {
      QC_ASSIGN(QuantParams learned, learnedParams(a.spec, *a.calibrated, valueOf(a.scale), valueOf(a.zeroPoint)));
      params[a.id] = std::make_shared<const QuantParams>(std::move(learned));
    }
  }
  for (const QatPlan::Weight& w : plan.weights) {
    QC_ASSIGN(QuantParams learned, learnedParams(w.spec, *w.before, valueOf(w.scale), valueOf(w.zeroPoint)));
    for (const auto& [user, operand] : w.uses) {
      const Value* value = observed.findValue(user);
      if (!value || !value->producer()->annotation())
        return fail(ErrorCode::kInvalidArgument, "the graph has no annotated value '{}'", user).help("give the graph that was prepared");
      nth(value->producer()->annotation()->inputs, operand) = FixedSpec{learned};
    }
  }
  Builder b(observed);
  for (Node* node : observed.nodes()) {
    if (!node->is("const")) continue;
    const Tensor* value = valueOf(node->result()->name());
    if (!value) continue;
    if (value->type() != node->result()->type())
      return fail(ErrorCode::kInvalidArgument, "{} for a constant of {}", value->type().str(), node->result()->type().str())
          .on(node->result()->name());
    const std::string name = node->result()->name();
    observed.rename(node->result(), name + ".before");
    b.before(node).at(node->location());
    Value* trained = b.constant(name, *value);
    node->result()->replaceAllUsesWith(trained);
    observed.rename(trained, name);
  }
  observed.eraseDeadNodes();
  return params;
}

}  // namespace qc
