// How many instructions an expression takes as a program (ExprProgram) while it grows op by op.  What is in is not looked at again, where a
// tree that grows would be expanded and flattened anew for each op that joins it.
//
//   ExprCounter counter;
//   const int x = counter.add(ScalarExpr::arg(0));
//   const int y = counter.add(expr::sigmoid(ScalarExpr::arg(0)), std::array{x});
//   counter.size(y)                                                   // as many as ExprProgram(sigmoid(a0)) has
#pragma once

#include <memory>
#include <span>

#include "ir/scalar_expr.h"

namespace qc {

class ExprCounter {
 public:
  ExprCounter();
  ~ExprCounter();
  ExprCounter(const ExprCounter&) = delete;
  ExprCounter& operator=(const ExprCounter&) = delete;

  int add(const ScalarExpr& leaf);                                // an argument or a constant
  int add(const ScalarExpr& formula, std::span<const int> args);  // over the registers that stand for its arguments
  size_t size(int value) const;                                   // instructions that lead to the register `value`, its own among them
  bool exceeds(int value, size_t most) const;                     // size(value) > most, mostly known without a look
  void clear();                                                   // for the next expression

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qc
