#include "codegen/plan/packed_nodes.h"

#include <algorithm>

namespace qc {
namespace {

// Parameters of one scale by value: passes make such anew for every shape.  Long ones by address, which Packed::given keeps taken.
std::string textOf(const QuantPtr& quant) {
  if (!quant) return {};
  return quant->perChannel() ? fmt::format("/{}", static_cast<const void*>(quant.get())) : "/" + toString(*quant);
}

}  // namespace

PackedNodes::PackedNodes(const Graph& weights) {
  for (const auto& [name, tensor] : weights.constants().entries()) {
    weights_.push_back(tensor);
    known_.insert(tensor.data());
  }
}

// All that packing reads: attributes, constants, quantization parameters and the form to pack into; no shape of what flows.  And which
// operands are one value, since an operand of the packed node is found among them by it.
std::string PackedNodes::keyOf(const KernelChoice& choice, const Node& node) const {
  std::string key = fmt::format("{} {} {}", choice.def->id, choice.def->packing(*choice.plan), node.op());
  for (const auto& [name, attr] : node.attrs()) key += fmt::format(" {}={}", name, toString(attr));
  const std::vector<Value*> operands = node.operands();
  for (const Value* v : operands) {
    const Tensor* constant = v ? v->constant() : nullptr;
    if (constant && !known_.contains(constant->data())) return {};
    if (constant)
      key += fmt::format(" {}[{}]", constant->data(), toString(v->type().shape)) + textOf(v->type().quant);
    else
      key += v ? fmt::format(" {}@{}", toString(v->type().dtype), std::find(operands.begin(), operands.end(), v) - operands.begin()) +
                     textOf(v->type().quant)
               : " _";
  }
  const TensorType& result = node.result()->type();
  return key + fmt::format(" {}", toString(result.dtype)) + textOf(result.quant);
}

Result<Node*> PackedNodes::pack(const KernelChoice& choice, Node& node, Builder& builder) {
  const std::string key = choice.def->pack ? keyOf(choice, node) : std::string();
  if (key.empty()) return packKernel(choice, node, builder);
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = packed_.find(key); it != packed_.end()) {
      std::vector<Value*> operands;
      for (const Operand& o : it->second.operands)
        operands.push_back(o.name.empty() ? node.operand(o.place) : builder.constant(o.name, o.tensor, o.quant));
      return builder.createNode(it->second.op, std::move(operands), it->second.attrs, node.result()->name());
    }
  }
  QC_ASSIGN(Node* const made, packKernel(choice, node, builder));
  Packed packed{std::string(made->op()), made->attrs(), {}, {node.result()->type().quant}};
  const std::vector<Value*> before = node.operands();
  for (const Value* v : before)
    if (v) packed.given.push_back(v->type().quant);
  for (const Value* v : made->operands()) {
    Operand o;
    const auto at = std::find(before.begin(), before.end(), v);
    if (v && at != before.end())
      o.place = static_cast<int>(at - before.begin());
    else if (v && v->constant())
      o = {-1, v->name(), *v->constant(), v->type().quant};
    else if (v)
      return made;  // a node of its own in between: not one that can be put into another graph
    packed.operands.push_back(std::move(o));
  }
  const std::lock_guard lock(mutex_);
  packed_.emplace(key, std::move(packed));
  return made;
}

int64_t PackedNodes::bytes() const {
  const std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  for (const auto& [key, packed] : packed_)
    for (const Operand& o : packed.operands) bytes += o.tensor.byteSize();
  return bytes;
}

}  // namespace qc
