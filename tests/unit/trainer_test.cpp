// Trainer: what it learns, that it learns the same at any number of threads and from any saved state, and that what it converts to
// computes what it trained.
#include "runtime/training/trainer.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "ir/text.h"
#include "passes/pass_manager.h"
#include "passes/training/losses.h"
#include "runtime/training/state_file.h"
#include "runtime/workflow/calibrate.h"
#include "tests/unit/random_values.h"

namespace qc {
namespace {

using testing::HasSubstr;

constexpr int64_t kBatch = 8;

Tensor random(const std::vector<int64_t>& sizes, double scale, uint32_t seed) {
  test::RandomValues values(seed);
  Tensor t(DType::f32, sizes);
  for (float& x : t.mutableAs<float>()) x = static_cast<float>(values.real(-scale, scale));
  return t;
}

// conv, relu, linear on [N,2,6,6] into three classes.
Model model() {
  const auto graph = parseGraph(
      "const #w : f32[16,2,3,3] = rand(1, -0.3, 0.3)\nconst #b : f32[16] = splat 0.0\nconst #v : f32[3,64] = rand(2, -0.3, 0.3)\n"
      "const #c : f32[3] = splat 0.0\n"
      "graph @net(%x: f32[N,2,6,6]) -> (\"logits\") {\n"
      "%w = const #w : f32[16,2,3,3]\n%b = const #b : f32[16]\n%v = const #v : f32[3,64]\n%c = const #c : f32[3]\n"
      "%0 = conv %x, %w, %b {strides=[2,2]} : f32[N,16,2,2]\n%1 = relu %0 : f32[N,16,2,2]\n"
      "%2 = reshape %1 {shape=[N,64]} : f32[N,64]\n%logits = linear %2, %v, %c : f32[N,3]\nreturn %logits\n}\n",
      "net");
  EXPECT_TRUE(graph) << graph.error().render();
  return {graph->clone(), "net"};
}

PreparedModel prepared(int bits = 8) {
  QConfig config = defaultQConfig(Backend::x86);
  config.weight.qmin = -(int64_t{1} << (bits - 1));
  config.weight.qmax = (int64_t{1} << (bits - 1)) - 1;
  QConfigMapping rules;
  rules.global(config).force();
  return prepareModel(model(), rules).value();
}

GroupParams paramsOf(const PreparedModel& prepared) {
  std::vector<Sample> samples;
  for (uint32_t i = 0; i < 16; ++i) samples.push_back({{"x", random({1, 2, 6, 6}, 1, 100 + i)}});
  const Dataset data = memoryDataset(std::move(samples), model()).value();
  return calibrate(prepared, data, {}).value().params().value();
}

// The class is that of the largest of three sums of pixels.
TensorMap batchOf(uint32_t seed) {
  TensorMap batch{{"x", random({kBatch, 2, 6, 6}, 1, seed)}, {"labels", Tensor(DType::s64, {kBatch})}};
  const auto x = batch["x"].as<float>();
  for (int64_t i = 0; i < kBatch; ++i) {
    double sums[3] = {};
    for (int64_t p = 0; p < 72; ++p) sums[p % 3] += x[usize(i * 72 + p)];
    batch["labels"].mutableAs<int64_t>()[usize(i)] = std::max_element(sums, sums + 3) - sums;
  }
  return batch;
}

TrainerOptions options() {
  TrainerOptions o;
  o.batch = kBatch;
  o.optimizer = {.kind = "adam"};
  o.schedule = {.rate = 0.01f};
  o.loss = [](Builder& b) -> Result<Value*> {
    Value* labels = b.graph().addInput("labels", {DType::s64, {kBatch}});
    return crossEntropyLoss(b, b.graph().outputs()[0], labels);
  };
  return o;
}

bool sameValues(const TrainState& a, const TrainState& b) {
  if (a.steps != b.steps || a.values.size() != b.values.size()) return false;
  for (const auto& [name, value] : a.values)
    if (std::memcmp(value.data(), b.values.at(name).data(), usize(value.byteSize())) != 0) return false;
  return true;
}

// Of the converted model's logits, sample by sample, from these, beside the largest of these.
double distanceOf(const QuantizedModel& converted, const TensorMap& batch, const Tensor& want) {
  Graph graph = converted.model.graph().clone();
  PassContext cx;
  cx.provide(SymbolSizes{{"N", 1}});
  EXPECT_TRUE(runPipeline("bind-shapes", graph, cx));
  const Executable exe = compile(Model(std::move(graph), "net")).value();
  double largest = 0, error = 0;
  for (int64_t i = 0; i < kBatch; ++i) {
    Tensor one(DType::f32, {1, 2, 6, 6});
    std::copy_n(batch.at("x").as<float>().begin() + i * 72, 72, one.mutableAs<float>().begin());
    const TensorMap out = exe.session().value().run({{"x", one}}).value();
    for (int64_t k = 0; k < 3; ++k) {
      largest = std::max(largest, std::fabs(want.at(i * 3 + k)));
      error = std::max(error, std::fabs(want.at(i * 3 + k) - out.at("logits").at(k)));
    }
  }
  return error / largest;
}

TEST(Trainer, LearnsAndConvertsToWhatItTrained) {
  for (const int bits : {8, 4, 2})
    for (const char* weights : {"observed", "learned"})
      for (const char* activations : {"observed", "learned", "fixed"}) {
        SCOPED_TRACE(fmt::format("{} bits, weights {}, activations {}", bits, weights, activations));
        const PreparedModel model = prepared(bits);
        TrainerOptions o = options();
        o.qat.weights = weights;
        o.qat.activations = activations;
        auto trainer = Trainer::open(model, paramsOf(model), o);
        ASSERT_TRUE(trainer) << trainer.error().render();
        double first = 0, last = 0;
        for (uint32_t i = 0; i < 80; ++i) {
          const auto loss = trainer->step(batchOf(i % 20));
          ASSERT_TRUE(loss) << loss.error().render();
          (i < 20 ? first : last) += i < 20 || i >= 60 ? *loss : 0;
        }
        EXPECT_LT(last, 0.8 * first);
        const auto converted = trainer->convert();
        ASSERT_TRUE(converted) << converted.error().render();
        EXPECT_TRUE(converted->model.isQuantized());
        // Against the rounded float graph: integers round once where it rounds twice, so a step of the layers in front may lie between.
        const TensorMap batch = batchOf(500);
        const auto rounded = trainer->evaluate(batch);
        ASSERT_TRUE(rounded) << rounded.error().render();
        EXPECT_LE(distanceOf(*converted, batch, rounded->outputs.at("logits")), 0.02);
      }
}

TEST(Trainer, GivesTheSameBitsAtAnyNumberOfThreadsAndFromAnyState) {
  const PreparedModel model = prepared(4);
  const GroupParams params = paramsOf(model);
  const auto trained = [&](int threads, int stopAt) {
    TrainerOptions o = options();
    o.threads = threads;
    Trainer trainer = Trainer::open(model, params, o).value();
    const std::string path = std::filesystem::temp_directory_path() / fmt::format("trainer_test_{}.npz", ::getpid());
    for (int i = 0; i < 12; ++i) {
      if (i == stopAt) {
        EXPECT_TRUE(trainer.saveState(path));
        trainer = Trainer::open(model, params, o).value();
        const Status loaded = trainer.loadState(path);
        EXPECT_TRUE(loaded) << loaded.error().render();
        std::filesystem::remove(path);
      }
      EXPECT_TRUE(trainer.step(batchOf(static_cast<uint32_t>(i))));
    }
    return trainer.state();
  };
  const TrainState once = trained(1, -1);
  EXPECT_EQ(once.steps, 12);
  EXPECT_TRUE(sameValues(once, trained(2, -1)));
  EXPECT_TRUE(sameValues(once, trained(3, 7)));
}

// The same network with BatchNorm behind its convolution.
PreparedModel preparedWithBatchNorm() {
  const auto graph = parseGraph(
      "const #w : f32[16,2,3,3] = rand(1, -0.3, 0.3)\nconst #g : f32[16] = rand(3, 0.5, 1.5)\nconst #s : f32[16] = rand(4, -0.5, 0.5)\n"
      "const #m : f32[16] = splat 0.1\nconst #a : f32[16] = splat 0.6\nconst #v : f32[3,64] = rand(2, -0.3, 0.3)\n"
      "const #c : f32[3] = splat 0.0\ngraph @net(%x: f32[N,2,6,6]) -> (\"logits\") {\n"
      "%w = const #w : f32[16,2,3,3]\n%g = const #g : f32[16]\n%s = const #s : f32[16]\n%m = const #m : f32[16]\n%a = const #a : f32[16]\n"
      "%v = const #v : f32[3,64]\n%c = const #c : f32[3]\n%0 = conv %x, %w {strides=[2,2]} : f32[N,16,2,2]\n"
      "%n = batch_norm %0, %g, %s, %m, %a : f32[N,16,2,2]\n%1 = relu %n : f32[N,16,2,2]\n"
      "%2 = reshape %1 {shape=[N,64]} : f32[N,64]\n%logits = linear %2, %v, %c : f32[N,3]\nreturn %logits\n}\n",
      "net");
  EXPECT_TRUE(graph) << graph.error().render();
  QConfigMapping rules;
  rules.global(defaultQConfig(Backend::x86)).force();
  return prepareModel({graph->clone(), "net"}, rules).value();
}

TEST(Trainer, KeepsBatchNorm) {
  const PreparedModel model = preparedWithBatchNorm();
  for (const char* weights : {"observed", "learned"}) {
    SCOPED_TRACE(weights);
    TrainerOptions o = options();
    o.qat.weights = weights;
    auto folded = Trainer::open(model, paramsOf(model), o);
    o.qat.batchNorm = true;
    auto trainer = Trainer::open(model, paramsOf(model), o), frozen = Trainer::open(model, paramsOf(model), o);
    ASSERT_TRUE(folded && trainer && frozen) << trainer.error().render();
    EXPECT_THAT(trainer->trained(), testing::IsSupersetOf({"gamma.n", "beta.n"}));
    // By running statistics it is the folded layer: in a step, where they stay, and in evaluation.
    frozen->normalizeByBatch(false);
    const TensorMap batch = batchOf(500);
    EXPECT_NEAR(folded->evaluate(batch)->loss, trainer->evaluate(batch)->loss, 1e-3);
    EXPECT_NEAR(folded->step(batch).value(), frozen->step(batch).value(), 1e-3);
    EXPECT_EQ(std::memcmp(frozen->state().values.at("mean.n").data(), trainer->state().values.at("mean.n").data(), 64), 0);
    double first = 0, last = 0;
    for (uint32_t i = 0; i < 80; ++i) {
      if (i == 60) trainer->normalizeByBatch(false);
      const auto loss = trainer->step(batchOf(i % 20));
      ASSERT_TRUE(loss) << loss.error().render();
      (i < 20 ? first : last) += i < 20 || i >= 60 ? *loss : 0;
    }
    EXPECT_LT(last, 0.8 * first);
    EXPECT_NE(trainer->state().values.at("mean.n").at(0), frozen->state().values.at("mean.n").at(0));
    // Converted it is the folded layer again.
    const auto converted = trainer->convert();
    ASSERT_TRUE(converted) << converted.error().render();
    const auto rounded = trainer->evaluate(batch);
    EXPECT_LE(distanceOf(*converted, batch, rounded->outputs.at("logits")), 0.02);
    // And its state goes on elsewhere.
    ASSERT_TRUE(frozen->setState(trainer->state()));
    EXPECT_EQ(frozen->step(batch).value(), trainer->step(batch).value());
  }
  TrainerOptions o = options();
  o.qat.batchNorm = true;
  const auto none = Trainer::open(prepared(), paramsOf(prepared()), o);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().render(), HasSubstr("no BatchNorm stands behind a layer whose weights are rounded"));
}

TEST(Trainer, TrainsFloatModels) {
  TrainerOptions o = options();
  o.quantized = false;
  Trainer trainer = Trainer::open(prepared(), {}, o).value();
  for (uint32_t i = 0; i < 20; ++i) ASSERT_TRUE(trainer.step(batchOf(i)));
  const auto converted = trainer.convert();
  ASSERT_TRUE(converted) << converted.error().render();
  EXPECT_FALSE(converted->model.isQuantized());
  EXPECT_NE(converted->model.text(), model().text());
}

// An If on sizes is settled by those of the batches; what data decides is refused.
TEST(Trainer, TrainsTheBranchThatSizesTake) {
  const auto prepare = [](const std::string& condition) {
    const auto graph = parseGraph(
        "const #v : f32[3,4] = rand(2, -0.3, 0.3)\nconst #four : s64[] = splat 4\n"
        "graph @net(%x: f32[N,T,4], %choice: bool[]) -> (\"logits\") {\n"
        "%v = const #v : f32[3,4]\n%four = const #four : s64[]\n%t = dims {values=[T], shape=[], dtype=s64} : s64[]\n"
        "%long = less %four, %t : bool[]\n%0 = relu %x : f32[N,T,4]\n%1 = slice %x {starts=[0,0,0], sizes=[N,1,4], steps=[1,1,1]} : "
        "f32[N,1,4]\n"
        "%2 = choose %" +
            condition +
            ", %0, %1 {axes=[1], sizes=[n]} : f32[N,n,4]\n"
            "%3 = reduce_mean %2 {axes=[1], keepdims=0} : f32[N,4]\n%logits = linear %3, %v : f32[N,3]\nreturn %logits\n}\n",
        "net");
    EXPECT_TRUE(graph) << graph.error().render();
    return prepareModel({graph->clone(), "net"}, QConfigMapping()).value();
  };
  TrainerOptions o = options();
  o.quantized = false;
  o.shapes = {{"x", {1, 6, 4}}, {"choice", {}}};
  auto trainer = Trainer::open(prepare("long"), {}, o);
  ASSERT_TRUE(trainer) << trainer.error().render();
  const TensorMap batch{
      {"x", random({kBatch, 6, 4}, 1, 3)}, {"labels", Tensor(DType::s64, {kBatch})}, {"choice", Tensor(DType::boolean, {})}};
  EXPECT_TRUE(trainer->step(batch));
  EXPECT_THAT(Trainer::open(prepare("choice"), {}, o).error().message(), HasSubstr("data decides what 'choose' gives"));
}

TEST(Trainer, EvaluatesAloneAsItWouldBeforeTraining) {
  const PreparedModel model = prepared(4);
  const GroupParams params = paramsOf(model);
  for (const char* ranges : {"observed", "learned", "fixed"}) {
    TrainerOptions o = options();
    o.qat.activations = ranges;
    const TensorMap batch = batchOf(7);
    const auto before = Trainer::open(model, params, o).value().evaluate(batch);
    o.trains = false;
    auto alone = Trainer::open(model, params, o);
    ASSERT_TRUE(alone) << alone.error().render();
    EXPECT_EQ(alone->evaluate(batch)->loss, before->loss) << ranges;
    EXPECT_EQ(alone->inputs().size(), 2u);
    const auto step = alone->step(batch);
    ASSERT_FALSE(step);
    EXPECT_THAT(step.error().render(), HasSubstr("only evaluates"));
  }
}

TEST(Trainer, StopsWhereNumbersEnd) {
  const PreparedModel model = prepared();
  Trainer trainer = Trainer::open(model, paramsOf(model), options()).value();
  ASSERT_TRUE(trainer.step(batchOf(0)));
  const TrainState before = trainer.state();
  TensorMap bad = batchOf(1);
  bad["x"].mutableAs<float>()[3] = NAN;
  const auto loss = trainer.step(bad);
  ASSERT_FALSE(loss);
  EXPECT_THAT(loss.error().message(), HasSubstr("at step 2: this input of the batch holds values that are not finite"));
  EXPECT_EQ(loss.error().tensor(), "x");
  EXPECT_TRUE(sameValues(before, trainer.state()));
  TrainerOptions wild = options();
  wild.schedule.rate = 1e30f;  // after one step no weight is what numbers can be computed from
  Trainer diverging = Trainer::open(model, paramsOf(model), wild).value();
  ASSERT_TRUE(diverging.step(batchOf(0)));
  const auto lost = diverging.step(batchOf(1));
  ASSERT_FALSE(lost);
  EXPECT_THAT(lost.error().message(), HasSubstr("at step 2; the first values that are not finite are those of"));
  bad = batchOf(1);
  bad["labels"].mutableAs<int64_t>()[0] = 3;
  EXPECT_FALSE(trainer.step(bad));
  bad.erase("labels");
  EXPECT_THAT(trainer.step(bad).error().render(), HasSubstr("labels"));
}

TEST(Trainer, RefusesStatesThatAreNotItsOwn) {
  const PreparedModel model = prepared();
  Trainer trainer = Trainer::open(model, paramsOf(model), options()).value();
  TrainState other = trainer.state();
  other.values.erase(other.values.begin());
  EXPECT_FALSE(trainer.setState(other));
  other = trainer.state();
  other.values["more"] = Tensor(DType::f32, {1});
  EXPECT_FALSE(trainer.setState(other));
  const std::string path = std::filesystem::temp_directory_path() / fmt::format("trainer_test_{}_bad.npz", ::getpid());
  EXPECT_FALSE(trainer.loadState(path));
  ASSERT_TRUE(writeState(path, {{{"a", Tensor(DType::f32, {2, 3})}, {"b\nc", Tensor(DType::s64, {})}}, {{"steps", "3"}}}));
  const auto read = readState(path);
  ASSERT_TRUE(read) << read.error().render();
  EXPECT_EQ(read->values.at("a").sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(read->values.at("b\nc").sizes().empty());
  EXPECT_EQ(read->texts.at("steps"), "3");
  EXPECT_FALSE(trainer.loadState(path));
  std::filesystem::resize_file(path, 60);
  EXPECT_FALSE(readState(path));
  std::filesystem::remove(path);
}

TEST(Trainer, SaysWhatCannotBeTrained) {
  const PreparedModel model = prepared();
  TrainerOptions o = options();
  o.loss = {};
  EXPECT_THAT(Trainer::open(model, paramsOf(model), o).error().message(), HasSubstr("there is no loss"));
  EXPECT_THAT(Trainer::open(model, {}, options()).error().message(), HasSubstr("no range was calibrated"));
  o = options();
  o.qat.weights = "guessed";
  EXPECT_THAT(Trainer::open(model, paramsOf(model), o).error().message(), HasSubstr("'guessed'"));
}

}  // namespace
}  // namespace qc
