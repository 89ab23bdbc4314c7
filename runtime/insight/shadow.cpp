#include "runtime/insight/shadow.h"

#include <algorithm>
#include <map>

namespace qc {
namespace {

const Node* roundingOf(const Value& value) {
  for (const Node* user : value.users())
    if (user->is("quantize")) return user;
  return nullptr;
}

}  // namespace

Result<Shadow> shadowOf(const Graph& actual, const Pairing& pairing) {
  Shadow shadow{actual.clone(), {}, {}};
  Graph& graph = shadow.graph;
  std::map<std::string, Value*> results;  // by the value's name in front of the rounding
  for (const ValuePair& pair : pairing.values) {
    Value* raw = graph.findValue(pair.computed);
    if (!pair.border || !raw || !raw->producer()) continue;
    const Node* rounding = pair.params ? roundingOf(*raw) : nullptr;
    const TensorType rounded = rounding ? rounding->result()->type() : TensorType();
    Value* fed = graph.addInput(fmt::format("shadow of {}", pair.computed), raw->type());
    raw->replaceAllUsesWith(fed);
    Value* result = raw;
    if (rounding) {
      Builder b(graph);
      b.before(raw->producer()->next());
      b.at(raw->producer()->location());
      QC_ASSIGN(Value * q, b.create("quantize", {raw}, {{"to", QuantAttr{rounded.quant}}}));
      QC_ASSIGN(result, b.create("dequantize", {q}));
    }
    results.emplace(pair.computed, result);
    shadow.feeds.push_back({fed->name(), pair});
  }
  std::vector<Value*> outputs;
  std::vector<std::string> names;
  for (const LayerPair& layer : pairing.layers) {
    const auto it = layer.output ? results.end() : results.find(layer.computed);
    shadow.results.push_back(it == results.end() ? std::string() : it->second->name());
    if (it == results.end() || std::find(outputs.begin(), outputs.end(), it->second) != outputs.end()) continue;
    outputs.push_back(it->second);
    names.push_back(it->second->name());
  }
  graph.setOutputs(std::move(outputs));
  graph.setOutputNames(std::move(names));
  graph.eraseDeadNodes();
  return shadow;
}

}  // namespace qc
