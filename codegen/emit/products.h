// Products added to a vector of sums: one table of {form, lanes, extension -> instruction} for everything that multiplies short integers.
// An extension with an instruction of its own is one entry of that table, and plain code computes the same bits where none fits.
//
//   const Products products(e, Product::bytes, 16, e.def().isas);   // where the builder stands in front of all loops
//   sum = products.add(sum, a, w);                                  // all three as 32-bit lanes
#pragma once

#include "codegen/emit/emit.h"
#include "codegen/plan/product.h"

namespace qc {

class Products {
 public:
  // In instructions of `isas` alone: those that a row asks for, or all that the target has.
  Products(KernelEmitter& e, Product form, int lanes, IsaSet isas);
  // Of 16-bit halves, on vectors of the width of `sum`, with all that the target has.
  static Reg addPairs(KernelEmitter& e, Reg sum, Reg a, Reg b);

  // sum + the products of each lane.  Floats: one rounding.
  Reg add(Reg sum, Reg a, Reg b) const;
  // Whether one instruction multiplies and adds.
  bool isSingle() const;
  static bool isSingle(Product form, int lanes, IsaSet isas);

 private:
  Reg addPlain(Reg sum, Reg a, Reg b) const;

  KernelEmitter& e_;
  Product form_;
  int lanes_;
  IsaSet isas_;
  const struct ProductRow* row_;  // null: plain code
  Reg ones_ = nullptr;
};

}  // namespace qc
