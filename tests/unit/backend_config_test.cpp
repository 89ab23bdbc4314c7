// Tables of what backends can run, held against rules.
#include "quantizer/rules/backend_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/text.h"
#include "quantizer/quantizer.h"
#include "quantizer/sharing.h"

namespace qc {
namespace {

using testing::HasSubstr;

constexpr const char* kNet = R"(
const #w : f32[16,16,3,3] = rand(7, -1.0, 1.0)
const #h : f32[1] = splat 0.5
graph @g(%x: f32[1,16,8,8]) -> ("y", "z") {
  %w = const #w : f32[16,16,3,3]
  %h = const #h : f32[1]
  %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %b = clip %a {min=0.0, max=6.0} : f32[1,16,8,8]
  %c = conv %b, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %s = add %b, %c : f32[1,16,8,8]
  %r = relu %s : f32[1,16,8,8]
  %m = mul %r, %h : f32[1,16,8,8]
  %p = avg_pool %m {kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1]} : f32[1,16,8,8]
  %y = conv %p, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %g = gelu %y : f32[1,16,8,8]
  %z = conv %g, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  return %y, %z
})";

class Tables : public testing::Test {
 protected:
  void annotate(const QConfigMapping& rules) {
    auto parsed = parseGraph(kNet);
    ASSERT_TRUE(parsed) << parsed.error().render();
    graph_ = std::move(*parsed);
    auto report = annotateGraph(graph_, rules);
    ASSERT_TRUE(report) << report.error().render();
    report_ = std::move(*report);
  }
  std::string reason(const std::string& value) {
    for (const CoverageRow& r : report_.rows)
      if (r.node == graph_.findValue(value)->producer()->location() || r.node == value)
        return (r.quantized ? "int8: " : "float: ") + r.reason;
    return "no row";
  }
  std::string out(const std::string& value) { return toString(graph_.findValue(value)->producer()->annotation()->output); }
  std::string in(const std::string& value, size_t i) {
    const auto& inputs = graph_.findValue(value)->producer()->annotation()->inputs;
    return i < inputs.size() ? toString(inputs[i]) : "-";
  }
  Graph graph_;
  CoverageReport report_;
};

TEST(BackendConfig, BuiltinTables) {
  for (const std::string& name : builtinBackendNames()) {
    const auto table = builtinBackendConfig(name);
    ASSERT_TRUE(table) << name;
    EXPECT_EQ(table->name(), name);
    EXPECT_TRUE(table->find({"conv", "relu"})) << name;
    EXPECT_EQ(*BackendConfig::parse(table->toJson()), *table) << name;
  }
  EXPECT_TRUE(builtinBackendConfig("onednn")->find({"conv", "add", "relu"}));
  EXPECT_FALSE(builtinBackendConfig("fbgemm")->find({"conv", "add", "relu"}));
  EXPECT_EQ(builtinBackendConfig("qnnpack")->find({"conv"})->dtypes.size(), 2u);
  EXPECT_EQ(builtinBackendConfig("native")->find({"linear"})->dtypes.size(), 3u);
  EXPECT_EQ(builtinBackendConfig("x86")->find({"concat"})->observation, Observation::shareInput);
  EXPECT_THAT(builtinBackendConfig("onedn").error().render(), HasSubstr("'onednn'"));
}

TEST(BackendConfig, EditedByAUser) {
  BackendConfig table = *builtinBackendConfig("qnnpack");
  const size_t before = table.patterns().size();
  table.remove({"sigmoid"}).set({{"conv", "leaky_relu"}, Observation::different, table.find({"conv"})->dtypes});
  EXPECT_EQ(table.patterns().size(), before);
  EXPECT_FALSE(table.find({"sigmoid"}));
  table.set({{"conv"}, Observation::different, {}});
  EXPECT_EQ(table.patterns().size(), before) << "replaced in place";
  EXPECT_EQ(table.patterns().front().ops, std::vector<std::string>{"conv"});
}

TEST_F(Tables, FusionAndSharingByTheTable) {
  annotate(defaultQConfigMapping(Backend::qnnpack));
  EXPECT_THAT(reason("b"), HasSubstr("conv + clip as one op"));
  EXPECT_THAT(reason("r"), HasSubstr("add + relu as one op")) << "but not conv + add, which onednn alone has";
  EXPECT_THAT(out("c"), HasSubstr("u8.histogram"));
  EXPECT_EQ(out("m"), "shared(%m:0)") << "a number beside: the input's parameters";
  EXPECT_EQ(out("p"), "shared(%p:0)");
  EXPECT_THAT(reason("g"), HasSubstr("float: backend 'qnnpack' has no pattern for gelu"));
  annotate(defaultQConfigMapping(Backend::onednn));
  EXPECT_THAT(reason("r"), HasSubstr("conv + add + relu as one op"));
  annotate(defaultQConfigMapping(Backend::x86));
  EXPECT_THAT(reason("g"), HasSubstr("int8")) << "our own compiler";
}

TEST_F(Tables, RulesThatABackendCannotHonour) {
  QConfigMapping rules = defaultQConfigMapping(Backend::xnnpack);
  QConfig wide = defaultQConfig(Backend::xnnpack);
  wide.weight.qmin = -128;
  rules.name("c", wide);
  annotate(rules);
  EXPECT_THAT(reason("c"),
              HasSubstr("float: backend 'xnnpack' wants for conv: weight within [-127, 127], not [-128, 127], or input u8, not s8"));
  wide = defaultQConfig(Backend::xnnpack);
  wide.activation.eps = 1e-7;
  annotate(defaultQConfigMapping(Backend::xnnpack).name("c", wide));
  EXPECT_THAT(reason("c"), HasSubstr("input scales of at least 0.000244140625"));
  QConfig affine = defaultQConfig(Backend::tensorrt);
  affine.activation.scheme = QScheme::affine;
  annotate(defaultQConfigMapping(Backend::tensorrt).name("c", affine));
  EXPECT_THAT(reason("c"), HasSubstr("zero point 0: the symmetric scheme"));
  QConfig dynamic = defaultQConfig(Backend::fbgemm);
  dynamic.activation.observer = "placeholder";
  annotate(defaultQConfigMapping(Backend::fbgemm).name("c", dynamic));
  EXPECT_THAT(reason("c"), HasSubstr("input u8, not float"));
}

// Parameters that an op must have exactly are those of its known range, for no other range of integers.
TEST_F(Tables, ExactParameters) {
  DTypeConfig exact{.input = DTypeWithConstraints{.dtype = DType::u8},
                    .output = DTypeWithConstraints{.dtype = DType::u8, .exactScale = 1.0 / 256, .exactZeroPoint = 0}};
  BackendConfig table = *builtinBackendConfig("fbgemm");
  table.set({{"sigmoid"}, Observation::different, {exact}});
  const char* const kGate = R"(
const #w : f32[16,16,3,3] = rand(7, -1.0, 1.0)
graph @g(%x: f32[1,16,8,8]) -> ("y") {
  %w = const #w : f32[16,16,3,3]
  %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %s = sigmoid %a : f32[1,16,8,8]
  %y = conv %s, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  return %y
})";
  for (const int64_t qmax : {255, 127}) {
    QConfig config = defaultQConfig(Backend::fbgemm);
    config.activation.qmax = qmax;
    graph_ = *parseGraph(kGate);
    auto report = annotateGraph(graph_, QConfigMapping().global(config).backendConfig(table));
    ASSERT_TRUE(report) << report.error().render();
    report_ = *report;
    if (qmax == 255) {
      EXPECT_EQ(out("s"), "fixed(q<u8, scale=0.00390625, zp=0>)");
    } else {
      EXPECT_THAT(reason("s"), HasSubstr("wants for sigmoid: output scale 0.00390625 and zero point 0 exactly"));
    }
  }
}

TEST_F(Tables, Placements) {
  annotate(defaultQConfigMapping(Backend::tensorrt));
  EXPECT_THAT(in("a", 0), HasSubstr("s8[-127:127].entropy/sym"));
  EXPECT_THAT(reason("b"), HasSubstr("conv + clip as one op"));
  EXPECT_THAT(reason("m"), HasSubstr("no pattern for mul"));
  annotate(defaultQConfigMapping(Backend::onnxruntime));
  EXPECT_THAT(in("a", 0), HasSubstr("s8.minmax"));
  EXPECT_THAT(in("a", 1), HasSubstr("s8[-127:127].minmax/sym"));
  EXPECT_THAT(out("p"), HasSubstr("s8.minmax")) << "a pool has parameters of its own";
}

TEST_F(Tables, BiasStaysFloatWhereTheTableSaysSo) {
  constexpr const char* kBiased = R"(
const #w : f32[16,16,3,3] = rand(7, -1.0, 1.0)
const #b : f32[16] = rand(8, -1.0, 1.0)
graph @g(%x: f32[1,16,8,8]) -> ("y") {
  %w = const #w : f32[16,16,3,3]
  %b = const #b : f32[16]
  %y = conv %x, %w, %b {pads=[1,1,1,1]} : f32[1,16,8,8]
  return %y
})";
  for (const auto& [backend, bias] : {std::pair(Backend::tensorrt, "-"), std::pair(Backend::qnnpack, "derived(%y:0, %y:1)")}) {
    graph_ = *parseGraph(kBiased);
    ASSERT_TRUE(annotateGraph(graph_, defaultQConfigMapping(backend)));
    EXPECT_EQ(in("y", 2), bias);
  }
}

TEST_F(Tables, OpsThatExistBehindOthersOnly) {
  BackendConfig table = *builtinBackendConfig("qnnpack");
  table.remove({"relu"}).remove({"add", "relu"}).remove({"mul", "relu"});
  annotate(defaultQConfigMapping(Backend::qnnpack).backendConfig(table));
  EXPECT_THAT(reason("r"), HasSubstr("float: backend 'qnnpack' has relu together with other ops only"));
  EXPECT_THAT(reason("m"), HasSubstr("float: one of its inputs is float"));
  EXPECT_THAT(reason("b"), HasSubstr("conv + clip as one op"));
}

// Patterns of several ops alone, as PyTorch's tutorial has them: each as one op, whatever reads the result; an op outside them stays float.
TEST_F(Tables, PatternsOfSeveralOpsAlone) {
  constexpr const char* kNet = R"(
const #w : f32[16,16,3,3] = rand(7, -1.0, 1.0)
const #l : f32[10,16] = rand(8, -1.0, 1.0)
graph @g(%x: f32[1,16,8,8], %v: f32[4,16]) -> ("s", "q", "z") {
  %w = const #w : f32[16,16,3,3]
  %l = const #l : f32[10,16]
  %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %r = relu %a : f32[1,16,8,8]
  %c = conv %r, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %t = add %c, %r : f32[1,16,8,8]
  %s = relu %t : f32[1,16,8,8]
  %q = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %z = linear %v, %l : f32[4,10]
  return %s, %q, %z
})";
  const auto table = [](const std::vector<std::string>& patterns) {
    std::string list;
    for (const std::string& ops : patterns)
      list += (list.empty() ? "" : ", ") +
              ("{\"ops\": " + ops + R"(, "dtypes": [{"input": "u8", "output": "u8", "weight": "s8", "bias": "f32"}]})");
    return BackendConfig::parse(R"({"name": "npu", "patterns": [)" + list + "]}").value();
  };
  const auto place = [&](const BackendConfig& config) {
    graph_ = *parseGraph(kNet);
    const auto report = annotateGraph(graph_, defaultQConfigMapping(config));
    ASSERT_TRUE(report) << report.error().render();
    report_ = *report;
  };
  place(table({R"(["conv", "relu"])", R"(["linear"])"}));
  EXPECT_THAT(reason("a"), HasSubstr("int8: conv + relu as one op"));
  EXPECT_THAT(reason("c"), HasSubstr("float: backend 'npu' has conv together with other ops only"));
  EXPECT_THAT(reason("q"), HasSubstr("together with other ops only"));
  EXPECT_THAT(reason("t"), HasSubstr("no pattern for add"));
  EXPECT_THAT(reason("z"), HasSubstr("int8:"));
  // Three ops without the two in front; a norm that is folded into its layer.
  place(table({R"(["conv", "add", "relu"])", R"(["conv", "batch_norm", "relu"])"}));
  EXPECT_THAT(reason("a"), HasSubstr("int8: conv + relu as one op"));
  EXPECT_THAT(reason("s"), HasSubstr("int8: conv + add + relu as one op"));
  EXPECT_THAT(reason("z"), HasSubstr("no pattern for linear"));
  place(table({R"(["conv", "batch_norm"])"}));
  EXPECT_THAT(reason("a"), HasSubstr("int8:"));
}

// Types that the default rules do not have: the rules follow the table.
TEST_F(Tables, RulesFollowATable) {
  const BackendConfig table = BackendConfig::parse(R"({"patterns": [{"ops": ["conv"], "dtypes": [
    {"input": {"dtype": "s8", "scale_min": 0.0001, "exact_zero_point": 0}, "output": "s8", "weight": {"dtype": "s8", "qmin_lowest": -127}}]}]})")
                                  .value();
  annotate(defaultQConfigMapping(table));
  EXPECT_THAT(in("a", 0), HasSubstr("s8.histogram/sym/eps=0.0001"));
  EXPECT_THAT(in("a", 1), HasSubstr("s8[-127:127].per_channel_minmax"));
}

// A rule may hand the input's parameters on.
TEST_F(Tables, ReuseInput) {
  QConfig reuse = defaultQConfig(Backend::x86);
  reuse.activation.observer = "reuse_input";
  annotate(defaultQConfigMapping(Backend::x86).name("p", reuse));
  EXPECT_EQ(out("p"), "shared(%p:0)");
  EXPECT_THAT(in("p", 0), HasSubstr("u8.histogram"));
  annotate(defaultQConfigMapping(Backend::x86).name("p", reuse).name("m", keepFloat()));
  EXPECT_THAT(reason("p"), HasSubstr("float: its rule says to reuse the input's parameters"));
}

}  // namespace
}  // namespace qc
