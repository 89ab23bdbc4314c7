// The checker of memory plans: it finds what a planner could do wrong.  Plans themselves: tests/golden/memory_plan.
#include "passes/lower/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/text.h"

namespace qc {
namespace {

using testing::HasSubstr;

class MemoryPlanTest : public testing::Test {
 protected:
  MemoryPlanTest()
      : graph_(parseGraph(R"(
          graph @g(%x: f32[16]) {
            %a = relu %x : f32[16]
            %b = neg %a : f32[16]
            %c = add %a, %b : f32[16]
            return %c
          })",
                          "g")
                   .value()),
        plan_(planMemory(graph_, external())) {}

  std::set<const Value*> external() const { return {graph_.outputs()[0]}; }
  const Value* value(std::string_view name) const { return graph_.findValue(name); }
  std::string problem() const {
    const Status status = checkPlan(graph_, external(), plan_);
    return status ? std::string() : status.error().render();
  }

  Graph graph_;
  MemoryPlan plan_;
};

TEST_F(MemoryPlanTest, ItsOwnPlanIsSound) {
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(plan_.bytes, 128);
}

TEST_F(MemoryPlanTest, FindsValuesThatOverlapWhileBothAreAlive) {
  plan_.offsets[value("b")] = plan_.offsets[value("a")];
  EXPECT_THAT(problem(), HasSubstr("overlaps 'a'"));
}

TEST_F(MemoryPlanTest, FindsAValueWithoutAPlace) {
  plan_.offsets.erase(value("a"));
  EXPECT_THAT(problem(), HasSubstr("has no place"));
}

TEST_F(MemoryPlanTest, FindsAPlaceOutsideTheArenaOrOffItsAlignment) {
  plan_.offsets[value("b")] = 4096;
  EXPECT_THAT(problem(), HasSubstr("outside the arena"));
  plan_.offsets[value("b")] = 68;
  EXPECT_NE(problem(), "");
  plan_.offsets[value("b")] = -64;
  EXPECT_THAT(problem(), HasSubstr("outside the arena"));
}

}  // namespace
}  // namespace qc
