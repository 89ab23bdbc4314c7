// --labels, --metric, --metric-command and --metric-output: what the answers of a model are held against.
#pragma once

#include <optional>
#include <string>

#include "runtime/insight/goal.h"
#include "runtime/model.h"
#include "tools/common.h"

namespace qc::tools {

void addMetricOption(CLI::App& verb, std::string& metric);  // a row of the table of scores

struct MetricFlags {
  std::string labels, metric = "top1", command, output;
  void addTo(CLI::App& verb);
  bool given(const CLI::App& verb) const;
  // None: nothing was asked for.  Errors: options that exclude each other, labels that cannot be read.
  Result<std::optional<Goal>> goal(const CLI::App& verb, const Model& model) const;
};

// A program of the user's.  It gets a folder with every output as NAME.npy, of all samples along a new first axis, or NAME.000.npy, ..
// where their shapes differ, and samples.tsv: a line for each sample, in that order: its index in its source and its name, between tabs.
// The last line that it prints is a number, the more the better.
Goal commandGoal(const std::string& command, const Model& model);

}  // namespace qc::tools
