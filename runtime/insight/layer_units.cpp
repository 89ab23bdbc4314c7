#include "runtime/insight/layer_units.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "ir/guarded.h"
#include "ir/loops.h"
#include "quantizer/quantizer.h"
#include "quantizer/rules/op_policy.h"

namespace qc {
namespace {

bool quantizes(const Node& node) {
  const auto& a = node.annotation();
  return a && !node.is("observe") && isClaim(*a) && !a->keepFloat;
}

// Its result has the parameters of what it reads: it moves integers, and rounds nothing.
bool onlyMoves(const Node& node) { return std::holds_alternative<SharedSpec>(node.annotation()->output); }

const Node* producerBehind(const Value* v) {
  const Node* producer = v ? v->producer() : nullptr;
  while (producer && producer->is("observe")) producer = producer->operand(0)->producer();
  return producer;
}

// Where the result of a node is rounded: there, or behind the end of the branch that it is in.
const Node* roundedBehind(const Node& node) {
  const Node* branch = nullptr;
  for (const Use* use = node.result()->firstUse(); use; use = use->next()) {
    if (use->user()->is("observe")) return &node;
    if (use->user()->is("choose")) branch = use->user();
  }
  return branch ? roundedBehind(*branch) : nullptr;
}

// Sets of nodes that grow together.
class Sets {
 public:
  explicit Sets(size_t size) : parent_(size) { std::iota(parent_.begin(), parent_.end(), size_t{0}); }
  size_t find(size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void join(size_t a, size_t b) {
    a = find(a), b = find(b);
    parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<size_t> parent_;
};

struct Units {
  std::vector<const Node*> nodes;
  std::map<const Node*, size_t> indexOf;

  // Nodes without a rounding between them, and those that a rule for one of them names as well.
  Sets sets() {
    Sets sets(nodes.size());
    std::map<std::string, size_t> byName;
    for (size_t i = 0; i < nodes.size(); ++i) {
      const Node& n = *nodes[i];
      const auto [it, added] = byName.emplace(displayName(n), i);
      if (!added) sets.join(i, it->second);
      const QuantAnnotation& a = *n.annotation();
      for (int k = 0; k < n.numOperands(); ++k) {
        const Node* producer = n.operand(k) ? n.operand(k)->producer() : nullptr;
        const auto p = producer ? indexOf.find(producer) : indexOf.end();
        if (p != indexOf.end() && (usize(k) >= a.inputs.size() || !isSet(nth(a.inputs, k)))) sets.join(i, p->second);
      }
    }
    return sets;
  }

  // The nearest quantized nodes that what this one reads comes from.
  std::vector<const Node*> sourcesOf(const Node& node) const {
    std::vector<const Node*> found, open{&node};
    std::map<const Node*, bool> seen;
    while (!open.empty()) {
      const Node* n = open.back();
      open.pop_back();
      for (const Value* v : n->operands()) {
        const Node* producer = producerBehind(v);
        if (!producer || seen[producer]) continue;
        seen[producer] = true;
        (indexOf.contains(producer) ? found : open).push_back(producer);
      }
    }
    return found;
  }
};

// Layers in the bodies of loops that stay loops: each by itself, of those that coverage calls quantized.
void addOfBodies(const Graph& graph, const std::set<std::string>& quantized, const ResolvedRules& decisions,
                 std::vector<LayerUnit>& units) {
  for (const Node* loop = graph.front(); loop; loop = loop->next()) {
    const Graph* body = bodyOf(*loop);
    if (!body) continue;
    for (const Node* n = body->front(); n; n = n->next()) {
      const QConfig* config = quantized.contains(displayName(*n)) ? decisions.of(*n).config() : nullptr;
      if (config) units.push_back({displayName(*n), std::string(n->op()), {displayName(*n)}, *config, {}, {}});
    }
    addOfBodies(*body, quantized, decisions, units);
  }
}

}  // namespace

Result<std::vector<LayerUnit>> layerUnits(const PreparedModel& model) {
  return withoutExceptions([&]() -> Result<std::vector<LayerUnit>> {
    QC_TRY(checkPrepared(model));
    if (!model.rules)
      return fail(ErrorCode::kInvalidArgument, "a quantizer of one's own decided what is quantized, and rules cannot change that")
          .help("prepare the model with rules");
    QC_ASSIGN(const ResolvedRules decisions, model.rules->resolve(*model.simplified));
    Units found;
    for (const Node* n = model.observed->front(); n; n = n->next()) {
      if (!quantizes(*n) || onlyMoves(*n)) continue;
      found.indexOf.emplace(n, found.nodes.size());
      found.nodes.push_back(n);
    }
    Sets sets = found.sets();
    std::map<size_t, LayerUnit> units;
    std::map<size_t, bool> weighted;
    for (size_t i = 0; i < found.nodes.size(); ++i) {
      const Node& n = *found.nodes[i];
      const size_t set = sets.find(i);
      LayerUnit& unit = units[set];
      const std::string name = displayName(n);
      if (std::find(unit.nodes.begin(), unit.nodes.end(), name) == unit.nodes.end()) unit.nodes.push_back(name);
      const bool heavy = policyOf(n).role == Role::weighted || policyOf(n).role == Role::product;
      if (unit.name.empty() || (heavy && !weighted[set])) {
        unit.name = name;
        unit.op = n.op();
        weighted[set] = heavy;
        if (const Value* before = model.simplified->findValue(n.result()->name()); before && before->producer())
          if (const QConfig* config = decisions.of(*before->producer()).config()) unit.config = *config;
      }
      if (const Node* rounded = roundedBehind(n)) unit.last.push_back(displayName(*rounded));
      for (const Node* source : found.sourcesOf(n))
        if (sets.find(found.indexOf.at(source)) != set) unit.inputs.push_back(displayName(*source));
    }
    std::vector<LayerUnit> result;
    for (auto& [set, unit] : units) result.push_back(std::move(unit));
    std::set<std::string> quantized;
    for (const CoverageRow& row : model.coverage.rows)
      if (row.quantized) quantized.insert(row.node);
    for (const LayerUnit& unit : result)
      for (const std::string& node : unit.nodes) quantized.erase(node);  // a rule by this name reaches the body's as well
    addOfBodies(*model.simplified, quantized, decisions, result);
    return result;
  });
}

std::vector<LayerUnit> byModule(const std::vector<LayerUnit>& units) {
  std::vector<LayerUnit> modules;
  std::map<std::string, size_t> known;
  for (const LayerUnit& unit : units) {
    const size_t cut = unit.name.find_last_of("/.");
    const std::string module = cut == std::string::npos ? std::string() : unit.name.substr(0, cut);
    const auto it = module.empty() ? known.end() : known.find(module);
    if (it == known.end()) {
      if (!module.empty()) known.emplace(module, modules.size());
      modules.push_back(unit);
      if (!module.empty()) modules.back().name = module, modules.back().op = "module";
      continue;
    }
    LayerUnit& whole = modules[it->second];
    for (const auto& [to, from] : {std::pair(&whole.nodes, &unit.nodes), {&whole.last, &unit.last}, {&whole.inputs, &unit.inputs}})
      to->insert(to->end(), from->begin(), from->end());
  }
  return modules;
}

QConfigMapping withFloat(QConfigMapping rules, const std::vector<const LayerUnit*>& units) {
  for (const LayerUnit* unit : units)
    for (const std::string& node : unit->nodes) rules.name(node, keepFloat());
  return rules;
}

QConfigMapping withNothingBut(const QConfigMapping& rules, const LayerUnit& unit) {
  QConfigMapping alone;
  alone.global(keepFloat()).guards(rules.guards());
  if (rules.backendConfig()) alone.backendConfig(*rules.backendConfig());
  for (const auto& [name, choice] : rules.recipes()) alone.recipe(name, choice);
  for (const std::string& node : unit.nodes) alone.name(node, unit.config).force();
  return alone;
}

}  // namespace qc
