#include "ir/ops/batches.h"

#include <algorithm>

namespace qc {
namespace {

using At = std::optional<BatchDims>;
using Dims = std::span<const int>;

bool isData(const Node& node, size_t operand) { return node.def().operand(static_cast<int>(operand)).role == OperandRole::data; }

// All data in one dim, the rest the same for all samples; all results in the same dim.
At dataIn(const Node& node, Dims dims, int dim) {
  BatchDims at{std::vector<int>(dims.size(), -1), std::vector<int>(usize(node.numResults()), dim)};
  for (size_t i = 0; i < dims.size(); ++i) {
    if (!isData(node, i) && dims[i] >= 0) return std::nullopt;
    if (isData(node, i) && node.operand(static_cast<int>(i))) at.operands[i] = dim;
  }
  return at;
}

int firstOf(Dims dims) {
  return *std::find_if(dims.begin(), dims.end(), [](int d) { return d >= 0; });
}
int rankOf(const Node& node, int operand) { return node.operand(operand)->type().rank(); }
const Dim& dimOf(const Value* v, int dim) { return nth(v->type().shape, dim); }

// The last so many dims of operand 0 belong to what one result is computed of.
At before(const Node& node, Dims dims, int last) {
  const int dim = firstOf(dims);
  return dim < rankOf(node, 0) - last ? dataIn(node, dims, dim) : std::nullopt;
}

// One operand of many holds samples.
At alone(Dims dims, int operand) {
  if (nth(dims, operand) < 0 || std::count_if(dims.begin(), dims.end(), [](int d) { return d >= 0; }) > 1) return std::nullopt;
  return BatchDims{{dims.begin(), dims.end()}, {nth(dims, operand)}};
}

std::optional<int> tupleLength(const Node& node) {
  const Dim length = node.operand(1)->type().shape.back();
  return length.isStatic() ? std::optional(static_cast<int>(length.size())) : std::nullopt;
}

}  // namespace

// ---- convolutions, pools, norms, blocks of pixels -----------------------------------------------

At leadingBatch(const Node& node, Dims dims) { return dataIn(node, dims, 0); }
At batchOfRows(const Node& node, Dims dims) { return before(node, dims, 1); }
At batchOfMatrices(const Node& node, Dims dims) { return before(node, dims, 2); }

At batchOfLayerNorm(const Node& node, Dims dims) {
  const int dim = firstOf(dims);
  return dim < node.integer("axis") ? dataIn(node, dims, dim) : std::nullopt;
}

// A dim that keeps its size is not interpolated.
At batchOfResize(const Node& node, Dims dims) {
  const bool whole = nth(node.attrs().dims("sizes"), dims[0]) == dimOf(node.operand(0), dims[0]).expr();
  if (!whole || node.string("coordinate") == "tf_crop_and_resize" || nth(node.attrs().reals("scales"), dims[0]) != 1) return std::nullopt;
  return dataIn(node, dims, dims[0]);
}

// ---- products -----------------------------------------------------------------------------------

// Samples lie in a dim that leads both matrices, or in the rows of the one or the columns of the other where the other is the same for all.
At batchOfMatmul(const Node& node, Dims dims) {
  const int a = rankOf(node, 0), b = rankOf(node, 1), y = node.result()->type().rank();
  if (a < 2 || b < 2 || dims[0] == a - 1 || dims[1] == b - 2) return std::nullopt;  // summed over
  if (dims[0] == a - 2) return dims[1] < 0 ? At(BatchDims{{a - 2, -1}, {y - 2}}) : std::nullopt;
  if (dims[1] == b - 1) return dims[0] < 0 ? At(BatchDims{{-1, b - 1}, {y - 1}}) : std::nullopt;
  const int dim = std::max(dims[0] < 0 ? -1 : dims[0] + y - a, dims[1] < 0 ? -1 : dims[1] + y - b);
  BatchDims at{{-1, -1}, {dim}};
  for (const int i : {0, 1}) {
    const int own = dim - y + rankOf(node, i);
    if (own < 0 && nth(dims, i) >= 0) return std::nullopt;
    if (own < 0 || (nth(dims, i) < 0 && dimOf(node.operand(i), own) == Dim(1))) continue;  // serves all
    if (!(dimOf(node.operand(i), own) == dimOf(node.result(), dim))) return std::nullopt;
    nth(at.operands, i) = own;
  }
  return at;
}

// A row's scale and zero point are its own, [.., 1], as dynamic_qparams gives them; those of a whole tensor depend on all of it.
At batchOfDynamicLinear(const Node& node, Dims dims) {
  const int dim = dims[0];
  if (dim < 0 || dim >= rankOf(node, 0) - 1) return std::nullopt;
  BatchDims at{std::vector<int>(dims.size(), -1), {dim}};
  at.operands[0] = dim;
  for (size_t i = 1; i < dims.size(); ++i) {
    if (dims[i] < 0) continue;
    if (dims[i] != dim || rankOf(node, static_cast<int>(i)) != rankOf(node, 0)) return std::nullopt;
    at.operands[i] = dim;
  }
  return at;
}

At batchOfPackedLinear(const Node& node, Dims dims) { return dims[0] == rankOf(node, 0) - 1 ? std::nullopt : alone(dims, 0); }
At batchOfPackedEmbedding(const Node& node, Dims dims) { return alone(dims, node.def().operandIndex("indices")); }

// ---- parameters known at run time ---------------------------------------------------------------

At batchOfDynamicParams(const Node& node, Dims dims) {
  if (node.string("granularity") != "token" || dims[0] == rankOf(node, 0) - 1) return std::nullopt;
  return BatchDims{{dims[0]}, {dims[0], dims[0]}};
}

// Parameters for each row, [.., 1], go with their rows; others are the same for all samples.
At batchOfGivenParams(const Node& node, Dims dims) {
  const int dim = firstOf(dims), rank = rankOf(node, 0);
  if (node.integer("axis") == dim) return std::nullopt;
  BatchDims at{std::vector<int>(dims.size(), -1), {dim}};
  at.operands[0] = dim;
  for (int i = 1; i < node.numOperands(); ++i) {
    const bool ofRows = node.operand(i) && node.integer("axis") < 0 && rank > 1 && rankOf(node, i) == rank;
    if (nth(dims, i) >= 0 && (!ofRows || nth(dims, i) != dim)) return std::nullopt;
    if (ofRows && dim == rank - 1) return std::nullopt;
    if (ofRows) nth(at.operands, i) = dim;
  }
  return at;
}

// ---- data that moves ----------------------------------------------------------------------------

// The elements of a sample stay together where as many lie before it as before.  The first such dim: those of size 1 behind it are the
// sample's.
At batchOfReshape(const Node& node, Dims dims) {
  DimExpr earlier = 1, passed = 1;
  for (int d = 0; d < dims[0]; ++d) earlier = earlier * dimOf(node.operand(0), d).expr();
  const Shape& to = node.result()->type().shape;
  for (size_t d = 0; d < to.size(); ++d) {
    if (passed == earlier) return BatchDims{{dims[0]}, {static_cast<int>(d)}};
    passed = passed * to[d].expr();
  }
  return std::nullopt;
}

At batchOfTranspose(const Node& node, Dims dims) {
  const std::vector<int64_t>& perm = node.integers("perm");
  return BatchDims{{dims[0]}, {static_cast<int>(std::find(perm.begin(), perm.end(), dims[0]) - perm.begin())}};
}

// In a dim that becomes no longer.
At batchOfExpand(const Node& node, Dims dims) {
  const int dim = dims[0] + node.result()->type().rank() - rankOf(node, 0);
  return dimOf(node.operand(0), dims[0]) == dimOf(node.result(), dim) ? At(BatchDims{{dims[0]}, {dim}}) : std::nullopt;
}

// ---- indices ------------------------------------------------------------------------------------

At batchOfGather(const Node& node, Dims dims) {
  const int axis = static_cast<int>(node.integer("axis"));
  if (dims[0] >= 0 && dims[1] >= 0) return std::nullopt;
  if (dims[1] >= 0) return BatchDims{{-1, dims[1]}, {axis + dims[1]}};
  if (dims[0] == axis) return std::nullopt;
  return BatchDims{{dims[0], -1}, {dims[0] < axis ? dims[0] : dims[0] - 1 + rankOf(node, 1)}};
}

// Element by element but along the axis.
At batchBesideAxis(const Node& node, Dims dims) {
  const int dim = firstOf(dims);
  if (dim == node.integer("axis")) return std::nullopt;
  return BatchDims{std::vector<int>(dims.size(), dim), {dim}};
}

// Tuples of their own for each sample, or what the slices hold besides the dims that tuples name.
At batchOfGatherNd(const Node& node, Dims dims) {
  const std::optional<int> length = tupleLength(node);
  const int batches = static_cast<int>(node.integer("batch_dims")), rank = rankOf(node, 1), dim = firstOf(dims);
  if (!length) return std::nullopt;
  if (dim < batches) return BatchDims{{dim, dim}, {dim}};
  if (dims[0] >= 0 && dims[1] >= 0) return std::nullopt;
  if (dims[1] >= 0) return dims[1] < rank - 1 ? At(BatchDims{{-1, dims[1]}, {dims[1]}}) : std::nullopt;
  if (dims[0] < batches + *length) return std::nullopt;
  return BatchDims{{dims[0], -1}, {rank - 1 + dims[0] - batches - *length}};
}

At batchOfScatterNd(const Node& node, Dims dims) {
  const std::optional<int> length = tupleLength(node);
  if (dims[1] >= 0 || !length) return std::nullopt;
  const int more = rankOf(node, 1) - 1 - *length, dim = dims[0] >= 0 ? dims[0] : dims[2] - more;
  if (dim < *length) return std::nullopt;
  return BatchDims{{dim, -1, dim + more}, {dim}};
}

At batchOfOneHot(const Node& node, Dims dims) {
  if (dims[1] >= 0) return std::nullopt;
  return BatchDims{{dims[0], -1}, {dims[0] + (node.integer("axis") <= dims[0] ? 1 : 0)}};
}

At batchOfReverseSequence(const Node& node, Dims dims) {
  const int batch = static_cast<int>(node.integer("batch_axis"));
  if (dims[1] < 0 && dims[0] >= 2) return BatchDims{{dims[0], -1}, {dims[0]}};
  return BatchDims{{batch, 0}, {batch}};
}

// ---- recurrences --------------------------------------------------------------------------------

// Y [seq, directions, batch, hidden] or [batch, seq, directions, hidden]; states [directions, batch, hidden] or [batch, directions,
// hidden].
At batchOfRecurrence(const Node& node, Dims dims) {
  const int batch = node.integer("batch_first") != 0 ? 0 : 1;
  BatchDims at{std::vector<int>(dims.size(), -1), std::vector<int>(usize(node.numResults()), batch)};
  at.results[0] = batch == 0 ? 0 : 2;
  for (int i = 0; i < node.numOperands(); ++i) {
    if (!node.operand(i)) continue;
    const std::string& name = node.def().operand(i).name;
    if (i == 0 || name == "initial_h" || name == "initial_c")
      nth(at.operands, i) = batch;
    else if (name == "sequence_lens")
      nth(at.operands, i) = 0;
    else if (nth(dims, i) >= 0)
      return std::nullopt;
  }
  return at;
}

}  // namespace qc
