// ONNX elementwise ops, those that are more than renamed.
#include <limits>

#include "frontend/onnx/converters.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

// Max, Min, Sum, Mean of any number of operands.
std::function<Status(OnnxNode&)> folded(const char* op, bool mean = false) {
  return [op, mean](OnnxNode& n) -> Status {
    Value* y = n.input(0);
    for (int i = 1; i < n.numInputs(); ++i) {
      QC_ASSIGN(y, n.create(op, {y, n.input(i)}));
    }
    if (mean && n.numInputs() > 1) {
      QC_ASSIGN(y, n.create("div", {y, n.scalar(static_cast<float>(n.numInputs()))}));
    }
    return n.setOutput(y);
  };
}

Result<double> bound(OnnxNode& n, int operand, const char* attribute, double byDefault) {
  if (n.opset() < 11) return n.real(attribute, byDefault);
  return n.input(operand) ? n.constantScalar(operand, attribute) : Result<double>(byDefault);
}

Status clip(OnnxNode& n) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const bool dynamic = (n.input(1) && !n.input(1)->constant()) || (n.input(2) && !n.input(2)->constant());
  const auto bounded = [&]() -> Status {
    Value* y = n.input(0);
    if (n.input(1)) {
      QC_ASSIGN(y, n.create("max", {y, n.input(1)}));
    }
    if (n.input(2)) {
      QC_ASSIGN(y, n.create("min", {y, n.input(2)}));
    }
    return n.setOutput(y);
  };
  if (dynamic) return bounded();
  QC_ASSIGN(const double low, bound(n, 1, "min", -kInf));
  QC_ASSIGN(const double high, bound(n, 2, "max", kInf));
  if (!isFloat(n.type(0).dtype)) return bounded();
  QC_ASSIGN(Value * y, n.create("clip", {n.input(0)}, {{"min", low}, {"max", high}}));
  return n.setOutput(y);
}

// The exponent may be of another type than the base, which is the result's.
Status pow(OnnxNode& n) {
  const DType base = n.type(0).dtype, exponent = n.type(1).dtype;
  const DType common = isFloat(base) ? base : isFloat(exponent) ? DType::f64 : DType::s64;
  Value *x = n.input(0), *e = n.input(1);
  if (base == exponent) {
    QC_ASSIGN(x, n.create("pow", {x, e}));
    return n.setOutput(x);
  }
  for (Value** v : {&x, &e}) {
    if ((*v)->type().dtype == common) continue;
    QC_ASSIGN(*v, n.create("cast", {*v}, {{"to", common}}));
  }
  QC_ASSIGN(x, n.create("pow", {x, e}));
  if (common != base) {
    QC_ASSIGN(x, n.create("cast", {x}, {{"to", base}}));
  }
  return n.setOutput(x);
}

Status swish(OnnxNode& n) {
  QC_ASSIGN(const double alpha, n.real("alpha", 1.0));
  Value* scaled = n.input(0);
  if (alpha != 1.0) {
    QC_ASSIGN(scaled, n.create("mul", {scaled, n.scalar(static_cast<float>(alpha))}));
  }
  QC_ASSIGN(Value * gate, n.create("sigmoid", {scaled}));
  QC_ASSIGN(Value * y, n.create("mul", {n.input(0), gate}));
  return n.setOutput(y);
}

Status cast(OnnxNode& n) {
  QC_ASSIGN(const int64_t code, n.integer("to"));
  constexpr std::pair<int64_t, DType> kTypes[] = {
      {1, DType::f32},     {2, DType::u8},   {3, DType::s8},   {4, DType::u16},  {5, DType::s16},  {6, DType::s32}, {7, DType::s64},
      {9, DType::boolean}, {10, DType::f32}, {11, DType::f64}, {12, DType::u32}, {13, DType::u64}, {16, DType::f32}};
  for (const auto& [c, dtype] : kTypes) {
    if (c != code) continue;
    // Half types are computed in float32 throughout.
    QC_ASSIGN(Value * y, n.create("cast", {n.input(0)}, {{"to", dtype}}));
    return n.setOutput(y);
  }
  return n.error(ErrorCode::kUnsupported, "to type {}", code);
}

Status castLike(OnnxNode& n) {
  QC_ASSIGN(Value * y, n.create("cast", {n.input(0)}, {{"to", n.type(1).dtype}}));
  return n.setOutput(y);
}

// PRelu's slope broadcasts along the channels: [C,1,1]; a plain [C] against NCHW is written by some exporters too, and means them unless it
// fits the last dim.
Status prelu(OnnxNode& n) {
  Value* slope = n.input(1);
  const TensorType &x = n.type(0), &s = slope->type();
  bool isPerChannel = s.rank() == 1 && x.rank() > 2 && s.isStatic() && s.shape[0] != Dim(1);
  if (isPerChannel) isPerChannel = !x.shape[1].isStatic() || x.shape[1] == s.shape[0];
  if (isPerChannel && x.shape.back().isStatic())
    isPerChannel = x.shape.back() != s.shape[0];
  else if (isPerChannel)
    isPerChannel = n.holdsAsTaken({Assumption::Kind::differ, x.shape.back().expr(), s.shape[0].expr(), {}});
  if (isPerChannel) {
    Ints shape(usize(x.rank() - 1), 1);
    shape[0] = s.shape[0].size();
    QC_ASSIGN(slope, n.reshape(slope, shape));
  }
  QC_ASSIGN(Value * y, n.create("prelu", {n.input(0), slope}));
  return n.setOutput(y);
}

}  // namespace

std::span<const OnnxOp> onnxMathOps() {
  static const OnnxOp kOps[] = {
      {.name = "Swish", .minInputs = 1, .maxInputs = 1, .convert = swish, .freeDims = true},
      {.name = "Identity",
       .minInputs = 1,
       .maxInputs = 1,
       .convert = [](OnnxNode& n) { return n.setOutput(n.input(0)); },
       .freeDims = true},
      {.name = "Clip", .minInputs = 1, .maxInputs = 3, .convert = clip, .freeDims = true},
      {.name = "PRelu", .minInputs = 2, .maxInputs = 2, .convert = prelu, .freeDims = true},
      {.name = "Cast", .minInputs = 1, .maxInputs = 1, .convert = cast, .freeDims = true},
      {.name = "CastLike", .minInputs = 2, .maxInputs = 2, .convert = castLike, .freeDims = true},
      {.name = "Pow", .minInputs = 2, .maxInputs = 2, .convert = pow, .freeDims = true},
      {.name = "Max", .minInputs = 1, .maxInputs = -1, .convert = folded("max"), .freeDims = true},
      {.name = "Min", .minInputs = 1, .maxInputs = -1, .convert = folded("min"), .freeDims = true},
      {.name = "Sum", .minInputs = 1, .maxInputs = -1, .convert = folded("add"), .freeDims = true},
      {.name = "Mean", .minInputs = 1, .maxInputs = -1, .convert = folded("add", true), .freeDims = true},
  };
  return kOps;
}

}  // namespace qc
