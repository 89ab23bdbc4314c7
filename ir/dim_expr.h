// Integer expressions over named sizes, in one canonical form: what a dim is that is not known yet.
//
//   const DimExpr t = DimExpr::symbol("T");
//   floorDiv(t * 2 + 3, 2) == t + 1                 // true: equal expressions are identical, as far as the rules below see
//   (t * DimExpr::symbol("N")).str()                // "N*T"
//   *(t + 1).evaluate({{"T", 7}})                   // 8
//
// An expression is a sum of products of atoms, each with a whole coefficient; atoms are symbols, floor divisions that do not come out
// even, and minima and maxima.  Ceiling and modulo are written by the floor: ceil(a/b) = (a+b-1)//b, a%b = a - b*(a//b).  Symbols stand for
// sizes, so they are not negative.  Of floor division these rules hold: what the divisor divides leaves it, common factors go, a
// division of a division is one, and a product that has the divisor as a factor loses it.  What is too large for 64 bits or for
// kMaxTerms is unknown, and so is all that is made from it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/status.h"

namespace qc {

using SymbolSizes = std::map<std::string, int64_t>;

class DimExpr {
 public:
  static constexpr size_t kMaxTerms = 32, kMaxText = 400;

  DimExpr(int64_t constant = 0) : constant_(constant) {}
  static DimExpr symbol(std::string_view name);  // not empty; "?" is unknown()
  static DimExpr unknown();                      // equal to nothing, not even itself

  std::optional<int64_t> constant() const { return sum_ ? std::nullopt : std::optional(constant_); }
  bool isUnknown() const;
  std::set<std::string> symbols() const;
  // Whether it is at least 0 for all sizes of its symbols, as far as the signs of its parts tell.
  bool isNonNegative() const;
  // Nothing: a symbol is not among the sizes, a division by 0, a result beyond 64 bits, or unknown.
  std::optional<int64_t> evaluate(const SymbolSizes& sizes) const;

  // "2*T+1", "(T+1)//2", "min(N,4)"; names that are no words are quoted.  parse() reads it back, and also % and ceildiv(a,b).
  std::string str() const;
  static Result<DimExpr> parse(std::string_view text);

  friend DimExpr operator+(const DimExpr& a, const DimExpr& b);
  friend DimExpr operator-(const DimExpr& a, const DimExpr& b);
  friend DimExpr operator*(const DimExpr& a, const DimExpr& b);
  friend DimExpr floorDiv(const DimExpr& a, const DimExpr& b);  // towards minus infinity; unknown by 0
  friend DimExpr min(const DimExpr& a, const DimExpr& b);
  friend DimExpr max(const DimExpr& a, const DimExpr& b);
  friend bool operator==(const DimExpr& a, const DimExpr& b);

  struct Sum;  // interned, never freed: dim_expr.cpp
 private:
  friend struct DimExprAccess;
  const Sum* sum_ = nullptr;  // null: a constant
  int64_t constant_ = 0;
};

DimExpr operator-(const DimExpr& a);
DimExpr ceilDiv(const DimExpr& a, const DimExpr& b);
std::optional<std::vector<int64_t>> constants(std::span<const DimExpr> list);  // nothing: one of them is none
DimExpr mod(const DimExpr& a, const DimExpr& b);                               // with the sign of b, as Python and ONNX (fmod=0) have it

}  // namespace qc
