// Scalar expressions: text, composition, and the accuracy of the named functions against double libm.
#include "ir/scalar_expr.h"

#include "ir/expr_counter.h"
#include "ir/signed_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

namespace qc {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

ScalarExpr parsed(std::string_view text) {
  auto e = ScalarExpr::parse(text);
  EXPECT_TRUE(e) << text << ": " << (e ? "" : e.error().message());
  return e ? *e : ScalarExpr(0.f);
}

float at(const ScalarExpr& e, std::vector<float> args) { return ExprProgram(e)(args); }

TEST(ScalarExpr, PrintsWithMinimalParentheses) {
  for (const char* text : {"a0",
                           "a0 + a1 * 2",
                           "(a0 + a1) * 2",
                           "a0 - (a1 - a2)",
                           "a0 - a1 - a2",
                           "a0 / (a1 * a2)",
                           "-a0 * a1",
                           "-(a0 * a1)",
                           "-(3)",
                           "-(-3)",
                           "-3",
                           "a0 - -3",
                           "--a0",
                           "a0 * min(6, max(0, a0 + 3)) / 6",
                           "inf",
                           "-inf",
                           "nan",
                           "-0",
                           "0.1",
                           "1e-45",
                           "3.4028235e+38",
                           "1e+20",
                           "select(lt(a0, 0), a0 * a1, a0)",
                           "pow2(round(a0))",
                           "sqrt(abs(floor(ceil(trunc(exponent(a0)))) + mantissa(a0)))",
                           "pow(a0, 0.5) + sigmoid(a255)"})
    EXPECT_EQ(parsed(text).str(), text);
}

TEST(ScalarExpr, ReadsLooseText) {
  EXPECT_EQ(parsed(" ( (a0)+ .5)*1.50 ").str(), "(a0 + 0.5) * 1.5");
  EXPECT_EQ(parsed("t0 = a0+1; t1 = t0*t0; t1*t0").str(), "(a0 + 1) * (a0 + 1) * (a0 + 1)");
}

TEST(ScalarExpr, RefusesBrokenText) {
  for (const char* text : {"",
                           "a",
                           "a0 +",
                           "a0 a1",
                           "foo(a0)",
                           "exp()",
                           "exp(a0, a1)",
                           "exp a0",
                           "(a0",
                           "a0)",
                           "1e400",
                           "a256",
                           "a99999999999999999999",
                           "t0",
                           "t1 = a0; t1",
                           "t0 = a0",
                           "t0 = a0; t1",
                           "1..2",
                           "a0 ; a1",
                           "min(a0)",
                           "A0",
                           "\xff\xfe",
                           ".",
                           "-"})
    EXPECT_FALSE(ScalarExpr::parse(text)) << text;
  EXPECT_FALSE(ScalarExpr::parse(std::string(100000, 'a')));
}

TEST(ScalarExpr, DeepTextIsAnErrorNotACrash) {
  for (const char* piece : {"(", "-", "exp(", "a0+(", "select(a0,a0,"}) {
    std::string text;
    while (text.size() < 60000) text += piece;
    EXPECT_FALSE(ScalarExpr::parse(text)) << piece;
  }
  // Long is fine where it is not nested; so is depth by temporaries.
  std::string sum = "a0";
  while (sum.size() < 60000) sum += "+a0";
  const ScalarExpr e = parsed(sum);
  EXPECT_EQ(at(e, {1}), 1 + (sum.size() - 2) / 3);
  std::string chain = "t0=a0;";
  for (int i = 1; chain.size() < 60000; ++i) chain += fmt::format("t{0}=t{1}*t{1};", i, i - 1);
  const ScalarExpr square = parsed(chain + "t100");  // 2^100 nodes as a tree
  EXPECT_EQ(parsed(square.str()), square);
  EXPECT_EQ(at(square, {1}), 1);
}

TEST(ScalarExpr, DeepTreesComposeAndEvaluate) {
  ScalarExpr e = ScalarExpr::arg(0);
  for (int i = 0; i < 100000; ++i) e = e + 1.f;
  EXPECT_EQ(at(e, {0}), 100000);
  const ScalarExpr doubled = (ScalarExpr::arg(0) * 2.f).substitute({&e, 1});
  EXPECT_EQ(at(doubled, {0}), 200000);
}

TEST(ScalarExpr, SharedPartsPrintOnceInLargeTrees) {
  ScalarExpr e = ScalarExpr::arg(0);
  for (int i = 0; i < 30; ++i) e = e * expr::sigmoid(e);
  const std::string text = e.str();
  EXPECT_LT(text.size(), 1500u);
  EXPECT_THAT(text, testing::StartsWith("t0 = a0 * sigmoid(a0); t1 = t0 * sigmoid(t0); "));
  EXPECT_EQ(parsed(text), e);
  EXPECT_EQ(parsed(text).str(), text);
}

TEST(ScalarExpr, FloatsRoundTrip) {
  std::mt19937 rng(1);
  for (int i = 0; i < 20000; ++i) {
    const auto v = std::bit_cast<float>(static_cast<uint32_t>(rng()));
    if (std::isnan(v)) continue;
    const ScalarExpr e = parsed(ScalarExpr(v).str());
    ASSERT_EQ(std::bit_cast<uint32_t>(e.value()), std::bit_cast<uint32_t>(v)) << v;
  }
}

ScalarExpr randomTree(std::mt19937& rng, int depth) {
  using Op = ScalarExpr::Op;
  const auto child = [&] { return randomTree(rng, depth - 1); };
  switch (depth <= 0 ? rng() % 2 : rng() % 7) {
    case 0: return ScalarExpr::arg(static_cast<int>(rng() % 3));
    case 1: return static_cast<float>(static_cast<int>(rng() % 9)) / 2 - 2;
    case 2: return ScalarExpr::make(static_cast<Op>(static_cast<unsigned>(Op::neg) + rng() % 10), {child()});
    case 3:
    case 4: return ScalarExpr::make(static_cast<Op>(static_cast<unsigned>(Op::add) + rng() % 9), {child(), child()});
    case 5: return expr::select(child(), child(), child());
    default: {
      const auto& f = ScalarExpr::functions()[rng() % ScalarExpr::functions().size()];
      std::vector<ScalarExpr> args;
      for (int i = 0; i < f.arity; ++i) args.push_back(child());
      return ScalarExpr::call(f.name, args);
    }
  }
}

TEST(ScalarExpr, RandomTreesRoundTripAndExpandConsistently) {
  std::mt19937 rng(7);
  for (int i = 0; i < 400; ++i) {
    const ScalarExpr e = randomTree(rng, 6);
    const std::string text = e.str();
    ASSERT_EQ(parsed(text), e) << text;
    ASSERT_EQ(parsed(text).str(), text);
    const float direct = at(e, {0.5f, -1.25f, 3.f}), expanded = at(e.expand(), {0.5f, -1.25f, 3.f});
    ASSERT_TRUE(std::bit_cast<uint32_t>(direct) == std::bit_cast<uint32_t>(expanded) || (std::isnan(direct) && std::isnan(expanded)))
        << text;
  }
}

TEST(ScalarExpr, MutatedTextIsReadOrRefused) {
  std::mt19937 rng(13);
  const std::string alphabet = "a0t1=;(),+-*/. minaxexpselectinf9e";
  int read = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = randomTree(rng, 4).str();
    for (int n = 1 + static_cast<int>(rng() % 3); n > 0; --n) {
      const size_t where = rng() % (text.size() + 1);
      if (rng() % 2)
        text.insert(where, 1, alphabet[rng() % alphabet.size()]);
      else
        text.erase(where, 1 + rng() % 3);
    }
    const auto e = ScalarExpr::parse(text);
    if (!e) continue;
    ++read;
    ASSERT_EQ(parsed(e->str()), *e) << text;
  }
  EXPECT_GT(read, 1000);
}

TEST(ScalarExpr, SubstitutionComposes) {
  const ScalarExpr e = parsed("a1 * max(0, a0)"), args[] = {parsed("a1 - 1"), parsed("a0")};
  EXPECT_EQ(e.substitute(args).str(), "a0 * max(0, a1 - 1)");
  EXPECT_EQ(e.substitute(args).arity(), 2);
  EXPECT_EQ(parsed("3").arity(), 0);
}

TEST(ScalarExpr, ProgramsComputeSharedPartsOnceAndHoldNoCalls) {
  const ExprProgram p(parsed("sigmoid(a0) * sigmoid(a0)"));
  for (const auto& i : p.instructions()) EXPECT_NE(i.op, ScalarExpr::Op::call);
  const ExprProgram single(parsed("sigmoid(a0)"));
  EXPECT_EQ(p.instructions().size(), single.instructions().size() + 1);
}

TEST(ExprCounter, CountsWhatAProgramHas) {
  const std::vector<std::string> formulas = {"sigmoid(a0)", "a0 * sigmoid(a0)", "max(0, a0)",  "tanh(a0) + 1",           "pow(a0, 2)",
                                             "a0 + a1",     "erf(a0) * a1",     "pow(a0, a1)", "exp(a0) / (1 + exp(a0))"};
  std::mt19937 random(7);
  ExprCounter counter;
  for (int round = 0; round < 200; ++round) {
    counter.clear();
    ScalarExpr grown = parsed("a0");
    int value = counter.add(grown);
    for (int op = 0; op < 6; ++op) {
      const ScalarExpr formula = parsed(formulas[random() % formulas.size()]);
      const ScalarExpr other = random() % 2 ? parsed("a1") : ScalarExpr(static_cast<float>(random() % 3));
      const ScalarExpr args[] = {grown, other};
      grown = formula.substitute(args);
      const int registers[] = {value, formula.arity() > 1 ? counter.add(other) : value};
      value = counter.add(formula, registers);
    }
    EXPECT_EQ(counter.size(value), ExprProgram(grown).instructions().size()) << grown.str();
  }
}

TEST(ScalarExpr, RunsOverBlocksAndBroadcasts) {
  const ExprProgram p(parsed("a0 * a1 + a2"));
  for (const int64_t n : {1, 7, 255, 256, 257, 1000}) {
    std::vector<float> x(usize(n)), y(x), out(x);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i), y[i] = static_cast<float>(i % 5);
    const float three = 3;
    const float* args[] = {x.data(), &three, y.data()};
    const int strides[] = {1, 0, 1};
    p.run<float>(args, strides, out.data(), n);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(out[i], x[i] * 3 + y[i]);
    p.run<float>(args, strides, x.data(), n);  // in place
    ASSERT_EQ(x, out);
  }
}

TEST(ScalarExpr, IntegersWrapAndNeverTrap) {
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
  const auto eval = [](std::string_view text, int64_t a, int64_t b) {
    const ExprProgram p(parsed(text));
    EXPECT_TRUE(p.supportsInteger());
    const int64_t* args[] = {&a, &b};
    const int strides[] = {0, 0};
    int64_t out = 0;
    p.run<int64_t>(args, strides, &out, 1);
    return out;
  };
  EXPECT_EQ(eval("a0 + a1", kMax, 1), kMin);
  EXPECT_EQ(eval("a0 * a1", kMin, -1), kMin);
  EXPECT_EQ(eval("a0 / a1", kMin, -1), kMin);
  EXPECT_EQ(eval("a0 / a1", 7, 0), 0);
  EXPECT_EQ(eval("a0 / a1", -7, 2), -3);
  EXPECT_EQ(eval("-a0", kMin, 0), kMin);
  EXPECT_EQ(eval("abs(a0)", -5, 0), 5);
  EXPECT_EQ(eval("mod(a0, a1)", -7, 3), 2);
  EXPECT_EQ(eval("mod(a0, a1)", 7, -3), -2);
  EXPECT_EQ(eval("fmod(a0, a1)", -7, 3), -1);
  EXPECT_EQ(eval("mod(a0, a1)", kMin, -1), 0);
  EXPECT_EQ(eval("mod(a0, a1)", 5, 0), 0);
  EXPECT_EQ(eval("pow(a0, a1)", -7, 3), -343);
  EXPECT_EQ(eval("pow(a0, a1)", -1, kMin + 1), -1);
  EXPECT_EQ(eval("pow(a0, a1)", 0, -1), 0);
  EXPECT_EQ(eval("pow(a0, a1)", 2, 64), 0);
  EXPECT_EQ(eval("min(a0, inf)", 5, 0), 5);
  EXPECT_EQ(eval("max(a0, -inf)", kMin, 0), kMin);
  EXPECT_FALSE(ExprProgram(parsed("exp(a0)")).supportsInteger());
  EXPECT_FALSE(ExprProgram(parsed("a0 * 0.5")).supportsInteger());
  EXPECT_FALSE(ExprProgram(parsed("sqrt(a0)")).supportsInteger());
}

// What is defined on integers is on those without a sign.
TEST(ScalarExpr, NaturalNumbers) {
  for (const ScalarExpr::Function& f : ScalarExpr::functions()) EXPECT_EQ(f.integer == nullptr, f.natural == nullptr) << f.name;
  constexpr uint64_t kHalf = uint64_t{1} << 63, kMost = ~uint64_t{0};
  const auto eval = [](std::string_view text, uint64_t a, uint64_t b) {
    const uint64_t* args[] = {&a, &b};
    const int strides[] = {0, 0};
    uint64_t out = 0;
    ExprProgram(parsed(text)).run<uint64_t>(args, strides, &out, 1);
    return out;
  };
  for (const char* text : {"mod(a0, a1)", "fmod(a0, a1)"}) {
    EXPECT_EQ(eval(text, kHalf, kMost), kHalf);
    EXPECT_EQ(eval(text, kHalf + 5, 10), 3u);
    EXPECT_EQ(eval(text, 7, kHalf), 7u);
    EXPECT_EQ(eval(text, 7, 0), 0u);
  }
  EXPECT_EQ(eval("pow(a0, a1)", 3, kHalf + 1), 3u);  // 3^(2^62) is 1 modulo 2^64
  EXPECT_EQ(eval("abs(a0)", kHalf + 5, 0), kHalf + 5);
}

TEST(ScalarExpr, DoubleUsesTheLibrary) {
  const ExprProgram p(parsed("erf(a0) + pow(a0, 3)"));
  const double x = 0.7;
  const double* args[] = {&x};
  const int strides[] = {0};
  double out = 0;
  p.run<double>(args, strides, &out, 1);
  EXPECT_EQ(out, std::erf(0.7) + std::pow(0.7, 3.0));
}

TEST(ScalarExpr, BitPrimitives) {
  for (int n = -126; n <= 127; ++n) ASSERT_EQ(at(parsed("pow2(a0)"), {static_cast<float>(n)}), std::ldexp(1.0f, n));
  EXPECT_EQ(at(parsed("exponent(a0)"), {0.75f}), -1);
  EXPECT_EQ(at(parsed("mantissa(a0)"), {0.75f}), 1.5f);
  EXPECT_EQ(at(parsed("exponent(a0)"), {kInf}), 128);
  EXPECT_EQ(at(parsed("round(a0)"), {2.5f}), 2);
  EXPECT_TRUE(std::isnan(at(parsed("min(a0, a1)"), {1, kNan})));
  EXPECT_EQ(at(parsed("min(a0, a1)"), {kNan, 1}), 1);
}

TEST(ScalarExpr, FusedMultiplyAddRoundsOnce) {
  const float x = 1 + 0x1p-12f;  // x * x = 1 + 2^-11 + 2^-24, whose last term a float loses
  EXPECT_EQ(at(parsed("fma(a0, a0, a1)"), {x, -1 - 0x1p-11f}), 0x1p-24f);
  EXPECT_EQ(at(parsed("a0 * a0 + a1"), {x, -1 - 0x1p-11f}), 0.f);
  EXPECT_EQ(parsed("fma(a0, 2, a1)").str(), "fma(a0, 2, a1)");
}

// What would be a subnormal number is zero.
TEST(ScalarExpr, SigmoidEndsInZeroAndOne) {
  const ScalarExpr s = parsed("sigmoid(a0)");
  for (const float x : {88.f, 1000.f, kInf}) {
    EXPECT_EQ(at(s, {x}), 1.f);
    EXPECT_EQ(at(s, {-x}), 0.f);
  }
  EXPECT_LE(at(s, {-87.5f}), 0x1p-126f);
  EXPECT_TRUE(std::isnan(at(s, {kNan})));
}

// ---- accuracy -----------------------------------------------------------------------------------------------------

double ulpOf(double exact) {
  const auto f = static_cast<float>(std::fabs(exact));
  if (std::isinf(f)) return std::ldexp(1.0, 104);
  return std::ldexp(1.0, std::max(f == 0 ? -149 : std::ilogb(f) - 23, -149));
}

// In units of the last place of the exact result; huge where one is special and the other is not.
double errorInUlps(float got, double exact) {
  const auto rounded = static_cast<float>(exact);
  if (std::isnan(got) || std::isnan(exact)) return std::isnan(got) && std::isnan(exact) ? 0 : 1e9;
  if (got == rounded) return 0;
  if (std::isinf(got)) return std::fabs(exact) > 3.4028233e38 && (got > 0) == (exact > 0) ? 1 : 1e9;
  return std::fabs(static_cast<double>(got) - exact) / ulpOf(exact);
}

struct Worst {
  double error = 0;
  float x = 0, y = 0;
};

Worst worstOver(const ExprProgram& program, double (*exact)(const double*), const std::vector<float>& xs,
                const std::vector<float>& ys = {}) {
  std::vector<float> out(xs.size());
  std::vector<const float*> args{xs.data()};
  std::vector<int> strides{1};
  if (!ys.empty()) args.push_back(ys.data()), strides.push_back(1);
  program.run<float>(args, strides, out.data(), static_cast<int64_t>(xs.size()));
  Worst worst;
  for (size_t i = 0; i < xs.size(); ++i) {
    const double in[2] = {xs[i], ys.empty() ? 0 : ys[i]};
    const double e = errorInUlps(out[i], exact(in));
    if (e > worst.error) worst = {e, xs[i], ys.empty() ? 0 : ys[i]};
  }
  return worst;
}

// Every 1021st bit pattern (a prime, so that mantissas vary) and the special ones.
std::vector<float> allMagnitudes(double limit) {
  std::vector<float> xs{0.f, -0.f, 1.f, -1.f};
  if (std::isinf(limit)) xs.insert(xs.end(), {kInf, -kInf, kNan, std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()});
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 1021) {
    const auto x = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (std::fabs(x) <= limit) xs.push_back(x);
  }
  return xs;
}

struct Bound {
  const char* function;
  double ulps;
  double limit;  // of |x|
};

class UnaryAccuracy : public testing::TestWithParam<Bound> {};

TEST_P(UnaryAccuracy, StaysWithinTheBound) {
  const Bound b = GetParam();
  const ScalarExpr e = ScalarExpr::call(b.function, {ScalarExpr::arg(0)});
  const Worst w = worstOver(ExprProgram(e), e.function().real, allMagnitudes(b.limit));
  EXPECT_LE(w.error, b.ulps) << fmt::format("{}({})", b.function, w.x);
  RecordProperty("worst", fmt::format("{:.2f} ulp at {}", w.error, w.x));
}

INSTANTIATE_TEST_SUITE_P(Functions, UnaryAccuracy,
                         testing::Values(Bound{"exp", 1.5, kInf}, Bound{"expm1", 3, kInf}, Bound{"log", 1.5, kInf}, Bound{"log1p", 3, kInf},
                                         Bound{"tanh", 3, kInf}, Bound{"sigmoid", 2.5, 87.3}, Bound{"sin", 2, 1.5}, Bound{"cos", 2, 1.5},
                                         Bound{"tan", 3, 1.5}, Bound{"erf", 3, kInf}, Bound{"asin", 3, 1}, Bound{"acos", 3, 1},
                                         Bound{"atan", 3, kInf}, Bound{"sinh", 3, kInf}, Bound{"cosh", 3, kInf}, Bound{"asinh", 3, kInf},
                                         Bound{"acosh", 3, kInf}, Bound{"atanh", 3, kInf}),
                         [](const auto& info) { return info.param.function; });

TEST(ScalarAccuracy, ErfIsWithin1e7Absolutely) {
  const ExprProgram p(parsed("erf(a0)"));
  for (int i = -60000; i <= 60000; ++i) {
    const float x = static_cast<float>(i) * 1e-4f;
    ASSERT_NEAR(p({{x}}), std::erf(static_cast<double>(x)), 1e-7);
  }
}

TEST(ScalarAccuracy, TheNormalDistributionIsWithinAFewPartsOf1e7UntilItsTailIsNothing) {
  const ExprProgram p(parsed("normal_cdf(a0)"));
  for (int i = -90000; i <= 90000; ++i) {
    const float x = static_cast<float>(i) * 1e-4f;
    const double exact = 0.5 * std::erfc(-static_cast<double>(x) / std::sqrt(2.0));
    ASSERT_NEAR(p({{x}}), exact, 1.2e-7) << x;
    if (x > -3) {
      ASSERT_NEAR(p({{x}}), exact, 1e-6 * exact) << x;
    } else {
      ASSERT_NEAR(x * p({{x}}), x * exact, 1e-8) << x;
    }
  }
  EXPECT_EQ(p({{0.f}}), 0.5f);
  for (const float large : {16.f, 1e30f, kInf}) {
    EXPECT_EQ(p({{large}}), 1.f);
    EXPECT_EQ(p({{-large}}), 0.f);
  }
  EXPECT_TRUE(std::isnan(p({{std::nanf("")}})));
}

TEST(ScalarAccuracy, SinesOfLargeAngles) {
  std::mt19937 rng(3);
  std::uniform_real_distribution<float> angle(-1e5f, 1e5f);
  const ExprProgram sine(parsed("sin(a0)")), cosine(parsed("cos(a0)"));
  for (int i = 0; i < 20000; ++i) {
    const float x = angle(rng);
    ASSERT_NEAR(sine({{x}}), std::sin(static_cast<double>(x)), 2e-7);
    ASSERT_NEAR(cosine({{x}}), std::cos(static_cast<double>(x)), 2e-7);
  }
  for (const float x : {1e6f, 1e10f, 3e38f}) ASSERT_LE(std::fabs(sine({{x}})), 1.0f);
  EXPECT_TRUE(std::isnan(sine({{kInf}})));
}

TEST(ScalarAccuracy, Pow) {
  std::mt19937 rng(5);
  std::vector<float> xs, ys;
  std::uniform_real_distribution<float> log2x(-126, 127), wanted(-150, 129), nearOne(0.9f, 1.1f);
  for (int i = 0; i < 400000; ++i) {
    const float x = i % 2 ? std::exp2(log2x(rng)) : nearOne(rng);
    xs.push_back(x);
    ys.push_back(wanted(rng) / std::log2(x));
  }
  const float specials[] = {0.f,    -0.f,       1.f,        -1.f,  2.f,        -2.f,        0.5f,   -0.5f,   3.f,
                            -3.f,   2.5f,       -8.f,       kInf,  -kInf,      kNan,        1e-45f, -1e-45f, 3e38f,
                            -3e38f, 16777216.f, 33554432.f, 1e10f, 1.0000001f, 0.99999994f, 3e9f,   -3e9f};
  for (const float x : specials)
    for (const float y : specials) xs.push_back(x), ys.push_back(y);
  const ScalarExpr e = parsed("pow(a0, a1)");
  const Worst w = worstOver(ExprProgram(e), e.function().real, xs, ys);
  EXPECT_LE(w.error, 3) << fmt::format("pow({}, {})", w.x, w.y);
  for (const float y : {-4.f, -3.f, -2.f, -1.f, -0.5f, 0.f, 0.5f, 1.f, 2.f, 3.f, 4.f}) {
    const Worst c = worstOver(ExprProgram(e.substitute(std::vector<ScalarExpr>{ScalarExpr::arg(0), y})), e.function().real, xs,
                              std::vector<float>(xs.size(), y));
    EXPECT_LE(c.error, 3) << fmt::format("pow({}, {})", c.x, y);
  }
  EXPECT_EQ(parsed("pow(a0, 2)").expand().str(), "a0 * a0");
}

TEST(ScalarAccuracy, FmodIsExact) {
  std::mt19937 rng(9);
  const ExprProgram f(parsed("fmod(a0, a1)")), m(parsed("mod(a0, a1)"));
  int compared = 0;
  for (int i = 0; i < 200000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<uint32_t>(rng())), y = std::bit_cast<float>(static_cast<uint32_t>(rng()));
    const float got = f({{x, y}}), want = std::fmod(x, y);
    if (std::fabs(x / y) >= 0x1p63f && std::isnan(got)) continue;
    ++compared;
    ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << fmt::format("fmod({}, {}) = {}, not {}", x, y, got, want);
  }
  EXPECT_GT(compared, 100000);
  EXPECT_EQ(f({{5.5f, -2}}), 1.5f);
  EXPECT_EQ(m({{5.5f, -2}}), -0.5f);
  EXPECT_EQ(m({{-1, 3}}), 2);
  EXPECT_TRUE(std::isnan(f({{1, 0}})));
  EXPECT_EQ(f({{1, kInf}}), 1);
}

}  // namespace
}  // namespace qc
