// conv, conv_transpose and their integer forms against plain loops over the definition, bit for bit, and against recorded vectors.
#include <cmath>

#include "ir/qmath.h"
#include "op_testing.h"
#include "vectors.h"

namespace qc {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// A random problem in channels-first layout; unused leading dims of the loops below have size 1.
struct Problem {
  int64_t batch, group, in, out;  // in, out: channels of one group
  Ints spatial, kernel, strides, dilations, pads, outputPadding;
  AttrDict attrs() const { return {{"strides", strides}, {"dilations", dilations}, {"pads", pads}, {"group", group}}; }
  Ints xSizes() const { return sizes(batch, group * in, spatial); }
  Ints wSizes(bool transposed) const { return transposed ? sizes(group * in, out, kernel) : sizes(group * out, in, kernel); }
  static Ints sizes(int64_t a, int64_t b, const Ints& rest) {
    Ints s{a, b};
    s.insert(s.end(), rest.begin(), rest.end());
    return s;
  }
};

Problem randomProblem(Random& r) {
  const auto dims = usize(r.integer(1, 3));
  Problem p{r.integer(1, 2),
            r.pick({1, 1, 2, 3}),
            r.pick({1, 2, 5}),
            r.pick({1, 3, 7}),
            r.pickMany(dims, {5, 6, 8}),
            r.pickMany(dims, {1, 2, 3}),
            r.pickMany(dims, {1, 1, 2, 3}),
            r.pickMany(dims, {1, 1, 2}),
            r.pickMany(2 * dims, {0, 1, 2}),
            {}};
  for (size_t i = 0; i < dims; ++i) p.outputPadding.push_back(r.integer(0, std::max(p.strides[i], p.dilations[i]) - 1));
  return p;
}

// Visits every term of every output in order: start(o channel, y index), term(x index, w index; x < 0 in the padding).
template <class Start, class Term, class End>
void eachOutput(const Problem& p, const Ints& ySizes, bool transposed, const Start& start, const Term& term, const End& end) {
  const size_t dims = p.spatial.size();
  const int64_t yPixels = numElements(Ints(ySizes.begin() + 2, ySizes.end())), xPixels = numElements(p.spatial),
                taps = numElements(p.kernel);
  const auto split = [&](int64_t i, const Ints& s) {
    Ints at(dims);
    for (size_t d = dims; d-- > 0; i /= s[d]) at[d] = i % s[d];
    return at;
  };
  const Ints yShape(ySizes.begin() + 2, ySizes.end());
  for (int64_t n = 0; n < p.batch; ++n)
    for (int64_t o = 0; o < p.group * p.out; ++o)
      for (int64_t pixel = 0; pixel < yPixels; ++pixel) {
        const Ints at = split(pixel, yShape);
        start(o);
        for (int64_t step = 0; step < taps; ++step) {
          const int64_t t = transposed ? taps - 1 - step : step;
          const Ints k = split(t, p.kernel);
          int64_t from = 0;
          bool inside = true, meets = true;
          for (size_t d = 0; d < dims; ++d) {
            int64_t i = at[d] * p.strides[d] - p.pads[d] + k[d] * p.dilations[d];
            if (transposed) {
              i = at[d] + p.pads[d] - k[d] * p.dilations[d];
              meets = meets && i % p.strides[d] == 0;
              inside = inside && i >= 0;
              i /= p.strides[d];
            }
            inside = inside && i >= 0 && i < p.spatial[d];
            from = from * p.spatial[d] + i;
          }
          if (!meets) continue;
          const int64_t g = o / p.out;
          for (int64_t ic = 0; ic < p.in; ++ic) {
            const int64_t x = inside ? (n * p.group * p.in + g * p.in + ic) * xPixels + from : -1;
            const int64_t w = transposed ? ((g * p.in + ic) * p.out + o % p.out) * taps + t : (o * p.in + ic) * taps + t;
            term(x, w);
          }
        }
        end(o);
      }
}

TEST(Conv, FollowsTheDefinitionBitForBit) {
  Random r(1);
  for (int i = 0; i < 120; ++i) {
    const bool transposed = i % 2 == 1;
    const Problem p = randomProblem(r);
    AttrDict attrs = p.attrs();
    if (transposed) attrs.set("output_padding", p.outputPadding);
    const Tensor x = r.normal(p.xSizes()), w = r.normal(p.wSizes(transposed)), bias = r.normal({p.group * p.out});
    const bool withBias = r.integer(0, 1) != 0;
    const auto result = tryRun(transposed ? "conv_transpose" : "conv", {x, w, withBias ? Operand(bias) : Operand::none()}, attrs);
    if (!result) {
      EXPECT_THAT(result.error().message(), testing::AnyOf(HasSubstr("does not fit"), HasSubstr("gives a result of size")));
      continue;
    }
    const Tensor& y = result->front();
    std::vector<float> expected;
    float sum = 0;
    eachOutput(
        p, y.sizes(), transposed, [&](int64_t) { sum = 0; },
        [&](int64_t xi, int64_t wi) { sum = std::fma(xi < 0 ? 0.0f : nth(x.as<float>(), xi), nth(w.as<float>(), wi), sum); },
        [&](int64_t o) { expected.push_back(withBias ? sum + nth(bias.as<float>(), o) : sum); });
    ASSERT_EQ(y.toFloats(), expected) << "problem " << i;

    attrs.set("layout", std::string("channels_last"));
    const Tensor last =
        run(transposed ? "conv_transpose" : "conv", {channelsLast(x), w, withBias ? Operand(bias) : Operand::none()}, attrs);
    EXPECT_TRUE(channelsFirst(last).sameBytes(y)) << "problem " << i;
  }
}

TEST(Conv, IntegerFormsFollowTheDefinitionBitForBit) {
  Random r(2);
  for (int i = 0; i < 160; ++i) {
    const bool transposed = i % 2 == 1, channels = r.integer(0, 1) != 0, integerForm = r.integer(0, 1) != 0;
    const bool withResidual = !transposed && !integerForm && r.integer(0, 1) != 0;
    const Problem p = randomProblem(r);
    const DType xt = r.integer(0, 1) ? DType::u8 : DType::s8, wt = r.pick({0, 1, 2}) == 0 ? DType::u8
                                                                   : r.integer(0, 1)      ? DType::s8
                                                                                          : DType::s4;
    const QuantPtr xq = quantPerTensor(xt, 0.037f, static_cast<int32_t>(r.integer(rangeOf(xt).min, rangeOf(xt).max)));
    const int64_t slices = transposed ? p.out : p.group * p.out;
    std::vector<float> scales;
    std::vector<int32_t> zeros;
    for (int64_t c = 0; c < (channels ? slices : 1); ++c) {
      scales.push_back(0.002f + 0.001f * static_cast<float>(r.integer(0, 9)));
      zeros.push_back(static_cast<int32_t>(r.integer(rangeOf(wt).min, rangeOf(wt).max)));
    }
    const QuantPtr wq = perChannel(wt, channels ? (transposed ? 1 : 0) : -1, scales, zeros);
    const QuantPtr to = quantPerTensor(DType::u8, 0.11f, 93);
    const Tensor x = r.full(xt, p.xSizes()), w = r.full(wt, p.wSizes(transposed)),
                 bias = r.integers(DType::s32, {p.group * p.out}, -4000, 4000);
    AttrDict attrs = p.attrs();
    if (transposed) attrs.set("output_padding", p.outputPadding);
    const std::string op = transposed ? "q.conv_transpose" : "q.conv";
    auto typed = attrs;
    if (integerForm) typed.set("to", QuantAttr{to});
    const auto plain = tryRun(op, {Operand(x, xq), Operand(w, wq), bias}, typed);
    if (!plain) {
      EXPECT_THAT(plain.error().message(), testing::AnyOf(HasSubstr("does not fit"), HasSubstr("gives a result of size")));
      continue;
    }
    const Tensor& y = plain->front();
    const Tensor residual = r.full(DType::s8, y.sizes());
    const QuantPtr residualQuant = quantPerTensor(DType::s8, 0.05f, -3);
    std::vector<double> expected, joined;
    int64_t sum = 0;
    eachOutput(
        p, y.sizes(), transposed, [&](int64_t o) { sum = nth(bias.as<int32_t>(), o); },
        [&](int64_t xi, int64_t wi) {
          if (xi < 0) return;  // the padding is the zero point
          const int64_t taps = numElements(p.kernel), channel = transposed ? wi / taps % p.out : wi / (taps * p.in);
          sum += (static_cast<int64_t>(x.at(xi)) - xq->zeroPoint()) * (static_cast<int64_t>(w.at(wi)) - wq->zeroPoint(channel));
        },
        [&](int64_t o) {
          const float sw = wq->scale(transposed ? o % p.out : o);
          const auto acc = static_cast<int32_t>(sum);
          const float real = static_cast<float>(acc) * (xq->scale() * sw);
          expected.push_back(integerForm ? qmath::requantize(acc, (xq->scale() * sw) / to->scale(), to->zeroPoint(), 0, 255) : real);
          const float other = qmath::dequantize(residual.as<int8_t>()[joined.size()], 0.05f, -3);
          joined.push_back(qmath::finish(real + other > 0 ? real + other : 0, 1.0f / to->scale(), to->zeroPoint(), 5, 200));
        });
    ASSERT_EQ(list(y), expected) << "problem " << i;
    const Tensor xLast = channelsLast(x);
    typed.set("layout", std::string("channels_last"));
    EXPECT_TRUE(channelsFirst(run(op, {Operand(xLast, xq), Operand(w, wq), bias}, typed)).sameBytes(y));
    if (!withResidual) continue;
    attrs.set("to", QuantAttr{to});
    attrs.set("post", std::string("max(0, a0 + a1)"));
    attrs.set("clamp_min", int64_t{5});
    attrs.set("clamp_max", int64_t{200});
    EXPECT_EQ(list(run(op, {Operand(x, xq), Operand(w, wq), bias, Operand(residual, residualQuant)}, attrs)), joined) << "problem " << i;
    attrs.set("layout", std::string("channels_last"));
    const Tensor last = run(op, {Operand(xLast, xq), Operand(w, wq), bias, Operand(channelsLast(residual), residualQuant)}, attrs);
    EXPECT_EQ(list(channelsFirst(last)), joined);
  }
}

TEST(Conv, PostAndResidual) {
  const Tensor x = floats({1, 1, 1, 3}, {1, -2, 3}), w = floats({1, 1, 1, 1}, {2}), b = floats({1}, {1}),
               r = floats({1, 1, 1, 3}, {10, 20, 30});
  EXPECT_THAT(run("conv", {x, w, b}, {{"post", std::string("max(0, a0)")}}).toFloats(), ElementsAre(3, 0, 7));
  EXPECT_THAT(run("conv", {x, w, b, r}).toFloats(), ElementsAre(13, 17, 37));
  EXPECT_THAT(run("conv", {x, w, Operand::none(), r}, {{"post", std::string("a0 * a1")}}).toFloats(), ElementsAre(20, -80, 180));
}

TEST(Conv, OtherElementTypes) {
  const auto dtype = [](DType t, std::vector<int64_t> v) { return tensorOf(t, {1, 1, static_cast<int64_t>(v.size())}, v); };
  for (const DType t : {DType::f16, DType::bf16, DType::f64, DType::s32, DType::s64, DType::u32})
    EXPECT_THAT(list(run("conv", {dtype(t, {1, 2, 3, 4}), dtype(t, {3, 5})})), ElementsAre(13, 21, 29)) << toString(t);
}

TEST(Conv, EmptySizes) {
  EXPECT_EQ(run("conv", {Tensor(DType::f32, {0, 2, 4, 4}), Tensor(DType::f32, {3, 2, 3, 3})}).sizes(), (Ints{0, 3, 2, 2}));
  EXPECT_EQ(run("conv", {Tensor(DType::f32, {1, 2, 4}), Tensor(DType::f32, {0, 2, 3})}).sizes(), (Ints{1, 0, 2}));
  EXPECT_THAT(run("conv", {Tensor(DType::f32, {1, 0, 3}), Tensor(DType::f32, {1, 0, 3}), floats({1}, {7})}).toFloats(), ElementsAre(7));
  EXPECT_THAT(run("conv", {Tensor(DType::f32, {1, 1, 0}), floats({1, 1, 2}, {1, 1})}, {{"pads", Ints{1, 1}}}).toFloats(), ElementsAre(0));
}

TEST(Conv, HostileSizes) {
  const int64_t huge = int64_t{1} << 40, wide = int64_t{1} << 31;
  EXPECT_THAT(inferred("conv", {{DType::f32, {1, huge, wide}}, {DType::f32, {0, huge, wide}}}), HasSubstr("larger than"));
  EXPECT_THAT(inferred("conv_transpose", {{DType::f32, {1, huge, wide}}, {DType::f32, {huge, 0, wide}}}), HasSubstr("larger than"));
  EXPECT_THAT(inferred("conv", {{DType::f32, {1, INT64_MAX, 4}}, {DType::f32, {1, INT64_MAX, 1}}}), HasSubstr("larger than"));
  EXPECT_THAT(run("conv", {Tensor(DType::f32, {1, 0, wide}), Tensor(DType::f32, {1, 0, wide})}).toFloats(), ElementsAre(0));
}

TEST(Conv, InfersSymbolicDims) {
  const Dim n = Dim::symbol("N"), h = Dim::symbol("H");
  const AttrDict padded = {{"pads", Ints{1, 1, 1, 1}}};
  EXPECT_EQ(inferred("conv", {{DType::f32, {n, 3, h, 8}}, {DType::f32, {4, 3, 3, 3}}}, padded), "f32[N,4,H,8]");
}

TEST(Conv, SaysWhatDoesNotFit) {
  const auto type = [](Shape s) { return TensorType(DType::f32, std::move(s)); };
  const TensorType x = type({1, 4, 8, 8}), w = type({6, 4, 3, 3});
  EXPECT_THAT(inferred("conv", {x, type({6, 3, 3, 3})}), HasSubstr("has 4 channels, w f32[6,3,3,3] with group=1 takes 3"));
  EXPECT_THAT(inferred("conv", {x, w}, {{"group", int64_t{0}}}), HasSubstr("group=0"));
  EXPECT_THAT(inferred("conv", {x, w}, {{"group", int64_t{4}}}), HasSubstr("group=4 does not divide the 6 output channels"));
  EXPECT_THAT(inferred("conv", {x, type({6, 4, 9, 3})}),
              HasSubstr("a window of 9 (kernel 9, dilation 1) does not fit into spatial dim 0 of 8"));
  EXPECT_THAT(inferred("conv", {x, w}, {{"strides", Ints{0, 1}}}), HasSubstr("strides=[0,1] holds 0"));
  EXPECT_THAT(inferred("conv", {x, w}, {{"strides", Ints{1}}}), HasSubstr("strides=[1] should have 2 values"));
  EXPECT_THAT(inferred("conv", {x, w}, {{"pads", Ints{0, 0, -1, 0}}}), HasSubstr("holds -1"));
  EXPECT_THAT(inferred("conv", {x, w}, {{"dilations", Ints{INT64_MAX, 1}}}), HasSubstr("dilations"));
  EXPECT_THAT(inferred("conv", {x, w}, {{"layout", std::string("nchw")}}), HasSubstr("layout"));
  EXPECT_THAT(inferred("conv", {x, w, type({5})}), HasSubstr("needs bias of shape [6], got f32[5]"));
  EXPECT_THAT(inferred("conv", {x, w}, {{"post", std::string("a0 + a1")}}), HasSubstr("reads a1, which is absent"));
  EXPECT_THAT(inferred("conv", {type({4, 8}), type({6, 4})}), HasSubstr("of 3 to 5 dims"));
  EXPECT_THAT(inferred("conv", {type({1, 4, int64_t{1} << 39, 1 << 20}), type({6, 4, 1, 1})}), HasSubstr("larger than"));
  EXPECT_THAT(inferred("conv_transpose", {type({1, 4, 1 << 20, 1 << 20}), type({4, 4, 1, 1})}, {{"strides", Ints{1 << 30, 1 << 30}}}),
              HasSubstr("large"));
  EXPECT_THAT(inferred("conv_transpose", {type({1, 4, 0, 8}), type({4, 4, 3, 3})}), HasSubstr("gives a result of size"));
}

TEST(Conv, RefusesSumsThatCouldLeaveInt32) {
  const QuantPtr xq = quantPerTensor(DType::u8, 0.1f, 0), wq = quantPerTensor(DType::s8, 0.1f, 0);
  EXPECT_THAT(inferred("q.conv", {{xq, {1, 65000, 4}}, {wq, {2, 65000, 1}}}), StartsWith("f32[1,2,4]"));
  EXPECT_THAT(inferred("q.conv", {{xq, {1, 66000, 4}}, {wq, {2, 66000, 1}}}),
              HasSubstr("int32 sums could overflow: 66000 terms of up to 255 * 128"));
  EXPECT_THAT(inferred("q.linear", {{xq, {1, 70000}}, {wq, {2, 70000}}}), HasSubstr("could overflow"));
  EXPECT_THAT(inferred("q.matmul", {{xq, {1, 70000}}, {wq, {70000, 2}}}), HasSubstr("could overflow"));
  // Constant weights are looked at: small ones cannot overflow, large ones can; a constant bias counts.
  const auto with = [&](int64_t weight, int64_t bias) {
    return tryRun("q.linear",
                  {Operand(Tensor(DType::u8, {1, 70000}), xq), Operand::constant(tensorOf(DType::s8, {1, 70000}, Ints(70000, weight)), wq),
                   Operand::constant(tensorOf(DType::s32, {1}, {bias}))});
  };
  EXPECT_TRUE(with(3, 1000));
  EXPECT_FALSE(with(127, 1000));
  EXPECT_FALSE(with(3, INT32_MAX));
}

TEST(Conv, RecordedVectors) {
  QC_VECTORS(file, "linear_conv");
  int off = 0, total = 0;
  for (const auto& c : file["cases"]) {
    const bool linear = c["kind"] == "linear";
    const auto tensor = [&](DType t, const nlohmann::json& j) { return tensorOf(t, j["shape"].get<Ints>(), j["data"].get<Ints>()); };
    const Tensor x = tensor(DType::u8, c["x"]), w = tensor(DType::s8, c["weight"]);
    const auto zp = c["x_zero_point"].get<int32_t>();
    const auto dims = usize(x.rank() - 2);
    AttrDict attrs;
    if (!linear)
      attrs = {{"strides", Ints(dims, c["stride"].get<int64_t>())},
               {"pads", Ints(2 * dims, c["padding"].get<int64_t>())},
               {"dilations", Ints(dims, c["dilation"].get<int64_t>())},
               {"group", c["groups"].get<int64_t>()}};
    const std::string op = linear ? "q.linear" : "q.conv";
    // With scales of 1 the float result is the sum itself.
    const Tensor acc = run(op, {Operand(x, quantPerTensor(DType::u8, 1, zp)), Operand(w, quantPerTensor(DType::s8, 1, 0))}, attrs);
    EXPECT_EQ(acc.toInts(), c["acc"]["data"].get<Ints>());
    EXPECT_EQ(acc.sizes(), c["acc"]["shape"].get<Ints>());

    const float sx = number(c["x_scale"]);
    const std::vector<float> sw = numbers(c["w_scale"]);
    const QuantPtr wq = perChannel(DType::s8, sw.size() > 1 ? 0 : -1, sw, {0});
    const QuantPtr to = quantPerTensor(DType::u8, number(c["out_scale"]), c["out_zero_point"].get<int32_t>());
    attrs.set("to", QuantAttr{to});
    if (c["relu"].get<bool>()) attrs.set("clamp_min", int64_t{to->zeroPoint()});
    Operand bias = Operand::none();
    if (!c["bias"].is_null()) {
      const std::vector<float> b = numbers(c["bias"]);
      Ints q;
      for (size_t i = 0; i < b.size(); ++i) q.push_back(qmath::quantizeBias(b[i], sx, wq->scale(static_cast<int64_t>(i))));
      bias = tensorOf(DType::s32, {static_cast<int64_t>(q.size())}, q);
    }
    nlohmann::json expected = c["out"]["fbgemm"];
    if (expected.is_string()) expected = c["out"]["onednn"];
    // fbgemm's depthwise kernels saturate on full-range input, see 10.2.
    if (!expected.is_array() || (!c["seven_bit_activation"].get<bool>() && c["groups"].get<int>() > 1)) continue;
    const Ints y = run(op, {Operand(x, quantPerTensor(DType::u8, sx, zp)), Operand(w, wq), bias}, attrs).toInts();
    for (size_t i = 0; i < y.size(); ++i, ++total) {
      const int64_t difference = std::abs(y[i] - expected[i].get<int64_t>());
      EXPECT_LE(difference, 1);
      off += difference != 0;
    }
  }
  EXPECT_GT(total, 1000);
  EXPECT_LE(off, total / 50) << "ties and rounded biases";
}

}  // namespace
}  // namespace qc
