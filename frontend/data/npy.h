// NumPy files, whole: .npy read and written.  Little-endian, C order, numeric types.  array_file.h reads them, and .npz, row by row.
// A header is a claim: sizes are compared with the bytes that are there before anything is allocated.
#pragma once

#include <string>
#include <string_view>

#include "ir/files.h"
#include "ir/tensor.h"

namespace qc {

Result<Tensor> parseNpy(std::string_view bytes, std::string_view name);
Result<Tensor> readNpy(const std::string& path);
Result<std::string> npyHead(const Tensor& tensor);  // what stands in front of its bytes
Status writeNpy(const std::string& path, const Tensor& tensor);
Status addNpy(OutputFiles& files, const std::string& path, const Tensor& tensor);  // one of several that appear together

}  // namespace qc
