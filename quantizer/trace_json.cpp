#include "quantizer/trace_json.h"

#include <cmath>

#include "quantizer/rules/spec_json.h"

namespace qc {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSamples = int64_t{1} << 60;

Result<float> readFloat(const json& j, const std::string& where) {
  if (!j.is_number() || !std::isfinite(static_cast<float>(j.get<double>())))
    return fail(ErrorCode::kInvalidData, "{}: expected a finite number", where);
  return static_cast<float>(j.get<double>());
}

Result<int64_t> readCount(const json& j, const char* key, const std::string& where) {
  int64_t value = -1;
  QC_TRY(readInteger(j, key, where, value));
  if (value < 0 || value > kMaxSamples) return fail(ErrorCode::kInvalidData, "{}.{} is {}", where, key, value);
  return value;
}

json extremeJson(const SampleTrace::Extreme& e) {
  json j = json::array({e.value, e.sample, e.name});
  if (e.times > 1) j.push_back(e.times);
  return j;
}

Result<SampleTrace::Extreme> readExtreme(const json& j, const char* key, const std::string& where) {
  if (!j.contains(key) || !j[key].is_array() || j[key].size() < 3 || j[key].size() > 4 ||
      (j[key].size() == 4 && !j[key][3].is_number_integer()) || !j[key][1].is_number_integer() || !j[key][2].is_string())
    return wrongKind(where, key, "value, sample and its name");
  SampleTrace::Extreme e;
  QC_ASSIGN(e.value, readFloat(j[key][0], where));
  e.sample = j[key][1].get<int64_t>();
  e.name = j[key][2].get<std::string>();
  if (j[key].size() == 4) e.times = j[key][3].get<int64_t>();
  if (e.times < 1 || e.times > kMaxSamples) return fail(ErrorCode::kInvalidData, "{}.{}: of {} samples", where, key, e.times);
  if (e.sample < 0 || e.sample > kMaxSamples) return fail(ErrorCode::kInvalidData, "{}.{}: sample {}", where, key, e.sample);
  return e;
}

}  // namespace

json TraceJson::write(const SampleTrace& trace) {
  json buckets = json::array();
  for (const auto& [bucket, range] : trace.buckets_) buckets.push_back(json::array({bucket, range.min, range.max}));
  if (trace.empty()) return {{"buckets", buckets}};
  return {{"low", extremeJson(trace.lowest_)}, {"high", extremeJson(trace.highest_)}, {"buckets", buckets}};
}

Status TraceJson::read(const json& j, const std::string& where, SampleTrace& trace) {
  QC_TRY(checkKeys(j, {"low", "high", "buckets"}, where));
  if (!j.contains("buckets") || !j["buckets"].is_array()) return wrongKind(where, "buckets", "a list");
  for (const json& b : j["buckets"]) {
    if (!b.is_array() || b.size() != 3 || !b[0].is_number_integer()) return wrongKind(where, "buckets", "triples");
    const int64_t bucket = b[0].get<int64_t>();
    ValueRange range;
    QC_ASSIGN(range.min, readFloat(b[1], where));
    QC_ASSIGN(range.max, readFloat(b[2], where));
    if (bucket < 0 || bucket > SampleTrace::kMaxBucket || range.min > range.max)
      return fail(ErrorCode::kInvalidData, "{}: bad bucket {}", where, bucket);
    if (!trace.buckets_.emplace(static_cast<int>(bucket), range).second)
      return fail(ErrorCode::kInvalidData, "{}: bucket {} twice", where, bucket);
  }
  if (trace.buckets_.empty()) return {};
  QC_ASSIGN(trace.lowest_, readExtreme(j, "low", where));
  QC_ASSIGN(trace.highest_, readExtreme(j, "high", where));
  return {};
}

json TraceJson::write(const InputTrace& trace) {
  json j = {{"samples", trace.samples_},      {"constant", trace.constant_}, {"noise", trace.noise_},
            {"non_finite", trace.nonFinite_}, {"same", trace.same_},         {"hash", fmt::format("{:016x}", trace.hash_)}};
  if (trace.empty_ > 0) j["empty"] = trace.empty_;
  if (trace.range_) j["range"] = {trace.range_->min, trace.range_->max};
  return j;
}

Status TraceJson::read(const json& j, const std::string& where, InputTrace& trace) {
  QC_TRY(checkKeys(j, {"samples", "constant", "noise", "non_finite", "same", "hash", "empty", "range"}, where));
  QC_ASSIGN(trace.samples_, readCount(j, "samples", where));
  QC_ASSIGN(trace.constant_, readCount(j, "constant", where));
  QC_ASSIGN(trace.noise_, readCount(j, "noise", where));
  QC_ASSIGN(trace.nonFinite_, readCount(j, "non_finite", where));
  if (!j.contains("same") || !j["same"].is_boolean()) return wrongKind(where, "same", "true or false");
  trace.same_ = j["same"].get<bool>();
  std::string hash;
  QC_TRY(readString(j, "hash", where, hash));
  if (hash.size() != 16 || hash.find_first_not_of("0123456789abcdef") != std::string::npos)
    return wrongKind(where, "hash", "16 hex digits");
  trace.hash_ = std::stoull(hash, nullptr, 16);
  if (j.contains("empty")) {
    QC_ASSIGN(trace.empty_, readCount(j, "empty", where));
  }
  if (!j.contains("range")) return {};  // integers, or nothing finite
  if (!j["range"].is_array() || j["range"].size() != 2) return wrongKind(where, "range", "a pair of numbers");
  ValueRange range;
  QC_ASSIGN(range.min, readFloat(j["range"][0], where));
  QC_ASSIGN(range.max, readFloat(j["range"][1], where));
  if (!(range.min <= range.max)) return wrongKind(where, "range", "a pair of numbers in order");
  trace.range_ = range;
  return {};
}

json TraceJson::write(const DataPart& part) { return {{"data", part.data}, {"total", part.total}, {"seen", part.seen}}; }

Status TraceJson::read(const json& j, const std::string& where, DataPart& part) {
  QC_TRY(checkKeys(j, {"data", "total", "seen"}, where));
  QC_TRY(readString(j, "data", where, part.data));
  QC_ASSIGN(part.total, readCount(j, "total", where));
  if (!j.contains("seen") || !j["seen"].is_array()) return wrongKind(where, "seen", "a list");
  for (const json& pair : j["seen"]) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() || !pair[1].is_number_integer())
      return wrongKind(where, "seen", "pairs");
    const int64_t begin = pair[0].get<int64_t>(), end = pair[1].get<int64_t>(), earliest = part.seen.empty() ? 0 : part.seen.back().second;
    if (begin < earliest || end <= begin || end > part.total)
      return fail(ErrorCode::kInvalidData, "{}: samples {} to {} of {}", where, begin, end, part.total);
    part.seen.emplace_back(begin, end);
  }
  return {};
}

}  // namespace qc
