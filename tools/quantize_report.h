// What `quantize` tells: coverage with reasons, noise by layer, rules that make integers of more; as text and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/workflow/quantize.h"

namespace qc::tools {

// One line per op type and verdict, then the reasons of what stayed float.  all: every node by name.
void printCoverage(const CoverageReport& coverage, bool all);

// Rules that make integers of what stayed float all the same: one for each reason, of its first node.
std::vector<std::string> remedyRules(const CoverageReport& coverage, bool all);
void printRemedies(const CoverageReport& coverage, bool all);

// The layers whose results differ most from the float model's; the rounding of their own result alone beside it.  on: which samples.
void printNoise(const std::vector<LayerNoise>& layers, const std::string& on, bool all);

nlohmann::json reportJson(const QuantizedModel& quantized, const QConfigMapping& rules);
nlohmann::json remarksJson(const std::vector<Remark>& remarks);

}  // namespace qc::tools
