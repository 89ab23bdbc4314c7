// Pools over the spatial dims of channel-last tensors, vectorised over channels: max_pool, avg_pool, q.avg_pool;
// and lrn, a window over channels.  The order of float sums is that of ir/ops/pool.cpp and norm.cpp.  A unit is one row of output pixels.
// Tests: tests/kernels.
#include <algorithm>
#include <limits>

#include "codegen/families.h"
#include "codegen/vector_loop.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

struct PoolShape {
  int64_t batch, inH, inW, outH, outW, channels;
  int64_t kernel[2], stride[2], pad[2], padEnd[2];

  explicit PoolShape(const Node& node) {
    const Ints x = node.operand(0)->type().sizes(), y = node.result()->type().sizes();
    batch = x[0], inH = x[1], inW = x[2], channels = x[3], outH = y[1], outW = y[2];
    const auto at = [&](const char* name, size_t i, int64_t byDefault) {
      const Ints& list = node.integers(name);
      return list.empty() ? byDefault : list[i];
    };
    for (size_t i = 0; i < 2; ++i) {
      kernel[i] = node.integers("kernel_shape")[i];
      stride[i] = at("strides", i, 1);
      pad[i] = at("pads", i, 0);
      padEnd[i] = at("pads", i + 2, 0);
    }
  }
};

// What is kept while the taps of a window go by, and what becomes of it.
struct Combiner {
  std::function<Reg(KernelEmitter&, int lanes)> start;
  std::function<Reg(KernelEmitter&, Reg acc, Reg address, int width, int count)> add;  // loads `count` of `width` channels
  std::function<void(KernelEmitter&, Reg acc, Reg taps, Reg counted, Reg address, int width, int count)> finish;
};

// One vector of channels of one window whose first and last taps are run-time values.
void emitWindow(KernelEmitter& e, const PoolShape& p, const Combiner& combine, Reg image, Reg row, Reg column, const Reg first[2],
                const Reg last[2], Reg counted, Reg out, int64_t elementBytes, int width, int count) {
  KernelEmitter::Values acc{combine.start(e, width)};
  const int64_t pixel = p.channels * elementBytes;
  acc = e.loop(first[0], last[0], 1, acc, [&](Reg ky, KernelEmitter::Values& outer) {
    Reg line = e.at(image, e.b.CreateMul(e.b.CreateAdd(row, ky), e.i64(p.inW * pixel)));
    outer = e.loop(first[1], last[1], 1, outer, [&](Reg kx, KernelEmitter::Values& inner) {
      Reg address = e.at(line, e.b.CreateMul(e.b.CreateAdd(column, kx), e.i64(pixel)));
      inner[0] = combine.add(e, inner[0], address, width, count);
    });
  });
  Reg taps = e.b.CreateMul(e.b.CreateSub(last[0], first[0]), e.b.CreateSub(last[1], first[1]));
  combine.finish(e, acc[0], taps, counted, out, width, count);
}

KernelShape emitPool(KernelEmitter& e, const Node& node, const Combiner& combine, int64_t inBytes, int64_t outBytes, int width,
                     bool includePad) {
  const PoolShape p(node);
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg n = e.b.CreateUDiv(unit, e.i64(p.outH)), oy = e.b.CreateURem(unit, e.i64(p.outH));
    Reg image = e.at(e.operand(0), e.b.CreateMul(n, e.i64(p.inH * p.inW * p.channels * inBytes)));
    Reg outRow = e.at(e.result(), e.b.CreateMul(unit, e.i64(p.outW * p.channels * outBytes)));
    // Taps inside the input, and those that count for an average.
    const auto range = [&](size_t i, Reg o, int64_t size, Reg& origin, Reg& first, Reg& last) {
      origin = e.b.CreateSub(e.b.CreateMul(o, e.i64(p.stride[i])), e.i64(p.pad[i]));
      first = e.maxOf(e.b.CreateNeg(origin), e.i64(0));
      last = e.minOf(e.b.CreateSub(e.i64(size), origin), e.i64(p.kernel[i]));
      return includePad ? e.minOf(e.b.CreateSub(e.i64(size + p.padEnd[i]), origin), e.i64(p.kernel[i])) : e.b.CreateSub(last, first);
    };
    Reg row, firstY, lastY;
    Reg countY = range(0, oy, p.inH, row, firstY, lastY);
    e.loop(
        e.i64(0), e.i64(p.outW), 1,
        [&](Reg ox) {
          Reg column, firstX, lastX;
          Reg countX = range(1, ox, p.inW, column, firstX, lastX);
          Reg counted = e.b.CreateMul(countY, countX);
          const Reg first[2] = {firstY, firstX}, last[2] = {lastY, lastX};
          Reg out = e.at(outRow, e.b.CreateMul(ox, e.i64(p.channels * outBytes)));
          const int64_t whole = p.channels / width * width;
          const auto rest = static_cast<int>(p.channels % width);
          const auto block = [&](Reg c, int count) {
            emitWindow(e, p, combine, e.at(image, e.b.CreateMul(c, e.i64(inBytes))), row, column, first, last, counted,
                       e.at(out, e.b.CreateMul(c, e.i64(outBytes))), inBytes, width, count);
          };
          if (whole) e.loop(e.i64(0), e.i64(whole), width, [&](Reg c) { block(c, width); }, true);
          if (rest) block(e.i64(whole), rest);
        },
        true);
  });
  return {p.batch * p.outH, 0};
}

Combiner maximum(const TensorType& type) {
  Combiner c;
  if (isPlainFloat(type)) {
    c.start = [](KernelEmitter& e, int lanes) { return e.floats(-std::numeric_limits<float>::infinity(), lanes); };
    c.add = [](KernelEmitter& e, Reg acc, Reg address, int width, int count) {
      return e.max(loadUpTo(e, e.f32(width), address, count), acc);
    };
  } else {
    const bool hasSign = isSigned(type.dtype);
    c.start = [hasSign](KernelEmitter& e, int lanes) { return e.ints(hasSign ? -128 : 0, e.i8(lanes)); };
    c.add = [hasSign](KernelEmitter& e, Reg acc, Reg address, int width, int count) {
      return e.b.CreateBinaryIntrinsic(hasSign ? llvm::Intrinsic::smax : llvm::Intrinsic::umax, loadUpTo(e, e.i8(width), address, count),
                                       acc);
    };
  }
  c.finish = [](KernelEmitter& e, Reg acc, Reg, Reg, Reg address, int, int count) { storeUpTo(e, acc, address, count); };
  return c;
}

// requantize(sum - taps * zx, (sx / sy) / count, zy), rounded in float32 in that order.
void storeRequantized(KernelEmitter& e, Reg sum, Reg taps, Reg counted, const KernelEmitter::Bounds& bounds, Reg address, int width,
                      int count) {
  Reg zero = e.b.CreateMul(e.operandParam(0, ParamField::zeroPoint), e.b.CreateTrunc(taps, e.b.getInt32Ty()));
  Reg centred = e.b.CreateSub(sum, e.splat(zero, width));
  Reg ratio = e.b.CreateFDiv(e.operandParam(0, ParamField::scale), e.resultParam(0, ParamField::scale));
  Reg multiplier = e.b.CreateFDiv(ratio, e.b.CreateSIToFP(counted, e.b.getFloatTy()));
  Reg q = e.roundClamp(e.b.CreateFMul(e.toFloat(centred), e.splat(multiplier, width)), bounds);
  storeUpTo(e, e.b.CreateTrunc(q, e.i8(width)), address, count);
}

}  // namespace

bool supportsPool(const KernelDef&, const Node& node, const Target&) {
  const TensorType& x = node.operand(0)->type();
  if (x.rank() != 4 || node.string("layout") != "channels_last" || x.numElements() == 0 || node.result()->type().numElements() == 0)
    return false;
  const Ints& dilations = node.integers("dilations");
  if (std::any_of(dilations.begin(), dilations.end(), [](int64_t d) { return d != 1; })) return false;
  // Every window reaches into the input, so that no maximum is over nothing and no count is zero.
  const PoolShape p(node);
  for (size_t i = 0; i < 2; ++i)
    if (p.pad[i] >= p.kernel[i] || ((i ? p.outW : p.outH) - 1) * p.stride[i] - p.pad[i] >= (i ? p.inW : p.inH)) return false;
  if (node.is("q.avg_pool")) return isPerTensorByte(x) && isPerTensorByte(node.result()->type());
  return isPlainFloat(x) || (node.is("max_pool") && (isPerTensorByte(x) || x.dtype == DType::u8 || x.dtype == DType::s8));
}

double costPool(const KernelDef&, const Node& node, const Target& target) {
  const PoolShape p(node);
  return 100 + static_cast<double>(node.result()->type().numElements() * p.kernel[0] * p.kernel[1]) * 3 * 4 / target.vectorBytes();
}

Result<KernelShape> emitMaxPool(KernelEmitter& e, const Node& node) {
  const TensorType& x = node.operand(0)->type();
  const int64_t bytes = sizeOf(x.dtype);
  // As many channels at once as there are, up to a vector.
  const int64_t most = e.target().vectorBytes() / bytes, channels = x.shape[3].size();
  int width = static_cast<int>(most);
  while (width > 16 / bytes && width / 2 >= channels) width /= 2;
  return emitPool(e, node, maximum(x), bytes, bytes, width, false);
}

Result<KernelShape> emitAvgPool(KernelEmitter& e, const Node& node) {
  Combiner c;
  c.start = [](KernelEmitter& k, int lanes) { return k.floats(0, lanes); };
  c.add = [](KernelEmitter& k, Reg acc, Reg address, int width, int count) {
    return k.b.CreateFAdd(acc, loadUpTo(k, k.f32(width), address, count));
  };
  c.finish = [](KernelEmitter& k, Reg acc, Reg, Reg counted, Reg address, int width, int count) {
    Reg divisor = k.splat(k.b.CreateSIToFP(counted, k.b.getFloatTy()), width);
    storeUpTo(k, k.b.CreateFDiv(acc, divisor), address, count);
  };
  return emitPool(e, node, c, 4, 4, e.lanes(), node.integer("count_include_pad") != 0);
}

Result<KernelShape> emitQuantizedAvgPool(KernelEmitter& e, const Node& node) {
  const bool hasSign = isSigned(node.operand(0)->type().dtype);
  const KernelEmitter::Bounds bounds = e.resultBounds();
  Combiner c;
  c.start = [](KernelEmitter& k, int lanes) { return k.ints(0, k.i32(lanes)); };
  c.add = [hasSign](KernelEmitter& k, Reg acc, Reg address, int width, int count) {
    return k.b.CreateAdd(acc, widened(k, loadUpTo(k, k.i8(width), address, count), hasSign));
  };
  c.finish = [bounds](KernelEmitter& k, Reg acc, Reg taps, Reg counted, Reg address, int width, int count) {
    storeRequantized(k, acc, taps, counted, bounds, address, width, count);
  };
  return emitPool(e, node, c, 1, 1, e.lanes(), node.integer("count_include_pad") != 0);
}

// ---- lrn: a window over channels --------------------------------------------------------------

bool supportsLrn(const KernelDef&, const Node& node, const Target&) {
  const TensorType& x = node.operand(0)->type();
  return isPlainFloat(x) && x.numElements() > 0 && x.rank() >= 3 && node.string("layout") == "channels_last" && node.integer("size") <= 64;
}

double costLrn(const KernelDef&, const Node& node, const Target& target) {
  const double perVector = 80 + 3.0 * static_cast<double>(node.integer("size"));
  return 100 + static_cast<double>(node.result()->type().numElements()) * perVector * 4 / target.vectorBytes();
}

// A pixel's channels are copied between zeros, whose squares add nothing: no sum is -0.
Result<KernelShape> emitLrn(KernelEmitter& e, const Node& node) {
  const Ints sizes = node.operand(0)->type().sizes();
  const int64_t channels = sizes.back(), rows = sizes[0] * sizes[1], pixels = node.operand(0)->type().numElements() / rows / channels;
  const int64_t size = node.integer("size"), before = (size - 1) / 2;
  const int width = laneCount(e, channels);
  const int64_t scratchBytes = 4 * (channels + size + width);
  const auto real = [&](const char* name) { return static_cast<float>(node.real(name)); };
  const float factor = real("alpha") / static_cast<float>(size);
  const ScalarExpr base = ScalarExpr(real("bias")) + ScalarExpr(factor) * ScalarExpr::arg(1);
  const ScalarExpr meaning = ScalarExpr::arg(0) / expr::pow(base, real("beta"));
  e.fillBytes(e.scratch(), e.b.getInt8(0), e.i64(scratchBytes));
  Reg centre = e.at(e.scratch(), 4 * before);
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    e.loop(
        e.i64(0), e.i64(pixels), 1,
        [&](Reg p) {
          Reg start = e.b.CreateMul(e.b.CreateAdd(e.b.CreateMul(unit, e.i64(pixels)), p), e.i64(4 * channels));
          Reg x = e.at(e.operand(0), start), y = e.at(e.result(), start);
          e.copyBytes(centre, x, 4 * channels);
          vectorLoop(e, channels, width, [&](Reg c, int count) {
            Reg offset = e.b.CreateShl(c, 2), window = e.at(e.scratch(), offset), sum = e.floats(0, width);
            for (int64_t k = 0; k < size; ++k) {
              Reg v = e.load(e.f32(width), e.at(window, 4 * k));
              sum = e.b.CreateFAdd(sum, e.b.CreateFMul(v, v));
            }
            Reg v = e.load(e.f32(width), e.at(centre, offset));
            storeUpTo(e, e.expression(meaning, {{v, sum}}), e.at(y, offset), count);
          });
        },
        true);
  });
  return KernelShape{rows, scratchBytes};
}

}  // namespace qc
