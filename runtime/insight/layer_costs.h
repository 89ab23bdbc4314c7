// The steps of two programs of one model, layer by layer.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/profile.h"

namespace qc {

struct LayerCost {
  std::string node;  // of the first step
  std::string op, kernels, floatKernels;
  double seconds = 0, floatSeconds = 0;
  bool loses() const { return seconds > floatSeconds; }
};

// By the names of nodes.  A step whose node only one of the programs names (it was joined with another there) counts to the layer in front.
// In the order of the first program.
std::vector<LayerCost> layerCosts(std::span<const StepProfile> steps, std::span<const StepProfile> floatSteps);

}  // namespace qc
