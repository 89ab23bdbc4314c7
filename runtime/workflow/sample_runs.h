// Runs samples of any shape through one graph: what runs it is made once per combination of shapes, on packed weights and code that all of
// them share.  Where data decides sizes, the graph runs in segments, each made for the sizes that come out.
//
//   QC_ASSIGN(SampleRuns runs, SampleRuns::open(std::move(graph), {.threads = 2}));
//   QC_TRY(runs.run(sample));
//   runs.output(0)         // of the last sample, until the next
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "passes/lower/segments.h"
#include "runtime/executable.h"
#include "runtime/per_shapes.h"

namespace qc {

class SampleRuns {
 public:
  // A graph in the form that compile() starts from, once `passes` have run on it at the sizes of a sample.  Outputs behind the first
  // `needed` are computed where the branch that they are in is taken; elsewhere they have no elements.
  static Result<SampleRuns> open(Graph graph, const SessionOptions& options, std::string passes = {}, size_t needed = SIZE_MAX);

  // Before run(), for what a sample's shapes contradict: made ready for these.
  Status prepare(const Shapes& shapes);
  Status run(const TensorMap& sample, const Session::StepHook& hook = {});
  bool isCut() const { return cut_ != nullptr; }
  // In the order of the graph's outputs.
  const Tensor& output(size_t i) const { return (*outputs_)[i]; }
  std::span<const Tensor> outputs() const { return *outputs_; }

 private:
  struct Runner {
    Session session;
    std::vector<Port> inputs, ports;
    std::vector<Tensor> outputs;
  };
  // One graph, all of it or a segment.
  struct Part {
    Graph graph;
    std::shared_ptr<ProgramParts> parts;
    PerShapes<Runner> runners;
  };
  static Result<SampleRuns> openIn(std::shared_ptr<Workspace> workspace, Graph graph, std::string passes, size_t needed = SIZE_MAX);
  static bool looksIntoBranches(const Graph& graph, size_t needed);
  static Part partOf(Graph graph, std::shared_ptr<ProgramParts> parts);
  Result<Runner*> runnerAt(Part& part, const Shapes& shapes);
  Result<Runner> madeAt(const Part& part, const Shapes& shapes) const;
  static Status runIn(Runner& runner, const TensorMap& sample, const Session::StepHook& hook);

  std::string passes_;
  std::shared_ptr<Workspace> workspace_;
  std::unique_ptr<CutGraph> cut_;                    // null: nothing is decided by data
  std::vector<std::unique_ptr<Part>> parts_;         // one, or one for each segment; null: that decides
  std::vector<std::unique_ptr<SampleRuns>> bodies_;  // one for each segment of a cut graph; null: that is not a loop
  std::vector<Tensor> joined_;                       // outputs of a cut graph
  std::vector<Tensor>* outputs_ = &joined_;
};

}  // namespace qc
