#include "ir/interp.h"

#include <algorithm>
#include <limits>
#include <list>
#include <unordered_map>

#include "ir/arithmetic.h"
#include "ir/assumptions.h"
#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "ir/dim_expr_terms.h"
#include "ir/guarded.h"
#include "ir/memory_limit.h"
#include "ir/op_def.h"
#include "ir/settled_sizes.h"

namespace qc {
namespace {

Result<std::vector<Tensor>> allocateResults(const Node& node) {
  std::vector<Tensor> results;
  for (int i = 0; i < node.numResults(); ++i) {
    const TensorType& type = node.result(i)->type();
    if (!type.isStatic())
      return fail(ErrorCode::kUnsupported, "the shape [{}] of result {} is not known before running", toString(type.shape), i)
          .at(node.location())
          .on(node.result(i)->name())
          .help("bind symbolic dims with LoadOptions::shapes");
    results.emplace_back(type.dtype, type.sizes());
  }
  return results;
}

// The sizes of free dims, which are as the inputs have them.
Result<SymbolSizes> sizesAt(const Graph& graph, std::span<const Tensor> inputs) {
  if (inputs.size() != graph.inputs().size())
    return fail(ErrorCode::kInvalidArgument, "the graph takes {} inputs, {} were given", graph.inputs().size(), inputs.size());
  std::map<std::string, std::vector<int64_t>> shapes;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Value* v = graph.inputs()[i];
    if (inputs[i].dtype() != v->type().dtype || (v->type().isStatic() && inputs[i].sizes() != v->type().sizes()))
      return fail(ErrorCode::kInvalidArgument, "expected {}, got {}", v->type().str(), inputs[i].type().str()).on(v->name());
    shapes[v->name()] = inputs[i].sizes();
  }
  QC_ASSIGN(SymbolSizes sizes, bindingsOf(graph, shapes));
  QC_TRY(checkAssumptions(graph.info(), sizes));
  return sizes;
}

bool isFree(const Node& node) {
  const std::vector<Value*> operands = node.operands();
  for (int i = 0; i < node.numResults(); ++i)
    if (!node.result(i)->type().isStatic()) return true;
  return std::ranges::any_of(operands, [](const Value* v) { return v && !v->type().isStatic(); }) || !symbolsOf(node).empty();
}

// Of what the node will allocate.  Constants are shared.
int64_t resultBytes(const Node& node) {
  int64_t bytes = 0;
  for (int i = 0; i < node.numResults() && !node.is("const"); ++i)
    if (node.result(i)->type().isStatic()) bytes += std::min(node.result(i)->type().byteSize(), INT64_MAX - bytes);
  return bytes;
}

Result<std::vector<Tensor>> evaluateGraph(const Graph& graph, std::span<const Tensor> inputs, const InterpOptions& options) {
  const DefinedArithmetic defined;
  QC_ASSIGN(SymbolSizes sizes, sizesAt(graph, inputs));
  struct Slot {
    Tensor tensor;
    int pendingUses;
  };
  std::unordered_map<const Value*, Slot> slots;
  const auto define = [&](const Value* v, Tensor t) {
    slots.emplace(v, Slot{std::move(t), static_cast<int>(v->uses().size()) + (v->isOutput() ? 1 : 0)});
  };
  const auto release = [&](const Value* v) {
    const auto it = slots.find(v);
    if (--it->second.pendingUses > 0) return;
    slots.erase(it);
  };
  for (size_t i = 0; i < inputs.size(); ++i) define(graph.inputs()[i], inputs[i]);
  const std::map<const Node*, Conditions> guards = conditionsOf(graph);
  const auto evaluated = [&](const Node& node) -> Result<std::vector<Tensor>> {
    std::vector<const Tensor*> operands;
    for (const Value* v : node.operands()) operands.push_back(v ? &slots.at(v).tensor : nullptr);
    if (conditionOf(node)) {  // the other one is not there
      QC_ASSIGN(const bool holding, holds(conditionOf(node)->name(), *operands[0]));
      operands[1] = operands[2] = operands[usize(operandTaken(holding))];
    }
    QC_ASSIGN(std::vector<Tensor> results,
              !sizes.empty() && isFree(node) ? evaluateBound(node, operands, sizes) : evaluateNode(node, operands));
    if (decidesSizes(node)) learnSizes(node, results, sizes);
    if (options.onNode)
      if (auto s = guarded("InterpOptions::onNode", [&] { return options.onNode(node, results); }); !s)
        return tl::make_unexpected(std::move(s.error()).at(node.location()));
    return results;
  };
  const auto isRun = [&](const Node& node) -> Result<bool> {
    for (const auto& [condition, side] : conditionsOf(guards, &node)) {
      QC_ASSIGN(const bool holding, holds(condition->name(), slots.at(condition).tensor));
      if (holding != side) return false;
    }
    return true;
  };
  for (const Node* node = graph.front(); node; node = node->next()) {
    std::vector<Tensor> results(usize(node->numResults()));
    QC_ASSIGN(const bool runs, isRun(*node));
    if (runs) {
      QC_ASSIGN(results, evaluated(*node));
    }
    for (const Value* v : node->operands())
      if (v) release(v);
    for (int i = 0; i < node->numResults(); ++i)
      if (node->result(i)->hasUses() || node->result(i)->isOutput()) define(node->result(i), std::move(nth(results, i)));
  }
  std::vector<Tensor> outputs;
  for (const Value* v : graph.outputs()) outputs.push_back(slots.at(v).tensor);
  return outputs;
}

bool isEmpty(const Value* v) { return v->type().isStatic() && v->type().numElements() == 0; }

// Operands that are constant, or of size zero and so known as well; nothing where one is neither.
std::optional<std::vector<const Tensor*>> constantOperands(const Node& node, std::list<Tensor>& nothings) {
  std::vector<const Tensor*> operands;
  for (const Value* v : node.operands()) {
    const Tensor* t = v ? v->constant() : nullptr;
    if (v && !t && isEmpty(v)) t = &nothings.emplace_back(v->type().dtype, v->type().sizes());
    if (v && !t) return std::nullopt;
    operands.push_back(t);
  }
  return operands;
}

}  // namespace

Result<std::vector<Tensor>> evaluateNode(const Node& node, std::span<const Tensor* const> operands) {
  const DefinedArithmetic defined;
  if (node.is("const")) return std::vector<Tensor>{node.constant()};
  if (!node.def().eval)
    return fail(ErrorCode::kInvalidArgument, "the declaration of '{}' has no evaluation", node.op()).at(node.location());
  if (static_cast<int>(operands.size()) != node.numOperands())
    return fail(ErrorCode::kInvalidArgument, "{} tensors for the {} operands of '{}'", operands.size(), node.numOperands(), node.op())
        .at(node.location());
  QC_TRY(checkAttributesKnown(node));
  if (!decidedSymbols(node).empty()) return decide(node, operands);
  if (auto s = checkMemory(resultBytes(node), "evaluating this node"); !s)
    return tl::make_unexpected(std::move(s.error()).at(node.location()).on(node.numResults() ? node.result()->name() : ""));
  QC_ASSIGN(std::vector<Tensor> results, allocateResults(node));
  std::vector<TensorRef> in, out;
  for (const Tensor* t : operands) in.push_back(t ? t->ref() : TensorRef{});
  for (const Tensor& t : results) out.push_back(t.ref());
  if (auto s = node.def().eval(EvalContext{node, in, out}); !s) return tl::make_unexpected(std::move(s.error()).at(node.location()));
  return results;
}

Result<std::vector<Tensor>> interpret(const Graph& graph, std::span<const Tensor> inputs, const InterpOptions& options) {
  return withoutExceptions([&] { return evaluateGraph(graph, inputs, options); });
}

Result<std::optional<std::vector<Tensor>>> foldNode(const Node& node, FoldBudget& budget, int64_t maxBytes) {
  int64_t from = 0;
  for (const Value* v : node.operands())
    if (v && v->constant()) from += v->constant()->byteSize();
  const int64_t bytes = resultBytes(node), growth = std::max<int64_t>(bytes - from, 0);
  const int64_t ofOne = std::max(FoldBudget::kGrowthOfOne, (FoldBudget::kWidening - 1) * from);
  const int64_t ofAll = FoldBudget::kGrowthOfAll + FoldBudget::kWidening * budget.payload;
  if (growth > ofOne || budget.grown + growth > ofAll) return std::nullopt;
  QC_ASSIGN(auto folded, foldNode(node, maxBytes > 0 ? maxBytes : std::numeric_limits<int64_t>::max()));
  if (folded) budget.grown += growth;
  return folded;
}

Value* widenedIntegers(const Node& node) {
  if (!node.is("cast") || node.result()->type().isQuantized() || node.operand(0)->type().isQuantized()) return nullptr;
  const DType from = node.operand(0)->type().dtype, to = node.result()->type().dtype;
  return isInteger(from) && sizeOf(from) == 1 && to == DType::s32 ? node.operand(0) : nullptr;
}

Result<std::optional<std::vector<Tensor>>> foldNode(const Node& node, int64_t maxBytes) {
  if (!node.def().has(kPure) || !node.def().eval) return std::nullopt;
  for (const auto& [name, attr] : node.attrs())
    if (std::holds_alternative<std::vector<DimExpr>>(attr)) return std::nullopt;  // its free dims decide
  bool empty = node.numResults() > 0;
  for (int i = 0; i < node.numResults(); ++i) {
    const TensorType& type = node.result(i)->type();
    if (!type.isStatic() || type.byteSize() > maxBytes) return std::nullopt;
    empty &= isEmpty(node.result(i));
  }
  std::vector<Tensor> results;
  if (empty) {  // whatever the operands hold
    for (int i = 0; i < node.numResults(); ++i) results.emplace_back(node.result(i)->type().dtype, node.result(i)->type().sizes());
    return std::optional(std::move(results));
  }
  std::list<Tensor> nothings;
  const auto operands = constantOperands(node, nothings);
  if (!operands) return std::nullopt;
  if (!checkMemory(resultBytes(node), "folding")) return std::nullopt;  // whoever runs it will be told
  QC_ASSIGN(results, evaluateNode(node, *operands));
  return std::optional(std::move(results));
}

Result<std::optional<std::vector<Tensor>>> foldDeciding(const Node& node, int64_t maxBytes) {
  std::list<Tensor> nothings;
  const auto operands = constantOperands(node, nothings);
  if (!operands) return std::nullopt;
  QC_ASSIGN(std::vector<Tensor> results, decide(node, *operands));
  int64_t bytes = 0;
  for (const Tensor& t : results) bytes += t.byteSize();
  if (bytes > maxBytes) return std::nullopt;
  return std::optional(std::move(results));
}

}  // namespace qc
