// What a user is told about bad input: in every case an error with its kind, the node or tensor it is about, and what to do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "frontend/data/npy.h"
#include "quantizer/rules/qconfig.h"
#include "runtime/workflow/quantize.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::ints;
using testing::Model;

class BadInput : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_ / "empty");
    fs::create_directories(folder_ / "junk");
    std::ofstream(folder_ / "junk" / "a.jpg") << "no picture";
    write("good.onnx", good().bytes());
  }
  void TearDown() override { fs::remove_all(folder_); }

  static Model good(const std::vector<float>& weight = {}) {
    Model m;
    m.input("data", {1, 3, 8, 8})
        .floats("w", {4, 3, 3, 3}, weight)
        .node("Conv", {"data", "w"}, {"y"}, {ints("pads", {1, 1, 1, 1})}, "stem/conv")
        .output("y");
    return m;
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  void write(const std::string& name, const std::string& bytes) const { std::ofstream(folder_ / name, std::ios::binary) << bytes; }

  std::string loadError(const std::string& name, const LoadOptions& options = {}) const {
    const auto model = load(path(name), options);
    return model ? "loaded" : model.error().render();
  }

  // Of calibrating and quantizing good.onnx, or `name`, on a source of samples.
  std::string quantizeError(const std::string& source, const std::string& name = "good.onnx") const {
    const auto model = load(path(name));
    if (!model) return model.error().render();
    const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
    const auto samples = openDataset({source}, *model);
    if (!samples) return samples.error().render();
    const auto ranges = calibrate(*model, rules, *samples);
    if (!ranges) return ranges.error().render();
    const auto quantized = quantize(*model, rules, *ranges);
    return quantized ? "quantized" : quantized.error().render();
  }

  std::string samples(const std::string& name, std::vector<int64_t> sizes, float value = 0.5f) const {
    Tensor t(DType::f32, std::move(sizes));
    for (float& v : t.mutableAs<float>()) v = value;
    EXPECT_TRUE(writeNpy(path(name), t));
    return "npy:" + path(name);
  }

  const fs::path folder_ = fs::temp_directory_path() / ("qc_bad_input_" + std::to_string(::getpid()));
};

TEST_F(BadInput, Files) {
  EXPECT_EQ(loadError("good.onnx"), "loaded");
  EXPECT_THAT(loadError("none.onnx"), AllOf(HasSubstr("not found"), HasSubstr("none.onnx")));
  EXPECT_THAT(loadError("empty"), AllOf(HasSubstr("is a folder"), HasSubstr("empty")));
  const std::string bytes = good().bytes();
  for (const size_t size : {size_t{0}, size_t{1}, bytes.size() / 2, bytes.size() - 1}) {
    write("cut.onnx", bytes.substr(0, size));
    EXPECT_THAT(loadError("cut.onnx"), AllOf(HasSubstr("invalid model"), HasSubstr("help:"))) << size;
  }
}

TEST_F(BadInput, MissingExternalData) {
  Model m = good();
  auto& w = *m.graph().mutable_initializer(0);
  w.clear_float_data();
  w.set_data_location(onnx::TensorProto::EXTERNAL);
  auto& entry = *w.add_external_data();
  entry.set_key("location");
  entry.set_value("weights.bin");
  write("external.onnx", m.bytes());
  EXPECT_THAT(loadError("external.onnx"),
              AllOf(HasSubstr("tensor 'w'"), HasSubstr("'weights.bin' is not there"), HasSubstr("keep the data file beside the model")));
  entry.set_value("../../etc/passwd");
  write("external.onnx", m.bytes());
  EXPECT_THAT(loadError("external.onnx"), AllOf(HasSubstr("tensor 'w'"), HasSubstr("outside the model's folder")));
}

TEST_F(BadInput, Shapes) {
  Model mismatch;
  mismatch.input("x", {2, 3}).floats("w", {4, 5}).node("MatMul", {"x", "w"}, {"y"}, {}, "head/MatMul").output("y");
  write("mismatch.onnx", mismatch.bytes());
  EXPECT_THAT(loadError("mismatch.onnx"), AllOf(HasSubstr("invalid model"), HasSubstr("node 'head/MatMul'"), HasSubstr("tensor 'y'")));
  Model free;
  free.input("x", {-1, 3, -2, -2}).node("Relu", {"x"}, {"y"}).output("y");
  write("free.onnx", free.bytes());
  EXPECT_THAT(loadError("free.onnx"), AllOf(HasSubstr("tensor 'x'"), HasSubstr("dim 2 of"), HasSubstr("dim 3 of"), HasSubstr("help: bind"),
                                            HasSubstr("x=1x3xNxN"), HasSubstr("N2=N")));
  EXPECT_THAT(loadError("free.onnx", {.shapes = {{"x", {1, 4, 5, 5}}}}), AllOf(HasSubstr("tensor 'x'"), HasSubstr("does not fit")));
  EXPECT_EQ(loadError("free.onnx", {.shapes = {{"x", {0, 3, 0, 0}}}}), "loaded");
  EXPECT_THAT(quantizeError(samples("wrong.npy", {2, 3, 9, 8})),
              AllOf(HasSubstr("tensor 'data'"), HasSubstr("[1,3,9,8]"), HasSubstr("help:")));
}

TEST_F(BadInput, UnknownOpsComeInOneList) {
  Model m;
  m.input("x", {2})
      .node("Frobnicate", {"x"}, {"a"}, {}, "first")
      .node("RandomUniformLike", {"a"}, {"b"}, {}, "second")
      .node("Blur", {"b"}, {"y"}, {}, "third", "my.domain")
      .output("y");
  write("unknown.onnx", m.bytes());
  EXPECT_THAT(loadError("unknown.onnx"), AllOf(HasSubstr("Frobnicate (1 time: 'first')"), HasSubstr("RandomUniformLike (1 time: 'second')"),
                                               HasSubstr("my.domain.Blur (1 time: 'third')"), HasSubstr("cut the model in front of them")));
}

TEST_F(BadInput, WeightsThatAreNoNumbersAreRefused) {
  std::vector<float> weight(108, 0.5f);
  weight[5] = NAN;
  write("nan.onnx", good(weight).bytes());
  const auto model = load(path("nan.onnx"));
  ASSERT_TRUE(model);
  const auto ranges = calibrate(*model, defaultQConfigMapping(Backend::x86), *openDataset({samples("ok.npy", {2, 3, 8, 8})}, *model));
  ASSERT_FALSE(ranges);
  EXPECT_THAT(ranges.error().render(),
              AllOf(HasSubstr("stem/conv"), HasSubstr("tensor 'w'"), HasSubstr("1 of 108"), HasSubstr("NaN"), HasSubstr("help:")));
}

TEST_F(BadInput, WeightsThatAreInfiniteStayFloat) {
  std::vector<float> weight(108, 0.5f);
  weight[5] = INFINITY;
  write("inf.onnx", good(weight).bytes());
  const auto model = load(path("inf.onnx"));
  ASSERT_TRUE(model);
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  const auto data = openDataset({samples("ok.npy", {2, 3, 8, 8})}, *model);
  const auto ranges = calibrate(*model, rules, *data);
  ASSERT_TRUE(ranges) << ranges.error().render();
  const auto quantized = quantize(*model, rules, *ranges);
  ASSERT_TRUE(quantized) << quantized.error().render();
  ASSERT_EQ(quantized->coverage.rows.size(), 1u);
  EXPECT_FALSE(quantized->coverage.rows[0].quantized);
  EXPECT_EQ(quantized->coverage.rows[0].node, "stem/conv");
  EXPECT_THAT(quantized->coverage.rows[0].reason, HasSubstr("not finite"));
}

TEST_F(BadInput, CalibrationData) {
  EXPECT_EQ(quantizeError(samples("ok.npy", {2, 3, 8, 8})), "quantized");
  EXPECT_THAT(quantizeError("images:" + path("empty") + "?size=8"), AllOf(HasSubstr("holds no JPEG or PNG files"), HasSubstr("help:")));
  EXPECT_THAT(quantizeError("images:" + path("junk") + "?size=8"), AllOf(HasSubstr("a.jpg"), HasSubstr("neither JPEG nor PNG")));
  EXPECT_THAT(quantizeError("raw:" + path("empty")), AllOf(HasSubstr("holds no .bin files"), HasSubstr("help:")));
  EXPECT_THAT(quantizeError("npy:" + path("none.npy")), AllOf(HasSubstr("not found"), HasSubstr("none.npy")));
  EXPECT_THAT(quantizeError("images:" + path("none") + "?size=8"), HasSubstr("not found"));
  EXPECT_THAT(quantizeError(samples("nan.npy", {2, 3, 8, 8}, NAN)),
              AllOf(HasSubstr("tensor 'data'"), HasSubstr("no range was calibrated"), HasSubstr("help:")));
  EXPECT_THAT(quantizeError("npy:" + path("good.onnx")), HasSubstr("good.onnx"));
}

}  // namespace
}  // namespace qc
