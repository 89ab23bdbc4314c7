// Pools over one to three spatial dims of channel-last tensors, vectorised over channels: max_pool, avg_pool, q.avg_pool;
// and lrn, a window over channels.  The order of float sums is that of ir/ops/pool.cpp and norm.cpp.  A unit is one row of output pixels.
// Tests: tests/kernels.
#include <algorithm>
#include <array>
#include <limits>

#include "codegen/emit/vector_loop.h"
#include "codegen/plan/any_size.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

// Dims are planes, rows and columns; missing ones in front have size 1.
struct PoolShape {
  static constexpr size_t kDims = 3;
  AnySize size;
  int64_t channels;
  int64_t in[kDims] = {1, 1, 1}, out[kDims] = {1, 1, 1}, kernel[kDims] = {1, 1, 1}, stride[kDims] = {1, 1, 1}, dilation[kDims] = {1, 1, 1},
          pad[kDims] = {}, padEnd[kDims] = {};

  explicit PoolShape(const Node& node) : size(node) {
    const Ints x = node.operand(0)->type().sizes(), y = node.result()->type().sizes();
    const size_t spatial = x.size() - 2;
    channels = x.back();
    const auto at = [&](const char* name, size_t i, int64_t byDefault) {
      const Ints& list = node.integers(name);
      return list.empty() ? byDefault : list[i];
    };
    for (size_t i = 0; i < spatial; ++i) {
      const size_t d = kDims - spatial + i;
      in[d] = x[i + 1], out[d] = y[i + 1];
      kernel[d] = node.integers("kernel_shape")[i];
      stride[d] = at("strides", i, 1);
      dilation[d] = at("dilations", i, 1);
      pad[d] = at("pads", i, 0);
      padEnd[d] = at("pads", i + spatial, 0);
    }
  }
  int64_t rows() const { return size.images.value * out[0] * out[1]; }  // of results
  // The sizes of a dim, as the code has them.
  Reg inOf(KernelEmitter& e, size_t d) const { return d == 0 ? e.i64(in[0]) : e.number(d == 1 ? size.inH : size.inW); }
  Reg outOf(KernelEmitter& e, size_t d) const { return d == 0 ? e.i64(out[0]) : e.number(d == 1 ? size.outH : size.outW); }

  void eachNumber(const NumberVisitor& visit) { size.eachNumber(visit); }
  std::string form() const { return size.rest; }
  KernelShape shape() const { return {rows(), -1}; }
};

// What is kept while the taps of a window go by, and what becomes of it.
struct Combiner {
  std::function<Reg(KernelEmitter&, int lanes)> start;
  std::function<Reg(KernelEmitter&, Reg acc, Reg address, int width, int count)> add;  // loads `count` of `width` channels
  std::function<void(KernelEmitter&, Reg acc, Reg taps, Reg counted, Reg address, int width, int count)> finish;
  int width = 1;                      // channels at a time
  int64_t inBytes = 4, outBytes = 4;  // of an element
  bool includePad = false;            // whether padding counts for an average
};

// The taps of one window along one dim that lie inside the input, and how many count for an average.
struct Taps {
  Reg origin, first, last, counted;
};

Taps tapsOf(KernelEmitter& e, const PoolShape& p, size_t d, Reg position, bool includePad) {
  Taps t;
  t.origin = e.b.CreateSub(e.b.CreateMul(position, e.i64(p.stride[d])), e.i64(p.pad[d]));
  // The first tap at `place` or behind it.
  const auto tapAt = [&](Reg place) {
    Reg distance = e.maxOf(e.b.CreateSub(place, t.origin), e.i64(0));
    if (p.dilation[d] > 1) distance = e.b.CreateUDiv(e.b.CreateAdd(distance, e.i64(p.dilation[d] - 1)), e.i64(p.dilation[d]));
    return e.minOf(distance, e.i64(p.kernel[d]));
  };
  Reg in = p.inOf(e, d);
  t.first = tapAt(e.i64(0));
  t.last = tapAt(in);
  t.counted = includePad ? tapAt(e.b.CreateAdd(in, e.i64(p.padEnd[d]))) : e.b.CreateSub(t.last, t.first);
  return t;
}

// One vector of channels of one window: where they are in the image and in the result, and how many.
struct Window {
  std::array<Taps, PoolShape::kDims> taps;
  Reg image, out;
  int count;
};

void emitWindow(KernelEmitter& e, const PoolShape& p, const Combiner& combine, const Window& window) {
  const auto& taps = window.taps;
  Reg pixel = e.i64(p.channels * combine.inBytes), row = e.b.CreateMul(p.inOf(e, 2), pixel);
  Reg steps[PoolShape::kDims] = {e.b.CreateMul(p.inOf(e, 1), row), row, pixel};
  const std::function<KernelEmitter::Values(size_t, Reg, KernelEmitter::Values)> over = [&](size_t d, Reg base, KernelEmitter::Values acc) {
    const auto tap = [&](Reg k, KernelEmitter::Values& sums) {
      Reg place = e.b.CreateAdd(taps[d].origin, e.b.CreateMul(k, e.i64(p.dilation[d])));
      Reg address = e.at(base, e.b.CreateMul(place, steps[d]));
      if (d + 1 == PoolShape::kDims)
        sums[0] = combine.add(e, sums[0], address, combine.width, window.count);
      else
        sums = over(d + 1, address, sums);
    };
    if (p.kernel[d] > 1 || p.pad[d] || p.padEnd[d]) return e.loop(taps[d].first, taps[d].last, 1, acc, tap);
    tap(e.i64(0), acc);
    return acc;
  };
  const KernelEmitter::Values acc = over(0, window.image, {combine.start(e, combine.width)});
  Reg inside = e.i64(1), counted = e.i64(1);
  for (const Taps& t : taps) {
    inside = e.b.CreateMul(inside, e.b.CreateSub(t.last, t.first));
    counted = e.b.CreateMul(counted, t.counted);
  }
  combine.finish(e, acc[0], inside, counted, window.out, combine.width, window.count);
}

KernelShape emitPool(KernelEmitter& e, const PoolShape& p, const Combiner& combine) {
  Reg outH = p.outOf(e, 1), outW = p.outOf(e, 2);
  Reg imageBytes = e.b.CreateMul(e.b.CreateMul(p.inOf(e, 1), p.inOf(e, 2)), e.i64(p.in[0] * p.channels * combine.inBytes));
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg oy = e.b.CreateURem(unit, outH), plane = e.b.CreateUDiv(unit, outH);
    Reg oz = e.b.CreateURem(plane, e.i64(p.out[0])), n = e.b.CreateUDiv(plane, e.i64(p.out[0]));
    Reg image = e.at(e.operand(0), e.b.CreateMul(n, imageBytes));
    Reg outRow = e.at(e.result(), e.b.CreateMul(unit, e.b.CreateMul(outW, e.i64(p.channels * combine.outBytes))));
    const Taps z = tapsOf(e, p, 0, oz, combine.includePad), y = tapsOf(e, p, 1, oy, combine.includePad);
    e.loop(
        e.i64(0), outW, 1,
        [&](Reg ox) {
          const std::array<Taps, PoolShape::kDims> taps{z, y, tapsOf(e, p, 2, ox, combine.includePad)};
          Reg out = e.at(outRow, e.b.CreateMul(ox, e.i64(p.channels * combine.outBytes)));
          const int64_t whole = p.channels / combine.width * combine.width;
          const auto rest = static_cast<int>(p.channels % combine.width);
          const auto block = [&](Reg c, int count) {
            emitWindow(
                e, p, combine,
                {taps, e.at(image, e.b.CreateMul(c, e.i64(combine.inBytes))), e.at(out, e.b.CreateMul(c, e.i64(combine.outBytes))), count});
          };
          if (whole) e.loop(e.i64(0), e.i64(whole), combine.width, [&](Reg c) { block(c, combine.width); }, true);
          if (rest) block(e.i64(whole), rest);
        },
        true);
  });
  return {p.rows(), 0};
}

Combiner maximum(const TensorType& type) {
  Combiner c;
  if (isPlainFloat(type)) {
    c.start = [](KernelEmitter& e, int lanes) { return e.floats(-std::numeric_limits<float>::infinity(), lanes); };
    c.add = [](KernelEmitter& e, Reg acc, Reg address, int width, int count) {
      return e.max(loadUpTo(e, e.f32(width), address, count), acc);
    };
  } else {
    const DType t = type.dtype;
    const int64_t least = isSigned(t) ? -(int64_t{1} << (8 * sizeOf(t) - 1)) : 0;
    c.start = [t, least](KernelEmitter& e, int lanes) { return e.ints(least, integersOf(e, t, lanes)); };
    c.add = [t](KernelEmitter& e, Reg acc, Reg address, int width, int count) {
      return e.b.CreateBinaryIntrinsic(isSigned(t) ? llvm::Intrinsic::smax : llvm::Intrinsic::umax,
                                       loadUpTo(e, integersOf(e, t, width), address, count), acc);
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

std::optional<PoolShape> planPool(const Node& node, const Target&) {
  const TensorType& x = node.operand(0)->type();
  if (x.rank() < 3 || x.rank() > 5 || node.string("layout") != "channels_last" || x.numElements() == 0 ||
      node.result()->type().numElements() == 0)
    return std::nullopt;
  // Every window reaches into the input, so that no maximum is over nothing and no count is zero: dilated ones could step over it.
  const PoolShape p(node);
  for (size_t d = 0; d < PoolShape::kDims; ++d)
    for (int64_t o = 0; o < p.out[d]; ++o) {
      const int64_t origin = o * p.stride[d] - p.pad[d], steps = origin >= 0 ? 0 : (-origin + p.dilation[d] - 1) / p.dilation[d];
      if (steps >= p.kernel[d] || origin + steps * p.dilation[d] >= p.in[d]) return std::nullopt;
    }
  const bool types = node.is("q.avg_pool") ? isPerTensorByte(x) && isPerTensorByte(node.result()->type())
                                           : isPlainFloat(x) || (node.is("max_pool") &&
                                                                 (isPerTensorInteger(x) || x.dtype == DType::u8 || x.dtype == DType::s8));
  if (!types) return std::nullopt;
  return p;
}

Work workOfPool(const PoolShape& p, const Node& node, const Target& target) {
  const int64_t lanes = target.vectorBytes() / (node.is("max_pool") ? sizeOf(node.operand(0)->type().dtype) : 4);
  const auto rows = static_cast<double>(p.rows());
  const double pixels = rows * static_cast<double>(p.out[2]), vectors = pixels * vectorCount(p.channels, lanes);
  return {{"call", 1},
          {"row", rows},
          {"pixel", pixels},
          {"vector", vectors},
          {"tap", vectors * static_cast<double>(p.kernel[0] * p.kernel[1] * p.kernel[2])}};
}

Result<KernelShape> emitMaxPool(KernelEmitter& e, const Node& node, const PoolShape& p) {
  const TensorType& x = node.operand(0)->type();
  const int64_t bytes = sizeOf(x.dtype);
  // As many channels at once as there are, up to a vector.
  const int64_t most = e.target().vectorBytes() / bytes, channels = x.shape.back().size();
  Combiner c = maximum(x);
  c.inBytes = c.outBytes = bytes;
  c.width = static_cast<int>(most);
  while (c.width > 16 / bytes && c.width / 2 >= channels) c.width /= 2;
  return emitPool(e, p, c);
}

Result<KernelShape> emitAvgPool(KernelEmitter& e, const Node& node, const PoolShape& p) {
  Combiner c;
  c.start = [](KernelEmitter& k, int lanes) { return k.floats(0, lanes); };
  c.add = [](KernelEmitter& k, Reg acc, Reg address, int width, int count) {
    return k.b.CreateFAdd(acc, loadUpTo(k, k.f32(width), address, count));
  };
  c.finish = [](KernelEmitter& k, Reg acc, Reg, Reg counted, Reg address, int width, int count) {
    Reg divisor = k.splat(k.b.CreateSIToFP(counted, k.b.getFloatTy()), width);
    storeUpTo(k, k.b.CreateFDiv(acc, divisor), address, count);
  };
  c.width = e.lanes();
  c.includePad = node.integer("count_include_pad") != 0;
  return emitPool(e, p, c);
}

Result<KernelShape> emitQuantizedAvgPool(KernelEmitter& e, const Node& node, const PoolShape& p) {
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
  c.inBytes = c.outBytes = 1;
  c.width = e.lanes();
  c.includePad = node.integer("count_include_pad") != 0;
  return emitPool(e, p, c);
}

// ---- lrn: a window over channels --------------------------------------------------------------

struct LrnPlan {
  int64_t rows, pixels, channels, size;
};

std::optional<LrnPlan> planLrn(const Node& node, const Target&) {
  const TensorType& x = node.operand(0)->type();
  if (!isPlainFloat(x) || x.numElements() == 0 || x.rank() < 3 || node.string("layout") != "channels_last" || node.integer("size") > 64)
    return std::nullopt;
  const Ints sizes = x.sizes();
  const int64_t channels = sizes.back(), rows = sizes[0] * sizes[1];
  return LrnPlan{rows, x.numElements() / rows / channels, channels, node.integer("size")};
}

Work workOfLrn(const LrnPlan& plan, const Node&, const Target& target) {
  const double pixels = static_cast<double>(plan.rows * plan.pixels),
               vectors = pixels * vectorCount(plan.channels, target.vectorBytes() / 4);
  return {{"call", 1}, {"pixel", pixels}, {"vector", vectors}, {"tap", vectors * static_cast<double>(plan.size)}};
}

// A pixel's channels are copied between zeros, whose squares add nothing: no sum is -0.
Result<KernelShape> emitLrn(KernelEmitter& e, const Node& node, const LrnPlan& plan) {
  const auto [rows, pixels, channels, size] = plan;
  const int64_t before = (size - 1) / 2;
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
          vectorLoop(e, channels, width, [&](Reg c, LaneCount count) {
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

}  // namespace

std::vector<KernelDef> maxPoolKernels() {
  return kernelsOf(KernelFamily<PoolShape>{.ops = {"max_pool"},
                                           .rows = {{"max_pool"}},
                                           .plan = planPool,
                                           .work = workOfPool,
                                           .onlyNumbers = servesAnySize<PoolShape>,
                                           .emit = emitMaxPool});
}

std::vector<KernelDef> avgPoolKernels() {
  return kernelsOf(KernelFamily<PoolShape>{.ops = {"avg_pool"},
                                           .rows = {{"avg_pool"}},
                                           .plan = planPool,
                                           .work = workOfPool,
                                           .onlyNumbers = servesAnySize<PoolShape>,
                                           .emit = emitAvgPool});
}

std::vector<KernelDef> lrnKernels() {
  return kernelsOf(KernelFamily<LrnPlan>{.ops = {"lrn"}, .rows = {{"lrn"}}, .plan = planLrn, .work = workOfLrn, .emit = emitLrn});
}

std::vector<KernelDef> quantizedAvgPoolKernels() {
  return kernelsOf(KernelFamily<PoolShape>{.ops = {"q.avg_pool"},
                                           .rows = {{"avg_pool_u8"}},
                                           .plan = planPool,
                                           .work = workOfPool,
                                           .onlyNumbers = servesAnySize<PoolShape>,
                                           .emit = emitQuantizedAvgPool});
}

}  // namespace qc
