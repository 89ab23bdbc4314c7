// max_pool, avg_pool and q.avg_pool: plain loops over the definition, ceil_mode, padding, both layouts.
#include <cmath>
#include <limits>

#include "ir/qmath.h"
#include "op_testing.h"

namespace qc {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

Tensor line(std::vector<float> v) {
  const auto n = static_cast<int64_t>(v.size());
  return floats({1, 1, n}, std::move(v));
}

TEST(Pool, WorkedExamples) {
  const Tensor x = line({1, 5, 2, 8, 3});
  const AttrDict two = {{"kernel_shape", Ints{2}}, {"strides", Ints{2}}};
  AttrDict ceil = two;
  ceil.set("ceil_mode", int64_t{1});
  AttrDict dilated = {{"kernel_shape", Ints{2}}, {"dilations", Ints{3}}};
  EXPECT_THAT(run("max_pool", {x}, two).toFloats(), ElementsAre(5, 8));
  EXPECT_THAT(run("max_pool", {x}, ceil).toFloats(), ElementsAre(5, 8, 3));
  EXPECT_THAT(run("max_pool", {x}, dilated).toFloats(), ElementsAre(8, 5));
  EXPECT_THAT(run("avg_pool", {x}, two).toFloats(), ElementsAre(3, 5));
  EXPECT_THAT(run("avg_pool", {x}, ceil).toFloats(), ElementsAre(3, 5, 3));
  const AttrDict padded = {{"kernel_shape", Ints{3}}, {"pads", Ints{1, 1}}};
  AttrDict counted = padded;
  counted.set("count_include_pad", int64_t{1});
  EXPECT_THAT(run("avg_pool", {line({3, 6})}, padded).toFloats(), ElementsAre(4.5f, 4.5f));
  EXPECT_THAT(run("avg_pool", {line({3, 6})}, counted).toFloats(), ElementsAre(3, 3));
}

TEST(Pool, CeilModeDropsAWindowThatStartsInTheEndPadding) {
  // ceil((3 + 2 - 1) / 2) + 1 = 3 windows start at -1, 1, 3; the last one has no input element.
  const AttrDict attrs = {{"kernel_shape", Ints{2}}, {"strides", Ints{2}}, {"pads", Ints{1, 1}}, {"ceil_mode", int64_t{1}}};
  EXPECT_THAT(run("max_pool", {line({4, 5, 6})}, attrs).toFloats(), ElementsAre(4, 6));
  // The window's part behind the padding does not count, even with count_include_pad.
  const AttrDict counted = {
      {"kernel_shape", Ints{3}}, {"strides", Ints{3}}, {"pads", Ints{0, 1}}, {"ceil_mode", int64_t{1}}, {"count_include_pad", int64_t{1}}};
  EXPECT_THAT(run("avg_pool", {line({3, 3, 3, 6})}, counted).toFloats(), ElementsAre(3, 3));
}

// A window may be longer than what it slides over, if one begins inside.  Values and sizes as ONNX Runtime has them.
TEST(Pool, CeilModeTakesAWindowThatEndsOutside) {
  const auto attrs = [](int64_t kernel, int64_t stride, Ints pads, int64_t includePad) {
    return AttrDict{{"kernel_shape", Ints{kernel}},
                    {"strides", Ints{stride}},
                    {"pads", std::move(pads)},
                    {"ceil_mode", int64_t{1}},
                    {"count_include_pad", includePad}};
  };
  const auto average = [&](std::vector<float> x, const AttrDict& a) { return run("avg_pool", {line(std::move(x))}, a).toFloats(); };
  const auto largest = [&](std::vector<float> x, AttrDict a) {
    a.erase("count_include_pad");
    return run("max_pool", {line(std::move(x))}, a).toFloats();
  };
  for (const int64_t include : {0, 1}) {
    EXPECT_THAT(average({3}, attrs(2, 2, {0, 0}, include)), ElementsAre(3));
    EXPECT_THAT(average({3, 5}, attrs(4, 3, {0, 0}, include)), ElementsAre(4));
    // Padding in front and behind: of 4 taps 3 are inside both, 1 of them inside the input.
    EXPECT_THAT(average({6}, attrs(4, 2, {1, 1}, include)), ElementsAre(include ? 2 : 6));
  }
  EXPECT_THAT(largest({3}, attrs(2, 2, {0, 0}, 0)), ElementsAre(3));
  EXPECT_THAT(largest({-3, -5}, attrs(4, 3, {0, 0}, 0)), ElementsAre(-3));
  EXPECT_THAT(largest({-6}, attrs(4, 2, {1, 1}, 0)), ElementsAre(-6));
  AttrDict to = attrs(4, 2, {1, 1}, 1);
  to.set("to", QuantAttr{quantPerTensor(DType::u8, 1, 5)});
  EXPECT_THAT(list(run("q.avg_pool", {Operand(tensorOf(DType::u8, {1, 1, 1}, {20}), quantPerTensor(DType::u8, 1, 5))}, to)),
              ElementsAre(10));  // 15 / 3, + 5
  AttrDict gradient = attrs(4, 2, {1, 1}, 0);
  gradient.erase("count_include_pad");
  EXPECT_THAT(run("max_pool_gradient", {line({-6}), line({2})}, gradient).toFloats(), ElementsAre(2));
  // ceil((1 - 2) / 1) + 1 = 0 windows, ceil((1 - 4) / 2) + 1 = 0.
  for (const AttrDict& none : {attrs(2, 1, {0, 0}, 0), attrs(4, 2, {0, 0}, 0)})
    EXPECT_THAT(inferred("avg_pool", {line({3}).type()}, none), HasSubstr("does not fit into spatial dim 0 of 1"));
  // The size as a formula of a free one.
  EXPECT_EQ(inferred("avg_pool", {{DType::f32, {1, 1, Dim::symbol("T")}}}, attrs(2, 2, {0, 0}, 0)), "f32[1,1,(T+1)//2]");
}

TEST(Pool, NaturalNumbersHaveNoSign) {
  const uint64_t values[] = {7, uint64_t{1} << 63, 0};
  const Tensor y = run("max_pool", {Tensor::of<uint64_t>(DType::u64, {1, 1, 3}, values)}, {{"kernel_shape", Ints{2}}});
  EXPECT_EQ(y.as<uint64_t>()[0], uint64_t{1} << 63);
  EXPECT_EQ(y.as<uint64_t>()[1], uint64_t{1} << 63);
}

TEST(Pool, RandomWindowsInBothLayouts) {
  Random r(6);
  for (int i = 0; i < 80; ++i) {
    const auto dims = usize(r.integer(1, 3));
    const Ints kernel = r.pickMany(dims, {1, 2, 3}), strides = r.pickMany(dims, {1, 2, 3}), dilations = r.pickMany(dims, {1, 1, 2});
    Ints pads, sizes{2, 3};
    for (size_t d = 0; d < 2 * dims; ++d) pads.push_back(r.integer(0, kernel[d % dims] - 1));
    for (size_t d = 0; d < dims; ++d) sizes.push_back(r.pick({5, 6, 9}));
    const bool includePad = r.integer(0, 1) != 0;
    AttrDict attrs = {
        {"kernel_shape", kernel}, {"strides", strides}, {"dilations", dilations}, {"pads", pads}, {"ceil_mode", r.integer(0, 1)}};
    AttrDict averaging = attrs;
    averaging.set("count_include_pad", int64_t{includePad});
    const Tensor x = r.normal(sizes), biggest = run("max_pool", {x}, attrs), mean = run("avg_pool", {x}, averaging);
    const QuantPtr xq = quantPerTensor(DType::u8, 0.1f, 70), to = quantPerTensor(DType::s8, 0.07f, -5);
    const Tensor q = r.full(DType::u8, sizes);
    averaging.set("to", QuantAttr{to});
    const Tensor qMean = run("q.avg_pool", {Operand(q, xq)}, averaging);
    const Ints out(mean.sizes().begin() + 2, mean.sizes().end()), in(sizes.begin() + 2, sizes.end());
    for (int64_t e = 0; e < mean.numElements(); ++e) {
      int64_t rest = e, count = 0, sum = 0;
      Ints at(dims);
      for (size_t d = dims; d-- > 0; rest /= out[d]) at[d] = rest % out[d];
      float m = -std::numeric_limits<float>::infinity(), s = 0;
      for (int64_t t = 0; t < numElements(kernel); ++t) {
        int64_t tap = t, offset = 0, step = 1;
        bool inside = true, counts = true;
        for (size_t d = dims; d-- > 0; tap /= kernel[d]) {
          const int64_t p = at[d] * strides[d] - pads[d] + tap % kernel[d] * dilations[d];
          inside = inside && p >= 0 && p < in[d];
          counts = counts && p < in[d] + pads[dims + d];
          offset += p * step;
          step *= in[d];
        }
        count += includePad ? counts : inside;
        if (!inside) continue;
        const int64_t index = rest * numElements(in) + offset;
        const float v = nth(x.as<float>(), index);
        m = v > m ? v : m;
        s += v;
        sum += static_cast<int64_t>(q.at(index)) - 70;
      }
      count = std::max<int64_t>(count, 1);
      ASSERT_EQ(biggest.at(e), m) << i;
      ASSERT_EQ(mean.at(e), s / static_cast<float>(count)) << i;
      ASSERT_EQ(qMean.at(e), qmath::requantize(static_cast<int32_t>(sum), (0.1f / 0.07f) / static_cast<float>(count), -5, -128, 127)) << i;
    }
    for (AttrDict* a : {&attrs, &averaging}) a->set("layout", std::string("channels_last"));
    EXPECT_TRUE(channelsFirst(run("max_pool", {channelsLast(x)}, attrs)).sameBytes(biggest));
    EXPECT_TRUE(channelsFirst(run("q.avg_pool", {Operand(channelsLast(q), xq)}, averaging)).sameBytes(qMean));
  }
}

TEST(Pool, QuantizedVectorsOfTheSpecification) {
  const AttrDict attrs = {{"kernel_shape", Ints{4}}, {"to", QuantAttr{quantPerTensor(DType::u8, 1, 5)}}};
  EXPECT_THAT(list(run("q.avg_pool", {Operand(tensorOf(DType::u8, {1, 1, 4}, {10, 20, 30, 41}), quantPerTensor(DType::u8, 1, 5))}, attrs)),
              ElementsAre(25));
  // Round first, then add the zero point: 5.5 -> 6, then 5 + 6.
  const AttrDict two = {{"kernel_shape", Ints{2}}, {"to", QuantAttr{quantPerTensor(DType::u8, 1, 5)}}};
  EXPECT_THAT(list(run("q.avg_pool", {Operand(tensorOf(DType::u8, {1, 1, 2}, {10, 11}), quantPerTensor(DType::u8, 1, 5))}, two)),
              ElementsAre(11));
}

TEST(Pool, MaxPoolKeepsIntegersAndTheirParameters) {
  const QuantPtr q = quantPerTensor(DType::s8, 0.5f, 3);
  const AttrDict attrs = {{"kernel_shape", Ints{2}}};
  EXPECT_EQ(inferred("max_pool", {{q, {1, 1, 4}}}, attrs), "q<s8, scale=0.5, zp=3>[1,1,3]");
  EXPECT_THAT(list(run("max_pool", {Operand(tensorOf(DType::s8, {1, 1, 4}, {-128, -100, 5, 4}), q)}, attrs)), ElementsAre(-100, 5, 5));
  EXPECT_THAT(list(run("max_pool", {tensorOf(DType::u8, {1, 1, 3}, {200, 3, 4})}, attrs)), ElementsAre(200, 4));
}

TEST(Pool, NanIsPassedOverAndInfinityKept) {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  EXPECT_THAT(run("max_pool", {line({nan, 1, -inf, -inf})}, {{"kernel_shape", Ints{2}}}).toFloats(), ElementsAre(1, 1, -inf));
}

TEST(Pool, SaysWhatDoesNotFit) {
  const TensorType x(DType::f32, {1, 2, 8, 8});
  EXPECT_THAT(inferred("max_pool", {x}, {{"kernel_shape", Ints{2}}}), HasSubstr("does not fit x"));
  EXPECT_THAT(inferred("max_pool", {x}, {{"kernel_shape", Ints{0, 2}}}), HasSubstr("has a size of 0"));
  EXPECT_THAT(inferred("max_pool", {x}, {{"kernel_shape", Ints{9, 2}}}), HasSubstr("a window of 9"));
  EXPECT_THAT(inferred("avg_pool", {x}, {{"kernel_shape", Ints{2, 2}}, {"pads", Ints{2, 0, 0, 0}}}),
              HasSubstr("not smaller than the window"));
  EXPECT_THAT(inferred("avg_pool", {{DType::s32, {1, 2, 8}}}, {{"kernel_shape", Ints{2}}}), HasSubstr("floating point"));
  EXPECT_THAT(inferred("avg_pool", {{DType::f32, {1, 2, 0}}}, {{"kernel_shape", Ints{2}}}), HasSubstr("does not fit"));
  EXPECT_EQ(run("avg_pool", {Tensor(DType::f32, {0, 2, 4})}, {{"kernel_shape", Ints{2}}}).sizes(), (Ints{0, 2, 3}));
}

}  // namespace
}  // namespace qc
