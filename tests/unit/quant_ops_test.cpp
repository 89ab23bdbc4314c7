// quantize, dequantize, fake_quantize and the dynamic forms: recorded vectors, axes and blocks, special values, errors.
#include <cmath>
#include <limits>

#include "op_testing.h"
#include "vectors.h"

namespace qc {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();

AttrDict to(QuantPtr q) { return {{"to", QuantAttr{std::move(q)}}}; }

TEST(Quantize, WorkedExampleOfTheSpecification) {
  const QuantPtr q = quantPerTensor(DType::u8, 0.01568627543747425f, 64);
  const Tensor x = floats({8}, {-1.5f, -1, -0.004f, 0, 0.5f, 1, 3, 9});
  const Tensor integers = run("quantize", {x}, to(q));
  EXPECT_THAT(list(integers), ElementsAre(0, 0, 64, 64, 96, 128, 255, 255));
  EXPECT_THAT(run("dequantize", {Operand(integers, q)}).toFloats(),
              ElementsAre(-1.0039216f, -1.0039216f, 0, 0, 0.5019608f, 1.0039216f, 2.9960785f, 2.9960785f));
  EXPECT_EQ(run("fake_quantize", {x}, to(q)).toFloats(), run("dequantize", {Operand(integers, q)}).toFloats());
}

TEST(Quantize, RoundsHalfToEvenThenAddsTheZeroPoint) {
  const Tensor x = floats({6}, {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f});
  EXPECT_THAT(list(run("quantize", {x}, to(quantPerTensor(DType::s8, 1, 1)))), ElementsAre(1, 3, 3, 1, -1, -1));
  EXPECT_THAT(list(run("quantize", {x}, to(quantPerTensor(DType::s16, 0.5f, -1)))), ElementsAre(0, 2, 4, -2, -4, -6));
}

TEST(Quantize, SpecialValues) {
  const Tensor x = floats({4}, {kInf, -kInf, std::nanf(""), 1e38f});
  EXPECT_THAT(list(run("quantize", {x}, to(quantPerTensor(DType::u8, 0.1f, 7)))), ElementsAre(255, 0, 7, 255));
  EXPECT_THAT(list(run("quantize", {x}, to(quantPerTensor(DType::s32, 1e-3f, 0)))), ElementsAre(2147483520, -2147483648.0, 0, 2147483520));
}

TEST(Quantize, ChannelsAndBlocks) {
  const Tensor x = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_THAT(list(run("quantize", {x}, to(perChannel(DType::s8, 0, {1, 0.5f}, {0, 10})))), ElementsAre(1, 2, 3, 18, 20, 22));
  EXPECT_THAT(list(run("quantize", {x}, to(perChannel(DType::s8, 1, {1, 0.5f, 0.25f}, {0})))), ElementsAre(1, 4, 12, 4, 10, 24));
  QuantParams blocks = *perChannel(DType::s4, 1, {1, 0.5f, 2, 4}, {0});
  blocks.blockSize = 2;  // blocks of a row: elements 0 1, element 2
  const QuantPtr q = std::make_shared<QuantParams>(blocks);
  const Tensor y = run("quantize", {x}, to(q));
  EXPECT_THAT(list(y), ElementsAre(1, 2, 6, 2, 2, 2));
  EXPECT_THAT(run("dequantize", {Operand(y, q)}).toFloats(), ElementsAre(1, 2, 3, 4, 4, 8));
}

TEST(Quantize, RecordedVectors) {
  QC_VECTORS(file, "quantize");
  int off = 0, total = 0;
  for (const auto& c : file["per_tensor"]) {
    const DType dtype = dtypeOf(c["dtype"]);
    QuantParams q = *quantPerTensor(dtype, number(c["scale"]), c["zero_point"].get<int32_t>());
    q.qmin = c["qmin"];
    q.qmax = c["qmax"];
    const QuantPtr quant = std::make_shared<QuantParams>(q);
    std::vector<float> x, expectedReal;
    for (const auto& bits : c["x_bits"]) x.push_back(fromBits(bits));
    for (const auto& bits : c["dequant_bits"]) expectedReal.push_back(fromBits(bits));
    const auto n = static_cast<int64_t>(x.size());
    const Tensor integers = run("quantize", {floats({n}, x)}, to(quant));
    const Ints expected = c["q"].get<Ints>();
    for (size_t i = 0; i + 1 < x.size(); ++i, ++total) {  // the last is NaN, where the policies differ
      const double difference = std::fabs(integers.at(static_cast<int64_t>(i)) - static_cast<double>(expected[i]));
      EXPECT_LE(difference, dtype == DType::s32 ? 128 : 1) << x[i];  // PyTorch multiplies by the reciprocal
      off += difference != 0;
    }
    const Tensor real = run("dequantize", {Operand(tensorOf(dtype, {n}, expected), quant)});
    for (size_t i = 0; i + 1 < x.size(); ++i) EXPECT_EQ(real.as<float>()[i], expectedReal[i]);
  }
  EXPECT_GT(total, 100);
  EXPECT_LE(off, total / 20) << "ties";
}

TEST(Quantize, SaysWhatDoesNotFit) {
  const TensorType x(DType::f32, {2, 3});
  EXPECT_THAT(inferred("quantize", {x}, to(nullptr)), HasSubstr("'to' is none"));
  EXPECT_THAT(inferred("quantize", {x}, to(perChannel(DType::s8, 1, {1, 1}, {0}))), HasSubstr("2 scales"));
  EXPECT_THAT(inferred("quantize", {x}, to(perChannel(DType::s8, 2, {1, 1}, {0}))),
              HasSubstr("axis 2 of the scales on a tensor of rank 2"));
  EXPECT_THAT(inferred("quantize", {x}, to(quantPerTensor(DType::u8, 0, 0))), HasSubstr("finite and positive, but this is 0"));
  EXPECT_THAT(inferred("quantize", {x}, to(quantPerTensor(DType::u8, std::nanf(""), 0))),
              HasSubstr("finite and positive, but this is nan"));
  EXPECT_THAT(inferred("quantize", {x}, to(quantPerTensor(DType::u8, 1, -1))), HasSubstr("the zero point -1 is not within 0..255"));
  QuantParams wide = *quantPerTensor(DType::u8, 1, 0);
  wide.qmax = 256;
  EXPECT_THAT(inferred("quantize", {x}, to(std::make_shared<QuantParams>(wide))), HasSubstr("the range 0..256 is not within u8"));
  EXPECT_THAT(inferred("quantize", {{DType::s32, {2}}}, to(quantPerTensor(DType::u8, 1, 0))), HasSubstr("floating point"));
  EXPECT_THAT(inferred("dequantize", {x}), HasSubstr("takes a quantized tensor"));
  EXPECT_EQ(run("quantize", {Tensor(DType::f32, {0, 3})}, to(quantPerTensor(DType::u8, 1, 0))).sizes(), (Ints{0, 3}));
}

TEST(Dynamic, ParametersOfATensor) {
  const auto params = [](std::vector<float> v, AttrDict attrs = {}) {
    const auto n = static_cast<int64_t>(v.size());
    const auto out = runAll("dynamic_qparams", {floats({n}, std::move(v))}, std::move(attrs));
    return std::pair(out[0].toFloats()[0], out[1].toInts()[0]);
  };
  const AttrDict s8 = {{"storage", DType::s8}, {"qmin", int64_t{-128}}, {"qmax", int64_t{127}}};
  AttrDict symmetric = s8;
  symmetric.set("scheme", std::string("symmetric"));
  EXPECT_EQ(params({-1, 0.5f, 3}), std::pair(0.01568627543747425f, int64_t{64}));
  EXPECT_EQ(params({-1, 3}, s8), std::pair(0.01568627543747425f, int64_t{-64}));
  EXPECT_EQ(params({-1, 3}, symmetric), std::pair(0.0235294122248888f, int64_t{0}));
  EXPECT_EQ(params({0.5f, 3}), std::pair(0.0117647061124444f, int64_t{0}));
  EXPECT_EQ(params({-3, -0.5f}), std::pair(0.0117647061124444f, int64_t{255}));
  EXPECT_EQ(params({-1, 3, kInf, -kInf, std::nanf("")}), std::pair(0.01568627543747425f, int64_t{64}));
  EXPECT_EQ(params({0, 0}), std::pair(static_cast<float>(kSmallestScale), int64_t{0}));
  EXPECT_EQ(params({0, 0}, {{"eps", 0.0}}), std::pair(1.0f, int64_t{0}));
  EXPECT_EQ(params({}), std::pair(static_cast<float>(kSmallestScale), int64_t{0}));
  EXPECT_TRUE(std::isfinite(params({-3e38f, 3e38f}).first));
  EXPECT_THAT(inferred("dynamic_qparams", {{DType::f32, {2}}}, {{"qmax", int64_t{256}}}), HasSubstr("0..256"));
}

TEST(Dynamic, RoundTrip) {
  const Tensor x = floats({2, 2}, {-1, 0.5f, 2, 3});
  const Tensor scale = floats({}, {0.5f}), zero = tensorOf(DType::s32, {}, {10});
  const Tensor q = run("quantize_with", {x, scale, zero});
  EXPECT_THAT(list(q), ElementsAre(8, 11, 14, 16));
  EXPECT_THAT(run("dequantize_with", {q, scale, zero}).toFloats(), ElementsAre(-1, 0.5f, 2, 3));
  const Tensor scales = floats({2}, {1, 0.5f});
  EXPECT_THAT(list(run("quantize_with", {x, scales}, {{"axis", int64_t{0}}})), ElementsAre(0, 0, 4, 6));
  EXPECT_THAT(run("dequantize_with", {tensorOf(DType::s32, {2}, {7, -3}), scales}, {{"axis", int64_t{0}}}).toFloats(),
              ElementsAre(7, -1.5f));
  EXPECT_THAT(inferred("quantize_with", {x.type(), {DType::f32, {3}}}, {{"axis", int64_t{0}}}), HasSubstr("neither a scalar nor"));
  EXPECT_THAT(inferred("quantize_with", {x.type(), {DType::f64, {}}}), HasSubstr("f32 scale"));
}

TEST(Observe, IsAnIdentityThatNothingFolds) {
  const Tensor x = floats({2}, {1, 2});
  EXPECT_TRUE(run("observe", {x}, {{"id", int64_t{3}}}).sameBytes(x));
  const OpDef& def = OpRegistry::get().at("observe");
  EXPECT_FALSE(def.has(kPure));
  EXPECT_TRUE(def.legalIn(Stage::kObserved));
  EXPECT_FALSE(def.legalIn(Stage::kQuant));
}

}  // namespace
}  // namespace qc
