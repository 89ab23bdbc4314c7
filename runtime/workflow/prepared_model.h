// A float model on its way to integers: simplified once, and once given the observers that its rules ask for.  Recipes, calibration and
// quantization hand it on from one to the next.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "passes/insertion.h"
#include "passes/pass.h"
#include "passes/training/folded_batch_norm.h"
#include "quantizer/group_params.h"
#include "quantizer/quantizer.h"
#include "quantizer/rules/qconfig.h"
#include "runtime/model.h"

namespace qc {

struct PreparedModel {
  std::string name;
  std::optional<QConfigMapping> rules;      // none: a quantizer of one's own decided
  std::shared_ptr<const Graph> simplified;  // float, without annotations
  std::shared_ptr<const Graph> observed;    // the same, annotated and with observers in place
  CoverageReport coverage;
  std::vector<Remark> remarks;
  std::vector<PassTiming> timings;
  PassInsertions insertions = {};                                   // that conversion has as well
  FoldedBatchNorms batchNorms = {};                                 // that training can take out again
  std::map<std::string, std::shared_ptr<const Graph>> bodies = {};  // quantized, of loops by their first result (loop_bodies.h)
};

struct PrepareOptions {
  PassInsertions insertions = {};  // passes of one's own at the steps of quantization, from here to the converted graph
  bool simplified = false;         // with those at the steps of `simplify`: they have been there
};

// Errors: the model is quantized already; a weight is NaN; what the rules or the quantizer refuse.
Result<PreparedModel> prepareModel(const Model& model, const QConfigMapping& rules, const PrepareOptions& options = {});
Result<PreparedModel> prepareModel(const Model& model, Quantizer& quantizer, const PrepareOptions& options = {});

// An error for one that nobody prepared, or that was moved from.
Status checkPrepared(const PreparedModel& model);

// The observed graph with quantize and dequantize in place of the observers.
Result<Graph> convertedGraph(const Graph& observed, const GroupParams& params);

}  // namespace qc
