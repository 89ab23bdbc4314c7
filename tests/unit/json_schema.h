// As much of JSON Schema as the published schemas use, to hold them against the parsers they describe.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace qc::test {

class JsonSchema {
 public:
  explicit JsonSchema(nlohmann::json root) : root_(std::move(root)) {}
  bool accepts(const nlohmann::json& value) const { return accepts(root_, value); }

 private:
  using json = nlohmann::json;

  static bool hasType(const std::string& type, const json& v) {
    if (type == "object") return v.is_object();
    if (type == "array") return v.is_array();
    if (type == "string") return v.is_string();
    if (type == "boolean") return v.is_boolean();
    if (type == "null") return v.is_null();
    if (type == "integer") return v.is_number_integer();
    if (type == "number") return v.is_number();
    throw std::runtime_error("the checker does not know the type " + type);
  }

  bool accepts(const json& schema, const json& v) const {
    for (const auto& [key, rule] : schema.items())
      if (!holds(key, rule, schema, v)) return false;
    return true;
  }

  int64_t count(const json& list, const json& v) const {
    return std::count_if(list.begin(), list.end(), [&](const json& s) { return accepts(s, v); });
  }

  bool holds(const std::string& key, const json& rule, const json& schema, const json& v) const {
    if (key == "$ref") return accepts(root_.at(json::json_pointer(rule.get<std::string>().substr(1))), v);
    if (key == "type") return hasType(rule, v);
    if (key == "enum") return std::find(rule.begin(), rule.end(), v) != rule.end();
    if (key == "const") return v == rule;
    if (key == "anyOf") return count(rule, v) > 0;
    if (key == "oneOf") return count(rule, v) == 1;
    if (key == "not") return !accepts(rule, v);
    if (key == "minimum") return !v.is_number() || v.get<double>() >= rule.get<double>();
    if (key == "maximum") return !v.is_number() || v.get<double>() <= rule.get<double>();
    if (key == "exclusiveMinimum") return !v.is_number() || v.get<double>() > rule.get<double>();
    if (key == "minItems") return !v.is_array() || v.size() >= rule.get<size_t>();
    if (key == "maxItems") return !v.is_array() || v.size() <= rule.get<size_t>();
    if (key == "items") return !v.is_array() || std::all_of(v.begin(), v.end(), [&](const json& item) { return accepts(rule, item); });
    if (key == "required")
      return !v.is_object() || std::all_of(rule.begin(), rule.end(), [&](const json& name) { return v.contains(name.get<std::string>()); });
    if (key == "properties" || key == "additionalProperties") {
      if (!v.is_object()) return true;
      for (const auto& [name, item] : v.items()) {
        const bool declared = schema.contains("properties") && schema["properties"].contains(name);
        if (key == "properties" && declared && !accepts(rule[name], item)) return false;
        if (key == "additionalProperties" && !declared && (rule.is_boolean() ? !rule.get<bool>() : !accepts(rule, item))) return false;
      }
      return true;
    }
    static const std::vector<std::string> kProse = {"$schema", "$id", "$defs", "title", "description", "examples"};
    if (std::find(kProse.begin(), kProse.end(), key) != kProse.end()) return true;
    throw std::runtime_error("the checker does not know the keyword " + key);
  }

  json root_;
};

}  // namespace qc::test
