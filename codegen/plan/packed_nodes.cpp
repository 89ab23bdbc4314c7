#include "codegen/plan/packed_nodes.h"

#include <algorithm>

namespace qc {
namespace {

// Parameters that passes make anew for every shape are equal, not the same.
bool alike(const QuantPtr& a, const QuantPtr& b) { return a == b || (a && b && *a == *b); }

}  // namespace

bool PackedNodes::Given::operator==(const Given& other) const {
  return constant == other.constant && dtype == other.dtype && same == other.same && shape == other.shape && alike(quant, other.quant);
}

PackedNodes::PackedNodes(const Graph& weights) {
  for (const auto& [name, tensor] : weights.constants().entries()) {
    weights_.push_back(tensor);
    known_.insert(tensor.data());
  }
}

std::optional<PackedNodes::Key> PackedNodes::keyOf(const Node& node) const {
  if (!isPackedBySome(node.op())) return std::nullopt;
  // The hash is of what tells layers apart most of the time: their weights.
  Key key{std::string(node.op()), node.attrs(), {}, {}, std::hash<std::string_view>()(node.op())};
  const std::vector<Value*> operands = node.operands();
  bool hasConstants = false;
  for (const Value* v : operands) {
    const Tensor* constant = v ? v->constant() : nullptr;
    if (constant && !known_.contains(constant->data())) return std::nullopt;
    Given given;
    if (v) {
      given.dtype = v->type().dtype;
      given.quant = v->type().quant;
      given.same = static_cast<int>(std::find(operands.begin(), operands.end(), v) - operands.begin());
    }
    if (constant) {
      given.constant = constant->data();
      given.shape = v->type().shape;
      hasConstants = true;
    }
    key.hash = key.hash * 31 + std::hash<const void*>()(given.constant);
    key.operands.push_back(std::move(given));
  }
  if (!hasConstants) return std::nullopt;  // nodes alike may have weights of other shapes, and there is nothing to remember
  key.result.dtype = node.result()->type().dtype;
  key.result.quant = node.result()->type().quant;
  return key;
}

Result<SelectedKernel> PackedNodes::select(Node& node, const Target& target, Builder& builder) {
  const std::optional<Key> key = keyOf(node);
  if (!key) return selectAndPack(node, target, builder);
  std::optional<KernelChoice> choice = choose(*key, node, target);
  if (!choice) return SelectedKernel{std::nullopt, &node};
  QC_ASSIGN(Node* const compiled, choice->def->pack ? pack(*key, *choice, node, builder) : Result<Node*>(&node));
  return SelectedKernel{std::move(choice), compiled};
}

std::optional<KernelChoice> PackedNodes::choose(const Key& key, const Node& node, const Target& target) {
  const auto known = [&]() -> const KernelDef* {
    const std::lock_guard lock(mutex_);
    const auto [begin, end] = chosen_.equal_range(key.hash);
    const auto it = std::find_if(begin, end, [&](const auto& entry) { return entry.second.target == target && entry.second.by == key; });
    return it == end ? nullptr : it->second.def;
  };
  if (const KernelDef* def = known())
    if (KernelPlanPtr plan = def->plan(node, target)) return KernelChoice{def, std::move(plan)};
  std::vector<KernelChoice> candidates = candidateKernels(node, target);
  if (candidates.empty()) return std::nullopt;
  if (std::all_of(candidates.begin(), candidates.end(), [](const KernelChoice& c) { return c.plan->isForAllSizes; }) && !known()) {
    const std::lock_guard lock(mutex_);
    chosen_.emplace(key.hash, Chosen{key, target, candidates.front().def});
  }
  return std::move(candidates.front());
}

Result<Node*> PackedNodes::pack(const Key& key, const KernelChoice& choice, Node& node, Builder& builder) {
  const std::string packing = choice.def->packing(*choice.plan);
  const auto known = [&]() -> const Packed* {
    const auto [begin, end] = packed_.equal_range(key.hash);
    const auto it = std::find_if(begin, end, [&](const auto& entry) {
      const Packed& p = entry.second;
      return p.def == choice.def && p.packing == packing && p.from == key;
    });
    return it == end ? nullptr : &it->second;
  };
  {
    const std::lock_guard lock(mutex_);
    if (const Packed* packed = known()) {
      std::vector<Value*> operands;
      for (const Operand& o : packed->operands)
        operands.push_back(o.name.empty() ? node.operand(o.place) : builder.constant(o.name, o.tensor, o.quant));
      return builder.createNode(packed->op, std::move(operands), packed->attrs, node.result()->name());
    }
  }
  QC_ASSIGN(Node* const made, packKernel(choice, node, builder));
  Packed packed{key, choice.def, packing, std::string(made->op()), made->attrs(), {}};
  const std::vector<Value*> before = node.operands();
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
  if (!known()) packed_.emplace(key.hash, std::move(packed));
  return made;
}

void PackedNodes::share(AttrDict& attrs) {
  constexpr std::ptrdiff_t kMaxOfKernel = 64;  // those that hold sizes differ from shape to shape
  const std::lock_guard lock(mutex_);
  const std::string& kernel = attrs.string("kernel");
  const auto [begin, end] = shared_.equal_range(kernel);
  const auto known = std::find_if(begin, end, [&](const auto& entry) { return entry.second == attrs; });
  if (known != end) {
    attrs = known->second;
    return;
  }
  if (std::distance(begin, end) < kMaxOfKernel) shared_.emplace(kernel, attrs);
}

int64_t PackedNodes::bytes() const {
  const std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  for (const auto& [hash, packed] : packed_)
    for (const Operand& o : packed.operands) bytes += o.tensor.byteSize();
  return bytes;
}

}  // namespace qc
