#include "quantizer/rules/qconfig.h"

#include <algorithm>
#include <limits>
#include <set>

#include "ir/onnx_names.h"
#include "quantizer/observers/qparams.h"
#include "quantizer/rules/nearest.h"

namespace qc {
namespace {

using Level = QConfigMapping::Level;
using Rule = QConfigMapping::Rule;

constexpr size_t kLongestName = 2048;  // std::regex recurses per character

std::vector<std::string> namesOf(const Node& node) {
  std::vector<std::string> names;
  if (!node.location().empty()) names.push_back(node.location());
  for (int i = 0; i < node.numResults(); ++i) names.push_back(node.result(i)->name());
  return names;
}

// The enclosing name: "/a/b/Conv" -> "/a/b", "a.b.c" -> "a.b"; empty at the top.
std::string parentOf(std::string_view name) {
  const size_t cut = name.find_last_of("/.");
  return cut == std::string_view::npos ? std::string() : std::string(name.substr(0, cut));
}

// How far up `wanted` encloses `name`: 0 is itself, -1 not at all.
int enclosingDistance(std::string_view wanted, std::string_view name) {
  if (wanted.empty()) return -1;
  if (name == wanted) return 0;
  if (name.size() <= wanted.size() || name.substr(0, wanted.size()) != wanted) return -1;
  const char next = name[wanted.size()];
  if (next != '/' && next != '.') return -1;
  const auto rest = name.substr(wanted.size());
  return static_cast<int>(std::count_if(rest.begin(), rest.end(), [](char c) { return c == '/' || c == '.'; }));
}

bool skipped(const Node& node) { return node.is("const"); }

class Resolver {
 public:
  Resolver(const Graph& graph, const std::vector<Rule>& rules) : graph_(graph), rules_(rules), standings_(rules.size()) {}

  Result<std::map<const Node*, int>> run() {
    for (const Rule& rule : rules_) {
      regexes_.emplace_back();
      if (rule.level == Level::nameRegex) QC_TRY(compile(rule));
      stretches_.emplace_back();
      if (rule.level == Level::between) QC_TRY(walkStretch(rule));
    }
    std::map<const Node*, int> decided;
    for (const Node* node = graph_.front(); node; node = node->next()) {
      if (skipped(*node)) continue;
      const std::string module = parentOf(node->location());
      const int64_t order = counts_[{module, std::string(node->op())}]++;
      int best = -1;
      std::pair<int, int> bestRank = {-1, 0};
      std::vector<size_t> matching;
      for (size_t i = 0; i < rules_.size(); ++i) {
        QC_ASSIGN(const int closeness, match(i, *node, module, order));
        if (closeness < 0) continue;
        matching.push_back(i);
        // Higher level first; then the nearer enclosing name; then the earlier rule.
        const std::pair<int, int> rank = {static_cast<int>(rules_[i].level), -closeness};
        if (rank > bestRank || best < 0) {
          bestRank = rank;
          best = static_cast<int>(i);
        }
      }
      decided[node] = best;
      for (const size_t i : matching) {
        ++standings_[i].matches;
        if (static_cast<int>(i) != best) standings_[i].beatenBy.insert(best);
      }
    }
    for (size_t i = 0; i < rules_.size(); ++i)
      if (standings_[i].matches == 0 && !rules_[i].optional && rules_[i].level != Level::global) return unmatched(rules_[i]);
    return decided;
  }
  std::vector<ResolvedRules::Standing> takeStandings() { return std::move(standings_); }

 private:
  Status compile(const Rule& rule) {
    try {
      regexes_.back().emplace(rule.name, std::regex::ECMAScript | std::regex::optimize);
    } catch (const std::regex_error& e) {
      return fail(ErrorCode::kInvalidArgument, "{} is not a regular expression: {}", rule.str(), e.what());
    }
    return {};
  }

  Status walkStretch(const Rule& rule) {
    const Value *from = graph_.findValue(rule.name), *to = graph_.findValue(rule.type);
    if (!from || !to) {
      const std::string& missing = from ? rule.type : rule.name;
      return fail(ErrorCode::kInvalidArgument, "{}: there is no value '{}'", rule.str(), missing).help(didYouMean(missing, valueNames()));
    }
    // Nodes that `from` reaches and that reach `to`.
    std::set<const Value*> below = {from}, above = {to};
    for (const Node* n = graph_.front(); n; n = n->next())
      for (const Value* v : n->operands())
        if (v && below.contains(v))
          for (int i = 0; i < n->numResults(); ++i) below.insert(n->result(i));
    std::set<const Node*>& stretch = stretches_.back();
    for (const Node* n = graph_.back(); n; n = n->previous()) {
      bool onPath = false;
      for (int i = 0; i < n->numResults(); ++i) onPath = onPath || above.contains(n->result(i));
      if (!onPath) continue;
      bool reached = false;
      for (const Value* v : n->operands()) {
        if (!v) continue;
        above.insert(v);
        reached = reached || below.contains(v);
      }
      if (reached) stretch.insert(n);
    }
    return {};
  }

  // -1: no match; otherwise how far the name is (0 exact).
  Result<int> match(size_t i, const Node& node, const std::string& module, int64_t order) const {
    const Rule& rule = rules_[i];
    switch (rule.level) {
      case Level::global: return 0;
      case Level::objectType: return namesOp(rule.type, node.op()) ? 0 : -1;
      case Level::nameTypeOrder: return rule.name == module && order == rule.order && namesOp(rule.type, node.op()) ? 0 : -1;
      case Level::between: return stretches_[i].contains(&node) ? 0 : -1;
      case Level::name: {
        int best = -1;
        for (const std::string& name : namesOf(node)) {
          const int distance = enclosingDistance(rule.name, name);
          if (distance >= 0 && (best < 0 || distance < best)) best = distance;
        }
        return best;
      }
      case Level::nameRegex: {
        for (const std::string& name : namesOf(node)) {
          if (name.size() > kLongestName) continue;
          try {
            if (std::regex_search(name, *regexes_[i], std::regex_constants::match_continuous)) return 0;
          } catch (const std::regex_error& e) {
            return fail(ErrorCode::kResource, "{} is too costly to match: {}", rule.str(), e.what()).at(node.location());
          }
        }
        return -1;
      }
    }
    return -1;
  }

  std::vector<std::string> valueNames() const {
    std::vector<std::string> names;
    for (const Value* v : graph_.inputs()) names.push_back(v->name());
    for (const Node* n = graph_.front(); n; n = n->next())
      for (int i = 0; i < n->numResults(); ++i) names.push_back(n->result(i)->name());
    return names;
  }

  // First the module, then what it holds.
  Failure unmatchedOrder(const Rule& rule) const {
    std::set<std::string> modules;
    std::string held;
    for (const auto& [key, count] : counts_) {
      modules.insert(key.first);
      if (key.first == rule.name) held += fmt::format("{}{} (order 0 to {})", held.empty() ? "" : ", ", key.second, count - 1);
    }
    if (!held.empty())
      return fail(ErrorCode::kInvalidArgument, "{} matches nothing in the model", rule.str())
          .help(fmt::format("'{}' holds {}", rule.name, held));
    modules.erase("");
    std::string help = didYouMean(rule.name, {modules.begin(), modules.end()});
    if (modules.empty()) help = "no node of this model stands in a module: write \"name\": \"\"";
    return fail(ErrorCode::kInvalidArgument, "{} matches nothing in the model: there is no module '{}'", rule.str(), rule.name)
        .help(help.empty() ? fmt::format("modules are what names have in front of their last '/' or '.', such as '{}'", *modules.begin())
                           : help);
  }

  Failure unmatched(const Rule& rule) const {
    if (rule.level == Level::nameTypeOrder) return unmatchedOrder(rule);
    std::set<std::string> types, names;
    for (const Node* n = graph_.front(); n; n = n->next()) {
      if (skipped(*n)) continue;
      types.emplace(n->op());
      for (std::string name : namesOf(*n))
        for (; !name.empty(); name = parentOf(name)) names.insert(name);
    }
    const bool byType = rule.level == Level::objectType;
    const std::set<std::string>& known = byType ? types : names;
    return fail(ErrorCode::kInvalidArgument, "{} matches nothing in the model", rule.str())
        .help(didYouMean(byType ? rule.type : rule.name, {known.begin(), known.end()}));
  }

  const Graph& graph_;
  const std::vector<Rule>& rules_;
  std::vector<ResolvedRules::Standing> standings_;
  std::vector<std::optional<std::regex>> regexes_;
  std::vector<std::set<const Node*>> stretches_;
  std::map<std::pair<std::string, std::string>, int64_t> counts_;
};

struct BackendRow {
  Backend backend;
  std::string_view name;
  DType activation;
  IntRange range;  // of activations; up to 127 in u8 leaves room for 16-bit sums of pairs
  QScheme scheme;
  std::string_view observer;
  bool perChannel;
  int64_t weightMin;
  double eps;
  bool hasTable;  // of patterns, under the same name
};
constexpr auto kAffine = QScheme::affine, kSymmetric = QScheme::symmetric;
constexpr BackendRow kBackends[] = {
    {Backend::x86, "x86", DType::u8, {0, 255}, kAffine, "histogram", true, -128, kSmallestScale, false},
    {Backend::fbgemm, "fbgemm", DType::u8, {0, 127}, kAffine, "histogram", true, -128, kSmallestScale, true},
    {Backend::onednn, "onednn", DType::u8, {0, 255}, kAffine, "histogram", true, -128, kSmallestScale, true},
    {Backend::qnnpack, "qnnpack", DType::u8, {0, 255}, kAffine, "histogram", false, -128, kSmallestScale, true},
    {Backend::xnnpack, "xnnpack", DType::s8, {-128, 127}, kAffine, "histogram", true, -127, kEpsXnnpack, true},
    {Backend::onnxruntime, "onnxruntime", DType::s8, {-128, 127}, kAffine, "minmax", false, -127, kSmallestScale, true},
    {Backend::tensorrt, "tensorrt", DType::s8, {-127, 127}, kSymmetric, "entropy", true, -127, kSmallestScale, true},
};
const BackendRow& rowOf(Backend backend) {
  return *std::find_if(std::begin(kBackends), std::end(kBackends), [&](const BackendRow& r) { return r.backend == backend; });
}

}  // namespace

Result<Backend> parseBackend(std::string_view name) {
  std::vector<std::string> names;
  for (const BackendRow& row : kBackends) {
    if (row.name == name) return row.backend;
    names.emplace_back(row.name);
  }
  return fail(ErrorCode::kInvalidArgument, "there is no backend '{}'; known are {}", name, fmt::join(names, ", "));
}
std::string_view toString(Backend backend) { return rowOf(backend).name; }

QConfig defaultQConfig(Backend backend) {
  const BackendRow& row = rowOf(backend);
  QConfig config;
  config.activation.dtype = row.activation;
  config.activation.qmin = row.range.min;
  config.activation.qmax = row.range.max;
  config.activation.scheme = row.scheme;
  config.activation.eps = row.eps;
  config.activation.observer = row.observer;
  config.weight.dtype = DType::s8;
  config.weight.qmin = row.weightMin;
  config.weight.qmax = 127;
  config.weight.scheme = QScheme::symmetric;
  config.weight.eps = row.eps;
  config.weight.axis = row.perChannel ? 0 : -1;
  config.weight.observer = row.perChannel ? "per_channel_minmax" : "minmax";
  return config;
}

QConfig dynamicQConfig(Backend backend, bool perToken) {
  QConfig config = defaultQConfig(backend);
  config.activation.dynamic = true;
  config.activation.observer = perToken ? "per_token" : "minmax";
  // No requantization follows, so no scale is too small; ONNX's DynamicQuantizeLinear has no bound either.
  config.activation.eps = std::numeric_limits<float>::min();
  return config;
}

QConfig weightOnlyQConfig(Backend backend, int bits, int64_t groupSize) {
  QConfig config = defaultQConfig(backend);
  config.activation.observer = "placeholder";
  if (bits == 4) {
    config.weight.dtype = DType::s4;
    config.weight.qmin = rangeOf(DType::s4).min;
    config.weight.qmax = rangeOf(DType::s4).max;
    // 16 steps are too few to spend on a side where a group has nothing.  TensorRT takes symmetric ones alone.
    config.weight.scheme = config.activation.scheme;
  }
  if (groupSize > 0) {
    config.weight.axis = 0;  // which axis groups lie along follows from the op
    config.weight.blockSize = groupSize;
    config.weight.observer = "per_group";
  }
  return config;
}

QConfig halfWeightsQConfig() {
  QConfig config;
  config.activation.observer = config.weight.observer = "placeholder";
  config.weight.dtype = DType::f16;
  return config;
}

QConfigMapping defaultQConfigMapping(Backend backend) {
  QConfigMapping mapping;
  mapping.global(defaultQConfig(backend));
  if (rowOf(backend).hasTable) mapping.backendConfig(builtinBackendConfig(toString(backend)).value());
  if (backend == Backend::fbgemm) {
    QConfig perTensor = defaultQConfig(backend);
    perTensor.weight.axis = -1;
    perTensor.weight.observer = "minmax";
    mapping.set({.level = Level::objectType, .type = "conv_transpose", .entry = perTensor, .optional = true});
  }
  return mapping;
}

QConfigMapping dynamicQConfigMapping(Backend backend) {
  QConfigMapping mapping;
  mapping.global(dynamicQConfig(backend));
  if (backend == Backend::x86)
    mapping.set({.level = Level::objectType, .type = "linear", .entry = dynamicQConfig(backend, true), .optional = true});
  return mapping;
}

QConfigMapping weightOnlyQConfigMapping(Backend backend, int bits, int64_t groupSize) {
  QConfigMapping mapping;
  mapping.global(weightOnlyQConfig(backend));
  if (bits == 8 && groupSize == 0) return mapping;
  for (const char* type : {"linear", "gather"})
    mapping.set({.level = Level::objectType, .type = type, .entry = weightOnlyQConfig(backend, bits, groupSize), .optional = true});
  return mapping;
}

QConfigMapping& QConfigMapping::backendConfig(std::optional<BackendConfig> config) {
  backendConfig_ = std::move(config);
  return *this;
}

QConfigMapping& QConfigMapping::guards(Guards guards) {
  guards_ = guards;
  return *this;
}

QConfigMapping& QConfigMapping::quantizedInputs(std::vector<int64_t> indexes) {
  quantizedInputs_ = std::move(indexes);
  return *this;
}

QConfigMapping& QConfigMapping::quantizedOutputs(std::vector<int64_t> indexes) {
  quantizedOutputs_ = std::move(indexes);
  return *this;
}

QConfigMapping& QConfigMapping::set(Rule rule) {
  for (Rule& known : rules_) {
    if (known.level != rule.level || known.name != rule.name || known.type != rule.type || known.order != rule.order) continue;
    known.entry = std::move(rule.entry);
    known.optional = rule.optional;
    known.force = rule.force;
    given_ = usize(&known - rules_.data());
    return *this;
  }
  given_ = rules_.size();
  rules_.push_back(std::move(rule));
  return *this;
}
QConfigMapping QConfigMapping::with(size_t index, std::optional<Rule> rule) const {
  QConfigMapping other = *this;
  if (index >= rules_.size()) return other;
  if (rule)
    other.rules_[index] = std::move(*rule);
  else
    other.rules_.erase(other.rules_.begin() + static_cast<std::ptrdiff_t>(index));
  return other;
}

QConfigMapping& QConfigMapping::recipe(std::string name, std::string choice) {
  recipes_.insert_or_assign(std::move(name), std::move(choice));
  return *this;
}

QConfigMapping& QConfigMapping::force() {
  if (given_ < rules_.size()) rules_[given_].force = true;
  return *this;
}
QConfigMapping& QConfigMapping::standalone(std::string from, std::string to, QConfigMapping rules) {
  standalone_.push_back({std::move(from), std::move(to), std::make_shared<const QConfigMapping>(std::move(rules))});
  return *this;
}
QConfigMapping& QConfigMapping::global(QConfigEntry e) { return set({Level::global, {}, {}, 0, std::move(e), false}); }
QConfigMapping& QConfigMapping::objectType(std::string type, QConfigEntry e) {
  return set({Level::objectType, {}, std::move(type), 0, std::move(e), false});
}
QConfigMapping& QConfigMapping::nameRegex(std::string regex, QConfigEntry e) {
  return set({Level::nameRegex, std::move(regex), {}, 0, std::move(e), false});
}
QConfigMapping& QConfigMapping::name(std::string name, QConfigEntry e) {
  return set({Level::name, std::move(name), {}, 0, std::move(e), false});
}
QConfigMapping& QConfigMapping::nameTypeOrder(std::string module, std::string type, int64_t index, QConfigEntry e) {
  return set({Level::nameTypeOrder, std::move(module), std::move(type), index, std::move(e), false});
}
QConfigMapping& QConfigMapping::between(std::string from, std::string to, QConfigEntry e) {
  return set({Level::between, std::move(from), std::move(to), 0, std::move(e), false});
}

std::string QConfigMapping::Rule::str() const {
  switch (level) {
    case Level::global: return "the global rule";
    case Level::objectType: return fmt::format("the rule for type '{}'", type);
    case Level::nameRegex: return fmt::format("the rule for names like '{}'", name);
    case Level::between: return fmt::format("the rule from '{}' to '{}'", name, type);
    case Level::name: return fmt::format("the rule for '{}'", name);
    case Level::nameTypeOrder: return fmt::format("the rule for {} number {} in '{}'", type, order, name);
  }
  return {};
}

Result<ResolvedRules> QConfigMapping::resolve(const Graph& graph) const {
  ResolvedRules resolved;
  resolved.rules_ = rules_;
  Resolver resolver(graph, rules_);
  QC_ASSIGN(resolved.decided_, resolver.run());
  resolved.standings_ = resolver.takeStandings();
  return resolved;
}

ResolvedRules::Decision ResolvedRules::of(const Node& node) const {
  const auto it = decided_.find(&node);
  if (it == decided_.end() || it->second < 0) return {};
  return {&nth(rules_, it->second)};
}

std::vector<const Node*> ResolvedRules::decidedBy(size_t rule) const {
  std::vector<const Node*> nodes;
  for (const auto& [node, by] : decided_)
    if (by == static_cast<int>(rule)) nodes.push_back(node);
  return nodes;
}

std::string ResolvedRules::Decision::str() const {
  if (!rule) return "no rule applies";
  return rule->entry ? "by " + rule->str() : "kept float by " + rule->str();
}

}  // namespace qc
