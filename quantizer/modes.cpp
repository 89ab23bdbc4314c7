#include "quantizer/modes.h"

#include <algorithm>
#include <cmath>

#include "ir/op_def.h"
#include "quantizer/observers/observer.h"
#include "quantizer/observers/qparams.h"

namespace qc {
namespace {

// What the op's declaration says of its weights.
struct Weights {
  std::vector<int> operands;
  WeightAxes axes;
  bool recurrent = false;  // [directions, rows, depth]: one scale per row and direction
  bool table = false;      // rows that are looked up: no arithmetic
};

std::optional<Weights> weightsOf(const Node& node) {
  Weights weights;
  const std::vector<OperandSpec>& specs = node.def().operands;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (!specs[i].weight) continue;
    weights.operands.push_back(static_cast<int>(i));
    weights.axes = *specs[i].weight;
    weights.table = specs[i].role != OperandRole::weight;
    weights.recurrent = !weights.table && weights.axes.channel < 0;
  }
  if (weights.operands.empty()) return std::nullopt;
  return weights;
}

// Below its smallest normal number float16 has steps of 6e-8, whatever the size of the values.
std::string tooSmallForHalf(const Node& node, const Weights& row) {
  constexpr float kSmallestNormal = 0x1p-14f;
  for (const int i : row.operands) {
    const MinMax range = minMaxOf(node.operand(i)->constant()->as<float>());
    const float largest = std::max(-range.min, range.max);
    if (largest > 0 && largest < kSmallestNormal)
      return fmt::format("its weights, at most {:.2g}, are below the normal numbers of float16", largest);
  }
  return {};
}

std::string refuseWeights(const Node& node, const Weights& row, const QConfig& config, QuantMode mode) {
  for (const int i : row.operands) {
    const Value* w = node.operand(i);
    if (!w || !w->constant()) return row.table ? "it looks up computed values" : "its weight is computed at run time";
    if (w->type().isQuantized() || w->type().dtype != DType::f32)
      return row.table ? "its table is not float32" : "its weight is not float32";
    if (w->constant()->numElements() == 0) return "its weight is empty";
    if (minMaxOf(w->constant()->as<float>()).nonFinite > 0) return "its weight holds values that are not finite";
  }
  if (row.table && (node.integer("axis") != 0 || node.operand(0)->type().rank() != 2)) return "not a lookup of rows in a matrix";
  // Anchor boxes, say, which are coordinates.
  constexpr int64_t kNarrowest = 8;
  if (row.table && node.operand(0)->type().sizes()[1] < kNarrowest)
    return fmt::format("its table has rows of {}, which are no embedding and would hardly shrink", node.operand(0)->type().sizes()[1]);
  if (!row.table && (node.operand(0)->type().dtype != DType::f32 || node.operand(0)->type().isQuantized()))
    return "its input is not float32";
  if (node.operand("residual") || node.expr("post")) return "it is fused already";
  if (mode == QuantMode::halfWeights) return tooSmallForHalf(node, row);
  if (config.weight.blockSize > 0 && row.axes.group < 0) return "group-wise weights are for linear layers and embeddings";
  return {};
}

std::string refuseDynamic(const Node& node, const Weights& row, const QConfig& config, double minWorkPerElement) {
  if (row.table) return {};
  const OpRegistry& ops = OpRegistry::get();
  const std::string integers = fmt::format("q.dynamic_{}", node.op());
  if (!ops.find(integers) && !ops.find(integers + "_steps"))
    return fmt::format("{} has no form with parameters found at run time", node.op());
  if (const ObserverDef* def = findObserver(config.activation.observer); !def || !def->runsWithModel)
    return fmt::format("observer '{}' cannot run with the model; minmax and per_token can", config.activation.observer);
  if (sizeOf(config.activation.dtype) != 1 || sizeOf(config.weight.dtype) != 1)
    return "only integers of up to 8 bits are found at run time";
  if (row.recurrent && config.weight.blockSize > 0) return "recurrent layers with integer inputs have one scale per row of their weights";
  // The sum over the widest weight row stays within int32.
  constexpr int64_t kMaxTerms = INT32_MAX / (255 * 255);
  for (const int i : row.operands) {
    const Tensor& w = *node.operand(i)->constant();
    const int64_t terms = row.recurrent ? w.sizes()[2] : w.numElements() / std::max<int64_t>(1, w.sizes()[0]);
    if (terms > kMaxTerms) return fmt::format("a sum of {} products may leave int32", terms);
  }
  if (row.recurrent) return {};
  const double work = workPerElement(node, 0);
  if (work > 0 && work < minWorkPerElement)
    return fmt::format("too little work to pay for rounding '{}' ({:.1f} multiply-adds per element)", node.operand(0)->name(), work);
  return {};
}

std::string describeWeights(const QConfig& config, const Weights& row) {
  const ObservedSpec& w = config.weight;
  std::string text(toString(w.dtype));
  if (w.blockSize > 0) return text + fmt::format(" in groups of {}", w.blockSize);
  if (row.recurrent || row.table) return text + " per row";
  return text + (w.axis >= 0 ? " per channel" : " per tensor");
}

bool perToken(const QConfig& config, const Node& node) { return scalesOf(config.activation) == ScalesPer::token && !node.is("conv"); }

// The input of the model, perhaps moved about.
bool readsModelInput(const Node& node) {
  const Value* v = node.operand(0);
  while (v && v->producer() && v->producer()->def().has(kMovesData)) v = v->producer()->operand(0);
  return v && !v->producer();
}

ObservedSpec weightSpec(const Node& node, const Weights& row, const QConfig& config, int operand) {
  ObservedSpec spec = config.weight;
  const bool grouped = spec.blockSize > 0;
  if (row.recurrent && !grouped) {
    spec.axis = row.axes.group;  // one scale for each row of each direction
    spec.blockSize = nth(node.operand(operand)->type().sizes(), row.axes.group);
  } else if (grouped) {
    spec.axis = row.axes.group;
  } else if (row.table || spec.axis >= 0) {
    spec.axis = row.table ? row.axes.channel : weightChannelAxis(node);
  }
  spec.observer = spec.blockSize > 0 ? "per_group" : spec.axis >= 0 ? "per_channel_minmax" : "minmax";
  spec.observerArgs = {};
  return spec;
}

}  // namespace

QuantMode modeOf(const QConfig& config) {
  if (config.weight.dtype == DType::f16) return QuantMode::halfWeights;
  if (config.activation.dynamic) return QuantMode::dynamic;
  if (roleOf(config.activation) == ObserverRole::keepFloat) return QuantMode::weightOnly;
  return QuantMode::full;
}

std::string_view modeForWeights(const Node& node) {
  const std::optional<Weights> row = weightsOf(node);
  if (!row || !(row->recurrent || row->table) || !refuseWeights(node, *row, {}, QuantMode::weightOnly).empty()) return {};
  return row->table ? "weight_only" : "dynamic";
}

ModeDecision decideMode(const Node& node, const QConfig& config, QuantMode mode, double minWorkPerElement, bool byGlobalRule) {
  const std::optional<Weights> row = weightsOf(node);
  if (!row) return {.refusal = "it has no weights"};
  if (roleOf(config.weight) == ObserverRole::keepFloat && mode != QuantMode::halfWeights) return {.refusal = "weights stay float"};
  ModeDecision d;
  d.refusal = refuseWeights(node, *row, config, mode);
  if (d.refusal.empty() && mode == QuantMode::dynamic) {
    d.refusal = refuseDynamic(node, *row, config, minWorkPerElement);
    if (!d.refusal.empty() && minWorkPerElement > 0 && refuseDynamic(node, *row, config, 0).empty()) d.remedy = "dynamic";
  }
  if (!d.refusal.empty()) return d;
  d.mode = mode;
  d.inputs.resize(usize(node.numOperands()));
  if (mode == QuantMode::halfWeights) {
    d.how = "weights in float16";
    for (const int i : row->operands) nth(d.inputs, i) = CastSpec{DType::f16};
    return d;
  }
  const bool rawFeatures = row->recurrent && byGlobalRule && readsModelInput(node);
  for (const int i : row->operands)
    if (!rawFeatures || i == node.def().operandIndex("R")) nth(d.inputs, i) = weightSpec(node, *row, config, i);
  d.how = fmt::format("{} {}", row->table ? "rows" : "weights", describeWeights(config, *row));
  if (rawFeatures) {
    d.remedy = mode == QuantMode::dynamic ? "dynamic" : "weight_only";
    d.mode = QuantMode::weightOnly;
    d.how += " if recurrent, the rest in float as it reads the model's input";
  } else if (mode == QuantMode::dynamic && !row->table) {
    ObservedSpec input = config.activation;
    input.observer = perToken(config, node) ? "per_token" : "minmax";
    d.inputs[0] = input;
    d.how += fmt::format(", input {} at run time per {}", toString(config.activation.dtype), perToken(config, node) ? "token" : "tensor");
  }
  return d;
}

}  // namespace qc
