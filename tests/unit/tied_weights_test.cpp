// A weight that two layers read in two forms: it is one parameter while it is trained, and both layers have the same numbers afterwards.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ir/constant_view.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "passes/training/losses.h"
#include "runtime/training/trainer.h"
#include "runtime/training/training_start.h"
#include "tests/unit/random_values.h"

namespace qc {
namespace {

Tensor random(const std::vector<int64_t>& sizes, uint32_t seed) {
  test::RandomValues values(seed);
  Tensor t(DType::f32, sizes);
  for (float& x : t.mutableAs<float>()) x = static_cast<float>(values.real(-1, 1));
  return t;
}

// An encoder, whose decoder is its transpose and has no bias.
Model model() {
  const auto graph = parseGraph(
      "const #w : f32[4,6] = rand(1, -0.5, 0.5)\nconst #b : f32[4] = rand(2, -0.5, 0.5)\n"
      "graph @net(%x: f32[N,6]) -> (\"y\") {\n%w = const #w : f32[4,6]\n%b = const #b : f32[4]\n"
      "%0 = linear %x, %w, %b : f32[N,4]\n%1 = relu %0 : f32[N,4]\n%y = matmul %1, %w : f32[N,6]\nreturn %y\n}\n",
      "net");
  EXPECT_TRUE(graph) << graph.error().render();
  return {graph->clone(), "net"};
}

Dataset samples() {
  std::vector<Sample> all;
  for (uint32_t i = 0; i < 32; ++i) all.push_back({{"x", random({1, 6}, 100 + i)}});
  return memoryDataset(std::move(all), model()).value();
}

TrainerOptions options() {
  TrainerOptions o;
  o.batch = 8;
  o.optimizer = {.kind = "adam"};
  o.schedule = {.rate = 0.01f};
  o.loss = [](Builder& b) -> Result<Value*> { return squaredErrorLoss(b, b.graph().outputs()[0], b.graph().findValue("x")); };
  return o;
}

// The weight of the layer that has this many outputs, as it computes with it, in the form [4,6]; and half a step of each number.
struct Used {
  Tensor values, steps;
};
Used usedBy(const Graph& graph, int64_t outputs) {
  for (const Node* n = graph.front(); n; n = n->next()) {
    const Value* w = n->is("linear") ? n->operand("w") : nullptr;
    if (!w || w->type().shape[0] != Dim(outputs)) continue;
    const Node* from = w->producer();
    const Tensor& stored = from->is("dequantize") ? from->operand(0)->producer()->constant() : from->constant();
    Used used{Tensor(DType::f32, {4, 6}), Tensor(DType::f32, {4, 6})};
    const int64_t inputs = w->type().shape[1].size();
    for (int64_t o = 0; o < outputs; ++o)
      for (int64_t i = 0; i < inputs; ++i) {
        const int64_t to = outputs == 4 ? o * 6 + i : i * 6 + o;
        const QuantParams* q = from->is("dequantize") ? from->operand(0)->type().quant.get() : nullptr;
        const double step = q ? q->scale(q->perChannel() ? o : 0) : 0;
        used.values.mutableAs<float>()[usize(to)] = static_cast<float>(q ? step * stored.at(o * inputs + i) : stored.at(o * inputs + i));
        used.steps.mutableAs<float>()[usize(to)] = static_cast<float>(step / 2);
      }
    return used;
  }
  ADD_FAILURE() << "no layer has " << outputs << " outputs";
  return {};
}

void expectTied(Trainer& trainer, bool rounded) {
  const auto weights = std::count_if(trainer.trained().begin(), trainer.trained().end(), [](const std::string& n) { return n == "w"; });
  EXPECT_EQ(weights, 1);
  const Tensor before = trainer.state().values.at("w");
  double first = 0, last = 0;
  for (uint32_t i = 0; i < 60; ++i) {
    const auto loss = trainer.step({{"x", random({8, 6}, 500 + i % 12)}});
    ASSERT_TRUE(loss) << loss.error().render();
    (i < 12 ? first : last) += i < 12 || i >= 48 ? *loss : 0;
  }
  EXPECT_LT(last, 0.8 * first);
  const Tensor after = trainer.state().values.at("w");
  EXPECT_NE(before.at(0), after.at(0));
  const auto converted = trainer.convert();
  ASSERT_TRUE(converted) << converted.error().render();
  EXPECT_EQ(converted->model.isQuantized(), rounded);
  for (const int64_t outputs : {4, 6}) {
    const Used used = usedBy(converted->model.graph(), outputs);
    for (int64_t i = 0; i < 24; ++i) {
      const double half = used.steps.at(i);  // a scale that learns cuts off what is beyond 127 steps
      const double reached = rounded ? std::clamp(after.at(i), -256 * half, 254 * half) : after.at(i);
      EXPECT_NEAR(used.values.at(i), reached, half * 1.001) << outputs << " outputs, element " << i;
    }
  }
}

PreparedModel prepared() {
  QConfigMapping rules;
  rules.global(defaultQConfig(Backend::x86)).force();
  return prepareModel(model(), rules).value();
}

TEST(TiedWeights, AreOneParameterInFloat) {
  TrainerOptions o = options();
  o.quantized = false;
  auto trainer = Trainer::open(prepared(), {}, o);
  ASSERT_TRUE(trainer) << trainer.error().render();
  EXPECT_EQ(trainer->trained().size(), 2u);
  expectTied(*trainer, false);
}

TEST(TiedWeights, AreOneParameterWhileTheyAreRoundedAfterAllRecipes) {
  for (const char* weights : {"observed", "learned"}) {
    SCOPED_TRACE(weights);
    TrainerOptions o = options();
    o.qat.weights = weights;
    StartOptions start;
    start.qat = o.qat;
    start.recover.choose("equalize", "on").choose("smooth-quant", "on").choose("round-weights", "calibrated").choose("reconstruct", "on");
    const auto begun = startTraining(prepared(), samples(), start);
    ASSERT_TRUE(begun) << begun.error().render();
    auto trainer = Trainer::open(begun->model, begun->params, o);
    ASSERT_TRUE(trainer) << trainer.error().render();
    expectTied(*trainer, true);
  }
}

TEST(TiedWeights, EvaluationHasTheTrainedWeightInBothForms) {
  TrainerOptions o = options();
  o.quantized = false;
  Trainer trainer = Trainer::open(prepared(), {}, o).value();
  for (uint32_t i = 0; i < 10; ++i) ASSERT_TRUE(trainer.step({{"x", random({8, 6}, i)}}));
  const Tensor x = random({8, 6}, 77);
  const auto seen = trainer.evaluate({{"x", x}});
  ASSERT_TRUE(seen) << seen.error().render();
  const Tensor w = trainer.state().values.at("w"), b = trainer.state().values.at("b");
  for (int64_t n = 0; n < 8; ++n) {
    std::vector<double> hidden, y(6, 0.0);
    for (int64_t h = 0; h < 4; ++h) {
      double sum = b.at(h);
      for (int64_t i = 0; i < 6; ++i) sum += x.at(n * 6 + i) * w.at(h * 6 + i);
      hidden.push_back(std::max(sum, 0.0));
      for (int64_t i = 0; i < 6; ++i) y[usize(i)] += hidden.back() * w.at(h * 6 + i);
    }
    for (int64_t i = 0; i < 6; ++i) EXPECT_NEAR(seen->outputs.at("y").at(n * 6 + i), y[usize(i)], 1e-5);
  }
}

}  // namespace
}  // namespace qc
