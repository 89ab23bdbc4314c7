// What guards are for, where they are off or do not reach; and recipes that do harm.
#include <algorithm>
#include <limits>

#include "quantizer/mask_sentinels.h"
#include "quantizer/quantizer.h"
#include "runtime/insight/causes/cause.h"

namespace qc {

Result<std::vector<Suspect>> maskedScores(const Evidence& e) {
  if (e.rules.guards().maskedScores) return std::vector<Suspect>();
  const auto nodes = nodesWithSentinels(*e.trials.model().simplified);
  if (nodes.empty()) return std::vector<Suspect>();
  Fix fix{.words = "--guard-masked-scores on", .rules = e.rules};
  Guards guards = e.rules.guards();
  guards.maskedScores = true;
  fix.rules.guards(guards);
  const Node* first = nodes.begin()->first;
  for (const Node* n = e.trials.model().simplified->front(); n; n = n->next())
    if (nodes.contains(n)) {
      first = n;
      break;
    }
  return std::vector<Suspect>{{displayName(*first),
                               fmt::format("masked scores are observed: the {:g} that switches positions off reaches {} values, from {} on",
                                           nodes.at(first), nodes.size(), displayName(*first)),
                               static_cast<double>(nodes.size()),
                               {fix}}};
}

Result<std::vector<Suspect>> explodingBiases(const Evidence& e) {
  if (e.rules.guards().biases) return std::vector<Suspect>();
  std::vector<Suspect> suspects;
  std::vector<std::string> cut;
  for (const Node* n = e.quantized.front(); n; n = n->next()) {
    const auto constantOf = [](const Value* v) -> const Value* {
      const Node* p = v ? v->producer() : nullptr;
      return p && p->is("dequantize") && p->operand(0)->constant() ? p->operand(0) : nullptr;
    };
    if (const Value* bias = n->numOperands() > 2 ? constantOf(n->operand(2)) : nullptr; bias && bias->type().dtype == DType::s32) {
      const auto q = bias->constant()->as<int32_t>();
      const auto ends = std::count_if(q.begin(), q.end(), [](int32_t v) {
        return v == std::numeric_limits<int32_t>::max() || v == std::numeric_limits<int32_t>::min();
      });
      if (ends > 0) cut.push_back(displayName(*n));
    }
  }
  if (!cut.empty()) {
    Fix fix{.words = "--guard-biases on", .rules = e.rules};
    Guards guards = e.rules.guards();
    guards.biases = true;
    fix.rules.guards(guards);
    suspects.push_back({cut[0],
                        fmt::format("the biases of {} layers leave int32 and are cut off there, first in {}", cut.size(), cut[0]),
                        1e9,
                        {fix, inFloat(e, cut)}});
  }
  return suspects;
}

Result<std::vector<Suspect>> harmfulRecipes(const Evidence& e) {
  std::vector<Suspect> suspects;
  const RecoverOptions recovery = e.options.recover.under(e.rules);
  for (const Recipe& recipe : recipes()) {
    if (!recovery.uses(recipe)) continue;
    Fix fix{.words = fmt::format("--{} {}", recipe.name, recipe.off), .rules = e.rules};
    fix.rules.recipe(std::string(recipe.name), std::string(recipe.off));
    suspects.push_back({std::string(recipe.name), fmt::format("'{}' is in use, against {}", recipe.name, recipe.trouble), 0, {fix}});
  }
  return suspects;
}

}  // namespace qc
