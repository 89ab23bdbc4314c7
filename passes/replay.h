// A safety net under a running pass: if the process aborts in it (QC_CHECK) or it reports failure, the graph as it
// was before goes to a file together with the command that runs the pass on it again.
#pragma once

#include <optional>
#include <string>

#include "ir/graph.h"
#include "ir/op_def.h"

namespace qc {

class Replay {
 public:
  // `before` is cloned.  While this object lives, an abort or segmentation fault of this thread writes the file.
  Replay(const Graph& before, std::string pipeline, std::optional<Stage> stage, std::string folder);
  ~Replay();
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  std::string write() const;  // the file's path, empty if it could not be written

 private:
  Graph before_;
  std::string pipeline_, folder_;
  std::optional<Stage> stage_;
  const Replay* outer_;
};

}  // namespace qc
