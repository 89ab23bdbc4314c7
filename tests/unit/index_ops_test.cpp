// Ops with integer indices: values as numpy and ONNX's examples give them, index bounds, reductions, refusals.
#include <gmock/gmock.h>

#include "tests/unit/one_node.h"

namespace qc {
namespace {

using namespace qc::test;
using testing::ElementsAre;
using testing::HasSubstr;

using Ints = std::vector<int64_t>;

Tensor ints(Ints sizes, const Ints& values) { return Tensor::ofInts(std::move(sizes), values); }

TEST(IndexOps, Gather) {
  const Tensor x = iota(DType::f32, {3, 2});
  EXPECT_THAT(list(evaluate("gather", {{x}, {ints({2}, {-1, 0})}}, {{"axis", int64_t{0}}})), ElementsAre(4, 5, 0, 1));
  const Tensor y = evaluate("gather", {{x}, {tensor(DType::s32, {1, 2}, {1, 1})}}, {{"axis", int64_t{1}}});
  EXPECT_EQ(y.sizes(), (Ints{3, 1, 2}));
  EXPECT_THAT(list(y), ElementsAre(1, 1, 3, 3, 5, 5));
  EXPECT_EQ(evaluate("gather", {{x}, {ints({}, {2})}}, {{"axis", int64_t{0}}}).sizes(), (Ints{2}));
  EXPECT_THAT(errorOf("gather", {{x}, {ints({1}, {3})}}, {{"axis", int64_t{0}}}), HasSubstr("index 3 is outside a dim of 3"));
  EXPECT_THAT(errorOf("gather", {{x}, {ints({1}, {-4})}}, {{"axis", int64_t{0}}}), HasSubstr("index -4"));
  EXPECT_THAT(errorOf("gather", {{x}, {ints({1}, {INT64_MIN})}}, {{"axis", int64_t{0}}}), HasSubstr("outside"));
  EXPECT_THAT(errorOf("gather", {{iota(DType::f32, {0, 2})}, {ints({1}, {0})}}, {{"axis", int64_t{0}}}), HasSubstr("outside a dim of 0"));
}

TEST(IndexOps, GatherElements) {
  const Tensor x = tensor(DType::s16, {2, 2}, {1, 2, 3, 4});
  EXPECT_THAT(list(evaluate("gather_elements", {{x}, {ints({2, 2}, {0, 0, 1, 0})}}, {{"axis", int64_t{1}}})), ElementsAre(1, 1, 4, 3));
  EXPECT_THAT(list(evaluate("gather_elements", {{x}, {ints({1, 2}, {-1, 0})}}, {{"axis", int64_t{0}}})), ElementsAre(3, 2));
  EXPECT_THAT(errorOf("gather_elements", {{x}, {ints({1, 1}, {2})}}, {{"axis", int64_t{1}}}), HasSubstr("index 2"));
  EXPECT_THAT(errorOf("gather_elements", {{x}, {ints({3, 1}, {0, 0, 0})}}, {{"axis", int64_t{1}}}), HasSubstr("reaches outside"));
}

TEST(IndexOps, GatherNd) {
  const Tensor x = iota(DType::u8, {2, 2, 2});
  EXPECT_THAT(list(evaluate("gather_nd", {{x}, {ints({2, 2}, {0, 1, 1, 0})}})), ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(list(evaluate("gather_nd", {{x}, {ints({1, 3}, {1, -1, 0})}})), ElementsAre(6));
  const Tensor y = evaluate("gather_nd", {{x}, {ints({2, 1}, {1, 0})}}, {{"batch_dims", int64_t{1}}});
  EXPECT_EQ(y.sizes(), (Ints{2, 2}));
  EXPECT_THAT(list(y), ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(errorOf("gather_nd", {{x}, {ints({1, 1}, {0})}}, {{"batch_dims", int64_t{1}}}), HasSubstr("differ in batch dim 0"));
  EXPECT_THAT(errorOf("gather_nd", {{x}, {ints({1, 4}, {0, 0, 0, 0})}}), HasSubstr("cannot address"));
  EXPECT_THAT(errorOf("gather_nd", {{x}, {ints({1, 1}, {2})}}), HasSubstr("index 2"));
}

TEST(IndexOps, ScatterElements) {
  const Tensor x = tensor(DType::f32, {1, 5}, {1, 2, 3, 4, 5}), updates = tensor(DType::f32, {1, 3}, {1.5, 2.5, 8});
  const Tensor at = ints({1, 3}, {1, 1, -1});
  const auto scatter = [&](const char* reduction) {
    return list(evaluate("scatter_elements", {{x}, {at}, {updates}}, {{"axis", int64_t{1}}, {"reduction", std::string(reduction)}}));
  };
  EXPECT_THAT(scatter("none"), ElementsAre(1, 2.5, 3, 4, 8));
  EXPECT_THAT(scatter("add"), ElementsAre(1, 6, 3, 4, 13));
  EXPECT_THAT(scatter("mul"), ElementsAre(1, 7.5, 3, 4, 40));
  EXPECT_THAT(scatter("max"), ElementsAre(1, 2.5, 3, 4, 8));
  EXPECT_THAT(scatter("min"), ElementsAre(1, 1.5, 3, 4, 5));
}

TEST(IndexOps, ScatterReducesWideIntegersExactly) {
  const int64_t big = (int64_t{1} << 62) + 1;
  const Tensor y = evaluate("scatter_elements", {{ints({1}, {big})}, {ints({1}, {0})}, {ints({1}, {2})}},
                            {{"axis", int64_t{0}}, {"reduction", std::string("add")}});
  EXPECT_EQ(y.toInts(), (Ints{big + 2}));
}

TEST(IndexOps, ScatterNd) {
  const Tensor x = iota(DType::f32, {3, 2});
  EXPECT_THAT(list(evaluate("scatter_nd", {{x}, {ints({2, 1}, {2, 0})}, {tensor(DType::f32, {2, 2}, {7, 8, 9, 10})}})),
              ElementsAre(9, 10, 2, 3, 7, 8));
  EXPECT_THAT(list(evaluate("scatter_nd", {{x}, {ints({2, 2}, {2, 0, 2, 0})}, {tensor(DType::f32, {2}, {1, 1})}},
                            {{"reduction", std::string("add")}})),
              ElementsAre(0, 1, 2, 3, 6, 5));
  EXPECT_THAT(errorOf("scatter_nd", {{x}, {ints({1, 1}, {3})}, {tensor(DType::f32, {1, 2}, {0, 0})}}), HasSubstr("index 3"));
  EXPECT_THAT(errorOf("scatter_nd", {{x}, {ints({1, 1}, {0})}, {tensor(DType::f32, {1, 3}, {0, 0, 0})}}), HasSubstr("[1,2]"));
  EXPECT_THAT(errorOf("scatter_nd", {{x}, {ints({1, 1}, {0})}, {tensor(DType::s32, {1, 2}, {0, 0})}}), HasSubstr("element type"));
  EXPECT_THAT(errorOf("scatter_nd", {{x}, {ints({1, 1}, {0})}, {tensor(DType::f32, {1, 2}, {0, 0})}}, {{"reduction", std::string("sum")}}),
              HasSubstr("\"sum\""));
}

TEST(IndexOps, OneHot) {
  const Tensor values = tensor(DType::f32, {2}, {-1, 3});
  const Tensor y = evaluate("one_hot", {{ints({3}, {1, -1, 7})}, {values}}, {{"axis", int64_t{1}}, {"depth", int64_t{3}}});
  EXPECT_EQ(y.sizes(), (Ints{3, 3}));
  EXPECT_THAT(list(y), ElementsAre(-1, 3, -1, -1, -1, 3, -1, -1, -1));
  EXPECT_EQ(evaluate("one_hot", {{ints({3}, {1, -1, 7})}, {values}}, {{"axis", int64_t{0}}, {"depth", int64_t{0}}}).sizes(), (Ints{0, 3}));
}

TEST(IndexOps, Trilu) {
  const Tensor x = tensor(DType::f32, {2, 3}, {1, 2, 3, 4, 5, 6});
  const auto trilu = [&](int64_t upper, int64_t k) { return list(evaluate("trilu", {{x}}, {{"upper", upper}, {"k", k}})); };
  EXPECT_THAT(trilu(1, 0), ElementsAre(1, 2, 3, 0, 5, 6));
  EXPECT_THAT(trilu(1, 1), ElementsAre(0, 2, 3, 0, 0, 6));
  EXPECT_THAT(trilu(0, 0), ElementsAre(1, 0, 0, 4, 5, 0));
  EXPECT_THAT(trilu(0, -1), ElementsAre(0, 0, 0, 4, 0, 0));
  EXPECT_THAT(trilu(1, INT64_MIN), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(trilu(0, INT64_MAX), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(trilu(1, INT64_MAX), ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_THAT(trilu(0, INT64_MIN), ElementsAre(0, 0, 0, 0, 0, 0));
}

TEST(IndexOps, ReverseSequence) {
  const Tensor x = iota(DType::u8, {3, 2}), lens = ints({2}, {3, 2});
  EXPECT_THAT(list(evaluate("reverse_sequence", {{x}, {lens}}, {{"batch_axis", int64_t{1}}, {"time_axis", int64_t{0}}})),
              ElementsAre(4, 3, 2, 1, 0, 5));
  EXPECT_THAT(list(evaluate("reverse_sequence", {{x}, {ints({3}, {2, 0, 1})}}, {{"batch_axis", int64_t{0}}, {"time_axis", int64_t{1}}})),
              ElementsAre(1, 0, 2, 3, 4, 5));
  EXPECT_THAT(errorOf("reverse_sequence", {{x}, {ints({2}, {4, 1})}}, {{"batch_axis", int64_t{1}}, {"time_axis", int64_t{0}}}),
              HasSubstr("length of 4"));
  EXPECT_THAT(errorOf("reverse_sequence", {{x}, {lens}}, {{"batch_axis", int64_t{1}}, {"time_axis", int64_t{1}}}),
              HasSubstr("time_axis=1"));
}

TEST(IndexOps, QuantizedElementsKeepTheirParameters) {
  const QuantPtr q = quantPerTensor(DType::s8, 0.5f, 1), other = quantPerTensor(DType::s8, 0.25f, 1);
  const TensorType x(q, Shape{4}), i(DType::s64, Shape{2}), u(q, Shape{2}), foreign(other, Shape{2});
  EXPECT_EQ(inferred("gather", {x, i}, {{"axis", int64_t{0}}}), "q<s8, scale=0.5, zp=1>[2]");
  EXPECT_EQ(inferred("scatter_elements", {x, i, u}, {{"axis", int64_t{0}}}), "q<s8, scale=0.5, zp=1>[4]");
  EXPECT_THAT(inferred("scatter_elements", {x, i, foreign}, {{"axis", int64_t{0}}}), HasSubstr("element type"));
  EXPECT_THAT(inferred("scatter_elements", {x, i, u}, {{"axis", int64_t{0}}, {"reduction", std::string("add")}}), HasSubstr("quantized"));
  EXPECT_THAT(inferred("gather", {x, TensorType(DType::f32, Shape{2})}, {{"axis", int64_t{0}}}), HasSubstr("s32 or s64"));
}

}  // namespace
}  // namespace qc
