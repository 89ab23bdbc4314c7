// The discrete Fourier transform, along the last dim but one; the last holds real and imaginary parts, or real ones alone.
//
//   dft   x [.., n, 1 or 2] -> X[k] = sum of x[i] e^(-2 pi i k / N) over the first N = `length` elements, zeros behind the last one
//           plain               [.., N, 2]
//           onesided            [.., N/2 + 1, 2], of real x; the others are their conjugates
//           inverse             [.., N, 2]: the sign of the exponent turned, the sum divided by N
//           inverse, onesided   [.., N, 1]: of the first N/2 + 1 elements, of which those up to the middle stand for their conjugates too
//
// In double, by factors of N from the smallest to the largest (Cooley and Tukey), rounded once to the result's dtype.  N with a large
// prime factor p takes N * p steps.
//
// Tests: tests/unit/dft_test.cpp.
#include <algorithm>
#include <complex>

#include "ir/op_def.h"
#include "ir/ops/batches.h"
#include "ir/ops/convert.h"
#include "ir/ops/infer_util.h"
#include "ir/unit_root.h"

namespace qc {
namespace {

using Complex = std::complex<double>;

// Operators of std::complex look for infinities.
Complex product(Complex a, Complex b) { return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()}; }

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

class FourierTransform {
 public:
  FourierTransform(int64_t length, bool inverse) : length_(length), roots_(usize(length)) {
    for (int64_t k = 0; k < length; ++k) {
      const UnitRoot root = unitRoot(k, length);
      nth(roots_, k) = {root.cos, inverse ? root.sin : -root.sin};
    }
    for (int64_t p = 2, rest = length; rest > 1; ++p) {
      if (p * p > rest) p = rest;
      for (; rest % p == 0; rest /= p) factors_.push_back(p);
    }
    terms_.resize(usize(factors_.empty() ? 1 : factors_.back()));
  }

  // out and in, of `length` elements each, do not overlap.
  void apply(const Complex* in, Complex* out) { level(0, in, 1, length_, out); }

 private:
  void level(size_t depth, const Complex* in, int64_t stride, int64_t length, Complex* out) {
    if (length == 1) {
      *out = *in;
      return;
    }
    const int64_t p = factors_[depth], part = length / p;
    for (int64_t r = 0; r < p; ++r) level(depth + 1, in + r * stride, stride * p, part, out + r * part);
    for (int64_t k = 0; k < part; ++k) {
      for (int64_t r = 0; r < p; ++r) nth(terms_, r) = product(out[r * part + k], nth(roots_, r * k * stride));
      for (int64_t q = 0; q < p; ++q) {
        Complex sum = terms_[0];
        for (int64_t r = 1, at = 0; r < p; ++r) {
          at += q;
          if (at >= p) at -= p;
          sum += product(nth(terms_, r), nth(roots_, at * (length_ / p)));
        }
        out[q * part + k] = sum;
      }
    }
  }

  int64_t length_;
  std::vector<Complex> roots_, terms_;
  std::vector<int64_t> factors_;
};

Status evalDft(const EvalContext& c) {
  const TensorRef &x = c.in(0), &y = c.out();
  const size_t rank = x.sizes.size();
  const bool inverse = c.node.integer("inverse") != 0, mirrored = inverse && c.node.integer("onesided") != 0;
  const int64_t length = constants(c.node.attrs().dims("length")).value()[0];
  const int64_t given = x.sizes[rank - 2], parts = x.sizes[rank - 1], wanted = y.sizes[rank - 2], made = y.sizes[rank - 1];
  if (y.numElements() == 0) return {};
  const int64_t rows = y.numElements() / (wanted * made), used = std::min(given, mirrored ? length / 2 + 1 : length);
  FourierTransform transform(length, inverse);
  std::vector<Complex> in(usize(length)), out(usize(length));
  std::vector<double> numbers(usize(std::max(used * parts, wanted * made)));
  const double scale = inverse ? 1 / static_cast<double>(length) : 1;
  for (int64_t row = 0; row < rows; ++row) {
    std::fill(in.begin(), in.end(), Complex());
    loadElements(x.dtype, x.data, row * given * parts, 1, used * parts, numbers.data());
    for (int64_t i = 0; i < used; ++i) {
      const Complex z = parts == 2 ? Complex(nth(numbers, 2 * i), nth(numbers, 2 * i + 1)) : Complex(nth(numbers, i));
      nth(in, i) = z;
      if (mirrored && i > 0 && 2 * i != length) nth(in, length - i) = std::conj(z);
    }
    if (mirrored) in[0] = in[0].real();
    if (mirrored && length % 2 == 0) nth(in, length / 2) = nth(in, length / 2).real();
    transform.apply(in.data(), out.data());
    for (int64_t k = 0; k < wanted; ++k) {
      nth(numbers, k * made) = scale * nth(out, k).real();
      if (made == 2) nth(numbers, 2 * k + 1) = scale * nth(out, k).imag();
    }
    storeElements(y.dtype, numbers.data(), y.data, row * wanted * made, wanted * made);
  }
  return {};
}

}  // namespace

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
