// Ops that exist only after select-kernels.
//
// k.conv(x, w, scale?, bias?, residual?) is every convolution and linear layer: q.conv, q.linear, conv, linear.
//   x        channels last; u8 or s16 quantized per tensor, or f32
//   w        packed weights (ir/packing.h), raw integers of zero point 0, f32, or f16 that stands for the f32 of the same value
//   scale    quantized only: f32, one entry per packed column.  Without post, residual and with `to`: the multiplier
//            f32(sx*sw[c]) / sy of the integer form; otherwise f32(sx*sw[c]), the scale of the accumulator
//   bias     one entry per packed column; s32 with -(zx - offset) * sum(weights) folded in, or f32; of a packing with sums then those
//   residual channels last, of the result's shape; quantized per tensor or f32
// bounded=1 promises |acc * scale| < 2^31 for every input of the integer form, which was proved from the weights; of floats, that all
// weights are finite, so that a tap in the padding adds nothing.
// Zero points, bounds and the result's scale are those of the types, so kernels receive them as data (codegen/plan/kernel.h).
#include <cmath>

#include "ir/epilogue_form.h"
#include "ir/op_def.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/products.h"
#include "ir/ops/weight_panels.h"
#include "ir/packed_layout.h"
#include "ir/qmath.h"

namespace qc {
namespace {

struct ConvOperand {
  enum : int { x, w, scale, bias, residual };
};

Result<ConvGeometry> geometryOf(const std::vector<int64_t>& xSizes, const AttrDict& attrs) {
  return ConvGeometry::of(xSizes, attrs.integers("weight_shape"), attrs);
}

Result<std::vector<TensorType>> inferConv(const InferContext& c) {
  const TensorType& x = c.type(ConvOperand::x);
  if (!x.isStatic()) return fail(ErrorCode::kUnsupported, "k.conv needs static shapes, got {}", x.str());
  const Packing& packing = c.attrs.packing("packing");
  QC_ASSIGN(const ConvGeometry conv, geometryOf(x.sizes(), c.attrs));
  if (packing.taps && (conv.groups != conv.channels || conv.outputs != conv.channels))
    return fail(ErrorCode::kInvalidModel, "packing '{}' is for depthwise convolutions", packing.str());
  const PackedLayout layout(packing, conv);
  const bool quantized = x.isQuantized();
  if (quantized ? (x.dtype != DType::u8 && x.dtype != DType::s16) || x.quant->perChannel() : x.dtype != DType::f32)
    return fail(ErrorCode::kUnsupported, "k.conv takes u8 or s16 per-tensor or f32 activations, got {}", x.str());
  if (x.dtype == DType::s16 && packing.element != DType::s16)
    return fail(ErrorCode::kInvalidModel, "activations {} with weights {}", x.str(), c.type(ConvOperand::w).str());
  if (c.type(ConvOperand::w).dtype != packing.element || c.type(ConvOperand::w).shape != Shape{layout.size()})
    return fail(ErrorCode::kInvalidModel, "packed weights {} do not fit packing '{}' ([{}])", c.type(ConvOperand::w).str(), packing.str(),
                layout.size());
  if (isFloat(packing.element) == quantized)
    return fail(ErrorCode::kInvalidModel, "activations {} with weights {}", x.str(), c.type(ConvOperand::w).str());
  const auto holds = [&](int i, DType dtype, int64_t entries, bool required) {
    return c.has(i) ? c.type(i) == TensorType(dtype, Shape{entries}) : !required;
  };
  if (!holds(ConvOperand::scale, DType::f32, layout.columns(), quantized) ||
      !holds(ConvOperand::bias, quantized ? DType::s32 : DType::f32, layout.biasEntries(), quantized) ||
      (c.has(ConvOperand::scale) && !quantized))
    return fail(ErrorCode::kInvalidModel, "scale or bias do not fit {} columns", layout.columns());
  TensorType result(DType::f32, toShape(conv.resultSizes(x.sizes(), c.attrs.integers("weight_shape"))));
  if (const QuantPtr& to = c.attrs.quant("to")) {
    if (to->perChannel()) return fail(ErrorCode::kInvalidModel, "k.conv gives per-tensor quantized results");
    result = TensorType(to, result.shape);
  }
  if (c.has(ConvOperand::residual) && c.type(ConvOperand::residual).shape != result.shape)
    return fail(ErrorCode::kInvalidModel, "residual {} has not the shape of result {}", c.type(ConvOperand::residual).str(), result.str());
  QC_TRY(requirePost(c, c.has(ConvOperand::residual)));
  return std::vector<TensorType>{result};
}

// Sums of one output, in the order that qmath.h fixes.  `at(k)` is the input value for weight k = (kz, ky, kx, ic), padding included.
struct Sums {
  const ConvGeometry& g;
  const TensorRef& x;
  int32_t padding, inputOffset;

  struct Pixel {
    int64_t n, z, y, x;
  };

  // Input element of an output pixel at (row of all kernel rows, kx, ic) or -1 in the padding.
  int64_t offset(const Pixel& at, int64_t row, int64_t kx, int64_t channel) const {
    const int64_t iz = at.z * g.strideD - g.padFront + row / g.kernelH * g.dilationD;
    const int64_t iy = at.y * g.strideH - g.padTop + row % g.kernelH * g.dilationH, ix = at.x * g.strideW - g.padLeft + kx * g.dilationW;
    if (iz < 0 || iy < 0 || ix < 0 || iz >= g.inD || iy >= g.inH || ix >= g.inW) return -1;
    return (((at.n * g.inD + iz) * g.inH + iy) * g.inW + ix) * g.channels + channel;
  }

  template <class Step>
  void walk(const Pixel& at, int64_t o, const Step& step) const {
    const int64_t cg = g.groupChannels(), first = o / g.groupOutputs() * cg, rows = g.kernelRows();
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t kx = 0; kx < g.kernelW; ++kx)
        for (int64_t ic = 0; ic < cg; ++ic) step(offset(at, row, kx, first + ic), ((o * cg + ic) * rows + row) * g.kernelW + kx);
  }

  int32_t integer(const Pixel& at, int64_t o, const Tensor& w, int32_t bias) const {
    int64_t sum = bias;
    const bool wide = w.dtype() == DType::s16, words = x.dtype == DType::s16;
    walk(at, o, [&](int64_t i, int64_t k) {
      const int64_t q = (i < 0 ? padding : words ? x.as<int16_t>()[i] : x.as<uint8_t>()[i]) - inputOffset;
      sum += q * (wide ? nth(w.as<int16_t>(), k) : nth(w.as<int8_t>(), k));
    });
    return static_cast<int32_t>(sum);
  }

  float real(const Pixel& at, int64_t o, const Tensor& w) const {
    float sum = 0;
    walk(at, o, [&](int64_t i, int64_t k) { sum = std::fma(i < 0 ? 0.0f : x.as<float>()[i], nth(w.as<float>(), k), sum); });
    return sum;
  }
};

Tensor borrowed(const TensorRef& ref) { return Tensor(ref.dtype, {ref.sizes.begin(), ref.sizes.end()}, nullptr, ref.data); }

Tensor widened(const Tensor& halves) {
  Tensor floats(DType::f32, halves.sizes());
  for (int64_t i = 0; i < halves.numElements(); ++i) nth(floats.mutableAs<float>(), i) = static_cast<float>(halves.at(i));
  return floats;
}

float residualAt(const EvalContext& c, int64_t i) {
  const TensorType& type = c.inType(ConvOperand::residual);
  if (!type.isQuantized()) return c.in(ConvOperand::residual).as<float>()[i];
  const auto q = static_cast<int32_t>(loadElement(type.dtype, c.in(ConvOperand::residual).data, i));
  return qmath::dequantize(q, type.quant->scale(), type.quant->zeroPoint());
}

Status evalConv(const EvalContext& c) {
  const AttrDict& attrs = c.node.attrs();
  const std::vector<int64_t> xSizes(c.in(ConvOperand::x).sizes.begin(), c.in(ConvOperand::x).sizes.end());
  QC_ASSIGN(const ConvGeometry g, geometryOf(xSizes, attrs));
  const Packing& packing = attrs.packing("packing");
  const PackedLayout layout(packing, g);
  const Tensor unpacked = layout.unpack(borrowed(c.in(ConvOperand::w)));
  const Tensor w = unpacked.dtype() == DType::f16 ? widened(unpacked) : unpacked;
  const TensorType& xType = c.inType(ConvOperand::x);
  const EpilogueForm form = EpilogueForm::of(c.node);
  const ExprProgram program(form.formula().expand());
  const Sums sums{g, c.in(ConvOperand::x), form.integers ? xType.quant->zeroPoint() : 0, packing.offset};
  int64_t i = 0;
  for (int64_t plane = 0; plane < g.planes(); ++plane)
    for (int64_t oy = 0; oy < g.outH; ++oy)
      for (int64_t ox = 0; ox < g.outW; ++ox)
        for (int64_t o = 0; o < g.outputs; ++o, ++i) {
          const Sums::Pixel at{plane / g.outD, plane % g.outD, oy, ox};
          const int64_t column = layout.column(o);
          float y = 0;
          if (form.integers) {
            const int32_t acc = sums.integer(at, o, w, c.in(ConvOperand::bias).as<int32_t>()[column]);
            const float scale = c.in(ConvOperand::scale).as<float>()[column];
            if (form.integerForm()) {
              storeElement(form.to->storage, c.out().data, i, form.ofSum(acc, scale));
              continue;
            }
            y = static_cast<float>(acc) * scale;
          } else {
            y = sums.real(at, o, w);
            if (c.has(ConvOperand::bias)) y += c.in(ConvOperand::bias).as<float>()[column];
          }
          if (form.post) {
            const float args[2] = {y, form.residual ? residualAt(c, i) : 0.0f};
            y = program(args);
          }
          if (form.to)
            storeElement(form.to->storage, c.out().data, i, form.ofFloat(y));
          else
            c.out().as<float>()[i] = y;
        }
  return {};
}

}  // namespace

void registerKernelOps(OpRegistry& registry) {
  const std::vector<int64_t> none;
  registerWeightPanelOps(registry);
  registry.add({
      .name = "k.conv",
      .summary = "convolution or linear layer over packed weights, with its whole epilogue",
      .operands = {{"x"},
                   {.name = "w", .role = OperandRole::weight},  // packed, no axes of its own
                   {.name = "scale", .optional = true, .role = OperandRole::parameter},
                   {.name = "bias", .optional = true, .role = OperandRole::bias},
                   {.name = "residual", .optional = true}},
      .attrs = {{"strides", AttrKind::integers, none},
                {"pads", AttrKind::integers, none},
                {"dilations", AttrKind::integers, none},
                {"group", AttrKind::integer, int64_t{1}},
                {"layout", AttrKind::string, std::string("channels_last")},
                {"weight_shape", AttrKind::integers, std::nullopt},
                {"packing", AttrKind::packing, std::nullopt},
                postAttr(),
                resultQuantAttr(false),
                clampMinAttr(),
                clampMaxAttr(),
                {"bounded", AttrKind::integer, int64_t{0}}},
      .traits = kPure,
      .infer = inferConv,
      .eval = evalConv,
      .scalar = {},
      .products = productsOfConv,
  });
}

}  // namespace qc
