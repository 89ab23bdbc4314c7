// What bind-shapes gives to free dims.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace qc {

using ShapeBindings = std::map<std::string, int64_t>;  // sizes by symbol

}  // namespace qc
