// Several sizes in one --shape: SYMBOL=16,32,64, SYMBOL=FIRST..LAST:STEP, NAME=1x3x224x224,1x3x320x320, and mixtures of them.
#pragma once

#include <string>
#include <vector>

#include "ir/status.h"

namespace qc::tools {

struct SizeList {
  std::string name;                        // of a symbol or an input
  std::vector<std::vector<int64_t>> each;  // one size for a symbol, all sizes for an input; in the order given, each once
  std::string text;                        // as it was given

  bool isOne() const { return each.size() == 1; }
};

// Each at most a thousand.  Of a range: FIRST, FIRST + STEP, .., and LAST; STEP is 1 where it is left out.  Error: a size stands twice
// in one, other than in a range, or a name in two.
Result<std::vector<SizeList>> parseSizeLists(const std::vector<std::string>& texts);

// "1x3x224x224".
Result<std::vector<int64_t>> parseSizes(const std::string& text, const std::string& name);

}  // namespace qc::tools
