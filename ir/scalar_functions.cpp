// The named functions of scalar expressions: their float32 meaning as primitives, their float64 meaning and those of integers.
//
// Every operation, fma among them, is rounded once, so every target gives the same bits.  Worst errors
// measured against double libm (tests/unit/scalar_expr_test.cpp holds the bounds): exp, log, sin, cos 1-2 ulp, the others
// 2-3 ulp; erf and normal_cdf 1e-7 absolute.  Polynomials are minimax fits on the reduced interval with
// coefficients rounded to float32 one after the other, lowest degree first.
//
// Operand order matters for NaN: min(limit, x) and max(limit, x) pass a NaN in x through.
#include <cmath>
#include <initializer_list>
#include <limits>

#include "ir/expr_internal.h"

namespace qc {
namespace {

using Op = ScalarExpr::Op;
using E = ScalarExpr;
using Args = std::span<const ScalarExpr>;
using expr::abs;
using expr::eq;
using expr::fma;
using expr::le;
using expr::lt;
using expr::max;
using expr::min;
using expr::select;
using expr::unary;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2High = 0.693359375f;  // 10 bits: products with exponents are exact
constexpr float kLn2Low = -0.00021219444f;
constexpr float kTwoToMinus126 = 0x1p-126f;

// c[0] + x * (c[1] + x * (...))
E polynomial(const E& x, std::initializer_list<float> c) {
  const float* i = c.end() - 1;
  E sum = *i;
  while (i != c.begin()) sum = fma(x, sum, *--i);
  return sum;
}

// ---- exp and its relatives: e^x = 2^n * (1 + m), x = n ln2 + r, |r| <= ln2 / 2, m = e^r - 1 -------------------------

struct ExpParts {
  E n, m;
};

ExpParts reduceExp(const E& x) {
  const E n = unary(Op::round, x * kLog2e);
  const E r = fma(n, -kLn2Low, fma(n, -kLn2High, x));
  const E q = polynomial(r, {4.9999994e-01f, 1.6666521e-01f, 4.1668274e-02f, 8.368686e-03f, 1.3820138e-03f});
  return {n, fma(r * r, q, r)};
}

// m * 2^n for n in [-254, 254], rounded once (in the subnormal range), overflowing to infinity.  2^-127 is zero here.
E scale(const E& m, const E& n) {
  const E half = unary(Op::floor, n * 0.5f);
  return m * unary(Op::pow2, half) * unary(Op::pow2, n - half);
}

E expOf(const E& x) {
  // Beyond -104 and 89 the results are 0 and infinity already.  At -176 zero is a factor: where -104 were the limit it would be the end of
  // an underflow, which takes CPUs of Intel some hundred cycles, and the masked elements of an attention are all there.
  const ExpParts p = reduceExp(max(-176.f, min(89.f, x)));
  return scale(1.f + p.m, p.n);
}

E expm1Of(const E& x) {
  const ExpParts p = reduceExp(max(-18.f, min(89.f, x)));  // e^-18 < half an ulp of 1
  const E inverse = unary(Op::pow2, max(-126.f, -p.n));
  // Zero is kept apart for its sign.
  return select(eq(x, 0.f), x, scale(p.m + (1.f - inverse), p.n));
}

E expm1(Args a) { return expm1Of(a[0]); }
E exp(Args a) { return expOf(a[0]); }

E withSignOf(const E& x, const E& magnitude) { return select(lt(x, 0.f), -magnitude, magnitude); }

// (e^x - e^-x) / 2 by e^x - 1; e^(x/2)^2 / 2 where e^x alone could overflow.
E sinh(Args a) {
  const E x = abs(a[0]);
  const E m = expm1Of(x), root = expOf(x * 0.5f);
  return withSignOf(a[0], select(lt(x, 80.f), 0.5f * (m + m / (m + 1.f)), 0.5f * root * root));
}
E cosh(Args a) {
  const E x = abs(a[0]);
  const E t = expOf(x), root = expOf(x * 0.5f);
  return select(lt(x, 80.f), 0.5f * t + 0.5f / t, 0.5f * root * root);
}

// 1 / (1 + e^-x) without overflow: e^-|x| on both sides, which is 0 from |x| = 87.7 on: below 2^-126 a second scale would be needed.
E sigmoid(Args a) {
  const ExpParts p = reduceExp(max(-88.f, -abs(a[0])));
  const E t = (1.f + p.m) * unary(Op::pow2, p.n);
  return select(lt(a[0], 0.f), t, 1.f) / (1.f + t);
}

// (e^2|x| - 1) / (e^2|x| + 1), sign restored; 1 from |x| = 10 on.
E tanh(Args a) {
  const E z = min(10.f, abs(a[0]));
  const ExpParts p = reduceExp(z + z);
  const E power = unary(Op::pow2, p.n);
  const E t = fma(p.m, power, power - 1.f);
  return withSignOf(a[0], t / (t + 2.f));
}

// ---- log ----------------------------------------------------------------------------------------------------------

struct LogParts {
  E e, m;  // x = m * 2^e, m in [sqrt(1/2), sqrt(2)]; for x > 0 and finite
};

LogParts reduceLog(const E& x) {
  const E tiny = lt(x, kTwoToMinus126);
  const E normal = select(tiny, x * 0x1p23f, x);
  const E m = unary(Op::mantissa, normal);
  const E e = unary(Op::exponent, normal) - select(tiny, 23.f, 0.f);
  const E upper = lt(1.4142135f, m);
  return {select(upper, e + 1.f, e), select(upper, m * 0.5f, m)};
}

E logOf(const E& x) {
  const LogParts p = reduceLog(x);
  const E f = p.m - 1.f;
  const E z = f * f;
  const E q = polynomial(f, {3.333333e-01f, -2.500082e-01f, 2.0001243e-01f, -1.6623412e-01f, 1.4201544e-01f, -1.3159537e-01f,
                             1.2762427e-01f, -7.6368906e-02f});
  const E small = (f * z * q + p.e * kLn2Low) - 0.5f * z;
  const E y = (f + small) + p.e * kLn2High;
  const E positive = select(lt(x, kInf), y, x);  // infinity and NaN: themselves
  return select(lt(x, 0.f), kNan, select(eq(x, 0.f), -kInf, positive));
}

E log(Args a) { return logOf(a[0]); }

// log(w) * x / (w - 1) for w = 1 + x makes up for the rounding of w.
E log1pOf(const E& x) {
  const E w = 1.f + x;
  const E y = logOf(w);
  const E corrected = select(lt(x, 0x1p25f), y * (x / (w - 1.f)), y);
  return select(eq(w, 1.f), x, corrected);
}

E log1p(Args a) { return log1pOf(a[0]); }

// log(x + sqrt(x^2 + 1)), log(2x) where x^2 could overflow.
E asinh(Args a) {
  const E x = abs(a[0]);
  const E square = x * x;
  const E y = log1pOf(x + square / (1.f + unary(Op::sqrt, square + 1.f)));
  return withSignOf(a[0], select(lt(x, 4096.f), y, logOf(x) + 0.6931472f));
}
// log(x + sqrt(x^2 - 1)) by t = x - 1.
E acosh(Args a) {
  const E t = a[0] - 1.f;
  const E y = log1pOf(t + unary(Op::sqrt, t + t + t * t));
  return select(lt(a[0], 1.f), kNan, select(lt(a[0], 4096.f), y, logOf(a[0]) + 0.6931472f));
}
E atanh(Args a) {
  const E x = abs(a[0]);
  return withSignOf(a[0], 0.5f * log1pOf((x + x) / (1.f - x)));
}

// ---- erf ----------------------------------------------------------------------------------------------------------

// Odd polynomial up to 1; 1 - e^R(|x|) up to 4, R a fit of log(erfc); 1 beyond.
E erf(Args a) {
  const E& x = a[0];
  const E magnitude = min(4.f, abs(x));
  const E t = x * x;
  const E inner = fma(
      x, polynomial(t, {1.2837917e-01f, -3.7612626e-01f, 1.1283579e-01f, -2.6853347e-02f, 5.1871627e-03f, -7.997865e-04f, 7.8069745e-05f}),
      x);
  const ExpParts p = reduceExp(polynomial(magnitude, {1.8847921e-04f, -1.1295804e+00f, -6.3321626e-01f, -1.0842222e-01f, 2.5210382e-02f,
                                                      -4.2052823e-03f, 4.414675e-04f, -2.169673e-05f}));
  const E outer = 1.f - (1.f + p.m) * unary(Op::pow2, p.n);  // from 1 to 1e-8: no limits to keep
  return select(lt(magnitude, 1.f), inner, select(lt(x, 0.f), -outer, outer));
}

// What lies beyond |x| is 2^R(|x|), R a fit of log2(erfc(|x| / sqrt(2)) / 2) up to 6, behind which it is nothing beside 1, and at 16 far
// below -127.  One polynomial and no cancellation on either side, which erf would bring.
E normalCdf(Args a) {
  const E& x = a[0];
  const E log =
      max(-127.f, polynomial(min(16.f, abs(x)), {-1.f, -1.1511078e+00f, -4.5918742e-01f, -5.2546132e-02f, 7.1052676e-03f, -1.3319677e-04f,
                                                 -2.1273956e-04f, 5.5858534e-05f, -7.1546924e-06f, 4.6919206e-07f, -1.1969028e-08f}));
  const E n = unary(Op::round, log);
  const E power = polynomial(log - n, {1.f, 6.931472e-01f, 2.4022648e-01f, 5.5503324e-02f, 9.618437e-03f, 1.3398875e-03f, 1.5353362e-04f});
  const E beyond = power * unary(Op::pow2, n);
  return select(lt(x, 0.f), beyond, 1.f - beyond);
}

// ---- sin, cos, tan: x = n pi/2 + r, |r| <= pi/4 -------------------------------------------------------------------

struct Circle {
  E n, sine, cosine;  // of r
};

// pi/2 in three parts of 8 bits and a rest: n * part is exact for |n| < 2^16, so the error of r stays near one ulp up
// to |x| = 1e5.  Beyond, results lose accuracy but stay within [-1, 1].
Circle reduceCircle(const E& x) {
  const E n = unary(Op::round, x * 0.63661975f);
  const E exact = ((x - n * 1.5703125f) - n * 0x1.fap-12f) - n * 0x1.54p-20f;
  const E r = max(-0.8f, min(0.8f, exact - n * 0x1.10b462p-30f));
  const E t = r * r;
  const E sine = r + r * t * polynomial(t, {-1.6666655e-01f, 8.332187e-03f, -1.9517909e-04f});
  const E cosine = (1.f - 0.5f * t) + t * t * polynomial(t, {4.1666646e-02f, -1.388731e-03f, 2.4432338e-05f});
  return {n, sine, cosine};
}

E isOdd(const E& n) { return n - 2.f * unary(Op::floor, n * 0.5f); }

// sin of r + quarters * pi/2.
E sineOf(const Circle& c, const E& quarters) {
  const E y = select(isOdd(quarters), c.cosine, c.sine);
  const E quadrant = quarters - 4.f * unary(Op::floor, quarters * 0.25f);
  return select(le(2.f, quadrant), -y, y);
}

E sin(Args a) {
  const Circle c = reduceCircle(a[0]);
  return sineOf(c, c.n);
}
E cos(Args a) {
  const Circle c = reduceCircle(a[0]);
  return sineOf(c, c.n + 1.f);
}
E tan(Args a) {
  const Circle c = reduceCircle(a[0]);
  const E odd = isOdd(c.n);
  return select(odd, -c.cosine, c.sine) / select(odd, c.sine, c.cosine);
}

// ---- their inverses -------------------------------------------------------------------------------------------------

constexpr float kHalfPi = 1.5707964f, kHalfPiLow = -4.371139e-08f;  // their sum is pi/2 to 2^-50

// atan(x) = base + atan(t), |t| <= tan(pi/8).
E atan(Args a) {
  const E x = abs(a[0]);
  const E steep = lt(2.4142137f, x), middle = lt(0.41421357f, x);
  const E t = select(steep, -1.f / x, select(middle, (x - 1.f) / (x + 1.f), x));
  const E base = select(steep, kHalfPi, select(middle, 0.7853982f, 0.f));
  const E z = t * t;
  const E q = polynomial(z, {-3.3333316e-01f, 1.9998528e-01f, -1.4244393e-01f, 1.0599191e-01f, -6.090134e-02f});
  return withSignOf(a[0], base + (t + t * z * q));
}

// (asin(t) - t) of |t| <= 1/2, z = t^2.
E asinRest(const E& t, const E& z) {
  return t * z * polynomial(z, {1.666666e-01f, 7.500519e-02f, 4.4514365e-02f, 3.182798e-02f, 1.4366006e-02f, 3.7613764e-02f});
}

// Beyond 1/2 both go through asin(sqrt((1 - |x|) / 2)), half the angle to the end of the range.
struct Arc {
  E small, z, t, angle;  // |x| < 1/2; t the argument, z its square, angle = asin(t)
};
Arc reduceArc(const E& x) {
  const E small = lt(abs(x), 0.5f);
  const E z = select(small, x * x, (1.f - abs(x)) * 0.5f);
  const E t = select(small, x, unary(Op::sqrt, z));
  return {small, z, t, t + asinRest(t, z)};
}
E asin(Args a) {
  const Arc r = reduceArc(a[0]);
  return select(r.small, r.angle, withSignOf(a[0], kHalfPi - (2.f * r.angle - kHalfPiLow)));
}
E acos(Args a) {
  const Arc r = reduceArc(a[0]);
  const E outer = 2.f * r.angle;
  return select(r.small, kHalfPi - (r.angle - kHalfPiLow), select(lt(a[0], 0.f), 2.f * kHalfPi - (outer - 2.f * kHalfPiLow), outer));
}

// ---- pairs of floats for what float32 alone cannot carry ----------------------------------------------------------

struct Pair {
  E high, low;
};

Pair split(const E& x) {  // 12 bits each; |x| < 2^115
  const E c = x * 4097.f;
  const E high = c - (c - x);
  return {high, x - high};
}

// a * b = high + low exactly, barring overflow and underflow.
Pair product(const E& a, const E& b) {
  const Pair p = split(a), q = split(b);
  const E high = a * b;
  return {high, ((p.high * q.high - high) + p.high * q.low + p.low * q.high) + p.low * q.low};
}

// a + b = high + low exactly for |a| >= |b|.
Pair fastSum(const E& a, const E& b) {
  const E high = a + b;
  return {high, b - (high - a)};
}

// ---- pow ----------------------------------------------------------------------------------------------------------

// log2 of a positive finite number to about 2^-32, as a pair: e + 2/ln2 * atanh(s), s = (m - 1) / (m + 1).
Pair log2Of(const E& x) {
  const LogParts p = reduceLog(x);
  const E numerator = p.m - 1.f;
  const Pair denominator = fastSum(1.f, p.m);  // exact: m's exponent is not above that of 1
  const E s = numerator / denominator.high;
  const Pair back = product(s, denominator.high);
  const E sLow = ((numerator - back.high) - back.low - s * denominator.low) / denominator.high;
  const E t = s * s;
  const E series = s * t * polynomial(t, {3.333333e-01f, 2.0000486e-01f, 1.4249383e-01f, 1.21400096e-01f});
  const Pair y = fastSum(s, sLow + series);
  const Pair scaled = product(y.high, 2.88539f);
  const E low = scaled.low + (y.high * 3.851926e-08f + y.low * 2.88539f);
  // |e| >= 1 exceeds the rest, and for e = 0 the sum is exact.
  const Pair sum = fastSum(p.e, scaled.high);
  return fastSum(sum.high, sum.low + low);
}

// |x|^y for finite |x| > 0.
E powOfMagnitude(const E& magnitude, const E& y) {
  // From 2^31 on, even the base next to 1 over- or underflows; more would only overflow in product().
  const E exponent = max(-0x1p32f, min(0x1p32f, y));
  const Pair l = log2Of(magnitude);
  const Pair high = product(l.high, exponent);
  const E low = high.low + l.low * exponent;
  const E bounded = max(-160.f, min(160.f, high.high));
  const E n = unary(Op::round, bounded);
  const E r = ((bounded - n) + max(-1.f, min(1.f, low))) * 0.6931472f;
  const E q = polynomial(r, {4.9999994e-01f, 1.6666521e-01f, 4.1668274e-02f, 8.368686e-03f, 1.3820138e-03f});
  return scale(1.f + fma(r * r, q, r), n);
}

E generalPow(const E& x, const E& y) {
  const E magnitude = abs(x);
  const E zeroOrInfinity = select(eq(magnitude, 0.f), select(lt(y, 0.f), kInf, 0.f), select(lt(y, 0.f), 0.f, kInf));
  const E special = eq(magnitude, 0.f) + eq(magnitude, kInf);
  const E positive = select(eq(magnitude, 1.f), 1.f, select(special, zeroOrInfinity, powOfMagnitude(magnitude, y)));
  const E integral = eq(y, unary(Op::floor, y));
  const E half = y * 0.5f;
  const E odd = integral * (1.f - eq(half, unary(Op::floor, half)));
  const E finiteNegative = lt(x, 0.f) * lt(-kInf, x);
  const E minusZero = eq(x, 0.f) * lt(1.f / x, 0.f);
  const E unsignedResult = select(finiteNegative * (1.f - integral), kNan, positive);
  const E signedResult = select((lt(x, 0.f) + minusZero) * odd, -positive, unsignedResult);
  const E anyNan = (1.f - eq(x, x)) + (1.f - eq(y, y));
  return select(eq(x, 1.f) + eq(y, 0.f), 1.f, select(anyNan, kNan, signedResult));
}

// Constant exponents that are a few multiplications first.
E pow(Args a) {
  const E& x = a[0];
  if (a[1].op() != Op::constant) return generalPow(x, a[1]);
  const float y = a[1].value();
  const E base = y < 0 ? 1.f / x : x;
  const E square = base * base;
  const E powers[] = {1.f, base, square, square * base, square * square};
  for (int n = 0; n <= (y < 0 ? 2 : 4); ++n)
    if (std::fabs(y) == static_cast<float>(n)) return powers[n];
  // x + 0 turns -0 into 0, as pow does.
  const E root = select(eq(x, -kInf), kInf, unary(Op::sqrt, x + 0.f));
  if (y == 0.5f) return root;
  if (y == -0.5f) return 1.f / root;
  return generalPow(x, a[1]);
}

// ---- remainders ---------------------------------------------------------------------------------------------------

// x - q * y for the rounded quotient q, exact by product(): takes 23 bits off |x / y|, possibly leaving x's sign.
E remainderStep(const E& x, const E& y) {
  const E q = unary(Op::trunc, x / y);
  const Pair p = product(q, y);
  return (x - p.high) - p.low;
}

// Exact for quotients below 2^64, NaN beyond.  The scales keep product() clear of overflow and underflow.
E fmodOf(const E& x, const E& y) {
  const E dividend = abs(x), divisor = abs(y);
  const E large = lt(0x1p60f, divisor), small = lt(divisor, 0x1p-40f);
  const E factor = select(large, 0x1p-60f, select(small, 0x1p62f, 1.f));
  const E inverse = select(large, 0x1p60f, select(small, 0x1p-62f, 1.f));
  const E b = divisor * factor;
  E r = dividend * factor;
  const E tooLarge = le(0x1p64f, r / b);
  for (int step = 0; step < 3; ++step) r = remainderStep(r, b);
  r = select(lt(r, 0.f), r + b, select(le(b, r), r - b, r));
  const E magnitude = select(lt(dividend, divisor), dividend, select(tooLarge, kNan, r * inverse));
  // Infinite dividends and zero divisors have no remainder; NaN fails every comparison.
  const E defined = lt(dividend, kInf) * lt(0.f, divisor);
  return select(defined, select(lt(x, 0.f), -magnitude, magnitude), kNan);
}

E fmod(Args a) { return fmodOf(a[0], a[1]); }

// The remainder with the divisor's sign.
E mod(Args a) {
  const E r = fmodOf(a[0], a[1]);
  const E differs = select(lt(r, 0.f), lt(0.f, a[1]), lt(0.f, r) * lt(a[1], 0.f));
  return select(differs, r + a[1], r);
}

// ---- integers: everything wraps, nothing is undefined --------------------------------------------------------------

uint64_t naturalPow(const uint64_t* a) {
  uint64_t result = 1, base = a[0];
  for (uint64_t n = a[1]; n > 0; n /= 2, base *= base)
    if (n % 2) result *= base;
  return result;
}
int64_t integerPow(const int64_t* a) {
  if (a[1] < 0) return a[0] == 1 ? 1 : a[0] == -1 ? (a[1] % 2 ? -1 : 1) : 0;
  const uint64_t args[2] = {static_cast<uint64_t>(a[0]), static_cast<uint64_t>(a[1])};
  return static_cast<int64_t>(naturalPow(args));
}
int64_t integerFmod(const int64_t* a) { return a[1] == 0 || a[1] == -1 ? 0 : a[0] % a[1]; }
int64_t integerMod(const int64_t* a) {
  const int64_t r = integerFmod(a);
  return r != 0 && (r < 0) != (a[1] < 0) ? r + a[1] : r;
}
uint64_t naturalMod(const uint64_t* a) { return a[1] == 0 ? 0 : a[0] % a[1]; }  // no signs: that of fmod too

double realSigmoid(const double* a) {
  const double t = std::exp(-std::fabs(a[0]));
  return (a[0] < 0 ? t : 1) / (1 + t);
}
double realNormalCdf(const double* a) { return 0.5 * std::erfc(-a[0] / std::sqrt(2.0)); }
double realMod(const double* a) {
  const double r = std::fmod(a[0], a[1]);
  return r != 0 && (r < 0) != (a[1] < 0) ? r + a[1] : r;
}

template <double (*kFunction)(double)>
double real(const double* a) {
  return kFunction(a[0]);
}
template <double (*kFunction)(double, double)>
double real(const double* a) {
  return kFunction(a[0], a[1]);
}

constexpr ScalarExpr::Function kFunctions[] = {
    {"exp", 1, exp, real<std::exp>, nullptr},
    {"expm1", 1, expm1, real<std::expm1>, nullptr},
    {"log", 1, log, real<std::log>, nullptr},
    {"log1p", 1, log1p, real<std::log1p>, nullptr},
    {"tanh", 1, tanh, real<std::tanh>, nullptr},
    {"sigmoid", 1, sigmoid, realSigmoid, nullptr},
    {"erf", 1, erf, real<std::erf>, nullptr},
    {"normal_cdf", 1, normalCdf, realNormalCdf, nullptr},
    {"sin", 1, sin, real<std::sin>, nullptr},
    {"cos", 1, cos, real<std::cos>, nullptr},
    {"tan", 1, tan, real<std::tan>, nullptr},
    {"asin", 1, asin, real<std::asin>, nullptr},
    {"acos", 1, acos, real<std::acos>, nullptr},
    {"atan", 1, atan, real<std::atan>, nullptr},
    {"sinh", 1, sinh, real<std::sinh>, nullptr},
    {"cosh", 1, cosh, real<std::cosh>, nullptr},
    {"asinh", 1, asinh, real<std::asinh>, nullptr},
    {"acosh", 1, acosh, real<std::acosh>, nullptr},
    {"atanh", 1, atanh, real<std::atanh>, nullptr},
    {"pow", 2, pow, real<std::pow>, integerPow, naturalPow},
    {"fmod", 2, fmod, real<std::fmod>, integerFmod, naturalMod},
    {"mod", 2, mod, realMod, integerMod, naturalMod},
};

}  // namespace

std::span<const ScalarExpr::Function> ScalarExpr::functions() { return kFunctions; }

}  // namespace qc
