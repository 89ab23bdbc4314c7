// Nodes of a graph, one after another, and calls of model-local functions, which are inlined.
#include <fmt/ranges.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>

#include "frontend/onnx/importer.h"
#include "frontend/onnx/tensor.h"

namespace qc {
namespace {

constexpr size_t kMaxCalls = 100;  // of functions inside one another, as ONNX's own checker has it

// Fields that ONNX added after the version of its library that this is built with.
constexpr int kNodeOverload = 8, kFunctionAttributeProto = 11, kFunctionOverload = 13;

template <class Message>
std::vector<std::string> laterField(const Message& message, int number) {
  std::vector<std::string> found;
  const auto& fields = message.unknown_fields();
  for (int i = 0; i < fields.field_count(); ++i)
    if (fields.field(i).number() == number && fields.field(i).type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED)
      found.push_back(fields.field(i).length_delimited());
  return found;
}

std::string functionKey(std::string domain, const std::string& name, const std::vector<std::string>& overload) {
  if (domain == "ai.onnx") domain.clear();
  return domain + "::" + name + (overload.empty() || overload.front().empty() ? "" : "::" + overload.front());
}

using Attributes = std::map<std::string, onnx::AttributeProto>;

bool refersToCall(const onnx::NodeProto& node) {
  return std::any_of(node.attribute().begin(), node.attribute().end(), [](const auto& a) {
    return !a.ref_attr_name().empty() || (a.has_g() && std::any_of(a.g().node().begin(), a.g().node().end(), refersToCall));
  });
}

// Attributes that name one of the function's get its value at this call, or go where it has none.
void substitute(onnx::NodeProto& node, const Attributes& values) {
  auto& attributes = *node.mutable_attribute();
  for (int i = attributes.size() - 1; i >= 0; --i) {
    onnx::AttributeProto& a = *attributes.Mutable(i);
    if (a.has_g())
      for (auto& inner : *a.mutable_g()->mutable_node()) substitute(inner, values);
    if (a.ref_attr_name().empty()) continue;
    const auto value = values.find(a.ref_attr_name());
    if (value == values.end()) {
      attributes.DeleteSubrange(i, 1);
      continue;
    }
    const std::string name = a.name();
    a = value->second;
    a.set_name(name);
  }
}

// The node itself, or one of what it was unfolded into.
bool isWithin(const std::string& location, const std::string& node) {
  return location.starts_with(node) && (location.size() == node.size() || location[node.size()] == '/' || location[node.size()] == '[');
}

}  // namespace

void OnnxImporter::indexFunctions() {
  for (const auto& f : model_.functions()) functions_.emplace(functionKey(f.domain(), f.name(), laterField(f, kFunctionOverload)), &f);
}

const onnx::FunctionProto* OnnxImporter::findFunction(const onnx::NodeProto& node) const {
  if (functions_.empty()) return nullptr;
  const auto it = functions_.find(functionKey(node.domain(), node.op_type(), laterField(node, kNodeOverload)));
  return it == functions_.end() ? nullptr : it->second;
}

Status OnnxImporter::countStep() {
  if (++steps_ <= kMaxOnnxSteps) return {};
  return fail(ErrorCode::kResource, "the functions and loops of the model unfold into more than {} nodes", kMaxOnnxSteps)
      .help("export with shorter loops, or as LSTM, GRU or RNN");
}

Result<OnnxValues> OnnxImporter::addCall(const onnx::NodeProto& proto, const onnx::FunctionProto& function, const OnnxNode& node,
                                         const OnnxValues& operands, const Frame& frame) {
  if (std::find(frame.calls.begin(), frame.calls.end(), &function) != frame.calls.end())
    return fail(ErrorCode::kInvalidModel, "function '{}' calls itself", function.name());
  if (frame.calls.size() >= kMaxCalls) return fail(ErrorCode::kResource, "functions that call one another more than {} deep", kMaxCalls);
  if (node.numInputs() > function.input_size() || proto.output_size() > function.output_size())
    return fail(ErrorCode::kInvalidModel, "function '{}' has {} inputs and {} outputs, the call {} and {}", function.name(),
                function.input_size(), function.output_size(), node.numInputs(), proto.output_size());
  OnnxScope scope;
  for (int i = 0; i < function.input_size(); ++i)
    if (!scope.define(function.input(i), i < node.numInputs() ? nth(operands, i) : OnnxValue{}))
      return fail(ErrorCode::kInvalidModel, "function '{}' has two inputs of one name", function.name()).on(function.input(i));

  Attributes values;
  for (const std::string& bytes : laterField(function, kFunctionAttributeProto)) {
    onnx::AttributeProto byDefault;
    if (!byDefault.ParseFromString(bytes)) return fail(ErrorCode::kInvalidModel, "an attribute of function '{}'", function.name());
    values[byDefault.name()] = byDefault;
  }
  for (const auto& a : proto.attribute()) values[a.name()] = a;

  auto [reads, isNew] = functionReads_.try_emplace(&function);
  if (isNew) collectReads(function.node(), reads->second);
  std::unordered_set<std::string> wanted = reads->second;
  for (int i = 0; i < function.output_size(); ++i)
    if (node.outputUsed(i)) wanted.insert(function.output(i));

  int opset = opset_;
  for (const auto& entry : function.opset_import())
    if (entry.domain().empty() || entry.domain() == "ai.onnx") opset = static_cast<int>(std::clamp<int64_t>(entry.version(), 0, 1 << 20));
  QC_TRY(checkOpset(opset, fmt::format("function '{}'", function.name())));
  Frame inner{scope, wanted, opset, frame.depth, frame.prefix + onnxNodeName(proto) + "/", frame.calls};
  inner.calls.push_back(&function);

  if (std::any_of(function.node().begin(), function.node().end(), refersToCall)) {
    OnnxNodes& kept = substituted_.emplace_back(function.node());
    for (auto& n : kept) substitute(n, values);
    QC_TRY(addNodes(kept, inner));
  } else {
    QC_TRY(addNodes(function.node(), inner));
  }
  OnnxValues outputs;
  for (int i = 0; i < proto.output_size(); ++i) {
    const auto value = scope.find(function.output(i));
    if (!value && node.outputUsed(i))
      return fail(ErrorCode::kInvalidModel, "function '{}' returns a value that it does not compute", function.name())
          .on(function.output(i));
    outputs.push_back(value.value_or(OnnxValue{}));
  }
  return outputs;
}

Result<OnnxValues> OnnxImporter::operandsOf(const onnx::NodeProto& node, const Frame& frame) {
  OnnxValues operands;
  for (const auto& name : node.input()) {
    const auto value = frame.scope.find(name);
    if (!name.empty() && !value)
      return fail(ErrorCode::kInvalidModel, "{} reads a value that nothing computes", node.op_type())
          .at(frame.prefix + onnxNodeName(node))
          .on(name);
    operands.push_back(name.empty() ? OnnxValue{} : *value);
  }
  return operands;
}

Status OnnxImporter::nameOutputs(const onnx::NodeProto& proto, const std::string& location, const OnnxValues& outputs, const Frame& frame) {
  for (int i = 0; i < proto.output_size() && i < static_cast<int>(outputs.size()); ++i) {
    const OnnxValue& value = nth(outputs, i);
    if ((!value.tensor && !value.isSequence()) || proto.output(i).empty()) continue;
    QC_TRY(define(frame.scope, proto.output(i), value));
    // A value that was there before (a dropped Dropout) keeps the name it has; what functions and loops compute gets the caller's.
    Value* v = value.tensor;
    if (!v || !v->producer() || !isWithin(v->producer()->location(), location)) continue;
    std::string name = frame.prefix + proto.output(i);
    if (v->producer()->is("storage_cast")) {  // a quantize: its own result has the name
      graph_.rename(v->producer()->operand(0), name);
      name += "_integers";
    }
    graph_.rename(v, name);
  }
  return {};
}

Status OnnxImporter::addConstant(OnnxNode& node) {
  if (node.has("value")) {
    QC_ASSIGN(Tensor t, node.tensor("value"));
    budget_.payload += t.byteSize();
    return node.setOutput(node.constantValue(std::move(t)));
  }
  if (node.has("value_float")) {
    QC_ASSIGN(const double v, node.real("value_float"));
    return node.setOutput(node.scalar(static_cast<float>(v)));
  }
  if (node.has("value_int")) {
    QC_ASSIGN(const int64_t v, node.integer("value_int"));
    return node.setOutput(node.constantValue(Tensor::ofInts({}, std::vector{v})));
  }
  if (node.has("value_ints")) {
    QC_ASSIGN(const auto v, node.integers("value_ints"));
    return node.setOutput(node.ints(v));
  }
  if (node.has("value_floats")) {
    QC_ASSIGN(const auto v, node.reals("value_floats"));
    return node.setOutput(node.constantValue(Tensor::ofFloats({static_cast<int64_t>(v.size())}, std::vector<float>(v.begin(), v.end()))));
  }
  if (node.has("sparse_value")) return fail(ErrorCode::kUnsupported, "a sparse Constant").help("write its value with all elements");
  if (node.has("value_string") || node.has("value_strings")) return fail(ErrorCode::kUnsupported, "a Constant of strings");
  return fail(ErrorCode::kInvalidModel, "a Constant without a value");
}

Status OnnxImporter::checkArity(const OnnxOp& row, const OnnxNode& node) {
  if (node.numInputs() > row.maxInputs && row.maxInputs >= 0)
    return fail(ErrorCode::kInvalidModel, "{} takes at most {} inputs, {} are given", row.name, row.maxInputs, node.numInputs());
  for (int i = 0; i < row.minInputs; ++i)
    if (!node.input(i) && !(row.optional >> i & 1)) return fail(ErrorCode::kInvalidModel, "{} lacks input {}", row.name, i);
  for (int i = 0; i < node.numInputs() && !row.freeDims; ++i)
    if (node.input(i) && !node.type(i).isStatic())
      return fail(ErrorCode::kUnsupported, "{} of {}, whose dims are free", row.name, node.type(i).str())
          .on(node.input(i)->name())
          .help("bind the dims of the inputs that it follows from");
  return {};
}

Result<OnnxValues> OnnxImporter::addNode(const onnx::NodeProto& proto, OnnxNode& node, const OnnxValues& operands, const Frame& frame) {
  const OnnxOp* row = findConverter(proto.domain(), proto.op_type());
  if (const ControlFn control = controlOp(proto)) return (this->*control)(node, operands, frame);
  const bool onSequences = std::any_of(operands.begin(), operands.end(), [](const OnnxValue& v) { return v.isSequence(); });
  if (const OnnxSequenceFn run = isStandard(proto) ? findSequenceOp(proto.op_type(), onSequences) : nullptr) return run(node, operands);
  if (proto.op_type() == "Constant" && isStandard(proto)) {
    QC_TRY(addConstant(node));
  } else if (row) {
    if (onSequences) return fail(ErrorCode::kInvalidModel, "{} takes tensors, and is given a sequence", row->name);
    QC_TRY(checkArity(*row, node));
    QC_TRY(row->convert(node));
  } else if (const onnx::FunctionProto* function = findFunction(proto)) {
    return addCall(proto, *function, node, operands, frame);
  } else {
    return unsupportedOps({{proto.domain().empty() ? proto.op_type() : proto.domain() + "." + proto.op_type(), {node.location()}}});
  }
  OnnxValues outputs;
  for (Value* v : node.outputs()) outputs.push_back({v});
  return outputs;
}

Status OnnxImporter::addNodes(const OnnxNodes& nodes, Frame& frame) {
  auto schedule = schedules_.find(&nodes);
  if (schedule == schedules_.end()) {
    QC_ASSIGN(std::vector<int> order, scheduleOf(nodes));
    schedule = schedules_.emplace(&nodes, std::move(order)).first;
  }
  for (size_t k = 0; k < schedule->second.size(); ++k) {
    const onnx::NodeProto& proto = nodes[schedule->second[k]];
    if (!frame.prefix.empty()) QC_TRY(countStep());
    QC_ASSIGN(const OnnxValues operands, operandsOf(proto, frame));
    std::vector<Value*> tensors;
    for (const OnnxValue& v : operands) tensors.push_back(v.tensor);
    OnnxNode node(proto, std::move(tensors), frame.prefix + onnxNodeName(proto),
                  {frame.opset, graph_, budget_, folder_, frame.reads, sizeNames_});
    auto outputs = addNode(proto, node, operands, frame);
    if (!outputs) {
      Error error = std::move(outputs.error()).at(node.location()).on(proto.output_size() ? proto.output(0) : "");
      if (error.code() != ErrorCode::kUnsupported) return tl::make_unexpected(std::move(error));
      return tl::make_unexpected(  // what can always be done
          std::move(error).help(fmt::format("export the model without it, or cut the model in front of it: {}", kExtractModel)));
    }
    QC_TRY(nameOutputs(proto, node.location(), *outputs, frame));
    schedule = schedules_.find(&nodes);  // the map may have grown
  }
  return {};
}

}  // namespace qc
