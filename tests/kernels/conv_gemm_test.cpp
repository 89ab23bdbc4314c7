// Every row of the convolution families (implicit GEMM, depthwise) on shapes around their block sizes.
#include <cmath>
#include <numeric>
#include <set>

#include "codegen/plan/gemm.h"
#include "ir/packed_layout.h"
#include "ir/text.h"
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

struct ConvCase {
  const char* name;
  std::vector<int64_t> x, w;  // channels last; w [O, C/g, k...] or [N, K]
  std::vector<int64_t> strides, pads, dilations;
  int64_t group = 1;
  bool residual = false;
  const char* post = "";
  enum class To { same, s8, real } to = To::same;
  bool clamp = false, bias = true;
};

constexpr auto kReal = ConvCase::To::real;
constexpr auto kS8 = ConvCase::To::s8;

const std::vector<ConvCase>& cases() {
  static const std::vector<ConvCase> all = {
      {"3x3", {1, 9, 11, 16}, {64, 16, 3, 3}, {}, {1, 1, 1, 1}, {}},
      {"3x3, long sums", {1, 5, 7, 200}, {40, 200, 3, 3}, {}, {1, 1, 1, 1}, {}},
      {"1x1, long sums and residual", {1, 6, 9, 1200}, {72, 1200, 1, 1}, {}, {}, {}, 1, true, "max(a0 + a1, 0)"},
      {"3x3 batch", {3, 7, 7, 8}, {40, 8, 3, 3}, {}, {1, 1, 1, 1}, {}},
      {"3x3 stride 2", {1, 13, 12, 5}, {70, 5, 3, 3}, {2, 2}, {1, 1, 1, 1}, {}},
      {"3x3 asymmetric", {2, 8, 9, 6}, {33, 6, 3, 3}, {1, 2}, {0, 1, 2, 0}, {}},
      {"3x3 valid", {1, 9, 9, 7}, {24, 7, 3, 3}, {}, {}, {}},
      {"3x3 dilated", {1, 12, 14, 4}, {20, 4, 3, 3}, {}, {2, 3, 2, 3}, {2, 3}},
      {"3x3 dilated valid", {1, 12, 14, 3}, {17, 3, 3, 3}, {}, {}, {2, 2}},
      {"stem 7x7", {1, 21, 23, 3}, {64, 3, 7, 7}, {2, 2}, {3, 3, 3, 3}, {}},
      {"stem valid", {1, 15, 15, 3}, {16, 3, 5, 5}, {2, 2}, {}, {}},
      {"1x1", {1, 7, 7, 24}, {96, 24, 1, 1}, {}, {}, {}},
      {"1x1 tail", {1, 5, 5, 19}, {81, 19, 1, 1}, {}, {}, {}},
      {"1x1 stride 2", {2, 8, 7, 32}, {64, 32, 1, 1}, {2, 2}, {}, {}},
      {"1x1 padded", {1, 5, 4, 8}, {16, 8, 1, 1}, {}, {1, 0, 0, 1}, {}},
      {"groups", {1, 8, 8, 24}, {36, 6, 3, 3}, {}, {1, 1, 1, 1}, {}, 4},
      {"groups valid", {1, 6, 7, 12}, {18, 4, 3, 3}, {}, {}, {}, 3},
      {"groups 1x1", {1, 6, 7, 12}, {15, 4, 1, 1}, {}, {}, {}, 3},
      {"depthwise", {1, 6, 6, 9}, {9, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 9},
      {"depthwise 64", {1, 9, 8, 64}, {64, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 64},
      {"depthwise stride 2", {2, 9, 12, 32}, {32, 1, 3, 3}, {2, 2}, {1, 1, 1, 1}, {}, 32},
      {"depthwise 5x5", {1, 11, 7, 72}, {72, 1, 5, 5}, {1, 2}, {2, 2, 2, 2}, {}, 72},
      {"depthwise dilated", {1, 13, 9, 130}, {130, 1, 3, 3}, {}, {2, 3, 2, 3}, {2, 3}, 130},
      {"depthwise valid", {1, 6, 9, 24}, {24, 1, 3, 2}, {}, {}, {}, 24},
      {"depthwise 16, pixels of a row together", {2, 6, 21, 16}, {16, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 16},
      {"depthwise 24, two pixels", {1, 5, 9, 24}, {24, 1, 5, 5}, {}, {2, 2, 2, 2}, {}, 24, true, "max(a0 + a1, 0)"},
      {"depthwise 32, odd width", {1, 4, 5, 32}, {32, 1, 3, 3}, {2, 1}, {1, 1, 1, 1}, {}, 32},
      {"depthwise 16, stride 2", {1, 9, 11, 16}, {16, 1, 3, 3}, {2, 2}, {1, 1, 1, 1}, {}, 16},
      {"depthwise 12, stride 2", {1, 9, 11, 12}, {12, 1, 3, 3}, {2, 2}, {1, 1, 1, 1}, {}, 12},
      {"depthwise 8, dilated", {1, 9, 13, 8}, {8, 1, 3, 3}, {}, {2, 3, 2, 3}, {2, 3}, 8},
      {"depthwise 3, narrow", {1, 3, 4, 3}, {3, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 3},
      {"depthwise one pixel", {1, 3, 3, 16}, {16, 1, 3, 3}, {}, {}, {}, 16},
      {"depthwise residual", {1, 5, 6, 64}, {64, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 64, true, "max(a0 + a1, 0)"},
      {"depthwise float", {1, 5, 6, 40}, {40, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 40, false, "a0 * 0.5", kReal},
      {"depthwise float narrow", {1, 10, 10, 10}, {10, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 10, false, "", kReal},
      {"depthwise float 64", {1, 9, 8, 64}, {64, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 64, false, "", kReal},
      {"depthwise float residual", {1, 5, 6, 64}, {64, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 64, true, "max(a0 + a1, 0)", kReal},
      {"depthwise clamped", {1, 7, 7, 64}, {64, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 64, false, "", ConvCase::To::same, true},
      {"1-d", {2, 33, 10}, {48, 10, 5}, {2}, {2, 1}, {}},
      {"1-d long", {1, 300, 4}, {24, 4, 9}, {3}, {4, 4}, {2}},
      {"1-d groups", {2, 20, 12}, {24, 4, 3}, {}, {1, 1}, {}, 3},
      {"1-d valid", {1, 40, 6}, {130, 6, 3}, {}, {}, {3}},
      {"small image", {1, 2, 2, 16}, {64, 16, 3, 3}, {}, {1, 1, 1, 1}, {}},
      {"kernel beyond image", {1, 1, 2, 16}, {32, 16, 3, 5}, {}, {1, 2, 1, 2}, {}},
      {"3-d", {1, 5, 7, 6, 16}, {64, 16, 3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}},
      {"3-d batch, tail", {2, 3, 5, 7, 5}, {37, 5, 3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}},
      {"3-d valid", {2, 5, 6, 7, 6}, {24, 6, 2, 3, 4}, {}, {}, {}},
      {"3-d stem", {1, 5, 13, 15, 3}, {32, 3, 3, 7, 7}, {1, 2, 2}, {1, 3, 3, 1, 3, 3}, {}},
      {"3-d stride 2", {2, 6, 7, 8, 9}, {40, 9, 3, 3, 3}, {2, 2, 2}, {1, 1, 1, 1, 1, 1}, {}},
      {"3-d stride beyond the kernel", {1, 7, 6, 6, 4}, {20, 4, 2, 2, 2}, {3, 3, 3}, {}, {}},
      {"3-d asymmetric", {1, 4, 6, 5, 7}, {33, 7, 3, 2, 3}, {2, 1, 2}, {0, 1, 2, 2, 0, 1}, {}},
      {"3-d dilated", {1, 7, 9, 8, 4}, {20, 4, 3, 3, 3}, {}, {2, 1, 2, 2, 1, 2}, {2, 1, 2}},
      {"3-d dilated valid", {1, 7, 9, 8, 3}, {17, 3, 3, 3, 2}, {}, {}, {3, 2, 2}},
      {"3-d 1x1x1", {2, 3, 4, 5, 19}, {81, 19, 1, 1, 1}, {}, {}, {}},
      {"3-d 1x1x1 stride 2", {2, 5, 6, 7, 32}, {64, 32, 1, 1, 1}, {2, 2, 2}, {}, {}},
      {"3-d over time", {1, 6, 5, 4, 24}, {48, 24, 3, 1, 1}, {}, {1, 0, 0, 1, 0, 0}, {}},
      {"3-d over space", {2, 4, 7, 6, 8}, {48, 8, 1, 3, 3}, {1, 2, 2}, {0, 1, 1, 0, 1, 1}, {}},
      {"3-d planes of padding", {1, 3, 5, 7, 4}, {20, 4, 1, 2, 2}, {1, 3, 1}, {1, 2, 2, 1, 0, 0}, {}},
      {"3-d points in padding", {2, 3, 4, 5, 6}, {24, 6, 1, 1, 1}, {2, 1, 1}, {2, 1, 0, 1, 0, 1}, {}},
      {"3-d one row", {1, 4, 1, 9, 8}, {24, 8, 3, 1, 3}, {}, {1, 0, 1, 1, 0, 1}, {}},
      {"3-d one column", {1, 4, 9, 1, 8}, {24, 8, 3, 3, 1}, {}, {1, 1, 0, 1, 1, 0}, {}},
      {"3-d groups", {1, 4, 5, 6, 24}, {36, 6, 3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}, 4},
      {"3-d groups valid", {1, 4, 6, 7, 12}, {18, 4, 2, 3, 3}, {}, {}, {}, 3},
      {"3-d small, most taps outside", {2, 2, 2, 3, 40}, {70, 40, 3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}},
      {"3-d kernel beyond the image", {1, 1, 2, 2, 8}, {32, 8, 5, 3, 3}, {}, {2, 1, 1, 2, 1, 1}, {}},
      {"3-d residual", {1, 3, 5, 5, 16}, {43, 16, 3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}, 1, true, "max(a0 + a1, 0)"},
      {"3-d float result", {1, 3, 5, 5, 16}, {72, 16, 3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}, 1, false, "", kReal},
      {"3-d signed result", {1, 3, 5, 5, 16}, {96, 16, 3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}, 1, false, "", kS8},
      {"3-d depthwise", {1, 4, 5, 6, 64}, {64, 1, 3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}, 64},
      {"3-d depthwise stride 2", {2, 5, 7, 6, 32}, {32, 1, 3, 3, 3}, {2, 2, 2}, {1, 1, 1, 1, 1, 1}, {}, 32},
      {"3-d depthwise dilated", {1, 7, 7, 9, 20}, {20, 1, 3, 2, 3}, {}, {2, 1, 2, 2, 0, 2}, {2, 1, 2}, 20},
      {"3-d depthwise valid", {1, 5, 6, 9, 24}, {24, 1, 2, 3, 2}, {}, {}, {}, 24},
      {"3-d depthwise large", {1, 6, 7, 9, 16}, {16, 1, 3, 5, 5}, {}, {1, 2, 2, 1, 2, 2}, {}, 16, true, "max(a0 + a1, 0)"},
      {"3-d depthwise over time", {1, 5, 3, 4, 72}, {72, 1, 5, 1, 1}, {}, {2, 0, 0, 2, 0, 0}, {}, 72},
      {"far dilated", {1, 14, 15, 40}, {70, 40, 3, 3}, {}, {12, 12, 12, 12}, {12, 12}},
      {"far dilated stride 2", {2, 9, 8, 36}, {33, 36, 3, 3}, {2, 2}, {6, 7, 6, 7}, {6, 7}},
      {"far dilated groups", {1, 10, 9, 96}, {24, 32, 3, 3}, {}, {8, 8, 8, 8}, {8, 8}, 3},
      {"far dilated float result", {1, 10, 9, 37}, {64, 37, 3, 3}, {}, {8, 8, 8, 8}, {8, 8}, 1, true, "max(a0 + a1, 0)", kReal},
      {"far dilated 3-d", {1, 5, 6, 7, 33}, {20, 33, 3, 3, 3}, {}, {4, 5, 6, 4, 5, 6}, {4, 5, 6}},
      {"taps of padding alone", {1, 6, 5, 40}, {24, 40, 5, 3}, {}, {14, 9, 14, 9}, {7, 9}},
      {"chunks", {1, 6, 7, 1230}, {17, 1230, 3, 3}, {}, {1, 1, 1, 1}, {}},
      {"chunks 3-d", {1, 3, 4, 4, 410}, {20, 410, 3, 3, 3}, {}, {1, 1, 1, 1, 1, 1}, {}, 1, true, "max(a0 + a1, 0)"},
      {"chunks far dilated", {1, 7, 6, 1230}, {9, 1230, 3, 3}, {}, {5, 5, 5, 5}, {5, 5}},
      {"linear", {13, 40}, {128, 40}, {}, {}, {}},
      {"linear 1", {1, 77}, {200, 77}, {}, {}, {}},
      {"linear 1x1", {1, 1}, {1, 1}, {}, {}, {}},
      {"linear 3-d", {2, 9, 66}, {65, 66}, {}, {}, {}},
      {"linear large", {50, 300}, {320, 300}, {}, {}, {}},
      {"linear long k", {7, 1153}, {64, 1153}, {}, {}, {}},
      {"no bias", {1, 5, 5, 8}, {32, 8, 1, 1}, {}, {}, {}, 1, false, "", ConvCase::To::same, false, false},
      {"clamped", {1, 7, 7, 16}, {64, 16, 3, 3}, {}, {1, 1, 1, 1}, {}, 1, false, "", ConvCase::To::same, true},
      {"signed result", {1, 7, 7, 16}, {96, 16, 3, 3}, {}, {1, 1, 1, 1}, {}, 1, false, "", kS8},
      {"float result", {1, 7, 7, 16}, {72, 16, 3, 3}, {}, {1, 1, 1, 1}, {}, 1, false, "", kReal},
      {"float result 2", {11, 16}, {64, 16}, {}, {}, {}, 1, true, "max(a0 + a1, 0)", kReal},
      {"residual", {1, 7, 7, 16}, {64, 16, 1, 1}, {}, {}, {}, 1, true},
      {"residual tail", {1, 5, 7, 16}, {43, 16, 3, 3}, {}, {1, 1, 1, 1}, {}, 1, true, "max(a0 + a1, 0)"},
      {"residual narrow", {1, 5, 7, 8}, {16, 8, 1, 1}, {}, {}, {}, 1, true, "max(a0, 0) + a1", kS8},
      {"residual middle", {1, 6, 7, 8}, {32, 8, 1, 1}, {}, {}, {}, 1, true, "a0 + a1"},
      {"post", {1, 7, 7, 16}, {32, 16, 1, 1}, {}, {}, {}, 1, false, "a0 * min(max(a0 + 3, 0), 6) / 6"},
      {"post of no change", {1, 7, 7, 16}, {64, 16, 1, 1}, {}, {}, {}, 1, false, "a0"},
      {"residual unread", {1, 7, 7, 16}, {64, 16, 1, 1}, {}, {}, {}, 1, true, "a0"},
      {"post narrow", {3, 16}, {16, 16}, {}, {}, {}, 1, false, "a0 / 3 + abs(a0)"},
      {"long post", {17, 32}, {128, 32}, {}, {}, {}, 1, false, "0.5 * a0 * (1 + erf(a0 * 0.70710677))"},
      {"long post tail", {9, 24}, {200, 24}, {}, {}, {}, 1, true, "(a0 + a1) / (1 + exp(-(a0 + a1)))"},
      {"long post float", {13, 24}, {200, 24}, {}, {}, {}, 1, true, "(a0 + a1) / (1 + exp(-(a0 + a1)))", kReal},
      {"wide strips", {1, 29, 31, 16}, {64, 16, 3, 3}, {}, {1, 1, 1, 1}, {}},
      {"many blocks", {8, 1100}, {600, 1100}, {}, {}, {}},
  };
  return all;
}

AttrDict attrsOf(const ConvCase& c) {
  AttrDict attrs;
  if (c.w.size() > 2) {
    attrs = {{"layout", std::string("channels_last")}, {"group", c.group}};
    if (!c.strides.empty()) attrs.set("strides", c.strides);
    if (!c.pads.empty()) attrs.set("pads", c.pads);
    if (!c.dilations.empty()) attrs.set("dilations", c.dilations);
  }
  if (*c.post) attrs.set("post", std::string(c.post));
  return attrs;
}

std::vector<int64_t> resultSizes(const ConvCase& c) { return ConvGeometry::of(c.x, c.w, attrsOf(c)).value().resultSizes(c.x, c.w); }

// wide: u8 weights that leave s8 around their zero points; words: s16 inputs; nibbles: weights of 4 bits, u4 with zero points or s4
enum class Values { random, extreme, small, wide, words, nibbles };

// Rows may refuse what their family leaves to others; every refusal must be one of these.
bool mayRefuse(const KernelDef& def, const ConvCase& c, Values values) {
  const bool depthwiseRow = def.id.starts_with("dw_");
  const bool depthwiseCase = c.w.size() >= 4 && c.group == c.w[0] && c.group == c.x.back();
  if (def.id == "thin_conv_f32") return true;  // for few outputs only: thin_conv_test
  if (def.id.starts_with("gemm_f16")) {        // for weights beyond the second cache that meet few rows
    const std::vector<int64_t> y = resultSizes(c);
    const auto product = [](const std::vector<int64_t>& v) { return std::accumulate(v.begin(), v.end(), int64_t{1}, std::multiplies<>()); };
    return product(y) / y.back() > 16 || product(c.w) * 4 <= 1 << 20;
  }
  const bool ofWords = def.id.find("s16") != std::string_view::npos;
  if (values == Values::words && !ofWords) return true;
  if (values != Values::words && ofWords && depthwiseRow) return true;
  if (!depthwiseRow) return def.id.find("pairs") != std::string_view::npos && values != Values::small && values != Values::nibbles;
  return !depthwiseCase || c.x.back() % 64 != 0;  // tails need masked loads or narrow panels
}

// Sizes that were free choose the code, values do not: three kinds of them will do, if none is to be tested for its own sake.
void runQuantized(const KernelDef& def, const ConvCase& c, Values values, bool ofAnySize = false) {
  std::mt19937 rng(static_cast<uint32_t>(c.x.back() * 131 + c.w[0]));
  const std::string what = fmt::format("{} {}", c.name, values == Values::extreme ? "extremes" : "random");
  const int64_t outputs = c.w[0];
  Graph graph;
  Builder b(graph);
  const bool words = values == Values::words;
  auto xq = words ? quantPerTensor(DType::s16, 0.0001f, -700) : quantPerTensor(DType::u8, 0.02f, values == Values::extreme ? 255 : 113);
  QuantParams wq{DType::s8, -128, 127, 0, 0, {}, std::vector<int32_t>(usize(outputs), 0)};
  for (int64_t i = 0; i < outputs; ++i) wq.scales.push_back(0.001f + 0.0001f * static_cast<float>(rng() % 50));
  const ConvGeometry g = ConvGeometry::of(c.x, c.w, attrsOf(c)).value();
  const float spread = 0.02f * 0.004f * 5000.0f * std::sqrt(static_cast<float>(g.depth())) / 64.0f;
  Value* x = graph.addInput("x", TensorType(xq, toShape(c.x)));
  if (values == Values::wide) {
    wq.storage = DType::u8, wq.qmin = 0, wq.qmax = 255;
    for (int32_t& z : wq.zeroPoints) z = static_cast<int32_t>(1 + rng() % 255);
    wq.zeroPoints[0] = 100;  // of 0 and 255: neither has a byte
  }
  if (values == Values::nibbles) {
    wq.storage = outputs % 2 ? DType::u4 : DType::s4;
    wq.qmin = rangeOf(wq.storage).min, wq.qmax = rangeOf(wq.storage).max;
    if (outputs % 2)
      for (int32_t& z : wq.zeroPoints) z = static_cast<int32_t>(rng() % 16);
  }
  Tensor w = randomTensor(wq.storage, c.w, rng, values == Values::extreme);
  if (values == Values::wide) w.mutableAs<uint8_t>()[0] = 255;
  if (values == Values::small || words)
    for (int8_t& v : w.mutableAs<int8_t>()) v = static_cast<int8_t>(v / (words ? 16 : 2));
  Value* weights = b.constant("w", w, std::make_shared<const QuantParams>(wq));
  Value* bias = nullptr;
  if (c.bias) {
    Tensor t(DType::s32, {outputs});
    for (int32_t& v : t.mutableAs<int32_t>()) v = static_cast<int32_t>(rng() % 20001) - 10000;
    bias = b.constant("b", t);
  }
  const Tensor xt = randomTensor(xq->storage, c.x, rng, values == Values::extreme);
  std::vector<Value*> operands{x, weights, bias};
  std::vector<const Tensor*> tensors{&xt, weights->constant(), bias ? bias->constant() : nullptr};
  Tensor rt;
  if (c.residual) {
    const DType storage = words ? DType::s16 : c.to == kS8 ? DType::s8 : DType::u8;
    auto rq = quantPerTensor(storage, spread / (words ? 15000 : 60), storage == DType::u8 ? 120 : -7);
    rt = randomTensor(storage, resultSizes(c), rng, values == Values::extreme);
    operands.push_back(graph.addInput("r", TensorType(rq, toShape(resultSizes(c)))));
    tensors.push_back(&rt);
  }
  AttrDict attrs = attrsOf(c);
  // Results of 16 bits, and of 8 where the case says signed.
  QuantPtr to = c.to == kReal          ? nullptr
                : words && c.to != kS8 ? quantPerTensor(DType::s16, spread / 12000, 99)
                                       : quantPerTensor(c.to == kS8 ? DType::s8 : DType::u8, spread / 50, c.to == kS8 ? 5 : 99);
  attrs.set("to", QuantAttr{to});
  if (c.clamp) attrs.set("clamp_min", int64_t{99}), attrs.set("clamp_max", int64_t{201});
  const Result<Node*> node = b.createNode(c.w.size() == 2 ? "q.linear" : "q.conv", operands, attrs);
  ASSERT_TRUE(node.has_value()) << what << ": " << node.error().render();
  const Target target = targetOf(def);
  if (!def.supports(**node, target)) {
    EXPECT_TRUE(mayRefuse(def, c, values)) << def.id << " refuses " << what;
    return;
  }
  tensors.resize(usize((*node)->numOperands()));  // absent ones at the end are none
  expectExact(def, **node, tensors, what, values == Values::random || values == Values::wide || values == Values::words || ofAnySize);
}

bool holdsHalves(const KernelDef& def) { return def.id.find("_f16_") != std::string_view::npos; }

// What float16 holds: among them the largest, zeros of both signs and numbers below its normal ones.
Tensor asHalves(Tensor t) {
  const std::span<float> w = t.mutableAs<float>();
  for (size_t i = 0; i < w.size(); ++i) w[i] = halfToFloat(floatToHalf(i % 7 == 3 ? w[i] * 1e-5f : w[i]));
  constexpr float kSpecial[] = {65504, -65504, 0, -0.0f, 0x1p-24f, -0x1.ff8p-15f, 0x1p-14f};
  for (size_t i = 0; i < std::size(kSpecial); ++i)
    if (i * 5 + 2 < w.size()) w[i * 5 + 2] = kSpecial[i];
  return t;
}

void runFloat(const KernelDef& def, const ConvCase& c) {
  std::mt19937 rng(static_cast<uint32_t>(c.x.back() * 7 + c.w[0]));
  Graph graph;
  Builder b(graph);
  const Tensor xt = randomTensor(DType::f32, c.x, rng), bt = randomTensor(DType::f32, {c.w[0]}, rng);
  Tensor wt = randomTensor(DType::f32, c.w, rng);
  if (holdsHalves(def)) wt = asHalves(wt);
  const Tensor rt = randomTensor(DType::f32, resultSizes(c), rng);
  Value* x = graph.addInput("x", TensorType(DType::f32, toShape(c.x)));
  Value* w = b.constant("w", wt);
  Value* bias = c.bias ? b.constant("b", bt) : nullptr;
  std::vector<Value*> operands{x, w, bias};
  std::vector<const Tensor*> tensors{&xt, &wt, c.bias ? &bt : nullptr};
  AttrDict attrs = attrsOf(c);
  if (c.residual) {
    operands.push_back(graph.addInput("r", TensorType(DType::f32, toShape(resultSizes(c)))));
    tensors.push_back(&rt);
    if (!*c.post) attrs.set("post", std::string("a0 + a1"));
  }
  const Result<Node*> node = b.createNode(c.w.size() == 2 ? "linear" : "conv", operands, attrs);
  ASSERT_TRUE(node.has_value()) << c.name << ": " << node.error().render();
  if (!def.supports(**node, targetOf(def))) {
    EXPECT_TRUE(mayRefuse(def, c, Values::random)) << def.id << " refuses " << c.name;
    return;
  }
  tensors.resize(usize((*node)->numOperands()));
  expectExact(def, **node, tensors, c.name);
}

TEST(ConvRows, QuantizedRowsAreExact) {
  for (const KernelDef* def : rowsFor("q.conv"))
    for (const ConvCase& c : cases())
      for (Values values : {Values::random, Values::extreme, Values::small, Values::wide, Values::words, Values::nibbles})
        runQuantized(*def, c, values);
}

// A weight of 255 is not a sum of two bytes: only rows of 16 bits take it.
TEST(ConvRows, UnsignedWeightsWithoutZeroPoint) {
  auto graph = parseGraph(
      "!x = q<u8, scale=0.02, zp=3>\n!w = q<u8, scale=0.01, zp=0>\nconst #w : u8[5,9] = rand(1, 0, 255)\nconst #e : u8[5,9] = splat 255\n"
      "graph @g(%x: !x[4,9]) {\n%w = const #w : !w[5,9]\n%e = const #e : !w[5,9]\n%y = q.linear %x, %e : f32[4,5]\nreturn %y\n}\n");
  ASSERT_TRUE(graph) << graph.error().render();
  Node* node = graph->back();
  std::mt19937 rng(5);
  const Tensor x = randomTensor(DType::u8, {4, 9}, rng);
  int rows = 0;
  for (const KernelDef* def : rowsFor("q.linear")) {
    if (!takes(*def, *node)) continue;
    ++rows;
    EXPECT_EQ(def->id.find("u8s8"), std::string_view::npos) << def->id;
    expectExact(*def, *node, {&x, node->operand(1)->constant()}, "weights of 255");
  }
  EXPECT_GT(rows, 0);
}

TEST(ConvRows, FloatRowsAreExact) {
  for (const KernelDef* def : rowsFor("conv"))
    for (const ConvCase& c : cases())
      if (c.to == ConvCase::To::same || c.to == kReal) runFloat(*def, c);
}

// Code for some number of rows serves others: whole tiles, parts of one, several strips; products that are unrolled and such in a loop.
TEST(ConvRows, ProductsOfAnyNumberOfRows) {
  for (const KernelDef* def : rowsFor("q.linear"))
    for (const int64_t depth : {64, 640})
      for (const int64_t rows : {130, 64, 33, 16, 15, 8, 5, 2, 1}) {
        runQuantized(*def, {"rows", {rows, depth}, {100, depth}, {}, {}, {}}, Values::small, true);
        runQuantized(*def, {"rows", {rows, depth}, {40, depth}, {}, {}, {}, 1, true, "max(a0 + a1, 0)"}, Values::small, true);
      }
}

// Rows that were free: one kernel and one form of its weights for every number of them, and few pieces of code.
TEST(ConvRows, OneFormOfWeightsForAnyNumberOfRows) {
  for (const char* name : {"avx2", "avx512vnni", "amx-int8", "aarch64", "aarch64+dotprod", "aarch64+i8mm"}) {
    const Target target = Target::parse(name).value();
    std::set<std::string> forms, codes;
    for (int64_t rows = 1; rows <= 200; ++rows) {
      Graph graph;
      Builder b(graph);
      Value* x = graph.addInput("x", TensorType(quantPerTensor(DType::u8, 0.02f, 113), Shape{Dim::bound(rows), Dim(1536)}));
      Value* w = b.constant("w", Tensor(DType::s8, {384, 1536}), quantPerTensor(DType::s8, 0.01f, 0));
      AttrDict attrs;
      attrs.set("to", QuantAttr{quantPerTensor(DType::u8, 0.1f, 99)});
      const Result<Node*> node = b.createNode("q.linear", {x, w}, attrs);
      ASSERT_TRUE(node.has_value()) << node.error().render();
      const std::optional<KernelChoice> choice = selectKernel(**node, target);
      ASSERT_TRUE(choice.has_value()) << name;
      forms.insert(std::string(choice->def->id) + " " + choice->def->packing(*choice->plan));
      codes.insert(codeKey(*choice->def, **node, target, *choice->plan));
    }
    EXPECT_EQ(forms.size(), 1) << name << ": " << fmt::format("{}", fmt::join(forms, "; "));
    EXPECT_LE(codes.size(), 16) << name;
  }
}

// Code for images of one size serves others: lines of many tiles, of one and of a part of one, few lines and many, steps that are unrolled
// and such in a loop.
TEST(ConvRows, ImagesOfAnySize) {
  const int64_t sizes[][2] = {{24, 50}, {9, 33}, {7, 16}, {30, 15}, {5, 7}, {3, 2}, {1, 40}, {11, 1}};
  for (const KernelDef* def : rowsFor("q.conv"))
    for (const auto& [h, w] : sizes) {
      if (def->id.starts_with("dw_")) continue;
      runQuantized(*def, {"3x3 of any size", {1, h, w, 40}, {36, 40, 3, 3}, {}, {1, 1, 1, 1}, {}}, Values::small, true);
      if (h > 1) runQuantized(*def, {"looked up", {1, h, w, 36}, {20, 36, 3, 3}, {}, {30, 30, 30, 30}, {30, 30}}, Values::small, true);
      if (def->id.find("amx") == std::string_view::npos) continue;
      runQuantized(*def, {"3x3 of many channels", {1, h, w, 130}, {72, 130, 3, 3}, {2, 2}, {1, 1, 1, 1}, {}, 1, true}, Values::small, true);
      if (h > 1 && w > 1) runQuantized(*def, {"2x2 in place", {2, h, w, 64}, {20, 64, 2, 2}, {}, {}, {}}, Values::small, true);
    }
}

// Height and width that were free: one kernel and one form of its weights for all of them, and few pieces of code.
TEST(ConvRows, OneFormOfWeightsForImagesOfAnySize) {
  for (const char* name : {"avx2", "avx512vnni", "amx-int8", "aarch64", "aarch64+i8mm"})
    for (const ConvCase& c : {ConvCase{"3x3", {}, {128, 96, 3, 3}, {}, {1, 1, 1, 1}, {}},
                              {"1x1 stride 2", {}, {72, 64, 1, 1}, {2, 2}, {}, {}},
                              {"1x3", {}, {60, 480, 1, 3}, {}, {0, 1, 0, 1}, {}},
                              {"depthwise", {}, {96, 1, 5, 5}, {}, {2, 2, 2, 2}, {}, 96}}) {
      const Target target = Target::parse(name).value();
      std::set<std::string> forms, codes;
      for (int64_t h = 3; h <= 80; h += 7)
        for (int64_t w = 5; w <= 120; w += 5) {
          Graph graph;
          Builder b(graph);
          Value* x = graph.addInput(
              "x", TensorType(quantPerTensor(DType::u8, 0.02f, 113), Shape{Dim(1), Dim::bound(h), Dim::bound(w), Dim(c.w[1] * c.group)}));
          AttrDict attrs = attrsOf(c);
          attrs.set("to", QuantAttr{quantPerTensor(DType::u8, 0.1f, 99)});
          const Result<Node*> node =
              b.createNode("q.conv", {x, b.constant("w", Tensor(DType::s8, c.w), quantPerTensor(DType::s8, 0.01f, 0))}, attrs);
          ASSERT_TRUE(node.has_value()) << node.error().render();
          const std::optional<KernelChoice> choice = selectKernel(**node, target);
          ASSERT_TRUE(choice.has_value()) << name;
          forms.insert(std::string(choice->def->id) + " " + choice->def->packing(*choice->plan));
          codes.insert(codeKey(*choice->def, **node, target, *choice->plan));
        }
      EXPECT_EQ(forms.size(), 1) << name << " " << c.name << ": " << fmt::format("{}", fmt::join(forms, "; "));
      EXPECT_LE(codes.size(), 10) << name << " " << c.name << ": " << fmt::format("{}", fmt::join(codes, "\n"));
    }
}

// Where weights of float16 are worth it: many of them, few rows.
TEST(ConvRows, HalfWeightsAreExact) {
  const ConvCase many[] = {{"linear", {1, 600}, {500, 600}, {}, {}, {}},
                           {"linear rows", {13, 600}, {500, 600}, {}, {}, {}, 1, true, "max(a0 + a1, 0)"},
                           {"linear tail", {5, 777}, {401, 777}, {}, {}, {}},
                           {"1x1", {1, 4, 4, 600}, {500, 600, 1, 1}, {}, {}, {}},
                           {"3x3", {1, 4, 4, 180}, {170, 180, 3, 3}, {}, {1, 1, 1, 1}, {}},
                           {"3x3 stride 2", {1, 7, 8, 181}, {170, 181, 3, 3}, {2, 2}, {1, 1, 1, 1}, {}},
                           {"groups", {1, 3, 3, 512}, {512, 128, 3, 3}, {}, {1, 1, 1, 1}, {}, 4}};
  for (const KernelDef* def : rowsFor("conv"))
    for (const ConvCase& c : many)
      if (holdsHalves(*def)) runFloat(*def, c);
}

// Weights that float16 does not hold to the bit are left to other rows, whichever of them it is.
TEST(ConvRows, OnlyHalvesAreKeptAsHalves) {
  for (const float last : {1.0001f, 65520.0f, std::numeric_limits<float>::infinity(), 2.98023224e-08f, std::nanf("")}) {
    Graph graph;
    Builder b(graph);
    Value* x = graph.addInput("x", TensorType(DType::f32, Shape{4, 600}));
    Tensor w(DType::f32, {500, 600});
    std::fill(w.mutableAs<float>().begin(), w.mutableAs<float>().end(), 0.5f);
    w.mutableAs<float>().back() = last;
    const Result<Node*> node = b.createNode("linear", {x, b.constant("w", w)}, {});
    ASSERT_TRUE(node.has_value()) << node.error().render();
    for (const KernelDef* def : rowsFor("linear"))
      EXPECT_TRUE(!holdsHalves(*def) || takes(*def, **node) == std::isinf(last)) << def->id << " " << last;
  }
}

}  // namespace
}  // namespace qc::testing
