#include "runtime/insight/idle_rules.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "passes/pass_manager.h"
#include "quantizer/modes.h"
#include "quantizer/observers/observer.h"
#include "quantizer/quantizer.h"
#include "quantizer/rules/op_policy.h"
#include "quantizer/touches_floats.h"

namespace qc {
namespace {

using Rule = QConfigMapping::Rule;
using Level = QConfigMapping::Level;

// ---- settings of a configuration ------------------------------------------------------------------

struct Setting {
  std::string_view name;
  bool (*same)(const ObservedSpec&, const ObservedSpec&);
  void (*take)(ObservedSpec& to, const ObservedSpec& from);
};
const Setting kSettings[] = {
    {"dtype", [](const auto& a, const auto& b) { return a.dtype == b.dtype; },
     [](auto& to, const auto& from) { to.dtype = from.dtype, to.qmin = from.qmin, to.qmax = from.qmax; }},
    {"range", [](const auto& a, const auto& b) { return a.dtype != b.dtype || (a.qmin == b.qmin && a.qmax == b.qmax); },
     [](auto& to, const auto& from) { to.qmin = from.qmin, to.qmax = from.qmax; }},
    {"scheme", [](const auto& a, const auto& b) { return a.scheme == b.scheme; },
     [](auto& to, const auto& from) { to.scheme = from.scheme; }},
    {"axis", [](const auto& a, const auto& b) { return a.axis == b.axis || a.observer != b.observer; },
     [](auto& to, const auto& from) { to.axis = from.axis; }},
    {"block_size", [](const auto& a, const auto& b) { return a.blockSize == b.blockSize; },
     [](auto& to, const auto& from) { to.blockSize = from.blockSize; }},
    {"dynamic", [](const auto& a, const auto& b) { return a.dynamic == b.dynamic; },
     [](auto& to, const auto& from) { to.dynamic = from.dynamic; }},
    {"eps", [](const auto& a, const auto& b) { return a.eps == b.eps; }, [](auto& to, const auto& from) { to.eps = from.eps; }},
    {"observer", [](const auto& a, const auto& b) { return a.observer == b.observer; },
     [](auto& to, const auto& from) { to.observer = from.observer, to.observerArgs = from.observerArgs, to.axis = from.axis; }},
    {"args", [](const auto& a, const auto& b) { return a.observer != b.observer || a.observerArgs == b.observerArgs; },
     [](auto& to, const auto& from) { to.observerArgs = from.observerArgs; }},
};

struct Part {
  std::string_view name;
  ObservedSpec QConfig::* spec;
};
constexpr Part kParts[] = {{"activation", &QConfig::activation}, {"weight", &QConfig::weight}};

struct RuleDifference {
  const Part* part;
  const Setting* setting;
  std::string str() const { return fmt::format("{}.{}", part->name, setting->name); }
};

std::vector<RuleDifference> differences(const QConfig& a, const QConfig& b) {
  std::vector<RuleDifference> list;
  for (const Part& part : kParts)
    for (const Setting& setting : kSettings)
      if (!setting.same(a.*part.spec, b.*part.spec)) list.push_back({&part, &setting});
  return list;
}

// Of the configurations that have a name, the one that a rule's differs from least.
QConfig nearestNamed(const QConfig& config) {
  std::vector<QConfig> named = {halfWeightsQConfig()};
  for (const Backend b :
       {Backend::x86, Backend::fbgemm, Backend::onednn, Backend::qnnpack, Backend::xnnpack, Backend::onnxruntime, Backend::tensorrt})
    for (QConfig c : {defaultQConfig(b), dynamicQConfig(b), dynamicQConfig(b, true), weightOnlyQConfig(b), weightOnlyQConfig(b, 4, 32)})
      named.push_back(std::move(c));
  return *std::min_element(named.begin(), named.end(), [&](const QConfig& a, const QConfig& b) {
    return differences(config, a).size() < differences(config, b).size();
  });
}

// ---- what a graph is told ----------------------------------------------------------------------------

// All that passes behind `prepare` go by: where observers stand and how constants are rounded.
std::string meaningOf(const Graph& prepared) {
  std::string text;
  std::map<int64_t, size_t> groups;
  for (const Node* n = prepared.front(); n; n = n->next()) {
    if (n->is("const")) continue;
    text += n->op();
    for (const Value* v : n->operands()) text += v ? " %" + v->name() : " -";
    if (n->is("observe")) {
      const int64_t id = n->integer("id");
      text += fmt::format(" {} {}", groups.emplace(id, groups.size()).first->second, toString(n->annotation()->output));
    } else if (n->annotation()) {
      for (size_t i = 0; i < n->annotation()->inputs.size(); ++i) {
        const Value* v = n->operand(static_cast<int>(i));
        if (v && (v->constant() || n->annotation()->dynamicInput(static_cast<int>(i))))
          text += fmt::format(" {}:{}", i, toString(n->annotation()->inputs[i]));
      }
    }
    text += '\n';
  }
  return text;
}

struct RuleTrial {
  Graph annotated;
  std::map<std::string, CoverageRow> rows;  // by result
  std::string meaning;
};

Result<RuleTrial> tried(const Graph& simplified, const QConfigMapping& rules) {
  RuleTrial t{simplified.clone(), {}, {}};
  DefaultQuantizer quantizer(rules, {.quantizedOutputs = rules.quantizedOutputs()});
  QC_TRY(quantizer.annotate(t.annotated));
  const CoverageReport report = quantizer.report(t.annotated);
  size_t row = 0;
  for (const Node* n = t.annotated.front(); n; n = n->next()) {
    if (n->is("const") || !touchesFloats(*n)) continue;
    if (n->numResults() > 0 && row < report.rows.size()) t.rows[n->result()->name()] = report.rows[row];
    ++row;
  }
  Graph prepared = t.annotated.clone();
  PassContext cx;
  QC_TRY(runPipeline("prepare", prepared, cx));
  t.meaning = meaningOf(prepared);
  return t;
}

class IdleSearch {
 public:
  IdleSearch(const QConfigMapping& rules, const Graph& simplified) : rules_(rules), simplified_(simplified) {}

  Result<std::vector<Remark>> run() {
    QC_ASSIGN(RuleTrial whole, tried(simplified_, rules_));
    whole_ = &whole;
    QC_ASSIGN(const ResolvedRules resolved, rules_.resolve(whole.annotated));
    for (size_t i = 0; i < rules_.rules().size(); ++i)
      if (!rules_.rules()[i].optional) QC_TRY(examine(i, resolved));
    return std::move(remarks_);
  }

 private:
  void say(const Rule& rule, const std::string& what) { remarks_.push_back({"rules", {}, fmt::format("{} {}", rule.str(), what)}); }

  // A trial that fails would have an effect.
  Result<std::optional<RuleTrial>> without(size_t i, std::optional<Rule> rule) const {
    auto t = tried(simplified_, lenient(rules_.with(i, std::move(rule))));
    if (!t) return std::optional<RuleTrial>();
    return std::optional<RuleTrial>(std::move(*t));
  }
  static QConfigMapping lenient(QConfigMapping rules) {
    for (size_t i = 0; i < rules.rules().size(); ++i) {
      Rule rule = rules.rules()[i];
      rule.optional = true;
      rules = rules.with(i, std::move(rule));
    }
    return rules;
  }

  Status examine(size_t i, const ResolvedRules& resolved) {
    const Rule& rule = rules_.rules()[i];
    std::vector<const Node*> nodes;  // in their order
    const std::vector<const Node*> decided = resolved.decidedBy(i);
    const std::vector<Node*> all = whole_->annotated.nodes();
    if (std::ranges::any_of(decided, [&](const Node* n) { return std::ranges::find(all, n) == all.end(); }))
      return {};                  // it decides within the body of a loop, which trials leave alone
    const Node* plain = nullptr;  // the first that no row is of
    for (const Node* n = whole_->annotated.front(); n; n = n->next()) {
      if (n->numResults() == 0 || std::find(decided.begin(), decided.end(), n) == decided.end()) continue;
      if (touchesFloats(*n)) nodes.push_back(n);
      if (!touchesFloats(*n) && !plain) plain = n;
    }
    const bool isGlobal = rule.level == Level::global;
    if (nodes.empty() && plain) {
      if (!isGlobal) sayPlain(rule, *plain);
      return {};
    }
    if (nodes.empty()) {
      if (!isGlobal && resolved.standing(i).matches > 0) sayBeaten(rule, resolved.standing(i));
      return {};
    }
    if (!rule.entry) return isGlobal ? Status() : examineFloat(i, nodes);
    const bool any = std::any_of(nodes.begin(), nodes.end(), [&](const Node* n) { return rowOf(n).quantized; });
    const bool weighted = std::any_of(nodes.begin(), nodes.end(), [](const Node* n) { return policyOf(*n).role == Role::weighted; });
    if (!any && weighted && modeOf(*rule.entry) == QuantMode::full && roleOf(rule.entry->weight) == ObserverRole::keepFloat)
      return isGlobal ? Status() : examineFloat(i, nodes);  // float weights: what it wishes
    if (!any) {
      if (!isGlobal) sayFloat(rule, nodes);  // of everything, the coverage says it
      return {};
    }
    return examineSettings(i, nodes);
  }

  void sayBeaten(const Rule& rule, const ResolvedRules::Standing& standing) {
    const Rule& first = nth(rules_.rules(), *standing.beatenBy.begin());
    const bool sameLevel = first.level == rule.level;
    say(rule, fmt::format("has no effect: {} {} what it names{}; {}",
                          standing.beatenBy.size() > 1 ? "stronger rules, such as " + first.str() + "," : first.str(),
                          standing.beatenBy.size() > 1 ? "decide" : "decides", sameLevel ? " and stands in front" : "",
                          sameLevel ? "put it in front of that, or leave it out" : "name the nodes themselves, or leave it out"));
  }

  void sayPlain(const Rule& rule, const Node& node) {
    say(rule, fmt::format("has no effect: {} '{}' computes on plain integers, which stay as they are; leave it out", node.op(),
                          displayName(node)));
  }

  Status examineFloat(size_t i, const std::vector<const Node*>& nodes) {
    QC_ASSIGN(const auto other, without(i, std::nullopt));
    if (!other || other->meaning != whole_->meaning) return {};
    for (const Node* n : nodes) {
      const auto row = other->rows.find(n->result()->name());
      // Where something else that the user wrote keeps it in float, this is no more than twice the same.
      if (row == other->rows.end() || row->second.quantized || row->second.reason.starts_with("kept float by")) return {};
    }
    const CoverageRow& row = other->rows.at(nodes.front()->result()->name());
    say(rules_.rules()[i], fmt::format("has no effect: {} '{}'{} in float without it: {}; leave it out", row.op, row.node,
                                       othersText(nodes, " stays", " stay"), row.reason));
    return {};
  }

  static std::string othersText(const std::vector<const Node*>& nodes, std::string_view one, std::string_view more) {
    return nodes.size() == 1 ? std::string(one) : fmt::format(" and {} more{}", nodes.size() - 1, more);
  }

  void sayFloat(const Rule& rule, const std::vector<const Node*>& nodes) {
    const CoverageRow& row = rowOf(nodes.front());
    std::string remedy = "write \"qconfig\": \"float\" if that is meant, or else another configuration";
    if (row.remedy && row.remedy->force && !rule.force) remedy = "\"force\": true in the rule makes integers of it all the same";
    if (row.remedy && !row.remedy->force) remedy = fmt::format("\"qconfig\": \"{}\" makes integers of its weights", row.remedy->qconfig);
    say(rule, fmt::format("quantizes nothing: {} '{}'{} in float: {}; {}", row.op, row.node, othersText(nodes, " stays", " stay"),
                          row.reason, remedy));
  }

  Status examineSettings(size_t i, const std::vector<const Node*>& nodes) {
    const Rule& rule = rules_.rules()[i];
    const QConfig base = nearestNamed(*rule.entry);
    std::map<std::string, std::vector<std::string>> idle;  // by reason
    for (const RuleDifference& d : differences(*rule.entry, base)) {
      Rule changed = rule;
      d.setting->take((*changed.entry).*d.part->spec, base.*d.part->spec);
      QC_ASSIGN(const auto other, without(i, std::move(changed)));
      if (other && other->meaning == whole_->meaning) idle[whyIdle(*d.part, nodes, *rule.entry)].push_back(d.str());
    }
    for (const auto& [why, settings] : idle) say(rule, fmt::format("sets {} without effect: {}", fmt::join(settings, ", "), why));
    if (!idle.empty() || rule.level == Level::global || !differences(*rule.entry, base).empty()) return {};
    return examineNamed(i, nodes);
  }

  // A configuration by name, of nodes that would have another without the rule.
  Status examineNamed(size_t i, const std::vector<const Node*>& nodes) {
    const Rule& rule = rules_.rules()[i];
    const QConfigMapping rest = lenient(rules_.with(i, std::nullopt));
    QC_ASSIGN(const ResolvedRules resolved, rest.resolve(whole_->annotated));
    bool sameConfig = true, sameActivation = true;
    for (const Node* n : nodes) {
      const auto next = resolved.of(*n);
      if (!next.config()) return {};  // float but for the rule
      sameConfig = sameConfig && *next.config() == *rule.entry;
      sameActivation = sameActivation && next.config()->activation == rule.entry->activation;
    }
    if (sameConfig) return {};  // what holds anyway, and integers without being forced
    QC_ASSIGN(const auto other, without(i, std::nullopt));
    if (other && other->meaning == whole_->meaning)
      say(rule, "has no effect: " + whyIdle(kParts[sameActivation ? 1 : 0], nodes, *rule.entry));
    return {};
  }

  // Why a setting of this part does nothing to these nodes, at least one of which is quantized.
  std::string whyIdle(const Part& part, const std::vector<const Node*>& nodes, const QConfig& config) const {
    const Node& n = **std::find_if(nodes.begin(), nodes.end(), [&](const Node* node) { return rowOf(node).quantized; });
    const std::string name = fmt::format("{} '{}'", n.op(), displayName(n));
    const QuantAnnotation& a = *n.annotation();
    if (part.spec == &QConfig::weight) {
      const bool weighted = std::any_of(nodes.begin(), nodes.end(), [](const Node* node) { return hasWeights(*node); });
      if (!weighted) return fmt::format("{} has no weights; name the layers whose weights are meant", name);
      return fmt::format("the weights of {} are rounded the same without it, as its kernels want them; leave it out", name);
    }
    switch (modeOf(config)) {
      case QuantMode::dynamic:
        return fmt::format("the parameters of what {} reads are found at run time, from its smallest and largest value; leave it out",
                           name);
      case QuantMode::weightOnly:
      case QuantMode::halfWeights:
        return fmt::format("only the weights of {} are rounded, what it reads stays float; \"qconfig\": \"default\" rounds both", name);
      default: break;
    }
    if (policyOf(n).fixedLow)
      return fmt::format("the result of {} lies between {} and 1 whatever the data; leave it out", name, *policyOf(n).fixedLow);
    for (int i = 0; i < n.numOperands(); ++i) {
      const Value* v = n.operand(i);
      const Node* producer = v ? v->producer() : nullptr;
      if (!producer || v->constant() || !isDataOperand(n, policyOf(n), i)) continue;
      const std::string from = fmt::format("{} '{}'", producer->op(), displayName(*producer));
      if (std::holds_alternative<SharedSpec>(a.output))
        return fmt::format("{} moves values and takes the parameters of {}; name that in the rule", name, from);
      if (const auto& theirs = producer->annotation(); theirs && isSet(theirs->output))
        return fmt::format("what {} reads has been given its parameters by {}, and its own result is {}; name what computes the value",
                           name, from, isSet(a.output) ? "rounded the same" : "not rounded here");
    }
    if (!isSet(a.output)) return fmt::format("the result of {} is not rounded here: {}; name the last op of its unit", name, a.reason);
    return fmt::format("{} is rounded the same without it; leave it out", name);
  }

  static bool hasWeights(const Node& n) {
    for (size_t i = 0; n.annotation() && i < n.annotation()->inputs.size(); ++i)
      if (const Value* v = n.operand(static_cast<int>(i)); v && v->constant() && isSet(n.annotation()->inputs[i])) return true;
    return false;
  }

  const CoverageRow& rowOf(const Node* n) const { return whole_->rows.at(n->result()->name()); }

  const QConfigMapping& rules_;
  const Graph& simplified_;
  const RuleTrial* whole_ = nullptr;
  std::vector<Remark> remarks_;
};

}  // namespace

Result<std::vector<Remark>> idleRules(const PreparedModel& model) {
  return withoutExceptions([&]() -> Result<std::vector<Remark>> {
    const DefinedArithmetic defined;
    if (!model.rules) return std::vector<Remark>();
    const auto& list = model.rules->rules();
    const bool plain = std::all_of(list.begin(), list.end(), [](const Rule& r) {
      return r.optional || (r.level == Level::global && (!r.entry || differences(*r.entry, nearestNamed(*r.entry)).empty()));
    });
    std::vector<Remark> remarks;
    for (const Rule& r : model.rules->replaced())
      remarks.push_back(
          {"rules",
           {},
           fmt::format("{} stands in the rules more than once, and only the last time counts; leave out the others", r.str())});
    if (plain) return remarks;
    QC_ASSIGN(std::vector<Remark> others, IdleSearch(*model.rules, *model.simplified).run());
    std::move(others.begin(), others.end(), std::back_inserter(remarks));
    return remarks;
  });
}

}  // namespace qc
