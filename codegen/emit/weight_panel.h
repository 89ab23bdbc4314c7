// Integer weights of a linear layer on float kernels: one panel at a time becomes floats in scratch, from which the tiles of
// conv_gemm.cpp then read as if they were packed floats.  In memory the weights stay 4 or 8 bits.  See ir/ops/weight_panels.h.
#pragma once

#include "codegen/emit/emit.h"
#include "ir/ops/weight_panels.h"

namespace qc {

class WeightPanel {
 public:
  WeightPanel(KernelEmitter& e, const WeightPanels& panels, int lanes) : e_(e), p_(panels), lanes_(lanes) {}

  int64_t scratchBytes() const { return p_.depth * p_.panel * 4; }
  // The floats of panel `index` to `to`; weights and sets are the operands of k.weight_linear.
  void expand(Reg weights, Reg sets, Reg index, Reg to);

 private:
  using Regs = std::vector<Reg>;
  struct Set {
    Regs scale, zero;
  };
  Set loadSet(Reg from);
  void lines(Reg first, int64_t count, const Set& set);  // lines of weights, whole bytes
  void store(Reg integers, const Set& set, size_t vector, Reg k);

  KernelEmitter& e_;
  const WeightPanels& p_;
  int lanes_;
  Reg weights_ = nullptr, to_ = nullptr;  // of the panel
};

}  // namespace qc
