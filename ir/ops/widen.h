// Reference evaluation of any element type: operands widened to the type that computes, results narrowed back.
// f32 tensors are borrowed, not copied.  Half types compute in float32, every integer type in 64 bits: u64 in uint64_t, as its upper half
// is beyond int64_t, the others in int64_t.
#pragma once

#include <type_traits>
#include <vector>

#include "ir/op_def.h"

namespace qc {

struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

// Calls f with a value of the C++ type that stores `dtype`.
template <class F>
decltype(auto) withStorage(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32: return f(float{});
    case DType::f16: return f(Half{});
    case DType::bf16: return f(BFloat{});
    case DType::f64: return f(double{});
    case DType::s8:
    case DType::s4: return f(int8_t{});
    case DType::u16: return f(uint16_t{});
    case DType::s16: return f(int16_t{});
    case DType::u32: return f(uint32_t{});
    case DType::s32: return f(int32_t{});
    case DType::u64: return f(uint64_t{});
    case DType::s64: return f(int64_t{});
    case DType::u8:
    case DType::u4:
    case DType::boolean: break;
  }
  return f(uint8_t{});
}

template <class T>
T widened(Half h) {
  return static_cast<T>(halfToFloat(h.bits));
}
template <class T>
T widened(BFloat b) {
  return static_cast<T>(bfloatToFloat(b.bits));
}
template <class T, class S>
T widened(S s) {
  return static_cast<T>(s);
}

template <class S, class T>
S narrowed(T v) {
  if constexpr (std::is_same_v<S, Half>)
    return {floatToHalf(static_cast<float>(v))};
  else if constexpr (std::is_same_v<S, BFloat>)
    return {floatToBfloat(static_cast<float>(v))};
  else
    return static_cast<S>(v);  // integers wrap
}

// The elements of an operand as T.
template <class T>
class Elements {
 public:
  explicit Elements(const TensorRef& ref) : size_(ref.numElements()) {
    withStorage(ref.dtype, [&](auto tag) {
      using S = decltype(tag);
      const S* from = ref.as<S>();
      if constexpr (std::is_same_v<S, T>) {
        data_ = from;
      } else {
        copy_.resize(usize(size_));
        for (int64_t i = 0; i < size_; ++i) nth(copy_, i) = widened<T>(from[i]);
        data_ = copy_.data();
      }
    });
  }
  Elements(const Elements&) = delete;
  Elements& operator=(const Elements&) = delete;
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  T operator[](int64_t i) const { return data_[i]; }

 private:
  int64_t size_ = 0;
  std::vector<T> copy_;
  const T* data_ = nullptr;
};

// A result computed as T.  flush() narrows into the tensor when it stores another type.
template <class T>
class ResultElements {
 public:
  explicit ResultElements(const TensorRef& ref) : ref_(ref), size_(ref.numElements()) {
    withStorage(ref.dtype, [&](auto tag) {
      using S = decltype(tag);
      if constexpr (std::is_same_v<S, T>) {
        data_ = ref.as<T>();
      } else {
        copy_.resize(usize(size_));
        data_ = copy_.data();
      }
    });
  }
  ResultElements(const ResultElements&) = delete;
  ResultElements& operator=(const ResultElements&) = delete;
  T* data() const { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) const { return data_[i]; }
  void flush() const {
    if (copy_.empty()) return;
    withStorage(ref_.dtype, [&](auto tag) {
      using S = decltype(tag);
      S* to = ref_.as<S>();
      for (int64_t i = 0; i < size_; ++i) to[i] = narrowed<S>(nth(copy_, i));
    });
  }

 private:
  TensorRef ref_;
  int64_t size_ = 0;
  std::vector<T> copy_;
  T* data_ = nullptr;
};

// Calls f with the type that computes for a dtype: float, double, int64_t or uint64_t.
template <class F>
decltype(auto) withComputeType(DType dtype, F&& f) {
  if (dtype == DType::f64) return f(double{});
  if (isFloat(dtype)) return f(float{});
  if (dtype == DType::u64) return f(uint64_t{});
  return f(int64_t{});
}

// A tensor seen as [outer][length][inner] around one axis.
struct AxisView {
  int64_t outer = 1, length = 1, inner = 1;
  template <class Sizes>
  AxisView(const Sizes& sizes, int64_t axis) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      int64_t& part = static_cast<int64_t>(i) < axis ? outer : static_cast<int64_t>(i) == axis ? length : inner;
      part *= sizes[i];
    }
  }
};

}  // namespace qc
