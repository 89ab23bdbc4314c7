// What is quantized or left in float as a whole: a layer with what rounds together with it (its activation, a residual add).
#pragma once

#include <string>
#include <vector>

#include "quantizer/rules/qconfig.h"
#include "runtime/workflow/prepared_model.h"

namespace qc {

struct LayerUnit {
  std::string name, op;             // of the node with weights, else of the first
  std::vector<std::string> nodes;   // all, by the names that rules take
  QConfigEntry config;              // by which the first is quantized
  std::vector<std::string> last;    // the names of the nodes that its rounded results come from; of a branch, where its end is
  std::vector<std::string> inputs;  // and those of the units in front of it
};

// Of the nodes that annotations quantize; those that only move integers are not among them.  In the order of the graph; behind them those
// in the bodies of loops. Error: a quantizer of one's own decided, which rules cannot override.
Result<std::vector<LayerUnit>> layerUnits(const PreparedModel& model);
// Units of one module ("/encoder/layer.0" of "/encoder/layer.0/fc") as one, named after it; those outside of modules as they are.
std::vector<LayerUnit> byModule(const std::vector<LayerUnit>& units);

// The rules with these units in float, whatever else they say of them.
QConfigMapping withFloat(QConfigMapping rules, const std::vector<const LayerUnit*>& units);
// Rules that quantize this unit as it is now, whatever it costs, and nothing else.
QConfigMapping withNothingBut(const QConfigMapping& rules, const LayerUnit& unit);

}  // namespace qc
