// Which layers a quantized model loses its accuracy in: every layer, with what rounds together with it, alone quantized while the rest
// stays float, and alone float while the rest is quantized.  Calibration runs once.  Every layer gets a first-order figure from one run of
// the quantized model, by the noise that comes in there; the worst by that figure are measured.
//
//   QC_ASSIGN(Trials trials, Trials::open(prepared, samples));
//   QC_ASSIGN(Judge judge, Judge::open(*prepared.observed, heldOut));
//   QC_ASSIGN(Sensitivity found, sensitivity(trials, judge, {.top = 10}));
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/insight/goal.h"
#include "runtime/insight/layer_units.h"
#include "runtime/insight/trials.h"

namespace qc {

struct SensitivityRow {
  LayerUnit unit;
  double estimated = 0;  // dB of the model with this layer alone quantized, first order
  // dB of that, and of the model with this layer alone in float; none: not measured.
  std::optional<double> aloneQuantized, aloneFloat;
  std::optional<double> goalQuantized, goalFloat;
  double lossDecibels() const { return aloneQuantized.value_or(estimated); }
};

// Of it there is no figure: no calibration sample runs it, so that it stays float, or none of those that are measured on.
struct UnseenUnit {
  LayerUnit unit;
  std::string why;
};

struct Sensitivity {
  std::vector<SensitivityRow> rows;  // most harmful first: the measured ones, then the others by their estimates
  std::vector<UnseenUnit> unseen;    // in the order of the graph
  double allQuantized = 0;           // dB
  std::optional<double> goalAll, goalFloat;
  double added = 0;                   // noise of the measured layers, each alone, added up, against that of all quantized layers
  int64_t samples = 0, measured = 0;  // samples that were measured on; rows that were measured
  int64_t resumed = 0;                // of them found in the state file
};

struct SensitivityOptions {
  int64_t top = -1;  // layers that are measured; -1: all
  bool modules = false;
  const Goal* goal = nullptr;
  std::string goalKey = {};  // all that the goal depends on beside its name and the samples: bytes of labels, which output
  std::string state = {};    // file that keeps what was measured: a run that was killed goes on where it ended; empty: none
  std::function<void(int64_t done, int64_t total)> progress = {};
};

// Takes those units out that no sample runs, neither of the calibration's nor of the judge's.  Error: none is left.
Result<std::vector<UnseenUnit>> takeUnseen(std::vector<LayerUnit>& units, Trials& trials, const PreparedModel& model, const Judge& judge);

// Errors: nothing is quantized, or no sample runs what is; the state file is of another model, other samples, other rules or another goal.
Result<Sensitivity> sensitivity(Trials& trials, const Judge& judge, const SensitivityOptions& options = {});
// Under other rules than those that the trials began with.
Result<Sensitivity> sensitivity(Trials& trials, const Judge& judge, const QConfigMapping& rules, const SensitivityOptions& options = {});

}  // namespace qc
