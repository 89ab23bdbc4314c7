// Hostile but legal sizes are answered with an error before anything is allocated.
#include "ir/memory_limit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/interp.h"
#include "ir/text.h"
#include "passes/pass_manager.h"
#include "runtime/executable.h"

namespace qc {
namespace {

using ::testing::HasSubstr;

// An outer product of 2^60 bytes would be refused on import; this one of 2^38 is a legal type.
constexpr const char* kOuterProduct = R"(graph @g(%a: f32[262144,1], %b: f32[1,262144]) {
  %y = matmul %a, %b : f32[262144,262144]
  %z = reduce_max %y {axes=[0,1]} : f32[1,1]
  return %z
})";

Graph parsed(const char* text) {
  auto graph = parseGraph(text, "test");
  EXPECT_TRUE(graph) << graph.error().render();
  return graph ? *std::move(graph) : Graph();
}

class MemoryLimit : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_GT(memoryLimit(), int64_t{1} << 26);
    if (memoryLimit() >= int64_t{1} << 38) GTEST_SKIP() << "this machine has the memory";
  }
};

TEST_F(MemoryLimit, TheInterpreterRefuses) {
  const Graph g = parsed(kOuterProduct);
  const std::vector<Tensor> inputs = {Tensor(DType::f32, {262144, 1}), Tensor(DType::f32, {1, 262144})};
  const auto outputs = interpret(g, inputs);
  ASSERT_FALSE(outputs);
  EXPECT_EQ(outputs.error().code(), ErrorCode::kResource);
  EXPECT_THAT(outputs.error().render(), HasSubstr("more than the limit of"));
  EXPECT_THAT(outputs.error().tensor(), "y");
  EXPECT_THAT(outputs.error().remedy(), HasSubstr("QC_MEMORY_LIMIT"));
}

TEST_F(MemoryLimit, ASessionRefuses) {
  Graph g = parsed(kOuterProduct);
  const auto exe = Executable::fromGraph(std::move(g), Target::host());
  ASSERT_TRUE(exe) << exe.error().render();
  const auto session = exe->session();
  ASSERT_FALSE(session);
  EXPECT_THAT(session.error().render(), HasSubstr("a session takes"));
}

TEST_F(MemoryLimit, FoldingLeavesLargeConstantsAlone) {
  Graph g = parsed(R"(const #c : f32[] = [1.0]
graph @g() {
  %c = const #c : f32[]
  %y = expand %c {shape=[262144,262144]} : f32[262144,262144]
  %z = reduce_max %y {axes=[0,1]} : f32[1,1]
  return %z
})");
  PassContext cx;
  ASSERT_TRUE(runPipeline("fold-constants", g, cx));
  EXPECT_THAT(g.str(), HasSubstr("expand"));
}

TEST(MemoryLimitText, SaysHowMuchIsNeeded) {
  EXPECT_TRUE(checkMemory(1, "this"));
  const Status status = checkMemory(INT64_MAX, "this");
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(), HasSubstr("this takes 9223372036854775807 bytes"));
}

}  // namespace
}  // namespace qc
