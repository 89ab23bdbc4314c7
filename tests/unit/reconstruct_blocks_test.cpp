// Blocks of a model, and what their layers win when they are fitted together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/text.h"
#include "op_testing.h"
#include "passes/quantize/convert_parts.h"
#include "quantizer/layer_statistics.h"
#include "quantizer/rules/weight_bits.h"
#include "runtime/qcompile.h"
#include "runtime/workflow/blocks.h"

namespace qc {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

// Two blocks with a shortcut each, the second with a mask beside it that no layer gives, and a head.
constexpr const char* kNet = R"(
const #a : f32[16,16] = rand(1, -0.5, 0.5)
const #b : f32[16,16] = rand(2, -0.5, 0.5)
const #c : f32[16,16] = rand(3, -0.5, 0.5)
const #d : f32[16,16] = rand(4, -0.5, 0.5)
const #e : f32[4,16] = rand(5, -0.5, 0.5)
graph @net(%x: f32[64,16], %mask: f32[64,16]) -> ("y") {
  %a = const #a : f32[16,16]
  %b = const #b : f32[16,16]
  %c = const #c : f32[16,16]
  %d = const #d : f32[16,16]
  %e = const #e : f32[4,16]
  %0 = linear %x, %a : f32[64,16]
  %1 = relu %0 : f32[64,16]
  %2 = linear %1, %b : f32[64,16]
  %first = add %2, %x : f32[64,16]
  %3 = linear %first, %c : f32[64,16]
  %4 = gelu %3 : f32[64,16]
  %5 = mul %4, %mask : f32[64,16]
  %6 = linear %5, %d : f32[64,16]
  %second = add %6, %first : f32[64,16]
  %y = linear %second, %e : f32[64,4]
  return %y
}
)";

// Three numbers a row, and little else, are behind all sixteen.
Tensor correlated(Random& random) {
  Tensor x = random.normal({64, 16}), z = random.normal({64, 3});
  for (int64_t row = 0; row < 64; ++row)
    for (int64_t i = 0; i < 16; ++i) {
      float& v = nth(x.mutableAs<float>(), row * 16 + i);
      v = 0.1f * v + nth(z.as<float>(), row * 3 + i % 3) * (i % 2 ? 1.0f : -0.5f);
    }
  return x;
}

std::vector<Sample> samples(uint32_t seed, int count) {
  Random random(seed);
  std::vector<Sample> all;
  for (int i = 0; i < count; ++i) all.push_back({{"x", correlated(random)}, {"mask", random.normal({64, 16})}});
  return all;
}

// Activations of 3 bits: what they are rounded and clipped to within a block is what no layer sees alone.
QConfigMapping rules() { return withWeightBits(QConfigMapping::parse(R"({"global": {"activation": {"range": [0, 7]}}})").value(), 3); }

struct Case {
  Model model{parseGraph(kNet).value(), "net"};
  Dataset check = memoryDataset(samples(9, 40), model, "check").value();
  PreparedModel prepared = prepareModel(model, rules()).value();

  Result<QuantizedModel> quantized(const std::string& choice, std::vector<Sample> with, int threads = 1) const {
    QC_ASSIGN(const Dataset calibration, memoryDataset(std::move(with), model));
    QuantizeOptions options;
    options.recover.choose("reconstruct", choice);
    options.recover.check = &check;
    options.recover.threads = threads;
    options.compareSamples = check.size();
    return calibrateAndQuantize(prepared, calibration, options);
  }
};

// With whole blocks.
Result<QuantizedModel> quantizedText(const std::string& text, std::vector<Sample> with) {
  const Model model(parseGraph(text).value(), "net");
  QC_ASSIGN(const Dataset calibration, memoryDataset(std::move(with), model));
  QuantizeOptions options;
  options.recover.choose("reconstruct", "on");
  return calibrateAndQuantize(prepareModel(model, rules()).value(), calibration, options);
}

std::vector<std::string> ends(const Block& block) { return {block.from ? block.from->name() : "", block.to->name()}; }

TEST(Blocks, LieBetweenTheValuesThroughWhichAllPasses) {
  const Case c;
  const std::vector<Block> blocks = blocksOf(*c.prepared.observed, int8Layers(*c.prepared.observed));
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_THAT(ends(blocks[0]), ElementsAre("", "first"));
  EXPECT_THAT(ends(blocks[1]), ElementsAre("first", "second"));
  for (const Block& block : blocks) EXPECT_EQ(block.layers.size(), 2u);
}

TEST(Blocks, DoNotEndWhereAShortcutPasses) {
  const Case c;
  std::vector<const Node*> layers = int8Layers(*c.prepared.observed);
  layers.erase(layers.begin());  // the block then begins within the shortcut, which no counted layer gives
  const std::vector<Block> blocks = blocksOf(*c.prepared.observed, layers);
  ASSERT_EQ(blocks.size(), 1u);
  EXPECT_THAT(ends(blocks[0]), ElementsAre("", "second"));
  EXPECT_EQ(blocks[0].layers.size(), 3u);
}

Graph observedGraph(std::string_view text) {
  return prepareModel(Model(parseGraph(text).value(), "net"), rules()).value().observed->clone();
}

// Which counts for itself, whatever becomes of what follows.
TEST(Blocks, HoldNoOutputOfTheModel) {
  std::string text = kNet;
  text.replace(text.find("(\"y\")"), 5, "(\"y\", \"h\")").replace(text.find("return %y"), 9, "return %y, %0");
  const Graph inside = observedGraph(text);
  std::vector<Block> blocks = blocksOf(inside, int8Layers(inside));
  ASSERT_EQ(blocks.size(), 1u);
  EXPECT_THAT(ends(blocks[0]), ElementsAre("first", "second"));
  text.replace(text.find("return %y, %0"), 13, "return %y, %first");
  const Graph between = observedGraph(text);
  EXPECT_EQ(blocksOf(between, int8Layers(between)).size(), 2u);
}

// A head that nothing reads later, in front of the end of the first block.
TEST(Blocks, HoldNoHead) {
  std::string text = kNet;
  text.replace(text.find("(\"y\")"), 5, "(\"y\", \"h\")").replace(text.find("return %y"), 9, "return %y, %h");
  text.insert(text.find("  %2 = linear"), "  %h = linear %1, %e : f32[64,4]\n");
  const Graph graph = observedGraph(text);
  for (const Block& block : blocksOf(graph, int8Layers(graph)))
    for (const Node* layer : block.layers) EXPECT_NE(layer->result()->name(), "h");
}

TEST(ReconstructBlocks, BringsResultsNearerOnOtherSamples) {
  const Case c;
  const auto layers = c.quantized("layers", samples(5, 400)), blocks = c.quantized("on", samples(5, 400));
  ASSERT_TRUE(layers && blocks) << (layers ? blocks : layers).error().render();
  EXPECT_GT(blocks->layers.back().total, layers->layers.back().total + 0.2);
}

TEST(ReconstructBlocks, GivesTheSameBytesWithAnyNumberOfThreads) {
  const Case c;
  const auto one = c.quantized("on", samples(5, 60)), two = c.quantized("on", samples(5, 60), 2);
  ASSERT_TRUE(one && two);
  EXPECT_EQ(one->model.graph().str(), two->model.graph().str());
}

TEST(ReconstructBlocks, SaysWhereSamplesAreTooFew) {
  const Case c;
  const auto few = c.quantized("auto", samples(5, 49)), layers = c.quantized("layers", samples(5, 49));
  ASSERT_TRUE(few && layers);
  EXPECT_EQ(few->model.graph().str(), layers->model.graph().str());
  std::string remarks;
  for (const Remark& r : few->remarks) remarks += r.message + "\n";
  EXPECT_THAT(remarks, HasSubstr("whole blocks are fitted to 50 samples or more, there are 49"));
}

TEST(ReconstructBlocks, PassesOverWhatIsNotFinite) {
  const Case c;
  std::vector<Sample> some = samples(5, 60);
  some[7].at("mask").mutableAs<float>()[3] = NAN;
  const auto with = c.quantized("on", some);
  ASSERT_TRUE(with) << with.error().render();
  for (const Node* n = with->model.graph().front(); n; n = n->next())
    EXPECT_TRUE(!n->is("const") || n->constant().dtype() != DType::f32 || allFinite(n->constant().ref())) << n->result()->name();
}

// What no gradient passes stays, and is told or does no harm.
TEST(ReconstructBlocks, LeavesWhatCannotBeTrained) {
  for (const char* op : {"floor %4", "round %4"}) {
    SCOPED_TRACE(op);
    std::string text = kNet;
    text.insert(text.find("  %5 = mul"), fmt::format("  %44 = {} : f32[64,16]\n", op));
    text.replace(text.find("mul %4"), 6, "mul %44");
    const auto made = quantizedText(text, samples(5, 60));
    EXPECT_TRUE(made) << made.error().render();
  }
}

// The model's own names are whatever they are.
TEST(ReconstructBlocks, TakesModelsThatHaveItsNames) {
  std::string text = kNet;
  for (const auto& [from, to] : {std::pair("%x", "%from"), {"%mask", "%wanted"}, {"%0", "%step"}, {"%4", "%loss"}})
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + 1)) text.replace(at, strlen(from), to);
  std::vector<Sample> renamed;
  for (Sample& s : samples(5, 60)) renamed.push_back({{"from", s.at("x")}, {"wanted", s.at("mask")}});
  const auto made = quantizedText(text, std::move(renamed));
  EXPECT_TRUE(made) << made.error().render();
}

// The first sample alone has another shape.
TEST(ReconstructBlocks, TakesTheShapesThatMostSamplesHave) {
  std::string text = kNet;
  for (size_t at = text.find("f32[64,"); at != std::string::npos; at = text.find("f32[64,", at)) text.replace(at, 7, "f32[N,");
  std::vector<Sample> some = samples(5, 60);
  Random random(3);
  some[0] = {{"x", random.normal({5, 16})}, {"mask", random.normal({5, 16})}};
  const auto made = quantizedText(text, std::move(some));
  ASSERT_TRUE(made) << made.error().render();
  for (const Remark& r : made->remarks) EXPECT_THAT(r.message, testing::Not(HasSubstr("same shapes"))) << r.node;
}

}  // namespace
}  // namespace qc
