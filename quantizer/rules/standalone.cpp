#include "quantizer/rules/standalone.h"

#include <algorithm>
#include <map>
#include <set>

namespace qc {
namespace {

// Names of the results of the nodes between two values; rules find them.
Result<std::set<std::string>> stretch(const Graph& graph, const std::string& from, const std::string& to) {
  QConfigMapping between;
  between.between(from, to, keepFloat());
  QC_ASSIGN(const ResolvedRules resolved, between.resolve(graph));
  std::set<std::string> names;
  for (const Node* n = graph.front(); n; n = n->next())
    if (!n->is("const") && n->numResults() > 0 && resolved.of(*n).rule) names.insert(n->result()->name());
  return names;
}

// The stretch as a graph: what crosses its border becomes inputs and outputs.
Graph extract(const Graph& graph, const std::set<std::string>& names) {
  Graph part = graph.clone();
  const auto inside = [&](const Node* n) { return n && n->numResults() > 0 && names.contains(n->result()->name()); };
  std::map<Value*, Value*> border;
  std::vector<Value*> outputs;
  for (Node* n : part.nodes()) {
    if (!inside(n)) continue;
    for (int i = 0; i < n->numOperands(); ++i) {
      Value* v = n->operand(i);
      if (!v || v->constant() || inside(v->producer())) continue;
      Value*& input = border[v];
      if (!input) input = part.addInput(v->name() + "_border", v->type());
      n->setOperand(i, input);
    }
    for (int i = 0; i < n->numResults(); ++i) {
      Value* r = n->result(i);
      const auto users = r->users();
      if (r->isOutput() || std::any_of(users.begin(), users.end(), [&](const Node* user) { return !inside(user); })) outputs.push_back(r);
    }
  }
  part.setOutputs(std::move(outputs));
  part.eraseDeadNodes();
  return part;
}

}  // namespace

Status StandaloneQuantizer::annotate(Graph& graph) {
  QC_ASSIGN(const std::set<std::string> names, stretch(graph, from_, to_));
  Graph part = extract(graph, names);
  DefaultQuantizer own(rules_, options_);
  QC_TRY(own.annotate(part));
  QC_TRY(own.validate(part));
  report_ = own.report(part);
  for (Node* n = graph.front(); n; n = n->next()) {
    if (n->is("const") || n->numResults() == 0 || !names.contains(n->result()->name())) continue;
    if (n->annotation() && isClaim(*n->annotation()))
      return fail(ErrorCode::kInvalidArgument, "is annotated already, and lies between '{}' and '{}'", from_, to_).at(n->location());
    QuantAnnotation a = *part.findValue(n->result()->name())->producer()->annotation();
    a.keepFloat = a.keepFloat || a.inputs.empty();
    a.inputs.resize(usize(n->numOperands()));  // a claim, quantized or not
    a.reason += fmt::format(", on its own from '{}' to '{}'", from_, to_);
    // An operand from outside has an observer of its own.
    for (const Value* v : n->operands())
      if (v && !v->constant() && !(v->producer() && v->producer()->numResults() > 0 && names.contains(v->producer()->result()->name())))
        a.allowImplicitSharing = false;
    n->annotation() = std::move(a);
  }
  return {};
}

}  // namespace qc
