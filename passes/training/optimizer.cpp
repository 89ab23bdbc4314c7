#include "passes/training/optimizer.h"

#include <numbers>
#include <numeric>

#include "passes/graph_util.h"

namespace qc {
namespace {

using E = ScalarExpr;

E root(const E& x) { return expr::unary(E::Op::sqrt, x); }
E powerOf(float base, const E& exponent) { return expr::pow(base, exponent); }

// What every gradient is multiplied with so that all of them together are no longer than clipNorm.
Result<Value*> clipFactor(Builder& b, const OptimizerSpec& spec, std::span<const TrainedParameter> parameters) {
  Value* squares = nullptr;
  for (const TrainedParameter& p : parameters) {
    std::vector<int64_t> axes(p.gradient->type().shape.size());
    std::iota(axes.begin(), axes.end(), 0);
    QC_ASSIGN(Value * own, mapped(b, E::arg(0) * E::arg(0), {p.gradient}));
    QC_ASSIGN(own, b.create("reduce_sum", {own}, {{"axes", axes}, {"keepdims", int64_t{0}}}));
    if (!squares) {
      squares = own;
    } else {
      QC_ASSIGN(squares, b.create("add", {squares, own}));
    }
  }
  return mapped(b, expr::min(1.f, spec.clipNorm / (root(E::arg(0)) + 1e-6f)), {squares});
}

// Operands of the update of one parameter, in this order; states behind them.
const E kValue = E::arg(0), kGradient = E::arg(1), kStep = E::arg(2), kRate = E::arg(3), kFirst = E::arg(4), kSecond = E::arg(5);

// The states afterwards, and then the value, which reads them in the place of those before.
struct Formulas {
  std::vector<E> states;
  E value;
};

Formulas formulasOf(const OptimizerSpec& spec, bool isScale) {
  const bool decays = spec.weightDecay != 0 && !isScale;
  const E decayed = decays ? kGradient + spec.weightDecay * kValue : kGradient;
  if (spec.kind == "sgd") {
    if (spec.momentum == 0) return {{}, kValue - kRate * decayed};
    const E direction = spec.nesterov ? decayed + spec.momentum * kFirst : kFirst;
    return {{spec.momentum * kFirst + decayed}, kValue - kRate * direction};
  }
  const bool decoupled = spec.kind == "adamw";
  const E g = decoupled ? kGradient : decayed, t = kStep + 1.f;
  const E start = decoupled && decays ? kValue * (1.f - kRate * spec.weightDecay) : kValue;
  const E denominator = root(kSecond) / root(1.f - powerOf(spec.beta2, t)) + spec.epsilon;
  return {{spec.beta1 * kFirst + (1.f - spec.beta1) * g, spec.beta2 * kSecond + (1.f - spec.beta2) * g * g},
          start - (isScale ? kRate * expr::abs(kValue) : kRate) / (1.f - powerOf(spec.beta1, t)) * kFirst / denominator};
}

Status check(const OptimizerSpec& spec) {
  const auto wrong = [](const char* what, double value) {
    return fail(ErrorCode::kInvalidArgument, "an optimizer with {}={}", what, value);
  };
  if (spec.kind != "sgd" && spec.kind != "adam" && spec.kind != "adamw")
    return fail(ErrorCode::kInvalidArgument, "unknown optimizer '{}'", spec.kind).help("optimizers are sgd, adam, adamw");
  if (!(spec.momentum >= 0 && spec.momentum < 1)) return wrong("momentum", spec.momentum);
  if (!(spec.beta1 >= 0 && spec.beta1 < 1)) return wrong("beta1", spec.beta1);
  if (!(spec.beta2 >= 0 && spec.beta2 < 1)) return wrong("beta2", spec.beta2);
  if (!(spec.epsilon > 0)) return wrong("epsilon", spec.epsilon);
  if (!(spec.weightDecay >= 0)) return wrong("weight_decay", spec.weightDecay);
  if (!(spec.clipNorm >= 0)) return wrong("clip_norm", spec.clipNorm);
  if (spec.nesterov && spec.momentum == 0) return fail(ErrorCode::kInvalidArgument, "nesterov needs momentum");
  return {};
}

}  // namespace

Result<ScalarExpr> learningRate(const ScheduleSpec& spec) {
  if (!(spec.rate > 0)) return fail(ErrorCode::kInvalidArgument, "a learning rate of {}", spec.rate);
  if (spec.warmup < 0 || spec.warmup >= 1 << 24) return fail(ErrorCode::kInvalidArgument, "a warm-up of {} steps", spec.warmup);
  const auto warmup = static_cast<float>(spec.warmup);
  const E step = E::arg(0), done = spec.warmup > 0 ? expr::max(0.f, step - warmup) : step;
  E rate = spec.rate;
  if (spec.kind == "step") {
    if (spec.stepSize < 1) return fail(ErrorCode::kInvalidArgument, "a schedule of steps with step_size={}", spec.stepSize);
    if (!(spec.gamma > 0)) return fail(ErrorCode::kInvalidArgument, "a schedule of steps with gamma={}", spec.gamma);
    rate = spec.rate * powerOf(spec.gamma, expr::unary(E::Op::floor, done / static_cast<float>(spec.stepSize)));
  } else if (spec.kind == "cosine") {
    if (spec.steps <= spec.warmup)
      return fail(ErrorCode::kInvalidArgument, "a cosine over {} steps with a warm-up of {}", spec.steps, spec.warmup).help("set steps");
    const E part = expr::min(1.f, done / static_cast<float>(spec.steps - spec.warmup));
    rate = spec.rate * 0.5f * (1.f + expr::cos(std::numbers::pi_v<float> * part));
  } else if (spec.kind != "constant") {
    return fail(ErrorCode::kInvalidArgument, "unknown schedule '{}'", spec.kind).help("schedules are constant, step, cosine");
  }
  return spec.warmup > 0 ? rate * expr::min(1.f, (step + 1.f) / (warmup + 1.f)) : rate;
}

Result<std::vector<std::string>> optimizerStates(const OptimizerSpec& spec) {
  QC_TRY(check(spec));
  if (spec.kind == "sgd") return spec.momentum == 0 ? std::vector<std::string>{} : std::vector<std::string>{"momentum"};
  return std::vector<std::string>{"first_moment", "second_moment"};
}

Result<std::vector<TrainedParameter>> updateParameters(Builder& b, const OptimizerSpec& spec, std::span<const TrainedParameter> parameters,
                                                       Value* step, Value* rate) {
  QC_TRY(check(spec));
  Value* factor = nullptr;
  if (spec.clipNorm > 0 && !parameters.empty()) {
    QC_ASSIGN(factor, clipFactor(b, spec, parameters));
  }
  std::vector<TrainedParameter> updated;
  for (const TrainedParameter& p : parameters) {
    Value* gradient = p.gradient;
    if (factor) {
      QC_ASSIGN(gradient, mapped(b, E::arg(0) * E::arg(1), {gradient, factor}));
    }
    std::vector<Value*> operands = {p.value, gradient, step, rate};
    operands.insert(operands.end(), p.states.begin(), p.states.end());
    const Formulas formulas = formulasOf(spec, p.isScale);
    TrainedParameter next{nullptr, gradient, {}, p.isScale};
    for (const E& formula : formulas.states) {
      QC_ASSIGN(Value * state, mapped(b, formula, operands));
      next.states.push_back(state);
    }
    std::copy(next.states.begin(), next.states.end(), operands.begin() + 4);
    QC_ASSIGN(next.value, mapped(b, formulas.value, operands));
    updated.push_back(std::move(next));
  }
  return updated;
}

}  // namespace qc
