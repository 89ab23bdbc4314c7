#include "ir/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace qc {

Result<std::string> readFile(const std::string& path, int64_t maxBytes) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return fail(ErrorCode::kNotFound, "cannot open '{}': {}", path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kInvalidArgument, "'{}' is not a regular file", path);
  if (info.st_size > maxBytes)
    return fail(ErrorCode::kResource, "'{}' has {} bytes, more than the limit of {}", path, info.st_size, maxBytes);
  std::ifstream file(path, std::ios::binary);
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  if (!file.read(bytes.data(), info.st_size)) return fail(ErrorCode::kIo, "cannot read '{}'", path);
  return bytes;
}

Status writeFileAtomically(const std::string& path, std::string_view bytes) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const auto failed = [&](const char* what) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    ::unlink(temporary.c_str());
    return fail(ErrorCode::kIo, "cannot {} '{}': {}", what, path, std::strerror(error));
  };
  if (fd < 0) return failed("create");
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("write");
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  if (::fsync(fd) != 0) return failed("flush");
  ::close(fd);
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return fail(ErrorCode::kIo, "cannot replace '{}': {}", path, std::strerror(error));
  }
  return {};
}

void removeLeftovers(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path file(path);
  const std::string prefix = file.filename().string() + ".";
  for (fs::directory_iterator it(file.has_parent_path() ? file.parent_path() : fs::path("."), error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".tmp") && name.find_first_not_of("0123456789", prefix.size()) == name.size() - 4)
      fs::remove(it->path(), error);
  }
}

}  // namespace qc
