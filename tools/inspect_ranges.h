// inspect of a file of ranges (.qcal).
#pragma once

#include <string>

#include "ir/status.h"
#include "tools/report_flags.h"

namespace qc::tools {

bool isRangesFile(const std::string& path);

// Every value with its observer, what it saw and the range that it would choose.  Error: a damaged file.
Status inspectRanges(const std::string& path, bool json, const ReportFlags& report);

}  // namespace qc::tools
