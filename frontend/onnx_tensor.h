// TensorProto -> Tensor: raw and typed data of every numeric type, external data from the model's folder only.
#pragma once

#include <filesystem>

#include "ir/tensor.h"

namespace onnx {
class TensorProto;
}

namespace qc {

Result<DType> dtypeFromOnnx(int dataType);
int dtypeToOnnx(DType dtype);

// `folder`: where external data may lie; empty refuses external data.
Result<Tensor> tensorFromOnnx(const onnx::TensorProto& proto, const std::filesystem::path& folder);

}  // namespace qc
