// What a model holds, as far as its headers tell: weights that lie in files beside it are looked for, and not read.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "frontend/onnx/bind.h"

namespace qc {

struct OnnxSummary {
  std::vector<std::pair<std::string, std::string>> inputs, outputs;  // names and types
  // Dims that neither the file nor `options` fix.
  std::vector<FreeDim> free;
  bool isBound = true;  // nothing has to be bound, leading dims aside
  // Empty: types and ops are those of the imported graph.  Else those of the file, since it cannot be imported before its dims are bound.
  std::string asInFile = {};
  // Sizes that data decides.
  struct Decided {
    std::string symbol, bound, op, node;  // bound: empty: not known
  };
  std::vector<Decided> decided = {};
  std::map<std::string, int> ops;
  int64_t constantBytes = 0;  // of a file: as it holds them
  bool isQuantized = false;
  std::map<std::string, int> weights = {};  // layers by the type of their quantized weights
};

Result<OnnxSummary> summarizeOnnxFile(const std::string& path, const ImportOptions& options = {});

// What the file says of its inputs, those of options.values left out: dims that it does not fix are symbols.
Result<std::map<std::string, Shape>> declaredShapes(const std::string& path, const ImportOptions& options = {});

// Of a graph.  Its inputs `weights` are constants that were not read; what depends on them alone would be folded: it counts as one of them.
// Bodies of loops count with it.
OnnxSummary summaryOf(const Graph& graph, const std::unordered_set<std::string>& weights = {}, OnnxSummary summary = {});

}  // namespace qc
