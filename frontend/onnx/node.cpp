#include "frontend/onnx/node.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>

#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/tensor.h"
#include "ir/branches.h"
#include "ir/constant_view.h"
#include "ir/decided_sizes.h"
#include "ir/interp.h"
#include "ir/op_def.h"

namespace qc {

using onnx::AttributeProto;

OnnxNode::OnnxNode(const onnx::NodeProto& proto, std::vector<Value*> inputs, std::string location, const OnnxSurroundings& around)
    : proto_(proto),
      opset_(around.opset),
      inputs_(std::move(inputs)),
      graph_(around.graph),
      budget_(around.budget),
      folder_(around.folder),
      location_(std::move(location)),
      reads_(around.reads),
      symbols_(around.symbols) {}

std::string_view OnnxNode::op() const { return proto_.op_type(); }
int OnnxNode::numOutputs() const { return proto_.output_size(); }
bool OnnxNode::outputUsed(int i) const {
  return i >= 0 && i < proto_.output_size() && !proto_.output(i).empty() && reads_.contains(proto_.output(i));
}

bool OnnxNode::has(std::string_view name) const {
  return std::any_of(proto_.attribute().begin(), proto_.attribute().end(), [&](const AttributeProto& a) { return a.name() == name; });
}

Result<const AttributeProto*> OnnxNode::attribute(std::string_view name, int kind) const {
  for (const AttributeProto& a : proto_.attribute()) {
    if (a.name() != name) continue;
    if (!a.ref_attr_name().empty()) return error(ErrorCode::kUnsupported, "attribute `{}` refers to a function's attribute", name);
    // Files of IR 3 may lack the type; then the field that is filled tells.
    if (a.type() != kind && a.type() != AttributeProto::UNDEFINED)
      return error(ErrorCode::kInvalidModel, "attribute `{}` is {}, expected {}", name, AttributeProto::AttributeType_Name(a.type()),
                   AttributeProto::AttributeType_Name(static_cast<AttributeProto::AttributeType>(kind)));
    return &a;
  }
  return static_cast<const AttributeProto*>(nullptr);
}

namespace {
template <class T>
Result<T> orDefault(const OnnxNode& node, std::string_view name, std::optional<T> byDefault) {
  if (byDefault) return *std::move(byDefault);
  return node.error(ErrorCode::kInvalidModel, "attribute `{}` is missing", name);
}

// What a value is computed of, constants aside: inputs and what decides; sizes that data decides; sizes of inputs.
struct Sources {
  bool data = false, decided = false, sizes = false;
};

template <class IsDecided>
Sources sourcesOf(const Value* v, const IsDecided& isDecided) {
  Sources sources;
  std::unordered_set<const Node*> seen;
  std::vector<const Value*> open = {v};
  while (!open.empty()) {
    const Node* node = open.back()->producer();
    open.pop_back();
    if (!node || decidesSizes(*node)) {
      sources.data = true;
      continue;
    }
    if (!seen.insert(node).second) continue;
    if (node->is("dims"))
      for (const DimExpr& e : node->attrs().dims("values")) (isDecided(e) ? sources.decided : sources.sizes) = true;
    for (const Value* operand : node->operands())
      if (operand) open.push_back(operand);
  }
  return sources;
}

}  // namespace

Result<int64_t> OnnxNode::integer(std::string_view name, std::optional<int64_t> byDefault) const {
  QC_ASSIGN(const AttributeProto* a, attribute(name, AttributeProto::INT));
  return a ? Result<int64_t>(a->i()) : orDefault(*this, name, byDefault);
}

Result<double> OnnxNode::real(std::string_view name, std::optional<double> byDefault) const {
  QC_ASSIGN(const AttributeProto* a, attribute(name, AttributeProto::FLOAT));
  return a ? Result<double>(a->f()) : orDefault(*this, name, byDefault);
}

Result<std::string> OnnxNode::string(std::string_view name, std::optional<std::string> byDefault) const {
  QC_ASSIGN(const AttributeProto* a, attribute(name, AttributeProto::STRING));
  return a ? Result<std::string>(a->s()) : orDefault(*this, name, std::move(byDefault));
}

Result<std::vector<int64_t>> OnnxNode::integers(std::string_view name, std::optional<std::vector<int64_t>> byDefault) const {
  QC_ASSIGN(const AttributeProto* a, attribute(name, AttributeProto::INTS));
  return a ? Result<std::vector<int64_t>>(std::vector<int64_t>(a->ints().begin(), a->ints().end()))
           : orDefault(*this, name, std::move(byDefault));
}

Result<std::vector<double>> OnnxNode::reals(std::string_view name, std::optional<std::vector<double>> byDefault) const {
  QC_ASSIGN(const AttributeProto* a, attribute(name, AttributeProto::FLOATS));
  return a ? Result<std::vector<double>>(std::vector<double>(a->floats().begin(), a->floats().end()))
           : orDefault(*this, name, std::move(byDefault));
}

Result<std::vector<std::string>> OnnxNode::strings(std::string_view name, std::optional<std::vector<std::string>> byDefault) const {
  QC_ASSIGN(const AttributeProto* a, attribute(name, AttributeProto::STRINGS));
  if (!a) return orDefault(*this, name, std::move(byDefault));
  return std::vector<std::string>(a->strings().begin(), a->strings().end());
}

Result<Tensor> OnnxNode::tensor(std::string_view name) const {
  QC_ASSIGN(const AttributeProto* a, attribute(name, AttributeProto::TENSOR));
  if (!a) return error(ErrorCode::kInvalidModel, "attribute `{}` is missing", name);
  QC_ASSIGN(Tensor t, tensorFromOnnx(a->t(), folder_));
  return withoutHalves(std::move(t));
}

Result<const onnx::GraphProto*> OnnxNode::subgraph(std::string_view name) const {
  QC_ASSIGN(const AttributeProto* a, attribute(name, AttributeProto::GRAPH));
  if (!a) return error(ErrorCode::kInvalidModel, "attribute `{}` is missing", name);
  return &a->g();
}

Result<const Tensor*> OnnxNode::constant(int i, std::string_view what) const {
  const Value* v = input(i);
  if (!v) return error(ErrorCode::kInvalidModel, "{} is missing", what);
  if (const Tensor* t = v->constant()) return t;
  // Quantized models keep even pad values as integers.
  if (v->producer() && v->producer()->is("dequantize") && v->producer()->operand(0)->constant()) {
    QC_ASSIGN(auto folded, foldNode(*v->producer()));
    if (folded) {
      Builder b(graph_);
      return b.constant({}, std::move(folded->front()))->constant();
    }
  }
  return tl::make_unexpected(Error(
      error(ErrorCode::kUnsupported, "{} must be known when the model is loaded, but it is computed from its inputs", what)
          .on(v->name())
          .help("fix it: sizes of inputs with LoadOptions::shapes NAME=1x3x224x224, the value of an input with LoadOptions::values "
                "NAME=VALUE; where it depends on the data, export the model in a form that does not need it (Where in place of If)")));
}

Result<std::vector<int64_t>> OnnxNode::constantInts(int i, std::string_view what) const {
  QC_ASSIGN(const Tensor* t, constant(i, what));
  if (!isInteger(t->dtype())) return error(ErrorCode::kInvalidModel, "{} is {}, expected integers", what, t->type().str());
  if (t->numElements() > 65536) return error(ErrorCode::kInvalidModel, "{} has {} entries", what, t->numElements());
  return t->toInts();
}

Result<std::vector<DimExpr>> OnnxNode::constantDims(int i, std::string_view what, Sign sign) const {
  if (const auto values = followsFromDims(input(i)) ? dimValuesOf(input(i)) : std::nullopt) {
    if (std::none_of(values->elements.begin(), values->elements.end(), [](const DimExpr& e) { return e.isUnknown(); }))
      return values->elements;
    return tl::make_unexpected(Error(error(ErrorCode::kUnsupported, "{} holds sizes that cannot be written in those of the inputs", what)
                                         .on(input(i)->name())
                                         .help("bind the free dims of the inputs")));
  }
  if (Value* v = input(i); v && !v->constant()) {
    QC_ASSIGN(auto computed, computedDims(v, sign));
    if (computed) return *std::move(computed);
  }
  QC_ASSIGN(const std::vector<int64_t> values, constantInts(i, what));
  return std::vector<DimExpr>(values.begin(), values.end());
}

std::vector<DimExpr> OnnxNode::freshSizes(size_t count) const {
  std::string base = "n_" + (proto_.output_size() > 0 ? proto_.output(0) : std::string(op()));
  for (char& c : base)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  base.resize(std::min<size_t>(base.size(), 16));  // expressions of it are to stay short
  std::vector<DimExpr> sizes;
  for (int next = 1; sizes.size() < count; ++next)
    if (std::string name = next == 1 ? base : fmt::format("{}_{}", base, next);
        !symbols_.inputs.contains(name) && symbols_.decided.insert(name).second)
      sizes.push_back(DimExpr::symbol(name));
  return sizes;
}

bool OnnxNode::isDecided(const DimExpr& e) const {
  const std::set<std::string> own = e.symbols();
  return std::any_of(own.begin(), own.end(), [&](const std::string& s) { return symbols_.decided.contains(s); });
}

bool OnnxNode::isOfSizes(const Value* v) const {
  const Sources s = sourcesOf(v, [&](const DimExpr& e) { return isDecided(e); });
  return (s.sizes || s.decided) && !s.data;
}

// At first as for sizes that are large and all different.
bool OnnxNode::holdsAsTaken(Assumption condition) {
  Ways& ways = symbols_.ways;
  const Assumption opposite = condition.negated();
  for (const Assumption& a : ways.taken)
    for (const bool holds : {true, false})
      if (const Assumption& same = holds ? condition : opposite; a.kind == same.kind && a.left == same.left && a.right == same.right)
        return holds;
  if (ways.asked == ways.all.size()) {
    ways.all.push_back({condition.holdsAt(unlikeSizes(condition.symbols())).value_or(false)});
  }
  const bool holds = ways.all[ways.asked++].holds;
  ways.taken.push_back(holds ? std::move(condition) : opposite);
  ways.taken.back().node = location_;
  return holds;
}

void OnnxNode::assumeSize(const DimExpr& e, int64_t size) { symbols_.ways.taken.push_back({Assumption::Kind::equal, e, size, location_}); }

bool OnnxNode::isOfDecidedSizes(const Value* v) const {
  const Sources s = sourcesOf(v, [&](const DimExpr& e) { return isDecided(e); });
  return s.decided && !s.data;
}

// Whether it is computed of anything: by data, or by arithmetic over sizes that is not an expression of dims. The latter is a constant once
// those are bound.
bool OnnxNode::isComputed(const Value* v) const {
  const Sources s = sourcesOf(v, [&](const DimExpr& e) { return isDecided(e); });
  return s.data || s.decided || s.sizes;
}

// Element by element, as far as they are put together from such; nothing: the value is not a list of sizes, or sizes of inputs settle it.
Result<std::optional<std::vector<DimExpr>>> OnnxNode::computedDims(Value* v, Sign sign) const {
  if (const auto values = dimValuesOf(v)) return std::optional(values->elements);
  const DType dtype = v->type().dtype;
  const Node* node = v->producer();
  if (!v->type().isStatic() || v->type().rank() > 1 || v->type().numElements() > 16 || (dtype != DType::s64 && dtype != DType::s32))
    return std::nullopt;
  const bool renamed = node && (node->is("reshape") || node->is("cast")) && isInteger(node->operand(0)->type().dtype);
  if (renamed || (node && node->is("concat"))) {
    std::vector<DimExpr> all;
    for (Value* piece : node->operands()) {
      QC_ASSIGN(const auto elements, computedDims(piece, sign));
      if (!elements) return std::nullopt;
      all.insert(all.end(), elements->begin(), elements->end());
    }
    return std::optional(std::move(all));
  }
  if (!symbols_.mayCompute || !isComputed(v)) return std::nullopt;
  const int64_t isSigned = sign == Sign::any ? 1 : 0, count = v->type().numElements();
  symbols_.computed = true;
  if (sign == Sign::target) return std::optional(std::vector<DimExpr>(usize(count), DimExpr::unknown()));
  std::optional<std::vector<DimExpr>> sizes;
  for (const Node* user : v->users())
    if (user->is("size_of") && !user->operand("like") && user->integer("signed") == isSigned) sizes = user->attrs().dims("sizes");
  if (!sizes) {
    sizes = freshSizes(usize(count * (1 + isSigned)));
    Builder b(graph_);
    b.at(location_);
    QC_TRY(b.createNode("size_of", {v}, {{"sizes", *sizes}, {"signed", isSigned}}));
  }
  for (int64_t k = 0; isSigned && k < count; ++k) nth(*sizes, k) = nth(*sizes, 2 * k) - nth(*sizes, 2 * k + 1);
  sizes->resize(usize(count));
  return sizes;
}

Result<double> OnnxNode::constantScalar(int i, std::string_view what) const {
  QC_ASSIGN(const Tensor* t, constant(i, what));
  if (t->numElements() != 1) return error(ErrorCode::kInvalidModel, "{} is {}, expected one value", what, t->type().str());
  return t->at(0);
}

Result<int64_t> OnnxNode::constantInteger(int i, std::string_view what) const {
  QC_ASSIGN(const Tensor* t, constant(i, what));
  if (t->numElements() != 1) return error(ErrorCode::kInvalidModel, "{} is {}, expected one value", what, t->type().str());
  if (isInteger(t->dtype())) return t->toInts().front();
  const double value = t->at(0);
  if (!(std::abs(value) < 1e15) || value != std::floor(value))
    return error(ErrorCode::kInvalidModel, "{} is {}, expected a whole number", what, value);
  return static_cast<int64_t>(value);
}

Result<std::optional<std::vector<int64_t>>> OnnxNode::intsFrom(int operand, std::string_view attribute) const {
  if (input(operand)) {
    QC_ASSIGN(std::vector<int64_t> values, constantInts(operand, attribute));
    return std::optional(std::move(values));
  }
  if (!has(attribute)) return std::optional<std::vector<int64_t>>();
  QC_ASSIGN(std::vector<int64_t> values, integers(attribute));
  return std::optional(std::move(values));
}

Result<int64_t> OnnxNode::axis(int64_t value, int64_t rank) const {
  if (value < -rank || value >= rank) return error(ErrorCode::kInvalidModel, "axis {} of a tensor with {} dims", value, rank);
  return value < 0 ? value + rank : value;
}

Result<std::vector<int64_t>> OnnxNode::axes(std::vector<int64_t> values, int64_t rank) const {
  for (int64_t& v : values) {
    QC_ASSIGN(v, axis(v, rank));
  }
  std::sort(values.begin(), values.end());
  if (std::adjacent_find(values.begin(), values.end()) != values.end()) return error(ErrorCode::kInvalidModel, "an axis is named twice");
  return values;
}

Result<std::vector<Value*>> OnnxNode::createAll(std::string_view op, std::vector<Value*> operands, AttrDict attrs) {
  Builder b(graph_);
  b.at(location_);
  QC_ASSIGN(Node * node, b.createNode(op, std::move(operands), std::move(attrs)));
  std::vector<Value*> results;
  // The integers of weights stay visible: dequantize is not folded, nor is a large cast to more bits.
  constexpr int64_t kLarge = int64_t{1} << 16;
  std::optional<std::vector<Tensor>> folded;
  if (decidesSizes(*node)) {
    int64_t elements = 0;  // what decides a lot had better do so where the model runs
    for (const Value* v : node->operands()) elements += v && v->constant() ? v->constant()->numElements() : 0;
    if (elements <= kLarge) {
      QC_ASSIGN(folded, foldDeciding(*node, FoldBudget::kGrowthOfOne));
    }
  } else if (!node->is("dequantize") &&
             !(widenedIntegers(*node) && node->operand(0)->constant() && node->operand(0)->type().byteSize() > kLarge)) {
    QC_ASSIGN(folded, foldNode(*node, budget_));
  }
  for (int i = 0; i < node->numResults(); ++i) results.push_back(node->result(i));
  if (!folded) {
    QC_ASSIGN(const auto values, foldDims(*node, [&](Assumption condition) { return holdsAsTaken(std::move(condition)); }));
    if (values) {
      for (size_t i = 0; i < results.size(); ++i) results[i] = makeDimValues(b, (*values)[i]);
      graph_.erase(node);
    }
  }
  if (!folded) return results;
  for (size_t i = 0; i < results.size(); ++i) results[i] = b.constant({}, std::move((*folded)[i]), results[i]->type().quant);
  recordViews(*node, results);
  graph_.erase(node);
  return results;
}

Result<Value*> OnnxNode::create(std::string_view op, std::vector<Value*> operands, AttrDict attrs) {
  QC_ASSIGN(const std::vector<Value*> results, createAll(op, std::move(operands), std::move(attrs)));
  return results.front();
}

Value* OnnxNode::constantValue(Tensor tensor, QuantPtr quant) {
  Builder b(graph_);
  b.at(location_);
  return b.constant({}, std::move(tensor), std::move(quant));
}

Value* OnnxNode::scalar(float value) { return constantValue(Tensor::ofFloats({}, std::vector{value})); }
Value* OnnxNode::ints(const std::vector<int64_t>& values) {
  return constantValue(Tensor::ofInts({static_cast<int64_t>(values.size())}, values));
}
Value* OnnxNode::dimValues(std::vector<int64_t> sizes, std::vector<DimExpr> elements) {
  Builder b(graph_);
  b.at(location_);
  return makeDimValues(b, {DType::s64, std::move(sizes), std::move(elements)});
}

std::vector<DimExpr> OnnxNode::dims(const Value* v) {
  std::vector<DimExpr> dims;
  for (const Dim& dim : v->type().shape) dims.push_back(dim.expr());
  return dims;
}

Result<int64_t> OnnxNode::fixedSize(const DimExpr& size, std::string_view what) const {
  if (const auto known = size.constant()) return *known;
  return tl::make_unexpected(
      Error(error(ErrorCode::kUnsupported, "{} must be known when the model is loaded, but it is {}", what, size.str())
                .help("bind the dims of the inputs that it follows from")));
}

Result<Value*> OnnxNode::reshapeToDims(Value* v, std::vector<DimExpr> shape) {
  return create("reshape", {v}, {{"shape", std::move(shape)}});
}
Result<Value*> OnnxNode::reshape(Value* v, std::vector<int64_t> shape) { return create("reshape", {v}, {{"shape", std::move(shape)}}); }

// A dim that is more than an expression can say, as the sum of a hundred sizes, is a size of its own.
Result<Value*> OnnxNode::withNamedSizes(Value* v) {
  std::vector<int64_t> axes;
  for (int64_t d = 0; v && d < v->type().rank(); ++d)
    if (nth(v->type().shape, d).expr().isUnknown()) axes.push_back(d);
  return axes.empty() ? v : withNamedSizes(v, std::move(axes));
}

Result<Value*> OnnxNode::withNamedSizes(Value* v, std::vector<int64_t> axes) {
  std::vector<DimExpr> sizes = freshSizes(axes.size());
  return create("choose", {constantValue(conditionTensor(true)), v, v}, {{"axes", std::move(axes)}, {"sizes", std::move(sizes)}});
}

Result<DimExpr> OnnxNode::named(const DimExpr& e) {
  if (e.constant()) return e;
  Value* number = dimValues({}, {e});
  const std::vector<DimExpr> parts = freshSizes(2);
  QC_TRY(create("size_of", {number}, {{"sizes", parts}, {"signed", int64_t{1}}}));
  return parts[0] - parts[1];
}

Status OnnxNode::setOutputs(std::vector<Value*> outputs) {
  outputs_ = std::move(outputs);
  for (const Value* v : outputs_)
    if (v && &v->graph() != &graph_) return error(ErrorCode::kInvalidArgument, "an output is a value of another graph");
  for (Value*& v : outputs_) {
    QC_ASSIGN(v, withNamedSizes(v));
  }
  for (int i = 0; i < numOutputs(); ++i)
    if (outputUsed(i) && (i >= static_cast<int>(outputs_.size()) || !nth(outputs_, i)))
      return error(ErrorCode::kUnsupported, "output {} ('{}') is not supported", i, proto_.output(i));
  return {};
}

}  // namespace qc
