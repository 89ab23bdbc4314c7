// The cheapest mixture of int8, int8 with weights per channel or 16-bit activations, dynamic and float layers that is accurate enough, or
// the most accurate one that is fast enough: from what each layer costs in accuracy (sensitivity.h) and in time, then measured mixture by
// mixture.
//
//   QC_ASSIGN(Mixture found, findMixture(trials, judge, {.decibels = 30}));
//   // found.rules give it, found.path says how it was found
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/insight/sensitivity.h"

namespace qc {

struct MixtureTarget {
  std::optional<double> decibels = {};      // at least, at the outputs
  std::optional<double> drop = {};          // at most so many points of the goal below the float model
  std::optional<double> milliseconds = {};  // at most; alone: then the most accurate mixture is looked for
  const Goal* goal = nullptr;
};

struct MixtureStep {
  std::string what;
  int64_t changed = 0;  // layers that are not int8 any more
  double decibels = 0, milliseconds = 0;
  std::optional<double> goal, drop;
  bool meets = false;
};

struct Mixture {
  QConfigMapping rules;
  MixtureStep result;                                        // the step that it is
  std::vector<MixtureStep> path;                             // everything that was measured, the int8 model first
  std::vector<std::pair<std::string, std::string>> changed;  // layer, what it is in place of int8
  std::vector<UnseenUnit> unseen;                            // stay as the rules have them: nothing would be noticed
  double int8Milliseconds = 0, floatMilliseconds = 0;
  std::optional<double> floatGoal;
};

struct MixtureOptions {
  int64_t layers = 80;  // at most so many sensitivities are measured, the worst by their estimates
  int64_t tries = 24;   // of layers that are taken back, or made something cheaper than float
  std::function<void(const char* stage, int64_t done, int64_t total)> progress = {};
  std::function<void(const MixtureStep& step)> measured = {};  // sees each as soon as it is known
};

// quick: a few samples for sensitivities; judge: those that the target is measured on.
// Errors: a target that no mixture reaches, as a time below that of the int8 model, with the figures.
Result<Mixture> findMixture(Trials& trials, const Judge& quick, const Judge& judge, const MixtureTarget& target,
                            const MixtureOptions& options = {});

}  // namespace qc
