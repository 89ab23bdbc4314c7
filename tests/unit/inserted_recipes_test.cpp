// Passes of an integrator's own together with what else changes the graph: recipes that move channels, and samples of other shapes, for
// which the model is made anew.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"  // designated initializers name what matters

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ir/text.h"
#include "passes/pass_manager.h"
#include "runtime/qcompile.h"
#include "runtime/workflow/prepared_model.h"
#include "tests/unit/drop_op.h"

namespace qc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What both recipes of channels have something to do about: a norm with a few loud channels in front of a linear layer, and another behind
// a relu; `sin` is what the pass takes away.
constexpr const char* kNet = R"(
const #scale : f32[32] = rand(1, 0.5, 1.5)
const #bias : f32[32] = rand(2, -0.5, 0.5)
const #a : f32[64,32] = rand(3, -0.3, 0.3)
const #b : f32[16,64] = rand(4, -0.3, 0.3)
graph @g(%x: f32[N,32]) -> ("y") {
  %scale = const #scale : f32[32]
  %bias = const #bias : f32[32]
  %a = const #a : f32[64,32]
  %b = const #b : f32[16,64]
  %s = sin %x : f32[N,32] loc("wave")
  %n = layer_norm %s, %scale, %bias {axis=1} : f32[N,32] loc("norm")
  %f = linear %n, %a : f32[N,64] loc("first")
  %r = relu %f : f32[N,64] loc("act")
  %y = linear %r, %b : f32[N,16] loc("second")
  return %y
})";

Graph netOf() {
  Graph graph = parseGraph(kNet).value();
  for (Node* n = graph.front(); n; n = n->next()) {
    if (!n->is("const") || n->constantName() != "scale") continue;
    Tensor loud = n->constant();
    for (const int64_t channel : {3, 17}) loud.mutableAs<float>()[usize(channel)] *= 40;
    Builder b(graph);
    b.before(n->next());
    n->result()->replaceAllUsesWith(b.constant("loud", loud));
  }
  graph.eraseDeadNodes();
  return graph;
}

Model net() { return Model(netOf(), "net"); }

Sample sampleOf(int64_t rows, int64_t seed) {
  Tensor x(DType::f32, {rows, 32});
  for (int64_t i = 0; i < x.numElements(); ++i)
    x.mutableAs<float>()[usize(i)] =
        static_cast<float>(std::sin(static_cast<double>(i * 7 + seed * 13)) * (1 + static_cast<double>(seed % 5)));
  return {{"x", x}};
}

Status dropSin(Graph& graph, PassContext&) { return test::dropOp(graph, "sin"); }

struct Case {
  const char* recipe;
  const char* step;
  bool behind;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.recipe << (c.behind ? " after " : " before ") << c.step; }

class Inserted : public ::testing::TestWithParam<Case> {};

// The same as of a model that never had what the pass takes away, bit for bit, whatever recipes are on and whatever shapes the samples
// have.
TEST_P(Inserted, MeansTheSameAsTheChangedModel) {
  const auto& [recipe, step, behind] = GetParam();
  const Model model = net();
  Graph without = netOf();
  PassContext cx;
  ASSERT_TRUE(dropSin(without, cx));
  const Model changed(std::move(without), "net");
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  QuantizeOptions options;
  for (const char* name : {"smooth-quant", "equalize"})
    options.recover.choose(name, std::string_view(recipe) == "both" || std::string_view(recipe) == name ? "on" : "off");
  for (const bool otherShapes : {false, true}) {
    std::vector<Sample> made;
    for (int64_t i = 0; i < 16; ++i) made.push_back(sampleOf(otherShapes && i % 3 == 1 ? 5 + i : 8, i));
    const Dataset samples = memoryDataset(made, model).value();
    PrepareOptions prepare;
    const Pass pass{.name = "acme-drop", .run = dropSin};
    prepare.insertions = {behind ? PassInsertion::after(step, pass) : PassInsertion::before(step, pass)};
    const PreparedModel prepared = prepareModel(model, rules, prepare).value();
    const auto got = calibrateAndQuantize(prepared, samples, options);
    ASSERT_TRUE(got) << got.error().render();
    const auto wanted = calibrateAndQuantize(prepareModel(changed, rules).value(), samples, options);
    ASSERT_TRUE(wanted) << wanted.error().render();
    EXPECT_THAT(got->model.text(), Not(HasSubstr("sin %")));
    EXPECT_EQ(got->model.text(), wanted->model.text()) << "samples of other shapes: " << otherShapes;
    ASSERT_EQ(got->ranges.entries().size(), wanted->ranges.entries().size());
    auto other = wanted->ranges.entries().begin();
    for (const auto& [id, entry] : got->ranges.entries()) {
      EXPECT_EQ(entry.observer->elements(), other->second.observer->elements()) << entry.name << ": seen at every shape";
      EXPECT_EQ(entry.observer->qparams().value(), other->second.observer->qparams().value()) << entry.name;
      ++other;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, Inserted,
                         ::testing::Values(Case{"off", "fold-constants", false}, Case{"smooth-quant", "cse", false},
                                           Case{"equalize", "cse", false}, Case{"both", "cse", true}, Case{"both", "dce", true},
                                           Case{"off", "prepare", false}, Case{"off", "prepare", true}));

}  // namespace
}  // namespace qc
