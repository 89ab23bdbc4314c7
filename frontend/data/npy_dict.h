// The header of an npy file: a Python dict literal with the keys descr, fortran_order and shape, as numpy writes it and nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ir/status.h"

namespace qc {

struct NpyDict {
  std::string descr;
  bool fortranOrder = false;
  std::vector<int64_t> shape;
};

Result<NpyDict> parseNpyDict(std::string_view text, std::string_view fileName);

}  // namespace qc
