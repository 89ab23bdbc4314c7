// A compiled graph with the tensors that it reads and writes: what is kept between runs is exchanged, not copied.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "runtime/executable.h"

namespace qc {

struct CompiledGraph {
  // A float graph whose sizes are known.  memoryLimit: bytes of values that are alive together; what is over is computed again (pass
  // `recompute`).  0: any.
  static Result<CompiledGraph> of(Graph graph, const std::shared_ptr<Workspace>& workspace, int64_t memoryLimit = 0);
  // From `in` to `out`; results that others share by now get new bytes.
  Status run(const Session::StepHook& hook = {});
  Tensor* input(const std::string& name);  // null: the graph has none of this name, or does not read it
  Tensor* output(const std::string& name);
  // Inputs that have an output "next.NAME": what a step of training hands on to the next.
  struct Carried {
    std::string name;
    size_t input, output;  // places in `in` and `out`
  };
  std::vector<Carried> carried() const;
  void carry(std::span<const Carried> values);  // what the last run gave is what the next one reads

  Session session;
  std::vector<Port> inputs, outputs;
  std::vector<Tensor> in, out;
  std::map<std::string, size_t> inputAt, outputAt;
  int64_t withoutKernel = 0;  // steps that are evaluated
};

}  // namespace qc
