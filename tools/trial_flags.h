// What the verbs share that quantize a model many times to find out what its accuracy depends on: the options of `quantize` that decide
// how, and the samples that are measured on.
#pragma once

#include <string>
#include <vector>

#include "runtime/insight/input_check.h"
#include "runtime/insight/judge.h"
#include "runtime/insight/trials.h"
#include "tools/check_samples.h"
#include "tools/quantize_flags.h"

namespace qc::tools {

struct TrialFlags {
  ModelOptions model;
  DataOptions data;
  std::vector<std::string> check;
  RulesOptions rules;
  RecoveryFlags recovery;
  int64_t limit = -1;
  int threads = 1;

  void addTo(CLI::App& verb);
};

// Opened: samples taken apart, the model prepared with the rules.
struct TrialSetup {
  Model model;
  QConfigMapping rules;
  Dataset samples, calibration;  // all; those that are calibrated with
  CheckSamples check;            // those that are measured on
  PreparedModel prepared;

  static Result<TrialSetup> open(TrialFlags& flags, const CLI::App& verb);
  Result<InputReport> fed() const;  // those of the calibration, then those that are measured on where they were given
  Result<Trials> trials(const TrialFlags& flags, StagedProgress& progress) const;
  Result<Judge> judge(const TrialFlags& flags, int64_t samples) const;
};

}  // namespace qc::tools
