// Runs of elements between a tensor's dtype and the type that arithmetic is done in: float, double, int64_t or uint64_t.
// The rules are those of `cast`: float to integer truncates and saturates, NaN becomes 0; integers wrap; anything
// that is not 0 (NaN included) is true.
#pragma once

#include <cstdint>

#include "ir/type.h"

namespace qc {

// What arithmetic on a dtype is done in.
enum class Arithmetic { single, real, integer, natural };  // float, double, int64_t, uint64_t
Arithmetic arithmeticOf(DType dtype);

// Calls visit.operator()<T>() for the arithmetic type of a dtype.
template <class Visit>
auto withArithmetic(DType dtype, Visit&& visit) {
  switch (arithmeticOf(dtype)) {
    case Arithmetic::single: return visit.template operator()<float>();
    case Arithmetic::real: return visit.template operator()<double>();
    case Arithmetic::integer: return visit.template operator()<int64_t>();
    case Arithmetic::natural: break;
  }
  return visit.template operator()<uint64_t>();
}

// out[i] = T(data[offset + i * stride]), i < n.  T: float, double, int64_t, uint64_t.
template <class T>
void loadElements(DType dtype, const void* data, int64_t offset, int64_t stride, int64_t n, T* out);

// data[offset + i] = dtype(in[i]), i < n.
template <class T>
void storeElements(DType dtype, const T* in, void* data, int64_t offset, int64_t n);

}  // namespace qc
