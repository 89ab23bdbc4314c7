// Integers of a file that follow from free dims: Shape of an input, or of the first value that has the dim, and arithmetic behind it.
// Equal ones are one node, whoever asks.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "ir/dim_expr_terms.h"
#include "ir/graph.h"

namespace qc {

class OnnxExporter;

class DimWriter {
 public:
  explicit DimWriter(OnnxExporter& file) : file_(file) {}
  struct Place {
    const Value* value;
    int64_t axis;
  };

  // From here on the symbols that are dims of this value can be computed.
  void defined(const Value* v);
  // Of a symbol that is not a dim but a number: the name of an s64 vector that holds it.
  void given(const std::string& symbol, std::string name) { known_.numbers.try_emplace(symbol, std::move(name)); }
  // What is computed in a branch of an If is not there outside of it.
  struct Known {
    std::map<std::string, Place> places;         // of symbols
    std::map<std::string, std::string> numbers;  // symbols that are no dim
    std::map<std::string, std::string> made;     // op and operands -> result
    std::map<std::vector<int64_t>, std::string> constants;
  };
  const Known& known() const { return known_; }
  void restore(Known known) { known_ = std::move(known); }
  // Name of an s64 vector with these elements.  Errors: a symbol that is the dim of nothing so far, a size that cannot be said.
  Result<std::string> vector(std::span<const DimExpr> elements);

 private:
  Result<std::string> number(const DimExpr& e);  // each of one element
  Result<std::string> product(const std::vector<DimFactor>& factors, int64_t coefficient);
  Result<std::string> factor(const DimFactor& f);
  Result<std::string> symbol(const std::string& name);
  std::string ints(const std::vector<int64_t>& values);
  std::string apply(const std::string& op, std::vector<std::string> inputs, const std::string& base = "size");

  OnnxExporter& file_;
  Known known_;
};

}  // namespace qc
