#include "quantizer/mask_sentinels.h"

#include <algorithm>
#include <optional>

namespace qc {
namespace {

// Scores are tens at most; a constant below this switches a position off.
constexpr double kSentinel = -1000;

constexpr std::string_view kBearers[] = {"add",     "sub",       "mul",    "min",   "max",    "where",
                                         "reshape", "transpose", "expand", "slice", "concat", "tile"};

bool bears(const Node& n) { return std::find(std::begin(kBearers), std::end(kBearers), n.op()) != std::end(kBearers); }

std::optional<double> sentinelIn(const Value* v) {
  const Tensor* t = v ? v->constant() : nullptr;
  if (!t || t->dtype() != DType::f32 || t->numElements() == 0) return std::nullopt;
  const auto x = t->as<float>();
  const double lowest = *std::min_element(x.begin(), x.end(), [](float a, float b) { return a < b; });
  return lowest <= kSentinel ? std::optional(lowest) : std::nullopt;
}

}  // namespace

std::map<const Node*, double> nodesWithSentinels(const Graph& graph) {
  // Forward: what a sentinel reaches.
  std::map<const Node*, double> reached;
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (!bears(*n)) continue;
    for (const Value* v : n->operands()) {
      std::optional<double> found = sentinelIn(v);
      if (!found && v && v->producer() && reached.contains(v->producer())) found = reached.at(v->producer());
      if (found) reached.emplace(n, *found);
    }
  }
  // Backward: of these, what a softmax reads.
  std::map<const Node*, double> between;
  for (const Node* n = graph.back(); n; n = n->previous()) {
    if (!reached.contains(n) || n->numResults() == 0) continue;
    const std::vector<Node*> users = n->result()->users();
    const bool read = std::any_of(users.begin(), users.end(),
                                  [&](const Node* u) { return u->is("softmax") || u->is("log_softmax") || between.contains(u); });
    if (read) between.emplace(n, reached.at(n));
  }
  return between;
}

}  // namespace qc
