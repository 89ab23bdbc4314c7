#include "runtime/profile.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "ir/arithmetic.h"
#include "runtime/turns.h"

namespace qc {
namespace {

// How many products each element of a result sums, by op.
enum class Products { none, weightPerOutput, weightPerInput, innermost };

Products productsOf(std::string_view op) {
  constexpr std::pair<std::string_view, Products> kOps[] = {
      {"conv", Products::weightPerOutput},
      {"q.conv", Products::weightPerOutput},
      {"k.conv", Products::weightPerOutput},
      {"conv_transpose", Products::weightPerInput},
      {"q.conv_transpose", Products::weightPerInput},
      {"k.conv_transpose", Products::weightPerInput},
      {"linear", Products::innermost},
      {"q.linear", Products::innermost},
      {"k.linear", Products::innermost},
      {"q.weight_linear", Products::innermost},
      {"k.weight_linear", Products::innermost},
      {"matmul", Products::innermost},
      {"q.matmul", Products::innermost},
      {"k.matmul", Products::innermost},
  };
  for (const auto& [name, products] : kOps)
    if (name == op) return products;
  return Products::none;
}

std::vector<int64_t> weightShape(const Node& node) {
  if (const Attr* shape = node.attrs().find("weight_shape"))
    if (const auto* sizes = std::get_if<std::vector<int64_t>>(shape)) return *sizes;
  return node.numOperands() > 1 && node.operand(1) ? node.operand(1)->type().sizes() : std::vector<int64_t>();
}

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
  const Products products = productsOf(node.op());
  if (products == Products::none || node.numOperands() < 2) return 0;
  const TensorType &in = node.operand(0)->type(), &out = node.result()->type();
  if (products == Products::innermost) return in.sizes().empty() ? 0 : 2 * out.numElements() * in.sizes().back();
  const std::vector<int64_t> w = weightShape(node);
  if (w.empty() || w[0] == 0) return 0;
  const int64_t each =
      std::accumulate(w.begin() + 1, w.end(), int64_t{1}, std::multiplies<>());  // the first axis is O, or I of a transposed one
  return 2 * each * (products == Products::weightPerOutput ? out.numElements() : in.numElements());
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
