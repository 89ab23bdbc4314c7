// Random networks through the whole quantizer: annotation, observers, conversion and lowering succeed whatever the shape of the graph and
// the backend's table; integers stay near quantize-dequantize pairs, and those near the floats; kernels and
// machine code compute the bits of the integer ops.
#include <gmock/gmock.h>

#include <array>
#include <cmath>
#include <map>

#include "codegen/plan/select_kernels.h"
#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "op_testing.h"
#include "passes/pass_manager.h"
#include "quantizer/group_params.h"
#include "quantizer/pattern_quantizer.h"
#include "quantizer/quantizer.h"
#include "quantizer/ranges.h"
#include "quantizer/sharing.h"
#include "random_network.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

using namespace test;

std::vector<Tensor> outputsOf(const Graph& graph, const Tensor& x, const InterpOptions& options = {}) {
  auto y = interpret(graph, std::vector{x}, options);
  EXPECT_TRUE(y) << (y ? "" : y.error().render()) << graph.str();
  return y ? *std::move(y) : std::vector<Tensor>();
}

double relativeError(const Tensor& want, const Tensor& got) {
  double signal = 1e-6, noise = 0;
  for (int64_t i = 0; i < want.numElements(); ++i) {
    signal += std::pow(want.at(i), 2);
    noise += std::pow(want.at(i) - got.at(i), 2);
  }
  return std::sqrt(noise / signal);
}

// The graph of kernels computes the bits of the lowered graph, whatever the target.
void expectSameOnKernels(const Graph& lowered, const Tensor& x, const std::vector<Tensor>& want) {
  registerCodegenPasses();
  for (const char* target : {"x86-64+avx2", "x86-64+avx2+avx512vnni", "x86-64"}) {
    Graph kernels = lowered.clone();
    PassContext cx;
    const Status done = runPipeline(
        fmt::format("expand-dynamic,layout,split-conv-transpose,fold-constants,canonicalize,cse,dce,select-kernels{{target={}}}", target),
        kernels, cx);
    ASSERT_TRUE(done) << done.error().render() << lowered.str();
    const std::vector<Tensor> got = outputsOf(kernels, x);
    ASSERT_EQ(want.size(), got.size());
    for (size_t o = 0; o < want.size(); ++o)
      EXPECT_TRUE(want[o].sameBytes(got[o])) << relativeError(want[o], got[o]) << target << "\n" << lowered.str();
  }
}

// And so does its machine code for this processor.
void expectSameCompiled(const Graph& converted, const Tensor& x, const std::vector<Tensor>& want) {
  const auto exe = compile(Model(converted.clone(), "test"));
  ASSERT_TRUE(exe) << exe.error().render() << converted.str();
  auto session = exe->session();
  ASSERT_TRUE(session) << session.error().render();
  const auto got = session->run({{"x", x}});
  ASSERT_TRUE(got) << got.error().render();
  for (size_t o = 0; o < want.size(); ++o) {
    const Tensor& y = got->at(converted.outputNames()[o]);
    EXPECT_TRUE(want[o].sameBytes(y)) << relativeError(want[o], y) << converted.str();
  }
}

// One of the ways to decide.
Status decide(Graph& graph, int64_t way) {
  static constexpr std::array kBackends = {Backend::x86,     Backend::fbgemm,      Backend::onednn,  Backend::qnnpack,
                                           Backend::xnnpack, Backend::onnxruntime, Backend::tensorrt};
  if (way < static_cast<int64_t>(kBackends.size())) {
    BackendOptions options;
    options.minWorkPerElement = 0;
    const auto done = annotateGraph(graph, defaultQConfigMapping(nth(kBackends, way)), options);
    return done ? Status() : Status(tl::make_unexpected(done.error()));
  }
  XnnpackQuantizer xnnpack;
  X86Quantizer x86;
  xnnpack.setGlobal(defaultQConfig(Backend::xnnpack));
  x86.setGlobal(defaultQConfig(Backend::x86));
  return way == 7 ? xnnpack.annotate(graph) : x86.annotate(graph);
}

// As an ONNX file and back: the same integers, hence the same bits.
void expectSameThroughOnnx(const Graph& graph, const Tensor& x) {
  const auto bytes = exportOnnx(graph);
  ASSERT_TRUE(bytes) << bytes.error().render() << graph.str();
  auto again = importOnnx(*bytes, {});
  ASSERT_TRUE(again) << again.error().render() << graph.str();
  const std::vector<Tensor> want = outputsOf(graph, x), got = outputsOf(*again, x);
  ASSERT_EQ(want.size(), got.size());
  for (size_t o = 0; o < want.size(); ++o)
    EXPECT_TRUE(want[o].sameBytes(got[o])) << relativeError(want[o], got[o]) << graph.str() << again->str();
}

TEST(RandomNetworks, EveryBackendQuantizesThem) {
  Random random(61);
  std::array<int, 9> integers{};
  int far = 0;
  for (int round = 0; round < 180; ++round) {
    const int64_t way = round % 9;
    Network network(random);
    Graph& graph = network.graph;
    std::vector<Tensor> samples;
    for (int i = 0; i < 4; ++i) samples.push_back(random.normal({1, 4, 6, 6}));
    const std::vector<Tensor> want = outputsOf(graph, samples[0]);
    const std::string text = graph.str();
    const Status decided = decide(graph, way);
    ASSERT_TRUE(decided) << decided.error().render() << text;
    const Status valid = validateAnnotations(graph);
    ASSERT_TRUE(valid) << valid.error().render() << text;
    PassContext cx;
    Status done = runPipeline("prepare", graph, cx);
    ASSERT_TRUE(done) << done.error().render() << text;
    // Observers change nothing; what they see becomes the parameters.
    auto ranges = Ranges::forGraph(graph);
    ASSERT_TRUE(ranges) << ranges.error().render();
    InterpOptions watch;
    watch.onNode = [&](const Node& n, std::span<const Tensor> results) {
      return n.is("observe") ? ranges->observe(n.integer("id"), results[0].ref()) : Status();
    };
    for (const Tensor& x : samples) {
      const std::vector<Tensor> observed = outputsOf(graph, x, watch);
      for (size_t o = 0; o < want.size() && &x == &samples[0]; ++o) EXPECT_TRUE(observed[o].sameBytes(want[o])) << text;
    }
    auto params = ranges->params();
    ASSERT_TRUE(params) << params.error().render();
    cx.provide(GroupParams(*params));
    done = runPipeline("convert", graph, cx);
    ASSERT_TRUE(done) << done.error().render() << text;
    expectSameThroughOnnx(graph, samples[0]);
    Graph lowered = graph.clone();
    done = runPipeline("lower", lowered, cx);
    ASSERT_TRUE(done) << done.error().render() << graph.str();
    nth(integers, way) += lowered.str().find(" q.") != std::string::npos;
    const std::vector<Tensor> pairs = outputsOf(graph, samples[0]), low = outputsOf(lowered, samples[0]);
    for (size_t o = 0; o < want.size(); ++o) {
      // Random classifiers cancel to little at times, and one step at a tie is then much of it: seldom.
      EXPECT_LT(relativeError(want[o], pairs[o]), 1) << "way " << way << "\n" << graph.str();
      const double steps = relativeError(pairs[o], low[o]);
      EXPECT_LT(steps, 0.5) << "way " << way << "\n" << graph.str() << lowered.str();
      far += steps > 0.05;
    }
    if (round % 4 == 0) expectSameOnKernels(lowered, samples[0], low);
    if (round % 7 == 0) expectSameCompiled(graph, samples[0], low);
  }
  for (const int n : integers) EXPECT_GT(n, 10);
  EXPECT_LT(far, 10);
}

// Modes that need no calibration: the forms with parameters at run time, and integer or half weights under float arithmetic.
TEST(RandomNetworks, ModesWithoutCalibration) {
  Random random(67);
  std::map<std::string, int> seen;
  for (int round = 0; round < 120; ++round) {
    Network network(random);
    Graph& graph = network.graph;
    const std::array configs = {dynamicQConfig(Backend::x86), dynamicQConfig(Backend::x86, true), weightOnlyQConfig(Backend::x86),
                                weightOnlyQConfig(Backend::x86, 4, 2), halfWeightsQConfig()};
    const size_t way = usize(round) % configs.size();
    const Tensor x = random.normal({1, 4, 6, 6});
    const std::vector<Tensor> want = outputsOf(graph, x);
    const std::string text = graph.str();
    BackendOptions options;
    options.minWorkPerElement = 0;
    const auto decided = annotateGraph(graph, QConfigMapping().global(configs[way]), options);
    ASSERT_TRUE(decided) << decided.error().render() << text;
    PassContext cx;
    Status done = runPipeline("prepare,convert", graph, cx);
    ASSERT_TRUE(done) << done.error().render() << text;
    EXPECT_THAT(graph.str(), testing::Not(testing::HasSubstr("observe"))) << text;
    Graph lowered = graph.clone();
    done = runPipeline("lower", lowered, cx);
    ASSERT_TRUE(done) << done.error().render() << graph.str();
    for (const char* form : {"q.dynamic_conv", "q.dynamic_linear", "q.weight_linear"})
      seen[form] += lowered.str().find(form) != std::string::npos;
    const std::vector<Tensor> pairs = outputsOf(graph, x), low = outputsOf(lowered, x);
    const double allowed = way == 4 ? 0.005 : way == 3 ? 0.6 : 0.15;
    for (size_t o = 0; o < want.size(); ++o) {
      EXPECT_LT(relativeError(want[o], pairs[o]), allowed) << "way " << way << "\n" << graph.str();
      EXPECT_LT(relativeError(pairs[o], low[o]), 0.01) << "way " << way << "\n" << graph.str() << lowered.str();
    }
    if (round % 4 == 0) expectSameOnKernels(lowered, x, low);
    if (round % 7 == 0) expectSameCompiled(graph, x, low);
  }
  for (const auto& [form, n] : seen) EXPECT_GT(n, 5) << form;
}

}  // namespace
}  // namespace qc
