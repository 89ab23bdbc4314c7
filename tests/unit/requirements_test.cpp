// What a caller can get wrong.  Where a header says "requires", breaking it is an error wherever guarded() runs the code, and elsewhere the
// process stops with a message that names the function; everything else returns its error.  tests/end_to_end/requirements.py holds the
// first table to the sources: every function that requires something is in it.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"  // designated initializers name what matters

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "ir/guarded.h"
#include "ir/interp.h"
#include "ir/op_def.h"
#include "ir/rewriter.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass_manager.h"
#include "quantizer/embedding.h"
#include "quantizer/observers/fake_quantize.h"
#include "quantizer/rules/weight_bits.h"
#include "quantizer/signal_error.h"
#include "runtime/profile.h"
#include "runtime/qcompile.h"
#include "runtime/specialize.h"

namespace qc {
namespace {

using ::testing::HasSubstr;

Graph chain() {
  return parseGraph(R"(
const #w : f32[4] = [1, 2, 3, 4]
graph @g(%x: f32[N]) {
  %w = const #w : f32[4]
  %a = relu %x : f32[N]
  %b = neg %a : f32[N]
  return %b
})")
      .value();
}
std::string message(const auto& result) { return result ? "no error" : result.error().render(); }

// A graph with its nodes, and another.
struct Two {
  Graph graph = chain(), other = chain();
  Node *relu = graph.findValue("a")->producer(), *neg = graph.findValue("b")->producer();
  Value *x = graph.inputs()[0], *theirs = other.findValue("a");
};
struct Breach {
  const char* function;  // as QC_REQUIRE names it
  std::function<void(Two&)> call;
};

const std::vector<float> kThree{1, 2, 3};

const Breach kBreaches[] = {
    {"Tensor::of", [](Two&) { Tensor::of<float>(DType::f32, {2, 2}, kThree); }},
    {"Tensor::of", [](Two&) { Tensor::of<float>(DType::s8, {3}, kThree); }},
    {"Tensor::of", [](Two&) { Tensor::of<float>(DType::f32, {-1, -3}, kThree); }},
    {"Tensor::of", [](Two&) { Tensor::ofInts({int64_t{1} << 40, int64_t{1} << 40}, std::vector<int64_t>{1}); }},
    {"Tensor::reshaped", [](Two&) { static_cast<void>(Tensor(DType::f32, {4}).reshaped({5})); }},
    {"rangeOf", [](Two&) { rangeOf(DType::f32); }},
    {"Dim::size", [](Two& t) { static_cast<void>(t.x->type().sizes()); }},
    {"AttrDict", [](Two& t) { static_cast<void>(t.relu->integer("axis")); }},
    {"AttrDict", [](Two&) { static_cast<void>(AttrDict{{"axis", 0.5}}.integer("axis")); }},
    {"OpRegistry::at", [](Two&) { OpRegistry::get().at("rleu"); }},
    {"Builder::make", [](Two& t) { Builder(t.graph).make("rleu", {t.x}); }},
    {"Builder::make", [](Two& t) { Builder(t.graph).make("add", {t.x}); }},
    {"Builder::make", [](Two& t) { Builder(t.graph).make("relu", {t.theirs}); }},
    {"Builder::before", [](Two& t) { Builder(t.graph).before(t.theirs->producer()); }},
    {"Builder::constant", [](Two& t) { Builder(t.graph).constant("c", Tensor(DType::f32, {4}), quantPerTensor(DType::u8, 1, 0)); }},
    {"Value::replaceAllUsesWith", [](Two& t) { t.x->replaceAllUsesWith(nullptr); }},
    {"Value::replaceAllUsesWith", [](Two& t) { t.x->replaceAllUsesWith(t.x); }},
    {"Value::replaceAllUsesWith", [](Two& t) { t.x->replaceAllUsesWith(t.theirs); }},
    {"Value::replaceAllUsesWith", [](Two& t) { t.x->replaceAllUsesWith(t.graph.findValue("w")); }},
    {"Node::setOperand", [](Two& t) { t.relu->setOperand(-1, t.x); }},
    {"Node::setOperand", [](Two& t) { t.relu->setOperand(0, t.theirs); }},
    {"Node::setOperand", [](Two& t) { t.relu->setOperand("weight", t.x); }},
    {"Node::addOperand", [](Two& t) { t.relu->addOperand(t.theirs); }},
    {"Node::constant", [](Two& t) { static_cast<void>(t.relu->constant()); }},
    {"Node::isBefore", [](Two& t) { static_cast<void>(t.relu->isBefore(t.theirs->producer())); }},
    {"Node::isBefore", [](Two& t) { static_cast<void>(t.relu->isBefore(nullptr)); }},
    {"Graph::eraseInput", [](Two& t) { t.graph.eraseInput(t.x); }},
    {"Graph::eraseInput", [](Two& t) { t.graph.eraseInput(t.other.inputs()[0]); }},
    {"Graph::eraseInput", [](Two& t) { t.graph.eraseInput(nullptr); }},
    {"Graph::setOutputs", [](Two& t) { t.graph.setOutputs({t.theirs}); }},
    {"Graph::setOutputs", [](Two& t) { t.graph.setOutputs({nullptr}); }},
    {"Graph::setOutputNames", [](Two& t) { t.graph.setOutputNames({"y", "z"}); }},
    {"Graph::insert", [](Two& t) { t.graph.insert(t.relu->def(), {t.theirs}, {}, {TensorType(DType::f32, {4})}); }},
    {"Graph::insert", [](Two& t) { t.graph.insert(t.relu->def(), {t.x}, {}, {t.x->type()}, t.theirs->producer()); }},
    {"Graph::erase", [](Two& t) { t.graph.erase(t.relu); }},
    {"Graph::erase", [](Two& t) { t.graph.erase(t.theirs->producer()); }},
    {"Graph::erase", [](Two& t) { t.graph.erase(nullptr); }},
    {"Graph::moveBefore", [](Two& t) { t.graph.moveBefore(t.relu, t.theirs->producer()); }},
    {"Graph::moveBefore", [](Two& t) { t.graph.moveBefore(nullptr, t.relu); }},
    {"Graph::rename", [](Two& t) { t.graph.rename(t.theirs, "mine"); }},
    {"Graph::rename", [](Two& t) { t.graph.rename(nullptr, "mine"); }},
    {"Rewriter::replace", [](Two& t) { Rewriter(t.graph).replace(t.relu, {}); }},
    {"Rewriter::replace", [](Two& t) { Rewriter(t.graph).replace(t.relu, {nullptr}); }},
    {"ScalarExpr::arg", [](Two&) { ScalarExpr::arg(-1); }},
    {"ScalarExpr::make", [](Two&) { ScalarExpr::make(ScalarExpr::Op::add, {ScalarExpr(1)}); }},
    {"ScalarExpr::call", [](Two&) { ScalarExpr::call("epx", {ScalarExpr(1)}); }},
    {"ScalarExpr::call", [](Two&) { ScalarExpr::call("exp", {}); }},
    {"ScalarExpr::substitute", [](Two&) { static_cast<void>(ScalarExpr::arg(1).substitute({})); }},
    {"ExprProgram::run",
     [](Two&) {
       float out = 0;
       ExprProgram(ScalarExpr::arg(1)).run<float>({}, {}, &out, 1);
     }},
    {"ExprProgram::run",
     [](Two&) {
       int64_t out = 0;
       ExprProgram(expr::exp(2)).run<int64_t>({}, {}, &out, 1);
     }},
    {"Backend", [](Two&) { defaultQConfig(static_cast<Backend>(77)); }},
    {"Pipeline::add", [](Two&) { Pipeline().add({nullptr, {}}); }},
    {"signal error", [](Two&) { sqnr(kThree, {}); }},
    {"signal error", [](Two&) { cosineSimilarity(kThree, {}); }},
    {"signal error", [](Two&) { normalizedL2(kThree, {}); }},
    {"signal error", [](Two&) { meanSquaredError(kThree, {}); }},
    {"unpackRow", [](Two&) { unpackRow(packRows(std::vector<float>(8), 1, 8, 8).value(), 1); }},
    {"fakeQuantize", [](Two&) { fakeQuantize(kThree, std::vector<int64_t>{4}, *quantPerTensor(DType::u8, 1, 0)); }},
    {"fakeQuantize", [](Two&) { fakeQuantize(kThree, std::vector<int64_t>{3}, {DType::u8, 0, 255, 0, 0, {1, 1}, {0, 0}}); }},
    {"fakeQuantize", [](Two&) { fakeQuantize(kThree, std::vector<int64_t>{3}, {DType::u8, 0, 255, 1, 0, {1}, {0}}); }},
    {"withWeightBits", [](Two&) { withWeightBits(defaultQConfig(Backend::x86), 9); }},
    {"learnableForward", [](Two&) { learnableForward(kThree, std::vector<int64_t>{3}, {.scales = {}, .zeroPoints = {}}); }},
    {"learnableBackward", [](Two&) { learnableBackward(kThree, {}, std::vector<int64_t>{3}, {.scales = {1}, .zeroPoints = {0}}); }},
};

TEST(Requirements, AreErrorsOfWhatBreaksThem) {
  for (const Breach& b : kBreaches) {
    Two two;
    const std::string before = two.graph.str();
    const Status status = guarded("my edit", [&]() -> Status {
      b.call(two);
      return {};
    });
    ASSERT_FALSE(status) << b.function << " takes it";
    EXPECT_THAT(message(status), HasSubstr(fmt::format("my edit breaks a rule of the API: {}(): ", b.function)));
    EXPECT_EQ(two.graph.str(), before) << b.function << " has edited the graph";
    EXPECT_TRUE(verify(two.graph)) << b.function;
  }
}

TEST(RequirementsDeathTest, StopTheProcessElsewhere) {
  for (const Breach& b : kBreaches) {
    if (&b != kBreaches && std::string_view(b.function) == (&b)[-1].function) continue;
    Two two;
    EXPECT_DEATH(b.call(two), fmt::format("qcompile: a call breaks what the function requires: {}", b.function));
  }
}

// What can say so returns an error, or what there is: nothing.
TEST(Requirements, OthersReturnErrors) {
  EXPECT_EQ(message(Tensor::from<float>(DType::f32, {3}, kThree)), "no error");
  EXPECT_THAT(message(Tensor::from<float>(DType::f32, {2, 2}, kThree)), HasSubstr("3 values for a tensor f32[2,2]"));
  EXPECT_THAT(message(Tensor::from<float>(DType::s8, {3}, kThree)), HasSubstr("4 bytes for elements s8"));
  EXPECT_THAT(message(Tensor::from<float>(DType::f32, {-3, -1}, kThree)), HasSubstr("a size of -3"));
  EXPECT_FALSE(Tensor::from<float>(DType::f32, {int64_t{1} << 33, int64_t{1} << 31}, std::span<const float>()));
  EXPECT_EQ(message(Tensor::from<float>(DType::f32, {int64_t{1} << 62, 8, 0}, std::span<const float>())), "no error");

  Graph plain = parseGraph("graph @g(%x: f32[4]) { %y = relu %x : f32[4] return %y }").value();
  Executable exe = Executable::fromGraph(plain.clone(), Target::host()).value();
  const Executable kept = std::move(exe);
  EXPECT_TRUE(exe.program().steps().empty());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(exe.program().graph().numNodes(), 0);
  EXPECT_THAT(message(profile(exe, {}, 1)), HasSubstr("moved from"));
  EXPECT_EQ(Program().graph().numNodes(), 0);

  EXPECT_THAT(message(DynamicSession(nullptr).run({})), HasSubstr("no model"));
  DynamicSession session(std::make_shared<Specializer>("none.onnx"));
  const DynamicSession moved = std::move(session);
  EXPECT_THAT(message(session.run({})), HasSubstr("no model"));  // NOLINT(bugprone-use-after-move)

  Graph graph = chain();
  const Node& relu = *graph.findValue("a")->producer();
  EXPECT_THAT(message(evaluateNode(relu, {})), HasSubstr("0 tensors for the 1 operands"));
  EXPECT_EQ(match(op("relu"), *graph.findValue("a")->producer())->node("none"), nullptr);
  EXPECT_THAT(message(rewritePatterns(graph, {{.name = "mine", .pattern = any("x")}})), HasSubstr("no op at its root"));
  EXPECT_THAT(message(rewritePatterns(graph, {{.name = "mine", .pattern = op("relu")}})), HasSubstr("no function"));
  AttrDict attrs;
  const std::vector<AttrSpec> wrong{{"depth", AttrKind::integer, std::string("two")}};
  EXPECT_THAT(message(checkAttrs("acme", wrong, attrs)), HasSubstr("is of kind string, not integer"));

  EXPECT_FALSE(groupwiseQParams(kThree, std::vector<int64_t>{2, 2}, DType::s4, -8, 7, 1, 2, BlockMapping::symmetric));
  MovingAverageFakeQuantize channels({.perChannel = true});
  EXPECT_FALSE(channels.step(kThree, std::vector<int64_t>{0, 3}));
  EXPECT_FALSE(channels.step(kThree, std::vector<int64_t>{2, 2}));
  EXPECT_TRUE(channels.step({}, std::vector<int64_t>{0, 3}));

  Error gone(ErrorCode::kIo, "the disk is full");
  const Error here = std::move(gone).at("node");
  EXPECT_EQ(here.render(), "i/o error: node 'node': the disk is full");
  EXPECT_EQ(gone.message(), "");  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(Error(here).render(), here.render());
}

}  // namespace
}  // namespace qc
