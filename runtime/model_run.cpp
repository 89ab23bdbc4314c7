#include "runtime/model_run.h"

#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "ir/guarded.h"
#include "ir/op_def.h"
#include "runtime/specialize.h"

namespace qc {
namespace {

int64_t bytesOf(const Step& step) {
  int64_t bytes = 0;
  for (const Value* v : step.node->operands())
    if (v) bytes += v->type().byteSize();
  for (int i = 0; i < step.node->numResults(); ++i) bytes += step.node->result(i)->type().byteSize();
  return bytes;
}

StepProfile stepOf(const CutGraph::Decision& decided) {
  const Node& node = decided.node;
  StepProfile step{node.location(), std::string(node.op()), "", decided.results.empty() ? "" : decided.results[0].type().str()};
  for (const Tensor& t : decided.results) step.bytes += t.byteSize();
  return step;
}

std::vector<Tensor> inPortOrder(const Executable& exe, const TensorMap& inputs) {
  std::vector<Tensor> ordered;
  for (const Port& port : exe.inputs()) ordered.push_back(inputs.at(port.name));
  return ordered;
}

std::string whereOf(const std::vector<std::pair<std::string, bool>>& guards) {
  std::string text;
  for (const auto& [condition, holds] : guards) text += fmt::format("{}'{}' is {}", text.empty() ? "" : ", ", condition, holds);
  return text;
}

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

std::string ModelRun::Decision::str() const {
  return condition.empty() ? fmt::format("'{}' gives {}", node, result)
                           : fmt::format("'{}' takes the branch where '{}' is {}", node, condition, holds);
}

struct ModelRun::Impl {
  std::vector<StepProfile> steps;
  std::vector<Part> parts;
  std::vector<Decision> decisions;
  std::optional<Session> session;  // of one program, with its tensors
  std::vector<Tensor> in, out;
  std::optional<DynamicSession> chain;  // or of several
  TensorMap inputs;

  void see(const Executable& exe, const std::vector<std::pair<std::string, bool>>& guards) {
    parts.push_back({exe, steps.size()});
    for (StepProfile& step : stepsOf(exe.program())) {
      step.where = whereOf(guards);
      steps.push_back(std::move(step));
    }
  }

  void see(const CutGraph::Decision& decided) {
    steps.push_back(stepOf(decided));
    steps.back().where = whereOf(decided.segment.guards);
    const Value* condition = conditionOf(decided.node);
    decisions.push_back({steps.back().node, steps.back().op, steps.back().result, condition ? condition->name() : std::string(),
                         decided.holds.value_or(false)});
  }

  Status run(const Session::StepHook& step, const CutGraph::SeeDecision& decision) {
    if (session) return session->run(in, out, step);
    QC_TRY(chain->run(inputs, {.step = step, .decision = decision}));
    return {};
  }
};

Result<ModelRun> ModelRun::open(Executable program, std::vector<Tensor> inputs, std::shared_ptr<Workspace> workspace) {
  return withoutExceptions([&]() -> Result<ModelRun> {
    auto impl = std::make_unique<Impl>();
    QC_ASSIGN(impl->session, program.sessionIn(std::move(workspace)));
    impl->in = std::move(inputs);
    for (const Port& p : program.outputs()) impl->out.emplace_back(p.type.dtype, p.type.sizes());
    impl->see(program, {});
    return ModelRun(std::move(impl));
  });
}

Result<ModelRun> ModelRun::open(std::shared_ptr<Specializer> model, const TensorMap& inputs, std::shared_ptr<Workspace> workspace) {
  return withoutExceptions([&]() -> Result<ModelRun> {
    auto impl = std::make_unique<Impl>();
    impl->chain.emplace(std::move(model), SessionOptions(), workspace);
    impl->inputs = inputs;
    RunWatch watch;
    watch.program = [&](const Executable& exe, const auto& guards) { impl->see(exe, guards); };
    watch.decision = [&](const CutGraph::Decision& decided) -> Status {
      impl->see(decided);
      return {};
    };
    QC_TRY(impl->chain->run(inputs, watch));
    if (impl->decisions.empty() && impl->parts.size() == 1)  // without the outputs that a DynamicSession makes anew
      return open(impl->parts[0].program, inPortOrder(impl->parts[0].program, inputs), std::move(workspace));
    return ModelRun(std::move(impl));
  });
}

Result<ModelRun> ModelRun::open(const Model& model, const TensorMap& inputs, const BuildOptions& build,
                                std::shared_ptr<Workspace> workspace) {
  return withoutExceptions([&]() -> Result<ModelRun> {
    for (const Port& port : model.inputs())
      if (!inputs.contains(port.name)) return fail(ErrorCode::kInvalidData, "there is no array for this input").on(port.name);
    if (firstDecidingByData(model.graph())) {
      Model copy(model.graph().clone(), model.name());
      return open(std::make_shared<Specializer>(std::move(copy), SpecializeOptions{.build = build}), inputs, std::move(workspace));
    }
    QC_ASSIGN(Executable exe, compile(model, build));
    std::vector<Tensor> ordered = inPortOrder(exe, inputs);
    return open(std::move(exe), std::move(ordered), std::move(workspace));
  });
}

ModelRun::ModelRun(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ModelRun::ModelRun(ModelRun&&) noexcept = default;
ModelRun& ModelRun::operator=(ModelRun&&) noexcept = default;
ModelRun::~ModelRun() = default;

Status ModelRun::run() { return impl_->run({}, {}); }

Status ModelRun::run(const TookFn& took) {
  size_t i = 0;
  const auto ofStep = [&](const Step&, std::span<const TensorRef>, double seconds) -> Status {
    took(i++, seconds);
    return {};
  };
  const auto ofDecision = [&](const CutGraph::Decision& decided) -> Status {
    took(i++, decided.seconds);
    return {};
  };
  return impl_->run(ofStep, ofDecision);
}

const std::vector<StepProfile>& ModelRun::steps() const { return impl_->steps; }
const std::vector<ModelRun::Part>& ModelRun::parts() const { return impl_->parts; }
const std::vector<ModelRun::Decision>& ModelRun::decisions() const { return impl_->decisions; }

}  // namespace qc
