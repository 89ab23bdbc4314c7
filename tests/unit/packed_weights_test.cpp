// Packed integer weights: the same bits as the float op over dequantized weights; what has no packed form.
#include "ir/ops/packed_weights.h"

#include "op_testing.h"

namespace qc {
namespace {

using namespace test;
using testing::HasSubstr;

QuantPtr grouped(DType storage, int64_t rows, int64_t columns, int64_t group, bool zeroPoints) {
  const IntRange range = rangeOf(storage);
  QuantParams q{storage, range.min, range.max, group ? 1 : 0, group, {}, {}};
  const int64_t sets = rows * (group ? (columns + group - 1) / group : 1);
  for (int64_t i = 0; i < sets; ++i) {
    q.scales.push_back(0.01f + 0.003f * static_cast<float>(i));
    q.zeroPoints.push_back(zeroPoints ? static_cast<int32_t>((range.min + range.max + 1) / 2 + i % 3) : 0);
  }
  return std::make_shared<const QuantParams>(std::move(q));
}

std::vector<Operand> operandsOf(const PackedWeights& p) {
  return {p.weights, p.scale, p.hasZeroPoint ? Operand(p.zeroPoint) : Operand::none()};
}

TEST(PackedWeights, LinearAndEmbeddingHaveTheBitsOfTheFloatOps) {
  Random random(1);
  for (const DType storage : {DType::s8, DType::u8, DType::s4, DType::u4})
    for (const int64_t columns : {1, 7, 32, 33})
      for (const int64_t group : {0, 3, 16}) {
        if (group > columns) continue;
        constexpr int64_t kRows = 19;
        const Tensor w = random.full(storage, {kRows, columns}), x = random.normal({3, columns}), bias = random.normal({kRows});
        const QuantPtr q = grouped(storage, kRows, columns, group, !isSigned(storage));
        const auto packed = packWeights(w, *q);
        ASSERT_TRUE(packed) << packed.error().render();
        EXPECT_EQ(packed->weights.byteSize(), kRows * (packed->bits == 4 ? (columns + 1) / 2 : columns));
        const Tensor real = run("dequantize", {Operand(w, q)});
        std::vector<Operand> operands = operandsOf(*packed);
        operands.insert(operands.begin(), x);
        operands.push_back(bias);
        EXPECT_TRUE(run("q.weight_linear", operands, packed->attrs()).sameBytes(run("linear", {x, real, bias})))
            << toString(storage) << columns << " " << group;
        const Tensor indices = tensorOf(DType::s64, {2, 2}, {0, 18, -1, 5});
        operands = operandsOf(*packed);
        operands.push_back(indices);
        EXPECT_TRUE(run("q.embedding", operands, packed->attrs()).sameBytes(run("gather", {real, indices}, {{"axis", int64_t{0}}})));
      }
}

TEST(PackedWeights, Refusals) {
  EXPECT_FALSE(packWeights(Tensor(DType::s8, {2, 3, 4}), *quantPerTensor(DType::s8, 1, 0)));
  EXPECT_FALSE(packWeights(Tensor(DType::s16, {2, 3}), *quantPerTensor(DType::s16, 1, 0)));
  EXPECT_FALSE(packWeights(Tensor(DType::s8, {2, 3}), *perChannel(DType::s8, 1, {1, 1, 1}, {0})));
  const TensorType x(DType::f32, Shape{2, 8}), w(DType::u8, Shape{3, 4}), s(DType::f32, Shape{3, 2});
  const AttrDict attrs{{"columns", int64_t{8}}, {"group", int64_t{4}}, {"bits", int64_t{4}}};
  EXPECT_EQ(inferred("q.weight_linear", {x, w, s}, attrs), "f32[2,3]");
  EXPECT_THAT(inferred("q.weight_linear", {TensorType(DType::f32, Shape{2, 9}), w, s}, attrs), HasSubstr("8 columns"));
  EXPECT_THAT(inferred("q.weight_linear", {x, w, TensorType(DType::f32, Shape{3, 3})}, attrs), HasSubstr("[3,2]"));
  EXPECT_THAT(inferred("q.weight_linear", {x, TensorType(DType::s8, Shape{3, 8}), s}, attrs), HasSubstr("takes weights of u8"));
  const auto out = tryRun("q.embedding",
                          {tensorOf(DType::u8, {3, 4}, std::vector<int64_t>(12, 0)), floats({3, 2}, {1, 1, 1, 1, 1, 1}), Operand::none(),
                           tensorOf(DType::s64, {1}, {3})},
                          attrs);
  ASSERT_FALSE(out);
  EXPECT_THAT(out.error().render(), HasSubstr("outside the 3 rows"));
}

}  // namespace
}  // namespace qc
