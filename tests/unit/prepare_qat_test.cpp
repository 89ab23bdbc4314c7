// prepare-qat: ranges of activations are what was asked for, whatever the bits; what `auto` makes of them.
#include "passes/training/prepare_qat.h"

#include <gmock/gmock.h>

#include "ir/text.h"
#include "runtime/workflow/calibrate.h"
#include "runtime/workflow/quantize.h"
#include "tests/unit/random_values.h"

namespace qc {
namespace {

Model model() {
  const auto graph = parseGraph(
      "const #w : f32[4,2,3,3] = rand(1, -0.3, 0.3)\nconst #b : f32[4] = splat 0.1\n"
      "graph @net(%x: f32[2,2,6,6]) -> (\"y\") {\n%w = const #w : f32[4,2,3,3]\n%b = const #b : f32[4]\n"
      "%0 = conv %x, %w, %b : f32[2,4,4,4]\n%y = relu %0 : f32[2,4,4,4]\nreturn %y\n}\n",
      "net");
  EXPECT_TRUE(graph) << graph.error().render();
  return {graph->clone(), "net"};
}

TEST(PrepareQat, RoundsActivationsInTheWayThatIsAskedForAtAllBits) {
  test::RandomValues values(3);
  for (const int activationBits : {16, 8, 7, 6, 4, 2})
    for (const int weightBits : {8, 4, 2})
      for (const std::string way : {"observed", "learned", "fixed", "auto"})
        for (const std::string weights : {"observed", "learned"}) {
          SCOPED_TRACE(fmt::format("activations of {} bits {}, weights of {} {}", activationBits, way, weightBits, weights));
          QConfig config = defaultQConfig(Backend::x86);
          config.weight.qmin = -(int64_t{1} << (weightBits - 1));
          config.weight.qmax = (int64_t{1} << (weightBits - 1)) - 1;
          config.activation.dtype = activationBits > 8 ? DType::u16 : DType::u8;
          config.activation.qmin = 0;
          config.activation.qmax = (int64_t{1} << activationBits) - 1;
          const PreparedModel prepared = prepareModel(model(), QConfigMapping().global(config).force()).value();
          Tensor x(DType::f32, {2, 2, 6, 6});
          for (float& v : x.mutableAs<float>()) v = static_cast<float>(values.real(-1, 1));
          const Dataset data = memoryDataset({{{"x", x}}}, model()).value();
          const GroupParams params = calibrate(prepared, data, {}).value().params().value();
          Graph graph = prepared.observed->clone();
          const auto plan = prepareQat(graph, params, {.weights = weights, .activations = way});
          ASSERT_TRUE(plan) << plan.error().render();
          const std::string expected = way != "auto" ? way : activationBits < 7 ? "learned" : "observed";
          ASSERT_FALSE(plan->activations.empty());
          for (const QatPlan::Activation& a : plan->activations) {
            EXPECT_EQ(!a.min.empty(), expected == "observed");
            EXPECT_EQ(!a.scale.empty(), expected == "learned");
            EXPECT_EQ(a.spec.qmax, config.activation.qmax);
          }
          EXPECT_EQ(!plan->observing.empty(), expected == "observed");
          EXPECT_EQ(!plan->weights.empty(), weights == "learned");
          // What was calibrated is what is there before a step.
          Graph again = prepared.observed->clone();
          const GroupParams kept = applyTraining(again, *plan, plan->states).value();
          for (const auto& [id, p] : params) EXPECT_NEAR(kept.at(id)->scale(), p->scale(), 1e-6 * p->scale());
        }
}

}  // namespace
}  // namespace qc
