// k.weight_linear(x, w, sets, bias?): the kernel form of q.weight_linear, after select-kernels only.
// Tests: tests/kernels/weight_linear_test.cpp, tests/golden/select_kernels/weight_linear.qir.
#include "ir/ops/weight_panels.h"

#include <algorithm>

#include "ir/ops/gemm.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/products.h"
#include "ir/qmath.h"

namespace qc {
namespace {

struct PanelOperand {
  enum : int { x, w, sets, bias };
};

Result<std::vector<TensorType>> inferWeightLinear(const InferContext& c) {
  QC_ASSIGN(const WeightPanels panels, WeightPanels::of(c.attrs));
  const TensorType& x = c.type(PanelOperand::x);
  if (x.isQuantized() || x.dtype != DType::f32 || !x.isStatic() || x.rank() < 1 || x.sizes().back() != panels.depth)
    return fail(ErrorCode::kInvalidModel, "'{}' takes f32 rows of {}, got {}", c.op, panels.depth, describe(c, PanelOperand::x));
  const DType integers = panels.half || !panels.isSigned ? DType::u8 : DType::s8;
  if (c.type(PanelOperand::w) != TensorType(integers, Shape{panels.weightSize()}) ||
      c.type(PanelOperand::sets) != TensorType(DType::f32, Shape{panels.setsSize()}))
    return fail(ErrorCode::kInvalidModel, "'{}': {} and {} do not fit the panels", c.op, describe(c, PanelOperand::w),
                describe(c, PanelOperand::sets));
  if (c.has(PanelOperand::bias) && c.type(PanelOperand::bias) != TensorType(DType::f32, Shape{panels.panels() * panels.panel}))
    return fail(ErrorCode::kInvalidModel, "'{}': {} does not fit the panels", c.op, describe(c, PanelOperand::bias));
  Shape shape = x.shape;
  shape.back() = Dim(panels.outputs);
  return std::vector<TensorType>{TensorType(DType::f32, std::move(shape))};
}

Status evalWeightLinear(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  QC_ASSIGN(const WeightPanels p, WeightPanels::of(c.node.attrs()));
  const auto* weights = c.in(PanelOperand::w).as<uint8_t>();
  const float* sets = c.in(PanelOperand::sets).as<float>();
  const int64_t rows = c.out().numElements() / p.outputs;
  std::vector<float> panel(usize(p.depth * p.panel));
  float* y = c.out().as<float>();
  std::fill_n(y, rows * p.outputs, 0.0f);
  for (int64_t first = 0; first < p.outputs; first += p.panel) {
    const int64_t count = std::min<int64_t>(p.panel, p.outputs - first);
    for (int64_t o = first; o < first + count; ++o)
      for (int64_t k = 0; k < p.depth; ++k) {
        const int64_t set = p.setIndex(o, k / p.group);
        const auto zero = p.hasZeroPoint ? static_cast<int32_t>(sets[set + p.panel]) : 0;
        nth(panel, k * p.panel + o - first) = qmath::dequantize(p.get(weights, o, k), sets[set], zero);
      }
    ref::multiplyAdd<float>({c.in(PanelOperand::x).as<float>(), p.depth}, {panel.data(), int64_t{p.panel}}, {y + first, p.outputs},
                            {rows, count, p.depth});
  }
  if (!c.has(PanelOperand::bias)) return {};
  const float* bias = c.in(PanelOperand::bias).as<float>();  // in the order of columns, which is that of the rows of the weights
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < p.outputs; ++o) y[r * p.outputs + o] += bias[o];
  return {};
}

}  // namespace

Result<WeightPanels> WeightPanels::of(const AttrDict& attrs) {
  WeightPanels p;
  const std::vector<int64_t>& shape = attrs.integers("weight_shape");
  const Packing& packing = attrs.packing("packing");
  p.group = attrs.integer("block");
  const int64_t bits = attrs.integer("bits");
  constexpr int64_t kLimit = int64_t{1} << 31;
  if (shape.size() != 2 || std::any_of(shape.begin(), shape.end(), [&](int64_t n) { return n < 1 || n >= kLimit; }) ||
      packing.element != DType::f32 || packing.group != 1 || packing.columns != Packing::Columns::natural || (bits != 4 && bits != 8) ||
      p.group < 1 || p.group > shape[1] || (bits == 4 && p.group % 2 && p.group != shape[1]))
    return fail(ErrorCode::kInvalidModel, "weight_shape=[{}], packing '{}', block={}, bits={} are not panels of weights",
                fmt::join(shape, ","), packing.str(), p.group, bits);
  p.outputs = shape[0];
  p.depth = shape[1];
  p.panel = packing.panel;
  p.half = bits == 4;
  p.isSigned = attrs.integer("signed") != 0;
  p.hasZeroPoint = attrs.integer("zero_points") != 0;
  return p;
}

void WeightPanels::put(uint8_t* weights, int64_t row, int64_t k, int32_t q) const {
  uint8_t& byte = weights[weightIndex(row, k)];
  byte = half ? static_cast<uint8_t>(byte | (q & 15) << (k % 2 * 4)) : static_cast<uint8_t>(q);
}

int32_t WeightPanels::get(const uint8_t* weights, int64_t row, int64_t k) const {
  const uint8_t byte = weights[weightIndex(row, k)];
  if (!half) return isSigned ? static_cast<int8_t>(byte) : byte;
  const int32_t v = k % 2 ? byte >> 4 : byte & 15;
  return isSigned && v > 7 ? v - 16 : v;
}

void registerWeightPanelOps(OpRegistry& registry) {
  registry.add({.name = "k.weight_linear",
                .summary = "linear layer in float over panels of integer weights",
                .operands = {{"x"},
                             {.name = "w", .role = OperandRole::weight},  // panels, no axes of their own
                             {.name = "sets", .role = OperandRole::parameter},
                             {.name = "bias", .optional = true, .role = OperandRole::bias}},
                .attrs = {{"weight_shape", AttrKind::integers, std::nullopt},
                          {"packing", AttrKind::packing, std::nullopt},
                          integerAttr("block"),
                          integerAttr("bits", 8),
                          integerAttr("signed", 1),
                          integerAttr("zero_points", 0)},
                .traits = kPure,
                .infer = inferWeightLinear,
                .eval = evalWeightLinear,
                .scalar = {},
                .products = productsOfRows});
}

}  // namespace qc
