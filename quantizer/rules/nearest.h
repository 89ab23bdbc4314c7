// "Did you mean": the remedy of errors about unknown names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qc {

// "did you mean 'a' or 'b'?" with the names of `known` nearest to `wanted`; empty when there are none.
std::string didYouMean(std::string_view wanted, const std::vector<std::string>& known);

}  // namespace qc
