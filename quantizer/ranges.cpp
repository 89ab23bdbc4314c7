#include "quantizer/ranges.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "ir/arithmetic.h"
#include "ir/files.h"
#include "quantizer/rules/spec_json.h"
#include "quantizer/trace_json.h"

namespace qc {
namespace {

using nlohmann::json;

constexpr std::string_view kMagic = "qcal 1 ";
constexpr int64_t kLargestFile = int64_t{1} << 30;
constexpr const char* kMakeAgain = "calibrate again; of a .partial, delete it first";

// FNV-1a over 8 bytes a step; guards against damage, not against intent.
class Hash {
 public:
  void bytes(const void* data, size_t size) {
    const auto* p = static_cast<const unsigned char*>(data);
    number(size);
    for (; size >= 8; size -= 8, p += 8) {
      uint64_t word;
      std::memcpy(&word, p, 8);
      number(word);
    }
    uint64_t tail = 0;
    if (size) std::memcpy(&tail, p, size);
    number(tail);
  }
  void text(std::string_view s) { bytes(s.data(), s.size()); }
  void number(uint64_t word) {
    value_ = (value_ ^ word) * 0x100000001b3u;
    value_ ^= value_ >> 29;
  }
  std::string str() const { return fmt::format("{:016x}", value_); }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

std::string hashOf(std::string_view text) {
  Hash h;
  h.text(text);
  return h.str();
}

json numberJson(double v) {
  if (std::isfinite(v)) return v;
  return std::isnan(v) ? "nan" : v > 0 ? "inf" : "-inf";
}

Result<double> readNumber(const json& j) {
  if (j.is_number()) return j.get<double>();
  if (j == "inf") return std::numeric_limits<double>::infinity();
  if (j == "-inf") return -std::numeric_limits<double>::infinity();
  return fail(ErrorCode::kInvalidData, "a state holds something that is not a number");
}

Result<ObserverState> readState(const json& j) {
  if (!j.is_object()) return fail(ErrorCode::kInvalidData, "a state is not an object");
  ObserverState state;
  for (const auto& [key, list] : j.items()) {
    if (!list.is_array()) return fail(ErrorCode::kInvalidData, "the field '{}' of a state is not a list", key);
    std::vector<double>& values = state[key];
    values.reserve(list.size());
    for (const json& item : list) {
      QC_ASSIGN(const double value, readNumber(item));
      values.push_back(value);
    }
  }
  return state;
}

Result<json> readBody(std::string_view bytes, std::string_view source) {
  if (!bytes.starts_with("qcal ")) return fail(ErrorCode::kInvalidData, "'{}' is not a ranges file", source).help(kMakeAgain);
  if (!bytes.starts_with(kMagic)) return fail(ErrorCode::kUnsupported, "'{}' is a ranges file of another version", source).help(kMakeAgain);
  const size_t line = bytes.substr(0, 100).find('\n');
  if (line == std::string_view::npos) return fail(ErrorCode::kInvalidData, "'{}' ends within its first line", source).help(kMakeAgain);
  const std::string_view body = bytes.substr(line + 1);
  if (bytes.substr(0, line) != fmt::format("{}{} {}", kMagic, hashOf(body), body.size()))
    return fail(ErrorCode::kInvalidData, "'{}' is damaged: its checksum or length does not match", source).help(kMakeAgain);
  return parseJson(body, fmt::format("'{}'", source), ErrorCode::kInvalidData);
}

Result<BranchCounts> readBranches(const json& j, const std::string& where) {
  if (!j.is_object()) return wrongKind(where, "branches", "an object");
  BranchCounts branches;
  for (const auto& [name, counts] : j.items()) {
    const auto isCount = [](const json& count) { return count.is_number_unsigned() && count.get<uint64_t>() < uint64_t{1} << 60; };
    if (!counts.is_array() || counts.size() != 2 || !isCount(counts[0]) || !isCount(counts[1]))
      return wrongKind(where + ".branches", name, "two numbers of samples");
    branches[name] = {counts[0].get<int64_t>(), counts[1].get<int64_t>()};
  }
  return branches;
}

Result<Ranges::Entry> readEntry(const json& j, const std::string& where, int64_t& id) {
  QC_TRY(checkKeys(j, {"id", "name", "spec", "state", "trace"}, where));
  Ranges::Entry entry;
  if (j.size() != (j.contains("trace") ? 5u : 4u)) return fail(ErrorCode::kInvalidData, "{} is incomplete", where);
  QC_TRY(readInteger(j, "id", where, id));
  QC_TRY(readString(j, "name", where, entry.name));
  QC_ASSIGN(const ObservedSpec spec, readSpec(j["spec"], ObservedSpec{}, where + ".spec"));
  QC_ASSIGN(entry.observer, makeObserver(spec));
  QC_ASSIGN(const ObserverState state, readState(j["state"]));
  QC_TRY(entry.observer->load(state));
  if (j.contains("trace")) {
    QC_TRY(TraceJson::read(j["trace"], where + ".trace", entry.trace));
  }
  return entry;
}

}  // namespace

std::string fingerprint(const Graph& graph) {
  Hash hash;
  std::unordered_map<const Value*, uint64_t> numbers;
  const auto introduce = [&](const Value* v) { numbers.emplace(v, numbers.size()); };
  for (const Value* v : graph.inputs()) {
    hash.text(v->name());
    hash.text(v->type().str());
    introduce(v);
  }
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (n->is("observe")) {
      const auto it = numbers.find(n->operand(0));
      numbers[n->result()] = it == numbers.end() ? 0 : it->second;
      continue;
    }
    hash.text(n->op());
    for (const auto& [name, value] : n->attrs()) {
      hash.text(name);
      hash.text(toString(value));
    }
    for (const Value* v : n->operands()) hash.number(v ? numbers[v] + 1 : 0);
    for (int i = 0; i < n->numResults(); ++i) {
      hash.text(n->result(i)->type().str());
      introduce(n->result(i));
    }
    if (n->is("const")) hash.bytes(n->constant().data(), usize(n->constant().byteSize()));
  }
  for (const Value* v : graph.outputs()) hash.number(numbers[v]);
  return hash.str();
}

Ranges::Ranges(const Ranges& other)
    : model_(other.model_), samples_(other.samples_), parts_(other.parts_), inputs_(other.inputs_), branches_(other.branches_) {
  for (const auto& [id, entry] : other.entries_) entries_.emplace(id, Entry{entry.name, entry.observer->clone(), entry.trace});
}
Ranges& Ranges::operator=(const Ranges& other) {
  if (this != &other) *this = Ranges(other);
  return *this;
}

Result<Ranges> Ranges::forGraph(const Graph& prepared) {
  Ranges ranges;
  ranges.model_ = fingerprint(prepared);
  for (const Node* n = prepared.front(); n; n = n->next()) {
    if (!n->is("observe")) continue;
    const auto* spec = n->annotation() ? std::get_if<ObservedSpec>(&n->annotation()->output) : nullptr;
    const int64_t id = n->integer("id");
    if (!spec || ranges.entries_.contains(id)) continue;
    auto observer = makeObserver(*spec);
    if (!observer) return tl::make_unexpected(std::move(observer).error().at(n->location()).on(n->operand(0)->name()));
    ranges.entries_.emplace(id, Entry{asText(n->operand(0)->name()), std::move(*observer), {}});
  }
  return ranges;
}

void Ranges::setData(std::string fingerprint, int64_t total) {
  if (parts_.empty()) parts_.push_back({std::move(fingerprint), total, {}});
}

void Ranges::beginSample(int64_t index, const std::string& name) {
  current_ = index;
  currentName_ = asText(name);
}

void Ranges::seeInput(const std::string& name, const TensorRef& value) { inputs_[asText(name)].see(value); }

void Ranges::seeCondition(const std::string& name, bool holds) { ++branches_[asText(name)][holds ? 1 : 0]; }

void Ranges::countSample() {
  ++samples_;
  if (current_ >= 0 && !parts_.empty()) parts_.back().add(current_);
  current_ = -1;
}

Status Ranges::observe(int64_t id, const TensorRef& value) {
  const auto it = entries_.find(id);
  if (it == entries_.end()) return {};
  Entry& entry = it->second;
  Status status = entry.observer->observe(value);
  if (!status) return tl::make_unexpected(std::move(status).error().on(entry.name));
  const MinMax& seen = entry.observer->latest();
  if (current_ >= 0 && value.numElements() > 0 && seen.finite > 0) entry.trace.see({seen.min, seen.max}, current_, currentName_);
  return {};
}

Status Ranges::merge(const Ranges& other, bool approximate) {
  const DefinedArithmetic defined;
  if (model_ != other.model_)
    return fail(ErrorCode::kInvalidData, "ranges of different models: {} and {}", model_, other.model_)
        .help("calibrate with the same model file");
  if (entries_.size() != other.entries_.size())
    return fail(ErrorCode::kInvalidData, "{} observers meet {}", entries_.size(), other.entries_.size())
        .help("calibrate with the same rules");
  Ranges merged = *this;
  for (auto& [id, entry] : merged.entries_) {
    const auto it = other.entries_.find(id);
    if (it == other.entries_.end() || it->second.name != entry.name)
      return fail(ErrorCode::kInvalidData, "observer {} is missing or watches another value", id)
          .on(entry.name)
          .help("calibrate with the same rules");
    if (entry.observer->dependsOnOrder() && !approximate)
      return fail(ErrorCode::kUnsupported,
                  "what observer '{}' finds depends on the order of the samples, so shards cannot give what one run gives",
                  entry.observer->name())
          .on(entry.name)
          .help("calibrate in one run, choose another observer, or accept an approximation with Ranges::merge(.., approximate)");
    Status status = entry.observer->merge(*it->second.observer);
    if (!status) return tl::make_unexpected(std::move(status).error().on(entry.name));
    entry.trace.merge(it->second.trace);
  }
  for (const DataPart& part : other.parts_) {
    const auto same = std::find_if(merged.parts_.begin(), merged.parts_.end(),
                                   [&](const DataPart& p) { return p.data == part.data && p.total == part.total; });
    if (same == merged.parts_.end())
      merged.parts_.push_back(part);
    else
      QC_TRY(same->merge(part));
  }
  std::sort(merged.parts_.begin(), merged.parts_.end(),
            [](const DataPart& a, const DataPart& b) { return std::tie(a.data, a.total) < std::tie(b.data, b.total); });
  for (const auto& [name, input] : other.inputs_) merged.inputs_[name].merge(input);
  for (const auto& [name, counts] : other.branches_)
    for (const size_t side : {size_t{0}, size_t{1}}) merged.branches_[name][side] += counts[side];
  merged.samples_ += other.samples_;
  *this = std::move(merged);
  return {};
}

Status Ranges::checkFor(const Graph& prepared) const {
  QC_ASSIGN(const Ranges wanted, forGraph(prepared));
  if (wanted.model_ != model_) {
    // A backend may want the graph itself otherwise, so where all names are known it need not be another model.
    std::unordered_set<std::string> names;
    for (const Value* v : prepared.inputs()) names.insert(asText(v->name()));
    for (const Node* n = prepared.front(); n; n = n->next())
      for (int i = 0; i < n->numResults(); ++i) names.insert(asText(n->result(i)->name()));
    const bool knowsAll = std::ranges::all_of(entries_, [&](const auto& e) { return names.contains(e.second.name); });
    if (knowsAll && !entries_.empty())
      return fail(ErrorCode::kInvalidData,
                  "the ranges were collected under other rules, as those of another backend, or of a model with other weights ({}, not {})",
                  model_, wanted.model_)
          .help("calibrate this model with these rules");
    return fail(ErrorCode::kInvalidData, "the ranges are those of another model ({}, not {})", model_, wanted.model_)
        .help("calibrate this model");
  }
  for (const auto& [id, entry] : wanted.entries_) {
    const auto it = entries_.find(id);
    if (it == entries_.end() || it->second.name != entry.name || !(it->second.observer->spec() == entry.observer->spec()))
      return fail(ErrorCode::kInvalidData, "the ranges were collected under other rules").on(entry.name).help("calibrate with these rules");
  }
  return {};
}

Result<GroupParams> Ranges::params() const {
  GroupParams params;
  params.branches = branches_;
  for (const auto& [id, entry] : entries_) {
    if (!entry.observer->observed() && entry.observer->nonFinite() > 0)
      return fail(ErrorCode::kInvalidData, "no range was calibrated: every value that was seen is NaN or infinite ({} of them)",
                  entry.observer->nonFinite())
          .on(entry.name)
          .help("look at the samples and at the float model's results for them, or keep what reads this value float by a rule");
    if (!entry.observer->observed()) continue;
    auto quant = entry.observer->checkedParams();
    if (!quant) return tl::make_unexpected(std::move(quant).error().on(entry.name));
    params.emplace(id, std::make_shared<const QuantParams>(std::move(*quant)));
  }
  return params;
}

std::string Ranges::serialize() const {
  json list = json::array();
  for (const auto& [id, entry] : entries_) {
    json state = json::object();
    for (const auto& [field, values] : entry.observer->save()) {
      json numbers = json::array();
      for (const double v : values) numbers.push_back(numberJson(v));
      state[field] = std::move(numbers);
    }
    list.push_back({{"id", id}, {"name", entry.name}, {"spec", specJson(entry.observer->spec())}, {"state", std::move(state)}});
    if (!entry.trace.empty()) list.back()["trace"] = TraceJson::write(entry.trace);
  }
  json parts = json::array(), inputs = json::object();
  for (const DataPart& part : parts_) parts.push_back(TraceJson::write(part));
  for (const auto& [name, input] : inputs_) inputs[name] = TraceJson::write(input);
  json whole = {
      {"model", model_}, {"samples", samples_}, {"parts", std::move(parts)}, {"inputs", std::move(inputs)}, {"observers", std::move(list)}};
  if (!branches_.empty()) whole["branches"] = branches_;
  const std::string body = whole.dump(-1, ' ', false, json::error_handler_t::replace);
  return sealed(body);
}

std::string sealed(std::string_view body) { return fmt::format("{}{} {}\n{}", kMagic, hashOf(body), body.size(), body); }

Result<Ranges> Ranges::deserialize(std::string_view bytes, std::string_view sourceName) {
  QC_ASSIGN(const json whole, readBody(bytes, sourceName));
  const std::string where(sourceName);
  QC_TRY(checkKeys(whole, {"model", "samples", "parts", "inputs", "branches", "observers"}, where));
  Ranges ranges;
  QC_TRY(readString(whole, "model", where, ranges.model_));
  QC_TRY(readInteger(whole, "samples", where, ranges.samples_));
  if (ranges.samples_ < 0) return fail(ErrorCode::kInvalidData, "{}: {} samples", where, ranges.samples_);
  if (!whole.contains("parts") || !whole["parts"].is_array()) return wrongKind(where, "parts", "a list");
  for (const json& part : whole["parts"]) {
    ranges.parts_.emplace_back();
    QC_TRY(TraceJson::read(part, where + ".parts", ranges.parts_.back()));
  }
  if (!whole.contains("inputs") || !whole["inputs"].is_object()) return wrongKind(where, "inputs", "an object");
  for (const auto& [name, input] : whole["inputs"].items()) {
    QC_TRY(TraceJson::read(input, where + ".inputs", ranges.inputs_[name]));
  }
  if (whole.contains("branches")) {
    QC_ASSIGN(ranges.branches_, readBranches(whole["branches"], where));
  }
  if (!whole.contains("observers") || !whole["observers"].is_array()) return wrongKind(where, "observers", "a list");
  for (size_t i = 0; i < whole["observers"].size(); ++i) {
    const std::string place = fmt::format("{}.observers[{}]", where, i);
    int64_t id = -1;
    auto entry = readEntry(whole["observers"][i], place, id);
    if (!entry) return tl::make_unexpected(std::move(entry).error().on(place));
    if (id < 0 || !ranges.entries_.emplace(id, std::move(*entry)).second)
      return fail(ErrorCode::kInvalidData, "{}: id {} is taken or negative", place, id);
  }
  return ranges;
}

Status Ranges::save(const std::string& path) const { return writeFileAtomically(path, serialize()); }

Result<Ranges> Ranges::load(const std::string& path) {
  QC_ASSIGN(const std::string bytes, readFile(path, kLargestFile));
  return deserialize(bytes, path);
}

}  // namespace qc
