// A safety net under a running pass: if the process aborts in it (QC_CHECK) or it reports failure, the graph as it
// was before goes to a file together with the command that runs the pass on it again.
#pragma once

#include <optional>
#include <string>

#include "ir/graph.h"
#include "ir/op_def.h"
#include "passes/pass_manager.h"

namespace qc {

class Replay {
 public:
  // The graph as it is now, in front of step `first`, is cloned; nothing else is while passes run.  While this object lives, an abort or
  // segmentation fault of this thread writes the file.
  Replay(const Graph& start, const Pipeline& pipeline, size_t first, std::optional<Stage> stage, std::string folder);
  ~Replay();
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  void enter(size_t step) { step_ = step; }  // which step runs from now on

  // The file's path, empty if it could not be written.  The steps before the one that runs are taken again to get at its graph: they did
  // not fail, and have nothing but their options.
  std::string write() const;

 private:
  Graph start_;
  const Pipeline& pipeline_;
  size_t first_, step_;
  std::optional<Stage> stage_;
  std::string folder_;
  const Replay* outer_;
};

}  // namespace qc
