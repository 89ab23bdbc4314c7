#include "runtime/insight/layer_costs.h"

#include <map>
#include <set>

namespace qc {
namespace {

std::set<std::string> namesOf(std::span<const StepProfile> steps) {
  std::set<std::string> names;
  for (const StepProfile& step : steps) names.insert(step.node);
  return names;
}

void addKernel(std::string& kernels, const StepProfile& step) {
  const std::string& name = step.kernel.empty() ? "reference" : step.kernel;
  if (kernels.find(name) == std::string::npos) kernels += (kernels.empty() ? "" : ", ") + name;
}

}  // namespace

std::vector<LayerCost> layerCosts(std::span<const StepProfile> steps, std::span<const StepProfile> floatSteps) {
  const std::set<std::string> ours = namesOf(steps), theirs = namesOf(floatSteps);
  std::vector<LayerCost> layers;
  std::map<std::string, size_t> rowOf;
  const auto rowFor = [&](const StepProfile& step, size_t& latest) -> LayerCost& {
    if (ours.contains(step.node) && theirs.contains(step.node)) {
      const auto [it, added] = rowOf.emplace(step.node, layers.size());
      if (added) layers.push_back({step.node, step.op, {}, {}, 0, 0});
      latest = it->second;
    } else if (layers.empty()) {
      layers.push_back({step.node, step.op, {}, {}, 0, 0});
      latest = 0;
    }
    return layers[latest];
  };
  size_t latest = 0;
  for (const StepProfile& step : steps) {
    LayerCost& row = rowFor(step, latest);
    row.seconds += step.seconds;
    addKernel(row.kernels, step);
  }
  latest = 0;
  for (const StepProfile& step : floatSteps) {
    LayerCost& row = rowFor(step, latest);
    row.floatSeconds += step.seconds;
    addKernel(row.floatKernels, step);
  }
  return layers;
}

}  // namespace qc
