// Updates and schedules of training steps, and losses, against numbers that PyTorch 2.13 gave (torch.optim, torch.nn.functional).
#include "passes/training/optimizer.h"

#include <gmock/gmock.h>

#include "ir/gradient.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "passes/pass_manager.h"
#include "passes/training/losses.h"

namespace qc {
namespace {

using testing::FloatNear;
using testing::HasSubstr;
using testing::Pointwise;

constexpr const char* kParabola =
    "const #a : f32[3] = [1.0, 0.5, 2.0]\nconst #p : f32[3] = [1.0, -2.0, 0.5]\n"
    "graph @g() -> (\"loss\") {\n%a = const #a : f32[3]\n%p = const #p : f32[3]\n%0 = mul %p, %p : f32[3]\n%1 = mul %0, %a : f32[3]\n"
    "%2 = reduce_sum %1 {axes=[0], keepdims=0} : f32[]\nreturn %2\n}\n";

Result<Graph> stepOf(const std::string& options) {
  QC_ASSIGN(Graph graph, parseGraph(kParabola, "parabola"));
  PassContext cx;
  PassManagerOptions verified;
  verified.verifyEach = true;
  QC_TRY(runPipeline("train-step{with=\"p\", " + options + "}", graph, cx, verified));
  return graph;
}

// The parameter after five steps.
std::vector<float> trained(const Graph& graph) {
  std::map<std::string, Tensor> values;
  for (const Value* input : graph.inputs()) values[input->name()] = Tensor(DType::f32, input->type().sizes());
  values["p"] = Tensor::ofFloats({3}, std::vector<float>{1, -2, 0.5f});
  for (int step = 0; step < 5; ++step) {
    values["step"] = Tensor::ofFloats({}, std::vector<float>{static_cast<float>(step)});
    std::vector<Tensor> inputs;
    for (const Value* input : graph.inputs()) inputs.push_back(values.at(input->name()));
    const std::vector<Tensor> outputs = interpret(graph, inputs).value();
    for (size_t i = 0; i < outputs.size(); ++i)
      if (const std::string& name = graph.outputNames()[i]; name.starts_with("next.")) values[name.substr(5)] = outputs[i];
  }
  return values.at("p").toFloats();
}

TEST(Optimizer, StepsAreThoseOfPyTorch) {
  const std::pair<const char*, std::vector<float>> cases[] = {
      {"optimizer=\"sgd\", rate=0.1", {0.32767996f, -1.18098f, 0.038880002f}},
      {"rate=0.1, momentum=0.9", {-0.58042002f, 0.058320053f, -0.36449999f}},
      {"rate=0.1, momentum=0.9, nesterov=1, weight_decay=0.05", {-0.41857013f, 0.26971516f, -0.077998444f}},
      {"optimizer=\"adam\", rate=0.1", {0.50796372f, -1.5029558f, 0.027814433f}},
      {"optimizer=\"adam\", rate=0.1, weight_decay=0.1, beta1=0.8, beta2=0.95, epsilon=0.001", {0.51142561f, -1.504653f, 0.035911404f}},
      {"optimizer=\"adamw\", rate=0.1, weight_decay=0.1", {0.4699527f, -1.4155664f, 0.015330374f}},
      {"rate=0.1, clip_norm=0.5", {0.85443771f, -1.8498629f, 0.36316618f}},
      {"rate=0.1, schedule=\"step\", step_size=2, gamma=0.5", {0.49247995f, -1.4254988f, 0.10368001f}},
      {"rate=0.1, schedule=\"cosine\", steps=8", {0.41554058f, -1.3158635f, 0.070350751f}},
      {"rate=0.1, warmup=3", {0.46511999f, -1.3879857f, 0.09071999f}},
      {"rate=0.1, schedule=\"cosine\", steps=8, warmup=2", {0.44740477f, -1.3620428f, 0.083656222f}},
  };
  for (const auto& [options, expected] : cases) {
    const auto graph = stepOf(options);
    ASSERT_TRUE(graph) << options << ": " << graph.error().render();
    EXPECT_THAT(trained(*graph), Pointwise(FloatNear(2e-6f), expected)) << options;
  }
}

TEST(Optimizer, RefusesWhatCannotBe) {
  const auto refused = [](const char* options) {
    const auto graph = stepOf(options);
    return graph ? "no error" : graph.error().message();
  };
  EXPECT_THAT(refused("optimizer=\"sdg\""), HasSubstr("unknown optimizer 'sdg'"));
  EXPECT_THAT(refused("momentum=1.0"), HasSubstr("momentum=1"));
  EXPECT_THAT(refused("beta1=-0.1"), HasSubstr("beta1=-0.1"));
  EXPECT_THAT(refused("beta2=1.5"), HasSubstr("beta2=1.5"));
  EXPECT_THAT(refused("epsilon=0.0"), HasSubstr("epsilon=0"));
  EXPECT_THAT(refused("weight_decay=-1.0"), HasSubstr("weight_decay=-1"));
  EXPECT_THAT(refused("clip_norm=-1.0"), HasSubstr("clip_norm=-1"));
  EXPECT_THAT(refused("nesterov=1"), HasSubstr("nesterov needs momentum"));
  EXPECT_THAT(refused("rate=0.0"), HasSubstr("a learning rate of 0"));
  EXPECT_THAT(refused("warmup=-1"), HasSubstr("a warm-up of -1"));
  EXPECT_THAT(refused("schedule=\"line\""), HasSubstr("unknown schedule 'line'"));
  EXPECT_THAT(refused("schedule=\"cosine\""), HasSubstr("a cosine over 0 steps"));
  EXPECT_THAT(refused("schedule=\"step\""), HasSubstr("step_size=0"));
}

struct LossCase {
  const char* name;
  std::function<Result<Value*>(Builder&, Value* x, Value* target, Value* labels)> make;
  float value;
  std::vector<float> gradient;
};

TEST(Losses, ValuesAndGradientsAreThoseOfPyTorch) {
  const LossCase cases[] = {
      {"cross entropy",
       [](Builder& b, Value* x, Value*, Value* labels) { return crossEntropyLoss(b, x, labels); },
       0.91099197f,
       {0.087645195f, 0.019556286f, -0.10720149f, 0.35922018f, -0.3970817f, 0.03786153f}},
      {"squared error",
       [](Builder& b, Value* x, Value* t, Value*) { return squaredErrorLoss(b, x, t); },
       1.6441666f,
       {-0.16666667f, -0.33333334f, 0.83333337f, 0.40000004f, -0.15000001f, -0.28333336f}},
      {"absolute error",
       [](Builder& b, Value* x, Value* t, Value*) { return absoluteErrorLoss(b, x, t); },
       1.0833334f,
       {-0.16666667f, -0.16666667f, 0.16666667f, 0.16666667f, -0.16666667f, -0.16666667f}},
      {"distillation",
       [](Builder& b, Value* x, Value* t, Value*) { return distillationLoss(b, x, t, 2); },
       0.75587595f,
       {-0.2024236f, -0.16015433f, 0.36257789f, 0.21778628f, -0.10290551f, -0.11488067f}},
      {"distillation along the first dim",
       [](Builder& b, Value* x, Value* t, Value*) { return distillationLoss(b, x, t, 2, 0); },
       0.57542282f,
       {-0.1393846f, -0.043158196f, 0.24841954f, 0.13938464f, 0.043158244f, -0.24841952f}},
  };
  for (const LossCase& c : cases) {
    Graph g;
    Value* x = g.addInput("x", {DType::f32, {2, 3}});
    Value* target = g.addInput("target", {DType::f32, {2, 3}});
    Value* labels = g.addInput("labels", {DType::s64, {2}});
    Builder b(g);
    const auto loss = c.make(b, x, target, labels);
    ASSERT_TRUE(loss) << c.name << ": " << loss.error().render();
    Value* one = b.constant("one", Tensor::ofFloats({}, std::vector<float>{1}));
    const auto gradients = backpropagate(b, {{*loss, one}}, std::vector<Value*>{x});
    ASSERT_TRUE(gradients) << c.name << ": " << gradients.error().render();
    g.setOutputs({*loss, gradients->front()});
    const std::vector<Tensor> inputs = {Tensor::ofFloats({2, 3}, std::vector<float>{0.5f, -1, 2, 1.5f, 0.25f, -0.75f}),
                                        Tensor::ofFloats({2, 3}, std::vector<float>{1, 0, -0.5f, 0.3f, 0.7f, 0.1f}),
                                        Tensor::ofInts({2}, std::vector<int64_t>{2, 1})};
    const auto results = interpret(g, inputs);
    ASSERT_TRUE(results) << c.name << ": " << results.error().render();
    EXPECT_NEAR((*results)[0].at(0), c.value, 1e-6) << c.name;
    EXPECT_THAT((*results)[1].toFloats(), Pointwise(FloatNear(1e-6f), c.gradient)) << c.name;
    // A label that no class has is found when it is read.
    std::vector<Tensor> wrong = inputs;
    wrong[2] = Tensor::ofInts({2}, std::vector<int64_t>{2, 3});
    EXPECT_EQ(interpret(g, wrong).has_value(), std::string(c.name) != "cross entropy");
  }
}

TEST(Losses, RefuseOperandsThatDoNotFit) {
  Graph g;
  Value* x = g.addInput("x", {DType::f32, {2, 3}});
  Value* y = g.addInput("y", {DType::f32, {3, 2}});
  Value* labels = g.addInput("labels", {DType::s64, {3}});
  Builder b(g);
  EXPECT_THAT(crossEntropyLoss(b, x, labels).error().message(), HasSubstr("labels of s64[3] for logits f32[2,3]"));
  EXPECT_THAT(crossEntropyLoss(b, labels, labels).error().message(), HasSubstr("floats with the classes in the last dim"));
  EXPECT_THAT(squaredErrorLoss(b, x, y).error().message(), HasSubstr("a loss between f32[2,3] and f32[3,2]"));
  EXPECT_THAT(absoluteErrorLoss(b, x, y).error().message(), HasSubstr("a loss between"));
  EXPECT_THAT(distillationLoss(b, x, x, 0).error().message(), HasSubstr("a temperature of 0"));
}

}  // namespace
}  // namespace qc
