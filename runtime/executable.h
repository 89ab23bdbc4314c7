// A compiled model.  An Executable is immutable and may be shared by any number of threads; each thread runs it through a
// Session of its own, which holds the memory of activations.  A run allocates nothing but the output tensors, and not even
// those when the caller brings them.
//
//   QC_ASSIGN(Executable exe, Executable::fromGraph(std::move(graph), Target::host()));
//   QC_ASSIGN(Session session, exe.session({.threads = 2}));
//   QC_ASSIGN(auto outputs, session.run({{"data", x}}));
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "codegen/program.h"
#include "ir/tensor.h"

namespace qc {

struct SessionOptions {
  int threads = 1;  // of this session, the caller's included
};

using TensorMap = std::map<std::string, Tensor>;

// One value of the model's interface.
struct Port {
  std::string name;
  TensorType type;
};

// Threads, and memory for activations.  Sessions that run one at a time may share it.
class Workspace;

class Session {
 public:
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  // Called before a step's results may be overwritten, with the step's index; for observers, profiles and comparison.
  using StepHook = std::function<Status(const Step&, std::span<const TensorRef> results, double seconds)>;

  // Inputs by name, all of them, with the dtype and sizes of their ports.  Outputs by name.
  Result<TensorMap> run(const TensorMap& inputs) { return run(inputs, StepHook()); }
  Result<TensorMap> run(const TensorMap& inputs, const StepHook& hook);
  // In port order, into tensors of the caller: no allocation at all.
  Status run(std::span<const Tensor> inputs, std::span<Tensor> outputs);
  Status run(std::span<const Tensor> inputs, std::span<Tensor> outputs, const StepHook& hook);

 private:
  friend class Executable;
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Error: the threads cannot be started.
Result<std::shared_ptr<Workspace>> makeWorkspace(const SessionOptions& options);

class Executable {
 public:
  static Result<Executable> fromGraph(Graph graph, const Target& target, const CompileOptions& options = {});

  std::vector<Port> inputs() const;
  std::vector<Port> outputs() const;
  const Program& program() const;  // of one that was moved from: an empty one, as its inputs and outputs are
  Result<Session> session(const SessionOptions& options = {}) const;
  // In the memory of other sessions, which has grown to what the largest of them needs; with their number of threads.
  Result<Session> sessionIn(std::shared_ptr<Workspace> workspace) const;

 private:
  explicit Executable(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace qc
