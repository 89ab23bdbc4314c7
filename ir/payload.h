// The elements of a tensor as text, written and read in one place:
//
//   splat 0.5    rand(seed, low, high)    iota    [1, 2, 3]    hex"0a0b.."  (raw little-endian bytes)    elided(hash)
//
// rand is splitmix64, element i from position i of the stream: floats uniform in [low, high), integers among low..high.
// The last form is for the eye only and cannot be read back.
#pragma once

#include <string>

#include "ir/tensor.h"
#include "ir/text_reader.h"

namespace qc {

enum class PayloadForm : uint8_t {
  brief,  // a list of up to 16 elements, else elided
  exact,  // every bit
  list,   // a list of any length
};
std::string payloadText(const Tensor& tensor, PayloadForm form);

// `type` is plain and static; the caller bounds its size.
Result<Tensor> readPayload(TextReader& in, const TensorType& type);

}  // namespace qc
