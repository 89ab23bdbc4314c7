// Reading and writing whole files; names of files; the grammar of npy headers.
#include "ir/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "frontend/data/npy_dict.h"
#include "ir/text_lexer.h"
#include "ir/visible.h"

namespace qc {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Files : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_ / "model"); }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  void write(const std::string& name, const std::string& bytes) const { std::ofstream(path(name), std::ios::binary) << bytes; }
  std::string message(const Status& s) const { return s ? "" : s.error().render(); }
  template <class T>
  std::string message(const Result<T>& r) const {
    return r ? "" : r.error().render();
  }
  int entries(const std::string& name) const {
    return static_cast<int>(std::distance(fs::directory_iterator(path(name)), fs::directory_iterator()));
  }
  const fs::path folder_ = fs::temp_directory_path() / ("qc_files_" + std::to_string(::getpid()));
};

TEST_F(Files, OnlyRegularFilesAreRead) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  fs::create_symlink("pipe", path("link"));
  EXPECT_THAT(message(readFile(path("pipe"))), HasSubstr("is a pipe"));
  EXPECT_THAT(message(readFile(path("link"))), HasSubstr("is a pipe"));
  EXPECT_THAT(message(readFile(path("model"))), HasSubstr("is a folder"));
  EXPECT_THAT(message(readFile("/dev/zero")), HasSubstr("is a device"));
  EXPECT_THAT(message(readFile(path("none"))), HasSubstr("there is no file"));
  write("large", "");
  ASSERT_EQ(::truncate(path("large").c_str(), int64_t{1} << 42), 0);
  EXPECT_THAT(message(readFile(path("large"), int64_t{1} << 43)), HasSubstr("more than the limit"));
}

TEST_F(Files, WritesWholeFilesThroughLinks) {
  write("real", "old");
  fs::permissions(path("real"), fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("real", path("link"));
  fs::create_symlink("link", path("link2"));
  EXPECT_EQ(message(writeFileAtomically(path("link2"), "new")), "");
  EXPECT_TRUE(fs::is_symlink(path("link2")) && fs::is_symlink(path("link")));
  EXPECT_EQ(readFile(path("real")).value(), "new");
  EXPECT_EQ(fs::status(path("real")).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("model/later", path("dangling"));
  EXPECT_EQ(message(writeFileAtomically(path("dangling"), "x")), "");
  EXPECT_EQ(readFile(path("model/later")).value(), "x");
  fs::create_symlink("loop", path("loop"));
  EXPECT_NE(message(writeFileAtomically(path("loop"), "x")), "");
  EXPECT_THAT(message(writeFileAtomically(path("model"), "x")), HasSubstr("is a folder"));
  EXPECT_THAT(message(writeFileAtomically(path("none/x"), "x")), HasSubstr("create the folder"));
  EXPECT_EQ(message(writeFileAtomically("/dev/null", "x")), "");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_NE(message(writeFileAtomically("/dev/full", "x")), "");
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(message(writeFileAtomically(path("pipe"), "x")), HasSubstr("nobody reads"));
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
}

TEST_F(Files, ReadersOfPipesGetTheBytes) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  std::string got;
  std::thread reader([&] {
    std::ifstream in(path("pipe"));
    got.assign(std::istreambuf_iterator<char>(in), {});
  });
  const std::string bytes(1 << 20, 'x');
  Status done;
  for (int tries = 0; tries < 500 && !(done = writeFileAtomically(path("pipe"), bytes)); ++tries) ::usleep(10000);
  EXPECT_EQ(message(done), "");
  reader.join();
  EXPECT_EQ(got, bytes);
}

TEST_F(Files, NothingIsLeftOfWhatWasNotPublished) {
  {
    auto file = OutputFile::create(path("model/a"));
    ASSERT_TRUE(file);
    EXPECT_TRUE(file->write("half"));
    EXPECT_EQ(entries("model"), 1);
  }
  EXPECT_EQ(entries("model"), 0);
  OutputFiles several;
  EXPECT_TRUE(several.add(path("model/a"), {"1", "2"}));
  EXPECT_FALSE(several.add(path("none/b"), {"3"}));
  EXPECT_FALSE(fs::exists(path("model/a")));
  EXPECT_TRUE(several.publish());
  EXPECT_EQ(readFile(path("model/a")).value(), "12");
}

TEST_F(Files, OfSeveralFilesAllAppearOrNone) {
  OutputFiles files;
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(files.add(path("model/" + std::to_string(i)), {std::to_string(i)}));
  EXPECT_FALSE(fs::exists(path("model/0")));
  ASSERT_TRUE(files.publish());
  EXPECT_EQ(entries("model"), 200);
  EXPECT_EQ(readFile(path("model/199")).value(), "199");
}

TEST_F(Files, OutputsAreCheckedBefore) {
  EXPECT_EQ(message(checkOutputs({path("a"), path("model/a")})), "");
  EXPECT_EQ(entries("model"), 0);
  EXPECT_THAT(message(checkOutputs({path("a"), path("model/../a")})), HasSubstr("two outputs"));
  EXPECT_THAT(message(checkOutput(path("model/"))), HasSubstr("folder"));
  EXPECT_THAT(message(checkOutput("")), HasSubstr("empty"));
  EXPECT_THAT(message(checkOutput("/proc/self/x")), HasSubstr("cannot write"));
}

// Runs `work` in a process of its own and gives back how that ended.
template <class Function>
int inProcess(Function&& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_F(Files, SignalsLeaveNothing) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const int status = inProcess([&] {
      removeTemporariesOnSignals();
      auto file = OutputFile::create(path("model/a"));
      const auto folder = TemporaryFolder::create("qc_files_test");
      const bool good = file && file->write("half") && folder && writeFileAtomically(folder->path() + "/x", "y");
      if (good) ::raise(signal);
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << status;
    EXPECT_EQ(entries("model"), 0);
  }
}

TEST_F(Files, ALimitOnSizesIsAnError) {
  const int status = inProcess([&] {
    removeTemporariesOnSignals();
    const rlimit limit{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const Status done = writeFileAtomically(path("model/a"), std::string(100000, 'x'));
    ::_exit(!done && message(done).find("too large") != std::string::npos ? 7 : 8);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
  EXPECT_EQ(entries("model"), 0);
}

TEST_F(Files, LeftoversOfTheDeadGo) {
  const int status = inProcess([&] {
    auto file = OutputFile::create(path("model/a"));
    if (file) ::raise(SIGKILL);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(entries("model"), 1);
  auto living = OutputFile::create(path("model/a"));
  EXPECT_EQ(entries("model"), 2);
  EXPECT_TRUE(checkOutput(path("model/b")));
  EXPECT_EQ(entries("model"), 2) << "those of another file";
  EXPECT_TRUE(checkOutput(path("model/a")));
  EXPECT_EQ(entries("model"), 1) << "that of the living stays";
  EXPECT_TRUE(living->publish());
}

TEST_F(Files, LeftoversOfSeveralFilesGoAtOnce) {
  const std::string longest(200, 'n');  // shortened in the names of temporary files
  const int status = inProcess([&] {
    std::vector<Result<OutputFile>> files;
    for (const std::string& name : {std::string("a"), std::string("b.1"), longest, std::string("other")})
      files.push_back(OutputFile::create(path("model/" + name)));
    if (files.back()) ::raise(SIGKILL);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  write("model/.a.1.tmp", "x");  // named much like them
  EXPECT_EQ(entries("model"), 5);
  EXPECT_TRUE(checkOutputs({path("model/a"), path("model/b.1"), path("model/" + longest)}));
  EXPECT_EQ(entries("model"), 2) << "those of another file, and what is none of ours";
}

TEST_F(Files, WhatWasReadIsNotReplaced) {
  write("in", "x");
  const int status = inProcess([&] {
    protectInputs();
    const bool read = readFile(path("in")).has_value();
    fs::create_symlink("in", path("other"));
    const bool refused = !checkOutput(path("in")) && !checkOutput(path("other")) && !writeFileAtomically(path("in"), "y");
    releaseInput(path("in"));
    ::_exit(read && refused && writeFileAtomically(path("in"), "y") ? 7 : 8);
  });
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST_F(Files, BeneathAFolder) {
  write("secret", "no");
  write("model/w", "yes");
  fs::create_directories(path("model/sub/deep"));
  fs::create_symlink("../../w", path("model/sub/deep/up"));
  fs::create_symlink("../secret", path("model/out"));
  fs::create_symlink(path("secret"), path("model/absolute"));
  fs::create_symlink("..", path("model/parent"));
  fs::create_symlink("round", path("model/round"));
  fs::create_symlink("/proc/self/root", path("model/root"));
  ASSERT_EQ(::mkfifo(path("model/pipe").c_str(), 0600), 0);
  const Descriptor folder = openFolder(path("model")).value();
  for (const char* good : {"w", "./w", "sub/../w", "sub/deep/up", "sub//deep/../deep/up"}) {
    const auto file = openBeneath(folder, good);
    ASSERT_TRUE(file) << good << file.error().render();
    EXPECT_EQ(file->whole(100).value(), "yes");
  }
  for (const char* bad : {"", "..", "../secret", "out", "absolute", "parent/secret", "sub/../../secret", "sub/deep/../../../secret",
                          "round", "pipe", "sub", "w/x", "none", "/etc/passwd", "root/etc/passwd", "w/../../secret"})
    EXPECT_FALSE(openBeneath(folder, bad)) << bad;
  EXPECT_FALSE(openBeneath(folder, std::string("w\0x", 3)));
}

// While one thread exchanges a folder for a link that leads outside, no try reads what lies there.
TEST_F(Files, BeneathAFolderThatIsExchanged) {
  fs::create_directories(path("outside"));
  fs::create_directories(path("model/sub"));
  write("outside/w", "no");
  write("model/sub/w", "yes");
  std::atomic<bool> stop{false};
  std::thread exchanger([&] {
    std::error_code ignored;
    fs::create_symlink("../outside", path("model/link"), ignored);
    while (!stop) {
      fs::rename(path("model/sub"), path("model/kept"), ignored);
      fs::rename(path("model/link"), path("model/sub"), ignored);
      fs::rename(path("model/sub"), path("model/link"), ignored);
      fs::rename(path("model/kept"), path("model/sub"), ignored);
    }
  });
  const Descriptor folder = openFolder(path("model")).value();
  int read = 0;
  for (int i = 0; i < 3000; ++i)
    if (const auto file = openBeneath(folder, "sub/w")) {
      ++read;
      ASSERT_EQ(file->whole(100).value(), "yes");
    }
  stop = true;
  exchanger.join();
  EXPECT_GT(read, 0);
}

TEST(FileNames, AreSafeAndDiffer) {
  const std::string longName(500, 'n');
  const auto names = fileNames({"a:0", "a/0", "a_0", "A_0", std::string(".bashrc\0", 8), "", "..", "-rf", "../../etc/x", longName + "1",
                                longName + "2", "ok\x1b[2J", "\xff\xfe", "schön", "x.npy"},
                               ".npy");
  std::set<std::string> different;
  for (const std::string& name : names) {
    EXPECT_TRUE(name.ends_with(".npy") && name.size() < 200) << name;
    EXPECT_TRUE(name[0] != '.' && name[0] != '-' && name.find_first_of(std::string("/\\\0:\x1b", 5)) == name.npos) << name;
    std::string lower = name;
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    EXPECT_TRUE(different.insert(lower).second) << name;
  }
  EXPECT_EQ(names[2], "a_0.npy") << "one that can stay does";
  EXPECT_EQ(names[13], "schön.npy");
  EXPECT_EQ(names[14], "x.npy.npy");
  // Linear in their number.
  EXPECT_EQ(std::set<std::string>(different).size(), names.size());
  EXPECT_EQ(fileNames(std::vector<std::string>(50000, "y"), ".npy").back(), "y_50000.npy");
}

TEST(Visible, ControlsAreText) {
  EXPECT_EQ(visible("a\x1b[31m\r\n\t\x7f"), "a\\x1b[31m\\x0d\\x0a\\x09\\x7f");
  EXPECT_EQ(visible("a\n\tb", true), "a\n\tb");
  EXPECT_EQ(visible("schön \xe2\x82\xac"), "schön \xe2\x82\xac");
  EXPECT_EQ(visible("\xc2\x9b"), "\\xc2\\x9b");                                      // CSI of eight bits
  EXPECT_EQ(visible("\xe2\x80\xae"), "\\xe2\\x80\\xae");                             // right to left
  EXPECT_EQ(visible("\xc0\xaf\xed\xa0\x80\xf5"), "\\xc0\\xaf\\xed\\xa0\\x80\\xf5");  // not well formed
  EXPECT_EQ(quoted("\xff\x1b\xc3\xb6"), "\"\\xff\\x1b\xc3\xb6\"");
  EXPECT_THAT(Error(ErrorCode::kIo, "m\x1b").render(), HasSubstr("m\\x1b"));
}

TEST(NpyHeader, IsParsedByItsGrammar) {
  const auto good = parseNpyDict("{\"shape\" : (2L, 3,),'fortran_order':True ,'descr':'<f4'}   \n", "f");
  ASSERT_TRUE(good) << good.error().render();
  EXPECT_EQ(good->descr, "<f4");
  EXPECT_TRUE(good->fortranOrder);
  EXPECT_THAT(good->shape, ElementsAre(2, 3));
  EXPECT_TRUE(parseNpyDict("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "f")->shape.empty());
  for (const char* bad :
       {"", "{}", "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3 4,)}", "{'descr': '<f4', 'fortran_order': false, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x", "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)",
        "{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (3,)}", "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}", "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<\\x664', 'fortran_order': False, 'shape': (3,)}"})
    EXPECT_FALSE(parseNpyDict(bad, "f")) << bad;
  for (const char* structured : {"[('a', '<f4')]", "('<f4', (2,))"})
    EXPECT_THAT(parseNpyDict(fmt::format("{{'descr': {}, 'fortran_order': False, 'shape': (3,)}}", structured), "f").error().render(),
                HasSubstr("structured"));
}

}  // namespace
}  // namespace qc
