#include "frontend/data/array_file.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>

#include "frontend/data/little_endian.h"
#include "frontend/data/zip.h"
#include "ir/files.h"
#include "ir/memory_limit.h"

namespace qc {
namespace {

constexpr int64_t kMaxRow = int64_t{1} << 30;
constexpr uint64_t kMaxUnpacked = uint64_t{8} << 30;

int64_t rowBytes(const NpyHeader& header) {
  int64_t n = sizeOf(header.dtype);
  for (size_t d = 1; d < header.sizes.size(); ++d) n *= header.sizes[d];
  return n;
}

int64_t dataBytes(const NpyHeader& header) { return rowBytes(header) * (header.sizes.empty() ? 1 : header.sizes[0]); }

Status checkRow(const NpyHeader& header, const std::string& name) {
  if (rowBytes(header) <= kMaxRow) return checkMemory(rowBytes(header), fmt::format("a sample of '{}'", name));
  return fail(ErrorCode::kResource, "a sample of '{}' has {} bytes, more than the limit of {}", name, rowBytes(header), kMaxRow)
      .help("the first axis counts the samples");
}

Tensor emptyRow(const NpyHeader& header) {
  std::vector<int64_t> sizes = header.sizes;
  if (!sizes.empty()) sizes[0] = 1;
  return Tensor(header.dtype, std::move(sizes));
}

Failure wrongSum(const std::string& path, const ZipMember& m) {
  return fail(ErrorCode::kInvalidData, "'{}:{}' is damaged: its checksum does not match", path, m.name).help("write the file again");
}

class StoredArray final : public ArrayFile {
 public:
  StoredArray(NpyHeader header, std::shared_ptr<const InputFile> file, uint64_t offset, std::optional<ZipMember> member = std::nullopt)
      : ArrayFile(std::move(header)), file_(std::move(file)), offset_(offset), member_(std::move(member)) {}
  Status check() const override {
    if (!member_) return {};
    std::vector<char> block(1 << 18);
    uLong crc = ::crc32(0, nullptr, 0);
    for (uint64_t done = 0; done < member_->packed;) {
      const size_t n = usize(std::min<uint64_t>(block.size(), member_->packed - done));
      QC_TRY(file_->read(member_->data + done, block.data(), n));
      crc = ::crc32(crc, reinterpret_cast<const Bytef*>(block.data()), static_cast<uInt>(n));
      done += n;
    }
    return crc == member_->crc ? Status() : wrongSum(file_->path(), *member_);
  }
  Result<Tensor> row(int64_t i) const override {
    Tensor t = emptyRow(header_);
    QC_TRY(file_->read(offset_ + static_cast<uint64_t>(i * rowBytes(header_)), t.mutableData(), usize(t.byteSize())));
    return t;
  }

 private:
  std::shared_ptr<const InputFile> file_;
  uint64_t offset_;  // of the first element in the file
  std::optional<ZipMember> member_;
};

// A deflated member as a stream of bytes that can start again.
class Inflater {
 public:
  Inflater(std::shared_ptr<const InputFile> file, uint64_t begin, uint64_t packed, std::string name)
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
        const size_t n = usize(std::min<uint64_t>(input_.size(), packed_ - taken_));
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
  std::shared_ptr<const InputFile> file_;
  uint64_t begin_, packed_, taken_ = 0, position_ = 0;
  std::string name_;
  z_stream z_{};
  bool running_ = false;
  std::array<char, 1 << 16> input_;
};

class DeflatedArray final : public ArrayFile {
 public:
  DeflatedArray(NpyHeader header, std::unique_ptr<Inflater> stream, std::string path, ZipMember member)
      : ArrayFile(std::move(header)), stream_(std::move(stream)), path_(std::move(path)), member_(std::move(member)) {}
  Status check() const override {
    const std::lock_guard lock(mutex_);
    QC_TRY(stream_->restart());
    std::vector<char> block(1 << 18);
    uLong crc = ::crc32(0, nullptr, 0);
    while (stream_->position() < member_.size) {
      const size_t n = usize(std::min<uint64_t>(block.size(), member_.size - stream_->position()));
      QC_TRY(stream_->read(block.data(), n));
      crc = ::crc32(crc, reinterpret_cast<const Bytef*>(block.data()), static_cast<uInt>(n));
    }
    return crc == member_.crc ? Status() : wrongSum(path_, member_);
  }
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
  std::string path_;
  ZipMember member_;
};

Result<std::unique_ptr<ArrayFile>> openMember(const std::shared_ptr<const InputFile>& file, const ZipMember& m) {
  const std::string name = file->path() + ":" + m.name;
  const uint64_t data = m.data;
  if (m.method == 0) {
    QC_ASSIGN(const std::string head, file->head(data, usize(std::min<uint64_t>(m.packed, kMaxNpyHead))));
    QC_ASSIGN(NpyHeader header, parseNpyHeader(head, name));
    QC_TRY(checkRow(header, name));
    if (m.packed - header.dataOffset < static_cast<uint64_t>(dataBytes(header)))
      return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
    const uint64_t elements = data + header.dataOffset;
    return std::make_unique<StoredArray>(std::move(header), file, elements, m);
  }
  if (m.method != 8) return fail(ErrorCode::kUnsupported, "'{}': compression method {}", name, m.method);
  // deflate cannot grow data more than about a thousandfold: a larger claim is a lie.
  if (m.size > m.packed * 1100 + 1024) return fail(ErrorCode::kInvalidData, "'{}' claims {} bytes", name, m.size);
  if (m.size > kMaxUnpacked)
    return fail(ErrorCode::kResource, "'{}' unpacks to {} bytes, more than the limit of {}", name, m.size, kMaxUnpacked)
        .help("save it as npy, or with numpy.savez");
  auto stream = std::make_unique<Inflater>(file, data, m.packed, name);
  std::string head(usize(std::min<uint64_t>(m.size, 12)), '\0');
  QC_TRY(stream->read(head.data(), head.size()));
  const bool longHead = head.size() == 12 && head[6] >= 2;
  const size_t length = head.size() < 12 ? 0
                        : longHead       ? 12 + size_t{littleEndian<uint32_t>(head.data() + 8)}
                                         : 10 + size_t{littleEndian<uint16_t>(head.data() + 8)};
  if (length < 12 || length > kMaxNpyHead || length > m.size) return fail(ErrorCode::kInvalidData, "'{}' is not an npy file", name);
  head.resize(length);
  QC_TRY(stream->read(head.data() + 12, length - 12));
  QC_ASSIGN(NpyHeader header, parseNpyHeader(head, name));
  QC_TRY(checkRow(header, name));
  if (m.size - header.dataOffset < static_cast<uint64_t>(dataBytes(header)))
    return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
  return std::make_unique<DeflatedArray>(std::move(header), std::move(stream), file->path(), m);
}

}  // namespace

Result<std::unique_ptr<ArrayFile>> openNpy(const std::string& path) {
  QC_ASSIGN(InputFile opened, InputFile::open(path));
  auto file = std::make_shared<const InputFile>(std::move(opened));
  QC_ASSIGN(const std::string head, file->head(0, kMaxNpyHead));
  QC_ASSIGN(NpyHeader header, parseNpyHeader(head, path));
  QC_TRY(checkRow(header, path));
  const uint64_t begin = header.dataOffset, wanted = static_cast<uint64_t>(dataBytes(header));
  if (file->size() - begin < wanted)
    return fail(ErrorCode::kInvalidData, "'{}' is truncated: {} bytes for {}", path, file->size() - begin, wanted);
  return std::make_unique<StoredArray>(std::move(header), std::move(file), begin);
}

Result<std::map<std::string, std::unique_ptr<ArrayFile>>> openNpz(const std::string& path) {
  QC_ASSIGN(InputFile opened, InputFile::open(path));
  const auto file = std::make_shared<const InputFile>(std::move(opened));
  QC_ASSIGN(const std::vector<ZipMember> members, readZipDirectory(*file));
  std::map<std::string, std::unique_ptr<ArrayFile>> arrays;
  for (const ZipMember& m : members) {
    const std::string name = m.name.ends_with(".npy") ? m.name.substr(0, m.name.size() - 4) : m.name;
    if (arrays.contains(name)) return fail(ErrorCode::kInvalidData, "'{}' holds '{}' twice", path, name);
    QC_ASSIGN(arrays[name], openMember(file, m));
  }
  return arrays;
}

}  // namespace qc
