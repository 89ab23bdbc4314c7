// What calibration hands to convert: the parameters of every observer by its id, and which branches (ir/branches.h) the samples took.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "ir/type.h"

namespace qc {

// Of conditions by name: for how many samples each was false, and true.  One that no sample came to has no row.
using BranchCounts = std::map<std::string, std::array<int64_t, 2>>;

struct GroupParams : std::map<int64_t, QuantPtr> {
  BranchCounts branches;
};

}  // namespace qc
