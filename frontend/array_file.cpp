#include "frontend/array_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>

namespace qc {
namespace {

constexpr int64_t kMaxRow = int64_t{1} << 30;
constexpr uint64_t kMaxUnpacked = uint64_t{8} << 30;
constexpr size_t kMaxHead = 64 << 10, kMaxDirectory = 64 << 20;

template <class T>
T littleEndian(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// A regular file that is read at offsets; what is not read takes no memory.
class File {
 public:
  static Result<std::shared_ptr<const File>> open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe would wait for a writer
    if (fd < 0) return fail(ErrorCode::kNotFound, "cannot open '{}': {}", path, std::strerror(errno));
    auto file = std::shared_ptr<File>(new File(path, fd));
    struct stat info{};
    if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return fail(ErrorCode::kNotFound, "'{}' is no regular file", path);
    file->size_ = static_cast<uint64_t>(info.st_size);
    return std::shared_ptr<const File>(std::move(file));
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  Status read(uint64_t offset, void* data, size_t bytes) const {
    for (size_t done = 0; done < bytes;) {
      const ssize_t n = ::pread(fd_, static_cast<char*>(data) + done, bytes - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail(ErrorCode::kIo, "cannot read '{}': {}", path_, std::strerror(errno));
      if (n == 0) return fail(ErrorCode::kInvalidData, "'{}' is truncated", path_);
      done += static_cast<size_t>(n);
    }
    return {};
  }
  // At most `bytes`, fewer at the end of the file.
  Result<std::string> head(uint64_t offset, size_t bytes) const {
    std::string text(static_cast<size_t>(std::min<uint64_t>(bytes, size_ - std::min(offset, size_))), '\0');
    QC_TRY(read(offset, text.data(), text.size()));
    return text;
  }

 private:
  File(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::string path_;
  int fd_;
  uint64_t size_ = 0;
};

int64_t rowBytes(const NpyHeader& header) {
  int64_t n = sizeOf(header.dtype);
  for (size_t d = 1; d < header.sizes.size(); ++d) n *= header.sizes[d];
  return n;
}

int64_t dataBytes(const NpyHeader& header) { return rowBytes(header) * (header.sizes.empty() ? 1 : header.sizes[0]); }

Status checkRow(const NpyHeader& header, const std::string& name) {
  if (rowBytes(header) <= kMaxRow) return {};
  return fail(ErrorCode::kResource, "a sample of '{}' has {} bytes, more than the limit of {}", name, rowBytes(header), kMaxRow)
      .help("the first axis counts the samples");
}

Tensor emptyRow(const NpyHeader& header) {
  std::vector<int64_t> sizes = header.sizes;
  if (!sizes.empty()) sizes[0] = 1;
  return Tensor(header.dtype, std::move(sizes));
}

class StoredArray final : public ArrayFile {
 public:
  StoredArray(NpyHeader header, std::shared_ptr<const File> file, uint64_t offset)
      : ArrayFile(std::move(header)), file_(std::move(file)), offset_(offset) {}
  Result<Tensor> row(int64_t i) const override {
    Tensor t = emptyRow(header_);
    QC_TRY(file_->read(offset_ + static_cast<uint64_t>(i * rowBytes(header_)), t.mutableData(), static_cast<size_t>(t.byteSize())));
    return t;
  }

 private:
  std::shared_ptr<const File> file_;
  uint64_t offset_;  // of the first element in the file
};

// A deflated member as a stream of bytes that can start again.
class Inflater {
 public:
  Inflater(std::shared_ptr<const File> file, uint64_t begin, uint64_t packed, std::string name)
      : file_(std::move(file)), begin_(begin), packed_(packed), name_(std::move(name)) {}
  ~Inflater() { stop(); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  uint64_t position() const { return position_; }
  Status restart() {
    stop();
    z_ = {};
    if (inflateInit2(&z_, -MAX_WBITS) != Z_OK) return fail(ErrorCode::kResource, "zlib has no memory for '{}'", name_);
    running_ = true;
    position_ = taken_ = 0;
    return {};
  }
  Status read(char* out, uint64_t bytes) {
    if (!running_) QC_TRY(restart());
    while (bytes > 0) {
      if (z_.avail_in == 0) {
        const size_t n = static_cast<size_t>(std::min<uint64_t>(input_.size(), packed_ - taken_));
        QC_TRY(file_->read(begin_ + taken_, input_.data(), n));
        taken_ += n;
        z_.next_in = reinterpret_cast<Bytef*>(input_.data());
        z_.avail_in = static_cast<uInt>(n);
      }
      const auto wanted = static_cast<uInt>(std::min<uint64_t>(bytes, 1u << 30));
      z_.next_out = reinterpret_cast<Bytef*>(out);
      z_.avail_out = wanted;
      const int status = ::inflate(&z_, Z_NO_FLUSH);
      const uint64_t got = wanted - z_.avail_out;
      out += got;
      bytes -= got;
      position_ += got;
      if (status == Z_OK && (got > 0 || z_.avail_in > 0 || taken_ < packed_)) continue;
      if (bytes > 0) {
        stop();
        return fail(ErrorCode::kInvalidData, "'{}' is damaged", name_);
      }
    }
    return {};
  }
  Status skipTo(uint64_t position) {
    if (!running_ || position < position_) QC_TRY(restart());
    std::vector<char> scrap(1 << 16);
    while (position_ < position) QC_TRY(read(scrap.data(), std::min<uint64_t>(scrap.size(), position - position_)));
    return {};
  }

 private:
  void stop() {
    if (running_) inflateEnd(&z_);
    running_ = false;
  }
  std::shared_ptr<const File> file_;
  uint64_t begin_, packed_, taken_ = 0, position_ = 0;
  std::string name_;
  z_stream z_{};
  bool running_ = false;
  std::array<char, 1 << 16> input_;
};

class DeflatedArray final : public ArrayFile {
 public:
  DeflatedArray(NpyHeader header, std::unique_ptr<Inflater> stream) : ArrayFile(std::move(header)), stream_(std::move(stream)) {}
  Result<Tensor> row(int64_t i) const override {
    const std::lock_guard lock(mutex_);
    Tensor t = emptyRow(header_);
    QC_TRY(stream_->skipTo(header_.dataOffset + static_cast<uint64_t>(i * rowBytes(header_))));
    QC_TRY(stream_->read(static_cast<char*>(t.mutableData()), static_cast<uint64_t>(t.byteSize())));
    return t;
  }

 private:
  mutable std::mutex mutex_;
  std::unique_ptr<Inflater> stream_;
};

// ---- zip --------------------------------------------------------------------------------------

constexpr uint32_t kEndOfDirectory = 0x06054b50, kEnd64Locator = 0x07064b50, kEndOfDirectory64 = 0x06064b50, kDirectoryEntry = 0x02014b50,
                   kLocalEntry = 0x04034b50;

struct Member {
  std::string name;
  int method = 0;
  uint64_t packed = 0, size = 0, offset = 0;  // offset: of the local header
};

Failure damagedArchive(const File& file) { return fail(ErrorCode::kInvalidData, "'{}' is no npz file, or damaged", file.path()); }

// The central directory as bytes, and how many entries it has.
Result<std::pair<std::string, uint64_t>> readDirectory(const File& file) {
  if (file.size() < 22) return damagedArchive(file);
  const uint64_t tailBegin = file.size() - std::min<uint64_t>(file.size(), 22 + 65535 + 20);
  QC_ASSIGN(const std::string tail, file.head(tailBegin, 22 + 65535 + 20));
  size_t end = tail.size() - 22;
  while (littleEndian<uint32_t>(tail.data() + end) != kEndOfDirectory) {
    if (end == 0) return damagedArchive(file);
    --end;
  }
  uint64_t entries = littleEndian<uint16_t>(tail.data() + end + 10), size = littleEndian<uint32_t>(tail.data() + end + 12),
           offset = littleEndian<uint32_t>(tail.data() + end + 16);
  if (end >= 20 && littleEndian<uint32_t>(tail.data() + end - 20) == kEnd64Locator) {
    const auto at = littleEndian<uint64_t>(tail.data() + end - 12);
    if (at > file.size() || file.size() - at < 56) return damagedArchive(file);
    QC_ASSIGN(const std::string end64, file.head(at, 56));
    if (littleEndian<uint32_t>(end64.data()) != kEndOfDirectory64) return damagedArchive(file);
    entries = littleEndian<uint64_t>(end64.data() + 32);
    size = littleEndian<uint64_t>(end64.data() + 40);
    offset = littleEndian<uint64_t>(end64.data() + 48);
  }
  if (size > kMaxDirectory || offset > file.size() || size > file.size() - offset) return damagedArchive(file);
  QC_ASSIGN(std::string directory, file.head(offset, static_cast<size_t>(size)));
  return std::pair(std::move(directory), entries);
}

// numpy writes 64-bit sizes into an extra field whenever it does not know them before.
bool readExtra(std::string_view extra, Member& m) {
  for (size_t x = 0; x + 4 <= extra.size();) {
    const size_t length = littleEndian<uint16_t>(extra.data() + x + 2);
    if (length > extra.size() - x - 4) return false;
    if (littleEndian<uint16_t>(extra.data() + x) == 1) {
      size_t f = 0;
      for (uint64_t* value : {&m.size, &m.packed, &m.offset})
        if (*value == 0xffffffffu && f + 8 <= length) {
          *value = littleEndian<uint64_t>(extra.data() + x + 4 + f);
          f += 8;
        }
    }
    x += 4 + length;
  }
  return true;
}

Result<std::vector<Member>> readMembers(const File& file) {
  QC_ASSIGN(const auto found, readDirectory(file));
  const auto& [directory, entries] = found;
  std::vector<Member> members;
  size_t at = 0;
  for (uint64_t i = 0; i < entries; ++i) {
    if (directory.size() - at < 46 || littleEndian<uint32_t>(directory.data() + at) != kDirectoryEntry) return damagedArchive(file);
    const char* entry = directory.data() + at;
    const size_t name = littleEndian<uint16_t>(entry + 28), extra = littleEndian<uint16_t>(entry + 30),
                 comment = littleEndian<uint16_t>(entry + 32);
    if (directory.size() - at - 46 < name + extra + comment) return damagedArchive(file);
    Member m{std::string(entry + 46, name), littleEndian<uint16_t>(entry + 10), littleEndian<uint32_t>(entry + 20),
             littleEndian<uint32_t>(entry + 24), littleEndian<uint32_t>(entry + 42)};
    if (!readExtra(std::string_view(entry + 46 + name, extra), m)) return damagedArchive(file);
    if (m.name.ends_with(".npy")) m.name.resize(m.name.size() - 4);
    members.push_back(std::move(m));
    at += 46 + name + extra + comment;
  }
  return members;
}

Result<std::unique_ptr<ArrayFile>> openMember(const std::shared_ptr<const File>& file, const Member& m) {
  const std::string name = file->path() + ":" + m.name;
  if (m.offset > file->size() || file->size() - m.offset < 30) return damagedArchive(*file);
  QC_ASSIGN(const std::string local, file->head(m.offset, 30));
  const uint64_t data = m.offset + 30 + littleEndian<uint16_t>(local.data() + 26) + littleEndian<uint16_t>(local.data() + 28);
  if (littleEndian<uint32_t>(local.data()) != kLocalEntry || data > file->size() || m.packed > file->size() - data)
    return damagedArchive(*file);
  if (m.method == 0) {
    QC_ASSIGN(const std::string head, file->head(data, static_cast<size_t>(std::min<uint64_t>(m.packed, kMaxHead))));
    QC_ASSIGN(NpyHeader header, parseNpyHeader(head, name));
    QC_TRY(checkRow(header, name));
    if (m.packed - header.dataOffset < static_cast<uint64_t>(dataBytes(header)))
      return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
    const uint64_t elements = data + header.dataOffset;
    return std::make_unique<StoredArray>(std::move(header), file, elements);
  }
  if (m.method != 8) return fail(ErrorCode::kUnsupported, "'{}': compression method {}", name, m.method);
  // deflate cannot grow data more than about a thousandfold: a larger claim is a lie.
  if (m.size > m.packed * 1100 + 1024) return fail(ErrorCode::kInvalidData, "'{}' claims {} bytes", name, m.size);
  if (m.size > kMaxUnpacked)
    return fail(ErrorCode::kResource, "'{}' unpacks to {} bytes, more than the limit of {}", name, m.size, kMaxUnpacked)
        .help("save it as npy, or with numpy.savez");
  auto stream = std::make_unique<Inflater>(file, data, m.packed, name);
  std::string head(static_cast<size_t>(std::min<uint64_t>(m.size, 12)), '\0');
  QC_TRY(stream->read(head.data(), head.size()));
  const bool longHead = head.size() == 12 && head[6] >= 2;
  const size_t length = head.size() < 12 ? 0
                        : longHead       ? 12 + size_t{littleEndian<uint32_t>(head.data() + 8)}
                                         : 10 + size_t{littleEndian<uint16_t>(head.data() + 8)};
  if (length < 12 || length > kMaxHead || length > m.size) return fail(ErrorCode::kInvalidData, "'{}' is no npy file", name);
  head.resize(length);
  QC_TRY(stream->read(head.data() + 12, length - 12));
  QC_ASSIGN(NpyHeader header, parseNpyHeader(head, name));
  QC_TRY(checkRow(header, name));
  if (m.size - header.dataOffset < static_cast<uint64_t>(dataBytes(header)))
    return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
  return std::make_unique<DeflatedArray>(std::move(header), std::move(stream));
}

}  // namespace

Result<std::unique_ptr<ArrayFile>> openNpy(const std::string& path) {
  QC_ASSIGN(std::shared_ptr<const File> file, File::open(path));
  QC_ASSIGN(const std::string head, file->head(0, kMaxHead));
  QC_ASSIGN(NpyHeader header, parseNpyHeader(head, path));
  QC_TRY(checkRow(header, path));
  const uint64_t begin = header.dataOffset, wanted = static_cast<uint64_t>(dataBytes(header));
  if (file->size() - begin < wanted)
    return fail(ErrorCode::kInvalidData, "'{}' is truncated: {} bytes for {}", path, file->size() - begin, wanted);
  return std::make_unique<StoredArray>(std::move(header), std::move(file), begin);
}

Result<std::map<std::string, std::unique_ptr<ArrayFile>>> openNpz(const std::string& path) {
  QC_ASSIGN(const std::shared_ptr<const File> file, File::open(path));
  QC_ASSIGN(const std::vector<Member> members, readMembers(*file));
  std::map<std::string, std::unique_ptr<ArrayFile>> arrays;
  for (const Member& m : members) {
    QC_ASSIGN(arrays[m.name], openMember(file, m));
  }
  return arrays;
}

}  // namespace qc
