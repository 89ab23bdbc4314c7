#include "tools/streams.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>

#include "ir/visible.h"
#include "tools/cmd.h"

namespace qc::tools {
namespace {

int writeAll(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(descriptor, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    text.remove_prefix(usize(n));
  }
  return 0;
}

// Bytes at the end that may be the beginning of a character.
size_t unfinished(std::string_view text) {
  for (size_t n = 1; n <= 3 && n <= text.size(); ++n) {
    const auto c = static_cast<unsigned char>(text[text.size() - n]);
    if ((c & 0xc0) == 0x80) continue;
    return (c >= 0xc0 && n < 2) || (c >= 0xe0 && n < 3) || (c >= 0xf0 && n < 4) ? n : 0;
  }
  return 0;
}

}  // namespace

ssize_t StandardStreams::write(void* cookie, const char* data, size_t size) {
  auto& stream = *static_cast<Stream*>(cookie);
  std::string text = std::exchange(stream.cut, {}) + std::string(data, size);
  stream.cut = text.substr(text.size() - unfinished(text));
  text.resize(text.size() - stream.cut.size());
  const bool toStart = stream.descriptor == 2 && text.starts_with('\r');  // progress draws its line anew
  const int error = writeAll(stream.descriptor, (toStart ? "\r" : "") + visible(std::string_view(text).substr(toStart), true));
  if (stream.descriptor == 2 || error == 0) return static_cast<ssize_t>(size);
  stream.error = error;
  return 0;
}

FILE* StandardStreams::open(Stream& stream) {
  FILE* file = ::fopencookie(&stream, "w", {nullptr, &StandardStreams::write, nullptr, nullptr});
  if (!file) return stream.plain;
  std::setvbuf(file, nullptr, stream.descriptor == 2 ? _IONBF : ::isatty(stream.descriptor) ? _IOLBF : _IOFBF, BUFSIZ);
  return file;
}

StandardStreams::StandardStreams() {
  for (const int descriptor : {0, 1, 2})
    if (::fcntl(descriptor, F_GETFD) < 0) static_cast<void>(::open("/dev/null", descriptor == 2 ? O_WRONLY : O_RDONLY));
  stdout = open(out_);
  stderr = open(err_);
  cout_ = std::cout.rdbuf(&outBuffer_);
  cerr_ = std::cerr.rdbuf(&errBuffer_);
}

StandardStreams::~StandardStreams() {
  std::cout.rdbuf(cout_);
  std::cerr.rdbuf(cerr_);
  for (const auto& [stream, plain] : {std::pair{&stdout, out_.plain}, {&stderr, err_.plain}}) {
    if (*stream == plain) continue;
    std::fclose(*stream);
    *stream = plain;
  }
}

int StandardStreams::finish(int exitCode) {
  std::fflush(stdout);
  if (!out_.cut.empty()) out_.error = std::max(out_.error, writeAll(1, visible(std::exchange(out_.cut, {}))));
  if (out_.error == 0) return exitCode;
  const Error error = fail(ErrorCode::kIo, "cannot write the standard output: {}", std::strerror(out_.error));
  return std::max<int>(exitCode, report(error));
}

}  // namespace qc::tools
