// Whether samples had a part in calibration, so that figures are named in-sample or held-out.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tools/common.h"

namespace qc::tools {

class SeenSamples {
 public:
  // --calibrated
  void addTo(CLI::App& verb);
  bool given() const { return !sources_.empty(); }

  enum class Kind { unknown, heldOut, inSample };
  struct Verdict {
    Kind kind = Kind::unknown;
    bool rounds = true;  // of a model that rounds nothing no sample is seen
    int64_t seen = 0;
    std::string first;               // of those that are seen: its name, and as which
    std::string_view name() const {  // as in JSON
      constexpr std::string_view kNames[] = {"unknown", "held_out", "in_sample"};
      return rounds ? nth(kNames, static_cast<int>(kind)) : "float";
    }
    std::string str(int64_t count) const;  // "60 samples, held out: .."
    nlohmann::json toJson(int64_t count) const;
  };
  // model: as which the sources are read.  rounds: whether what is measured does so by ranges.
  Result<Verdict> of(const Dataset& measured, const Model& model, bool rounds) const;

 private:
  std::vector<std::string> sources_;
};

// Whether any value of the model is rounded in steps that samples decided: not so of integers in weights alone, or found at run time.
bool roundsByRanges(const Graph& graph);

// How many of these are among the others, byte for byte.
struct Overlap {
  int64_t seen = 0;
  std::string mine, theirs;  // names of the first
};
Result<Overlap> overlapOf(const Dataset& measured, const Dataset& calibrated);
bool sameSample(const TensorMap& a, const TensorMap& b);

}  // namespace qc::tools
