// The options of `quantize`: what they mean together, and which of them would have no effect.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tools/common.h"
#include "tools/quantize_ledger.h"
#include "tools/quantize_target.h"
#include "tools/report_flags.h"

namespace qc::tools {

// What is done against the loss of accuracy, one option for each recipe, and shown of it.
struct RecoveryFlags {
  std::map<std::string_view, std::string> choices;  // by recipe: of flags, else of the rules, else the default
  std::set<std::string_view> chosen;                // by a flag
  int64_t samples = 128, compare = 16;
  // A flag that the user gave: one that works on samples; one that moves channels; one that has an effect without samples.
  std::string given, movesChannels, dynamic;

  void addTo(CLI::App& verb);
  void noteGiven(const CLI::App& verb);
  Status follow(const QConfigMapping& rules);
  QConfigMapping resolved(QConfigMapping rules) const;  // with what was chosen
  bool any() const;
  RecoverOptions options(int threads, StagedProgress& progress) const;
};

struct QuantizeFlags {
  ModelOptions model;
  DataOptions data;
  std::vector<std::string> check, requireInt8;
  RulesOptions rules;
  std::string ranges, output, writeRules, mode = "static";
  std::optional<int64_t> weightBits = {};
  int64_t groupSize = -1;
  bool perToken = false, perTensor = false;
  int64_t limit = -1;
  int threads = 1;
  bool freeBatch = false, json = false, all = false, timePasses = false;
  ReportFlags report;
  RecoveryFlags recovery;
  TargetFlags target;
  LedgerFlags ledger;

  void addTo(CLI::App& verb);
};

// The rules with the bits of --weight-bits where the global one decides.  Error: that leaves weights in float.
Result<QConfigMapping> withBitsOf(const std::optional<int64_t>& weightBits, const QConfigMapping& rules);
Result<QConfigMapping> rulesFor(const QuantizeFlags& o);

// Options that would have no effect are refused: of a mode, then in the light of all others.
Status checkMode(const QuantizeFlags& o);
Status checkEffects(const QuantizeFlags& o, const CLI::App& verb);

}  // namespace qc::tools
