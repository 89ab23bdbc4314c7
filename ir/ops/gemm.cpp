#include "ir/ops/gemm.h"

#include <algorithm>
#include <cmath>

namespace qc::ref {
namespace {

inline float step(float a, float b, float c) { return std::fma(a, b, c); }
inline double step(double a, double b, double c) { return std::fma(a, b, c); }
inline uint32_t step(uint32_t a, uint32_t b, uint32_t c) { return a * b + c; }
inline uint64_t step(uint64_t a, uint64_t b, uint64_t c) { return a * b + c; }

// Columns are the vector lanes, so every sum keeps its order; four rows at a time hide the latency of the chain of adds.
template <class T>
[[gnu::always_inline]] inline void fourRows(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, int64_t columns, int64_t depth) {
  T* __restrict c0 = c.data;
  T* __restrict c1 = c.data + c.stride;
  T* __restrict c2 = c.data + 2 * c.stride;
  T* __restrict c3 = c.data + 3 * c.stride;
  for (int64_t i = 0; i < depth; ++i) {
    const T a0 = a.data[i], a1 = a.data[i + a.stride], a2 = a.data[i + 2 * a.stride], a3 = a.data[i + 3 * a.stride];
    const T* __restrict row = b.data + i * b.stride;
    for (int64_t j = 0; j < columns; ++j) {
      c0[j] = step(a0, row[j], c0[j]);
      c1[j] = step(a1, row[j], c1[j]);
      c2[j] = step(a2, row[j], c2[j]);
      c3[j] = step(a3, row[j], c3[j]);
    }
  }
}

template <class T>
[[gnu::always_inline]] inline void oneRow(const T* a, Matrix<const T> b, T* __restrict c, int64_t columns, int64_t depth) {
  for (int64_t i = 0; i < depth; ++i) {
    const T* __restrict row = b.data + i * b.stride;
    for (int64_t j = 0; j < columns; ++j) c[j] = step(a[i], row[j], c[j]);
  }
}

template <class T>
[[gnu::always_inline]] inline void blocked(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, ProductSizes sizes) {
  constexpr int64_t kColumns = 256, kDepth = 64;  // a block of b stays in the second-level cache
  for (int64_t j = 0; j < sizes.columns; j += kColumns)
    for (int64_t p = 0; p < sizes.depth; p += kDepth) {
      const int64_t columns = std::min(kColumns, sizes.columns - j), depth = std::min(kDepth, sizes.depth - p);
      const Matrix<const T> block = b.from(p, j);
      int64_t i = 0;
      for (; i + 4 <= sizes.rows; i += 4) fourRows(a.from(i, p), block, c.from(i, j), columns, depth);
      for (; i < sizes.rows; ++i) oneRow(a.from(i, p).data, block, c.from(i, j).data, columns, depth);
    }
}

template <class T>
[[gnu::always_inline]] inline void elements(const T* __restrict a, const T* __restrict b, T* __restrict c, int64_t n) {
  for (int64_t j = 0; j < n; ++j) c[j] = step(a[j], b[j], c[j]);
}

// The fused multiply-add is one instruction where the CPU has it; elsewhere the C library's exact one gives the same bits.
#if defined(__x86_64__)
#define QC_FMA_TARGET [[gnu::target("avx2,fma")]]
bool hasFma() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has;
}
#else
#define QC_FMA_TARGET
bool hasFma() { return false; }
#endif

template <class T>
QC_FMA_TARGET void blockedFma(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, ProductSizes sizes) {
  blocked(a, b, c, sizes);
}
template <class T>
QC_FMA_TARGET void elementsFma(const T* a, const T* b, T* c, int64_t n) {
  elements(a, b, c, n);
}

}  // namespace

template <class T>
void multiplyAdd(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, ProductSizes sizes) {
  hasFma() ? blockedFma(a, b, c, sizes) : blocked(a, b, c, sizes);
}
template <class T>
void multiplyAddElements(const T* a, const T* b, T* c, int64_t n) {
  hasFma() ? elementsFma(a, b, c, n) : elements(a, b, c, n);
}

#define QC_INSTANTIATE(T)                                                                  \
  template void multiplyAdd<T>(Matrix<const T>, Matrix<const T>, Matrix<T>, ProductSizes); \
  template void multiplyAddElements<T>(const T*, const T*, T*, int64_t);
QC_INSTANTIATE(float)
QC_INSTANTIATE(double)
QC_INSTANTIATE(uint32_t)
QC_INSTANTIATE(uint64_t)
#undef QC_INSTANTIATE

}  // namespace qc::ref
