// Files, read and written.  Every reader and writer of the product goes through here.
//
// Read: regular files only (a pipe or device would block or never end), and no more than memory allows: a size is a claim until it has been
// compared with a limit.
// Written: into a temporary file beside the target, which is renamed when it is complete, so that a reader sees the old file or the new one
// and never half of it.  Links at the target are followed; only regular files are replaced; devices and pipes are written through.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ir/status.h"

namespace qc {

struct Temporary;
struct ForgetTemporary {
  void operator()(Temporary* t) const;
};
using TemporaryEntry = std::unique_ptr<Temporary, ForgetTemporary>;

// An open descriptor, closed with its owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  int operator*() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

// A regular file that is read at offsets; what is not read takes no memory.  Any thread may use it.
class InputFile {
 public:
  static Result<InputFile> open(const std::string& path);
  // `name` is for messages.  Refuses what is not a regular file, as open() does.
  static Result<InputFile> of(Descriptor descriptor, std::string name);

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  Status read(uint64_t offset, void* data, size_t bytes) const;
  // At most `bytes`, fewer at the end of the file.
  Result<std::string> head(uint64_t offset, size_t bytes) const;
  // All of it; an error if it has more than maxBytes, or than memory allows.
  Result<std::string> whole(int64_t maxBytes) const;

 private:
  InputFile(std::string path, Descriptor descriptor, uint64_t size)
      : path_(std::move(path)), descriptor_(std::move(descriptor)), size_(size) {}
  std::string path_;
  Descriptor descriptor_;
  uint64_t size_;
};

Result<std::string> readFile(const std::string& path, int64_t maxBytes = int64_t{1} << 40);

// A file whose path was named by a model: relative to `folder`, and beneath it whatever links and whoever renames on the way.  It is walked
// folder by folder, each opened in the one before.
Result<InputFile> openBeneath(const Descriptor& folder, const std::string& path);
Result<Descriptor> openFolder(const std::string& path);

// A file that is being written.  Destroyed before publish(), it leaves nothing behind.
class OutputFile {
 public:
  static Result<OutputFile> create(const std::string& path);
  // A file of this folder, readable by its owner alone, and not flushed to disk: for what may be lost.
  static Result<OutputFile> createPrivate(std::shared_ptr<const Descriptor> folder, const std::string& name);
  OutputFile(OutputFile&&) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  Status write(std::string_view bytes);
  Status finish();   // no more is written; reports what the disk had to say
  Status publish();  // finish(), then the file stands at its path

 private:
  friend class OutputFiles;
  OutputFile();
  static Result<OutputFile> beside(std::shared_ptr<const Descriptor> folder, std::string path, std::string name, unsigned mode);
  Failure failed(std::string_view what) const;

  std::string path_, name_;  // as given, and in the folder
  std::shared_ptr<const Descriptor> folder_;
  Descriptor descriptor_;
  TemporaryEntry temporary_;  // none: written through to a device or pipe
  bool flush_ = true, open_ = false;
};

Status writeFileAtomically(const std::string& path, std::string_view bytes);

// Several files that appear together, when all of them are complete, or not at all.
class OutputFiles {
 public:
  Status add(const std::string& path, const std::vector<std::string_view>& parts);
  Status publish();

 private:
  std::vector<OutputFile> files_;
};

// Whether create() and publish() would succeed as things stand, to be asked before work that takes long.  Also removes the temporary files
// that writers of this path left when they were killed.
Status checkOutput(const std::string& path);
// The same of several: no two may be one file.
Status checkOutputs(const std::vector<std::string>& paths);

// A folder for temporary files under $TMPDIR, with a name nobody can guess and for this user alone.  It goes with the files in it, and what
// killed processes left of this stem goes before.
class TemporaryFolder {
 public:
  static Result<TemporaryFolder> create(const std::string& stem);
  TemporaryFolder(TemporaryFolder&&) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder();
  const std::string& path() const;

 private:
  struct Impl;
  explicit TemporaryFolder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// For programs, once at the start.  From then on no file that was read is replaced:
void protectInputs();
void releaseInput(const std::string& path);  // but this one, which is ours to go on with
// and SIGINT, SIGTERM and SIGHUP remove what is half written before they end the program, while a broken pipe (SIGPIPE) and a limit on the
// size of files (SIGXFSZ) are errors of the write that meets them.
void removeTemporariesOnSignals();
// The handler of those that end the program, for one that has its own for the first.
void endBySignal(int signal);

}  // namespace qc
