// Reconstruction of layers, one after the other, from runs of both models.
#pragma once

#include <string_view>

#include "runtime/workflow/recipes.h"

namespace qc {

// choice: auto: of layers whose weights have fewer than 8 bits; on: of all int8 layers.
Status reconstructLayers(LayerRecovery& recovery, std::string_view choice);

}  // namespace qc
