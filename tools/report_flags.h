// --report, as the verbs share it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/insight/report/report.h"
#include "tools/common.h"

namespace qc::tools {

struct ReportFlags {
  std::string path;  // empty: none is wanted
  void addTo(CLI::App& verb);
  explicit operator bool() const { return !path.empty(); }
  void addTo(std::vector<std::string>& outputs) const;  // of the verb, to be checked before the long work
  // Whole or not at all, and told on stderr.
  Status write(ReportData data) const;
};

// A word of a command that people paste into a shell.
std::string shellWord(std::string_view text);

// The model in the form that runs, to be drawn.
Result<Graph> graphForReport(const Model& model);

}  // namespace qc::tools
