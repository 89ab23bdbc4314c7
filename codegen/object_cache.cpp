#include "codegen/object_cache.h"

#include <fcntl.h>
#include <link.h>
#include <llvm/ADT/StringExtras.h>
#include <llvm/Support/SHA256.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

namespace qc {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "qcobject1\n";
constexpr std::string_view kSuffix = ".qco";
constexpr const char* kStored = "stored";  // a file as long as the KiB that were stored since the folder was last looked through
constexpr int64_t kKiB = 1024;
constexpr size_t kDigest = 32, kLargest = 64 << 20;

std::string sha256(std::string_view text) {
  llvm::SHA256 hash;
  hash.update(llvm::StringRef(text.data(), text.size()));
  const auto digest = hash.final();
  return std::string(reinterpret_cast<const char*>(digest.data()), digest.size());
}

std::string hex(std::string_view bytes) { return llvm::toHex(llvm::StringRef(bytes.data(), bytes.size()), /*LowerCase=*/true); }

// The linker's build id of the program or library that this code is part of; empty where it has none.
std::string buildId() {
  struct Search {
    ElfW(Addr) here;
    std::string id;
  } search{reinterpret_cast<ElfW(Addr)>(&buildId), {}};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& s = *static_cast<Search*>(data);
        const ElfW(Phdr)* headers = info->dlpi_phdr, *end = headers + info->dlpi_phnum;
        const bool holdsUs = std::any_of(headers, end, [&](const ElfW(Phdr) & h) {
          const ElfW(Addr) begin = info->dlpi_addr + h.p_vaddr;
          return h.p_type == PT_LOAD && s.here >= begin && s.here < begin + h.p_memsz;
        });
        if (!holdsUs) return 0;
        for (const ElfW(Phdr)* h = headers; h != end; ++h) {
          if (h->p_type != PT_NOTE) continue;
          const char* note = reinterpret_cast<const char*>(info->dlpi_addr + h->p_vaddr);
          const char* last = note + h->p_memsz;
          while (note + sizeof(ElfW(Nhdr)) <= last) {
            ElfW(Nhdr) head;
            std::memcpy(&head, note, sizeof(head));
            const char *name = note + sizeof(head), *desc = name + (head.n_namesz + 3) / 4 * 4;
            if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) s.id.assign(desc, head.n_descsz);
            note = desc + (head.n_descsz + 3) / 4 * 4;
          }
        }
        return 1;
      },
      &search);
  return search.id;
}

// Ours or the system's, and nobody else can write to it.
bool isSafe(const struct stat& info) { return (info.st_uid == ::geteuid() || info.st_uid == 0) && (info.st_mode & 022) == 0; }

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <class T>
bool take(std::string_view& in, T& value) {
  if (in.size() < sizeof(T)) return false;
  std::memcpy(&value, in.data(), sizeof(T));
  in.remove_prefix(sizeof(T));
  return true;
}

std::string fileFor(std::string_view key) {
  return hex(sha256(fmt::format("{}\n{}", ObjectCache::programVersion(), key))) + std::string(kSuffix);
}

}  // namespace

ObjectCache::ObjectCache(std::string folder, int64_t maxBytes) : folder_(std::move(folder)), maxBytes_(maxBytes) {
  std::error_code error;
  if (folder_.empty() || maxBytes_ <= 0 || buildId().empty()) return;
  const mode_t before = ::umask(077);
  fs::create_directories(folder_, error);
  ::umask(before);
  Descriptor opened(::open(folder_.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info{};
  if (opened && ::fstat(*opened, &info) == 0 && isSafe(info)) opened_ = std::make_shared<const Descriptor>(std::move(opened));
}

std::string ObjectCache::defaultFolder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  if (const std::string own = variable("QC_CACHE_DIR"); !own.empty()) return own;
  if (const std::string xdg = variable("XDG_CACHE_HOME"); xdg.starts_with('/')) return xdg + "/qcompile";
  if (const std::string home = variable("HOME"); home.starts_with('/')) return home + "/.cache/qcompile";
  return "";
}

std::string ObjectCache::programVersion() {
  static const std::string version = codegenVersion() + " " + hex(buildId());
  return version;
}

std::string ObjectCache::symbolFor(std::string_view key) {
  return "k" + hex(sha256(fmt::format("{}\n{}", programVersion(), key))).substr(0, 32);
}

std::optional<KernelObject> ObjectCache::find(std::string_view key) const {
  if (!enabled()) return std::nullopt;
  const std::string name = fileFor(key);
  Descriptor descriptor(::openat(**opened_, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat info{};
  if (!descriptor || ::fstat(*descriptor, &info) != 0 || !S_ISREG(info.st_mode) || !isSafe(info)) return std::nullopt;
  const auto file = InputFile::of(std::move(descriptor), name);
  const auto bytes = file ? file->whole(kLargest) : Result<std::string>(tl::make_unexpected(file.error()));
  auto object = bytes ? decodeObject(*bytes, key) : std::nullopt;
  if (object) ::utimensat(**opened_, name.c_str(), nullptr, AT_SYMLINK_NOFOLLOW);  // used now: prune() takes others first
  return object;
}

void ObjectCache::store(std::string_view key, const KernelObject& object) const {
  if (!enabled()) return;
  const std::string bytes = encodeObject(key, object);
  if (bytes.size() > kLargest) return;
  auto file = OutputFile::createPrivate(opened_, fileFor(key));
  if (file && file->write(bytes) && file->publish() && isTimeToPrune(static_cast<int64_t>(bytes.size()))) prune();
}

// A folder of many thousand files takes longer to look through than a few kernels to compile, so that is done once in so many bytes,
// whichever processes store them.
bool ObjectCache::isTimeToPrune(int64_t stored) const {
  const Descriptor counter(
      ::openat(**opened_, kStored, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600));
  struct stat info{};
  if (!counter || ::fstat(*counter, &info) != 0 || !S_ISREG(info.st_mode) || !isSafe(info)) return true;
  const std::string grown(usize(stored / kKiB + 1), '\0');
  if (::write(*counter, grown.data(), grown.size()) != static_cast<ssize_t>(grown.size())) return true;
  constexpr int64_t kSharesOfBound = 16;
  if ((static_cast<int64_t>(info.st_size + grown.size())) * kKiB < maxBytes_ / kSharesOfBound) return false;
  return ::ftruncate(*counter, 0) == 0;
}

std::optional<KernelObject> decodeObject(std::string_view bytes, std::string_view key) {
  std::string_view rest = bytes;
  if (!rest.starts_with(kMagic) || rest.size() < kMagic.size() + kDigest) return std::nullopt;
  rest.remove_prefix(kMagic.size());
  const std::string_view digest = rest.substr(0, kDigest);
  rest.remove_prefix(kDigest);
  if (sha256(rest) != digest) return std::nullopt;
  KernelObject object;
  object.symbol = ObjectCache::symbolFor(key);
  int64_t instructions = 0, keySize = 0;
  if (!take(rest, object.shape.units) || !take(rest, object.shape.scratchBytes) || !take(rest, instructions) || !take(rest, keySize))
    return std::nullopt;
  if (instructions < 0 || instructions > INT32_MAX || object.shape.units < 0 || object.shape.scratchBytes < 0) return std::nullopt;
  if (keySize != static_cast<int64_t>(key.size()) || !rest.starts_with(key)) return std::nullopt;
  rest.remove_prefix(key.size());
  object.irInstructions = static_cast<int>(instructions);
  object.bytes.assign(rest);
  return object;
}

std::string encodeObject(std::string_view key, const KernelObject& object) {
  std::string payload;
  put(payload, object.shape.units);
  put(payload, object.shape.scratchBytes);
  put(payload, int64_t{object.irInstructions});
  put(payload, static_cast<int64_t>(key.size()));
  payload += key;
  payload += object.bytes;
  return sealedObject(payload);
}

std::string sealedObject(std::string_view payload) { return fmt::format("{}{}{}", kMagic, sha256(payload), payload); }

void ObjectCache::prune() const {
  if (!enabled()) return;
  struct Entry {
    std::string name;
    std::pair<int64_t, int64_t> used;
    int64_t bytes;
  };
  std::vector<Entry> entries;
  int64_t total = 0;
  std::error_code error;
  for (fs::directory_iterator it(fmt::format("/proc/self/fd/{}", **opened_), error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    struct stat info{};
    // Ours: objects and what killed writers left.
    if (name.find(kSuffix) == std::string::npos || ::fstatat(**opened_, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(info.st_mode))
      continue;
    constexpr int64_t kBlock = 512;  // the unit of st_blocks; a small file takes more of the disk than it holds
    const int64_t bytes = std::max<int64_t>(info.st_size, info.st_blocks * kBlock);
    total += bytes;
    entries.push_back({name, {info.st_mtim.tv_sec, info.st_mtim.tv_nsec}, bytes});
  }
  if (total <= maxBytes_) return;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& e : entries) {
    if (total <= maxBytes_ / 4 * 3) return;
    if (::unlinkat(**opened_, e.name.c_str(), 0) == 0) total -= e.bytes;
  }
}

ObjectMemory& ObjectMemory::ofProcess() {
  static auto* const memory = new ObjectMemory;
  return *memory;
}

std::optional<KernelObject> ObjectMemory::find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto it = objects_.find(key);
  return it == objects_.end() ? std::nullopt : std::optional(it->second);
}

void ObjectMemory::store(const std::string& key, const KernelObject& object) {
  constexpr size_t kMaxBytes = 64 << 20;
  const std::lock_guard lock(mutex_);
  const size_t size = key.size() + object.bytes.size();
  if (bytes_ + size > kMaxBytes) {
    objects_.clear();
    bytes_ = 0;
  }
  if (objects_.emplace(key, object).second) bytes_ += size;
}

}  // namespace qc
