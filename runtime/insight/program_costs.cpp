#include "runtime/insight/program_costs.h"

#include <algorithm>
#include <set>

#include "ir/arithmetic.h"
#include "passes/lower/bound_graph.h"
#include "quantizer/quantizer.h"

namespace qc {
namespace {

Result<Model> boundModel(const Graph& graph, const Shapes& shapes) {
  if (!hasFreeDims(graph)) return Model(graph.clone(), "");
  QC_ASSIGN(Graph bound, boundGraph(graph, shapes));
  return Model(std::move(bound), "");
}

class Measured : public CostSource {
 public:
  Measured(TensorMap inputs, MeasureOptions options) : inputs_(std::move(inputs)), options_(std::move(options)) {}

  Result<std::vector<ProgramCost>> of(std::span<const Graph* const> graphs) override {
    const DefinedArithmetic defined;
    std::vector<Executable> programs;
    std::vector<std::vector<Tensor>> inputs;
    for (const Graph* graph : graphs) {
      QC_ASSIGN(const Model model, boundModel(*graph, shapesOf(inputs_)));
      QC_ASSIGN(Executable exe, compile(model, options_.build));
      std::vector<Tensor>& given = inputs.emplace_back();
      for (const Port& port : exe.inputs()) {
        const auto it = inputs_.find(port.name);
        if (it == inputs_.end()) return fail(ErrorCode::kInvalidData, "there is no array for this input").on(port.name);
        given.push_back(it->second);
      }
      programs.push_back(std::move(exe));
    }
    const TurnOptions turns{.seconds = options_.seconds, .rounds = 20, .steps = true, .session = {.threads = options_.threads}};
    QC_ASSIGN(std::vector<TimedModel> timed, profileInTurns(programs, inputs, turns));
    std::vector<ProgramCost> costs;
    for (size_t i = 0; i < programs.size(); ++i) {
      const double least = *std::min_element(timed[i].runs.begin(), timed[i].runs.end());
      costs.push_back({std::move(programs[i]), least, std::move(timed[i].runs), std::move(timed[i].steps)});
    }
    return costs;
  }
  bool measures() const override { return true; }
  std::string target() const override { return options_.build.target.str(); }
  int threads() const override { return options_.threads; }

 private:
  TensorMap inputs_;
  MeasureOptions options_;
};

class Modelled : public CostSource {
 public:
  Modelled(Target target, Shapes shapes, int threads) : target_(std::move(target)), shapes_(std::move(shapes)), threads_(threads) {}

  Result<std::vector<ProgramCost>> of(std::span<const Graph* const> graphs) override {
    const DefinedArithmetic defined;
    std::vector<ProgramCost> costs;
    for (const Graph* graph : graphs) {
      QC_ASSIGN(const Model model, boundModel(*graph, shapes_));
      QC_ASSIGN(Executable exe, compile(model, {.target = target_, .compile = {.load = false}}));
      std::vector<StepProfile> steps = modelledSteps(exe.program(), threads_);
      double sum = 0;
      for (const StepProfile& step : steps) sum += step.seconds;
      costs.push_back({std::move(exe), sum, {}, std::move(steps)});
    }
    return costs;
  }
  bool measures() const override { return false; }
  std::string target() const override { return target_.str(); }
  int threads() const override { return threads_; }

 private:
  Target target_;
  Shapes shapes_;
  int threads_;
};

}  // namespace

std::unique_ptr<CostSource> measuredCosts(TensorMap inputs, MeasureOptions options) {
  return std::make_unique<Measured>(std::move(inputs), std::move(options));
}

std::unique_ptr<CostSource> modelledCosts(Target target, Shapes shapes, int threads) {
  return std::make_unique<Modelled>(std::move(target), std::move(shapes), threads);
}

Work workOfStep(const Step& step, const StepProfile& profile) {
  constexpr int64_t kLevel1 = 1 << 15;  // bytes
  return {{"kernel", step.plan->nanoseconds},
          {"step", 1},
          {"far_byte", static_cast<double>(std::max<int64_t>(0, profile.bytes - kLevel1))},
          {"unit", (step.kernel->isas & isaBit(Isa::amxInt8)) != 0 ? 1.0 : 0.0}};
}

std::vector<StepProfile> modelledSteps(const Program& program, int threads) {
  std::vector<StepProfile> steps = stepsOf(program);
  const CpuClass cpu = program.target().cpuClass();
  const KernelCost* of = findKernelCost(kStepCost, cpu);
  const bool inModel = of && of->cpu == cpu;
  double total = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const Step& step = program.steps()[i];
    if (!step.kernel || !step.plan) continue;
    const int parts = step.splits() ? threads : 1;  // into how many units is known of code alone
    const double whole = inModel ? nanosecondsOf(kStepCost, cpu, workOfStep(step, steps[i])) : step.plan->nanoseconds;
    steps[i].seconds = whole / static_cast<double>(parts) * 1e-9;
    total += steps[i].seconds;
  }
  for (StepProfile& step : steps) step.share = total > 0 ? step.seconds / total : 0;
  return steps;
}

ModelBasis basisOf(const Program& program) {
  ModelBasis basis;
  std::set<std::string> origins;
  double total = 0;
  for (const Step& step : program.steps()) {
    const KernelCost* cost = step.kernel ? findKernelCost(step.kernel->id, program.target().cpuClass()) : nullptr;
    if (!step.kernel || !step.plan) {
      if (step.node->string("kernel") != "view") basis.uncounted.push_back(displayName(*step.node));
      continue;
    }
    if (!cost) continue;
    const double time = step.plan->nanoseconds;
    total += time;
    (cost->samples > 0 ? basis.error : basis.documented) += time * (cost->samples > 0 ? cost->median : 1);
    origins.emplace(cost->origin);
  }
  if (total > 0) basis.error /= total, basis.documented /= total;
  basis.origins.assign(origins.begin(), origins.end());
  return basis;
}

}  // namespace qc
