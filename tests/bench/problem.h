// Problems for benchmarks of kernels, one line of text each: forms and examples in problems.txt.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace qc::bench {

// A line with values for its $names gives a problem for every combination of them; a comment or an empty line gives none.
Result<std::vector<std::string>> expandLine(std::string_view line);
Result<std::vector<std::string>> readProblems(const std::string& file);

struct Problem {
  Graph graph;
  Node* node = nullptr;  // the one to compute
};
Result<Problem> buildProblem(const std::string& text);

}  // namespace qc::bench
