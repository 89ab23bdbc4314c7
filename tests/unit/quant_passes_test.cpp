// Properties of the passes around quantization on random convolutions and products: the reference form computes the same bits, folding
// a BatchNorm changes nothing, weights are scaled along their output channels; standalone stretches keep to themselves.
#include <gmock/gmock.h>

#include "ir/text.h"
#include "op_testing.h"
#include "passes/pass_manager.h"
#include "quantizer/rules/op_policy.h"
#include "quantizer/rules/standalone.h"
#include "quantizer/sharing.h"

namespace qc {
namespace {

using namespace test;
using testing::HasSubstr;

struct Net {
  Graph graph;
  Tensor input;
};

// conv, conv_transpose or linear with random sizes, groups and bias, and what may follow it.
Net randomNet(Random& random, bool withBatchNorm) {
  Net net;
  Builder b(net.graph);
  const std::string op = std::array{"conv", "conv_transpose", "linear"}[usize(random.integer(0, 2))];
  const int64_t group = op == "linear" ? 1 : random.pick({1, 1, 2}), in = group * random.integer(1, 4), out = group * random.integer(1, 4),
                k = random.pick({1, 3});
  const Ints sizes = op == "linear" ? Ints{2, in} : Ints{2, in, 5, 4};
  Value* x = net.graph.addInput("x", {DType::f32, toShape(sizes)});
  net.input = random.normal(sizes);
  const Ints weight = op == "linear" ? Ints{out, in} : op == "conv" ? Ints{out, in / group, k, k} : Ints{in, out / group, k, k};
  std::vector<Value*> operands = {x, b.constant("w", random.normal(weight))};
  if (random.integer(0, 1)) operands.push_back(b.constant("b", random.normal({out})));
  AttrDict attrs;
  if (op != "linear") attrs = {{"group", group}, {"pads", Ints(4, k / 2)}};
  Value* y = b.make(op, operands, attrs, "y");
  if (withBatchNorm) {
    Tensor var = random.normal({out});
    for (float& v : var.mutableAs<float>()) v = v * v + 0.1f;
    y = b.make("batch_norm",
               {y, b.constant("s", random.normal({out})), b.constant("t", random.normal({out})), b.constant("m", random.normal({out})),
                b.constant("v", var)},
               {{"epsilon", 1e-3}}, "n");
  } else if (const int64_t end = random.integer(0, 2); end > 0) {
    y = b.make(end == 1 ? "relu" : "hardswish", {y}, {}, "e");
  }
  net.graph.setOutputs({y});
  return net;
}

Tensor outputOf(const Graph& graph, const Tensor& input) {
  const auto y = interpret(graph, std::vector{input});
  EXPECT_TRUE(y) << (y ? "" : y.error().render());
  return y ? (*y)[0] : Tensor();
}

TEST(ReferenceOps, ComputeTheSameBits) {
  Random random(11);
  for (int round = 0; round < 60; ++round) {
    Net net = randomNet(random, false);
    PassContext cx;
    const std::string backend = random.integer(0, 1) ? "x86" : "xnnpack";
    auto rules = defaultQConfigMapping(*parseBackend(backend));
    rules.backendConfig(std::nullopt);
    cx.provide(rules);
    BackendOptions options;
    options.minWorkPerElement = 0;
    options.quantizedOutputs = {0};
    ASSERT_TRUE(annotateGraph(net.graph, rules, options));
    Status status = runPipeline("prepare,convert{range=[-3.0, 2.5]},lower-quant", net.graph, cx);
    ASSERT_TRUE(status) << status.error().render();
    Graph reference = net.graph.clone();
    status = runPipeline("reference-ops", reference, cx);
    ASSERT_TRUE(status) << status.error().render() << net.graph.str();
    for (const Node* n = reference.front(); n; n = n->next()) ASSERT_FALSE(n->result()->type().isQuantized()) << reference.str();
    EXPECT_TRUE(outputOf(net.graph, net.input).sameBytes(outputOf(reference, net.input))) << net.graph.str() << reference.str();
    EXPECT_THAT(net.graph.str(), HasSubstr("q."));
  }
}

TEST(FoldBatchNorm, ChangesNothing) {
  Random random(3);
  int folded = 0;
  for (int round = 0; round < 60; ++round) {
    Net net = randomNet(random, true);
    Graph after = net.graph.clone();
    PassContext cx;
    ASSERT_TRUE(runPipeline("fold-batch-norm", after, cx));
    bool all = true;
    for (const Node* n = after.front(); n; n = n->next()) all = all && !n->is("batch_norm") && !n->is("mul");
    folded += all;
    const Tensor a = outputOf(net.graph, net.input), b = outputOf(after, net.input);
    for (int64_t i = 0; i < a.numElements(); ++i) EXPECT_NEAR(a.at(i), b.at(i), 1e-4 * (1 + std::abs(a.at(i)))) << net.graph.str();
  }
  EXPECT_EQ(folded, 60);
}

// A conv that others read too, and one weight under two BatchNorms: both are wrong in PyTorch.
TEST(FoldBatchNorm, NotWhereOthersRead) {
  const auto graph = parseGraph(R"(
const #w : f32[2,2,1,1] = [1.0, 2.0, 3.0, 4.0]
const #s : f32[2] = [2.0, 3.0]
const #t : f32[2] = [0.5, -0.5]
const #z : f32[2] = [0.0, 0.0]
const #v : f32[2] = [1.0, 1.0]
graph @g(%x: f32[1,2,2,2]) -> ("y", "z") {
  %w = const #w : f32[2,2,1,1]
  %s = const #s : f32[2]
  %t = const #t : f32[2]
  %m = const #z : f32[2]
  %v = const #v : f32[2]
  %a = conv %x, %w : f32[1,2,2,2]
  %b = batch_norm %a, %s, %t, %m, %v : f32[1,2,2,2]
  %c = conv %b, %w : f32[1,2,2,2]
  %d = batch_norm %c, %t, %s, %m, %v : f32[1,2,2,2]
  %e = conv %d, %w : f32[1,2,2,2]
  %y = batch_norm %e, %s, %s, %m, %v : f32[1,2,2,2]
  %z = relu %e : f32[1,2,2,2]
  return %y, %z
})");
  ASSERT_TRUE(graph) << graph.error().render();
  Graph after = graph->clone();
  PassContext cx;
  ASSERT_TRUE(runPipeline("fold-batch-norm", after, cx));
  Random random(1);
  const Tensor x = random.normal({1, 2, 2, 2});
  const auto a = interpret(*graph, std::vector{x}), b = interpret(after, std::vector{x});
  ASSERT_TRUE(a && b);
  for (size_t o = 0; o < 2; ++o)
    for (int64_t i = 0; i < 8; ++i) EXPECT_NEAR((*a)[o].at(i), (*b)[o].at(i), 1e-4 * (1 + std::abs((*a)[o].at(i))));
  EXPECT_THAT(after.str(), HasSubstr(" mul ")) << "the last one stays beside its conv";
}

// Along the axis of output channels, every channel has its own scale and reaches the end of the range.
TEST(WeightAxis, IsThatOfOutputChannels) {
  Random random(29);
  for (int round = 0; round < 60; ++round) {
    Net net = randomNet(random, false);
    const Node* node = net.graph.findValue("y")->producer();
    BackendOptions options;
    options.minWorkPerElement = 0;
    ASSERT_TRUE(annotateGraph(net.graph, defaultQConfigMapping(Backend::x86), options));
    const ObservedSpec spec = std::get<ObservedSpec>(node->annotation()->inputs[1]);
    const bool grouped = node->is("conv_transpose") && node->integer("group") > 1;
    EXPECT_EQ(spec.axis, grouped ? -1 : weightOf(node->def())->weight->channel);
    PassContext cx;
    const int64_t channels = node->result()->type().shape[1].size();
    ASSERT_TRUE(runPipeline("prepare,convert{range=[-3.0, 2.5]}", net.graph, cx));
    const Value* weight = net.graph.findValue("y")->producer()->operand(1)->producer()->operand(0);
    const QuantParams& q = *weight->type().quant;
    EXPECT_EQ(static_cast<int64_t>(q.scales.size()), grouped ? 1 : channels);
    std::vector<int64_t> largest(q.scales.size(), 0);
    int64_t inner = 1;
    for (int d = q.axis + 1; q.axis >= 0 && d < weight->type().rank(); ++d) inner *= nth(weight->constant()->sizes(), d);
    for (int64_t i = 0; i < weight->constant()->numElements(); ++i) {
      const auto c = usize(q.axis < 0 ? 0 : i / inner % static_cast<int64_t>(q.scales.size()));
      largest[c] = std::max<int64_t>(largest[c], std::abs(static_cast<int64_t>(weight->constant()->at(i))));
    }
    for (const int64_t v : largest) EXPECT_GE(v, 127);
  }
}

TEST(Standalone, KeepsToItself) {
  auto graph = parseGraph(R"(
const #w : f32[16,16,3,3] = rand(7, -1.0, 1.0)
graph @g(%x: f32[1,16,8,8]) -> ("y") {
  %w = const #w : f32[16,16,3,3]
  %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %b = relu %a : f32[1,16,8,8]
  %c = conv %b, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  %d = relu %c : f32[1,16,8,8]
  %y = conv %d, %w {pads=[1,1,1,1]} : f32[1,16,8,8]
  return %y
})");
  ASSERT_TRUE(graph);
  auto inner = std::make_shared<StandaloneQuantizer>("b", "c", defaultQConfigMapping(Backend::xnnpack));
  auto outer = std::make_shared<DefaultQuantizer>(defaultQConfigMapping(Backend::x86));
  ComposableQuantizer both({inner, outer});
  ASSERT_TRUE(both.annotate(*graph));
  const Status valid = both.validate(*graph);
  ASSERT_TRUE(valid) << valid.error().render();
  const auto& c = *graph->findValue("c")->producer()->annotation();
  EXPECT_THAT(toString(c), HasSubstr("s8.histogram"));
  EXPECT_THAT(toString(c), HasSubstr("on its own from 'b' to 'c'"));
  EXPECT_FALSE(isSet(c.output)) << "floats at the border";
  EXPECT_FALSE(c.allowImplicitSharing);
  EXPECT_THAT(toString(*graph->findValue("y")->producer()->annotation()), HasSubstr("u8.histogram"));
  const auto groups = computeSharingGroups(*graph);
  ASSERT_TRUE(groups);
  for (const auto& members : groups->members) {
    const bool in = std::any_of(members.begin(), members.end(), [](const EdgeOrNode& p) { return p.value == "c"; });
    EXPECT_TRUE(!in || members.size() == 1) << "no observer crosses the border";
  }
  EXPECT_EQ(inner->stretchReport().quantizedCount(), 1);
  StandaloneQuantizer wrong("b", "cc", defaultQConfigMapping(Backend::x86));
  EXPECT_THAT(wrong.annotate(*graph).error().render(), HasSubstr("there is no value 'cc'"));
  EXPECT_THAT(inner->annotate(*graph).error().render(), HasSubstr("is annotated already"));
}

}  // namespace
}  // namespace qc
