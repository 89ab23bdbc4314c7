#include "ir/pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/rewriter.h"
#include "ir/text.h"
#include "ir/verify.h"

namespace qc {
namespace {

using ::testing::HasSubstr;

Graph parsed(std::string_view text) {
  auto graph = parseGraph(text, "test");
  EXPECT_TRUE(graph.has_value()) << graph.error().render();
  return graph ? std::move(*graph) : Graph();
}

Node& node(Graph& g, std::string_view name) { return *g.findValue(name)->producer(); }

TEST(Pattern, PrintsItself) {
  const Pattern p = oneOf({"relu", "clip"}, {op("add", {op("conv", {any("x"), constant("w"), maybe("b")}), any()})});
  EXPECT_EQ(p.str(), "relu|clip(add(conv(_, const, _?), _))");
}

TEST(Pattern, CapturesAndOrdersNodes) {
  Graph g = parsed(R"(graph @g(%x: f32[2], %y: f32[2]) {
    %a = neg %x : f32[2]
    %b = abs %y : f32[2]
    %c = sub %a, %b : f32[2]
    %d = relu %c : f32[2]
    return %d
  })");
  const auto m = match(op("relu", {op("sub", {op("neg", {any("in")}), op("abs").as("right")}).as("sub")}), node(g, "d"));
  ASSERT_TRUE(m.has_value());
  EXPECT_EQ(m->root(), &node(g, "d"));
  ASSERT_EQ(m->nodes().size(), 4u);
  EXPECT_EQ(m->nodes()[1], &node(g, "c"));
  EXPECT_EQ(m->nodes()[2], &node(g, "a"));
  EXPECT_EQ(m->nodes()[3], &node(g, "b"));
  EXPECT_EQ((*m)["in"], g.findValue("x"));
  EXPECT_EQ(m->node("right"), &node(g, "b"));
  EXPECT_EQ((*m)["nothing"], nullptr);
  EXPECT_FALSE(match(op("relu", {op("sub", {op("abs"), any()})}), node(g, "d")).has_value()) << "sub does not commute";
}

TEST(Pattern, TriesBothOrdersWithBacktracking) {
  Graph g = parsed(R"(graph @g(%x: f32[2], %y: f32[2]) {
    %s = sigmoid %x : f32[2]
    %m = mul %s, %x : f32[2]
    %n = mul %s, %y : f32[2]
    %p = add %n, %m : f32[2]
    return %p
  })");
  const auto silu = [] { return op("mul", {any("v"), op("sigmoid", {any("v")})}); };
  EXPECT_TRUE(match(silu(), node(g, "m")).has_value());
  EXPECT_FALSE(match(silu(), node(g, "n")).has_value()) << "one name, two values";
  // The inner choice that fits by itself must be undone when the outer one fails.
  EXPECT_TRUE(match(op("add", {op("mul", {any("v"), any("s")}), op("mul", {op("sigmoid").as("s"), any("w")})}), node(g, "p")).has_value());
}

TEST(Pattern, OneUseCountsOutputs) {
  Graph g = parsed(R"(graph @g(%x: f32[2]) {
    %a = neg %x : f32[2]
    %b = relu %a : f32[2]
    %c = neg %x : f32[2]
    %d = relu %c : f32[2]
    %e = neg %x : f32[2]
    %f = add %e, %e : f32[2]
    return %a, %b, %d, %f
  })");
  EXPECT_FALSE(match(op("relu", {op("neg").oneUse()}), node(g, "b")).has_value());
  EXPECT_TRUE(match(op("relu", {op("neg").oneUse()}), node(g, "d")).has_value());
  EXPECT_FALSE(match(op("add", {op("neg").oneUse()}), node(g, "f")).has_value());
}

TEST(Pattern, Conditions) {
  Graph g = parsed("graph @g(%x: f32[2]) {\n %a = clip %x {min=0.0, max=6.0} : f32[2]\n %b = clip %a {min=1.0} : f32[2]\n return %b\n}");
  const auto fromZero = [] { return op("clip").where([](const Node& n) { return n.real("min") == 0; }); };
  EXPECT_TRUE(match(fromZero(), node(g, "a")).has_value());
  EXPECT_FALSE(match(fromZero(), node(g, "b")).has_value());
  EXPECT_FALSE(match(op("clip", {op("neg")}), node(g, "a")).has_value()) << "an input has no producer";
}

TEST(Rewriter, RunsToAFixedPointAndKeepsNames) {
  Graph g = parsed(R"(graph @g(%x: f32[2]) {
    %0 = neg %x : f32[2]
    %1 = neg %0 : f32[2]
    %2 = neg %1 : f32[2]
    %user = neg %2 : f32[2] loc("/last")
    %y = sub %user, %x : f32[2]
    return %y
  })");
  const std::vector<RewriteRule> rules = {
      {"neg-neg", op("neg", {op("neg", {any("x")})}),
       [](const Match& m, Rewriter& rw) -> Result<bool> {
         rw.replace(m.root(), {m["x"]});
         return true;
       }},
      {"sub-to-add", op("sub"),
       [](const Match& m, Rewriter& rw) -> Result<bool> {
         Builder b = rw.before(m.root());
         QC_ASSIGN(Value * n, b.create("neg", {m.root()->operand(1)}));
         QC_ASSIGN(Value * sum, b.create("add", {m.root()->operand(0), n}));
         rw.replace(m.root(), {sum});
         return true;
       }},
  };
  const auto hits = rewritePatterns(g, rules);
  ASSERT_TRUE(hits.has_value()) << hits.error().render();
  EXPECT_EQ(hits->at("neg-neg"), 2);
  EXPECT_EQ(hits->at("sub-to-add"), 1);
  EXPECT_EQ(g.numNodes(), 2);
  EXPECT_EQ(g.outputs()[0]->name(), "y") << g.str();
  EXPECT_TRUE(verify(g).has_value());
}

TEST(Rewriter, NamesTheRuleThatNeverEnds) {
  Graph g = parsed("graph @g(%x: f32[2]) {\n %y = neg %x : f32[2]\n return %y\n}");
  const std::vector<RewriteRule> rules = {{"again", op("neg"), [](const Match& m, Rewriter& rw) -> Result<bool> {
                                             QC_ASSIGN(Value * copy, rw.before(m.root()).create("neg", {m.root()->operand(0)}));
                                             rw.replace(m.root(), {copy});
                                             return true;
                                           }}};
  const auto hits = rewritePatterns(g, rules, 100);
  ASSERT_FALSE(hits.has_value());
  EXPECT_EQ(hits.error().code(), ErrorCode::kInternal);
  EXPECT_THAT(hits.error().message(), HasSubstr("'again' (neg)"));
}

TEST(Rewriter, LeavesSharedProducersAlone) {
  Graph g = parsed(R"(graph @g(%x: f32[2]) {
    %a = neg %x : f32[2]
    %b = abs %a : f32[2]
    %c = relu %b : f32[2]
    return %c, %a
  })");
  Rewriter rw(g);
  rw.replace(&node(g, "c"), {g.findValue("x")});
  EXPECT_EQ(g.findValue("b"), nullptr);
  ASSERT_NE(g.findValue("a"), nullptr) << "still an output";
  EXPECT_EQ(g.outputs()[0], g.findValue("x"));
  EXPECT_TRUE(rw.changed());
}

}  // namespace
}  // namespace qc
