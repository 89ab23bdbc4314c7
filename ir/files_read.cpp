#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>

#include "ir/files.h"
#include "ir/files_internal.h"
#include "ir/memory_limit.h"
#include "ir/signed_index.h"

namespace qc {

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (number_ >= 0 && this != &other) ::close(number_);
  number_ = std::exchange(other.number_, -1);
  return *this;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

std::string_view kindOfFile(unsigned mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return S_ISLNK(mode) ? "a link" : "a file";
}

Result<InputFile> InputFile::open(const std::string& path) {
  if (path.find('\0') != std::string::npos) return fail(ErrorCode::kInvalidArgument, "a path with a NUL character");
  // Looked at before it is opened, since opening a device can do things; and again afterwards, since only that counts.
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return fail(ErrorCode::kNotFound, "there is no file '{}'", path);
    return fail(ErrorCode::kNotFound, "cannot open '{}': {}", path, std::strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kInvalidArgument, "'{}' is {}, not a regular file", path, kindOfFile(info.st_mode));
  Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!descriptor) return fail(ErrorCode::kNotFound, "cannot open '{}': {}", path, std::strerror(errno));
  return of(std::move(descriptor), path);
}

Result<InputFile> InputFile::of(Descriptor descriptor, std::string name) {
  struct stat info{};
  if (::fstat(*descriptor, &info) != 0) return fail(ErrorCode::kIo, "cannot read '{}': {}", name, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kInvalidArgument, "'{}' is {}, not a regular file", name, kindOfFile(info.st_mode));
  noteInput(info);
  return InputFile(std::move(name), std::move(descriptor), static_cast<uint64_t>(info.st_size));
}

Status InputFile::read(uint64_t offset, void* data, size_t bytes) const {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = ::pread(*descriptor_, static_cast<char*>(data) + done, bytes - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(ErrorCode::kIo, "cannot read '{}': {}", path_, std::strerror(errno));
    if (n == 0) return fail(ErrorCode::kInvalidData, "'{}' is truncated", path_);
    done += usize(n);
  }
  return {};
}

Result<std::string> InputFile::head(uint64_t offset, size_t bytes) const {
  std::string text(usize(std::min<uint64_t>(bytes, size_ - std::min(offset, size_))), '\0');
  QC_TRY(read(offset, text.data(), text.size()));
  return text;
}

Result<std::string> InputFile::whole(int64_t maxBytes) const {
  if (size_ > static_cast<uint64_t>(maxBytes))
    return fail(ErrorCode::kResource, "'{}' has {} bytes, more than the limit of {}", path_, size_, maxBytes);
  QC_TRY(checkMemory(static_cast<int64_t>(size_), fmt::format("reading '{}'", path_)));
  return head(0, usize(size_));
}

Result<std::string> readFile(const std::string& path, int64_t maxBytes) {
  QC_ASSIGN(const InputFile file, InputFile::open(path));
  return file.whole(maxBytes);
}

Result<Descriptor> openFolder(const std::string& path) {
  Descriptor folder(::open(path.empty() ? "." : path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return fail(ErrorCode::kNotFound, "cannot open the folder '{}': {}", path, std::strerror(errno));
  return folder;
}

// What a link names is walked like the rest of the path, and '..' leads back to the folder that we came from, which stays open: no name is
// ever resolved by the system over more than one step, so that nothing can be exchanged in between.
Result<InputFile> openBeneath(const Descriptor& folder, const std::string& path) {
  constexpr int kMaxLinks = 40, kDeepest = 64;
  const auto outside = [&]() { return fail(ErrorCode::kInvalidModel, "'{}' is outside the model's folder", path); };
  if (path.empty() || path.find('\0') != std::string::npos) return outside();
  std::deque<std::string> rest;
  const auto push = [&](const std::string& text) {  // in front; false: absolute
    const std::filesystem::path parts(text);
    if (parts.is_absolute()) return false;
    rest.insert(rest.begin(), parts.begin(), parts.end());
    return true;
  };
  if (!push(path)) return outside();
  std::vector<Descriptor> way;
  for (int links = 0; !rest.empty();) {
    const std::string part = std::move(rest.front());
    rest.pop_front();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (way.empty()) return outside();
      way.pop_back();
      continue;
    }
    const int here = way.empty() ? *folder : *way.back();
    Descriptor next(::openat(here, part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat info{};
    if (!next && errno == ENOENT) return fail(ErrorCode::kNotFound, "'{}' is not there", path);
    if (!next || ::fstat(*next, &info) != 0) return fail(ErrorCode::kNotFound, "cannot open '{}': {}", path, std::strerror(errno));
    if (S_ISLNK(info.st_mode)) {
      std::string target(4096, '\0');
      const ssize_t n = ::readlinkat(*next, "", target.data(), target.size());
      if (n <= 0 || usize(n) == target.size() || ++links > kMaxLinks)
        return fail(ErrorCode::kInvalidModel, "'{}' is a link that cannot be followed", path);
      target.resize(usize(n));
      if (!push(target)) return outside();
      continue;
    }
    if (S_ISDIR(info.st_mode)) {
      if (way.size() >= kDeepest) return fail(ErrorCode::kInvalidModel, "'{}' is more than {} folders deep", path, kDeepest);
      way.push_back(std::move(next));
      continue;
    }
    if (!S_ISREG(info.st_mode) || !rest.empty())
      return fail(ErrorCode::kInvalidModel, "'{}' is {}, not a regular file", path, kindOfFile(info.st_mode));
    Descriptor file(::openat(here, part.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!file) return fail(ErrorCode::kIo, "cannot read '{}': {}", path, std::strerror(errno));
    return InputFile::of(std::move(file), path);
  }
  return fail(ErrorCode::kInvalidModel, "'{}' is a folder, not a regular file", path);
}

}  // namespace qc
