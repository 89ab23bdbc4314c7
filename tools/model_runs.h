// Models on inputs that are run to be timed or looked at, and what is told of them.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/model_run.h"
#include "tools/common.h"

namespace qc::tools {

// Tells of steps without a kernel.
Result<ModelRun> modelRun(const BuildOptions& build, const Model& model, const TensorMap& inputs, std::shared_ptr<Workspace> workspace);

// One for each input of a graph at known sizes.  Normal noise for floats, small integers otherwise: values do not matter for speed,
// denormals and NaNs would.  Lengths of sequences do: they are whole.
TensorMap madeInputs(const Graph& graph);
// On stderr, where data decides anything.
void noteMadeInputs(const ModelRun& run, const Graph& graph);

nlohmann::json layersJson(const std::vector<StepProfile>& steps);
// What data decided in a run, and a line of it for people, branches first; empty where it decides nothing.
nlohmann::json decisionsJson(const ModelRun& run);
std::string decisionsText(const ModelRun& run);

}  // namespace qc::tools
