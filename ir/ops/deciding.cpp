// Ops whose results have sizes that their data decides: nonzero, compress, unique, non_max_suppression, choose between two tensors, and
// size_of, by which a computed number becomes a size.  Values and their order are those of ONNX Runtime.
// Tests: tests/golden/deciding, ONNX's node tests.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "ir/arithmetic.h"
#include "ir/memory_limit.h"
#include "ir/op_def.h"
#include "ir/ops/deciding.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/suppression.h"
#include "ir/ops/widen.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Tensors = std::vector<Tensor>;
using Bounds = std::vector<DimExpr>;

DimExpr elementsOf(const TensorType& t) {
  DimExpr n = 1;
  for (const Dim& d : t.shape) n = n * d.expr();
  return n;
}

// The sizes as dims, so many of them.
Result<Shape> decided(const InferContext& c, size_t count) {
  const std::vector<DimExpr> sizes = c.attrs.dims("sizes");
  if (sizes.size() != count) return fail(ErrorCode::kInvalidModel, "{}: `sizes` has {} entries, {} expected", c.op, sizes.size(), count);
  Shape shape;
  for (const DimExpr& size : sizes) {
    if (size.constant().value_or(0) < 0) return fail(ErrorCode::kInvalidModel, "{}: `sizes` holds {}", c.op, size.str());
    shape.emplace_back(size);
  }
  return shape;
}

Result<Tensor> allocated(DType dtype, Ints sizes) {
  QC_TRY(checkMemory(numElements(sizes) * sizeOf(dtype), "a result whose size the data decides"));
  return Tensor(dtype, std::move(sizes));
}

// ---- nonzero ----------------------------------------------------------------------------------

Result<Types> inferNonzero(const InferContext& c) {
  if (c.type(0).isQuantized()) return fail(ErrorCode::kUnsupported, "nonzero of {}", describe(c, 0));
  QC_ASSIGN(const Shape n, decided(c, 1));
  return checkedResults({TensorType(DType::s64, {std::max(c.type(0).rank(), 1), n[0]})});
}

Bounds boundNonzero(const InferContext& c) { return {elementsOf(c.type(0))}; }

Result<Tensors> evalNonzero(const EvalContext& c) {
  const TensorRef& x = c.in(0);
  const int64_t n = x.numElements();
  Ints places;
  withStorage(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (int64_t i = 0; i < n; ++i)
      if (widened<double>(x.as<const T>()[i]) != 0) places.push_back(i);
  });
  const auto rank = std::max<size_t>(x.sizes.size(), 1);
  const auto count = static_cast<int64_t>(places.size());
  QC_ASSIGN(Tensor y, allocated(DType::s64, {static_cast<int64_t>(rank), count}));
  int64_t* to = y.mutableAs<int64_t>().data();
  for (int64_t k = 0; k < count; ++k)
    for (size_t d = rank; d-- > 0;) {
      const int64_t size = d < x.sizes.size() ? x.sizes[d] : 1;
      to[static_cast<int64_t>(d) * count + k] = nth(places, k) % size;
      nth(places, k) /= size;
    }
  return Tensors{std::move(y)};
}

// ---- compress ---------------------------------------------------------------------------------

// axis -1: of all elements in their order.
int64_t lengthAlong(const TensorRef& x, int64_t axis) { return axis < 0 ? x.numElements() : x.sizes[usize(axis)]; }
DimExpr lengthAlong(const TensorType& x, int64_t axis) { return axis < 0 ? elementsOf(x) : nth(x.shape, axis).expr(); }

Status requireAxisOrNone(const InferContext& c) {
  return c.attrs.integer("axis") == -1 ? Status() : requireAxis(c, "axis", c.type(0).rank());
}

// x with the decided length along the axis.
Shape shortened(const TensorType& x, int64_t axis, Dim length) {
  if (axis < 0) return {length};
  Shape shape = x.shape;
  nth(shape, axis) = length;
  return shape;
}

Result<Types> inferCompress(const InferContext& c) {
  QC_TRY(requireAxisOrNone(c));
  QC_TRY(requireRank(c, 1, 1, 1));
  if (c.type(1).dtype != DType::boolean) return fail(ErrorCode::kInvalidModel, "compress by {}, expected bool", describe(c, 1));
  if (c.type(0).isQuantized()) return fail(ErrorCode::kUnsupported, "compress of {}", describe(c, 0));
  QC_ASSIGN(const Shape n, decided(c, 1));
  return checkedResults({TensorType(c.type(0).dtype, shortened(c.type(0), c.attrs.integer("axis"), n[0]))});
}

Bounds boundCompress(const InferContext& c) { return {min(lengthAlong(c.type(0), c.attrs.integer("axis")), c.type(1).shape[0].expr())}; }

// Slices of x along the axis, in the order of `kept`.
Result<Tensor> slices(const TensorRef& x, int64_t axis, const Ints& kept) {
  const int64_t length = lengthAlong(x, axis), bytes = sizeOf(x.dtype), count = std::ssize(kept);
  int64_t outer = 1, inner = bytes;
  Ints sizes = axis < 0 ? Ints{count} : sizesOf(x);
  for (int64_t d = 0; axis >= 0 && d < std::ssize(sizes); ++d) (d < axis ? outer : inner) *= d == axis ? 1 : nth(sizes, d);
  if (axis >= 0) nth(sizes, axis) = count;
  QC_ASSIGN(Tensor y, allocated(x.dtype, std::move(sizes)));
  char* to = static_cast<char*>(y.mutableData());
  for (int64_t o = 0; o < outer; ++o)
    for (const int64_t k : kept) {
      if (inner > 0) std::memcpy(to, x.as<const char>() + (o * length + k) * inner, usize(inner));
      to += inner;
    }
  return y;
}

Result<Tensors> evalCompress(const EvalContext& c) {
  const int64_t axis = c.node.integer("axis");
  const int64_t length = std::min(lengthAlong(c.in(0), axis), c.in(1).numElements());
  Ints kept;
  for (int64_t i = 0; i < length; ++i)
    if (c.in(1).as<const uint8_t>()[i]) kept.push_back(i);
  QC_ASSIGN(Tensor y, slices(c.in(0), axis, kept));
  return Tensors{std::move(y)};
}

// ---- unique -----------------------------------------------------------------------------------

Result<Types> inferUnique(const InferContext& c) {
  QC_TRY(requireAxisOrNone(c));
  QC_TRY(requirePlainNumber(c, 0));
  QC_ASSIGN(const Shape n, decided(c, 1));
  const int64_t axis = c.attrs.integer("axis");
  const TensorType counted(DType::s64, {n[0]});
  return checkedResults({TensorType(c.type(0).dtype, shortened(c.type(0), axis, n[0])), counted,
                         TensorType(DType::s64, {Dim(lengthAlong(c.type(0), axis))}), counted});
}

Bounds boundLength(const InferContext& c) { return {lengthAlong(c.type(0), c.attrs.integer("axis"))}; }

// Of slices, element by element.  NaN is above every number, and equal to itself.
Result<Tensors> evalUnique(const EvalContext& c) {
  const TensorRef& x = c.in(0);
  const int64_t axis = c.node.integer("axis"), length = lengthAlong(x, axis);
  int64_t outer = 1, inner = 1;
  for (int64_t d = 0; axis >= 0 && d < std::ssize(x.sizes); ++d) (d < axis ? outer : inner) *= d == axis ? 1 : x.sizes[usize(d)];
  Ints order(usize(length)), group(usize(length)), first, counts;
  std::iota(order.begin(), order.end(), 0);
  withStorage(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto compare = [&](int64_t a, int64_t b) {  // < 0: a comes first
      for (int64_t o = 0; o < outer; ++o)
        for (int64_t i = 0; i < inner; ++i) {
          const auto& ra = x.as<const T>()[(o * length + a) * inner + i];
          const auto& rb = x.as<const T>()[(o * length + b) * inner + i];
          const auto below = [](const auto& l, const auto& r) {
            if constexpr (std::is_integral_v<T>) return l < r;
            const double dl = widened<double>(l), dr = widened<double>(r);
            return std::isnan(dr) ? !std::isnan(dl) : dl < dr;
          };
          if (below(ra, rb)) return -1;
          if (below(rb, ra)) return 1;
        }
      return 0;
    };
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      const int way = compare(a, b);
      return way != 0 ? way < 0 : a < b;
    });
    for (size_t k = 0; k < order.size(); ++k) {
      if (k == 0 || compare(order[k - 1], order[k]) != 0) first.push_back(order[k]), counts.push_back(0);
      nth(group, order[k]) = std::ssize(first) - 1;
      ++counts.back();
    }
  });
  if (!c.node.integer("sorted")) {  // in the order in which they come
    Ints rank(first.size()), place(first.size());
    std::iota(rank.begin(), rank.end(), 0);
    std::sort(rank.begin(), rank.end(), [&](int64_t a, int64_t b) { return nth(first, a) < nth(first, b); });
    Ints firstOf, countOf;
    for (size_t k = 0; k < rank.size(); ++k) {
      nth(place, rank[k]) = static_cast<int64_t>(k);
      firstOf.push_back(nth(first, rank[k]));
      countOf.push_back(nth(counts, rank[k]));
    }
    for (int64_t& g : group) g = nth(place, g);
    first = std::move(firstOf);
    counts = std::move(countOf);
  }
  QC_ASSIGN(Tensor y, slices(x, axis, first));
  const int64_t n = std::ssize(first);
  return Tensors{std::move(y), Tensor::ofInts({n}, first), Tensor::ofInts({length}, group), Tensor::ofInts({n}, counts)};
}

// ---- non_max_suppression ----------------------------------------------------------------------

Result<Types> inferSuppression(const InferContext& c) {
  QC_TRY(requireRank(c, 0, 3, 3));
  QC_TRY(requireRank(c, 1, 3, 3));
  for (int i = 0; i < 2; ++i)
    if (c.type(i).isQuantized() || c.type(i).dtype != DType::f32)
      return fail(ErrorCode::kUnsupported, "{}: {}, expected f32", c.op, describe(c, i));
  const Shape &boxes = c.type(0).shape, &scores = c.type(1).shape;
  if (!compatible(boxes[0], scores[0]) || !compatible(boxes[1], scores[2]) || !compatible(boxes[2], Dim(4)))
    return fail(ErrorCode::kInvalidModel, "{}: {} and {} do not belong together", c.op, describe(c, 0), describe(c, 1));
  for (int i = 2; i < 5; ++i)
    if (c.has(i) && (c.type(i).dtype != (i == 2 ? DType::s64 : DType::f32) || (c.type(i).isStatic() && c.type(i).numElements() != 1)))
      return fail(ErrorCode::kInvalidModel, "{}: {} is not a number of its kind", c.op, describe(c, i));
  QC_ASSIGN(const Shape n, decided(c, 1));
  return checkedResults({TensorType(DType::s64, {n[0], Dim(3)})});
}

Bounds boundSuppression(const InferContext& c) {
  const Shape& scores = c.type(1).shape;
  DimExpr each = scores[2].expr();
  if (!c.has(2)) return {0};
  if (const Tensor* most = c.constant(2); most && most->numElements() == 1) {
    const int64_t given = std::max<int64_t>(most->toInts()[0], 0);
    each = each.isUnknown() ? DimExpr(given) : min(each, given);
  }
  return {scores[0].expr() * scores[1].expr() * each};
}

Result<Tensors> evalSuppression(const EvalContext& c) {
  Suppression s;
  s.centerPoint = c.node.integer("center_point_box") != 0;
  s.most = c.has(2) ? std::max<int64_t>(c.in(2).as<const int64_t>()[0], 0) : 0;
  s.iou = c.has(3) ? c.in(3).as<const float>()[0] : 0;
  if (c.has(4)) s.score = c.in(4).as<const float>()[0];
  if (!(s.iou >= 0 && s.iou <= 1)) return fail(ErrorCode::kInvalidData, "an IoU threshold of {}, which is not in 0..1", s.iou);
  const int64_t batches = c.in(1).sizes[0], classes = c.in(1).sizes[1], boxes = c.in(1).sizes[2];
  Ints found;
  for (int64_t b = 0; b < batches; ++b)
    for (int64_t k = 0; k < classes; ++k) {
      const std::span<const float> scores(c.in(1).as<const float>() + (b * classes + k) * boxes, usize(boxes));
      for (const int64_t i : s.selected(c.in(0).as<const float>() + b * boxes * 4, scores)) found.insert(found.end(), {b, k, i});
      QC_TRY(checkMemory(std::ssize(found) * 8, "the boxes that are left"));
    }
  return Tensors{Tensor::ofInts({std::ssize(found) / 3, 3}, found)};
}

// ---- choose -----------------------------------------------------------------------------------

Result<Types> inferChoose(const InferContext& c) {
  const TensorType &a = c.type(1), &b = c.type(2);
  if (c.type(0).dtype != DType::boolean || (c.type(0).isStatic() && c.type(0).numElements() != 1))
    return fail(ErrorCode::kInvalidModel, "choose by {}, expected one bool", describe(c, 0));
  if (a.dtype != b.dtype || a.rank() != b.rank() || !(QuantAttr{a.quant} == QuantAttr{b.quant}))
    return fail(ErrorCode::kUnsupported, "choose: {} and {} are of different kinds", describe(c, 1), describe(c, 2));
  QC_TRY(requireAxes(c, "axes", a.rank()));
  const Ints& axes = c.attrs.integers("axes");
  QC_ASSIGN(const Shape sizes, decided(c, axes.size()));
  Shape shape = a.shape;
  for (size_t d = 0; d < shape.size(); ++d) {
    const auto at = std::find(axes.begin(), axes.end(), static_cast<int64_t>(d));
    if (at == axes.end() && !compatible(a.shape[d], b.shape[d]))
      return fail(ErrorCode::kInvalidModel, "choose: {} and {} differ in dim {}", describe(c, 1), describe(c, 2), d);
    if (at != axes.end()) shape[d] = sizes[usize(at - axes.begin())];
    if (at == axes.end() && !shape[d].isStatic()) shape[d] = b.shape[d];
  }
  return checkedResults({a.withShape(std::move(shape))});
}

Bounds boundChoose(const InferContext& c) {
  Bounds bounds;
  for (const int64_t axis : c.attrs.integers("axes"))
    bounds.push_back(max(nth(c.type(1).shape, axis).expr(), nth(c.type(2).shape, axis).expr()));
  return bounds;
}

Result<Tensors> evalChoose(const EvalContext& c) {
  const TensorRef& taken = c.in(0).as<const uint8_t>()[0] ? c.in(1) : c.in(2);
  QC_ASSIGN(Tensor y, allocated(taken.dtype, sizesOf(taken)));
  if (y.byteSize() > 0) std::memcpy(y.mutableData(), taken.data, usize(y.byteSize()));
  return Tensors{std::move(y)};
}

// ---- size_of ----------------------------------------------------------------------------------

// Tensors of no elements, which have the numbers as sizes; signed: two for each, one of what it is above 0 and one of what it is below.
// With `like` they are the target of a reshape of it: -1 is what is left, 0 (copies) its own.
Result<Types> inferSizeOf(const InferContext& c) {
  const TensorType& x = c.type(0);
  if (x.isQuantized() || (x.dtype != DType::s64 && x.dtype != DType::s32))
    return fail(ErrorCode::kInvalidModel, "{}: {}, expected s64 or s32", c.op, describe(c, 0));
  if (!x.isStatic() || x.numElements() > 64) return fail(ErrorCode::kUnsupported, "{} of {}", c.op, describe(c, 0));
  QC_ASSIGN(const Shape sizes, decided(c, usize(x.numElements() * (c.attrs.integer("signed") ? 2 : 1))));
  Types types;
  for (const Dim& size : sizes) types.emplace_back(DType::u8, Shape{size, Dim(0)});
  return checkedResults(std::move(types));
}

Bounds boundSizeOf(const InferContext& c) { return Bounds(c.attrs.dims("sizes").size(), DimExpr::unknown()); }

// The numbers as the sizes of a reshape.
Status resolveTarget(const TensorRef& like, bool copies, Ints& sizes) {
  int64_t others = 1;
  int64_t* rest = nullptr;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 && copies && i < like.sizes.size()) sizes[i] = like.sizes[i];
    if (sizes[i] == -1 && !rest)
      rest = &sizes[i];
    else if (sizes[i] < 0 || __builtin_mul_overflow(others, sizes[i], &others))
      return fail(ErrorCode::kInvalidData, "the target of a reshape was computed to be [{}]", fmt::join(sizes, ","));
  }
  const int64_t all = like.numElements();
  if (rest && (others == 0 || all % others != 0))
    return fail(ErrorCode::kInvalidData, "{} elements do not divide into the target of a reshape, where {} lie in one", all, others);
  if (rest) *rest = all / others;
  return {};
}

Result<Tensors> evalSizeOf(const EvalContext& c) {
  Tensors sizes;
  Ints numbers;
  for (int64_t i = 0; i < c.in(0).numElements(); ++i)
    numbers.push_back(c.in(0).dtype == DType::s64 ? c.in(0).as<const int64_t>()[i] : c.in(0).as<const int32_t>()[i]);
  if (c.has(1)) QC_TRY(resolveTarget(c.in(1), c.node.integer("copies") != 0, numbers));
  for (const int64_t size : numbers) {
    if (c.node.integer("signed")) {  // positions: beyond any tensor is far enough
      const int64_t near = std::clamp(size, -kMaxTensorBytes, kMaxTensorBytes);
      sizes.emplace_back(DType::u8, Ints{std::max<int64_t>(near, 0), 0});
      sizes.emplace_back(DType::u8, Ints{std::max<int64_t>(-near, 0), 0});
      continue;
    }
    if (size < 0 || size > kMaxTensorBytes)
      return fail(ErrorCode::kInvalidData, "{} was computed for what decides a size", size).help("a size lies between 0 and 2^40");
    sizes.emplace_back(DType::u8, Ints{size, 0});
  }
  return sizes;
}

}  // namespace

EvalFn atKnownSizes(std::function<Result<Tensors>(const EvalContext&)> eval) {
  return [eval = std::move(eval)](const EvalContext& c) -> Status {
    QC_ASSIGN(const Tensors results, eval(c));
    for (size_t i = 0; i < results.size(); ++i) {
      const TensorRef& out = c.out(static_cast<int>(i));
      if (results[i].sizes() != sizesOf(out))
        return fail(ErrorCode::kInvalidData, "the data decides on {}, the graph on [{}]", results[i].type().str(),
                    toString(toShape(sizesOf(out))));
      if (results[i].byteSize() > 0) std::memcpy(out.data, results[i].data(), usize(results[i].byteSize()));
    }
    return {};
  };
}

void registerDecidingOps(OpRegistry& r) {
  const auto add = [&](const char* name, const char* summary, std::vector<OperandSpec> operands, std::vector<AttrSpec> attrs, InferFn infer,
                       auto bounds, auto eval, int results = 1) {
    OpDef def;
    def.name = name;
    def.summary = summary;
    def.operands = std::move(operands);
    def.attrs = std::move(attrs);
    def.attrs.push_back(dimsAttr("sizes"));
    def.traits = 0;
    def.stages = kAllStages;
    def.numResults = results;
    def.infer = std::move(infer);
    def.eval = atKnownSizes(eval);
    def.decides = DecidedSizes{bounds, eval};
    def.noGradient = "data decides its sizes";
    r.add(std::move(def));
  };
  const auto parameter = [](const char* name) { return OperandSpec{.name = name, .optional = true, .role = OperandRole::parameter}; };
  const AttrSpec axis = meaning(AttrMeaning::axis, integerAttr("axis", -1));
  add("nonzero", "places of elements that are not 0, a column for each", {{"x"}}, {}, inferNonzero, boundNonzero, evalNonzero);
  add("compress", "slices along an axis, or elements, where the condition holds", {{"x"}, {"condition"}}, {axis}, inferCompress,
      boundCompress, evalCompress);
  add("unique", "slices along an axis, or elements, that differ; where they are first, which each is, how often", {{"x"}},
      {axis, integerAttr("sorted", 1)}, inferUnique, boundLength, evalUnique, 4);
  add("non_max_suppression", "boxes that overlap none of a better score: batch, class and box",
      {{"boxes"}, {"scores"}, parameter("most"), parameter("iou"), parameter("score")}, {integerAttr("center_point_box", 0)},
      inferSuppression, boundSuppression, evalSuppression);
  add("choose", "the one or the other tensor, whose sizes may differ along these axes", {{"condition"}, {"a"}, {"b"}}, {axesAttr()},
      inferChoose, boundChoose, evalChoose);
  add("size_of", "computed numbers as sizes, each of a tensor without elements", {{"x"}, {.name = "like", .optional = true}},
      {integerAttr("signed", 0), integerAttr("copies", 0)}, inferSizeOf, boundSizeOf, evalSizeOf, -1);
}

}  // namespace qc
