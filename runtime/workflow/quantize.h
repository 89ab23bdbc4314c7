// From a float model and samples to a quantized model: calibrate, then quantize.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "frontend/data/dataset.h"
#include "passes/insertion.h"
#include "passes/pass.h"
#include "quantizer/quantizer.h"
#include "quantizer/ranges.h"
#include "quantizer/rules/qconfig.h"
#include "runtime/model.h"
#include "runtime/workflow/calibrate.h"
#include "runtime/workflow/compare.h"
#include "runtime/workflow/recover.h"

namespace qc {

// Samples for the inputs of a model; the syntax of a source is in frontend/data/dataset.h.
Result<Dataset> openDataset(const std::vector<std::string>& sources, const Model& model);
// The same without files: samples in memory, from a function, or from a source of one's own (see there).
Result<Dataset> memoryDataset(std::vector<Sample> samples, const Model& model, std::string label = "memory");
Result<Dataset> callbackDataset(int64_t count, Dataset::SampleFn make, const Model& model, std::string label = "callback");
Result<Dataset> sourceDataset(std::shared_ptr<const SampleSource> source, std::string label, const Model& model);

// What became int8, what stayed float, and why.
struct QuantizedModel {
  Model model;
  CoverageReport coverage;
  std::vector<Remark> remarks;
  std::vector<LayerNoise> layers;   // when samples were compared
  int64_t compared = 0;             // so many
  Ranges ranges = {};               // that it was made with; empty for modes that need none
  std::vector<PassTiming> timings;  // of the passes, from the float model on, trials left out
};
struct QuantizeOptions {
  const Dataset* samples = nullptr;  // calibration samples: without them weights are rounded to the nearest and nothing is compared
  RecoverOptions recover = {};
  int64_t compareSamples = 0;  // of those of recover.check, else of the samples, run through both models to tell the noise of each layer
  // Inputs and outputs of the model that become integers, by index.  Rules may name them as well.
  std::vector<int64_t> quantizedInputs = {}, quantizedOutputs = {};
  // Passes of one's own for this call.  Of a PreparedModel they are PrepareOptions' instead; one that changes the graph in front of the
  // observers has to be there, so that calibration sees it too.
  PassInsertions insertions = {};
};

// The main job: recipes of channels, calibration on all samples, recipes of layers, conversion, comparison.  options.samples is not read.
// Of `calibration` its limit, threads and progress count.
Result<QuantizedModel> calibrateAndQuantize(const PreparedModel& model, const Dataset& samples, const QuantizeOptions& options = {},
                                            const CalibrateOptions& calibration = {});

// With ranges of an earlier calibration of the same model and rules: recipes of channels, which would change them, are left out.
Result<QuantizedModel> quantize(const PreparedModel& model, const Ranges& ranges, const QuantizeOptions& options = {});
Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const Ranges& ranges, const QuantizeOptions& options = {});
// With a quantizer of one's own in place of rules; the one that calibrate() had.
Result<QuantizedModel> quantize(const Model& model, Quantizer& quantizer, const Ranges& ranges, const QuantizeOptions& options = {});

// Without calibration: for rules that ask for nothing to be observed (dynamic, weight-only, float16 weights).  Error: they do.  Of the
// recipes those that help dynamic layers alone have an effect.
Result<QuantizedModel> quantize(const PreparedModel& model, const QuantizeOptions& options = {});
Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const QuantizeOptions& options = {});

}  // namespace qc
