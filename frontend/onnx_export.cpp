#include "frontend/onnx_export.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "frontend/onnx_tensor.h"
#include "ir/op_def.h"
#include "ir/ops/infer_util.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

class Exporter {
 public:
  Exporter(const Graph& graph, int opset) : graph_(graph), opset_(opset) {}
  Result<std::string> run();
  int opset() const { return opset_; }

  // What converters use.
  std::string name(const Value* v) { return v ? names_.at(v) : std::string(); }
  onnx::NodeProto& add(const Node& node, const std::string& op, std::vector<std::string> inputs, std::vector<std::string> outputs) {
    auto& proto = *proto_->add_node();
    proto.set_op_type(op);
    const bool isFirst = usedLocations_.insert(node.location()).second;
    if (isFirst && !node.location().empty()) proto.set_name(node.location());
    while (!inputs.empty() && inputs.back().empty()) inputs.pop_back();
    for (auto& i : inputs) proto.add_input(std::move(i));
    for (auto& o : outputs) proto.add_output(std::move(o));
    return proto;
  }
  std::string fresh(const std::string& base) {
    std::string candidate = base;
    for (int i = 1; !taken_.insert(candidate).second; ++i) candidate = fmt::format("{}_{}", base, i);
    return candidate;
  }
  std::string initializer(const std::string& base, const Tensor& t) {
    auto& proto = *proto_->add_initializer();
    proto.set_name(fresh(base));
    proto.set_data_type(dtypeToOnnx(t.dtype()));
    for (const int64_t s : t.sizes()) proto.add_dims(s);
    proto.set_raw_data(t.data(), static_cast<size_t>(t.byteSize()));
    return proto.name();
  }
  std::string ints(const Ints& values) { return initializer("ints", Tensor::ofInts({static_cast<int64_t>(values.size())}, values)); }
  std::string scalar(float value) { return initializer("scalar", Tensor::ofFloats({}, std::vector{value})); }
  void needOpset(int version) { opset_ = std::max(opset_, version); }
  std::pair<std::string, std::string> quantParams(const QuantParams& q, const std::string& base);

 private:
  Status addValue(const Node& node);
  void describe(onnx::ValueInfoProto& info, const Value* v, const std::string& name);

  const Graph& graph_;
  onnx::GraphProto* proto_ = nullptr;
  std::map<const Value*, std::string> names_;
  std::set<std::string> taken_, usedLocations_;
  std::map<std::string, std::pair<std::string, std::string>> quantNames_;
  int opset_;
};

void setInt(onnx::NodeProto& n, const char* name, int64_t v) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::INT);
  a.set_i(v);
}
void setFloat(onnx::NodeProto& n, const char* name, double v) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::FLOAT);
  a.set_f(static_cast<float>(v));
}
void setString(onnx::NodeProto& n, const char* name, const std::string& v) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::STRING);
  a.set_s(v);
}
void setInts(onnx::NodeProto& n, const char* name, const Ints& v) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(onnx::AttributeProto::INTS);
  for (const int64_t i : v) a.add_ints(i);
}

using Convert = std::function<Status(Exporter&, const Node&)>;

std::vector<std::string> inputNames(Exporter& e, const Node& n) {
  std::vector<std::string> names;
  for (const Value* v : n.operands()) names.push_back(e.name(v));
  return names;
}

std::vector<std::string> outputNames(Exporter& e, const Node& n) {
  std::vector<std::string> names;
  for (int i = 0; i < n.numResults(); ++i) names.push_back(e.name(n.result(i)));
  return names;
}

// Same operands and results; real attributes copied under the same name.
Convert same(const char* op, std::vector<const char*> reals = {}, int opset = 13) {
  return [=](Exporter& e, const Node& n) -> Status {
    e.needOpset(opset);
    auto& proto = e.add(n, op, inputNames(e, n), outputNames(e, n));
    for (const char* r : reals) setFloat(proto, r, n.real(r));
    return {};
  };
}

Status requireFirst(const Node& n) {
  if (!n.attrs().find("layout") || n.string("layout") == "channels_first") return {};
  return fail(ErrorCode::kUnsupported, "'{}' in channel-last layout cannot be exported", n.op()).at(n.location());
}

Ints orOnes(const Ints& list, size_t n, int64_t value = 1) { return list.empty() ? Ints(n, value) : list; }

Status convWith(Exporter& e, const Node& n, const char* op) {
  QC_TRY(requireFirst(n));
  const auto spatial = static_cast<size_t>(n.operand(0)->type().rank() - 2);
  std::vector<std::string> inputs = inputNames(e, n);
  if (inputs.size() > 3) return fail(ErrorCode::kUnsupported, "a fused residual cannot be exported").at(n.location());
  auto& proto = e.add(n, op, inputs, outputNames(e, n));
  const Ints weight = n.operand(1)->type().sizes();
  setInts(proto, "kernel_shape", Ints(weight.begin() + 2, weight.end()));
  setInts(proto, "strides", orOnes(n.integers("strides"), spatial));
  setInts(proto, "dilations", orOnes(n.integers("dilations"), spatial));
  setInts(proto, "pads", orOnes(n.integers("pads"), 2 * spatial, 0));
  setInt(proto, "group", n.integer("group"));
  if (n.attrs().find("output_padding") && !n.integers("output_padding").empty()) setInts(proto, "output_padding", n.integers("output_padding"));
  return {};
}

Status poolWith(Exporter& e, const Node& n, const char* op) {
  QC_TRY(requireFirst(n));
  const auto spatial = n.integers("kernel_shape").size();
  auto& proto = e.add(n, op, inputNames(e, n), outputNames(e, n));
  setInts(proto, "kernel_shape", n.integers("kernel_shape"));
  setInts(proto, "strides", orOnes(n.integers("strides"), spatial));
  setInts(proto, "pads", orOnes(n.integers("pads"), 2 * spatial, 0));
  setInt(proto, "ceil_mode", n.integer("ceil_mode"));
  const Ints dilations = orOnes(n.integers("dilations"), spatial);
  const bool dilated = std::any_of(dilations.begin(), dilations.end(), [](int64_t d) { return d != 1; });
  if (std::string_view(op) == "AveragePool") {
    setInt(proto, "count_include_pad", n.integer("count_include_pad"));
    if (dilated) e.needOpset(19);
  }
  if (dilated) setInts(proto, "dilations", dilations);
  return {};
}

// linear x[..., K], w[N, K]: Gemm for matrices, else MatMul with the transposed weight and an Add.
Status linear(Exporter& e, const Node& n) {
  std::vector<std::string> inputs = inputNames(e, n);
  if (inputs.size() > 3) return fail(ErrorCode::kUnsupported, "a fused residual cannot be exported").at(n.location());
  if (n.operand(0)->type().rank() == 2) {
    auto& proto = e.add(n, "Gemm", inputs, outputNames(e, n));
    setInt(proto, "transB", 1);
    return {};
  }
  const std::string transposed = e.fresh(inputs[1] + "_t");
  auto& t = e.add(n, "Transpose", {inputs[1]}, {transposed});
  setInts(t, "perm", {1, 0});
  const bool hasBias = inputs.size() > 2 && !inputs[2].empty();
  const std::string product = hasBias ? e.fresh(e.name(n.result()) + "_mm") : e.name(n.result());
  e.add(n, "MatMul", {inputs[0], transposed}, {product});
  if (hasBias) e.add(n, "Add", {product, inputs[2]}, outputNames(e, n));
  return {};
}

Status clip(Exporter& e, const Node& n) {
  const double low = n.real("min"), high = n.real("max");
  e.add(n, "Clip", {e.name(n.operand(0)), std::isinf(low) ? "" : e.scalar(static_cast<float>(low)), std::isinf(high) ? "" : e.scalar(static_cast<float>(high))},
        outputNames(e, n));
  return {};
}

Status silu(Exporter& e, const Node& n) {
  const std::string gate = e.fresh(e.name(n.result()) + "_sigmoid"), x = e.name(n.operand(0));
  e.add(n, "Sigmoid", {x}, {gate});
  e.add(n, "Mul", {x, gate}, outputNames(e, n));
  return {};
}

Status mish(Exporter& e, const Node& n) {
  const std::string a = e.fresh(e.name(n.result()) + "_softplus"), b = e.fresh(e.name(n.result()) + "_tanh"), x = e.name(n.operand(0));
  e.add(n, "Softplus", {x}, {a});
  e.add(n, "Tanh", {a}, {b});
  e.add(n, "Mul", {x, b}, outputNames(e, n));
  return {};
}

// As x * clip(x + 3, 0, 6) / 6: HardSwish itself came with opset 14.
Status hardswish(Exporter& e, const Node& n) {
  e.needOpset(14);
  e.add(n, "HardSwish", inputNames(e, n), outputNames(e, n));
  return {};
}

Status gelu(Exporter& e, const Node& n) {
  e.needOpset(20);
  auto& proto = e.add(n, "Gelu", inputNames(e, n), outputNames(e, n));
  setString(proto, "approximate", n.string("approximate"));
  return {};
}

Convert reduceAttr(const char* op) {
  return [op](Exporter& e, const Node& n) -> Status {
    // The axes became an operand with opset 18.
    const bool asOperand = e.opset() >= 18;
    std::vector<std::string> inputs = inputNames(e, n);
    if (asOperand) inputs.push_back(e.ints(n.integers("axes")));
    auto& proto = e.add(n, op, inputs, outputNames(e, n));
    if (!asOperand) setInts(proto, "axes", n.integers("axes"));
    setInt(proto, "keepdims", n.integer("keepdims"));
    return {};
  };
}

Status reduceSum(Exporter& e, const Node& n) {
  auto& proto = e.add(n, "ReduceSum", {e.name(n.operand(0)), e.ints(n.integers("axes"))}, outputNames(e, n));
  setInt(proto, "keepdims", n.integer("keepdims"));
  return {};
}

Convert withAxis(const char* op) {
  return [op](Exporter& e, const Node& n) -> Status {
    auto& proto = e.add(n, op, inputNames(e, n), outputNames(e, n));
    setInt(proto, "axis", n.integer("axis"));
    return {};
  };
}

Status slice(Exporter& e, const Node& n) {
  const Ints &starts = n.integers("starts"), &sizes = n.integers("sizes"), &steps = n.integers("steps");
  Ints ends, axes;
  for (size_t d = 0; d < starts.size(); ++d) {
    const int64_t end = starts[d] + sizes[d] * steps[d];
    ends.push_back(end < 0 ? INT64_MIN + 1 : end);
    axes.push_back(static_cast<int64_t>(d));
  }
  e.add(n, "Slice", {e.name(n.operand(0)), e.ints(starts), e.ints(ends), e.ints(axes), e.ints(steps)}, outputNames(e, n));
  return {};
}

Status pad(Exporter& e, const Node& n) {
  auto& proto = e.add(n, "Pad", {e.name(n.operand(0)), e.ints(n.integers("pads")), e.scalar(static_cast<float>(n.real("value")))}, outputNames(e, n));
  setString(proto, "mode", n.string("mode"));
  if (n.string("mode") == "wrap") e.needOpset(19);
  return {};
}

Status resize(Exporter& e, const Node& n) {
  const auto& scales = n.attrs().reals("scales");
  QC_TRY(requireFirst(n));
  // Sizes when the scales follow from them; else scales, from which ONNX computes the same sizes.
  const Ints in = n.operand(0)->type().sizes();
  bool follows = true;
  for (size_t d = 0; d < scales.size(); ++d) follows = follows && scales[d] == static_cast<double>(n.integers("sizes")[d]) / static_cast<double>(std::max<int64_t>(in[d], 1));
  std::vector<float> floats(scales.begin(), scales.end());
  auto& proto = follows ? e.add(n, "Resize", {e.name(n.operand(0)), "", "", e.ints(n.integers("sizes"))}, outputNames(e, n))
                        : e.add(n, "Resize", {e.name(n.operand(0)), "", e.initializer("scales", Tensor::ofFloats({static_cast<int64_t>(floats.size())}, floats))}, outputNames(e, n));
  setString(proto, "mode", n.string("mode"));
  setString(proto, "coordinate_transformation_mode", n.string("coordinate"));
  setString(proto, "nearest_mode", n.string("nearest"));
  setFloat(proto, "cubic_coeff_a", n.real("cubic_a"));
  setInt(proto, "exclude_outside", n.integer("exclude_outside"));
  if (n.string("coordinate") == "half_pixel_symmetric") e.needOpset(19);
  return {};
}

Status quantizeLinear(Exporter& e, const Node& n) {
  const QuantParams& q = *n.result()->type().quant;
  const auto [scale, zero] = e.quantParams(q, e.name(n.result()));
  auto& proto = e.add(n, "QuantizeLinear", {e.name(n.operand(0)), scale, zero}, outputNames(e, n));
  if (q.perChannel()) setInt(proto, "axis", q.axis);
  if (sizeOf(q.storage) == 2) e.needOpset(21);
  return {};
}

Status dequantizeLinear(Exporter& e, const Node& n) {
  const QuantParams& q = *n.operand(0)->type().quant;
  if (q.blockSize) return fail(ErrorCode::kUnsupported, "block-wise quantization cannot be exported").at(n.location());
  const auto [scale, zero] = e.quantParams(q, e.name(n.result()));
  auto& proto = e.add(n, "DequantizeLinear", {e.name(n.operand(0)), scale, zero}, outputNames(e, n));
  if (q.perChannel()) setInt(proto, "axis", q.axis);
  return {};
}

const std::map<std::string, Convert, std::less<>>& table() {
  static const std::map<std::string, Convert, std::less<>> kRows = {
      {"relu", same("Relu")}, {"sigmoid", same("Sigmoid")}, {"tanh", same("Tanh")}, {"exp", same("Exp")}, {"log", same("Log")}, {"sqrt", same("Sqrt")},
      {"neg", same("Neg")}, {"abs", same("Abs")}, {"reciprocal", same("Reciprocal")}, {"floor", same("Floor")}, {"ceil", same("Ceil")},
      {"round", same("Round")}, {"sign", same("Sign")}, {"sin", same("Sin")}, {"cos", same("Cos")}, {"tan", same("Tan")}, {"erf", same("Erf")},
      {"softplus", same("Softplus")}, {"softsign", same("Softsign")}, {"leaky_relu", same("LeakyRelu", {"alpha"})}, {"elu", same("Elu", {"alpha"})},
      {"celu", same("Celu", {"alpha"})}, {"selu", same("Selu", {"alpha", "gamma"})}, {"thresholded_relu", same("ThresholdedRelu", {"alpha"})},
      {"hardsigmoid", same("HardSigmoid", {"alpha", "beta"})}, {"hardswish", hardswish}, {"silu", silu}, {"mish", mish}, {"gelu", gelu}, {"clip", clip},
      {"identity", same("Identity")}, {"not", same("Not")},
      {"add", same("Add")}, {"sub", same("Sub")}, {"mul", same("Mul")}, {"div", same("Div")}, {"pow", same("Pow")}, {"min", same("Min")}, {"max", same("Max")},
      {"prelu", same("PRelu")}, {"equal", same("Equal")}, {"greater", same("Greater")}, {"less", same("Less")}, {"greater_equal", same("GreaterOrEqual")},
      {"less_equal", same("LessOrEqual")}, {"and", same("And")}, {"or", same("Or")}, {"xor", same("Xor")}, {"where", same("Where")},
      {"conv", [](Exporter& e, const Node& n) { return convWith(e, n, "Conv"); }},
      {"conv_transpose", [](Exporter& e, const Node& n) { return convWith(e, n, "ConvTranspose"); }},
      {"linear", linear}, {"matmul", same("MatMul")},
      {"max_pool", [](Exporter& e, const Node& n) { return poolWith(e, n, "MaxPool"); }},
      {"avg_pool", [](Exporter& e, const Node& n) { return poolWith(e, n, "AveragePool"); }},
      {"batch_norm", same("BatchNormalization", {"epsilon"})}, {"instance_norm", same("InstanceNormalization", {"epsilon"})},
      {"layer_norm", [](Exporter& e, const Node& n) -> Status {
         e.needOpset(17);
         std::vector<std::string> inputs = inputNames(e, n);
         if (inputs.size() < 2 || inputs[1].empty()) {
           const Ints sizes = n.operand(0)->type().sizes();
           Tensor ones(DType::f32, Ints(sizes.begin() + n.integer("axis"), sizes.end()));
           for (float& v : ones.mutableAs<float>()) v = 1.0f;
           inputs.resize(std::max<size_t>(inputs.size(), 2));
           inputs[1] = e.initializer("ones", ones);
         }
         auto& proto = e.add(n, "LayerNormalization", inputs, outputNames(e, n));
         setFloat(proto, "epsilon", n.real("epsilon"));
         setInt(proto, "axis", n.integer("axis"));
         return {};
       }},
      {"softmax", withAxis("Softmax")}, {"log_softmax", withAxis("LogSoftmax")}, {"concat", withAxis("Concat")}, {"gather", withAxis("Gather")},
      {"gather_elements", withAxis("GatherElements")},
      {"reduce_mean", reduceAttr("ReduceMean")}, {"reduce_max", reduceAttr("ReduceMax")}, {"reduce_min", reduceAttr("ReduceMin")},
      {"reduce_prod", reduceAttr("ReduceProd")}, {"reduce_sum", reduceSum},
      {"argmax", [](Exporter& e, const Node& n) -> Status {
         auto& proto = e.add(n, "ArgMax", inputNames(e, n), outputNames(e, n));
         setInt(proto, "axis", n.integer("axis"));
         setInt(proto, "keepdims", n.integer("keepdims"));
         setInt(proto, "select_last_index", n.integer("select_last"));
         return {};
       }},
      {"reshape", [](Exporter& e, const Node& n) -> Status {
         e.add(n, "Reshape", {e.name(n.operand(0)), e.ints(n.integers("shape"))}, outputNames(e, n));
         return {};
       }},
      {"transpose", [](Exporter& e, const Node& n) -> Status {
         setInts(e.add(n, "Transpose", inputNames(e, n), outputNames(e, n)), "perm", n.integers("perm"));
         return {};
       }},
      {"split", [](Exporter& e, const Node& n) -> Status {
         setInt(e.add(n, "Split", {e.name(n.operand(0)), e.ints(n.integers("sizes"))}, outputNames(e, n)), "axis", n.integer("axis"));
         return {};
       }},
      {"expand", [](Exporter& e, const Node& n) -> Status {
         e.add(n, "Expand", {e.name(n.operand(0)), e.ints(n.integers("shape"))}, outputNames(e, n));
         return {};
       }},
      {"tile", [](Exporter& e, const Node& n) -> Status {
         e.add(n, "Tile", {e.name(n.operand(0)), e.ints(n.integers("repeats"))}, outputNames(e, n));
         return {};
       }},
      {"depth_to_space", [](Exporter& e, const Node& n) -> Status {
         QC_TRY(requireFirst(n));
         auto& proto = e.add(n, "DepthToSpace", inputNames(e, n), outputNames(e, n));
         setInt(proto, "blocksize", n.integer("blocksize"));
         setString(proto, "mode", n.string("mode"));
         return {};
       }},
      {"space_to_depth", [](Exporter& e, const Node& n) -> Status {
         QC_TRY(requireFirst(n));
         setInt(e.add(n, "SpaceToDepth", inputNames(e, n), outputNames(e, n)), "blocksize", n.integer("blocksize"));
         return {};
       }},
      {"lrn", [](Exporter& e, const Node& n) -> Status {
         auto& proto = e.add(n, "LRN", inputNames(e, n), outputNames(e, n));
         setInt(proto, "size", n.integer("size"));
         for (const char* r : {"alpha", "beta", "bias"}) setFloat(proto, r, n.real(r));
         return {};
       }},
      {"cast", [](Exporter& e, const Node& n) -> Status {
         setInt(e.add(n, "Cast", inputNames(e, n), outputNames(e, n)), "to", dtypeToOnnx(n.result()->type().dtype));
         return {};
       }},
      {"slice", slice}, {"pad", pad}, {"resize", resize}, {"quantize", quantizeLinear}, {"dequantize", dequantizeLinear},
  };
  return kRows;
}

std::pair<std::string, std::string> Exporter::quantParams(const QuantParams& q, const std::string& base) {
  auto& known = quantNames_[toString(q)];
  if (!known.first.empty()) return known;
  const bool vector = q.perChannel();
  const auto count = static_cast<int64_t>(q.scales.size());
  const Ints sizes = vector ? Ints{count} : Ints{};
  Tensor zero(q.storage, sizes);
  void* data = zero.mutableData();
  for (int64_t i = 0; i < count; ++i) storeElement(q.storage, data, i, q.zeroPoint(i));
  known.first = initializer(base + "_scale", Tensor::ofFloats(sizes, q.scales));
  known.second = initializer(base + "_zero_point", zero);
  return known;
}

void Exporter::describe(onnx::ValueInfoProto& info, const Value* v, const std::string& name) {
  info.set_name(name);
  auto& type = *info.mutable_type()->mutable_tensor_type();
  type.set_elem_type(dtypeToOnnx(v->type().dtype));
  for (const Dim& d : v->type().shape) {
    auto& dim = *type.mutable_shape()->add_dim();
    if (d.isStatic())
      dim.set_dim_value(d.size());
    else
      dim.set_dim_param(d.str());
  }
}

Result<std::string> Exporter::run() {
  onnx::ModelProto model;
  model.set_producer_name("qcompile");
  proto_ = model.mutable_graph();
  proto_->set_name(graph_.name());
  // Outputs first: the value that is returned carries the user's name for it.
  for (size_t i = 0; i < graph_.inputs().size(); ++i) taken_.insert(names_[graph_.inputs()[i]] = graph_.inputs()[i]->name());
  std::vector<std::pair<const Value*, std::string>> aliases;
  for (size_t i = 0; i < graph_.outputs().size(); ++i) {
    const Value* v = graph_.outputs()[i];
    const std::string& name = graph_.outputNames()[i];
    const bool direct = v->producer() && !v->constant() && !names_.contains(v) && taken_.insert(name).second;
    if (direct)
      names_[v] = name;
    else
      aliases.emplace_back(v, name);
  }
  for (const auto& [v, name] : aliases) taken_.insert(name);
  for (const Node* n = graph_.front(); n; n = n->next()) {
    for (int i = 0; i < n->numResults(); ++i)
      if (!names_.contains(n->result(i)))
        names_[n->result(i)] = n->is("const") ? initializer(n->result(i)->name(), n->constant()) : fresh(n->result(i)->name());
    if (n->is("const")) continue;
    const auto row = table().find(n->op());
    if (row == table().end() || (n->attrs().find("post") && !n->string("post").empty()))
      return fail(ErrorCode::kUnsupported, "'{}' has no ONNX form here", n->op()).at(n->location()).help("save as .qir instead");
    QC_TRY(row->second(*this, *n));
  }
  for (const Value* v : graph_.inputs()) describe(*proto_->add_input(), v, v->name());
  for (size_t i = 0; i < graph_.outputs().size(); ++i) describe(*proto_->add_output(), graph_.outputs()[i], graph_.outputNames()[i]);
  for (const auto& [v, name] : aliases) {
    auto& identity = *proto_->add_node();
    identity.set_op_type("Identity");
    identity.add_input(names_.at(v));
    identity.add_output(name);
  }
  model.set_ir_version(opset_ >= 21 ? 10 : opset_ >= 19 ? 9 : 8);
  auto& opset = *model.add_opset_import();
  opset.set_domain("");
  opset.set_version(opset_);
  std::string bytes;
  if (!model.SerializeToString(&bytes)) return fail(ErrorCode::kResource, "the model is larger than protobuf allows");
  return bytes;
}

}  // namespace

Result<std::string> exportOnnx(const Graph& graph) {
  // Some ops are written differently in later opsets, and which opset is needed is known at the end: then once more.
  Exporter first(graph, 13);
  QC_ASSIGN(std::string bytes, first.run());
  if (first.opset() < 18) return bytes;
  return Exporter(graph, first.opset()).run();
}

}  // namespace qc
