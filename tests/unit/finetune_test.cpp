// finetune() on models as exporters write them: samples that lie behind other dims, inputs that all samples share, names that a step of
// training has too, outputs that hold no floats; and what it says of those that it cannot train.
#include "runtime/training/finetune.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "ir/text.h"
#include "runtime/model.h"
#include "runtime/training/batch_layout.h"
#include "runtime/training/held_out.h"
#include "tests/unit/random_values.h"

namespace qc {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::Gt;
using testing::HasSubstr;
using testing::Lt;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr int64_t kSamples = 24, kBatch = 4;

Model parsed(const std::string& text) {
  auto graph = parseGraph(text, "net");
  EXPECT_TRUE(graph) << (graph ? "" : graph.error().render());
  return {std::move(*graph), "net"};
}

Tensor random(const std::vector<int64_t>& sizes, uint32_t seed) {
  test::RandomValues values(seed);
  Tensor t(DType::f32, sizes);
  for (float& x : t.mutableAs<float>()) x = static_cast<float>(values.real(-1, 1));
  return t;
}

using Make = std::function<Sample(uint32_t)>;

Result<Dataset> samplesOf(const Model& model, const Make& make) {
  std::vector<Sample> samples;
  for (uint32_t i = 0; i < kSamples; ++i) samples.push_back(make(i));
  return memoryDataset(std::move(samples), model);
}

FinetuneOptions options() {
  FinetuneOptions o;
  o.trainer.batch = kBatch;
  o.trainer.schedule = {.rate = 0.01f};
  o.epochs = 2;
  return o;
}

Result<Finetuned> trained(const Model& model, const Make& make, const FinetuneOptions& o = options()) {
  QC_ASSIGN(const PreparedModel prepared, prepareModel(model, QConfigMapping().global(defaultQConfig(Backend::x86)).force()));
  QC_ASSIGN(const Dataset samples, samplesOf(model, make));
  return finetune(prepared, samples, o);
}

std::string errorOf(const Model& model, const Make& make, const FinetuneOptions& o = options()) {
  const auto done = trained(model, make, o);
  return done ? "trained" : done.error().render();
}

std::vector<double> lossesOf(const Model& model, const Make& make, FinetuneOptions o = options()) {
  std::vector<double> losses;
  o.progress = [&](const FinetuneProgress& p) { losses.push_back(p.lossOfStep); };
  const auto done = trained(model, make, o);
  EXPECT_TRUE(done) << (done ? "" : done.error().render());
  return losses;
}

const std::string kWeights =
    "const #w : f32[8,6] = rand(1, -0.5, 0.5)\nconst #v : f32[3,8] = rand(2, -0.5, 0.5)\nconst #b : f32[8] = splat 0.1\n"
    "const #c : f32[3] = splat 0.0\n";
const std::string kLayers = "%w = const #w : f32[8,6]\n%v = const #v : f32[3,8]\n%b = const #b : f32[8]\n%c = const #c : f32[3]\n";

// Two layers on rows of six.
Model rows(const std::string& name = "x") {
  return parsed(kWeights + "graph @g(%" + name + ": f32[N,6]) -> (\"y\") {\n" + kLayers + "%1 = linear %" + name +
                ", %w, %b : f32[N,8]\n%2 = relu %1 : f32[N,8]\n%3 = linear %2, %v, %c : f32[N,3]\nreturn %3\n}\n");
}

TEST(Finetune, FindsSamplesBehindOtherDims) {
  const Model behind = parsed(kWeights + "graph @g(%x: f32[6,N]) -> (\"y\") {\n" + kLayers +
                              "%0 = transpose %x {perm=[1,0]} : f32[N,6]\n%1 = linear %0, %w, %b : f32[N,8]\n%2 = relu %1 : f32[N,8]\n"
                              "%3 = linear %2, %v, %c : f32[N,3]\nreturn %3\n}\n");
  FinetuneOptions o = options();
  o.trainer.quantized = false;
  for (int64_t i = 0; i < kSamples; ++i) o.targets.labels.push_back(i % 3);
  const auto wanted = lossesOf(rows(), [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; }, o);
  ASSERT_EQ(wanted.size(), 2U * (kSamples / kBatch - 2));
  const auto found = lossesOf(behind, [](uint32_t i) { return Sample{{"x", random({6, 1}, i)}}; }, o);
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-6 * wanted[i]) << i;
}

// A recurrent layer's states have layers in front of samples.
TEST(Finetune, TakesStatesBesideSequences) {
  const Model model = parsed(
      "const #w : f32[1,24,4] = rand(1, -0.5, 0.5)\nconst #u : f32[1,24,6] = rand(2, -0.5, 0.5)\nconst #v : f32[3,6] = rand(3, -0.5, 0.5)\n"
      "graph @g(%x: f32[N,T,4], %h: f32[1,N,6], %c: f32[1,N,6]) -> (\"y\", \"hn\", \"cn\") {\n%w = const #w : f32[1,24,4]\n"
      "%u = const #u : f32[1,24,6]\n%v = const #v : f32[3,6]\n%0 = transpose %x {perm=[1,0,2]} : f32[T,N,4]\n"
      "%1, %2, %3 = lstm %0, %w, %u, _, _, %h, %c {hidden_size=6} : f32[T,1,N,6], f32[1,N,6], f32[1,N,6]\n"
      "%4 = reshape %2 {shape=[N,6]} : f32[N,6]\n%5 = linear %4, %v : f32[N,3]\nreturn %5, %2, %3\n}\n");
  const auto layout = BatchLayout::of(model.graph(), {{"x", {1, 5, 4}}, {"h", {1, 1, 6}}, {"c", {1, 1, 6}}}, kBatch);
  ASSERT_TRUE(layout) << layout.error().render();
  EXPECT_THAT(layout->dims, UnorderedElementsAre(Pair("x", 0), Pair("h", 1), Pair("c", 1)));
  const auto losses = lossesOf(model, [](uint32_t i) {
    return Sample{{"x", random({1, 5, 4}, i)}, {"h", random({1, 1, 6}, 100 + i)}, {"c", random({1, 1, 6}, 200 + i)}};
  });
  EXPECT_EQ(losses.size(), 2U * (kSamples / kBatch - 2));
}

TEST(Finetune, GivesWhatSamplesShareOnce) {
  const Model model = parsed(kWeights + "graph @g(%x: f32[N,6], %gain: f32[6], %rate: f32[]) -> (\"y\") {\n" + kLayers +
                             "%0 = mul %x, %gain : f32[N,6]\n%1 = mul %0, %rate : f32[N,6]\n%2 = linear %1, %w, %b : f32[N,8]\n"
                             "%3 = relu %2 : f32[N,8]\n%4 = linear %3, %v, %c : f32[N,3]\nreturn %4\n}\n");
  const auto sample = [](uint32_t i, uint32_t gain) {
    return Sample{{"x", random({1, 6}, i)}, {"gain", random({6}, gain)}, {"rate", Tensor::ofFloats({}, std::vector<float>{2.0f})}};
  };
  EXPECT_FALSE(lossesOf(model, [&](uint32_t i) { return sample(i, 7); }).empty());
  EXPECT_THAT(errorOf(model, [&](uint32_t i) { return sample(i, i); }),
              AllOf(HasSubstr("gain"), HasSubstr("has no dim for samples"), HasSubstr("batch of 1")));
  FinetuneOptions one = options();
  one.trainer.batch = 1;
  EXPECT_FALSE(lossesOf(model, [&](uint32_t i) { return sample(i, i); }, one).empty());
}

TEST(Finetune, TakesNamesThatAStepHasToo) {
  FinetuneOptions labelled = options();
  for (int64_t i = 0; i < kSamples; ++i) labelled.targets.labels.push_back(i % 3);
  labelled.targets.teacherShare = 0.5;
  const auto wanted = lossesOf(rows(), [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; }, labelled);
  for (const std::string name : {"labels", "step", "observing", "loss", "teacher.y", "learning_rate"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(lossesOf(rows(name), [&](uint32_t i) { return Sample{{name, random({1, 6}, i)}}; }, labelled), wanted);
  }
}

// A class alone teaches nothing; the scores in front of it do.
TEST(Finetune, MatchesValuesWhereNoOutputHoldsFloats) {
  const Model model = parsed(kWeights + "graph @g(%x: f32[N,6]) -> (\"y\") {\n" + kLayers +
                             "%1 = linear %x, %w, %b : f32[N,8]\n%2 = relu %1 : f32[N,8]\n%scores = linear %2, %v, %c : f32[N,3]\n"
                             "%3 = argmax %scores {axis=1, keepdims=0} : s64[N]\nreturn %3\n}\n");
  const Make make = [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; };
  EXPECT_THAT(errorOf(model, make), AllOf(HasSubstr("no output of the model holds f32 numbers to learn"), HasSubstr("--match")));
  FinetuneOptions o = options();
  o.targets.match = {"scores"};
  EXPECT_FALSE(lossesOf(model, make, o).empty());
}

// One sample in which nothing happens is a batch without size: its error is measured against what all have.
TEST(Finetune, MeasuresQuietBatchesAgainstAll) {
  const Model model = parsed(
      "const #w : f32[8,6] = rand(1, -0.5, 0.5)\nconst #v : f32[1,8] = rand(2, -0.5, 0.5)\ngraph @g(%x: f32[N,6]) -> (\"y\") {\n"
      "%w = const #w : f32[8,6]\n%v = const #v : f32[1,8]\n%1 = linear %x, %w : f32[N,8]\n%2 = relu %1 : f32[N,8]\n"
      "%3 = linear %2, %v : f32[N,1]\n%4 = relu %3 : f32[N,1]\nreturn %4\n}\n");
  FinetuneOptions o = options();
  o.trainer.batch = 1;
  o.heldOut = 0;
  for (const std::string kind : {"mse", "l1"}) {
    o.targets.loss = kind;
    const auto losses = lossesOf(model, [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; }, o);
    EXPECT_THAT(losses, Each(Lt(100.0))) << kind;
    EXPECT_THAT(losses, Contains(Gt(0.0))) << kind;
  }
}

// A softmax over channels is compared along them, as one over the last dim is where the same numbers lie there; so are channels that no
// softmax reads.
TEST(Finetune, ComparesClassesWhereTheyLie) {
  const auto losses = [](const std::string& end, const std::string& kind) {
    const Model model = parsed(
        "const #w : f32[3,2,1,1] = rand(1, -0.5, 0.5)\ngraph @g(%x: f32[N,2,3,3]) -> (\"y\") {\n"
        "%w = const #w : f32[3,2,1,1]\n%0 = conv %x, %w : f32[N,3,3,3]\n" +
        end + "}\n");
    FinetuneOptions o = options();
    o.heldOut = 0;
    o.targets.loss = kind;
    return lossesOf(model, [](uint32_t i) { return Sample{{"x", random({1, 2, 3, 3}, i)}}; }, o);
  };
  const std::string turned = "%1 = transpose %0 {perm=[0,2,3,1]} : f32[N,3,3,3]\n";
  const auto wanted = losses(turned + "%2 = softmax %1 {axis=3} : f32[N,3,3,3]\nreturn %2\n", "auto");
  ASSERT_FALSE(wanted.empty());
  const auto near = [&](const std::vector<double>& found) {
    ASSERT_EQ(found.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-3 * wanted[i]) << i;
  };
  near(losses("%1 = softmax %0 {axis=1} : f32[N,3,3,3]\nreturn %1\n", "auto"));
  near(losses("%1 = log_softmax %0 {axis=1} : f32[N,3,3,3]\nreturn %1\n", "kl"));
  near(losses("return %0\n", "kl"));
}

// Results of any size are taught alike.
TEST(Finetune, MeasuresErrorsAgainstTheSizeOfResults) {
  const auto first = [](const std::string& size) {
    const Model model = parsed("const #w : f32[8,6] = rand(1, -0.5, 0.5)\nconst #v : f32[3,8] = rand(2, -" + size + ", " + size +
                               ")\ngraph @g(%x: f32[N,6]) -> (\"y\") {\n%w = const #w : f32[8,6]\n%v = const #v : f32[3,8]\n"
                               "%1 = linear %x, %w : f32[N,8]\n%2 = relu %1 : f32[N,8]\n%3 = linear %2, %v : f32[N,3]\nreturn %3\n}\n");
    FinetuneOptions o = options();
    o.trainer.schedule = {.rate = 1e-9f};
    const auto losses = lossesOf(model, [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; }, o);
    return losses.empty() ? 0.0 : losses[0];
  };
  const double wanted = first("0.5");
  for (const std::string size : {"5e-9", "5e20"}) EXPECT_NEAR(first(size), wanted, 1e-2 * wanted) << size;
}

// Groups of samples that are held out may be of one, which has no variance; running statistics normalise them.
TEST(Finetune, HoldsSingleSamplesOutBesideStatisticsOfBatches) {
  const Model model = parsed(
      "const #w : f32[8,6] = rand(1, -0.5, 0.5)\nconst #v : f32[3,8] = rand(2, -0.5, 0.5)\nconst #one : f32[8] = splat 1.0\n"
      "const #zero : f32[8] = splat 0.0\ngraph @g(%x: f32[N,6]) -> (\"y\") {\n%w = const #w : f32[8,6]\n%v = const #v : f32[3,8]\n"
      "%one = const #one : f32[8]\n%zero = const #zero : f32[8]\n%0 = linear %x, %w : f32[N,8]\n"
      "%1 = batch_norm %0, %one, %zero, %zero, %one : f32[N,8]\n%2 = relu %1 : f32[N,8]\n%3 = linear %2, %v : f32[N,3]\n"
      "return %3\n}\n");
  const Make make = [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; };
  FinetuneOptions o = options();
  o.freezeBatchNormAfter = 4;
  const auto done = trained(model, make, o);
  ASSERT_TRUE(done) << done.error().render();
  EXPECT_EQ(done->heldOut, 2 * kBatch);
  for (const FinetuneEpoch& e : done->epochs) EXPECT_TRUE(std::isfinite(*e.check)) << e.epoch;
  o.trainer.batch = 1;
  EXPECT_THAT(errorOf(model, make, o), AllOf(HasSubstr("one value a channel"), HasSubstr("a larger batch")));
}

// A gain is one where it is larger than what samples differ by.
TEST(Finetune, TellsGainsFromLuck) {
  const std::vector<double> before(16, 1.0);
  std::vector<double> after(16, 0.9);
  EXPECT_TRUE(gainOf(before, after).isReal());
  EXPECT_FALSE(gainOf(before, before).isReal());
  EXPECT_FALSE(gainOf(after, before).isReal());
  for (size_t i = 0; i < after.size(); ++i) after[i] = i % 2 ? 1.3 : 0.5;  // a tenth less on average, with four times as much to and fro
  const Gain unsure = gainOf(before, after);
  EXPECT_NEAR(unsure.mean, 0.1, 1e-12);
  EXPECT_NEAR(unsure.luck, 1.341 * 0.4 * std::sqrt(16.0 / 15) / 4, 1e-3);  // the quantile of Student's t with 15 degrees of freedom
  EXPECT_FALSE(unsure.isReal());
  EXPECT_NEAR(gainOf(std::vector<double>{1, 1}, std::vector<double>{0, 1}).luck, 3.078 * 0.5, 0.1);  // with one
  // Two loud samples of which one has less loss than before, and fourteen quiet ones that have more.
  std::vector<double> loud(16, 1e-4), less(16, 1.5e-4);
  loud[3] = loud[7] = 0.1, less[3] = 0.02, less[7] = 0.03;
  EXPECT_GT(gainOf(loud, less).mean, 0);
  EXPECT_FALSE(gainInFactors(loud, less, 1).isReal());
  EXPECT_TRUE(gainInFactors(less, std::vector<double>(16, 1e-4), 1).isReal());
  EXPECT_TRUE(gainInFactors(before, std::vector<double>(16, 0.0), 10).isReal());
  EXPECT_NEAR(gainOf(before, after, 0.01).luck / gainOf(before, after).luck, 2.602 / 1.341, 2e-3);
  // Groups of as many samples as leave enough of them.
  EXPECT_EQ(HeldOut::groupOf(256, 32), 4);
  EXPECT_EQ(HeldOut::groupOf(160, 20), 2);
  EXPECT_EQ(HeldOut::groupOf(8, 4), 1);
  EXPECT_EQ(HeldOut::groupOf(3200, 32), 32);
}

// Of random numbers that are labels nothing can be learned, whatever a few samples say.
TEST(Finetune, WritesWhatQuantizeMakesWhereNoEpochIsBetterBeyondLuck) {
  FinetuneOptions o = options();
  o.trainer.schedule = {.rate = 1e-7f};  // too small a rate to change anything
  o.trainer.qat.activations = "fixed";
  std::vector<FinetuneEpoch> epochs;
  o.epochEnded = [&](const FinetuneEpoch& e) { epochs.push_back(e); };
  const auto done = trained(rows(), [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; }, o);
  ASSERT_TRUE(done) << done.error().render();
  EXPECT_EQ(done->best, 0);
  EXPECT_EQ(done->heldOut, 8);
  ASSERT_EQ(epochs.size(), 3U);
  EXPECT_FALSE(epochs[0].luck);
  for (size_t i = 1; i < epochs.size(); ++i) EXPECT_LE(*epochs[i].check - *epochs[0].check, *epochs[i].luck);
}

// Where the float model alone teaches, ranges of 8 bits stay as they were calibrated; with labels, or where averages are to stop some time,
// they follow the batches.
TEST(Finetune, LeavesRangesToTheFloatModel) {
  const auto scale = [](const std::string& ranges, bool labelled, int64_t disableAfter = -1) {
    FinetuneOptions o = options();
    o.heldOut = 0;
    o.trainer.schedule = {.rate = 1e-7f};  // too small a rate to change what the layers give
    o.trainer.qat.activations = ranges;
    o.disableObserversAfter = disableAfter;
    for (int64_t i = 0; labelled && i < kSamples; ++i) o.targets.labels.push_back(i % 3);
    const auto done = trained(rows(), [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; }, o);
    EXPECT_TRUE(done) << (done ? "" : done.error().render());
    for (const Node* n = done->model.model.graph().front(); n; n = n->next())
      if (n->is("quantize") && n->operand(0)->producer() && n->operand(0)->producer()->is("relu"))
        return n->result()->type().quant->scale();
    ADD_FAILURE() << "nothing behind a relu is rounded";
    return 0.0f;
  };
  const float fixed = scale("fixed", false), averaged = scale("observed", false);
  EXPECT_NE(averaged, fixed);
  EXPECT_EQ(scale("auto", false), fixed);
  EXPECT_EQ(scale("auto", true), averaged);
  EXPECT_EQ(scale("auto", false, 100), averaged);
}

// The best epoch is kept, of equal ones the last; what quantize() gives, where none is better.
TEST(Finetune, KeepsTheLastOfTheBestEpochs) {
  const auto best = [](const std::vector<double>& found) {
    FinetuneOptions o = options();
    o.epochs = std::ssize(found) - 1;
    size_t asked = 0;
    o.check = [&](const QuantizedModel&) -> Result<double> { return found.at(asked++); };
    const auto done = trained(rows(), [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; }, o);
    EXPECT_TRUE(done) << done.error().render();
    return done ? done->best : -1;
  };
  EXPECT_EQ(best({0.5, 0.6, 0.7, 0.7, 0.6}), 3);
  EXPECT_EQ(best({0.5, 0.5, 0.4}), 0);
  EXPECT_EQ(best({0.5, 0.6, std::numeric_limits<double>::quiet_NaN()}), 1);
}

// The biases of recurrent layers, and what normalisations multiply by and add.
TEST(Finetune, TrainsBiasesOfRecurrencesAndFactorsOfNorms) {
  const Model model = parsed(
      "const #w : f32[1,24,4] = rand(1, -0.5, 0.5)\nconst #u : f32[1,24,6] = rand(2, -0.5, 0.5)\nconst #bb : f32[1,48] = rand(3, -0.5, "
      "0.5)\n"
      "const #g : f32[6] = splat 1.0\nconst #e : f32[6] = splat 0.0\nconst #v : f32[3,6] = rand(4, -0.5, 0.5)\n"
      "graph @g(%x: f32[N,5,4]) -> (\"y\") {\n%w = const #w : f32[1,24,4]\n%u = const #u : f32[1,24,6]\n%bb = const #bb : f32[1,48]\n"
      "%g = const #g : f32[6]\n%e = const #e : f32[6]\n%v = const #v : f32[3,6]\n%0 = transpose %x {perm=[1,0,2]} : f32[5,N,4]\n"
      "%1, %2, %3 = lstm %0, %w, %u, %bb {hidden_size=6} : f32[5,1,N,6], f32[1,N,6], f32[1,N,6]\n"
      "%4 = reshape %2 {shape=[N,6]} : f32[N,6]\n%5 = layer_norm %4, %g, %e {axis=1} : f32[N,6]\n%6 = linear %5, %v : f32[N,3]\n"
      "return %6\n}\n");
  FinetuneOptions o = options();
  o.trainer.quantized = false;
  o.heldOut = 0;
  for (int64_t i = 0; i < kSamples; ++i) o.targets.labels.push_back(i % 3);
  const auto done = trained(model, [](uint32_t i) { return Sample{{"x", random({1, 5, 4}, i)}}; }, o);
  ASSERT_TRUE(done) << done.error().render();
  EXPECT_EQ(done->trained, 6);
}

TEST(Finetune, SaysWhatDoesNotFit) {
  const Make make = [](uint32_t i) { return Sample{{"x", random({1, 6}, i)}}; };
  // Models of a fixed number of samples.
  const std::string rest =
      kLayers + "%1 = linear %x, %w, %b : f32[K,8]\n%2 = relu %1 : f32[K,8]\n%3 = linear %2, %v, %c : f32[K,3]\nreturn %3\n}\n";
  const auto fixed = [&](const std::string& count) {
    std::string text = "graph @g(%x: f32[K,6]) -> (\"y\") {\n" + rest;
    for (size_t at = text.find("[K"); at != std::string::npos; at = text.find("[K")) text.replace(at + 1, 1, count);
    return parsed(kWeights + text);
  };
  EXPECT_THAT(errorOf(fixed("1"), make), AllOf(HasSubstr("takes 1 samples at a time"), HasSubstr("--free-batch")));
  const Make groups = [](uint32_t i) { return Sample{{"x", random({5, 6}, i)}}; };
  EXPECT_THAT(errorOf(fixed("5"), groups),
              AllOf(HasSubstr("takes 5 samples at a time, which data gives as one"), HasSubstr("train with a batch of 1")));
  FinetuneOptions one = options();
  one.trainer.batch = 1;
  EXPECT_FALSE(lossesOf(fixed("5"), groups, one).empty());
  one.targets.labels.assign(kSamples, 1);
  EXPECT_THAT(errorOf(fixed("5"), groups, one), HasSubstr("labels are one for each sample, and of a batch of 1 this has 5 rows"));
  // Rows that are no samples.
  EXPECT_THAT(errorOf(rows(), [](uint32_t i) { return Sample{{"x", random({5, 6}, i)}}; }),
              AllOf(HasSubstr("no free dim of the inputs is 1 in a sample"), HasSubstr("batch of 1")));
  // Another shape, found before anything is trained.
  const Model lines = parsed(
      "const #w : f32[8,6] = rand(1, -0.5, 0.5)\ngraph @g(%x: f32[N,T,6]) -> (\"y\") {\n%w = const #w : f32[8,6]\n"
      "%1 = linear %x, %w : f32[N,T,8]\nreturn %1\n}\n");
  EXPECT_THAT(errorOf(lines, [](uint32_t i) { return Sample{{"x", random({1, i == 20 ? 4 : 3, 6}, i)}}; }),
              AllOf(HasSubstr("is [1,4,6], and"), HasSubstr("samples of one shape")));
  // A float model that teaches itself.
  FinetuneOptions itself = options();
  itself.trainer.quantized = false;
  EXPECT_THAT(errorOf(rows(), make, itself), AllOf(HasSubstr("is its own teacher"), HasSubstr("labels")));
  itself.targets.labels.assign(kSamples, 1);
  EXPECT_FALSE(lossesOf(rows(), make, itself).empty());
  itself.targets.labels[20] = 3;
  EXPECT_THAT(errorOf(rows(), make, itself), HasSubstr("label 3 of sample 'memory 20' is outside the 3 scores"));
  // A number that is none among what is held out.
  FinetuneOptions o = options();
  const auto withNan = [](int64_t where) {
    return [where](uint32_t i) {
      Sample s{{"x", random({1, 6}, i)}};
      if (i == where) s["x"].mutableAs<float>()[2] = std::numeric_limits<float>::quiet_NaN();
      return s;
    };
  };
  std::string said;
  for (int64_t i = 0; i < kSamples; ++i)
    if (const std::string error = errorOf(rows(), withNan(i)); error.find("held-out") != std::string::npos) said = error;
  EXPECT_THAT(said, HasSubstr("before training, the loss on held-out samples is not a number"));
}

}  // namespace
}  // namespace qc
