// Compiled kernels on disk, one file each under a hash of all that the code depends on: the kernel's signature, the instruction sets of
// the target, the version of LLVM and the build of this very program.  The cache is a memory, never a source of errors: a file that is
// missing, damaged or of another version is a miss, and what cannot be written is not remembered.
//
// The folder holds code that will run: it is created for its owner alone, and not used when others may write to it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "codegen/jit.h"

namespace qc {

class ObjectCache {
 public:
  // An empty folder or a bound of 0: no cache.  Never fails: a folder that cannot be used gives a cache that finds nothing.
  explicit ObjectCache(std::string folder = "", int64_t maxBytes = int64_t{256} << 20);

  // $QC_CACHE_DIR, or qcompile under $XDG_CACHE_HOME or ~/.cache; empty if there is none of these.
  static std::string defaultFolder();
  // What a key has in common with all others of this program: versions and build.
  static std::string programVersion();

  bool enabled() const { return !folder_.empty(); }
  const std::string& folder() const { return folder_; }

  // The object's symbol is symbolFor(key), whoever compiled it.
  std::optional<KernelObject> find(std::string_view key) const;
  void store(std::string_view key, const KernelObject& object) const;
  // Removes the files used longest ago, down to three quarters of the bound, when all together pass it.
  void prune() const;

  static std::string symbolFor(std::string_view key);  // "k" and 32 hex digits

 private:
  std::string pathFor(std::string_view key) const;
  std::string folder_;
  int64_t maxBytes_;
};

// The same in the memory of this process, for models that are compiled several times in slightly different forms, as those are that
// calibration samples run through.  Any thread may use it.
class ObjectMemory {
 public:
  static ObjectMemory& ofProcess();

  std::optional<KernelObject> find(const std::string& key);
  void store(const std::string& key, const KernelObject& object);  // forgets all others when they become too many

 private:
  std::mutex mutex_;
  std::map<std::string, KernelObject> objects_;
  size_t bytes_ = 0;
};

}  // namespace qc
