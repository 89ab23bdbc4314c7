// Sums of x and of x x^T over many vectors x, for several groups of vectors side by side.  The order of summation is part of the
// definition, so the bits are the same on every CPU: products are added in float32, four vectors at a time,
//   sum_ij += (a_i a_j + b_i b_j) + (c_i c_j + d_i d_j)
// without contraction, and the elements themselves one after the other in double.
//
//   ProductSums sums(groups, size, true);
//   for (...) { for (g, i) sums.at(0, g, i) = ...; sums.add(1); }
//   std::vector<float> products = sums.products();
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ir/signed_index.h"

namespace qc {

class ProductSums {
 public:
  static constexpr int64_t kLanes = 16;  // elements of a panel; an element's places in vectors that follow each other are so far apart

  ProductSums() = default;
  ProductSums(int64_t groups, int64_t size, bool products);

  // Element i of group g in the vectors that come after `ahead` others, less than room(); all of them are set before they are added.
  float& at(int64_t ahead, int64_t g, int64_t i) { return nth(vectors_, place(g, i / kLanes) + (filled_ + ahead) * kLanes + i % kLanes); }
  void set(int64_t ahead, int64_t g, const float* x);  // of all elements of group g
  int64_t room() const { return kBlock - filled_; }
  void add(int64_t vectors);

  std::vector<double> sums();     // [groups, size]
  std::vector<float> products();  // [groups, size, size]

 private:
  static constexpr int64_t kBlock = 128;                     // vectors that are summed in one go; a multiple of 4
  static constexpr int64_t kStride = (kBlock + 1) * kLanes;  // no power of two: panels would share their places in the cache

  int64_t place(int64_t g, int64_t panel) const { return (g * panels_ + panel) * kStride; }
  void flush();

  int64_t groups_ = 0, size_ = 0, panels_ = 0, filled_ = 0;
  std::vector<float> vectors_;   // [groups, panels, kBlock + 1, kLanes], zeros beyond `size`
  std::vector<float> products_;  // [groups, pairs of panels p <= q, kLanes, kLanes]; empty when they are not wanted
  std::vector<double> sums_;     // [groups, panels, kLanes]
};

}  // namespace qc
