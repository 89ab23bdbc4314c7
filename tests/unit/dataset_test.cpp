// Readers of calibration and evaluation data: what they give, and that damaged files are errors.
#include "frontend/data/dataset.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "frontend/data/image.h"
#include "frontend/data/labels.h"
#include "frontend/data/npy.h"

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

// The decoder fills what is missing with grey and only warns.
TEST_F(DatasetTest, ImagesThatEndTooSoonAreErrors) {
  for (const char* name : {"baseline.jpg", "progressive.jpg", "rgb.png"}) {
    const std::string file = std::string(QC_TEST_DATA) + "/images/" + name;
    ASSERT_TRUE(readImage(file)) << name;
    std::ifstream stream(file, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    for (size_t size = 0; size + 12 < bytes.size(); size += 1 + bytes.size() / 50) {
      const auto image = decodeImage(bytes.substr(0, size), name);
      EXPECT_FALSE(image) << name << " cut to " << size << " of " << bytes.size();
    }
  }
}

// Shapes are compared, not numbers of elements.
TEST_F(DatasetTest, SamplesOfAnotherLayoutAreErrors) {
  const std::vector<InputInfo> first{{"x", DType::f32, {1, 3, 4, 5}}}, last{{"x", DType::f32, {1, 4, 5, 3}}},
      flat{{"x", DType::f32, {1, 60}}};
  const auto error = [&](const std::vector<int64_t>& sizes, const std::vector<InputInfo>& inputs,
                         const std::string& options = "") -> std::string {
    EXPECT_TRUE(writeNpy(path("a.npy"), counting(DType::f32, sizes)));
    const auto d = Dataset::open({"npy:" + path("a.npy") + options}, inputs);
    if (!d) return d.error().render();
    const auto sample = d->sample(0);
    if (!sample) return sample.error().render();
    EXPECT_EQ(sample->at("x").toFloats(), counting(DType::f32, sizesOf(inputs[0].shape)).toFloats());
    return std::string("taken");
  };
  EXPECT_EQ(error({2, 3, 4, 5}, first), "taken");
  EXPECT_EQ(error({2, 1, 3, 4, 5}, first), "taken") << "with a batch dim of its own";
  EXPECT_NE(error({2, 4, 5, 3}, first).find("say layout=nhwc"), std::string::npos);
  EXPECT_NE(error({2, 3, 4, 5}, last).find("channel-last"), std::string::npos);
  EXPECT_NE(error({2, 3, 5, 4}, first).find("3,5,4]"), std::string::npos) << "height and width";
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{2, 60}, {2, 12, 5}, {2, 3, 20}, {2, 5, 4, 3}})
    EXPECT_NE(error(sizes, first).find("the model takes [1,3,4,5]"), std::string::npos);
  EXPECT_NE(error({2, 3, 4, 5}, flat).find("the model takes [1,60]"), std::string::npos);
  EXPECT_EQ(error({2, 60}, flat), "taken");
  // Of a model of a fixed number of samples one sample is all of them.
  const std::vector<InputInfo> pairs{{"x", DType::f32, {2, 3, 4}}};
  EXPECT_NE(error({2, 3, 4}, pairs).find("give arrays of shape [n,2,3,4]"), std::string::npos) << error({2, 3, 4}, pairs);
  EXPECT_EQ(error({1, 2, 3, 4}, pairs), "taken");
}

// A free dim has the size that the sample has; what an array lacks are leading dims of 1.
TEST_F(DatasetTest, FreeDimsTakeTheSizesOfSamples) {
  const auto shapeOf = [&](const std::vector<int64_t>& sizes, const Shape& shape) {
    EXPECT_TRUE(writeNpy(path("a.npy"), counting(DType::f32, sizes)));
    const auto d = Dataset::open({"npy:" + path("a.npy")}, {{"x", DType::f32, shape}});
    const auto sample = d.value().sample(0);
    return sample ? sample->at("x").type().str() : sample.error().render();
  };
  const Dim n = Dim::symbol("N"), t = Dim::symbol("T"), h = Dim::symbol("H"), w = Dim::symbol("W");
  EXPECT_EQ(shapeOf({2, 7}, {n, t}), "f32[1,7]");
  EXPECT_EQ(shapeOf({2, 1, 7}, {n, t}), "f32[1,7]");
  EXPECT_EQ(shapeOf({2, 3, 7}, {n, t}), "f32[3,7]");
  EXPECT_EQ(shapeOf({2, 3, 1}, {n, t}), "f32[3,1]");
  EXPECT_EQ(shapeOf({2, 1, 1, 1, 7}, {n, t}), "f32[1,7]");
  EXPECT_EQ(shapeOf({2, 7, 1}, {t}), "f32[7]");
  EXPECT_EQ(shapeOf({2, 5, 7}, {n, 1, t}), "f32[5,1,7]");
  EXPECT_EQ(shapeOf({2, 7}, {n, t, 1}), "f32[1,7,1]");
  EXPECT_EQ(shapeOf({2, 3, 8, 9}, {n, 3, h, w}), "f32[1,3,8,9]");
  EXPECT_EQ(shapeOf({2, 4, 3, 8, 9}, {n, 3, h, w}), "f32[4,3,8,9]");
  EXPECT_EQ(shapeOf({2, 3, 8}, {2 * DimExpr::symbol("T"), 8}), "f32[3,8]");  // whether it fits is for the model to say
  for (const std::vector<int64_t>& last : {std::vector<int64_t>{2, 8, 9, 3}, {2, 1, 8, 9, 3}, {2, 4, 8, 9, 3}})
    EXPECT_NE(shapeOf(last, {n, 3, h, w}).find("it is channel-last"), std::string::npos) << shapeOf(last, {n, 3, h, w});
  EXPECT_NE(shapeOf({2, 3, 8, 9}, {n, h, w, 3}).find("it is channel-first"), std::string::npos);
  EXPECT_NE(shapeOf({2, 3, 8, 9, 5}, {n, t}).find("is f32[1,3,8,9,5], the model takes [N,T]"), std::string::npos)
      << shapeOf({2, 3, 8, 9, 5}, {n, t});
}

// Whose data does not say them: the batch is 1, and all others are named at once.
TEST_F(DatasetTest, SourcesWithoutSizesNeedThem) {
  const Dim n = Dim::symbol("N"), t = Dim::symbol("T"), w = Dim::symbol("W");
  const std::vector<InputInfo> open{{"x", DType::f32, {n, t, w}}, {"m", DType::f32, {n, t}}, {"h", DType::f32, {2, n}}};
  for (const char* source : {"random:2", "raw:."}) {
    const auto d = Dataset::open({std::string(source) + (source[1] == 'a' && source[2] == 'w' ? "?input=x" : "")}, open);
    ASSERT_FALSE(d);
    for (const char* part : {"dim 1 of 'x' [N,T,W]", "dim 2 of 'x' [N,T,W]", "LoadOptions::shapes T=N LoadOptions::shapes W=N"})
      EXPECT_NE(d.error().render().find(part), std::string::npos) << d.error().render();
  }
  const auto all = Dataset::open({"random:2"}, open).error().render();
  for (const char* part : {"dim 0 of 'x'", "dim 0 of 'm'", "dim 1 of 'h'", "shapes N=N"})
    EXPECT_NE(all.find(part), std::string::npos) << "a symbol that stands elsewhere is no batch: " << all;
  const auto batch = Dataset::open({"random:2"}, {{"x", DType::f32, {n, 4}}, {"m", DType::f32, {n, 2}}});
  EXPECT_EQ(batch.value().sample(0).value().at("x").type().str(), "f32[1,4]");
  const auto image = Dataset::open({std::string("images:") + QC_TEST_DATA + "/images"}, {{"x", DType::f32, {n, 3, t, w}}});
  ASSERT_TRUE(image) << image.error().render();
  EXPECT_GT(image->sample(0).value().at("x").sizes()[2], 8) << "all of the image";
  EXPECT_FALSE(Dataset::open({std::string("images:") + QC_TEST_DATA + "/images"}, {{"x", DType::f32, {n, 3, 16, w}}}));
}

TEST_F(DatasetTest, ImagesOfAnotherLayoutAreErrors) {
  const std::string source = std::string("images:") + QC_TEST_DATA + "/images?size=16";
  const std::vector<InputInfo> first{{"x", DType::f32, {1, 3, 16, 16}}}, last{{"x", DType::f32, {1, 16, 16, 3}}};
  EXPECT_TRUE(Dataset::open({source}, first)->sample(0));
  EXPECT_TRUE(Dataset::open({source + "&layout=nhwc"}, last)->sample(0));
  for (const auto& [text, inputs] : {std::pair{source + "&layout=nhwc", first}, std::pair{source, last}}) {
    const auto d = Dataset::open({text}, inputs);
    ASSERT_TRUE(d);
    const auto sample = d->sample(0);
    ASSERT_FALSE(sample) << text;
    EXPECT_NE(sample.error().render().find("layout=nhwc"), std::string::npos) << sample.error().render();
  }
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
}

TEST_F(DatasetTest, LabelsAreTheSecondColumnUnlessAHeaderNamesAnother) {
  const auto labelOf = [&](const std::string& text, const std::string& sample) {
    write("l.csv", text);
    const auto labels = Labels::read(path("l.csv"));
    return labels ? labels->of(sample, 0).value_or(-1) : -2;
  };
  EXPECT_EQ(labelOf("a.jpg,7,3\nb.jpg,9,4\n", "b.jpg"), 9);  // the documented form; what stands behind it is passed over
  EXPECT_EQ(labelOf("a.jpg 7\r\nb.jpg  9\r\n", "b.jpg"), 9);
  EXPECT_EQ(labelOf("# made by hand\na.jpg,7,tench\nb.jpg,9,shark\n", "b.jpg"), 9);
  EXPECT_EQ(labelOf("file,score,Class\na.jpg,7,3\nb.jpg,9,4\n", "b.jpg"), 4);
  EXPECT_EQ(labelOf("index,class\n0,3\n1,4\n", "x"), 3);
  EXPECT_EQ(labelOf("a.bin,12,7\nb.bin,12,2\n", "b.bin"), 2);  // MLPerf Tiny
  EXPECT_EQ(labelOf("a.bin,12,7\nb.bin,12,12\n", "b.bin"), 12);
  EXPECT_EQ(labelOf("a.jpg\tn01\t7\nb.jpg\tn02\t9\n", "b.jpg"), -2);
  EXPECT_EQ(labelOf("file\tindex\na.jpg\tseven\n", "a.jpg"), -2);
  EXPECT_EQ(labelOf("file\twnid\tindex\na.jpg\tn01\n", "a.jpg"), -2);
  EXPECT_EQ(labelOf("", "a.jpg"), -2);
}

TEST_F(DatasetTest, LabelsOfAnArrayAreOneAxisOfIntegers) {
  for (const auto& [dtype, sizes] :
       {std::pair{DType::s64, std::vector<int64_t>{5, 2}}, {DType::s64, {5, 1}}, {DType::s64, {}}, {DType::f32, {5}}}) {
    ASSERT_TRUE(writeNpy(path("l.npy"), counting(dtype, sizes)));
    const auto labels = Labels::read(path("l.npy"));
    ASSERT_FALSE(labels);
    EXPECT_NE(labels.error().render().find("reshape(-1)"), std::string::npos) << labels.error().render();
  }
}

TEST_F(DatasetTest, ImageErrorsNameTheFileAndTheRemedy) {
  const std::vector<InputInfo> grey{{"image", DType::f32, {1, 1, 16, 16}}};
  const std::string folder = std::string("images:") + QC_TEST_DATA + "/digits/calib?order=grey";
  const auto small = Dataset::open({folder + "&resize=16&size=20"}, grey).value().sample(0);
  ASSERT_FALSE(small);
  EXPECT_NE(small.error().render().find("calib/000.png' is 16x16, too small for a crop of 20x20"), std::string::npos)
      << small.error().render();
  EXPECT_NE(small.error().remedy().find("resize=20"), std::string::npos);
  const auto means = Dataset::open({folder + "&mean=1,2"}, grey);
  ASSERT_FALSE(means);
  EXPECT_NE(means.error().message().find("mean has 2 values for the 1 channel(s) of order=grey"), std::string::npos)
      << means.error().render();
  EXPECT_FALSE(means.error().remedy().empty());
}

// One pixel, made with Pillow: Image.new('CMYK', (1, 1)).save(file, 'JPEG', quality=1, optimize=True)
TEST_F(DatasetTest, ColoursOfPrintAreNoDamage) {
  const unsigned char head[] = {0xff, 0xd8, 0xff, 0xee, 0x00, 0x0e, 0x41, 0x64, 0x6f, 0x62, 0x65, 0x00,
                                0x64, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xdb, 0x00, 0x43, 0x00};
  std::string bytes(reinterpret_cast<const char*>(head), sizeof(head));
  bytes.append(64, '\xff');
  const unsigned char rest[] = {0xff, 0xc0, 0x00, 0x14, 0x08, 0x00, 0x01, 0x00, 0x01, 0x04, 0x43, 0x11, 0x00, 0x4d, 0x11, 0x00, 0x59, 0x11,
                                0x00, 0x4b, 0x11, 0x00, 0xff, 0xc4, 0x00, 0x14, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0xff, 0xc4, 0x00, 0x14, 0x10, 0x01, 0x00, 0x00, 0x00, 0x00,
                                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xda, 0x00, 0x0e, 0x04, 0x43,
                                0x00, 0x4d, 0x00, 0x59, 0x00, 0x4b, 0x00, 0x00, 0x3f, 0x00, 0x42, 0x10, 0x8f, 0xff, 0xd9};
  bytes.append(reinterpret_cast<const char*>(rest), sizeof(rest));
  write("print.jpg", bytes);
  const auto image = readImage(path("print.jpg"));
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(image.error().render().find("print.jpg' has the colours of print"), std::string::npos) << image.error().render();
  EXPECT_NE(image.error().remedy().find("RGB"), std::string::npos);
}

}  // namespace
}  // namespace qc
