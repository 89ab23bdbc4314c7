// Packed embedding rows: the layout by hand, errors, and PyTorch's recorded tables.
#include "quantizer/embedding.h"

#include "vectors.h"

namespace qc {
namespace {

using nlohmann::json;
using test::fromBits;
using test::numbers;

const std::vector<float> kRow = {-0.3f, 0, 0.25f, 0.7f};

std::vector<FloatQParams> observed(const std::vector<float>& w, int64_t rows, int bits) {
  std::vector<FloatQParams> params;
  const size_t width = w.size() / usize(rows);
  for (int64_t r = 0; r < rows; ++r) {
    const MinMax m = minMaxOf(std::span(w).subspan(usize(r) * width, width));
    params.push_back(*calculateFloatQParams(m.min, m.max, 0, (1 << bits) - 1));
  }
  return params;
}

TEST(Embedding, LayoutOfARow) {
  const auto eight = packRows(kRow, 1, 4, 8, observed(kRow, 1, 8));
  ASSERT_TRUE(eight);
  EXPECT_EQ(std::vector<uint8_t>(eight->bytes.begin(), eight->bytes.begin() + 4), (std::vector<uint8_t>{0, 76, 140, 255}));
  EXPECT_EQ(eight->rowBytes(), 12);
  const auto four = packRows(kRow, 1, 4, 4, observed(kRow, 1, 4));
  ASSERT_TRUE(four);
  EXPECT_EQ(std::vector<uint8_t>(four->bytes.begin(), four->bytes.begin() + 2), (std::vector<uint8_t>{0x40, 0xf8}))
      << "first in the low half";
  EXPECT_EQ(four->rowBytes(), 6);
  const std::vector<float> quarter = {0, 1, 2, 3};
  const auto two = packRows(quarter, 1, 4, 2);
  ASSERT_TRUE(two);
  EXPECT_EQ(two->bytes[0], 0b11100100);
  EXPECT_EQ(unpackRow(*two, 0), quarter);
}

TEST(Embedding, Errors) {
  EXPECT_FALSE(packRows(kRow, 1, 4, 3));
  EXPECT_FALSE(packRows(kRow, 2, 4, 8));
  EXPECT_FALSE(packRows(std::vector<float>{1, 2, 3}, 1, 3, 4)) << "3 columns of 4 bits";
  EXPECT_FALSE(packRows(std::vector<float>{1, NAN}, 1, 2, 8));
  EXPECT_FALSE(packRows(kRow, 1, 4, 8, std::vector<FloatQParams>(2)));
  const auto table = packRows(kRow, 1, 4, 8);
  ASSERT_TRUE(table);
  const std::vector<int64_t> index = {1}, zero = {0}, start = {0}, behind = {2};
  EXPECT_FALSE(sumBags(*table, index, start));
  EXPECT_FALSE(sumBags(*table, zero, behind));
  EXPECT_TRUE(sumBags(*table, zero, start));
}

TEST(Embedding, RecordedTables) {
  QC_VECTORS(file, "embedding");
  for (const json& c : file["float_qparams"]) {
    const auto w = numbers(c["weight"]["data"]);
    const int64_t rows = c["weight"]["shape"][0], columns = c["weight"]["shape"][1];
    const int bits = c["bits"];
    const auto table = packRows(w, rows, columns, bits, observed(w, rows, bits));
    ASSERT_TRUE(table) << table.error().render();
    const auto expected = c["q_or_packed"].get<std::vector<uint8_t>>(), lookup = std::vector<uint8_t>();
    const auto used = usize(columns * bits / 8);
    const auto values = numbers(c["lookup"]);
    for (int64_t r = 0; r < rows; ++r) {
      for (size_t b = 0; b < used; ++b) EXPECT_EQ(table->bytes[usize(r * table->rowBytes()) + b], expected[usize(r) * used + b]);
      const auto row = unpackRow(*table, r);
      for (size_t i = 0; i < row.size(); ++i) {
        const float wanted = values[usize(r * columns) + i];
        EXPECT_NEAR(row[i], wanted, std::abs(wanted) * 1e-6 + 1e-6);
      }
    }
  }
  for (const json& c : file["direct_prepack"]) {
    const int64_t rows = c["weight"]["shape"][0], columns = c["weight"]["shape"][1];
    const auto table = packRows(numbers(c["weight"]["data"]), rows, columns, c["bits"]);
    ASSERT_TRUE(table) << table.error().render();
    const auto expected = c["packed"]["data"].get<std::vector<uint8_t>>();
    ASSERT_EQ(table->bytes.size(), expected.size());
    PackedRows theirs = *table;
    theirs.bytes = expected;
    const auto used = usize(columns * table->bits / 8);
    for (int64_t r = 0; r < rows; ++r) {
      const auto at = usize(r * table->rowBytes());
      for (size_t b = 0; b < used; ++b) EXPECT_EQ(table->bytes[at + b], expected[at + b]) << c["bits"] << " row " << r;
      const auto row = unpackRow(*table, r), same = unpackRow(theirs, r);
      for (size_t i = 0; i < row.size(); ++i) {
        EXPECT_EQ(row[i], same[i]);
        EXPECT_EQ(row[i], fromBits(c["unpacked_bits"][usize(r * columns) + i]));
      }
    }
  }
}

TEST(Embedding, RecordedBagsAndNarrowedRanges) {
  QC_VECTORS(file, "embedding");
  for (const json& c : file["bag_lookup"]) {
    const int bits = c["bits"];
    PackedRows table{bits, c["packed"]["shape"][0], 0, c["packed"]["data"].get<std::vector<uint8_t>>()};
    table.columns = (c["packed"]["shape"][1].get<int64_t>() - (bits == 8 ? 8 : 4)) * 8 / bits;
    const auto indices = c["indices"].get<std::vector<int64_t>>(), offsets = c["offsets"].get<std::vector<int64_t>>();
    const auto sums =
        sumBags(table, indices, offsets, c["per_sample_weights"].is_null() ? std::vector<float>() : numbers(c["per_sample_weights"]));
    ASSERT_TRUE(sums) << sums.error().render();
    const auto expected = numbers(c["out"]["data"]);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR((*sums)[i], expected[i], std::abs(expected[i]) * 1e-6 + 1e-5);
  }
  // Near-ties decide which low is remembered: compared by the error that the ranges give.
  for (const json& c : file["optimized_range"]) {
    const auto row = numbers(c["x"]);
    const int bits = c["bits"];
    const auto loss = [&](ValueRange r) {
      double sum = 0;
      const double scale = (r.max - r.min) / ((1 << bits) - 1);
      for (const float x : row) {
        const double q = std::clamp(std::nearbyint((x - r.min) / scale), 0.0, static_cast<double>((1 << bits) - 1));
        sum += std::pow(x - (q * scale + r.min), 2);
      }
      return sum;
    };
    const double ours = loss(narrowedRange(row, bits, c["n_bins"], c["ratio"])),
                 theirs = loss({test::number(c["xmin"]), test::number(c["xmax"])});
    EXPECT_LE(ours, theirs * 1.01 + 1e-12) << c["bits"];
  }
}

}  // namespace
}  // namespace qc
