// A Loop or Scan over the time axis whose body is one step of a recurrence becomes the op of that recurrence, for any length.
//
// The body is read once, as for a round whose number is a symbol and whose state is a value that nothing else is; what it computes is then
// recognized by its arithmetic (recurrent_step.h).  What was read goes with the other dead nodes.
// Tests: tests/unit/onnx_loops_test.cpp.
#include <algorithm>
#include <utility>

#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/importer.h"
#include "frontend/onnx/loop_form.h"
#include "frontend/onnx/recurrent_step.h"

namespace qc {
namespace {

std::optional<DimValues> oneNumber(const Value* v) {
  auto values = dimValuesOf(v);
  return values && values->elements.size() == 1 && values->dtype != DType::boolean ? std::move(values) : std::nullopt;
}

// Whether a condition holds wherever `least` <= `most`.
bool holdsUpTo(const Value* condition, const DimExpr& least, const DimExpr& most) {
  if (const Tensor* known = condition->constant()) return known->numElements() == 1 && known->at(0) != 0;
  const Node* n = condition->producer();
  if (n && n->is("and")) return holdsUpTo(n->operand(0), least, most) && holdsUpTo(n->operand(1), least, most);
  const auto comparison = comparisonOf(condition);
  return comparison && comparison->kind == Assumption::Kind::atMost &&
         (comparison->right - comparison->left - (most - least)).isNonNegative();
}

bool hasSubgraphs(const onnx::GraphProto& body) {
  return std::any_of(body.node().begin(), body.node().end(), [](const onnx::NodeProto& node) {
    return std::any_of(node.attribute().begin(), node.attribute().end(), [](const auto& a) { return a.has_g() || a.graphs_size() > 0; });
  });
}

}  // namespace

std::optional<OnnxValues> OnnxImporter::asRecurrence(OnnxNode& node, const onnx::GraphProto& body, const LoopForm& form,
                                                     const OnnxValues& operands, const Frame& frame) {
  if (hasSubgraphs(body) || !form.isPlain()) return std::nullopt;
  const SizeNames names = sizeNames_;
  const FoldBudget budget = budget_;
  const int64_t steps = steps_;
  auto outputs = tryRecurrence(node, body, form, operands, frame);
  if (outputs) return std::move(*outputs);
  sizeNames_ = names;
  budget_ = budget;
  steps_ = steps;
  return std::nullopt;
}

Result<OnnxValues> OnnxImporter::tryRecurrence(OnnxNode& node, const onnx::GraphProto& body, const LoopForm& form,
                                               const OnnxValues& operands, const Frame& frame) {
  const auto isNone = [&](std::string_view why) { return node.error(ErrorCode::kUnsupported, "no recurrence: {}", why); };
  Builder b(graph_);
  b.at(node.location());
  const Node* before = graph_.back();
  const DimExpr number = node.freshSizes(1).front();
  const auto counted = [&](const DimValues& like, const DimExpr& value) { return makeDimValues(b, {like.dtype, like.sizes, {value}}); };

  // A state passes unchanged, counts the rounds, or is that of the recurrence.
  enum class Role : uint8_t { unchanged, counter, state };
  std::vector<Role> roles;
  OnnxValues inputs;
  if (!form.isScan()) inputs = {{node.dimValues({}, {number})}, {boolean(node, true)}};
  struct State {
    Value *initial, *here;
    int64_t place;
    const Value* next = nullptr;
  };
  std::vector<State> states;  // the cell of lstm behind its state
  for (int64_t k = 0; k < form.states; ++k) {
    const OnnxValue& v = nth(operands, form.firstState + k);
    const bool passes =
        body.output(static_cast<int>(form.firstOutput + k)).name() == body.input(static_cast<int>(form.firstState + k)).name();
    if (!v.tensor && !passes) return isNone("a state that is not a tensor");
    const auto start = passes ? std::nullopt : oneNumber(v.tensor);
    if (passes) {
      roles.push_back(Role::unchanged);
      inputs.push_back(v);
    } else if (start && start->elements.front() == DimExpr(0)) {
      roles.push_back(Role::counter);
      inputs.push_back({counted(*start, number)});
    } else {
      if (states.size() == 2 || v.tensor->type().dtype != DType::f32 || v.tensor->type().isQuantized() || v.tensor->type().rank() != 2)
        return isNone("another state");
      QC_ASSIGN(Value * here, b.create("neg", {v.tensor}));  // only its identity counts
      states.push_back({v.tensor, here, k});
      roles.push_back(Role::state);
      inputs.push_back({states.back().here});
    }
  }
  if (states.empty()) return isNone("no state");
  for (const LoopForm::Sequence& s : form.sequences) {
    Value* sequence = s.value;
    if (sequence->type().rank() != 3) return isNone("a sequence that is no [steps, batch, input]");
    QC_ASSIGN(Value * element, b.create("gather", {sequence, node.dimValues({}, {number})}, {{"axis", int64_t{0}}}));
    inputs.push_back({element});
  }

  OnnxScope constants(&frame.scope);
  QC_TRY(addInitializers(body, constants));
  QC_ASSIGN(const OnnxValues round, runBody(body, constants, inputs, frame, node.location() + "/"));
  const auto result = [&](int64_t i) { return nth(round, form.firstOutput + i).tensor; };
  for (State& s : states) {
    s.next = result(s.place);
    if (!s.next) return isNone("a state that becomes a sequence of tensors");
  }
  for (const Assumption& a : sizeNames_.ways.taken)
    if (a.symbols().contains(number.str())) return isNone("rounds that are read in two ways");
  const bool hasCell = states.size() == 2;
  const auto read = [&] {
    return readStep({states[0].here, hasCell ? states[1].here : nullptr, number, before}, states[0].next,
                    hasCell ? states[1].next : nullptr);
  };
  auto step = read();
  if (!step && hasCell) {
    std::swap(states[0], states[1]);
    step = read();
  }
  if (!step) return isNone("another arithmetic");

  // As many rounds as there are steps.
  const std::vector<DimExpr> sizes = OnnxNode::dims(step->sequence);
  const DimExpr length = sizes[0];
  if (length == DimExpr(0)) return isNone("no steps");
  for (const LoopForm::Sequence& s : form.sequences)
    if (s.value != step->sequence) return isNone("a sequence that is not read");
  if (!form.isScan()) {
    const auto rounds = oneNumber(node.input(0));
    if (!rounds || !(rounds->elements.front() == length)) return isNone("its rounds are not the steps of the sequence");
    if (node.input(1) && !holdsUpTo(node.input(1), 1, length)) return isNone("a condition that may keep it from beginning");
    if (!round[0].tensor || !holdsUpTo(round[0].tensor, number + 2, length)) return isNone("a condition that may end it");
  }
  for (int64_t k = 0; k < form.states; ++k) {
    if (nth(roles, k) != Role::counter) continue;
    const auto after = oneNumber(result(k));
    if (!after || !(after->elements.front() == number + 1) || result(k)->type() != nth(inputs, form.firstState + k).tensor->type())
      return isNone("a state that does not count");
  }
  for (int64_t r = form.states; r + form.firstOutput < static_cast<int64_t>(round.size()); ++r)
    if (result(r) != states[0].next) return isNone("a result of the rounds that is not the state");

  const std::vector<DimExpr> one = OnnxNode::dims(states[0].initial);
  std::vector<Value*> given = {step->sequence, node.constantValue(std::move(step->w)), node.constantValue(std::move(step->r)),
                               step->b ? node.constantValue(std::move(*step->b)) : nullptr, nullptr};
  for (const State& s : states) {
    QC_ASSIGN(Value * first, node.reshapeToDims(s.initial, {1, one[0], one[1]}));
    given.push_back(first);
  }
  QC_ASSIGN(const std::vector<Value*> results, node.createAll(step->op, std::move(given), std::move(step->attrs)));
  QC_ASSIGN(Value * all, node.reshapeToDims(results[0], {length, one[0], one[1]}));
  OnnxValues outputs(operands.begin() + form.firstState, operands.begin() + form.firstState + form.states);
  for (int64_t k = 0; k < form.states; ++k)
    if (OnnxValue& v = nth(outputs, k); nth(roles, k) == Role::counter) v = {counted(*oneNumber(v.tensor), length)};
  for (size_t i = 0; i < states.size(); ++i) {
    QC_ASSIGN(nth(outputs, states[i].place).tensor, node.reshapeToDims(results[1 + i], one));
  }
  outputs.resize(round.size() - usize(form.firstOutput), {all});
  return outputs;
}

}  // namespace qc
