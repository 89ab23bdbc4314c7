// The discrete Fourier transform beside its sum, in every form and of every kind of length; what is refused.
#include <gmock/gmock.h>

#include <cmath>
#include <numbers>

#include "ir/unit_root.h"
#include "tests/unit/one_node.h"
#include "tests/unit/random_values.h"

namespace qc {
namespace {

using namespace qc::test;
using testing::ElementsAre;
using testing::HasSubstr;

AttrDict fourier(int64_t length, int64_t inverse = 0, int64_t onesided = 0) {
  return {{"length", Ints{length}}, {"inverse", inverse}, {"onesided", onesided}};
}

// The sum over `length` elements, of [n, parts]; [length, 2].
std::vector<double> summed(const std::vector<double>& x, int64_t parts, int64_t length, bool inverse) {
  std::vector<double> sums;
  const int64_t given = std::ssize(x) / parts;
  for (int64_t k = 0; k < length; ++k) {
    double re = 0, im = 0;
    for (int64_t i = 0; i < std::min(given, length); ++i) {
      const double angle = (inverse ? 2 : -2) * std::numbers::pi * static_cast<double>(k * i % length) / static_cast<double>(length);
      const double a = nth(x, i * parts), b = parts == 2 ? nth(x, i * parts + 1) : 0;
      re += a * std::cos(angle) - b * std::sin(angle);
      im += a * std::sin(angle) + b * std::cos(angle);
    }
    const double scale = inverse ? 1 / static_cast<double>(length) : 1;
    sums.insert(sums.end(), {re * scale, im * scale});
  }
  return sums;
}

TEST(Dft, IsItsSum) {
  RandomValues rng(3);
  for (const int64_t length : {1, 2, 3, 4, 5, 8, 12, 17, 30, 49, 64, 97, 360})
    for (const int64_t given : {length, length + 3, (length + 1) / 2})
      for (const int64_t parts : {1, 2})
        for (const bool inverse : {false, true}) {
          std::vector<double> x;
          for (int64_t i = 0; i < 2 * given * parts; ++i) x.push_back(rng.real(-1, 1));
          const auto y = list(evaluate("dft", {{tensor(DType::f64, {2, given, parts}, x)}}, fourier(length, inverse)));
          for (int64_t row = 0; row < 2; ++row) {
            const auto from = x.begin() + row * given * parts;
            const auto sums = summed({from, from + given * parts}, parts, length, inverse);
            for (int64_t i = 0; i < 2 * length; ++i)
              ASSERT_NEAR(nth(y, row * 2 * length + i), nth(sums, i), 1e-12 * static_cast<double>(length)) << length << " of " << given;
          }
        }
}

// What one side holds is the beginning of the whole, and comes back.
TEST(Dft, OfOneSide) {
  RandomValues rng(4);
  for (const int64_t length : {1, 2, 5, 6, 16, 21}) {
    std::vector<double> x;
    for (int64_t i = 0; i < length; ++i) x.push_back(rng.real(-1, 1));
    const Tensor signal = tensor(DType::f64, {length, 1}, x);
    const Tensor whole = evaluate("dft", {{signal}}, fourier(length)), half = evaluate("dft", {{signal}}, fourier(length, 0, 1));
    EXPECT_EQ(half.sizes(), (Ints{length / 2 + 1, 2}));
    for (int64_t i = 0; i < half.numElements(); ++i) EXPECT_EQ(half.at(i), whole.at(i));
    const Tensor back = evaluate("dft", {{half}}, fourier(length, 1, 1));
    EXPECT_EQ(back.sizes(), (Ints{length, 1}));
    for (int64_t i = 0; i < length; ++i) EXPECT_NEAR(back.at(i), nth(x, i), 1e-14);
  }
}

TEST(Dft, RoundsOnce) {
  const Tensor x = tensor(DType::f32, {4, 1}, {1, 1e-9, 0, 1e9});
  EXPECT_THAT(list(evaluate("dft", {{x}}, fourier(4))),
              ElementsAre(static_cast<float>(1e9 + 1 + 1e-9), 0, 1, 1e9f, static_cast<float>(1 - 1e-9 - 1e9), 0, 1, -1e9f));
}

TEST(Dft, Refusals) {
  const TensorType real(DType::f32, toShape({3, 8, 1})), complex(DType::f32, toShape({3, 5, 2}));
  EXPECT_EQ(inferred("dft", {real}, fourier(8, 0, 1)), "f32[3,5,2]");
  EXPECT_EQ(inferred("dft", {complex}, fourier(8, 1, 1)), "f32[3,8,1]");
  EXPECT_THAT(inferred("dft", {complex}, fourier(8, 0, 1)), HasSubstr("takes real numbers, x f32[3,5,2] holds complex ones"));
  EXPECT_THAT(inferred("dft", {real}, fourier(8, 1, 1)), HasSubstr("takes complex numbers, x f32[3,8,1] holds real ones"));
  EXPECT_THAT(inferred("dft", {{DType::f32, toShape({3, 8})}}, fourier(8)), HasSubstr("the last dim"));
  EXPECT_THAT(inferred("dft", {real}, fourier(0)), HasSubstr("of length 0"));
  EXPECT_THAT(inferred("dft", {real}, {{"length", Ints{4, 4}}}), HasSubstr("2 entries"));
  EXPECT_THAT(inferred("dft", {{DType::s32, toShape({3, 8, 1})}}, fourier(8)), HasSubstr("error"));
  EXPECT_THAT(inferred("dft", {real}, fourier(int64_t{1} << 50)), HasSubstr("error"));
}

TEST(Dft, OfNoRows) { EXPECT_EQ(evaluate("dft", {{tensor(DType::f32, {0, 4, 1}, {})}}, fourier(4)).sizes(), (Ints{0, 4, 2})); }

TEST(UnitRoot, IsCosineAndSine) {
  for (const int64_t n : {1, 2, 3, 7, 8, 16, 360, 1000003})
    for (int64_t k = -n; k <= 2 * n; k += std::max<int64_t>(n / 40, 1)) {
      const double angle = 2 * std::numbers::pi * static_cast<double>((k % n + n) % n) / static_cast<double>(n);
      EXPECT_NEAR(unitRoot(k, n).cos, std::cos(angle), 1e-15) << k << " / " << n;
      EXPECT_NEAR(unitRoot(k, n).sin, std::sin(angle), 1e-15) << k << " / " << n;
    }
  EXPECT_EQ(unitRoot(1, 4).cos, 0);
  EXPECT_EQ(unitRoot(1, 4).sin, 1);
  EXPECT_EQ(unitRoot(1, 2).cos, -1);
  EXPECT_EQ(unitRoot(3, 4).sin, -1);
}

}  // namespace
}  // namespace qc
