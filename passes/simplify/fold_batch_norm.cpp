// fold-batch-norm: BatchNorm with constant statistics goes into the weights of the conv, conv_transpose or linear
// in front of it, when that op feeds nothing else; any other one becomes a per-channel multiply and add.
// Arithmetic in float32, spec section 7: r = 1/sqrt(var + eps), W' = W * (gamma * r), b' = ((b - mean) * r) * gamma + beta.
// With keep=1, or where a table is
// provided, what was folded is kept in it for training.  Tests: tests/golden/fold_batch_norm.
#include <cmath>

#include "ir/rewriter.h"
#include "passes/correspondence.h"
#include "passes/graph_util.h"
#include "passes/passes.h"
#include "passes/training/folded_batch_norm.h"

namespace qc {
namespace {

struct Affine {
  std::vector<float> rsqrt, gamma, beta, mean;
  float factor(size_t c) const { return gamma[c] * rsqrt[c]; }
};

std::optional<Affine> constantStatistics(const Node& bn) {
  std::vector<std::vector<float>> parts;
  for (int i = 1; i <= 4; ++i) {
    auto values = constantVector(bn.operand(i));  // other tools leave some behind a dequantize
    if (!values) return std::nullopt;
    parts.push_back(std::move(*values));
  }
  Affine a{std::move(parts[3]), std::move(parts[0]), std::move(parts[1]), std::move(parts[2])};
  const auto epsilon = static_cast<float>(bn.real("epsilon"));
  for (float& v : a.rsqrt) v = 1.0f / std::sqrt(v + epsilon);
  return a;
}

Result<bool> foldIntoProducer(const Match& m, Rewriter& rw, Moves& moves, FoldedBatchNorms* kept) {
  Node* bn = m.root();
  Node* conv = m.node("conv");
  const auto stats = constantStatistics(*bn);
  const Tensor* weight = floatConstant(conv->operand("w"));
  const Tensor* bias = floatConstant(conv->operand("bias"));
  if (!stats || !weight || (conv->operand("bias") && !bias) || conv->operand("residual")) return false;
  if (conv->expr("post")) return false;
  // A linear's channels are its last dim; BatchNorm normalises dim 1.
  if (conv->is("linear") && conv->result()->type().rank() != 2) return false;
  const auto channels = static_cast<int64_t>(stats->gamma.size());
  Tensor newBias(DType::f32, {channels});
  std::vector<float> factors;
  for (size_t c = 0; c < stats->gamma.size(); ++c) {
    const float b = bias ? bias->as<float>()[c] : 0.0f;
    newBias.mutableAs<float>()[c] = ((b - stats->mean[c]) * stats->rsqrt[c]) * stats->gamma[c] + stats->beta[c];
    factors.push_back(stats->factor(c));
  }
  Tensor newWeight = scaledChannels(*weight, factors, weightChannels(*conv));
  if (kept) {
    FoldedBatchNorm& own = (*kept)[bn->result()->name()];
    own = {stats->gamma, stats->mean, *constantVector(bn->operand(4)), static_cast<float>(bn->real("epsilon")), newWeight, newBias};
    for (size_t c = 0; bias && c < own.mean.size(); ++c) own.mean[c] -= bias->as<float>()[c];
  }
  Builder b = rw.before(bn);
  b.at(conv->location());
  Value* w = b.constant(conv->operand("w")->name(), std::move(newWeight));
  Value* biasValue = b.constant(conv->operand("w")->name() + "_bias", std::move(newBias));
  QC_ASSIGN(Value * folded, b.create(conv->op(), {conv->operand(0), w, biasValue}, conv->attrs()));
  moves.add({{bn->result()->name(), conv->result()->name()}});
  rw.replace(bn, {folded});
  return true;
}

Result<bool> toMultiplyAdd(const Match& m, Rewriter& rw) {
  Node* bn = m.root();
  const auto stats = constantStatistics(*bn);
  if (!stats) return false;
  const int rank = bn->result()->type().rank(), axis = channelAxis(*bn);
  std::vector<int64_t> sizes(usize(rank - axis), 1);
  sizes[0] = static_cast<int64_t>(stats->gamma.size());
  Tensor scale(DType::f32, sizes), shift(DType::f32, sizes);
  for (size_t c = 0; c < stats->gamma.size(); ++c) {
    scale.mutableAs<float>()[c] = stats->factor(c);
    shift.mutableAs<float>()[c] = stats->beta[c] - stats->mean[c] * stats->factor(c);
  }
  Builder b = rw.before(bn);
  QC_ASSIGN(Value * scaled, b.create("mul", {bn->operand(0), b.constant({}, std::move(scale))}));
  QC_ASSIGN(Value * shifted, b.create("add", {scaled, b.constant({}, std::move(shift))}));
  rw.replace(bn, {shifted});
  return true;
}

}  // namespace

Status foldBatchNorm(Graph& graph, PassContext& cx) {
  const auto producer = [] { return oneOf({"conv", "conv_transpose", "linear"}).as("conv").oneUse(); };
  Moves moves("fold_batch_norm");
  if (cx.options.integer("keep") != 0) cx.provide(FoldedBatchNorms());
  auto* kept = cx.get<FoldedBatchNorms>();
  const auto fold = [&](const Match& m, Rewriter& rw) { return foldIntoProducer(m, rw, moves, kept); };
  QC_ASSIGN(auto hits, rewritePatterns(graph, {{"into-producer", op("batch_norm", {producer()}), fold}}));
  cx.countHits(hits);
  QC_ASSIGN(hits, rewritePatterns(graph, {{"to-multiply-add", op("batch_norm"), toMultiplyAdd}}));
  cx.countHits(hits);
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->is("batch_norm")) cx.remark(n, "BatchNorm stays: its statistics are not constants");
  moves.addTo(graph);
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
