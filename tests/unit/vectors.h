// Recorded test vectors: JSON files of the folder QC_SHARED_DIR, absent from a user's checkout.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ir/type.h"

namespace qc::test {

inline std::optional<nlohmann::json> vectors(const std::string& name) {
  if (std::string(QC_SHARED_DIR).empty()) return std::nullopt;
  std::ifstream in(std::string(QC_SHARED_DIR) + "/spec/vectors/" + name + ".json");
  if (!in) return std::nullopt;
  return nlohmann::json::parse(in);
}

#define QC_VECTORS(variable, name)                                                      \
  const std::optional<nlohmann::json> qcLoaded = ::qc::test::vectors(name);             \
  if (!qcLoaded) GTEST_SKIP() << "no recorded vectors; configure with -DQC_SHARED_DIR"; \
  const nlohmann::json& variable = *qcLoaded

// 8 hex digits: the bit pattern of a float32.
inline float fromBits(const nlohmann::json& hex) {
  return std::bit_cast<float>(static_cast<uint32_t>(std::stoul(hex.get<std::string>(), nullptr, 16)));
}
inline float number(const nlohmann::json& j) {
  if (!j.is_string()) return static_cast<float>(j.get<double>());
  const std::string text = j;
  if (text == "nan") return std::nanf("");
  return text == "inf" ? INFINITY : -INFINITY;
}
inline std::vector<float> numbers(const nlohmann::json& list) {
  std::vector<float> result;
  for (const auto& j : list) result.push_back(number(j));
  return result;
}
inline DType dtypeOf(const std::string& name) {
  static const std::map<std::string, DType> names = {{"uint8", DType::u8},  {"int8", DType::s8},   {"uint16", DType::u16},
                                                     {"int16", DType::s16}, {"int32", DType::s32}, {"uint4", DType::u4}};
  return names.at(name);
}

}  // namespace qc::test
