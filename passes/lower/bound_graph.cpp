#include "passes/lower/bound_graph.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "ir/op_def.h"
#include "ir/settled_sizes.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

// "dim 1 of 'x' is 5, dim 0 of 'y' is 6": where sizes come from that these symbols have.
std::string sourcesOf(const Graph& graph, const std::set<std::string>& symbols, const std::map<std::string, std::vector<int64_t>>& shapes) {
  std::string text;
  for (const Value* input : graph.inputs())
    for (size_t d = 0; d < input->type().shape.size(); ++d) {
      const std::set<std::string> own = input->type().shape[d].expr().symbols();
      if (std::any_of(own.begin(), own.end(), [&](const std::string& s) { return symbols.contains(s); }))
        text += fmt::format("{}dim {} of '{}' is {}", text.empty() ? "" : ", ", d, input->name(), shapes.at(input->name())[d]);
    }
  return text;
}

// Of the operands and results of a node.
std::set<std::string> symbolsAround(const Node& node) {
  std::set<std::string> symbols;
  const auto addOf = [&](const Dim& dim) { symbols.merge(dim.expr().symbols()); };
  for (const Value* v : node.operands())
    if (v) std::for_each(v->type().shape.begin(), v->type().shape.end(), addOf);
  for (int i = 0; i < node.numResults(); ++i)
    std::for_each(node.result(i)->type().shape.begin(), node.result(i)->type().shape.end(), addOf);
  return symbols;
}

}  // namespace

bool hasFreeDims(const Graph& graph) {
  return std::any_of(graph.inputs().begin(), graph.inputs().end(), [](const Value* v) { return !v->type().isStatic(); });
}

std::optional<BrokenAssumption> brokenAt(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes) {
  std::map<std::string, std::vector<int64_t>> whole = shapes;
  for (const Value* input : graph.inputs())
    if (input->type().isStatic()) whole.emplace(input->name(), input->type().sizes());
  const auto sizes = bindingsOf(graph, whole);
  const auto broken = sizes ? brokenAssumption(graph.info(), *sizes) : Result<std::optional<Assumption>>();
  if (!broken || !*broken) return std::nullopt;
  BrokenAssumption found{**broken, {}};
  for (const std::string& symbol : found.assumption.symbols()) found.sizes.emplace(symbol, sizes->at(symbol));
  return found;
}

Result<Graph> boundGraph(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes) {
  PassContext cx;
  QC_ASSIGN(SymbolSizes sizes, bindingsOf(graph, shapes));
  QC_ASSIGN(const auto broken, brokenAssumption(graph.info(), sizes));
  cx.provide(std::move(sizes));
  Graph copy = graph.clone();
  PassManagerOptions unverified;  // the nodes are as they were, their types inferred anew; whoever compiles them verifies
  unverified.verifyEnd = false;
  if (Status bound = runPipeline("bind-shapes", copy, cx, unverified); !bound) {
    const Value* at = graph.findValue(bound.error().tensor());
    const std::set<std::string> symbols = broken                 ? broken->symbols()
                                          : at && at->producer() ? symbolsAround(*at->producer())
                                                                 : std::set<std::string>();
    const std::string from = sourcesOf(graph, symbols, shapes);
    if (from.empty()) return tl::make_unexpected(std::move(bound).error());
    const Error& e = bound.error();
    const bool isOfSizes = e.code() == ErrorCode::kInvalidModel;  // the model is right at others
    return fail(isOfSizes ? ErrorCode::kInvalidArgument : e.code(), "{}; {}", e.message(), from)
        .at(e.node())
        .on(e.tensor())
        .help(broken ? e.remedy() : "give inputs whose sizes fit each other");
  }
  return copy;
}

Result<std::map<std::string, std::vector<int64_t>>> wholeShapes(const Graph& graph,
                                                                const std::map<std::string, std::vector<int64_t>>& given) {
  SymbolSizes sizes;
  std::vector<NamedShape> shapes;
  std::set<std::string> names;
  for (const Value* input : graph.inputs()) {
    shapes.push_back({input->name(), input->type().shape});
    names.insert(input->name());
    for (const Dim& dim : input->type().shape) names.merge(dim.expr().symbols());
  }
  const auto take = [&](const std::string& symbol, int64_t size, const std::string& by) -> Status {
    const auto [known, isNew] = sizes.emplace(symbol, size);
    if (isNew || known->second == size) return {};
    return fail(ErrorCode::kInvalidArgument, "'{}' is {} by {}, and was {}", symbol, size, by, known->second).on(symbol);
  };
  for (const auto& [name, own] : given) {
    const auto input = std::find_if(shapes.begin(), shapes.end(), [&](const NamedShape& s) { return s.name == name; });
    if (input == shapes.end()) {
      if (!names.contains(name))
        return fail(ErrorCode::kInvalidArgument, "a shape is given for '{}', which is neither an input of the model nor a symbol of one",
                    name)
            .on(name)
            .help(fmt::format("the model has '{}'", fmt::join(nearestNames(name, {names.begin(), names.end()}, 8), "', '")));
      if (own.size() != 1)
        return fail(ErrorCode::kInvalidArgument, "{} sizes for one symbol", own.size()).on(name).help(fmt::format("write {}=N", name));
      QC_TRY(take(name, own[0], "its name"));
      continue;
    }
    if (const std::string why = misfitOf(input->shape, own); !why.empty()) return fail(ErrorCode::kInvalidArgument, "{}", why).on(name);
    for (size_t d = 0; d < own.size(); ++d)
      if (const auto symbols = input->shape[d].expr().symbols(); symbols.size() == 1 && Dim::symbol(*symbols.begin()) == input->shape[d])
        QC_TRY(take(*symbols.begin(), own[d], fmt::format("dim {} of '{}'", d, name)));
  }
  QC_ASSIGN(auto whole, settledSizes(shapes, sizes));
  for (const auto& [name, own] : given)
    if (const auto it = whole.find(name); it != whole.end()) it->second = own;  // which bindingsOf() holds against the rest
  return whole;
}

}  // namespace qc
