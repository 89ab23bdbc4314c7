// The table of causes: what each looks for in the evidence, and the fixes that belong to it.  A cause is a function in a file of this
// folder and a row in causes.cpp.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/insight/explain.h"
#include "runtime/insight/layer_units.h"
#include "runtime/insight/trials.h"

namespace qc {

// One rounded value of the float model, on the calibration samples (`seen`) and on held-out ones.
struct ValueFacts {
  std::string name, node;  // of the node that it comes from; an input: its name
  ObservedSpec spec;
  double low = 0, high = 0;  // what its integers hold
  double seenLow = 0, seenHigh = 0;
  double clipped = 0;                               // share of the held-out elements beyond the ends
  double clippedNoise = 0;                          // what that costs, against the signal
  std::vector<std::pair<double, double>> bySample;  // least and largest of each calibration sample
  std::vector<double> channels;                     // largest magnitude of each
  std::vector<std::string> sharedWith;              // other values that the same observer watches
  std::vector<std::string> readers, writers;        // names of quantized nodes
  std::vector<std::string> movers;                  // of those in between that only move it
};

// One input of the model, over all its elements.
struct InputFacts {
  std::string name;
  double mean = 0, deviation = 0;
};

struct Evidence {
  const Model& model;
  const QConfigMapping& rules;
  const Dataset &calibration, &heldOut;
  const ExplainOptions& options;
  Trials& trials;
  const Graph& quantized;  // as the rules make it
  double decibels = 0, inSample = 0;
  std::vector<LayerUnit> units = {};
  std::vector<ValueFacts> values = {};
  std::vector<InputFacts> seenInputs = {}, heldInputs = {};

  const LayerUnit* unitOf(std::string_view node) const;
  const ValueFacts* valueOf(std::string_view name) const;
};
Status gather(Evidence& evidence);

struct Fix {
  std::string words;
  QConfigMapping rules;
  std::optional<Dataset> calibration = {};  // in place of the given one
  std::vector<std::string> leftOut = {};
  std::string source = {};
  bool finer = false;                          // more bits, or float: that helps whatever the cause is
  bool anew = false;                           // recipes that move channels decide again, which they did for what is mended
  std::optional<Dataset> judged = {};          // measured on these, before and after: the others are used up
  std::shared_ptr<const Graph> repaired = {};  // in place of a quantized model that was given
};

struct Suspect {
  std::string layer, evidence;
  double weight = 0;  // of its kind the largest are tried
  std::vector<Fix> fixes;
};

struct CauseRow {
  std::string_view kind, what;
  Result<std::vector<Suspect>> (*detect)(const Evidence& evidence);
  size_t most = 3;        // suspects that are tried
  bool fallback = false;  // says where, not why: what speaks of a cause comes before it
  bool guess = false;     // tried whatever was seen
  bool certain = false;   // seen in the file itself: no luck of samples is to be told from it, as it is wrong on any
};
std::span<const CauseRow> causeTable();

Result<std::vector<Suspect>> wrongObservers(const Evidence& e);
Result<std::vector<Suspect>> clippedRanges(const Evidence& e);
Result<std::vector<Suspect>> oneSample(const Evidence& e);
Result<std::vector<Suspect>> outlierChannels(const Evidence& e);
Result<std::vector<Suspect>> perTensorWeights(const Evidence& e);
Result<std::vector<Suspect>> sharedScales(const Evidence& e);
Result<std::vector<Suspect>> maskedScores(const Evidence& e);
Result<std::vector<Suspect>> explodingBiases(const Evidence& e);
Result<std::vector<Suspect>> fewSamples(const Evidence& e);
Result<std::vector<Suspect>> inputUnits(const Evidence& e);
Result<std::vector<Suspect>> brokenWeights(const Evidence& e);
Result<std::vector<Suspect>> outlierWeights(const Evidence& e);
Result<std::vector<Suspect>> harmfulRecipes(const Evidence& e);
Result<std::vector<Suspect>> sensitiveLayers(const Evidence& e);

// What several of them change in rules.
QConfigMapping withActivations(QConfigMapping rules, const Evidence& e, const std::vector<std::string>& nodes,
                               const std::function<void(ObservedSpec&)>& change);
Fix inFloat(const Evidence& e, const std::vector<std::string>& nodes);
Fix in16Bits(const Evidence& e, const std::vector<std::string>& nodes);
std::vector<std::string> withoutRepeats(std::vector<std::string> names);

}  // namespace qc
