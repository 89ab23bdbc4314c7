// Matrix products.  A sum runs over k in order, one fused multiply-add each, from +0; then see epilogue.h.
#include <algorithm>

#include "ir/ops/batches.h"
#include "ir/ops/epilogue.h"
#include "ir/ops/gemm.h"
#include "ir/ops/gradients.h"
#include "ir/ops/matmul.h"
#include "ir/ops/products.h"

namespace qc {
namespace {

// ---- linear -----------------------------------------------------------------------------------

struct LinearShape {
  Shape result;
  Dim outputs;
  int64_t depth = 0;
};

Result<LinearShape> inferLinearShape(const InferContext& c) {
  const TensorType &x = c.type(kX), &w = c.type(kW);
  QC_TRY(requireRank(c, kX, 1));
  QC_TRY(requireRank(c, kW, 2, 2));
  if (!compatible(x.shape.back(), w.shape[1]))
    return fail(ErrorCode::kInvalidModel, "'{}': rows of x {} have {} elements, those of w {} have {}", c.op, x.str(), x.shape.back().str(),
                w.str(), w.shape[1].str());
  LinearShape s{x.shape, w.shape[0], w.shape[1].isStatic() ? w.shape[1].size() : 0};
  s.result.back() = w.shape[0];
  return s;
}

Result<Types> inferLinear(const InferContext& c) {
  QC_ASSIGN(LinearShape s, inferLinearShape(c));
  return floatProductResult(c, std::move(s.result), s.outputs);
}

Result<Types> inferQuantizedLinear(const InferContext& c) {
  if (c.type(kW).rank() == 2 && !c.type(kW).isStatic())
    return fail(ErrorCode::kUnsupported, "'{}' needs weights of known size, got {}", c.op, c.type(kW).str());
  QC_ASSIGN(LinearShape s, inferLinearShape(c));
  QC_ASSIGN(Types types, quantizedProductResult(c, std::move(s.result), s.outputs, 0));
  QC_TRY(requireInt32Sums(c, s.depth, s.outputs.size(), [&](int64_t i) { return i / s.depth; }));
  return types;
}

// w [N][K] -> [K][N], so that outputs are the lanes of the inner loop
template <class T>
std::vector<T> transposed(const T* w, int64_t rows, int64_t columns) {
  std::vector<T> t(usize(rows * columns));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < columns; ++k) nth(t, k * rows + r) = w[r * columns + k];
  return t;
}

template <class T>
void evalLinearAs(const EvalContext& c) {
  const int64_t outputs = c.in(kW).sizes[0], depth = c.in(kW).sizes[1], rows = c.out().numElements() / outputs;
  const Elements<T> x(c.in(kX)), w(c.in(kW));
  const std::vector<T> weights = transposed(w.data(), outputs, depth);
  const ResultElements<T> y(c.out());
  std::fill_n(y.data(), y.size(), T{});
  ref::multiplyAdd<T>({x.data(), depth}, {weights.data(), outputs}, {y.data(), outputs}, {rows, outputs, depth});
  const auto operand = [&](int i) -> std::vector<T> {
    if (!c.has(i)) return {};
    const Elements<T> e(c.in(i));
    return {e.data(), e.data() + e.size()};
  };
  const std::vector<T> bias = operand(kBias), residual = operand(kResidual);
  floatEpilogue<T>(EpilogueForm::of(c.node), bias.empty() ? nullptr : bias.data(), residual.empty() ? nullptr : residual.data(), y.data(),
                   rows, outputs);
  y.flush();
}

Status evalLinear(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  withProductType(c.in(kX).dtype, [&](auto tag) { evalLinearAs<decltype(tag)>(c); });
  return {};
}

Status evalQuantizedLinear(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const int64_t outputs = c.in(kW).sizes[0], depth = c.in(kW).sizes[1], rows = c.out().numElements() / outputs;
  const std::vector<uint32_t> x = centred(c.in(kX), *c.inType(kX).quant);
  const std::vector<uint32_t> w = centred(c.in(kW), *c.inType(kW).quant, [&](int64_t i) { return i / depth; });
  const std::vector<uint32_t> weights = transposed(w.data(), outputs, depth);
  std::vector<uint32_t> acc(usize(rows * outputs));
  ref::multiplyAdd<uint32_t>({x.data(), depth}, {weights.data(), outputs}, {acc.data(), outputs}, {rows, outputs, depth});
  const QuantizedEpilogue epilogue(c, outputs, [](int64_t o) { return o; });
  const std::vector<float> residual = c.has(kResidual) ? dequantized(c.in(kResidual), *c.inType(kResidual).quant) : std::vector<float>();
  std::vector<int32_t> integers(epilogue.quantizes() ? acc.size() : 0);
  epilogue.run(acc.data(), residual.empty() ? nullptr : residual.data(), rows, integers.data(),
               epilogue.quantizes() ? nullptr : c.out().as<float>());
  if (epilogue.quantizes()) storeIntegers(c.out(), integers.data());
  return {};
}

// ---- matmul -----------------------------------------------------------------------------------

// numpy: 1-d operands gain a dim that the result loses again; leading dims broadcast.
Result<Shape> inferMatmulShape(const InferContext& c) {
  QC_TRY(requireRank(c, 0, 1));
  QC_TRY(requireRank(c, 1, 1));
  Shape a = c.type(0).shape, b = c.type(1).shape;
  const bool vectorA = a.size() == 1, vectorB = b.size() == 1;
  if (vectorA) a.insert(a.begin(), Dim(1));
  if (vectorB) b.push_back(Dim(1));
  if (!compatible(a.back(), b[b.size() - 2]))
    return fail(ErrorCode::kInvalidModel, "'{}': {} has rows of {}, {} has columns of {}", c.op, describe(c, 0), a.back().str(),
                describe(c, 1), b[b.size() - 2].str());
  const size_t batchDims = std::max(a.size(), b.size()) - 2;
  Shape shape(batchDims);
  for (size_t i = 0; i < batchDims; ++i) {
    const auto dim = [&](const Shape& s) { return i + s.size() >= batchDims + 2 ? s[i + s.size() - batchDims - 2] : Dim(1); };
    const Dim da = dim(a), db = dim(b);
    if (da == db || db == Dim(1))
      shape[i] = da;
    else if (da == Dim(1))
      shape[i] = db;
    else if (da.isStatic() && db.isStatic())
      return fail(ErrorCode::kInvalidModel, "'{}': leading dims of {} and {} do not broadcast ({} and {})", c.op, describe(c, 0),
                  describe(c, 1), da.str(), db.str());
    else
      shape[i] = da.isStatic() ? da : db;  // the symbolic one can only be 1 or the same
  }
  if (!vectorA) shape.push_back(a[a.size() - 2]);
  if (!vectorB) shape.push_back(b.back());
  return shape;
}

Result<Types> inferMatmul(const InferContext& c) {
  QC_TRY(requireArithmetic(c, 0));
  QC_TRY(requireSameDType(c, 1, 0));
  QC_ASSIGN(Shape shape, inferMatmulShape(c));
  return checkedResults({TensorType(c.type(0).dtype, std::move(shape))});
}

Result<Types> inferQuantizedMatmul(const InferContext& c) {
  for (int i = 0; i < 2; ++i) {
    QC_TRY(requirePerTensor8Bit(c, i));
    QC_TRY(checkQuantParams(*c.type(i).quant, c.type(i).shape));
  }
  QC_ASSIGN(Shape shape, inferMatmulShape(c));
  const Dim depth = c.type(0).shape.back();
  QC_TRY(requireInt32Sums(c, depth.isStatic() ? depth.size() : 0, 0, {}));
  const QuantPtr& to = c.attrs.quant("to");
  if (!to) return checkedResults({TensorType(DType::f32, std::move(shape))});
  QC_TRY(requirePerTensorTo(to));
  return checkedResults({TensorType(to, std::move(shape))});
}

// Calls product(a offset, b offset, c offset) for every matrix of the batch.
template <class Product>
void forEach(const MatmulGeometry& g, const Product& product) {
  const int64_t count = g.matrices();
  for (int64_t i = 0; i < count; ++i) {
    int64_t offsetA = 0, offsetB = 0, rest = i;
    for (size_t d = g.batch.size(); d-- > 0; rest /= g.batch[d]) {
      offsetA += rest % g.batch[d] * g.strideA[d];
      offsetB += rest % g.batch[d] * g.strideB[d];
    }
    product(offsetA, offsetB, i * g.m * g.n);
  }
}

template <class T>
void products(const EvalContext& c, const T* a, const T* b, T* y) {
  const MatmulGeometry g = MatmulGeometry::of(c.in(0).sizes, c.in(1).sizes);
  forEach(g, [&](int64_t i, int64_t j, int64_t o) { ref::multiplyAdd<T>({a + i, g.k}, {b + j, g.n}, {y + o, g.n}, {g.m, g.n, g.k}); });
}

Status evalMatmul(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  withProductType(c.in(0).dtype, [&](auto tag) {
    using T = decltype(tag);
    const Elements<T> a(c.in(0)), b(c.in(1));
    const ResultElements<T> y(c.out());
    std::fill_n(y.data(), y.size(), T{});
    products(c, a.data(), b.data(), y.data());
    y.flush();
  });
  return {};
}

Status evalQuantizedMatmul(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const QuantParams &qa = *c.inType(0).quant, &qb = *c.inType(1).quant;
  const std::vector<uint32_t> a = centred(c.in(0), qa), b = centred(c.in(1), qb);
  std::vector<uint32_t> acc(usize(c.out().numElements()));
  products(c, a.data(), b.data(), acc.data());
  const QuantPtr& to = c.node.attrs().quant("to");
  std::vector<int32_t> q(to ? acc.size() : 0);
  const float scale = to ? qmath::requantMultiplier(qa.scale(), qb.scale(), to->scale()) : qa.scale() * qb.scale();
  for (size_t i = 0; i < acc.size(); ++i) {
    const auto sum = static_cast<int32_t>(acc[i]);
    if (to)
      q[i] = qmath::requantize(sum, scale, to->zeroPoint(), static_cast<int32_t>(to->qmin), static_cast<int32_t>(to->qmax));
    else
      c.out().as<float>()[i] = static_cast<float>(sum) * scale;
  }
  if (to) storeIntegers(c.out(), q.data());
  return {};
}

}  // namespace

MatmulGeometry MatmulGeometry::of(std::span<const int64_t> sizesA, std::span<const int64_t> sizesB) {
  std::vector<int64_t> a(sizesA.begin(), sizesA.end()), b(sizesB.begin(), sizesB.end());
  if (a.size() == 1) a = {1, a[0]};
  if (b.size() == 1) b = {b[0], 1};
  MatmulGeometry g;
  g.m = a[a.size() - 2];
  g.k = a.back();
  g.n = b.back();
  const size_t dims = std::max(a.size(), b.size()) - 2;
  a.insert(a.begin(), dims + 2 - a.size(), 1);
  b.insert(b.begin(), dims + 2 - b.size(), 1);
  g.batch.resize(dims);
  g.strideA.resize(dims);
  g.strideB.resize(dims);
  int64_t stepA = g.m * g.k, stepB = g.k * g.n;
  for (size_t i = dims; i-- > 0;) {
    g.batch[i] = a[i] == 1 ? b[i] : a[i];
    g.strideA[i] = a[i] == 1 ? 0 : stepA;
    g.strideB[i] = b[i] == 1 ? 0 : stepB;
    stepA *= a[i];
    stepB *= b[i];
  }
  return g;
}

void registerMatmulOps(OpRegistry& registry) {
  const std::vector<OperandSpec> weighted = {{"x"},
                                             {.name = "w", .role = OperandRole::weight, .weight = WeightAxes{0, 1}},
                                             {.name = "bias", .optional = true, .role = OperandRole::bias},
                                             {"residual", true}};
  const AttrSpec post = postAttr(), to = resultQuantAttr(false);
  registry.add({.name = "linear",
                .summary = "x [..., K] times the rows of w [N, K], plus bias",
                .operands = weighted,
                .attrs = {post},
                .infer = inferLinear,
                .eval = evalLinear,
                .scalar = {},
                .gradient = linearGradient,
                .batch = batchOfRows,
                .products = productsOfRows});
  registry.add({.name = "q.linear",
                .summary = "integer linear layer with exact int32 sums",
                .operands = weighted,
                .attrs = {post, to, clampMinAttr(), clampMaxAttr()},
                .infer = inferQuantizedLinear,
                .eval = evalQuantizedLinear,
                .scalar = {},
                .batch = batchOfRows,
                .products = productsOfRows});
  registry.add({.name = "matmul",
                .summary = "matrix product with numpy broadcasting",
                .operands = {{"a"}, {"b"}},
                .attrs = {},
                .infer = inferMatmul,
                .eval = evalMatmul,
                .scalar = {},
                .gradient = matmulGradient,
                .batch = batchOfMatmul,
                .products = productsOfRows});
  registry.add({.name = "q.matmul",
                .summary = "integer matrix product with exact int32 sums",
                .operands = {{"a"}, {"b"}},
                .attrs = {to},
                .infer = inferQuantizedMatmul,
                .eval = evalQuantizedMatmul,
                .scalar = {},
                .batch = batchOfMatmul,
                .products = productsOfRows});
}

}  // namespace qc
