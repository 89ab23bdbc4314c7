#include "ir/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "ir/memory_limit.h"

namespace qc {
namespace {

constexpr size_t kAlignment = 64;

// Element access by dtype, one table instead of a switch per use.
struct ElementAccess {
  double (*load)(const void*, int64_t);
  void (*store)(void*, int64_t, double);
};

template <class T>
double loadAs(const void* data, int64_t i) {
  return static_cast<double>(static_cast<const T*>(data)[i]);
}

template <class T>
T saturate(double value, double lo, double hi) {
  if (std::isnan(value)) return 0;
  const double r = std::nearbyint(value);
  if (r <= lo) return static_cast<T>(lo);
  // The largest 64-bit integers have no double of their own: hi is then one more, and what reaches it is beyond them.
  if (r >= hi) return sizeof(T) == 8 ? std::numeric_limits<T>::max() : static_cast<T>(hi);
  return static_cast<T>(r);
}

template <class T>
void storeInt(void* data, int64_t i, double value) {
  static_cast<T*>(data)[i] =
      saturate<T>(value, static_cast<double>(std::numeric_limits<T>::min()), static_cast<double>(std::numeric_limits<T>::max()));
}
template <class T, int kLow, int kHigh>
void storeNarrow(void* data, int64_t i, double value) {
  static_cast<T*>(data)[i] = saturate<T>(value, kLow, kHigh);
}
template <class T>
void storeFloat(void* data, int64_t i, double value) {
  static_cast<T*>(data)[i] = static_cast<T>(value);
}

constexpr ElementAccess kAccess[] = {
    {loadAs<float>, storeFloat<float>},
    {[](const void* d, int64_t i) { return static_cast<double>(halfToFloat(static_cast<const uint16_t*>(d)[i])); },
     [](void* d, int64_t i, double v) { static_cast<uint16_t*>(d)[i] = floatToHalf(static_cast<float>(v)); }},
    {[](const void* d, int64_t i) { return static_cast<double>(bfloatToFloat(static_cast<const uint16_t*>(d)[i])); },
     [](void* d, int64_t i, double v) { static_cast<uint16_t*>(d)[i] = floatToBfloat(static_cast<float>(v)); }},
    {loadAs<double>, storeFloat<double>},
    {loadAs<uint8_t>, storeInt<uint8_t>},
    {loadAs<int8_t>, storeInt<int8_t>},
    {loadAs<uint16_t>, storeInt<uint16_t>},
    {loadAs<int16_t>, storeInt<int16_t>},
    {loadAs<uint32_t>, storeInt<uint32_t>},
    {loadAs<int32_t>, storeInt<int32_t>},
    {loadAs<uint64_t>, storeInt<uint64_t>},
    {loadAs<int64_t>, storeInt<int64_t>},
    {loadAs<uint8_t>, [](void* d, int64_t i, double v) { static_cast<uint8_t*>(d)[i] = v != 0; }},
    {loadAs<uint8_t>, storeNarrow<uint8_t, 0, 15>},
    {loadAs<int8_t>, storeNarrow<int8_t, -8, 7>},
};

const ElementAccess& access(DType dtype) { return nth(kAccess, dtype); }

// Memory that a step of training or a run over large values walks through from end to end: in pages of 4 KB looking up addresses takes a
// tenth of the time.  A hint: where the system has no large pages to give, nothing changes.
void askForLargePages(void* p, size_t bytes) {
  constexpr size_t kLarge = size_t{1} << 21;
  if (bytes < 2 * kLarge) return;
  const auto begin = (reinterpret_cast<uintptr_t>(p) + kLarge - 1) / kLarge * kLarge;
  const auto end = (reinterpret_cast<uintptr_t>(p) + bytes) / kLarge * kLarge;
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace

int64_t TensorRef::numElements() const {
  uint64_t n = 1;  // wraps where a size of 0 follows sizes whose product has no meaning
  for (const int64_t s : sizes) n *= static_cast<uint64_t>(s);
  return static_cast<int64_t>(n);
}

Tensor::Tensor(DType dtype, std::vector<int64_t> sizes) : dtype_(dtype), sizes_(std::move(sizes)) {
  // At least one byte, so that an empty tensor still has an address (null means absent).
  const size_t bytes = std::max<size_t>(usize(byteSize()), 1);
  countMemory(static_cast<int64_t>(bytes));
  void* p = ::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow);
  if (!p) {
    countMemory(-static_cast<int64_t>(bytes));
    throw MemoryExceeded();
  }
  askForLargePages(p, bytes);
  std::memset(p, 0, bytes);
  owner_ = std::shared_ptr<void>(p, [bytes](void* q) {
    ::operator delete(q, std::align_val_t{kAlignment});
    countMemory(-static_cast<int64_t>(bytes));
  });
  data_ = p;
}

Tensor::Tensor(DType dtype, std::vector<int64_t> sizes, std::shared_ptr<const void> owner, const void* data)
    : dtype_(dtype), sizes_(std::move(sizes)), owner_(std::move(owner)), data_(data) {}

Status Tensor::checkValues(DType dtype, const std::vector<int64_t>& sizes, size_t count, size_t bytesOfOne) {
  if (bytesOfOne != usize(sizeOf(dtype)))
    return fail(ErrorCode::kInvalidArgument, "values of {} bytes for elements {}", bytesOfOne, toString(dtype));
  // As many as there are values at most, so that no product overflows.
  uint64_t elements = std::find(sizes.begin(), sizes.end(), 0) != sizes.end() ? 0 : 1;
  for (const int64_t size : sizes) {
    if (size < 0) return fail(ErrorCode::kInvalidArgument, "a size of {}", size);
    if (elements != 0 && static_cast<uint64_t>(size) > count / elements)
      elements = count + 1;
    else
      elements *= static_cast<uint64_t>(size);
    if (elements > count) break;
  }
  if (elements != count)
    return fail(ErrorCode::kInvalidArgument, "{} values for a tensor {}", count, TensorType(dtype, toShape(sizes)).str());
  return {};
}

Tensor Tensor::ofFloats(std::vector<int64_t> sizes, std::span<const float> values) { return of(DType::f32, std::move(sizes), values); }
Tensor Tensor::ofInts(std::vector<int64_t> sizes, std::span<const int64_t> values) { return of(DType::s64, std::move(sizes), values); }

void* Tensor::mutableData() {
  if (!ownsBytes()) {
    Tensor own(dtype_, sizes_);
    if (data_) std::memcpy(const_cast<void*>(own.data_), data_, static_cast<size_t>(byteSize()));
    *this = std::move(own);
  }
  return const_cast<void*>(data_);
}

Tensor Tensor::reshaped(std::vector<int64_t> sizes) const {
  QC_REQUIRE("Tensor::reshaped", qc::numElements(sizes) == numElements(), "{} elements as {}", numElements(), toString(toShape(sizes)));
  Tensor t = *this;
  t.sizes_ = std::move(sizes);
  return t;
}

double Tensor::at(int64_t i) const { return loadElement(dtype_, data_, i); }

std::vector<int64_t> Tensor::toInts() const {
  std::vector<int64_t> values(usize(numElements()));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    // 64-bit integers do not pass through double without loss.
    if (dtype_ == DType::s64 || dtype_ == DType::u64)
      values[i] = static_cast<const int64_t*>(data_)[index];
    else
      values[i] = saturate<int64_t>(at(index), -9223372036854775808.0, 9223372036854775807.0);
  }
  return values;
}

std::vector<float> Tensor::toFloats() const {
  std::vector<float> values(usize(numElements()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(at(static_cast<int64_t>(i)));
  return values;
}

bool Tensor::sameBytes(const Tensor& other) const {
  return dtype_ == other.dtype_ && sizes_ == other.sizes_ &&
         (data_ == other.data_ || std::memcmp(data_, other.data_, usize(byteSize())) == 0);
}

double loadElement(DType dtype, const void* data, int64_t i) { return access(dtype).load(data, i); }
void storeElement(DType dtype, void* data, int64_t i, double value) { access(dtype).store(data, i, value); }

float halfToFloat(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1f, mantissa = bits & 0x3ff;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) return std::bit_cast<float>(sign) + (sign ? -1.0f : 1.0f) * std::ldexp(static_cast<float>(mantissa), -24);
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t floatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to infinity
  if (magnitude < 6.103515625e-05f)                                         // subnormal: a multiple of 2^-24
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, 24))));
  uint32_t rounded = (bits & 0x7fffffffu) - (112u << 23);
  rounded += 0xfffu + ((rounded >> 13) & 1u);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

float bfloatToFloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t floatToBfloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace qc
