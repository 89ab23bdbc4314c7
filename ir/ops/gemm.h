// The inner loops of the reference matrix products and convolutions.
#pragma once

#include <cstdint>

namespace qc::ref {

// c[i][j] = step(a[i][k], b[k][j], c[i][j]) for k = 0, 1, .. in this order, for every i < m and j < n.  The caller sets the start
// of the sums.  step is one fused multiply-add for float and double, and arithmetic modulo 2^32 or 2^64 for integers (unsigned,
// so that wrapping is defined; as signed numbers the results are the same).  Rows of a, b and c lie lda, ldb, ldc elements apart.
template <class T>
void multiplyAdd(const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t m, int64_t n, int64_t k);

// c[j] = step(a[j], b[j], c[j]): one tap of a depthwise convolution.
template <class T>
void multiplyAddElements(const T* a, const T* b, T* c, int64_t n);

}  // namespace qc::ref
