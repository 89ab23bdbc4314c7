#include "runtime/executable.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "ir/memory_limit.h"
#include "ir/op_def.h"
#include "runtime/rt/pool.h"

namespace qc {
namespace {

struct PoolDeleter {
  void operator()(qcrt_pool* pool) const { qcrt_pool_destroy(pool); }
};

Status checkTensor(const Port& port, const Tensor& t, std::string_view what) {
  if (t.numElements() > 0 && !t.data()) return fail(ErrorCode::kInvalidArgument, "{} is a tensor without bytes", what).on(port.name);
  if (t.dtype() == port.type.dtype && t.sizes() == port.type.sizes()) return {};
  return fail(ErrorCode::kInvalidArgument, "{} is {}, expected {}", what, t.type().str(), port.type.str())
      .on(port.name)
      .help("convert the array, or compile for its shape with LoadOptions::shapes");
}

}  // namespace

class Workspace {
 public:
  static Result<std::shared_ptr<Workspace>> create(int threads) {
    if (threads < 1 || threads > 1024) return fail(ErrorCode::kInvalidArgument, "{} threads", threads).help("use 1 to 1024");
    auto made = std::make_shared<Workspace>();
    made->threads = threads;
    made->pool.reset(qcrt_pool_create(threads));
    if (!made->pool) return fail(ErrorCode::kResource, "cannot start {} threads", threads);
    return made;
  }
  Status reserve(int64_t arenaBytes, int64_t scratchBytes) {
    const int64_t scratchOfAll = scratchBytes * threads;
    if (arenaBytes <= arena.byteSize() && scratchOfAll <= scratch.byteSize()) return {};
    QC_TRY(checkMemory(std::max(arenaBytes, arena.byteSize()) + std::max(scratchOfAll, scratch.byteSize()), "a session"));
    if (arenaBytes > arena.byteSize()) arena = Tensor(DType::u8, {arenaBytes});
    if (scratchOfAll > scratch.byteSize()) scratch = Tensor(DType::u8, {scratchOfAll});
    return {};
  }

  std::unique_ptr<qcrt_pool, PoolDeleter> pool;
  int threads = 1;
  Tensor arena, scratch;
};

Result<std::shared_ptr<Workspace>> makeWorkspace(const SessionOptions& options) { return Workspace::create(options.threads); }

struct Session::Impl {
  std::shared_ptr<const Program> program;
  std::vector<Port> inputs, outputs;
  std::shared_ptr<Workspace> workspace;
  const void* arena = nullptr;  // where it was when the addresses were taken
  std::vector<void*> inputData, outputData;
  // Buffer addresses of every step back to back, rebuilt only where they depend on inputs and outputs.
  struct Slot {
    size_t index;
    BufferRef ref;
  };
  std::vector<void*> addresses;
  std::vector<Slot> external;
  struct HostStep {
    std::vector<TensorRef> inputs, outputs;
  };
  std::vector<size_t> firstBuffer;
  std::map<size_t, HostStep> views;  // operands and results as tensors, of steps of which anyone reads them
  std::vector<int64_t> chunks;

  void* addressOf(const BufferRef& ref) const {
    switch (ref.kind) {
      case BufferRef::Kind::none: return nullptr;
      case BufferRef::Kind::input: return nth(inputData, ref.index);
      case BufferRef::Kind::output: return nth(outputData, ref.index);
      case BufferRef::Kind::arena: return static_cast<char*>(const_cast<void*>(arena)) + ref.index;
      case BufferRef::Kind::fixed: return const_cast<void*>(ref.address);
    }
    return nullptr;
  }

  void prepare() {
    arena = workspace->arena.data();
    inputData.resize(inputs.size());
    outputData.resize(outputs.size());
    addresses.clear(), external.clear(), firstBuffer.clear(), views.clear(), chunks.clear();
    for (const Step& step : program->steps()) {
      firstBuffer.push_back(addresses.size());
      for (const BufferRef& ref : step.buffers) {
        if (ref.kind == BufferRef::Kind::input || ref.kind == BufferRef::Kind::output) external.push_back({addresses.size(), ref});
        addresses.push_back(addressOf(ref));
      }
      if (!step.function) viewsOf(firstBuffer.size() - 1);
      const bool split = workspace->threads > 1 && step.splits();
      chunks.push_back(split ? std::min<int64_t>(workspace->threads, step.shape.units) : 1);
    }
  }

  void bind(std::span<const Tensor> in, std::span<Tensor> out) {
    if (arena != workspace->arena.data()) prepare();  // another session made it grow
    for (size_t i = 0; i < in.size(); ++i) inputData[i] = const_cast<void*>(in[i].data());
    for (size_t i = 0; i < out.size(); ++i) outputData[i] = out[i].mutableData();
    for (const Slot& slot : external) addresses[slot.index] = addressOf(slot.ref);
  }

  // A step's operands and results where they are now.
  const HostStep& viewsOf(size_t index) {
    HostStep& view = views[index];
    const Step& step = program->steps()[index];
    const bool isNew = view.inputs.empty() && view.outputs.empty();
    for (size_t i = 0; isNew && i < step.sizes.size(); ++i) {
      const auto operand = static_cast<int>(i);
      const bool isOperand = operand < step.numOperands;
      const Value* v = isOperand ? step.node->operand(operand) : step.node->result(operand - step.numOperands);
      (isOperand ? view.inputs : view.outputs).push_back(v ? TensorRef{v->type().dtype, step.sizes[i], nullptr} : TensorRef{});
    }
    size_t at = firstBuffer[index];
    for (TensorRef& r : view.inputs) r.data = addresses[at++];
    for (TensorRef& r : view.outputs) r.data = addresses[at++];
    return view;
  }

  Status runStep(size_t index) {
    const Step& step = program->steps()[index];
    if (step.function) {
      const int32_t refused = qcrt_pool_run(workspace->pool.get(), step.function, &addresses[firstBuffer[index]], step.shape.units,
                                            chunks[index], const_cast<void*>(workspace->scratch.data()), program->scratchBytes());
      if (!refused) return {};
      QC_TRY(evaluate(index));  // the code says only that the data is bad
      return fail(ErrorCode::kInternal, "kernel '{}' refuses data that the op takes", step.kernel->id).at(step.node->location());
    }
    if (step.node->def().has(kView)) return {};  // a tap for the hook: the bytes are there already
    return evaluate(index);
  }

  Status evaluate(size_t index) {
    const Node& node = *program->steps()[index].node;
    const HostStep& view = viewsOf(index);
    const EvalContext context{node, view.inputs, view.outputs};
    if (auto s = node.def().eval(context); !s) return tl::make_unexpected(std::move(s.error()).at(node.location()));
    return {};
  }
};

static Failure movedFrom(std::string_view what) {
  return fail(ErrorCode::kInvalidArgument, "this {} has been moved from", what).help("use the one that it was moved into");
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Status Session::run(std::span<const Tensor> inputs, std::span<Tensor> outputs) { return run(inputs, outputs, {}); }

Status Session::run(std::span<const Tensor> inputs, std::span<Tensor> outputs, const StepHook& hook) {
  if (!impl_) return movedFrom("session");
  Impl& s = *impl_;
  if (inputs.size() != s.inputs.size() || outputs.size() != s.outputs.size())
    return fail(ErrorCode::kInvalidArgument, "the model has {} inputs and {} outputs; {} and {} were given", s.inputs.size(),
                s.outputs.size(), inputs.size(), outputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) QC_TRY(checkTensor(s.inputs[i], inputs[i], "input"));
  for (size_t i = 0; i < outputs.size(); ++i) {
    QC_TRY(checkTensor(s.outputs[i], outputs[i], "output"));
    if (!outputs[i].ownsBytes())
      return fail(ErrorCode::kInvalidArgument, "the bytes of the output are shared with another tensor, or nobody's")
          .on(s.outputs[i].name)
          .help("give each output a tensor of its own");
  }
  s.bind(inputs, outputs);
  const DefinedArithmetic defined;
  for (size_t i = 0; i < s.program->steps().size(); ++i) {
    if (!hook) {
      QC_TRY(s.runStep(i));
      continue;
    }
    const auto start = std::chrono::steady_clock::now();
    QC_TRY(s.runStep(i));
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const auto& results = s.viewsOf(i).outputs;
    const Step& step = s.program->steps()[i];
    if (auto told = guarded("the hook", [&] { return hook(step, results, elapsed.count()); }); !told)
      return tl::make_unexpected(std::move(told.error()).at(step.node->location()));
  }
  for (const Program::Copy& copy : s.program->copies())
    std::memmove(nth(s.outputData, copy.output), s.addressOf(copy.from), usize(copy.bytes));
  return {};
}

Result<TensorMap> Session::run(const TensorMap& inputs, const StepHook& hook) {
  return withoutExceptions([&]() -> Result<TensorMap> {
    if (!impl_) return movedFrom("session");
    std::vector<Tensor> in, out;
    for (const Port& port : impl_->inputs) {
      const auto it = inputs.find(port.name);
      if (it == inputs.end()) return fail(ErrorCode::kInvalidArgument, "no array was given for this input").on(port.name);
      in.push_back(it->second);
    }
    for (const auto& [name, tensor] : inputs)
      if (std::none_of(impl_->inputs.begin(), impl_->inputs.end(), [&](const Port& p) { return p.name == name; }))
        return fail(ErrorCode::kInvalidArgument, "the model has no such input").on(name);
    int64_t bytes = 0;
    for (const Port& port : impl_->outputs) bytes += port.type.byteSize();
    QC_TRY(checkMemory(bytes, "the outputs"));
    for (const Port& port : impl_->outputs) out.emplace_back(port.type.dtype, port.type.sizes());
    QC_TRY(run(in, out, hook));
    TensorMap result;
    for (size_t i = 0; i < out.size(); ++i) result.emplace(impl_->outputs[i].name, std::move(out[i]));
    return result;
  });
}

Result<Executable> Executable::fromGraph(Graph graph, const Target& target, const CompileOptions& options) {
  return withoutExceptions([&]() -> Result<Executable> {
    const DefinedArithmetic defined;
    QC_ASSIGN(Program program, buildProgram(std::move(graph), target, options));
    return Executable(std::make_shared<Program>(std::move(program)));
  });
}

const Program& Executable::program() const {
  static const Program kNone;
  return program_ ? *program_ : kNone;
}

std::vector<Port> Executable::inputs() const {
  std::vector<Port> ports;
  if (!program_) return ports;
  for (const Value* v : program_->graph().inputs()) ports.push_back({v->name(), v->type()});
  return ports;
}

std::vector<Port> Executable::outputs() const {
  std::vector<Port> ports;
  if (!program_) return ports;
  const Graph& g = program_->graph();
  for (size_t i = 0; i < g.outputs().size(); ++i) ports.push_back({g.outputNames()[i], g.outputs()[i]->type()});
  return ports;
}

Result<Session> Executable::session(const SessionOptions& options) const {
  return withoutExceptions([&]() -> Result<Session> {
    QC_ASSIGN(std::shared_ptr<Workspace> own, makeWorkspace(options));
    return sessionIn(std::move(own));
  });
}

Result<Session> Executable::sessionIn(std::shared_ptr<Workspace> workspace) const {
  return withoutExceptions([&]() -> Result<Session> {
    const DefinedArithmetic defined;
    if (!program_) return movedFrom("executable");
    if (!workspace) return fail(ErrorCode::kInvalidArgument, "no workspace").help("make one with makeWorkspace()");
    QC_TRY(workspace->reserve(program_->arenaBytes(), program_->scratchBytes()));
    auto impl = std::make_unique<Session::Impl>();
    impl->program = program_;
    impl->inputs = inputs();
    impl->outputs = outputs();
    impl->workspace = std::move(workspace);
    impl->prepare();
    return Session(std::move(impl));
  });
}

}  // namespace qc
