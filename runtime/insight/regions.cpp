// The stretches of integers of a program, and what they cost beside float.
#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "quantizer/quantizer.h"
#include "runtime/insight/ledger.h"

namespace qc {
namespace {

bool isBorder(const Node& node) { return node.is("quantize") || node.is("dequantize"); }

bool isInteger(const Value* v) { return v && v->type().isQuantized(); }

// Views have no step: what they show is what they look at.
const Value* origin(const Value* v) {
  while (v->producer() && v->producer()->string("kernel") == "view") v = v->producer()->operand(0);
  return v;
}

}  // namespace

std::vector<Int8Region> int8Regions(const Program& program) {
  const std::vector<Step>& steps = program.steps();
  std::vector<size_t> parent(steps.size());
  std::iota(parent.begin(), parent.end(), size_t{0});
  const auto find = [&](size_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  std::map<const Value*, size_t> seen;  // an integer, and a step that makes or reads it
  std::vector<bool> integer(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    const Node& node = *steps[i].node;
    const auto meet = [&](const Value* v) {
      if (!isInteger(v)) return;
      integer[i] = true;
      if (v->constant()) return;  // weights are of one layer, and join nothing
      const auto [it, added] = seen.emplace(origin(v), i);
      if (added) return;
      const size_t a = find(it->second), b = find(i);
      parent[std::max(a, b)] = std::min(a, b);
    };
    for (const Value* v : node.operands()) meet(v);
    for (int r = 0; r < node.numResults(); ++r) meet(node.result(r));
  }
  std::map<size_t, Int8Region> byRoot;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (!integer[i]) continue;
    Int8Region& region = byRoot[find(i)];
    region.steps.push_back(i);
    const std::string name = displayName(*steps[i].node);
    if (isBorder(*steps[i].node))
      ++region.borders;
    else if (std::find(region.nodes.begin(), region.nodes.end(), name) == region.nodes.end())
      region.nodes.push_back(name);
    if (!steps[i].kernel) region.withoutKernel.push_back(name);
  }
  std::vector<Int8Region> regions;
  for (auto& [root, region] : byRoot) regions.push_back(std::move(region));
  return regions;
}

std::vector<LedgerRow> weighedRegions(const ProgramCost& cost, std::span<const StepProfile> floatSteps,
                                      const std::vector<LayerUnit>& units) {
  std::map<std::string, const LayerUnit*> unitOf;
  for (const LayerUnit& unit : units)
    for (const std::string& node : unit.nodes) unitOf.emplace(node, &unit);
  struct Weighed {
    LedgerRow row;
    std::set<std::string> names;
    std::vector<std::string> withoutKernel;
  };
  std::vector<Weighed> regions;
  std::map<std::vector<std::string>, size_t> known;  // by nodes
  for (const ModelRun::Part& part : cost.parts)
    for (Int8Region& region : int8Regions(part.program.program())) {
      const auto [it, isNew] = known.emplace(region.nodes, regions.size());
      if (isNew) {
        Weighed& made = regions.emplace_back();
        made.names = {region.nodes.begin(), region.nodes.end()};
        made.row.nodes = region.nodes;
        for (const std::string& node : region.nodes) {
          const auto unit = unitOf.find(node);
          if (unit == unitOf.end()) continue;
          for (const std::string& other : unit->second->nodes)
            if (made.names.insert(other).second) made.row.nodes.push_back(other);
        }
        made.row.borders = region.borders;
        made.row.region = region.nodes.empty()       ? "quantize and dequantize alone"
                          : region.nodes.size() == 1 ? region.nodes[0]
                                                     : fmt::format("{} .. {}", region.nodes.front(), region.nodes.back());
        made.withoutKernel = std::move(region.withoutKernel);
      }
      for (const size_t i : region.steps) regions[it->second].row.int8Milliseconds += nth(cost.steps, part.firstStep + i).seconds * 1e3;
    }
  std::vector<LedgerRow> rows;
  std::set<std::string> counted;  // nodes of the float program, so that no two regions have one
  for (auto& [row, names, withoutKernel] : regions) {
    bool floatKernels = true;
    std::vector<std::string> here;
    for (const StepProfile& step : floatSteps) {
      if (!names.contains(step.node) || counted.contains(step.node)) continue;
      row.floatMilliseconds += step.seconds * 1e3;
      floatKernels &= !step.kernel.empty() && step.kernel != "reference";
      here.push_back(step.node);
    }
    counted.insert(here.begin(), here.end());
    const bool lacksKernel = !withoutKernel.empty() && floatKernels;
    row.wins = !lacksKernel && row.int8Milliseconds < row.floatMilliseconds;
    row.reason = lacksKernel ? fmt::format("'{}' has no integer kernel", withoutKernel[0])
                 : row.wins  ? "integers win"
                             : "integers with their borders take as long as float, or longer";
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace qc
