// --target-drop, --target-sqnr and --budget-ms of `quantize`: as accurate as asked for and as fast as that allows, or the other way round.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "runtime/insight/mixture.h"
#include "tools/check_samples.h"
#include "tools/metric_flags.h"

namespace qc::tools {

struct TargetFlags {
  std::optional<double> drop, decibels, milliseconds;
  MetricFlags metric;

  void addTo(CLI::App& verb);
  bool given() const { return drop || decibels || milliseconds; }
  // How `quantize` is asked for it: with samples, in the static mode.
  Status check(const CLI::App& verb, bool isStatic, bool samples, bool ranges) const;
};

struct Reached {
  Mixture mixture;
  QuantizedModel model;
};

Result<Reached> reachTarget(const TargetFlags& flags, const CLI::App& verb, const Model& model, const PreparedModel& prepared,
                            const Dataset& calibration, const CheckSamples& check, const QuantizeOptions& options,
                            StagedProgress& progress);
void printPath(const Mixture& mixture, const TargetFlags& flags, const std::string& on);
nlohmann::json pathJson(const Mixture& mixture);

}  // namespace qc::tools
