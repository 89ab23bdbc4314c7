// What calibration hands to convert: the parameters of every observer by its id.
#pragma once

#include <cstdint>
#include <map>

#include "ir/type.h"

namespace qc {

using GroupParams = std::map<int64_t, QuantPtr>;

}  // namespace qc
