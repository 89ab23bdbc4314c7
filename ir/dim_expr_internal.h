// How expressions of dims are kept: as sums of products of atoms, each once for all who make it.  Of dim_expr.cpp alone.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ir/dim_expr_terms.h"

namespace qc {

struct Atom : DimFactor {
  std::string text;  // unique
};

struct DimExpr::Sum {
  // A product of atoms, sorted by text, each as often as its power.
  using Product = std::vector<const Atom*>;
  static bool isBefore(const Atom* a, const Atom* b) { return a->text < b->text; }
  // The largest degree first, then in the order of the text; the constant is last.
  struct Order {
    bool operator()(const Product& a, const Product& b) const {
      if (a.size() != b.size()) return a.size() > b.size();
      return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(), isBefore);
    }
  };
  using Terms = std::map<Product, int64_t, Order>;  // coefficients other than 0

  Terms terms;
  std::string text;
};

struct DimExprAccess {
  static DimExpr of(const DimExpr::Sum* sum) {
    DimExpr e;
    e.sum_ = sum;
    return e;
  }
  static const DimExpr::Sum* sumOf(const DimExpr& e) { return e.sum_; }
};

using Product = DimExpr::Sum::Product;
using Terms = DimExpr::Sum::Terms;

extern const DimExpr::Sum kUnknownSum;

const Atom* atomOf(Atom::Kind kind, std::vector<DimExpr> args, std::string name = {});

// The expression of these terms; unknown where there are too many of them, or nothing was given since it went beyond 64 bits.
DimExpr made(Terms terms);
DimExpr made(std::optional<Terms> terms);
DimExpr made(const Atom* atom);
Terms termsOf(const DimExpr& e);

// Rounded towards minus infinity.
int64_t floorOf(int64_t a, int64_t b);

// False: beyond 64 bits.
bool addTo(Terms& terms, const Product& product, int64_t coefficient);
// a * scale + b; nothing: beyond 64 bits
std::optional<Terms> scaledSum(const Terms& a, int64_t scale, const Terms& b);
std::optional<Terms> productOf(const Terms& a, const Terms& b);
// x / y, where y's factors and coefficient are among x's.
std::optional<std::pair<Product, int64_t>> quotient(const std::pair<const Product, int64_t>& x, const std::pair<const Product, int64_t>& y);
// a / b by long division: nothing where a remainder is left.
std::optional<DimExpr> exactly(Terms a, const Terms& b);

}  // namespace qc
