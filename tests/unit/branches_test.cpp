// Models of which data takes one of two branches, from calibration to running: what a sample does not take is not seen, costs nothing and
// cannot fail, and what no sample takes stays float.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "op_testing.h"
#include "passes/lower/bound_graph.h"
#include "runtime/insight/ledger.h"
#include "runtime/insight/mixture.h"
#include "runtime/insight/sensitivity.h"
#include "runtime/insight/ways.h"
#include "runtime/model_run.h"
#include "runtime/profile.h"
#include "runtime/qcompile.h"
#include "runtime/specialize.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

using namespace test;
using testing::HasSubstr;

// The one branch looks up row %i of the table, which is there where the branch is taken alone; both have the first weight in common.
constexpr const char* kNet = R"(
const #w : f32[16,8] = rand(1, -0.5, 0.5)
const #u : f32[4,16] = rand(2, -0.5, 0.5)
const #v : f32[4,16] = rand(3, -0.5, 0.5)
const #table : f32[3,4] = rand(4, -4.0, 4.0)
graph @net(%c: bool[1], %i: s64[1], %x: f32[N,T,8]) -> ("y", "z") {
  %w = const #w : f32[16,8]
  %u = const #u : f32[4,16]
  %v = const #v : f32[4,16]
  %table = const #table : f32[3,4]
  %a0 = linear %x, %w : f32[N,T,16]
  %a1 = relu %a0 : f32[N,T,16]
  %a2 = linear %a1, %u : f32[N,T,4] loc("first")
  %row = gather %table, %i {axis=0} : f32[1,4]
  %a3 = add %a2, %row : f32[N,T,4]
  %b0 = neg %x : f32[N,T,8]
  %b1 = linear %b0, %w : f32[N,T,16]
  %b2 = linear %b1, %v : f32[N,T,4] loc("second")
  %b3 = slice %b2 {sizes=[N,1,4], starts=[0,0,0], steps=[1,1,1]} : f32[N,1,4]
  %y = choose %c, %a3, %b3 {axes=[1], sizes=[n]} : f32[N,n,4] loc("either")
  %z = tanh %y : f32[N,n,4]
  return %y, %z
}
)";

Model net() { return Model(parseGraph(kNet).value(), "net"); }

Sample sampleOf(bool first, int64_t n, int64_t t, int64_t seed) {
  Random random(static_cast<uint64_t>(seed));
  Tensor condition(DType::boolean, {1});
  storeElement(DType::boolean, condition.mutableData(), 0, first ? 1 : 0);
  return {{"c", condition}, {"i", Tensor::ofInts({1}, std::vector<int64_t>{first ? 2 : 99})}, {"x", random.normal({n, t, 8})}};
}

std::vector<Sample> samples(bool first, bool second) {
  std::vector<Sample> all;
  for (int64_t i = 0; i < 6; ++i) {
    if (first) all.push_back(sampleOf(true, 1 + i % 2, 2 + i, i));
    if (second) all.push_back(sampleOf(false, 1 + i % 2, 2 + i, 10 + i));
  }
  return all;
}

std::vector<Tensor> inputsOf(const Graph& graph, const Sample& sample) {
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) inputs.push_back(sample.at(v->name()));
  return inputs;
}

TEST(Branches, RangesAreThoseOfTheSamplesThatTakeThem) {
  const PreparedModel prepared = prepareModel(net(), defaultQConfigMapping(Backend::x86)).value();
  const auto ranges = calibrate(prepared, memoryDataset(samples(true, true), net()).value());
  ASSERT_TRUE(ranges) << ranges.error().render();
  Ranges byHand = Ranges::forGraph(*prepared.observed).value();
  InterpOptions watch;
  watch.onNode = [&](const Node& n, std::span<const Tensor> results) {
    return n.is("observe") ? byHand.observe(n.integer("id"), results[0].ref()) : Status();
  };
  for (const Sample& sample : samples(true, true)) {
    const Graph bound = boundGraph(*prepared.observed, shapesOf(sample)).value();
    const auto ran = interpret(bound, inputsOf(bound, sample), watch);
    ASSERT_TRUE(ran) << ran.error().render();
  }
  const GroupParams got = ranges->params().value(), want = byHand.params().value();
  ASSERT_EQ(got.size(), want.size());
  EXPECT_GE(got.size(), 3u);
  for (const auto& [id, params] : want) EXPECT_EQ(*got.at(id), *params) << id;
}

// Near the float model where either is taken, with the bits of the interpreter.
TEST(Branches, BothAreQuantizedWhereSamplesTakeBoth) {
  const Dataset set = memoryDataset(samples(true, true), net()).value();
  const QuantizeOptions options{.recover = {.choices = {{"bias-correction", "full"}, {"reconstruct", "on"}}}, .compareSamples = 4};
  const auto int8 = calibrateAndQuantize(prepareModel(net(), defaultQConfigMapping(Backend::x86)).value(), set, options);
  ASSERT_TRUE(int8) << int8.error().render();
  for (const LayerNoise& layer : int8->layers) EXPECT_GT(layer.total, 25) << layer.node;
  EXPECT_EQ(std::ranges::count_if(int8->remarks, [](const Remark& r) { return r.message.find("no sample takes") != std::string::npos; }),
            0);
  const auto specializer = std::make_shared<Specializer>(Model(int8->model.graph().clone(), "net"), SpecializeOptions{});
  DynamicSession session(specializer, {});
  PassContext cx;
  const Graph lowered = lowerModel(int8->model, cx).value();
  for (const Sample& sample : samples(true, true)) {
    const auto run = session.run(sample);
    ASSERT_TRUE(run) << run.error().render();
    const Graph bound = boundGraph(lowered, shapesOf(sample)).value();
    const auto want = interpret(bound, inputsOf(bound, sample));
    ASSERT_TRUE(want) << want.error().render();
    EXPECT_TRUE(run->at("y").sameBytes((*want)[0]));
    EXPECT_TRUE(run->at("z").sameBytes((*want)[1]));
    const Graph real = boundGraph(net().graph(), shapesOf(sample)).value();
    const Tensor near = interpret(real, inputsOf(real, sample)).value()[0];
    ASSERT_EQ(near.sizes(), (*want)[0].sizes());
    for (int64_t i = 0; i < near.numElements(); ++i) EXPECT_NEAR(near.at(i), (*want)[0].at(i), 0.15);
  }
}

TEST(Branches, OneThatNoSampleTakesStaysFloat) {
  for (const bool first : {true, false}) {
    const Dataset set = memoryDataset(samples(first, !first), net()).value();
    const auto int8 = calibrateAndQuantize(prepareModel(net(), defaultQConfigMapping(Backend::x86)).value(), set);
    ASSERT_TRUE(int8) << int8.error().render();
    const std::string said = fmt::format("no sample takes the branch where 'c' is {}: its layers stay float; give samples that do", !first);
    EXPECT_TRUE(std::ranges::any_of(int8->remarks, [&](const Remark& r) { return r.message == said; })) << said;
    int64_t rounded[2] = {0, 0};
    for (const auto& [node, conditions] : conditionsOf(int8->model.graph()))
      if (node->is("quantize")) ++rounded[conditions.front().second == first ? 0 : 1];
    EXPECT_GT(rounded[0], 0);
    EXPECT_EQ(rounded[1], 0);
    for (const Sample& sample : samples(!first, first)) {
      const Graph real = boundGraph(net().graph(), shapesOf(sample)).value(),
                  bound = boundGraph(int8->model.graph(), shapesOf(sample)).value();
      // What lies in front of both branches may be rounded for the other.
      const Tensor want = interpret(real, inputsOf(real, sample)).value()[0], got = interpret(bound, inputsOf(bound, sample)).value()[0];
      ASSERT_EQ(want.sizes(), got.sizes());
      for (int64_t i = 0; i < want.numElements(); ++i) EXPECT_NEAR(want.at(i), got.at(i), 0.1);
    }
  }
}

TEST(Branches, OneThatSamplesTakeWithoutElementsStaysFloat) {
  std::vector<Sample> all = samples(true, false);
  all.push_back(sampleOf(false, 0, 5, 1));
  const auto int8 =
      calibrateAndQuantize(prepareModel(net(), defaultQConfigMapping(Backend::x86)).value(), memoryDataset(all, net()).value());
  ASSERT_TRUE(int8) << int8.error().render();
  const std::string said = "no sample has elements in the branch where 'c' is false: its layers stay float; give samples that do";
  EXPECT_TRUE(std::ranges::any_of(int8->remarks, [&](const Remark& r) { return r.message == said; }));
}

// Branches of one layer each: all that is rounded lies in front of them, and has the ranges of samples that take the other one.
constexpr const char* kLone = R"(
const #w : f32[16,8] = rand(1, -0.5, 0.5)
const #u : f32[16,16] = rand(2, -0.5, 0.5)
const #v : f32[16,16] = rand(3, -0.5, 0.5)
graph @lone(%c: bool[1], %d: bool[1], %x: f32[N,8]) -> ("z") {
  %w = const #w : f32[16,8]
  %u = const #u : f32[16,16]
  %v = const #v : f32[16,16]
  %0 = linear %x, %w : f32[N,16] loc("front")
  %1 = relu %0 : f32[N,16]
  %a = linear %1, %u : f32[N,16] loc("first")
  %b = linear %1, %v : f32[N,16] loc("second")
  %y = choose %c, %a, %b {axes=[], sizes=[]} : f32[N,16]
  %n = neg %1 : f32[N,16]
  %z = choose %d, %y, %n {axes=[], sizes=[]} : f32[N,16]
  return %z
}
)";

std::vector<Sample> loneSamples(bool outer, std::vector<bool> conditions) {
  const auto one = [](bool holds) {
    Tensor t(DType::boolean, {1});
    storeElement(DType::boolean, t.mutableData(), 0, holds ? 1 : 0);
    return t;
  };
  std::vector<Sample> all;
  for (const bool holds : conditions) all.push_back({{"c", one(holds)}, {"d", one(outer)}, {"x", Random(all.size()).normal({3, 8})}});
  return all;
}

TEST(Branches, ALoneLayerOfOneThatNoSampleTakesStaysFloat) {
  const Model model(parseGraph(kLone).value(), "lone");
  const PreparedModel prepared = prepareModel(model, defaultQConfigMapping(Backend::x86)).value();
  const auto reasons = [&](const QuantizedModel& int8) {
    std::map<std::string, std::string> reasons;
    for (const CoverageRow& row : int8.coverage.rows)
      if (row.op == "linear") reasons[row.node] = row.quantized ? "int8" : row.reason;
    return reasons;
  };
  const auto byLayer = [](const std::string& first, const std::string& second) {
    return std::map<std::string, std::string>{{"front", "int8"}, {"first", first}, {"second", second}};
  };
  const std::string unlike = "no sample takes the branch where 'c' is ", outside = "no sample takes the branch where 'd' is true";
  const std::vector<std::pair<std::vector<Sample>, std::map<std::string, std::string>>> cases = {
      {loneSamples(true, {true, true}), byLayer("int8", unlike + "false")},
      {loneSamples(true, {false, false}), byLayer(unlike + "true", "int8")},
      {loneSamples(true, {true, false}), byLayer("int8", "int8")},
      {loneSamples(false, {true, false}), byLayer(outside, outside)},
  };
  for (const auto& [samples, wanted] : cases) {
    const Dataset set = memoryDataset(samples, model).value();
    const auto int8 = calibrateAndQuantize(prepared, set);
    ASSERT_TRUE(int8) << int8.error().render();
    EXPECT_EQ(reasons(*int8), wanted);
    for (const auto& [node, conditions] : conditionsOf(int8->model.graph()))
      EXPECT_TRUE(!node->is("linear") || wanted.at(displayName(*node)) == "int8" || node->operand("w")->constant()) << displayName(*node);
    // Of two shards as of one run, and from a file; and where rules are tried.
    Ranges shards = calibrate(prepared, set, {.shard = {0, 2}}).value();
    ASSERT_TRUE(shards.merge(calibrate(prepared, set, {.shard = {1, 2}}).value()));
    const Ranges whole = calibrate(prepared, set).value();
    EXPECT_EQ(shards.serialize(), whole.serialize());
    const auto read = quantize(prepared, Ranges::deserialize(whole.serialize()).value(), {});
    ASSERT_TRUE(read) << read.error().render();
    EXPECT_EQ(reasons(*read), wanted);
    Trials trials = Trials::open(prepared, set, {.check = &set}).value();
    const QuantizedModel directly = calibrateAndQuantize(prepared, set, {.recover = {.check = &set}}).value();
    EXPECT_EQ(trials.quantized(*prepared.rules)->model.text(), directly.model.text());
  }
}

// What asks for no ranges needs no samples.
TEST(Branches, LayersThatQuantizeAtRunTimeDoSoInAnyBranch) {
  const Model model(parseGraph(kLone).value(), "lone");
  QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  rules.nameRegex("first|second", dynamicQConfig(Backend::x86));
  const auto int8 = calibrateAndQuantize(prepareModel(model, rules).value(), memoryDataset(loneSamples(true, {true, true}), model).value());
  ASSERT_TRUE(int8) << int8.error().render();
  EXPECT_EQ(int8->coverage.quantizedCount(), 3);
  EXPECT_EQ(std::ranges::count_if(int8->remarks, [](const Remark& r) { return r.message.find("no sample takes") != std::string::npos; }),
            0);
}

// What tries rules out over and over leaves it float as well, and finds the bits that `quantize` finds.
TEST(Branches, OneThatNoSampleTakesStaysFloatInTrials) {
  for (const bool first : {true, false}) {
    const Dataset set = memoryDataset(samples(first, !first), net()).value();
    const PreparedModel prepared = prepareModel(net(), defaultQConfigMapping(Backend::x86)).value();
    auto trials = Trials::open(prepared, set);
    ASSERT_TRUE(trials) << trials.error().render();
    const auto tried = trials->quantized(*prepared.rules);
    ASSERT_TRUE(tried) << tried.error().render();
    for (const auto& [node, conditions] : conditionsOf(tried->model.graph()))
      EXPECT_TRUE(!node->is("quantize") || conditions.front().second == first) << displayName(*node);
    const auto judge = Judge::open(*prepared.observed, set);
    ASSERT_TRUE(judge) << judge.error().render();
    const std::string other = first ? "second" : "first";
    const auto seen = sensitivity(*trials, *judge);
    ASSERT_TRUE(seen) << seen.error().render();
    EXPECT_FALSE(seen->rows.empty());
    for (const SensitivityRow& row : seen->rows) {
      EXPECT_NE(row.unit.name, other);
      EXPECT_TRUE(row.aloneQuantized.value() > 10 && row.aloneQuantized.value() < 100) << row.unit.name;
    }
    EXPECT_TRUE(std::ranges::any_of(seen->unseen, [&](const UnseenUnit& u) { return u.unit.name == other; }));
    for (const UnseenUnit& u : seen->unseen)
      EXPECT_EQ(u.why, fmt::format("no sample takes the branch where 'c' is {}: it stays float", !first)) << u.unit.name;
    // Nor does a target do anything to them.
    const auto mixture = findMixture(*trials, *judge, *judge, {.decibels = 100});
    ASSERT_TRUE(mixture) << mixture.error().render();
    EXPECT_EQ(mixture->unseen.size(), seen->unseen.size());
    // And it is told apart from what became integers.
    const QuantizedModel made = calibrateAndQuantize(prepared, set).value();
    for (const CoverageRow& row : made.coverage.rows) {
      if (row.node != other) continue;
      EXPECT_FALSE(row.quantized);
      EXPECT_EQ(row.reason, fmt::format("no sample takes the branch where 'c' is {}", !first));
    }
    EXPECT_FALSE(mixture->changed.empty());
    for (const auto& [layer, choice] : mixture->changed) EXPECT_NE(layer, other) << choice;
  }
}

// A value from in front of the branches that one of them reads as integers is observed where that one is taken.
TEST(Branches, RangesInTrialsAreThoseOfTheSamplesThatTakeThem) {
  std::vector<Sample> all = samples(true, true);
  for (Sample& sample : all)
    if (sample.at("c").at(0) == 0)
      for (float& v : sample.at("x").mutableAs<float>()) v *= 50;
  const Dataset set = memoryDataset(all, net()).value();
  const PreparedModel prepared = prepareModel(net(), defaultQConfigMapping(Backend::x86)).value();
  const RecoverOptions recover{.check = &set};
  Trials trials = Trials::open(prepared, set, recover).value();
  const QuantizedModel directly = calibrateAndQuantize(prepared, set, {.recover = recover}).value();
  EXPECT_EQ(trials.quantized(*prepared.rules)->model.text(), directly.model.text());
}

// Which calibration has seen, but none of the samples that figures are taken on.
TEST(Branches, OneThatIsNotMeasuredHasNoFigures) {
  const PreparedModel prepared = prepareModel(net(), defaultQConfigMapping(Backend::x86)).value();
  Trials trials = Trials::open(prepared, memoryDataset(samples(true, true), net()).value()).value();
  for (const bool first : {true, false}) {
    const Judge judge = Judge::open(*prepared.observed, memoryDataset(samples(first, !first), net()).value()).value();
    const auto seen = sensitivity(trials, judge);
    ASSERT_TRUE(seen) << seen.error().render();
    for (const SensitivityRow& row : seen->rows) EXPECT_LT(row.aloneQuantized.value(), 100) << row.unit.name;
    ASSERT_FALSE(seen->unseen.empty());
    for (const UnseenUnit& u : seen->unseen) EXPECT_EQ(u.why, "none of the 6 samples that are measured on runs it") << u.unit.name;
  }
}

TEST(Branches, ValuesOfOneThatIsNotTakenHaveNoElements) {
  auto taps = Taps::open(net().graph(), {"a1", "b1", "z"});
  ASSERT_TRUE(taps) << taps.error().render();
  for (const bool first : {true, false, true}) {
    const Sample sample = sampleOf(first, 2, 5, 3);
    const Status ran = taps->run(sample);
    ASSERT_TRUE(ran) << ran.error().render();
    EXPECT_EQ(taps->value(0).numElements(), first ? 2 * 5 * 16 : 0);
    EXPECT_EQ(taps->value(1).numElements(), first ? 0 : 2 * 5 * 16);
    EXPECT_EQ(taps->value(2).numElements(), first ? 2 * 5 * 4 : 2 * 4);
    EXPECT_EQ(taps->value(0).rank(), 3);
  }
}

// Where sizes decide, too: what is looked at in the other branch need not be possible.
TEST(Branches, OfSizesAreLookedAtWhereTheyAreTaken) {
  const Graph graph = parseGraph(R"(
const #eight : s64[] = [8]
graph @cut_or_padded(%x: f32[N,T]) -> ("z") {
  %t = dims {values=[T], shape=[], dtype=s64} : s64[]
  %eight = const #eight : s64[]
  %c = less %t, %eight : bool[]
  %p = pad %x {pads=[0,0,0,8-T]} : f32[N,8]
  %s = slice %x {sizes=[N,T-8], starts=[0,8], steps=[1,1]} : f32[N,T-8]
  %y = choose %c, %p, %s {axes=[1], sizes=[n]} : f32[N,n]
  %z = relu %y : f32[N,n]
  return %z
})")
                          .value();
  auto taps = Taps::open(graph, {"p", "s"});
  ASSERT_TRUE(taps) << taps.error().render();
  for (const int64_t length : {3, 20}) {
    const Status ran = taps->run({{"x", Random(1).normal({2, length})}});
    ASSERT_TRUE(ran) << ran.error().render();
    EXPECT_EQ(taps->value(0).numElements(), length < 8 ? 16 : 0);
    EXPECT_EQ(taps->value(1).numElements(), length < 8 ? 0 : 24);
  }
}

std::set<std::string> nodesOf(const std::vector<StepProfile>& steps) {
  std::set<std::string> names;
  for (const StepProfile& step : steps) names.insert(step.node);
  return names;
}

TEST(Branches, AreTimedWhereTheyAreTaken) {
  for (const bool first : {true, false}) {
    const Sample sample = sampleOf(first, 2, 5, 3);
    const Model bound(boundGraph(net().graph(), shapesOf(sample)).value(), "net");
    auto run = ModelRun::open(bound, sample, {}, makeWorkspace({}).value());
    ASSERT_TRUE(run) << run.error().render();
    ASSERT_EQ(run->decisions().size(), 1u);
    EXPECT_EQ(run->decisions()[0].str(), fmt::format("'either' takes the branch where 'c' is {}", first));
    EXPECT_EQ(run->decisions()[0].result, first ? "f32[2,5,4]" : "f32[2,1,4]");
    const auto steps = profile(*run, 3);
    ASSERT_TRUE(steps) << steps.error().render();
    const std::set<std::string> names = nodesOf(*steps);
    EXPECT_EQ(names.contains("first"), first);
    EXPECT_EQ(names.contains("second"), !first);
    EXPECT_TRUE(names.contains("either"));
    for (const StepProfile& step : *steps) {
      const bool inside = step.node == "first" || step.node == "second";
      EXPECT_TRUE(!inside || step.where == fmt::format("'c' is {}", first)) << step.node << ": " << step.where;
    }
    // Where each program begins among the steps.
    for (const ModelRun::Part& part : run->parts())
      for (size_t i = 0; i < part.program.program().steps().size(); ++i)
        EXPECT_EQ((*steps)[part.firstStep + i].node, part.program.program().steps()[i].node->location());
  }
}

TEST(Branches, AreWeighedAsOftenAsSamplesTakeThem) {
  std::vector<Sample> all;
  for (int64_t i = 0; i < 8; ++i) all.push_back(sampleOf(i % 4 == 3, 2, 5, i));
  const Dataset set = memoryDataset(all, net()).value();
  const auto ways = waysOf(net().graph(), set, 100);
  ASSERT_TRUE(ways) << ways.error().render();
  ASSERT_EQ(ways->size(), 2u);
  EXPECT_EQ((*ways)[0].sample, 0);
  EXPECT_EQ((*ways)[0].share, 0.75);
  EXPECT_EQ((*ways)[1].sample, 3);
  EXPECT_EQ((*ways)[1].share, 0.25);

  const QuantizedModel int8 = calibrateAndQuantize(prepareModel(net(), defaultQConfigMapping(Backend::x86)).value(), set).value();
  const Graph* const graphs[] = {&int8.model.graph()};
  const auto costOf = [&](std::vector<TimedInputs> inputs) {
    return modelledCosts(Target::parse("avx512vnni").value(), std::move(inputs))->of(graphs).value()[0];
  };
  const ProgramCost mixed = costOf({{all[0], 0.75}, {all[3], 0.25}}), second = costOf({{all[0]}}), first = costOf({{all[3]}});
  EXPECT_GT(first.seconds, 0);
  EXPECT_NEAR(mixed.seconds, 0.75 * second.seconds + 0.25 * first.seconds, 1e-12);
  EXPECT_TRUE(nodesOf(mixed.steps).contains("first") && nodesOf(mixed.steps).contains("second"));
  EXPECT_FALSE(nodesOf(second.steps).contains("first"));
  std::set<std::string> weighed;
  for (const LedgerRow& row : weighedRegions(mixed, mixed.steps, {})) {
    EXPECT_NE(row.int8Milliseconds, 0) << row.region;
    weighed.insert(row.nodes.begin(), row.nodes.end());
  }
  EXPECT_TRUE(weighed.contains("first") && weighed.contains("second"));
}

TEST(Branches, OneProgramIsRefusedInWords) {
  const Model model = net();
  const Sample sample = sampleOf(true, 1, 2, 1);
  const auto compiled = compile(Model(boundGraph(model.graph(), shapesOf(sample)).value(), "net"));
  ASSERT_FALSE(compiled);
  EXPECT_EQ(compiled.error().node(), "either");
  EXPECT_THAT(compiled.error().render(), HasSubstr("the data decides which of two tensors is taken"));
  EXPECT_THAT(compiled.error().render(), HasSubstr("fix 'c' with LoadOptions::values"));
}

}  // namespace
}  // namespace qc
