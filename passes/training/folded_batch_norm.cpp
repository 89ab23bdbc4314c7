#include "passes/training/folded_batch_norm.h"

#include <cmath>
#include <cstring>

#include "ir/scalar_expr.h"
#include "passes/graph_util.h"

namespace qc {
namespace {

using E = ScalarExpr;

bool sameBytes(const Tensor* a, const Tensor& b) {
  return a && a->type() == b.type() && std::memcmp(a->data(), b.data(), usize(b.byteSize())) == 0;
}

// Output channels are the first dim of these weights, and the second of the results.
bool canUnfold(const Node& layer) { return layer.is("conv") || (layer.is("linear") && layer.result()->type().rank() == 2); }

bool isAsFolded(const Graph& graph, const std::string& value, const FoldedBatchNorm& folded) {
  const Value* y = graph.findValue(value);
  const Node* layer = y ? y->producer() : nullptr;
  if (!layer || !canUnfold(*layer)) return false;
  const Value *w = layer->operand(1), *b = layer->operand(2);
  return w && b && sameBytes(w->constant(), folded.weight) && sameBytes(b->constant(), folded.bias);
}

float rootOf(float var, float epsilon) { return 1.0f / std::sqrt(var + epsilon); }

// Rows of w, one for each channel, times factors.
Tensor scaledRows(const Tensor& w, const std::vector<float>& factors) {
  Tensor out(DType::f32, w.sizes());
  const int64_t inner = w.numElements() / std::max<int64_t>(std::ssize(factors), 1);
  const std::span<const float> from = w.as<float>();
  const std::span<float> to = out.mutableAs<float>();
  for (int64_t i = 0; i < w.numElements(); ++i) nth(to, i) = nth(from, i) * nth(factors, i / inner);
  return out;
}

}  // namespace

void keepUnchanged(FoldedBatchNorms& folded, const Graph& graph) {
  std::erase_if(folded, [&](const auto& entry) { return !isAsFolded(graph, entry.first, entry.second); });
}

Result<Unfolding> unfoldBatchNorm(Graph& graph, Node* layer, const FoldedBatchNorm& folded, const std::vector<float>& factor,
                                  Value* byBatch, double momentum) {
  Value *y = layer->result(), *weight = layer->operand(1);
  const Tensor *w = weight->constant(), *b = layer->operand(2)->constant();
  const TensorType type = y->type();
  const auto channels = std::ssize(folded.gamma);
  const int64_t each = type.numElements() / channels;
  if (each < 2)
    return fail(ErrorCode::kInvalidArgument, "a batch gives one value a channel, which has no variance")
        .at(layer->location())
        .on(y->name())
        .help("train with a larger batch");
  // As the running statistics make the folded layer of them, whatever recipes did to its weights and bias.
  std::vector<int64_t> perChannel(usize(type.rank()), 1), perRow(usize(w->rank()), 1), axes;
  perChannel[1] = perRow[0] = channels;
  for (int d = 0; d < type.rank(); ++d)
    if (d != 1) axes.push_back(d);
  Tensor gamma(DType::f32, perChannel), beta(DType::f32, perChannel), mean(DType::f32, perChannel), var(DType::f32, perChannel);
  std::vector<float> inverse(folded.gamma.size());
  for (size_t c = 0; c < folded.gamma.size(); ++c) {
    gamma.mutableAs<float>()[c] = folded.gamma[c] * (factor.empty() ? 1.0f : factor[c]);
    mean.mutableAs<float>()[c] = folded.mean[c];
    var.mutableAs<float>()[c] = folded.var[c];
    const float s = gamma.as<float>()[c] * rootOf(folded.var[c], folded.epsilon);
    inverse[c] = s == 0 ? 0.0f : 1.0f / s;
    beta.mutableAs<float>()[c] = b->as<float>()[c] + folded.mean[c] * s;
  }
  Unfolding found;
  UnfoldedBatchNorm& u = found.names;
  found.layer = layer;
  u.value = y->name();
  u.weight = weight->name();
  u.bias = layer->operand(2)->name();
  u.epsilon = folded.epsilon;
  const std::string name = y->name();
  graph.rename(y, name + ".layer");
  Value *runningMean = graph.addInput("mean." + name, mean.type()), *runningVar = graph.addInput("var." + name, var.type());
  u.mean = runningMean->name();
  u.var = runningVar->name();
  found.mean = std::move(mean);
  found.var = std::move(var);

  Builder build(graph);
  const auto map = [&](const E& expression, std::vector<Value*> operands, std::string_view named = {}) {
    return build.create("map", std::move(operands), {{"expr", expression}}, named);
  };
  const E x0 = E::arg(0), x1 = E::arg(1), x2 = E::arg(2), epsilon = folded.epsilon;
  const auto root = [](const E& x) { return expr::unary(E::Op::sqrt, x); };
  build.before(layer).at(layer->location());
  Value* unfolded = build.constant("unfolded." + u.weight, scaledRows(*w, inverse));
  Value *trainedGamma = build.constant("gamma." + name, std::move(gamma)), *trainedBeta = build.constant("beta." + name, std::move(beta));
  u.unfolded = unfolded->name();
  u.gamma = trainedGamma->name();
  u.beta = trainedBeta->name();
  QC_ASSIGN(Value * s, map(x0 / root(x1 + epsilon), {trainedGamma, runningVar}));
  std::vector<DimExpr> rows;
  for (const int64_t size : perRow) rows.emplace_back(size);
  QC_ASSIGN(Value * rowFactors, build.create("reshape", {s}, {{"shape", rows}}));
  QC_ASSIGN(found.scaled, map(x0 * x1, {unfolded, rowFactors}));

  layer->setOperand(2, nullptr);
  std::vector<Value*> outputs = graph.outputs();
  build.before(layer->next());
  // A channel that gamma has made zero stays zero.
  QC_ASSIGN(Value * plain, map(x0 / expr::select(expr::eq(x1, 0.f), 1.f, x1), {y, s}));
  const AttrDict over{{"axes", axes}, {"keepdims", int64_t{1}}};
  QC_ASSIGN(Value * batchMean, build.create("reduce_mean", {plain}, over));
  QC_ASSIGN(Value * squares, map((x0 - x1) * (x0 - x1), {plain, batchMean}));
  QC_ASSIGN(Value * batchVar, build.create("reduce_mean", {squares}, over));
  const auto rate = static_cast<float>(momentum), unbiased = static_cast<float>(each) / static_cast<float>(each - 1);
  QC_ASSIGN(found.nextMean, map(expr::select(x2, x0 + rate * (x1 - x0), x0), {runningMean, batchMean, byBatch}));
  QC_ASSIGN(found.nextVar, map(expr::select(x2, x0 + rate * (x1 * unbiased - x0), x0), {runningVar, batchVar, byBatch}));
  QC_ASSIGN(Value * usedMean, map(expr::select(x2, x1, x0), {runningMean, batchMean, byBatch}));
  QC_ASSIGN(Value * usedVar, map(expr::select(x2, x1, x0), {runningVar, batchVar, byBatch}));
  QC_ASSIGN(Value * result,
            map((x0 - x1) / root(x2 + epsilon) * E::arg(3) + E::arg(4), {plain, usedMean, usedVar, trainedGamma, trainedBeta}, name));
  for (const Use* use : y->uses())
    if (use->user() != plain->producer()) use->user()->setOperand(use->index(), result);
  for (Value*& v : outputs)
    if (v == y) v = result;
  graph.setOutputs(std::move(outputs));
  return found;
}

std::map<std::string, Tensor> foldedAgain(const UnfoldedBatchNorm& layer, const std::map<std::string, Tensor>& values) {
  std::vector<const Tensor*> found;
  for (const std::string* name : {&layer.unfolded, &layer.gamma, &layer.beta, &layer.mean, &layer.var}) {
    const auto it = values.find(*name);
    if (it == values.end()) return {};
    found.push_back(&it->second);
  }
  const auto gamma = found[1]->as<float>(), beta = found[2]->as<float>(), mean = found[3]->as<float>(), var = found[4]->as<float>();
  std::vector<float> s(gamma.size());
  Tensor bias(DType::f32, {std::ssize(gamma)});
  for (size_t c = 0; c < s.size(); ++c) {
    s[c] = gamma[c] * rootOf(var[c], layer.epsilon);
    bias.mutableAs<float>()[c] = beta[c] - mean[c] * s[c];
  }
  return {{layer.weight, scaledRows(*found[0], s)}, {layer.bias, std::move(bias)}};
}

}  // namespace qc
