#include "ir/decided_sizes.h"
#include "ir/graph.h"
#include "ir/op_def.h"
#include "ir/verify.h"

namespace qc {

Builder& Builder::before(Node* node) {
  QC_REQUIRE("Builder::before", !node || &node->graph() == &graph_, "a node of another graph");
  before_ = node;
  if (node && location_.empty()) location_ = node->location();
  return *this;
}

Builder& Builder::at(std::string location) {
  location_ = std::move(location);
  return *this;
}

Result<Node*> Builder::createNode(std::string_view op, std::vector<Value*> operands, AttrDict attrs, std::string_view name) {
  const OpDef* def = OpRegistry::get().find(op);
  if (!def) return fail(ErrorCode::kUnsupported, "unknown op '{}'", op).at(location_);
  while (!operands.empty() && !operands.back()) operands.pop_back();
  if (auto s = checkAgainstDeclaration(*def, static_cast<int>(operands.size()), attrs); !s)
    return tl::make_unexpected(std::move(s.error()).at(location_));
  for (size_t i = 0; i < operands.size(); ++i)
    if (!operands[i] && (i >= def->operands.size() || !def->operands[i].optional))
      return fail(ErrorCode::kInvalidModel, "'{}' lacks operand {}", op, i).at(location_);
  for (size_t i = 0; i < operands.size(); ++i)
    if (operands[i] && &operands[i]->graph() != &graph_)
      return fail(ErrorCode::kInvalidArgument, "operand {} of '{}' is a value of another graph", i, op).at(location_);
  if (!def->infer) return fail(ErrorCode::kInvalidArgument, "the declaration of '{}' has no inference", op).at(location_);
  auto types = def->infer(InferContext{op, operands, attrs});
  if (!types) return tl::make_unexpected(std::move(types.error()).at(location_).on(name));
  if (types->empty()) return fail(ErrorCode::kInvalidArgument, "'{}' has no result: its inference gives no types", op).at(location_);
  Node* node = graph_.insert(*def, std::move(operands), std::move(attrs), std::move(*types), before_, name);
  node->setLocation(location_);
  return node;
}

Result<Value*> Builder::create(std::string_view op, std::vector<Value*> operands, AttrDict attrs, std::string_view name) {
  QC_ASSIGN(Node * node, createNode(op, std::move(operands), std::move(attrs), name));
  return node->result();
}

Value* Builder::make(std::string_view op, std::vector<Value*> operands, AttrDict attrs, std::string_view name) {
  auto value = create(op, std::move(operands), std::move(attrs), name);
  QC_REQUIRE("Builder::make", value.has_value(), "'{}' cannot be built: {}", op, value.error().render());
  return *value;
}

Value* Builder::constant(std::string_view name, Tensor tensor, QuantPtr quant) {
  TensorType type = tensor.type();
  if (quant) {
    QC_REQUIRE("Builder::constant", quant->storage == type.dtype, "a tensor of {} with the parameters {}", toString(type.dtype),
               toString(*quant));
    type = TensorType(std::move(quant), type.shape);
  }
  static const AttrDict kAttrs = {{"view", std::string()}};
  Node* node = graph_.insert(OpRegistry::get().at("const"), {}, kAttrs, {std::move(type)}, before_, name);
  const std::string key = graph_.constants_.add(name.empty() ? node->result()->name() : name, std::move(tensor));
  node->constant_ = &*graph_.constants_.entries_.find(key);
  node->setLocation(location_);
  return node->result();
}

}  // namespace qc
