// Gradients against central differences: every op of the registry that has one, on random shapes and attributes.  An op that is added
// with a gradient and without a case fails, as does one whose gradient is wrong.
#include "ir/gradient.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <map>

#include "ir/custom_op.h"
#include "ir/interp.h"
#include "ir/scalar_derivative.h"
#include "tests/unit/gradient_cases.h"

namespace qc {
namespace {

using test::GradientCase;
using test::Random;

// The node alone, and the gradients of sum(result * weight) over its results.
struct Differentiated {
  Graph graph{"g"};
  std::vector<Value*> inputs;  // null: an absent operand
  std::vector<Value*> results;
};

Result<Differentiated> nodeOf(const std::string& op, const GradientCase& c) {
  Differentiated d;
  std::vector<Value*> operands;
  for (const auto& tensor : c.operands) operands.push_back(tensor ? d.graph.addInput("x", tensor->type()) : nullptr);
  d.inputs = operands;
  Builder b(d.graph);
  QC_ASSIGN(Node * node, b.createNode(op, operands, c.attrs));
  for (int i = 0; i < node->numResults(); ++i) d.results.push_back(node->result(i));
  d.graph.setOutputs(d.results);
  return d;
}

std::vector<Tensor> inputsOf(const GradientCase& c) {
  std::vector<Tensor> all;
  for (const auto& tensor : c.operands)
    if (tensor) all.push_back(*tensor);
  return all;
}

double weighted(const std::vector<Tensor>& results, const std::vector<Tensor>& weights) {
  double sum = 0;
  for (size_t r = 0; r < results.size(); ++r)
    if (isFloat(results[r].dtype()))
      for (int64_t i = 0; i < results[r].numElements(); ++i) sum += results[r].at(i) * weights[r].at(i);
  return sum;
}

// Largest deviation of the gradients from differences, beside the largest of the differences; or what went wrong.
std::string check(const std::string& op, const GradientCase& c, Random& random) {
  auto forward = nodeOf(op, c);
  if (!forward) return "forward: " + forward.error().render();
  auto backward = nodeOf(op, c);
  std::vector<Tensor> weights;
  std::vector<GradientSeed> seeds;
  Builder b(backward->graph);
  for (Value* result : backward->results) {
    weights.push_back(random.tensor(result->type(), -1, 1));
    if (isFloat(result->type().dtype)) seeds.push_back({result, b.constant("", weights.back())});
  }
  std::vector<Value*> of;
  std::vector<size_t> operands;
  for (size_t i = 0; i < c.operands.size(); ++i)
    if (c.operands[i] && isFloat(c.operands[i]->dtype()) && !c.fixed.contains(static_cast<int>(i))) {
      of.push_back(backward->inputs[i]);
      operands.push_back(i);
    }
  auto gradients = backpropagate(b, seeds, of);
  if (!gradients) return "backward: " + gradients.error().render();
  std::vector<Value*> outputs;
  for (Value* v : *gradients)
    if (v) outputs.push_back(v);
  backward->graph.setOutputs(outputs);
  auto got = interpret(backward->graph, inputsOf(c));
  if (!got) return "gradients: " + got.error().render();

  size_t next = 0;
  for (size_t k = 0; k < of.size(); ++k) {
    const Tensor& x = *c.operands[operands[k]];
    const bool isDouble = x.dtype() == DType::f64;
    const double h = isDouble ? 1e-5 : 0x1p-5;
    std::vector<double> differences;
    for (int64_t i = 0; i < x.numElements(); ++i) {
      const auto at = [&](double step) {
        GradientCase moved = c;
        storeElement(x.dtype(), moved.operands[operands[k]]->mutableData(), i, x.at(i) + step);
        return weighted(interpret(forward->graph, inputsOf(moved)).value(), weights);
      };
      // Of fourth order in float32, whose steps have to be long.
      differences.push_back(isDouble ? (at(h) - at(-h)) / (2 * h) : (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h));
    }
    // Smaller ones drown in the rounding of float32.
    double largest = isDouble ? 1e-3 : 0.05, worst = 0;
    int64_t where = 0;
    for (const double d : differences) largest = std::max(largest, std::fabs(d));
    for (int64_t i = 0; i < x.numElements(); ++i) {
      const double own = (*gradients)[k] ? (*got)[next].at(i) : 0, error = std::fabs(own - differences[usize(i)]);
      if (!(error <= worst)) worst = error, where = i;
    }
    if (!(worst <= 1e-4 * largest))
      return fmt::format("operand {} at {}: {} against {}, largest {}", operands[k], where, (*gradients)[k] ? (*got)[next].at(where) : 0,
                         differences[usize(where)], largest);
    next += (*gradients)[k] ? 1 : 0;
  }
  return {};
}

TEST(Gradients, OfEveryOpAreCentralDifferences) {
  const auto cases = test::gradientCases();
  for (const auto& [name, def] : OpRegistry::get().ops()) {
    const bool isEarly = def.legalIn(Stage::kFloat) || def.legalIn(Stage::kObserved);  // training comes before integers
    const bool isOwn = name.starts_with("test.");                                      // of a test beside this one
    if (isEarly && !isOwn) {
      EXPECT_NE(bool(def.gradient), !def.noGradient.empty()) << name << " must declare a gradient, or why it has none (OpDef::noGradient)";
    }
    if (!def.gradient || isOwn) continue;
    const auto makers = cases.find(name);
    ASSERT_NE(makers, cases.end()) << name << " has a gradient, and no case in tests/unit/gradient_cases.h";
    Random random(7);
    for (int i = 0; i < 20; ++i) {
      const GradientCase c = makers->second(random);
      const std::string wrong = check(name, c, random);
      EXPECT_EQ(wrong, "") << name << " #" << i << " " << test::describe(c);
      if (!wrong.empty()) break;
    }
  }
  for (const auto& [name, maker] : cases) EXPECT_TRUE(OpRegistry::get().at(name).gradient) << name << " has a case and no gradient";
}

// Expressions that no op has.
TEST(Gradients, OfExpressions) {
  const auto slope = [](const char* text, float x, float y = 0) {
    const ScalarExpr d = derivative(*ScalarExpr::parse(text), 0);
    return ExprProgram(d)(std::vector<float>{x, y});
  };
  EXPECT_FLOAT_EQ(slope("fma(a0, a0, a1)", 3), 6);
  EXPECT_FLOAT_EQ(slope("t0 = a0 * a0; t0 * t0 + t0", 2), 36);
  EXPECT_FLOAT_EQ(slope("max(0, a0)", 0), 0);  // of relu, by convention
  EXPECT_FLOAT_EQ(slope("min(6, max(0, a0))", 6), 0);
  EXPECT_FLOAT_EQ(slope("max(a0, a1)", 1, 1), 0.5f);
  EXPECT_FLOAT_EQ(slope("select(lt(a0, 1), a0 * 3, a0 * 5)", 2), 5);
  EXPECT_FLOAT_EQ(slope("floor(a0) * a0", 2.5f), 2);
  EXPECT_FLOAT_EQ(slope("mantissa(a0) * pow2(exponent(a0))", 5), 1);
  // An expansion has the derivative of what it expands.
  for (const auto& f : ScalarExpr::functions()) {
    if (f.arity != 1) continue;
    const ScalarExpr call = ScalarExpr::call(f.name, {ScalarExpr::arg(0)});
    const float x = std::string(f.name) == "acosh" ? 1.7f : 0.4f;
    const float named = ExprProgram(derivative(call, 0))(std::vector<float>{x});
    const float expanded = ExprProgram(derivative(call.expand(), 0))(std::vector<float>{x});
    EXPECT_NEAR(named, expanded, 2e-5f * std::max(1.f, std::fabs(named))) << f.name;
  }
}

OpDef likeItsOperand(std::string name, GradientFn gradient = {}) {
  OpDef def;
  def.gradient = std::move(gradient);
  def.name = std::move(name);
  def.operands = {{"x"}};
  def.infer = [](const InferContext& c) -> Result<std::vector<TensorType>> { return std::vector{c.type(0)}; };
  def.eval = [](const EvalContext&) -> Status { return {}; };
  return def;
}

TEST(Gradients, NameThePathToAnOpWithout) {
  ASSERT_TRUE(registerOp(likeItsOperand("test.none")));
  Graph g;
  Value* x = g.addInput("x", {DType::f32, {4}});
  Builder b(g);
  Value* first = b.at("first").make("neg", {x});
  Value* blocked = b.at("blocker").make("test.none", {first});
  Value* y = b.at("last").make("abs", {blocked});
  const auto without = backpropagate(b, {{y, y}}, std::vector<Value*>{x});
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().message(), "'test.none' has no gradient: abs 'last' <- test.none 'blocker' <- neg 'first' <- %x");
  EXPECT_EQ(without.error().node(), "blocker");
  // What does not lie between asks for none.
  EXPECT_TRUE(backpropagate(b, {{y, y}}, std::vector<Value*>{blocked}));
}

TEST(Gradients, OfOpsOfOnesOwn) {
  ASSERT_TRUE(registerOp(likeItsOperand("test.straight", [](GradientContext& c) { return Gradients{c.upstream()}; })));
  ASSERT_TRUE(registerOp(likeItsOperand("test.wrong", [](GradientContext& c) { return Gradients{c.sum(c.upstream(), {0})}; })));
  Graph g;
  Value* x = g.addInput("x", {DType::f32, {4}});
  Builder b(g);
  Value* y = b.make("test.straight", {x});
  EXPECT_EQ(backpropagate(b, {{y, y}}, std::vector<Value*>{x})->front(), y);
  Value* z = b.make("test.wrong", {x});
  EXPECT_THAT(backpropagate(b, {{z, z}}, std::vector<Value*>{x}).error().message(),
              testing::HasSubstr("the gradient of 'test.wrong' for operand 0 is f32[1], the operand f32[4]"));
}

TEST(Gradients, DoNotPassIntegers) {
  Graph g;
  Value* x = g.addInput("x", {DType::f32, {4}});
  Builder b(g);
  Value* y = b.make("cast", {b.make("cast", {x}, {{"to", DType::s32}})}, {{"to", DType::f32}});
  EXPECT_EQ(backpropagate(b, {{y, y}}, std::vector<Value*>{x}).value().front(), nullptr);
}

TEST(Gradients, NeedSizes) {
  Graph g;
  Value* x = g.addInput("x", {DType::f32, {Dim::symbol("N"), 4}});
  Builder b(g);
  Value* y = b.make("neg", {x});
  EXPECT_THAT(backpropagate(b, {{y, y}}, std::vector<Value*>{x}).error().message(), testing::HasSubstr("needs sizes"));
}

TEST(Gradients, RefuseWhatWouldNotFit) {
  Graph g;
  Builder b(g);
  const auto refused = [&](Value* y, Value* x) { return backpropagate(b, {{y, y}}, std::vector<Value*>{x}).error().message(); };
  Value* wide = g.addInput("wide", {DType::f32, {1, 1, 1, 20000000}});
  const std::vector<double> scales = {1, 1, 1, 1.5};
  Value* wider = b.make("resize", {wide}, {{"sizes", test::Ints{1, 1, 1, 30000000}}, {"scales", scales}});
  EXPECT_THAT(refused(wider, wide), testing::HasSubstr("the gradient of 'resize', as a matrix of 30000000 by 20000000,"));
  Value* mirrored = b.make("pad", {wide}, {{"pads", test::Ints{0, 0, 0, 1, 0, 0, 0, 0}}, {"mode", std::string("reflect")}});
  EXPECT_THAT(refused(mirrored, wide), testing::HasSubstr("the gradient of 'pad', as a matrix of 20000001 by 20000000,"));
  Value* x = g.addInput("x", {DType::f32, {20001, 1, 1}});
  Value* w = g.addInput("w", {DType::f32, {1, 1, 1}});
  Value* r = g.addInput("r", {DType::f32, {1, 1, 1}});
  EXPECT_THAT(refused(b.make("rnn", {x, w, r}, {{"hidden_size", int64_t{1}}}), x), testing::HasSubstr("built step by step, up to 10000"));
}

}  // namespace
}  // namespace qc
