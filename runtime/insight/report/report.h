// One page that tells of a run: what was done with which samples, what became of the model, how far it is from float, and what to do next.
// It is one file of HTML that needs no network, and no other program to be made.
//
//   qc::ReportData data{.title = "resnet50", .coverage = &int8.coverage, .noise = &int8.layers, .ranges = &int8.ranges};
//   QC_TRY(qc::writeFileAtomically("out.html", qc::reportPage(data)));
//
// A section is a row of a table (report.cpp): what it needs is a field here, and one that has nothing to say is left out.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "quantizer/ranges.h"
#include "runtime/insight/answers.h"
#include "runtime/insight/debug.h"
#include "runtime/insight/explain.h"
#include "runtime/insight/input_check.h"
#include "runtime/insight/layer_costs.h"
#include "runtime/insight/ledger.h"
#include "runtime/insight/mixture.h"
#include "runtime/insight/sensitivity.h"
#include "runtime/profile.h"
#include "runtime/workflow/quantize.h"

namespace qc {

// Two programs beside each other, layer by layer.
struct BesideData {
  std::string first, second;  // what they are, in words
  std::string basis;          // measured how, or predicted from what
  std::vector<LayerCost> layers;
};
// The answers of two models to the same samples.
struct AnswersData {
  std::string words;  // what an answer is
  std::string metric;
  PairedAnswers paired;
  std::vector<std::string> samples;  // their names
  std::vector<int64_t> labels;       // empty: none were given
  struct Output {
    std::string name;
    double decibels = 0, cosine = 0, largest = 0;
  };
  std::vector<Output> outputs;  // by their numbers
};

// All of it may hold any bytes.  Pointers: null where there is none.
struct ReportData {
  std::string title;
  std::vector<std::pair<std::string, std::string>> facts = {};  // what was done: name and value
  std::vector<std::string> warnings = {}, notes = {};
  const InputReport* inputs = nullptr;
  const CoverageReport* coverage = nullptr;
  const Graph* graph = nullptr;  // to be drawn, in the form that runs: with `coverage`, the reasons are told by node
  const std::vector<LayerNoise>* noise = nullptr;
  std::string measuredOn = {};  // the samples of noise, debug, sensitivity and causes, in words
  const Debugged* debug = nullptr;
  const Ranges* ranges = nullptr;
  const Graph* weights = nullptr;  // whose constants are integers
  const Sensitivity* sensitivity = nullptr;
  const Mixture* mixture = nullptr;
  const Explanation* explanation = nullptr;
  const Ledger* ledger = nullptr;
  const BesideData* beside = nullptr;
  const AnswersData* answers = nullptr;
  const std::vector<StepProfile>* steps = nullptr;
  std::vector<std::pair<std::string, std::string>> next = {};  // what to do, and the command or rule for it, which may be empty
  std::string rules = {};                                      // as JSON
};

// The whole page.
std::string reportPage(const ReportData& data);

}  // namespace qc
