// How the kernel of recurrent layers multiplies its state by the recurrent weights: in floats, or in integers whose parameters are found
// anew for every product, from the states of all batch entries together.
#pragma once

#include <memory>
#include <span>

#include "codegen/emit/emit.h"
#include "ir/ops/recurrent.h"

namespace qc {

class RecurrentProductEmitter {
 public:
  using VectorOf = std::function<Reg(Reg entry)>;  // address of `hidden` floats
  // A batch entry: its index, what it is multiplied with, and where the sums go, of each gate padded to whole panels.
  struct Entry {
    Reg index, vector, sums;
  };

  // For the node under construction, a split form.
  static std::unique_ptr<RecurrentProductEmitter> of(KernelEmitter& e, const Node& node, const RecurrentForm& form);
  virtual ~RecurrentProductEmitter() = default;

  // Whether the batch entries of a direction depend on one another.
  virtual bool takesWholeBatch() const { return false; }
  // Batch entries that may be multiplied at once, for which weights are loaded once.
  virtual int64_t mostAtOnce() const { return 1; }
  virtual int64_t scratchBytes(int64_t /*batch*/) const { return 0; }
  virtual void begin(int64_t direction, Reg scratch) = 0;
  // Before the products of a step's part: what the batch entries [0, batch) are multiplied with, and which of them are (an i1; null: all).
  virtual void prepare(int64_t /*batch*/, const VectorOf& /*vectorOf*/, const VectorOf& /*runs*/) {}
  // sums[g] = dot(R[g], vector) for gates [first, first + count).
  void multiply(std::span<const Entry> entries, int64_t first, int64_t count);

 protected:
  RecurrentProductEmitter(KernelEmitter& e, const RecurrentForm& form, int64_t registersPerPanel)
      : e_(e), form_(form), lanes_(std::min<int>(e.lanes(), RecurrentForm::kPanel)), perPanel_(registersPerPanel) {}
  virtual void multiplyPanels(std::span<const Entry> entries, Reg first, int64_t count) = 0;
  Reg mul(Reg a, int64_t c) { return e_.b.CreateMul(a, e_.i64(c)); }

  int64_t chains(int64_t entries) const;  // of sums that are under way at once

  KernelEmitter& e_;
  const RecurrentForm& form_;
  int lanes_;         // of its vectors
  int64_t perPanel_;  // registers that hold the sums of one panel
};

}  // namespace qc
