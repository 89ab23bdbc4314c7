// A Loop or Scan that sizes or data give its number of rounds stays a loop (ir/loops.h).  Its body is read by an importer of its own, as a
// graph whose inputs are the carried values and those of the graphs around that it reads; sizes around are symbols in it.
// Tests: tests/unit/onnx_loops_test.cpp, tests/differential/loops_vs_ort.py.
#include <map>
#include <set>
#include <utility>

#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/loop_form.h"
#include "ir/decided_sizes.h"
#include "ir/dim_expr_terms.h"
#include "ir/loops.h"

namespace qc {
namespace {

// What sizes around are called in the body: by their own name where they have one.
class InnerSizes {
 public:
  explicit InnerSizes(const std::set<std::string>& taken) : taken_(taken) {}

  DimExpr of(const DimExpr& around) {
    if (around.constant()) return around;
    if (const auto name = symbolName(around)) {
      around_.emplace(*name, around);
      return around;
    }
    if (around.isUnknown()) return fresh();
    const auto [known, isNew] = names_.try_emplace(around.str());
    if (isNew) {
      known->second = fresh();
      around_.emplace(known->second.str(), around);
    }
    return known->second;
  }
  DimExpr fresh() {
    std::string name;
    do name = fmt::format("s{}", ++count_);
    while (taken_.contains(name));
    own_.insert(name);
    return DimExpr::symbol(name);
  }
  Shape of(const Shape& around) {
    Shape shape;
    for (const Dim& d : around) shape.emplace_back(of(d.expr()));
    return shape;
  }
  // Nothing: it is no size of the values around.
  std::optional<DimExpr> around(const std::string& symbol) const {
    const auto it = around_.find(symbol);
    return it == around_.end() ? std::nullopt : std::optional(it->second);
  }
  std::set<std::string> symbols() const {
    std::set<std::string> all = own_;
    for (const auto& [name, around] : around_) all.insert(name);
    return all;
  }

 private:
  const std::set<std::string>& taken_;
  std::map<std::string, DimExpr> names_, around_;
  std::set<std::string> own_;
  int count_ = 0;
};

std::set<std::string> symbolsOf(const Value* v) {
  std::set<std::string> symbols;
  for (const Dim& d : v->type().shape) symbols.merge(d.expr().symbols());
  if (const auto values = followsFromDims(v) ? dimValuesOf(v) : std::nullopt)
    for (const DimExpr& e : values->elements) symbols.merge(e.symbols());
  return symbols;
}

bool isTrue(const Value* v) { return v->constant() && v->constant()->numElements() == 1 && v->constant()->at(0) != 0; }

Result<Value*> reversed(OnnxNode& n, Value* v, int64_t axis) {
  std::vector<DimExpr> sizes = OnnxNode::dims(v), starts(sizes.size(), 0);
  std::vector<int64_t> steps(sizes.size(), 1);
  nth(starts, axis) = nth(sizes, axis) - 1;
  nth(steps, axis) = -1;
  return n.create("slice", {v}, {{"starts", starts}, {"sizes", sizes}, {"steps", steps}});
}

}  // namespace

// The body and what its inputs behind the number of the round are.
struct OnnxImporter::LoopBody {
  std::set<std::pair<int64_t, int64_t>> changing = {};  // carried values and dims of them that a round changes
  std::set<int64_t> unchanged = {};                     // values that are handed on as they came: the body only reads them
  Graph graph = Graph("body");
  std::vector<Value*> values = {};
  bool isSettled = false;  // no more of either was found
};

Status OnnxImporter::readBody(LoopBody& to, OnnxNode& node, const onnx::GraphProto& body, const LoopForm& form, const OnnxValues& operands,
                              const Frame& frame) {
  if (frame.depth >= kMaxOnnxDepth) return fail(ErrorCode::kResource, "subgraphs nested deeper than {}", kMaxOnnxDepth);
  for (int i = 0; i <= body.node_size(); ++i) QC_TRY(countStep());
  OnnxImporter inner(model_, folder_, options_, weights_, taken_);
  inner.opset_ = frame.opset;
  inner.indexFunctions();
  inner.budget_ = budget_;
  inner.steps_ = steps_;
  inner.graph_ = Graph(body.name().empty() ? "body" : body.name());
  Graph& graph = inner.graph_;
  Builder b(graph);
  b.at(node.location());

  // By name, as the body reads them; a value that it calls by two names is one.
  std::unordered_set<std::string> reads;
  collectReads(body.node(), reads);
  for (const auto& output : body.output()) reads.insert(output.name());
  std::map<std::string, Value*> around;
  std::set<std::string> taken;
  for (const std::string& name : reads) {
    const auto value = frame.scope.find(name);
    if (value && value->sequence)
      return node.error(ErrorCode::kUnsupported, "its body reads '{}', a sequence of tensors, and its number of rounds is not known", name);
    if (!value || !value->tensor) continue;
    around.emplace(name, value->tensor);
    taken.merge(symbolsOf(value->tensor));
  }
  for (int64_t k = 0; k < form.states; ++k) {
    const Value* v = nth(operands, form.firstState + k).tensor;
    if (!v) return node.error(ErrorCode::kUnsupported, "its carried value {} is no tensor, and its number of rounds is not known", k);
    taken.merge(symbolsOf(v));
  }
  for (const LoopForm::Sequence& s : form.sequences) taken.merge(symbolsOf(s.value));
  InnerSizes sizes(taken);
  to.values.clear();
  const auto take = [&](Value* v, TensorType type) {
    to.values.push_back(v);
    return graph.addInput(v->name(), std::move(type));
  };
  const auto typeInside = [&](const Value* v) { return v->type().withShape(sizes.of(v->type().shape)); };

  Value* round = graph.addInput("round", TensorType(DType::s64, {}));
  std::vector<Value*> states(usize(form.states));
  for (int64_t k = 0; k < form.states; ++k) {
    if (to.unchanged.contains(k)) continue;
    Value* v = nth(operands, form.firstState + k).tensor;
    TensorType type = typeInside(v);
    for (int d = 0; d < type.rank(); ++d)
      if (to.changing.contains({k, d})) nth(type.shape, d) = Dim(sizes.fresh());
    nth(states, k) = take(v, std::move(type));
  }
  const size_t carried = to.values.size();
  std::map<const Value*, Value*> inside;
  const auto known = [&](Value* v) {
    Value*& own = inside[v];
    if (own) return own;
    const auto values = followsFromDims(v) ? dimValuesOf(v) : std::nullopt;
    if (v->constant())
      own = b.constant(v->name(), *v->constant(), v->type().quant);
    else if (values && std::ranges::none_of(values->elements, [](const DimExpr& e) { return e.isUnknown(); }))
      own = makeDimValues(b, *values);
    else
      own = take(v, typeInside(v));
    if (values)
      for (const DimExpr& e : values->elements)
        for (const std::string& symbol : e.symbols()) sizes.of(DimExpr::symbol(symbol));
    return own;
  };

  for (const int64_t k : to.unchanged) nth(states, k) = known(nth(operands, form.firstState + k).tensor);

  OnnxScope outside;
  for (const auto& [name, v] : around) outside.define(name, {known(v)});
  OnnxScope constants(&outside);
  QC_TRY(inner.addInitializers(body, constants));
  OnnxScope scope(&constants);
  int next = 0;
  const auto define = [&](Value* v) { return inner.define(scope, body.input(next++).name(), {v}); };
  if (!form.isScan()) {
    Tensor yes(DType::boolean, {});
    storeElement(DType::boolean, yes.mutableData(), 0, 1);
    QC_TRY(define(round));
    QC_TRY(define(b.constant({}, std::move(yes))));
  }
  for (Value* v : states) QC_TRY(define(v));
  for (const LoopForm::Sequence& s : form.sequences) {
    Value* sequence = s.value;
    if (s.backwards) {
      QC_ASSIGN(sequence, reversed(node, sequence, s.axis));
    }
    QC_ASSIGN(Value * element, b.create("gather", {known(sequence), round}, {{"axis", s.axis}}));
    QC_TRY(define(element));
  }
  inner.sizeNames_.inputs = sizes.symbols();
  Frame own{scope, frame.reads, frame.opset, frame.depth + 1, frame.prefix, frame.calls};
  QC_TRY(inner.addNodes(body.node(), own));
  budget_ = inner.budget_;
  steps_ = inner.steps_;

  std::vector<Value*> outputs;
  for (const auto& info : body.output()) {
    const auto value = scope.find(info.name());
    if (!value) return fail(ErrorCode::kInvalidModel, "a subgraph returns a value that it does not compute").on(info.name());
    if (!value->tensor)
      return node.error(ErrorCode::kUnsupported, "its rounds give a sequence of tensors, and their number is not known").on(info.name());
    outputs.push_back(value->tensor);
  }
  if (form.isScan()) {
    Tensor yes(DType::boolean, {});
    storeElement(DType::boolean, yes.mutableData(), 0, 1);
    outputs.insert(outputs.begin(), b.constant({}, std::move(yes)));
  }
  to.isSettled = true;
  for (int64_t k = 0; k < form.states; ++k) {
    const Value *before = nth(states, k), *after = nth(outputs, 1 + k);
    if (to.unchanged.contains(k)) continue;
    if (before == after) {
      to.unchanged.insert(k);
      to.isSettled = false;
      continue;
    }
    const TensorType &from = before->type(), &into = after->type();
    if (from.rank() != into.rank() || from.dtype != into.dtype || !(QuantAttr{from.quant} == QuantAttr{into.quant}))
      return node
          .error(ErrorCode::kUnsupported, "a round takes '{}' as {} and hands on {}, and the number of rounds is not known",
                 body.input(static_cast<int>(form.firstState + k)).name(), from.str(), into.str())
          .help("export with a fixed number of rounds, or with values that keep their type and rank");
    for (int d = 0; d < from.rank(); ++d) {
      const bool same = nth(from.shape, d) == nth(into.shape, d);
      if (!same && to.changing.insert({k, d}).second) to.isSettled = false;
    }
  }
  if (!to.isSettled) return {};
  for (auto k = to.unchanged.rbegin(); k != to.unchanged.rend(); ++k) outputs.erase(outputs.begin() + static_cast<ptrdiff_t>(1 + *k));
  graph.setOutputs(std::move(outputs));
  assume(graph, inner.sizeNames_.ways.taken);
  graph.eraseDeadNodes();

  // What the body does not read after all is none of its inputs; sizes that it needs all the same come by tensors of no elements.
  for (size_t k = to.values.size(); k-- > carried;) {
    Value* v = graph.inputs()[1 + k];
    const bool isKnown = std::ranges::all_of(
        v->type().shape, [&](const Dim& d) { return d.isStatic() || sizes.around(symbolName(d.expr()).value_or("")).has_value(); });
    if (v->hasUses() || v->isOutput() || !isKnown) continue;
    graph.eraseInput(v);
    to.values.erase(to.values.begin() + static_cast<ptrdiff_t>(k));
  }
  std::set<std::string> shown = decidedSymbols(graph), wanted;
  for (const Value* v : graph.inputs())
    for (const Dim& d : v->type().shape) shown.merge(d.expr().symbols());
  for (const Node* n = graph.front(); n; n = n->next()) wanted.merge(qc::symbolsOf(*n));
  for (const Assumption& a : inner.sizeNames_.ways.taken) wanted.merge(a.symbols());
  for (const std::string& symbol : wanted) {
    if (shown.contains(symbol)) continue;
    const auto size = sizes.around(symbol);
    if (!size) return node.error(ErrorCode::kUnsupported, "the size {} in its body cannot be written in those around it", symbol);
    QC_ASSIGN(Value * v, node.create("expand", {node.constantValue(Tensor(DType::u8, {}))}, {{"shape", std::vector<DimExpr>{*size, 0}}}));
    take(v, TensorType(DType::u8, {Dim::symbol(symbol), Dim(0)}));
  }
  to.graph = std::move(graph);
  return {};
}

Result<OnnxValues> OnnxImporter::keepLoop(OnnxNode& node, const onnx::GraphProto& body, const LoopForm& form, const OnnxValues& operands,
                                          const Frame& frame, Value* rounds, Value* condition) {
  LoopBody own;
  while (!own.isSettled) QC_TRY(readBody(own, node, body, form, operands, frame));
  if (condition && isTrue(condition)) condition = nullptr;
  const auto number = rounds ? dimValuesOf(rounds) : std::nullopt;
  const bool isCounted =
      number && number->elements.size() == 1 && number->elements[0].isNonNegative() && !condition && isTrue(own.graph.outputs().front());
  const int64_t carried = form.states - std::ssize(own.unchanged);
  AttrDict attrs = {{"carried", carried}};
  if (isCounted) attrs.set("count", number->elements);
  std::vector<TensorType> types;
  for (const Value* v : own.values) types.push_back(v->type());
  size_t decided = 0;
  const auto decide = [&] {
    ++decided;
    return DimExpr::unknown();
  };
  QC_TRY(loopResults(own.graph, types, carried, [&] { return isCounted ? number->elements[0] : decide(); }, decide));
  attrs.set("sizes", node.freshSizes(decided));
  attrs.set("body", GraphAttr(std::move(own.graph)));
  std::vector<Value*> given = {rounds, condition};
  given.insert(given.end(), own.values.begin(), own.values.end());
  QC_ASSIGN(std::vector<Value*> results, node.createAll("loop", std::move(given), std::move(attrs)));
  for (size_t r = 0; r < form.results.size(); ++r) {
    Value*& v = results[usize(carried) + r];
    const LoopForm::Sequence& s = form.results[r];
    if (s.backwards) {
      QC_ASSIGN(v, reversed(node, v, 0));
    }
    QC_ASSIGN(const int64_t axis, node.axis(s.axis, v->type().rank()));
    std::vector<int64_t> perm;
    for (int64_t d = 1; d < v->type().rank(); ++d) perm.push_back(d);
    perm.insert(perm.begin() + axis, 0);
    if (axis == 0) continue;
    QC_ASSIGN(v, node.create("transpose", {v}, {{"perm", std::move(perm)}}));
  }
  for (const int64_t k : own.unchanged)
    results.insert(results.begin() + static_cast<ptrdiff_t>(k), nth(operands, form.firstState + k).tensor);
  OnnxValues outputs;
  for (Value* v : results) outputs.push_back({v});
  return outputs;
}

}  // namespace qc
