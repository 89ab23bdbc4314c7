// A model on inputs that stay the same, to be run again and again: what takes times runs models so.  One program; or, where data decides
// what runs, those that these inputs lead through, with what is decided between them.
//
//   QC_ASSIGN(ModelRun run, ModelRun::open(model, inputs, build, workspace));
//   QC_TRY(run.run([&](size_t step, double seconds) { .. }));       // run.steps()[step]
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/specialize.h"

namespace qc {

struct StepProfile {
  std::string node;        // the user's name
  std::string op, kernel;  // no kernel: the op's reference evaluation
  std::string result;      // type
  double seconds = 0;      // median over the runs
  double share = 0;        // of the sum
  int64_t operations = 0;  // multiplications and additions of products (conv, linear, matmul, recurrent); 0 elsewhere
  int64_t bytes = 0;       // of all operands and results, each once; of one that decides, of the results
  std::string where = {};  // what has to hold for it to run: "'c' is true"
};

// All but the time, without a run.
std::vector<StepProfile> stepsOf(const Program& program);

// Multiplications and additions of a node's products (OpDef::products), whose sizes are known; 0 where it has none.
int64_t operationsOf(const Node& node);

class ModelRun {
 public:
  struct Part {
    Executable program;
    size_t firstStep = 0;  // of its steps, among all
  };
  // What data decided: which branch is taken, or how large something is.
  struct Decision {
    std::string node, op, result;  // type, with the sizes that came out
    std::string condition;         // empty: it decides sizes
    bool holds = false;
    std::string str() const;  // "'/if' takes the branch where 'c' is true"
  };

  // Of a program, its inputs in port order.
  static Result<ModelRun> open(Executable program, std::vector<Tensor> inputs, std::shared_ptr<Workspace> workspace);
  // Of a model whose sizes are known but for those that data decides.  One of which it decides anything runs once.
  static Result<ModelRun> open(const Model& model, const TensorMap& inputs, const BuildOptions& build,
                               std::shared_ptr<Workspace> workspace);
  // Of one that is compiled for the sizes that come; it runs once.
  static Result<ModelRun> open(std::shared_ptr<Specializer> model, const TensorMap& inputs, std::shared_ptr<Workspace> workspace);
  ModelRun(ModelRun&&) noexcept;
  ModelRun& operator=(ModelRun&&) noexcept;
  ~ModelRun();

  Status run();
  using TookFn = std::function<void(size_t step, double seconds)>;
  Status run(const TookFn& took);

  const std::vector<StepProfile>& steps() const;  // without times: of all parts and of what decides, in the order of execution
  const std::vector<Part>& parts() const;
  const std::vector<Decision>& decisions() const;

 private:
  struct Impl;
  explicit ModelRun(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qc
