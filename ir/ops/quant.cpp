// Between real numbers and integers (formulas in ir/qmath.h).
//   quantize, dequantize         parameters known at compile time: they are part of the type
//   storage_cast                 the same integers, read as plain numbers of their storage type or given a meaning
//   fake_quantize                dequantize(quantize(x))
//   observe                      identity that marks where an observer sits
//   dynamic_qparams              scale and zero point at run time, of a tensor or of each row of its last dim; formulas in dynamic.h
//   quantize_with, dequantize_with   the same formulas with scale and zero point as operands; integers are plain
#include <algorithm>
#include <cmath>

#include "ir/ops/batches.h"
#include "ir/ops/dynamic.h"
#include "ir/ops/epilogue.h"
#include "ir/ops/gradients.h"
#include "ir/ops/packed_weights.h"

namespace qc {
namespace {

// ---- inference --------------------------------------------------------------------------------

Result<QuantPtr> requireTo(const InferContext& c) {
  const QuantPtr& to = c.attrs.quant("to");
  if (!to) return fail(ErrorCode::kInvalidModel, "'{}' needs quantization parameters, 'to' is none", c.op);
  if (!isInteger(to->storage) || sizeOf(to->storage) > 4 || to->storage == DType::u32)
    return fail(ErrorCode::kUnsupported, "'{}': integers of type {}", c.op, toString(to->storage));
  QC_TRY(checkQuantParams(*to, c.type(0).shape));
  return to;
}

Result<Types> inferQuantize(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_ASSIGN(QuantPtr to, requireTo(c));
  return checkedResults({TensorType(std::move(to), c.type(0).shape)});
}

Result<Types> inferDequantize(const InferContext& c) {
  const TensorType& x = c.type(0);
  if (!x.isQuantized()) return fail(ErrorCode::kInvalidModel, "'{}' takes a quantized tensor, got {}", c.op, describe(c, 0));
  QC_TRY(checkQuantParams(*x.quant, x.shape));
  return checkedResults({TensorType(DType::f32, x.shape)});
}

Result<Types> inferStorageCast(const InferContext& c) {
  const TensorType& x = c.type(0);
  if (!c.attrs.quant("to")) {
    if (!x.isQuantized()) return fail(ErrorCode::kInvalidModel, "'{}' without 'to' takes a quantized tensor, got {}", c.op, describe(c, 0));
    return checkedResults({TensorType(x.dtype, x.shape)});
  }
  QC_ASSIGN(QuantPtr to, requireTo(c));
  if (x.isQuantized() || x.dtype != to->storage)
    return fail(ErrorCode::kInvalidModel, "'{}' takes plain integers of type {}, got {}", c.op, toString(to->storage), describe(c, 0));
  return checkedResults({TensorType(std::move(to), x.shape)});
}

Result<Types> inferFakeQuantize(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireTo(c));
  return checkedResults({c.type(0)});
}

Result<Types> inferDynamicParams(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireDynamicRange(c));
  QC_TRY(requireGranularity(c));
  Shape shape;
  if (c.attrs.string("granularity") == "token") {
    QC_TRY(requireRank(c, 0, 1));
    const Shape& rows = c.type(0).shape;
    shape.assign(rows.begin(), rows.end() - 1);
    shape.push_back(1);
  }
  return checkedResults({TensorType(DType::f32, shape), TensorType(DType::s32, shape)});
}

// A scalar, one value per slice along `axis`, or one per row of the last dim.
Status requireParameter(const InferContext& c, int operand) {
  const Shape& own = c.type(operand).shape;
  const int64_t axis = c.attrs.integer("axis");
  const Shape& x = c.type(0).shape;
  if (axis < -1 || axis >= static_cast<int64_t>(x.size()))
    return fail(ErrorCode::kInvalidModel, "'{}': axis={} is outside the dims of {}", c.op, axis, describe(c, 0));
  if (own.empty() || (own.size() == 1 && own[0] == Dim(1))) return {};
  if (axis >= 0 && own.size() == 1 && compatible(own[0], nth(x, axis))) return {};
  if (axis < 0 && own.size() == x.size() && own.back() == Dim(1) && std::equal(own.begin(), own.end() - 1, x.begin(), compatible))
    return {};
  return fail(ErrorCode::kInvalidModel, "'{}': {} is neither a scalar nor one value per slice of {} along axis {} nor one per row", c.op,
              describe(c, operand), describe(c, 0), axis);
}

Status requireParameters(const InferContext& c) {
  if (c.type(1).isQuantized() || c.type(1).dtype != DType::f32)
    return fail(ErrorCode::kInvalidModel, "'{}' takes an f32 scale, got {}", c.op, describe(c, 1));
  QC_TRY(requireParameter(c, 1));
  if (!c.has(2)) return {};
  const TensorType& z = c.type(2);
  if (z.isQuantized() || !isInteger(z.dtype) || sizeOf(z.dtype) > 4 || z.dtype == DType::u32)
    return fail(ErrorCode::kInvalidModel, "'{}' takes an integer zero point, got {}", c.op, describe(c, 2));
  return requireParameter(c, 2);
}

Result<Types> inferQuantizeWith(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireParameters(c));
  QC_TRY(requireIntegerRange(c));
  return checkedResults({TensorType(c.attrs.dtype("storage"), c.type(0).shape)});
}

Result<Types> inferDequantizeWith(const InferContext& c) {
  const TensorType& x = c.type(0);
  if (x.isQuantized() || !isInteger(x.dtype) || sizeOf(x.dtype) > 4 || x.dtype == DType::u32)
    return fail(ErrorCode::kInvalidModel, "'{}' takes plain integers of at most 32 bits, got {}", c.op, describe(c, 0));
  QC_TRY(requireParameters(c));
  return checkedResults({TensorType(DType::f32, x.shape)});
}

// ---- evaluation -------------------------------------------------------------------------------

// Which scale an element has: none, one per slice along the axis, or one per block of slices.
class ScaleIndex {
 public:
  ScaleIndex(std::span<const int64_t> sizes, int64_t axis, int64_t blockSize) : blockSize_(blockSize) {
    if (axis < 0) return;
    const AxisView v(sizes, axis);
    length_ = v.length;
    inner_ = v.inner;
    blocks_ = blockSize ? (v.length + blockSize - 1) / blockSize : 0;
  }
  // How many elements side by side, from every multiple of it on, have one scale; of `count`.
  int64_t run(int64_t count) const { return std::max<int64_t>(1, length_ == 0 ? count : blockSize_ ? 1 : inner_); }
  int64_t operator()(int64_t i) const {
    if (length_ == 0) return 0;
    const int64_t slice = i / inner_ % length_;
    if (!blockSize_) return slice;
    return (i / (inner_ * length_) * blocks_ + slice / blockSize_) * inner_ + i % inner_;
  }

 private:
  int64_t blockSize_ = 0, length_ = 0, inner_ = 1, blocks_ = 0;
};

ScaleIndex scaleIndex(std::span<const int64_t> sizes, const QuantParams& q) { return {sizes, q.axis, q.blockSize}; }

Status evalQuantize(const EvalContext& c) {
  storeIntegers(c.out(), quantized(c.in(0), *c.outType().quant).data());
  return {};
}

Status evalDequantize(const EvalContext& c) {
  const QuantParams& q = *c.inType(0).quant;
  const Elements<int64_t> x(c.in(0));
  const ScaleIndex index = scaleIndex(c.in(0).sizes, q);
  auto* y = c.out().as<float>();
  for (int64_t i = 0; i < x.size(); ++i) {
    const int64_t s = index(i);
    y[i] = qmath::dequantize(static_cast<int32_t>(x[i]), q.scale(s), q.zeroPoint(s));
  }
  return {};
}

Status evalFakeQuantize(const EvalContext& c) {
  const QuantParams& q = *c.node.attrs().quant("to");
  const std::vector<int32_t> values = quantized(c.in(0), q);
  const ScaleIndex index = scaleIndex(c.in(0).sizes, q);
  const ResultElements<float> y(c.out());
  for (int64_t i = 0; i < y.size(); ++i) {
    const int64_t s = index(i);
    y[i] = qmath::dequantize(nth(values, i), q.scale(s), q.zeroPoint(s));
  }
  y.flush();
  return {};
}

Status evalSameBytes(const EvalContext& c) {
  const auto bytes = usize(c.in(0).numElements() * sizeOf(c.in(0).dtype));
  std::copy_n(c.in(0).as<const uint8_t>(), bytes, c.out().as<uint8_t>());
  return {};
}

Status evalDynamicParams(const EvalContext& c) {
  const Elements<float> x(c.in(0));
  const DynamicRange range = dynamicRangeOf(c.node.attrs());
  const int64_t sets = c.out().numElements(), each = sets ? x.size() / sets : 0;
  for (int64_t i = 0; i < sets; ++i) {
    const DynamicParams p = dynamicParams({x.data() + i * each, usize(each)}, range);
    c.out(0).as<float>()[i] = p.scale;
    c.out(1).as<int32_t>()[i] = p.zeroPoint;
  }
  return {};
}

struct Parameters {
  Elements<float> scale;
  std::vector<int32_t> zp{0};
  ScaleIndex slice;
  int64_t row = 0;  // elements that share one set, when there is one per row

  explicit Parameters(const EvalContext& c) : scale(c.in(1)), slice(c.in(0).sizes, c.node.integer("axis"), 0) {
    if (c.node.integer("axis") < 0 && !c.in(0).sizes.empty()) row = c.in(0).sizes.back();
    if (!c.has(2)) return;
    const Elements<int64_t> z(c.in(2));
    zp.assign(z.data(), z.data() + z.size());
  }
  int64_t index(int64_t i) const { return row ? i / row : slice(i); }
  float scaleAt(int64_t i) const { return scale[scale.size() == 1 ? 0 : index(i)]; }
  int32_t zpAt(int64_t i) const { return zp[zp.size() == 1 ? 0 : usize(index(i))]; }
};

Status evalQuantizeWith(const EvalContext& c) {
  const Elements<float> x(c.in(0));
  const Parameters p(c);
  const auto qmin = static_cast<int32_t>(c.node.integer("qmin")), qmax = static_cast<int32_t>(c.node.integer("qmax"));
  std::vector<int32_t> q(usize(x.size()));
  for (int64_t i = 0; i < x.size(); ++i) nth(q, i) = qmath::quantize(x[i], p.scaleAt(i), p.zpAt(i), qmin, qmax);
  storeIntegers(c.out(), q.data());
  return {};
}

Status evalDequantizeWith(const EvalContext& c) {
  const Elements<int64_t> x(c.in(0));
  const Parameters p(c);
  auto* y = c.out().as<float>();
  for (int64_t i = 0; i < x.size(); ++i) y[i] = qmath::dequantize(static_cast<int32_t>(x[i]), p.scaleAt(i), p.zpAt(i));
  return {};
}

}  // namespace

std::vector<int32_t> quantized(const TensorRef& ref, const QuantParams& q) {
  const Elements<float> x(ref);
  const ScaleIndex index = scaleIndex(ref.sizes, q);
  const int64_t count = x.size(), run = index.run(count);
  std::vector<int32_t> out(usize(count));
  const auto qmin = static_cast<int32_t>(q.qmin), qmax = static_cast<int32_t>(q.qmax);
  for (int64_t first = 0; first < count; first += run) {
    const int64_t s = index(first);
    const float scale = q.scale(s);
    const int32_t zero = q.zeroPoint(s);
    for (int64_t i = first; i < first + run; ++i) nth(out, i) = qmath::quantize(x[i], scale, zero, qmin, qmax);
  }
  return out;
}

void registerQuantOps(OpRegistry& registry) {
  const auto add = [&](std::string name, std::string summary, std::vector<OperandSpec> operands, std::vector<AttrSpec> attrs, InferFn infer,
                       EvalFn eval, std::string noGradient, uint32_t traits = kPure) -> OpDef {
    return {.name = std::move(name),
            .summary = std::move(summary),
            .operands = std::move(operands),
            .attrs = std::move(attrs),
            .traits = traits,
            .infer = std::move(infer),
            .eval = std::move(eval),
            .scalar = {},
            .noGradient = std::move(noGradient)};
  };
  const AttrSpec to{"to", AttrKind::quant, std::nullopt}, axis = meaning(AttrMeaning::axis, integerAttr("axis", -1));
  const AttrSpec storage{"storage", AttrKind::dtype, Attr(DType::u8), AttrMeaning::element}, qmin = integerAttr("qmin", 0),
                                                                                             qmax = integerAttr("qmax", 255);
  const std::vector<OperandSpec> withParams = {
      {"x"}, {.name = "scale", .role = OperandRole::parameter}, {.name = "zero_point", .optional = true, .role = OperandRole::parameter}};
  constexpr const char *kToIntegers = "its results are integers", *kOfIntegers = "what it reads are integers";
  registry.add(add("quantize", "real numbers to integers", {{"x"}}, {resultQuantAttr(true)}, inferQuantize, evalQuantize, kToIntegers,
                   kPure | kPermutable));
  registry.add(add("dequantize", "integers to the real numbers they stand for", {{"x"}}, {}, inferDequantize, evalDequantize, kOfIntegers,
                   kPure | kPermutable));
  registry.add(add("fake_quantize", "real numbers rounded to what integers can stand for", {{"x"}}, {to}, inferFakeQuantize,
                   evalFakeQuantize, "its steps have no slope", kPure | kPermutable));
  registry.add(add("storage_cast", "the same integers with another meaning: plain, or with the parameters `to`", {{"x"}},
                   {resultQuantAttr(false)}, inferStorageCast, evalSameBytes, kOfIntegers, kPure | kView | kPermutable));
  OpDef observe = add(
      "observe", "identity at which an observer sits", {{"x"}}, {integerAttr("id"), stringAttr("observer", "")},
      [](const InferContext& c) { return checkedResults({c.type(0)}); }, evalSameBytes, "");
  observe.gradient = [](GradientContext& c) { return Gradients{c.upstream()}; };
  observe.traits = kView | kPermutable;  // never folded, merged or erased; a tap on the bytes of its operand
  observe.stages = stageBit(Stage::kObserved) | stageBit(Stage::kKernel);  // calibration runs observed graphs
  registry.add(std::move(observe));
  OpDef params = add("dynamic_qparams", "scale and zero point for the values of one tensor or of each of its rows", {{"x"}}, {},
                     inferDynamicParams, evalDynamicParams, "it describes a range");
  params.attrs = dynamicRangeAttrs();
  params.attrs.push_back(granularityAttr());
  params.numResults = 2;
  params.batch = batchOfDynamicParams;
  registry.add(std::move(params));
  for (OpDef def : {add("quantize_with", "real numbers to integers with parameters known at run time", withParams,
                        {storage, qmin, qmax, axis}, inferQuantizeWith, evalQuantizeWith, kToIntegers),
                    add("dequantize_with", "integers to real numbers with parameters known at run time", withParams, {axis},
                        inferDequantizeWith, evalDequantizeWith, kOfIntegers)}) {
    def.batch = batchOfGivenParams;
    registry.add(std::move(def));
  }
  registerDynamicOps(registry);
  registerPackedWeightOps(registry);
}

}  // namespace qc
