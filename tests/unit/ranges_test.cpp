// Ranges files: exact round trips, merging, hostile bytes.
#include "quantizer/ranges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "ir/op_def.h"
#include "ir/text.h"

namespace qc {
namespace {

using testing::HasSubstr;

class RangesFile : public testing::Test {
 protected:
  static Graph graph(const std::string& observer = "u8.histogram{bins=64}", const std::string& op = "relu") {
    auto parsed = parseGraph(
        "graph @g(%x: f32[8]) -> (\"y\") {\n"
        "  %o = observe %x {id=0} : f32[8] @q(in=[-], out=" +
        observer +
        ")\n"
        "  %a = " +
        op +
        " %o : f32[8]\n"
        "  %p = observe %a {id=1} : f32[8] @q(in=[-], out=u8.minmax)\n"
        "  %q = observe %p {id=1} : f32[8] @q(in=[-], out=u8.minmax)\n"
        "  return %q\n}\n");
    EXPECT_TRUE(parsed) << parsed.error().render();
    return std::move(*parsed);
  }
  static Ranges filled(unsigned seed, const Graph& g) {
    auto ranges = Ranges::forGraph(g);
    EXPECT_TRUE(ranges) << ranges.error().render();
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.1f, 3.0f);
    for (int sample = 0; sample < 5; ++sample) {
      for (const int64_t id : {0, 1, 7}) {
        std::vector<float> x(8);
        for (float& v : x) v = normal(random);
        const Tensor t = Tensor::ofFloats({8}, x);
        EXPECT_TRUE(ranges->observe(id, t.ref()));
      }
      ranges->countSample();
    }
    return std::move(*ranges);
  }
};

TEST_F(RangesFile, RoundTripIsExact) {
  const Graph g = graph();
  const Ranges ranges = filled(1, g);
  EXPECT_EQ(ranges.observers(), 2);
  EXPECT_EQ(ranges.samples(), 5);
  const auto again = Ranges::deserialize(ranges.serialize());
  ASSERT_TRUE(again) << again.error().render();
  EXPECT_EQ(again->serialize(), ranges.serialize());
  const auto before = ranges.params(), after = again->params();
  ASSERT_TRUE(before && after);
  EXPECT_EQ(before->size(), 2u);
  for (const auto& [id, quant] : *before) EXPECT_EQ(*after->at(id), *quant);
  EXPECT_TRUE(again->checkFor(g));
  const std::string path = testing::TempDir() + "round_trip.qcal";
  ASSERT_TRUE(ranges.save(path));
  const auto loaded = Ranges::load(path);
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->serialize(), ranges.serialize());
  std::filesystem::remove(path);
  EXPECT_FALSE(Ranges::load(path));
  EXPECT_FALSE(ranges.save("/nonexistent/folder/x.qcal"));
}

TEST_F(RangesFile, ShardsMerge) {
  const Graph g = graph();
  Ranges a = filled(1, g);
  const Ranges b = filled(2, g);
  ASSERT_TRUE(a.merge(b));
  EXPECT_EQ(a.samples(), 10);
  EXPECT_EQ(a.entries().at(1).observer->elements(), 80);
  EXPECT_FALSE(a.merge(filled(3, graph("u8.minmax"))));
  const Status other = a.merge(filled(3, graph("u8.histogram{bins=64}", "neg")));
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().render(), HasSubstr("different models"));
  EXPECT_EQ(a.samples(), 10) << "a refused merge changes nothing";
}

TEST_F(RangesFile, BelongToTheirModelAndRules) {
  const Ranges ranges = filled(1, graph());
  EXPECT_FALSE(ranges.checkFor(graph("u8.histogram{bins=64}", "neg")));
  EXPECT_THAT(ranges.checkFor(graph("u8.histogram{bins=32}")).error().render(), HasSubstr("other rules"));
  EXPECT_EQ(fingerprint(graph()), fingerprint(graph("u8.minmax"))) << "rules are not part of the model";
}

TEST_F(RangesFile, UnobservedHasNoParameters) {
  const auto ranges = Ranges::forGraph(graph());
  ASSERT_TRUE(ranges);
  EXPECT_TRUE(ranges->params()->empty());
  EXPECT_TRUE(Ranges::deserialize(ranges->serialize()));
}

TEST_F(RangesFile, HostileBytesAreErrors) {
  const std::string good = filled(1, graph()).serialize();
  EXPECT_FALSE(Ranges::deserialize(""));
  EXPECT_FALSE(Ranges::deserialize("qcal"));
  EXPECT_FALSE(Ranges::deserialize("qcal 2 00 0\n"));
  EXPECT_FALSE(Ranges::deserialize("qcal 1 zz 5\nhello"));
  for (size_t cut = 0; cut < good.size(); cut += 37) EXPECT_FALSE(Ranges::deserialize(good.substr(0, cut)));
  std::mt19937 random(5);
  for (int i = 0; i < 300; ++i) {
    std::string bad = good;
    bad[random() % bad.size()] ^= static_cast<char>(1u << random() % 8);
    EXPECT_FALSE(Ranges::deserialize(bad));
  }
  // A right checksum over a wrong body: what serialize() would write for it.
  const auto wrap = [&](const std::string& body) { return Ranges::deserialize(sealed(body)); };
  EXPECT_TRUE(wrap(good.substr(good.find('\n') + 1)));
  for (const char* body :
       {"", "[]", "{}", "null", "{\"observers\": 3}", "{\"observers\": [3]}", "{\"observers\": [{}]}",
        "{\"samples\": -1, \"observers\": []}", "{\"samples\": 1e400, \"observers\": []}", "{\"models\": \"\", \"observers\": []}"})
    EXPECT_FALSE(wrap(body)) << body;
  const std::string body = good.substr(good.find('\n') + 1);
  for (int i = 0; i < 3000; ++i) {
    std::string bad = body;
    const size_t at = random() % bad.size();
    bad.replace(at, random() % 6, std::string(random() % 4, "0123456789-.e[]{}\":,n"[random() % 21]));
    (void)static_cast<bool>(wrap(bad));  // anything but a crash
  }
}

}  // namespace
}  // namespace qc
