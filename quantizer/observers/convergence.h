// Was it enough data, and is it real?  A verdict over what calibration found: how many of the samples the ranges needed, which samples
// set them, and what looks wrong with the data.
#pragma once

#include <string>
#include <vector>

#include "quantizer/ranges.h"

namespace qc {

struct Convergence {
  struct Row {
    int64_t id = 0;
    std::string name;
    ValueRange chosen;   // after clipping; the hull over channels
    int64_t needed = 0;  // samples, of those that were seen, until all of it but 2% had been
    SampleTrace::Extreme lowest, highest;
    int64_t nonFinite = 0;
  };
  std::vector<Row> rows;  // most needing first

  struct Influence {
    int64_t sample = 0;
    std::string name;
    int64_t ends = 0;  // ends of ranges that it set
  };
  std::vector<Influence> influences;  // most first

  int64_t samples = 0;
  int64_t enough = 0;      // the first so many gave 95% of the ranges
  bool converged = false;  // that happened in the first three quarters
  std::vector<std::string> warnings;

  std::string verdict() const;  // one line
};

// Of each set of samples that is not in as a whole: how many are.
std::vector<std::string> missingShards(const Ranges& ranges);

// model: the graph that was observed, whose ops tell where values stop by themselves (the 6 of a ReLU6, the 1 of a sigmoid): no sample set
// such an end.  Without it, ends that many samples have are taken for such.
Convergence assess(const Ranges& ranges, const Graph* model = nullptr);

}  // namespace qc
