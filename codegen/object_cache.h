// Compiled kernels on disk, one file each under a hash of all that the code depends on: the kernel's signature, the instruction sets of
// the target, the version of LLVM and the build of this very program.  The cache is a memory, never a source of errors: a file that is
// missing, damaged or of another version is a miss, and what cannot be written is not remembered.
//
// The folder holds code that will run: it is created for its owner alone.  Folder and files count only where they belong to us or to root
// and nobody else may write to them; anything else in their place, a pipe or a link too, is a miss.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "codegen/jit.h"
#include "ir/files.h"

namespace qc {

class ObjectCache {
 public:
  // An empty folder or a bound of 0: no cache.  Never fails: a folder that cannot be used gives a cache that finds nothing.
  explicit ObjectCache(std::string folder = "", int64_t maxBytes = int64_t{256} << 20);

  // $QC_CACHE_DIR, or qcompile under $XDG_CACHE_HOME or ~/.cache; empty if there is none of these.
  static std::string defaultFolder();
  // What a key has in common with all others of this program: versions and build.
  static std::string programVersion();

  bool enabled() const { return opened_ != nullptr; }
  const std::string& folder() const { return folder_; }

  // The object's symbol is symbolFor(key), whoever compiled it.
  std::optional<KernelObject> find(std::string_view key) const;
  // Prunes each time that a sixteenth of the bound has been stored, which is how far the folder may pass it.
  void store(std::string_view key, const KernelObject& object) const;
  // Removes the files used longest ago, down to three quarters of the bound, when all together take more of the disk.
  void prune() const;

  static std::string symbolFor(std::string_view key);  // "k" and 32 hex digits

 private:
  bool isTimeToPrune(int64_t stored) const;

  std::string folder_;
  std::shared_ptr<const Descriptor> opened_;  // what was looked at is what is used, whoever renames the folder
  int64_t maxBytes_;
};

// The bytes of a file for this key; and what such bytes hold, unless they are damaged or were made for another key.
std::string encodeObject(std::string_view key, const KernelObject& object);
std::string sealedObject(std::string_view payload);  // with the head and checksum of such a file
std::optional<KernelObject> decodeObject(std::string_view bytes, std::string_view key);

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
