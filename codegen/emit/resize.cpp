// resize and q.resize.  Dims that keep their size in front of the resized ones are an outer loop, those behind them (the channels
// of a channel-last image) are the vectors.  Positions and weights of the taps are tables: in the code, or where sizes were free, in the
// parameter block.  A unit is one line of the last resized dim.  Terms and products are in the order of ir/ops/resize.cpp; where there are
// many, as of an antialiased image that becomes much smaller, they are looped over.  Tests: tests/kernels/resize_test.cpp.
#include <algorithm>
#include <bit>
#include <optional>

#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/resize.h"

namespace qc {
namespace {

struct ResizedAxis {
  Number in, out;
  Number stride;                          // elements of the source between neighbours
  int taps;                               // for every result the same
  std::vector<int32_t> indices, weights;  // [out][taps]; weights as bits
  Number place;                           // of the indices in the table of the plan, in words; the weights of several taps follow
};

struct ResizePlan {
  Number outer = 1, inner = 1;
  Number sourceSize = 1;  // elements of one outer step
  std::vector<ResizedAxis> axes;
  int tableSlot = -1;

  bool hasFreeAxis() const {
    return std::any_of(axes.begin(), axes.end(), [](const ResizedAxis& a) { return a.in.isFree || a.out.isFree; });
  }
  std::vector<int32_t> table() const {
    std::vector<int32_t> words;
    for (const ResizedAxis& a : axes) {
      words.insert(words.end(), a.indices.begin(), a.indices.end());
      if (a.taps > 1) words.insert(words.end(), a.weights.begin(), a.weights.end());
    }
    return hasFreeAxis() ? words : std::vector<int32_t>();
  }
  void eachNumber(const NumberVisitor& visit) {
    visit(outer), visit(inner), visit(sourceSize);
    for (ResizedAxis& a : axes) visit(a.in), visit(a.out), visit(a.stride), visit(a.place);
  }
  std::string form() const {
    std::string text = "taps";
    for (const ResizedAxis& a : axes) text += fmt::format(" {}", a.taps);
    return text;
  }
  KernelShape shape() const { return {units(), 0}; }

  int64_t units() const {
    int64_t n = outer.value;
    for (size_t i = 0; i + 1 < axes.size(); ++i) n *= axes[i].out.value;
    return n;
  }
  int64_t corners() const {
    int64_t n = 1;
    for (const ResizedAxis& a : axes) n *= a.taps;
    return n;
  }
  bool isLooped() const { return corners() > 16; }
};

bool keepsPlace(const ResizedAxis& axis) {
  if (axis.in.value != axis.out.value || axis.taps != 1) return false;
  for (int64_t o = 0; o < axis.out.value; ++o)
    if (nth(axis.indices, o) != o || nth(axis.weights, o) != std::bit_cast<int32_t>(1.0f)) return false;
  return true;
}

std::optional<ResizedAxis> axisOf(const Node& node, size_t dim) {
  const TensorType &x = node.operand(0)->type(), &y = node.result()->type();
  const auto taps = resizeTaps(node.attrs(), dim, x.sizes(), y.sizes());
  ResizedAxis axis{Number(x.shape[dim]), Number(y.shape[dim]), 0, taps.empty() ? 1 : static_cast<int>(taps[0].size()), {}, {}, 0};
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
  const Shape &in = node.operand(0)->type().shape, &out = node.result()->type().shape;
  ResizePlan plan;
  for (size_t d = 0; d < in.size(); ++d) {
    const bool kept = in[d] == out[d] && node.attrs().reals("scales")[d] == 1.0 && node.string("coordinate") != "tf_crop_and_resize";
    if (kept && plan.axes.empty()) {
      plan.outer = plan.outer * Number(in[d]);
      continue;
    }
    if (kept && d + 1 == in.size()) {
      plan.inner = Number(in[d]);
      continue;
    }
    if (in[d].size() > INT32_MAX || out[d].size() > kMaxPositions) return std::nullopt;
    std::optional<ResizedAxis> axis = axisOf(node, d);
    if (!axis) return std::nullopt;
    plan.axes.push_back(std::move(*axis));
  }
  while (!plan.axes.empty() && keepsPlace(plan.axes.back())) {
    plan.inner = plan.inner * plan.axes.back().in;
    plan.axes.pop_back();
  }
  Number stride = plan.inner;
  for (size_t i = plan.axes.size(); i-- > 0; stride = stride * plan.axes[i].in) plan.axes[i].stride = stride;
  plan.sourceSize = stride;
  Number place = 0;
  for (ResizedAxis& axis : plan.axes) {
    axis.place = place;
    place = place + axis.out * Number(axis.taps > 1 ? 2 * axis.taps : 1);
  }
  constexpr int64_t kMostWords = 1 << 22;
  if (plan.axes.empty() || place.value > kMostWords) return std::nullopt;
  return plan;
}

// The vectors are part of the code.
bool onlyNumbers(const ResizePlan& plan, const Node&) { return !plan.inner.isFree && (plan.outer.isFree || plan.hasFreeAxis()); }

struct Corner {
  Reg offset;  // elements
  Reg weight;  // float scalar; null: 1
};

// Tables of an axis in the code, and how a position reads them.
class AxisTables {
 public:
  // `data`: where the tables of all axes are; null: in the code.
  AxisTables(KernelEmitter& e, const ResizedAxis& axis, bool weighted, Reg data) : e_(e), axis_(axis), stride_(e.number(axis.stride)) {
    weighted = weighted && axis.taps > 1;
    if (data) {
      Reg place = e.b.CreateShl(e.number(axis.place), 2);
      indices_ = e.at(data, place);
      if (weighted) weights_ = e.at(indices_, e.b.CreateMul(e.number(axis.out), e.i64(int64_t{4} * axis.taps)));
    } else {
      indices_ = e.table(axis.indices);
      if (weighted) weights_ = e.table(axis.weights);
    }
  }

  int taps() const { return axis_.taps; }

  // A corner of the dims in front, with tap t of position o.
  Corner with(const Corner& c, Reg o, Reg t) const {
    Reg at = e_.b.CreateShl(e_.b.CreateAdd(e_.b.CreateMul(o, e_.i64(axis_.taps)), t), 2);
    Reg index = e_.b.CreateSExt(e_.load(e_.b.getInt32Ty(), e_.at(indices_, at)), e_.b.getInt64Ty());
    Reg weight = weights_ ? e_.load(e_.f32(), e_.at(weights_, at)) : nullptr;
    return {e_.b.CreateAdd(c.offset, e_.b.CreateMul(index, stride_)), !c.weight ? weight
                                                                      : !weight ? c.weight
                                                                                : e_.b.CreateFMul(c.weight, weight)};
  }
  // Every corner so far with every tap.
  std::vector<Corner> grow(const std::vector<Corner>& corners, Reg o) const {
    std::vector<Corner> grown;
    for (const Corner& c : corners)
      for (int t = 0; t < axis_.taps; ++t) grown.push_back(with(c, o, e_.i64(t)));
    return grown;
  }

 private:
  KernelEmitter& e_;
  const ResizedAxis& axis_;
  Reg stride_, indices_ = nullptr, weights_ = nullptr;
};

using CornerTerm = std::function<Reg(const Corner&)>;

// The terms of all corners that tables[axis..] lead to from `corner`, added to `sum`: loops, as there are many.
Reg addedUp(KernelEmitter& e, std::span<const AxisTables> tables, std::span<Reg const> position, const Corner& corner, Reg sum,
            const CornerTerm& term) {
  if (tables.empty()) return e.b.CreateFAdd(sum, term(corner));
  const auto inner = [&](Reg t, KernelEmitter::Values& carried) {
    carried[0] = addedUp(e, tables.subspan(1), position.subspan(1), tables[0].with(corner, position[0], t), carried[0], term);
  };
  return e.loop(e.i64(0), e.i64(tables[0].taps()), 1, {sum}, inner, true)[0];
}

// What a result is the sum of: corners that are written out, or what adds the terms of many to -0, which changes no term.
struct Corners {
  std::vector<Corner> written;
  std::function<Reg(Reg, const CornerTerm&)> looped;
};

// Calls pixel(corners, element offset of the result) for every place of the resized dims.
KernelShape emitPositions(KernelEmitter& e, const ResizePlan& plan, bool weighted, const std::function<void(const Corners&, Reg)>& pixel) {
  std::vector<AxisTables> tables;
  Reg data = plan.hasFreeAxis() ? e.tableAt(plan.tableSlot) : nullptr;
  for (const ResizedAxis& axis : plan.axes) tables.emplace_back(e, axis, weighted, data);
  std::vector<Reg> sizes;
  for (const ResizedAxis& axis : plan.axes) sizes.push_back(e.number(axis.out));
  Reg sourceSize = e.number(plan.sourceSize), lineSize = e.b.CreateMul(sizes.back(), e.i64(plan.inner.value));
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    std::vector<Reg> position(plan.axes.size());
    Reg rest = unit;
    for (size_t i = plan.axes.size() - 1; i-- > 0;) {
      position[i] = e.b.CreateURem(rest, sizes[i]);
      rest = e.b.CreateUDiv(rest, sizes[i]);
    }
    std::vector<Corner> corners{{e.b.CreateMul(rest, sourceSize), nullptr}};
    for (size_t i = 0; i + 1 < plan.axes.size() && !plan.isLooped(); ++i) corners = tables[i].grow(corners, position[i]);
    Reg out = e.b.CreateMul(unit, lineSize);
    const auto cornersOf = [&](Reg o) -> Corners {
      if (!plan.isLooped()) return {tables.back().grow(corners, o), {}};
      position.back() = o;
      return {{}, [&](Reg zero, const CornerTerm& term) { return addedUp(e, tables, position, corners[0], zero, term); }};
    };
    e.loop(
        e.i64(0), sizes.back(), 1, [&](Reg o) { pixel(cornersOf(o), e.b.CreateAdd(out, e.b.CreateMul(o, e.i64(plan.inner.value)))); },
        true);
  });
  return {plan.units(), 0};
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
  const double pixels = static_cast<double>(y.numElements() / plan.inner.value), corners = static_cast<double>(plan.corners());
  const double vectors = pixels * vectorCount(plan.inner.value, target.vectorBytes() / 4);
  const bool rescales = node.is("q.resize"), copies = isNearest(node) && !rescales;  // integers of the same parameters as well
  return {{"call", 1},
          {"pixel", pixels},
          {"byte", copies ? static_cast<double>(y.byteSize()) : 0},
          {"corner", copies ? 0 : pixels * corners},
          {"vector", copies ? 0 : vectors},
          {"tap", copies ? 0 : vectors * corners},
          {"conversion", rescales ? vectors : 0}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const ResizePlan& plan) {
  const TensorType &xType = node.operand(0)->type(), &yType = node.result()->type();
  const bool quantized = node.is("q.resize");
  const int64_t bytes = sizeOf(xType.dtype);
  if (isNearest(node) && !quantized) {
    return emitPositions(e, plan, false, [&](const Corners& corners, Reg out) {
      Reg from = e.b.CreateMul(corners.written[0].offset, e.i64(bytes));
      e.copyBytes(e.at(e.result(), e.b.CreateMul(out, e.i64(bytes))), e.at(e.operand(0), from), plan.inner.value * bytes);
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
  struct Source {
    Reg from, weight;  // address; vector, null: 1
  };
  const auto sourceOf = [&](const Corner& c) {
    return Source{e.at(e.operand(0), e.b.CreateMul(c.offset, e.i64(bytes))), c.weight ? e.splat(c.weight, width) : nullptr};
  };
  return emitPositions(e, plan, true, [&](const Corners& corners, Reg out) {
    std::vector<Source> sources;
    for (const Corner& c : corners.written) sources.push_back(sourceOf(c));
    Reg to = e.at(e.result(), e.b.CreateMul(out, e.i64(sizeOf(yType.dtype))));
    vectorLoop(e, plan.inner.value, width, [&](Reg i, LaneCount count) {
      Reg offset = e.b.CreateMul(i, e.i64(bytes)), sum = nullptr;
      const auto termOf = [&](const Source& source) {
        Reg x = read(e.at(source.from, offset), count);
        return source.weight ? e.b.CreateFMul(source.weight, x) : x;
      };
      for (const Source& source : sources) sum = sum ? e.b.CreateFAdd(sum, termOf(source)) : termOf(source);
      if (corners.looped) sum = corners.looped(e.floats(-0.f, width), [&](const Corner& c) { return termOf(sourceOf(c)); });
      if (quantized) sum = e.b.CreateTrunc(e.roundClamp(e.b.CreateFMul(sum, multiplier), bounds), e.i8(width));
      storeUpTo(e, sum, e.at(to, e.b.CreateMul(i, e.i64(sizeOf(yType.dtype)))), count);
    });
  });
}

}  // namespace

std::vector<KernelDef> resizeKernels() {
  return kernelsOf(KernelFamily<ResizePlan>{
      .ops = {"resize", "q.resize"}, .rows = {{"resize"}}, .plan = plan, .work = work, .onlyNumbers = onlyNumbers, .emit = emit});
}

}  // namespace qc
