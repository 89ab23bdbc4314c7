// TensorProto -> Tensor: raw and typed data of every numeric type, external data from the model's folder only.
#pragma once

#include "ir/files.h"
#include "ir/tensor.h"

namespace onnx {
class TensorProto;
}

namespace qc {

Result<DType> dtypeFromOnnx(int dataType);
int dtypeToOnnx(DType dtype);

// `folder`: beneath which external data lies, opened; none refuses external data.
Result<Tensor> tensorFromOnnx(const onnx::TensorProto& proto, const Descriptor& folder);

}  // namespace qc
