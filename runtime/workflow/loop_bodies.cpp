#include "runtime/workflow/loop_bodies.h"

#include <algorithm>

#include "ir/loops.h"
#include "quantizer/modes.h"
#include "runtime/workflow/quantize.h"

namespace qc {
namespace {

using Level = QConfigMapping::Level;

// A static configuration at run time, as the dynamic mode has it; the others as they are.
QConfigEntry atRunTime(const QConfigEntry& config, bool perToken) {
  if (!config || modeOf(*config) != QuantMode::full) return config;
  return dynamicQConfig(Backend::x86, perToken);
}

// Rules that decide in a body what these do in the whole model (QConfigMapping::resolve()): what decides about its loop for everything,
// and those of its level and of higher ones, which may match nothing there.
QConfigMapping bodyRules(const QConfigMapping& whole, const QConfigMapping::Rule& ofLoop) {
  const QConfigEntry config = atRunTime(ofLoop.entry, false);
  QConfigMapping rules;
  rules.global(config);
  for (QConfigMapping::Rule rule : whole.rules()) {
    if (rule.level < ofLoop.level || rule.level == Level::global || rule.level == Level::between) continue;
    rule.entry = atRunTime(rule.entry, rule.level != Level::objectType || rule.type == "linear");
    rule.optional = true;
    rules.set(std::move(rule));
  }
  // What the dynamic mode has for single types stands behind them: of two rules of one level the first decides.
  if (config == dynamicQConfig(Backend::x86)) {
    const QConfigMapping usual = dynamicQConfigMapping(Backend::x86);
    for (const QConfigMapping::Rule& rule : usual.rules()) {
      const bool given = std::ranges::any_of(
          rules.rules(), [&](const QConfigMapping::Rule& own) { return own.level == rule.level && own.type == rule.type; });
      if (rule.level == Level::objectType && !given) rules.set(rule);
    }
  }
  return rules.guards(whole.guards());
}

bool quantizesAny(const Graph& body, const ResolvedRules& rules) {
  const std::vector<Node*> nodes = body.nodes();
  return std::ranges::any_of(nodes,
                             [&](const Node* n) { return rules.of(*n).config() || (bodyOf(*n) && quantizesAny(*bodyOf(*n), rules)); });
}

const std::string& keyOf(const Node& loop) { return loop.result()->name(); }

}  // namespace

Status quantizeBodies(PreparedModel& model) {
  const std::vector<Node*> nodes = model.simplified->nodes();
  if (!model.rules || std::ranges::none_of(nodes, [](const Node* n) { return bodyOf(*n) != nullptr; })) return {};
  QC_ASSIGN(const ResolvedRules resolved, model.rules->resolve(*model.simplified));
  for (const Node* loop : nodes) {
    if (!bodyOf(*loop) || !quantizesAny(*bodyOf(*loop), resolved)) continue;
    const QConfigMapping::Rule* ofLoop = resolved.of(*loop).rule;
    auto quantized =
        quantize(Model(bodyOf(*loop)->clone(), model.name), bodyRules(*model.rules, ofLoop ? *ofLoop : QConfigMapping::Rule()));
    if (!quantized) return tl::make_unexpected(std::move(quantized.error()).at(loop->location()));
    model.bodies[keyOf(*loop)] = std::make_shared<const Graph>(quantized->model.graph().clone());
    std::vector<CoverageRow>& rows = model.coverage.rows;
    std::erase_if(rows, [&](const CoverageRow& row) { return row.op == "loop" && row.node == displayName(*loop); });
    rows.insert(rows.end(), quantized->coverage.rows.begin(), quantized->coverage.rows.end());
    model.remarks.insert(model.remarks.end(), quantized->remarks.begin(), quantized->remarks.end());
  }
  return {};
}

Status putBodies(Graph& graph, const PreparedModel& model) {
  size_t put = 0;
  for (Node* loop : graph.nodes()) {
    const auto body = bodyOf(*loop) ? model.bodies.find(keyOf(*loop)) : model.bodies.end();
    if (body == model.bodies.end()) continue;
    loop->attrs().set("body", GraphAttr(body->second->clone()));
    ++put;
  }
  if (put == model.bodies.size()) return {};
  return fail(ErrorCode::kInternal, "{} of {} loops are not in the quantized graph", model.bodies.size() - put, model.bodies.size());
}

}  // namespace qc
