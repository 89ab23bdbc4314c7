// Two models of one origin side by side on samples, layer by layer: the weights; the outputs, with the error of everything in front; and
// the shadow, where each layer of the second model reads what the first has there, with its own error alone.
//
//   QC_ASSIGN(const Debugged found, debugModels(floatModel, int8Model, samples, {.threads = 2}));
//   for (const DebuggedLayer& layer : found.layers)
//     use(layer.pair.layer, layer.outputs.of("sqnr"), layer.shadow ? layer.shadow->of("sqnr") : NAN);
//
// What is measured is in metrics.h, where programs add their own.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/data/dataset.h"
#include "runtime/insight/metrics.h"
#include "runtime/insight/pairing.h"
#include "runtime/insight/weight_pairs.h"
#include "runtime/model.h"

namespace qc {

// What a logger sees: the values at the end of one layer for one sample, in the units of the reference.
struct Logged {
  const LayerPair& layer;
  bool shadow = false;  // else outputs
  int64_t sample = 0;   // its index in the data
  std::span<const int64_t> sizes;
  std::span<const float> reference, actual;
};

struct DebugOptions {
  int64_t samples = 16;  // at most so many, evenly spread
  int threads = 1;
  std::string layers = {};  // regular expression that is found in the name of a layer; empty: all
  bool shadow = true;
  std::function<Status(const Logged&)> log = {};
  std::function<void(int64_t done, int64_t total)> progress = {};
};

struct DebuggedLayer {
  LayerPair pair;
  std::optional<WeightError> weights = {};
  Measurement outputs = {};
  std::optional<Measurement> shadow = {};  // none: of outputs of the model, and where the layer cannot be fed
};

// Where NaN or an infinite value is first, in the order of the nodes.
struct NonFinite {
  bool reference = false;  // else in the actual model
  bool nan = false;        // else infinite
  std::string value, node, op;
  int64_t sample = 0, element = 0;
  bool input = false;  // the sample has it
};

struct Debugged {
  std::vector<DebuggedLayer> layers;   // in the order of the actual model
  std::vector<DebuggedLayer> outputs;  // of the model
  std::vector<NonFinite> nonFinite;
  std::vector<std::string> unmatched, notes;
  int64_t samples = 0;
};

// Errors: the models have other inputs or outputs, or nothing in common; no layer has such a name; what a logger or a metric returns.
Result<Debugged> debugModels(const Model& reference, const Model& actual, const Dataset& samples, const DebugOptions& options = {});

// Of one model on one sample; nothing where all values are numbers.
Result<std::vector<NonFinite>> firstNonFinite(const Graph& graph, const Sample& sample);

}  // namespace qc
