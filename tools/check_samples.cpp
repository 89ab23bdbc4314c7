#include "tools/check_samples.h"

#include <algorithm>
#include <map>

#include "tools/seen_samples.h"

namespace qc::tools {

std::string CheckSamples::str(int64_t count) const {
  if (!calibrates && kind != Kind::given) return fmt::format("{} samples of -d, which had no part in the result", count);
  switch (kind) {
    case Kind::given: return fmt::format("{} samples of --check", count);
    case Kind::leftOut:
      return fmt::format("{} samples left out of calibration{}", count, usedAfterwards ? " (the file was then calibrated with all)" : "");
    default: return fmt::format("{} of the calibration samples, which flatters: --check names others", count);
  }
}

Status checkHeldOut(const std::vector<std::string>& calibrating, const std::vector<std::string>& measured, std::string_view what) {
  for (const std::string& source : measured)
    if (std::find(calibrating.begin(), calibrating.end(), source) != calibrating.end())
      return fail(ErrorCode::kInvalidArgument, "{} names '{}', which gives the other samples as well: it is not held out", what, source)
          .help(fmt::format("name samples that had no part in calibration, or leave {} out", what));
  return {};
}

Status checkApart(const Dataset& measured, const Dataset& calibrating) {
  std::map<std::string, int64_t> names;
  for (int64_t i = 0; i < calibrating.size(); ++i) names.emplace(calibrating.sampleName(i), i);
  for (int64_t i = 0; i < measured.size(); ++i) {
    const auto it = names.find(measured.sampleName(i));
    if (it == names.end()) continue;
    QC_ASSIGN(const TensorMap mine, measured.sample(i));
    QC_ASSIGN(const TensorMap theirs, calibrating.sample(it->second));
    if (sameSample(mine, theirs))
      return fail(ErrorCode::kInvalidArgument, "sample '{}' of --check calibrates as well: it is not held out", it->first)
          .help("name samples that had no part in calibration, or leave --check out");
  }
  return {};
}

Result<CheckSamples> checkSamples(const std::vector<std::string>& given, int64_t limit, bool savedRanges, const Model& model,
                                  Dataset& calibration) {
  using Kind = CheckSamples::Kind;
  Dataset rest = calibration;
  if (limit > 0) calibration.keepFirst(limit);
  if (!given.empty()) {
    QC_ASSIGN(Dataset samples, DataOptions{given}.open(model));
    QC_TRY(checkApart(samples, calibration));
    return CheckSamples{Kind::given, std::move(samples)};
  }
  if (calibration.size() < 2 || savedRanges) return CheckSamples{calibration.size() > 0 ? Kind::calibration : Kind::none};
  rest.forgetFirst(calibration.size());
  if (rest.size() > 0 && rest.size() >= calibration.size() / 5) return CheckSamples{Kind::leftOut, std::move(rest)};
  return CheckSamples{Kind::leftOut, calibration.leaveOut()};
}

}  // namespace qc::tools
