#include "passes/lower/segments.h"

#include <algorithm>
#include <chrono>
#include <ranges>
#include <set>
#include <tuple>

#include "ir/assumptions.h"
#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "ir/dim_expr_terms.h"
#include "ir/op_def.h"
#include "passes/lower/bound_graph.h"

namespace qc {
namespace {

std::set<const Value*> lookedAt(const Graph& graph, size_t needed) {
  std::set<const Value*> looked(graph.outputs().begin(), graph.outputs().end());
  for (size_t i = 0; i < std::min(needed, graph.outputs().size()); ++i) looked.erase(graph.outputs()[i]);
  return looked;
}

Tensor withoutElements(const TensorType& type) { return {type.dtype, std::vector<int64_t>(usize(std::max(type.rank(), 1)), 0)}; }

// How many nodes that decide have to run one after another before each node, and what has to hold for it: what both are the same for is a
// segment.
class Cutter {
 public:
  Cutter(const Graph& graph, size_t needed) : graph_(graph), guards_(conditionsOf(graph, lookedAt(graph, needed))) {}

  Result<CutGraph> run() {
    QC_TRY(findGroups());
    nameSizes();
    for (const Group& group : groups_) add(group);
    cut_.interface.setInfo(graph_.info());
    for (const Value* input : graph_.inputs()) cut_.interface.addInput(input->name(), input->type());
    for (size_t i = 0; i < graph_.outputs().size(); ++i) {
      const Value* v = graph_.outputs()[i];
      if (v->constant()) cut_.constants.emplace(v->name(), *v->constant());
      cut_.outputs.push_back(graph_.outputNames()[i]);
      cut_.values.push_back(v->name());
      cut_.absent.push_back(withoutElements(v->type()));
    }
    findLastReads();
    return std::move(cut_);
  }

 private:
  struct Group {
    size_t level;
    bool decides;
    Conditions guards;
    std::vector<const Node*> nodes;
  };

  // In the order in which they run: of one level first what others need that run in fewer cases.
  Status findGroups() {
    QC_ASSIGN(auto levels, levelsOf(graph_, guards_, waitsForData));
    std::map<std::pair<size_t, Conditions>, size_t> groupOf;
    for (const Node* node = graph_.front(); node; node = node->next()) {
      if (node->is("const")) continue;
      const Conditions& guards = conditionsOf(guards_, node);
      const bool decides = waitsForData(*node);
      size_t group = groups_.size();
      if (!decides) group = groupOf.try_emplace({levels[node], guards}, group).first->second;
      if (group == groups_.size()) groups_.push_back({levels[node], decides, guards, {}});
      groups_[group].nodes.push_back(node);
    }
    std::ranges::stable_sort(groups_, {}, [](const Group& g) { return std::tuple(g.level, g.decides, g.guards.size()); });
    return {};
  }

  void nameSizes() {
    std::set<std::string> symbols = decidedSymbols(graph_);
    for (const Value* input : graph_.inputs())
      for (const Dim& dim : input->type().shape) symbols.merge(dim.expr().symbols());
    for (const std::string& symbol : symbols) {
      std::string name = "size of " + symbol;
      while (graph_.findValue(name)) name += "'";
      sizeInput_[symbol] = std::move(name);
    }
  }

  void add(const Group& group) {
    const auto& [level, decides, guards, nodes] = group;
    Segment& segment = cut_.segments.emplace_back(Segment{Graph(graph_.name()), decides, {}, {}, {}});
    for (const auto& [condition, side] : guards) {
      segment.guards.emplace_back(condition->name(), side);
      if (condition->constant()) cut_.constants.emplace(condition->name(), *condition->constant());
    }
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
      if (!shown.contains(symbol) && !decides) {
        const Value* v = segment.graph.addInput(sizeInput_.at(symbol), TensorType(DType::u8, {Dim::symbol(symbol), Dim(0)}));
        segment.sizes.emplace(v->name(), symbol);
      }
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

  void findLastReads() {
    std::set<std::string> read(cut_.values.begin(), cut_.values.end());
    for (Segment& segment : cut_.segments | std::views::reverse) {
      const auto reads = [&](const std::string& name) {
        if (read.insert(name).second) segment.lastReads.push_back(name);
      };
      for (const Value* v : segment.graph.inputs())
        if (!segment.sizes.contains(v->name())) reads(v->name());
      for (const auto& [condition, side] : segment.guards) reads(condition);
    }
  }

  const Graph& graph_;
  const std::map<const Node*, Conditions> guards_;
  CutGraph cut_;
  std::vector<Group> groups_;
  std::map<std::string, std::string> sizeInput_;  // symbol -> name of the inputs that have its size
};

}  // namespace

const Graph* Segment::program() const { return decides ? bodyOf(*graph.back()) : &graph; }

Result<CutGraph> cutAtDecidedSizes(const Graph& graph, size_t needed) { return Cutter(graph, needed).run(); }

namespace {

Result<bool> holdAll(const std::vector<std::pair<std::string, bool>>& guards, const CutGraph::Tensors& known) {
  for (const auto& [condition, side] : guards) {
    QC_ASSIGN(const bool holding, holds(condition, known.at(condition)));
    if (holding != side) return false;
  }
  return true;
}

// Of two tensors the one that is taken is the result, and the other is not there.
Result<std::vector<Tensor>> decided(const Node& node, const CutGraph::Tensors& known, const RunBody& runBody, std::optional<bool>& taken) {
  const auto of = [&](const Value* v) { return !v ? nullptr : v->constant() ? v->constant() : &known.at(v->name()); };
  if (const Value* condition = conditionOf(node)) {
    QC_ASSIGN(const bool holding, holds(condition->name(), *of(condition)));
    taken = holding;
    return std::vector{*of(node.operand(operandTaken(holding)))};
  }
  std::vector<const Tensor*> operands;
  for (const Value* v : node.operands()) operands.push_back(of(v));
  return decide(node, operands, runBody);
}

// What runs the body of a loop, by a function that takes and gives tensors by name.
RunBody byName(const Graph& body, std::function<Result<CutGraph::Tensors>(const CutGraph::Tensors&)> run) {
  return [&body, run = std::move(run)](std::span<const Tensor> inputs) -> Result<std::vector<Tensor>> {
    CutGraph::Tensors own;
    for (size_t k = 0; k < inputs.size(); ++k) own[body.inputs()[k]->name()] = inputs[k];
    QC_ASSIGN(CutGraph::Tensors named, run(own));
    std::vector<Tensor> outputs;
    for (const std::string& name : body.outputNames()) outputs.push_back(named.at(name));
    return outputs;
  };
}

}  // namespace

Result<CutGraph::Tensors> CutGraph::run(const Tensors& inputs, const RunSegment& runSegment, const SeeDecision& see) const {
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
  Tensors known = constants;
  for (const Value* input : interface.inputs()) known[input->name()] = inputs.at(input->name());
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    QC_ASSIGN(const bool runs, holdAll(segment.guards, known));
    if (runs && segment.decides) {
      const Node* node = segment.graph.back();
      const Graph* body = bodyOf(*node);
      const auto round = [&](const Tensors& own) { return runSegment(i, own); };
      std::optional<bool> taken;
      const auto start = std::chrono::steady_clock::now();
      QC_ASSIGN(std::vector<Tensor> results, decided(*node, known, body ? byName(*body, round) : RunBody(), taken));
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      if (see) QC_TRY(see({segment, *node, results, taken, elapsed.count()}));
      learnSizes(*node, results, sizes);
      for (int k = 0; k < node->numResults(); ++k) known[node->result(k)->name()] = std::move(nth(results, k));
    } else if (runs) {
      Tensors own;
      for (const Value* v : segment.graph.inputs()) {
        const auto size = segment.sizes.find(v->name());
        own[v->name()] = size == segment.sizes.end() ? known.at(v->name()) : Tensor(DType::u8, {sizes.at(size->second), 0});
      }
      QC_ASSIGN(Tensors results, runSegment(i, own));
      for (auto& [name, tensor] : results) known[name] = std::move(tensor);
    }
    for (const std::string& name : segment.lastReads) known.erase(name);
  }
  Tensors result;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto it = known.find(values[i]);
    result[outputs[i]] = it == known.end() ? absent[i] : it->second;
  }
  return result;
}

}  // namespace qc
