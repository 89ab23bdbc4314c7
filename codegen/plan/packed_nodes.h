// Nodes as kernels were chosen for them and packed them, for graphs that share their weights: one model at several shapes.  What was packed
// once is put into the next graph as it is; and where a row is chosen for all sizes alike, no other is asked again, as some look through
// all of the weights first.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "codegen/plan/kernel.h"

namespace qc {

class PackedNodes {
 public:
  // Of nodes whose constants are those of this graph; others, made for one shape, are packed anew each time and not remembered.
  explicit PackedNodes(const Graph& weights);

  // As selectAndPack().  Any thread may ask.
  Result<SelectedKernel> select(Node& node, const Target& target, Builder& builder);
  int64_t bytes() const;  // of packed constants

  // The same attributes, kept once for all graphs and layers that have them: most of what a graph for one more shape takes.
  void share(AttrDict& attrs);

 private:
  struct Operand {
    int place = -1;  // of the node before packing; -1: a constant, or absent
    std::string name;
    Tensor tensor;
    QuantPtr quant;
  };
  // All that packing reads beside the form to pack into, and that a row for all sizes is chosen by: attributes, constants and quantization
  // parameters; no shape of what flows.
  struct Given {
    const void* constant = nullptr;  // its bytes
    Shape shape;                     // of a constant
    DType dtype = DType::f32;
    QuantPtr quant;
    int same = -1;  // the first operand of this value, since an operand of the packed node is found among them by it
    bool operator==(const Given& other) const;
  };
  struct Key {
    std::string op;
    AttrDict attrs;
    std::vector<Given> operands;
    Given result;
    size_t hash;
    bool operator==(const Key&) const = default;
  };
  struct Chosen {
    Key by;
    Target target;
    const KernelDef* def = nullptr;
  };
  struct Packed {
    Key from;
    const KernelDef* def = nullptr;
    std::string packing;
    std::string op;
    AttrDict attrs;
    std::vector<Operand> operands;
  };
  std::optional<Key> keyOf(const Node& node) const;  // nothing: not to be remembered
  std::optional<KernelChoice> choose(const Key& key, const Node& node, const Target& target);
  Result<Node*> pack(const Key& key, const KernelChoice& choice, Node& node, Builder& builder);

  std::vector<Tensor> weights_;
  std::unordered_set<const void*> known_;  // the bytes of these
  mutable std::mutex mutex_;
  std::unordered_multimap<size_t, Chosen> chosen_;         // by the hash of the key
  std::unordered_multimap<size_t, Packed> packed_;         // likewise
  std::unordered_multimap<std::string, AttrDict> shared_;  // by the kernel that they name
};

}  // namespace qc
