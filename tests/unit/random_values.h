// What tests draw attributes and shapes from.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "ir/signed_index.h"

namespace qc::test {

using Ints = std::vector<int64_t>;

class RandomValues {
 public:
  explicit RandomValues(uint32_t seed) : engine_(seed) {}
  int64_t in(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  bool coin() { return in(0, 1) == 1; }
  double real(double low, double high) { return std::uniform_real_distribution<double>(low, high)(engine_); }
  Ints sizes(int64_t rank, int64_t low, int64_t high) {
    Ints list;
    for (int64_t i = 0; i < rank; ++i) list.push_back(in(low, high));
    return list;
  }
  Ints permutation(int64_t rank) {
    Ints p(usize(rank));
    std::iota(p.begin(), p.end(), 0);
    std::shuffle(p.begin(), p.end(), engine_);
    return p;
  }

 protected:
  std::mt19937 engine_;
};

}  // namespace qc::test
