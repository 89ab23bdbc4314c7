// Boxes of images, pooled by samples, against the reference evaluation: means and largest, as many samples as are asked for or as a box
// needs.
#include <cmath>

#include "ir/text.h"
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr int kBoxes = 5;

std::string aligning(const std::string& x, int rows, int columns, const std::string& attrs, const char* index = "s64") {
  const std::string channels = x.substr(2, x.find(',', 2) - 2);
  return fmt::format(
      "graph @g(%x: f32[{0}], %boxes: f32[{1},4], %batch: {2}[{1}]) {{\n%y = roi_align %x, %boxes, %batch {{output_height={3}, "
      "output_width={4}{5}}} : f32[{1},{6},{3},{4}]\nreturn %y\n}}\n",
      x, kBoxes, index, rows, columns, attrs, channels);
}

struct Boxes {
  Tensor x, boxes, batch;
  std::vector<const Tensor*> operands() const { return {&x, &boxes, &batch}; }
};

// Boxes within an image of `size`, across its edges, of no size, turned around and far outside.
Boxes boxesFor(const Node& node, float size) {
  std::mt19937 rng(5);
  Boxes made{randomTensor(DType::f32, node.operand(0)->type().sizes(), rng), Tensor(DType::f32, {kBoxes, 4}),
             Tensor(node.operand(2)->type().dtype, {kBoxes})};
  const float corners[kBoxes][4] = {
      {0.1f, 0.2f, 0.7f, 0.9f}, {-0.4f, -0.3f, 1.3f, 1.2f}, {0.5f, 0.5f, 0.5f, 0.5f}, {0.8f, 0.6f, 0.2f, 0.1f}, {3, 3, 4, 4}};
  for (int i = 0; i < kBoxes; ++i) {
    for (int k = 0; k < 4; ++k) storeElement(DType::f32, made.boxes.mutableData(), 4 * i + k, corners[i][k] * size);
    storeElement(made.batch.dtype(), made.batch.mutableData(), i, static_cast<double>(i % node.operand(0)->type().sizes()[0]));
  }
  return made;
}

void checkOn(const std::string& text, float size) {
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render() << text;
  checkRowsOn(text, boxesFor(*graph->back(), size).operands());
}

TEST(RoiAlign, Samples) {
  for (const char* mode : {"avg", "max"})
    for (const char* coordinate : {"half_pixel", "output_half_pixel"})
      for (const int samples : {0, 1, 3}) {
        const std::string attrs =
            fmt::format(", mode=\"{}\", coordinate_transformation_mode=\"{}\", sampling_ratio={}", mode, coordinate, samples);
        checkOn(aligning("2,3,9,11", 7, 7, attrs), 10);
        checkOn(aligning("1,2,5,4", 1, 2, attrs, "s32"), 5);
      }
}

TEST(RoiAlign, Scales) {
  checkOn(aligning("3,5,24,32", 3, 4, ", spatial_scale=0.0625"), 400);
  checkOn(aligning("1,40,6,6", 14, 14, ", sampling_ratio=2, spatial_scale=0.25"), 24);
  checkOn(aligning("1,2,1,1", 2, 2, ", sampling_ratio=2"), 1);
}

// What the evaluation refuses is refused, and nothing is read for it.
TEST(RoiAlign, BadBoxes) {
  const std::string text = aligning("2,3,9,11", 2, 2, "");
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render();
  const Node& node = *graph->back();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const KernelDef* row : rowsFor("roi_align"))
    for (const char* name : kEveryWidth) {
      const auto kernel = compilePacked(*row, node, Target::host().cap(Target::parse(name).value()));
      ASSERT_TRUE(kernel) << kernel.error().render();
      const auto statusOf = [&](const Boxes& boxes) {
        EXPECT_EQ(evaluateNode(node, boxes.operands()).has_value(), runGuardedAll(*kernel, boxes.operands()).status == 0);
        return runGuardedAll(*kernel, boxes.operands()).status;
      };
      EXPECT_EQ(statusOf(boxesFor(node, 10)), 0);
      for (const int64_t image : {-1, 2, 1 << 30}) {
        Boxes boxes = boxesFor(node, 10);
        boxes.batch.mutableAs<int64_t>()[3] = image;
        EXPECT_EQ(statusOf(boxes), 1) << image;
      }
      for (const float side : {kInf, -kInf, std::nanf(""), 1e6f}) {
        Boxes boxes = boxesFor(node, 10);
        boxes.boxes.mutableAs<float>()[6] = side;
        EXPECT_EQ(statusOf(boxes), side == -kInf || std::isnan(side) || side > 0) << side;
      }
      Boxes boxes = boxesFor(node, 10);
      boxes.boxes.mutableAs<float>()[6] = -1e30f;  // of no samples
      EXPECT_EQ(statusOf(boxes), 0);
    }
}

}  // namespace
}  // namespace qc::testing
