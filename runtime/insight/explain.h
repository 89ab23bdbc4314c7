// Why a quantized model lost accuracy: causes that show in ranges, weights, observers and samples, each with the fix that belongs to it,
// tried and measured on held-out samples.  What does not help there is not among them.
//
//   QC_ASSIGN(Explanation found, explain(model, rules, calibration, heldOut));
//   for (const Cause& cause : found.causes) ...      // the largest first
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/insight/goal.h"
#include "runtime/workflow/quantize.h"

namespace qc {

// On fewer samples no fix is told from luck, by which alone all of n are nearer to float in one of 2^n tries.
inline constexpr int64_t kTellingSamples = 5;

struct Cause {
  std::string kind;      // a row of the table of causes: "outlier-channel"
  std::string layer;     // or the sample or input that it is about
  std::string evidence;  // in words, with figures
  std::string remedy;    // in words: what was tried
  QConfigMapping rules;  // with which it was tried: all of them, as quantize takes them
  bool rulesChanged = false;
  std::vector<std::string> samplesLeftOut;      // of the calibration samples, by name
  std::string source;                           // the source as it should be written, where that is the fix
  double before = 0, after = 0;                 // dB at the outputs, on the same held-out samples
  std::optional<double> dropBefore, dropAfter;  // points of the goal below the float model
  double millisecondsBefore = 0, millisecondsAfter = 0;
  int64_t samples = 0, better = 0,
          worse = 0;  // that these were measured on; of them those that are nearer to float with the fix, or farther
  bool told = false;  // whether its help is told from luck; else the samples are too few, or the cause is seen without any
  double gain() const { return after - before; }
};

struct Explanation {
  double decibels = 0, inSample = 0;  // of the model as it is quantized: on held-out and on calibration samples
  std::optional<double> given;        // of the quantized model that was given
  std::optional<double> drop;         // points of the goal below the float model
  double milliseconds = 0, floatMilliseconds = 0;
  int64_t samples = 0, tried = 0;  // measured on; fixes that were tried
  int64_t uncertain = 0;           // of those, fixes that win enough, but on so few samples that it may be luck
  std::vector<Cause> causes;
  std::string uncertainty() const;  // what luck may have done, in words, with the remedy; empty: nothing is to be said
};

struct ExplainOptions {
  RecoverOptions recover = {};       // as of quantize()
  int64_t samples = 16;              // of the held-out ones that are measured on
  const Goal* goal = nullptr;        // measured on all of them
  const Graph* quantized = nullptr;  // a quantized model of it, to be held against the float one
  double leastGain = 0.5;            // dB, below which luck decides
  // Opens a source by its text, for what may be said of preprocessing; none: that is not tried.
  std::function<Result<Dataset>(const std::string& source)> open = {};
  std::function<void(const char* stage, int64_t done, int64_t total)> progress = {};
};

Result<Explanation> explain(const Model& model, const QConfigMapping& rules, const Dataset& calibration, const Dataset& heldOut,
                            const ExplainOptions& options = {});

// The kinds of causes, with what each is, for listings.
struct CauseKind {
  std::string_view kind, what;
};
std::vector<CauseKind> causeKinds();

}  // namespace qc
