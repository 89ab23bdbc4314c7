#include "runtime/profile.h"

#include <algorithm>
#include <limits>

#include "ir/arithmetic.h"
#include "runtime/turns.h"

namespace qc {
namespace {

void share(std::vector<StepProfile>& steps) {
  double total = 0;
  for (const StepProfile& s : steps) total += s.seconds;
  for (StepProfile& s : steps) s.share = total > 0 ? s.seconds / total : 0;
}

constexpr int kWarmUp = 2;  // runs

}  // namespace

Result<std::vector<StepProfile>> profile(ModelRun& run, int runs) {
  const DefinedArithmetic defined;
  std::vector<StepProfile> steps = run.steps();
  std::vector<std::vector<double>> times(steps.size());
  for (int k = -kWarmUp; k < std::max(runs, 1); ++k)
    QC_TRY(run.run([&](size_t i, double seconds) {
      if (k >= 0) times[i].push_back(seconds);
    }));
  for (size_t i = 0; i < times.size(); ++i) {
    std::nth_element(times[i].begin(), times[i].begin() + static_cast<std::ptrdiff_t>(times[i].size() / 2), times[i].end());
    steps[i].seconds = times[i][times[i].size() / 2];
  }
  share(steps);
  return steps;
}

Result<std::vector<StepProfile>> profile(const Executable& exe, std::span<const Tensor> inputs, int runs, const SessionOptions& options) {
  QC_ASSIGN(std::shared_ptr<Workspace> workspace, makeWorkspace(options));
  QC_ASSIGN(ModelRun run, ModelRun::open(exe, {inputs.begin(), inputs.end()}, std::move(workspace)));
  return profile(run, runs);
}

Result<std::vector<TimedModel>> profileInTurns(std::span<ModelRun> models, const TurnOptions& options) {
  const DefinedArithmetic defined;
  std::vector<TimedModel> timed(models.size());
  for (size_t k = 0; k < models.size(); ++k) {
    timed[k].steps = models[k].steps();
    for (int i = 0; i < kWarmUp; ++i) QC_TRY(models[k].run());
  }
  QC_ASSIGN(std::vector<std::vector<double>> runs,
            timeInTurns(models.size(), {.seconds = options.seconds, .least = options.rounds}, [&](size_t k) { return models[k].run(); }));
  for (size_t k = 0; k < models.size(); ++k) timed[k].runs = std::move(runs[k]);
  if (!options.steps) return timed;
  for (TimedModel& model : timed)
    for (StepProfile& step : model.steps) step.seconds = std::numeric_limits<double>::infinity();
  const auto byStep = [&](size_t k) {
    return models[k].run([&](size_t i, double seconds) { timed[k].steps[i].seconds = std::min(timed[k].steps[i].seconds, seconds); });
  };
  QC_TRY(timeInTurns(models.size(), {.seconds = options.seconds / 5, .least = options.rounds}, byStep));
  for (TimedModel& model : timed) share(model.steps);
  return timed;
}

}  // namespace qc
