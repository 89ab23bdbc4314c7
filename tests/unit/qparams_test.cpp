// Formulas from ranges to quantization parameters: the worked tables always, the recorded PyTorch vectors where available.
#include "quantizer/observers/qparams.h"

#include "ir/qmath.h"
#include "quantizer/embedding.h"
#include "vectors.h"

namespace qc {
namespace {

using nlohmann::json;
using test::dtypeOf;
using test::fromBits;
using test::number;

struct Row {
  float min, max;
  DType dtype;
  QScheme scheme;
  std::optional<IntRange> custom;
  bool reduce;
  double eps;
  float scale;
  int32_t zp;
};

TEST(QParams, WorkedTable) {
  const auto A = QScheme::affine, S = QScheme::symmetric;
  const double e = kEpsTorch, x = kEpsXnnpack;
  const std::vector<Row> rows = {
      {-1, 3, DType::u8, A, {}, false, e, 0.01568627543747425f, 64},
      {-1, 3, DType::u8, A, {}, true, e, 0.031496062874794006f, 32},
      {-1, 3, DType::s8, A, {}, false, e, 0.01568627543747425f, -64},
      {-1, 3, DType::s8, S, {}, false, e, 0.0235294122248888f, 0},
      {-1, 3, DType::s8, S, IntRange{-127, 127}, false, x, 0.023622047156095505f, 0},
      {-1, 3, DType::u8, S, {}, false, e, 0.0235294122248888f, 128},
      {-1, 3, DType::u8, S, IntRange{0, 255}, false, e, 0.0235294122248888f, 127},
      {-1, 3, DType::u8, S, IntRange{0, 127}, false, e, 0.04724409431219101f, 63},
      {0.5, 3, DType::u8, A, {}, false, e, 0.0117647061124444f, 0},
      {-3, -0.5, DType::u8, A, {}, false, e, 0.0117647061124444f, 255},
      {-1, 1, DType::u8, A, {}, false, e, 0.007843137718737125f, 127},
      {2, 2, DType::u8, A, {}, false, e, 0.007843137718737125f, 0},
      {0, 0, DType::s8, A, {}, false, x, 0.000244140625f, -128},
      {-1, 3, DType::s8, A, IntRange{-128, 127}, true, e, 0.031496062874794006f, -32},
  };
  for (const Row& row : rows) {
    const auto range = selectRange(row.dtype, row.custom, row.reduce);
    ASSERT_TRUE(range);
    QParamsRequest request{row.dtype, range->min, range->max, row.scheme, row.eps, row.custom.has_value()};
    const auto q = calculateQParams(row.min, row.max, request);
    ASSERT_TRUE(q) << q.error().render();
    EXPECT_EQ(q->scale, row.scale);
    EXPECT_EQ(q->zeroPoint, row.zp);
  }
}

// Scales are as small as the data wants them, down to what products of two bear; PyTorch's floors are options.
TEST(QParams, SmallRanges) {
  for (const float size : {1.0f, 0x1p-20f, 0x1p-50f}) {
    EXPECT_EQ(calculateQParams(-size, 3 * size, {})->scale, 4 * size / 255);
    EXPECT_EQ(calculateQParams(-size, 3 * size, {DType::s8, -127, 127, QScheme::symmetric, kSmallestScale, {}})->scale, 3 * size / 127);
    EXPECT_EQ(calculateFloatQParams(-size, 3 * size, 0, 255)->scale, 4 * size / 255);
    const std::vector<float> row = {-size, 2 * size};
    EXPECT_EQ(static_cast<float>(tokenQParams(row, true, kSmallestScale)->scale), 2 * size / 127);
    EXPECT_EQ(static_cast<float>(tokenQParams(row, false, kSmallestScale)->scale), 3 * size / 255);
    EXPECT_EQ(chooseQParams(0, size, 0, 255, ChooseVariant::fbgemm, false, false, kSmallestScale)->scale, size / 255);
  }
  EXPECT_EQ(calculateQParams(-1e-30f, 1e-30f, {})->scale, static_cast<float>(kSmallestScale));
  EXPECT_EQ(calculateQParams(0, 1e-9f, {DType::u8, 0, 255, QScheme::affine, kEpsTorch, {}})->scale, static_cast<float>(kEpsTorch));
  EXPECT_EQ(calculateQParams(0, 0, {})->scale, static_cast<float>(kEpsTorch));  // nothing but zeros
  const auto smallest = static_cast<float>(kSmallestScale);
  EXPECT_TRUE(std::isnormal(smallest * smallest));
  EXPECT_TRUE(std::isnormal(smallest * smallest / 1.0f) && std::isnormal(1.0f / smallest));
}

TEST(QParams, UnobservedIsOneAndZero) {
  const auto q = calculateQParams(INFINITY, -INFINITY, {});
  ASSERT_TRUE(q);
  EXPECT_EQ(*q, (ScaleZero{1.0f, 0}));
}

TEST(QParams, BadRangesAreErrors) {
  EXPECT_FALSE(calculateQParams(NAN, 1, {}));
  EXPECT_FALSE(calculateQParams(0, NAN, {}));
  EXPECT_FALSE(calculateQParams(0, INFINITY, {}));
  EXPECT_FALSE(calculateQParams(2, 1, {}));
  EXPECT_FALSE(selectRange(DType::s8, IntRange{-129, 127}));
  EXPECT_FALSE(selectRange(DType::s8, IntRange{5, 5}));
  EXPECT_FALSE(selectRange(DType::u8, IntRange{3, 200}));
  EXPECT_FALSE(selectRange(DType::f32));
  QParamsRequest outside{DType::u8, 0, 127, QScheme::symmetric, kEpsTorch, false};  // zero point 128
  EXPECT_FALSE(calculateQParams(-1, 1, outside));
}

TEST(QParams, WidestRangeStaysFinite) {
  const auto q = calculateQParams(-3.4e38f, 3.4e38f, {});
  ASSERT_TRUE(q);
  EXPECT_TRUE(std::isfinite(q->scale));
  EXPECT_NEAR(q->zeroPoint, 128, 1);
}

TEST(QParams, FloatZeroPoints) {
  const auto a = calculateFloatQParams(-0.3f, 0.7f, 0, 255), b = calculateFloatQParams(-0.3f, 0.7f, 0, 15);
  const auto c = calculateFloatQParams(0.5f, 0.5f, 0, 255);
  ASSERT_TRUE(a && b && c);
  EXPECT_EQ(a->scale, 0.003921568859368563f);
  EXPECT_EQ(a->zeroPoint, 76.5f);
  EXPECT_EQ(b->scale, 0.06666667014360428f);
  EXPECT_EQ(b->zeroPoint, 4.5f);
  EXPECT_EQ(c->scale, 1.0f);
  EXPECT_EQ(c->zeroPoint, -0.5f);
}

TEST(QParams, ChooseAtRunTime) {
  struct Case {
    float min, max;
    int64_t qmin, qmax;
    ChooseVariant variant;
    bool sparse, reduce;
    float scale;
    int32_t zp;
  };
  const auto A = ChooseVariant::aten, F = ChooseVariant::fbgemm;
  for (const Case& c : std::vector<Case>{{-1, 3, 0, 255, A, false, false, .015686275f, 64},
                                         {-1, 3, 0, 255, A, false, true, .031496063f, 32},
                                         {0, 0, 0, 255, A, false, false, 0.1f, 0},
                                         {0, 1e-3f, 0, 255, A, false, false, 6.1e-5f, 0},
                                         {-0.5f, 0.5f, 0, 255, A, false, false, .0039215689f, 128},
                                         {-0.5f, 0.5f, 0, 255, F, false, false, .0039215689f, 127},
                                         {-1, 3, -128, 127, F, true, false, .023622047f, 0},
                                         {-1, 3, -127, 127, F, true, false, .023715047f, 0},
                                         {0.2f, 3, -128, 127, F, true, false, .011764706f, -128}}) {
    const auto q = chooseQParams(c.min, c.max, c.qmin, c.qmax, c.variant, c.sparse, c.reduce);
    ASSERT_TRUE(q);
    EXPECT_EQ(q->scale, c.scale) << c.min << " " << c.max;
    EXPECT_EQ(q->zeroPoint, c.zp) << c.min << " " << c.max;
  }
}

TEST(QParams, GroupsAlongAnAxis) {
  const std::vector<float> w = {-0.7f, -0.05f, 0, 0.35f, 1, 2, 3, 4, 8, 0};
  const std::vector<int64_t> sizes = {1, 10};
  const auto q = groupwiseQParams(w, sizes, DType::s4, -8, 7, 1, 4, BlockMapping::symmetric);
  ASSERT_TRUE(q);
  EXPECT_EQ(q->scales, (std::vector<float>{0.7f / 7.5f, 4.0f / 7.5f, 8.0f / 7.5f}));
  EXPECT_EQ(q->zeroPoints, (std::vector<int32_t>{0, 0, 0}));
}

TEST(QParams, MinMaxSkipsWhatIsNotFinite) {
  std::vector<float> x(1000, 0.5f);
  x[3] = INFINITY;
  x[500] = NAN;
  x[999] = -INFINITY;
  x[700] = -2;
  const MinMax m = minMaxOf(x);
  EXPECT_EQ(m.min, -2.0f);
  EXPECT_EQ(m.max, 0.5f);
  EXPECT_EQ(m.nonFinite, 3);
  EXPECT_EQ(m.finite, 997);
}

TEST(QParams, RecordedObserverFormula) {
  QC_VECTORS(file, "qparams");
  int checked = 0;
  for (const json& c : file["cases"]) {
    const float min = c.contains("min_bits") ? fromBits(c["min_bits"]) : number(c["min"]);
    const float max = c.contains("max_bits") ? fromBits(c["max_bits"]) : number(c["max"]);
    std::optional<IntRange> custom;
    if (!c["custom_range"].is_null()) custom = IntRange{c["custom_range"][0], c["custom_range"][1]};
    const DType dtype = dtypeOf(c["dtype"]);
    const auto range = selectRange(dtype, custom, c["reduce_range"]);
    ASSERT_TRUE(range) << c;
    QParamsRequest request{dtype,    range->min,        range->max, c["scheme"] == "affine" ? QScheme::affine : QScheme::symmetric,
                           c["eps"], custom.has_value()};
    const auto q = calculateQParams(min, max, request);
    if (c.contains("error")) {
      EXPECT_FALSE(q) << c;
      continue;
    }
    // Where we decided otherwise: infinite data, zero points outside the range, int32 that wraps.
    const bool unobserved = std::isinf(min) && std::isinf(max) && min > max;
    if (!unobserved && (!std::isfinite(min) || !std::isfinite(max))) continue;
    if (c["zero_point"] > c["qmax"] || c["zero_point"] < c["qmin"]) {
      EXPECT_FALSE(q) << c;
      continue;
    }
    if ((dtype == DType::s32 && c["scheme"] == "affine") || std::isinf(fromBits(c["scale_bits"]))) continue;
    ASSERT_TRUE(q) << c << q.error().render();
    EXPECT_EQ(range->min, c["qmin"]) << c;
    EXPECT_EQ(range->max, c["qmax"]) << c;
    EXPECT_EQ(q->scale, fromBits(c["scale_bits"])) << c;
    EXPECT_EQ(q->zeroPoint, c["zero_point"].get<int32_t>()) << c;
    ++checked;
  }
  EXPECT_GT(checked, 250);
  for (const json& c : file["float_qparams"]) {
    const MinMax m = minMaxOf(test::numbers(c["row"]));
    const auto q = calculateFloatQParams(m.min, m.max, c["qmin"], c["qmax"], c["eps"]);
    ASSERT_TRUE(q);
    EXPECT_EQ(q->scale, fromBits(c["scale_bits"]));
    EXPECT_EQ(q->zeroPoint, fromBits(c["zero_point_bits"]));
  }
}

void checkChoice(const json& c, ChooseVariant variant) {
  const float scale = fromBits(c["scale_bits"]);
  if (!std::isfinite(scale)) return;
  const auto q = chooseQParams(number(c["min"]), number(c["max"]), c["qmin"], c["qmax"], variant, c.value("preserve_sparsity", false),
                               c.value("reduce_range", false));
  ASSERT_TRUE(q) << c;
  EXPECT_EQ(q->scale, scale) << c;
  EXPECT_EQ(q->zeroPoint, c["zero_point"].get<int32_t>()) << c;
}

TEST(QParams, RecordedRunTimeChoice) {
  QC_VECTORS(file, "choose_qparams");
  for (const json& c : file["aten"]) checkChoice(c, ChooseVariant::aten);
  for (const json& c : file["fbgemm"]) checkChoice(c, ChooseVariant::fbgemm);
  for (const json& c : file["fused_qat"]) checkChoice(c, ChooseVariant::fbgemm);
  for (const json& c : file["decomposed"]) {
    const QScheme scheme = c["op"] == "choose_qparams" ? QScheme::affine : QScheme::symmetric;
    if (c["scale_f64"].is_string()) continue;
    const float scale = static_cast<float>(c["scale_f64"].get<double>());
    if (!std::isfinite(scale)) continue;
    const auto q = calculateQParams(number(c["min"]), number(c["max"]), {dtypeOf(c["dtype"]), c["qmin"], c["qmax"], scheme, c["eps"], {}});
    ASSERT_TRUE(q) << c;
    EXPECT_EQ(q->scale, scale) << c;
    EXPECT_EQ(q->zeroPoint, c["zero_point"].get<int32_t>()) << c;
  }
}

TEST(QParams, RecordedBlocksAndTokens) {
  QC_VECTORS(file, "blockwise");
  const std::map<std::string, BlockMapping> mappings = {{"symmetric", BlockMapping::symmetric},
                                                        {"asymmetric", BlockMapping::asymmetric},
                                                        {"symmetric_no_clipping_err", BlockMapping::symmetricNoClipping}};
  for (const json& c : file["affine_block"]) {
    const std::vector<int64_t> sizes = c["x"]["shape"];
    const auto q = groupwiseQParams(test::numbers(c["x"]["data"]), sizes, dtypeOf(c["dtype"]), c["qmin"], c["qmax"], 1, c["block_size"][1],
                                    mappings.at(c["mapping"]));
    ASSERT_TRUE(q);
    ASSERT_EQ(q->scales.size(), c["scale_bits"].size());
    for (size_t i = 0; i < q->scales.size(); ++i) {
      EXPECT_EQ(q->scales[i], fromBits(c["scale_bits"][i])) << c;
      EXPECT_EQ(q->zeroPoints[i], c["zero_point"][i].get<int32_t>()) << c;
    }
  }
  for (const json& c : file["int4_group"]) {
    const std::vector<int64_t> sizes = c["x"]["shape"];
    const auto q = groupwiseQParams(test::numbers(c["x"]["data"]), sizes, DType::s4, -8, 7, 1, c["group"], BlockMapping::symmetric);
    ASSERT_TRUE(q);
    EXPECT_EQ(q->scales, test::numbers(c["scale"]));
  }
  for (const json& c : file["per_token"]) {
    const std::vector<float> x = test::numbers(c["x"]["data"]);
    const size_t width = c["x"]["shape"][1];
    for (size_t row = 0; row * width < x.size(); ++row) {
      const auto q = tokenQParams(std::span(x).subspan(row * width, width), c["mode"] == "symmetric");
      ASSERT_TRUE(q);
      EXPECT_EQ(static_cast<float>(q->scale), static_cast<float>(c["scale"][row].get<double>())) << c;
      EXPECT_EQ(q->zeroPoint, c["zero_point"][row].get<int32_t>()) << c;
    }
  }
}

// Embedding rows: a float scale and a float zero point each.
TEST(QParams, RecordedEmbeddingRows) {
  QC_VECTORS(file, "embedding");
  for (const json& c : file["float_qparams"]) {
    const std::vector<float> w = test::numbers(c["weight"]["data"]);
    const size_t width = c["weight"]["shape"][1];
    const int64_t qmax = c["bits"] == 8 ? 255 : 15;
    for (size_t row = 0; row * width < w.size(); ++row) {
      const MinMax m = minMaxOf(std::span(w).subspan(row * width, width));
      const auto q = calculateFloatQParams(m.min, m.max, 0, qmax);
      ASSERT_TRUE(q);
      EXPECT_EQ(q->scale, fromBits(c["scale_bits"][row])) << c;
      EXPECT_EQ(q->zeroPoint, fromBits(c["zero_point_bits"][row])) << c;
    }
  }
}

// The recording multiplies by the reciprocal where our quantize divides: one step at exact ties is allowed, and counted.
TEST(QParams, RecordedQuantize) {
  QC_VECTORS(file, "quantize");
  int different = 0, total = 0;
  for (const json& c : file["per_tensor"]) {
    const float scale = fromBits(c["scale_bits"]);
    const int32_t zp = c["zero_point"], qmin = c["qmin"], qmax = c["qmax"];
    for (size_t i = 0; i < c["x_bits"].size(); ++i) {
      const float x = fromBits(c["x_bits"][i]);
      if (std::isnan(x)) continue;
      const int32_t q = qmath::quantize(x, scale, zp, qmin, qmax), expected = c["q"][i];
      EXPECT_LE(std::abs(q - expected), 1);
      different += q != expected;
      ++total;
      EXPECT_EQ(qmath::dequantize(expected, scale, zp), fromBits(c["dequant_bits"][i]));
    }
  }
  EXPECT_LT(different * 20, total);
  for (const json& c : file["per_channel"]) {
    const std::vector<int64_t> sizes = c["x"]["shape"];
    const size_t axis = c["axis"];
    size_t inner = 1;
    for (size_t d = axis + 1; d < sizes.size(); ++d) inner *= usize(sizes[d]);
    for (size_t i = 0; i < c["q"].size(); ++i) {
      const size_t channel = i / inner % usize(sizes[axis]);
      const float scale = fromBits(c["scale_bits"][channel]);
      const int32_t zp = c["zero_point"][channel], expected = c["q"][i];
      EXPECT_LE(std::abs(qmath::quantize(number(c["x"]["data"][i]), scale, zp, c["qmin"], c["qmax"]) - expected), 1);
      EXPECT_EQ(qmath::dequantize(expected, scale, zp), fromBits(c["dequant_bits"][i]));
    }
  }
  for (const json& c : file["float_zero_point"]) {
    const auto channels = c["scale_bits"].size();
    const size_t inner = c["axis"] == 0 ? c["q"].size() / channels : 1;
    for (size_t i = 0; i < c["q"].size(); ++i) {
      const FloatQParams q{fromBits(c["scale_bits"][i / inner % channels]), fromBits(c["zero_point_bits"][i / inner % channels])};
      EXPECT_EQ(quantizeFloatZero(number(c["x"]["data"][i]), q, c["qmin"], c["qmax"]), c["q"][i].get<int32_t>()) << c["axis"];
      EXPECT_EQ((c["q"][i].get<float>() - q.zeroPoint) * q.scale, fromBits(c["dequant_bits"][i]));
    }
  }
}

}  // namespace
}  // namespace qc
