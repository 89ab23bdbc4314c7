#include "ir/ops/infer_util.h"

#include <algorithm>

namespace qc {

Result<int64_t> checkedNumElements(const Shape& shape, int64_t bytesPerElement) {
  // A zero anywhere makes the tensor empty, whatever the other dims claim.
  if (std::any_of(shape.begin(), shape.end(), [](Dim d) { return d.isStatic() && d.size() == 0; })) return 0;
  int64_t n = 1;
  for (const Dim& d : shape) {
    if (!d.isStatic()) continue;
    int64_t next = 0;
    if (__builtin_mul_overflow(n, d.size(), &next) || next > kMaxTensorBytes / bytesPerElement)
      return fail(ErrorCode::kResource, "a tensor of shape [{}] is larger than {} bytes", toString(shape), kMaxTensorBytes);
    n = next;
  }
  return n;
}

Result<Types> checkedResults(Types types) {
  for (const TensorType& t : types) {
    for (const Dim& d : t.shape)
      if (d.isStatic() && d.size() > kMaxTensorBytes)
        return fail(ErrorCode::kResource, "a result of shape [{}] is larger than {} bytes", toString(t.shape), kMaxTensorBytes);
    QC_TRY(checkedNumElements(t.shape, sizeOf(t.dtype)));
  }
  return types;
}

std::string_view operandName(const InferContext& c, int operand) {
  const OpDef* def = OpRegistry::get().find(c.op);
  return def && usize(operand) < def->operands.size() ? std::string_view(nth(def->operands, operand).name) : "operand";
}

std::string describe(const InferContext& c, int operand) { return fmt::format("{} {}", operandName(c, operand), c.type(operand).str()); }

Status requireRank(const InferContext& c, int operand, int low, int high) {
  const int rank = c.type(operand).rank();
  if (rank >= low && rank <= high) return {};
  if (low == high)
    return fail(ErrorCode::kInvalidModel, "'{}' takes {} of {} dims, got {}", c.op, operandName(c, operand), low, c.type(operand).str());
  if (high == 1 << 20)
    return fail(ErrorCode::kInvalidModel, "'{}' takes {} of at least {} dims, got {}", c.op, operandName(c, operand), low,
                c.type(operand).str());
  return fail(ErrorCode::kInvalidModel, "'{}' takes {} of {} to {} dims, got {}", c.op, operandName(c, operand), low, high,
              c.type(operand).str());
}

Status requirePlainFloat(const InferContext& c, int operand) {
  const TensorType& t = c.type(operand);
  if (!t.isQuantized() && isFloat(t.dtype)) return {};
  return fail(ErrorCode::kInvalidModel, "'{}' computes in floating point, {} is not", c.op, describe(c, operand));
}

Status requirePlainNumber(const InferContext& c, int operand) {
  const TensorType& t = c.type(operand);
  if (!t.isQuantized() && (isFloat(t.dtype) || isInteger(t.dtype))) return {};
  return fail(ErrorCode::kInvalidModel, "'{}' takes plain numbers, {} is not", c.op, describe(c, operand));
}

Status requireSameDType(const InferContext& c, int operand, int as) {
  const TensorType &t = c.type(operand), &other = c.type(as);
  if (!t.isQuantized() && !other.isQuantized() && t.dtype == other.dtype) return {};
  return fail(ErrorCode::kInvalidModel, "'{}' takes operands of one element type, got {} and {}", c.op, describe(c, as),
              describe(c, operand));
}

Status requirePerTensor8Bit(const InferContext& c, int operand) {
  const TensorType& t = c.type(operand);
  if (t.isQuantized() && !t.quant->perChannel() && (t.dtype == DType::u8 || t.dtype == DType::s8)) return {};
  return fail(ErrorCode::kUnsupported, "'{}' takes {} quantized per tensor to 8 bits, got {}", c.op, operandName(c, operand), t.str());
}

Status requirePerTensor8Or16Bit(const InferContext& c, int operand) {
  const TensorType& t = c.type(operand);
  if (t.isQuantized() && !t.quant->perChannel() && (t.dtype == DType::u16 || t.dtype == DType::s16)) return {};
  if (const Status bytes = requirePerTensor8Bit(c, operand); bytes) return {};
  return fail(ErrorCode::kUnsupported, "'{}' takes {} quantized per tensor to 8 or 16 bits, got {}", c.op, operandName(c, operand),
              t.str());
}

bool compatible(Dim a, Dim b) { return !a.isStatic() || !b.isStatic() || a.size() == b.size(); }

Status requireVector(const InferContext& c, int operand, Dim length) { return requireShape(c, operand, Shape{length}); }

Status requireShape(const InferContext& c, int operand, const Shape& shape) {
  const Shape& own = c.type(operand).shape;
  if (own.size() == shape.size() && std::equal(own.begin(), own.end(), shape.begin(), compatible)) return {};
  return fail(ErrorCode::kInvalidModel, "'{}' needs {} of shape [{}], got {}", c.op, operandName(c, operand), toString(shape),
              c.type(operand).str());
}

Status requireAxis(const InferContext& c, std::string_view attr, int rank) {
  const int64_t axis = c.attrs.integer(attr);
  if (axis >= 0 && axis < rank) return {};
  return fail(ErrorCode::kInvalidModel, "'{}': {}={} is outside the {} dims of {}", c.op, attr, axis, rank, describe(c, 0));
}

Status requireAxes(const InferContext& c, std::string_view attr, int rank) {
  const auto& axes = c.attrs.integers(attr);
  for (size_t i = 0; i < axes.size(); ++i)
    if (axes[i] < 0 || axes[i] >= rank || (i > 0 && axes[i] <= axes[i - 1]))
      return fail(ErrorCode::kInvalidModel, "'{}': {}={} are not distinct ascending dims of {}", c.op, attr, toString(Attr(axes)),
                  describe(c, 0));
  return {};
}

Status requireOneOf(const InferContext& c, std::string_view attr, std::initializer_list<std::string_view> values) {
  const std::string& value = c.attrs.string(attr);
  if (std::find(values.begin(), values.end(), value) != values.end()) return {};
  std::string known;
  for (const std::string_view v : values) known += (known.empty() ? "" : ", ") + std::string(v);
  return fail(ErrorCode::kInvalidModel, "'{}': {}=\"{}\" is not one of {}", c.op, attr, value, known);
}

Status requirePerTensorTo(const QuantPtr& to) {
  if (!to) return fail(ErrorCode::kInvalidModel, "the attribute 'to' is none: a quantized result needs parameters");
  if (to->perChannel()) return fail(ErrorCode::kInvalidModel, "a result is quantized per tensor, got {}", toString(*to));
  if (!isInteger(to->storage) || sizeOf(to->storage) > 2)
    return fail(ErrorCode::kUnsupported, "a result is quantized to at most 16 bits, got {}", toString(*to));
  return checkQuantParams(*to);
}

Status requirePost(const InferContext& c, bool hasResidual) {
  const ScalarExpr* post = c.attrs.expr("post");
  if (!post || post->arity() <= (hasResidual ? 2 : 1)) return {};
  return fail(ErrorCode::kInvalidModel, "'{}': post '{}' reads a{}, which is absent", c.op, post->str(), post->arity() - 1);
}

AttrSpec integerAttr(std::string name) { return {std::move(name), AttrKind::integer, std::nullopt}; }
AttrSpec integerAttr(std::string name, int64_t byDefault) { return {std::move(name), AttrKind::integer, Attr(byDefault)}; }
AttrSpec realAttr(std::string name, double byDefault) { return {std::move(name), AttrKind::real, Attr(byDefault)}; }
AttrSpec stringAttr(std::string name, std::string byDefault) { return {std::move(name), AttrKind::string, Attr(std::move(byDefault))}; }
AttrSpec exprAttr(std::string name) { return {std::move(name), AttrKind::expression, std::nullopt}; }
AttrSpec postAttr() { return {"post", AttrKind::expression, Attr(ExprAttr())}; }
AttrSpec integersAttr(std::string name) { return {std::move(name), AttrKind::integers, std::nullopt}; }
AttrSpec dimsAttr(std::string name) { return {std::move(name), AttrKind::dims, std::nullopt}; }
AttrSpec integersOrEmptyAttr(std::string name) { return {std::move(name), AttrKind::integers, Attr(std::vector<int64_t>{})}; }
AttrSpec meaning(AttrMeaning what, AttrSpec spec) {
  spec.meaning = what;
  return spec;
}
AttrSpec axisAttr(std::string name) { return meaning(AttrMeaning::axis, integerAttr(std::move(name))); }
AttrSpec axesAttr() { return meaning(AttrMeaning::axes, integersAttr("axes")); }
AttrSpec perDimAttr(std::string name, AttrKind kind) { return meaning(AttrMeaning::perDim, {std::move(name), kind, std::nullopt}); }
AttrSpec perSpatialDimAttr(std::string name, int64_t neutral) {
  AttrSpec spec = meaning(AttrMeaning::perSpatialDim, integersOrEmptyAttr(std::move(name)));
  spec.neutral = neutral;
  return spec;
}
AttrSpec resultQuantAttr(bool required) {
  return {"to", AttrKind::quant, required ? std::optional<Attr>() : std::optional<Attr>(QuantAttr{}), AttrMeaning::element};
}
AttrSpec layoutAttr() { return stringAttr("layout", "channels_first"); }
AttrSpec clampMinAttr() { return integerAttr("clamp_min", INT32_MIN); }
AttrSpec clampMaxAttr() { return integerAttr("clamp_max", INT32_MAX); }

Status requireLayout(const InferContext& c) { return requireOneOf(c, "layout", {"channels_first", "channels_last"}); }

}  // namespace qc
