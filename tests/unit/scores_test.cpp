// What answers are worth, against values worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "ir/text.h"
#include "op_testing.h"
#include "runtime/insight/mixture.h"
#include "runtime/insight/scores.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;

std::string file(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

Tensor tensor(std::vector<int64_t> sizes, const std::vector<float>& values) {
  Tensor t(DType::f32, std::move(sizes));
  std::copy(values.begin(), values.end(), t.mutableAs<float>().begin());
  return t;
}

double scored(std::string_view name, const std::string& labels, const std::vector<Tensor>& outputs) {
  Scorer scorer = Scorer::open(*findScore(name), labels).value();
  for (size_t i = 0; i < outputs.size(); ++i) EXPECT_TRUE(scorer.add("s", static_cast<int64_t>(i), outputs[i]));
  return scorer.value();
}

TEST(Scores, AreWhatTheyAreCalled) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::string classes = file("classes.tsv", "0\t0\n1\t2\n2\t1\n3\t1\n");
  const std::vector<Tensor> answers = {tensor({3}, {5, 1, 1}), tensor({3}, {5, 1, 4}), tensor({3}, {5, 7, 4}), tensor({3}, {nan, 1, 0})};
  EXPECT_DOUBLE_EQ(scored("top1", classes, answers), 0.5);
  EXPECT_DOUBLE_EQ(scored("top5", classes, answers), 1);
  // Said 0, 0, 1, 1 of 0, 2, 1, 1: 2/3, 1 and 0.
  EXPECT_NEAR(scored("f1", classes, {answers[0], answers[1], answers[2], answers[2]}), (2.0 / 3 + 1 + 0) / 3, 1e-12);
  const std::string numbers = file("numbers.csv", "file,score\n0,1.5\n1,2\n2,7\n3,7\n");
  EXPECT_NEAR(scored("spearman", numbers, {tensor({1}, {1}), tensor({1}, {3}), tensor({1}, {2}), tensor({1}, {9})}), 0.6324555320, 1e-9);
  EXPECT_DOUBLE_EQ(scored("mean", "", {tensor({2}, {1, 2}), tensor({2}, {3, 4})}), 2.5);
  // Steps say 0 2 2 0 2 1: 2 2 1; wanted 2 1 1.
  const Tensor steps = tensor({1, 6, 3}, {9, 0, 0, 0, 0, 9, 0, 0, 9, 9, 0, 0, 0, 0, 9, 0, 9, 0});
  EXPECT_NEAR(scored("edit", file("text.tsv", "0\t2 1 1\n1\t2 2 1\n"), {steps, steps}), 1 - 1.0 / 6, 1e-12);
}

TEST(Scores, SayWhatDoesNotFit) {
  EXPECT_THAT(Scorer::open(*findScore("top1"), "").error().render(), HasSubstr("needs labels"));
  Scorer top1 = Scorer::open(*findScore("top1"), file("far.tsv", "0\t9\n")).value();
  EXPECT_THAT(top1.add("s", 0, tensor({3}, {1, 2, 3})).error().render(), HasSubstr("label 9 of sample 's' is outside the 3 scores"));
  EXPECT_THAT(top1.add("s", 1, tensor({3}, {1, 2, 3})).error().render(),
              AllOf(HasSubstr("has no label for sample 's'"), HasSubstr("help: add it")));
  Scorer rank = Scorer::open(*findScore("spearman"), file("one.tsv", "0\t1\n")).value();
  EXPECT_THAT(rank.add("s", 0, tensor({3}, {1, 2, 3})).error().render(), HasSubstr("one number for each sample: the output has 3"));
  EXPECT_THAT(Scorer::open(*findScore("edit"), file("words.tsv", "0\t1 2\n1\tone two\n")).error().render(), HasSubstr("line 2"));
}

// Two layers in a row that lose most: a channel that the second takes back; weights per tensor.
constexpr const char* kNet = R"(
const #a : f32[16,16] = rand(1, -0.5, 0.5)
const #b : f32[16,16] = rand(2, -0.5, 0.5)
const #c : f32[16,16] = rand(3, -0.5, 0.5)
const #big : f32[16] = [500, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
const #small : f32[16] = [0.002, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
graph @net(%x: f32[64,16]) -> ("y") {
  %a = const #a : f32[16,16]
  %b = const #b : f32[16,16]
  %c = const #c : f32[16,16]
  %big = const #big : f32[16]
  %small = const #small : f32[16]
  %loud = mul %b, %small : f32[16,16]
  %0 = linear %x, %a : f32[64,16] loc("first")
  %1 = relu %0 : f32[64,16] loc("act")
  %m = mul %1, %big : f32[64,16] loc("loud")
  %2 = linear %m, %loud : f32[64,16] loc("second")
  %3 = relu %2 : f32[64,16] loc("act2")
  %4 = linear %3, %c : f32[64,16] loc("third")
  return %4
}
)";

struct Case {
  Model model{parseGraph(kNet).value(), "net"};
  Dataset calibration, check;
  QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  Case() {
    Random random(5);
    std::vector<Sample> all;
    for (int i = 0; i < 12; ++i) all.push_back({{"x", random.normal({64, 16})}});
    calibration = memoryDataset(std::vector<Sample>(all.begin(), all.begin() + 8), model).value();
    check = memoryDataset(std::vector<Sample>(all.begin() + 8, all.end()), model, "check").value();
    rules.global(defaultQConfig(Backend::x86)).force().recipe("equalize", "off").recipe("smooth-quant", "off");
  }
};

TEST(Mixture, KeepsEveryLayerThatMayStay) {
  const Case c;
  Trials trials = Trials::open(prepareModel(c.model, c.rules).value(), c.calibration).value();
  const Judge judge = Judge::open(*trials.model().observed, c.check).value();
  const Mixture found = findMixture(trials, judge, judge, {.decibels = 30}).value();
  ASSERT_FALSE(found.path.empty());
  EXPECT_FALSE(found.path[0].meets);
  EXPECT_TRUE(found.result.meets);
  EXPECT_GE(found.result.decibels, 30);
  // Layers as small as these may be faster in another form; but for that, those that need not change stay.
  for (const MixtureStep& step : found.path)
    EXPECT_FALSE(step.meets && step.changed < std::ssize(found.changed) && step.milliseconds < found.result.milliseconds) << step.what;
  EXPECT_GE(judge.of(trials.quantized(found.rules)->model.graph())->decibels(), 30);
  // A target that is met already changes nothing.
  const Mixture easy = findMixture(trials, judge, judge, {.decibels = found.path[0].decibels - 0.01}).value();
  EXPECT_TRUE(easy.changed.empty());
  EXPECT_EQ(easy.path.size(), 1u);
}

// What is between int8 and float is measured as well for a layer that has to change, and taken where it meets the target in less time.
TEST(Mixture, TriesWhatIsBetweenInt8AndFloat) {
  const Case c;
  Trials trials = Trials::open(prepareModel(c.model, c.rules).value(), c.calibration).value();
  const Judge judge = Judge::open(*trials.model().observed, c.check).value();
  const Mixture found = findMixture(trials, judge, judge, {.decibels = 30}).value();
  for (const std::string choice : {"int8, 16-bit activations", "float16 weights", "dynamic"}) {
    const auto isOf = [&](const MixtureStep& step) { return step.what.starts_with(choice + ": "); };
    const auto tried = std::find_if(found.path.begin(), found.path.end(), isOf);
    ASSERT_NE(tried, found.path.end()) << choice;
    for (const MixtureStep& step : found.path)
      EXPECT_FALSE(isOf(step) && step.meets && step.milliseconds < 0.98 * found.result.milliseconds) << step.what;
  }
}

TEST(Mixture, SaysWhatATargetLacks) {
  const Case c;
  Trials trials = Trials::open(prepareModel(c.model, c.rules).value(), c.calibration).value();
  const Judge judge = Judge::open(*trials.model().observed, c.check).value();
  EXPECT_THAT(findMixture(trials, judge, judge, {.milliseconds = 1e-6}).error().render(), HasSubstr("the int8 model takes"));
  EXPECT_THAT(findMixture(trials, judge, judge, {.drop = 1}).error().render(), HasSubstr("there is none"));
  EXPECT_THAT(findMixture(trials, judge, judge, {}).error().render(), HasSubstr("there is no target"));
  const Mixture roomy = findMixture(trials, judge, judge, {.milliseconds = 1e6}).value();
  EXPECT_EQ(roomy.result.decibels, 120);  // there is time for float
}

}  // namespace
}  // namespace qc
