// The loop, whose meaning loops.h states.  Tests: tests/golden/loops.
#include <cstring>
#include <vector>

#include "ir/interp.h"
#include "ir/loops.h"
#include "ir/op_def.h"
#include "ir/ops/deciding.h"
#include "ir/ops/infer_util.h"

namespace qc {
namespace {

constexpr int kFirstValue = 2;  // behind the number of rounds and the condition

Status requireOne(const InferContext& c, int operand, DType dtype) {
  if (!c.has(operand)) return {};
  const TensorType& t = c.type(operand);
  if (t.dtype == dtype && !t.isQuantized() && (!t.isStatic() || t.numElements() == 1)) return {};
  return fail(ErrorCode::kInvalidModel, "loop: {}, expected {} of one element", describe(c, operand), toString(dtype));
}

std::vector<TensorType> valueTypes(const InferContext& c) {
  std::vector<TensorType> types;
  for (int i = kFirstValue; c.has(i); ++i) types.push_back(c.type(i));
  return types;
}

Result<Types> inferLoop(const InferContext& c) {
  QC_TRY(requireOne(c, 0, DType::s64));
  QC_TRY(requireOne(c, 1, DType::boolean));
  const std::vector<DimExpr> count = c.attrs.dims("count"), sizes = c.attrs.dims("sizes");
  if (count.size() > 1) return fail(ErrorCode::kInvalidModel, "loop: `count` has {} entries, expected one or none", count.size());
  for (const auto* list : {&count, &sizes})
    for (const DimExpr& size : *list)
      if (size.constant().value_or(0) < 0) return fail(ErrorCode::kInvalidModel, "loop: a size of {}", size.str());
  size_t used = 0;
  const auto decided = [&] { return used++ < sizes.size() ? sizes[used - 1] : DimExpr::unknown(); };
  QC_ASSIGN(Types types, loopResults(
                             c.attrs.graph("body"), valueTypes(c), c.attrs.integer("carried"),
                             [&] { return count.empty() ? decided() : count[0]; }, decided));
  if (used != sizes.size()) return fail(ErrorCode::kInvalidModel, "loop: `sizes` has {} entries, {} expected", sizes.size(), used);
  return checkedResults(std::move(types));
}

std::vector<DimExpr> boundLoop(const InferContext& c) { return std::vector<DimExpr>(c.attrs.dims("sizes").size(), DimExpr::unknown()); }

// By the interpreter.
Result<std::vector<Tensor>> evalLoop(const EvalContext& c) {
  std::vector<Tensor> tensors;
  std::vector<const Tensor*> operands;
  tensors.reserve(c.inputs.size());
  for (const TensorRef& in : c.inputs) {
    operands.push_back(nullptr);
    if (!in.data) continue;
    Tensor& copy = tensors.emplace_back(in.dtype, std::vector<int64_t>(in.sizes.begin(), in.sizes.end()));
    if (copy.byteSize() > 0) std::memcpy(copy.mutableData(), in.data, usize(copy.byteSize()));
    operands.back() = &copy;
  }
  const Graph& body = *bodyOf(c.node);
  return runLoop(c.node, operands, [&](std::span<const Tensor> inputs) { return interpret(body, inputs); });
}

}  // namespace

void registerLoopOps(OpRegistry& r) {
  OpDef def;
  def.name = "loop";
  def.summary = "rounds of a graph that it holds, as many as data says";
  def.operands = {{.name = "rounds", .optional = true, .role = OperandRole::parameter},
                  {.name = "condition", .optional = true, .role = OperandRole::parameter},
                  {.name = "values", .variadic = true}};
  def.attrs = {{"body", AttrKind::graph, std::nullopt},
               integerAttr("carried", 0),
               {"count", AttrKind::dims, Attr(std::vector<int64_t>())},
               {"sizes", AttrKind::dims, Attr(std::vector<int64_t>())}};
  def.traits = 0;
  def.stages = kAllStages;
  def.numResults = -1;
  def.infer = inferLoop;
  def.eval = atKnownSizes(evalLoop);
  def.decides = DecidedSizes{boundLoop, evalLoop};
  def.noGradient = "how often its body runs is known when it has run";
  r.add(std::move(def));
}

}  // namespace qc
