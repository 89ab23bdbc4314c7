#include "passes/lower/segments.h"

#include <algorithm>
#include <set>

#include "ir/assumptions.h"
#include "ir/decided_sizes.h"
#include "ir/dim_expr_terms.h"
#include "ir/op_def.h"
#include "passes/lower/bound_graph.h"

namespace qc {
namespace {

// How many nodes that decide sizes have to run one after another before each node, and so in which segment it is.
class Cutter {
 public:
  explicit Cutter(const Graph& graph) : graph_(graph) {}

  Result<CutGraph> run() {
    QC_TRY(findLevels());
    nameSizes();
    for (int64_t level = 0; level < std::ssize(nodes_); ++level) {
      if (!nth(nodes_, level).empty()) add(nth(nodes_, level), false);
      for (const Node* node : nth(deciding_, level)) add({node}, true);
    }
    cut_.interface.setInfo(graph_.info());
    for (const Value* input : graph_.inputs()) cut_.interface.addInput(input->name(), input->type());
    for (size_t i = 0; i < graph_.outputs().size(); ++i) {
      const Value* v = graph_.outputs()[i];
      if (v->constant()) cut_.constants.emplace(v->name(), *v->constant());
      cut_.outputs.push_back(graph_.outputNames()[i]);
      cut_.values.push_back(v->name());
    }
    return std::move(cut_);
  }

 private:
  Status findLevels() {
    std::map<std::string, size_t> levelOfSymbol;
    std::map<const Value*, size_t> levelOf;
    for (const Value* input : graph_.inputs())
      for (const Dim& dim : input->type().shape)
        for (const std::string& symbol : dim.expr().symbols()) levelOfSymbol[symbol] = 0;
    for (const Node* node = graph_.front(); node; node = node->next()) {
      if (node->is("const")) continue;
      size_t level = 0;
      for (const Value* v : node->operands())
        if (v) level = std::max(level, levelOf[v]);
      const std::set<std::string> own = decidedSymbols(*node);
      for (const std::string& symbol : symbolsOf(*node)) {
        if (own.contains(symbol)) continue;
        const auto known = levelOfSymbol.find(symbol);
        if (known == levelOfSymbol.end())
          return fail(ErrorCode::kInvalidModel, "the size '{}' is decided by nothing in front of this node", symbol).at(node->location());
        level = std::max(level, known->second);
      }
      nodes_.resize(std::max(nodes_.size(), level + 1));
      deciding_.resize(nodes_.size());
      (own.empty() ? nodes_ : deciding_)[level].push_back(node);
      for (const std::string& symbol : own) levelOfSymbol[symbol] = level + 1;
      for (int i = 0; i < node->numResults(); ++i) levelOf[node->result(i)] = level + (own.empty() ? 0 : 1);
    }
    return {};
  }

  void nameSizes() {
    std::set<std::string> symbols = decidedSymbols(graph_);
    for (const Value* input : graph_.inputs())
      for (const Dim& dim : input->type().shape) symbols.merge(dim.expr().symbols());
    for (const std::string& symbol : symbols) {
      std::string name = "size of " + symbol;
      while (graph_.findValue(name)) name += "'";
      cut_.sizeInput[symbol] = std::move(name);
    }
  }

  void add(const std::vector<const Node*>& nodes, bool decides) {
    Segment& segment = cut_.segments.emplace_back(Segment{Graph(graph_.name()), decides});
    const std::set<const Node*> own(nodes.begin(), nodes.end());
    std::map<const Value*, Value*> copies;
    std::set<std::string> shown, wanted;
    const auto wants = [&](const Shape& shape) {
      for (const Dim& dim : shape)
        if (!dim.isStatic()) wanted.merge(dim.expr().symbols());
    };
    for (const Node* node : nodes) {
      for (const Value* v : node->operands()) {
        if (!v || copies.contains(v) || v->constant() || own.contains(v->producer())) continue;
        copies[v] = segment.graph.addInput(v->name(), v->type());
        wants(v->type().shape);
        for (const Dim& dim : v->type().shape)
          if (const auto symbol = symbolName(dim.expr())) shown.insert(*symbol);
      }
      std::set<std::string> symbols = symbolsOf(*node);
      for (const std::string& symbol : decidedSymbols(*node)) symbols.erase(symbol);
      wanted.merge(symbols);
    }
    for (const std::string& symbol : wanted)
      if (!shown.contains(symbol) && !decides)
        segment.graph.addInput(cut_.sizeInput.at(symbol), TensorType(DType::u8, {Dim::symbol(symbol), Dim(0)}));
    std::vector<Value*> outputs;
    std::vector<std::string> names;
    for (const Node* node : nodes) {
      std::vector<Value*> operands;
      for (const Value* v : node->operands()) {
        if (v && v->constant() && !copies.contains(v))
          copies[v] = Builder(segment.graph).constant(v->name(), *v->constant(), v->type().quant);
        operands.push_back(v ? copies.at(v) : nullptr);
      }
      std::vector<TensorType> types;
      for (int i = 0; i < node->numResults(); ++i) types.push_back(node->result(i)->type());
      Node* copy = segment.graph.insert(node->def(), std::move(operands), node->attrs(), std::move(types));
      copy->setLocation(node->location());
      copy->annotation() = node->annotation();
      for (int i = 0; i < node->numResults(); ++i) {
        const Value* v = node->result(i);
        segment.graph.rename(copy->result(i), v->name());
        copies[v] = copy->result(i);
        const std::vector<Node*> users = v->users();
        if (!v->isOutput() && std::all_of(users.begin(), users.end(), [&](const Node* user) { return own.contains(user); })) continue;
        outputs.push_back(copy->result(i));
        names.push_back(v->name());
      }
    }
    segment.graph.setOutputs(std::move(outputs));
    segment.graph.setOutputNames(std::move(names));
    if (segment.graph.outputs().empty() && !decides) cut_.segments.pop_back();  // nobody reads it
  }

  const Graph& graph_;
  CutGraph cut_;
  std::vector<std::vector<const Node*>> nodes_, deciding_;  // by level
};

}  // namespace

Result<CutGraph> cutAtDecidedSizes(const Graph& graph) { return Cutter(graph).run(); }

Result<CutGraph::Tensors> CutGraph::run(const Tensors& inputs, const RunSegment& runSegment) const {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& [name, tensor] : inputs) shapes[name] = tensor.sizes();
  QC_ASSIGN(SymbolSizes sizes, bindingsOf(interface, shapes));
  QC_TRY(checkAssumptions(interface.info(), sizes));
  for (const auto& [name, tensor] : inputs) {
    const Value* input = interface.findValue(name);
    if (!input) return fail(ErrorCode::kInvalidArgument, "the model has no such input").on(name);
    if (input->type().dtype != tensor.dtype())
      return fail(ErrorCode::kInvalidArgument, "input is {}, expected {}", tensor.type().str(), input->type().str())
          .on(name)
          .help("convert the array");
  }
  std::map<std::string, size_t> lastUse;
  for (size_t i = 0; i < segments.size(); ++i)
    for (const Value* v : segments[i].graph.inputs()) lastUse[v->name()] = i;
  for (const std::string& name : values) lastUse[name] = segments.size();
  std::map<std::string, std::string> symbolOf;
  for (const auto& [symbol, name] : sizeInput) symbolOf[name] = symbol;
  Tensors known = constants;
  for (const Value* input : interface.inputs()) known[input->name()] = inputs.at(input->name());
  for (size_t i = 0; i < segments.size(); ++i) {
    const Graph& graph = segments[i].graph;
    if (segments[i].decides) {
      const Node* node = graph.back();
      std::vector<const Tensor*> operands;
      for (const Value* v : node->operands()) operands.push_back(!v ? nullptr : v->constant() ? v->constant() : &known.at(v->name()));
      QC_ASSIGN(std::vector<Tensor> results, decide(*node, operands));
      learnSizes(*node, results, sizes);
      for (int k = 0; k < node->numResults(); ++k) known[node->result(k)->name()] = std::move(nth(results, k));
    } else {
      Tensors own;
      for (const Value* v : graph.inputs()) {
        const auto symbol = symbolOf.find(v->name());
        own[v->name()] = symbol == symbolOf.end() ? known.at(v->name()) : Tensor(DType::u8, {sizes.at(symbol->second), 0});
      }
      QC_ASSIGN(Tensors results, runSegment(i, own));
      for (auto& [name, tensor] : results) known[name] = std::move(tensor);
    }
    for (const Value* v : graph.inputs())
      if (lastUse.at(v->name()) == i) known.erase(v->name());
  }
  Tensors result;
  for (size_t i = 0; i < outputs.size(); ++i) result[outputs[i]] = known.at(values[i]);
  return result;
}

}  // namespace qc
