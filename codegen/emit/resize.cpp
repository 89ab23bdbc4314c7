// resize and q.resize.  Dims that keep their size in front of the resized ones are an outer loop, those behind them (the channels
// of a channel-last image) are the vectors.  Positions and weights of the taps are tables in the code.  A unit is one line of
// the last resized dim.  Terms and products are in the order of ir/ops/resize.cpp.  Tests: tests/kernels/resize_test.cpp.
#include <bit>
#include <optional>

#include "codegen/emit/vector_loop.h"
#include "codegen/plan/any_batch.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/resize.h"

namespace qc {
namespace {

struct ResizedAxis {
  int64_t in, out;
  int64_t stride;                         // elements of the source between neighbours
  int taps;                               // for every result the same
  std::vector<int32_t> indices, weights;  // [out][taps]; weights as bits
};

struct ResizePlan {
  int64_t outer = 1, inner = 1;
  int64_t sourceSize = 1;  // elements of one outer step
  std::vector<ResizedAxis> axes;
  AnyBatch batch;

  void eachNumber(const NumberVisitor& visit) { visit(batch.images); }
  std::string form() const { return batch.sizes; }
  KernelShape shape() const { return {units(), 0}; }

  int64_t units() const {
    int64_t n = outer;
    for (size_t i = 0; i + 1 < axes.size(); ++i) n *= axes[i].out;
    return n;
  }
  int64_t corners() const {
    int64_t n = 1;
    for (const ResizedAxis& a : axes) n *= a.taps;
    return n;
  }
};

bool keepsPlace(const ResizedAxis& axis) {
  if (axis.in != axis.out || axis.taps != 1) return false;
  for (int64_t o = 0; o < axis.out; ++o)
    if (nth(axis.indices, o) != o || nth(axis.weights, o) != std::bit_cast<int32_t>(1.0f)) return false;
  return true;
}

std::optional<ResizedAxis> axisOf(const Node& node, size_t dim, int64_t in, int64_t out) {
  const auto taps = resizeTaps(node.attrs(), dim, in, out);
  ResizedAxis axis{in, out, 0, taps.empty() ? 1 : static_cast<int>(taps[0].size()), {}, {}};
  for (const auto& list : taps) {
    if (list.empty() || static_cast<int>(list.size()) != axis.taps) return std::nullopt;
    for (const ResizeTap& tap : list) {
      axis.indices.push_back(static_cast<int32_t>(tap.index));
      axis.weights.push_back(std::bit_cast<int32_t>(tap.weight));
    }
  }
  return axis;
}

std::optional<ResizePlan> planOf(const Node& node) {
  constexpr int64_t kMaxPositions = 1 << 16;
  const std::vector<int64_t> in = node.operand(0)->type().sizes(), out = node.result()->type().sizes();
  ResizePlan plan;
  for (size_t d = 0; d < in.size(); ++d) {
    const bool kept = in[d] == out[d] && node.attrs().reals("scales")[d] == 1.0 && node.string("coordinate") != "tf_crop_and_resize";
    if (kept && plan.axes.empty()) {
      plan.outer *= in[d];
      continue;
    }
    if (kept && d + 1 == in.size()) {
      plan.inner = in[d];
      continue;
    }
    if (in[d] > INT32_MAX || out[d] > kMaxPositions) return std::nullopt;
    std::optional<ResizedAxis> axis = axisOf(node, d, in[d], out[d]);
    if (!axis) return std::nullopt;
    plan.axes.push_back(std::move(*axis));
  }
  while (!plan.axes.empty() && keepsPlace(plan.axes.back())) {
    plan.inner *= plan.axes.back().in;
    plan.axes.pop_back();
  }
  int64_t stride = plan.inner;
  for (size_t i = plan.axes.size(); i-- > 0; stride *= plan.axes[i].in) plan.axes[i].stride = stride;
  plan.sourceSize = stride;
  if (plan.axes.empty() || plan.corners() > 16) return std::nullopt;
  plan.batch = AnyBatch(node);
  return plan;
}

struct Corner {
  Reg offset;  // elements
  Reg weight;  // float scalar; null: 1
};

// Tables of an axis in the code, and how a position reads them.
class AxisTables {
 public:
  AxisTables(KernelEmitter& e, const ResizedAxis& axis, bool weighted)
      : e_(e), axis_(axis), indices_(e.table(axis.indices)), weights_(weighted && axis.taps > 1 ? e.table(axis.weights) : nullptr) {}

  // Every corner so far with every tap of position o.
  std::vector<Corner> grow(const std::vector<Corner>& corners, Reg o) const {
    std::vector<Corner> taps, grown;
    for (int t = 0; t < axis_.taps; ++t) {
      Reg at = e_.b.CreateShl(e_.b.CreateAdd(e_.b.CreateMul(o, e_.i64(axis_.taps)), e_.i64(t)), 2);
      Reg index = e_.b.CreateSExt(e_.load(e_.b.getInt32Ty(), e_.at(indices_, at)), e_.b.getInt64Ty());
      taps.push_back({e_.b.CreateMul(index, e_.i64(axis_.stride)), weights_ ? e_.load(e_.f32(), e_.at(weights_, at)) : nullptr});
    }
    for (const Corner& c : corners)
      for (const Corner& tap : taps)
        grown.push_back({e_.b.CreateAdd(c.offset, tap.offset), !c.weight     ? tap.weight
                                                               : !tap.weight ? c.weight
                                                                             : e_.b.CreateFMul(c.weight, tap.weight)});
    return grown;
  }

 private:
  KernelEmitter& e_;
  const ResizedAxis& axis_;
  Reg indices_, weights_;
};

// Calls pixel(corners, element offset of the result) for every place of the resized dims.
KernelShape emitPositions(KernelEmitter& e, const ResizePlan& plan, bool weighted,
                          const std::function<void(std::vector<Corner>, Reg)>& pixel) {
  std::vector<AxisTables> tables;
  for (const ResizedAxis& axis : plan.axes) tables.emplace_back(e, axis, weighted);
  const ResizedAxis& line = plan.axes.back();
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    std::vector<Reg> position(plan.axes.size());
    Reg rest = unit;
    for (size_t i = plan.axes.size() - 1; i-- > 0;) {
      position[i] = e.b.CreateURem(rest, e.i64(plan.axes[i].out));
      rest = e.b.CreateUDiv(rest, e.i64(plan.axes[i].out));
    }
    std::vector<Corner> corners{{e.b.CreateMul(rest, e.i64(plan.sourceSize)), nullptr}};
    for (size_t i = 0; i + 1 < plan.axes.size(); ++i) corners = tables[i].grow(corners, position[i]);
    Reg out = e.b.CreateMul(unit, e.i64(line.out * plan.inner));
    e.loop(
        e.i64(0), e.i64(line.out), 1,
        [&](Reg o) { pixel(tables.back().grow(corners, o), e.b.CreateAdd(out, e.b.CreateMul(o, e.i64(plan.inner)))); }, true);
  });
  return {plan.units(), 0};
}

// Whose leading dim is no resized one.
bool servesAnyBatch(const ResizePlan& plan, const Node& node) {
  return plan.batch.images.isFree && node.operand(0)->type().shape.front() == node.result()->type().shape.front() &&
         node.attrs().reals("scales").front() == 1.0 && node.string("coordinate") != "tf_crop_and_resize";
}

bool isNearest(const Node& node) { return node.string("mode") == "nearest"; }

std::optional<ResizePlan> plan(const Node& node, const Target&) {
  const TensorType &x = node.operand(0)->type(), &y = node.result()->type();
  if (x.numElements() == 0 || y.numElements() == 0) return std::nullopt;
  const bool types = node.is("q.resize") ? isPerTensorByte(x) && isPerTensorByte(y) : isNearest(node) || isPlainFloat(x);
  if (!types) return std::nullopt;
  return planOf(node);
}

Work work(const ResizePlan& plan, const Node& node, const Target& target) {
  const TensorType& y = node.result()->type();
  const double pixels = static_cast<double>(y.numElements() / plan.inner), corners = static_cast<double>(plan.corners());
  const double vectors = pixels * vectorCount(plan.inner, target.vectorBytes() / 4);
  const bool copies = isNearest(node) && !y.isQuantized();
  return {{"call", 1},
          {"pixel", pixels},
          {"byte", copies ? static_cast<double>(y.byteSize()) : 0},
          {"corner", copies ? 0 : pixels * corners},
          {"vector", copies ? 0 : vectors},
          {"tap", copies ? 0 : vectors * corners},
          {"conversion", y.isQuantized() ? vectors : 0}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const ResizePlan& plan) {
  const TensorType &xType = node.operand(0)->type(), &yType = node.result()->type();
  const bool quantized = node.is("q.resize");
  const int64_t bytes = sizeOf(xType.dtype);
  if (isNearest(node) && !quantized) {
    return emitPositions(e, plan, false, [&](const std::vector<Corner>& corners, Reg out) {
      e.copyBytes(e.at(e.result(), e.b.CreateMul(out, e.i64(bytes))), e.at(e.operand(0), e.b.CreateMul(corners[0].offset, e.i64(bytes))),
                  plan.inner * bytes);
    });
  }
  const int width = laneCount(e, plan.inner);
  KernelEmitter::Bounds bounds{};
  Reg multiplier = nullptr, zero = nullptr;
  if (quantized) {
    bounds = e.resultBounds();
    multiplier = e.splat(e.b.CreateFDiv(e.operandParam(0, ParamField::scale), e.resultParam(0, ParamField::scale)), width);
    zero = e.splat(e.operandParam(0, ParamField::zeroPoint), width);
  }
  const auto read = [&](Reg address, LaneCount count) {
    if (!quantized) return loadUpTo(e, e.f32(width), address, count);
    return e.toFloat(e.b.CreateSub(widened(e, loadUpTo(e, e.i8(width), address, count), isSigned(xType.dtype)), zero));
  };
  return emitPositions(e, plan, true, [&](const std::vector<Corner>& corners, Reg out) {
    std::vector<Reg> sources, weights;
    for (const Corner& c : corners) {
      sources.push_back(e.at(e.operand(0), e.b.CreateMul(c.offset, e.i64(bytes))));
      weights.push_back(c.weight ? e.splat(c.weight, width) : nullptr);
    }
    Reg to = e.at(e.result(), e.b.CreateMul(out, e.i64(sizeOf(yType.dtype))));
    vectorLoop(e, plan.inner, width, [&](Reg i, LaneCount count) {
      Reg offset = e.b.CreateMul(i, e.i64(bytes)), sum = nullptr;
      for (size_t k = 0; k < sources.size(); ++k) {
        Reg x = read(e.at(sources[k], offset), count);
        Reg term = weights[k] ? e.b.CreateFMul(weights[k], x) : x;
        sum = sum ? e.b.CreateFAdd(sum, term) : term;
      }
      if (quantized) sum = e.b.CreateTrunc(e.roundClamp(e.b.CreateFMul(sum, multiplier), bounds), e.i8(width));
      storeUpTo(e, sum, e.at(to, e.b.CreateMul(i, e.i64(sizeOf(yType.dtype)))), count);
    });
  });
}

}  // namespace

std::vector<KernelDef> resizeKernels() {
  return kernelsOf(KernelFamily<ResizePlan>{
      .ops = {"resize", "q.resize"}, .rows = {{"resize"}}, .plan = plan, .work = work, .onlyNumbers = servesAnyBatch, .emit = emit});
}

}  // namespace qc
