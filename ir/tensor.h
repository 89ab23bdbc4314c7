// Host tensors: dense, row-major, reference counted.  A copy of a Tensor shares its bytes until one of the two
// is written to.  TensorRef is the borrowed form that kernels and the
// interpreter read and write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ir/memory_limit.h"
#include "ir/status.h"
#include "ir/type.h"

namespace qc {

// Borrowed view; the owner outlives it.  `sizes` row-major, dense.
struct TensorRef {
  DType dtype = DType::f32;
  std::span<const int64_t> sizes;
  void* data = nullptr;

  int64_t numElements() const;
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

class Tensor {
 public:
  Tensor() = default;                               // f32, shape [0]
  Tensor(DType dtype, std::vector<int64_t> sizes);  // zero-filled, 64-byte aligned
  // Shares `owner`; `data` holds numElements * sizeOf(dtype) bytes for as long as owner lives.
  Tensor(DType dtype, std::vector<int64_t> sizes, std::shared_ptr<const void> owner, const void* data);

  // `values` in row-major order, of the type that elements of dtype have in memory.  Errors: another number of them than the sizes say, a
  // type of another size, a negative size, too large.
  template <class T>
  static Result<Tensor> from(DType dtype, std::vector<int64_t> sizes, std::span<const T> values);
  // The same for values that are known to fit.  Requires: what from() refuses.
  template <class T>
  static Tensor of(DType dtype, std::vector<int64_t> sizes, std::span<const T> values);
  static Tensor ofFloats(std::vector<int64_t> sizes, std::span<const float> values);
  static Tensor ofInts(std::vector<int64_t> sizes, std::span<const int64_t> values);

  DType dtype() const { return dtype_; }
  const std::vector<int64_t>& sizes() const { return sizes_; }
  int rank() const { return static_cast<int>(sizes_.size()); }
  int64_t numElements() const { return qc::numElements(sizes_); }
  int64_t byteSize() const { return numElements() * sizeOf(dtype_); }
  const void* data() const { return data_; }
  bool ownsBytes() const { return owner_.use_count() == 1; }  // alone: no other tensor has them
  void* mutableData();                                        // copies the bytes first where this tensor does not own them alone
  template <class T>
  std::span<const T> as() const {
    return {static_cast<const T*>(data_), usize(numElements())};
  }
  template <class T>
  std::span<T> mutableAs() {
    return {static_cast<T*>(mutableData()), usize(numElements())};
  }

  TensorRef ref() const { return {dtype_, sizes_, const_cast<void*>(data_)}; }
  Tensor reshaped(std::vector<int64_t> sizes) const;  // shares the bytes.  Requires: the same number of elements
  TensorType type() const { return {dtype_, toShape(sizes_)}; }

  // Element i in row-major order, converted; 4-bit, half and bool included.
  double at(int64_t i) const;
  std::vector<int64_t> toInts() const;
  std::vector<float> toFloats() const;

  bool sameBytes(const Tensor& other) const;  // dtype, sizes and bytes

 private:
  static Status checkValues(DType dtype, const std::vector<int64_t>& sizes, size_t count, size_t bytesOfOne);

  DType dtype_ = DType::f32;
  std::vector<int64_t> sizes_{0};
  std::shared_ptr<const void> owner_;
  const void* data_ = nullptr;
};

double loadElement(DType dtype, const void* data, int64_t i);
void storeElement(DType dtype, void* data, int64_t i, double value);  // rounds half to even and saturates into integers

float halfToFloat(uint16_t bits);
uint16_t floatToHalf(float value);  // round to nearest even, overflow to infinity
float bfloatToFloat(uint16_t bits);
uint16_t floatToBfloat(float value);

template <class T>
Result<Tensor> Tensor::from(DType dtype, std::vector<int64_t> sizes, std::span<const T> values) {
  QC_TRY(checkValues(dtype, sizes, values.size(), sizeof(T)));
  QC_TRY(checkMemory(static_cast<int64_t>(values.size_bytes()), "a tensor"));
  return of(dtype, std::move(sizes), values);
}

template <class T>
Tensor Tensor::of(DType dtype, std::vector<int64_t> sizes, std::span<const T> values) {
  const Status fits = checkValues(dtype, sizes, values.size(), sizeof(T));
  QC_REQUIRE("Tensor::of", fits.has_value(), "{}", fits.error().message());
  Tensor t(dtype, std::move(sizes));
  std::copy(values.begin(), values.end(), t.mutableAs<T>().begin());
  return t;
}

}  // namespace qc
