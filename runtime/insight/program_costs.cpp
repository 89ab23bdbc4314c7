#include "runtime/insight/program_costs.h"

#include <algorithm>
#include <set>

#include "ir/arithmetic.h"
#include "ir/decided_sizes.h"
#include "passes/lower/bound_graph.h"
#include "passes/lower/segments.h"
#include "quantizer/quantizer.h"

namespace qc {
namespace {

Result<Model> boundModel(const Graph& graph, const Shapes& shapes) {
  if (!hasFreeDims(graph)) return Model(graph.clone(), "");
  QC_ASSIGN(Graph bound, boundGraph(graph, shapes));
  return Model(std::move(bound), "");
}

// The steps of a further set of inputs behind those that are known.
void add(ProgramCost& cost, std::vector<ModelRun::Part> parts, std::vector<StepProfile> steps, double share) {
  for (ModelRun::Part& part : parts) cost.parts.push_back({std::move(part.program), cost.steps.size() + part.firstStep});
  for (StepProfile& step : steps) {
    step.seconds *= share;
    cost.steps.push_back(std::move(step));
  }
}

class Measured : public CostSource {
 public:
  Measured(std::vector<TimedInputs> inputs, MeasureOptions options) : inputs_(std::move(inputs)), options_(std::move(options)) {}

  Result<std::vector<ProgramCost>> of(std::span<const Graph* const> graphs) override {
    const DefinedArithmetic defined;
    std::vector<ProgramCost> costs(graphs.size());
    for (const TimedInputs& each : inputs_) {
      QC_ASSIGN(const std::shared_ptr<Workspace> workspace, makeWorkspace({.threads = options_.threads}));
      std::vector<ModelRun> models;
      for (const Graph* graph : graphs) {
        QC_ASSIGN(const Model model, boundModel(*graph, shapesOf(each.inputs)));
        QC_ASSIGN(ModelRun run, ModelRun::open(model, each.inputs, options_.build, workspace));
        models.push_back(std::move(run));
      }
      QC_ASSIGN(std::vector<TimedModel> timed,
                profileInTurns(models, {.seconds = options_.seconds * each.share, .rounds = 20, .steps = true}));
      for (size_t i = 0; i < models.size(); ++i) {
        costs[i].seconds += each.share * *std::ranges::min_element(timed[i].runs);
        add(costs[i], models[i].parts(), std::move(timed[i].steps), each.share);
      }
    }
    return costs;
  }
  bool measures() const override { return true; }
  std::string target() const override { return options_.build.target.str(); }
  int threads() const override { return options_.threads; }

 private:
  std::vector<TimedInputs> inputs_;
  MeasureOptions options_;
};

class Modelled : public CostSource {
 public:
  Modelled(Target target, std::vector<TimedInputs> inputs, int threads)
      : target_(std::move(target)), inputs_(std::move(inputs)), threads_(threads) {}

  Result<std::vector<ProgramCost>> of(std::span<const Graph* const> graphs) override {
    const DefinedArithmetic defined;
    std::vector<ProgramCost> costs(graphs.size());
    for (const TimedInputs& each : inputs_)
      for (size_t i = 0; i < graphs.size(); ++i) {
        QC_ASSIGN(const Model model, boundModel(*graphs[i], shapesOf(each.inputs)));
        QC_TRY(addModelled(model, each, costs[i]));
      }
    return costs;
  }
  bool measures() const override { return false; }
  std::string target() const override { return target_.str(); }
  int threads() const override { return threads_; }

 private:
  Status addModelled(const Model& model, const TimedInputs& each, ProgramCost& cost) const {
    const BuildOptions build{.target = target_, .compile = {.load = false}};
    std::vector<Executable> programs;
    if (!firstDecidingByData(model.graph())) {
      QC_ASSIGN(Executable exe, compile(model, build));
      programs.push_back(std::move(exe));
    } else {
      PassContext cx;
      QC_ASSIGN(const Graph lowered, lowerModel(model, cx));
      QC_ASSIGN(const CutGraph cut, cutAtDecidedSizes(lowered));
      const auto runSegment = [&](size_t i, const TensorMap& own) -> Result<TensorMap> {
        QC_ASSIGN(Graph bound, boundGraph(cut.segments[i].graph, shapesOf(own)));
        QC_ASSIGN(Executable exe, Executable::fromGraph(bound.clone(), target_, build.compile));
        programs.push_back(std::move(exe));
        QC_ASSIGN(const Executable here, Executable::fromGraph(std::move(bound), Target::host(), {.remember = true}));
        QC_ASSIGN(Session session, here.session());
        return session.run(own);
      };
      QC_TRY(cut.run(each.inputs, runSegment));
    }
    for (Executable& exe : programs) {
      std::vector<StepProfile> steps = modelledSteps(exe.program(), threads_);
      for (const StepProfile& step : steps) cost.seconds += each.share * step.seconds;
      add(cost, {{std::move(exe)}}, std::move(steps), each.share);
    }
    return {};
  }

  Target target_;
  std::vector<TimedInputs> inputs_;
  int threads_;
};

}  // namespace

std::unique_ptr<CostSource> measuredCosts(std::vector<TimedInputs> inputs, MeasureOptions options) {
  return std::make_unique<Measured>(std::move(inputs), std::move(options));
}

std::unique_ptr<CostSource> modelledCosts(Target target, std::vector<TimedInputs> inputs, int threads) {
  return std::make_unique<Modelled>(std::move(target), std::move(inputs), threads);
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

ModelBasis basisOf(std::span<const ModelRun::Part> parts) {
  ModelBasis basis;
  std::set<std::string> origins;
  double total = 0;
  for (const ModelRun::Part& part : parts) {
    const Program& program = part.program.program();
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
      for (std::string_view all = cost->origin; !all.empty();) {  // those of several CPUs stand in one
        const size_t end = std::min(all.find("; "), all.size());
        origins.emplace(all.substr(0, end));
        all.remove_prefix(std::min(end + 2, all.size()));
      }
    }
  }
  if (total > 0) basis.error /= total, basis.documented /= total;
  basis.origins.assign(origins.begin(), origins.end());
  return basis;
}

}  // namespace qc
