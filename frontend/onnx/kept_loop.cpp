// A Loop or Scan that sizes or data give its number of rounds stays a loop (ir/loops.h).  Its body is read by an importer of its own, as a
// graph whose inputs are the carried values and those of the graphs around that it reads; sizes around are symbols in it.
// Tests: tests/unit/onnx_loops_test.cpp, tests/differential/loops_vs_ort.py.
#include <map>
#include <set>
#include <utility>

#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/loop_form.h"
#include "ir/branches.h"
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
  // Nothing: it is not a size of the values around.
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

// One reading of a body, for what is known by then of its carried values.
class OnnxImporter::BodyReading {
 public:
  struct Carried {
    std::set<std::pair<int64_t, int64_t>> changing;  // values and dims of them that a round changes
    std::set<int64_t> unchanged;                     // values that are handed on as they came: the body only reads them
    bool isSettled = false;                          // the last reading found no more of either
  };
  BodyReading(OnnxImporter& importer, OnnxNode& node, const onnx::GraphProto& body, const LoopForm& form, const OnnxValues& operands,
              const Frame& frame, Carried& carried)
      : importer_(importer), node_(node), body_(body), form_(form), operands_(operands), frame_(frame), carried_(carried) {}

  Status read() {
    if (frame_.depth >= kMaxOnnxDepth) return fail(ErrorCode::kResource, "subgraphs nested deeper than {}", kMaxOnnxDepth);
    for (int i = 0; i <= body_.node_size(); ++i) QC_TRY(importer_.countStep());
    open();
    QC_TRY(findAround());
    QC_TRY(takeInputs());
    inner_.sizeNames_.inputs = sizes_.symbols();
    Frame own{scope_, frame_.reads, frame_.opset, frame_.depth + 1, frame_.prefix, frame_.calls};
    QC_TRY(inner_.addNodes(body_.node(), own));
    importer_.budget_ = inner_.budget_;
    importer_.steps_ = inner_.steps_;
    importer_.sizeNames_.computed |= inner_.sizeNames_.computed;
    QC_TRY(takeOutputs());
    return compareCarried();
  }

  // Of the last reading, with what the inputs of the graph behind the number of the round are.
  Result<std::pair<Graph, std::vector<Value*>>> finished() {
    for (auto k = carried_.unchanged.rbegin(); k != carried_.unchanged.rend(); ++k)
      outputs_.erase(outputs_.begin() + static_cast<ptrdiff_t>(1 + *k));
    inner_.graph_.setOutputs(std::move(outputs_));
    assume(inner_.graph_, inner_.sizeNames_.ways.taken);
    inner_.graph_.eraseDeadNodes();
    dropUnread();
    QC_TRY(takeSizes());
    return std::pair(std::move(inner_.graph_), std::move(values_));
  }

 private:
  void open() {
    inner_.opset_ = frame_.opset;
    inner_.indexFunctions();
    inner_.budget_ = importer_.budget_;
    inner_.steps_ = importer_.steps_;
    inner_.sizeNames_.mayCompute = importer_.sizeNames_.mayCompute;
    inner_.graph_ = Graph(body_.name().empty() ? "body" : body_.name());
    builder_.at(node_.location());
  }

  Failure unknownRounds(std::string_view what) const {
    return node_.error(ErrorCode::kUnsupported, "{}, and the number of its rounds is not known", what)
        .help("export with a fixed number of rounds, or with tensors that keep their type and rank");
  }
  Value* operandOf(int64_t state) const { return nth(operands_, form_.firstState + state).tensor; }

  // The values around by the names that the body reads them by.
  Status findAround() {
    std::unordered_set<std::string> reads;
    collectReads(body_.node(), reads);
    for (const auto& output : body_.output()) reads.insert(output.name());
    for (const std::string& name : reads) {
      const auto value = frame_.scope.find(name);
      if (!value || !(value->tensor || value->isSequence())) continue;
      OnnxValue own = *value;
      if (value->isSequence()) {
        QC_ASSIGN(Value * stack, stackOf(node_, *value));
        own = {.stack = stack};
      }
      taken_.merge(symbolsOf(own.stack ? own.stack : own.tensor));
      around_.emplace(name, std::move(own));
    }
    for (int64_t k = 0; k < form_.states; ++k) {
      if (!operandOf(k) && !nth(operands_, form_.firstState + k).isSequence())
        return node_.error(ErrorCode::kInvalidModel, "its carried value {} is left out", k);
      if (!operandOf(k))
        return unknownRounds(fmt::format("its rounds do more with '{}', a sequence of tensors, than to append to it",
                                         body_.input(static_cast<int>(form_.firstState + k)).name()));
      taken_.merge(symbolsOf(operandOf(k)));
    }
    for (const LoopForm::Sequence& s : form_.sequences) taken_.merge(symbolsOf(s.value));
    return {};
  }

  Value* take(Value* v, TensorType type) {
    values_.push_back(v);
    return inner_.graph_.addInput(v->name(), std::move(type));
  }
  TensorType typeInside(const Value* v) { return v->type().withShape(sizes_.of(v->type().shape)); }

  // A value around: a constant and sizes are the body's own.
  Value* inside(Value* v) {
    Value*& own = inside_[v];
    if (own) return own;
    const auto values = followsFromDims(v) ? dimValuesOf(v) : std::nullopt;
    if (v->constant()) return own = builder_.constant(v->name(), *v->constant(), v->type().quant);
    if (!values || std::ranges::any_of(values->elements, [](const DimExpr& e) { return e.isUnknown(); }))
      return own = take(v, typeInside(v));
    for (const DimExpr& e : values->elements)
      for (const std::string& symbol : e.symbols()) sizes_.of(DimExpr::symbol(symbol));
    return own = makeDimValues(builder_, *values);
  }

  // The carried values first, as a loop has them.
  Status takeInputs() {
    Value* round = inner_.graph_.addInput("round", TensorType(DType::s64, {}));
    states_.resize(usize(form_.states));
    for (int64_t k = 0; k < form_.states; ++k) {
      if (carried_.unchanged.contains(k)) continue;
      TensorType type = typeInside(operandOf(k));
      for (int d = 0; d < type.rank(); ++d)
        if (carried_.changing.contains({k, d})) nth(type.shape, d) = Dim(sizes_.fresh());
      nth(states_, k) = take(operandOf(k), std::move(type));
    }
    for (const int64_t k : carried_.unchanged) nth(states_, k) = inside(operandOf(k));
    for (const auto& [name, v] : around_)
      outside_.define(name, v.stack ? OnnxValue{.stack = inside(v.stack)} : OnnxValue{inside(v.tensor)});
    QC_TRY(inner_.addInitializers(body_, constants_));
    int next = 0;
    const auto define = [&](Value* v) { return inner_.define(scope_, body_.input(next++).name(), {v}); };
    if (!form_.isScan()) {
      QC_TRY(define(round));
      QC_TRY(define(yes()));
    }
    for (Value* v : states_) QC_TRY(define(v));
    for (const LoopForm::Sequence& s : form_.sequences) {
      Value* sequence = s.value;
      if (s.backwards) {
        QC_ASSIGN(sequence, reversed(node_, sequence, s.axis));
      }
      QC_ASSIGN(Value * element, builder_.create("gather", {inside(sequence), round}, {{"axis", s.axis}}));
      QC_TRY(define(element));
    }
    return {};
  }

  Value* yes() { return builder_.constant({}, conditionTensor(true)); }

  Status takeOutputs() {
    if (form_.isScan()) outputs_.push_back(yes());
    for (const auto& info : body_.output()) {
      const auto value = scope_.find(info.name());
      if (!value) return fail(ErrorCode::kInvalidModel, "a subgraph returns a value that it does not compute").on(info.name());
      if (!value->tensor) return unknownRounds(fmt::format("its rounds give '{}', a sequence of tensors", info.name()));
      outputs_.push_back(value->tensor);
    }
    return {};
  }

  Status compareCarried() {
    const size_t known = carried_.changing.size() + carried_.unchanged.size();
    for (int64_t k = 0; k < form_.states; ++k) {
      const Value *before = nth(states_, k), *after = nth(outputs_, 1 + k);
      if (before == after || carried_.unchanged.contains(k)) {
        carried_.unchanged.insert(k);
        continue;
      }
      const TensorType &from = before->type(), &into = after->type();
      if (from.rank() != into.rank() || from.dtype != into.dtype || !(QuantAttr{from.quant} == QuantAttr{into.quant}))
        return unknownRounds(fmt::format("a round takes '{}' as {} and hands on {}",
                                         body_.input(static_cast<int>(form_.firstState + k)).name(), from.str(), into.str()));
      for (int d = 0; d < from.rank(); ++d)
        if (!(nth(from.shape, d) == nth(into.shape, d))) carried_.changing.insert({k, d});
    }
    carried_.isSettled = known == carried_.changing.size() + carried_.unchanged.size();
    return {};
  }

  // What the body does not read after all is none of its inputs, where its sizes are those of values around.
  void dropUnread() {
    Graph& graph = inner_.graph_;
    const size_t carried = states_.size() - carried_.unchanged.size();
    const auto isKnown = [&](const Dim& d) { return d.isStatic() || sizes_.around(symbolName(d.expr()).value_or("")).has_value(); };
    for (size_t k = values_.size(); k-- > carried;) {
      Value* v = graph.inputs()[1 + k];
      if (v->hasUses() || v->isOutput() || !std::ranges::all_of(v->type().shape, isKnown)) continue;
      graph.eraseInput(v);
      values_.erase(values_.begin() + static_cast<ptrdiff_t>(k));
    }
  }

  // Sizes that the body needs and no input shows come by tensors of no elements.
  Status takeSizes() {
    const Graph& graph = inner_.graph_;
    std::set<std::string> shown = decidedSymbols(graph), wanted;
    for (const Value* v : graph.inputs())
      for (const Dim& d : v->type().shape) shown.merge(d.expr().symbols());
    for (const Node* n = graph.front(); n; n = n->next()) wanted.merge(qc::symbolsOf(*n));
    for (const Assumption& a : inner_.sizeNames_.ways.taken) wanted.merge(a.symbols());
    for (const std::string& symbol : wanted) {
      if (shown.contains(symbol)) continue;
      const auto size = sizes_.around(symbol);
      if (!size) return node_.error(ErrorCode::kUnsupported, "the size {} in its body cannot be written in those around it", symbol);
      QC_ASSIGN(Value * v,
                node_.create("expand", {node_.constantValue(Tensor(DType::u8, {}))}, {{"shape", std::vector<DimExpr>{*size, 0}}}));
      take(v, TensorType(DType::u8, {Dim::symbol(symbol), Dim(0)}));
    }
    return {};
  }

  OnnxImporter& importer_;
  OnnxNode& node_;
  const onnx::GraphProto& body_;
  const LoopForm& form_;
  const OnnxValues& operands_;
  const Frame& frame_;
  Carried& carried_;
  OnnxImporter inner_{importer_.model_, importer_.folder_, importer_.options_, importer_.weights_, importer_.taken_};
  Builder builder_{inner_.graph_};
  std::map<std::string, OnnxValue> around_;
  std::set<std::string> taken_;  // symbols around
  InnerSizes sizes_{taken_};
  std::vector<Value*> values_, states_, outputs_;  // behind the number of the round, around; of the body
  std::map<const Value*, Value*> inside_;
  OnnxScope outside_, constants_{&outside_}, scope_{&constants_};
};

Result<OnnxValues> OnnxImporter::keepLoop(OnnxNode& node, const onnx::GraphProto& body, const LoopForm& form, const OnnxValues& operands,
                                          const Frame& frame, Value* rounds, Value* condition) {
  BodyReading::Carried handed;
  std::optional<BodyReading> reading;
  while (!handed.isSettled) {
    reading.emplace(*this, node, body, form, operands, frame, handed);
    QC_TRY(reading->read());
  }
  QC_ASSIGN(auto finished, reading->finished());
  auto& [graph, values] = finished;
  if (condition && isTrue(condition)) condition = nullptr;
  const auto number = rounds ? dimValuesOf(rounds) : std::nullopt;
  const bool isCounted =
      number && number->elements.size() == 1 && number->elements[0].isNonNegative() && !condition && isTrue(graph.outputs().front());
  const int64_t carried = form.states - std::ssize(handed.unchanged);
  AttrDict attrs = {{"carried", carried}};
  if (isCounted) attrs.set("count", number->elements);
  std::vector<TensorType> types;
  for (const Value* v : values) types.push_back(v->type());
  size_t decided = 0;
  const auto decide = [&] {
    ++decided;
    return DimExpr::unknown();
  };
  QC_TRY(loopResults(graph, types, carried, [&] { return isCounted ? number->elements[0] : decide(); }, decide));
  attrs.set("sizes", node.freshSizes(decided));
  attrs.set("body", GraphAttr(std::move(graph)));
  std::vector<Value*> given = {rounds, condition};
  given.insert(given.end(), values.begin(), values.end());
  QC_ASSIGN(std::vector<Value*> results, node.createAll("loop", std::move(given), std::move(attrs)));
  for (size_t r = 0; r < form.results.size(); ++r) {
    Value*& v = results[usize(carried) + r];
    const LoopForm::Sequence& s = form.results[r];
    if (s.backwards) {
      QC_ASSIGN(v, reversed(node, v, 0));
    }
    QC_ASSIGN(v, withFirstAxisAt(node, v, s.axis));
  }
  for (const int64_t k : handed.unchanged)
    results.insert(results.begin() + static_cast<ptrdiff_t>(k), nth(operands, form.firstState + k).tensor);
  OnnxValues outputs;
  for (Value* v : results) outputs.push_back({v});
  return outputs;
}

}  // namespace qc
