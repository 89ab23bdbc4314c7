#include "quantizer/modes.h"

#include <algorithm>
#include <cmath>

#include "ir/op_def.h"
#include "quantizer/observers/qparams.h"

namespace qc {
namespace {

constexpr int kRecurrentWeights = 2;  // operand R

struct WeightRow {
  std::string_view op;
  std::vector<int> operands;
  int channelAxis;  // of output channels; recurrent weights [directions, rows, depth] have one scale per row and direction instead
  int groupAxis;    // along which groups lie; -1: no group-wise form
  bool dynamic;     // has a form with integer inputs
  std::string_view why;
};

const std::vector<WeightRow>& weightTable() {
  static const std::vector<WeightRow> kRows = {
      {"linear", {1}, 0, 1, true, {}},
      {"conv", {1}, 0, -1, true, {}},
      {"conv_transpose", {1}, 1, -1, false, "a transposed convolution has no form with parameters found at run time"},
      {"lstm", {1, 2}, -1, 2, true, {}},
      {"gru", {1, 2}, -1, 2, true, {}},
      {"rnn", {1, 2}, -1, 2, true, {}},
      {"gather", {0}, 0, 1, false, {}},
  };
  return kRows;
}

const WeightRow* rowOf(const Node& node) {
  const auto& rows = weightTable();
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const WeightRow& r) { return r.op == node.op(); });
  return row == rows.end() ? nullptr : &*row;
}

bool isRecurrent(const WeightRow& row) { return row.operands.size() > 1; }
bool isTable(const WeightRow& row) { return row.op == "gather"; }

// Below its smallest normal number float16 has steps of 6e-8, whatever the size of the values.
std::string tooSmallForHalf(const Node& node, const WeightRow& row) {
  constexpr float kSmallestNormal = 0x1p-14f;
  for (const int i : row.operands) {
    const MinMax range = minMaxOf(node.operand(i)->constant()->as<float>());
    const float largest = std::max(-range.min, range.max);
    if (largest > 0 && largest < kSmallestNormal)
      return fmt::format("its weights, at most {:.2g}, are below the normal numbers of float16", largest);
  }
  return {};
}

std::string refuseWeights(const Node& node, const WeightRow& row, const QConfig& config, QuantMode mode) {
  for (const int i : row.operands) {
    const Value* w = node.operand(i);
    if (!w || !w->constant()) return isTable(row) ? "it looks up computed values" : "its weight is computed at run time";
    if (w->type().isQuantized() || w->type().dtype != DType::f32)
      return isTable(row) ? "its table is not float32" : "its weight is not float32";
    if (w->constant()->numElements() == 0) return "its weight is empty";
    if (minMaxOf(w->constant()->as<float>()).nonFinite > 0) return "its weight holds values that are not finite";
  }
  if (isTable(row) && (node.integer("axis") != 0 || node.operand(0)->type().rank() != 2)) return "not a lookup of rows in a matrix";
  if (!isTable(row) && (node.operand(0)->type().dtype != DType::f32 || node.operand(0)->type().isQuantized()))
    return "its input is not float32";
  const bool fused = node.operand(3) && !isRecurrent(row);
  if (fused || (node.attrs().find("post") && !node.string("post").empty())) return "it is fused already";
  if (mode == QuantMode::halfWeights) return tooSmallForHalf(node, row);
  if (config.weight.blockSize > 0 && row.groupAxis < 0) return "group-wise weights are for linear layers and embeddings";
  return {};
}

std::string refuseDynamic(const Node& node, const WeightRow& row, const QConfig& config, double minWorkPerElement) {
  if (!row.dynamic && !isTable(row)) return std::string(row.why);
  if (isTable(row)) return {};
  if (config.activation.observer != "minmax" && config.activation.observer != "per_token")
    return fmt::format("observer '{}' cannot run with the model; minmax and per_token can", config.activation.observer);
  if (sizeOf(config.activation.dtype) != 1 || sizeOf(config.weight.dtype) != 1)
    return "only integers of up to 8 bits are found at run time";
  if (isRecurrent(row) && config.weight.blockSize > 0)
    return "recurrent layers with integer inputs have one scale per row of their weights";
  // The sum over the widest weight row stays within int32.
  constexpr int64_t kMostTerms = INT32_MAX / (255 * 255);
  for (const int i : row.operands) {
    const Tensor& w = *node.operand(i)->constant();
    const int64_t terms = isRecurrent(row) ? w.sizes()[2] : w.numElements() / std::max<int64_t>(1, w.sizes()[0]);
    if (terms > kMostTerms) return fmt::format("a sum of {} products may leave int32", terms);
  }
  if (isRecurrent(row)) return {};
  const double work = workPerElement(node, 0);
  if (work > 0 && work < minWorkPerElement)
    return fmt::format("too little work to pay for rounding '{}' ({:.1f} multiply-adds per element)", node.operand(0)->name(), work);
  return {};
}

std::string describeWeights(const QConfig& config, const WeightRow& row) {
  const ObservedSpec& w = config.weight;
  std::string text(toString(w.dtype));
  if (w.blockSize > 0) return text + fmt::format(" in groups of {}", w.blockSize);
  if (isRecurrent(row) || isTable(row)) return text + " per row";
  return text + (w.axis >= 0 ? " per channel" : " per tensor");
}

bool perToken(const QConfig& config, const Node& node) { return config.activation.observer == "per_token" && !node.is("conv"); }

// The input of the model, perhaps moved about.
bool readsModelInput(const Node& node) {
  const Value* v = node.operand(0);
  while (v && v->producer() && v->producer()->def().has(kMovesData)) v = v->producer()->operand(0);
  return v && !v->producer();
}

ObservedSpec weightSpec(const Node& node, const WeightRow& row, const QConfig& config, int operand) {
  ObservedSpec spec = config.weight;
  const bool grouped = spec.blockSize > 0;
  if (isRecurrent(row) && !grouped) {
    spec.axis = 2;
    spec.blockSize = node.operand(operand)->type().sizes()[2];
  } else if (grouped) {
    spec.axis = row.groupAxis;
  } else if (isTable(row) || spec.axis >= 0) {
    spec.axis = row.channelAxis;
    if (node.is("conv_transpose") && node.integer("group") != 1) spec.axis = -1;  // channels of several groups share an index there
  }
  spec.observer = spec.blockSize > 0 ? "per_group" : spec.axis >= 0 ? "per_channel_minmax" : "minmax";
  spec.observerArgs = {};
  return spec;
}

}  // namespace

QuantMode modeOf(const QConfig& config) {
  if (config.weight.dtype == DType::f16) return QuantMode::halfWeights;
  if (config.activation.dynamic) return QuantMode::dynamic;
  if (config.activation.observer == "placeholder") return QuantMode::weightOnly;
  return QuantMode::full;
}

std::string_view modeForWeights(const Node& node) {
  const WeightRow* row = rowOf(node);
  if (!row || !(isRecurrent(*row) || isTable(*row)) || !refuseWeights(node, *row, {}, QuantMode::weightOnly).empty()) return {};
  return isTable(*row) ? "weight_only" : "dynamic";
}

ModeDecision decideMode(const Node& node, const QConfig& config, QuantMode mode, double minWorkPerElement, bool byGlobalRule) {
  const WeightRow* row = rowOf(node);
  if (!row) return {.refusal = "it has no weights"};
  if (config.weight.observer == "placeholder" && mode != QuantMode::halfWeights) return {.refusal = "weights stay float"};
  ModeDecision d;
  d.refusal = refuseWeights(node, *row, config, mode);
  if (d.refusal.empty() && mode == QuantMode::dynamic) {
    d.refusal = refuseDynamic(node, *row, config, minWorkPerElement);
    if (!d.refusal.empty() && minWorkPerElement > 0 && refuseDynamic(node, *row, config, 0).empty()) d.remedy = "dynamic";
  }
  if (!d.refusal.empty()) return d;
  d.mode = mode;
  d.inputs.resize(static_cast<size_t>(node.numOperands()));
  if (mode == QuantMode::halfWeights) {
    d.how = "weights in float16";
    for (const int i : row->operands) d.inputs[static_cast<size_t>(i)] = CastSpec{DType::f16};
    return d;
  }
  const bool rawFeatures = isRecurrent(*row) && byGlobalRule && readsModelInput(node);
  for (const int i : row->operands)
    if (!rawFeatures || i == kRecurrentWeights) d.inputs[static_cast<size_t>(i)] = weightSpec(node, *row, config, i);
  d.how = fmt::format("{} {}", isTable(*row) ? "rows" : "weights", describeWeights(config, *row));
  if (rawFeatures) {
    d.remedy = mode == QuantMode::dynamic ? "dynamic" : "weight_only";
    d.mode = QuantMode::weightOnly;
    d.how += " if recurrent, the rest in float as it reads the model's input";
  } else if (mode == QuantMode::dynamic && !isTable(*row)) {
    ObservedSpec input = config.activation;
    input.observer = perToken(config, node) ? "per_token" : "minmax";
    d.inputs[0] = input;
    d.how += fmt::format(", input {} at run time per {}", toString(config.activation.dtype), perToken(config, node) ? "token" : "tensor");
  }
  return d;
}

}  // namespace qc
