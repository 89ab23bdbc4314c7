#include "ir/batch_dims.h"

#include <algorithm>

namespace qc {
namespace {

using Dims = std::span<const int>;

bool isData(const Node& node, int operand) {
  const OperandRole role = node.def().operand(operand).role;
  return role == OperandRole::data || role == OperandRole::broadcast;
}

// Samples with weights, biases or parameters of their own.
bool othersDiffer(const Node& node, Dims dims) {
  for (int i = 0; i < node.numOperands(); ++i)
    if (!isData(node, i) && nth(dims, i) >= 0) return true;
  return false;
}

// The data in one dim, the rest in none; all results in `result`.
BatchDims dataIn(const Node& node, int dim, int result) {
  BatchDims at{std::vector<int>(usize(node.numOperands()), -1), std::vector<int>(usize(node.numResults()), result)};
  for (int i = 0; i < node.numOperands(); ++i)
    if (node.operand(i) && isData(node, i)) nth(at.operands, i) = dim;
  return at;
}

bool hasParametersAlong(const QuantPtr& quant, int dim) { return quant && quant->axis == dim; }

// Whether parameters of quantization differ along a dim of an operand or a result.
bool isQuantizedAlong(const Node& node, int dim) {
  for (int i = 0; i < node.numOperands(); ++i)
    if (node.operand(i) && isData(node, i) && hasParametersAlong(node.operand(i)->type().quant, dim)) return true;
  for (int i = 0; i < node.numResults(); ++i)
    if (hasParametersAlong(node.result(i)->type().quant, dim)) return true;
  return std::any_of(node.attrs().begin(), node.attrs().end(), [&](const auto& entry) {
    const auto* quant = std::get_if<QuantAttr>(&entry.second);
    return quant && hasParametersAlong(quant->params, dim);
  });
}

// Whether the entry of a list for this dim of operand 0 says that the op does nothing there.
bool isNeutral(const Node& node, const AttrSpec& spec, size_t entry, int dim) {
  const Attr& attr = *node.attrs().find(spec.name);
  if (const auto* reals = std::get_if<std::vector<double>>(&attr))
    return reals->empty() || reals->at(entry) == static_cast<double>(spec.neutral);
  const std::vector<DimExpr> list = node.attrs().dims(spec.name);
  if (list.empty()) return true;
  return list.at(entry) == (spec.neutral == kWholeDim ? nth(node.operand(0)->type().shape, dim).expr() : DimExpr(spec.neutral));
}

// What attributes say of dims leaves this one of operand 0 alone.
bool isLeftAlone(const Node& node, int dim) {
  const auto rank = usize(node.operand(0)->type().rank());
  for (const AttrSpec& spec : node.def().attrs) {
    if (!node.attrs().find(spec.name)) continue;
    switch (spec.meaning) {
      case AttrMeaning::axis:
        if (node.integer(spec.name) == dim) return false;
        break;
      case AttrMeaning::axes: {
        const std::vector<int64_t> axes = node.integers(spec.name);
        if (std::find(axes.begin(), axes.end(), dim) != axes.end()) return false;
        break;
      }
      case AttrMeaning::perDimPair:
        if (!isNeutral(node, spec, usize(dim) + rank, dim)) return false;
        [[fallthrough]];
      case AttrMeaning::perDim:
        if (!isNeutral(node, spec, usize(dim), dim)) return false;
        break;
      default: break;
    }
  }
  return true;
}

// Where a dim of the operand is in the result of an op that may drop those that it reduces.
int behindReduction(const Node& node, int dim) {
  const Attr* keep = node.attrs().find("keepdims");
  if (!keep || std::get<int64_t>(*keep) != 0) return dim;
  int before = 0;
  for (const AttrSpec& spec : node.def().attrs) {
    if (spec.meaning == AttrMeaning::axis) before += node.integer(spec.name) < dim;
    if (spec.meaning == AttrMeaning::axes)
      for (const int64_t axis : node.integers(spec.name)) before += axis < dim;
  }
  return dim - before;
}

std::optional<BatchDims> permutable(const Node& node, Dims dims) {
  if (othersDiffer(node, dims)) return std::nullopt;
  const int dim = *std::max_element(dims.begin(), dims.end());
  if (!isLeftAlone(node, dim) || isQuantizedAlong(node, dim)) return std::nullopt;
  return dataIn(node, dim, behindReduction(node, dim));
}

// Dims are aligned from the last; an operand that has one element there, or none, serves every sample.
std::optional<BatchDims> broadcast(const Node& node, Dims dims) {
  const int rank = node.result()->type().rank();
  int dim = -1;  // of the result
  for (int i = 0; i < node.numOperands(); ++i)
    if (nth(dims, i) >= 0) dim = std::max(dim, nth(dims, i) + rank - node.operand(i)->type().rank());
  BatchDims at{std::vector<int>(usize(node.numOperands()), -1), std::vector<int>(usize(node.numResults()), dim)};
  for (int i = 0; i < node.numOperands(); ++i) {
    const int own = node.operand(i) ? dim - rank + node.operand(i)->type().rank() : -1;
    if (nth(dims, i) >= 0 && own < 0) return std::nullopt;
    const bool serves = own < 0 || (nth(dims, i) < 0 && nth(node.operand(i)->type().shape, own) == Dim(1));
    nth(at.operands, i) = serves ? -1 : own;
  }
  // One sample's element for several of the result would be read for other samples.
  for (int i = 0; i < node.numOperands(); ++i)
    if (const int own = nth(at.operands, i);
        own >= 0 && !(nth(node.operand(i)->type().shape, own) == nth(node.result()->type().shape, dim)))
      return std::nullopt;
  return isQuantizedAlong(node, dim) ? std::nullopt : std::optional(at);
}

}  // namespace

std::optional<BatchDims> batchDims(const Node& node, Dims dims) {
  const OpDef& def = node.def();
  if (def.batch) return def.batch(node, dims);
  if (!def.has(kPermutable) || node.numOperands() == 0 || node.numResults() == 0) return std::nullopt;
  return def.operand(0).role == OperandRole::broadcast ? broadcast(node, dims) : permutable(node, dims);
}

}  // namespace qc
