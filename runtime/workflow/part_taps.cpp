#include "runtime/workflow/part_taps.h"

#include <fmt/format.h>

#include <algorithm>

#include "ir/branches.h"

namespace qc {
Result<Taps> tapsOf(const Graph& graph, const std::vector<std::string>& names, const SessionOptions& options) {
  if (!conditionsOf(graph).empty()) return Taps::open(graph, names, options);  // which branch is taken is decided behind it
  Graph part = graph.clone();
  std::vector<Value*> outputs;
  for (const std::string& name : names) {
    Value* v = part.findValue(name);
    if (!v) return fail(ErrorCode::kNotFound, "the graph has no such value").on(name);
    if (std::find(outputs.begin(), outputs.end(), v) == outputs.end()) outputs.push_back(v);
  }
  std::vector<std::string> outputNames;
  for (size_t i = 0; i < outputs.size(); ++i) outputNames.push_back(fmt::format("part_{}", i));
  part.setOutputs(std::move(outputs));
  part.setOutputNames(std::move(outputNames));
  return Taps::open(part, names, options);
}

}  // namespace qc
