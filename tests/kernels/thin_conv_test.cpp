// Convolutions to a few channels against the reference evaluation: widths around blocks of pixels, borders, every number of outputs.
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

void conv(int batch, int h, int w, int channels, int outputs, int kernelH, int kernelW, const std::string& pads, int outH, int outW,
          const std::string& post) {
  checkRows(
      fmt::format("graph @g(%x: f32[{0},{1},{2},{3}], %w: f32[{4},{3},{5},{6}], %b: f32[{4}]) {{\n"
                  "%y = conv %x, %w{7} {{pads=[{8}], layout=\"channels_last\"{9}}} : f32[{0},{10},{11},{4}]\nreturn %y\n}}\n",
                  batch, h, w, channels, outputs, kernelH, kernelW, post.empty() ? "" : ", %b", pads,
                  post.empty() ? "" : fmt::format(", post=\"{}\"", post), outH, outW));
}

TEST(ThinConv, Shapes) {
  for (const int outputs : {1, 2, 3, 4})
    for (const int width : {16, 33, 64, 150}) {
      conv(2, 5, width, 3, outputs, 3, 3, "1,1,1,1", 5, width, "");
      conv(1, 4, width, 17, outputs, 3, 3, "1,1,1,1", 4, width, "max(0, a0)");
    }
  conv(1, 12, 40, 16, 3, 9, 9, "0,0,0,0", 4, 32, "a0 * 2");
  conv(1, 3, 20, 8, 3, 1, 1, "0,0,0,0", 3, 20, "");
  conv(2, 1, 17, 4, 2, 3, 5, "2,3,1,4", 2, 20, "a0");
  conv(1, 2, 16, 5, 1, 5, 1, "4,0,4,0", 6, 16, "");
}

}  // namespace
}  // namespace qc::testing
