// Data that a compiled step cannot take: the error is that of the evaluation, whatever the number of threads, and the session goes on.
#include <gtest/gtest.h>

#include "ir/interp.h"
#include "ir/text.h"
#include "runtime/executable.h"

namespace qc {
namespace {

constexpr const char* kText =
    "const #table : f32[50,300] = rand(1, -1, 1)\n"
    "graph @g(%ids: s64[4,400]) {\n"
    "%table = const #table : f32[50,300]\n"
    "%0 = gather %table, %ids {axis=0} : f32[4,400,300] loc(\"/words/Gather\")\n"
    "%1 = softmax %0 {axis=2} : f32[4,400,300]\n"
    "return %1\n}\n";

// Indices into a table of 50 rows, one of them replaced.
Tensor indices(int64_t place = -1) {
  Tensor ids(DType::s64, {4, 400});
  const auto values = ids.mutableAs<int64_t>();
  for (int64_t i = 0; i < ids.numElements(); ++i) nth(values, i) = i == place ? 50 + place : i * 7 % 100 - 50;
  return ids;
}

TEST(BadData, IsTheErrorOfTheEvaluation) {
  const Graph graph = parseGraph(kText).value();
  const Executable exe = Executable::fromGraph(parseGraph(kText).value(), Target::host()).value();
  for (const Step& step : exe.program().steps()) {
    EXPECT_NE(step.kernel, nullptr) << step.node->op();
    EXPECT_TRUE(step.splits()) << "too small to be split among threads";
  }
  const Tensor ids = indices();
  const Tensor expected = interpret(graph, std::span(&ids, 1)).value()[0];
  for (const int threads : {1, 2, 3}) {
    Session session = exe.session({.threads = threads}).value();
    for (const int64_t place : {0, 810, 1599}) {
      const Tensor bad = indices(place);
      const auto evaluated = interpret(graph, std::span(&bad, 1));
      const auto result = session.run({{"ids", bad}});
      ASSERT_FALSE(evaluated || result);
      EXPECT_EQ(result.error().render(), evaluated.error().render());
      EXPECT_EQ(result.error().code(), ErrorCode::kInvalidData);
      EXPECT_EQ(result.error().node(), "/words/Gather");
      const auto good = session.run({{"ids", ids}});
      ASSERT_TRUE(good) << good.error().render();
      EXPECT_TRUE(good->begin()->second.sameBytes(expected));
    }
  }
}

}  // namespace
}  // namespace qc
