// Small models and what is done to them: bytes cut and flipped, and fields of the protobuf edited, dropped, doubled and swapped, so that
// most of the damage passes the parser and reaches the converters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qc::testing {

std::vector<std::string> onnxSeeds();
std::string damagedOnnx(const std::string& bytes, uint32_t seed);

}  // namespace qc::testing
