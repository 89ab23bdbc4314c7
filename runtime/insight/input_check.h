// What samples look like as they are fed to a model, and whether that can be meant: units of mean and std, what the first BatchNorm was
// trained with, what calibration saw, what an int8 model's input can hold.  A few samples of each source are looked at, so it costs next to
// nothing beside running the model on all of them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "frontend/data/dataset.h"
#include "quantizer/ranges.h"
#include "runtime/model.h"

namespace qc {

// The finite elements of one input.
struct FedInput {
  std::string name;
  DType dtype = DType::f32;
  int64_t elements = 0, nonFinite = 0;  // all of them; NaN or infinite
  double min = 0, max = 0, mean = 0;
  std::vector<double> channels;  // means of an image's channels
};

struct InputReport {
  struct Source {
    Preprocessing how;
    int64_t samples = 0, looked = 0;  // all of them; so many were looked at, evenly spread
    std::vector<FedInput> inputs;
    // What mean= and std= are in the unit of the elements, where they were given in the other one; empty where they were not given.
    struct Unit {
      std::vector<double> mean, std;
    };
    std::optional<Unit> unit = {};
  };
  std::vector<Source> sources;
  std::vector<std::string> warnings;  // each with its remedy, in the words of the source's text
  void add(InputReport more);         // behind what is there
};

// calibrated: ranges of an earlier calibration that the samples should resemble.
Result<InputReport> checkInputs(const Model& model, const Dataset& samples, const Ranges* calibrated = nullptr);

}  // namespace qc
