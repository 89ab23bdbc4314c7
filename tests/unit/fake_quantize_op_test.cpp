// The op fake_quantize_with and its gradient: against fakeQuantize() and learnableForward/Backward(), and PyTorch's recorded values.
#include <gmock/gmock.h>

#include <cmath>

#include "ir/gradient.h"
#include "quantizer/observers/fake_quantize.h"
#include "tests/unit/op_testing.h"
#include "tests/unit/random_values.h"
#include "vectors.h"

namespace qc {
namespace {

using nlohmann::json;
using test::Ints;
using test::numbers;

struct Outcome {
  std::vector<float> y, dx, dscale, dzero;
};

Outcome run(const std::vector<float>& x, const std::vector<float>& dy, const Ints& sizes, const LearnableParams& p, bool learnable) {
  Graph g;
  Ints own;
  if (p.axis >= 0) {
    own.assign(sizes.size() - usize(p.axis), 1);
    own[0] = sizes[usize(p.axis)];
  }
  Value* vx = g.addInput("x", {DType::f32, toShape(sizes)});
  Value* vs = g.addInput("scale", {DType::f32, toShape(own)});
  Value* vz = g.addInput("zero_point", {DType::f32, toShape(own)});
  Value* vdy = g.addInput("dy", {DType::f32, toShape(sizes)});
  Builder b(g);
  Value* y = b.make("fake_quantize_with", {vx, vs, vz},
                    {{"qmin", p.qmin}, {"qmax", p.qmax}, {"learnable", int64_t{learnable}}, {"grad_factor", p.gradFactor}});
  const auto gradients = backpropagate(b, {{y, vdy}}, std::vector<Value*>{vx, vs, vz}).value();
  std::vector<Value*> outputs{y};
  for (Value* v : gradients)
    if (v) outputs.push_back(v);
  EXPECT_EQ(outputs.size(), learnable ? 4u : 2u);
  g.setOutputs(outputs);
  const auto all = interpret(g, std::vector{Tensor::ofFloats(sizes, x), Tensor::ofFloats(own, p.scales),
                                            Tensor::ofFloats(own, p.zeroPoints), Tensor::ofFloats(sizes, dy)})
                       .value();
  Outcome o{all[0].toFloats(), all[1].toFloats(), {}, {}};
  if (learnable) o.dscale = all[2].toFloats(), o.dzero = all[3].toFloats();
  return o;
}

// Divided by the scale or multiplied with its reciprocal: one step apart where that decides a tie, and nowhere else.
void expectSame(const std::vector<float>& got, const std::vector<float>& want, const std::vector<float>& x, const LearnableParams& p,
                const Ints& sizes) {
  int64_t inner = 1;
  for (size_t d = usize(p.axis) + 1; p.axis >= 0 && d < sizes.size(); ++d) inner *= sizes[d];
  for (size_t i = 0; i < x.size(); ++i) {
    const float s = p.scales[p.scales.size() == 1 ? 0 : i / usize(inner) % p.scales.size()], steps = x[i] / s;
    const bool tie = std::fabs(steps - std::floor(steps) - 0.5f) < 1e-3f * std::max(1.f, std::fabs(steps) * 1e-3f);
    EXPECT_NEAR(got[i], want[i], tie ? s * 1.001f : 0) << "at " << x[i] << " with " << s;
  }
}

// PyTorch's backward kernel for one scale cuts off zero point + 1/2, which moves one below zero; forward rounds, as the op does throughout.
bool movesZero(const LearnableParams& p) { return p.axis < 0 && std::trunc(p.zeroPoints[0] + 0.5f) != std::nearbyint(p.zeroPoints[0]); }

TEST(FakeQuantizeWith, IsWhatTheFunctionsCompute) {
  test::RandomValues random(3);
  for (const bool perChannel : {false, true}) {
    for (const auto& [qmin, qmax] : {std::pair<int64_t, int64_t>{-2, 1}, {-8, 7}, {0, 15}, {-128, 127}, {0, 255}}) {
      const Ints sizes{3, 5, 4};
      LearnableParams p{qmin, qmax, perChannel ? 1 : -1, {}, {}, 0.25};
      const double step = 4.0 / static_cast<double>(qmax - qmin);
      for (int c = 0; c < (perChannel ? 5 : 1); ++c) {
        p.scales.push_back(static_cast<float>(random.real(0.5 * step, step)));
        p.zeroPoints.push_back(static_cast<float>(random.in(perChannel ? qmin : 0, qmax)));
      }
      std::vector<float> x, dy;
      for (int i = 0; i < 60; ++i) {
        x.push_back(static_cast<float>(random.real(-3, 3)));
        dy.push_back(static_cast<float>(random.real(-1, 1)));
      }
      const Outcome got = run(x, dy, sizes, p, true);
      EXPECT_EQ(got.y, learnableForward(x, sizes, p));
      const LearnableGradients want = learnableBackward(x, dy, sizes, p);
      EXPECT_EQ(got.dx, want.dx);
      EXPECT_THAT(got.dscale, testing::Pointwise(testing::FloatNear(2e-4f * static_cast<float>(qmax)), want.dscale));
      EXPECT_THAT(got.dzero, testing::Pointwise(testing::FloatNear(1e-5f), want.dzeroPoint));
      EXPECT_EQ(run(x, dy, sizes, p, false).dx, want.dx);
    }
  }
}

TEST(FakeQuantizeWith, RecordedValues) {
  QC_VECTORS(file, "fake_quantize");
  for (const json& c : file["learnable"]) {
    const LearnableParams p{c["qmin"],
                            c["qmax"],
                            c["per_channel_axis"].is_null() ? -1 : c["per_channel_axis"].get<int>(),
                            numbers(c["scale"]),
                            numbers(c["zero_point"]),
                            c["grad_factor"]};
    const Ints sizes = c["x"]["shape"];
    const auto x = numbers(c["x"]["data"]), ds = numbers(c["dscale"]), dz = numbers(c["dzero_point"]);
    const Outcome got = run(x, numbers(c["dy"]), sizes, p, true);
    std::vector<float> y;
    for (const json& bits : c["y_bits"]) y.push_back(test::fromBits(bits));
    expectSame(got.y, y, x, p, sizes);
    if (!movesZero(p)) {
      EXPECT_EQ(got.dx, numbers(c["dx"]));
    }
    for (size_t i = 0; i < ds.size() && !movesZero(p); ++i) {
      EXPECT_NEAR(got.dscale[i], ds[i], std::fabs(ds[i]) * 1e-4 + 1e-5);
      EXPECT_NEAR(got.dzero[i], dz[i], std::fabs(dz[i]) * 1e-4 + 1e-6);
    }
  }
  for (const char* kind : {"per_tensor", "per_channel"})
    for (const json& c : file[kind]) {
      const bool channels = c.contains("axis");
      LearnableParams p{c["qmin"], c["qmax"], channels ? c["axis"].get<int>() : -1, {}, {}, 1};
      if (channels) {
        for (const json& bits : c["scale_bits"]) p.scales.push_back(test::fromBits(bits));
        p.zeroPoints = numbers(c["zero_point"]);
      } else {
        p.scales = {test::fromBits(c["scale_bits"])};
        p.zeroPoints = {c["zero_point"].get<float>()};
      }
      std::vector<float> x, y;
      if (channels) x = numbers(c["x"]["data"]);
      for (const json& bits : c.value("x_bits", json::array())) x.push_back(test::fromBits(bits));
      for (const json& bits : c["y_bits"]) y.push_back(test::fromBits(bits));
      const Ints sizes = channels ? c["x"]["shape"].get<Ints>() : Ints{static_cast<int64_t>(x.size())};
      const Outcome got = run(x, numbers(c["dy"]), sizes, p, false);
      expectSame(got.y, y, x, p, sizes);
    }
}

TEST(FakeQuantizeWith, SpecialValuesAndErrors) {
  const LearnableParams p{-8, 7, -1, {0.5f}, {0.4f}, 1};  // a zero point that learns is rounded
  const Outcome got = run({INFINITY, -INFINITY, NAN, 0.3f}, {1, 1, 1, 1}, {4}, p, true);
  EXPECT_EQ(got.y[0], 3.5f);
  EXPECT_EQ(got.y[1], -4.f);
  EXPECT_TRUE(std::isnan(got.y[2]));
  EXPECT_EQ(got.y[3], 0.5f);
  const Tensor one = Tensor::ofFloats({}, std::vector<float>{1});
  for (const auto& [low, high] : {std::pair<int64_t, int64_t>{1, 7}, {-3, -1}, {0, 0}, {0, 1 << 25}}) {
    const auto bad = test::tryRun("fake_quantize_with", {one, one, one}, {{"qmin", low}, {"qmax", high}});
    ASSERT_FALSE(bad);
    EXPECT_THAT(bad.error().message(), testing::HasSubstr(fmt::format("from {} to {}", low, high)));
  }
}

}  // namespace
}  // namespace qc
