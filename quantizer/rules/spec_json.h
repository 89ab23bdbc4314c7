// JSON of configurations and ranges files, and the observed specs in them.  Reading never throws: wrong kinds and unknown keys are errors
// that name them. Keys: dtype, range [lo, hi], scheme (affine, symmetric, float_qparams), axis, block_size, dynamic, eps, observer, args.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "ir/quant_spec.h"
#include "ir/status.h"

namespace qc {

// What the parser says, without the name of the exception: "parse error at line 3, column 7: ...".
std::string reasonOf(const nlohmann::json::exception& error);

// A name as it comes back from JSON: names of models are any bytes, and what is not UTF-8 becomes U+FFFD.
std::string asText(const std::string& name);
// A configuration file: JSON with comments, at most 16 MB.
Result<std::string> readConfig(const std::string& path);
// With comments, and of bounded depth.
Result<nlohmann::json> parseJson(std::string_view text, std::string_view source, ErrorCode code);
Result<nlohmann::json> parseConfig(std::string_view text, std::string_view source);

// `where` starts every message: "rules.rules[2].qconfig".
Status checkKeys(const nlohmann::json& object, const std::vector<std::string>& known, std::string_view where);
Failure wrongKind(std::string_view where, std::string_view key, std::string_view wanted);
// An absent key leaves `out` as it is.
Status readString(const nlohmann::json& object, const char* key, std::string_view where, std::string& out);
Status readInteger(const nlohmann::json& object, const char* key, std::string_view where, int64_t& out);

// Keys that are absent keep the value of `spec`.
Result<ObservedSpec> readSpec(const nlohmann::json& j, ObservedSpec spec, const std::string& where);
nlohmann::json specJson(const ObservedSpec& spec);

}  // namespace qc
