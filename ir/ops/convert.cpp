#include "ir/ops/convert.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "ir/tensor.h"

namespace qc {
namespace {

template <class To>
To truncated(double value, To low, To high) {
  if (std::isnan(value)) return 0;
  if (value <= static_cast<double>(low)) return low;
  if (value >= static_cast<double>(high)) return high;  // 2^63 stands for 2^63 - 1 here, rightly so
  return static_cast<To>(value);
}

template <class To, class From>
To castValue(From value) {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>)
    return truncated<To>(static_cast<double>(value), std::numeric_limits<To>::min(), std::numeric_limits<To>::max());
  else
    return static_cast<To>(value);
}

// How one dtype is stored, and converted from and to any arithmetic type T.
template <class S>
struct Plain {
  using Storage = S;
  template <class T>
  static T load(S v) {
    return castValue<T>(v);
  }
  template <class T>
  static S store(T v) {
    return castValue<S>(v);
  }
};

template <float (*kLoad)(uint16_t), uint16_t (*kStore)(float)>
struct Narrow {  // 16-bit floats
  using Storage = uint16_t;
  template <class T>
  static T load(uint16_t v) {
    return castValue<T>(kLoad(v));
  }
  template <class T>
  static uint16_t store(T v) {
    return kStore(castValue<float>(v));
  }
};

struct Bool {
  using Storage = uint8_t;
  template <class T>
  static T load(uint8_t v) {
    return v != 0 ? T{1} : T{0};
  }
  template <class T>
  static uint8_t store(T v) {
    return v != T{0};
  }
};

template <class S, int kLow, int kHigh>
struct Nibble {  // 4 bits in a byte
  using Storage = S;
  template <class T>
  static T load(S v) {
    return castValue<T>(v);
  }
  template <class T>
  static S store(T v) {
    if constexpr (std::is_floating_point_v<T>) return truncated<S>(static_cast<double>(v), kLow, kHigh);
    const int bits = static_cast<int>(castValue<uint64_t>(v) & 15);
    return static_cast<S>(bits > kHigh ? bits - 16 : bits);
  }
};

// Calls visit.operator()<Element>() for the element of a dtype.
template <class Visit>
void withElement(DType dtype, Visit&& visit) {
  switch (dtype) {
    case DType::f32: return visit.template operator()<Plain<float>>();
    case DType::f16: return visit.template operator()<Narrow<halfToFloat, floatToHalf>>();
    case DType::bf16: return visit.template operator()<Narrow<bfloatToFloat, floatToBfloat>>();
    case DType::f64: return visit.template operator()<Plain<double>>();
    case DType::u8: return visit.template operator()<Plain<uint8_t>>();
    case DType::s8: return visit.template operator()<Plain<int8_t>>();
    case DType::u16: return visit.template operator()<Plain<uint16_t>>();
    case DType::s16: return visit.template operator()<Plain<int16_t>>();
    case DType::u32: return visit.template operator()<Plain<uint32_t>>();
    case DType::s32: return visit.template operator()<Plain<int32_t>>();
    case DType::u64: return visit.template operator()<Plain<uint64_t>>();
    case DType::s64: return visit.template operator()<Plain<int64_t>>();
    case DType::boolean: return visit.template operator()<Bool>();
    case DType::u4: return visit.template operator()<Nibble<uint8_t, 0, 15>>();
    case DType::s4: return visit.template operator()<Nibble<int8_t, -8, 7>>();
  }
}

}  // namespace

Arithmetic arithmeticOf(DType dtype) {
  if (dtype == DType::f64) return Arithmetic::real;
  if (dtype == DType::u64) return Arithmetic::natural;
  return isFloat(dtype) ? Arithmetic::single : Arithmetic::integer;
}

template <class T>
void loadElements(DType dtype, const void* data, int64_t offset, int64_t stride, int64_t n, T* out) {
  withElement(dtype, [&]<class Element>() {
    const auto* in = static_cast<const typename Element::Storage*>(data) + offset;
    for (int64_t i = 0; i < n; ++i) out[i] = Element::template load<T>(in[i * stride]);
  });
}

template <class T>
void storeElements(DType dtype, const T* in, void* data, int64_t offset, int64_t n) {
  withElement(dtype, [&]<class Element>() {
    auto* out = static_cast<typename Element::Storage*>(data) + offset;
    for (int64_t i = 0; i < n; ++i) out[i] = Element::template store<T>(in[i]);
  });
}

#define QC_INSTANTIATE(T)                                                           \
  template void loadElements<T>(DType, const void*, int64_t, int64_t, int64_t, T*); \
  template void storeElements<T>(DType, const T*, void*, int64_t, int64_t);
QC_INSTANTIATE(float)
QC_INSTANTIATE(double)
QC_INSTANTIATE(int64_t)
QC_INSTANTIATE(uint64_t)
#undef QC_INSTANTIATE

}  // namespace qc
