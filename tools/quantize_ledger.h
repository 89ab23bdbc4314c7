// --never-slower and --keep-int8 of `quantize`: integers where they win against float, and what was weighed for that.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "runtime/insight/ledger.h"
#include "tools/common.h"

namespace qc::tools {

struct LedgerFlags {
  bool neverSlower = false;
  std::vector<std::string> keepInt8;
  std::string target;  // empty: measured here

  void addTo(CLI::App& verb);
  // How `quantize` is asked for it: with samples, in the static mode.
  Status check(const CLI::App& verb, bool isStatic, bool samples, bool ranges, bool toTarget) const;
};

Result<Ledger> weighed(const LedgerFlags& flags, const PreparedModel& prepared, const Dataset& calibration, int threads,
                       StagedProgress& progress);
void printLedger(const Ledger& ledger);
nlohmann::json ledgerJson(const Ledger& ledger);

}  // namespace qc::tools
