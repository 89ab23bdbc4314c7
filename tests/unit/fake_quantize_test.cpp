// Fake quantization, its gradients, and the observer fused with it, against PyTorch's recorded values.
#include "quantizer/observers/fake_quantize.h"

#include "vectors.h"

namespace qc {
namespace {

using nlohmann::json;
using test::fromBits;
using test::numbers;
using Ints = std::vector<int64_t>;

std::vector<float> fromBitsList(const json& list) {
  std::vector<float> v;
  for (const json& j : list) v.push_back(fromBits(j));
  return v;
}
QuantParams params(int64_t qmin, int64_t qmax, int axis, std::vector<float> scales, std::vector<int32_t> zeroPoints) {
  return {DType::s32, qmin, qmax, axis, 0, std::move(scales), std::move(zeroPoints)};
}
std::vector<float> masked(const std::vector<uint8_t>& passes, const std::vector<float>& dy) {
  std::vector<float> dx;
  for (size_t i = 0; i < dy.size(); ++i) dx.push_back(passes[i] ? dy[i] : 0);
  return dx;
}

TEST(FakeQuantize, StraightThroughInsideTheRange) {
  const std::vector<float> x = {-0.6f, -0.5f, 0.23f, 1.04f, 1.06f, INFINITY, -INFINITY, NAN};
  const FakeQuantized f = fakeQuantize(x, Ints{8}, params(0, 15, -1, {0.1f}, {5}));
  const std::vector<float> y = {-0.5f, -0.5f, 0.2f, 1.0f, 1.0f, 1.0f, -0.5f, 0.0f};
  for (size_t i = 0; i < y.size(); ++i) EXPECT_FLOAT_EQ(f.y[i], y[i]) << i;
  EXPECT_EQ(f.passes, (std::vector<uint8_t>{0, 1, 1, 1, 0, 0, 0, 1}));
}

TEST(FakeQuantize, LearnsScaleAndZeroPoint) {
  const std::vector<float> x = {-0.6f, 0.23f, 1.06f}, dy = {1, 1, 1};
  const LearnableParams p{0, 15, -1, {0.1f}, {5}, 1};
  const LearnableGradients g = learnableBackward(x, dy, Ints{3}, p);
  EXPECT_EQ(g.dx, (std::vector<float>{0, 1, 0}));
  EXPECT_NEAR(g.dscale[0], 4.7f, 1e-5);
  EXPECT_NEAR(g.dzeroPoint[0], -0.2f, 1e-6);
}

TEST(FakeQuantize, AveragesNeedTheSameChannelsAndFiniteValues) {
  MovingAverageFakeQuantize f({.qmin = -128, .qmax = 127, .perChannel = true});
  const std::vector<float> x = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(f.step(x, Ints{3, 2}));
  EXPECT_FALSE(f.step(x, Ints{2, 3}));
  EXPECT_FALSE(f.step(x, Ints{}));
  const std::vector<float> bad = {1, NAN, 3};
  EXPECT_FALSE(f.step(bad, Ints{3}));
  f.quantize = false;
  const auto same = f.step(x, Ints{3, 2});
  ASSERT_TRUE(same);
  EXPECT_EQ(same->y, x);
}

TEST(FakeQuantize, RecordedValues) {
  QC_VECTORS(file, "fake_quantize");
  for (const json& c : file["per_tensor"]) {
    const auto x = fromBitsList(c["x_bits"]);
    const FakeQuantized f = fakeQuantize(x, Ints{static_cast<int64_t>(x.size())},
                                         params(c["qmin"], c["qmax"], -1, {fromBits(c["scale_bits"])}, {c["zero_point"].get<int32_t>()}));
    EXPECT_EQ(f.y, fromBitsList(c["y_bits"]));
    EXPECT_EQ(masked(f.passes, numbers(c["dy"])), numbers(c["dx"]));
  }
  for (const json& c : file["per_channel"]) {
    const FakeQuantized f = fakeQuantize(numbers(c["x"]["data"]), c["x"]["shape"].get<Ints>(),
                                         params(c["qmin"], c["qmax"], c["axis"], fromBitsList(c["scale_bits"]), c["zero_point"]));
    EXPECT_EQ(f.y, fromBitsList(c["y_bits"]));
    EXPECT_EQ(masked(f.passes, numbers(c["dy"])), numbers(c["dx"]));
  }
}

TEST(FakeQuantize, RecordedLearning) {
  QC_VECTORS(file, "fake_quantize");
  for (const json& c : file["learnable"]) {
    const LearnableParams p{c["qmin"],
                            c["qmax"],
                            c["per_channel_axis"].is_null() ? -1 : c["per_channel_axis"].get<int>(),
                            numbers(c["scale"]),
                            numbers(c["zero_point"]),
                            c["grad_factor"]};
    const auto x = numbers(c["x"]["data"]);
    const Ints sizes = c["x"]["shape"];
    EXPECT_EQ(learnableForward(x, sizes, p), fromBitsList(c["y_bits"]));
    const LearnableGradients g = learnableBackward(x, numbers(c["dy"]), sizes, p);
    EXPECT_EQ(g.dx, numbers(c["dx"]));
    const auto ds = numbers(c["dscale"]), dz = numbers(c["dzero_point"]);
    for (size_t i = 0; i < ds.size(); ++i) {
      EXPECT_NEAR(g.dscale[i], ds[i], std::abs(ds[i]) * 1e-4 + 1e-5);
      EXPECT_NEAR(g.dzeroPoint[i], dz[i], std::abs(dz[i]) * 1e-4 + 1e-6);
    }
  }
}

TEST(FakeQuantize, RecordedMovingAverages) {
  QC_VECTORS(file, "fake_quantize");
  for (const json& c : file["fused_moving_average"]) {
    MovingAverageFakeQuantize f({.qmin = c["qmin"],
                                 .qmax = c["qmax"],
                                 .symmetric = c["symmetric"],
                                 .perChannel = !c["per_channel_axis"].is_null(),
                                 .averagingConstant = c["averaging_constant"],
                                 .eps = kEpsRunTime});
    for (const json& s : c["steps"]) {
      f.observe = s["observe"];
      const auto out = f.step(numbers(s["x"]["data"]), s["x"]["shape"].get<Ints>());
      ASSERT_TRUE(out) << out.error().render();
      for (size_t k = 0; k < f.averages().size(); ++k) {
        EXPECT_EQ(f.averages()[k].min, test::number(s["running_min"][k]));
        EXPECT_EQ(f.averages()[k].max, test::number(s["running_max"][k]));
      }
      EXPECT_EQ(f.params().scales, fromBitsList(s["scale_bits"]));
      EXPECT_EQ(f.params().zeroPoints, s["zero_point"].get<std::vector<int32_t>>());
      EXPECT_EQ(out->y, numbers(s["y"]));
      EXPECT_EQ(out->passes, s["dx_mask"].get<std::vector<uint8_t>>());
    }
  }
}

}  // namespace
}  // namespace qc
