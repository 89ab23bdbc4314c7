// From a float model and samples to a quantized model: calibrate, then quantize.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "frontend/dataset.h"
#include "passes/pass.h"
#include "quantizer/qconfig.h"
#include "quantizer/quantizer.h"
#include "quantizer/ranges.h"
#include "runtime/model.h"

namespace qc {

// Samples for the inputs of a model; the syntax of a source is in frontend/dataset.h.
Result<Dataset> openDataset(const std::vector<std::string>& sources, const Model& model);

struct CalibrateOptions {
  int64_t limit = -1;  // samples; -1: all
  int threads = 1;
  std::function<void(int64_t done, int64_t total)> progress = {};
};

// Runs the samples through the float model and collects the range of every value that the rules want observed.
// Memory does not grow with the number of samples.
Result<Ranges> calibrate(const Model& model, const QConfigMapping& rules, const Dataset& samples, const CalibrateOptions& options = {});

// What became int8, what stayed float, and why.
struct QuantizedModel {
  Model model;
  CoverageReport coverage;
  std::vector<Remark> remarks;
};
Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const Ranges& ranges);

}  // namespace qc
