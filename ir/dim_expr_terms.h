// What an expression of dims is made of, for those who write it in another form: a sum of terms, each a coefficient times factors.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ir/dim_expr.h"

namespace qc {

struct DimFactor {
  enum class Kind : uint8_t { symbol, floorDiv, min, max } kind = Kind::symbol;
  std::string name;           // of a symbol
  std::vector<DimExpr> args;  // dividend and divisor; what the least or largest is of
};

struct DimTerm {
  int64_t coefficient = 1;
  std::vector<DimFactor> factors;  // none: the constant
};

// In the order of the text; of 0 and of what is unknown there are none.
std::vector<DimTerm> dimTerms(const DimExpr& e);

// With these in place of their symbols; other symbols stay.
DimExpr substituted(const DimExpr& e, const std::map<std::string, DimExpr>& values);

// The name of an expression that is a symbol and nothing else, as it was given.
std::optional<std::string> symbolName(const DimExpr& e);

}  // namespace qc
