// A model under other rules without calibrating again, and which layers it loses accuracy in.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "ir/text.h"
#include "op_testing.h"
#include "runtime/insight/sensitivity.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

// The transposes move integers.
constexpr const char* kNet = R"(
const #a : f32[16,16] = rand(1, -0.5, 0.5)
const #b : f32[16,16] = rand(2, -0.5, 0.5)
const #c : f32[4,16] = rand(3, -0.5, 0.5)
graph @net(%x: f32[8,16]) -> ("y") {
  %a = const #a : f32[16,16]
  %b = const #b : f32[16,16]
  %c = const #c : f32[4,16]
  %0 = linear %x, %a : f32[8,16] loc("block.0/first")
  %1 = relu %0 : f32[8,16] loc("block.0/act")
  %2 = linear %1, %b : f32[8,16] loc("block.1/second")
  %3 = transpose %2 {perm=[1,0]} : f32[16,8] loc("block.1/turn")
  %4 = transpose %3 {perm=[1,0]} : f32[8,16] loc("block.1/back")
  %5 = linear %4, %c : f32[8,4] loc("head")
  return %5
}
)";

std::vector<Sample> samples(uint32_t seed, int count) {
  Random random(seed);
  std::vector<Sample> all;
  for (int i = 0; i < count; ++i) all.push_back({{"x", random.normal({8, 16})}});
  return all;
}

QConfigMapping rules() {
  QConfigMapping all = defaultQConfigMapping(Backend::x86);
  all.global(defaultQConfig(Backend::x86)).force();
  return all;
}

struct Case {
  Model model{parseGraph(kNet).value(), "net"};
  Dataset calibration = memoryDataset(samples(5, 12), model).value(), check = memoryDataset(samples(9, 6), model, "check").value();
  PreparedModel prepared = prepareModel(model, rules()).value();
  RecoverOptions recover() const { return {.check = &check}; }
  Trials trials() const { return Trials::open(prepared, calibration, recover()).value(); }
  Judge judge() const { return Judge::open(*prepared.observed, check).value(); }
};

std::string whole(const QuantizedModel& model) { return model.model.text() + fingerprint(model.model.graph()); }

TEST(Trials, GiveWhatQuantizeGives) {
  const Case s;
  Trials trials = s.trials();
  const QuantizedModel directlyAll = calibrateAndQuantize(s.prepared, s.calibration, {.recover = s.recover()}).value();
  EXPECT_EQ(whole(trials.quantized(rules()).value()), whole(directlyAll));
  // So do other rules, and the same again in no further run of the samples than one for what the head reads now.
  QConfigMapping less = rules();
  less.name("block.1/second", keepFloat());
  const QuantizedModel directly =
      calibrateAndQuantize(prepareModel(s.model, less).value(), s.calibration, {.recover = s.recover()}).value();
  for (int i = 0; i < 2; ++i) {
    const QuantizedModel tried = trials.quantized(less).value();
    EXPECT_NEAR(s.judge().of(tried.model.graph()).value().decibels(), s.judge().of(directly.model.graph()).value().decibels(), 0.2);
  }
  EXPECT_EQ(whole(trials.quantized(rules()).value()), whole(directlyAll));
  EXPECT_EQ(trials.runs(), 2);
}

// Where recipes go from layer to layer, a mixture is what quantize() makes of it only if nothing is remembered of others.
TEST(Trials, MakeAnewWhatGoesInTurn) {
  const Case s;
  RecoverOptions recover = s.recover();
  recover.choose("reconstruct", "on");
  Trials trials = Trials::open(s.prepared, s.calibration, recover).value();
  EXPECT_TRUE(trials.goesInTurn(rules()).value());
  EXPECT_FALSE(s.trials().goesInTurn(rules()).value());
  ASSERT_TRUE(trials.quantized(rules()));
  QConfigMapping less = rules();
  less.name("block.0/first", keepFloat());
  const QuantizedModel directly = calibrateAndQuantize(prepareModel(s.model, less).value(), s.calibration, {.recover = recover}).value();
  EXPECT_EQ(whole(trials.quantizedAnew(less).value()), whole(directly));
  EXPECT_NE(whole(trials.quantized(less).value()), whole(directly));
}

TEST(LayerUnits, AreWhatRoundsOnce) {
  const Case s;
  const std::vector<LayerUnit> units = layerUnits(s.prepared).value();
  ASSERT_EQ(units.size(), 3u);
  EXPECT_THAT(units[0].nodes, ElementsAre("block.0/first", "block.0/act"));
  EXPECT_EQ(units[0].name, "block.0/first");
  EXPECT_THAT(units[2].inputs, ElementsAre("block.1/second"));  // through what only moves
  EXPECT_THAT(byModule(units)[0].nodes, ElementsAre("block.0/first", "block.0/act"));
  EXPECT_EQ(byModule(units)[0].name, "block.0");
  EXPECT_EQ(byModule(units)[2].name, "head");
}

TEST(Sensitivity, MeasuresEachLayerAloneAndGoesOnWhereItEnded) {
  const Case s;
  Trials trials = s.trials();
  const Judge judge = s.judge();
  const std::string state = testing::TempDir() + "sensitivity_state.json";
  std::filesystem::remove(state);
  const Sensitivity first = sensitivity(trials, judge, {.top = 2, .state = state}).value();
  EXPECT_EQ(first.measured, 2);
  EXPECT_EQ(first.resumed, 0);
  EXPECT_FALSE(first.rows[2].aloneQuantized);
  const Sensitivity all = sensitivity(trials, judge, {.state = state}).value();
  EXPECT_EQ(all.measured, 3);
  EXPECT_EQ(all.resumed, 2);
  for (const SensitivityRow& row : all.rows) {
    EXPECT_EQ(*row.aloneQuantized, judge.of(trials.quantized(withNothingBut(rules(), row.unit))->model.graph())->decibels());
    EXPECT_EQ(*row.aloneFloat, judge.of(trials.quantized(withFloat(rules(), {&row.unit}))->model.graph())->decibels());
    EXPECT_GT(*row.aloneQuantized, all.allQuantized - 1);
  }
  EXPECT_LE(*all.rows[0].aloneQuantized, *all.rows[2].aloneQuantized);
  EXPECT_GT(all.added, 0.5);
  const Judge other = Judge::open(*s.prepared.observed, s.calibration).value();
  EXPECT_THAT(sensitivity(trials, other, {.state = state}).error().render(), HasSubstr("state of another model"));
  std::ofstream(state) << "[]";
  EXPECT_THAT(sensitivity(trials, judge, {.state = state}).error().render(), HasSubstr("is not a state of"));
}

TEST(Judge, CountsWhatIsNoNumberAsLost) {
  const Graph x = parseGraph("graph @g(%x: f32[8,16]) {\n  %0 = neg %x : f32[8,16]\n  return %0\n}").value();
  const Graph bad = parseGraph("graph @g(%x: f32[8,16]) {\n  %0 = sqrt %x : f32[8,16]\n  return %0\n}").value();
  const Case s;
  const Judge judge = Judge::open(x, s.check).value();
  EXPECT_EQ(judge.of(x)->decibels(), 120);
  EXPECT_LT(judge.of(bad)->decibels(), 1);
  EXPECT_EQ(judge.milliseconds({&x, &bad})->size(), 2u);
}

}  // namespace
}  // namespace qc
