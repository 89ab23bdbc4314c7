#include "quantizer/rules/spec_json.h"

#include <algorithm>

#include "ir/files.h"
#include "quantizer/observers/observer.h"
#include "quantizer/rules/nearest.h"

namespace qc {

using nlohmann::json;

namespace {

constexpr std::pair<QScheme, std::string_view> kSchemes[] = {
    {QScheme::affine, "affine"}, {QScheme::symmetric, "symmetric"}, {QScheme::floatQparams, "float_qparams"}};

Result<AttrDict> readArgs(const json& args, std::string_view where) {
  AttrDict dict;
  if (!args.is_object()) return wrongKind(where, "args", "an object");
  for (const auto& [key, value] : args.items()) {
    if (value.is_number_integer()) {
      dict.set(key, value.get<int64_t>());
    } else if (value.is_number()) {
      dict.set(key, value.get<double>());
    } else if (value.is_string()) {
      dict.set(key, value.get<std::string>());
    } else if (value.is_array() && std::all_of(value.begin(), value.end(), [](const json& j) { return j.is_number_integer(); })) {
      dict.set(key, value.get<std::vector<int64_t>>());
    } else {
      return wrongKind(where, key, "a number, a string or a list of integers");
    }
  }
  return dict;
}

// An integer is welcome where the observer declares a real.
void convertArgs(ObservedSpec& spec) {
  const ObserverDef* def = findObserver(spec.observer);
  if (!def) return;
  for (const AttrSpec& arg : def->args)
    if (const Attr* given = spec.observerArgs.find(arg.name);
        given && arg.kind == AttrKind::real && std::holds_alternative<int64_t>(*given))
      spec.observerArgs.set(arg.name, static_cast<double>(std::get<int64_t>(*given)));
}

constexpr size_t kLargest = size_t{16} << 20;
constexpr int kDeepest = 64;
struct TooDeep {};

}  // namespace

std::string reasonOf(const nlohmann::json::exception& error) {
  const std::string_view text = error.what();
  const size_t end = text.starts_with("[json.exception") ? text.find("] ") : std::string_view::npos;
  return std::string(end == std::string_view::npos ? text : text.substr(end + 2));
}

std::string asText(const std::string& name) {
  return json::parse(json(name).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
}

Result<json> parseJson(std::string_view text, std::string_view source, ErrorCode code) {
  // The parser copes with any depth, but what comes later, down to the destructor, recurses.
  const auto bounded = [](int depth, json::parse_event_t, json&) {
    if (depth > kDeepest) throw TooDeep();
    return true;
  };
  try {
    return json::parse(text, bounded, true, true);
  } catch (const json::exception& e) {
    return fail(code, "{}: {}", source, reasonOf(e));
  } catch (const TooDeep&) {
    return fail(code, "{}: nested more than {} deep", source, kDeepest);
  }
}

Result<std::string> readConfig(const std::string& path) { return readFile(path, kLargest); }

Result<json> parseConfig(std::string_view text, std::string_view source) {
  if (text.size() > kLargest) return fail(ErrorCode::kInvalidArgument, "{}: larger than 16 MB", source);
  return parseJson(text, source, ErrorCode::kInvalidArgument);
}

Status checkKeys(const json& object, const std::vector<std::string>& known, std::string_view where) {
  if (!object.is_object()) return fail(ErrorCode::kInvalidArgument, "{} is not an object", where);
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      return fail(ErrorCode::kInvalidArgument, "{} has no setting '{}'", where, key).help(didYouMean(key, known));
  return {};
}

Failure wrongKind(std::string_view where, std::string_view key, std::string_view wanted) {
  return fail(ErrorCode::kInvalidArgument, "{}: '{}' is not {}", where, key, wanted);
}

Status readString(const json& object, const char* key, std::string_view where, std::string& out) {
  if (!object.contains(key)) return {};
  if (!object[key].is_string()) return wrongKind(where, key, "a string");
  out = object[key].get<std::string>();
  return {};
}
Status readInteger(const json& object, const char* key, std::string_view where, int64_t& out) {
  if (!object.contains(key)) return {};
  if (!object[key].is_number_integer()) return wrongKind(where, key, "an integer");
  out = object[key].get<int64_t>();
  return {};
}

Result<ObservedSpec> readSpec(const json& j, ObservedSpec spec, const std::string& where) {
  QC_TRY(checkKeys(j, {"dtype", "range", "scheme", "axis", "block_size", "dynamic", "eps", "observer", "args"}, where));
  std::string dtype, scheme;
  QC_TRY(readString(j, "dtype", where, dtype));
  if (!dtype.empty()) {
    const auto parsed = parseDType(dtype);
    const bool half = parsed == DType::f16;  // weights in float16: nothing to range over
    if (!parsed || (!half && (!isInteger(*parsed) || sizeOf(*parsed) > 4)))
      return fail(ErrorCode::kInvalidArgument, "{}: 'dtype' is '{}', which values are not rounded to", where, dtype)
          .help("types are s8, u8, s4, u4, s16, u16, s32, u32 and f16; fewer bits are a range: s4 with [-2, 1] has 2");
    if (half) {
      spec.dtype = *parsed;
    } else if (*parsed != spec.dtype) {
      spec.dtype = *parsed;
      spec.qmin = rangeOf(*parsed).min;
      spec.qmax = rangeOf(*parsed).max;
    }
  }
  if (j.contains("range")) {
    const json& range = j["range"];
    if (!range.is_array() || range.size() != 2 || !range[0].is_number_integer() || !range[1].is_number_integer())
      return wrongKind(where, "range", "a pair of integers");
    spec.qmin = range[0].get<int64_t>();
    spec.qmax = range[1].get<int64_t>();
  }
  QC_TRY(readString(j, "scheme", where, scheme));
  if (!scheme.empty()) {
    const auto row = std::find_if(std::begin(kSchemes), std::end(kSchemes), [&](const auto& s) { return s.second == scheme; });
    if (row == std::end(kSchemes)) return wrongKind(where, "scheme", "\"affine\", \"symmetric\" or \"float_qparams\"");
    spec.scheme = row->first;
  }
  int64_t axis = spec.axis;
  QC_TRY(readInteger(j, "axis", where, axis));
  QC_TRY(readInteger(j, "block_size", where, spec.blockSize));
  if (axis < -1 || axis > 31 || spec.blockSize < 0) return fail(ErrorCode::kInvalidArgument, "{}: axis or block_size out of range", where);
  spec.axis = static_cast<int>(axis);
  if (j.contains("dynamic")) {
    if (!j["dynamic"].is_boolean()) return wrongKind(where, "dynamic", "true or false");
    spec.dynamic = j["dynamic"].get<bool>();
  }
  if (j.contains("eps")) {
    if (!j["eps"].is_number()) return wrongKind(where, "eps", "a number");
    spec.eps = j["eps"].get<double>();
  }
  const std::string before = spec.observer;
  QC_TRY(readString(j, "observer", where, spec.observer));
  if (spec.observer != before) {
    spec.observerArgs = {};
    const ObserverDef* def = findObserver(spec.observer);
    if (def && !j.contains("axis")) spec.axis = def->perChannel() ? std::max(spec.axis, 0) : -1;
  }
  if (j.contains("args")) {
    QC_ASSIGN(spec.observerArgs, readArgs(j["args"], where));
  }
  convertArgs(spec);
  ObservedSpec checked = spec;
  if (auto status = checkObservedSpec(checked); !status)
    return fail(status.error().code(), "{}: {}", where, status.error().message()).help(status.error().remedy());
  return spec;
}

json specJson(const ObservedSpec& s) {
  json args = json::object();
  for (const auto& [name, value] : s.observerArgs) {
    if (const auto* i = std::get_if<int64_t>(&value)) args[name] = *i;
    if (const auto* d = std::get_if<double>(&value)) args[name] = *d;
    if (const auto* t = std::get_if<std::string>(&value)) args[name] = *t;
    if (const auto* l = std::get_if<std::vector<int64_t>>(&value)) args[name] = *l;
  }
  return {
      {"dtype", toString(s.dtype)},
      {"range", {s.qmin, s.qmax}},
      {"scheme", std::find_if(std::begin(kSchemes), std::end(kSchemes), [&](const auto& row) { return row.first == s.scheme; })->second},
      {"axis", s.axis},
      {"block_size", s.blockSize},
      {"dynamic", s.dynamic},
      {"eps", s.eps},
      {"observer", s.observer},
      {"args", args}};
}

}  // namespace qc
