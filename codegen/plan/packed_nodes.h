// Nodes as kernels packed them, for graphs that share their weights: one model at several shapes.  What was packed once is put into the
// next graph as it is.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

#include "codegen/plan/kernel.h"

namespace qc {

class PackedNodes {
 public:
  // Of nodes whose constants are those of this graph; others, made for one shape, are packed anew each time and not remembered.
  explicit PackedNodes(const Graph& weights);

  // As packKernel().  Any thread may ask.
  Result<Node*> pack(const KernelChoice& choice, Node& node, Builder& builder);
  int64_t bytes() const;  // of packed constants

 private:
  struct Operand {
    int place = -1;  // of the node before packing; -1: a constant, or absent
    std::string name;
    Tensor tensor;
    QuantPtr quant;
  };
  struct Packed {
    std::string op;
    AttrDict attrs;
    std::vector<Operand> operands;
    std::vector<QuantPtr> given;  // what the key tells apart by address
  };
  std::string keyOf(const KernelChoice& choice, const Node& node) const;  // empty: not to be remembered

  std::vector<Tensor> weights_;
  std::unordered_set<const void*> known_;  // the bytes of these
  mutable std::mutex mutex_;
  std::map<std::string, Packed> packed_;
};

}  // namespace qc
