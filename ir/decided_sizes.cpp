#include "ir/decided_sizes.h"

#include <algorithm>

#include "ir/arithmetic.h"
#include "ir/branches.h"
#include "ir/dim_expr_terms.h"
#include "ir/interp.h"
#include "ir/op_def.h"
#include "ir/verify.h"

namespace qc {
namespace {

// With the sizes that are known; nothing: a symbol has none and may not stay.
std::optional<DimExpr> bound(const DimExpr& e, const SymbolSizes& sizes, const std::set<std::string>& open) {
  if (const auto value = e.evaluate(sizes)) return DimExpr(*value);
  if (e.isUnknown()) return std::nullopt;
  const DimExpr rest = substituted(e, {sizes.begin(), sizes.end()});
  const std::set<std::string> symbols = rest.symbols();
  const bool mayStay = !rest.isUnknown() && !symbols.empty() && std::includes(open.begin(), open.end(), symbols.begin(), symbols.end());
  return mayStay ? std::optional(rest) : std::nullopt;
}

// Of a node that gives all elements of its operand, where one size of the result is unknown: what the others leave.  Nothing: it is another
// node, or they settle none.
std::optional<int64_t> sizeLeft(const Node& node, const AttrSpec& spec, const std::vector<DimExpr>& shape, const SymbolSizes& sizes) {
  if (spec.meaning != AttrMeaning::shape || !node.def().has(kView) || !node.operand(0)->type().isStatic()) return std::nullopt;
  const int64_t all = node.operand(0)->type().numElements();
  int64_t others = 1;
  for (const DimExpr& dim : shape)
    if (!dim.isUnknown() && __builtin_mul_overflow(others, dim.evaluate(sizes).value_or(0), &others)) return std::nullopt;
  const bool isOne = std::ranges::count_if(shape, [](const DimExpr& dim) { return dim.isUnknown(); }) == 1;
  return isOne && others > 0 && all % others == 0 ? std::optional(all / others) : std::nullopt;
}

Status bindAttrs(Node& node, const SymbolSizes& sizes, const std::set<std::string>& open) {
  for (const AttrSpec& spec : node.def().attrs) {
    const Attr* attr = node.attrs().find(spec.name);
    const auto* dims = attr ? std::get_if<std::vector<DimExpr>>(attr) : nullptr;
    if (!dims) continue;
    std::vector<DimExpr> values;
    for (const DimExpr& dim : *dims) {
      std::optional<DimExpr> value = bound(dim, sizes, open);
      if (const auto left = dim.isUnknown() ? sizeLeft(node, spec, *dims, sizes) : std::nullopt) value = *left;
      if (!value)
        return fail(ErrorCode::kInvalidArgument, "`{}` of {} holds {}, which these sizes do not settle", spec.name, node.op(), dim.str())
            .at(node.location());
      values.push_back(*value);
    }
    if (auto known = constants(values))
      node.attrs().set(spec.name, std::move(*known));
    else
      node.attrs().set(spec.name, std::move(values));
  }
  return {};
}

}  // namespace

bool decidesSizes(const Node& node) { return node.def().decides.has_value(); }

std::set<std::string> decidedSymbols(const Node& node) {
  std::set<std::string> symbols;
  if (decidesSizes(node))
    for (const DimExpr& size : node.attrs().dims("sizes")) symbols.merge(size.symbols());
  return symbols;
}

std::set<std::string> decidedSymbols(const Graph& graph) {
  std::set<std::string> symbols;
  for (const Node* n = graph.front(); n; n = n->next()) symbols.merge(decidedSymbols(*n));
  return symbols;
}

bool waitsForData(const Node& node) { return conditionOf(node) || bodyOf(node) || !decidedSymbols(node).empty(); }

const Node* firstDeciding(const Graph& graph) {
  const Node* n = graph.front();
  while (n && !waitsForData(*n)) n = n->next();
  return n;
}

bool isComputedWhenBound(const Node& node) {
  constexpr int64_t kMaxElements = 64;
  for (int i = 0; i < node.numResults(); ++i) {
    const Value* v = node.result(i);
    if (decidesSizes(node) ? v->hasUses() || v->isOutput() : !v->type().isStatic() || v->type().numElements() > kMaxElements) return false;
  }
  return decidesSizes(node) || node.def().has(kPure);
}

const Node* firstDecidingByData(const Graph& graph) {
  std::set<const Value*> ofSizes;  // constants, sizes and what is computed of these
  for (const Node* n = graph.front(); n; n = n->next()) {
    const std::vector<Value*> operands = n->operands();
    const bool known = std::all_of(operands.begin(), operands.end(), [&](const Value* v) { return !v || ofSizes.contains(v); });
    if (const Value* condition = conditionOf(*n); condition && ofSizes.contains(condition)) continue;
    if (waitsForData(*n)) {
      if (!known || !isComputedWhenBound(*n)) return n;
    } else if (known && (n->is("const") || isComputedWhenBound(*n))) {
      for (int i = 0; i < n->numResults(); ++i) ofSizes.insert(n->result(i));
    }
  }
  return nullptr;
}

Status checkDecidedOnce(const Graph& graph) {
  std::set<std::string> taken;
  for (const Value* v : graph.inputs())
    for (const Dim& dim : v->type().shape)
      if (!dim.isStatic()) taken.merge(dim.expr().symbols());
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (!decidesSizes(*n)) continue;
    for (const DimExpr& size : n->attrs().dims("sizes")) {
      if (size.constant()) continue;
      const auto symbol = symbolName(size);
      if (!symbol || !taken.insert(*symbol).second)
        return fail(ErrorCode::kInvalidModel, "'{}' decides the size {}, which {}", n->op(), size.str(),
                    symbol ? "is another's as well" : "is not a symbol")
            .at(n->location());
    }
  }
  return {};
}

Status checkAttributesKnown(const Node& node) {
  for (const auto& [name, attr] : node.attrs()) {
    const auto* dims = std::get_if<std::vector<DimExpr>>(&attr);
    if (!dims) continue;
    const std::set<std::string> own = decidedSymbols(node);
    for (const DimExpr& dim : *dims)
      for (const std::string& symbol : dim.symbols())
        if (!own.contains(symbol))
          return fail(ErrorCode::kInvalidArgument, "'{}' of '{}' needs the size of {}, which is not known", name, node.op(),
                      DimExpr::symbol(symbol).str())
              .at(node.location())
              .on(node.numResults() ? node.result()->name() : "")
              .help("give it with bind-shapes, or write the size itself");
  }
  return {};
}

std::set<std::string> symbolsOf(const Node& node) {
  std::set<std::string> symbols;
  for (const auto& [name, attr] : node.attrs())
    if (const auto* dims = std::get_if<std::vector<DimExpr>>(&attr))
      for (const DimExpr& dim : *dims) symbols.merge(dim.symbols());
  for (int i = 0; i < node.numResults(); ++i)
    for (const Dim& dim : node.result(i)->type().shape)
      if (!dim.isStatic()) symbols.merge(dim.expr().symbols());
  return symbols;
}

Result<std::vector<Tensor>> decide(const Node& node, std::span<const Tensor* const> operands, const RunBody& runBody) {
  const DefinedArithmetic defined;
  // Of free dims it was not known that they belong together: now it is.
  Graph scratch;
  std::vector<Value*> values;
  for (int i = 0; i < node.numOperands(); ++i) {
    const Tensor* t = nth(operands, i);
    values.push_back(t ? scratch.addInput(fmt::format("operand{}", i), node.operand(i)->type().withShape(toShape(t->sizes()))) : nullptr);
  }
  if (auto fits = node.def().infer(InferContext{node.op(), values, node.attrs()}); !fits)
    return tl::make_unexpected(std::move(fits.error()).at(node.location()));
  std::vector<TensorRef> in;
  for (const Tensor* t : operands) in.push_back(t ? t->ref() : TensorRef{});
  auto results = runBody ? runLoop(node, operands, runBody) : node.def().decides->eval(EvalContext{node, in, {}});
  if (!results) return tl::make_unexpected(std::move(results.error()).at(node.location()));
  return results;
}

void learnSizes(const Node& node, std::span<const Tensor> results, SymbolSizes& sizes) {
  for (int i = 0; i < node.numResults(); ++i) {
    const Shape& shape = node.result(i)->type().shape;
    for (size_t d = 0; d < shape.size(); ++d)
      if (const auto symbol = symbolName(shape[d].expr())) sizes[*symbol] = nth(results, i).sizes()[d];
  }
}

Status bindNode(Node& node, const SymbolSizes& sizes, const std::set<std::string>& open) {
  QC_TRY(bindAttrs(node, sizes, open));
  const std::vector<Value*> operands = node.operands();
  bool free = false, bound = false;
  for (int i = 0; i < node.numResults(); ++i) free = free || !node.result(i)->type().isStatic();
  for (const Value* v : operands) bound = bound || (v && std::ranges::any_of(v->type().shape, [](const Dim& d) { return d.wasFree(); }));
  if (!free && !bound) return {};
  auto types = node.def().infer(InferContext{node.op(), operands, node.attrs()});
  if (!types) return Failure(types.error()).at(node.location()).on(node.result()->name());
  // Results of fixed size stay; they are possible at some sizes of the operands only where a model was traced at those:
  // reshape{shape=[1,1024]}.
  for (int i = 0; !free && i < node.numResults(); ++i)
    if (const TensorType &type = node.result(i)->type(), &inferred = nth(*types, i); !agrees(inferred, type))
      return fail(ErrorCode::kInvalidModel, "its result is {}, by these sizes it would be {}", type.str(), inferred.str())
          .at(node.location())
          .on(node.result(i)->name());
  if (!free) return {};
  for (int i = 0; i < node.numResults(); ++i) {
    TensorType& type = nth(*types, i);
    const Shape& before = node.result(i)->type().shape;
    for (size_t d = 0; d < std::min(before.size(), type.shape.size()); ++d)
      if (!before[d].isStatic() && type.shape[d].isStatic()) type.shape[d] = Dim::bound(type.shape[d].size());
    node.result(i)->setType(std::move(type));
  }
  return {};
}

Result<std::vector<Tensor>> evaluateBound(const Node& node, std::span<const Tensor* const> operands, const SymbolSizes& sizes) {
  if (node.is("const")) return evaluateNode(node, operands);
  Graph scratch;
  std::vector<Value*> inputs;
  for (int i = 0; i < node.numOperands(); ++i) {
    const Value* v = node.operand(i);
    const Tensor* t = nth(operands, i);
    if (!v)
      inputs.push_back(nullptr);
    else if (v->constant())
      inputs.push_back(Builder(scratch).constant(v->name(), *t, v->type().quant));
    else
      inputs.push_back(scratch.addInput(v->name(), v->type().withShape(toShape(t->sizes()))));
  }
  std::vector<TensorType> types;
  for (int i = 0; i < node.numResults(); ++i) types.push_back(node.result(i)->type());
  Node* copy = scratch.insert(node.def(), std::move(inputs), node.attrs(), std::move(types), nullptr, node.result()->name());
  copy->setLocation(node.location());
  if (decidesSizes(node)) return decide(*copy, operands);
  QC_TRY(bindNode(*copy, sizes));
  return evaluateNode(*copy, operands);
}

}  // namespace qc
