// Gradients of convolution weights against the reference evaluation: channels around vectors and tiles, borders, groups, 1 to 3 dims.
#include <fmt/ranges.h>

#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

using Sizes = std::vector<int64_t>;

void check(const Sizes& x, const Sizes& dy, const Sizes& kernel, const std::string& attrs, int64_t group = 1) {
  Sizes result = kernel;
  result.insert(result.end(), {x.back() / group, dy.back()});
  checkRows(
      fmt::format("graph @g(%x: f32[{}], %dy: f32[{}]) {{\n%w = conv_weight_gradient %x, %dy {{kernel_shape=[{}], group={}{}}} : f32[{}]\n"
                  "return %w\n}}\n",
                  fmt::join(x, ","), fmt::join(dy, ","), fmt::join(kernel, ","), group, attrs, fmt::join(result, ",")));
}

TEST(WeightGradient, Channels) {
  for (const int64_t in : {1, 3, 7, 16, 32})
    for (const int64_t out : {1, 5, 16, 24, 64, 70}) check({2, 5, 6, in}, {2, 5, 6, out}, {3, 3}, ", pads=[1,1,1,1]");
}

TEST(WeightGradient, Windows) {
  check({3, 9, 8, 4}, {3, 5, 4, 20}, {3, 3}, ", strides=[2,2], pads=[1,1,1,1]");
  check({1, 12, 14, 5}, {1, 12, 14, 9}, {3, 3}, ", pads=[2,3,2,3], dilations=[2,3]");
  check({2, 7, 7, 6}, {2, 7, 7, 17}, {1, 1}, "");
  check({2, 7, 9, 6}, {2, 4, 3, 17}, {1, 2}, ", strides=[2,3]");
  check({1, 4, 4, 3}, {1, 6, 6, 8}, {5, 5}, ", pads=[3,3,3,3]");
  check({1, 2, 2, 3}, {1, 8, 8, 8}, {2, 2}, ", pads=[4,4,4,4]");  // taps of which no position reads inside
  check({2, 30, 5}, {2, 15, 17}, {7}, ", strides=[2], pads=[3,2]");
  check({1, 4, 5, 6, 3}, {1, 3, 5, 6, 9}, {2, 3, 3}, ", pads=[0,1,1,0,1,1]");
}

// Images larger than the first cache go strip by strip.
TEST(WeightGradient, Strips) {
  check({2, 40, 33, 16}, {2, 40, 33, 16}, {3, 3}, ", pads=[1,1,1,1]");
  check({2, 41, 40, 12}, {2, 21, 20, 21}, {3, 3}, ", strides=[2,2], pads=[1,1,1,1]");
  check({1, 40, 40, 8}, {1, 40, 40, 8}, {5, 3}, ", pads=[4,1,4,1], dilations=[2,1]");
  check({1, 38, 36, 24}, {1, 38, 36, 24}, {3, 3}, ", pads=[1,1,1,1]", 24);
}

TEST(WeightGradient, Groups) {
  check({2, 6, 6, 24}, {2, 6, 6, 36}, {3, 3}, ", pads=[1,1,1,1]", 4);
  check({1, 5, 6, 6}, {1, 5, 6, 12}, {3, 3}, ", pads=[1,1,1,1]", 6);
  for (const int64_t channels : {2, 9, 40, 64, 130})
    check({2, 6, 5, channels}, {2, 3, 5, channels}, {3, 3}, ", strides=[2,1], pads=[1,1,1,1]", channels);
}

}  // namespace
}  // namespace qc::testing
