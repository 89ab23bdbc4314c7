// Whole files, read with a limit and written so that a reader sees the old or the new one and never half of it.
#pragma once

#include <string>
#include <string_view>

#include "ir/status.h"

namespace qc {

Result<std::string> readFile(const std::string& path, int64_t maxBytes = int64_t{1} << 32);
// Into a temporary file beside it, fsync, rename.
Status writeFileAtomically(const std::string& path, std::string_view bytes);
// The temporary files of writers that were killed.
void removeLeftovers(const std::string& path);

}  // namespace qc
