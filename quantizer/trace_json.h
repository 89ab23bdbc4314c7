// Traces of samples as JSON, for ranges files.  Reading never throws; `where` starts every message.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "quantizer/observers/sample_trace.h"

namespace qc {

struct TraceJson {
  static nlohmann::json write(const SampleTrace& trace);
  static nlohmann::json write(const InputTrace& trace);
  static nlohmann::json write(const DataPart& part);
  static Status read(const nlohmann::json& j, const std::string& where, SampleTrace& trace);
  static Status read(const nlohmann::json& j, const std::string& where, InputTrace& trace);
  static Status read(const nlohmann::json& j, const std::string& where, DataPart& part);
};

}  // namespace qc
