// Reductions.  The elements of one result count row-major over the reduced axes (ascending), i = 0, 1, ..
//   reduce_sum    orderedSum (ir/ops/sums.h)            reduce_mean   sum / float(n); integers truncate
//   reduce_prod   p = 1; p = p * x[i]                   q.reduce_mean q = requantize(sum(q - zx), f32(f32(sx / sy) / float(n)), zy)
//   reduce_max    m = lowest; m = x > m ? x : m         reduce_min    m = highest; m = x < m ? x : m    (a NaN is passed over)
//   argmax        the first (select_last: last) i whose element is the extreme; a NaN never is
//   cumsum        from left to right, one addition each; cumprod: one multiplication
#include <algorithm>
#include <limits>
#include <numeric>

#include "ir/ops/epilogue.h"
#include "ir/ops/gradients.h"
#include "ir/ops/sums.h"

namespace qc {
namespace {

// ---- inference --------------------------------------------------------------------------------

Shape reducedShape(const Shape& shape, const std::vector<int64_t>& axes, bool keepDims) {
  Shape result;
  for (size_t i = 0; i < shape.size(); ++i) {
    const bool reduced = std::find(axes.begin(), axes.end(), static_cast<int64_t>(i)) != axes.end();
    if (!reduced)
      result.push_back(shape[i]);
    else if (keepDims)
      result.emplace_back(1);
  }
  return result;
}

Result<Shape> inferReducedShape(const InferContext& c) {
  QC_TRY(requireAxes(c, "axes", c.type(0).rank()));
  return reducedShape(c.type(0).shape, c.attrs.integers("axes"), c.attrs.integer("keepdims") != 0);
}

Result<Types> inferArithmetic(const InferContext& c) {
  QC_TRY(requirePlainNumber(c, 0));
  QC_ASSIGN(Shape shape, inferReducedShape(c));
  return checkedResults({c.type(0).withShape(std::move(shape))});
}

// An op that selects elements works on the integers of a per-tensor quantized operand too.
Status requireOrdered(const InferContext& c, int operand) {
  const TensorType& x = c.type(operand);
  if (!x.isQuantized() || !x.quant->perChannel()) return {};
  return fail(ErrorCode::kUnsupported, "'{}' compares elements: they need common quantization parameters, got {}", c.op,
              describe(c, operand));
}

Result<Types> inferSelection(const InferContext& c) {
  QC_TRY(requireOrdered(c, 0));
  QC_ASSIGN(Shape shape, inferReducedShape(c));
  return checkedResults({c.type(0).withShape(std::move(shape))});
}

Result<Types> inferQuantizedMean(const InferContext& c) {
  QC_TRY(requirePerTensor8Bit(c, 0));
  QC_TRY(checkQuantParams(*c.type(0).quant, c.type(0).shape));
  QC_TRY(requirePerTensorTo(c.attrs.quant("to")));
  QC_ASSIGN(Shape shape, inferReducedShape(c));
  Shape reduced;
  for (const int64_t axis : c.attrs.integers("axes")) reduced.push_back(nth(c.type(0).shape, axis));
  QC_ASSIGN(const int64_t count, checkedNumElements(reduced));
  if (count > INT32_MAX / 255) return fail(ErrorCode::kUnsupported, "'{}': the int32 sum of {} elements could overflow", c.op, count);
  return checkedResults({TensorType(c.attrs.quant("to"), std::move(shape))});
}

Result<Types> inferArg(const InferContext& c) {
  QC_TRY(requireOrdered(c, 0));
  const TensorType& x = c.type(0);
  QC_TRY(requireAxis(c, "axis", x.rank()));
  const int64_t axis = c.attrs.integer("axis");
  Shape shape = reducedShape(x.shape, {axis}, c.attrs.integer("keepdims") != 0);
  // Nothing has no largest element; where there is no result, none is asked for.
  if (nth(x.shape, axis) == Dim(0) && std::find(shape.begin(), shape.end(), Dim(0)) == shape.end())
    return fail(ErrorCode::kInvalidModel, "'{}': axis {} of x {} is empty", c.op, axis, x.str());
  return checkedResults({TensorType(DType::s64, std::move(shape))});
}

Result<Types> inferTopK(const InferContext& c) {
  QC_TRY(requireOrdered(c, 0));
  const TensorType& x = c.type(0);
  QC_TRY(requireAxis(c, "axis", x.rank()));
  const auto axis = usize(c.attrs.integer("axis"));
  const std::vector<DimExpr> count = c.attrs.dims("k");
  if (count.size() != 1) return fail(ErrorCode::kInvalidModel, "'{}': {} numbers for k", c.op, count.size());
  const DimExpr& k = count[0];
  const int64_t known = k.constant().value_or(0);
  if (known < 0 || known > kMaxTensorBytes || (x.shape[axis].isStatic() && known > x.shape[axis].size()))
    return fail(ErrorCode::kInvalidModel, "'{}': k={} of the {} elements along axis {} of x {}", c.op, k.str(), x.shape[axis].str(), axis,
                x.str());
  Shape shape = x.shape;
  shape[axis] = Dim(k);
  return checkedResults({x.withShape(shape), TensorType(DType::s64, shape)});
}

Result<Types> inferRunning(const InferContext& c) {
  QC_TRY(requirePlainNumber(c, 0));
  QC_TRY(requireAxis(c, "axis", c.type(0).rank()));
  return checkedResults({c.type(0)});
}

// ---- evaluation -------------------------------------------------------------------------------

// For each result: where its elements start, and the offsets of the elements from there, in order.
struct ReduceView {
  std::vector<int64_t> starts, offsets;

  ReduceView(std::span<const int64_t> sizes, const std::vector<int64_t>& axes) {
    std::vector<int64_t> keptSizes, keptStrides, sizesIn, strides;
    int64_t stride = 1;
    for (size_t i = sizes.size(); i-- > 0; stride *= sizes[i]) {
      const bool reduced = std::find(axes.begin(), axes.end(), static_cast<int64_t>(i)) != axes.end();
      (reduced ? sizesIn : keptSizes).insert((reduced ? sizesIn : keptSizes).begin(), sizes[i]);
      (reduced ? strides : keptStrides).insert((reduced ? strides : keptStrides).begin(), stride);
    }
    starts = enumerate(keptSizes, keptStrides);
    offsets = enumerate(sizesIn, strides);
  }

 private:
  static std::vector<int64_t> enumerate(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
    std::vector<int64_t> all{0};
    for (size_t d = 0; d < sizes.size(); ++d) {
      std::vector<int64_t> next;
      next.reserve(all.size() * usize(sizes[d]));
      for (const int64_t base : all)
        for (int64_t i = 0; i < sizes[d]; ++i) next.push_back(base + i * strides[d]);
      all = std::move(next);
    }
    return all;
  }
};

struct Sum {
  template <class T, class At>
  static T apply(int64_t n, const At& at, const TensorType&) {
    return orderedSum<T>(n, at);
  }
};
struct Mean {
  template <class T, class At>
  static T apply(int64_t n, const At& at, const TensorType&) {
    const T sum = orderedSum<T>(n, at);
    if constexpr (!std::is_floating_point_v<T>)
      if (n == 0) return 0;
    return sum / static_cast<T>(n);
  }
};
struct Product {
  template <class T, class At>
  static T apply(int64_t n, const At& at, const TensorType&) {
    if constexpr (std::is_floating_point_v<T>) {
      T p = 1;
      for (int64_t i = 0; i < n; ++i) p = p * at(i);
      return p;
    } else {
      uint64_t p = 1;
      for (int64_t i = 0; i < n; ++i) p *= static_cast<uint64_t>(at(i));
      return static_cast<T>(p);
    }
  }
};

// The identity of max (sign -1) or min (+1) for an element type, as the type that computes.
template <class T>
T extreme(const TensorType& type, int sign) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(sign) * std::numeric_limits<T>::infinity();
  } else {
    if (type.isQuantized()) return static_cast<T>(sign < 0 ? type.quant->qmin : type.quant->qmax);
    if (type.dtype == DType::boolean) return sign < 0 ? 0 : 1;
    if (sizeOf(type.dtype) == 8) return sign < 0 ? std::numeric_limits<T>::min() : std::numeric_limits<T>::max();
    return static_cast<T>(sign < 0 ? rangeOf(type.dtype).min : rangeOf(type.dtype).max);
  }
}
struct Max {
  template <class T, class At>
  static T apply(int64_t n, const At& at, const TensorType& type) {
    T m = extreme<T>(type, -1);
    for (int64_t i = 0; i < n; ++i) m = at(i) > m ? at(i) : m;
    return m;
  }
};
struct Min {
  template <class T, class At>
  static T apply(int64_t n, const At& at, const TensorType& type) {
    T m = extreme<T>(type, 1);
    for (int64_t i = 0; i < n; ++i) m = at(i) < m ? at(i) : m;
    return m;
  }
};

template <class Reducer>
Status evalReduce(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const ReduceView view(c.in(0).sizes, c.node.integers("axes"));
  const auto n = static_cast<int64_t>(view.offsets.size());
  withComputeType(c.in(0).dtype, [&](auto tag) {
    using T = decltype(tag);
    const Elements<T> x(c.in(0));
    const ResultElements<T> y(c.out());
    for (int64_t r = 0; r < y.size(); ++r) {
      const T* from = x.data() + nth(view.starts, r);
      y[r] = Reducer::template apply<T>(n, [&](int64_t i) { return from[nth(view.offsets, i)]; }, c.inType(0));
    }
    y.flush();
  });
  return {};
}

Status evalQuantizedMean(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const ReduceView view(c.in(0).sizes, c.node.integers("axes"));
  const QuantParams &xq = *c.inType(0).quant, &to = *c.outType().quant;
  const std::vector<uint32_t> x = centred(c.in(0), xq);
  std::vector<int32_t> q(view.starts.size());
  const float multiplier = (xq.scale() / to.scale()) / static_cast<float>(view.offsets.size());
  for (size_t r = 0; r < q.size(); ++r) {
    uint32_t sum = 0;
    for (const int64_t offset : view.offsets) sum += nth(x, view.starts[r] + offset);
    q[r] = qmath::requantize(static_cast<int32_t>(sum), multiplier, to.zeroPoint(), static_cast<int32_t>(to.qmin),
                             static_cast<int32_t>(to.qmax));
  }
  storeIntegers(c.out(), q.data());
  return {};
}

template <bool kLargest>
Status evalArg(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const AxisView v(c.in(0).sizes, c.node.integer("axis"));
  const bool last = c.node.integer("select_last") != 0;
  withComputeType(c.in(0).dtype, [&](auto tag) {
    using T = decltype(tag);
    const Elements<T> x(c.in(0));
    auto* y = c.out().as<int64_t>();
    for (int64_t o = 0; o < v.outer; ++o)
      for (int64_t i = 0; i < v.inner; ++i) {
        const T* from = x.data() + o * v.length * v.inner + i;
        int64_t best = -1;
        for (int64_t a = 0; a < v.length; ++a) {
          const T e = from[a * v.inner];
          if (e != e) continue;
          const bool better = best < 0 || (kLargest ? e > from[best * v.inner] : e < from[best * v.inner]);
          if (better || (last && e == from[best * v.inner])) best = a;
        }
        *y++ = std::max<int64_t>(best, 0);
      }
  });
  return {};
}

Status evalTopK(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const AxisView v(c.in(0).sizes, c.node.integer("axis"));
  const int64_t k = c.node.integers("k").front();
  const bool largest = c.node.integer("largest") != 0;
  withComputeType(c.in(0).dtype, [&](auto tag) {
    using T = decltype(tag);
    const Elements<T> x(c.in(0));
    const ResultElements<T> values(c.out(0));
    auto* indices = c.out(1).as<int64_t>();
    std::vector<int64_t> order(usize(v.length));
    for (int64_t o = 0; o < v.outer; ++o)
      for (int64_t i = 0; i < v.inner; ++i) {
        const T* from = x.data() + o * v.length * v.inner + i;
        std::iota(order.begin(), order.end(), 0);
        // A NaN counts as larger than any number; equal elements keep their order.
        const auto before = [&](int64_t a, int64_t b) {
          const T ea = from[a * v.inner], eb = from[b * v.inner];
          const bool nanA = ea != ea, nanB = eb != eb;
          if (nanA != nanB) return largest ? nanA : nanB;
          if (!nanA && ea != eb) return largest ? ea > eb : ea < eb;
          return a < b;
        };
        std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
        for (int64_t j = 0; j < k; ++j) {
          const int64_t to = (o * k + j) * v.inner + i;
          values[to] = from[nth(order, j) * v.inner];
          indices[to] = nth(order, j);
        }
      }
    values.flush();
  });
  return {};
}

// Integers wrap.
struct RunningSum {
  static constexpr int kStart = 0;
  template <class T>
  static T step(T before, T x) {
    return before + x;
  }
};
struct RunningProduct {
  static constexpr int kStart = 1;
  template <class T>
  static T step(T before, T x) {
    return before * x;
  }
};

template <class Running>
Status evalRunning(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const AxisView v(c.in(0).sizes, c.node.integer("axis"));
  const bool exclusive = c.node.integer("exclusive") != 0, reverse = c.node.integer("reverse") != 0;
  withComputeType(c.in(0).dtype, [&](auto tag) {
    using T = decltype(tag);
    using Accumulator = std::conditional_t<std::is_floating_point_v<T>, T, uint64_t>;
    const Elements<T> x(c.in(0));
    const ResultElements<T> y(c.out());
    for (int64_t o = 0; o < v.outer; ++o)
      for (int64_t i = 0; i < v.inner; ++i) {
        Accumulator total = Running::kStart;
        for (int64_t a = 0; a < v.length; ++a) {
          const int64_t at = (o * v.length + (reverse ? v.length - 1 - a : a)) * v.inner + i;
          if (exclusive) y[at] = static_cast<T>(total);
          total = Running::step(total, static_cast<Accumulator>(x[at]));
          if (!exclusive) y[at] = static_cast<T>(total);
        }
      }
    y.flush();
  });
  return {};
}

}  // namespace

void registerReduceOps(OpRegistry& registry) {
  const AttrSpec keepDims = integerAttr("keepdims", 1);
  const auto define = [&](std::string name, std::string summary, uint32_t traits, std::vector<AttrSpec> attrs, InferFn infer, EvalFn eval,
                          GradientFn gradient) -> OpDef {
    return {.name = std::move(name),
            .summary = std::move(summary),
            .operands = {{"x"}},
            .attrs = std::move(attrs),
            .traits = traits,
            .infer = std::move(infer),
            .eval = std::move(eval),
            .scalar = {},
            .gradient = std::move(gradient)};
  };
  const std::vector<AttrSpec> reduce = {axesAttr(), keepDims};
  constexpr uint32_t kReduce = kPure | kPermutable;
  registry.add(define("reduce_mean", "mean over axes", kReduce, reduce, inferArithmetic, evalReduce<Mean>, meanGradient));
  registry.add(define("reduce_sum", "sum over axes", kReduce, reduce, inferArithmetic, evalReduce<Sum>, sumGradient));
  registry.add(define("reduce_prod", "product over axes", kReduce, reduce, inferArithmetic, evalReduce<Product>, productGradient));
  registry.add(define("reduce_max", "largest element over axes; quantized: parameters pass through", kReduce | kSharesQuant, reduce,
                      inferSelection, evalReduce<Max>, extremeGradient));
  registry.add(define("reduce_min", "smallest element over axes; quantized: parameters pass through", kReduce | kSharesQuant, reduce,
                      inferSelection, evalReduce<Min>, extremeGradient));
  registry.add(define("q.reduce_mean", "mean of integers over axes, requantized", kReduce, {axesAttr(), keepDims, resultQuantAttr(true)},
                      inferQuantizedMean, evalQuantizedMean, {}));
  const std::vector<AttrSpec> arg = {axisAttr(), keepDims, integerAttr("select_last", 0)};
  OpDef largest = define("argmax", "index of the largest element along an axis", kReduce, arg, inferArg, evalArg<true>, {});
  OpDef smallest = define("argmin", "index of the smallest element along an axis", kReduce, arg, inferArg, evalArg<false>, {});
  largest.noGradient = smallest.noGradient = "its results are integers";
  registry.add(std::move(largest));
  registry.add(std::move(smallest));
  OpDef topk = define("topk", "the k largest or smallest elements along an axis and their indices, in order", kReduce,
                      {dimsAttr("k"), axisAttr(), integerAttr("largest", 1), integerAttr("sorted", 1)}, inferTopK, evalTopK, topkGradient);
  topk.numResults = 2;
  registry.add(std::move(topk));
  const std::vector<AttrSpec> running = {axisAttr(), integerAttr("exclusive", 0), integerAttr("reverse", 0)};
  registry.add(define("cumsum", "running sum along an axis", kReduce, running, inferRunning, evalRunning<RunningSum>, cumsumGradient));
  OpDef cumprod = define("cumprod", "running product along an axis", kReduce, running, inferRunning, evalRunning<RunningProduct>, {});
  cumprod.noGradient = "it divides by what is read, which may be 0";
  registry.add(std::move(cumprod));
}

}  // namespace qc
