// Which axis of an ONNX weight has a scale per channel: on random layers whose output channels differ in magnitude by powers of 16, every
// channel keeps its precision.  One scale for all, or scales along another axis, would round the small ones to zero.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>

#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "passes/pass_manager.h"
#include "quantizer/quantizer.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::HasSubstr;
using testing::integer;
using testing::Ints;
using testing::ints;
using testing::Model;
using testing::real;

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int64_t integer(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  float value() { return std::uniform_real_distribution<float>(-1, 1)(engine_); }

 private:
  std::mt19937 engine_;
};

struct Layer {
  Graph graph;
  Tensor input;
  int channelDim = 1;  // of the result
  int64_t channels = 1;
  bool perChannel = true;
};

// A weight whose channel is `channelOf(index in each dim)`.
template <typename ChannelOf>
std::vector<float> weightOf(Random& random, const Ints& sizes, bool graded, ChannelOf channelOf) {
  int64_t n = 1;
  for (const int64_t s : sizes) n *= s;
  std::vector<float> w;
  for (int64_t i = 0; i < n; ++i) {
    Ints at(sizes.size());
    int64_t rest = i;
    for (size_t d = sizes.size(); d-- > 0; rest /= sizes[d]) at[d] = rest % sizes[d];
    w.push_back(random.value() * (graded ? std::pow(16.0f, static_cast<float>(channelOf(at))) : 1.0f));
  }
  return w;
}

Layer finish(Random& random, Model& m, const Ints& inputSizes, int channelDim, int64_t channels, bool perChannel = true) {
  auto graph = importOnnx(m.output("y").bytes(), {}, {});
  EXPECT_TRUE(graph) << graph.error().render();
  Layer layer{*std::move(graph), Tensor(DType::f32, inputSizes), channelDim, channels, perChannel};
  for (float& v : layer.input.mutableAs<float>()) v = random.value();
  return layer;
}

Layer convolution(Random& random) {
  const int64_t group = random.integer(1, 2), in = group * random.integer(1, 3), out = group * random.integer(1, 3),
                k = random.integer(1, 3);
  Model m;
  m.input("x", {2, in, 6, 5}).floats("w", {out, in / group, k, k}, weightOf(random, {out, in / group, k, k}, true, [](const Ints& at) {
                                       return at[0];
                                     }));
  m.node("Conv", {"x", "w"}, {"y"}, {integer("group", group)});
  return finish(random, m, {2, in, 6, 5}, 1, out);
}

// With groups the weight's second dim counts the channels of one group only: one scale for the tensor.
Layer transposedConvolution(Random& random) {
  const int64_t group = random.integer(1, 2), in = group * random.integer(1, 3), out = group * random.integer(1, 3),
                k = random.integer(1, 3);
  const Ints sizes = {in, out / group, k, k};
  Model m;
  m.input("x", {2, in, 4, 5}).floats("w", sizes, weightOf(random, sizes, group == 1, [](const Ints& at) { return at[1]; }));
  m.node("ConvTranspose", {"x", "w"}, {"y"}, {integer("group", group), ints("strides", {2, 1})});
  return finish(random, m, {2, in, 4, 5}, 1, out, group == 1);
}

Layer gemm(Random& random) {
  const int64_t rows = random.integer(1, 4), k = random.integer(2, 6), n = random.integer(2, 5), transA = random.integer(0, 1),
                transB = random.integer(0, 1);
  const Ints x = transA ? Ints{k, rows} : Ints{rows, k}, w = transB ? Ints{n, k} : Ints{k, n};
  Model m;
  m.input("x", x).floats("w", w, weightOf(random, w, true, [&](const Ints& at) { return at[transB ? 0 : 1]; }));
  m.node("Gemm", {"x", "w"}, {"y"}, {integer("transA", transA), integer("transB", transB), real("alpha", 0.5f)});
  return finish(random, m, x, 1, n);
}

// Behind a Transpose as well, which exporters leave in front of the product.
Layer product(Random& random) {
  const int64_t k = random.integer(2, 6), n = random.integer(2, 5);
  const bool turned = random.integer(0, 1), batched = random.integer(0, 1);
  const Ints x = batched ? Ints{2, 3, k} : Ints{3, k}, w = turned ? Ints{n, k} : Ints{k, n};
  Model m;
  m.input("x", x).floats("w", w, weightOf(random, w, true, [&](const Ints& at) { return at[turned ? 0 : 1]; }));
  if (turned) m.node("Transpose", {"w"}, {"wt"}, {ints("perm", {1, 0})});
  m.node("MatMul", {"x", turned ? "wt" : "w"}, {"y"});
  return finish(random, m, x, static_cast<int>(x.size()) - 1, n);
}

// Relative to the size of a channel's weights where its terms happen to cancel.
std::vector<double> errorByChannel(const Layer& layer, const Tensor& want, const Tensor& got) {
  std::vector<double> error(usize(layer.channels)), signal = error;
  int64_t inner = 1;
  for (int64_t d = layer.channelDim + 1; d < want.rank(); ++d) inner *= nth(want.sizes(), d);
  for (int64_t i = 0; i < want.numElements(); ++i) {
    const auto c = usize(i / inner % layer.channels);
    error[c] += std::pow(want.at(i) - got.at(i), 2);
    signal[c] += std::pow(want.at(i), 2) + std::pow(layer.perChannel ? 0.5 * std::pow(16.0, c) : 0.5, 2);
  }
  for (size_t c = 0; c < error.size(); ++c) error[c] = std::sqrt(error[c] / signal[c]);
  return error;
}

Tensor outputOf(const Graph& graph, const Tensor& input) {
  const auto y = interpret(graph, std::vector{input});
  EXPECT_TRUE(y) << (y ? "" : y.error().render());
  return y ? (*y)[0] : Tensor();
}

// The integer weight in front of the layer.
const QuantParams* weightParams(const Graph& graph) {
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->is("const") && n->result()->type().isQuantized() && n->result()->type().quant->storage == DType::s8)
      return n->result()->type().quant.get();
  return nullptr;
}

TEST(WeightAxes, EveryChannelKeepsItsPrecision) {
  Random random(41);
  const std::array makers = {convolution, transposedConvolution, gemm, product};
  for (int round = 0; round < 120; ++round) {
    Layer layer = makers[usize(round) % makers.size()](random);
    PassContext cx;
    ASSERT_TRUE(runPipeline("simplify", layer.graph, cx));
    const Tensor want = outputOf(layer.graph, layer.input);
    BackendOptions options;
    options.minWorkPerElement = 0;
    ASSERT_TRUE(annotateGraph(layer.graph, defaultQConfigMapping(Backend::x86), options));
    const Status converted = runPipeline("prepare,convert{range=[-1.0, 1.0]}", layer.graph, cx);
    ASSERT_TRUE(converted) << converted.error().render();
    const QuantParams* params = weightParams(layer.graph);
    ASSERT_TRUE(params) << layer.graph.str();
    EXPECT_EQ(static_cast<int64_t>(params->scales.size()), layer.perChannel ? layer.channels : 1) << layer.graph.str();
    Graph integers = layer.graph.clone();
    ASSERT_TRUE(runPipeline("lower", integers, cx));
    for (const Graph* graph : {&layer.graph, &integers})
      for (const double e : errorByChannel(layer, want, outputOf(*graph, layer.input))) EXPECT_LT(e, 0.05) << graph->str();
    EXPECT_THAT(integers.str(), HasSubstr("q.")) << "in integers";
  }
}

// Rows of an embedding table, with float zero points, by hand and through the rule for weights only.
TEST(WeightAxes, EveryRowOfATableKeepsItsPrecision) {
  Random random(43);
  for (int round = 0; round < 20; ++round) {
    const int64_t rows = random.integer(2, 5), columns = 8 * random.integer(1, 3);
    Model m;
    m.input("i", {rows}, onnx::TensorProto::INT64);
    m.floats("t", {rows, columns}, weightOf(random, {rows, columns}, true, [](const Ints& at) { return at[0]; }));
    m.node("Gather", {"t", "i"}, {"y"}, {integer("axis", 0)});
    auto graph = importOnnx(m.output("y").bytes(), {}, {});
    ASSERT_TRUE(graph) << graph.error().render();
    Tensor index(DType::s64, {rows});
    for (int64_t r = 0; r < rows; ++r) nth(index.mutableAs<int64_t>(), r) = rows - 1 - r;
    const Layer layer{graph->clone(), index, 0, rows, true};
    const Tensor want = outputOf(*graph, index);
    QConfigMapping rules;
    rules.global(weightOnlyQConfig(Backend::x86));
    ASSERT_TRUE(annotateGraph(*graph, rules));
    PassContext cx;
    cx.provide(rules);
    const Status converted = runPipeline("prepare,convert", *graph, cx);
    ASSERT_TRUE(converted) << converted.error().render();
    EXPECT_THAT(graph->str(), HasSubstr("8[")) << "bytes";
    for (const double e : errorByChannel(layer, want, outputOf(*graph, index))) EXPECT_LT(e, 0.02) << graph->str();
  }
}

}  // namespace
}  // namespace qc
