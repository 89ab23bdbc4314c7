// What the noise of layers, and the decisions of recovery, are measured on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ir/signed_index.h"
#include "tools/common.h"

namespace qc::tools {

// Other samples than those of calibration, where there are enough.
struct CheckSamples {
  enum class Kind { none, calibration, leftOut, given };
  Kind kind = Kind::none;
  Dataset samples = {};

  std::string_view name() const {  // as in JSON
    constexpr std::string_view kNames[] = {"none", "calibration", "left_out", "check"};
    return !calibrates && kind != Kind::given && kind != Kind::none ? "unseen" : nth(kNames, kind);
  }
  bool usedAfterwards = false;  // left out for the measurement alone
  bool calibrates = true;       // false: the result asks nothing of samples, so all of -d are unseen
  std::string str(int64_t count) const;
};

// So few that those left out for the measurement are missed, and used afterwards.
constexpr int64_t kFewSamples = 128;

// Error: a source of those that calibrate (or train) is one of those that are measured on, letter for letter; the figures would be taken
// for held-out ones.  what: "--check".
Status checkHeldOut(const std::vector<std::string>& calibrating, const std::vector<std::string>& measured, std::string_view what);
// The same of samples, which sources that differ may share: under other limits, or by another path.  Error: one of them, by its name and
// byte for byte, calibrates as well.
Status checkApart(const Dataset& measured, const Dataset& calibrating);

// given: sources of --check, which come first.  Else what --calibration-limit (0 or less: none) leaves over, else a fifth of the samples,
// which `calibration` then lacks; saved ranges have likely seen all of them.
Result<CheckSamples> checkSamples(const std::vector<std::string>& given, int64_t limit, bool savedRanges, const Model& model,
                                  Dataset& calibration);

}  // namespace qc::tools
