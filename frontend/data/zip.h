// The directory of a zip archive, checked against the members: every local header repeats its entry, no two members share bytes, no two
// have one name.  Sizes stay claims until they are compared with what is there.
#pragma once

#include <string>
#include <vector>

#include "ir/files.h"

namespace qc {

struct ZipMember {
  std::string name;
  int method = 0;  // 0 stored, 8 deflated
  uint32_t crc = 0;
  uint64_t packed = 0, size = 0;
  uint64_t offset = 0, data = 0;  // of the local header, and of the bytes behind it
};

Result<std::vector<ZipMember>> readZipDirectory(const InputFile& file);

}  // namespace qc
