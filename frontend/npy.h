// NumPy files: .npy read and written, .npz (stored or deflated members) read.  Little-endian, C order, numeric types.
// A header is a claim: sizes are compared with the bytes that are there before anything is allocated.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "ir/tensor.h"

namespace qc {

// Of a regular file only: a pipe or device would block or never end.
Result<std::string> wholeFile(const std::string& path);
Result<Tensor> parseNpy(std::string_view bytes, std::string_view name);
Result<Tensor> readNpy(const std::string& path);
Status writeNpy(const std::string& path, const Tensor& tensor);
Result<std::map<std::string, Tensor>> readNpz(const std::string& path);

}  // namespace qc
