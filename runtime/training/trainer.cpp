#include "runtime/training/trainer.h"

#include <algorithm>
#include <cmath>

#include "ir/arithmetic.h"
#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "ir/guarded.h"
#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"
#include "passes/training/train_step.h"
#include "runtime/training/batch_layout.h"
#include "runtime/training/state_file.h"
#include "runtime/workflow/compiled_graph.h"
#include "runtime/workflow/known_params.h"

namespace qc {
namespace {

Tensor number(float value) { return Tensor::ofFloats({}, std::vector<float>{value}); }

bool isFinite(const Tensor& t) {
  if (t.dtype() != DType::f32) return true;
  const auto x = t.as<float>();
  return std::all_of(x.begin(), x.end(), [](float e) { return std::isfinite(e); });
}

std::string freeName(const std::vector<std::string>& names, std::string name) {
  while (std::find(names.begin(), names.end(), name) != names.end()) name += "_";
  return name;
}

}  // namespace

struct Trainer::Impl {
  PreparedModel model;
  QatPlan plan;
  std::shared_ptr<Workspace> workspace;
  std::optional<Graph> forward;  // rounded, with the loss; compiled when it is asked for
  std::optional<CompiledGraph> step, evaluation;
  std::string lossName, stepName, rateName;
  std::vector<std::string> trained;
  std::vector<std::string> outputs;  // of the model
  std::vector<std::string> batch;    // inputs that a batch brings
  std::vector<CompiledGraph::Carried> states;
  bool quantized = true, observing = true, byBatch = true;
  int64_t steps = 0;
  double rate = 0;

  Result<Graph> withLoss(const GroupParams& params, const TrainerOptions& options) {
    const Graph& source = quantized ? *model.observed : *model.simplified;
    QC_ASSIGN(const BatchLayout layout, BatchLayout::of(source, options.shapes, options.batch));
    QC_ASSIGN(const Shapes shapes, layout.shapes(source, options.shapes, options.batch));
    QC_ASSIGN(Graph graph, boundGraph(source, shapes));
    if (const Node* decides = firstDeciding(graph)) {
      const Value* condition = conditionOf(*decides);
      return fail(ErrorCode::kUnsupported, "data decides what '{}' gives, which no training step is made for", decides->op())
          .at(decides->location())
          .help(condition && !condition->producer()
                    ? fmt::format("fix '{}' with LoadOptions::values, and train the branch that is taken", condition->name())
                    : "cut the model in front of this node");
    }
    outputs = graph.outputNames();
    if (quantized) {
      QC_ASSIGN(plan, prepareQat(graph, params, options.qat, model.batchNorms));
    }
    QC_ASSIGN(plan.tied, tieWeightsOf(graph));
    if (!options.loss) return fail(ErrorCode::kInvalidArgument, "there is no loss").help("set TrainerOptions::loss");
    Builder b(graph);
    QC_ASSIGN(Value * loss, guarded("the loss", [&] { return options.loss(b); }));
    if (!loss) return fail(ErrorCode::kInvalidArgument, "the loss is not a value");
    std::vector<Value*> values = graph.outputs();
    std::vector<std::string> names = graph.outputNames();
    lossName = freeName(names, "loss");
    values.push_back(loss);
    names.push_back(lossName);
    graph.setOutputs(std::move(values));
    graph.setOutputNames(std::move(names));
    return graph;
  }

  Result<TrainStep> stepOf(Graph& graph, const TrainerOptions& options) const {
    return makeTrainStep(graph, {.of = lossName, .also = plan.parameters, .optimizer = options.optimizer, .schedule = options.schedule});
  }

  Status build(const GroupParams& params, const TrainerOptions& options) {
    if (TrainerOptions evaluated = options; options.evaluationBatch > 0) {
      evaluated.batch = options.evaluationBatch;
      evaluated.qat.takesStatistics = false;
      QC_ASSIGN(forward, withLoss(params, evaluated));
    }
    QC_ASSIGN(Graph graph, withLoss(params, options));
    std::map<std::string, Tensor> initial = plan.states;
    for (const Value* input : graph.inputs())
      if (!initial.contains(input->name()) && input->name() != plan.observing && input->name() != plan.byBatch)
        batch.push_back(input->name());
    for (const Node* n = graph.front(); n; n = n->next())
      if (n->is("const")) initial.emplace(n->result()->name(), n->constant());
    if (!forward) forward = graph.clone();
    if (!options.trains) return {};
    QC_ASSIGN(TrainStep made, stepOf(graph, options));
    trained = std::move(made.parameters);
    stepName = made.step;
    rateName = made.learningRate;
    QC_ASSIGN(step, CompiledGraph::of(std::move(graph), workspace, options.memoryLimit));
    states = step->carried();
    std::erase_if(states, [&](const auto& s) { return std::find(batch.begin(), batch.end(), s.name) != batch.end(); });
    for (const auto& s : states)
      if (const auto it = initial.find(s.name); it != initial.end()) step->in[s.input] = it->second;  // else zeros, as optimizers begin
    return {};
  }

  Status bring(CompiledGraph& c, const TensorMap& given, bool observes, bool follows) const {
    for (const std::string& name : batch) {
      Tensor* own = c.input(name);
      if (!own) continue;
      const auto it = given.find(name);
      if (it == given.end()) return fail(ErrorCode::kInvalidData, "a batch has no array for this input").on(name);
      *own = it->second;
    }
    if (Tensor* own = c.input(plan.observing)) *own = number(observes ? 1 : 0);
    if (Tensor* own = c.input(plan.byBatch)) *own = number(follows ? 1 : 0);
    return {};
  }

  // The first step whose results are not finite: NaN before infinities, which masks may hold by intention.
  std::string whereItBegan() {
    std::string nan, infinite;
    const auto look = [&](const Step& s, std::span<const TensorRef> results, double) -> Status {
      for (const TensorRef& r : results) {
        if (r.dtype != DType::f32 || !nan.empty()) continue;
        const std::span<const float> x{r.as<const float>(), usize(r.numElements())};
        const auto named = [&] {
          const std::string& location = s.node->location();
          return location.empty() ? fmt::format("{} %{}", s.node->op(), s.node->result()->name()) : fmt::format("'{}'", location);
        };
        if (std::any_of(x.begin(), x.end(), [](float e) { return std::isnan(e); }))
          nan = named();
        else if (infinite.empty() && std::any_of(x.begin(), x.end(), [](float e) { return std::isinf(e); }))
          infinite = named();
      }
      return {};
    };
    if (!step->run(look)) return {};
    return !nan.empty() ? nan : infinite;
  }

  // An input of the batch out of which no number can come; empty: none.  Masks may hold infinities, which in the first step alone are to
  // blame.
  std::string inputWithoutNumbers() {
    for (const std::string& name : batch) {
      const Tensor* t = step->input(name);
      if (!t || t->dtype() != DType::f32) continue;
      const auto x = t->as<float>();
      if (std::any_of(x.begin(), x.end(), [&](float e) { return std::isnan(e) || (steps == 0 && std::isinf(e)); })) return name;
    }
    return {};
  }

  Failure diverged(std::string_view what, double value) {
    if (const std::string input = inputWithoutNumbers(); !input.empty())
      return fail(ErrorCode::kInvalidData, "{} is {} at step {}: this input of the batch holds values that are not finite", what, value,
                  steps + 1)
          .on(input)
          .help("leave out the samples that hold them, or prepare the data again");
    const std::string where = whereItBegan();
    return fail(ErrorCode::kInvalidData, "{} is {} at step {}{}", what, value, steps + 1,
                where.empty() ? std::string() : fmt::format("; the first values that are not finite are those of {}", where))
        .help("train with a lower learning rate, or clip gradients");
  }

  Result<double> run(const TensorMap& given) {
    if (!step) return fail(ErrorCode::kInvalidArgument, "this trainer only evaluates").help("open it with TrainerOptions::trains");
    QC_TRY(bring(*step, given, observing, byBatch));
    if (Tensor* own = step->input(stepName)) *own = number(static_cast<float>(steps));
    QC_TRY(step->run());
    const double loss = step->output(lossName)->at(0);
    if (!std::isfinite(loss)) return diverged("the loss", loss);
    for (const auto& s : states)
      if (!isFinite(step->out[s.output])) return diverged(fmt::format("a value of '{}'", s.name), NAN);
    step->carry(states);
    ++steps;
    rate = step->output(rateName)->at(0);
    return loss;
  }

  Result<Evaluation> evaluate(const TensorMap& given) {
    if (!evaluation) {
      // What changes between runs is an input here as well.
      Graph graph = forward->clone();
      for (const std::string& name : trained) {
        Value* constant = graph.findValue(name);
        graph.rename(constant, name + ".before");
        constant->replaceAllUsesWith(graph.addInput(name, constant->type()));
      }
      graph.eraseDeadNodes();
      QC_ASSIGN(evaluation, CompiledGraph::of(std::move(graph), workspace));
    }
    QC_TRY(bring(*evaluation, given, false, false));
    for (const auto& [name, value] : plan.states)  // as they begin
      if (Tensor* own = evaluation->input(name)) *own = value;
    for (const auto& s : states)
      if (Tensor* own = evaluation->input(s.name)) *own = step->in[s.input];
    QC_TRY(evaluation->run());
    Evaluation found{evaluation->output(lossName)->at(0), {}};
    for (const std::string& name : outputs) found.outputs[name] = *evaluation->output(name);
    return found;
  }

  Result<QuantizedModel> convert(const TrainState& state) const {
    PreparedModel trainedModel = model;
    Graph graph = (quantized ? *model.observed : *model.simplified).clone();
    QC_ASSIGN(const GroupParams params, applyTraining(graph, plan, state.values));
    if (!quantized) return QuantizedModel{Model(std::move(graph), model.name), {}, {}, {}, 0, {}, {}};
    trainedModel.observed = std::make_shared<const Graph>(std::move(graph));
    return quantize(trainedModel, params);
  }
};

Trainer::Trainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

Result<Trainer> Trainer::open(const PreparedModel& model, const GroupParams& params, TrainerOptions options) {
  return withoutExceptions([&]() -> Result<Trainer> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    if (options.batch < 1) return fail(ErrorCode::kInvalidArgument, "a batch of {}", options.batch);
    auto impl = std::make_unique<Impl>();
    impl->model = model;
    impl->quantized = options.quantized;
    QC_ASSIGN(impl->workspace, makeWorkspace({.threads = options.threads}));
    QC_TRY(impl->build(params, options));
    return Trainer(std::move(impl));
  });
}

Status Trainer::check(const PreparedModel& model, TrainerOptions options) {
  return withoutExceptions([&]() -> Status {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    Impl impl;
    impl.quantized = false;
    impl.model = model;
    QC_ASSIGN(Graph graph, impl.withLoss({}, options));
    QC_TRY(impl.stepOf(graph, options));
    return {};
  });
}

Result<double> Trainer::step(const TensorMap& batch) {
  return withoutExceptions([&] { return impl_->run(batch); });
}

Result<Trainer::Evaluation> Trainer::evaluate(const TensorMap& batch) {
  return withoutExceptions([&] { return impl_->evaluate(batch); });
}

void Trainer::observe(bool on) { impl_->observing = on; }
bool Trainer::observes() const { return !impl_->plan.observing.empty(); }
void Trainer::normalizeByBatch(bool on) { impl_->byBatch = on; }
const Tensor* Trainer::output(const std::string& name) const { return impl_->step ? impl_->step->output(name) : nullptr; }
int64_t Trainer::steps() const { return impl_->steps; }
double Trainer::learningRate() const { return impl_->rate; }
const std::vector<std::string>& Trainer::trained() const { return impl_->trained; }
int64_t Trainer::stepsByEvaluation() const { return impl_->step ? impl_->step->withoutKernel : 0; }

std::vector<Port> Trainer::inputs() const {
  std::vector<Port> ports;
  const auto add = [&](const std::string& name, const TensorType& type) {
    if (std::find(impl_->batch.begin(), impl_->batch.end(), name) != impl_->batch.end()) ports.push_back({name, type});
  };
  if (impl_->step)
    for (const Port& p : impl_->step->inputs) add(p.name, p.type);
  else
    for (const Value* input : impl_->forward->inputs()) add(input->name(), input->type());
  return ports;
}

TrainState Trainer::state() const {
  TrainState state{{}, impl_->steps};
  for (const auto& s : impl_->states) state.values[s.name] = impl_->step->in[s.input];
  return state;
}

Status Trainer::setState(const TrainState& state) {
  for (const auto& s : impl_->states) {
    const auto it = state.values.find(s.name);
    if (it == state.values.end() || it->second.type() != impl_->step->in[s.input].type())
      return fail(ErrorCode::kInvalidData, "the state is of another training: it {}",
                  it == state.values.end() ? "lacks this value" : "has it in another form")
          .on(s.name);
  }
  if (state.values.size() != impl_->states.size())
    return fail(ErrorCode::kInvalidData, "the state is of another training: {} values for {}", state.values.size(), impl_->states.size());
  for (const auto& s : impl_->states) impl_->step->in[s.input] = state.values.at(s.name);
  impl_->steps = state.steps;
  return {};
}

Status Trainer::saveState(const std::string& path) const {
  return withoutExceptions([&] {
    const TrainState now = state();
    return writeState(path, {now.values, {{"steps", std::to_string(now.steps)}}});
  });
}

Status Trainer::loadState(const std::string& path) {
  return withoutExceptions([&]() -> Status {
    QC_ASSIGN(StateFile file, readState(path));
    const std::string& steps = file.texts["steps"];
    if (steps.empty() || steps.size() > 15 || steps.find_first_not_of("0123456789") != std::string::npos)
      return fail(ErrorCode::kInvalidData, "'{}' does not say how many steps were done", path);
    return setState({std::move(file.values), std::stoll(steps)});
  });
}

Result<QuantizedModel> Trainer::convert() const { return convert(state()); }

Result<QuantizedModel> Trainer::convert(const TrainState& state) const {
  return withoutExceptions([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    return impl_->convert(state);
  });
}

}  // namespace qc
