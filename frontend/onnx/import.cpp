#include "frontend/onnx/import.h"

#include <onnx/onnx_pb.h>

#include <algorithm>

#include "frontend/onnx/bind.h"
#include "frontend/onnx/converters.h"
#include "frontend/onnx/importer.h"
#include "frontend/onnx/tensor.h"
#include "ir/constant_view.h"
#include "ir/dim_expr_terms.h"
#include "ir/op_def.h"
#include "ir/verify.h"

namespace qc {
namespace {

constexpr int kMinOpset = 7;
constexpr int kMaxOpset = 28;  // the newest whose node tests have been run

// What to do about ops that cannot be compiled as they are, and about those of a domain.
std::string_view remedyFor(std::string_view op) {
  static constexpr std::pair<std::string_view, std::string_view> kRemedies[] = {
      {"RandomNormal", "results would not repeat: feed random numbers as an input"},
      {"RandomNormalLike", "results would not repeat: feed random numbers as an input"},
      {"RandomUniform", "results would not repeat: feed random numbers as an input"},
      {"RandomUniformLike", "results would not repeat: feed random numbers as an input"},
      {"SequenceMap", "only sequences that are built op by op are supported: export with tensors in their place"},
      {"SoftmaxCrossEntropyLoss", "a loss belongs to training: export the model in eval mode"},
      {"NegativeLogLikelihoodLoss", "a loss belongs to training: export the model in eval mode"},
      {"com.microsoft.nchwc.", "the layout of one CPU: save the optimized model with graph_optimization_level ORT_ENABLE_EXTENDED"},
      {"com.microsoft.", "ONNX Runtime's own: save the optimized model with graph_optimization_level ORT_ENABLE_BASIC"},
  };
  for (const auto& [name, remedy] : kRemedies)
    if (name == op || (name.ends_with('.') && op.starts_with(name))) return remedy;
  return {};
}

ModelInfo infoOf(const onnx::ModelProto& model) {
  ModelInfo info{model.producer_name(),
                 model.producer_version(),
                 model.domain(),
                 model.doc_string(),
                 model.graph().doc_string(),
                 model.model_version(),
                 {}};
  for (const auto& entry : model.metadata_props()) info.properties.emplace_back(entry.key(), entry.value());
  return info;
}

// One number of any type stands for a scalar of the input's type, if that holds it exactly.
std::optional<Tensor> converted(const Tensor& value, DType dtype, const onnx::TypeProto::Tensor& declared) {
  if (value.dtype() == dtype || value.numElements() != 1) return value;
  Tensor t(dtype, std::vector<int64_t>(usize(declared.shape().dim_size()), 1));
  storeElement(dtype, t.mutableData(), 0, value.at(0));
  if (isInteger(dtype) && t.at(0) != value.at(0)) return std::nullopt;
  return t;
}

}  // namespace

const OnnxOp* findConverter(std::string_view domain, std::string_view op) {
  const auto key = [](std::string_view d, std::string_view o) { return fmt::format("{}::{}", d == "ai.onnx" ? "" : d, o); };
  static const auto table = [&] {
    std::unordered_map<std::string, const OnnxOp*> t;
    for (const auto rows : {onnxRenamedOps(), onnxNnOps(), onnxMathOps(), onnxReductionOps(), onnxShapeOps(), onnxResizeOps(),
                            onnxRecurrentOps(), onnxQuantOps(), onnxDecidingOps(), onnxSamplingOps(), onnxSignalOps(), onnxComposedOps(),
                            onnxAttentionOps(), onnxContribOps(), onnxContribAttentionOps(), onnxMlOps(), onnxMlTreeOps(), onnxOwnOps()})
      for (const OnnxOp& row : rows) {
        const bool added = t.emplace(key(row.domain, row.name), &row).second;
        QC_CHECK(added, "'{}' is read in two ways", row.name);
      }
    return t;
  }();
  if (const size_t number = op.rfind('_'); domain == kOwnDomain) op = op.substr(0, number);
  const auto it = table.find(key(domain, op));
  return it == table.end() ? nullptr : it->second;
}

std::string onnxNodeName(const onnx::NodeProto& node) {
  return node.name().empty() ? fmt::format("{}:{}", node.op_type(), node.output_size() ? node.output(0) : "") : node.name();
}

bool isStandard(const onnx::NodeProto& node) { return node.domain().empty() || node.domain() == "ai.onnx"; }

Status checkOpset(int opset, const std::string& whose) {
  if (opset < kMinOpset)
    return fail(ErrorCode::kUnsupported, "{} is of opset {}; {} and later are supported", whose, opset, kMinOpset)
        .help("convert it with onnx.version_converter.convert_version(model, 13)");
  if (opset > kMaxOpset)
    return fail(ErrorCode::kUnsupported, "{} is of opset {}; what ops mean is known up to opset {}", whose, opset, kMaxOpset)
        .help(fmt::format("convert it with onnx.version_converter.convert_version(model, {})", kMaxOpset));
  return {};
}

Failure unsupportedOps(const std::map<std::string, std::vector<std::string>>& nodesByOp) {
  std::string list, remedies;
  // Converters of TensorFlow write what they cannot convert under its own name.
  const bool mayBeLeftOver = std::any_of(nodesByOp.begin(), nodesByOp.end(), [](const auto& entry) {
    return entry.first.find('.') == std::string::npos && remedyFor(entry.first).empty();
  });
  for (const auto& [op, nodes] : nodesByOp) {
    list += fmt::format("{}{} ({} time{}: ", list.empty() ? "" : "; ", op, nodes.size(), nodes.size() == 1 ? "" : "s");
    for (size_t i = 0; i < std::min<size_t>(nodes.size(), 3); ++i) list += (i ? ", '" : "'") + nodes[i] + "'";
    list += nodes.size() > 3 ? ", ...)" : ")";
    const std::string_view remedy = remedyFor(op);
    if (!remedy.empty() && remedies.find(remedy) == std::string::npos) remedies += fmt::format("{}: {}; ", op, remedy);
  }
  return fail(ErrorCode::kUnsupported, "ops that are not supported: {}", list)
      .help(remedies +
            "re-export without them (fixed shapes and post-processing outside the model often suffice), or cut the model in front of them" +
            (mayBeLeftOver
                 ? "; a name that is not an operator of ONNX is what the converter could not convert: say it by other ops in the source"
                 : ""));
}

OnnxImporter::OnnxImporter(const onnx::ModelProto& model, const Descriptor& folder, const ImportOptions& options, Weights weights,
                           const TensorBytes* taken)
    : model_(model),
      folder_(folder),
      options_(options),
      weights_(weights),
      taken_(taken),
      graph_(model.graph().name().empty() ? "main" : model.graph().name()) {}

Result<Graph> OnnxImporter::run() {
  QC_TRY(readOpsets());
  indexFunctions();
  QC_TRY(reportUnsupported());
  OnnxScope scope;
  graph_.setInfo(infoOf(model_));
  QC_TRY(addInitializers(model_.graph(), scope));
  QC_TRY(addInputs(scope));
  std::unordered_set<std::string> reads;
  collectReads(model_.graph().node(), reads);
  for (const auto& output : model_.graph().output()) reads.insert(output.name());
  Frame frame{scope, reads, opset_};
  QC_TRY(addNodes(model_.graph().node(), frame));
  QC_TRY(addOutputs(scope));
  giveInputsMeaning();
  assume(graph_, sizeNames_.ways.taken);
  graph_.eraseDeadNodes();
  forgetLoneViews(graph_);
  QC_TRY(verify(graph_));
  return std::move(graph_);
}

Result<Graph> OnnxImporter::inputs() {
  QC_TRY(readOpsets());
  OnnxScope scope;
  QC_TRY(addInitializers(model_.graph(), scope));
  QC_TRY(addInputs(scope));
  Graph alone(graph_.name());
  for (const Value* v : graph_.inputs())
    if (!unread_.contains(v->name())) alone.addInput(v->name(), v->type());
  return alone;
}

namespace {

// The last that can be taken the other way is; false: there is none.
bool nextWay(Ways& ways) {
  while (!ways.all.empty() && ways.all.back().isSecond) ways.all.pop_back();
  if (ways.all.empty()) return false;
  ways.all.back() = {!ways.all.back().holds, true};
  ways.asked = 0;
  ways.taken.clear();
  return true;
}

// Symbols of which one size is assumed.
SymbolSizes fixedSymbols(std::span<const Assumption> assumptions) {
  SymbolSizes fixed;
  for (const Assumption& a : assumptions)
    if (const auto symbol = symbolName(a.left); symbol && a.kind == Assumption::Kind::equal && a.right.constant())
      fixed.emplace(*symbol, *a.right.constant());
  return fixed;
}

}  // namespace

Result<Graph> OnnxImporter::import(const onnx::ModelProto& model, const Descriptor& folder, const ImportOptions& options,
                                   const TensorBytes* taken) {
  constexpr int kMaxWays = 8;
  OnnxImporter first(model, folder, options, Weights::read, taken);
  auto graph = first.run();
  Ways ways = first.sizeNames_.ways;
  for (int tried = 1; !graph && tried < kMaxWays && nextWay(ways); ++tried) {
    OnnxImporter other(model, folder, options, Weights::read, taken);
    other.sizeNames_.ways = ways;
    if (auto read = other.run()) graph = std::move(read);
    ways = other.sizeNames_.ways;
  }
  // A size that can only be one is not a free dim.
  ImportOptions bound = options;
  for (const auto& [symbol, size] : fixedSymbols(ways.taken)) bound.shapes.emplace(symbol, std::vector{size});
  if (bound.shapes.size() > options.shapes.size())
    if (auto read = import(model, folder, bound, taken)) return read;
  if (graph || !first.sizeNames_.computed) return graph;
  OnnxImporter second(model, folder, options, Weights::read, taken);
  second.sizeNames_.mayCompute = false;
  return second.run();
}

Status OnnxImporter::readOpsets() {
  const auto& nodes = model_.graph().node();
  // A model of other domains' ops alone need not say which opset of ONNX's own it would be of.
  if (model_.opset_import_size() > 0 && std::none_of(nodes.begin(), nodes.end(), isStandard)) opset_ = kMaxOpset;
  for (const auto& entry : model_.opset_import()) {
    const std::string domain = entry.domain() == "ai.onnx" ? "" : entry.domain();
    if (!domain.empty()) continue;
    opset_ = static_cast<int>(std::clamp<int64_t>(entry.version(), 0, 1 << 20));
  }
  return checkOpset(opset_, "the model");  // IR 1 and 2 had no opset imports: opset 1
}

// All at once, so that a user does not find them one by one.  Branches of an If are left to the import: those not taken do not matter.
void OnnxImporter::collectUnsupported(const OnnxNodes& nodes, int depth, std::map<std::string, std::vector<std::string>>& found,
                                      std::vector<const onnx::FunctionProto*>& called) {
  for (const auto& node : nodes) {
    if (controlOp(node) || (node.op_type() == "Constant" && isStandard(node))) {
      for (const auto& attribute : node.attribute())
        if (attribute.has_g() && node.op_type() != "If" && depth < kMaxOnnxDepth)
          collectUnsupported(attribute.g().node(), depth + 1, found, called);
    } else if (const onnx::FunctionProto* function = findConverter(node.domain(), node.op_type()) ? nullptr : findFunction(node)) {
      called.push_back(function);
    } else if (!findConverter(node.domain(), node.op_type()) && !(isStandard(node) && findSequenceOp(node.op_type(), true))) {
      found[node.domain().empty() ? node.op_type() : node.domain() + "." + node.op_type()].push_back(onnxNodeName(node));
    }
  }
}

Status OnnxImporter::reportUnsupported() {
  std::map<std::string, std::vector<std::string>> found;
  std::vector<const onnx::FunctionProto*> called;
  collectUnsupported(model_.graph().node(), 0, found, called);
  // One after another, not inside one another: thousands may call one another in a chain.
  std::unordered_set<const onnx::FunctionProto*> seen;
  for (size_t i = 0; i < called.size(); ++i)
    if (const onnx::FunctionProto* function = called[i]; seen.insert(function).second)
      collectUnsupported(function->node(), 0, found, called);
  if (found.empty()) return {};
  return unsupportedOps(found);
}

Status OnnxImporter::define(OnnxScope& scope, const std::string& name, OnnxValue value) {
  if (name.empty()) return {};
  if (!scope.define(name, std::move(value))) return fail(ErrorCode::kInvalidModel, "two values have the same name").on(name);
  return {};
}

// The value computes in float32 whatever the width in the file.
Value* OnnxImporter::widened(Value* v) {
  if (v->type().dtype != DType::f16 && v->type().dtype != DType::bf16) return v;
  Builder b(graph_);
  return b.make("cast", {v}, {{"to", DType::f32}}, v->name() + "_f32");
}

Status OnnxImporter::addInitializers(const onnx::GraphProto& g, OnnxScope& scope) {
  if (g.sparse_initializer_size()) return fail(ErrorCode::kUnsupported, "sparse initializers");
  for (const auto& initializer : g.initializer()) {
    QC_ASSIGN(Value * value, addInitializer(initializer));
    QC_TRY(define(scope, initializer.name(), {value}));
  }
  return {};
}

Result<Value*> OnnxImporter::addInitializer(const onnx::TensorProto& initializer) {
  // Shorter ones are read all the same: they may be shapes, axes, scales.
  constexpr int64_t kReadAlways = int64_t{1} << 16;
  if (weights_ == Weights::headers && initializer.data_location() == onnx::TensorProto::EXTERNAL) {
    QC_ASSIGN(const TensorHeader header, headerFromOnnx(initializer));
    if (header.bytes > kReadAlways) {
      QC_TRY(checkExternal(initializer, header, folder_));
      Value* value = graph_.addInput(initializer.name(), TensorType(withoutHalf(header.dtype), toShape(header.sizes)));
      unread_.insert(value->name());
      return value;
    }
  }
  const auto taken = taken_ ? taken_->find(&initializer) : TensorBytes::const_iterator();
  QC_ASSIGN(Tensor tensor, tensorFromOnnx(initializer, folder_, taken_ && taken != taken_->end() ? taken->second : nullptr));
  tensor = withoutHalves(std::move(tensor));
  budget_.payload += tensor.byteSize();
  return Builder(graph_).constant(initializer.name(), std::move(tensor));
}

Status OnnxImporter::bindValue(const onnx::ValueInfoProto& info, DType dtype, const Tensor& given, OnnxScope& scope) {
  const auto& shape = info.type().tensor_type().shape();
  const std::optional<Tensor> value = converted(given, dtype, info.type().tensor_type());
  bool fits = value && value->dtype() == dtype && (!info.type().tensor_type().has_shape() || shape.dim_size() == value->rank());
  for (int d = 0; fits && d < shape.dim_size(); ++d) fits = !isFixed(shape.dim(d)) || shape.dim(d).dim_value() == nth(value->sizes(), d);
  if (!fits)
    return fail(ErrorCode::kInvalidArgument, "the value that is given is {}, the input is another type", given.type().str())
        .on(info.name());
  Builder b(graph_);
  return define(scope, info.name(), {b.constant(info.name(), withoutHalves(*value))});
}

Status OnnxImporter::addInputs(OnnxScope& scope) {
  QC_ASSIGN(const auto shapes, bindShapes(model_.graph(), options_));
  SymbolSizes given;
  for (const auto& info : model_.graph().input()) {
    if (info.name().empty()) return fail(ErrorCode::kInvalidModel, "an input without a name");
    if (scope.holds(info.name())) continue;  // IR 3 lists initializers as inputs
    if (!info.type().has_tensor_type()) return fail(ErrorCode::kUnsupported, "an input that is not a tensor").on(info.name());
    auto dtype = dtypeFromOnnx(info.type().tensor_type().elem_type());
    if (!dtype) return tl::make_unexpected(std::move(dtype.error()).on(info.name()));
    if (const auto value = options_.values.find(info.name()); value != options_.values.end()) {
      QC_TRY(bindValue(info, *dtype, value->second, scope));
      continue;
    }
    const Shape& shape = shapes.at(info.name());
    for (size_t d = 0; d < shape.size(); ++d) {
      if (!shape[d].isStatic()) sizeNames_.inputs.merge(shape[d].expr().symbols());
      if (const auto name = freeDimName(info, static_cast<int>(d)); name && shape[d].isStatic()) given.emplace(*name, shape[d].size());
    }
    int64_t bytes = sizeOf(*dtype);
    for (const Dim& dim : shape) {
      const int64_t size = dim.isStatic() ? dim.size() : 1;
      if (size > 0 && bytes > (int64_t{1} << 40) / size)
        return fail(ErrorCode::kResource, "an input of [{}]", toString(shape)).on(info.name());
      bytes *= std::max<int64_t>(size, 1);
    }
    QC_TRY(define(scope, info.name(), {widened(graph_.addInput(info.name(), TensorType(*dtype, shape)))}));
  }
  return checkAssumptions(graph_.info(), given);
}

// A graph input that is only read with one meaning has it.
void OnnxImporter::giveInputsMeaning() {
  for (Value* input : graph_.inputs()) {
    const std::vector<Node*> users = input->users();
    const Node* first = users.empty() ? nullptr : users.front();
    const auto alike = [&](const Node* user) {
      return user->is("storage_cast") && user->result()->type().isQuantized() && user->result()->type() == first->result()->type();
    };
    if (input->type().isQuantized() || input->isOutput() || !first || !std::all_of(users.begin(), users.end(), alike)) continue;
    const TensorType type = first->result()->type();
    for (Node* user : users) {
      user->result()->replaceAllUsesWith(input, true);
      graph_.erase(user);
    }
    input->setType(type);
  }
}

Status OnnxImporter::addOutputs(const OnnxScope& scope) {
  std::vector<Value*> outputs;
  std::vector<std::string> names;
  for (const auto& info : model_.graph().output()) {
    const auto found = scope.find(info.name());
    if (found && found->isSequence()) return fail(ErrorCode::kUnsupported, "an output that is a sequence of tensors").on(info.name());
    if (!found || !found->tensor) return fail(ErrorCode::kInvalidModel, "an output that nothing computes").on(info.name());
    Value* v = found->tensor;
    if (v->producer() && v->producer()->is("storage_cast")) v = v->producer()->operand(0);  // the same bytes
    const int declared = info.type().tensor_type().elem_type();
    if (v->type().dtype == DType::f32 && !v->type().isQuantized() && (declared == 10 || declared == 16)) {
      Builder b(graph_);
      v = b.make("cast", {v}, {{"to", declared == 10 ? DType::f16 : DType::bf16}});
    }
    outputs.push_back(v);
    names.push_back(info.name());
  }
  if (outputs.empty()) return fail(ErrorCode::kInvalidModel, "the model has no outputs");
  graph_.setOutputs(std::move(outputs));
  graph_.setOutputNames(std::move(names));
  return {};
}

}  // namespace qc
