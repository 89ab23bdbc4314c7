#include "ir/ops/strided_copy.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "ir/signed_index.h"

namespace qc {
namespace {

struct Wide {  // a 16-byte element
  uint64_t half[2];
};

template <class T>
T load(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}
template <class T>
void store(char* p, const T& value) {
  std::memcpy(p, &value, sizeof(T));
}

struct StridedDim {
  int64_t size, from, to;  // strides in bytes
};

// A copy brought into its cheapest order.
struct Plan {
  std::vector<StridedDim> dims;  // outer to inner
  int64_t bytes;                 // of an element
  bool swapped = false;          // the last two dims are a plane: rows contiguous in the source, columns in the result

  Plan(const StridedCopy& copy, int64_t elementBytes) : bytes(elementBytes) {
    for (size_t d = 0; d < copy.sizes.size(); ++d)
      if (copy.sizes[d] != 1) dims.push_back({copy.sizes[d], copy.fromStrides[d] * bytes, copy.toStrides[d] * bytes});
    merge();
    widen();
    swapped = bringRowsInward();
  }

  // A dim joins the next inner one if stepping over all of that is one step of it, on both sides.
  void merge() {
    size_t kept = 0;
    for (size_t i = 0; i < dims.size(); ++i) {
      const StridedDim d = dims[i];
      if (kept > 0 && dims[kept - 1].to == d.to * d.size && dims[kept - 1].from == d.from * d.size)
        dims[kept - 1] = {dims[kept - 1].size * d.size, d.from, d.to};
      else
        dims[kept++] = d;
    }
    dims.resize(kept);
  }

  // A contiguous run of 2 to 16 bytes is one element; a memcpy for each would cost more than it moves.
  void widen() {
    if (dims.empty() || dims.back().to != bytes || dims.back().from != bytes) return;
    const int64_t run = dims.back().size * bytes;
    if (run != 2 && run != 4 && run != 8 && run != 16) return;
    bytes = run;
    dims.pop_back();
  }

  // Puts the dim that is contiguous in the source next to the one that is contiguous in the result.
  bool bringRowsInward() {
    if (dims.size() < 2 || bytes > 8 || dims.back().to != bytes || dims.back().from == bytes || dims.back().from == 0) return false;
    const auto last = dims.end() - 1;
    const auto rows = std::find_if(dims.begin(), last, [&](const StridedDim& d) { return d.from == bytes; });
    // With fewer rows or columns than a tile has, whole lines of the result are the better order.
    const int64_t tile = 16 / bytes;
    if (rows == last || rows->size < tile || last->size < tile) return false;
    std::rotate(rows, rows + 1, last);
    return true;
  }
};

template <class T>
void copyLine(const char* from, char* to, const StridedDim& d) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
  if (d.from == 0) {
    const T value = load<T>(from);
    for (int64_t i = 0; i < d.size; ++i) store(to + i * d.to, value);
  } else if (d.to == kBytes) {
    for (int64_t i = 0; i < d.size; ++i) store(to + i * kBytes, load<T>(from + i * d.from));
  } else {
    for (int64_t i = 0; i < d.size; ++i) store(to + i * d.to, load<T>(from + i * d.from));
  }
}

// Transposes n x n elements, n = 16 / sizeof(T), in registers: log2(n) rounds that interleave row i with row i + n/2.
template <class T>
struct Tile {
  static constexpr int n = 16 / static_cast<int>(sizeof(T));
  typedef T Row __attribute__((vector_size(16)));

  template <int... i>
  static Row low(Row a, Row b, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, (i % 2 * n + i / 2)...);
  }
  template <int... i>
  static Row high(Row a, Row b, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, (i % 2 * n + i / 2 + n / 2)...);
  }

  static void transpose(const char* from, int64_t fromStride, char* to, int64_t toStride) {
    constexpr auto kIndices = std::make_integer_sequence<int, n>();
    Row a[n], b[n];
    for (int i = 0; i < n; ++i) a[i] = load<Row>(from + i * fromStride);
    for (int round = 1; round < n; round *= 2) {
      for (int i = 0; i < n / 2; ++i) {
        b[2 * i] = low(a[i], a[i + n / 2], kIndices);
        b[2 * i + 1] = high(a[i], a[i + n / 2], kIndices);
      }
      std::copy(b, b + n, a);
    }
    for (int i = 0; i < n; ++i) store(to + i * toStride, a[i]);
  }
};

// to[r][c] = from[c][r], by tiles; blocks of tiles keep the lines of both sides in the first cache.
template <class T>
void copySwapped(const char* from, char* to, const StridedDim& rows, const StridedDim& columns) {
  constexpr int64_t kBytes = sizeof(T), n = Tile<T>::n, kBlock = 64;
  const int64_t fullRows = rows.size / n * n, fullColumns = columns.size / n * n;
  for (int64_t r0 = 0; r0 < fullRows; r0 += kBlock)
    for (int64_t c0 = 0; c0 < fullColumns; c0 += kBlock)
      for (int64_t r = r0; r < std::min(r0 + kBlock, fullRows); r += n)
        for (int64_t c = c0; c < std::min(c0 + kBlock, fullColumns); c += n)
          Tile<T>::transpose(from + r * kBytes + c * columns.from, columns.from, to + r * rows.to + c * kBytes, rows.to);
  for (int64_t r = 0; r < rows.size; ++r)
    for (int64_t c = r < fullRows ? fullColumns : 0; c < columns.size; ++c)
      store(to + r * rows.to + c * kBytes, load<T>(from + r * kBytes + c * columns.from));
}

template <class T>
void copyDims(const char* from, char* to, std::span<const StridedDim> dims, bool swapped) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
  if (dims.empty()) return store(to, load<T>(from));
  const StridedDim& d = dims[0];
  if (dims.size() == 1) {
    if (d.from != kBytes || d.to != kBytes) return copyLine<T>(from, to, d);
    std::memcpy(to, from, usize(d.size * kBytes));
    return;
  }
  if constexpr (sizeof(T) <= 8)
    if (swapped && dims.size() == 2) return copySwapped<T>(from, to, d, dims[1]);
  for (int64_t i = 0; i < d.size; ++i) copyDims<T>(from + i * d.from, to + i * d.to, dims.subspan(1), swapped);
}

}  // namespace

std::vector<int64_t> denseStrides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  // An empty tensor has nothing to step over; its other dims may be large enough to overflow a product.
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) return strides;
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
  return strides;
}

void stridedCopy(const StridedCopy& copy, const void* from, void* to, int64_t elementBytes) {
  for (const int64_t n : copy.sizes)
    if (n == 0) return;
  const Plan plan(copy, elementBytes);
  const auto* source = static_cast<const char*>(from);
  auto* result = static_cast<char*>(to);
  switch (plan.bytes) {
    case 1: return copyDims<uint8_t>(source, result, plan.dims, plan.swapped);
    case 2: return copyDims<uint16_t>(source, result, plan.dims, plan.swapped);
    case 4: return copyDims<uint32_t>(source, result, plan.dims, plan.swapped);
    case 8: return copyDims<uint64_t>(source, result, plan.dims, plan.swapped);
    default: return copyDims<Wide>(source, result, plan.dims, plan.swapped);
  }
}

}  // namespace qc
