#include "quantizer/observers/product_sums.h"

#include <algorithm>
#include <cstring>

#include "quantizer/observers/multiversion.h"

namespace qc {
namespace {

constexpr int64_t kWidth = 16;
using Lanes [[gnu::vector_size(kWidth * sizeof(float))]] = float;

// sums[i][j] += products of element i of p and element j of q; a few rows of sums at a time stay in registers while the vectors pass.
QC_MULTIVERSION void addProducts(const float* p, const float* q, int64_t vectors, float* sums) {
  constexpr int64_t kRows = 8;
  for (int64_t i = 0; i < kWidth; i += kRows) {
    Lanes sum[kRows], a, b, c, d;
    std::memcpy(sum, sums + i * kWidth, sizeof(sum));
    for (int64_t r = 0; r < vectors; r += 4) {
      const float *x = p + r * kWidth + i, *y = q + r * kWidth;
      std::memcpy(&a, y, sizeof(a));
      std::memcpy(&b, y + kWidth, sizeof(b));
      std::memcpy(&c, y + 2 * kWidth, sizeof(c));
      std::memcpy(&d, y + 3 * kWidth, sizeof(d));
#pragma GCC unroll 8
      for (int64_t k = 0; k < kRows; ++k) sum[k] += (x[k] * a + x[k + kWidth] * b) + (x[k + 2 * kWidth] * c + x[k + 3 * kWidth] * d);
    }
    std::memcpy(sums + i * kWidth, sum, sizeof(sum));
  }
}

QC_MULTIVERSION void addElements(const float* x, int64_t vectors, double* sums) {
  double sum[kWidth];
  std::copy_n(sums, kWidth, sum);
  for (int64_t r = 0; r < vectors; ++r)
    for (int64_t i = 0; i < kWidth; ++i) sum[i] += static_cast<double>(x[r * kWidth + i]);
  std::copy_n(sum, kWidth, sums);
}

}  // namespace

ProductSums::ProductSums(int64_t groups, int64_t size, bool products)
    : groups_(groups), size_(size), panels_((size + kLanes - 1) / kLanes) {
  static_assert(kLanes == kWidth);
  vectors_.assign(usize(groups * panels_ * kStride), 0.0f);
  sums_.assign(usize(groups * panels_ * kLanes), 0.0);
  if (products) products_.assign(usize(groups * panels_ * (panels_ + 1) / 2 * kLanes * kLanes), 0.0f);
}

void ProductSums::set(int64_t ahead, int64_t g, const float* x) {
  for (int64_t i = 0; i < size_; i += kLanes) std::copy_n(x + i, std::min(kLanes, size_ - i), &at(ahead, g, i));
}

void ProductSums::add(int64_t vectors) {
  filled_ += vectors;
  if (filled_ == kBlock) flush();
}

void ProductSums::flush() {
  const int64_t whole = (filled_ + 3) / 4 * 4;
  float* sum = products_.data();
  for (int64_t g = 0; g < groups_; ++g)
    for (int64_t p = 0; p < panels_; ++p) {
      float* x = vectors_.data() + place(g, p);
      std::fill(x + filled_ * kLanes, x + whole * kLanes, 0.0f);
      addElements(x, filled_, sums_.data() + (g * panels_ + p) * kLanes);
    }
  for (int64_t g = 0; g < groups_ && sum; ++g)
    for (int64_t p = 0; p < panels_; ++p)
      for (int64_t q = p; q < panels_; ++q, sum += kLanes * kLanes)
        addProducts(vectors_.data() + place(g, p), vectors_.data() + place(g, q), whole, sum);
  filled_ = 0;
}

std::vector<double> ProductSums::sums() {
  flush();
  std::vector<double> all;
  all.reserve(usize(groups_ * size_));
  for (int64_t g = 0; g < groups_; ++g) {
    const auto first = sums_.begin() + g * panels_ * kLanes;
    all.insert(all.end(), first, first + size_);
  }
  return all;
}

std::vector<float> ProductSums::products() {
  flush();
  std::vector<float> all(products_.empty() ? 0 : usize(groups_ * size_ * size_));
  const float* sum = products_.data();
  for (int64_t g = 0; g < groups_ && !all.empty(); ++g) {
    float* out = all.data() + g * size_ * size_;
    for (int64_t p = 0; p < panels_; ++p)
      for (int64_t q = p; q < panels_; ++q)
        for (int64_t i = p * kLanes; i < (p + 1) * kLanes; ++i)
          for (int64_t j = q * kLanes; j < (q + 1) * kLanes; ++j, ++sum)
            if (i <= j && j < size_) out[i * size_ + j] = out[j * size_ + i] = *sum;
  }
  return all;
}

}  // namespace qc
