// Damaged models: bytes cut and flipped, and fields of the protobuf edited, dropped, doubled and swapped, so that most of the damage passes
// the parser and reaches the converters.  The outcome must be a graph or an error.  A graph that comes out is verified, exported and
// simplified; when it is tiny it is evaluated, calibrated, quantized, lowered and evaluated again.  Seeds are fixed: a failure repeats.
// The model at hand stands in qc_onnx_fuzz_PID.onnx in the temporary folder, and stays there after a crash; QC_FUZZ_MODEL=FILE runs that
// file alone, QC_FUZZ_SEED=N moves all seeds.  Files of tests/fuzz/corpus once led to a crash or a hang and are run every time.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "frontend/onnx/import.h"
#include "ir/files.h"
#include "tests/fuzz/model_way.h"
#include "tests/fuzz/onnx_damage.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

namespace fs = std::filesystem;

void run(const std::string& bytes, testing::ModelCount& count) { EXPECT_EQ(testing::complaintAboutModel(bytes, count), ""); }

class OnnxFuzz : public ::testing::Test {
 protected:
  void SetUp() override { ::alarm(300); }
  void TearDown() override {
    ::alarm(0);
    std::error_code ignored;
    fs::remove(current_, ignored);
  }

  void mutate(const std::string& bytes, uint32_t seed, testing::ModelCount& count) {
    static const char* const moved = std::getenv("QC_FUZZ_SEED");
    if (moved) seed += static_cast<uint32_t>(std::strtoul(moved, nullptr, 10)) * 1000003u;
    const std::string damaged = testing::damagedOnnx(bytes, seed);
    std::ofstream(current_, std::ios::binary) << damaged;
    SCOPED_TRACE("seed " + std::to_string(seed));
    run(damaged, count);
  }

  const fs::path current_ = fs::temp_directory_path() / ("qc_onnx_fuzz_" + std::to_string(::getpid()) + ".onnx");
};

TEST_F(OnnxFuzz, OneFile) {
  const char* path = std::getenv("QC_FUZZ_MODEL");
  if (!path) GTEST_SKIP() << "QC_FUZZ_MODEL is not set";
  testing::ModelCount count;
  run(readFile(path).value(), count);
}

TEST_F(OnnxFuzz, Corpus) {
  int files = 0;
  for (const auto& entry : fs::directory_iterator(QC_TEST_DATA "/../fuzz/corpus/model")) {
    if (entry.path().extension() != ".onnx") continue;
    SCOPED_TRACE(entry.path().string());
    testing::ModelCount count;
    run(readFile(entry.path().string()).value(), count);
    ++files;
  }
  EXPECT_GT(files, 0);
}

TEST_F(OnnxFuzz, SeedsAreSound) {
  for (const std::string& bytes : testing::onnxSeeds()) {
    testing::ModelCount count;
    run(bytes, count);
    const auto graph = importOnnx(bytes, {});
    EXPECT_EQ(count.evaluated + count.quantized, 2) << (graph ? graph->str() : graph.error().render());
  }
}

TEST_F(OnnxFuzz, SmallModels) {
  testing::ModelCount count;
  uint32_t seed = 1;
  for (const std::string& bytes : testing::onnxSeeds())
    for (int i = 0; i < 250; ++i) mutate(bytes, seed++, count);
  EXPECT_GT(count.graphs, 400);
  EXPECT_GT(count.evaluated, 300);
  EXPECT_GT(count.quantized, 200);
  EXPECT_GT(count.errors, 1000);
}

// One op each: every converter meets damage.
TEST_F(OnnxFuzz, NodeTests) {
  std::set<fs::path> models;
  for (const fs::path folder : {QC_ONNX_NODE_TESTS, QC_SHARED_DIR "/onnx-node-tests/head"})
    if (fs::is_directory(folder))
      for (const auto& entry : fs::directory_iterator(folder)) models.insert(entry.path() / "model.onnx");
  if (models.empty()) GTEST_SKIP() << "the node tests of ONNX are not installed";
  testing::ModelCount count;
  uint32_t seed = 100000;
  for (const fs::path& path : models) {
    const auto bytes = readFile(path.string());
    for (int i = 0; bytes && bytes->size() < 20000 && i < 4; ++i) mutate(*bytes, seed++, count);
  }
  EXPECT_GT(count.graphs, 100);
}

}  // namespace
}  // namespace qc
