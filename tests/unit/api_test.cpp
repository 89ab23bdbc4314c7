// The public API on the small model: what README.md shows, and what callers get wrong.
#include "runtime/qcompile.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <thread>

namespace qc {
namespace {

const std::string kData = QC_TEST_DATA "/digits/";
const std::string kCalib = "images:" + kData + "calib?order=grey&mean=0&std=255";

Model digits() { return load(kData + "digits.onnx").value(); }

TEST(Api, MainJob) {
  const Model model = digits();
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  const Dataset samples = openDataset({kCalib}, model).value();
  const Ranges ranges = calibrate(model, rules, samples, {.limit = 20}).value();
  EXPECT_EQ(ranges.samples(), 20);
  const QuantizedModel int8 = quantize(model, rules, ranges).value();
  EXPECT_TRUE(int8.model.isQuantized());
  EXPECT_EQ(int8.coverage.quantizedCount(), static_cast<int>(int8.coverage.rows.size()));
  const Executable exe = compile(int8.model).value();
  ASSERT_EQ(exe.inputs().size(), 1u);
  EXPECT_EQ(exe.inputs()[0].name, "image");
  Session session = exe.session({.threads = 2}).value();
  const TensorMap out = session.run(samples.sample(0).value()).value();
  EXPECT_EQ(out.at("scores").sizes(), (std::vector<int64_t>{1, 10}));
}

TEST(Api, KeptFloatByRule) {
  const Model model = digits();
  QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  rules.objectType("linear", keepFloat());
  const Dataset samples = openDataset({kCalib}, model).value();
  const Ranges ranges = calibrate(model, rules, samples, {.limit = 2}).value();
  const QuantizedModel int8 = quantize(model, rules, ranges).value();
  for (const CoverageRow& row : int8.coverage.rows)
    if (row.op == "linear") {
      EXPECT_FALSE(row.quantized);
      EXPECT_FALSE(row.reason.empty());
    }
  rules.nameRegex("nothing_is_called_so", keepFloat());
  EXPECT_FALSE(calibrate(model, rules, samples, {.limit = 1}));
}

TEST(Api, OneExecutableManySessions) {
  const Model model = digits();
  const Dataset samples = openDataset({kCalib}, model).value();
  const Executable exe = compile(model).value();
  const TensorMap input = samples.sample(3).value();
  const Tensor expected = exe.session().value().run(input).value().at("scores");
  std::vector<std::thread> threads;
  std::vector<int> same(4, 0);
  for (size_t t = 0; t < same.size(); ++t)
    threads.emplace_back([&, t] {
      Session session = exe.session().value();
      for (int i = 0; i < 50; ++i) same[t] += session.run(input).value().at("scores").sameBytes(expected);
    });
  for (std::thread& t : threads) t.join();
  for (const int n : same) EXPECT_EQ(n, 50);
}

TEST(Api, WrongInputsAreErrors) {
  const Executable exe = compile(digits()).value();
  Session session = exe.session().value();
  EXPECT_EQ(session.run(TensorMap{}).error().tensor(), "image");
  EXPECT_FALSE(session.run({{"image", Tensor(DType::f32, {1, 1, 8, 8})}}));
  EXPECT_FALSE(session.run({{"image", Tensor(DType::u8, {1, 1, 16, 16})}}));
  EXPECT_FALSE(session.run({{"image", Tensor(DType::f32, {1, 1, 16, 16})}, {"more", Tensor(DType::f32, {1})}}));
  EXPECT_FALSE(exe.session({.threads = 0}));
}

TEST(Api, ShapesAreBound) {
  const Model batch = load(kData + "digits.onnx", {.shapes = {{"image", {3, 1, 16, 16}}}}).value();
  EXPECT_EQ(batch.outputs()[0].type.sizes(), (std::vector<int64_t>{3, 10}));
  EXPECT_FALSE(load(kData + "digits.onnx", {.shapes = {{"image", {3, 2, 16, 16}}}}));
  EXPECT_FALSE(load(kData + "digits.onnx", {.shapes = {{"picture", {1, 1, 16, 16}}}}));
}

TEST(Api, SavedModelsLoadAgain) {
  const auto folder = std::filesystem::temp_directory_path() / ("qc_api_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const Model model = digits();
  const Dataset samples = openDataset({kCalib}, model).value();
  const TensorMap input = samples.sample(1).value();
  const Tensor expected = compile(model).value().session().value().run(input).value().at("scores");
  for (const char* name : {"m.onnx", "m.qir"}) {
    const std::string path = (folder / name).string();
    ASSERT_TRUE(save(model, path)) << name;
    const Model again = load(path).value();
    const Tensor scores = compile(again).value().session().value().run(input).value().at("scores");
    for (int64_t i = 0; i < scores.numElements(); ++i) EXPECT_NEAR(scores.at(i), expected.at(i), 1e-4) << name;
  }
  EXPECT_FALSE(save(model, (folder / "none" / "m.onnx").string()));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace qc
