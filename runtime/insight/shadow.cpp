#include "runtime/insight/shadow.h"

#include <algorithm>
#include <map>
#include <set>

#include "ir/decided_sizes.h"

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
  std::map<std::string, Value*> given;
  std::set<Node*> decided;
  std::set<std::string> open = decidedSymbols(graph);  // in the shadow itself
  for (const std::string& name : pairing.decisions) {
    Value* value = graph.findValue(name);
    if (!value || !value->producer()) continue;
    for (const std::string& symbol : decidedSymbols(*value->producer())) open.erase(symbol);
    decided.insert(value->producer());
    Value* fed = graph.addInput(fmt::format("shadow of {}", name), value->type());
    value->replaceAllUsesWith(fed);
    given.emplace(name, fed);
    ValuePair pair;
    pair.reference = pair.actual = pair.computed = name;
    shadow.feeds.push_back({fed->name(), std::move(pair)});
  }
  const auto isOpen = [&](const Value& value) {
    std::set<std::string> symbols;
    for (const Dim& dim : value.type().shape)
      if (!dim.isStatic()) symbols.merge(dim.expr().symbols());
    return std::ranges::any_of(symbols, [&](const std::string& symbol) { return open.contains(symbol); });
  };
  std::map<std::string, Value*> results;  // by the value's name in front of the rounding
  for (const ValuePair& pair : pairing.values) {
    Value* raw = graph.findValue(pair.computed);
    if (!pair.border || !raw || !raw->producer() || isOpen(*raw)) continue;
    const auto known = given.find(pair.computed);
    const Node* rounding = pair.params ? roundingOf(known == given.end() ? *raw : *known->second) : nullptr;
    const TensorType rounded = rounding ? rounding->result()->type() : TensorType();
    Builder b(graph);
    b.before(raw->producer()->next());
    b.at(raw->producer()->location());
    if (known == given.end()) {
      Value* fed = graph.addInput(fmt::format("shadow of {}", pair.computed), raw->type());
      raw->replaceAllUsesWith(fed);
      shadow.feeds.push_back({fed->name(), pair});
    } else {
      raw = known->second;
    }
    Value* result = raw;
    if (rounding) {
      QC_ASSIGN(Value * q, b.create("quantize", {raw}, {{"to", QuantAttr{rounded.quant}}}));
      QC_ASSIGN(result, b.create("dequantize", {q}));
    }
    results.emplace(pair.computed, result);
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
  for (Node* node : decided) graph.erase(node);  // whose sizes the inputs show
  graph.eraseDeadNodes();
  return shadow;
}

}  // namespace qc
