#include "frontend/onnx_import.h"

#include <google/protobuf/io/coded_stream.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <set>
#include <unordered_map>

#include "frontend/onnx_node.h"
#include "frontend/onnx_tensor.h"
#include "ir/op_def.h"
#include "ir/verify.h"

namespace qc {
namespace {

constexpr int kMinOpset = 7;
constexpr int kMaxOpset = 28;  // the newest whose node tests have been run
constexpr int kMaxDepth = 16;  // of nested subgraphs

std::string key(std::string_view domain, std::string_view op) { return fmt::format("{}::{}", domain == "ai.onnx" ? "" : domain, op); }

const OnnxOp* findConverter(std::string_view domain, std::string_view op) {
  static const auto table = [] {
    std::unordered_map<std::string, const OnnxOp*> t;
    for (const auto rows :
         {onnxNnOps(), onnxMathOps(), onnxShapeOps(), onnxRecurrentOps(), onnxQuantOps(), onnxComposedOps(), onnxAttentionOps()})
      for (const OnnxOp& row : rows) t.emplace(key(row.domain, row.name), &row);
    return t;
  }();
  const auto it = table.find(key(domain, op));
  return it == table.end() ? nullptr : it->second;
}

// What to do about ops that cannot be compiled as they are.
std::string_view remedyFor(std::string_view op) {
  static constexpr std::pair<std::string_view, std::string_view> kRemedies[] = {
      {"Loop",
       "a loop whose number of rounds is only known at run time cannot be compiled: export with a fixed length, so that it is unrolled"},
      {"Scan", "a loop over a sequence cannot be compiled: export it as LSTM, GRU or RNN, or with a fixed length, so that it is unrolled"},
      {"NonMaxSuppression", "the number of its results depends on the data: run it in the application, on the outputs before it"},
      {"NonZero", "the number of its results depends on the data: export without it"},
      {"Unique", "the number of its results depends on the data: export without it"},
      {"Compress", "the number of its results depends on the data: export without it"},
      {"RandomNormal", "results would not repeat: feed random numbers as an input"},
      {"RandomNormalLike", "results would not repeat: feed random numbers as an input"},
      {"RandomUniform", "results would not repeat: feed random numbers as an input"},
      {"RandomUniformLike", "results would not repeat: feed random numbers as an input"},
      {"SequenceConstruct", "only tensors are supported: export with tensors in place of sequences"},
      {"SplitToSequence", "only tensors are supported: export with tensors in place of sequences"},
      {"SoftmaxCrossEntropyLoss", "a loss belongs to training: export the model in eval mode"},
      {"NegativeLogLikelihoodLoss", "a loss belongs to training: export the model in eval mode"},
  };
  for (const auto& [name, remedy] : kRemedies)
    if (name == op) return remedy;
  return {};
}

class Importer {
 public:
  Importer(const onnx::ModelProto& model, const std::filesystem::path& folder, const ImportOptions& options)
      : model_(model), folder_(folder), options_(options), graph_(model.graph().name().empty() ? "main" : model.graph().name()) {}

  Result<Graph> run() {
    QC_TRY(readOpsets());
    QC_TRY(reportUnsupported());
    Scope scope;
    QC_TRY(addInitializers(model_.graph(), scope));
    QC_TRY(addInputs(scope));
    QC_TRY(addNodes(model_.graph(), scope, 0));
    QC_TRY(addOutputs(scope));
    graph_.eraseDeadNodes();
    QC_TRY(verify(graph_));
    return std::move(graph_);
  }

 private:
  using Scope = std::unordered_map<std::string, Value*>;

  Status readOpsets() {
    for (const auto& entry : model_.opset_import()) {
      const std::string domain = entry.domain() == "ai.onnx" ? "" : entry.domain();
      if (!domain.empty()) continue;
      opset_ = static_cast<int>(std::clamp<int64_t>(entry.version(), 0, 1 << 20));
    }
    // IR 1 and 2 had no opset imports: opset 1.
    if (opset_ < kMinOpset)
      return fail(ErrorCode::kUnsupported, "the model is of opset {}; {} and later are supported", opset_, kMinOpset)
          .help("convert it with onnx.version_converter.convert_version(model, 13)");
    if (opset_ > kMaxOpset)
      return fail(ErrorCode::kUnsupported, "the model is of opset {}; what ops mean is known up to opset {}", opset_, kMaxOpset)
          .help(fmt::format("convert it with onnx.version_converter.convert_version(model, {})", kMaxOpset));
    return {};
  }

  // All at once, so that a user does not find them one by one.
  void collectUnsupported(const onnx::GraphProto& g, int depth, std::map<std::string, std::vector<std::string>>& found) {
    for (const auto& node : g.node()) {
      if (!isStructural(node) && !findConverter(node.domain(), node.op_type()))
        found[node.domain().empty() ? node.op_type() : node.domain() + "." + node.op_type()].push_back(nameOf(node));
      if (depth >= kMaxDepth) continue;
      for (const auto& attribute : node.attribute())
        if (attribute.has_g() && isStructural(node)) collectUnsupported(attribute.g(), depth + 1, found);
    }
  }

  Status reportUnsupported() {
    std::map<std::string, std::vector<std::string>> found;
    collectUnsupported(model_.graph(), 0, found);
    if (found.empty()) return {};
    std::string list, remedies;
    for (const auto& [op, nodes] : found) {
      list += fmt::format("{}{} ({} time{}: ", list.empty() ? "" : "; ", op, nodes.size(), nodes.size() == 1 ? "" : "s");
      for (size_t i = 0; i < std::min<size_t>(nodes.size(), 3); ++i) list += (i ? ", '" : "'") + nodes[i] + "'";
      list += nodes.size() > 3 ? ", ...)" : ")";
      const std::string_view remedy = remedyFor(op);
      if (!remedy.empty() && remedies.find(remedy) == std::string::npos) remedies += fmt::format("{}: {}; ", op, remedy);
    }
    return fail(ErrorCode::kUnsupported, "ops that are not supported: {}", list)
        .help(
            remedies +
            "re-export without them (fixed shapes and post-processing outside the model often suffice), or cut the model in front of them");
  }

  static bool isStructural(const onnx::NodeProto& node) {
    return node.domain().empty() && (node.op_type() == "If" || node.op_type() == "Constant");
  }

  static std::string nameOf(const onnx::NodeProto& node) {
    if (!node.name().empty()) return node.name();
    return fmt::format("{}:{}", node.op_type(), node.output_size() ? node.output(0) : "");
  }

  Status define(Scope& scope, const std::string& name, Value* value) {
    if (name.empty()) return {};
    if (!scope.emplace(name, value).second) return fail(ErrorCode::kInvalidModel, "two values have the same name").on(name);
    return {};
  }

  // The value computes in float32 whatever the width in the file.
  Value* widened(Value* v) {
    if (v->type().dtype != DType::f16 && v->type().dtype != DType::bf16) return v;
    Builder b(graph_);
    return b.make("cast", {v}, {{"to", DType::f32}}, v->name() + "_f32");
  }

  static Tensor toFloat32(const Tensor& t) {
    const std::vector<float> values = t.toFloats();
    return Tensor::ofFloats(t.sizes(), values);
  }

  Status addInitializers(const onnx::GraphProto& g, Scope& scope) {
    Builder b(graph_);
    if (g.sparse_initializer_size()) return fail(ErrorCode::kUnsupported, "sparse initializers");
    for (const auto& initializer : g.initializer()) {
      QC_ASSIGN(Tensor tensor, tensorFromOnnx(initializer, folder_));
      if (tensor.dtype() == DType::f16 || tensor.dtype() == DType::bf16) tensor = toFloat32(tensor);
      QC_TRY(define(scope, initializer.name(), b.constant(initializer.name(), std::move(tensor))));
    }
    return {};
  }

  // Some exporters write -1 for a free dim; an explicit 0 is a size.
  static bool isFixed(const onnx::TensorShapeProto::Dimension& dim) { return dim.has_dim_value() && dim.dim_value() >= 0; }

  Result<std::vector<int64_t>> bindShape(const onnx::ValueInfoProto& info) {
    const auto& proto = info.type().tensor_type().shape();
    const auto bound = options_.shapes.find(info.name());
    std::string declared;
    for (int d = 0; d < proto.dim_size(); ++d)
      declared += (d ? "," : "") + (proto.dim(d).has_dim_value() ? std::to_string(proto.dim(d).dim_value())
                                    : proto.dim(d).has_dim_param() && !proto.dim(d).dim_param().empty() ? proto.dim(d).dim_param()
                                                                                                        : "?");
    if (bound != options_.shapes.end()) {
      const auto& sizes = bound->second;
      if (std::any_of(sizes.begin(), sizes.end(), [](int64_t s) { return s < 0; }))
        return fail(ErrorCode::kInvalidArgument, "--shape with a size below 0").on(info.name());
      bool fits = !info.type().tensor_type().has_shape() || static_cast<int>(sizes.size()) == proto.dim_size();
      for (int d = 0; fits && d < proto.dim_size(); ++d)
        fits = !isFixed(proto.dim(d)) || proto.dim(d).dim_value() == sizes[static_cast<size_t>(d)];
      if (!fits)
        return fail(ErrorCode::kInvalidArgument, "--shape {} does not fit the declared [{}]", toString(toShape(sizes)), declared)
            .on(info.name());
      return sizes;
    }
    if (!info.type().tensor_type().has_shape())
      return fail(ErrorCode::kInvalidArgument, "the model does not say how many dims it has")
          .on(info.name())
          .help(fmt::format("bind it: --shape {}=1x3x224x224", info.name()));
    std::vector<int64_t> sizes;
    for (int d = 0; d < proto.dim_size(); ++d) {
      const bool known = isFixed(proto.dim(d));
      if (!known && d > 0) {
        std::string example;
        for (int k = 0; k < proto.dim_size(); ++k)
          example += (k ? "x" : "") + (isFixed(proto.dim(k)) ? std::to_string(proto.dim(k).dim_value()) : k ? "N" : "1");
        return fail(ErrorCode::kInvalidArgument, "dim {} of [{}] is free", d, declared)
            .on(info.name())
            .help(fmt::format("bind it: --shape {}={}", info.name(), example));
      }
      sizes.push_back(known ? proto.dim(d).dim_value() : 1);
    }
    return sizes;
  }

  // One number of any type stands for a scalar of the input's type, if that holds it exactly.
  static std::optional<Tensor> converted(const Tensor& value, DType dtype, const onnx::TypeProto::Tensor& declared) {
    if (value.dtype() == dtype || value.numElements() != 1) return value;
    Tensor t(dtype, std::vector<int64_t>(static_cast<size_t>(declared.shape().dim_size()), 1));
    storeElement(dtype, t.mutableData(), 0, value.at(0));
    if (isInteger(dtype) && t.at(0) != value.at(0)) return std::nullopt;
    return t;
  }

  Status bindValue(const onnx::ValueInfoProto& info, DType dtype, const Tensor& given, Scope& scope) {
    const auto& shape = info.type().tensor_type().shape();
    const std::optional<Tensor> value = converted(given, dtype, info.type().tensor_type());
    bool fits = value && value->dtype() == dtype && (!info.type().tensor_type().has_shape() || shape.dim_size() == value->rank());
    for (int d = 0; fits && d < shape.dim_size(); ++d)
      fits = !isFixed(shape.dim(d)) || shape.dim(d).dim_value() == value->sizes()[static_cast<size_t>(d)];
    if (!fits)
      return fail(ErrorCode::kInvalidArgument, "the value that is given is {}, the input is another type", given.type().str())
          .on(info.name());
    Builder b(graph_);
    return define(scope, info.name(), b.constant(info.name(), dtype == DType::f16 || dtype == DType::bf16 ? toFloat32(*value) : *value));
  }

  // First, so that a misspelt name is not reported as a free dim of the right one.
  Status checkBoundNames() {
    std::set<std::string> names;
    for (const auto& info : model_.graph().input()) names.insert(info.name());
    for (const auto& [name, sizes] : options_.shapes)
      if (!names.contains(name)) return fail(ErrorCode::kInvalidArgument, "--shape names an input that the model does not have").on(name);
    for (const auto& [name, value] : options_.values)
      if (!names.contains(name))
        return fail(ErrorCode::kInvalidArgument, "a value is given for an input that the model does not have").on(name);
    return {};
  }

  Status addInputs(Scope& scope) {
    QC_TRY(checkBoundNames());
    for (const auto& info : model_.graph().input()) {
      if (scope.contains(info.name())) continue;  // IR 3 lists initializers as inputs
      if (!info.type().has_tensor_type()) return fail(ErrorCode::kUnsupported, "an input that is no tensor").on(info.name());
      auto dtype = dtypeFromOnnx(info.type().tensor_type().elem_type());
      if (!dtype) return tl::make_unexpected(std::move(dtype.error()).on(info.name()));
      if (const auto value = options_.values.find(info.name()); value != options_.values.end()) {
        QC_TRY(bindValue(info, *dtype, value->second, scope));
        continue;
      }
      QC_ASSIGN(const std::vector<int64_t> sizes, bindShape(info));
      int64_t bytes = sizeOf(*dtype);
      for (const int64_t s : sizes) {
        if (s > 0 && bytes > (int64_t{1} << 40) / s)
          return fail(ErrorCode::kResource, "an input of [{}]", toString(toShape(sizes))).on(info.name());
        bytes *= s;
      }
      QC_TRY(define(scope, info.name(), widened(graph_.addInput(info.name(), TensorType(*dtype, toShape(sizes))))));
    }
    return {};
  }

  Result<std::vector<Value*>> operandsOf(const onnx::NodeProto& node, const Scope& scope) {
    std::vector<Value*> operands;
    for (const auto& name : node.input()) {
      const auto it = scope.find(name);
      if (!name.empty() && it == scope.end())
        return fail(ErrorCode::kInvalidModel, "{} reads a value that nothing before it computes", node.op_type()).at(nameOf(node)).on(name);
      operands.push_back(name.empty() ? nullptr : it->second);
    }
    return operands;
  }

  Status nameOutputs(const onnx::NodeProto& node, const std::vector<Value*>& outputs, Scope& scope) {
    for (int i = 0; i < node.output_size() && i < static_cast<int>(outputs.size()); ++i) {
      Value* v = outputs[static_cast<size_t>(i)];
      if (!v || node.output(i).empty()) continue;
      QC_TRY(define(scope, node.output(i), v));
      // A value that was there before (a dropped Dropout) keeps the name it has.
      if (v->producer() && v->producer()->location() == nameOf(node)) graph_.rename(v, node.output(i));
    }
    return {};
  }

  Status addConstant(const onnx::NodeProto& proto, OnnxNode& node) {
    if (node.has("value")) {
      QC_ASSIGN(Tensor t, node.tensor("value"));
      if (t.dtype() == DType::f16 || t.dtype() == DType::bf16) t = toFloat32(t);
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
    return fail(ErrorCode::kUnsupported, "a Constant without a numeric value").at(nameOf(proto));
  }

  // An If whose condition is known becomes the branch that is taken.
  Status addIf(const onnx::NodeProto& proto, OnnxNode& node, Scope& scope, int depth) {
    if (depth >= kMaxDepth) return fail(ErrorCode::kResource, "subgraphs nested deeper than {}", kMaxDepth).at(nameOf(proto));
    QC_ASSIGN(const double condition, node.constantScalar(0, "the condition"));
    QC_ASSIGN(const onnx::GraphProto* branch, node.subgraph(condition != 0 ? "then_branch" : "else_branch"));
    Scope inner = scope;
    QC_TRY(addInitializers(*branch, inner));
    QC_TRY(addNodes(*branch, inner, depth + 1));
    std::vector<Value*> outputs;
    for (const auto& info : branch->output()) {
      const auto it = inner.find(info.name());
      if (it == inner.end())
        return fail(ErrorCode::kInvalidModel, "a branch returns a value that it does not compute").at(nameOf(proto)).on(info.name());
      outputs.push_back(it->second);
    }
    return node.setOutputs(std::move(outputs));
  }

  Status checkArity(const OnnxOp& row, const onnx::NodeProto& proto, const std::vector<Value*>& operands) {
    const auto count = static_cast<int>(operands.size());
    if (count > row.maxInputs && row.maxInputs >= 0)
      return fail(ErrorCode::kInvalidModel, "{} takes at most {} inputs, {} are given", row.name, row.maxInputs, count).at(nameOf(proto));
    for (int i = 0; i < row.minInputs; ++i)
      if ((i >= count || !operands[static_cast<size_t>(i)]) && !(row.optional >> i & 1))
        return fail(ErrorCode::kInvalidModel, "{} lacks input {}", row.name, i).at(nameOf(proto));
    return {};
  }

  Status addNodes(const onnx::GraphProto& g, Scope& scope, int depth) {
    for (const auto& proto : g.node()) {
      QC_ASSIGN(const std::vector<Value*> operands, operandsOf(proto, scope));
      OnnxNode node(proto, opset_, operands, graph_, budget_, folder_, nameOf(proto));
      Status status;
      if (proto.op_type() == "Constant" && proto.domain().empty()) {
        status = addConstant(proto, node);
      } else if (proto.op_type() == "If" && proto.domain().empty()) {
        status = addIf(proto, node, scope, depth);
      } else {
        const OnnxOp* row = findConverter(proto.domain(), proto.op_type());
        if (!row) return fail(ErrorCode::kUnsupported, "op {} is not supported", proto.op_type()).at(nameOf(proto));
        QC_TRY(checkArity(*row, proto, operands));
        status = row->convert(node);
      }
      if (!status) return tl::make_unexpected(std::move(status.error()).at(nameOf(proto)).on(proto.output_size() ? proto.output(0) : ""));
      QC_TRY(nameOutputs(proto, node.outputs(), scope));
    }
    return {};
  }

  Status addOutputs(const Scope& scope) {
    std::vector<Value*> outputs;
    std::vector<std::string> names;
    for (const auto& info : model_.graph().output()) {
      const auto it = scope.find(info.name());
      if (it == scope.end()) return fail(ErrorCode::kInvalidModel, "an output that nothing computes").on(info.name());
      Value* v = it->second;
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

  const onnx::ModelProto& model_;
  const std::filesystem::path& folder_;
  const ImportOptions& options_;
  Graph graph_;
  FoldBudget budget_;
  int opset_ = 1;
};

}  // namespace

Result<Graph> importOnnx(std::string_view bytes, const std::filesystem::path& folder, const ImportOptions& options) {
  if (bytes.size() > static_cast<size_t>(INT32_MAX))
    return fail(ErrorCode::kResource, "a model of {} bytes; protobuf ends at 2 GB", bytes.size()).help("keep the weights as external data");
  google::protobuf::io::CodedInputStream stream(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
  stream.SetTotalBytesLimit(INT32_MAX);
  stream.SetRecursionLimit(64);
  onnx::ModelProto model;
  if (!model.ParseFromCodedStream(&stream) || !stream.ConsumedEntireMessage() || !model.has_graph())
    return fail(ErrorCode::kInvalidModel, "the bytes are no ONNX model").help("the file may be truncated, or a Git LFS pointer");
  return Importer(model, folder, options).run();
}

Result<Graph> importOnnxFile(const std::string& path, const ImportOptions& options) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return fail(ErrorCode::kNotFound, "there is no file '{}'", path);
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.good() && !file.eof()) return fail(ErrorCode::kIo, "cannot read '{}'", path);
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) folder = ".";
  return importOnnx(bytes, folder, options);
}

}  // namespace qc
