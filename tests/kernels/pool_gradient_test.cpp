// Gradients of max_pool against the reference evaluation: channels around vectors, overlapping windows, padding, dilation, equal elements.
#include <fmt/ranges.h>

#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

using Sizes = std::vector<int64_t>;

void check(const Sizes& x, const Sizes& dy, const std::string& attrs) {
  checkRows(
      fmt::format("graph @g(%x: f32[{0}], %dy: f32[{1}]) {{\n%dx = max_pool_gradient %x, %dy {{{2}, layout=\"channels_last\"}} : f32[{0}]\n"
                  "return %dx\n}}\n",
                  fmt::join(x, ","), fmt::join(dy, ","), attrs));
}

TEST(MaxPoolGradient, Windows) {
  for (const int64_t channels : {1, 4, 7, 16, 19, 33, 64}) {
    check({2, 6, 8, channels}, {2, 3, 4, channels}, "kernel_shape=[2,2], strides=[2,2]");
    check({1, 7, 6, channels}, {1, 4, 3, channels}, "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]");
  }
  check({2, 9, 9, 5}, {2, 5, 5, 5}, "kernel_shape=[3,3], dilations=[2,2]");
  check({1, 5, 6, 3}, {1, 3, 3, 3}, "kernel_shape=[2,2], strides=[2,2], ceil_mode=1");
  check({2, 1, 2, 5}, {2, 1, 1, 5}, "kernel_shape=[4,4], strides=[4,2], pads=[1,0,0,1], ceil_mode=1");  // longer than the image
  check({1, 4, 4, 8}, {1, 6, 6, 8}, "kernel_shape=[3,3], pads=[2,2,2,2]");
  check({1, 4, 5, 6, 3}, {1, 3, 4, 5, 3}, "kernel_shape=[2,2,2]");
}

}  // namespace
}  // namespace qc::testing
