#include "frontend/data/zip.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string_view>

#include "frontend/data/little_endian.h"
#include "ir/signed_index.h"

namespace qc {
namespace {

constexpr size_t kMaxDirectory = 64 << 20;
constexpr uint32_t kEndOfDirectory = 0x06054b50, kEnd64Locator = 0x07064b50, kEndOfDirectory64 = 0x06064b50, kDirectoryEntry = 0x02014b50,
                   kLocalEntry = 0x04034b50;

Failure damagedArchive(const InputFile& file) { return fail(ErrorCode::kInvalidData, "'{}' is not an npz file, or damaged", file.path()); }

struct Directory {
  std::string bytes;
  uint64_t entries = 0, offset = 0;
};

Result<Directory> readDirectory(const InputFile& file) {
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
  QC_ASSIGN(std::string directory, file.head(offset, usize(size)));
  return Directory{std::move(directory), entries, offset};
}

// numpy writes 64-bit sizes into an extra field whenever it does not know them before.
bool readExtra(std::string_view extra, ZipMember& m) {
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

// The header in front of a member must say what the directory says, else two readers would see two archives.
Status readLocalHeader(const InputFile& file, ZipMember& m) {
  if (m.offset > file.size() || file.size() - m.offset < 30) return damagedArchive(file);
  QC_ASSIGN(const std::string local, file.head(m.offset, 30));
  const size_t name = littleEndian<uint16_t>(local.data() + 26);
  m.data = m.offset + 30 + name + littleEndian<uint16_t>(local.data() + 28);
  if (littleEndian<uint32_t>(local.data()) != kLocalEntry || m.data > file.size() || m.packed > file.size() - m.data)
    return damagedArchive(file);
  QC_ASSIGN(const std::string own, file.head(m.offset + 30, name));
  if (own != m.name || littleEndian<uint16_t>(local.data() + 8) != m.method) return damagedArchive(file);
  return {};
}

Status checkApart(const InputFile& file, const std::vector<ZipMember>& members, uint64_t directory) {
  std::vector<const ZipMember*> inOrder;
  std::set<std::string_view> names;
  for (const ZipMember& m : members) {
    inOrder.push_back(&m);
    if (!names.insert(m.name).second) return fail(ErrorCode::kInvalidData, "'{}' holds '{}' twice", file.path(), m.name);
  }
  std::sort(inOrder.begin(), inOrder.end(), [](const ZipMember* a, const ZipMember* b) { return a->offset < b->offset; });
  for (size_t i = 0; i < inOrder.size(); ++i) {
    const uint64_t next = i + 1 < inOrder.size() ? inOrder[i + 1]->offset : directory;
    if (inOrder[i]->data + inOrder[i]->packed > next)
      return fail(ErrorCode::kInvalidData, "'{}': '{}' overlaps what follows it", file.path(), inOrder[i]->name);
  }
  return {};
}

}  // namespace

Result<std::vector<ZipMember>> readZipDirectory(const InputFile& file) {
  QC_ASSIGN(const auto found, readDirectory(file));
  const auto& [directory, entries, begin] = found;
  std::vector<ZipMember> members;
  size_t at = 0;
  for (uint64_t i = 0; i < entries; ++i) {
    if (directory.size() - at < 46 || littleEndian<uint32_t>(directory.data() + at) != kDirectoryEntry) return damagedArchive(file);
    const char* entry = directory.data() + at;
    const size_t name = littleEndian<uint16_t>(entry + 28), extra = littleEndian<uint16_t>(entry + 30),
                 comment = littleEndian<uint16_t>(entry + 32);
    if (directory.size() - at - 46 < name + extra + comment) return damagedArchive(file);
    if (littleEndian<uint16_t>(entry + 8) & 1) return fail(ErrorCode::kUnsupported, "'{}' is encrypted", file.path());
    ZipMember m;
    m.name.assign(entry + 46, name);
    m.method = littleEndian<uint16_t>(entry + 10);
    m.crc = littleEndian<uint32_t>(entry + 16);
    m.packed = littleEndian<uint32_t>(entry + 20);
    m.size = littleEndian<uint32_t>(entry + 24);
    m.offset = littleEndian<uint32_t>(entry + 42);
    if (!readExtra(std::string_view(entry + 46 + name, extra), m)) return damagedArchive(file);
    QC_TRY(readLocalHeader(file, m));
    members.push_back(std::move(m));
    at += 46 + name + extra + comment;
  }
  QC_TRY(checkApart(file, members, begin));
  return members;
}

}  // namespace qc
