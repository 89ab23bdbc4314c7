#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>
#include <unordered_set>

#include "ir/files.h"
#include "ir/files_internal.h"
#include "ir/signed_index.h"

namespace qc {
namespace {

constexpr std::string_view kSuffix = ".tmp";
constexpr size_t kLongestStem = 180;

std::atomic<Temporary*> list{nullptr};
std::atomic<int64_t> idle{0};  // entries that may be used again: of thousands that are in use none is looked at

std::string randomHex() {
  uint64_t value = 0;
  while (::getrandom(&value, sizeof(value), 0) != sizeof(value)) continue;
  return fmt::format("{:016x}", value);
}

std::string shortened(const std::string& stem) { return stem.substr(0, kLongestStem); }

struct Leftover {
  std::string_view stem;
  pid_t writer;
};

// What the name of a temporary file of ours says; none: it is not one.
std::optional<Leftover> leftoverOf(std::string_view file) {
  constexpr size_t kRandom = 17;  // with its point
  if (!file.starts_with('.') || !file.ends_with(kSuffix)) return std::nullopt;
  file.remove_prefix(1);
  file.remove_suffix(kSuffix.size());
  if (file.size() < kRandom) return std::nullopt;
  const std::string_view random = file.substr(file.size() - kRandom);
  if (random[0] != '.' || random.find_first_not_of("0123456789abcdef", 1) != random.npos) return std::nullopt;
  file.remove_suffix(kRandom);
  const size_t point = file.rfind('.');
  if (point == file.npos) return std::nullopt;
  pid_t pid = 0;
  const char* end = file.data() + file.size();
  const auto [stop, error] = std::from_chars(file.data() + point + 1, end, pid);
  if (error != std::errc() || stop != end || pid <= 0) return std::nullopt;
  return Leftover{file.substr(0, point), pid};
}

// With nothing but system calls: handlers of signals use it.
void removeFolder(int parent, const char* name) {
  const int folder = ::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0) return;
  alignas(dirent64) char buffer[4096];
  for (long n; (n = ::syscall(SYS_getdents64, folder, buffer, sizeof(buffer))) > 0;)
    for (long at = 0; at < n;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer + at);
      ::unlinkat(folder, entry->d_name, 0);
      at += entry->d_reclen;
    }
  ::close(folder);
  ::unlinkat(parent, name, AT_REMOVEDIR);
}

}  // namespace

void ForgetTemporary::operator()(Temporary* t) const {
  t->live = false;
  t->taken = false;
  ++idle;
}

TemporaryEntry newTemporary(int parent, const std::string& stem, bool isFolder) {
  TemporaryEntry entry;
  for (Temporary* t = idle > 0 ? list.load() : nullptr; t && !entry; t = t->next)
    if (bool taken = false; t->taken.compare_exchange_strong(taken, true)) entry.reset(t);
  if (entry) --idle;
  if (!entry) {
    entry.reset(new Temporary);
    entry->next = list;
    while (!list.compare_exchange_weak(entry->next, entry.get())) continue;
  }
  const std::string name = fmt::format(".{}.{}.{}{}", shortened(stem), ::getpid(), randomHex(), kSuffix);
  entry->isFolder = isFolder;
  entry->parent = parent;
  std::memcpy(entry->name, name.c_str(), name.size() + 1);
  entry->live = true;
  return entry;
}

void removeTemporary(const Temporary& t) {
  t.isFolder ? removeFolder(t.parent, t.name) : static_cast<void>(::unlinkat(t.parent, t.name, 0));
}

// A writer holds a lock on its file, so that one on another machine, or behind another table of processes, is seen to be alive as well.
void removeLeftovers(int folder, const std::vector<std::string>& stems) {
  std::unordered_set<std::string> wanted;
  for (const std::string& stem : stems) wanted.insert(shortened(stem));
  std::error_code error;
  for (std::filesystem::directory_iterator it(fmt::format("/proc/self/fd/{}", folder), error), end; !error && it != end;
       it.increment(error)) {
    const std::string file = it->path().filename().string();
    const auto found = leftoverOf(file);
    if (!found || !wanted.contains(std::string(found->stem)) || ::kill(found->writer, 0) == 0 || errno != ESRCH) continue;
    const Descriptor left(::openat(folder, file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat info{};
    if (!left || ::fstat(*left, &info) != 0 || info.st_uid != ::geteuid() || ::flock(*left, LOCK_EX | LOCK_NB) != 0) continue;
    if (S_ISREG(info.st_mode)) ::unlinkat(folder, file.c_str(), 0);
    if (S_ISDIR(info.st_mode)) removeFolder(folder, file.c_str());
  }
}

void removeTemporaries() {
  for (const Temporary* t = list; t; t = t->next)
    if (t->live) removeTemporary(*t);
}

void endBySignal(int signal) {
  removeTemporaries();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void removeTemporariesOnSignals() {
  const auto install = [](int signal, void (*handler)(int)) {
    struct sigaction action{}, before{};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler != SIG_IGN) ::sigaction(signal, &action, nullptr);
  };
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) install(signal, endBySignal);
  // Not ignored, which programs that we start would inherit.
  for (const int signal : {SIGPIPE, SIGXFSZ}) install(signal, [](int) {});
}

struct TemporaryFolder::Impl {
  Descriptor parent;
  std::string path;
  TemporaryEntry entry;
  ~Impl() {
    if (entry) removeTemporary(*entry);
  }
};

TemporaryFolder::TemporaryFolder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TemporaryFolder::TemporaryFolder(TemporaryFolder&&) noexcept = default;
TemporaryFolder::~TemporaryFolder() = default;
const std::string& TemporaryFolder::path() const { return impl_->path; }

Result<TemporaryFolder> TemporaryFolder::create(const std::string& stem) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
  if (error) return fail(ErrorCode::kIo, "there is no folder for temporary files: {}", error.message()).help("set TMPDIR");
  auto impl = std::make_unique<Impl>();
  QC_ASSIGN(impl->parent, openFolder(parent.string()));
  removeLeftovers(*impl->parent, {stem});
  TemporaryEntry entry = newTemporary(*impl->parent, stem, true);
  impl->path = (parent / entry->name).string();
  if (::mkdirat(entry->parent, entry->name, 0700) != 0)
    return fail(ErrorCode::kIo, "cannot create the folder '{}': {}", impl->path, std::strerror(errno)).help("set TMPDIR");
  impl->entry = std::move(entry);
  return TemporaryFolder(std::move(impl));
}

}  // namespace qc
