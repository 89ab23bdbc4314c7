// --compare float|FILE: a model beside its float form or another file, in one run.
#pragma once

#include <string>

#include "tools/common.h"
#include "tools/report_flags.h"

namespace qc::tools {

// --shape and --bind for another file of the model: without the names that it lacks, as what is bound is gone from what was made of it.
ModelOptions beside(const ModelOptions& options, const std::string& other);

struct CompareFlag {
  std::string with;  // empty: not asked for
  CLI::Option* addTo(CLI::App& verb);
  // "float": the model without its quantize and dequantize.  Error: it is float, or its float form is not known; or inputs that differ.
  Result<Model> other(const Model& model, const ModelOptions& options) const;
};

// bench --compare: latency of both, in turns.
Status benchBeside(const Model& model, const Model& other, const std::string& otherName, const EngineOptions& engine, double seconds,
                   bool json);

struct BesideProfile {
  bool predict = false;  // by the cost model
  Target target = {};    // for that
  bool byTime = false, json = false;
  bool madeInputs = true;  // no samples were given
  const ReportFlags& report;
};
// profile --compare: layers of both, measured in turns or predicted; predicted also of one alone (null).
Status profileBeside(const Model& model, const Model* other, const std::string& otherName, const TensorMap& inputs,
                     const EngineOptions& engine, int runs, const BesideProfile& how);

// Whether code for it cannot run here, so that what it takes can be predicted alone.
bool isElsewhere(const Target& target);

}  // namespace qc::tools
