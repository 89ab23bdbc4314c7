// Control flow that is decided when the model is loaded becomes straight code: an If the branch that is taken, a Loop and a Scan their
// rounds one after another, unless they are a recurrence (recurrent_loop.cpp).  An If that sizes or data decide keeps both branches, and a
// Loop of which they decide how often it goes round stays one (kept_loop.cpp).
#include <algorithm>
#include <limits>
#include <utility>

#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/importer.h"
#include "frontend/onnx/loop_form.h"
#include "ir/branches.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

Value* counter(OnnxNode& n, int64_t value) { return n.constantValue(Tensor::ofInts({}, std::vector{value})); }

// Results of the rounds along a new axis; of none: `like` says what one would be.
Result<Value*> stacked(OnnxNode& n, const OnnxValues& rounds, const OnnxValue& like, int64_t axis, bool reverse) {
  if (!like.tensor) return n.error(ErrorCode::kInvalidModel, "a result of its rounds is not a tensor, and is to be stacked");
  std::vector<Value*> values;
  for (const OnnxValue& v : rounds) values.push_back(v.tensor);
  if (reverse) std::reverse(values.begin(), values.end());
  if (!values.empty()) return joined(n, std::move(values), axis, true);
  QC_ASSIGN(axis, n.axis(axis, like.tensor->type().rank() + 1));
  std::vector<DimExpr> sizes = OnnxNode::dims(like.tensor);
  sizes.insert(sizes.begin() + axis, 0);
  return n.create("expand", {n.constantValue(Tensor(like.tensor->type().dtype, {}))}, {{"shape", std::move(sizes)}});
}

// One entry for each of `count`, or the same for all where there are none.
Result<Ints> perItem(OnnxNode& n, const char* attribute, int64_t count, int64_t most) {
  QC_ASSIGN(Ints list, n.integers(attribute, Ints(usize(count), 0)));
  const bool known = std::all_of(list.begin(), list.end(), [&](int64_t v) { return v >= -most - 1 && v <= most; });
  if (static_cast<int64_t>(list.size()) != count || !known)
    return n.error(ErrorCode::kInvalidModel, "attribute `{}` has {} entries for {} values, or one out of range", attribute, list.size(),
                   count);
  return list;
}

constexpr int64_t kMaxRank = 64;

// The one or the other, as the condition of the node says.
Result<OnnxValues> chosenOf(OnnxNode& n, const OnnxValues& whenTrue, const OnnxValues& otherwise) {
  if (whenTrue.size() != otherwise.size()) return n.error(ErrorCode::kInvalidModel, "its branches differ in outputs");
  if (n.type(0).dtype != DType::boolean || (n.type(0).isStatic() && n.type(0).numElements() != 1))
    return n.error(ErrorCode::kInvalidModel, "its condition is {}, expected one bool", n.type(0).str()).on(n.input(0)->name());
  OnnxValues chosen;
  for (size_t i = 0; i < whenTrue.size(); ++i) {
    Value *a = whenTrue[i].tensor, *b = otherwise[i].tensor;
    const bool isSequence = whenTrue[i].isSequence() && otherwise[i].isSequence();
    if (isSequence) {
      QC_ASSIGN(a, stackOf(n, whenTrue[i]));
      QC_ASSIGN(b, stackOf(n, otherwise[i]));
    }
    const auto take = [&](Value* v) { chosen.push_back(isSequence ? OnnxValue{.stack = v} : OnnxValue{v}); };
    if (!a || !b || a->type().rank() != b->type().rank() || a->type().dtype != b->type().dtype)
      return n
          .error(ErrorCode::kUnsupported, "its branches give {} and {} as output {}, and {} between them",
                 a ? a->type().str() : "a sequence", b ? b->type().str() : "a sequence", i,
                 n.isOfSizes(n.input(0)) ? "sizes decide" : "data decides")
          .on(n.input(0)->name())
          .help(
              "export both branches with tensors of one type and rank, or fix what decides with LoadOptions::shapes or "
              "LoadOptions::values");
    if (a == b) {
      take(a);
      continue;
    }
    Ints axes;
    for (size_t d = 0; d < a->type().shape.size(); ++d)
      if (a->type().shape[d] != b->type().shape[d]) axes.push_back(static_cast<int64_t>(d));
    QC_ASSIGN(Value * y, n.create("choose", {n.input(0), a, b}, {{"axes", axes}, {"sizes", n.freshSizes(axes.size())}}));
    take(y);
  }
  return chosen;
}

}  // namespace

Value* boolean(OnnxNode& n, bool value) { return n.constantValue(conditionTensor(value)); }

OnnxImporter::ControlFn OnnxImporter::controlOp(const onnx::NodeProto& node) {
  static const std::map<std::string, ControlFn, std::less<>> kOps = {
      {"If", &OnnxImporter::addIf}, {"Loop", &OnnxImporter::addLoop}, {"Scan", &OnnxImporter::addScan}};
  const auto it = isStandard(node) ? kOps.find(node.op_type()) : kOps.end();
  return it == kOps.end() ? nullptr : it->second;
}

Result<OnnxValues> OnnxImporter::runBody(const onnx::GraphProto& body, const OnnxScope& outer, const OnnxValues& inputs, const Frame& frame,
                                         const std::string& prefix) {
  if (frame.depth >= kMaxOnnxDepth) return fail(ErrorCode::kResource, "subgraphs nested deeper than {}", kMaxOnnxDepth);
  OnnxScope scope(&outer);
  for (size_t i = 0; i < inputs.size(); ++i) QC_TRY(define(scope, body.input(static_cast<int>(i)).name(), inputs[i]));
  Frame inner{scope, frame.reads, frame.opset, frame.depth + 1, prefix, frame.calls};
  QC_TRY(addNodes(body.node(), inner));
  OnnxValues outputs;
  for (const auto& info : body.output()) {
    const auto value = scope.find(info.name());
    if (!value || (!value->tensor && !value->isSequence()))
      return fail(ErrorCode::kInvalidModel, "a subgraph returns a value that it does not compute").on(info.name());
    outputs.push_back(*value);
  }
  return outputs;
}

Result<OnnxValues> OnnxImporter::runBranch(OnnxNode& node, const char* name, const Frame& frame) {
  QC_ASSIGN(const onnx::GraphProto* branch, node.subgraph(name));
  OnnxScope scope(&frame.scope);
  QC_TRY(addInitializers(*branch, scope));
  return runBody(*branch, scope, {}, frame, frame.prefix);
}

// An If whose condition is known becomes the branch that is taken.  Else both are kept, and one is taken when sizes are bound, or when the
// condition has been computed.  Where sizes decide, branches of which no tensor can be either, and those for tensors without elements, are
// left to what is assumed of the sizes.
Result<OnnxValues> OnnxImporter::addIf(OnnxNode& node, const OnnxValues& /*operands*/, const Frame& frame) {
  const auto taken = [](bool holds) { return holds ? "then_branch" : "else_branch"; };
  const Value* v = node.input(0);
  if (!v || v->constant()) {
    QC_ASSIGN(const double condition, node.constantScalar(0, "the condition"));
    return runBranch(node, taken(condition != 0), frame);
  }
  const auto comparison = node.isOfSizes(v) && !node.isOfDecidedSizes(v) ? comparisonOf(v) : std::nullopt;
  if (comparison && asksForElements(*comparison)) return runBranch(node, taken(node.holdsAsTaken(*comparison)), frame);
  std::vector<Assumption>& assumed = sizeNames_.ways.taken;
  const std::vector<Assumption> before = assumed;
  auto whenTrue = runBranch(node, "then_branch", frame);
  const std::vector<Assumption> ifTrue = std::exchange(assumed, before);
  auto otherwise = runBranch(node, "else_branch", frame);
  const std::vector<Assumption> ifNot = std::exchange(assumed, before);
  const auto chosen = whenTrue && otherwise ? chosenOf(node, *whenTrue, *otherwise) : std::move(whenTrue ? otherwise : whenTrue);
  if (chosen) {
    assumed.insert(assumed.end(), ifTrue.begin(), ifTrue.end());
    assumed.insert(assumed.end(), ifNot.begin(), ifNot.end());
    return chosen;
  }
  if (!comparison) return chosen;
  const bool holds = node.holdsAsTaken(*comparison);
  const std::vector<Assumption>& own = holds ? ifTrue : ifNot;
  assumed.insert(assumed.end(), own.begin(), own.end());
  return holds ? whenTrue : otherwise;
}

// inputs: rounds, condition, carried values; body: (round, condition, carried) -> (condition, carried, results of the round)
Result<OnnxValues> OnnxImporter::addLoop(OnnxNode& node, const OnnxValues& operands, const Frame& frame) {
  QC_ASSIGN(const onnx::GraphProto* body, node.subgraph("body"));
  const int carried = std::max(node.numInputs() - 2, 0), results = body->output_size() - 1 - carried;
  if (node.numInputs() < 2 || body->input_size() != 2 + carried || results < 0)
    return node.error(ErrorCode::kInvalidModel, "{} carried values, and a body of {} inputs and {} outputs", carried, body->input_size(),
                      body->output_size());
  const LoopForm form{.firstState = 2, .states = carried, .firstOutput = 1};
  const CollectingLoop* collecting = asCollecting(*body, form, operands);
  const onnx::GraphProto& ownBody = collecting ? collecting->body : *body;
  LoopForm own = form;
  OnnxValues ownOperands = operands;
  if (collecting) {
    own.states -= std::ssize(collecting->states);
    for (auto state = collecting->states.rbegin(); state != collecting->states.rend(); ++state)
      ownOperands.erase(ownOperands.begin() + form.firstState + state->first);
  }
  const auto whole = [&](Result<OnnxValues> outputs) -> Result<OnnxValues> {
    if (!outputs || !collecting) return outputs;
    return withSequences(node, *collecting, form, operands, *std::move(outputs));
  };
  if (auto outputs = asRecurrence(node, ownBody, own, ownOperands, frame)) return whole(*std::move(outputs));
  const auto kept = [&] { return whole(keepLoop(node, ownBody, own, ownOperands, frame, node.input(0), node.input(1))); };
  for (int i = 0; i < 2; ++i)
    if (node.input(i) && !node.input(i)->constant()) return kept();
  int64_t most = std::numeric_limits<int64_t>::max();
  if (node.input(0)) {
    QC_ASSIGN(most, node.constantInteger(0, "the number of rounds"));
    if (most > kMaxOnnxSteps / (body->node_size() + 1)) return kept();
  }
  bool goesOn = true;
  if (node.input(1)) {
    QC_ASSIGN(const double condition, node.constantScalar(1, "the condition"));
    goesOn = condition != 0;
  }
  const SizeNames names = sizeNames_;
  const FoldBudget budget = budget_;
  OnnxScope constants(&frame.scope);
  QC_TRY(addInitializers(*body, constants));
  OnnxValues state(operands.begin() + 2, operands.end());
  const auto round = [&](int64_t i) {
    OnnxValues inputs{{counter(node, i)}, {boolean(node, true)}};
    inputs.insert(inputs.end(), state.begin(), state.end());
    return runBody(*body, constants, inputs, frame, fmt::format("{}[{}]/", node.location(), i));
  };
  std::vector<OnnxValues> stacks(usize(results));
  int64_t i = 0;
  for (; i < most && goesOn; ++i) {
    QC_TRY(countStep());
    QC_ASSIGN(const OnnxValues out, round(i));
    const Tensor* condition = out[0].tensor ? out[0].tensor->constant() : nullptr;
    if (!condition) {  // what was read of it goes with the other dead nodes
      sizeNames_ = names;
      budget_ = budget;
      return kept();
    }
    if (condition->numElements() != 1)
      return node.error(ErrorCode::kInvalidModel, "its condition is {}, expected one bool", condition->type().str());
    goesOn = condition->at(0) != 0;
    std::copy_n(out.begin() + 1, carried, state.begin());
    for (int r = 0; r < results; ++r) nth(stacks, r).push_back(nth(out, 1 + carried + r));
  }
  OnnxValues like;
  if (i == 0 && results > 0) {  // what nobody reads goes again
    QC_ASSIGN(const OnnxValues out, round(0));
    like.assign(out.begin() + 1 + carried, out.end());
  }
  OnnxValues outputs = state;
  for (int r = 0; r < results; ++r) {
    const OnnxValues& stack = nth(stacks, r);
    QC_ASSIGN(Value * all, stacked(node, stack, stack.empty() ? nth(like, r) : stack.front(), 0, false));
    outputs.push_back({all});
  }
  return outputs;
}

// inputs: states, sequences; body: (states, elements) -> (states, results of the step)
Result<OnnxValues> OnnxImporter::addScan(OnnxNode& node, const OnnxValues& operands, const Frame& frame) {
  if (node.opset() < 9)
    return node.error(ErrorCode::kUnsupported, "the form of opset 8, with a batch dim of its own")
        .help("convert the model with onnx.version_converter.convert_version(model, 13)");
  QC_ASSIGN(const onnx::GraphProto* body, node.subgraph("body"));
  QC_ASSIGN(const int64_t sequences, node.integer("num_scan_inputs"));
  const int64_t states = node.numInputs() - sequences, results = body->output_size() - states;
  if (sequences < 1 || states < 0 || body->input_size() != node.numInputs() || results < 0)
    return node.error(ErrorCode::kInvalidModel, "{} inputs of which {} are sequences, and a body of {} inputs and {} outputs",
                      node.numInputs(), sequences, body->input_size(), body->output_size());
  QC_ASSIGN(Ints axes, perItem(node, "scan_input_axes", sequences, kMaxRank));
  QC_ASSIGN(const Ints backwards, perItem(node, "scan_input_directions", sequences, 1));
  QC_ASSIGN(const Ints outAxes, perItem(node, "scan_output_axes", results, kMaxRank));
  QC_ASSIGN(const Ints outBackwards, perItem(node, "scan_output_directions", results, 1));
  LoopForm form{.states = states};
  OnnxValues state(operands.begin(), operands.begin() + states);
  DimExpr steps = DimExpr::unknown();
  for (int64_t s = 0; s < sequences; ++s) {
    Value* v = node.input(static_cast<int>(states + s));
    if (!v) return node.error(ErrorCode::kInvalidModel, "input {} is not a tensor", states + s);
    QC_ASSIGN(const int64_t axis, node.axis(nth(axes, s), v->type().rank()));
    const DimExpr size = nth(v->type().shape, axis).expr();
    if (steps.constant() && size.constant() && !(size == steps))
      return node.error(ErrorCode::kInvalidModel, "sequences of {} and of {} steps", steps.str(), size.str()).on(v->name());
    if (!steps.constant()) steps = size;
    form.sequences.push_back({v, axis, nth(backwards, s) != 0});
  }
  for (int64_t r = 0; r < results; ++r) form.results.push_back({nullptr, nth(outAxes, r), nth(outBackwards, r) != 0});
  if (auto outputs = asRecurrence(node, *body, form, operands, frame)) return *outputs;
  const int64_t length = steps.constant().value_or(0);
  if (length == 0 || length > kMaxOnnxSteps / (body->node_size() + 1))
    return keepLoop(node, *body, form, operands, frame, node.dimValues({}, {steps}), nullptr);
  OnnxScope constants(&frame.scope);
  QC_TRY(addInitializers(*body, constants));
  std::vector<OnnxValues> stacks(usize(results));
  for (int64_t i = 0; i < length; ++i) {
    QC_TRY(countStep());
    OnnxValues inputs = state;
    for (const LoopForm::Sequence& s : form.sequences) {
      QC_ASSIGN(Value * element, sliceAt(node, s.value, s.axis, s.backwards ? length - 1 - i : i, 1, false));
      inputs.push_back({element});
    }
    QC_ASSIGN(const OnnxValues out, runBody(*body, constants, inputs, frame, fmt::format("{}[{}]/", node.location(), i)));
    std::copy_n(out.begin(), states, state.begin());
    for (int64_t r = 0; r < results; ++r) nth(stacks, r).push_back(nth(out, states + r));
  }
  OnnxValues outputs = state;
  for (size_t r = 0; r < stacks.size(); ++r) {
    QC_ASSIGN(Value * all, stacked(node, stacks[r], stacks[r].front(), form.results[r].axis, form.results[r].backwards));
    outputs.push_back({all});
  }
  return outputs;
}

}  // namespace qc
