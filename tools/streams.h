// The standard streams of a verb.  Whatever is printed, by whatever part: control characters in it (names come from models) reach a
// terminal as text; what cannot be written on stdout (a full disk, a closed pipe) is an error with exit code 1; stderr, which is chatter,
// never fails.
#pragma once

#include <cstdio>
#include <streambuf>
#include <string>

#include "ir/signed_index.h"

namespace qc::tools {

class StandardStreams {
 public:
  StandardStreams();  // before any file is opened: one of the three that is closed would get its number
  ~StandardStreams();
  StandardStreams(const StandardStreams&) = delete;
  StandardStreams& operator=(const StandardStreams&) = delete;

  // Flushes.  The exit code: the given one, or 1 and a message where stdout is incomplete.
  int finish(int exitCode);

 private:
  struct Stream {
    int descriptor;
    FILE* plain;           // what the program started with
    std::string cut = {};  // the beginning of a character
    int error = 0;
  };
  // std::cout and std::cerr, which CLI11 prints help on, end in the same place.
  struct Buffer : std::streambuf {
    explicit Buffer(FILE*& file) : file_(file) {}
    int overflow(int c) override { return c == EOF ? 0 : std::fputc(c, file_); }
    std::streamsize xsputn(const char* data, std::streamsize n) override {
      return static_cast<std::streamsize>(std::fwrite(data, 1, usize(n), file_));
    }
    int sync() override { return std::fflush(file_); }
    FILE*& file_;
  };
  static FILE* open(Stream& stream);
  static ssize_t write(void* cookie, const char* data, size_t size);

  Stream out_{1, stdout}, err_{2, stderr};
  Buffer outBuffer_{stdout}, errBuffer_{stderr};
  std::streambuf *cout_ = nullptr, *cerr_ = nullptr;
};

}  // namespace qc::tools
