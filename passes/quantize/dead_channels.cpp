// dead-channels: weights that read a channel which is 0 in all samples become 0 where they are larger than those of all other channels.
// Training leaves such channels behind, and BatchNorm, whose variance of them is next to nothing, folds into weights a hundred times the
// rest: one scale for all then leaves the rest a few integers.  What a layer gives for these samples stays as it is.
// Statistics come from cx.provide(ChannelsByValue); the option `dead`, how many channels there are at the end that are 0, stands in for
// them.  Tests: tests/golden/dead_channels.
#include <algorithm>

#include "passes/passes.h"
#include "passes/quantize/channel_noise.h"

namespace qc {
namespace {

constexpr size_t kFewestShares = 8;  // a channel that is 0 in fewer samples may well be alive

std::vector<Node*> readersOf(const Value& value) {
  std::vector<Node*> readers;
  for (Node* user : value.users())
    if (readsChannels(*user) && user->operand(0) == &value) readers.push_back(user);
  return readers;
}

// For scaleInputs(): 0 for dead channels that widen the range of the reader's weights.  Nothing where none does.
std::vector<double> factors(Node* reader, const std::vector<bool>& dead) {
  const std::vector<double> largest = largestWeights({reader}, dead.size());
  double living = 0;
  for (size_t j = 0; j < dead.size(); ++j)
    if (!dead[j]) living = std::max(living, largest[j]);
  std::vector<double> s(dead.size(), 1.0);
  bool any = false;
  for (size_t j = 0; j < dead.size(); ++j)
    if (dead[j] && largest[j] > living) s[j] = 0, any = true;
  return any && living > 0 ? s : std::vector<double>();
}

}  // namespace

int readChannelAxis(const Value& value) {
  const std::vector<Node*> readers = readersOf(value);
  return readers.empty() ? -1 : readers.front()->is("conv") ? 1 : value.type().rank() - 1;
}

Status deadChannels(Graph& graph, PassContext& cx) {
  const int64_t given = cx.options.integer("dead");
  const auto* known = cx.get<ChannelsByValue>();
  int layers = 0;
  const auto settle = [&](const Value& value) {
    const int axis = readChannelAxis(value);
    if (axis < 0 || !nth(value.type().shape, axis).isStatic()) return;
    std::vector<bool> dead(usize(nth(value.type().shape, axis).size()));
    if (given > 0) {
      for (size_t j = dead.size() - std::min(dead.size(), usize(given)); j < dead.size(); ++j) dead[j] = true;
    } else {
      const auto x = known ? known->find(value.name()) : ChannelsByValue::const_iterator();
      if (!known || x == known->end() || x->second.max.size() != dead.size() || x->second.shares.size() < kFewestShares) return;
      for (size_t j = 0; j < dead.size(); ++j) dead[j] = x->second.min[j] == 0 && x->second.max[j] == 0;
    }
    for (Node* reader : readersOf(value)) {
      const std::vector<double> s = factors(reader, dead);
      if (s.empty()) continue;
      scaleInputs(graph, reader, s);
      ++layers;
    }
  };
  for (const Value* input : graph.inputs()) settle(*input);
  for (const Node* node : graph.nodes())
    if (node->numResults() == 1) settle(*node->result());
  cx.countHits({{"layers", layers}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
