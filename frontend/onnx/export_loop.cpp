// A loop of a file: its body names the values around that it reads.
#include "frontend/onnx/exporter.h"
#include "frontend/onnx/tensor.h"
#include "ir/loops.h"

namespace qc {

Status OnnxExporter::addLoop(const Node& n) {
  const Graph& body = *bodyOf(n);
  constexpr int kFirstValue = 2;
  const int carried = static_cast<int>(n.integer("carried"));
  std::vector<std::string> given;
  for (int i = 0; i < kFirstValue + carried; ++i) given.push_back(name(n.operand(i)));
  auto& proto = add(n, "Loop", std::move(given), resultNames(n));
  while (proto.input_size() < kFirstValue) proto.add_input("");
  auto& attribute = *proto.add_attribute();
  attribute.set_name("body");
  attribute.set_type(onnx::AttributeProto::GRAPH);
  auto& own = *attribute.mutable_g();
  own.set_name(body.name());

  OnnxExporter inner(body, opset_);
  inner.model_ = model_;
  inner.proto_ = &own;
  inner.scopes_ = {{&own, {}}};
  std::swap(inner.taken_, taken_);
  std::swap(inner.domains_, domains_);
  std::swap(inner.functions_, functions_);
  const auto input = [&](const std::string& name, DType dtype, bool isScalar) {
    auto& info = *own.add_input();
    info.set_name(name);
    info.mutable_type()->mutable_tensor_type()->set_elem_type(dtypeToOnnx(dtype));
    if (isScalar) info.mutable_type()->mutable_tensor_type()->mutable_shape();
  };
  for (int i = 0; i < static_cast<int>(body.inputs().size()); ++i) {
    const Value* v = nth(body.inputs(), i);
    std::string& name = inner.names_[v];
    name = i <= carried ? inner.fresh(v->name()) : this->name(n.operand(i - 1 + kFirstValue));
    if (i <= carried) input(name, v->type().dtype, i == 0);
    if (i == 0) input(inner.fresh("condition"), DType::boolean, true);
    inner.dims_.defined(v);
  }
  for (const Node* node = body.front(); node; node = node->next())
    for (int i = 0; i < node->numResults() && !node->is("const"); ++i) inner.names_[node->result(i)] = inner.fresh(node->result(i)->name());
  QC_TRY(inner.orderNodes());
  QC_TRY(inner.addNodes(inner.order_, {}));
  for (size_t i = 0; i < body.outputs().size(); ++i) {
    const std::string output = inner.fresh(body.outputNames()[i] + "_out");
    inner.addUnlocated("Identity", {inner.name(body.outputs()[i])}, output);
    auto& info = *own.add_output();
    info.set_name(output);
    info.mutable_type()->mutable_tensor_type()->set_elem_type(dtypeToOnnx(body.outputs()[i]->type().dtype));
  }
  inner.nameNodes();
  std::swap(inner.taken_, taken_);
  std::swap(inner.domains_, domains_);
  std::swap(inner.functions_, functions_);
  needOpset(inner.opset_);
  return {};
}

}  // namespace qc
