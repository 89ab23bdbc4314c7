// Which values of two graphs are the same, in files that leave out what they fold.
#include "runtime/insight/pairing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/text.h"
#include "runtime/insight/paired_ends.h"

namespace qc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kFloat = R"(
const #w : f32[2,2,1,1] = [1.0, 2.0, 3.0, 4.0]
const #one : f32[2] = [1.0, 2.0]
graph @f(%x: f32[N,2,4,4]) -> ("y") {
  %w = const #w : f32[2,2,1,1]
  %one = const #one : f32[2]
  %c = conv %x, %w : f32[N,2,4,4] loc("conv")
  %n = batch_norm %c, %one, %one, %one, %one : f32[N,2,4,4] loc("norm")
  %r = relu %n : f32[N,2,4,4] loc("act")
  %d = conv %r, %w : f32[N,2,4,4] loc("last")
  return %d
})";

// BatchNorm is folded, and the relu into integers that begin at its zero; names are those of `names`: of the first convolution and the
// last.
Graph folded(const std::string& first, const std::string& last, const std::string& locations = "") {
  return parseGraph(R"(
!a = q<u8, scale=0.1, zp=3>
!w = q<s8, scale=0.25, zp=0>
!c = q<u8, scale=0.2, zp=0>
const #w : s8[2,2,1,1] = [2, 1, 4, 3]
graph @q(%x: f32[N,2,4,4]) -> ("y") {
  %w = const #w : !w[2,2,1,1]
  %wd = dequantize %w : f32[2,2,1,1]
  %xq = quantize %x : !a[N,2,4,4]
  %xd = dequantize %xq : f32[N,2,4,4]
  %)" + first + R"( = conv %xd, %wd : f32[N,2,4,4])" +
                    (locations.empty() ? "" : " loc(\"" + locations + "\")") + R"(
  %cq = quantize %)" +
                    first + R"( : !c[N,2,4,4]
  %cd = dequantize %cq : f32[N,2,4,4]
  %)" + last + R"( = conv %cd, %wd : f32[N,2,4,4]
  return %)" + last +
                    "\n}")
      .value();
}

TEST(Pairing, LooksThroughWhatIsFolded) {
  const Graph reference = parseGraph(kFloat).value();
  // By the name of the BatchNorm, of the relu, of the convolution itself, or by none.
  for (const auto& [first, last] : {std::pair("n", "d"), {"r", "d"}, {"c", "d"}, {"v7", "v9"}, {"n_quantized", "d_QuantizeLinear_Input"}}) {
    const Pairing pairs = pairModels(reference, folded(first, last)).value();
    ASSERT_EQ(pairs.layers.size(), 3u) << first;
    EXPECT_TRUE(pairs.unmatched.empty()) << first;
    EXPECT_EQ(pairs.layers[0].reference, "r") << first;
    EXPECT_EQ(pairs.layers[0].actual, "cd") << first;
    EXPECT_EQ(pairs.layers[0].layer, "conv") << first;
    EXPECT_TRUE(pairs.layers[0].rounded);
    EXPECT_EQ(pairs.layers[1].reference, "d") << first;
    EXPECT_EQ(pairs.layers[1].layer, "last") << first;
    EXPECT_TRUE(pairs.layers[2].output);
  }
}

// Tokens as rows of ones and zeros: what is computed from them is computed from the input, whatever lies between.
Graph tokens(const std::string& batch, const std::string& weight, const std::string& name) {
  return parseGraph(fmt::format(R"(
!w = q<s8, scale=0.25, zp=0>
const #n : s32[4] = [0, 1, 2, 3]
const #w : {1}[3,4] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
graph @tokens(%t: s32[{0},1]) -> ("y") {{
  %n = const #n : s32[4]
  %w = const #w : {2}[3,4]{3}
  %e = equal %t, %n : bool[{0},4]
  %f = cast %e : f32[{0},4]
  %{4} = linear %f, %{5} : f32[{0},3] loc("layer")
  return %{4}
}})",
                                batch, weight, weight == "f32" ? "f32" : "!w",
                                weight == "f32" ? "" : fmt::format("\n  %wd = dequantize %w : f32[3,4]"), name,
                                weight == "f32" ? "w" : "wd"))
      .value();
}

TEST(Pairing, BehindIntegersAndAtAnySizes) {
  for (const char* theirs : {"N", "2"})
    for (const char* ours : {"N", "B", "2"})
      for (const char* name : {"l", "k"}) {
        const Pairing pairs = pairModels(tokens(theirs, "f32", "l"), tokens(ours, "s8", name)).value();
        ASSERT_EQ(pairs.layers.size(), 2u) << theirs << ours << name;
        EXPECT_EQ(pairs.layers[0].layer, "layer");
        EXPECT_EQ(pairs.layers[0].referenceNode, "layer");
        EXPECT_TRUE(pairs.unmatched.empty());
      }
}

TEST(Pairing, ListsWhatHasNoCounterpart) {
  const Graph reference = parseGraph("graph @f(%x: f32[N,2,4,4]) -> (\"y\") {\n  %y = sigmoid %x : f32[N,2,4,4]\n  return %y\n}").value();
  const Pairing pairs = pairModels(reference, folded("a", "b")).value();
  EXPECT_EQ(pairs.unmatched, (std::vector<std::string>{"a", "b"}));
}

// In the other model the two branches have each other's names.
TEST(Pairing, NamesOfTheOtherBranchAreNotBelieved) {
  const auto made = [](const std::string& ifTrue, const std::string& ifNot) {
    return parseGraph("graph @g(%c: bool[1], %x: f32[N,8]) -> (\"y\") {\n  %" + ifTrue + " = exp %x : f32[N,8]\n  %" + ifNot +
                      " = neg %x : f32[N,8]\n  %y = choose %c, %" + ifTrue + ", %" + ifNot +
                      " {axes=[], sizes=[]} : f32[N,8]\n  return %y\n}\n")
        .value();
  };
  const Pairing pairs = pairModels(made("v", "v_1"), made("v_1", "v")).value();
  for (const auto& [theirs, ours] : {std::pair("v", "v_1"), {"v_1", "v"}}) {
    const ValuePair* pair = pairs.find(ours);
    ASSERT_NE(pair, nullptr) << ours;
    EXPECT_EQ(pair->reference, theirs);
  }
}

TEST(Pairing, RefusesModelsOfOtherEnds) {
  const auto graph = [](const std::string& input, const std::string& results) {
    return parseGraph("graph @f(%" + input + ": f32[2], %x: f32[2]) {\n  %y = relu %x : f32[2]\n  return " + results + "\n}").value();
  };
  const Graph reference = graph("z", "%y");
  for (const auto& [actual, said] : {std::pair("other", "takes an input 'other' of f32"), {"", "has 1 outputs, the second 2"}}) {
    const bool inputs = *actual;
    const auto pairs = pairModels(reference, inputs ? graph(actual, "%y") : graph("z", "%y, %z"));
    ASSERT_FALSE(pairs) << said;
    EXPECT_THAT(pairs.error().render(), AllOf(HasSubstr("not of one origin"), HasSubstr(said)));
  }
  // What a tool found to have no effect may be gone.
  EXPECT_TRUE(pairModels(reference, parseGraph("graph @f(%x: f32[2]) {\n  %y = relu %x : f32[2]\n  return %y\n}").value()));
}

// By name where both have the same names, else by their order.
TEST(Pairing, PairsOutputs) {
  const auto graph = [](const std::string& names) {
    return parseGraph("graph @f(%x: f32[2]) -> (" + names + ") {\n  %a = relu %x : f32[2]\n  %b = neg %x : f32[2]\n  return %a, %b\n}")
        .value();
  };
  EXPECT_EQ(pairOutputs(graph("\"p\", \"q\""), graph("\"q\", \"p\"")).value(), (std::vector<size_t>{1, 0}));
  EXPECT_EQ(pairOutputs(graph("\"p\", \"q\""), graph("\"q\", \"r\"")).value(), (std::vector<size_t>{0, 1}));
  const Graph turned = withOutputsOf(graph("\"p\", \"q\""), graph("\"q\", \"p\"")).value();
  EXPECT_EQ(turned.outputNames(), (std::vector<std::string>{"p", "q"}));
  EXPECT_EQ(turned.outputs()[0]->name(), "b");
}

// The same integers, labelled anew between quantize and dequantize.
TEST(Pairing, LooksThroughCastsOfIntegers) {
  const Graph reference = parseGraph("graph @f(%x: f32[2]) {\n  %r = relu %x : f32[2]\n  %y = neg %r : f32[2]\n  return %y\n}").value();
  const Graph actual = parseGraph(R"(
!a = q<u8, scale=0.1, zp=0>
graph @q(%x: f32[2]) {
  %v1 = relu %x : f32[2]
  %v2 = quantize %v1 : !a[2]
  %v3 = storage_cast %v2 : u8[2]
  %v4 = cast %v3 : u8[2]
  %v5 = storage_cast %v4 : !a[2]
  %v6 = dequantize %v5 : f32[2]
  %v7 = neg %v6 : f32[2]
  return %v7
})")
                           .value();
  const Pairing pairs = pairModels(reference, actual).value();
  ASSERT_EQ(pairs.layers.size(), 2u);
  EXPECT_EQ(pairs.layers[0].reference, "r");
  EXPECT_EQ(pairs.layers[0].actual, "v6");
  EXPECT_TRUE(pairs.layers[0].rounded && pairs.layers[0].params);
}

// A convolution with the BatchNorm in its weights has the name of the one in front of it, and the values behind.
TEST(Pairing, ComparesBehindAFoldedBatchNorm) {
  const Graph reference = parseGraph(kFloat).value();
  const Graph actual = parseGraph(R"(
const #w : f32[2,2,1,1] = [1.0, 2.0, 3.0, 4.0]
graph @f(%x: f32[N,2,4,4]) -> ("y") {
  %w = const #w : f32[2,2,1,1]
  %c = conv %x, %w : f32[N,2,4,4] loc("conv")
  %r = relu %c : f32[N,2,4,4] loc("act")
  %d = conv %r, %w : f32[N,2,4,4] loc("last")
  return %d
})")
                           .value();
  const Pairing pairs = pairModels(reference, actual).value();
  ASSERT_EQ(pairs.layers.size(), 3u);
  EXPECT_EQ(pairs.layers[0].reference, "n");
  EXPECT_EQ(pairs.layers[0].actual, "c");
  EXPECT_EQ(pairs.layers[1].reference, "d");
}

TEST(Pairing, TakesFactorsOut) {
  ValuePair pair;
  pair.params = quantPerTensor(DType::u8, 0.5f, 10);
  pair.axis = 1;
  pair.factors = {2, 4};
  std::vector<float> x{1, 1, 1, 1};
  const std::vector<int64_t> sizes{1, 2, 2};
  pair.toActual(x, sizes);
  EXPECT_EQ(x, (std::vector<float>{2, 2, 4, 4}));
  pair.toReference(x, sizes);
  EXPECT_EQ(x, (std::vector<float>{1, 1, 1, 1}));
  EXPECT_EQ(pair.paramsOfReference()->scales, (std::vector<float>{0.25f, 0.125f}));
  EXPECT_EQ(pair.paramsOfReference()->axis, 1);
}

}  // namespace
}  // namespace qc
