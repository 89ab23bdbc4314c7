#include "ir/packed_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace qc {
namespace {

ConvGeometry geometry(std::vector<int64_t> x, std::vector<int64_t> w, AttrDict attrs = {}) { return ConvGeometry::of(x, w, attrs).value(); }

TEST(Packing, TextRoundTrips) {
  for (const char* text : {"s8 panel=64 lanes=16 group=4 pad=4 quad rows", "s16 panel=16 lanes=8 group=2 pad=2 pair points",
                           "f32 panel=48 lanes=16 group=1 pad=1 natural rows", "f16 panel=16 lanes=8 group=1 pad=1 natural points",
                           "s8 panel=32 lanes=16 group=4 pad=64 pair rows", "s8 panel=64 lanes=16 group=4 pad=4 quad taps copies=4",
                           "s8 panel=64 lanes=16 group=4 pad=4 natural taps offset=128 copies=2"}) {
    const Result<Packing> packing = Packing::parse(text);
    ASSERT_TRUE(packing.has_value()) << text;
    EXPECT_EQ(packing->str(), text);
  }
}

TEST(Packing, RefusesNonsense) {
  for (const char* text :
       {"", "s8", "s8 panel=64 lanes=16 group=4 pad=4 quad", "u8 panel=64 lanes=16 group=4 pad=4 quad rows",
        "s8 panel=63 lanes=16 group=4 pad=4 natural rows", "s8 panel=64 lanes=0 group=4 pad=4 natural rows",
        "s8 panel=32 lanes=16 group=4 pad=4 quad rows", "s8 panel=64 lanes=16 group=4 pad=6 quad rows",
        "s8 panel=9999999999 lanes=16 group=4 pad=4 quad rows", "s8 panel=64 lanes=16 group=4 pad=4 quad rows extra",
        "s8 panel=64 lanes=16 group=4 pad=4 quad rows copies=2", "s8 panel=64 lanes=16 group=4 pad=4 quad taps copies=1"})
    EXPECT_FALSE(Packing::parse(text).has_value()) << text;
}

TEST(Packing, EveryWeightHasItsOwnPlace) {
  const ConvGeometry conv = geometry({1, 9, 9, 10}, {38, 5, 3, 2}, {{"group", int64_t{2}}});
  for (const char* text : {"s8 panel=16 lanes=4 group=4 pad=4 quad rows", "s8 panel=16 lanes=8 group=4 pad=8 pair points",
                           "s16 panel=8 lanes=4 group=2 pad=2 natural rows"}) {
    const PackedLayout layout(Packing::parse(text).value(), conv);
    std::set<int64_t> places, columns;
    for (int64_t o = 0; o < conv.outputs; ++o) {
      columns.insert(layout.column(o));
      for (int64_t ic = 0; ic < 5; ++ic)
        for (int64_t ky = 0; ky < 3; ++ky)
          for (int64_t kx = 0; kx < 2; ++kx) places.insert(layout.index(o, ic, ky, kx));
    }
    EXPECT_EQ(static_cast<int64_t>(places.size()), conv.outputs * conv.depth()) << text;
    EXPECT_EQ(static_cast<int64_t>(columns.size()), conv.outputs) << text;
    EXPECT_GE(*places.begin(), 0);
    EXPECT_LT(*places.rbegin(), layout.size()) << text;
    EXPECT_LT(*columns.rbegin(), layout.columns()) << text;
  }
}

TEST(Packing, UnpackUndoesPackAndPaddingIsZero) {
  const ConvGeometry conv = geometry({1, 4, 4, 3}, {10, 3, 3, 3});
  const PackedLayout layout(Packing::parse("s8 panel=16 lanes=4 group=4 pad=4 quad rows").value(), conv);
  Tensor w(DType::s8, {10, 3, 3, 3});
  for (int64_t i = 0; i < w.numElements(); ++i) nth(w.mutableAs<int8_t>(), i) = static_cast<int8_t>(i % 127 + 1);
  const Tensor packed = layout.pack(w);
  EXPECT_TRUE(layout.unpack(packed).sameBytes(w));
  const auto nonZero =
      static_cast<int64_t>(std::count_if(packed.as<int8_t>().begin(), packed.as<int8_t>().end(), [](int8_t v) { return v != 0; }));
  EXPECT_EQ(nonZero, w.numElements());
  EXPECT_EQ(packed.numElements(), int64_t{3} * 12 * 16);
}

TEST(ConvGeometry, RefusesWhatDoesNotFit) {
  EXPECT_FALSE(ConvGeometry::of({1, 4}, {3, 5}, {}).has_value());
  EXPECT_FALSE(ConvGeometry::of({1, 8, 8, 3}, {4, 2, 3, 3}, {}).has_value());
  EXPECT_FALSE(ConvGeometry::of({1, 8, 8, 8, 8, 3}, {4, 3, 3, 3, 3, 3}, {}).has_value());
  EXPECT_FALSE(ConvGeometry::of({1, 8, 8, 8, 3}, {4, 3, 3, 3}, {}).has_value());
  EXPECT_FALSE(ConvGeometry::of({1, 8, 8, 3}, {4, 3, 3, 3}, {{"strides", std::vector<int64_t>{0, 1}}}).has_value());
  EXPECT_FALSE(ConvGeometry::of({1, 8, 8, 3}, {4, 3, 3, 3}, {{"pads", std::vector<int64_t>{1, 1}}}).has_value());
  EXPECT_EQ(ConvGeometry::of({1, 2, 2, 3}, {4, 3, 3, 3}, {})->outH, 0);
}

}  // namespace
}  // namespace qc
