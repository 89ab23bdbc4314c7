// What the default quantizer decides on small graphs, sharing groups, and quantizers composed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/op_def.h"
#include "ir/text.h"
#include "quantizer/quantizer.h"
#include "quantizer/sharing.h"

namespace qc {
namespace {

using testing::HasSubstr;

constexpr const char* kWeights = R"(
const #w : f32[16,16,3,3] = rand(7, -1.0, 1.0)
const #p : f32[16,16,1,1] = rand(8, -1.0, 1.0)
const #b : f32[16] = rand(9, -1.0, 1.0)
const #l : f32[64,64] = rand(10, -1.0, 1.0)
)";

class Annotate : public testing::Test {
 protected:
  void load(const std::string& body) {
    auto parsed = parseGraph(kWeights + body);
    ASSERT_TRUE(parsed) << parsed.error().render();
    graph_ = std::move(*parsed);
  }
  void annotate(const std::string& body, const QConfigMapping& rules = defaultQConfigMapping(Backend::x86)) {
    load(body);
    if (HasFatalFailure()) return;
    auto report = annotateGraph(graph_, rules);
    ASSERT_TRUE(report) << report.error().render();
    report_ = std::move(*report);
  }
  const QuantAnnotation& of(const std::string& value) { return *graph_.findValue(value)->producer()->annotation(); }
  std::string in(const std::string& value, size_t i) { return i < of(value).inputs.size() ? toString(of(value).inputs[i]) : "-"; }
  std::string out(const std::string& value) { return toString(of(value).output); }
  const CoverageRow& row(const std::string& value) {
    const std::string& name = graph_.findValue(value)->producer()->location();
    for (const CoverageRow& r : report_.rows)
      if (r.node == name || r.node == value) return r;
    ADD_FAILURE() << "no row " << value;
    return report_.rows.front();
  }
  Graph graph_;
  CoverageReport report_;
};

// Too little work stays float, says so and which rule makes it int8; that rule does.
TEST_F(Annotate, RulesForceWhatDoesNotPay) {
  constexpr const char* kSmall = R"(
  const #s : f32[4,4] = rand(1, -1.0, 1.0)
  const #r : f32[1,16,4] = rand(2, -1.0, 1.0)
  graph @g(%x: f32[1,4], %t: f32[5,1,4]) -> ("y", "h") {
    %s = const #s : f32[4,4]
    %r = const #r : f32[1,16,4]
    %y = linear %x, %s : f32[1,4]
    %h, %n, %c = lstm %t, %r, %r {hidden_size=4} : f32[5,1,1,4], f32[1,1,4], f32[1,1,4]
    return %y, %h
  })";
  annotate(kSmall);
  EXPECT_FALSE(row("y").quantized);
  EXPECT_THAT(row("y").reason, HasSubstr("too little work"));
  ASSERT_TRUE(row("y").remedy && row("h").remedy);
  EXPECT_TRUE(row("y").remedy->force);
  EXPECT_EQ(row("h").remedy->qconfig, "dynamic");
  const auto rule = [&](const std::string& value) {
    const CoverageRow::Rule r = *row(value).remedy;
    return fmt::format(R"({{"rules": [{{"name": "{}", "qconfig": "{}"{}}}]}})", r.name, r.qconfig, r.force ? R"(, "force": true)" : "");
  };
  const std::string forLinear = rule("y"), forLstm = rule("h");
  annotate(kSmall, QConfigMapping::parse(forLinear).value());
  EXPECT_TRUE(row("y").quantized) << forLinear;
  annotate(kSmall, QConfigMapping::parse(forLstm).value());
  EXPECT_TRUE(row("h").quantized) << forLstm;
  annotate(kSmall, QConfigMapping::parse(R"({"force": true})").value());
  EXPECT_TRUE(row("y").quantized);
  EXPECT_THAT(row("h").reason, HasSubstr("which no rule forces"));
  annotate(kSmall, defaultQConfigMapping(Backend::x86).objectType("linear", defaultQConfig(Backend::x86)).force());
  EXPECT_TRUE(row("y").quantized);
  // At run time: the input of the linear layer has too little work, the LSTM reads raw features.
  annotate(kSmall, dynamicQConfigMapping(Backend::x86));
  EXPECT_FALSE(row("y").quantized);
  EXPECT_THAT(in("h", 0), HasSubstr("-"));
  annotate(kSmall, QConfigMapping().global(dynamicQConfig(Backend::x86)).force());
  EXPECT_TRUE(row("y").quantized);
  EXPECT_THAT(in("h", 0), HasSubstr("dyn"));
}

// A stretch of its own in the rules: its values are not shared with those outside, and its rules are its own.
TEST_F(Annotate, StretchesByRules) {
  const auto rules =
      QConfigMapping::parse(R"({"standalone": [{"from": "r", "to": "c", "rules": {"backend": "xnnpack", "backend_config": null}}]})");
  ASSERT_TRUE(rules) << rules.error().render();
  annotate(R"(graph @g(%x: f32[1,16,8,8]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %r = relu %a : f32[1,16,8,8]
    %c = conv %r, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %y = conv %c, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    return %y
  })",
           *rules);
  EXPECT_THAT(in("a", 0), HasSubstr("u8.histogram"));
  EXPECT_THAT(in("c", 0), HasSubstr("s8.histogram"));
  EXPECT_THAT(row("c").reason, HasSubstr("on its own from 'r' to 'c'"));
  EXPECT_TRUE(row("c").quantized);
}

TEST_F(Annotate, ConvReluConv) {
  annotate(R"(graph @g(%x: f32[1,16,8,8]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %b = const #b : f32[16]
    %a = conv %x, %w, %b {pads=[1,1,1,1]} : f32[1,16,8,8]
    %r = relu %a : f32[1,16,8,8]
    %y = conv %r, %w, %b {pads=[1,1,1,1]} : f32[1,16,8,8]
    return %y
  })");
  EXPECT_THAT(in("a", 0), HasSubstr("u8.histogram"));
  EXPECT_THAT(in("a", 1), HasSubstr("s8.per_channel_minmax/sym/ch0"));
  EXPECT_EQ(in("a", 2), "derived(%a:0, %a:1)");
  EXPECT_EQ(out("a"), "-") << "rounded once, behind relu";
  EXPECT_EQ(in("r", 0), "-");
  EXPECT_THAT(out("r"), HasSubstr("u8.histogram"));
  EXPECT_THAT(in("y", 0), HasSubstr("u8.histogram"));
  EXPECT_EQ(out("y"), "-") << "nothing in int8 reads it";
  EXPECT_EQ(report_.quantizedCount(), 3);
  EXPECT_THAT(row("r").reason, HasSubstr("conv + relu as one op"));
  const auto groups = computeSharingGroups(graph_);
  ASSERT_TRUE(groups);
  EXPECT_EQ(groups->specs.size(), 2u);
  EXPECT_EQ(groups->groupOf.at({"y", 0}), groups->groupOf.at({"r", -1}));
}

TEST_F(Annotate, ResidualAddIsPartOfTheConvolution) {
  annotate(R"(graph @g(%x: f32[1,16,8,8]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %r = relu %a : f32[1,16,8,8]
    %c = conv %r, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %s = add %r, %c : f32[1,16,8,8]
    %t = relu %s : f32[1,16,8,8]
    %y = conv %t, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    return %y
  })");
  EXPECT_EQ(out("c"), "-");
  EXPECT_THAT(in("s", 0), HasSubstr("u8.histogram"));
  EXPECT_EQ(in("s", 1), "-") << "no inner rounding";
  EXPECT_EQ(out("s"), "-");
  EXPECT_THAT(out("t"), HasSubstr("u8.histogram"));
  EXPECT_THAT(row("s").reason, HasSubstr("conv + add + relu as one op"));
}

TEST_F(Annotate, ArithmeticWithNumbersJoinsTheConvolution) {
  annotate(R"(const #h : f32[1] = splat 0.5
  graph @g(%x: f32[1,16,8,8]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %h = const #h : f32[1]
    %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %b = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %m = mul %h, %b : f32[1,16,8,8]
    %k = hardswish %m : f32[1,16,8,8]
    %s = add %a, %k : f32[1,16,8,8]
    %y = conv %s, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    return %y
  })");
  EXPECT_THAT(row("b").reason, HasSubstr("conv + mul + hardswish + add as one op"));
  EXPECT_THAT(out("a"), HasSubstr("u8.histogram")) << "the earlier conv is rounded";
  EXPECT_THAT(in("s", 0), HasSubstr("u8.histogram"));
  EXPECT_EQ(in("s", 1), "-");
  EXPECT_EQ(out("b"), "-");
}

TEST_F(Annotate, IsolatedOpsStayFloat) {
  annotate(R"(graph @g(%x: f32[1,16,8,8]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %a = mul %x, %x : f32[1,16,8,8]
    %c = conv %a, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %s = sigmoid %c : f32[1,16,8,8]
    %y = softmax %s {axis=1} : f32[1,16,8,8]
    return %y
  })");
  EXPECT_FALSE(row("a").quantized);
  EXPECT_THAT(row("a").reason, HasSubstr("one of its inputs is float"));
  EXPECT_TRUE(row("c").quantized);
  EXPECT_FALSE(row("s").quantized);
  EXPECT_THAT(row("s").reason, HasSubstr("nothing in int8 reads"));
  EXPECT_FALSE(row("y").quantized);
  EXPECT_THAT(row("y").reason, HasSubstr("accuracy"));
}

TEST_F(Annotate, FixedParametersAndTheirMovement) {
  annotate(R"(graph @g(%x: f32[1,16,8,8]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %p = const #p : f32[16,16,1,1]
    %c = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %s = sigmoid %c : f32[1,16,8,8]
    %t = transpose %s {perm=[0,1,3,2]} : f32[1,16,8,8]
    %y = conv %t, %p : f32[1,16,8,8]
    return %y
  })");
  EXPECT_EQ(out("s"), "fixed(q<u8, scale=0.00390625, zp=0>)");
  EXPECT_EQ(in("t", 0), "fixed(q<u8, scale=0.00390625, zp=0>)");
  EXPECT_EQ(out("t"), "shared(%t:0)");
  EXPECT_EQ(in("y", 0), "fixed(q<u8, scale=0.00390625, zp=0>)");
  const auto groups = computeSharingGroups(graph_);
  ASSERT_TRUE(groups);
  EXPECT_EQ(groups->specs.size(), 2u);
}

TEST_F(Annotate, ConcatSharesOneObserver) {
  annotate(R"(graph @g(%x: f32[1,16,8,8]) -> ("y", "z") {
    %w = const #w : f32[16,16,3,3]
    %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %b = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %c = concat %a, %b {axis=2} : f32[1,16,16,8]
    %m = max_pool %c {kernel_shape=[2,2], strides=[2,2]} : f32[1,16,8,4]
    %s1, %s2 = split %m {axis=2, sizes=[4,4]} : f32[1,16,4,4], f32[1,16,4,4]
    %y = conv %s1, %w {pads=[1,1,1,1]} : f32[1,16,4,4]
    %z = conv %s2, %w {pads=[1,1,1,1]} : f32[1,16,4,4]
    return %y, %z
  })");
  EXPECT_EQ(in("c", 1), "shared(%c:0)");
  EXPECT_EQ(in("z", 0), "shared(%s1:0)");
  const auto groups = computeSharingGroups(graph_);
  ASSERT_TRUE(groups) << groups.error().render();
  EXPECT_EQ(groups->specs.size(), 2u) << "the input, and everything from the convs to the second row of convs";
}

TEST_F(Annotate, ElementwiseRegionsRoundOnce) {
  annotate(R"(const #h : f32[1] = splat 0.5
  graph @g(%x: f32[1,16,8,8]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %h = const #h : f32[1]
    %c = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %q = mul %c, %c : f32[1,16,8,8]
    %k = mul %q, %c : f32[1,16,8,8]
    %t = tanh %k : f32[1,16,8,8]
    %m = mul %t, %h : f32[1,16,8,8]
    %g = mul %m, %c : f32[1,16,8,8]
    %y = conv %g, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    return %y
  })");
  EXPECT_THAT(out("c"), HasSubstr("u8.histogram"));
  for (const char* inner : {"q", "k", "t", "m"}) EXPECT_EQ(out(inner), "-") << inner;
  EXPECT_EQ(in("k", 0), "-");
  EXPECT_THAT(in("k", 1), HasSubstr("u8.histogram"));
  EXPECT_EQ(in("m", 1), "-") << "constants stay float";
  EXPECT_THAT(out("g"), HasSubstr("u8.histogram"));
  EXPECT_THAT(row("k").reason, HasSubstr("mul + mul + tanh + mul + mul as one op"));
}

TEST_F(Annotate, MovementInFrontOfAConvolutionIsRoundedFirst) {
  annotate(R"(const #d : f32[2,64] = rand(3, -1.0, 1.0)
  graph @g(%x: f32[1,8,8,16], %v: f32[8,8]) -> ("y", "z") {
    %w = const #w : f32[16,16,3,3]
    %d = const #d : f32[2,64]
    %t = transpose %x {perm=[0,3,1,2]} : f32[1,16,8,8]
    %y = conv %t, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %r = reshape %v {shape=[1,64]} : f32[1,64]
    %z = linear %r, %d : f32[1,2]
    return %y, %z
  })");
  EXPECT_THAT(in("t", 0), HasSubstr("u8.histogram"));
  EXPECT_EQ(out("t"), "shared(%t:0)");
  EXPECT_FALSE(row("z").quantized) << "moving does not make the input integers";
  EXPECT_FALSE(row("r").quantized);
}

TEST_F(Annotate, TooLittleWorkStaysFloat) {
  annotate(R"(const #d : f32[2,64] = rand(3, -1.0, 1.0)
  graph @g(%x: f32[1,64]) -> ("y") {
    %d = const #d : f32[2,64]
    %y = linear %x, %d : f32[1,2]
    return %y
  })");
  EXPECT_FALSE(row("y").quantized);
  EXPECT_THAT(row("y").reason, HasSubstr("too little work"));
}

TEST_F(Annotate, AttentionProducts) {
  annotate(R"(graph @g(%q: f32[1,64,64], %k: f32[1,64,64], %v: f32[1,64,64]) -> ("y") {
    %a = matmul %q, %k : f32[1,64,64]
    %s = softmax %a {axis=2} : f32[1,64,64]
    %y = matmul %s, %v : f32[1,64,64]
    return %y
  })");
  EXPECT_THAT(in("a", 1), HasSubstr("u8.histogram"));
  EXPECT_EQ(out("a"), "-");
  EXPECT_THAT(in("y", 0), HasSubstr("u8.minmax")) << "shares of many positions stay far below 1, and none may be cut off";
  EXPECT_THAT(in("y", 1), HasSubstr("u8.histogram"));
}

TEST_F(Annotate, SoftmaxIsFixedWhereTheBackendSaysSo) {
  annotate(R"(graph @g(%q: f32[1,64,64], %v: f32[1,64,64]) -> ("y") {
    %s = softmax %q {axis=2} : f32[1,64,64]
    %y = matmul %s, %v : f32[1,64,64]
    return %y
  })",
           defaultQConfigMapping(Backend::onednn));
  EXPECT_THAT(in("y", 0), HasSubstr("scale=0.00390625, zp=0"));
}

TEST_F(Annotate, RulesKeepFloatAndSplitUnits) {
  QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  rules.objectType("relu", keepFloat());
  annotate(R"(graph @g(%x: f32[1,16,8,8]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %r = relu %a : f32[1,16,8,8]
    %y = conv %r, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    return %y
  })",
           rules);
  EXPECT_FALSE(row("r").quantized);
  EXPECT_TRUE(of("r").keepFloat);
  EXPECT_THAT(row("r").reason, HasSubstr("kept float by the rule for type 'relu'"));
  EXPECT_EQ(out("a"), "-");
}

// What a rule says of weights means nothing to an op without, and sums of integers take no groups, whoever runs them.
TEST_F(Annotate, WeightsOfARule) {
  constexpr const char* kBody = R"(graph @g(%x: f32[1,16,8,8]) -> ("y") {
  %w = const #w : f32[16,16,3,3]
  %c = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %r = relu %c : f32[1,16,8,8]
  %y = conv %r, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  return %y
})";
  QConfig narrow = defaultQConfig(Backend::x86);
  narrow.weight.qmin = -7;
  narrow.weight.qmax = 7;
  annotate(kBody, defaultQConfigMapping(Backend::x86).objectType("relu", narrow));
  EXPECT_THAT(row("r").reason, HasSubstr("conv + relu as one op"));
  for (const Backend backend : {Backend::x86, Backend::fbgemm}) {
    QConfig grouped = defaultQConfig(backend);
    grouped.weight.observer = "per_group";
    grouped.weight.blockSize = 8;
    grouped.weight.axis = 1;
    annotate(kBody, defaultQConfigMapping(backend).name("c", grouped));
    EXPECT_FALSE(row("c").quantized);
    EXPECT_THAT(row("c").reason, HasSubstr("several scales in one channel of its weights"));
  }
}

TEST_F(Annotate, WeightOnlyAndDynamic) {
  const std::string body = R"(graph @g(%x: f32[4,64]) -> ("y") {
    %l = const #l : f32[64,64]
    %a = linear %x, %l : f32[4,64]
    %y = relu %a : f32[4,64]
    return %y
  })";
  annotate(body, QConfigMapping().global(weightOnlyQConfig(Backend::x86)));
  EXPECT_EQ(in("a", 0), "-");
  EXPECT_THAT(in("a", 1), HasSubstr("s8.per_channel_minmax"));
  EXPECT_TRUE(row("a").quantized);
  annotate(body, QConfigMapping().global(dynamicQConfig(Backend::x86)));
  EXPECT_THAT(in("a", 0), HasSubstr("u8.minmax/dyn"));
  EXPECT_THAT(in("a", 1), HasSubstr("s8.per_channel_minmax"));
  EXPECT_EQ(out("a"), "-");
  EXPECT_THAT(row("a").reason, HasSubstr("input u8 at run time per tensor"));
  EXPECT_FALSE(row("y").quantized);
  annotate(body, QConfigMapping().global(dynamicQConfig(Backend::x86, true)));
  EXPECT_THAT(in("a", 0), HasSubstr("u8.per_token/dyn"));
  annotate(body, dynamicQConfigMapping(Backend::x86));
  EXPECT_THAT(in("a", 0), HasSubstr("u8.per_token/dyn"));
  annotate(body, dynamicQConfigMapping(Backend::onnxruntime));
  EXPECT_THAT(in("a", 0), HasSubstr("s8.minmax/dyn"));
  annotate(body, QConfigMapping().global(weightOnlyQConfig(Backend::x86, 4, 32)));
  EXPECT_THAT(in("a", 1), HasSubstr("s4.per_group/ch1/block32"));
  annotate(body, weightOnlyQConfigMapping(Backend::x86, 4, 32));
  EXPECT_THAT(in("a", 1), HasSubstr("s4.per_group/ch1/block32"));
  annotate(R"(graph @g(%x: f32[1,16,5,5]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %y = conv %x, %w : f32[1,16,3,3]
    return %y
  })",
           weightOnlyQConfigMapping(Backend::x86, 4, 32));
  EXPECT_THAT(in("y", 1), HasSubstr("s8.per_channel_minmax")) << "no groups: 8 bits";
  annotate(body, QConfigMapping().global(halfWeightsQConfig()));
  EXPECT_THAT(in("a", 1), HasSubstr("f16"));
}

// What reads raw features has its recurrent weights in integers alone; a rule for its type is taken at its word.
TEST_F(Annotate, RecurrencesOfModelInputs) {
  const char* const body = R"(
const #i : f32[1,24,4] = rand(11, -1.0, 1.0)
const #r : f32[1,24,8] = rand(12, -1.0, 1.0)
const #j : f32[1,24,8] = rand(13, -1.0, 1.0)
graph @g(%x: f32[5,1,4]) -> ("b") {
    %i = const #i : f32[1,24,4]
    %j = const #j : f32[1,24,8]
    %r = const #r : f32[1,24,8]
    %a, %h = gru %x, %i, %r {hidden_size=8} : f32[5,1,1,8], f32[1,1,8]
    %s = reshape %a {shape=[5,1,8]} : f32[5,1,8]
    %b, %k = gru %s, %j, %r {hidden_size=8} : f32[5,1,1,8], f32[1,1,8]
    return %b
  })";
  for (const QConfig& config : {dynamicQConfig(Backend::x86), weightOnlyQConfig(Backend::x86)}) {
    annotate(body, QConfigMapping().global(config));
    EXPECT_EQ(in("a", 0), "-");
    EXPECT_EQ(in("a", 1), "-");
    EXPECT_THAT(in("a", 2), HasSubstr("s8.per_group"));
    EXPECT_THAT(row("a").reason, HasSubstr("weights s8 per row if recurrent, the rest in float as it reads the model's input"));
    EXPECT_THAT(in("b", 1), HasSubstr("s8.per_group"));
    EXPECT_EQ(in("b", 0) == "-", !config.activation.dynamic);
    annotate(body, QConfigMapping().global(config).objectType("gru", config));
    EXPECT_THAT(in("a", 1), HasSubstr("s8.per_group"));
    EXPECT_EQ(in("a", 0) == "-", !config.activation.dynamic);
  }
}

TEST_F(Annotate, ComposedQuantizersRespectClaims) {
  load(R"(graph @g(%x: f32[1,16,8,8]) -> ("y") {
    %w = const #w : f32[16,16,3,3]
    %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    %y = conv %a, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
    return %y
  })");
  QConfigMapping first;
  first.name("a", keepFloat());
  ComposableQuantizer both(
      {std::make_shared<DefaultQuantizer>(first), std::make_shared<DefaultQuantizer>(defaultQConfigMapping(Backend::x86))});
  const Status done = both.annotate(graph_);
  ASSERT_TRUE(done) << done.error().render();
  EXPECT_TRUE(of("a").keepFloat);
  EXPECT_THAT(in("y", 0), HasSubstr("u8.histogram"));
  struct Vandal : Quantizer {
    Status annotate(Graph& graph) override {
      for (Node* n : graph.nodes()) n->annotation().reset();
      return {};
    }
  };
  ComposableQuantizer bad({std::make_shared<DefaultQuantizer>(first), std::make_shared<Vandal>()});
  EXPECT_FALSE(bad.annotate(graph_));
}

TEST_F(Annotate, LongChainsTakeLinearTime) {
  std::string body =
      "graph @g(%x: f32[1,16,8,8]) -> (\"y\") {\n  %w = const #w : f32[16,16,3,3]\n  %v0 = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]\n";
  constexpr int kLength = 20000;
  for (int i = 0; i < kLength; ++i) body += fmt::format("  %v{} = {} %v{} : f32[1,16,8,8]\n", i + 1, i % 2 ? "neg" : "sqrt", i);
  annotate(body + fmt::format("  %y = conv %v{}, %w {{pads=[1,1,1,1]}} : f32[1,16,8,8]\n  return %y\n}}", kLength));
  EXPECT_EQ(report_.quantizedCount(), 2);
}

TEST_F(Annotate, BadSharesAreReportedWithTheirChain) {
  const auto problem = [&](const QuantSpec& first, const QuantSpec& second) {
    load(R"(graph @g(%x: f32[4]) -> ("b") {
      %a = relu %x : f32[4]
      %b = relu %a : f32[4]
      return %b
    })");
    graph_.findValue("a")->producer()->annotation() = QuantAnnotation{{}, first, true, false, {}};
    graph_.findValue("b")->producer()->annotation() = QuantAnnotation{{}, second, true, false, {}};
    const auto groups = computeSharingGroups(graph_);
    EXPECT_FALSE(groups);
    return groups ? std::string() : groups.error().render();
  };
  const QuantSpec observed = ObservedSpec{};
  EXPECT_THAT(problem(SharedSpec{{"b", -1}}, SharedSpec{{"a", -1}}), HasSubstr("with itself: %a -> %b -> %a"));
  EXPECT_THAT(problem(observed, SharedSpec{{"nowhere", -1}}), HasSubstr("not annotated: %b -> %nowhere"));
  EXPECT_THAT(problem(SharedSpec{{"b", -1}}, observed), HasSubstr("a later point: %a -> %b"));
}

TEST_F(Annotate, ImplicitSharingCanBeRefused) {
  load(R"(graph @g(%x: f32[4]) -> ("b") {
    %a = relu %x : f32[4]
    %b = relu %a : f32[4]
    return %b
  })");
  graph_.findValue("a")->producer()->annotation() = QuantAnnotation{{}, ObservedSpec{}, true, false, {}};
  for (const bool allowed : {true, false}) {
    graph_.findValue("b")->producer()->annotation() = QuantAnnotation{{ObservedSpec{}}, {}, allowed, false, {}};
    EXPECT_EQ(computeSharingGroups(graph_)->specs.size(), allowed ? 1u : 2u);
  }
}

}  // namespace
}  // namespace qc
