#include "quantizer/rules/op_policy.h"

#include <algorithm>
#include <cmath>
#include <list>

#include "quantizer/observers/qparams.h"
#include "quantizer/rules/nearest.h"

namespace qc {
namespace {

constexpr std::string_view kNormWhy = "normalization is kept in float: its statistics need the precision";
constexpr std::string_view kSoftmaxWhy = "kept in float: int8 costs accuracy and saves little";
constexpr std::string_view kReduceWhy = "this reduction has no int8 form";
constexpr std::string_view kRecurrentWhy = "recurrent layers run in float";
constexpr std::string_view kSteepWhy = "kept in float: somewhere a step of its input moves the result over much of its range";
constexpr std::string_view kSampledWhy = "interpolation at positions that data gives is kept in float";
constexpr std::string_view kSpectrumWhy = "a spectrum spans more than 8 bits hold";
constexpr std::string_view kIndexWhy = "computes positions, not values";

const OpPolicy kTable[] = {
    {"conv", Role::weighted, {}, {}, true, true},  // integers of 16 bits as well
    {"linear", Role::weighted, {}, {}, true, true},
    {"conv_transpose", Role::weighted, {}, {}},
    {"matmul", Role::product, {}, {}},

    // Elementwise ops of floats need no row: these know the range of their result, and those below have no slope to speak of.
    {"sigmoid", Role::elementwise, {}, 0},
    {"hardsigmoid", Role::elementwise, {}, 0},
    {"tanh", Role::elementwise, {}, -1},
    {"log", Role::keepFloat, kSteepWhy, {}},
    {"sqrt", Role::keepFloat, kSteepWhy, {}},
    {"reciprocal", Role::keepFloat, kSteepWhy, {}},
    {"tan", Role::keepFloat, kSteepWhy, {}},
    {"acosh", Role::keepFloat, kSteepWhy, {}},
    {"atanh", Role::keepFloat, kSteepWhy, {}},
    {"mod", Role::keepFloat, kSteepWhy, {}},
    {"sign", Role::keepFloat, kSteepWhy, {}},

    {"avg_pool", Role::averaging, {}, {}},
    {"reduce_mean", Role::averaging, {}, {}},

    {"max_pool", Role::sharing, {}, {}},
    {"reshape", Role::sharing, {}, {}},
    {"transpose", Role::sharing, {}, {}},
    {"concat", Role::sharing, {}, {}},
    {"slice", Role::sharing, {}, {}},
    {"split", Role::sharing, {}, {}},
    {"pad", Role::sharing, {}, {}},
    {"expand", Role::sharing, {}, {}},
    {"tile", Role::sharing, {}, {}},
    {"gather", Role::sharing, {}, {}},
    {"depth_to_space", Role::sharing, {}, {}},
    {"space_to_depth", Role::sharing, {}, {}},
    {"resize", Role::sharing, {}, {}},

    {"softmax", Role::keepFloat, kSoftmaxWhy, 0, false},
    {"log_softmax", Role::keepFloat, kSoftmaxWhy, {}},
    {"layer_norm", Role::keepFloat, kNormWhy, {}},
    {"instance_norm", Role::keepFloat, kNormWhy, {}},
    {"group_norm", Role::keepFloat, kNormWhy, {}},
    {"lrn", Role::keepFloat, kNormWhy, {}},
    {"batch_norm", Role::keepFloat, "not folded into a convolution in front of it", {}},
    {"reduce_sum", Role::keepFloat, kReduceWhy, {}},
    {"reduce_max", Role::keepFloat, kReduceWhy, {}},
    {"reduce_min", Role::keepFloat, kReduceWhy, {}},
    {"reduce_prod", Role::keepFloat, kReduceWhy, {}},
    {"cumsum", Role::keepFloat, kReduceWhy, {}},
    {"cumprod", Role::keepFloat, kReduceWhy, {}},
    {"grid_sample", Role::keepFloat, kSampledWhy, {}},
    {"roi_align", Role::keepFloat, kSampledWhy, {}},
    {"dft", Role::keepFloat, kSpectrumWhy, {}},
    {"argmax", Role::keepFloat, kIndexWhy, {}},
    {"argmin", Role::keepFloat, kIndexWhy, {}},
    {"topk", Role::keepFloat, kIndexWhy, {}},
    {"one_hot", Role::keepFloat, kIndexWhy, {}},
    {"lstm", Role::keepFloat, kRecurrentWhy, {}},
    {"gru", Role::keepFloat, kRecurrentWhy, {}},
    {"rnn", Role::keepFloat, kRecurrentWhy, {}},
};
const OpPolicy kNoRow = {"", Role::keepFloat, "this op has no int8 form", {}};
const OpPolicy kElementwiseRow = {"", Role::elementwise, {}, {}};

bool isFloatValue(const Value* v) { return v && v->type().dtype == DType::f32 && !v->type().isQuantized(); }

int64_t sizeOfDim(const Value* v, int axis) {
  const Shape& shape = v->type().shape;
  const auto d = usize(axis);
  return d < shape.size() && shape[d].isStatic() ? shape[d].size() : 0;
}

// Products summed for one output element; 0: not known.
int64_t sumLength(const Node& node) {
  const int index = node.def().operandIndex("w");
  if (index < 0) return sizeOfDim(node.operand(0), node.operand(0)->type().rank() - 1);
  const Tensor* w = node.operand(index)->constant();
  const std::optional<WeightAxes>& axes = nth(node.def().operands, index).weight;
  if (!w || !axes || axes->channel < 0 || axes->channel >= w->rank()) return 0;
  const int64_t perOutput = w->numElements() / std::max<int64_t>(1, nth(w->sizes(), axes->channel));
  // Behind the inputs, the channels are those of one group: every output sums over the inputs of its group and at most the whole kernel.
  return axes->channel == 0 ? perOutput : perOutput / std::max<int64_t>(1, node.integer("group"));
}

std::string refuseWeighted(const Node& node) {
  const Value *w = node.operand("w"), *bias = node.operand("bias");
  if (!w->constant()) return "its weight is computed at run time";
  if (!isFloatValue(node.operand(0)) || !isFloatValue(w) || (bias && !isFloatValue(bias))) return "its operands are not float32";
  if (bias && !bias->constant()) return "its bias is computed at run time";
  if (node.operand("residual") || node.expr("post")) return "it is fused already";
  if (minMaxOf(w->constant()->as<float>()).nonFinite > 0) return "its weight holds values that are not finite";
  if (bias && minMaxOf(bias->constant()->as<float>()).nonFinite > 0) return "its bias holds values that are not finite";
  if (w->constant()->numElements() == 0) return "its weight is empty";
  // Half of int32 for the sum, half for the bias.
  if (sumLength(node) > (int64_t{1} << 30) / (255 * 128)) return fmt::format("a sum of {} products may leave int32", sumLength(node));
  return {};
}

std::string refuseProduct(const Node& node) {
  if (!isFloatValue(node.operand(0)) || !isFloatValue(node.operand(1))) return "its operands are not float32";
  if (sumLength(node) > (int64_t{1} << 31) / (255 * 255)) return fmt::format("a sum of {} products may leave int32", sumLength(node));
  return {};
}

// A constant, or one that only waits for free dims: spread over a batch, say, which folds where the batch is known.
bool isConstantData(const Value* v) {
  while (v->producer() && v->producer()->def().has(kMovesData) && v->producer()->numOperands() == 1) v = v->producer()->operand(0);
  return v->constant() != nullptr;
}

std::string refuseSharing(const Node& node, const OpPolicy& policy) {
  if (node.is("resize") && node.string("mode") == "cubic") return "cubic interpolation leaves the range of its input";
  if (node.is("pad") && node.string("mode") == "constant" && !std::isfinite(node.real("value")))
    return "it pads with a value that is not finite";
  for (int i = 0; i < node.numOperands(); ++i)
    if (isDataOperand(node, policy, i) && isConstantData(node.operand(i)))
      return node.is("gather") ? "a table lookup; the table is float" : "joins a constant";
  return {};
}

}  // namespace

// Rows of integrators; a list, so that references stay.
struct OwnRow {
  std::string op, why;
  OpPolicy policy;
};
static std::list<OwnRow>& ownRows() {
  static auto* const rows = new std::list<OwnRow>;
  return *rows;
}

static const OpPolicy* findPolicy(std::string_view op) {
  for (const OpPolicy& row : kTable)
    if (row.op == op) return &row;
  for (const OwnRow& row : ownRows())
    if (row.op == op) return &row.policy;
  return nullptr;
}

const OpPolicy& policyOf(const Node& node) {
  const OpPolicy* row = findPolicy(node.op());
  if (row) return *row;
  return node.def().has(kElementwise) && !node.def().has(kMovesData) ? kElementwiseRow : kNoRow;
}

const OperandSpec* weightOf(const OpDef& def) {
  for (const OperandSpec& operand : def.operands)
    if (operand.weight && operand.role == OperandRole::weight) return &operand;
  return nullptr;
}

int weightChannelAxis(const Node& node) {
  const OperandSpec* weight = weightOf(node.def());
  if (!weight) return -1;
  // The channels of several groups of a transposed convolution share an index on that axis.
  const bool shared = weight->weight->channel > 0 && node.attrs().find("group") && node.integer("group") != 1;
  return shared ? -1 : weight->weight->channel;
}

Status registerOpPolicy(const OpPolicy& policy) {
  const OpDef* def = OpRegistry::get().find(policy.op);
  if (!def) {
    std::vector<std::string> names;
    for (const auto& [name, row] : OpRegistry::get().ops()) names.push_back(name);
    return fail(ErrorCode::kInvalidArgument, "there is no op '{}' to have a policy", policy.op)
        .help(didYouMean(policy.op, names) + " One's own is registered first: registerOp().");
  }
  if (findPolicy(policy.op)) return fail(ErrorCode::kInvalidArgument, "op '{}' has a policy", policy.op);
  const auto unfit = [&](std::string_view why) { return fail(ErrorCode::kInvalidArgument, "the policy of op '{}': {}", policy.op, why); };
  if (policy.role < Role::weighted || policy.role > Role::keepFloat) return unfit("not a role");
  if (policy.role == Role::keepFloat && policy.why.empty()) return unfit("it stays float and does not say why");
  if (policy.role == Role::weighted && !weightOf(*def)) return unfit("none of its operands is declared as its weight");
  if (policy.role != Role::keepFloat && def->operands.size() < (policy.role == Role::product ? 2 : 1))
    return unfit("it has too few operands");
  if (policy.fixedLow && *policy.fixedLow >= 1) return unfit("the fixed range is empty");
  OwnRow& row = ownRows().emplace_back(OwnRow{std::string(policy.op), std::string(policy.why), policy});
  row.policy.op = row.op;
  row.policy.why = row.why;
  return {};
}

bool isDataOperand(const Node& node, const OpPolicy& policy, int i) {
  if (!node.operand(i)) return false;
  switch (policy.role) {
    case Role::weighted:
    case Role::averaging: return i == 0;
    case Role::product: return i < 2;
    case Role::elementwise: return !node.operand(i)->constant();
    case Role::sharing: return node.is("concat") || i == 0;
    case Role::keepFloat: return false;
  }
  return false;
}

std::string refusal(const Node& node, const OpPolicy& policy) {
  if (policy.role == Role::keepFloat) return std::string(policy.why);
  if (node.numResults() == 0) return "it has no result";
  if (policy.role == Role::weighted) return refuseWeighted(node);
  if (policy.role == Role::product) return refuseProduct(node);
  bool data = false;
  for (int i = 0; i < node.numOperands(); ++i) {
    if (policy.role == Role::elementwise && node.operand(i) && !isFloatValue(node.operand(i))) return "its operands are not float32";
    if (!isDataOperand(node, policy, i)) continue;
    if (!isFloatValue(node.operand(i))) return "its operands are not float32";
    data = true;
  }
  if (!data) return "all its operands are constant";
  if (policy.role == Role::elementwise && !isFloatValue(node.result())) return "its result is not float32";
  if (policy.role == Role::sharing) return refuseSharing(node, policy);
  return {};
}

std::string refusalOfWords(const Node& node, const OpPolicy& policy) {
  const std::string_view kernels = "integer kernels of this op take u8 and s8";
  switch (policy.role) {
    case Role::weighted: return policy.takesWords ? std::string() : std::string(kernels);
    case Role::product:
    case Role::averaging: return std::string(kernels);
    case Role::sharing: return node.is("resize") && node.string("mode") != "nearest" ? std::string(kernels) : std::string();
    case Role::elementwise:
    case Role::keepFloat: return {};
  }
  return {};
}

std::optional<QuantParams> fixedParams(const OpPolicy& policy, DType dtype, int64_t qmin, int64_t qmax) {
  if (!policy.fixedLow || sizeOf(dtype) != 1) return std::nullopt;
  const float levels = static_cast<float>(qmax - qmin + 1), width = static_cast<float>(1 - *policy.fixedLow);
  const int64_t zp = *policy.fixedLow == 0 ? qmin : (qmin + qmax + 1) / 2;
  return QuantParams{dtype, qmin, qmax, -1, 0, {width / levels}, {static_cast<int32_t>(zp)}};
}

// Free dims have some size here: how much work there is for an element hardly depends on it, but for products over a free dim.
static double likelySize(const Dim& dim) {
  if (dim.isStatic()) return static_cast<double>(dim.size());
  constexpr int64_t kLikely = 64;
  std::map<std::string, int64_t> sizes;
  for (const std::string& symbol : dim.expr().symbols()) sizes[symbol] = kLikely;
  return static_cast<double>(std::max<int64_t>(1, dim.expr().evaluate(sizes).value_or(kLikely)));
}

static double likelyElements(const Shape& shape) {
  double elements = 1;
  for (const Dim& dim : shape) elements *= likelySize(dim);
  return elements;
}

double workPerElement(const Node& node, int i) {
  const double in = likelyElements(node.operand(i)->type().shape);
  if (in == 0 || !node.def().products) return 0;
  return node.def().products(node, likelySize) / in;
}

}  // namespace qc
