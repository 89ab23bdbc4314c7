// bind-shapes: sizes for the symbols of free dims; every type behind them follows.  What could not be proved of free dims, that two of them
// broadcast or that one divides, is found true or false here, by the inference of the node that needs it.  Sizes that data decides stay;
// those that are computed from the sizes of inputs alone are computed.
//
//   bind-shapes{sizes="T=17, N=1"}      or cx.provide(ShapeBindings)
#include "passes/lower/bind_shapes.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "ir/decided_sizes.h"
#include "ir/interp.h"
#include "ir/op_def.h"
#include "ir/text_reader.h"
#include "passes/passes.h"

namespace qc {
namespace {

Result<ShapeBindings> parseBindings(std::string_view text) {
  ShapeBindings sizes;
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

Result<Shape> bound(const Value& value, const ShapeBindings& sizes) {
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

// Small values that follow from sizes alone, such as a scale that is a quotient of them: what they decide is known as soon as the sizes
// are, and no program is cut there.
class SettledValues {
 public:
  explicit SettledValues(ShapeBindings& sizes) : sizes_(sizes) {}

  // Of a node whose attributes are bound: whether all that it is there for is known.  What cannot be said before running is left to that.
  Result<bool> see(const Node& node) {
    if (!isComputedWhenBound(node)) return false;
    std::vector<const Tensor*> operands;
    for (const Value* v : node.operands()) {
      const auto it = v ? known_.find(v) : known_.end();
      operands.push_back(!v ? nullptr : v->constant() ? v->constant() : it == known_.end() ? nullptr : &it->second);
      if (v && !operands.back()) return false;
    }
    if (decidesSizes(node)) {
      QC_ASSIGN(const std::vector<Tensor> results, decide(node, operands));
      learnSizes(node, results, sizes_);
      return true;
    }
    auto results = evaluateNode(node, operands);
    for (int i = 0; results && i < node.numResults(); ++i) known_.emplace(node.result(i), std::move(nth(*results, i)));
    return false;
  }

 private:
  ShapeBindings& sizes_;
  std::map<const Value*, Tensor> known_;
};

}  // namespace

Status bindShapes(Graph& graph, PassContext& cx) {
  const auto* provided = cx.get<ShapeBindings>();
  QC_ASSIGN(ShapeBindings sizes, provided ? Result<ShapeBindings>(*provided) : parseBindings(cx.options.string("sizes")));
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
  SettledValues settled(sizes);
  for (Node *node = graph.front(), *next = nullptr; node; node = next) {
    next = node->next();
    QC_TRY(bindNode(*node, sizes, decided));
    if (decided.empty() || node->is("const")) continue;
    QC_ASSIGN(const bool isSettled, settled.see(*node));
    if (isSettled) graph.erase(node);
  }
  return {};
}

}  // namespace qc
