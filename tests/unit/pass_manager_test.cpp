#include "passes/pass_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace qc {
namespace {

using ::testing::HasSubstr;

// A registry of its own, with passes that misbehave.
PassRegistry& registry() {
  static PassRegistry all = [] {
    PassRegistry r;
    r.add({"nop", "does nothing", {}, std::nullopt, [](Graph&, PassContext&) -> Status { return {}; }});
    r.add({"options",
           "takes options",
           {{"text", AttrKind::string, std::string("usual")},
            {"count", AttrKind::integer, int64_t{0}},
            {"level", AttrKind::real, 0.5},
            {"list", AttrKind::integers, std::vector<int64_t>()}},
           std::nullopt,
           [](Graph&, PassContext& cx) -> Status {
             cx.remark(nullptr, cx.options.string("text"));
             return {};
           }});
    r.add({"mark",
           "lengthens the name of the graph",
           {},
           std::nullopt,
           [](Graph& g, PassContext&) -> Status {
             g.setName(g.name() + "_marked");
             return {};
           }},
          /*guest=*/false);
    r.add({"break-types", "breaks the graph", {}, std::nullopt, [](Graph& g, PassContext&) -> Status {
             g.outputs()[0]->setType({DType::f32, {77}});
             return {};
           }});
    r.add({"fail", "reports an error", {}, std::nullopt, [](Graph&, PassContext&) -> Status {
             return fail(ErrorCode::kUnsupported, "cannot do this").at("/a/b").help("do that");
           }});
    r.add({"crash",
           "aborts",
           {},
           std::nullopt,
           [](Graph&, PassContext&) -> Status {
             QC_CHECK(false, "on purpose");
             return {};
           }},
          /*guest=*/false);
    r.add({"to-quant", "claims a stage", {}, Stage::kQuant, [](Graph&, PassContext&) -> Status { return {}; }});
    r.addPipeline("two", "nop,options{count=2}");
    r.addPipeline("four", "two,two");
    r.addPipeline("endless", "nop,endless");
    return r;
  }();
  return all;
}

Pipeline pipeline(std::string_view text) {
  auto p = Pipeline::parse(text, registry());
  EXPECT_TRUE(p.has_value()) << p.error().render();
  return p ? *p : Pipeline();
}

Graph sample() { return std::move(*parseGraph("graph @g(%x: f32[2]) {\n  %y = relu %x : f32[2]\n  return %y\n}", "test")); }

TEST(Pipeline, TextRoundTrips) {
  EXPECT_EQ(pipeline("").str(), "");
  EXPECT_EQ(pipeline(" nop , options { count = 3 } ").str(), "nop,options{count=3}");
  EXPECT_EQ(pipeline("four").str(), "nop,options{count=2},nop,options{count=2}");
  EXPECT_EQ(pipeline("options{count}").str(), "options{count=1}");
  EXPECT_EQ(pipeline("options{text=\"usual\", level=1}").str(), "options{level=1.0}");
  EXPECT_EQ(pipeline("options{text=/head/.*-x, list=[1,2]}").str(), "options{text=/head/.*-x, list=[1,2]}");
  EXPECT_EQ(pipeline("options{text=\"a, b\"}").str(), "options{text=\"a, b\"}");
  EXPECT_EQ(pipeline("nop,options,nop").str(1), "options,nop");
}

TEST(Pipeline, ErrorsNameThePlace) {
  const auto message = [](std::string_view text) {
    const auto p = Pipeline::parse(text, registry());
    return p ? "no error" : p.error().message();
  };
  EXPECT_THAT(message("nop,nope"), HasSubstr("pipeline:1:5: unknown pass 'nope'; the nearest are 'nop'"));
  EXPECT_THAT(message("nop,"), HasSubstr("expected the name of a pass"));
  EXPECT_THAT(message("options{cuont=1}"), HasSubstr("'options' has no option 'cuont'; did you mean 'count'"));
  EXPECT_THAT(message("options{count=x}"), HasSubstr("expected a value"));
  EXPECT_THAT(message("options{count=1"), HasSubstr("expected '}'"));
  EXPECT_THAT(message("endless"), HasSubstr("contains itself"));
}

TEST(PassManager, BlamesThePassThatBrokeTheGraph) {
  const auto folder = std::filesystem::temp_directory_path() / "qcompile-pass-manager-test";
  PassManagerOptions options;
  options.verifyEach = true;
  options.replayDir = folder.string();
  PassManager manager(pipeline("nop,break-types,nop"), options);
  Graph g = sample();
  PassContext cx;
  const Status status = manager.run(g, cx);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code(), ErrorCode::kInternal);
  EXPECT_THAT(status.error().message(), HasSubstr("invalid after pass `break-types`: result 0 of 'relu' is f32[77]"));
  EXPECT_EQ(status.error().tensor(), "y");
  ASSERT_THAT(status.error().remedy(), HasSubstr("replays this"));
  // The file holds the graph as it was before, and the rest of the pipeline.
  const std::string path = status.error().remedy().substr(0, status.error().remedy().find(' '));
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_THAT(text.str(), HasSubstr("// RUN: qcompile opt --pipeline='break-types,nop' --verify-each"));
  EXPECT_TRUE(parseGraph(text.str(), path).has_value());
  std::filesystem::remove_all(folder);
}

TEST(PassManager, TheReplayedGraphIsThatInFrontOfTheFailingPass) {
  const auto folder = std::filesystem::temp_directory_path() / "qcompile-replay-test";
  PassManagerOptions options;
  options.verifyEach = true;
  options.replayDir = folder.string();
  for (const std::string before : {"mark,mark,", "mark,nop,mark,", "nop,mark,mark,nop,"}) {
    PassManager manager(pipeline(before + "break-types,mark"), options);
    Graph g = sample();
    PassContext cx;
    const Status status = manager.run(g, cx);
    ASSERT_FALSE(status.has_value());
    const std::string path = status.error().remedy().substr(0, status.error().remedy().find(' '));
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    EXPECT_THAT(text.str(), HasSubstr("--pipeline='break-types,mark'"));
    EXPECT_THAT(text.str(), HasSubstr("graph @g_marked_marked("));
  }
  std::filesystem::remove_all(folder);
}

TEST(PassManager, PassesErrorsOn) {
  PassManager manager(pipeline("fail"));
  Graph g = sample();
  PassContext cx;
  const Status status = manager.run(g, cx);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().render(), "unsupported: node '/a/b': in pass `fail`: cannot do this\n  help: do that");
}

TEST(PassManager, HandsOutOptionsAndCollectsRemarks) {
  PassManager manager(pipeline("options,options{text=other}"));
  Graph g = sample();
  PassContext cx;
  ASSERT_TRUE(manager.run(g, cx).has_value());
  ASSERT_EQ(cx.remarks.size(), 2u);
  EXPECT_EQ(cx.remarks[0].message, "usual");
  EXPECT_EQ(cx.remarks[1].message, "other");
  EXPECT_EQ(cx.remarks[1].pass, "options");
  EXPECT_EQ(cx.timings.size(), 2u);
}

TEST(PassManager, FollowsTheStage) {
  PassManager manager(pipeline("nop,to-quant"));
  Graph g = sample();
  PassContext cx;
  ASSERT_TRUE(manager.run(g, cx, Stage::kFloat).has_value());
  EXPECT_EQ(manager.stage(), Stage::kQuant);
}

TEST(PassManager, StopsAndPrints) {
  std::string log;
  PassManagerOptions options;
  options.stopAfter = 1;
  options.printAfter = "n.p";
  options.printChanged = true;
  options.log = [&](std::string_view text) { log += text; };
  PassManager manager(pipeline("nop,fail"), options);
  Graph g = sample();
  PassContext cx;
  ASSERT_TRUE(manager.run(g, cx).has_value());
  EXPECT_THAT(log, HasSubstr("// ---- after nop\ngraph @g"));
  EXPECT_THAT(log, HasSubstr("// ---- nop changed nothing"));
}

TEST(PassManagerDeathTest, ACrashLeavesAReplayFile) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto folder = std::filesystem::temp_directory_path() / "qcompile-crash-test";
  std::filesystem::remove_all(folder);
  PassManagerOptions options;
  options.replayDir = folder.string();
  PassManager manager(pipeline("nop,crash"), options);
  Graph g = sample();
  PassContext cx;
  EXPECT_DEATH(static_cast<void>(manager.run(g, cx)), "on purpose(.|\n)*a command that replays it");
  ASSERT_TRUE(std::filesystem::exists(folder));
  std::filesystem::remove_all(folder);
}

TEST(DiffLines, ShowsChangesInContext) {
  EXPECT_EQ(diffLines("a\nb\n", "a\nb\n"), "");
  EXPECT_EQ(diffLines("a\nb\nc\n", "a\nx\nc\n"), "  a\n- b\n+ x\n  c\n");
  EXPECT_EQ(diffLines("1\n2\n3\n4\n5\n6\n", "1\n2\n3\n4\n5\n"), "  ...\n  4\n  5\n- 6\n");
  EXPECT_EQ(diffLines("", "a\n"), "+ a\n");
}

}  // namespace
}  // namespace qc
