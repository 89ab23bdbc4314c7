// "Did you mean": the names closest to a mistyped one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qc {

// Up to `count` of `names`, the closest first; those too far off are left out.
std::vector<std::string> nearestNames(std::string_view wanted, const std::vector<std::string>& names, size_t count = 3);

// "did you mean 'a' or 'b'?", empty without candidates.
std::string didYouMean(const std::vector<std::string>& names);

}  // namespace qc
