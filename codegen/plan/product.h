// Forms of products that kernels are built of.  Which instruction computes one, and what does where there is none: emit/products.h.
#pragma once

#include <cstdint>

namespace qc {

enum class Product : uint8_t {
  bytes,        // u8 x s8, four products added per 32-bit lane
  signedBytes,  // s8 x s8, four: the input is shifted by 128 on the way
  bytePairs,    // u8 x s8, two products at a time added with 16-bit saturation: exact only where no pair of weights reaches it
  words,        // both operands widened to 16 bits, two products per lane
  floats,       // one fused multiply-add per lane
  tiles,        // the matrix unit of AMX: u8 x s8, 16 pixels x 64 of k x 16 columns
};

}  // namespace qc
