// How many letters are to be put in, taken out or exchanged to make one name of another.
#pragma once

#include <string_view>

namespace qc {

int editDistance(std::string_view a, std::string_view b);

}  // namespace qc
