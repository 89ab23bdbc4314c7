// What calibration samples can win back of the accuracy that rounding costs: better integers for weights, biases that keep the means.
// Each is a pass of its own (passes/quantize/round_weights.cpp, correct_bias.cpp); here the samples run and the passes get what they need.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "frontend/data/dataset.h"
#include "passes/pass.h"
#include "passes/quantize/group_params.h"
#include "quantizer/rules/qconfig.h"
#include "runtime/model.h"
#include "runtime/workflow/layer_observer.h"

namespace qc {

// fast: for the error of the weights alone, from the means of the float model.  full: one layer after the other, from runs of the int8
// model; as many runs as there are layers.
enum class BiasCorrection { off, fast, full };

struct RecoverOptions {
  bool smoothQuant = true;
  bool equalize = true;
  bool roundWeights = true;
  BiasCorrection biasCorrection = BiasCorrection::fast;
  int64_t samples = 128;     // at most so many of the calibration samples, evenly spread
  int64_t positions = 8192;  // of every layer, at least, over all samples
  int threads = 1;
  // Samples that have no part in calibration: what moves channels is kept if it helps on them.  None: a part of the samples is left out of
  // that decision.
  const Dataset* check = nullptr;
  LayerObserver* observer = nullptr;  // that calibration of the same model and samples carried: they need not run for it again
  std::function<void(const char* stage, int64_t done, int64_t total)> progress = {};
  std::function<void(const Remark&)> remark = {};  // what was decided against

  void tell(const char* stage, size_t done, size_t total) const {
    if (progress) progress(stage, static_cast<int64_t>(done), static_cast<int64_t>(total));
  }
  bool looksAtLayers() const { return roundWeights || biasCorrection != BiasCorrection::off; }
  LayerObserverOptions layers() const { return {.samples = samples, .positions = positions, .gram = roundWeights}; }
};

// The same function, easier to quantize: channels that are much larger than the rest are moved into the weights that read them
// (passes/quantize/smooth_quant.cpp, equalize_layers.cpp).  To be calibrated and quantized in the model's place; the model itself when
// there is nothing to move. Rules that make no layer int8 leave it alone as well.
Result<Model> eased(const Model& model, const QConfigMapping& rules, const Dataset& samples, const RecoverOptions& options);

// Edits a graph with observers (after `prepare`) whose parameters are known.  Memory does not grow with the number of samples.
Status recover(Graph& prepared, const GroupParams& params, const Dataset& samples, const RecoverOptions& options, PassContext& cx);

}  // namespace qc
