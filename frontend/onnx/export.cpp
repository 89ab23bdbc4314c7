#include "frontend/onnx/export.h"

#include <algorithm>
#include <utility>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/exporter.h"
#include "frontend/onnx/tensor.h"
#include "ir/dim_expr_terms.h"
#include "ir/guarded.h"
#include "ir/op_def.h"

namespace qc {

using Ints = std::vector<int64_t>;

namespace {

// How far a node is from what a layer is known by: 0 computes, 1 shapes or finishes, 2 changes the form of numbers.
int standing(const Node& node, const std::string& op) {
  static const std::set<std::string, std::less<>> kForms = {"quantize", "dequantize", "quantize_with", "dequantize_with",
                                                            "dynamic_qparams"};
  static const std::set<std::string, std::less<>> kFinishing = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice",
                                                                "Split",   "Concat",    "Expand",  "Gather",    "Pad",
                                                                "Mul",     "Add",       "Sub",     "Div",       "Clip"};
  return kForms.contains(node.op()) || op == "Cast" || op == "DequantizeLinear" ? 2 : kFinishing.contains(op) ? 1 : 0;
}

void writeInfo(onnx::ModelProto& model, const ModelInfo& info) {
  model.set_producer_name(info.producer.empty() ? "qcompile" : info.producer);
  if (!info.producerVersion.empty()) model.set_producer_version(info.producerVersion);
  if (!info.domain.empty()) model.set_domain(info.domain);
  if (!info.docString.empty()) model.set_doc_string(info.docString);
  if (!info.graphDocString.empty()) model.mutable_graph()->set_doc_string(info.graphDocString);
  if (info.modelVersion) model.set_model_version(info.modelVersion);
  for (const auto& [key, value] : info.properties) {
    auto& entry = *model.add_metadata_props();
    entry.set_key(key);
    entry.set_value(value);
  }
}

}  // namespace

std::string OnnxExporter::name(const Value* v) {
  if (!v) return {};
  if (const auto known = names_.find(v); known != names_.end()) return known->second;
  QC_CHECK(v->constant(), "a value without a name");
  return constant(v, {}, [&] { return *v->constant(); });
}

// A constant is the branch's own as well, as ONNX Runtime's optimizers look for weights and scales beside the node that reads them; one of
// several branches lies outside of them.
std::string OnnxExporter::constant(const Value* v, const std::string& form, const std::function<Tensor()>& make) {
  Scope& scope = scopes_[std::min(conditionsOf(v->producer()).size(), scopes_.size() - 1)];
  const auto [known, isNew] = scope.constants.try_emplace({v, form});
  if (!isNew) return known->second;
  onnx::GraphProto* const here = std::exchange(proto_, scope.proto);
  known->second = initializer(v->name() + form, make());
  proto_ = here;
  return known->second;
}

std::vector<std::string> OnnxExporter::operandNames(const Node& n) {
  std::vector<std::string> names;
  for (const Value* v : n.operands()) names.push_back(name(v));
  return names;
}

std::vector<std::string> OnnxExporter::resultNames(const Node& n) {
  std::vector<std::string> names;
  for (int i = 0; i < n.numResults(); ++i) names.push_back(name(n.result(i)));
  return names;
}

std::string OnnxExporter::fresh(const std::string& base) {
  std::string candidate = base;
  for (int i = 1; !taken_.insert(candidate).second; ++i) candidate = fmt::format("{}_{}", base, i);
  return candidate;
}

onnx::NodeProto& OnnxExporter::add(const Node& node, const std::string& op, std::vector<std::string> inputs,
                                   std::vector<std::string> outputs) {
  auto& proto = *proto_->add_node();
  proto.set_op_type(op);
  if (!node.location().empty()) {
    auto [group, isNew] = byLocation_.try_emplace(node.location());
    if (isNew) locations_.push_back(node.location());
    group->second.emplace_back(standing(node, op), &proto);
  }
  while (!inputs.empty() && inputs.back().empty()) inputs.pop_back();
  for (auto& i : inputs) proto.add_input(std::move(i));
  for (auto& o : outputs) proto.add_output(std::move(o));
  return proto;
}

onnx::NodeProto& OnnxExporter::addUnlocated(const std::string& op, std::vector<std::string> inputs, const std::string& output) {
  auto& proto = *proto_->add_node();
  proto.set_op_type(op);
  proto.set_name(output);
  for (auto& i : inputs) proto.add_input(std::move(i));
  proto.add_output(output);
  return proto;
}

std::string OnnxExporter::step(const Node& node, const std::string& op, std::vector<std::string> inputs, const std::string& suffix) {
  std::string result = fresh(name(node.result()) + "_" + suffix);
  add(node, op, std::move(inputs), {result});
  return result;
}

std::string OnnxExporter::castTo(DType to, const Node& node, const std::string& x, const std::string& suffix) {
  std::string result = fresh(name(node.result()) + "_" + suffix);
  setInt(add(node, "Cast", {x}, {result}), "to", dtypeToOnnx(to));
  return result;
}

void OnnxExporter::call(onnx::NodeProto& node, onnx::FunctionProto body) {
  needDomain(kOwnDomain);
  node.set_domain(kOwnDomain);
  body.set_domain(kOwnDomain);
  body.set_name(node.op_type());
  auto [known, isNew] = functions_.try_emplace(body.SerializeAsString());
  if (isNew) {
    known->second = fmt::format("{}_{}", body.name(), functions_.size());
    body.set_name(known->second);
    *model_->add_functions() = std::move(body);
  }
  node.set_op_type(known->second);
}

std::string OnnxExporter::initializer(const std::string& base, const Tensor& t) {
  auto& proto = *proto_->add_initializer();
  proto.set_name(fresh(base));
  proto.set_data_type(dtypeToOnnx(t.dtype()));
  for (const int64_t s : t.sizes()) proto.add_dims(s);
  if (t.dtype() != DType::s4 && t.dtype() != DType::u4) {
    proto.set_raw_data(t.data(), usize(t.byteSize()));
    return proto.name();
  }
  // Here one element a byte; there two, the first in the lower half.
  std::string packed(usize((t.numElements() + 1) / 2), '\0');
  const auto* from = static_cast<const uint8_t*>(t.data());
  for (int64_t i = 0; i < t.numElements(); ++i) {
    char& byte = nth(packed, i / 2);
    byte = static_cast<char>(byte | (from[i] & 15) << (i % 2 * 4));
  }
  proto.set_raw_data(packed);
  needOpset(21);
  return proto.name();
}

std::string OnnxExporter::ints(const Ints& values) {
  return initializer("ints", Tensor::ofInts({static_cast<int64_t>(values.size())}, values));
}
std::string OnnxExporter::integer(int64_t value) { return initializer("integer", Tensor::ofInts({}, std::vector{value})); }

std::string OnnxExporter::scalarOf(DType dtype, double value) {
  Tensor t(dtype, {});
  storeElement(dtype, t.mutableData(), 0, value);
  return initializer("scalar", t);
}

Result<std::string> OnnxExporter::filled(const std::string& base, float value, std::span<const Dim> shape) {
  std::vector<DimExpr> elements;
  for (const Dim& d : shape) elements.push_back(d.expr());
  if (const auto sizes = constants(elements)) {
    Tensor t(DType::f32, *sizes);
    for (float& x : t.mutableAs<float>()) x = value;
    return initializer(base, t);
  }
  QC_ASSIGN(std::string sizes, dims(elements));
  std::string result = fresh(base);
  auto& proto = addUnlocated("ConstantOfShape", {std::move(sizes)}, result);
  auto& attribute = *proto.add_attribute();
  attribute.set_name("value");
  attribute.set_type(onnx::AttributeProto::TENSOR);
  attribute.mutable_t()->set_data_type(onnx::TensorProto::FLOAT);
  attribute.mutable_t()->add_dims(1);
  attribute.mutable_t()->add_float_data(value);
  return result;
}

std::pair<std::string, std::string> OnnxExporter::quantParams(const QuantParams& q, const std::string& base, const Shape& whole) {
  Ints shape;
  if (q.blockSize) {
    shape = sizesOf(whole);
    int64_t& blocked = nth(shape, q.axis);
    blocked = (blocked + q.blockSize - 1) / q.blockSize;
  } else if (q.perChannel()) {
    shape = {static_cast<int64_t>(q.scales.size())};
  }
  auto& known = quantNames_[fmt::format("{} {}", toString(q), fmt::join(shape, ","))];
  if (!known.first.empty()) return known;
  Tensor zero(q.storage, shape);
  void* data = zero.mutableData();
  for (int64_t i = 0; i < zero.numElements(); ++i) storeElement(q.storage, data, i, q.zeroPoint(i));
  std::vector<float> scales;
  for (int64_t i = 0; i < zero.numElements(); ++i) scales.push_back(q.scale(i));
  known.first = initializer(base + "_scale", Tensor::ofFloats(shape, scales));
  known.second = initializer(base + "_zero_point", zero);
  return known;
}

void OnnxExporter::describe(onnx::ValueInfoProto& info, const Value* v, const std::string& name) {
  info.set_name(name);
  auto& type = *info.mutable_type()->mutable_tensor_type();
  type.set_elem_type(dtypeToOnnx(v->type().dtype));
  auto& shape = *type.mutable_shape();  // there, though empty, for a scalar
  for (const Dim& d : v->type().shape) {
    auto& dim = *shape.add_dim();
    const DimExpr e = d.expr();
    if (d.isStatic())
      dim.set_dim_value(d.size());
    else if (!e.isUnknown())
      dim.set_dim_param(symbolName(e).value_or(e.str()));
  }
}

// The value that is returned carries the user's name for it; where it cannot, an Identity does.
void OnnxExporter::nameResults() {
  for (const Value* v : graph_.inputs()) taken_.insert(names_[v] = v->name());
  for (size_t i = 0; i < graph_.outputs().size(); ++i) {
    const Value* v = graph_.outputs()[i];
    const std::string& name = graph_.outputNames()[i];
    const bool direct = v->producer() && !v->constant() && !names_.contains(v) && taken_.insert(name).second;
    const auto named = names_.find(v);
    if (direct)
      names_[v] = name;
    else if (named == names_.end() || named->second != name)  // an input, or an output before, may be returned by its own name
      aliases_.emplace_back(v, name);
  }
  for (const auto& [v, name] : aliases_) taken_.insert(name);
  for (const Node* n = graph_.front(); n; n = n->next())
    for (int i = 0; i < n->numResults() && !n->is("const"); ++i)
      if (!names_.contains(n->result(i))) names_[n->result(i)] = fresh(n->result(i)->name());
}

// A node of the user's may have become several: the one that computes has the name, what prepares its operands and finishes its result is
// named after it.
void OnnxExporter::nameNodes() {
  std::set<std::string> names;
  for (const std::string& location : locations_) {
    const auto& nodes = byLocation_.at(location);
    std::min_element(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) {
      return a.first < b.first;
    })->second->set_name(location);
    names.insert(location);
  }
  for (const std::string& location : locations_)
    for (const auto& [order, node] : byLocation_.at(location)) {
      if (!node->name().empty()) continue;
      std::string name = fmt::format("{}/{}", location, node->op_type());
      for (int i = 1; !names.insert(name).second; ++i) name = fmt::format("{}/{}_{}", location, node->op_type(), i);
      node->set_name(name);
    }
}

Status OnnxExporter::addNode(const Node& n) {
  if (n.is("const")) return {};
  const auto row = onnxExportRows().find(n.op());
  if (row == onnxExportRows().end() || n.expr("post"))
    return fail(ErrorCode::kUnsupported, "'{}' has no ONNX form here", n.op()).at(n.location()).help("save as .qir instead");
  if (n.attrs().find("layout") && n.string("layout") != "channels_first")
    return fail(ErrorCode::kUnsupported, "'{}' in channel-last layout cannot be exported", n.op()).at(n.location());
  if (auto written = row->second(*this, n); !written) return tl::make_unexpected(std::move(written.error()).at(n.location()));
  for (int i = 0; i < n.numResults(); ++i) dims_.defined(n.result(i));
  return {};
}

Result<std::string> OnnxExporter::run() {
  onnx::ModelProto model;
  writeInfo(model, graph_.info());
  model_ = &model;
  proto_ = model.mutable_graph();
  scopes_ = {{proto_, {}}};
  proto_->set_name(graph_.name());
  nameResults();
  QC_TRY(orderNodes());
  for (const Value* v : graph_.inputs()) dims_.defined(v);
  QC_TRY(addNodes(order_, {}));
  for (const Value* v : graph_.inputs()) describe(*proto_->add_input(), v, v->name());
  for (size_t i = 0; i < graph_.outputs().size(); ++i) describe(*proto_->add_output(), graph_.outputs()[i], graph_.outputNames()[i]);
  nameNodes();
  for (const auto& [v, name] : aliases_) {
    auto& identity = *proto_->add_node();
    identity.set_op_type("Identity");
    identity.add_input(this->name(v));
    identity.add_output(name);
  }
  model.set_ir_version(opset_ >= 21 ? 10 : opset_ >= 19 ? 9 : 8);
  const auto require = [](auto& whose, const std::string& domain, int version) {
    auto& opset = *whose.add_opset_import();
    opset.set_domain(domain);
    opset.set_version(version);
  };
  require(model, "", opset_);
  for (const auto& [domain, version] : domains_) require(model, domain, version);
  for (auto& function : *model.mutable_functions()) require(function, "", opset_);
  std::string bytes;
  if (model.ByteSizeLong() > usize(INT32_MAX) || !model.SerializeToString(&bytes))
    return fail(ErrorCode::kResource, "the model is larger than protobuf allows");
  return bytes;
}

Result<std::string> exportOnnx(const Graph& graph) {
  return withoutExceptions([&]() -> Result<std::string> {
    // Some ops are written differently in later opsets, and which opset is needed is known at the end: then once more.
    QC_ASSIGN(const Graph own, dequantizedInBranches(graph));
    OnnxExporter first(own, 13);
    QC_ASSIGN(std::string bytes, first.run());
    if (first.opset() < 18) return bytes;
    return OnnxExporter(own, first.opset()).run();
  });
}

}  // namespace qc
