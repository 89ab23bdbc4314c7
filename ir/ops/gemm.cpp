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
[[gnu::always_inline]] inline void fourRows(const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t n, int64_t k) {
  T* __restrict c0 = c;
  T* __restrict c1 = c + ldc;
  T* __restrict c2 = c + 2 * ldc;
  T* __restrict c3 = c + 3 * ldc;
  for (int64_t i = 0; i < k; ++i) {
    const T a0 = a[i], a1 = a[i + lda], a2 = a[i + 2 * lda], a3 = a[i + 3 * lda];
    const T* __restrict row = b + i * ldb;
    for (int64_t j = 0; j < n; ++j) {
      c0[j] = step(a0, row[j], c0[j]);
      c1[j] = step(a1, row[j], c1[j]);
      c2[j] = step(a2, row[j], c2[j]);
      c3[j] = step(a3, row[j], c3[j]);
    }
  }
}

template <class T>
[[gnu::always_inline]] inline void oneRow(const T* a, const T* b, int64_t ldb, T* __restrict c, int64_t n, int64_t k) {
  for (int64_t i = 0; i < k; ++i) {
    const T* __restrict row = b + i * ldb;
    for (int64_t j = 0; j < n; ++j) c[j] = step(a[i], row[j], c[j]);
  }
}

template <class T>
[[gnu::always_inline]] inline void blocked(const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t m, int64_t n,
                                           int64_t k) {
  constexpr int64_t kBlockN = 256, kBlockK = 64;  // a block of b stays in the second-level cache
  for (int64_t j = 0; j < n; j += kBlockN)
    for (int64_t p = 0; p < k; p += kBlockK) {
      const int64_t width = std::min(kBlockN, n - j), depth = std::min(kBlockK, k - p);
      const T* block = b + p * ldb + j;
      int64_t i = 0;
      for (; i + 4 <= m; i += 4) fourRows(a + i * lda + p, lda, block, ldb, c + i * ldc + j, ldc, width, depth);
      for (; i < m; ++i) oneRow(a + i * lda + p, block, ldb, c + i * ldc + j, width, depth);
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
QC_FMA_TARGET void blockedFma(const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t m, int64_t n, int64_t k) {
  blocked(a, lda, b, ldb, c, ldc, m, n, k);
}
template <class T>
QC_FMA_TARGET void elementsFma(const T* a, const T* b, T* c, int64_t n) {
  elements(a, b, c, n);
}

}  // namespace

template <class T>
void multiplyAdd(const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t m, int64_t n, int64_t k) {
  hasFma() ? blockedFma(a, lda, b, ldb, c, ldc, m, n, k) : blocked(a, lda, b, ldb, c, ldc, m, n, k);
}
template <class T>
void multiplyAddElements(const T* a, const T* b, T* c, int64_t n) {
  hasFma() ? elementsFma(a, b, c, n) : elements(a, b, c, n);
}

#define QC_INSTANTIATE(T)                                                                                     \
  template void multiplyAdd<T>(const T*, int64_t, const T*, int64_t, T*, int64_t, int64_t, int64_t, int64_t); \
  template void multiplyAddElements<T>(const T*, const T*, T*, int64_t);
QC_INSTANTIATE(float)
QC_INSTANTIATE(double)
QC_INSTANTIATE(uint32_t)
QC_INSTANTIATE(uint64_t)
#undef QC_INSTANTIATE

}  // namespace qc::ref
