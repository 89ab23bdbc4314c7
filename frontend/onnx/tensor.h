// TensorProto -> Tensor: raw and typed data of every numeric type, external data from the model's folder only.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "ir/files.h"
#include "ir/tensor.h"

namespace onnx {
class TensorProto;
}

namespace qc {

// How to keep what is supported of a model, in remedies.
inline constexpr std::string_view kExtractModel = "onnx.utils.extract_model(MODEL, OUTPUT, INPUTS, OUTPUTS)";

Result<DType> dtypeFromOnnx(int64_t dataType);
int dtypeToOnnx(DType dtype);

// What stands beside the data of a tensor.
struct TensorHeader {
  DType dtype;
  std::vector<int64_t> sizes;
  int64_t elements = 0, bytes = 0;  // bytes: of the file
};
Result<TensorHeader> headerFromOnnx(const onnx::TensorProto& proto);

// The file of external data is there, and long enough.
Status checkExternal(const onnx::TensorProto& proto, const TensorHeader& header, const Descriptor& folder);

// Raw data that was taken out of messages, so that tensors hold it as it is, and no longer than they are needed.
using TensorBytes = std::unordered_map<const onnx::TensorProto*, std::shared_ptr<const std::string>>;

// `folder`: beneath which external data lies, opened; none refuses external data.  `taken`: the raw data, where it is no longer in the
// message.
Result<Tensor> tensorFromOnnx(const onnx::TensorProto& proto, const Descriptor& folder,
                              const std::shared_ptr<const std::string>& taken = nullptr);

// Half types are computed in float32 throughout.
inline DType withoutHalf(DType dtype) { return dtype == DType::f16 || dtype == DType::bf16 ? DType::f32 : dtype; }
Tensor withoutHalves(Tensor t);

}  // namespace qc
