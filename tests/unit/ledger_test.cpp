// What is weighed against float, and what is decided of given times.  Nothing here measures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/text.h"
#include "runtime/insight/float_form.h"
#include "runtime/insight/layer_costs.h"
#include "runtime/insight/ledger.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Model parsed(const char* text) { return Model(parseGraph(text, "test").value(), "test"); }

// Two linears, a softmax between them that rounds nothing.
Model chain() {
  return parsed(R"(
const #v : f32[64,64] = rand(1, -0.5, 0.5)
const #w : f32[64,64] = rand(2, -0.5, 0.5)
graph @chain(%x: f32[8,64]) -> ("y") {
  %v = const #v : f32[64,64]
  %w = const #w : f32[64,64]
  %0 = linear %x, %v : f32[8,64] loc("first")
  %1 = softmax %0 {axis=1} : f32[8,64] loc("between")
  %2 = linear %1, %w : f32[8,64] loc("second")
  return %2
}
)");
}

PreparedModel prepared(const Model& model) {
  QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  rules.objectType("softmax", keepFloat());
  for (const char* layer : {"first", "second"}) rules.name(layer, defaultQConfig(Backend::x86)).force();
  return prepareModel(model, rules).value();
}

Dataset samples(const Model& model) {
  Tensor x(DType::f32, {8, 64});
  auto values = x.mutableAs<float>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 13) - 6;
  return callbackDataset(1, [x](int64_t) -> Result<TensorMap> { return TensorMap{{"x", x}}; }, model).value();
}

RecoverOptions nothing() {
  RecoverOptions options;
  for (const Recipe& recipe : recipes()) options.choose(std::string(recipe.name), std::string(recipe.off));
  return options;
}

// Times by what a step works on, decided by the test.
class Given : public CostSource {
 public:
  explicit Given(std::function<double(const StepProfile&, bool integer)> seconds) : seconds_(std::move(seconds)) {}
  Result<std::vector<ProgramCost>> of(std::span<const Graph* const> graphs) override {
    std::vector<ProgramCost> costs;
    for (const Graph* graph : graphs) {
      QC_ASSIGN(Executable exe, compile(Model(graph->clone(), ""), {.target = Target{}, .compile = {.load = false}}));
      std::vector<StepProfile> steps = stepsOf(exe.program());
      double sum = 0;
      for (size_t i = 0; i < steps.size(); ++i) {
        const Node& node = *exe.program().steps()[i].node;
        bool integer = node.result()->type().isQuantized();
        for (const Value* v : node.operands()) integer |= v && v->type().isQuantized();
        sum += steps[i].seconds = seconds_(steps[i], integer);
      }
      costs.push_back({{{std::move(exe)}}, sum, std::move(steps)});
    }
    return costs;
  }
  bool measures() const override { return false; }
  std::string target() const override { return "given"; }
  int threads() const override { return 1; }

 private:
  std::function<double(const StepProfile&, bool)> seconds_;
};

Ledger ledgerOf(std::function<double(const StepProfile&, bool)> seconds, LedgerOptions options = {}) {
  const Model model = chain();
  Trials trials = Trials::open(prepared(model), samples(model), nothing()).value();
  Given costs(std::move(seconds));
  return neverSlower(trials, costs, options).value();
}

TEST(Ledger, FindsRegionsWithTheirBorders) {
  const Model model = chain();
  Trials trials = Trials::open(prepared(model), samples(model), nothing()).value();
  const QuantizedModel int8 = trials.quantized(*trials.model().rules).value();
  const Executable exe = compile(int8.model, {.target = Target{}, .compile = {.load = false}}).value();
  const std::vector<Int8Region> regions = int8Regions(exe.program());
  ASSERT_EQ(regions.size(), 2u) << exe.program().graph().str();
  EXPECT_THAT(regions[0].nodes, ElementsAre("first"));
  EXPECT_THAT(regions[1].nodes, ElementsAre("second"));
  EXPECT_GE(regions[0].borders, 1);
}

TEST(Ledger, KeepsWhatWins) {
  const Ledger ledger = ledgerOf([](const StepProfile&, bool integer) { return integer ? 1e-6 : 10e-6; });
  EXPECT_EQ(ledger.chosen, 0u);
  EXPECT_TRUE(ledger.madeFloat.empty());
  ASSERT_EQ(ledger.rows.size(), 2u);
  for (const LedgerRow& row : ledger.rows) {
    EXPECT_TRUE(row.wins && row.int8) << row.region;
    EXPECT_GT(row.gain(), 0);
  }
}

TEST(Ledger, LeavesARegionThatLosesInFloat) {
  const auto seconds = [](const StepProfile& s, bool integer) { return !integer ? 10e-6 : s.node == "first" ? 50e-6 : 1e-6; };
  const Ledger ledger = ledgerOf(seconds);
  EXPECT_THAT(ledger.madeFloat, ElementsAre("first"));
  ASSERT_EQ(ledger.rows.size(), 2u);
  EXPECT_FALSE(ledger.rows[0].wins || ledger.rows[0].int8);
  EXPECT_THAT(ledger.rows[0].reason, HasSubstr("borders"));
  EXPECT_TRUE(ledger.rows[1].int8);
  EXPECT_LT(ledger.milliseconds(), ledger.int8Milliseconds());
  EXPECT_LE(ledger.milliseconds(), ledger.floatMilliseconds);
  // The rules say it without a measurement.
  const PreparedModel again = prepareModel(chain(), ledger.rules).value();
  for (const CoverageRow& row : again.coverage.rows) EXPECT_EQ(row.quantized, row.node == "second") << row.node;

  const Ledger kept = ledgerOf(seconds, {.keepInt8 = {"^fir"}});
  EXPECT_TRUE(kept.madeFloat.empty());
  EXPECT_EQ(kept.rows[0].reason, "kept on request");
}

TEST(Ledger, IsFloatWhereNothingWins) {
  const Ledger ledger = ledgerOf([](const StepProfile&, bool integer) { return integer ? 20e-6 : 10e-6; });
  EXPECT_THAT(ledger.madeFloat, ElementsAre("first", "second"));
  EXPECT_NEAR(ledger.milliseconds(), ledger.floatMilliseconds, 1e-9);
}

TEST(Ledger, SaysWhatMatchesNothing) {
  const Model model = chain();
  Trials trials = Trials::open(prepared(model), samples(model), nothing()).value();
  Given costs([](const StepProfile&, bool) { return 1e-6; });
  EXPECT_THAT(neverSlower(trials, costs, {.keepInt8 = {"nowhere"}}).error().render(), HasSubstr("'nowhere'"));
  EXPECT_THAT(neverSlower(trials, costs, {.keepInt8 = {"("}}).error().render(), HasSubstr("not a regular expression"));
}

TEST(Ledger, ChoosesTheFastestAndOfEqualsTheOneWithFewerIntegers) {
  EXPECT_EQ(chosenMixture(std::vector<MixtureTime>{{1.0, 5}, {0.9, 3}, {2.0, 0}}), 1u);
  EXPECT_EQ(chosenMixture(std::vector<MixtureTime>{{1.0, 5}, {1.005, 0}}), 1u);
  EXPECT_EQ(chosenMixture(std::vector<MixtureTime>{{1.0, 5}, {1.03, 0}}), 0u);
}

TEST(LayerCosts, CountWhatIsJoinedToTheLayerInFront) {
  const auto step = [](const char* node, double seconds, const char* kernel) {
    StepProfile s;
    s.node = node, s.op = "op", s.kernel = kernel, s.seconds = seconds;
    return s;
  };
  const std::vector<StepProfile> int8{step("a", 1, "qa"), step("b", 2, "qb")};
  const std::vector<StepProfile> real{step("a", 3, "fa"), step("relu", 1, "fr"), step("b", 1, "fb")};
  const std::vector<LayerCost> rows = layerCosts(int8, real);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].floatSeconds, 4);
  EXPECT_EQ(rows[0].floatKernels, "fa, fr");
  EXPECT_FALSE(rows[0].loses());
  EXPECT_TRUE(rows[1].loses());
}

TEST(FloatForm, IsTheModelWithoutItsRounding) {
  const Model model = chain();
  const PreparedModel ready = prepared(model);
  const QuantizedModel int8 = calibrateAndQuantize(ready, samples(model)).value();
  const Graph real = floatForm(int8.model.graph()).value();
  EXPECT_THAT(real.str(), testing::Not(HasSubstr("quantize")));
  const TensorMap input = samples(model).sample(0).value();
  const Tensor want = compile(model).value().session().value().run(input).value().at("y");
  const Tensor got = compile(Model(real.clone(), "")).value().session().value().run(input).value().at("y");
  for (size_t i = 0; i < want.as<float>().size(); ++i) EXPECT_NEAR(got.as<float>()[i], want.as<float>()[i], 0.1);
}

TEST(FloatForm, MovesFloatsWhereIntegersMoved) {
  const Model model = parsed(R"(
!x = q<u8, scale=0.5, zp=8>
graph @moves(%x: f32[2,8]) -> ("y") {
  %q = quantize %x : !x[2,8]
  %r = reshape %q {shape=[16]} : !x[16]
  %y = dequantize %r : f32[16]
  return %y
}
)");
  const std::string text = floatForm(model.graph()).value().str();
  EXPECT_THAT(text, testing::Not(HasSubstr("quantize")));
  EXPECT_THAT(text, HasSubstr("reshape"));
}

TEST(FloatForm, LooksIntoTheBodiesOfLoops) {
  const Model model = parsed(R"(
!x = q<u8, scale=0.5, zp=8>
graph @rounds(%m: s64[], %x: f32[2,8]) -> ("y") {
  %y = loop %m, _, %x {body={
    const #yes : bool[] = [1]
    graph @round(%i: s64[], %a: f32[2,8]) {
      %yes = const #yes : bool[]
      %q = quantize %a : !x[2,8]
      %d = dequantize %q : f32[2,8]
      %next = tanh %d : f32[2,8]
      return %yes, %next
    }
  }, carried=1} : f32[2,8]
  return %y
}
)");
  const std::string text = floatForm(model.graph()).value().str();
  EXPECT_THAT(text, testing::Not(HasSubstr("quantize")));
  EXPECT_THAT(text, HasSubstr("tanh %a"));
}

}  // namespace
}  // namespace qc
