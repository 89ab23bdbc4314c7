// Symbolic sizes: the canonical form against evaluation, and text that reads back.
#include "ir/dim_expr.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

namespace qc {
namespace {

using testing::HasSubstr;

DimExpr parsed(const char* text) {
  const Result<DimExpr> e = DimExpr::parse(text);
  EXPECT_TRUE(e) << e.error().render();
  return *e;
}

TEST(DimExpr, EqualExpressionsAreIdentical) {
  const std::pair<const char*, const char*> equal[] = {
      {"T+T", "2*T"},
      {"N*T", "T*N"},
      {"(N+1)*(T-1)", "N*T-N+T-1"},
      {"(2*T+3)//2", "T+1"},
      {"(T-1)//2+1", "(T+1)//2"},
      {"(3*T)//2", "T+T//2"},
      {"(T//2)//3", "T//6"},
      {"(T//2+1)//3", "(T+2)//6"},
      {"(4*T+2)//8", "(2*T+1)//4"},
      {"(4*T+3)//8", "(2*T+1)//4"},
      {"(N*T*12)//(N*12)", "T"},
      {"(N*T+N)//(T+1)", "N"},
      {"(N*T+3)//N", "T+3//N"},
      {"ceildiv(T,2)", "(T+1)//2"},
      {"T%2", "T-2*(T//2)"},
      {"(2*T+1)%2", "1"},
      {"min(T,T+1)", "T"},
      {"max(T,0)", "T"},
      {"max(min(4,T),T)", "T"},
      {"min(T+1,max(N,T))", "min(T+1,max(N,T))"},
      {"min(T,max(N,T+1))", "T"},
      {"min(max(T-2,0),T)", "max(0,T-2)"},
      {"max(min(N,T),min(N,T)+1)", "min(N,T)+1"},
      {"min(min(N,T),4)", "min(4,min(T,N))"},
      {"max(T,T)", "T"},
      {"T-T", "0"},
      {"--T", "T"},
      {"-(T-5)", "5-T"},
      {"T//(-2)", "(-T)//2"},
      {"T+(-T)%4", "4*((T+3)//4)"},
      {"T+(4-T%4)%4", "4*((T+3)//4)"},
      {"(3*T)//4", "T-(T+3)//4"},
      {"(-T-N)//4", "-((N+T+3)//4)"},
      {"(7*T+7*N+2)//8", "N+T-(N+T+5)//8"},
      {"(3*(T//4))//4", "T//4-(T+12)//16"},
  };
  for (const auto& [a, b] : equal) EXPECT_EQ(parsed(a).str(), parsed(b).str()) << a << " and " << b;
  for (const auto& [a, b] : equal) EXPECT_TRUE(parsed(a) == parsed(b)) << a << " and " << b;
  EXPECT_FALSE(parsed("T") == parsed("N"));
  EXPECT_FALSE(parsed("T//2") == parsed("(T+1)//2"));
  EXPECT_FALSE(DimExpr::unknown() == DimExpr::unknown());
}

TEST(DimExpr, Text) {
  EXPECT_EQ(parsed(" 1 + T*2").str(), "2*T+1");
  EXPECT_EQ(parsed("(T+1)//2").str(), "(T+1)//2");
  EXPECT_EQ(parsed("3*(T//2)").str(), "3*(T//2)");
  EXPECT_EQ(parsed("\"batch size\"*2").str(), "2*\"batch size\"");
  EXPECT_EQ(parsed("\"min\"").str(), "\"min\"");
  EXPECT_EQ(parsed("?+1").str(), "?");
  EXPECT_EQ(parsed("-7").str(), "-7");
  for (const char* bad : {"", "T+", "T 2", "foo(T)", "(T", "min(T", "T//", "9223372036854775808", "1.5*T", "\"\""}) {
    const auto e = DimExpr::parse(bad);
    ASSERT_FALSE(e) << bad;
    EXPECT_THAT(e.error().render(), HasSubstr("is not a dim")) << bad;
  }
  EXPECT_FALSE(DimExpr::parse(std::string(1000, '(') + "T" + std::string(1000, ')')));
}

TEST(DimExpr, BeyondItsBoundsIsUnknown) {
  EXPECT_TRUE((DimExpr::symbol("T") * INT64_MAX * 2).isUnknown());
  EXPECT_TRUE((DimExpr(INT64_MAX) + 1).isUnknown());
  EXPECT_TRUE(floorDiv(DimExpr::symbol("T"), 0).isUnknown());
  DimExpr sum = 0;
  for (int i = 0; i < 100; ++i) sum = sum + DimExpr::symbol("s" + std::to_string(i));
  EXPECT_TRUE(sum.isUnknown());
  DimExpr nested = DimExpr::symbol("T");
  for (int i = 0; i < 400; ++i) nested = floorDiv(nested * DimExpr::symbol("N") + 1, DimExpr::symbol("T") + 3);
  EXPECT_TRUE(nested.isUnknown());
  EXPECT_EQ(DimExpr::symbol("T").evaluate({{"N", 1}}), std::nullopt);
  EXPECT_EQ((DimExpr::symbol("T") * DimExpr::symbol("T")).evaluate({{"T", INT64_MAX}}), std::nullopt);
  EXPECT_EQ(parsed("4//T").evaluate({{"T", 0}}), std::nullopt);
}

// A tree of operations, evaluated as it stands and by its canonical form.
struct Tree {
  DimExpr canonical;
  std::optional<int64_t> value;
};

using Sizes = std::map<std::string, int64_t>;

Tree grown(std::mt19937& random, const Sizes& sizes, int depth) {
  const auto up = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  if (depth == 0 || up(4) == 0) {
    if (up(2)) {
      const int64_t k = up(9) - 2;
      return {k, k};
    }
    const auto it = std::next(sizes.begin(), up(static_cast<int>(sizes.size())));
    return {DimExpr::symbol(it->first), it->second};
  }
  const Tree a = grown(random, sizes, depth - 1), b = grown(random, sizes, depth - 1);
  const auto both = [&](const DimExpr& canonical, auto&& f) {
    return Tree{canonical, a.value && b.value ? f(*a.value, *b.value) : std::nullopt};
  };
  using Value = std::optional<int64_t>;
  const auto floored = [](int64_t x, int64_t y) -> Value {
    if (y == 0) return std::nullopt;
    return static_cast<int64_t>(std::floor(static_cast<double>(x) / static_cast<double>(y)));
  };
  switch (up(7)) {
    case 0: return both(a.canonical + b.canonical, [](int64_t x, int64_t y) { return Value(x + y); });
    case 1: return both(a.canonical - b.canonical, [](int64_t x, int64_t y) { return Value(x - y); });
    case 2: return both(a.canonical * b.canonical, [](int64_t x, int64_t y) { return Value(x * y); });
    case 3: return both(min(a.canonical, b.canonical), [](int64_t x, int64_t y) { return Value(std::min(x, y)); });
    case 4: return both(max(a.canonical, b.canonical), [](int64_t x, int64_t y) { return Value(std::max(x, y)); });
    case 5: return both(floorDiv(a.canonical, b.canonical), floored);
    default:
      return both(mod(a.canonical, b.canonical), [&](int64_t x, int64_t y) {
        const Value q = floored(x, y);
        return q ? Value(x - y * *q) : q;
      });
  }
}

TEST(DimExpr, CanonicalFormsHaveTheSameValue) {
  std::mt19937 random(7);
  int checked = 0;
  for (int round = 0; round < 20000; ++round) {
    Sizes sizes;
    for (const char* name : {"N", "T", "batch size"}) sizes[name] = static_cast<int64_t>(random() % 12);
    const Tree tree = grown(random, sizes, 3);
    if (!tree.value || tree.canonical.isUnknown()) continue;
    // A division by what is 0 may have gone: then the canonical form has a value where the tree has none, not the reverse.
    const auto value = tree.canonical.evaluate(sizes);
    ASSERT_TRUE(value) << tree.canonical.str();
    ASSERT_EQ(*value, *tree.value) << tree.canonical.str() << " N=" << sizes["N"] << " T=" << sizes["T"];
    ASSERT_TRUE(!tree.canonical.isNonNegative() || *value >= 0) << tree.canonical.str();
    const auto again = DimExpr::parse(tree.canonical.str());
    ASSERT_TRUE(again) << tree.canonical.str();
    ASSERT_TRUE(*again == tree.canonical) << tree.canonical.str() << " was read as " << again->str();
    ++checked;
  }
  EXPECT_GT(checked, 10000);
}

}  // namespace
}  // namespace qc
