// bind-shapes: sizes for the symbols of free dims; every type behind them follows.  What could not be proved of free dims, that two of them
// broadcast or that one divides, is found true or false here, by the inference of the node that needs it, and what was assumed of sizes is
// held against them.  Sizes that data decides stay; those that are computed from the sizes of inputs alone are computed, and where these
// decide which of two tensors is taken, the other is gone.
//
//   bind-shapes{sizes="T=17, N=1"}      or cx.provide(SymbolSizes)
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "ir/assumptions.h"
#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "ir/dim_expr_terms.h"
#include "ir/interp.h"
#include "ir/op_def.h"
#include "ir/text_reader.h"
#include "passes/passes.h"

namespace qc {
namespace {

Result<SymbolSizes> parseBindings(std::string_view text) {
  SymbolSizes sizes;
  TextReader in(text, "sizes");
  while (in.peek().kind != Token::Kind::end) {
    const Token name = in.take();
    if (name.kind != Token::Kind::word && name.kind != Token::Kind::string) return in.unexpected("the name of a symbol");
    QC_TRY(in.expect("=", "behind the name of a symbol"));
    QC_ASSIGN(const int64_t size, in.integer("its size"));
    if (size < 0) return in.fail("the size of '{}' is {}", name.text, size);
    const std::string symbol = name.kind == Token::Kind::string ? name.content : std::string(name.text);
    if (!sizes.emplace(symbol, size).second) return in.fail("'{}' is bound twice", symbol);
    if (!in.takeIf(",")) break;
  }
  if (in.peek().kind != Token::Kind::end) return in.unexpected("a comma or the end");
  return sizes;
}

Result<Shape> bound(const Value& value, const SymbolSizes& sizes) {
  Shape shape = value.type().shape;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d].isStatic()) continue;
    const std::optional<int64_t> size = shape[d].expr().evaluate(sizes);
    if (!size)
      return fail(ErrorCode::kInvalidArgument, "dim {} is {}, which these sizes do not settle", d, shape[d].str()).on(value.name());
    if (*size < 0) return fail(ErrorCode::kInvalidArgument, "dim {}, {}, would be {}", d, shape[d].str(), *size).on(value.name());
    shape[d] = Dim::bound(*size);
  }
  return shape;
}

// What follows from sizes alone, known as soon as these are: small values, such as a scale that is a quotient of them, the sizes that they
// decide, and which of two tensors is taken.  No program is cut there, and what leads to the other tensor need not be possible.
class Settled {
 public:
  // Symbols of `decided` may stay.
  Settled(Graph& graph, SymbolSizes& sizes, const std::set<std::string>& decided) : graph_(graph), sizes_(sizes), decided_(decided) {}

  Status run() {
    for (Node *node = graph_.front(), *next = nullptr; node; node = next) {
      next = node->next();
      if (const Value* condition = conditionOf(*node)) {
        QC_TRY(choose(node, condition));
      } else if (!node->is("const") && isComputedWhenBound(*node)) {
        QC_TRY(compute(node));
      }
    }
    return {};
  }

 private:
  const Tensor* known(const Value* v) const {
    if (!v || v->constant()) return v ? v->constant() : nullptr;
    const auto it = known_.find(v);
    return it == known_.end() ? nullptr : &it->second;
  }

  Status choose(Node* node, const Value* condition) {
    const Tensor* holds = known(condition);
    if (!holds || holds->numElements() != 1) return {};
    Value* taken = node->operand(holds->at(0) != 0 ? 1 : 2);
    const Shape& shape = taken->type().shape;
    if (std::ranges::any_of(shape, [](const Dim& d) { return d.expr().isUnknown(); })) QC_TRY(bindUpTo(*taken));
    const std::vector<DimExpr> sizes = node->attrs().dims("sizes");
    const std::vector<int64_t>& axes = node->integers("axes");
    SymbolSizes own;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const auto size = nth(shape, axes[i]).expr().evaluate(sizes_);
      if (!size) return {};  // which data decides
      if (const auto symbol = symbolName(sizes[i])) own[*symbol] = *size;
    }
    sizes_.merge(own);
    node->result()->replaceAllUsesWith(taken, true);
    graph_.erase(node);
    return {};
  }

  // What leads to a value whose sizes no expression says: they follow from those in front.
  Status bindUpTo(const Value& value) {
    std::set<const Node*> leading;
    std::vector<const Node*> open = {value.producer()};
    while (!open.empty()) {
      const Node* node = open.back();
      open.pop_back();
      if (!node || bound_.contains(node) || !leading.insert(node).second) continue;
      for (const Value* v : node->operands())
        if (v) open.push_back(v->producer());
    }
    for (Node* node = graph_.front(); node && !leading.empty(); node = node->next())
      if (leading.erase(node)) {
        QC_TRY(bindNode(*node, sizes_, decided_));
        bound_.insert(node);
      }
    return {};
  }

  // What cannot be said before running is left to that.
  Status compute(Node* node) {
    std::vector<const Tensor*> operands;
    for (const Value* v : node->operands()) {
      operands.push_back(known(v));
      if (v && !operands.back()) return {};
    }
    auto results = evaluateBound(*node, operands, sizes_);
    if (decidesSizes(*node)) {
      if (!results) return tl::make_unexpected(std::move(results.error()));
      learnSizes(*node, *results, sizes_);
      graph_.erase(node);
      return {};
    }
    for (int i = 0; results && i < node->numResults(); ++i) known_.emplace(node->result(i), std::move(nth(*results, i)));
    return {};
  }

  Graph& graph_;
  SymbolSizes& sizes_;
  const std::set<std::string>& decided_;
  std::map<const Value*, Tensor> known_;
  std::set<const Node*> bound_;
};

}  // namespace

Status bindShapes(Graph& graph, PassContext& cx) {
  const auto* provided = cx.get<SymbolSizes>();
  QC_ASSIGN(SymbolSizes sizes, provided ? Result<SymbolSizes>(*provided) : parseBindings(cx.options.string("sizes")));
  std::set<std::string> symbols, missing;
  for (const Value* input : graph.inputs())
    for (const Dim& dim : input->type().shape)
      if (!dim.isStatic()) symbols.merge(dim.expr().symbols());
  for (const std::string& symbol : symbols)
    if (!sizes.contains(symbol)) missing.insert(symbol);
  if (!missing.empty())
    return fail(ErrorCode::kInvalidArgument, "no size is given for {}", fmt::join(missing, ", ")).help("bind every symbol of the inputs");
  for (const auto& [symbol, size] : sizes)
    if (!symbols.contains(symbol))
      return fail(ErrorCode::kInvalidArgument, "no input has the symbol '{}'", symbol)
          .help(symbols.empty() ? std::string("the inputs have no free dims") : fmt::format("they have {}", fmt::join(symbols, ", ")));
  for (Value* input : graph.inputs()) {
    QC_ASSIGN(Shape shape, bound(*input, sizes));
    input->setType(input->type().withShape(std::move(shape)));
  }
  const std::set<std::string> decided = decidedSymbols(graph);
  QC_TRY(checkAssumptions(graph.info(), sizes));
  forgetAssumptions(graph);
  bool decides = false;
  for (const Node* node = graph.front(); node && !decides; node = node->next()) decides = decidesSizes(*node);
  if (decides) {
    QC_TRY(Settled(graph, sizes, decided).run());
    graph.eraseDeadNodes();
  }
  for (Node* node = graph.front(); node; node = node->next()) QC_TRY(bindNode(*node, sizes, decided));
  return {};
}

}  // namespace qc
