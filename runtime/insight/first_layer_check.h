// Whether what is fed to a model fits its first layer: the BatchNorm behind it says what its values looked like in training; where there is
// none, biases that are nothing beside the results betray pixels that were never normalised.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "frontend/data/dataset.h"
#include "runtime/model.h"

namespace qc {

inline constexpr int64_t kFewForWidth = 4;  // so few samples may well be narrow

class FirstLayerCheck {
 public:
  // Looks at nothing where the model has no such layer, or it lies behind others.
  static Result<FirstLayerCheck> open(const Model& model);
  Status see(const std::map<std::string, Tensor>& sample);  // of other shapes than the first that fits: passed over
  // What speaks against the samples seen so far, and what to do, given how they were prepared.
  std::optional<std::string> verdict(const Preprocessing& how) const;

 private:
  struct Channel {
    double sum = 0, squares = 0;
    size_t count = 0;
    double mean() const { return sum / static_cast<double>(count); }
    double variance() const { return std::max(0.0, squares / static_cast<double>(count) - mean() * mean()); }
  };
  std::optional<std::string> againstNorm(const Preprocessing& how) const;
  std::optional<std::string> againstBias(const Preprocessing& how) const;

  std::shared_ptr<const Graph> graph_;  // null: nothing to look at
  std::vector<Port> inputs_;
  std::shared_ptr<Session> session_;  // at the shapes of the first sample
  int64_t samples_ = 0;               // seen
  std::string output_, norm_, layer_;
  std::vector<double> means_, variances_;  // of the norm
  std::vector<double> biases_;             // of the layer, where there is no norm
  std::vector<Channel> channels_;          // of the value that either says something of
};

}  // namespace qc
