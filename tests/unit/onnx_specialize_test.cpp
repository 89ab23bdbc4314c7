// Shapes that are known only at run time, and compiled kernels that are kept on disk: remembered, bounded, never wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "codegen/object_cache.h"
#include "runtime/specialize.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

namespace fs = std::filesystem;
using qc::testing::Ints;

class SpecializeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("qc_specialize_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    qc::testing::Model m;
    m.input("x", {-1, 3, -2, -3}).floats("w", {4, 3, 3, 3}).node("Conv", {"x", "w"}, {"c"}, {qc::testing::ints("pads", {1, 1, 1, 1})});
    m.node("Relu", {"c"}, {"y"}).output("y");
    std::ofstream(model(), std::ios::binary) << m.bytes();
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string model() const { return (folder_ / "m.onnx").string(); }
  std::string cache() const { return (folder_ / "cache").string(); }

  static Tensor input(int64_t n, int64_t h, int64_t w) {
    Tensor t(DType::f32, {n, 3, h, w});
    float v = 0;
    for (float& x : t.mutableAs<float>()) x = v = v > 3 ? -3.0f : v + 0.37f;
    return t;
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    for (const auto& e : fs::directory_iterator(cache()))
      if (e.path().extension() == ".qco") found.push_back(e.path());
    return found;
  }
  Executable compiled(const std::string& folder, int64_t bytes = 1 << 26) const {
    BuildOptions options;
    options.compile.cacheFolder = folder;
    options.compile.cacheBytes = bytes;
    return compiled(options);
  }
  Executable compiled(const BuildOptions& options) const {
    const qc::Model loaded = load(model(), {.shapes = {{"x", {1, 3, 8, 8}}}, .values = {}}).value();
    return compile(loaded, options).value();
  }
  Tensor run(const Executable& exe) const { return exe.session().value().run({{"x", input(1, 8, 8)}}).value().at("y"); }

  fs::path folder_;
};

// A model that was read already is not read again.
TEST_F(SpecializeTest, TakesALoadedModel) {
  qc::Model loaded = load(model(), {.freeDims = true}).value();
  fs::remove(model());
  DynamicSession session(std::make_shared<Specializer>(std::move(loaded)));
  EXPECT_EQ(session.run({{"x", input(2, 5, 7)}}).value().at("y").sizes(), (Ints{2, 4, 5, 7}));
  EXPECT_FALSE(session.run({{"x", Tensor(DType::f32, {1, 2, 8, 8})}})) << "three channels";
  EXPECT_THAT(session.run({{"z", input(1, 8, 8)}}).error().render(), ::testing::ContainsRegex("'x'.*no array was given for this input"));
}

TEST_F(SpecializeTest, CompilesOncePerShape) {
  SpecializeOptions options;
  options.remembered = 2;
  const auto model = std::make_shared<Specializer>(this->model(), options);
  DynamicSession session(model);
  for (const auto& [n, h, w] : {std::tuple<int, int, int>{1, 8, 8}, {2, 8, 8}, {1, 8, 8}, {2, 8, 8}}) {
    const auto out = session.run({{"x", input(n, h, w)}});
    ASSERT_TRUE(out) << out.error().render();
    EXPECT_EQ(out->at("y").sizes(), (Ints{n, 4, h, w}));
  }
  EXPECT_EQ(model->compiled(), 2);
  const Tensor before = session.run({{"x", input(1, 8, 8)}})->at("y");
  EXPECT_TRUE(session.run({{"x", input(1, 5, 7)}}));
  EXPECT_TRUE(session.run({{"x", input(3, 2, 2)}}));
  EXPECT_EQ(model->size(), 2u) << "the ones used longest ago are forgotten";
  EXPECT_TRUE(session.run({{"x", input(1, 8, 8)}})->at("y").sameBytes(before));
  EXPECT_EQ(model->compiled(), 5);
  EXPECT_FALSE(session.run({{"x", Tensor(DType::f32, {1, 2, 8, 8})}})) << "three channels";
  EXPECT_FALSE(session.run({{"z", input(1, 8, 8)}}));
}

TEST_F(SpecializeTest, ThreadsShareTheWork) {
  const auto model = std::make_shared<Specializer>(this->model());
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      DynamicSession session(model);
      for (int k = 0; k < 3; ++k) good += session.run({{"x", input(1 + (i + k) % 2, 6, 6)}}).has_value();
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(good, 12);
  EXPECT_EQ(model->compiled(), 2);
}

TEST_F(SpecializeTest, TheProcessRemembersWhenAsked) {
  BuildOptions options;
  options.compile.remember = true;
  const Executable first = compiled(options), again = compiled(options);
  EXPECT_EQ(first.program().cachedKernels(), 0);
  EXPECT_EQ(again.program().cachedKernels(), again.program().uniqueKernels());
  EXPECT_TRUE(run(again).sameBytes(run(first)));
  EXPECT_EQ(compiled("").program().cachedKernels(), 0);
}

TEST_F(SpecializeTest, CacheRemembersAndIsNeverWrong) {
  const Executable plain = compiled("");
  EXPECT_EQ(plain.program().cachedKernels(), 0);
  const Tensor expected = run(plain);
  EXPECT_EQ(compiled(cache()).program().cachedKernels(), 0);
  const size_t count = files().size();
  EXPECT_EQ(static_cast<int>(count), plain.program().uniqueKernels());
  const Executable again = compiled(cache());
  EXPECT_EQ(again.program().cachedKernels(), again.program().uniqueKernels());
  EXPECT_TRUE(run(again).sameBytes(expected));

  // Damage of any kind is a miss, and repaired.
  for (int kind = 0; kind < 5; ++kind) {
    for (const fs::path& path : files()) {
      std::ifstream in(path, std::ios::binary);
      std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
      if (kind == 0) bytes.clear();
      if (kind == 1) bytes.resize(bytes.size() / 2);
      if (kind == 2) bytes[bytes.size() / 2] ^= 1;
      if (kind == 3) bytes[12] ^= 1;
      if (kind == 4) bytes += "more";
      std::ofstream(path, std::ios::binary) << bytes;
    }
    const Executable repaired = compiled(cache());
    EXPECT_EQ(repaired.program().cachedKernels(), 0) << kind;
    EXPECT_TRUE(run(repaired).sameBytes(expected)) << kind;
    EXPECT_GT(compiled(cache()).program().cachedKernels(), 0) << kind;
  }
}

TEST_F(SpecializeTest, CacheOfAnotherKernelIsAMiss) {
  compiled(cache());
  const ObjectCache store(cache());
  const auto all = files();
  ASSERT_FALSE(all.empty());
  EXPECT_FALSE(store.find("no such kernel"));
  KernelObject object;
  object.bytes = "x";
  store.store("key", object);
  ASSERT_TRUE(store.find("key"));
  EXPECT_EQ(store.find("key")->bytes, "x");
  EXPECT_EQ(store.find("key")->symbol, ObjectCache::symbolFor("key"));
  for (const fs::path& path : files())
    if (std::find(all.begin(), all.end(), path) == all.end()) fs::copy_file(path, all[0], fs::copy_options::overwrite_existing);
  EXPECT_LT(compiled(cache()).program().cachedKernels(), compiled("").program().uniqueKernels()) << "a file under another's name";
}

// Whatever stands in an entry's place but a file that only we or root can write: a miss, compiled anew and put in its place where it can
// be.
TEST_F(SpecializeTest, CacheTakesOnlyWhatNobodyElseCanWrite) {
  compiled(cache());
  const ObjectCache store(cache());
  KernelObject object;
  object.bytes = "x";
  const std::vector<fs::path> before = files();
  store.store("key", object);
  fs::path entry;
  for (const fs::path& path : files())
    if (std::find(before.begin(), before.end(), path) == before.end()) entry = path;
  ASSERT_TRUE(store.find("key"));
  const auto again = [&] {
    store.store("key", object);
    return store.find("key").has_value();
  };
  for (const fs::perms perms : {fs::perms::group_write, fs::perms::others_write}) {
    fs::permissions(entry, perms, fs::perm_options::add);
    EXPECT_FALSE(store.find("key"));
    EXPECT_TRUE(again());
  }
  fs::rename(entry, entry.string() + ".moved");
  fs::create_symlink(entry.string() + ".moved", entry);
  EXPECT_FALSE(store.find("key"));
  EXPECT_TRUE(again());
  fs::remove(entry);
  ASSERT_EQ(::mkfifo(entry.c_str(), 0600), 0);
  EXPECT_FALSE(store.find("key")) << "and does not wait for a writer";
  EXPECT_TRUE(again());
  fs::remove(entry);
  fs::create_directory(entry);
  EXPECT_FALSE(store.find("key"));
  EXPECT_FALSE(again());
  fs::remove(entry);
  fs::resize_file(entry.string() + ".moved", uintmax_t{1} << 40);
  fs::rename(entry.string() + ".moved", entry);
  EXPECT_FALSE(store.find("key"));
  if (::geteuid() == 0) {
    EXPECT_TRUE(again());
    ASSERT_EQ(::chown(entry.c_str(), 12345, 12345), 0);
    EXPECT_FALSE(store.find("key"));
    ASSERT_EQ(::chown(cache().c_str(), 12345, 12345), 0);
    EXPECT_FALSE(ObjectCache(cache()).enabled());
    ASSERT_EQ(::chown(cache().c_str(), 0, 0), 0);
  }
  fs::rename(cache(), cache() + ".moved");
  fs::create_symlink(cache() + ".moved", cache());
  EXPECT_FALSE(ObjectCache(cache()).enabled()) << "a link";
  fs::remove(cache());
  fs::rename(cache() + ".moved", cache());
}

TEST_F(SpecializeTest, CacheIsBoundedAndPrivate) {
  compiled(cache());
  EXPECT_EQ(fs::status(cache()).permissions() & (fs::perms::group_all | fs::perms::others_all), fs::perms::none);
  ObjectCache(cache(), 1).prune();
  EXPECT_TRUE(files().empty());
  // Without being asked to, when a sixteenth of the bound has come since.
  constexpr int64_t kBound = 1 << 20;
  const ObjectCache store(cache(), kBound);
  KernelObject object;
  object.bytes.assign(size_t{40} << 10, 'x');
  const auto blocks = [&] {
    int64_t all = 0;
    for (const fs::path& file : files()) all += static_cast<int64_t>(fs::file_size(file));
    return all;
  };
  for (int i = 0; i < 100; ++i) {
    store.store(fmt::format("key {}", i), object);
    ASSERT_LE(blocks(), kBound + kBound / 16 + (40 << 10)) << i;
  }
  EXPECT_TRUE(store.find("key 99"));
  EXPECT_FALSE(store.find("key 0")) << "those used longest ago go first";
  EXPECT_FALSE(ObjectCache(cache(), 0).enabled());
  fs::permissions(cache(), fs::perms::others_write, fs::perm_options::add);
  EXPECT_FALSE(ObjectCache(cache()).enabled()) << "others could put code in";
  EXPECT_FALSE(ObjectCache("/proc/no/such/folder").enabled());
  EXPECT_TRUE(run(compiled("/proc/no/such/folder")).sameBytes(run(compiled(""))));
}

}  // namespace
}  // namespace qc
