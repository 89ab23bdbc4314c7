// Passes of an integrator's own between the steps of the standard pipelines, for one call: nothing is registered, nobody else sees them.
//
//   QuantizeOptions options;
//   options.insertions.push_back(PassInsertion::after("fold-batch-norm", {.name = "acme-prune", .run = prune}));
//   BuildOptions build;
//   build.compile.insertions.push_back(PassInsertion::before("layout", {.name = "acme-split", .run = split}));
//
// The steps of quantize() are those of the pipelines `simplify`, `prepare` and `convert`, those of compile() `lower` and `compile`
// (`qcompile doctor --passes` lists them).  A step that stands there several times has the pass at every place.  Of several insertions at
// one place the first in the list runs first.  The graph is verified behind each.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "passes/pass.h"
#include "passes/pass_manager.h"

namespace qc {

struct PassInsertion {
  std::string step;  // of the standard pipeline
  bool behind = true;
  Pass pass;
  AttrDict options = {};  // of the pass

  static PassInsertion before(std::string step, Pass pass) { return {std::move(step), false, std::move(pass)}; }
  static PassInsertion after(std::string step, Pass pass) { return {std::move(step), true, std::move(pass)}; }
};
using PassInsertions = std::vector<PassInsertion>;

// The names that insertions may go by in these pipelines.
constexpr std::string_view kQuantizeSteps = "simplify,prepare,convert", kCompileSteps = "lower,compile";

// Errors: a step that none of the pipelines has, with those there are; a pass without a name or function; options that it does not have.
Status checkInsertions(const PassInsertions& insertions, std::string_view pipelines);
// The pipeline with them in place; where none of its steps is named, as it was.  It refers to the passes in `insertions`.
Result<Pipeline> withInsertions(const Pipeline& pipeline, const PassInsertions& insertions);

}  // namespace qc
