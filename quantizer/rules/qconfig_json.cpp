// Rules as JSON with comments:
//
//   {
//     "backend": "x86",                       // where omitted settings come from
//     "backend_config": "qnnpack",            // what can be run: a built-in table, a table of one's own, or null; default: the backend's
//     "global": "default",                    // "default", "float", "dynamic", "dynamic_per_token", "weight_only", "weight_only_int4",
//                                             // "float16_weights", or a configuration
//     "guards": {"masked_scores": true, "biases": true},
//     "recipes": {"equalize": "off"},         // what wins accuracy back, by name (`qcompile doctor --recipes`); the rest by default
//     "quantized_inputs": [0], "quantized_outputs": [0],   // of the model, wanted in integers
//     "rules": [
//       {"object_type": "softmax", "qconfig": "float"},
//       {"name_regex": "/head/.*", "qconfig": "float"},
//       {"name": "/stem/Conv", "qconfig": {"activation": {"observer": "minmax"}, "weight": {"observer": "minmax", "axis": -1}}},
//       {"name": "/layer1", "object_type": "Conv", "order": 0, "qconfig": "float"},
//       {"from": "x", "to": "y", "qconfig": "float", "optional": true},    // may match nothing
//       {"name": "/head/fc", "qconfig": "default", "force": true}          // whatever it costs; beside "global" as well
//     ],
//     "standalone": [{"from": "x", "to": "y", "rules": {..}}]              // a stretch on its own, by rules of its own
//   }
//
// A configuration's parts have: dtype, range [lo, hi], scheme (affine, symmetric, float_qparams), axis, block_size, dynamic, eps, observer,
// args.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "ir/arithmetic.h"
#include "quantizer/rules/nearest.h"
#include "quantizer/rules/qconfig.h"
#include "quantizer/rules/spec_json.h"

namespace qc {
namespace {

using nlohmann::json;
using Level = QConfigMapping::Level;

Result<QConfigEntry> readEntry(const json& j, Backend backend, const std::string& where) {
  if (j.is_null()) return keepFloat();
  if (j.is_string()) {
    const std::string word = j.get<std::string>();
    const std::pair<const char*, QConfigEntry> known[] = {
        {"float", keepFloat()},
        {"default", defaultQConfig(backend)},
        {"dynamic", dynamicQConfig(backend)},
        {"dynamic_per_token", dynamicQConfig(backend, true)},
        {"weight_only", weightOnlyQConfig(backend)},
        {"weight_only_int4", weightOnlyQConfig(backend, 4, 32)},
        {"float16_weights", halfWeightsQConfig()},
    };
    std::vector<std::string> names;
    for (const auto& [name, entry] : known) {
      if (word == name) return entry;
      names.emplace_back(name);
    }
    return fail(ErrorCode::kInvalidArgument, "{}: there is no configuration '{}'", where, word).help(didYouMean(word, names));
  }
  QC_TRY(checkKeys(j, {"activation", "weight"}, where));
  QConfig config = defaultQConfig(backend);
  if (j.contains("activation")) {
    QC_ASSIGN(config.activation, readSpec(j["activation"], config.activation, where + ".activation"));
  }
  if (j.contains("weight")) {
    QC_ASSIGN(config.weight, readSpec(j["weight"], config.weight, where + ".weight"));
  }
  return QConfigEntry(config);
}

// earlier: rules of this file, without those that a backend brings along.
Status readRule(const json& j, Backend backend, const std::string& where, QConfigMapping& mapping,
                std::vector<QConfigMapping::Rule>& earlier) {
  QC_TRY(checkKeys(j, {"object_type", "name", "name_regex", "order", "from", "to", "qconfig", "optional", "force"}, where));
  if (!j.contains("qconfig")) return fail(ErrorCode::kInvalidArgument, "{} lacks 'qconfig'", where);
  QC_ASSIGN(QConfigEntry entry, readEntry(j["qconfig"], backend, where + ".qconfig"));
  std::string type, name, regex, from, to;
  int64_t order = 0;
  QC_TRY(readString(j, "object_type", where, type));
  QC_TRY(readString(j, "name", where, name));
  QC_TRY(readString(j, "name_regex", where, regex));
  QC_TRY(readString(j, "from", where, from));
  QC_TRY(readString(j, "to", where, to));
  QC_TRY(readInteger(j, "order", where, order));
  if (order < 0) return wrongKind(where, "order", "a number from 0");
  for (const char* key : {"optional", "force"})
    if (j.contains(key) && !j[key].is_boolean()) return wrongKind(where, key, "true or false");
  const size_t others = 1 + j.contains("optional") + j.contains("force");  // with qconfig
  const auto only = [&](std::initializer_list<const char*> keys) {
    return j.size() == keys.size() + others && std::all_of(keys.begin(), keys.end(), [&](const char* k) { return j.contains(k); });
  };
  using Rule = QConfigMapping::Rule;
  Rule rule{.entry = std::move(entry), .optional = j.value("optional", false), .force = j.value("force", false)};
  const auto fill = [&](Level level, std::string first, std::string second) {
    rule.level = level;
    rule.name = std::move(first);
    rule.type = std::move(second);
    rule.order = order;
    const auto same = std::ranges::find_if(earlier, [&](const Rule& r) { return r.namesTheSame(rule); });
    if (same != earlier.end())
      mapping.noteReplaced(std::exchange(*same, rule));
    else
      earlier.push_back(rule);
    mapping.set(std::move(rule));
  };
  if (only({"object_type"})) {
    fill(Level::objectType, {}, type);
  } else if (only({"name"})) {
    fill(Level::name, name, {});
  } else if (only({"name_regex"})) {
    fill(Level::nameRegex, regex, {});
  } else if (only({"name", "object_type", "order"})) {
    fill(Level::nameTypeOrder, name, type);
  } else if (only({"from", "to"})) {
    fill(Level::between, from, to);
  } else {
    return fail(ErrorCode::kInvalidArgument, "{} is none of: object_type; name; name_regex; name, object_type and order; from and to",
                where);
  }
  return {};
}

Status readBackendConfig(const json& j, const std::string& where, QConfigMapping& mapping) {
  if (j.is_null()) {
    mapping.backendConfig(std::nullopt);
    return {};
  }
  if (!j.is_string() && !j.is_object()) return wrongKind(where, "backend_config", "the name of a table, a table or null");
  QC_ASSIGN(BackendConfig config,
            j.is_string() ? builtinBackendConfig(j.get<std::string>())
                          : BackendConfig::parse(j.dump(-1, ' ', false, json::error_handler_t::replace), where + ".backend_config"));
  mapping.backendConfig(std::move(config));
  return {};
}

Status readGuards(const json& j, const std::string& where, QConfigMapping& mapping) {
  QC_TRY(checkKeys(j, {"masked_scores", "biases"}, where));
  Guards guards;
  for (const auto& [key, guard] : {std::pair{"masked_scores", &guards.maskedScores}, {"biases", &guards.biases}}) {
    if (!j.contains(key)) continue;
    if (!j[key].is_boolean()) return wrongKind(where, key, "true or false");
    *guard = j[key].get<bool>();
  }
  mapping.guards(guards);
  return {};
}

// Names and choices are checked where they are used.
Status readRecipes(const json& j, const std::string& where, QConfigMapping& mapping) {
  if (!j.is_object()) return wrongKind(where, "recipes", "an object of names and choices");
  for (const auto& [name, choice] : j.items()) {
    if (!choice.is_string()) return wrongKind(where + ".recipes", name, "the name of a choice");
    mapping.recipe(name, choice.get<std::string>());
  }
  return {};
}

// A list of indexes from 0; none where the key is absent.
Result<std::vector<int64_t>> readIndexes(const json& j, const char* key, const std::string& where) {
  std::vector<int64_t> indexes;
  if (!j.contains(key)) return indexes;
  const auto isIndex = [](const json& v) { return v.is_number_unsigned() && v.get<uint64_t>() < 1'000'000; };
  if (!j[key].is_array() || !std::all_of(j[key].begin(), j[key].end(), isIndex)) return wrongKind(where, key, "a list of numbers from 0");
  for (const json& v : j[key]) indexes.push_back(v.get<int64_t>());
  return indexes;
}

Status readStandalone(const json& j, const std::string& where, QConfigMapping& mapping) {
  if (!j.is_array()) return wrongKind(where, "standalone", "a list");
  for (const json& part : j) {
    QC_TRY(checkKeys(part, {"from", "to", "rules"}, where));
    std::string from, to;
    QC_TRY(readString(part, "from", where, from));
    QC_TRY(readString(part, "to", where, to));
    if (part.size() != 3) return fail(ErrorCode::kInvalidArgument, "{}: a stretch has 'from', 'to' and 'rules'", where);
    if (part["rules"].is_object() && part["rules"].contains("standalone"))
      return fail(ErrorCode::kInvalidArgument, "{}: a stretch holds no other stretch", where);
    if (part["rules"].is_object() && part["rules"].contains("recipes"))
      return fail(ErrorCode::kInvalidArgument, "{}: recipes are for the whole model", where).help("name them beside \"standalone\"");
    QC_ASSIGN(QConfigMapping rules,
              QConfigMapping::parse(part["rules"].dump(-1, ' ', false, json::error_handler_t::replace), where + ".rules"));
    for (const QConfigMapping::Rule& replaced : rules.replaced()) mapping.noteReplaced(replaced);
    mapping.standalone(std::move(from), std::move(to), std::move(rules));
  }
  return {};
}

json entryJson(const QConfigEntry& entry) {
  if (!entry) return "float";
  return {{"activation", specJson(entry->activation)}, {"weight", specJson(entry->weight)}};
}

}  // namespace

Result<QConfigMapping> QConfigMapping::parse(std::string_view text, std::string_view sourceName) {
  const DefinedArithmetic defined;
  QC_ASSIGN(const json j, parseConfig(text, sourceName));
  const std::string where(sourceName);
  QC_TRY(checkKeys(
      j,
      {"backend", "backend_config", "global", "force", "guards", "recipes", "quantized_inputs", "quantized_outputs", "rules", "standalone"},
      where));
  std::string backendName = "x86";
  QC_TRY(readString(j, "backend", where, backendName));
  QC_ASSIGN(const Backend backend, parseBackend(backendName));
  // The backend's own rules come along with its default configuration only.
  QConfigMapping mapping = defaultQConfigMapping(backend);
  if (j.contains("global") && j["global"] != "default") mapping.rules_.clear();
  if (j.contains("backend_config")) QC_TRY(readBackendConfig(j["backend_config"], where, mapping));
  if (j.contains("guards")) QC_TRY(readGuards(j["guards"], where + ".guards", mapping));
  if (j.contains("recipes")) QC_TRY(readRecipes(j["recipes"], where, mapping));
  QC_ASSIGN(std::vector<int64_t> inputs, readIndexes(j, "quantized_inputs", where));
  QC_ASSIGN(std::vector<int64_t> outputs, readIndexes(j, "quantized_outputs", where));
  mapping.quantizedInputs(std::move(inputs)).quantizedOutputs(std::move(outputs));
  QC_ASSIGN(QConfigEntry global, readEntry(j.contains("global") ? j["global"] : json("default"), backend, where + ".global"));
  mapping.global(std::move(global));
  if (j.contains("force") && !j["force"].is_boolean()) return wrongKind(where, "force", "true or false");
  if (j.value("force", false)) mapping.force();
  if (j.contains("standalone")) QC_TRY(readStandalone(j["standalone"], where + ".standalone", mapping));
  if (!j.contains("rules")) return mapping;
  if (!j["rules"].is_array()) return wrongKind(where, "rules", "a list");
  std::vector<Rule> earlier;
  for (size_t i = 0; i < j["rules"].size(); ++i)
    QC_TRY(readRule(j["rules"][i], backend, fmt::format("{}.rules[{}]", where, i), mapping, earlier));
  return mapping;
}

Result<QConfigMapping> QConfigMapping::load(const std::string& path) {
  QC_ASSIGN(const std::string text, readConfig(path));
  return parse(text, path);
}

std::string QConfigMapping::toJson() const {
  json list = json::array();
  json result = {{"global", "float"}};
  result["backend_config"] = backendConfig_ ? json::parse(backendConfig_->toJson()) : json();
  result["guards"] = {{"masked_scores", guards_.maskedScores}, {"biases", guards_.biases}};
  if (!recipes_.empty()) result["recipes"] = recipes_;
  result["quantized_inputs"] = quantizedInputs_;
  result["quantized_outputs"] = quantizedOutputs_;
  for (const Rule& rule : rules_) {
    json j = {{"qconfig", entryJson(rule.entry)}};
    if (rule.optional) j["optional"] = true;
    if (rule.force && rule.level != Level::global) j["force"] = true;
    if (rule.force && rule.level == Level::global) result["force"] = true;
    switch (rule.level) {
      case Level::global: result["global"] = entryJson(rule.entry); continue;
      case Level::objectType: j["object_type"] = rule.type; break;
      case Level::nameRegex: j["name_regex"] = rule.name; break;
      case Level::name: j["name"] = rule.name; break;
      case Level::between:
        j["from"] = rule.name;
        j["to"] = rule.type;
        break;
      case Level::nameTypeOrder:
        j["name"] = rule.name;
        j["object_type"] = rule.type;
        j["order"] = rule.order;
        break;
    }
    list.push_back(std::move(j));
  }
  result["rules"] = std::move(list);
  for (const Standalone& s : standalone_)
    result["standalone"].push_back({{"from", s.from}, {"to", s.to}, {"rules", json::parse(s.rules->toJson())}});
  return result.dump(2, ' ', false, json::error_handler_t::replace);
}

}  // namespace qc
