#include "frontend/data/npz_writer.h"

#include <zlib.h>

#include <limits>

#include "frontend/data/npy.h"
#include "ir/files.h"

namespace qc {
namespace {

void put(std::string& bytes, uint64_t value, int size) {
  for (int i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * i) & 255);
}

std::string memberName(std::string name) {
  for (size_t at = name.find(".."); at != std::string::npos; at = name.find("..", at)) name.replace(at, 2, "__");
  return name + ".npy";
}

// What the header of a member and its entry in the directory have in common: from the version on.
std::string description(const std::string& name, uint32_t crc, uint64_t size) {
  std::string bytes;
  put(bytes, 20, 2);      // version that is needed
  put(bytes, 0x0800, 2);  // names are UTF-8
  put(bytes, 0, 2);       // stored
  put(bytes, 0, 2);       // midnight
  put(bytes, 0x21, 2);    // of 1 January 1980
  put(bytes, crc, 4);
  put(bytes, size, 4);
  put(bytes, size, 4);
  put(bytes, name.size(), 2);
  put(bytes, 0, 2);  // nothing extra
  return bytes;
}

}  // namespace

Status writeNpz(const std::string& path, const std::map<std::string, Tensor>& arrays) {
  std::vector<std::string> heads;
  std::string directory;
  uint64_t offset = 0;
  for (const auto& [key, tensor] : arrays) {
    QC_ASSIGN(const std::string head, npyHead(tensor));
    const std::string name = memberName(key);
    const auto bytes = static_cast<uint64_t>(tensor.byteSize()), size = head.size() + bytes;
    if (name.size() > 0xffff) return fail(ErrorCode::kUnsupported, "a name of {} bytes does not fit into '{}'", name.size(), path);
    if (offset + size > std::numeric_limits<uint32_t>::max() - 0xffffff || heads.size() >= 0xffff)
      return fail(ErrorCode::kUnsupported, "'{}' would be larger than 4 GB", path).help("take fewer layers");
    auto crc = static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const unsigned char*>(head.data()), head.size()));
    crc = static_cast<uint32_t>(crc32_z(crc, static_cast<const unsigned char*>(tensor.data()), usize(tensor.byteSize())));
    const std::string described = description(name, crc, size);
    std::string local("PK\x03\x04", 4);
    local += described + name + head;
    directory += std::string("PK\x01\x02", 4);
    put(directory, 20, 2);  // version that made it
    directory += described;
    put(directory, 0, 2 + 2 + 2 + 4);  // no comment, disk 0, no attributes
    put(directory, offset, 4);
    directory += name;
    offset += local.size() + bytes;
    heads.push_back(std::move(local));
  }
  std::string end("PK\x05\x06", 4);
  put(end, 0, 4);
  put(end, heads.size(), 2);
  put(end, heads.size(), 2);
  put(end, directory.size(), 4);
  put(end, offset, 4);
  put(end, 0, 2);
  std::vector<std::string_view> parts;
  size_t i = 0;
  for (const auto& [key, tensor] : arrays) {
    parts.emplace_back(heads[i++]);
    parts.emplace_back(static_cast<const char*>(tensor.data()), usize(tensor.byteSize()));
  }
  parts.emplace_back(directory);
  parts.emplace_back(end);
  OutputFiles file;
  QC_TRY(file.add(path, parts));
  return file.publish();
}

}  // namespace qc
