#include "runtime/profile.h"

#include <algorithm>
#include <limits>

#include "ir/arithmetic.h"
#include "runtime/turns.h"

namespace qc {
namespace {

int64_t bytesOf(const Step& step) {
  int64_t bytes = 0;
  for (const Value* v : step.node->operands())
    if (v) bytes += v->type().byteSize();
  for (int i = 0; i < step.node->numResults(); ++i) bytes += step.node->result(i)->type().byteSize();
  return bytes;
}

void share(std::vector<StepProfile>& steps) {
  double total = 0;
  for (const StepProfile& s : steps) total += s.seconds;
  for (StepProfile& s : steps) s.share = total > 0 ? s.seconds / total : 0;
}

constexpr int kWarmUp = 2;  // runs

}  // namespace

int64_t operationsOf(const Node& node) {
  const ProductsFn& products = node.def().products;
  return products ? static_cast<int64_t>(2 * products(node, [](const Dim& dim) { return static_cast<double>(dim.size()); })) : 0;
}

std::vector<StepProfile> stepsOf(const Program& program) {
  std::vector<StepProfile> steps;
  for (const Step& step : program.steps()) {
    const Node& n = *step.node;
    const TensorType* type = n.numResults() > 0 ? &n.result()->type() : nullptr;
    steps.push_back({n.location(), std::string(n.op()), n.string("kernel"),
                     type ? fmt::format("{}[{}]", toString(type->dtype), toString(type->shape)) : "", 0, 0, operationsOf(n),
                     bytesOf(step)});
  }
  return steps;
}

Result<std::vector<StepProfile>> profile(const Executable& exe, std::span<const Tensor> inputs, int runs, const SessionOptions& options) {
  const DefinedArithmetic defined;
  QC_ASSIGN(Session session, exe.session(options));
  std::vector<Tensor> outputs;
  for (const Port& p : exe.outputs()) outputs.emplace_back(p.type.dtype, p.type.sizes());
  std::vector<std::vector<double>> times(exe.program().steps().size());
  for (int run = -kWarmUp; run < std::max(runs, 1); ++run) {
    size_t i = 0;
    QC_TRY(session.run(inputs, outputs, [&](const Step&, std::span<const TensorRef>, double seconds) -> Status {
      if (run >= 0) times[i].push_back(seconds);
      ++i;
      return {};
    }));
  }
  std::vector<StepProfile> steps = stepsOf(exe.program());
  for (size_t i = 0; i < times.size(); ++i) {
    std::nth_element(times[i].begin(), times[i].begin() + static_cast<std::ptrdiff_t>(times[i].size() / 2), times[i].end());
    steps[i].seconds = times[i][times[i].size() / 2];
  }
  share(steps);
  return steps;
}

Result<std::vector<TimedModel>> profileInTurns(std::span<const Executable> models, std::span<const std::vector<Tensor>> inputs,
                                               const TurnOptions& options) {
  const DefinedArithmetic defined;
  if (models.size() != inputs.size())
    return fail(ErrorCode::kInvalidArgument, "{} models, and inputs of {}", models.size(), inputs.size()).help("give each its own");
  std::vector<TimedModel> timed(models.size());
  // In the same memory and on the same threads: where those lie on the machine would count more than what is compared.
  QC_ASSIGN(const std::shared_ptr<Workspace> workspace, makeWorkspace(options.session));
  std::vector<Session> sessions;
  std::vector<std::vector<Tensor>> outputs(models.size());
  for (size_t k = 0; k < models.size(); ++k) {
    QC_ASSIGN(Session session, models[k].sessionIn(workspace));
    sessions.push_back(std::move(session));
    for (const Port& p : models[k].outputs()) outputs[k].emplace_back(p.type.dtype, p.type.sizes());
    timed[k].steps = stepsOf(models[k].program());
    for (int i = 0; i < kWarmUp; ++i) QC_TRY(sessions[k].run(inputs[k], outputs[k]));
  }
  QC_ASSIGN(std::vector<std::vector<double>> runs, timeInTurns(models.size(), {.seconds = options.seconds, .least = options.rounds},
                                                               [&](size_t k) { return sessions[k].run(inputs[k], outputs[k]); }));
  for (size_t k = 0; k < models.size(); ++k) timed[k].runs = std::move(runs[k]);
  if (!options.steps) return timed;
  for (TimedModel& model : timed)
    for (StepProfile& step : model.steps) step.seconds = std::numeric_limits<double>::infinity();
  const auto byStep = [&](size_t k) {
    size_t i = 0;
    return sessions[k].run(inputs[k], outputs[k], [&](const Step&, std::span<const TensorRef>, double seconds) -> Status {
      StepProfile& step = timed[k].steps[i++];
      step.seconds = std::min(step.seconds, seconds);
      return {};
    });
  };
  QC_TRY(timeInTurns(models.size(), {.seconds = options.seconds / 5, .least = options.rounds}, byStep));
  for (TimedModel& model : timed) share(model.steps);
  return timed;
}

}  // namespace qc
