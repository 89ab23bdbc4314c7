#include "passes/training/folded_batch_norm.h"

#include <algorithm>
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

// Output channels are the second dim of the results.
bool canUnfold(const Node& layer) {
  return layer.is("conv") || layer.is("conv_transpose") || (layer.is("linear") && layer.result()->type().rank() == 2);
}

bool isAsFolded(const Graph& graph, const std::string& value, const FoldedBatchNorm& folded) {
  const Value* y = graph.findValue(value);
  const Node* layer = y ? y->producer() : nullptr;
  if (!layer || !canUnfold(*layer)) return false;
  const Value *w = layer->operand(1), *b = layer->operand(2);
  return w && b && sameBytes(w->constant(), folded.weight) && sameBytes(b->constant(), folded.bias);
}

float rootOf(float var, float epsilon) { return 1.0f / std::sqrt(var + epsilon); }

}  // namespace

WeightChannels weightChannels(const Node& layer) {
  if (!layer.is("conv_transpose")) return {};
  return {1, layer.integer("group")};
}

Tensor scaledChannels(const Tensor& w, const std::vector<float>& factors, const WeightChannels& at) {
  Tensor out(DType::f32, w.sizes());
  const auto from = w.as<float>();
  const auto to = out.mutableAs<float>();
  int64_t inner = 1;
  for (int d = at.axis + 1; d < w.rank(); ++d) inner *= nth(w.sizes(), d);
  const int64_t slices = nth(w.sizes(), at.axis), rowsOfGroup = w.sizes()[0] / at.groups;
  for (int64_t i = 0; i < w.numElements(); ++i) {
    const int64_t group = at.axis > 0 ? i / (inner * slices) / rowsOfGroup : 0;
    nth(to, i) = nth(from, i) * nth(factors, i / inner % slices + group * slices);
  }
  return out;
}

void keepUnchanged(FoldedBatchNorms& folded, const Graph& graph) {
  std::erase_if(folded, [&](const auto& entry) { return !isAsFolded(graph, entry.first, entry.second); });
}

namespace {

Result<Value*> shaped(Builder& b, Value* x, const std::vector<int64_t>& sizes) {
  if (x->type().sizes() == sizes) return x;
  return b.create("reshape", {x}, {{"shape", std::vector<DimExpr>(sizes.begin(), sizes.end())}});
}

// scaledChannels() as nodes, with a dim of its own for groups.
Result<Value*> scaledInGraph(Builder& b, Value* w, Value* factors, const WeightChannels& at) {
  const std::vector<int64_t> whole = w->type().sizes();
  std::vector<int64_t> rows = whole, perChannel(whole.size(), 1);
  perChannel[usize(at.axis)] = nth(whole, at.axis);
  if (at.groups > 1) {
    rows[0] /= at.groups;
    rows.insert(rows.begin(), at.groups);
    perChannel.insert(perChannel.begin(), at.groups);
  }
  QC_ASSIGN(Value * grouped, shaped(b, w, rows));
  QC_ASSIGN(Value * shapedFactors, shaped(b, factors, perChannel));
  QC_ASSIGN(Value * scaled, b.create("map", {grouped, shapedFactors}, {{"expr", E::arg(0) * E::arg(1)}}));
  return shaped(b, scaled, whole);
}

}  // namespace

Result<Unfolding> unfoldBatchNorm(Graph& graph, Node* layer, const FoldedBatchNorm& folded, const std::vector<float>& factor,
                                  Value* byBatch, double momentum) {
  Value *y = layer->result(), *weight = layer->operand(1);
  const Tensor *w = weight->constant(), *b = layer->operand(2)->constant();
  const TensorType type = y->type();
  const auto channels = std::ssize(folded.gamma);
  const int64_t each = type.numElements() / channels;
  // As the running statistics make the folded layer of them, whatever recipes did to its weights and bias.
  const WeightChannels at = weightChannels(*layer);
  std::vector<int64_t> perChannel(usize(type.rank()), 1), axes;
  perChannel[1] = channels;
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
  u.channels = at;
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
  Value* unfolded = build.constant("unfolded." + u.weight, scaledChannels(*w, inverse, at));
  Value *trainedGamma = build.constant("gamma." + name, std::move(gamma)), *trainedBeta = build.constant("beta." + name, std::move(beta));
  u.unfolded = unfolded->name();
  u.gamma = trainedGamma->name();
  u.beta = trainedBeta->name();
  QC_ASSIGN(Value * s, map(x0 / root(x1 + epsilon), {trainedGamma, runningVar}));
  QC_ASSIGN(found.scaled, scaledInGraph(build, unfolded, s, at));

  layer->setOperand(2, nullptr);
  std::vector<Value*> outputs = graph.outputs();
  build.before(layer->next());
  // A channel that gamma has made zero stays zero.
  QC_ASSIGN(Value * plain, map(x0 / expr::select(expr::eq(x1, 0.f), 1.f, x1), {y, s}));
  const AttrDict over{{"axes", axes}, {"keepdims", int64_t{1}}};
  QC_ASSIGN(Value * batchMean, build.create("reduce_mean", {plain}, over));
  QC_ASSIGN(Value * squares, map((x0 - x1) * (x0 - x1), {plain, batchMean}));
  QC_ASSIGN(Value * batchVar, build.create("reduce_mean", {squares}, over));
  const auto rate = static_cast<float>(momentum), unbiased = static_cast<float>(each) / static_cast<float>(std::max<int64_t>(each - 1, 1));
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
  return {{layer.weight, scaledChannels(*found[0], s, layer.channels)}, {layer.bias, std::move(bias)}};
}

}  // namespace qc
