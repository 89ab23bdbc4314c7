// Never slower than float: every stretch of integers is weighed, with the quantize and dequantize at its borders, against the same nodes in
// float.  One that does not win stays float, and the ledger says so.
//
//   QC_ASSIGN(Trials trials, Trials::open(prepared, samples));
//   const auto costs = measuredCosts({{samples.sample(0).value()}});
//   QC_ASSIGN(Ledger ledger, neverSlower(trials, *costs));                // ledger.rules: quantize once more with these
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/insight/layer_units.h"
#include "runtime/insight/program_costs.h"
#include "runtime/insight/trials.h"

namespace qc {

// A maximal set of steps that hand integers to one another, with those that make and unmake them.
struct Int8Region {
  std::vector<size_t> steps;       // of the program
  std::vector<std::string> nodes;  // by the user's names, without the borders
  int borders = 0;                 // quantize and dequantize
  std::vector<std::string> withoutKernel;
};
std::vector<Int8Region> int8Regions(const Program& program);

struct LedgerRow {
  std::string region;              // its first node, "first .. last" of several
  std::vector<std::string> nodes;  // in it
  int borders = 0;
  double int8Milliseconds = 0, floatMilliseconds = 0;
  bool wins = false;  // by these times
  bool int8 = false;  // what became of it: all that can be
  bool part = false;  // some of it
  std::string reason;
  double gain() const { return floatMilliseconds - int8Milliseconds; }
  const char* becameWord() const { return int8 ? "int8" : part ? "both" : "float"; }
};

// The regions of programs with the times of their steps, beside the steps of the float program that compute what rules call the same.
// Those of several programs with the same nodes are one: a region ends where data decides what comes next.
std::vector<LedgerRow> weighedRegions(const ProgramCost& cost, std::span<const StepProfile> floatSteps,
                                      const std::vector<LayerUnit>& units);

// A whole model: its time, and how many layers of it compute on integers.
struct MixtureTime {
  double seconds = 0;
  int64_t integers = 0;
};
// The fastest; of those that are as fast within noise, the one with the fewest integers.
size_t chosenMixture(std::span<const MixtureTime> mixtures);

struct LedgerStep {
  std::string what;
  double milliseconds = 0;
  int64_t int8Layers = 0;
};
struct Ledger {
  std::vector<LedgerRow> rows;
  std::vector<LedgerStep> path;  // whole models, in turns: all int8 first
  size_t chosen = 0;             // of path
  double floatMilliseconds = 0;
  bool measured = false;
  std::string target;
  int threads = 1;
  std::vector<std::string> madeFloat;  // units
  QConfigMapping rules;                // with these in float

  double int8Milliseconds() const { return path.empty() ? 0 : path[0].milliseconds; }
  double milliseconds() const { return path.empty() ? 0 : path[chosen].milliseconds; }
};

struct LedgerOptions {
  std::vector<std::string> keepInt8 = {};  // nodes that stay integers whatever they cost: regular expressions
  std::function<void(const char* stage, int64_t done, int64_t total)> progress = {};
};

Result<Ledger> neverSlower(Trials& trials, CostSource& costs, const LedgerOptions& options = {});

}  // namespace qc
