// Rules: priority, names, types, errors that help, JSON.
#include "quantizer/rules/qconfig.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/op_def.h"
#include "ir/text.h"
#include "quantizer/rules/nearest.h"

namespace qc {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kNet = R"(
const #w : f32[4,4,1,1] = rand(7, -1.0, 1.0)
graph @net(%x: f32[1,4,8,8]) -> ("y") {
  %w = const #w : f32[4,4,1,1]
  %a = conv %x, %w : f32[1,4,8,8] loc("/stem/Conv")
  %b = relu %a : f32[1,4,8,8] loc("/stem/act/Relu")
  %c = conv %b, %w : f32[1,4,8,8] loc("/head/fc/Conv_1")
  %d = leaky_relu %c : f32[1,4,8,8] loc("/head/fc/LeakyRelu")
  %e = conv %d, %w : f32[1,4,8,8] loc("/head/fc/Conv_2")
  return %e
}
)";

QConfig numbered(int64_t bins) {
  QConfig config = defaultQConfig(Backend::x86);
  config.activation.observerArgs.set("bins", bins);
  return config;
}

class Rules : public testing::Test {
 protected:
  void SetUp() override {
    auto parsed = parseGraph(kNet);
    ASSERT_TRUE(parsed) << parsed.error().render();
    graph_ = std::move(*parsed);
  }
  // The bins of the configuration chosen for the producer of `value`; -1 keep float, -2 no rule.
  int64_t chosen(const QConfigMapping& rules, const std::string& value) {
    auto resolved = rules.resolve(graph_);
    EXPECT_TRUE(resolved) << resolved.error().render();
    if (!resolved) return -3;
    const auto decision = resolved->of(*graph_.findValue(value)->producer());
    if (!decision.rule) return -2;
    return decision.config() ? decision.config()->activation.observerArgs.integer("bins") : -1;
  }
  std::string problem(const QConfigMapping& rules) {
    auto resolved = rules.resolve(graph_);
    EXPECT_FALSE(resolved);
    return resolved ? "" : resolved.error().render();
  }
  Graph graph_;
};

TEST_F(Rules, PriorityOfLevels) {
  QConfigMapping rules;
  EXPECT_EQ(chosen(rules, "c"), -2);
  rules.global(numbered(16));
  EXPECT_EQ(chosen(rules, "c"), 16);
  rules.objectType("Conv", numbered(17));
  EXPECT_EQ(chosen(rules, "c"), 17);
  EXPECT_EQ(chosen(rules, "b"), 16);
  rules.nameRegex("/head", numbered(18)).nameRegex("/head/fc", numbered(19));
  EXPECT_EQ(chosen(rules, "c"), 18) << "the first regex wins";
  EXPECT_EQ(chosen(rules, "a"), 17);
  rules.between("b", "d", numbered(20));
  EXPECT_EQ(chosen(rules, "c"), 20);
  EXPECT_EQ(chosen(rules, "e"), 18);
  rules.name("/head", numbered(21));
  EXPECT_EQ(chosen(rules, "c"), 21);
  rules.name("/head/fc", numbered(22));
  EXPECT_EQ(chosen(rules, "c"), 22) << "the nearest enclosing name";
  rules.name("/head/fc/Conv_1", numbered(23));
  EXPECT_EQ(chosen(rules, "c"), 23);
  rules.nameTypeOrder("/head/fc", "conv", 1, keepFloat());
  EXPECT_EQ(chosen(rules, "c"), 23);
  EXPECT_EQ(chosen(rules, "e"), -1) << "keep float wins";
}

TEST_F(Rules, SettingAgainReplaces) {
  QConfigMapping rules;
  rules.nameRegex("/head", numbered(16)).nameRegex("/head/fc", numbered(17)).nameRegex("/head", numbered(18));
  EXPECT_EQ(rules.rules().size(), 2u);
  EXPECT_EQ(chosen(rules, "c"), 18);
}

TEST_F(Rules, ValueNamesAndTypesInAnyCase) {
  EXPECT_EQ(chosen(QConfigMapping().name("d", numbered(16)), "d"), 16);
  EXPECT_EQ(chosen(QConfigMapping().objectType("LeakyRelu", numbered(16)), "d"), 16);
  EXPECT_EQ(chosen(QConfigMapping().objectType("leaky_relu", numbered(16)), "d"), 16);
}

TEST_F(Rules, WhatMatchesNothingIsAnErrorWithSuggestions) {
  EXPECT_THAT(problem(QConfigMapping().objectType("Covn", keepFloat())), HasSubstr("did you mean 'conv'"));
  EXPECT_THAT(problem(QConfigMapping().name("/heat/fc", keepFloat())), HasSubstr("'/head/fc'"));
  EXPECT_THAT(problem(QConfigMapping().nameRegex("head.*", keepFloat())), HasSubstr("matches nothing"));
  EXPECT_THAT(problem(QConfigMapping().nameRegex("(", keepFloat())), HasSubstr("regular expression"));
  EXPECT_THAT(problem(QConfigMapping().between("b", "dd", keepFloat())), HasSubstr("there is no value 'dd'"));
  EXPECT_THAT(problem(QConfigMapping().nameTypeOrder("/head/fc", "conv", 2, keepFloat())),
              HasSubstr("'/head/fc' holds conv (order 0 to 1), leaky_relu (order 0 to 0)"));
  EXPECT_THAT(problem(QConfigMapping().nameTypeOrder("/haed/fc", "conv", 0, keepFloat())),
              AllOf(HasSubstr("no module '/haed/fc'"), HasSubstr("did you mean '/head/fc'"), Not(HasSubstr("'conv'"))));
}

TEST(QConfigDefaults, Backends) {
  const QConfig x86 = defaultQConfig(Backend::x86), fbgemm = defaultQConfig(Backend::fbgemm), xnnpack = defaultQConfig(Backend::xnnpack);
  EXPECT_EQ(x86.activation.dtype, DType::u8);
  EXPECT_EQ(x86.activation.qmax, 255);
  EXPECT_EQ(x86.weight.axis, 0);
  EXPECT_EQ(fbgemm.activation.qmax, 127);
  EXPECT_EQ(defaultQConfig(Backend::qnnpack).weight.axis, -1);
  EXPECT_EQ(xnnpack.activation.dtype, DType::s8);
  EXPECT_EQ(xnnpack.weight.qmin, -127);
  EXPECT_EQ(*parseBackend("onednn"), Backend::onednn);
  EXPECT_FALSE(parseBackend("tpu"));
}

TEST(QConfigJson, ReadsWithComments) {
  const auto rules = QConfigMapping::parse(R"({
    "backend": "xnnpack",  // s8
    "global": {"activation": {"observer": "percentile", "args": {"percentile": 99, "bins": 512}}, "weight": {"observer": "minmax"}},
    "rules": [
      {"object_type": "softmax", "qconfig": "float"},
      {"name": "/layer1", "object_type": "Conv", "order": 0, "qconfig": null},
      /* a stretch */ {"from": "x", "to": "y", "qconfig": "dynamic"}
    ]
  })");
  ASSERT_TRUE(rules) << rules.error().render();
  ASSERT_EQ(rules->rules().size(), 4u);
  const QConfig& global = *rules->rules()[0].entry;
  EXPECT_EQ(global.activation.dtype, DType::s8);
  EXPECT_EQ(global.activation.observerArgs.real("percentile"), 99.0);
  EXPECT_EQ(global.weight.axis, -1);
  EXPECT_FALSE(rules->rules()[1].entry);
  EXPECT_TRUE(rules->rules()[3].entry->activation.dynamic);
  const auto again = QConfigMapping::parse(rules->toJson());
  ASSERT_TRUE(again) << again.error().render();
  ASSERT_EQ(again->rules().size(), rules->rules().size());
  EXPECT_EQ(again->toJson(), rules->toJson());
}

TEST(QConfigJson, ErrorsNameTheKey) {
  const auto problem = [](const char* text) {
    const auto rules = QConfigMapping::parse(text, "r.json");
    EXPECT_FALSE(rules) << text;
    return rules ? std::string() : rules.error().render();
  };
  EXPECT_THAT(problem("{"), AllOf(HasSubstr("r.json: parse error at line 1"), Not(HasSubstr("json.exception"))));
  EXPECT_THAT(problem("[]"), HasSubstr("not an object"));
  EXPECT_THAT(problem(R"({"rule": []})"), HasSubstr("did you mean 'rules'"));
  EXPECT_THAT(problem(R"({"global": "flaot"})"), HasSubstr("did you mean 'float'"));
  EXPECT_THAT(problem(R"({"rules": [{"name": "x"}]})"), HasSubstr("rules[0] lacks 'qconfig'"));
  EXPECT_THAT(problem(R"({"rules": [{"name": "x", "name_regex": "y", "qconfig": "float"}]})"), HasSubstr("rules[0] is none of"));
  EXPECT_THAT(problem(R"({"global": {"activation": {"dtype": "f32"}}})"), HasSubstr("global.activation: 'dtype' is 'f32'"));
  EXPECT_THAT(problem(R"({"global": {"weight": {"dtype": "s2"}}})"), AllOf(HasSubstr("'dtype' is 's2'"), HasSubstr("s4 with [-2, 1]")));
  EXPECT_THAT(problem(R"({"global": {"activation": {"observer": "histogramm"}}})"), HasSubstr("did you mean 'histogram'"));
  EXPECT_THAT(problem(R"({"global": {"activation": {"range": [5, 9]}}})"), HasSubstr("leaves out 0"));
  EXPECT_THAT(problem(R"({"backend": "x87"})"), HasSubstr("no backend 'x87'"));
  EXPECT_FALSE(QConfigMapping::load("/nonexistent/rules.json"));
}

TEST(DidYouMean, NearestAndPartsOfNames) {
  EXPECT_EQ(didYouMean("conv", {"relu", "conb"}), "did you mean 'conb' or 'relu'?");
  EXPECT_EQ(didYouMean("fc", {"aa", "/head/fc/Gemm"}), "did you mean '/head/fc/Gemm' or 'aa'?");
  EXPECT_EQ(didYouMean("x", {}), "");
}

}  // namespace
}  // namespace qc
