// The inner loops of the reference matrix products and convolutions.
#pragma once

#include <cstdint>

namespace qc::ref {

// A matrix whose rows lie `stride` elements apart.
template <class T>
struct Matrix {
  T* data;
  int64_t stride;

  Matrix from(int64_t row, int64_t column) const { return {data + row * stride + column, stride}; }
};

// Of a product: its rows and columns, and the terms of each sum.
struct ProductSizes {
  int64_t rows, columns, depth;
};

// c[i][j] = step(a[i][k], b[k][j], c[i][j]) for k = 0, 1, .. in this order, for every row i and column j.  The caller sets the start
// of the sums.  step is one fused multiply-add for float and double, and arithmetic modulo 2^32 or 2^64 for integers (unsigned,
// so that wrapping is defined; as signed numbers the results are the same).
//   multiplyAdd<float>({x, depth}, {weights, outputs}, {y, outputs}, {rows, outputs, depth});
template <class T>
void multiplyAdd(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, ProductSizes sizes);

// c[j] = step(a[j], b[j], c[j]): one tap of a depthwise convolution.
template <class T>
void multiplyAddElements(const T* a, const T* b, T* c, int64_t n);

}  // namespace qc::ref
