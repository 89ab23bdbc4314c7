// Which rule decides each node of a graph.
#include <algorithm>
#include <limits>
#include <map>
#include <regex>
#include <set>

#include "ir/loops.h"
#include "ir/onnx_names.h"
#include "quantizer/rules/nearest.h"
#include "quantizer/rules/qconfig.h"

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

// Those of bodies of loops as well, behind their loop.
void collect(const Graph& graph, std::vector<const Node*>& nodes) {
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (!skipped(*n)) nodes.push_back(n);
    if (const Graph* body = bodyOf(*n)) collect(*body, nodes);
  }
}

// Which of the rules that match decides: that of the higher level; then the nearer enclosing name; then the earlier one.
struct Choice {
  int rule = -1;
  std::pair<int, int> rank = {-1, 0};
  void offer(size_t other, Level level, int64_t distance) {
    const std::pair<int, int> theirs = {static_cast<int>(level), static_cast<int>(-distance)};
    if (rule < 0 || theirs > rank) *this = {static_cast<int>(other), theirs};
  }
};
// What decides about a loop decides about its body as a module's name does: behind each rule of its level that names what is within.
constexpr int kEnclosing = 1 << 20;

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
    QC_TRY(decide(graph_, {}));
    for (size_t i = 0; i < rules_.size(); ++i)
      if (standings_[i].matches == 0 && !rules_[i].optional && rules_[i].level != Level::global) return unmatched(rules_[i]);
    return std::move(decided_);
  }
  std::vector<ResolvedRules::Standing> takeStandings() { return std::move(standings_); }

 private:
  Status decide(const Graph& graph, const Choice& enclosing) {
    std::map<std::pair<std::string, std::string>, int64_t> counts;  // by module and type
    for (const Node* node = graph.front(); node; node = node->next()) {
      if (skipped(*node)) continue;
      const std::string module = parentOf(node->location());
      const int64_t order = counts[{module, std::string(node->op())}]++;
      Choice best = enclosing;
      std::vector<size_t> matching;
      for (size_t i = 0; i < rules_.size(); ++i) {
        QC_ASSIGN(const int distance, match(i, *node, module, order));
        if (distance < 0) continue;
        matching.push_back(i);
        best.offer(i, rules_[i].level, distance);
      }
      decided_[node] = best.rule;
      for (const size_t i : matching) {
        ++standings_[i].matches;
        if (static_cast<int>(i) != best.rule) standings_[i].beatenBy.insert(best.rule);
      }
      if (const Graph* body = bodyOf(*node)) QC_TRY(decide(*body, {best.rule, {best.rank.first, best.rank.second - kEnclosing}}));
    }
    for (const auto& [key, count] : counts) counts_[key] = std::max(counts_[key], count);
    return {};
  }

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
    std::vector<const Node*> nodes;
    collect(graph_, nodes);
    for (const Node* n : nodes) {
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
  std::map<const Node*, int> decided_;
  std::vector<ResolvedRules::Standing> standings_;
  std::vector<std::optional<std::regex>> regexes_;
  std::vector<std::set<const Node*>> stretches_;
  std::map<std::pair<std::string, std::string>, int64_t> counts_;
};

}  // namespace

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
