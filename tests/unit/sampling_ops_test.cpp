// Sampling at positions that data gives: values as PyTorch gives them, ends, what is not finite, refusals.
#include <gmock/gmock.h>

#include <cmath>

#include "tests/unit/one_node.h"

namespace qc {
namespace {

using namespace qc::test;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

using Ints = std::vector<int64_t>;

Tensor ints(Ints sizes, const Ints& values) { return Tensor::ofInts(std::move(sizes), values); }
constexpr float kInf = INFINITY;

AttrDict sampling(const char* mode, const char* padding, int64_t aligned) {
  return {{"mode", std::string(mode)}, {"padding_mode", std::string(padding)}, {"align_corners", aligned}};
}

TEST(SamplingOps, GridSample) {
  const Tensor x = iota(DType::f32, {1, 1, 3, 4}), grid = tensor(DType::f32, {1, 1, 4, 2}, {-1, -1, 0, 0, 0.5, -0.25, 1.5, 1.25});
  const auto at = [&](const char* mode, const char* padding, int64_t aligned) {
    return list(evaluate("grid_sample", {{x}, {grid}}, sampling(mode, padding, aligned)));
  };
  EXPECT_THAT(at("linear", "zeros", 0), ElementsAre(0, 5.5, 5, 0));
  EXPECT_THAT(at("linear", "zeros", 1), ElementsAre(0, 5.5, 5.25, 2.0625));
  EXPECT_THAT(at("linear", "border", 0), ElementsAre(0, 5.5, 5, 11));
  EXPECT_THAT(at("linear", "reflection", 0), ElementsAre(0, 5.5, 5, 10.5));
  EXPECT_THAT(at("linear", "reflection", 1), ElementsAre(0, 5.5, 5.25, 9.25));
  EXPECT_THAT(at("nearest", "zeros", 0), ElementsAre(0, 6, 6, 0));
  EXPECT_THAT(at("nearest", "border", 1), ElementsAre(0, 6, 6, 11));
  EXPECT_THAT(at("nearest", "reflection", 0), ElementsAre(0, 6, 6, 11));  // rounded, then reflected: as ONNX has it, unlike PyTorch
  EXPECT_THAT(at("cubic", "zeros", 0), ElementsAre(-0.234375, 5.5, 5.38232421875, -0.111602783203125));
}

// A cubic position stays where it is, beyond the border too: only its taps are moved inside, as PyTorch and ONNX Runtime have it.
TEST(SamplingOps, GridSampleMovesTheTapsOfACubic) {
  const Tensor x = tensor(DType::f32, {1, 1, 1, 4}, {1, 5, -4, 9}),
               grid = tensor(DType::f32, {1, 1, 4, 2}, {1.25, 0, -1.5, 0, 0.25, 0, -3, 0});
  const auto at = [&](const char* padding, int64_t aligned) {
    return list(evaluate("grid_sample", {{x}, {grid}}, sampling("cubic", padding, aligned)));
  };
  EXPECT_THAT(at("border", 1), ElementsAre(10.42822265625, 0.859375, -3.95166015625, 1));
  EXPECT_THAT(at("border", 0), ElementsAre(9, 1, -4, 1));
  EXPECT_THAT(at("reflection", 1), ElementsAre(5.150390625, 4.90234375, -3.95166015625, 9));
  EXPECT_THAT(at("reflection", 0), ElementsAre(9, 3.84375, -4, 11.4375));
  EXPECT_THAT(at("zeros", 1), ElementsAre(7.18505859375, 0.0859375, -3.95166015625, 0));
}

TEST(SamplingOps, GridSampleInThreeDims) {
  const Tensor x = iota(DType::f64, {1, 2, 2, 1, 2}), grid = tensor(DType::f64, {1, 1, 1, 2, 3}, {0, 0, 0, 1, 0, -1});
  const Tensor y = evaluate("grid_sample", {{x}, {grid}}, sampling("linear", "zeros", 1));
  EXPECT_EQ(y.sizes(), (Ints{1, 2, 1, 1, 2}));
  EXPECT_EQ(y.dtype(), DType::f64);
  EXPECT_THAT(list(y), ElementsAre(1.5, 1, 5.5, 5));
}

// Far positions, infinite ones and NaN read nothing outside of the image.
TEST(SamplingOps, GridSampleFarOutside) {
  const Tensor x = iota(DType::f32, {1, 1, 1, 3});
  for (const char* mode : {"linear", "nearest", "cubic"})
    for (const char* padding : {"zeros", "border", "reflection"})
      for (const float far : {1e30f, -1e30f, kInf, -kInf, std::nanf("")}) {
        const Tensor grid = tensor(DType::f32, {1, 1, 1, 2}, {far, 0});
        for (const double v : list(evaluate("grid_sample", {{x}, {grid}}, sampling(mode, padding, 0))))
          EXPECT_TRUE(std::isnan(v) || (v >= -3 && v <= 6)) << mode << " " << padding << " " << far << ": " << v;
      }
  const Tensor one = tensor(DType::f32, {1, 1, 1, 1}, {5}), grid = tensor(DType::f32, {1, 1, 2, 2}, {0, 0, 3, -7});
  EXPECT_THAT(list(evaluate("grid_sample", {{one}, {grid}}, sampling("linear", "reflection", 1))), Each(5));
}

TEST(SamplingOps, GridSampleRefusals) {
  const Tensor x = iota(DType::f32, {1, 1, 3, 4}), grid = iota(DType::f32, {1, 2, 2, 2});
  EXPECT_THAT(errorOf("grid_sample", {{x}, {iota(DType::f32, {1, 2, 2, 3})}}), HasSubstr("does not hold positions in 2 dims"));
  EXPECT_THAT(errorOf("grid_sample", {{x}, {iota(DType::f32, {2, 2, 2, 2})}}), HasSubstr("does not hold positions"));
  EXPECT_THAT(errorOf("grid_sample", {{iota(DType::f32, {1, 1, 0, 4})}, {grid}}), HasSubstr("empty"));
  EXPECT_THAT(errorOf("grid_sample", {{x}, {grid}}, sampling("lanczos", "zeros", 0)), HasSubstr("lanczos"));
  EXPECT_THAT(errorOf("grid_sample", {{x}, {grid}}, sampling("linear", "wrap", 0)), HasSubstr("wrap"));
}

AttrDict aligning(const char* mode, int64_t samples, const char* coordinate, double scale = 1) {
  return {{"mode", std::string(mode)}, {"output_height", int64_t{1}}, {"output_width", int64_t{2}},
          {"sampling_ratio", samples}, {"spatial_scale", scale},      {"coordinate_transformation_mode", std::string(coordinate)}};
}

TEST(SamplingOps, RoiAlign) {
  const Tensor x = iota(DType::f32, {2, 1, 4, 4}), boxes = tensor(DType::f32, {2, 4}, {0, 0, 4, 2, 1, 1, 3, 3});
  const Tensor batch = ints({2}, {1, 0});
  const auto at = [&](const AttrDict& attrs) { return list(evaluate("roi_align", {{x}, {boxes}, {batch}}, attrs)); };
  // The centres of the bins are (0.5, 0.5) and (0.5, 2.5), (1.5, 1) and (1.5, 2), half a pixel further without half pixels.
  EXPECT_THAT(at(aligning("avg", 1, "half_pixel")), ElementsAre(18.5, 20.5, 7, 8));
  EXPECT_THAT(at(aligning("avg", 1, "output_half_pixel")), ElementsAre(21, 23, 9.5, 10.5));
  EXPECT_THAT(at(aligning("avg", 0, "half_pixel")), ElementsAre(18.5, 20.5, 7, 8));
  // The largest of the four neighbours with their weights, a quarter and a half each.
  EXPECT_THAT(at(aligning("max", 1, "half_pixel")), ElementsAre(21 * 0.25, 23 * 0.25, 9 * 0.5, 10 * 0.5));
}

TEST(SamplingOps, RoiAlignRefusals) {
  const Tensor x = iota(DType::f32, {1, 1, 4, 4}), boxes = tensor(DType::f32, {1, 4}, {0, 0, 4, 4}), batch = ints({1}, {0});
  const AttrDict attrs = aligning("avg", 0, "half_pixel");
  const auto boxOf = [&](float left, float right) { return tensor(DType::f32, {1, 4}, {left, 0, right, 4}); };
  EXPECT_THAT(errorOf("roi_align", {{x}, {boxes}, {ints({1}, {1})}}, attrs), HasSubstr("image 1, there are 1"));
  EXPECT_THAT(errorOf("roi_align", {{x}, {boxes}, {ints({1}, {-1})}}, attrs), HasSubstr("image -1"));
  EXPECT_THAT(errorOf("roi_align", {{x}, {boxOf(0, kInf)}, {batch}}, attrs), HasSubstr("a box from 0 to inf"));
  EXPECT_THAT(errorOf("roi_align", {{x}, {boxOf(0, 1e9f)}, {batch}}, attrs), HasSubstr("more than 4096 samples"));
  EXPECT_THAT(errorOf("roi_align", {{x}, {boxOf(0, std::nanf(""))}, {batch}}, attrs), HasSubstr("nan"));
  EXPECT_THAT(list(evaluate("roi_align", {{x}, {boxOf(-1e6f, -1e5f)}, {batch}}, aligning("avg", 2, "half_pixel"))), Each(0));
  EXPECT_THAT(errorOf("roi_align", {{x}, {iota(DType::f32, {1, 5})}, {batch}}, attrs), HasSubstr("boxes of 4"));
  EXPECT_THAT(errorOf("roi_align", {{x}, {boxes}, {batch}}, aligning("avg", 1 << 20, "half_pixel")), HasSubstr("samples"));
  AttrDict large = attrs;
  large.set("output_height", int64_t{1} << 50);
  EXPECT_FALSE(tryEvaluate("roi_align", {{x}, {boxes}, {batch}}, large));
}

}  // namespace
}  // namespace qc
