// Runs pipelines of passes and watches over them: verification after each pass, dumps, diffs, times, and a file
// that replays the failing pass.
//
//   QC_ASSIGN(Pipeline pipeline, Pipeline::parse("fold-batch-norm,prepare{observer=minmax}"));
//   PassManager manager(pipeline);
//   PassContext cx;
//   QC_TRY(manager.run(graph, cx));
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/text.h"
#include "passes/pass.h"

namespace qc {

// A pipeline is text: passes in order, options in braces, named pipelines standing for their own text.
// Option values are written like attributes; a string needs quotes only if it holds a blank, comma, brace or quote.
// An integer option without a value is 1.
class Pipeline {
 public:
  struct Step {
    const Pass* pass;
    AttrDict options;    // defaults filled in
    bool guest = false;  // no pass of the product: what it leaves is verified at once, and is its author's fault
  };

  static Result<Pipeline> parse(std::string_view text, const PassRegistry& registry = PassRegistry::get());
  const std::vector<Step>& steps() const { return steps_; }
  void add(Step step);                     // requires: it has a pass
  std::string str(size_t from = 0) const;  // parse(str()) is the same pipeline; defaults are not written

 private:
  std::vector<Step> steps_;
};

struct PassManagerOptions {
  bool verifyEach = false;    // after every pass; without it after those that state a stage, and at the end
  bool verifyEnd = true;      // off where another pipeline follows at once, which verifies
  std::string printAfter;     // regular expression over names of passes: the graph after these
  bool printChanged = false;  // what each pass changed, as a diff
  std::string dumpDir;        // one file per pass
  std::string replayDir;      // where the graph before a failing or crashing pass goes, with the command that replays it
  int stopAfter = -1;         // run this many passes only
  PrintOptions print;
  std::function<void(std::string_view)> log;  // takes what is printed
};

class Replay;

class PassManager {
 public:
  explicit PassManager(Pipeline pipeline, PassManagerOptions options = {});

  // `stage`: of the graph as given, if known.  After an error the graph is valid to destroy, nothing else.
  Status run(Graph& graph, PassContext& cx, std::optional<Stage> stage = std::nullopt);
  std::optional<Stage> stage() const { return stage_; }  // of the graph after the last pass that ran

 private:
  Status runStep(size_t index, Graph& graph, PassContext& cx, const Replay* replay);
  Status show(size_t index, const std::string& before, const Graph& graph);
  Status dump(size_t number, std::string_view name, const Graph& graph);
  Pipeline pipeline_;
  PassManagerOptions options_;
  std::optional<Stage> stage_;
};

// Parses and runs in one go, with the PassInsertions (insertion.h) that the context provides.
Status runPipeline(std::string_view text, Graph& graph, PassContext& cx, PassManagerOptions options = {});

// The same for the graphs that nodes hold, such as the bodies of loops, each by itself: what this context provides is the outer graph's.
Status runInBodies(std::string_view text, Graph& graph, PassContext& cx);

// "- old line" / "+ new line" with two lines of context; empty if equal.
std::string diffLines(std::string_view before, std::string_view after);

}  // namespace qc
