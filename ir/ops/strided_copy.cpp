#include "ir/ops/strided_copy.h"

#include <algorithm>
#include <cstring>

namespace qc {
namespace {

// Drops dims of size 1 and merges neighbours that step alike on both sides.
StridedCopy collapsed(const StridedCopy& copy) {
  StridedCopy c;
  for (size_t d = 0; d < copy.sizes.size(); ++d) {
    const int64_t n = copy.sizes[d], from = copy.fromStrides[d], to = copy.toStrides[d];
    if (n == 1) continue;
    if (!c.sizes.empty() && c.fromStrides.back() == from * n && c.toStrides.back() == to * n) {
      c.sizes.back() *= n;
      c.fromStrides.back() = from;
      c.toStrides.back() = to;
    } else {
      c.sizes.push_back(n);
      c.fromStrides.push_back(from);
      c.toStrides.push_back(to);
    }
  }
  if (c.sizes.empty()) c = {{1}, {1}, {1}};
  return c;
}

template <class T>
void copyRow(const T* from, T* to, int64_t n, int64_t fromStride, int64_t toStride) {
  if (toStride == 1 && fromStride == 0) {
    std::fill(to, to + n, *from);
    return;
  }
  for (int64_t i = 0; i < n; ++i) to[i * toStride] = from[i * fromStride];
}

// Both sides contiguous along different dims: squares that fit in the first cache.
template <class T>
void copyPlane(const T* from, T* to, int64_t rows, int64_t columns, int64_t fromRow, int64_t fromColumn, int64_t toRow, int64_t toColumn) {
  constexpr int64_t kBlock = 32;
  for (int64_t r0 = 0; r0 < rows; r0 += kBlock)
    for (int64_t c0 = 0; c0 < columns; c0 += kBlock) {
      const int64_t r1 = std::min(rows, r0 + kBlock), c1 = std::min(columns, c0 + kBlock);
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t c = c0; c < c1; ++c) to[r * toRow + c * toColumn] = from[r * fromRow + c * fromColumn];
    }
}

template <class T>
void copyInner(const StridedCopy& c, const T* from, T* to) {
  const size_t last = c.sizes.size() - 1;
  if (c.sizes.size() == 1 || c.fromStrides[last] == 1)
    copyRow(from, to, c.sizes[last], c.fromStrides[last], c.toStrides[last]);
  else
    copyPlane(from, to, c.sizes[last - 1], c.sizes[last], c.fromStrides[last - 1], c.fromStrides[last], c.toStrides[last - 1], c.toStrides[last]);
}

template <class T>
void copyElements(const StridedCopy& c, const T* from, T* to) {
  const size_t rank = c.sizes.size();
  const bool contiguous = c.fromStrides.back() == 1 && c.toStrides.back() == 1;
  // A plane takes two dims at once unless the row alone is contiguous.
  const size_t innerDims = rank == 1 || c.fromStrides.back() == 1 ? 1 : 2;
  std::vector<int64_t> index(rank, 0);
  for (;;) {
    if (contiguous)
      std::memcpy(to, from, static_cast<size_t>(c.sizes.back()) * sizeof(T));
    else
      copyInner(c, from, to);
    size_t d = rank - innerDims;
    for (; d-- > 0;) {
      from += c.fromStrides[d];
      to += c.toStrides[d];
      if (++index[d] < c.sizes[d]) break;
      index[d] = 0;
      from -= c.fromStrides[d] * c.sizes[d];
      to -= c.toStrides[d] * c.sizes[d];
    }
    if (d == static_cast<size_t>(-1)) return;
  }
}

}  // namespace

std::vector<int64_t> denseStrides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  return strides;
}

void stridedCopy(const StridedCopy& copy, const void* from, void* to, int64_t elementBytes) {
  for (const int64_t n : copy.sizes)
    if (n == 0) return;
  const StridedCopy c = collapsed(copy);
  switch (elementBytes) {
    case 1: return copyElements(c, static_cast<const uint8_t*>(from), static_cast<uint8_t*>(to));
    case 2: return copyElements(c, static_cast<const uint16_t*>(from), static_cast<uint16_t*>(to));
    case 4: return copyElements(c, static_cast<const uint32_t*>(from), static_cast<uint32_t*>(to));
    default: return copyElements(c, static_cast<const uint64_t*>(from), static_cast<uint64_t*>(to));
  }
}

}  // namespace qc
