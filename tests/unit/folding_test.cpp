// What folds computes the same: constants as the interpreter does, bit for bit; BatchNorm within float rounding, whoever else reads the
// convolution in front of it.
#include <gmock/gmock.h>

#include <array>

#include "op_testing.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

using namespace test;

// A graph of random ops over constants and one input, all of sizes that broadcast to [2,3,4].
Graph randomGraph(Random& random) {
  static const char* const kUnary[] = {"neg",   "abs", "exp",      "tanh", "sigmoid", "relu",
                                       "floor", "erf", "softplus", "gelu", "sqrt",    "identity"};
  static const char* const kBinary[] = {"add", "sub", "mul", "div", "min", "max", "pow"};
  static const char* const kReduction[] = {"reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod"};
  Graph graph("g");
  Builder b(graph);
  std::vector<Value*> values = {graph.addInput("x", {DType::f32, toShape({2, 3, 4})})};
  const auto value = [&] { return nth(values, random.integer(0, static_cast<int64_t>(values.size()) - 1)); };
  // Constants are likelier than what came of the input, so that most of the graph folds.
  const auto any = [&] { return random.integer(0, 2) ? nth(values, random.integer(1, static_cast<int64_t>(values.size()) - 1)) : value(); };
  for (const Ints& sizes : {Ints{2, 3, 4}, Ints{1, 3, 1}, Ints{4}, Ints{}}) values.push_back(b.constant("c", random.normal(sizes)));
  for (int64_t n = random.integer(3, 14); n > 0; --n) {
    Value* x = any();
    const Ints sizes = x->type().sizes();
    const int64_t rank = static_cast<int64_t>(sizes.size());
    switch (random.integer(0, rank > 0 ? 7 : 1)) {
      case 0: x = b.make(kUnary[random.integer(0, 11)], {x}); break;
      case 1: x = b.make(kBinary[random.integer(0, 6)], {x, any()}); break;
      case 2: x = b.make(kReduction[random.integer(0, 4)], {x}, {{"axes", Ints{random.integer(0, rank - 1)}}}); break;
      case 3: x = b.make("softmax", {x}, {{"axis", random.integer(0, rank - 1)}}); break;
      case 4: x = b.make("where", {b.make("less", {x, any()}), x, any()}); break;
      case 5: {  // there and back again
        Ints perm(usize(rank)), back = perm;
        for (int64_t d = 0; d < rank; ++d) nth(perm, d) = (d + 1) % rank;
        for (int64_t d = 0; d < rank; ++d) nth(back, nth(perm, d)) = d;
        x = b.make("transpose", {b.make("neg", {b.make("transpose", {x}, {{"perm", perm}})})}, {{"perm", back}});
        break;
      }
      case 6: {  // cut apart and joined the other way round
        const int64_t axis = rank - 1, size = nth(sizes, axis), first = size / 2;
        if (first == 0) break;
        auto pieces = b.createNode("split", {x}, {{"axis", axis}, {"sizes", Ints{first, size - first}}});
        x = b.make("concat", {(*pieces)->result(1), (*pieces)->result(0)}, {{"axis", axis}});
        break;
      }
      default: x = b.make("cast", {b.make("cast", {x}, {{"to", DType::f16}})}, {{"to", DType::f32}}); break;
    }
    values.push_back(x);
  }
  std::vector<Value*> outputs;
  for (int64_t n = random.integer(1, 3); n > 0; --n) outputs.push_back(value());
  outputs.push_back(values.back());
  graph.setOutputs(outputs);
  return graph;
}

TEST(FoldConstants, ComputesWhatTheInterpreterComputes) {
  Random random(31);
  int folded = 0, kept = 0;
  for (int round = 0; round < 300; ++round) {
    const Graph graph = randomGraph(random);
    Graph after = graph.clone();
    PassContext cx;
    const Status done = runPipeline("fold-constants", after, cx);
    ASSERT_TRUE(done) << done.error().render();
    for (const Node* n = after.front(); n; n = n->next()) {
      if (n->is("const")) continue;
      ++kept;
      const auto operands = n->operands();
      EXPECT_FALSE(std::all_of(operands.begin(), operands.end(), [](const Value* v) { return v->constant(); })) << after.str();
    }
    folded += graph.numNodes() - after.numNodes();
    const Tensor x = random.normal({2, 3, 4});
    const auto want = interpret(graph, std::vector{x}), got = interpret(after, std::vector{x});
    ASSERT_TRUE(want && got);
    for (size_t o = 0; o < want->size(); ++o) EXPECT_TRUE((*want)[o].sameBytes((*got)[o])) << graph.str() << after.str();
  }
  EXPECT_GT(folded, 500);
  EXPECT_GT(kept, 300);
}

// Near, or both no number.
void expectClose(const Tensor& want, const Tensor& got, const std::string& text) {
  ASSERT_EQ(want.sizes(), got.sizes()) << text;
  for (int64_t i = 0; i < want.numElements(); ++i) {
    const double a = want.at(i), b = got.at(i);
    if (std::isfinite(a) || std::isfinite(b))
      ASSERT_NEAR(a, b, 1e-5 * (1 + std::abs(a))) << text;
    else
      ASSERT_TRUE(std::isnan(a) == std::isnan(b) && (std::isnan(a) || a == b)) << text << a << " " << b;
  }
}

// Rewriting may compute in another order, not something else.
TEST(Simplify, KeepsTheMeaning) {
  Random random(53);
  for (int round = 0; round < 300; ++round) {
    const Graph graph = randomGraph(random);
    const Tensor x = random.normal({2, 3, 4});
    const auto want = interpret(graph, std::vector{x});
    ASSERT_TRUE(want);
    for (const char* pipeline : {"simplify", "lower", "lower,layout,fold-constants,canonicalize,cse,dce"}) {
      Graph after = graph.clone();
      PassContext cx;
      const Status done = runPipeline(pipeline, after, cx);
      ASSERT_TRUE(done) << done.error().render() << graph.str();
      const auto got = interpret(after, std::vector{x});
      ASSERT_TRUE(got) << got.error().render() << after.str();
      for (size_t o = 0; o < want->size(); ++o)
        expectClose((*want)[o], (*got)[o], std::string(pipeline) + "\n" + graph.str() + after.str());
      if (HasFatalFailure()) return;
    }
  }
}

// A chain of convolutions and normalisations; anything on it may be read by others or leave the graph.
TEST(FoldBatchNorm, OnlyWhereNothingElseReads) {
  Random random(37);
  int folded = 0, beside = 0;
  for (int round = 0; round < 100; ++round) {
    Graph graph("g");
    Builder b(graph);
    Value* v = graph.addInput("x", {DType::f32, toShape({1, 4, 5, 5})});
    std::vector<Value*> outputs;
    const Value* shared = b.constant("w", random.normal({4, 4, 3, 3}));
    int normalized = 0, readByOthers = 0;
    for (int64_t n = random.integer(1, 4); n > 0; --n) {
      const bool transposed = random.integer(0, 2) == 0;
      const int64_t group = random.pick({1, 2});
      Value* w = random.integer(0, 1) || group > 1 ? b.constant("w", random.normal({4, 4 / group, 3, 3})) : const_cast<Value*>(shared);
      Value* y = b.make(transposed ? "conv_transpose" : "conv", {v, w}, {{"pads", Ints(4, 1)}, {"group", group}});
      const bool other = random.integer(0, 2) == 0;
      if (other && random.integer(0, 1)) {
        outputs.push_back(y);
      } else if (other) {
        outputs.push_back(b.make("relu", {y}));
      }
      Tensor var = random.normal({4});
      for (float& s : var.mutableAs<float>()) s = s * s + 0.1f;
      v = b.make("batch_norm", {y, b.constant("s", random.normal({4})), b.constant("t", random.normal({4})),
                                b.constant("m", random.normal({4})), b.constant("v", var)});
      ++normalized;
      readByOthers += other;
    }
    outputs.push_back(v);
    graph.setOutputs(outputs);
    Graph after = graph.clone();
    PassContext cx;
    ASSERT_TRUE(runPipeline("fold-batch-norm", after, cx));
    int multiplied = 0;
    for (const Node* n = after.front(); n; n = n->next()) {
      EXPECT_FALSE(n->is("batch_norm"));
      multiplied += n->is("mul");
    }
    EXPECT_EQ(multiplied, readByOthers) << graph.str() << after.str();
    beside += multiplied;
    folded += normalized - multiplied;
    const Tensor x = random.normal({1, 4, 5, 5});
    const auto want = interpret(graph, std::vector{x}), got = interpret(after, std::vector{x});
    ASSERT_TRUE(want && got);
    for (size_t o = 0; o < want->size(); ++o) {
      double largest = 1;
      for (int64_t i = 0; i < (*want)[o].numElements(); ++i) largest = std::max(largest, std::abs((*want)[o].at(i)));
      for (int64_t i = 0; i < (*want)[o].numElements(); ++i) EXPECT_NEAR((*want)[o].at(i), (*got)[o].at(i), 1e-5 * largest) << graph.str();
    }
  }
  EXPECT_GT(folded, 100);
  EXPECT_GT(beside, 50);
}

// What a model brings may be widened whatever else was folded; what a few bytes describe may not grow without end.
TEST(Folding, BudgetGrowsWithWhatTheModelBrings) {
  Graph graph("g");
  Builder b(graph);
  Value* weights = b.constant("w", Tensor(DType::s8, {1000}));
  const Node& widening = *b.make("cast", {weights}, {{"to", DType::s32}})->producer();
  const Node& transpose = *b.make("transpose", {b.constant("t", Tensor(DType::f32, {10, 100}))}, {{"perm", Ints{1, 0}}})->producer();
  const Node& expand = *b.make("expand", {b.constant("one", Tensor(DType::f32, {1}))}, {{"shape", Ints{1000}}})->producer();
  FoldBudget spent;
  spent.grown = FoldBudget::kGrowthOfAll;
  EXPECT_FALSE(foldNode(widening, spent).value().has_value());
  EXPECT_FALSE(foldNode(expand, spent).value().has_value());
  EXPECT_TRUE(foldNode(transpose, spent).value().has_value()) << "it does not grow";
  spent.payload = 1000;
  EXPECT_TRUE(foldNode(widening, spent).value().has_value());
  EXPECT_FALSE(foldNode(expand, spent).value().has_value()) << "the widening took what the payload allowed";
}

}  // namespace
}  // namespace qc
