// Mutated npy, npz and image files: every reader gives a result or an error.  Sanitizer builds see what else it does.
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "frontend/data/array_file.h"
#include "frontend/data/image.h"
#include "frontend/data/labels.h"
#include "frontend/data/npy.h"

namespace qc {
namespace {

namespace fs = std::filesystem;

class ReadersFuzz : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("qc_readers_fuzz_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string file(const std::string& name, const std::string& bytes) const {
    const std::string path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  // One to four edits: flipped, extreme or repeated bytes, cuts.
  std::string mutated(std::string bytes) {
    for (int edits = std::uniform_int_distribution<int>(1, 4)(random_); edits > 0 && !bytes.empty(); --edits) {
      const size_t at = random_() % bytes.size();
      switch (random_() % 5) {
        case 0: bytes[at] = static_cast<char>(random_()); break;
        case 1: bytes[at] = static_cast<char>(0xff); break;
        case 2: bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random_() % 8))); break;
        case 3: bytes.insert(at, bytes.substr(random_() % bytes.size(), 8)); break;
        default: bytes.resize(at); break;
      }
    }
    return bytes;
  }

  fs::path folder_;
  std::mt19937 random_{20};
};

void put(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
}

std::string deflated(const std::string& bytes) {
  std::string out(compressBound(bytes.size()) + 16, '\0');
  z_stream z{};
  deflateInit2(&z, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  z.avail_in = static_cast<uInt>(bytes.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

// A zip of two members: one stored, one deflated whose sizes stand in the 64-bit extra field.
std::string npz(const std::string& stored, const std::string& plain) {
  const std::string packed = deflated(plain);
  std::string out, directory, extra;
  put(extra, 1, 2), put(extra, 16, 2), put(extra, plain.size(), 8), put(extra, packed.size(), 8);
  for (const bool big : {false, true}) {
    const std::string& data = big ? packed : stored;
    const std::string name = big ? "b.npy" : "a.npy";
    const size_t offset = out.size();
    const std::string& whole = big ? plain : stored;
    const uint64_t crc = crc32(0, reinterpret_cast<const Bytef*>(whole.data()), static_cast<uInt>(whole.size()));
    put(out, 0x04034b50, 4), out.append(4, '\0'), put(out, big ? 8 : 0, 2), out.append(16, '\0'), put(out, name.size(), 2), put(out, 0, 2);
    out += name + data;
    put(directory, 0x02014b50, 4), directory.append(6, '\0'), put(directory, big ? 8 : 0, 2), directory.append(4, '\0'),
        put(directory, crc, 4);
    put(directory, big ? 0xffffffff : data.size(), 4), put(directory, big ? 0xffffffff : data.size(), 4), put(directory, name.size(), 2);
    put(directory, big ? extra.size() : 0, 2), directory.append(10, '\0'), put(directory, offset, 4);
    directory += name + (big ? extra : "");
  }
  const size_t at = out.size();
  out += directory;
  put(out, 0x06054b50, 4), out.append(4, '\0'), put(out, 2, 2), put(out, 2, 2), put(out, directory.size(), 4), put(out, at, 4),
      put(out, 0, 2);
  return out;
}

TEST_F(ReadersFuzz, Npy) {
  const std::string path = (folder_ / "a.npy").string();
  ASSERT_TRUE(writeNpy(path, Tensor(DType::f32, {2, 3})));
  const std::string bytes = readFile(path).value();
  for (int i = 0; i < 20000; ++i) static_cast<void>(parseNpy(mutated(bytes), "mutated"));
}

// Every row of every array.
Result<std::map<std::string, std::vector<float>>> allOf(const std::string& path) {
  QC_ASSIGN(const auto files, openNpz(path));
  std::map<std::string, std::vector<float>> arrays;
  for (const auto& [name, array] : files) {
    QC_TRY(array->check());
    for (int64_t i = 0; i < std::min<int64_t>(array->rows(), 100); ++i) {
      QC_ASSIGN(const Tensor row, array->row(i));
      const std::vector<float> values = row.toFloats();
      arrays[name].insert(arrays[name].end(), values.begin(), values.end());
    }
  }
  return arrays;
}

TEST_F(ReadersFuzz, Npz) {
  const std::string path = (folder_ / "a.npy").string();
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(writeNpy(path, Tensor::ofFloats({2, 3}, values)));
  const std::string array = readFile(path).value(), bytes = npz(array, array);
  const auto arrays = allOf(file("whole.npz", bytes));
  ASSERT_TRUE(arrays) << arrays.error().render();
  ASSERT_EQ(arrays->size(), 2u);
  EXPECT_EQ(arrays->at("a"), values);
  EXPECT_EQ(arrays->at("b"), values);
  for (size_t n = 0; n < bytes.size(); n += 7) EXPECT_FALSE(allOf(file("cut.npz", bytes.substr(0, n)))) << n;
  for (int i = 0; i < 800; ++i) static_cast<void>(allOf(file("mutated.npz", mutated(bytes))));
}

TEST_F(ReadersFuzz, Images) {
  const std::string bytes = readFile(std::string(QC_TEST_DATA) + "/digits/calib/000.png").value();
  for (int i = 0; i < 500; ++i) {
    const auto image = readImage(file("mutated.png", mutated(bytes)));
    if (image && image->width * image->height < 1 << 16) static_cast<void>(imageTensor(*image, {.resize = 8, .width = 8, .height = 8}));
  }
}

TEST_F(ReadersFuzz, Labels) {
  const std::string text = "file\tindex\na.jpg\t3\nb.jpg\t-1\n0,7\n";
  for (int i = 0; i < 500; ++i) static_cast<void>(Labels::read(file("labels.tsv", mutated(text))));
}

}  // namespace
}  // namespace qc
