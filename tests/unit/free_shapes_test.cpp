// Models whose graph has free dims: calibrated with samples of any shape on the one prepared graph, quantized once, right at every shape.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <numeric>
#include <set>
#include <thread>

#include "ir/interp.h"
#include "ir/text.h"
#include "op_testing.h"
#include "passes/lower/bound_graph.h"
#include "runtime/insight/input_check.h"
#include "runtime/qcompile.h"
#include "runtime/specialize.h"

namespace qc {
namespace {

using namespace test;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kNet = R"(
const #w : f32[16,8] = rand(1, -0.5, 0.5)
const #v : f32[4,16] = rand(3, -0.5, 0.5)
graph @net(%x: f32[N,T,8], %m: f32[N,2*T]) -> ("y", "z") {
  %w = const #w : f32[16,8]
  %v = const #v : f32[4,16]
  %0 = linear %x, %w : f32[N,T,16]
  %1 = relu %0 : f32[N,T,16]
  %2 = linear %1, %v : f32[N,T,4]
  %3 = neg %m : f32[N,2*T]
  return %2, %3
}
)";

Model net() { return Model(parseGraph(kNet).value(), "net"); }

std::vector<Sample> samples() {
  Random random(5);
  std::vector<Sample> all;
  for (const auto& [n, t] : {std::pair<int64_t, int64_t>{1, 3}, {2, 5}, {1, 9}, {2, 5}, {3, 1}})
    all.push_back({{"x", random.normal({n, t, 8})}, {"m", random.normal({n, 2 * t})}});
  return all;
}

TEST(FreeShapes, ShapesSettleSymbols) {
  const Graph graph = parseGraph(kNet).value();
  EXPECT_EQ(bindingsOf(graph, {{"x", {2, 5, 8}}, {"m", {2, 10}}}).value(), (SymbolSizes{{"N", 2}, {"T", 5}}));
  const auto error = [&](std::vector<int64_t> x, std::vector<int64_t> m) {
    const auto sizes = bindingsOf(graph, {{"x", std::move(x)}, {"m", std::move(m)}});
    return sizes ? "none" : sizes.error().render();
  };
  EXPECT_THAT(error({2, 5, 8}, {3, 10}), HasSubstr("tensor 'm': dim 0 is N, which is 3 here and 2 in dim 0 of 'x'"));
  EXPECT_THAT(error({2, 5, 8}, {2, 11}), HasSubstr("tensor 'm': dim 1 is 2*T, here 10, and 11 was given"));
  EXPECT_THAT(error({2, 5, 7}, {2, 10}), HasSubstr("tensor 'x': dim 2 is 8, and 7 was given"));
  EXPECT_THAT(error({2, 5}, {2, 10}), HasSubstr("tensor 'x': this input is f32[N,T,8], and [2,5] was given"));
  EXPECT_THAT(bindingsOf(graph, {{"x", {2, 5, 8}}}).error().render(), HasSubstr("tensor 'm': no shape is given"));
  const Graph open = parseGraph("graph @g(%x: f32[2*T]) {\n  %0 = relu %x : f32[2*T]\n  return %0\n}").value();
  EXPECT_THAT(bindingsOf(open, {{"x", {4}}}).error().render(), HasSubstr("dim 0 is 2*T, which the shapes of the inputs do not settle"));
}

// What only a node finds wrong says which inputs have the sizes that do not fit.
TEST(FreeShapes, ContradictionsNameNodeAndInputs) {
  const Graph graph = parseGraph(R"(
graph @g(%a: f32[N,T], %b: f32[N,S], %c: f32[K]) {
  %0 = neg %a : f32[N,T]
  %1 = add %0, %b : f32[N,max(S,T)] loc("/join")
  %2 = neg %c : f32[K]
  return %1, %2
})")
                          .value();
  const auto error = boundGraph(graph, {{"a", {2, 5}}, {"b", {2, 3}}, {"c", {4}}});
  ASSERT_FALSE(error);
  for (const char* part : {"node '/join'", "5 against 3", "dim 1 of 'a' is 5", "dim 1 of 'b' is 3"})
    EXPECT_THAT(error.error().render(), HasSubstr(part));
  EXPECT_THAT(error.error().render(), Not(HasSubstr("'c'")));
}

TEST(FreeShapes, SomeShapesAndSymbolsGiveAll) {
  const Graph graph = parseGraph(kNet).value();
  const Shapes all{{"x", {1, 5, 8}}, {"m", {1, 10}}};
  EXPECT_EQ(wholeShapes(graph, {{"T", {5}}}).value(), all);
  EXPECT_EQ(wholeShapes(graph, {{"x", {1, 5, 8}}}).value(), all);
  const auto error = [&](const Shapes& given) { return wholeShapes(graph, given).error().render(); };
  EXPECT_THAT(error({}), HasSubstr("dim 1 of 'x' [N,T,8], dim 1 of 'm' [N,2*T] are free"));
  EXPECT_THAT(error({}), HasSubstr("bind it: LoadOptions::shapes T=N"));
  EXPECT_THAT(error({{"S", {5}}}), HasSubstr("'S', which is neither an input of the model nor a symbol of one"));
  EXPECT_THAT(error({{"T", {5, 6}}}), HasSubstr("2 sizes for one symbol"));
  EXPECT_THAT(error({{"T", {6}}, {"x", {1, 5, 8}}}), HasSubstr("'T' is 5 by dim 1 of 'x', and was 6"));
  EXPECT_THAT(error({{"x", {1, 5, 7}}}), HasSubstr("the shape [1,5,7] does not fit the declared [N,T,8]"));
}

// The ranges are those of the same observers fed by hand, one bound copy for each sample.
TEST(FreeShapes, CalibrationTakesSamplesOfAnyShape) {
  const PreparedModel prepared = prepareModel(net(), defaultQConfigMapping(Backend::x86)).value();
  const auto ranges = calibrate(prepared, memoryDataset(samples(), net()).value());
  ASSERT_TRUE(ranges) << ranges.error().render();
  EXPECT_EQ(ranges->samples(), 5);
  Ranges byHand = Ranges::forGraph(*prepared.observed).value();
  InterpOptions watch;
  watch.onNode = [&](const Node& n, std::span<const Tensor> results) {
    return n.is("observe") ? byHand.observe(n.integer("id"), results[0].ref()) : Status();
  };
  for (const Sample& sample : samples()) {
    const Graph bound = boundGraph(*prepared.observed, shapesOf(sample)).value();
    ASSERT_TRUE(interpret(bound, std::vector{sample.at("x"), sample.at("m")}, watch));
  }
  const GroupParams got = ranges->params().value(), want = byHand.params().value();
  ASSERT_EQ(got.size(), want.size());
  EXPECT_GE(got.size(), 2u);
  for (const auto& [id, params] : want) EXPECT_EQ(*got.at(id), *params) << id;
}

// One quantized graph: at every shape near the float one.
TEST(FreeShapes, QuantizedOnce) {
  const PreparedModel prepared = prepareModel(net(), defaultQConfigMapping(Backend::x86)).value();
  const Ranges ranges = calibrate(prepared, memoryDataset(samples(), net()).value()).value();
  const auto int8 = quantize(prepared, ranges);
  ASSERT_TRUE(int8) << int8.error().render();
  EXPECT_THAT(int8->model.text(), HasSubstr("f32[N,T,8]"));
  EXPECT_THAT(int8->model.text(), HasSubstr("quantize"));
  for (const Sample& sample : samples()) {
    const Graph from = boundGraph(net().graph(), shapesOf(sample)).value(), to = boundGraph(int8->model.graph(), shapesOf(sample)).value();
    const std::vector inputs{sample.at("x"), sample.at("m")};
    const Tensor want = interpret(from, inputs).value()[0], got = interpret(to, inputs).value()[0];
    for (int64_t i = 0; i < want.numElements(); ++i) EXPECT_NEAR(want.at(i), got.at(i), 0.1);
    // Compiled for that shape: the bits of the lowered graph.
    PassContext cx;
    const Graph lowered = lowerModel(Model(to.clone(), "at one shape"), cx).value();
    const auto run = compile(Model(to.clone(), "at one shape")).value().session().value().run({{"x", inputs[0]}, {"m", inputs[1]}});
    ASSERT_TRUE(run) << run.error().render();
    EXPECT_TRUE(run->at("y").sameBytes(interpret(lowered, inputs).value()[0]));
  }
}

constexpr const char* kAttention = R"(
const #w : f32[24,8] = rand(1, -0.5, 0.5)
const #s : f32[8] = rand(2, 0.5, 1.5)
const #b : f32[8] = rand(3, -0.5, 0.5)
graph @net(%x: f32[1,T,8]) -> ("y") {
  %w = const #w : f32[24,8]
  %s = const #s : f32[8]
  %b = const #b : f32[8]
  %0 = layer_norm %x, %s, %b {axis=2} : f32[1,T,8]
  %1 = linear %0, %w : f32[1,T,24]
  %2, %3, %4 = split %1 {axis=2, sizes=[8,8,8]} : f32[1,T,8], f32[1,T,8], f32[1,T,8]
  %5 = transpose %3 {perm=[0,2,1]} : f32[1,8,T]
  %6 = matmul %2, %5 : f32[1,T,T]
  %7 = softmax %6 {axis=2} : f32[1,T,T]
  %8 = matmul %7, %4 : f32[1,T,8]
  %9 = add %8, %x : f32[1,T,8]
  %10 = reduce_mean %9 {axes=[1], keepdims=0} : f32[1,8]
  return %10
}
)";

// Weights are packed once, and what a few lengths compiled serves the others, at the bits of code made for their sizes.
TEST(FreeShapes, LengthsShareWeightsAndCode) {
  const Model model(parseGraph(kAttention).value(), "attention");
  Specializer specializer(Model(model.graph().clone(), "attention"));
  Random random(3);
  std::vector<int64_t> compiled;  // kernels of each length in turn
  const void* packed = nullptr;
  std::vector<int64_t> lengths{40, 300, 7, 1, 2};
  for (int64_t length = 60; length < 120; ++length) lengths.push_back(length);
  for (const int64_t length : lengths) {
    const TensorMap inputs{{"x", random.normal({1, length, 8})}};
    const auto exe = specializer.executableFor(inputs);
    ASSERT_TRUE(exe) << exe.error().render();
    const Program& program = (*exe)->program();
    compiled.push_back(program.uniqueKernels() - program.cachedKernels());
    for (const auto& [name, tensor] : program.graph().constants().entries()) {
      if (!name.ends_with(".packed") || length < 7) continue;  // a few rows take another form
      if (length == 40) packed = tensor.data();
      EXPECT_EQ(tensor.data(), packed) << "packed anew for " << length;
    }
    if (length >= 60 && length % 9) continue;
    const auto own = compile(Model(boundGraph(model.graph(), shapesOf(inputs)).value(), "own"));
    const auto want = own->session()->run(inputs), got = (*exe)->session()->run(inputs);
    ASSERT_TRUE(want && got);
    EXPECT_TRUE(got->at("y").sameBytes(want->at("y"))) << length;
  }
  EXPECT_GT(compiled.front(), 5);
  EXPECT_EQ(std::accumulate(compiled.end() - 20, compiled.end(), int64_t{0}), 0) << "lengths that differ in nothing have code of their own";
}

constexpr const char* kMoves = R"(
graph @net(%x: f32[N,T,24]) -> ("y") {
  %0 = slice %x {starts=[0,1,8], sizes=[N,T-1,8], steps=[1,1,1]} : f32[N,T-1,8]
  %1 = slice %x {starts=[0,T-1,0], sizes=[N,1,8], steps=[1,1,1]} : f32[N,1,8]
  %2 = concat %1, %0 {axis=1} : f32[N,T,8]
  %3 = pad %2 {pads=[0,2,0,0,1,0]} : f32[N,T+3,8]
  %4 = expand %1 {shape=[N,T+3,8]} : f32[N,T+3,8]
  %5 = add %3, %4 : f32[N,T+3,8]
  %6 = slice %5 {starts=[0,T+2,0], sizes=[N,(T+3)//2,8], steps=[1,-2,1]} : f32[N,(T+3)//2,8]
  return %6
}
)";

// Kernels that were compiled for each of these shapes of `x` in turn, where the bits of `y` are those of a program for that shape alone.
std::vector<int64_t> compiledFor(const char* text, uint64_t seed, const std::vector<std::vector<int64_t>>& shapes) {
  const Model model(parseGraph(text).value(), "net");
  Specializer specializer(Model(model.graph().clone(), "net"));
  Random random(seed);
  std::vector<int64_t> compiled;
  for (const std::vector<int64_t>& shape : shapes) {
    const TensorMap inputs{{"x", random.normal(shape)}};
    const auto exe = specializer.executableFor(inputs);
    EXPECT_TRUE(exe) << exe.error().render();
    if (!exe) return {};
    compiled.push_back((*exe)->program().uniqueKernels() - (*exe)->program().cachedKernels());
    const auto own = compile(Model(boundGraph(model.graph(), shapesOf(inputs)).value(), "own"));
    const auto want = own->session()->run(inputs), got = (*exe)->session()->run(inputs);
    EXPECT_TRUE(want && got && got->at("y").sameBytes(want->at("y"))) << fmt::format("{}", fmt::join(shape, "x"));
  }
  return compiled;
}

// Layers that differ in nothing but the shapes of their weights, which are computed: no row that was chosen for one is another's.
constexpr const char* kComputedWeights = R"(
const #v : f32[8,4,3,3] = rand(1, -0.5, 0.5)
const #w : f32[3,8,3,3] = rand(2, -0.5, 0.5)
const #u : f32[70,3,3,3] = rand(3, -0.5, 0.5)
graph @net(%x: f32[N,4,H,W]) -> ("y") {
  %v = const #v : f32[8,4,3,3]
  %w = const #w : f32[3,8,3,3]
  %u = const #u : f32[70,3,3,3]
  %t = reduce_max %x {axes=[0,1,2,3], keepdims=0} : f32[]
  %0 = mul %v, %t : f32[8,4,3,3]
  %1 = mul %w, %t : f32[3,8,3,3]
  %2 = mul %u, %t : f32[70,3,3,3]
  %3 = conv %x, %0 {pads=[1,1,1,1]} : f32[N,8,H,W]
  %4 = conv %3, %1 {pads=[1,1,1,1]} : f32[N,3,H,W]
  %5 = conv %4, %2 {pads=[1,1,1,1]} : f32[N,70,H,W]
  return %5
}
)";

TEST(FreeShapes, ComputedWeightsOfOtherShapesHaveRowsOfTheirOwn) {
  EXPECT_EQ(compiledFor(kComputedWeights, 7, {{1, 4, 9, 7}, {2, 4, 5, 12}, {1, 4, 30, 30}}).size(), 3u);
}

// What those behind the first few need.
int64_t sumBehind(const std::vector<int64_t>& compiled, int first) {
  return std::accumulate(compiled.begin() + first, compiled.end(), int64_t{0});
}

// What is picked out of what was free: tuples of indices into it, and the first of long rows.
constexpr const char* kPicks = R"(
graph @net(%x: f32[N,T,6]) -> ("y") {
  %0 = slice %x {starts=[0,0,0], sizes=[N,T,1], steps=[1,1,1]} : f32[N,T,1]
  %values, %places = topk %0 {axis=1, k=[5], largest=1, sorted=1} : f32[N,5,1], s64[N,5,1]
  %1 = gather_nd %x, %places {batch_dims=1} : f32[N,5,6]
  %2 = add %1, %values : f32[N,5,6]
  return %2
}
)";

TEST(FreeShapes, PicksOfAnyLengthShareCode) {
  const std::vector<int64_t> compiled = compiledFor(
      kPicks, 6,
      {{2, 700, 6}, {1, 900, 6}, {3, 1501, 6}, {2, 5000, 6}, {7, 733, 6}, {1, 1200, 6}, {4, 6001, 6}, {2, 999, 6}, {1, 5003, 6}});
  ASSERT_EQ(compiled.size(), 9u);
  EXPECT_GT(compiled[0], 0);
  EXPECT_EQ(sumBehind(compiled, 4), 0) << fmt::format("{}", fmt::join(compiled, ", "));
}

// Of rows that are short enough to be ranked.
TEST(FreeShapes, PicksOfShortRowsShareCode) {
  const std::vector<int64_t> compiled = compiledFor(
      kPicks, 6,
      {{2, 20, 6}, {1, 500, 6}, {3, 151, 6}, {2, 5, 6}, {7, 33, 6}, {1, 120, 6}, {4, 61, 6}, {2, 99, 6}, {1, 503, 6}, {3, 16, 6}});
  ASSERT_EQ(compiled.size(), 10u);
  EXPECT_GT(compiled[0], 0);
  EXPECT_EQ(sumBehind(compiled, 5), 0) << fmt::format("{}", fmt::join(compiled, ", "));
}

// What is put back by indices, summed on the way, folded as integers, cut at a diagonal, divided.
constexpr const char* kPlaces = R"(
graph @net(%x: f32[1,T,6]) -> ("y") {
  %0 = slice %x {starts=[0,0,0], sizes=[1,T,1], steps=[1,1,1]} : f32[1,T,1]
  %values, %places = topk %0 {axis=1, k=[5], largest=1, sorted=1} : f32[1,5,1], s64[1,5,1]
  %1 = reshape %places {shape=[5,1]} : s64[5,1]
  %2 = reshape %x {shape=[T,6]} : f32[T,6]
  %3 = reshape %values {shape=[5,1]} : f32[5,1]
  %4 = expand %3 {shape=[5,6]} : f32[5,6]
  %5 = scatter_nd %2, %1, %4 {reduction="add"} : f32[T,6]
  %6 = cumsum %5 {axis=0} : f32[T,6]
  %7 = expand %places {shape=[1,5,6]} : s64[1,5,6]
  %8 = gather_elements %x, %7 {axis=1} : f32[1,5,6]
  %9 = scatter_elements %x, %7, %8 {axis=1, reduction="mul"} : f32[1,T,6]
  %10 = trilu %9 {k=-1, upper=0} : f32[1,T,6]
  %11 = cast %10 {to=s64} : s64[1,T,6]
  %12 = reduce_max %11 {axes=[1]} : s64[1,1,6]
  %13 = mod %11, %12 : s64[1,T,6]
  %14 = cast %13 {to=f32} : f32[1,T,6]
  %15 = add %14, %6 : f32[1,T,6]
  return %15
}
)";

TEST(FreeShapes, PlacesOfAnyLengthShareCode) {
  const std::vector<int64_t> compiled = compiledFor(
      kPlaces, 7, {{1, 20, 6}, {1, 600, 6}, {1, 77, 6}, {1, 5, 6}, {1, 33, 6}, {1, 900, 6}, {1, 61, 6}, {1, 99, 6}, {1, 503, 6}});
  ASSERT_EQ(compiled.size(), 9u);
  EXPECT_GT(compiled[0], 0);
  EXPECT_EQ(sumBehind(compiled, 4), 0) << fmt::format("{}", fmt::join(compiled, ", "));
}

// Pieces of what was free, from wherever they start, joined, padded and repeated.
TEST(FreeShapes, MovesOfAnyLengthShareCode) {
  const std::vector<int64_t> compiled = compiledFor(
      kMoves, 4, {{2, 40, 24}, {1, 900, 24}, {3, 7, 24}, {2, 2, 24}, {2, 41, 24}, {2, 57, 24}, {1, 800, 24}, {3, 9, 24}, {5, 33, 24}});
  ASSERT_EQ(compiled.size(), 9u);
  EXPECT_GT(compiled.front(), 4);
  EXPECT_EQ(sumBehind(compiled, 4), 0) << "lengths have code of their own";
}

constexpr const char* kRecurrent = R"(
const #w : f32[2,48,20] = rand(1, -0.5, 0.5)
const #r : f32[2,48,12] = rand(2, -0.5, 0.5)
const #b : f32[2,96] = rand(3, -0.5, 0.5)
const #v : f32[1,48,24] = rand(4, -0.5, 0.5)
const #s : f32[1,48,16] = rand(5, -0.5, 0.5)
graph @net(%x: f32[T,N,20]) -> ("y") {
  %w = const #w : f32[2,48,20]
  %r = const #r : f32[2,48,12]
  %b = const #b : f32[2,96]
  %v = const #v : f32[1,48,24]
  %s = const #s : f32[1,48,16]
  %0, %1, %2 = lstm %x, %w, %r, %b {hidden_size=12, direction="bidirectional"} : f32[T,2,N,12], f32[2,N,12], f32[2,N,12]
  %3 = transpose %0 {perm=[0,2,1,3]} : f32[T,N,2,12]
  %4 = reshape %3 {shape=[T,N,24]} : f32[T,N,24]
  %5, %6 = gru %4, %v, %s {hidden_size=16} : f32[T,1,N,16], f32[1,N,16]
  return %5
}
)";

// What recurrent layers make of their weights is there once for all lengths.
TEST(FreeShapes, RecurrentLayersShareWeights) {
  const Model model(parseGraph(kRecurrent).value(), "recurrent");
  Specializer specializer(Model(model.graph().clone(), "recurrent"));
  Random random(6);
  std::set<const void*> known;
  for (const auto& [length, n] : {std::pair<int64_t, int64_t>{40, 1}, {7, 3}, {41, 1}, {1, 2}, {90, 5}}) {
    const TensorMap inputs{{"x", random.normal({length, n, 20})}};
    const auto exe = specializer.executableFor(inputs);
    ASSERT_TRUE(exe) << exe.error().render();
    for (const auto& [name, tensor] : (*exe)->program().graph().constants().entries())
      EXPECT_TRUE(known.insert(tensor.data()).second == (length == 40)) << name << " is another for " << length;
    const auto own = compile(Model(boundGraph(model.graph(), shapesOf(inputs)).value(), "own"));
    const auto want = own->session()->run(inputs), got = (*exe)->session()->run(inputs);
    ASSERT_TRUE(want && got);
    EXPECT_TRUE(got->at("y").sameBytes(want->at("y"))) << length << " of " << n;
  }
}

// What is worked out from a size that was free was free too, and stays so where another value takes over.
TEST(FreeShapes, SizesOfResultsWereFree) {
  Graph graph;
  Builder b(graph);
  Value* x = graph.addInput("x", TensorType(DType::f32, {Dim(1), Dim(4), Dim::bound(9), Dim(6)}));
  using Ints = std::vector<int64_t>;
  const auto dims = [](std::initializer_list<int64_t> sizes) { return std::vector<DimExpr>(sizes.begin(), sizes.end()); };
  const std::vector<std::pair<const char*, AttrDict>> nodes{
      {"max_pool", {{"kernel_shape", Ints{3, 3}}}},
      {"slice", {{"starts", dims({0, 0, 1, 0})}, {"sizes", dims({1, 4, 8, 3})}, {"steps", Ints{1, 1, 1, 2}}}},
      {"pad", {{"pads", Ints{0, 0, 1, 0, 0, 0, 0, 2}}}},
      {"tile", {{"repeats", dims({1, 1, 2, 2})}}},
      {"resize", {{"sizes", dims({1, 4, 18, 12})}, {"scales", std::vector<double>{1, 1, 2, 2}}, {"mode", std::string("nearest")}}},
      {"reshape", {{"shape", dims({2, 2, 9, 6})}}}};
  for (const auto& [op, given] : nodes) {
    const auto made = b.create(op, {x}, given);
    ASSERT_TRUE(made) << op << ": " << made.error().render();
    const Shape& shape = (*made)->type().shape;
    EXPECT_TRUE(shape[2].wasFree()) << op;
    EXPECT_FALSE(shape[1].wasFree() || shape[3].wasFree()) << op;
  }
  EXPECT_TRUE(b.make("concat", {x, x}, {{"axis", int64_t{2}}})->type().shape[2].wasFree());
  Value* flat = b.make("reshape", {x}, {{"shape", dims({4, 54})}});
  EXPECT_FALSE(flat->type().shape[1].wasFree()) << "of a merged dim only who bound it knows";
  flat->setType(flat->type().withShape({Dim(4), Dim::bound(54)}));
  Value* other = b.make("reshape", {x}, {{"shape", dims({4, 54})}});
  b.make("relu", {flat}, {});
  flat->replaceAllUsesWith(other);
  EXPECT_TRUE(other->type().shape[1].wasFree());
}

constexpr const char* kImages = R"(
const #a : f32[16,3,3,3] = rand(1, -0.5, 0.5)
const #b : f32[16,1,3,3] = rand(2, -0.5, 0.5)
const #c : f32[40,16,1,1] = rand(3, -0.5, 0.5)
const #d : f32[24,40,3,3] = rand(4, -0.2, 0.2)
const #e : f32[24,24,2,2] = rand(5, -0.2, 0.2)
graph @net(%x: f32[N,3,H,W]) -> ("y") {
  %a = const #a : f32[16,3,3,3]
  %b = const #b : f32[16,1,3,3]
  %c = const #c : f32[40,16,1,1]
  %d = const #d : f32[24,40,3,3]
  %e = const #e : f32[24,24,2,2]
  %0 = conv %x, %a {strides=[2,2], pads=[1,1,1,1]} : f32[N,16,(H+1)//2,(W+1)//2]
  %1 = relu %0 : f32[N,16,(H+1)//2,(W+1)//2]
  %2 = conv %1, %b {group=16, pads=[1,1,1,1]} : f32[N,16,(H+1)//2,(W+1)//2]
  %3 = max_pool %2 {kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]} : f32[N,16,((H+1)//2+1)//2,((W+1)//2+1)//2]
  %4 = conv %3, %c : f32[N,40,((H+1)//2+1)//2,((W+1)//2+1)//2]
  %5 = resize %4 {sizes=[N,40,2*(((H+1)//2+1)//2),2*(((W+1)//2+1)//2)], scales=[1,1,2,2], mode="linear"} : f32[N,40,2*(((H+1)//2+1)//2),2*(((W+1)//2+1)//2)]
  %6 = conv %5, %d {pads=[1,1,1,1]} : f32[N,24,2*(((H+1)//2+1)//2),2*(((W+1)//2+1)//2)]
  %7 = conv %6, %e {strides=[2,2]} : f32[N,24,((H+1)//2+1)//2,((W+1)//2+1)//2]
  %8 = avg_pool %7 {kernel_shape=[2,2], pads=[1,1,0,0]} : f32[N,24,((H+1)//2+1)//2,((W+1)//2+1)//2]
  return %8
}
)";

// The same of height and width of images: code that the first few sizes leave behind is all that the others need.
TEST(FreeShapes, SizesOfImagesShareCode) {
  const std::vector<int64_t> compiled = compiledFor(kImages, 3,
                                                    {{1, 3, 96, 128},
                                                     {1, 3, 97, 131},
                                                     {2, 3, 64, 200},
                                                     {1, 3, 3, 5},
                                                     {1, 3, 90, 181},
                                                     {3, 3, 128, 96},
                                                     {1, 3, 75, 99},
                                                     {1, 3, 111, 77},
                                                     {1, 3, 180, 64},
                                                     {2, 3, 101, 256},
                                                     {1, 3, 68, 68}});
  ASSERT_EQ(compiled.size(), 11u);
  EXPECT_GT(compiled.front(), 7);
  EXPECT_LE(sumBehind(compiled, 4), 4) << "sizes of images have code of their own";
}

TEST(FreeShapes, NormsOfAnySizeShareCode) {
  const auto compiled = [](const char* norm, const char* type, bool channelsLast) {
    const std::string text = fmt::format(
        "const #s : f32[6] = rand(1, 0.5, 1.5)\nconst #b : f32[6] = rand(2, -0.5, 0.5)\ngraph @net(%x: {1}) -> (\"y\") {{\n"
        "  %s = const #s : f32[6]\n  %b = const #b : f32[6]\n  %0 = {0} : {1}\n  return %0\n}}\n",
        norm, type);
    std::vector<std::vector<int64_t>> shapes;
    for (const auto& [n, t] : {std::pair<int64_t, int64_t>{2, 40}, {1, 900}, {3, 77}, {2, 2}, {5, 33}, {1, 1}, {4, 612}})
      shapes.push_back(channelsLast ? std::vector{n, t, int64_t{6}} : std::vector{n, int64_t{6}, t});
    return compiledFor(text.c_str(), 8, shapes);
  };
  for (const auto& all : {compiled("instance_norm %x, %s, %b {layout=\"channels_last\"}", "f32[N,T,6]", true),
                          compiled("group_norm %x, %s, %b {num_groups=3}", "f32[N,6,T]", false)}) {
    ASSERT_EQ(all.size(), 7u);
    EXPECT_EQ(all[0], 1);
    EXPECT_EQ(sumBehind(all, 1), 0) << fmt::format("{}", fmt::join(all, ", "));
  }
}

// An int8 model from many threads at once, of which each asks for the lengths in an order of its own, with few of them remembered and the
// kernels on disk, at first none, then sound ones, then damaged ones: always the bits of a model made for that length.
TEST(FreeShapes, AnyLengthFromManyThreadsHasTheBitsOfItsOwnModel) {
  const Model model(parseGraph(kAttention).value(), "attention");
  Random random(7);
  std::vector<Sample> calibration;
  for (const int64_t length : {3, 9, 30}) calibration.push_back({{"x", random.normal({1, length, 8})}});
  const PreparedModel prepared = prepareModel(Model(model.graph().clone(), "attention"), defaultQConfigMapping(Backend::x86)).value();
  const Ranges ranges = calibrate(prepared, memoryDataset(calibration, model).value()).value();
  const Model int8 = quantize(prepared, ranges).value().model;

  std::vector<std::pair<TensorMap, Tensor>> wanted;
  for (const int64_t length : {1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 17, 31, 33, 64, 130}) {
    const TensorMap inputs{{"x", random.normal({1, length, 8})}};
    const auto own = compile(Model(boundGraph(int8.graph(), shapesOf(inputs)).value(), "own"));
    ASSERT_TRUE(own) << own.error().render();
    wanted.emplace_back(inputs, own->session()->run(inputs).value().at("y"));
  }
  const auto folder = std::filesystem::temp_directory_path() / ("qc_lengths_" + std::to_string(::getpid()));
  constexpr size_t kRemembered = 3;
  const auto serve = [&](const char* when) {
    SpecializeOptions options;
    options.remembered = kRemembered;
    options.build.compile.cacheFolder = folder.string();
    const auto specializer = std::make_shared<Specializer>(Model(int8.graph().clone(), "attention"), options);
    std::atomic<size_t> right{0};
    std::vector<std::thread> threads;
    for (size_t t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        DynamicSession session(specializer, {.threads = 1 + static_cast<int>(t % 2)});
        for (size_t i = 0; i < 2 * wanted.size(); ++i) {
          const auto& [inputs, want] = wanted[(i * (2 * t + 1)) % wanted.size()];
          const auto got = session.run(inputs);
          right += got && got->at("y").sameBytes(want);
        }
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(right, 4 * 2 * wanted.size()) << when;
    EXPECT_LE(specializer->size(), kRemembered);
  };
  serve("without kernels on disk");
  serve("with kernels on disk");
  for (const auto& file : std::filesystem::directory_iterator(folder)) std::filesystem::resize_file(file, file.file_size() / 2);
  serve("with damaged kernels on disk");
  std::filesystem::remove_all(folder);
}

// A value that comes in twice, then two values: the packed node takes each where it belongs.
TEST(FreeShapes, SharedWeightsReadTheirOwnOperands) {
  const char* recurrence = R"(
const #w : f32[8,8] = rand(1, -0.5, 0.5)
graph @net(%x: f32[1,T,8]) -> ("a", "b") {
  %w = const #w : f32[8,8]
  %0 = linear %x, %w : f32[1,T,8]
  %1 = add %0, %x : f32[1,T,8]
  %2 = linear %1, %w : f32[1,T,8]
  %3 = add %2, %x : f32[1,T,8]
  return %1, %3
}
)";
  const Model model(parseGraph(recurrence).value(), "recurrence");
  DynamicSession session(std::make_shared<Specializer>(Model(model.graph().clone(), "recurrence")));
  const Tensor x = Random(7).normal({1, 5, 8});
  const auto got = session.run({{"x", x}});
  ASSERT_TRUE(got) << got.error().render();
  const auto want = interpret(boundGraph(model.graph(), {{"x", x.sizes()}}).value(), std::vector{x}).value();
  EXPECT_TRUE(got->at("a").sameBytes(want[0]));
  EXPECT_TRUE(got->at("b").sameBytes(want[1]));
}

// Recovery and comparison see every sample as well.
TEST(FreeShapes, EverythingTakesSamplesOfAnyShape) {
  const char* image = R"(
const #w : f32[6,3,3,3] = rand(1, -0.5, 0.5)
const #b : f32[6] = rand(2, -0.5, 0.5)
const #v : f32[4,6,1,1] = rand(3, -0.5, 0.5)
graph @net(%x: f32[N,3,H,W]) -> ("y") {
  %w = const #w : f32[6,3,3,3]
  %b = const #b : f32[6]
  %v = const #v : f32[4,6,1,1]
  %0 = conv %x, %w, %b {pads=[1,1,1,1], strides=[2,2]} : f32[N,6,(H+1)//2,(W+1)//2]
  %1 = relu %0 : f32[N,6,(H+1)//2,(W+1)//2]
  %2 = conv %1, %v : f32[N,4,(H+1)//2,(W+1)//2]
  return %2
}
)";
  Random random(9);
  std::vector<Sample> images;
  for (int64_t i = 0; i < 12; ++i) images.push_back({{"x", random.normal({1 + i % 2, 3, 4 + i % 5, 6 + i % 3})}});
  const std::pair<Model, std::vector<Sample>> cases[] = {{net(), samples()}, {Model(parseGraph(image).value(), "image"), images}};
  for (const auto& [model, data] : cases) {
    const Dataset set = memoryDataset(data, model).value();
    const QuantizeOptions options{.recover = {.choices = {{"bias-correction", "full"}}}, .compareSamples = 4};
    const auto int8 = calibrateAndQuantize(prepareModel(model, defaultQConfigMapping(Backend::x86)).value(), set, options);
    ASSERT_TRUE(int8) << int8.error().render();
    EXPECT_EQ(int8->compared, 4);
    ASSERT_FALSE(int8->layers.empty());
    for (const LayerNoise& layer : int8->layers) EXPECT_GT(layer.total, 25) << layer.node;
    EXPECT_TRUE(hasFreeDims(int8->model.graph()));
    const auto report = checkInputs(model, set);
    ASSERT_TRUE(report) << report.error().render();
  }
}

TEST(FreeShapes, WhatTheModelDoesNotTakeIsSaid) {
  std::vector<Sample> wrong = samples();
  wrong[3]["m"] = Tensor(DType::f32, {2, 11});
  const auto ranges = calibrate(net(), defaultQConfigMapping(Backend::x86), memoryDataset(wrong, net()).value());
  ASSERT_FALSE(ranges);
  EXPECT_THAT(ranges.error().render(), HasSubstr("tensor 'm': sample 'memory 3': dim 1 is 2*T, here 10, and 11 was given"));
  const auto files = openDataset({"random:2"}, net());
  ASSERT_FALSE(files);
  EXPECT_THAT(files.error().render(), HasSubstr("dim 1 of 'x' [N,T,8], dim 1 of 'm' [N,2*T] are free, and noise has no sizes of its own"));
  EXPECT_THAT(files.error().render(), HasSubstr("bind it: LoadOptions::shapes T=N"));
  const auto exe = compile(net());
  ASSERT_FALSE(exe);
  EXPECT_THAT(exe.error().render(), HasSubstr("tensor 'x': the shape [N,T,8] is not known"));
}

}  // namespace
}  // namespace qc
