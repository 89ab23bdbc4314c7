// The standard streams of a verb.  Whatever is printed, by whatever part: control characters in it (names come from models) reach a
// terminal as text; what cannot be written on stdout (a full disk, a closed pipe) is an error with exit code 1; stderr, which is chatter,
// never fails.
#pragma once

#include <cstdio>
#include <string>

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
  static FILE* open(Stream& stream);
  static ssize_t write(void* cookie, const char* data, size_t size);

  Stream out_{1, stdout}, err_{2, stderr};
};

}  // namespace qc::tools
