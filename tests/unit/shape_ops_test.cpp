// Data movement: values as numpy computes them, quantization that passes through, symbolic dims, refusals, and the strided copy
// against its definition.
#include <gmock/gmock.h>

#include <cstring>
#include <random>

#include "ir/ops/strided_copy.h"
#include "tests/unit/one_node.h"

namespace qc {
namespace {

using namespace qc::test;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

using Ints = std::vector<int64_t>;

// ---- strided copy ---------------------------------------------------------------------------------------------------

int64_t span(const Ints& sizes, const Ints& strides) {
  int64_t last = 0;
  for (size_t d = 0; d < sizes.size(); ++d) last += (sizes[d] - 1) * strides[d];
  return last + 1;
}

void expectCopies(const StridedCopy& copy, int64_t bytes) {
  std::vector<uint8_t> from(usize(span(copy.sizes, copy.fromStrides) * bytes));
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(i * 151 + i / 251);
  std::vector<uint8_t> got(usize(span(copy.sizes, copy.toStrides) * bytes), 0xee), expected = got;
  const int64_t n = numElements(copy.sizes);
  for (int64_t i = 0; i < n; ++i) {
    int64_t rest = i, a = 0, b = 0;
    for (size_t d = copy.sizes.size(); d-- > 0;) {
      a += rest % copy.sizes[d] * copy.fromStrides[d];
      b += rest % copy.sizes[d] * copy.toStrides[d];
      rest /= copy.sizes[d];
    }
    std::memcpy(expected.data() + b * bytes, from.data() + a * bytes, usize(bytes));
  }
  stridedCopy(copy, from.data(), got.data(), bytes);
  EXPECT_EQ(got, expected) << "sizes " << testing::PrintToString(copy.sizes) << " from " << testing::PrintToString(copy.fromStrides) << ", "
                           << bytes << " bytes";
}

TEST(StridedCopyTest, TransposedPlanesOfEverySize) {
  for (const int64_t bytes : {1, 2, 4, 8})
    for (const int64_t rows : {1, 3, 8, 16, 17, 40, 65, 130})
      for (const int64_t columns : {1, 2, 7, 16, 31, 64, 67})
        expectCopies({{2, rows, columns}, {rows * columns, 1, rows}, {rows * columns, columns, 1}}, bytes);
}

TEST(StridedCopyTest, RandomBoxes) {
  std::mt19937 random(7);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  for (int round = 0; round < 400; ++round) {
    const auto rank = usize(below(6));
    Ints sizes(rank), perm(rank);
    for (size_t d = 0; d < rank; ++d) {
      sizes[d] = 1 + below(below(2) ? 20 : 4);
      perm[d] = static_cast<int64_t>(d);
    }
    std::shuffle(perm.begin(), perm.end(), random);
    StridedCopy copy{sizes, Ints(rank), Ints(rank)};
    int64_t stride = 1;
    for (size_t i = rank; i-- > 0;) {
      const auto d = usize(perm[i]);
      if (below(6) == 0) continue;  // repeated: from-stride 0
      copy.fromStrides[d] = stride;
      stride *= sizes[d] + (below(3) == 0 ? 2 : 0);
    }
    stride = 1;
    for (size_t d = rank; d-- > 0;) {
      copy.toStrides[d] = stride;
      stride *= sizes[d] + (below(4) == 0 ? 3 : 0);
    }
    expectCopies(copy, int64_t{1} << below(4));
  }
}

TEST(StridedCopyTest, EmptyAndScalar) {
  uint32_t from = 5, to = 0;
  stridedCopy({{3, 0}, {0, 0}, {0, 0}}, &from, &to, 4);
  EXPECT_EQ(to, 0u);
  stridedCopy({{}, {}, {}}, &from, &to, 4);
  EXPECT_EQ(to, 5u);
  EXPECT_EQ(denseStrides({2, 3, 4}), (Ints{12, 4, 1}));
}

// ---- values ---------------------------------------------------------------------------------------------------------

TEST(ShapeOps, TransposeOfEveryDtype) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64, DType::u8, DType::s8, DType::u16, DType::s16, DType::u32,
                            DType::s32, DType::u64, DType::s64, DType::u4, DType::s4}) {
    const Tensor y = evaluate("transpose", {{tensor(dtype, {1, 2, 3}, {0, 1, 2, 3, 4, 5})}}, {{"perm", Ints{2, 0, 1}}});
    EXPECT_EQ(y.sizes(), (Ints{3, 1, 2}));
    EXPECT_THAT(list(y), ElementsAre(0, 3, 1, 4, 2, 5)) << toString(dtype);
  }
}

TEST(ShapeOps, ReshapeConcatSplit) {
  EXPECT_EQ(evaluate("reshape", {{iota(DType::f32, {2, 6})}}, {{"shape", Ints{3, 4}}}).sizes(), (Ints{3, 4}));
  const Tensor a = iota(DType::s32, {2, 1}), b = iota(DType::s32, {2, 3}), none = iota(DType::s32, {2, 0});
  EXPECT_THAT(list(evaluate("concat", {{a}, {none}, {b}}, {{"axis", int64_t{1}}})), ElementsAre(0, 0, 1, 2, 1, 3, 4, 5));
  const auto parts = evaluateAll("split", {{b}}, {{"axis", int64_t{1}}, {"sizes", Ints{1, 0, 2}}});
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_THAT(list(parts[0]), ElementsAre(0, 3));
  EXPECT_EQ(parts[1].sizes(), (Ints{2, 0}));
  EXPECT_THAT(list(parts[2]), ElementsAre(1, 2, 4, 5));
}

TEST(ShapeOps, SliceForwardsAndBackwards) {
  const Tensor x = iota(DType::f32, {2, 5});
  const auto slice = [](Ints starts, Ints sizes, Ints steps) { return AttrDict{{"starts", starts}, {"sizes", sizes}, {"steps", steps}}; };
  EXPECT_THAT(list(evaluate("slice", {{x}}, slice({0, 1}, {2, 2}, {1, 2}))), ElementsAre(1, 3, 6, 8));
  EXPECT_THAT(list(evaluate("slice", {{x}}, slice({1, 4}, {2, 3}, {-1, -2}))), ElementsAre(9, 7, 5, 4, 2, 0));
  EXPECT_EQ(evaluate("slice", {{x}}, slice({0, 5}, {2, 0}, {1, 1})).numElements(), 0);
  EXPECT_EQ(evaluate("slice", {{x}}, slice({0, INT64_MAX}, {2, 0}, {1, 1})).numElements(), 0);
  const std::string lowest = inferred("slice", {x.type()}, slice({0, 4}, {2, 1}, {1, INT64_MIN}));
  EXPECT_THAT(lowest, HasSubstr("step -9223372036854775808"));
  EXPECT_THAT(inferred("slice", {x.type()}, slice({0, 4}, {2, 2}, {1, 1})), HasSubstr("2 elements from 4 by 1 leave the 5"));
  EXPECT_THAT(inferred("slice", {x.type()}, slice({0, -1}, {2, 2}, {1, 1})), HasSubstr("from -1"));
  EXPECT_THAT(inferred("slice", {x.type()}, slice({0, 1}, {2, 3}, {1, -1})), HasSubstr("by -1"));
}

TEST(ShapeOps, PadModes) {
  const Tensor x = tensor(DType::f32, {2, 3}, {1, 2, 3, 4, 5, 6});
  const auto pad = [&](const char* mode, Ints pads) {
    return list(evaluate("pad", {{x}}, {{"pads", std::move(pads)}, {"mode", std::string(mode)}, {"value", 9.0}}));
  };
  EXPECT_THAT(pad("constant", {0, 1, 1, 0}), ElementsAre(9, 1, 2, 3, 9, 4, 5, 6, 9, 9, 9, 9));
  EXPECT_THAT(pad("edge", {0, 2, 1, 1}), ElementsAre(1, 1, 1, 2, 3, 3, 4, 4, 4, 5, 6, 6, 4, 4, 4, 5, 6, 6));
  EXPECT_THAT(pad("reflect", {0, 2, 1, 1}), ElementsAre(3, 2, 1, 2, 3, 2, 6, 5, 4, 5, 6, 5, 3, 2, 1, 2, 3, 2));
  EXPECT_THAT(pad("wrap", {0, 2, 1, 1}), ElementsAre(2, 3, 1, 2, 3, 1, 5, 6, 4, 5, 6, 4, 2, 3, 1, 2, 3, 1));
  // Beyond one period, as numpy.pad does it.
  EXPECT_THAT(pad("reflect", {0, 5, 0, 0}), ElementsAre(2, 1, 2, 3, 2, 1, 2, 3, 5, 4, 5, 6, 5, 4, 5, 6));
  EXPECT_THAT(pad("wrap", {0, 4, 0, 0}), ElementsAre(3, 1, 2, 3, 1, 2, 3, 6, 4, 5, 6, 4, 5, 6));
}

TEST(ShapeOps, PadOfQuantizedFillsTheRealValue) {
  const QuantPtr q = quantPerTensor(DType::u8, 0.5f, 7);
  const Tensor x = tensor(DType::u8, {2}, {1, 2});
  EXPECT_THAT(list(evaluate("pad", {{x, q}}, {{"pads", Ints{1, 1}}})), ElementsAre(7, 1, 2, 7));
  EXPECT_THAT(list(evaluate("pad", {{x, q}}, {{"pads", Ints{1, 0}}, {"value", 1.25}})), ElementsAre(9, 1, 2));  // rne(2.5) + 7
  EXPECT_THAT(list(evaluate("pad", {{x, q}}, {{"pads", Ints{1, 0}}, {"value", 1e9}})), ElementsAre(255, 1, 2));
}

TEST(ShapeOps, ExpandTile) {
  EXPECT_THAT(list(evaluate("expand", {{tensor(DType::f32, {2, 1}, {1, 2})}}, {{"shape", Ints{2, 2, 3}}})),
              ElementsAre(1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2));
  EXPECT_THAT(list(evaluate("tile", {{tensor(DType::u8, {2, 2}, {1, 2, 3, 4})}}, {{"repeats", Ints{2, 2}}})),
              ElementsAre(1, 2, 1, 2, 3, 4, 3, 4, 1, 2, 1, 2, 3, 4, 3, 4));
  EXPECT_EQ(evaluate("tile", {{iota(DType::u8, {2, 2})}}, {{"repeats", Ints{0, 2}}}).sizes(), (Ints{0, 4}));
}

// onnx.reference.ReferenceEvaluator on 0..15 of shape [1, 8, 1, 2].
TEST(ShapeOps, DepthToSpaceAndBack) {
  const Tensor x = iota(DType::f32, {1, 8, 1, 2});
  const AttrDict dcr = {{"blocksize", int64_t{2}}}, crd = {{"blocksize", int64_t{2}}, {"mode", std::string("CRD")}};
  const Tensor y = evaluate("depth_to_space", {{x}}, dcr);
  EXPECT_EQ(y.sizes(), (Ints{1, 2, 2, 4}));
  EXPECT_THAT(list(y), ElementsAre(0, 4, 1, 5, 8, 12, 9, 13, 2, 6, 3, 7, 10, 14, 11, 15));
  EXPECT_THAT(list(evaluate("depth_to_space", {{x}}, crd)), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  EXPECT_TRUE(evaluate("space_to_depth", {{y}}, dcr).sameBytes(x));
  const AttrDict toLast = {{"perm", Ints{0, 2, 3, 1}}};
  AttrDict last = dcr;
  last.set("layout", std::string("channels_last"));
  EXPECT_TRUE(evaluate("depth_to_space", {{evaluate("transpose", {{x}}, toLast)}}, last).sameBytes(evaluate("transpose", {{y}}, toLast)));
}

// ---- types ----------------------------------------------------------------------------------------------------------

QuantPtr perChannel(int axis, size_t channels) {
  QuantParams q = *quantPerTensor(DType::s8, 0.5f, 0);
  q.axis = axis;
  q.scales.assign(channels, 0.5f);
  for (size_t i = 0; i < channels; ++i) q.scales[i] *= static_cast<float>(i + 1);
  return std::make_shared<QuantParams>(q);
}

TEST(ShapeOps, QuantizationPassesThrough) {
  const QuantPtr q = quantPerTensor(DType::u8, 0.5f, 7), other = quantPerTensor(DType::u8, 0.25f, 7);
  const TensorType x(q, Shape{2, 3}), y(other, Shape{2, 3});
  EXPECT_EQ(inferred("reshape", {x}, {{"shape", Ints{6}}}), "q<u8, scale=0.5, zp=7>[6]");
  EXPECT_EQ(inferred("concat", {x, x}, {{"axis", int64_t{0}}}), "q<u8, scale=0.5, zp=7>[4,3]");
  EXPECT_THAT(inferred("concat", {x, y}, {{"axis", int64_t{0}}}), HasSubstr("operand 1 is q<u8, scale=0.25, zp=7>[2,3]"));
}

TEST(ShapeOps, PerChannelAxisFollowsOrIsRefused) {
  const TensorType x(perChannel(1, 3), Shape{2, 3, 4});
  EXPECT_THAT(inferred("transpose", {x}, {{"perm", Ints{1, 2, 0}}}), HasSubstr("axis=0"));
  EXPECT_THAT(inferred("reshape", {x}, {{"shape", Ints{1, 2, 3, 2, 2}}}), HasSubstr("axis=2"));
  EXPECT_THAT(inferred("reshape", {x}, {{"shape", Ints{6, 4}}}), HasSubstr("error"));
  EXPECT_THAT(inferred("slice", {x}, {{"starts", Ints{0, 0, 0}}, {"sizes", Ints{2, 1, 4}}, {"steps", Ints{1, 1, 1}}}),
              HasSubstr("per channel"));
  QuantParams blocks = *perChannel(1, 4);
  blocks.blockSize = 2;
  const TensorType b(std::make_shared<QuantParams>(blocks), Shape{2, 4});
  EXPECT_EQ(inferred("transpose", {b}, {{"perm", Ints{1, 0}}}), "q<s8, axis=0, block=2, scale=[0.5,1.5,1,2], zp=0>[4,2]");
}

TEST(ShapeOps, SymbolicDims) {
  const Dim n = Dim::symbol("N");
  const TensorType x(DType::f32, {n, 3});
  EXPECT_EQ(inferred("transpose", {x}, {{"perm", Ints{1, 0}}}), "f32[3,N]");
  EXPECT_EQ(inferred("concat", {x, x}, {{"axis", int64_t{1}}}), "f32[N,6]");
  EXPECT_EQ(inferred("concat", {x, TensorType(DType::f32, {2, 3})}, {{"axis", int64_t{1}}}), "f32[2,6]");
  EXPECT_EQ(inferred("concat", {x, x}, {{"axis", int64_t{0}}}), "f32[2*N,3]");
  EXPECT_EQ(inferred("pad", {x}, {{"pads", Ints{0, 1, 0, 1}}}), "f32[N,5]");
  EXPECT_EQ(inferred("tile", {x}, {{"repeats", Ints{1, 2}}}), "f32[N,6]");
}

TEST(ShapeOps, Refuses) {
  const TensorType x(DType::f32, {2, 3});
  const int64_t huge = int64_t{1} << 62;
  EXPECT_THAT(inferred("reshape", {x}, {{"shape", Ints{7}}}), HasSubstr("6 elements, [7] has 7"));
  EXPECT_THAT(inferred("reshape", {x}, {{"shape", Ints{huge, huge}}}), HasSubstr("larger than"));
  EXPECT_THAT(inferred("transpose", {x}, {{"perm", Ints{0, 0}}}), HasSubstr("not a permutation"));
  EXPECT_THAT(inferred("concat", {x, TensorType(DType::f32, {2, 4})}, {{"axis", int64_t{0}}}), HasSubstr("operand 1 is f32[2,4]"));
  EXPECT_THAT(inferred("concat", {x}, {{"axis", int64_t{2}}}), HasSubstr("axis=2"));
  EXPECT_THAT(inferred("split", {x}, {{"axis", int64_t{1}}, {"sizes", Ints{1, 1}}}), HasSubstr("add up to 2"));
  EXPECT_THAT(inferred("split", {x}, {{"axis", int64_t{1}}, {"sizes", Ints{huge, huge}}}), HasSubstr("error"));
  EXPECT_THAT(inferred("pad", {x}, {{"pads", Ints{0, -1, 0, 0}}}), HasSubstr("by -1"));
  EXPECT_THAT(inferred("pad", {x}, {{"pads", Ints{0, huge, 0, 0}}}), HasSubstr("error"));
  EXPECT_THAT(inferred("pad", {TensorType(DType::f32, {0})}, {{"pads", Ints{1, 1}}, {"mode", std::string("edge")}}), HasSubstr("empty"));
  EXPECT_THAT(inferred("expand", {x}, {{"shape", Ints{2, 4}}}), HasSubstr("[2,4]"));
  EXPECT_THAT(inferred("tile", {x}, {{"repeats", Ints{huge, 1}}}), HasSubstr("error"));
  EXPECT_THAT(inferred("depth_to_space", {TensorType(DType::f32, {1, 6, 2, 2})}, {{"blocksize", int64_t{2}}}),
              HasSubstr("not a multiple of 4"));
  EXPECT_THAT(inferred("space_to_depth", {TensorType(DType::f32, {0, huge, 2, 2})}, {{"blocksize", int64_t{2}}}), HasSubstr("too large"));
}

}  // namespace
}  // namespace qc
