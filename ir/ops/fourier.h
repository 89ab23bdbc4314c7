// The fast Fourier transform that `dft` is: Cooley and Tukey's, in the order of Stockham's passes, which leaves results in theirs.  Written
// once, for a machine that computes it: the evaluation on doubles, the kernel in code for vectors of them.
//
//   struct Machine {
//     using Number = ...;                                       // + - *, and double * Number
//     using Place = ...;                                        // + *, with int64_t too
//     void each(int64_t from, int64_t to, auto body);           // body(Place) for the places [from, to)
//     ComplexOf<Number> read(int buffer, Place);                // of two buffers of `length` numbers
//     void write(int buffer, Place, ComplexOf<Number>);
//     ComplexOf<Number> root(Place k);                          // e^(-2 pi i k / length), 0 <= k < length
//     // first + term(1, step) + term(2, 2 step mod count) + .. of `count` terms, in this order
//     ComplexOf<Number> sum(ComplexOf<Number> first, int64_t count, Place step, auto term);
//   };
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "ir/signed_index.h"
#include "ir/unit_root.h"

namespace qc {

template <class Number>
struct ComplexOf {
  Number re, im;

  friend ComplexOf operator+(const ComplexOf& a, const ComplexOf& b) { return {a.re + b.re, a.im + b.im}; }
  friend ComplexOf operator-(const ComplexOf& a, const ComplexOf& b) { return {a.re - b.re, a.im - b.im}; }
  friend ComplexOf operator*(const ComplexOf& a, const ComplexOf& b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
  friend ComplexOf operator*(double factor, const ComplexOf& a) { return {factor * a.re, factor * a.im}; }
};

// a - i b and a + i b.
template <class Number>
std::array<ComplexOf<Number>, 2> apart(const ComplexOf<Number>& a, const ComplexOf<Number>& b) {
  return {{{a.re + b.im, a.im - b.re}, {a.re - b.im, a.im + b.re}}};
}

// The transforms of so few numbers, in place.
template <class Number>
void transform(std::array<ComplexOf<Number>, 2>& x) {
  x = {x[0] + x[1], x[0] - x[1]};
}

template <class Number>
void transform(std::array<ComplexOf<Number>, 3>& x) {
  constexpr double half = -unitRoot(1, 3).cos, height = unitRoot(1, 3).sin;
  const ComplexOf<Number> both = x[1] + x[2];
  const auto [one, two] = apart(x[0] - half * both, height * (x[1] - x[2]));
  x = {x[0] + both, one, two};
}

template <class Number>
void transform(std::array<ComplexOf<Number>, 4>& x) {
  const ComplexOf<Number> even = x[0] + x[2], odd = x[1] + x[3];
  const auto [one, three] = apart(x[0] - x[2], x[1] - x[3]);
  x = {even + odd, one, even - odd, three};
}

template <class Number>
void transform(std::array<ComplexOf<Number>, 5>& x) {
  constexpr UnitRoot near = unitRoot(1, 5), far = unitRoot(2, 5);
  const ComplexOf<Number> outer = x[1] + x[4], inner = x[2] + x[3], outerStep = x[1] - x[4], innerStep = x[2] - x[3];
  const auto [one, four] = apart(x[0] + near.cos * outer + far.cos * inner, near.sin * outerStep + far.sin * innerStep);
  const auto [two, three] = apart(x[0] + far.cos * outer + near.cos * inner, far.sin * outerStep - near.sin * innerStep);
  x = {x[0] + outer + inner, one, two, three, four};
}

// The factors of a length by which the passes go: 4 as often as it divides, then primes from the smallest on.
std::vector<int64_t> fourierFactors(int64_t length);
constexpr int64_t kLargestWrittenFactor = 5;  // those beyond take as many steps for each result as they say

// e^(-2 pi i k / length), k = 0, 1, ..
std::vector<UnitRoot> fourierRoots(int64_t length);

// Transforms what is in buffer 0; the result is in the buffer that is returned, the other holds nothing of use.
template <class Machine>
class FourierTransform {
 public:
  FourierTransform(Machine& machine, int64_t length) : m_(machine), length_(length) {}

  int run() {
    for (const int64_t factor : fourierFactors(length_)) {
      parts_ = length_ / stride_ / factor;
      m_.each(0, 1, [&](Place j) { part(factor, j, false); });
      if (parts_ > 1) m_.each(1, parts_, [&](Place j) { part(factor, j, true); });
      stride_ *= factor;
      from_ = 1 - from_;
    }
    return from_;
  }

 private:
  using Place = typename Machine::Place;
  using Complex = ComplexOf<typename Machine::Number>;

  // Part j of a pass: its results are turned by roots, but those of part 0.
  void part(int64_t factor, Place j, bool turned) {
    switch (factor) {
      case 2: return written<2>(j, turned);
      case 3: return written<3>(j, turned);
      case 4: return written<4>(j, turned);
      case 5: return written<5>(j, turned);
      default: return summed(factor, j, turned);
    }
  }

  template <int kFactor>
  void written(Place j, bool turned) {
    std::array<Complex, kFactor> roots{}, x{};
    for (int c = 1; turned && c < kFactor; ++c) nth(roots, c) = m_.root(j * (c * stride_));
    m_.each(0, stride_, [&](Place q) {
      for (int r = 0; r < kFactor; ++r) nth(x, r) = m_.read(from_, j * stride_ + q + r * parts_ * stride_);
      transform(x);
      for (int c = 0; c < kFactor; ++c)
        m_.write(1 - from_, j * (kFactor * stride_) + q + c * stride_, turned && c > 0 ? nth(x, c) * nth(roots, c) : nth(x, c));
    });
  }

  void summed(int64_t factor, Place j, bool turned) {
    m_.each(0, factor, [&](Place c) {
      m_.each(0, stride_, [&](Place q) {
        const Place first = j * stride_ + q;
        const Complex sum = m_.sum(m_.read(from_, first), factor, c, [&](Place r, Place turns) {
          return m_.read(from_, first + r * (parts_ * stride_)) * m_.root(turns * (length_ / factor));
        });
        m_.write(1 - from_, j * (factor * stride_) + c * stride_ + q, turned ? sum * m_.root(j * c * stride_) : sum);
      });
    });
  }

  Machine& m_;
  const int64_t length_;
  int64_t parts_ = 1, stride_ = 1;
  int from_ = 0;
};

}  // namespace qc
