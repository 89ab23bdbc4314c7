// The discrete Fourier transform, along the last dim but one; the last holds real and imaginary parts, or real ones alone.
//
//   dft   x [.., n, 1 or 2] -> X[k] = sum of x[i] e^(-2 pi i k / N) over the first N = `length` elements, zeros behind the last one
//           plain               [.., N, 2]
//           onesided            [.., N/2 + 1, 2], of real x; the others are their conjugates
//           inverse             [.., N, 2]: the sign of the exponent turned, the sum divided by N
//           inverse, onesided   [.., N, 1]: of the first N/2 + 1 elements, of which those up to the middle stand for their conjugates too
//
// In double, by the factors of N (ir/ops/fourier.h), rounded once to the result's dtype.  N with a large prime factor p takes N * p steps.
// The inverse is the transform with real and imaginary parts in each other's place.
//
// Tests: tests/unit/dft_test.cpp.
#include <algorithm>
#include <array>
#include <utility>

#include "ir/op_def.h"
#include "ir/ops/batches.h"
#include "ir/ops/convert.h"
#include "ir/ops/fourier.h"
#include "ir/ops/infer_util.h"

namespace qc {
namespace {

Result<Types> inferDft(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireRank(c, 0, 2));
  const bool inverse = c.attrs.integer("inverse") != 0, onesided = c.attrs.integer("onesided") != 0;
  Shape shape = c.type(0).shape;
  const auto parts = shape.back().isStatic() ? shape.back().size() : 0;
  if (parts != 1 && parts != 2)
    return fail(ErrorCode::kInvalidModel, "{}: the last dim of {} is to be 1, of real numbers, or 2", c.op, describe(c, 0));
  if (onesided && parts != (inverse ? 2 : 1))
    return fail(ErrorCode::kInvalidModel, "{}: `onesided` {} `inverse` takes {} numbers, {} holds {} ones", c.op,
                inverse ? "with" : "without", inverse ? "complex" : "real", describe(c, 0), inverse ? "real" : "complex");
  const std::vector<DimExpr> length = c.attrs.dims("length");
  if (length.size() != 1) return fail(ErrorCode::kInvalidModel, "{}: `length` has {} entries", c.op, length.size());
  if (const auto known = length[0].constant(); known && *known < 1) return fail(ErrorCode::kInvalidModel, "{} of length {}", c.op, *known);
  shape[shape.size() - 2] = Dim(onesided && !inverse ? floorDiv(length[0], 2) + 1 : length[0]);
  shape.back() = Dim(onesided && inverse ? 1 : 2);
  return checkedResults({c.type(0).withShape(std::move(shape))});
}

// Of FourierTransform: one row, in double.
class RowOfNumbers {
 public:
  using Number = double;
  using Place = int64_t;
  using Complex = ComplexOf<double>;

  explicit RowOfNumbers(int64_t length)
      : buffers_{std::vector<Complex>(usize(length)), std::vector<Complex>(usize(length))}, roots_(fourierRoots(length)) {}

  template <class Body>
  void each(int64_t from, int64_t to, Body&& body) {
    for (int64_t i = from; i < to; ++i) body(i);
  }
  Complex read(int buffer, int64_t place) const { return nth(nth(buffers_, buffer), place); }
  void write(int buffer, int64_t place, Complex z) { nth(nth(buffers_, buffer), place) = z; }
  Complex root(int64_t k) const { return {nth(roots_, k).cos, nth(roots_, k).sin}; }
  template <class Term>
  Complex sum(Complex all, int64_t count, int64_t step, Term&& term) {
    for (int64_t r = 1, turns = step; r < count; ++r, turns = turns + step < count ? turns + step : turns + step - count)
      all = all + term(r, turns);
    return all;
  }

  std::vector<Complex>& input() { return buffers_[0]; }

 private:
  std::array<std::vector<Complex>, 2> buffers_;
  std::vector<UnitRoot> roots_;
};

Status evalDft(const EvalContext& c) {
  const TensorRef &x = c.in(0), &y = c.out();
  const size_t rank = x.sizes.size();
  const bool inverse = c.node.integer("inverse") != 0, mirrored = inverse && c.node.integer("onesided") != 0;
  const int64_t length = constants(c.node.attrs().dims("length")).value()[0];
  const int64_t given = x.sizes[rank - 2], parts = x.sizes[rank - 1], wanted = y.sizes[rank - 2], made = y.sizes[rank - 1];
  if (y.numElements() == 0) return {};
  const int64_t rows = y.numElements() / (wanted * made), used = std::min(given, mirrored ? length / 2 + 1 : length);
  RowOfNumbers row(length);
  std::vector<double> numbers(usize(std::max(used * parts, wanted * made)));
  const double scale = inverse ? 1 / static_cast<double>(length) : 1;
  using Complex = ComplexOf<double>;
  const auto swapped = [&](Complex z) { return inverse ? Complex{z.im, z.re} : z; };
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<Complex>& in = row.input();
    std::fill(in.begin(), in.end(), Complex{});
    loadElements(x.dtype, x.data, i * given * parts, 1, used * parts, numbers.data());
    for (int64_t k = 0; k < used; ++k) {
      const double re = nth(numbers, k * parts), im = parts == 2 ? nth(numbers, 2 * k + 1) : 0;
      const bool isOwnConjugate = mirrored && (k == 0 || 2 * k == length);
      nth(in, k) = swapped({re, isOwnConjugate ? 0 : im});
      if (mirrored && !isOwnConjugate) nth(in, length - k) = swapped({re, -im});
    }
    const int result = FourierTransform(row, length).run();
    for (int64_t k = 0; k < wanted; ++k) {
      const Complex z = swapped(row.read(result, k));
      nth(numbers, k * made) = scale * z.re;
      if (made == 2) nth(numbers, 2 * k + 1) = scale * z.im;
    }
    storeElements(y.dtype, numbers.data(), y.data, i * wanted * made, wanted * made);
  }
  return {};
}

}  // namespace

std::vector<int64_t> fourierFactors(int64_t length) {
  std::vector<int64_t> factors;
  for (; length % 4 == 0; length /= 4) factors.push_back(4);
  for (int64_t p = 2; length > 1; ++p) {
    if (p * p > length) p = length;
    for (; length % p == 0; length /= p) factors.push_back(p);
  }
  return factors;
}

std::vector<UnitRoot> fourierRoots(int64_t length) {
  std::vector<UnitRoot> roots;
  for (int64_t k = 0; k < length; ++k) roots.push_back(unitRoot(-k, length));
  return roots;
}

void registerFourierOps(OpRegistry& r) {
  OpDef dft;
  dft.name = "dft";
  dft.summary = "the discrete Fourier transform of pairs of real and imaginary parts";
  dft.operands = {{"x"}};
  dft.attrs = {dimsAttr("length"), integerAttr("inverse", 0), integerAttr("onesided", 0)};
  dft.infer = inferDft;
  dft.eval = evalDft;
  dft.batch = batchOfMatrices;
  dft.noGradient = "none is built through spectra";
  r.add(std::move(dft));
}

}  // namespace qc
