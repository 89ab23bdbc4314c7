// Calibration samples whose shapes differ: ranges, channels and layer statistics are those of all of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "frontend/data/npy.h"
#include "passes/lower/bound_graph.h"
#include "runtime/qcompile.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int64_t kWidth = 16;

class OtherShapes : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("qc_shapes_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    qc::testing::Model m;
    m.input("x", {1, -1, kWidth}).floats("v", {kWidth, kWidth}).floats("w", {kWidth, kWidth});
    m.node("MatMul", {"x", "v"}, {"a"}).node("Relu", {"a"}, {"r"}).node("MatMul", {"r", "w"}, {"y"}).output("y");
    std::ofstream(path(), std::ios::binary) << m.bytes();
    // Samples of 4 and of 9 rows; the longer ones have the larger values.
    write("short", 3, 4, 1.0f);
    write("long", 2, 9, 5.0f);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path() const { return (folder_ / "m.onnx").string(); }
  std::string source(const std::string& name) const { return "npy:" + (folder_ / (name + ".npy")).string(); }

  void write(const std::string& name, int64_t samples, int64_t rows, float size) const {
    Tensor t(DType::f32, {samples, rows, kWidth});
    uint32_t state = 1;
    for (float& x : t.mutableAs<float>())
      x = size * (static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f);
    ASSERT_TRUE(writeNpy((folder_ / (name + ".npy")).string(), t));
  }
  Model any() const { return load(path(), {.freeDims = true}).value(); }
  Model fixed(int64_t rows) const { return load(path(), {.shapes = {{"x", {1, rows, kWidth}}}}).value(); }
  static Tensor resultOf(const Model& model, const TensorMap& input) {
    const Model bound(boundGraph(model.graph(), shapesOf(input)).value(), "bound");
    return compile(bound).value().session().value().run(input).value().at("y");
  }
  static QConfigMapping minmax() {
    QConfig config = defaultQConfig(Backend::x86);
    config.activation.observer = "minmax";
    return QConfigMapping().global(config);
  }
  static Ranges ranges(const Model& model, const std::vector<std::string>& sources) {
    const auto found = calibrate(model, minmax(), openDataset(sources, model).value());
    EXPECT_TRUE(found) << found.error().render();
    return found.value();
  }

  fs::path folder_;
};

TEST_F(OtherShapes, RangesAreThoseOfAllSamples) {
  const auto scales = [](const Ranges& r) {
    std::vector<float> all;
    const auto params = r.params().value();
    for (const auto& [id, q] : params) all.push_back(q->scale());
    return all;
  };
  const Ranges all = ranges(any(), {source("short"), source("long")});
  EXPECT_EQ(all.samples(), 5);
  const auto mixed = scales(all), little = scales(ranges(fixed(4), {source("short")})), large = scales(ranges(fixed(9), {source("long")}));
  ASSERT_EQ(mixed.size(), large.size());
  for (size_t i = 0; i < mixed.size(); ++i) {
    EXPECT_GT(mixed[i], little[i]);
    EXPECT_EQ(mixed[i], large[i]) << "the long samples hold both ends";
  }
  EXPECT_EQ(scales(ranges(any(), {source("long"), source("short")})), mixed) << "in the other order";
}

TEST_F(OtherShapes, RecoverySeesThemToo) {
  const Model model = any();
  const Dataset samples = openDataset({source("short"), source("long")}, model).value();
  for (const char* correction : {"fast", "full"}) {
    const QuantizeOptions options{.recover = {.choices = {{"bias-correction", correction}}}, .compareSamples = 2};
    const auto int8 = calibrateAndQuantize(prepareModel(model, minmax()).value(), samples, options);
    ASSERT_TRUE(int8) << int8.error().render();
    EXPECT_FALSE(int8->layers.empty());
    for (const int64_t sample : {0, 4}) {
      const TensorMap input = samples.sample(sample).value();
      const Tensor before = resultOf(model, input), after = resultOf(int8->model, input);
      float largest = 0;
      for (const float y : before.as<float>()) largest = std::max(largest, std::abs(y));
      for (int64_t i = 0; i < before.numElements(); ++i) EXPECT_NEAR(before.at(i), after.at(i), 0.1 * largest);
    }
  }
}

// Memory and functions give what files do: the same ranges, recovery and comparison, shape by shape.
TEST_F(OtherShapes, SamplesWithoutFiles) {
  const Model model = any();
  const Dataset files = openDataset({source("short"), source("long")}, model).value();
  std::vector<Sample> samples;
  for (int64_t i = 0; i < files.size(); ++i) samples.push_back(files.sample(i).value());
  const Dataset memory = memoryDataset(samples, model).value();
  const auto make = [&](int64_t i) -> Result<Sample> { return nth(samples, i); };
  const Dataset called = callbackDataset(files.size(), make, model).value();
  EXPECT_EQ(memory.sampleName(3), "memory 3");
  EXPECT_NE(memory.fingerprint(5), called.fingerprint(5));
  const QuantizeOptions options{.recover = {.choices = {{"bias-correction", "full"}}}, .compareSamples = 3};
  const PreparedModel prepared = prepareModel(model, minmax()).value();
  const QuantizedModel expected = calibrateAndQuantize(prepared, files, options).value();
  for (const Dataset& own : {memory, called}) {
    const auto int8 = calibrateAndQuantize(prepared, own, options);
    ASSERT_TRUE(int8) << int8.error().render();
    EXPECT_EQ(int8->model.text(), expected.model.text());
    EXPECT_EQ(int8->compared, expected.compared);
    ASSERT_EQ(int8->layers.size(), expected.layers.size());
    for (size_t i = 0; i < int8->layers.size(); ++i) EXPECT_EQ(int8->layers[i].total, expected.layers[i].total);
  }
}

// 16 rows of 8 are no other order of 8 rows of 16: whoever makes the tensor says its shape.
TEST_F(OtherShapes, ShapesInMemoryAreMeant) {
  qc::testing::Model m;
  m.input("x", {1, 1, -1, -2}).floats("w", {2, 1, 1, 1}).node("Conv", {"x", "w"}, {"y"}).output("y");
  const std::string file = (folder_ / "free.onnx").string();
  std::ofstream(file, std::ios::binary) << m.bytes();
  const Model model = load(file, {.freeDims = true}).value();
  const Dataset samples =
      memoryDataset({{{"x", Tensor(DType::f32, {1, 1, 16, 8})}}, {{"x", Tensor(DType::f32, {1, 1, 5, 3})}}}, model).value();
  const auto ranges = calibrate(model, minmax(), samples);
  ASSERT_TRUE(ranges) << ranges.error().render();
  EXPECT_EQ(ranges->samples(), 2);
}

TEST_F(OtherShapes, WhatTheModelDoesNotTakeIsSaid) {
  const Model model = any();
  Tensor wide(DType::f32, {2, 4, kWidth + 1});
  ASSERT_TRUE(writeNpy((folder_ / "wide.npy").string(), wide));
  const auto refused = calibrate(model, minmax(), openDataset({source("wide")}, model).value());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().render(), HasSubstr("is f32[1,4,17], the model takes [1,N1,16]"));
  // A model that was loaded for one shape has that.
  const auto other = calibrate(fixed(4), minmax(), openDataset({source("long")}, fixed(4)).value());
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().render(), HasSubstr("the model takes [1,4,16]"));
}

}  // namespace
}  // namespace qc
