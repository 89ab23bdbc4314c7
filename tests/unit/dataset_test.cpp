// Readers of calibration and evaluation data: what they give, and that damaged files are errors.
#include "frontend/dataset.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "frontend/image.h"
#include "frontend/labels.h"
#include "frontend/npy.h"

namespace qc {
namespace {

namespace fs = std::filesystem;

class DatasetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("qc_data_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  void write(const std::string& name, const std::string& bytes) const { std::ofstream(path(name), std::ios::binary) << bytes; }

  Tensor counting(DType dtype, std::vector<int64_t> sizes) const {
    Tensor t(dtype, std::move(sizes));
    void* data = t.mutableData();
    for (int64_t i = 0; i < t.numElements(); ++i) storeElement(dtype, data, i, static_cast<double>(i));
    return t;
  }

  fs::path folder_;
  const std::vector<InputInfo> image_{{"x", DType::f32, {1, 3, 2, 2}}};
};

TEST_F(DatasetTest, NpyRoundTrip) {
  for (const DType dtype : {DType::f32, DType::u8, DType::s8, DType::s64, DType::f64, DType::boolean}) {
    const Tensor t = counting(dtype, {2, 3});
    ASSERT_TRUE(writeNpy(path("a.npy"), t));
    EXPECT_TRUE(readNpy(path("a.npy")).value().sameBytes(t)) << toString(dtype);
  }
}

TEST_F(DatasetTest, EveryTruncationOfAnNpyIsAnError) {
  ASSERT_TRUE(writeNpy(path("a.npy"), counting(DType::f32, {2, 3})));
  std::ifstream file(path("a.npy"), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(parseNpy(bytes.substr(0, n), "cut")) << n;
}

TEST_F(DatasetTest, HugeNpyClaimsAreRefusedBeforeAllocation) {
  std::string bytes("\x93NUMPY\x01\x00", 8);
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }\n";
  bytes += static_cast<char>(header.size());
  bytes += '\0';
  bytes += header;
  EXPECT_FALSE(parseNpy(bytes, "huge"));
}

TEST_F(DatasetTest, NormalisesAndTransposes) {
  ASSERT_TRUE(writeNpy(path("a.npy"), counting(DType::u8, {2, 2, 2, 3})));
  const Dataset d = Dataset::open({"npy:" + path("a.npy") + "?layout=nhwc&mean=1,2,3&std=2"}, image_).value();
  ASSERT_EQ(d.size(), 2);
  // Sample 1 holds 12..23 as rows of pixels of 3 channels.
  const Tensor x = d.sample(1).value().at("x");
  const std::vector<float> expected = {5.5f, 7, 8.5f, 10, 5.5f, 7, 8.5f, 10, 5.5f, 7, 8.5f, 10};
  EXPECT_EQ(x.toFloats(), expected);
}

TEST_F(DatasetTest, SkipAndLimitCount) {
  ASSERT_TRUE(writeNpy(path("a.npy"), counting(DType::f32, {10, 3, 2, 2})));
  const Dataset d = Dataset::open({"npy:" + path("a.npy") + "?skip=4&limit=3", "npy:" + path("a.npy") + "?limit=1"}, image_).value();
  ASSERT_EQ(d.size(), 4);
  EXPECT_EQ(d.sampleIndex(0), 4);
  EXPECT_EQ(d.sampleIndex(3), 0);
  EXPECT_FALSE(Dataset::open({"npy:" + path("a.npy") + "?skip=10"}, image_));
}

TEST_F(DatasetTest, WrongSourcesSayWhatIsWrong) {
  ASSERT_TRUE(writeNpy(path("a.npy"), counting(DType::f32, {10, 3})));
  EXPECT_FALSE(Dataset::open({"a.npy"}, image_));
  EXPECT_FALSE(Dataset::open({"zip:" + path("a.npy")}, image_));
  EXPECT_FALSE(Dataset::open({"npy:" + path("none.npy")}, image_));
  EXPECT_FALSE(Dataset::open({"npy:" + path("a.npy") + "?colour=3"}, image_));
  EXPECT_FALSE(Dataset::open({"npy:" + path("a.npy") + "?mean=x"}, image_));
  EXPECT_FALSE(Dataset::open({"images:" + folder_.string()}, image_));
  const Dataset d = Dataset::open({"npy:" + path("a.npy")}, image_).value();
  const auto sample = d.sample(0);
  ASSERT_FALSE(sample);
  EXPECT_EQ(sample.error().tensor(), "x");
}

TEST_F(DatasetTest, OptionsOutOfRangeAreRefused) {
  ASSERT_TRUE(writeNpy(path("a.npy"), counting(DType::f32, {10, 3, 2, 2})));
  for (const char* option : {"skip=-1", "skip=nan", "limit=-2", "limit=1.5", "mean=inf", "std=0", "skip=1e300"})
    EXPECT_FALSE(Dataset::open({"npy:" + path("a.npy") + "?" + option}, image_)) << option;
  ASSERT_TRUE(writeNpy(path("empty.npy"), Tensor(DType::f32, {int64_t{1} << 40, 0})));
  EXPECT_FALSE(Dataset::open({"npy:" + path("empty.npy")}, image_));
  const std::string images = std::string("images:") + QC_TEST_DATA + "/digits/calib?";
  for (const char* option : {"size=-1", "resize=-3", "size=1000000", "resize=1e9", "size=nan"})
    EXPECT_FALSE(Dataset::open({images + option}, image_)) << option;
}

TEST(Resample, RefusesImagesTooLongToResize) {
  const Image line{1 << 20, 1, std::vector<uint8_t>(size_t{3} << 20)};
  EXPECT_FALSE(imageTensor(line, {.resize = 1024}));
}

TEST_F(DatasetTest, DamagedImagesAreErrors) {
  write("a.png", "\x89PNG\r\n\x1a\nnot really");
  write("b.jpg", "\xff\xd8\xff garbage");
  write("c.jpg", "text");
  for (const char* name : {"a.png", "b.jpg", "c.jpg"}) EXPECT_FALSE(readImage(path(name))) << name;
}

TEST_F(DatasetTest, ReadsTheImagesOfAFolderInNameOrder) {
  const std::vector<InputInfo> grey{{"image", DType::f32, {1, 1, 16, 16}}};
  const Dataset d = Dataset::open({std::string("images:") + QC_TEST_DATA + "/digits/calib?order=grey&std=255"}, grey).value();
  EXPECT_EQ(d.size(), 60);
  EXPECT_EQ(d.sampleName(0), "000.png");
  for (const float v : d.sample(0).value().at("image").toFloats()) EXPECT_TRUE(v >= 0 && v <= 1);
}

// Expected values: Pillow 12, Image.resize with BILINEAR and BICUBIC of a 4x1 row 0, 100, 200, 50.
TEST(Resample, MatchesPillow) {
  Image row{4, 1, {}};
  for (const int v : {0, 100, 200, 50}) row.rgb.insert(row.rgb.end(), 3, static_cast<uint8_t>(v));
  const auto red = [](const Image& image) {
    std::vector<int> values;
    for (size_t i = 0; i < image.rgb.size(); i += 3) values.push_back(image.rgb[i]);
    return values;
  };
  EXPECT_EQ(red(resized(row, 2, 1, ImageOptions::Filter::bilinear)), (std::vector<int>{71, 121}));
  EXPECT_EQ(red(resized(row, 6, 1, ImageOptions::Filter::bilinear)), (std::vector<int>{0, 50, 117, 183, 125, 50}));
  EXPECT_EQ(red(resized(row, 3, 1, ImageOptions::Filter::bicubic)), (std::vector<int>{19, 159, 93}));
}

TEST_F(DatasetTest, LabelsByNameIndexAndArray) {
  write("names.tsv", "file\twnid\tindex\na.jpg\tn01\t7\nb.jpg\tn02\t9\n");
  const Labels names = Labels::read(path("names.tsv")).value();
  EXPECT_EQ(names.of("b.jpg", 0).value(), 9);
  EXPECT_FALSE(names.of("c.jpg", 0));
  write("index.csv", "0,3\n1,4\n");
  EXPECT_EQ(Labels::read(path("index.csv")).value().of("whatever", 1).value(), 4);
  ASSERT_TRUE(writeNpy(path("l.npy"), counting(DType::u8, {5})));
  EXPECT_EQ(Labels::read(path("l.npy")).value().of("x", 4).value(), 4);
  write("bad.tsv", "file\tindex\na.jpg\tseven\n");
  EXPECT_FALSE(Labels::read(path("bad.tsv")));
}

}  // namespace
}  // namespace qc
