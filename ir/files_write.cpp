#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "ir/files.h"
#include "ir/files_internal.h"
#include "ir/signed_index.h"

namespace qc {

namespace {

using FileId = std::pair<dev_t, ino_t>;
FileId idOf(const struct stat& info) { return {info.st_dev, info.st_ino}; }

std::atomic<bool> protecting{false};
std::mutex inputsMutex;
std::set<FileId>& inputs() {
  static auto* const set = new std::set<FileId>;
  return *set;
}

// ---- where a path leads -----------------------------------------------------------------------------------------------------------

struct Target {
  std::shared_ptr<const Descriptor> folder;
  std::string name;
  std::optional<struct stat> there;
  bool through = false;  // a device or a pipe
};

Failure cannotWrite(const std::string& path, std::string_view why) { return fail(ErrorCode::kIo, "cannot write '{}': {}", path, why); }

// Follows links at the end of the path, also one that leads to nothing yet.
Result<Target> targetOf(const std::string& path) {
  if (path.find('\0') != std::string::npos) return fail(ErrorCode::kInvalidArgument, "a path with a NUL character");
  struct stat whole{}, out{};
  const bool exists = ::stat(path.c_str(), &whole) == 0;
  const bool through = exists && !S_ISREG(whole.st_mode);
  if (exists && S_ISDIR(whole.st_mode)) return cannotWrite(path, "it is a folder").help("name a file in it");
  if (through && !S_ISCHR(whole.st_mode) && !S_ISFIFO(whole.st_mode))
    return cannotWrite(path, fmt::format("it is {}", kindOfFile(whole.st_mode)));
  if (exists && ::fstat(STDOUT_FILENO, &out) == 0 && idOf(out) == idOf(whole) && (!S_ISCHR(whole.st_mode) || ::isatty(STDOUT_FILENO)))
    return cannotWrite(path, "it is the standard output, which carries the report").help("name a file");
  if (exists && isInput(whole)) return cannotWrite(path, "it is an input of this command").help("name another output");
  if (through) return Target{nullptr, path, whole, true};
  std::string at = path;
  for (int links = 0; links < 40; ++links) {
    const std::filesystem::path file(at);
    Target target{nullptr, file.filename().string(), std::nullopt, false};
    if (target.name.empty() || target.name == "." || target.name == "..")
      return cannotWrite(path, at.empty() ? "the path is empty" : "it is a folder").help("name a file");
    auto folder = openFolder(file.parent_path().string());
    if (!folder)
      return cannotWrite(path, std::strerror(errno)).help(fmt::format("create the folder '{}' first", file.parent_path().string()));
    target.folder = std::make_shared<const Descriptor>(*std::move(folder));
    struct stat info{};
    if (::fstatat(**target.folder, target.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT) return cannotWrite(path, std::strerror(errno));
      if (exists) break;
      return target;
    }
    if (!S_ISLNK(info.st_mode)) {
      if (!exists || idOf(info) != idOf(whole)) break;
      if (::faccessat(**target.folder, target.name.c_str(), W_OK, AT_EACCESS) != 0) return cannotWrite(path, std::strerror(errno));
      target.there = info;
      return target;
    }
    std::string next(4096, '\0');
    const ssize_t n = ::readlinkat(**target.folder, target.name.c_str(), next.data(), next.size());
    if (n <= 0) return cannotWrite(path, std::strerror(errno));
    next.resize(usize(n));
    at = (file.parent_path() / next).string();
  }
  return cannotWrite(path, "it is a link that cannot be followed");
}

}  // namespace

void noteInput(const struct stat& file) {
  if (!protecting) return;
  const std::lock_guard lock(inputsMutex);
  inputs().insert(idOf(file));
}

bool isInput(const struct stat& file) {
  const std::lock_guard lock(inputsMutex);
  return inputs().contains(idOf(file));
}

void protectInputs() { protecting = true; }

void releaseInput(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return;
  const std::lock_guard lock(inputsMutex);
  inputs().erase(idOf(info));
}

// ---- one file ---------------------------------------------------------------------------------------------------------------------

OutputFile::OutputFile() = default;
OutputFile::OutputFile(OutputFile&&) noexcept = default;
OutputFile::~OutputFile() {
  if (temporary_) removeTemporary(*temporary_);
}

Failure OutputFile::failed(std::string_view what) const {
  return fail(ErrorCode::kIo, "cannot {} '{}': {}", what, path_, std::strerror(errno));
}

Result<OutputFile> OutputFile::beside(std::shared_ptr<const Descriptor> folder, std::string path, std::string name, unsigned mode) {
  OutputFile file;
  file.path_ = std::move(path);
  file.name_ = std::move(name);
  file.folder_ = std::move(folder);
  file.temporary_ = newTemporary(**file.folder_, file.name_, false);
  Temporary& t = *file.temporary_;
  file.descriptor_ = Descriptor(::openat(t.parent, t.name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!file.descriptor_) return cannotWrite(file.path_, std::strerror(errno));
  file.open_ = true;
  ::flock(*file.descriptor_, LOCK_EX | LOCK_NB);
  return file;
}

Result<OutputFile> OutputFile::create(const std::string& path) {
  QC_ASSIGN(Target target, targetOf(path));
  if (target.through) {
    OutputFile file;
    file.path_ = path;
    file.descriptor_ = Descriptor(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!file.descriptor_ && errno == ENXIO) return cannotWrite(path, "nobody reads this pipe");
    if (!file.descriptor_) return file.failed("write");
    struct stat info{};
    if (::fstat(*file.descriptor_, &info) != 0 || idOf(info) != idOf(*target.there)) return cannotWrite(path, "it was replaced meanwhile");
    ::fcntl(*file.descriptor_, F_SETFL, O_WRONLY);  // whoever reads may be slow
    file.open_ = true;
    return file;
  }
  QC_ASSIGN(OutputFile file, beside(std::move(target.folder), path, std::move(target.name), 0666));
  if (target.there) ::fchmod(*file.descriptor_, target.there->st_mode & 0777);
  return file;
}

Result<OutputFile> OutputFile::createPrivate(std::shared_ptr<const Descriptor> folder, const std::string& name) {
  QC_ASSIGN(OutputFile file, beside(std::move(folder), name, name, 0600));
  file.flush_ = false;
  return file;
}

Status OutputFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(*descriptor_, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("write");
    bytes.remove_prefix(usize(n));
  }
  return {};
}

Status OutputFile::finish() {
  if (!std::exchange(open_, false)) return {};
  if (temporary_ && flush_ && ::fsync(*descriptor_) != 0) return failed("write");
  if (::close(descriptor_.release()) != 0) return failed("write");
  return {};
}

Status OutputFile::publish() {
  QC_TRY(finish());
  if (!temporary_) return {};
  if (::renameat(temporary_->parent, temporary_->name, temporary_->parent, name_.c_str()) != 0) return failed("replace");
  temporary_.reset();
  return {};
}

Status writeFileAtomically(const std::string& path, std::string_view bytes) {
  QC_ASSIGN(OutputFile file, OutputFile::create(path));
  QC_TRY(file.write(bytes));
  return file.publish();
}

// ---- several files ----------------------------------------------------------------------------------------------------------------

Status OutputFiles::add(const std::string& path, const std::vector<std::string_view>& parts) {
  constexpr size_t kFlushedAlone = 64;  // flushing each of thousands takes minutes
  QC_ASSIGN(OutputFile file, OutputFile::create(path));
  for (const std::string_view part : parts) QC_TRY(file.write(part));
  file.flush_ = files_.size() < kFlushedAlone;
  QC_TRY(file.finish());
  // One descriptor for all files of a folder.
  struct stat last{}, own{};
  if (file.folder_ && !files_.empty() && files_.back().folder_ && ::fstat(**files_.back().folder_, &last) == 0 &&
      ::fstat(**file.folder_, &own) == 0 && idOf(last) == idOf(own)) {
    file.temporary_->parent = **files_.back().folder_;
    file.folder_ = files_.back().folder_;
  }
  files_.push_back(std::move(file));
  return {};
}

Status OutputFiles::publish() {
  for (const OutputFile& file : files_)
    if (file.temporary_ && !file.flush_) {
      const Descriptor any(::openat(file.temporary_->parent, file.temporary_->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
      if (!any || ::syncfs(*any) != 0) return file.failed("write");
      break;
    }
  for (OutputFile& file : files_) QC_TRY(file.publish());
  files_.clear();
  return {};
}

Status checkOutput(const std::string& path) { return checkOutputs({path}); }

Status checkOutputs(const std::vector<std::string>& paths) {
  struct Folder {
    std::shared_ptr<const Descriptor> descriptor;
    std::vector<std::string> names;
  };
  std::set<std::pair<FileId, std::string>> seen;
  std::map<FileId, Folder> folders;
  std::vector<const std::string*> files;
  for (const std::string& path : paths) {
    QC_ASSIGN(const Target target, targetOf(path));
    if (target.through) {
      if (::access(path.c_str(), W_OK) != 0) return cannotWrite(path, std::strerror(errno));
      continue;
    }
    struct stat folder{};
    if (::fstat(**target.folder, &folder) != 0) return cannotWrite(path, std::strerror(errno));
    if (!seen.emplace(idOf(folder), target.name).second) return cannotWrite(path, "two outputs would be this file").help("name two files");
    Folder& known = folders[idOf(folder)];
    if (!known.descriptor) known.descriptor = target.folder;
    known.names.push_back(target.name);
    files.push_back(&path);
  }
  for (const auto& [id, folder] : folders) removeLeftovers(**folder.descriptor, folder.names);
  for (const std::string* path : files) QC_TRY(OutputFile::create(*path));  // goes at once
  return {};
}

}  // namespace qc
