// train-step: one step of training as one graph: the loss, its gradients and the update of what is trained.
// A parameter (a constant that changes between runs) is an input of its name and an output "next.NAME"; so is each number that the
// optimizer keeps beside it, "STATE.NAME" and "next.STATE.NAME".  The input "step" counts from 0; the output "learning_rate" is what the
// schedule gives for it.
//
//   train-step{of="loss", optimizer="adamw", rate=0.001, weight_decay=0.01, schedule="cosine", steps=1000, warmup=50}
//
// Trained are the constants in `with`, by name and with commas between them; where it is empty, all of f32 that ops read as weights,
// biases, slopes or factors of a normalisation, scales of fake quantization that learn among them, and through which the loss depends on
// them. Tests: tests/golden/train_step, tests/unit/optimizer_test.cpp.
#include <algorithm>

#include "ir/gradient.h"
#include "passes/passes.h"
#include "passes/training/loss_gradients.h"
#include "passes/training/optimizer.h"
#include "passes/training/train_step.h"

namespace qc {
namespace {

OptimizerSpec optimizerOf(const AttrDict& options) {
  const auto real = [&](const char* name) { return static_cast<float>(options.real(name)); };
  return {.kind = options.string("optimizer"),
          .momentum = real("momentum"),
          .beta1 = real("beta1"),
          .beta2 = real("beta2"),
          .epsilon = real("epsilon"),
          .weightDecay = real("weight_decay"),
          .nesterov = options.integer("nesterov") != 0,
          .clipNorm = real("clip_norm")};
}

ScheduleSpec scheduleOf(const AttrDict& options) {
  return {.kind = options.string("schedule"),
          .rate = static_cast<float>(options.real("rate")),
          .warmup = options.integer("warmup"),
          .steps = options.integer("steps"),
          .stepSize = options.integer("step_size"),
          .gamma = static_cast<float>(options.real("gamma"))};
}

bool isTrainable(const Value* v) { return v->constant() && v->type().dtype == DType::f32 && !v->type().isQuantized(); }

bool isFakeQuantization(const Node* node) { return node && node->is("fake_quantize_with"); }

// What is read, before it is rounded or moved.
Value* source(Value* v) {
  const auto passes = [](const Node* n) {
    return isFakeQuantization(n) || (n && n->numOperands() == 1 && n->def().has(kMovesData) && !n->is("identity"));
  };
  while (v && passes(v->producer())) v = v->producer()->operand(0);
  return v;
}

bool isLearned(const OperandSpec& spec) {
  return spec.weight || spec.role == OperandRole::weight || spec.role == OperandRole::bias || spec.learned;
}

// Weights and biases, those that are read through fake quantization as well, and scales of it that learn.
std::vector<Value*> weightsAndBiases(const Graph& graph) {
  std::vector<Value*> found;
  for (const Node* node : graph.nodes()) {
    const bool learns = isFakeQuantization(node) && node->integer("learnable") != 0;
    for (int i = 0; i < node->numOperands(); ++i) {
      Value* v = source(node->operand(i));
      if (!v || !isTrainable(v) || std::find(found.begin(), found.end(), v) != found.end()) continue;
      const OperandSpec& spec = node->def().operand(i);
      if (isLearned(spec) || (learns && i > 0)) found.push_back(v);
    }
  }
  return found;
}

bool isScale(const Value* v) {
  const std::vector<Use*> uses = v->uses();
  return std::any_of(uses.begin(), uses.end(), [](const Use* u) { return isFakeQuantization(u->user()) && u->index() == 1; });
}

// The constants as inputs of the same names.
std::vector<Value*> asInputs(Graph& graph, const std::vector<Value*>& constants) {
  std::vector<Value*> inputs;
  for (Value* constant : constants) {
    const std::string name = constant->name();
    graph.rename(constant, name + ".before");
    Value* input = graph.addInput(name, constant->type());
    constant->replaceAllUsesWith(input);
    inputs.push_back(input);
  }
  return inputs;
}

}  // namespace

Result<TrainStep> makeTrainStep(Graph& graph, const TrainStepOptions& options) {
  const OptimizerSpec& optimizer = options.optimizer;
  QC_ASSIGN(const std::vector<std::string> states, optimizerStates(optimizer));
  QC_ASSIGN(const ScalarExpr rateOfStep, learningRate(options.schedule));
  QC_ASSIGN(Value * loss, lossOf(graph, options.of));
  const std::string& with = options.with;
  std::vector<Value*> parameters;
  if (!with.empty()) {
    QC_ASSIGN(parameters, valuesNamed(graph, with));
  } else if (options.only.empty()) {
    parameters = weightsAndBiases(graph);
  }
  for (const auto* names : {&options.also, &options.only})
    for (const std::string& name : *names)
      if (Value* v = graph.findValue(name)) parameters.push_back(v);
  for (const Value* v : parameters)
    if (!isTrainable(v)) return fail(ErrorCode::kInvalidArgument, "{} is not a constant of f32", v->type().str()).on(v->name());
  Builder b(graph);
  QC_ASSIGN(Gradients gradients, gradientsOf(b, loss, parameters));
  for (size_t i = parameters.size(); i-- > 0;) {
    if (gradients[i]) continue;
    if (!with.empty())
      return fail(ErrorCode::kInvalidArgument, "nothing of %{} arrives at the loss", parameters[i]->name()).on(parameters[i]->name());
    parameters.erase(parameters.begin() + static_cast<ptrdiff_t>(i));
    gradients.erase(gradients.begin() + static_cast<ptrdiff_t>(i));
  }
  if (parameters.empty())
    return fail(ErrorCode::kInvalidArgument, "the loss depends on no weight and no bias").help("name them: with=\"..\"");

  std::vector<Value*> outputs = graph.outputs();
  std::vector<std::string> names = graph.outputNames();
  const auto give = [&](Value* value, std::string name) {
    outputs.push_back(value);
    names.push_back(std::move(name));
  };
  TrainStep made;
  const std::vector<Value*> inputs = asInputs(graph, parameters);
  std::vector<TrainedParameter> before;
  for (size_t i = 0; i < inputs.size(); ++i) {
    made.parameters.push_back(inputs[i]->name());
    TrainedParameter p{inputs[i], gradients[i], {}, isScale(inputs[i])};
    for (const std::string& state : states) p.states.push_back(graph.addInput(state + "." + inputs[i]->name(), inputs[i]->type()));
    before.push_back(std::move(p));
  }
  Value* step = graph.addInput("step", {DType::f32, {}});
  made.step = step->name();
  QC_ASSIGN(Value * rate, b.create("map", {step}, {{"expr", rateOfStep}}));
  QC_ASSIGN(const std::vector<TrainedParameter> after, updateParameters(b, optimizer, before, step, rate));
  for (size_t i = 0; i < after.size(); ++i) {
    give(after[i].value, "next." + inputs[i]->name());
    for (size_t s = 0; s < states.size(); ++s) give(after[i].states[s], "next." + before[i].states[s]->name());
  }
  give(rate, made.learningRate);
  graph.setOutputs(std::move(outputs));
  graph.setOutputNames(std::move(names));
  graph.eraseDeadNodes();
  return made;
}

Status trainStep(Graph& graph, PassContext& cx) {
  QC_TRY(makeTrainStep(graph, {.of = cx.options.string("of"),
                               .with = cx.options.string("with"),
                               .optimizer = optimizerOf(cx.options),
                               .schedule = scheduleOf(cx.options)}));
  return {};
}

}  // namespace qc
