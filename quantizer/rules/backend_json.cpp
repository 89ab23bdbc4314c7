// BackendConfig as JSON; the form is shown in backend_config.h and published as backend_config.schema.json.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "ir/op_def.h"
#include "quantizer/rules/backend_config.h"
#include "quantizer/rules/nearest.h"
#include "quantizer/rules/spec_json.h"

namespace qc {
namespace {

using nlohmann::json;

Result<DType> readDType(const json& j, const std::string& where) {
  const auto dtype = j.is_string() ? parseDType(j.get<std::string>()) : std::nullopt;
  if (!dtype) return fail(ErrorCode::kInvalidArgument, "{} is not an element type", where).help("f32, f16, u8, s8, s32, ...");
  return *dtype;
}

Status readNumber(const json& j, const char* key, const std::string& where, std::optional<double>& out) {
  if (!j.contains(key)) return {};
  if (!j[key].is_number()) return wrongKind(where, key, "a number");
  out = j[key].get<double>();
  return {};
}
Status readOptionalInteger(const json& j, const char* key, const std::string& where, std::optional<int64_t>& out) {
  if (!j.contains(key)) return {};
  int64_t value = 0;
  QC_TRY(readInteger(j, key, where, value));
  out = value;
  return {};
}

Result<DTypeWithConstraints> readConstraints(const json& j, const std::string& where) {
  DTypeWithConstraints c;
  if (!j.is_object()) {
    QC_ASSIGN(c.dtype, readDType(j, where));
    return c;
  }
  QC_TRY(checkKeys(j, {"dtype", "qmin_lowest", "qmax_highest", "scale_min", "exact_scale", "exact_zero_point"}, where));
  if (!j.contains("dtype")) return fail(ErrorCode::kInvalidArgument, "{} lacks 'dtype'", where);
  QC_ASSIGN(c.dtype, readDType(j["dtype"], where + ".dtype"));
  QC_TRY(readOptionalInteger(j, "qmin_lowest", where, c.qminLowest));
  QC_TRY(readOptionalInteger(j, "qmax_highest", where, c.qmaxHighest));
  QC_TRY(readNumber(j, "scale_min", where, c.scaleMin));
  QC_TRY(readNumber(j, "exact_scale", where, c.exactScale));
  QC_TRY(readOptionalInteger(j, "exact_zero_point", where, c.exactZeroPoint));
  return c;
}

Result<DTypeConfig> readDTypes(const json& j, const std::string& where) {
  QC_TRY(checkKeys(j, {"input", "output", "weight", "bias", "dynamic"}, where));
  DTypeConfig d;
  const std::pair<const char*, std::optional<DTypeWithConstraints>*> parts[] = {
      {"input", &d.input}, {"output", &d.output}, {"weight", &d.weight}};
  for (const auto& [key, part] : parts) {
    if (!j.contains(key)) continue;
    QC_ASSIGN(*part, readConstraints(j[key], where + "." + key));
  }
  if (j.contains("bias")) {
    QC_ASSIGN(d.bias, readDType(j["bias"], where + ".bias"));
  }
  if (j.contains("dynamic")) {
    if (!j["dynamic"].is_boolean()) return wrongKind(where, "dynamic", "true or false");
    d.dynamic = j["dynamic"].get<bool>();
  }
  return d;
}

constexpr Observation kObservations[] = {Observation::different, Observation::shareInput, Observation::byOperands, Observation::none};

Status readPattern(const json& j, const std::string& where, BackendConfig& config) {
  QC_TRY(checkKeys(j, {"ops", "observation", "dtypes", "remove"}, where));
  BackendPattern p;
  if (!j.contains("ops") || !j["ops"].is_array() || j["ops"].empty()) return wrongKind(where, "ops", "a list of ops in execution order");
  for (const json& op : j["ops"]) {
    if (!op.is_string()) return wrongKind(where, "ops", "a list of ops in execution order");
    const std::string name = op.get<std::string>();
    if (!OpRegistry::get().find(name) && name != "shape" && name != "size")
      return fail(ErrorCode::kInvalidArgument, "{}: there is no op '{}'", where, name)
          .help(didYouMean(name, OpRegistry::get().nearest(name)));
    p.ops.push_back(name);
  }
  if (j.contains("remove")) {
    if (j["remove"] != true || j.size() != 2)
      return fail(ErrorCode::kInvalidArgument, "{}: 'remove' is true and stands beside 'ops' alone", where);
    if (std::none_of(config.patterns().begin(), config.patterns().end(), [&](const BackendPattern& known) { return known.ops == p.ops; }))
      return fail(ErrorCode::kInvalidArgument, "{}: there is no such pattern to remove", where);
    config.remove(p.ops);
    return {};
  }
  if (j.contains("observation")) {
    const auto it =
        std::find_if(std::begin(kObservations), std::end(kObservations), [&](Observation o) { return j["observation"] == toString(o); });
    if (it == std::end(kObservations)) return wrongKind(where, "observation", "one of different, share_input, by_operands, none");
    p.observation = *it;
  }
  if (!j.contains("dtypes") || !j["dtypes"].is_array() || j["dtypes"].empty()) return wrongKind(where, "dtypes", "a list of types");
  for (size_t i = 0; i < j["dtypes"].size(); ++i) {
    QC_ASSIGN(DTypeConfig d, readDTypes(j["dtypes"][i], fmt::format("{}.dtypes[{}]", where, i)));
    p.dtypes.push_back(std::move(d));
  }
  config.set(std::move(p));
  return {};
}

json constraintsJson(const DTypeWithConstraints& c) {
  if (c == DTypeWithConstraints{.dtype = c.dtype}) return toString(c.dtype);
  json j = {{"dtype", toString(c.dtype)}};
  if (c.qminLowest) j["qmin_lowest"] = *c.qminLowest;
  if (c.qmaxHighest) j["qmax_highest"] = *c.qmaxHighest;
  if (c.scaleMin) j["scale_min"] = *c.scaleMin;
  if (c.exactScale) j["exact_scale"] = *c.exactScale;
  if (c.exactZeroPoint) j["exact_zero_point"] = *c.exactZeroPoint;
  return j;
}

}  // namespace

Result<BackendConfig> BackendConfig::parse(std::string_view text, std::string_view sourceName) {
  QC_ASSIGN(const json j, parseConfig(text, sourceName));
  const std::string where(sourceName);
  QC_TRY(checkKeys(j, {"name", "extends", "patterns"}, where));
  std::string name = "custom", base;
  QC_TRY(readString(j, "name", where, name));
  QC_TRY(readString(j, "extends", where, base));
  BackendConfig config(name);
  if (j.contains("extends")) {
    QC_ASSIGN(config, builtinBackendConfig(base));
    config.name_ = name;
  }
  if (!j.contains("patterns")) return config;
  if (!j["patterns"].is_array()) return wrongKind(where, "patterns", "a list");
  for (size_t i = 0; i < j["patterns"].size(); ++i) QC_TRY(readPattern(j["patterns"][i], fmt::format("{}.patterns[{}]", where, i), config));
  return config;
}

Result<BackendConfig> BackendConfig::load(const std::string& path) {
  QC_ASSIGN(const std::string text, readConfig(path));
  return parse(text, path);
}

std::string BackendConfig::toJson() const {
  json list = json::array();
  for (const BackendPattern& p : patterns_) {
    json dtypes = json::array();
    for (const DTypeConfig& d : p.dtypes) {
      json j = json::object();
      if (d.input) j["input"] = constraintsJson(*d.input);
      if (d.output) j["output"] = constraintsJson(*d.output);
      if (d.weight) j["weight"] = constraintsJson(*d.weight);
      if (d.bias) j["bias"] = toString(*d.bias);
      if (d.dynamic) j["dynamic"] = true;
      dtypes.push_back(std::move(j));
    }
    list.push_back({{"ops", p.ops}, {"observation", toString(p.observation)}, {"dtypes", std::move(dtypes)}});
  }
  return json{{"name", name_}, {"patterns", std::move(list)}}.dump(2, ' ', false, json::error_handler_t::replace);
}

}  // namespace qc
