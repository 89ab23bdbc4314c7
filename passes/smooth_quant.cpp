// smooth-quant: a few channels behind a layer_norm are much larger than the rest and take the range of all.  The norm's scale and bias
// are divided by a factor per channel, the weights of the linear layers behind it are multiplied by it, and other readers (the residual
// add) multiply the factor back: the same function, with inputs that fit 8 bits better.
// The factor is max|x|^a / max|w|^(1-a), with the `a` for which rounding inputs and weights is expected to disturb the results least;
// without a clear gain the layers stay as they are.  Behind an activation that does not commute with the factor (gelu) the division is a
// multiply of its own, which the layer that computes the activation takes in before it rounds; it has to gain more.  Statistics come from cx.provide(ChannelsByValue); the option `spread` stands in:
// channel c of n ranges over +-spread^(c / (n - 1)).  Tests: tests/golden/smooth_quant.
#include "passes/smooth_quant.h"

#include <algorithm>
#include <cmath>

#include "passes/graph_util.h"
#include "passes/passes.h"

namespace qc {
namespace {

constexpr double kWorthwhile = 0.8;  // of the noise without
constexpr double kWorthMultiply = 0.4;

struct Readers {
  std::vector<Node*> linears, others;
};

Readers readersOf(const Value* value) {
  Readers readers;
  for (Node* user : value->users()) {
    const Tensor* w = user->is("linear") ? floatConstant(user->operand(1)) : nullptr;
    const bool simple = w && w->rank() == 2 && user->operand(0) == value && user->operand(3) != value && user->operand(1) != value;
    (simple ? readers.linears : readers.others).push_back(user);
  }
  return readers;
}

// The variance that rounding adds to the results of the linear layers when channel j is divided by s[j]; step^2 / 12 each.
double expectedNoise(const std::vector<Node*>& linears, const ChannelStatistics& x, const std::vector<double>& s) {
  double low = 0, high = 0, energy = 0, noise = 0;
  for (size_t j = 0; j < s.size(); ++j) {
    low = std::min(low, x.min[j] / s[j]);
    high = std::max(high, x.max[j] / s[j]);
    energy += x.square[j] / (s[j] * s[j]);
  }
  const double step = (high - low) / 255;
  for (const Node* linear : linears) {
    const auto w = floatConstant(linear->operand(1))->as<float>();
    for (size_t o = 0; o * s.size() < w.size(); ++o) {
      double largest = 0, sum = 0;
      for (size_t j = 0; j < s.size(); ++j) {
        const double v = std::fabs(w[o * s.size() + j]) * s[j];
        largest = std::max(largest, v);
        sum += v * v;
      }
      noise += step * step * sum + largest * largest * 4 / (255.0 * 255.0) * energy;
    }
  }
  return noise;
}

std::vector<double> factors(const std::vector<Node*>& linears, const ChannelStatistics& x, double a) {
  std::vector<double> s(x.max.size());
  double logs = 0;
  for (size_t j = 0; j < s.size(); ++j) {
    double weight = 0;
    for (const Node* linear : linears) {
      const auto w = floatConstant(linear->operand(1))->as<float>();
      for (size_t at = j; at < w.size(); at += s.size()) weight = std::max(weight, static_cast<double>(std::fabs(w[at])));
    }
    const double largest = std::max(std::fabs(x.min[j]), std::fabs(x.max[j]));
    s[j] = largest > 0 && weight > 0 ? std::pow(largest, a) / std::pow(weight, 1 - a) : 1.0;
    logs += std::log(s[j]);
  }
  const double mean = std::exp(logs / static_cast<double>(std::max<size_t>(1, s.size())));
  for (double& v : s) v = static_cast<double>(static_cast<float>(std::clamp(v / mean, 1e-3, 1e3)));
  return s;
}

// Nothing when no factors promise a clear gain.
std::vector<double> bestFactors(const std::vector<Node*>& linears, const ChannelStatistics& x, double worthwhile) {
  std::vector<double> best;
  double least = worthwhile * expectedNoise(linears, x, std::vector<double>(x.max.size(), 1.0));
  for (int tenths = 1; tenths <= 9; ++tenths) {
    std::vector<double> s = factors(linears, x, tenths / 10.0);
    if (const double noise = expectedNoise(linears, x, s); noise < least) {
      least = noise;
      best = std::move(s);
    }
  }
  return best;
}

ChannelStatistics standIn(int64_t channels, double spread) {
  ChannelStatistics x;
  for (int64_t c = 0; c < channels; ++c) {
    const auto v = static_cast<float>(std::pow(spread, static_cast<double>(c) / static_cast<double>(std::max<int64_t>(1, channels - 1))));
    x.min.push_back(-v);
    x.max.push_back(v);
    x.square.push_back(v * v / 3.0);
  }
  return x;
}

// columns[j] of a [.., n] constant times factor (or one over it).
Tensor scaled(const Tensor& t, const std::vector<double>& s, bool inverse) {
  Tensor out(DType::f32, t.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i) {
    const auto factor = static_cast<float>(s[static_cast<size_t>(i) % s.size()]);
    const float v = t.as<float>()[static_cast<size_t>(i)];
    out.mutableAs<float>()[static_cast<size_t>(i)] = inverse ? v / factor : v * factor;
  }
  return out;
}

void scaleWeights(Graph& graph, Node* linear, const std::vector<double>& s) {
  Builder b(graph);
  b.before(linear);
  linear->setOperand(1, b.constant(linear->operand(1)->name() + "_smoothed", scaled(*floatConstant(linear->operand(1)), s, false)));
}

// Divides behind the activation, for the linear layers alone.
Status divide(Graph& graph, Node* activation, const Readers& readers, const std::vector<double>& s) {
  Tensor ones(DType::f32, {static_cast<int64_t>(s.size())});
  std::fill(ones.mutableAs<float>().begin(), ones.mutableAs<float>().end(), 1.0f);
  const std::string& name = activation->result()->name();
  Builder b(graph);
  b.before(activation->next());
  b.at(activation->location());
  QC_ASSIGN(Value * divided, b.create("mul", {activation->result(), b.constant(name + "_factor", scaled(ones, s, true))}, {}, name + "_smoothed"));
  for (Node* linear : readers.linears) {
    linear->setOperand(0, divided);
    scaleWeights(graph, linear, s);
  }
  return {};
}

Status fold(Graph& graph, Node* norm, const Readers& readers, const std::vector<double>& s) {
  const auto channels = static_cast<int64_t>(s.size());
  Builder b(graph);
  b.before(norm);
  const Tensor* scale = floatConstant(norm->operand(1));
  Tensor ones(DType::f32, {channels});
  std::fill(ones.mutableAs<float>().begin(), ones.mutableAs<float>().end(), 1.0f);
  while (norm->numOperands() < 2) norm->addOperand(nullptr);
  norm->setOperand(1, b.constant(norm->result()->name() + "_smoothed_scale", scaled(scale ? *scale : ones, s, true)));
  if (norm->operand(2)) norm->setOperand(2, b.constant(norm->result()->name() + "_smoothed_bias", scaled(*floatConstant(norm->operand(2)), s, true)));
  for (Node* linear : readers.linears) scaleWeights(graph, linear, s);
  if (readers.others.empty() && !norm->result()->isOutput()) return {};
  Builder after(graph);
  after.before(norm->next());
  after.at(norm->location());
  Value* factor = after.constant(norm->result()->name() + "_factor", scaled(ones, s, false));
  QC_ASSIGN(Value * restored, after.create("mul", {norm->result(), factor}, {}, norm->result()->name() + "_restored"));
  for (Node* other : readers.others)
    for (int i = 0; i < other->numOperands(); ++i)
      if (other->operand(i) == norm->result()) other->setOperand(i, restored);
  std::vector<Value*> outputs = graph.outputs();
  const std::vector<std::string> names = graph.outputNames();
  std::replace(outputs.begin(), outputs.end(), norm->result(), restored);
  graph.setOutputs(std::move(outputs));
  graph.setOutputNames(names);
  return {};
}

// A layer_norm over the last dim with constants.
bool isFoldable(const Node& n) {
  return n.is("layer_norm") && n.integer("axis") == n.result()->type().rank() - 1 && (!n.operand(1) || floatConstant(n.operand(1))) &&
         (!n.operand(2) || floatConstant(n.operand(2)));
}

// The activation of a linear layer, read by linear layers alone.
bool isDivisible(const Node& n, const Readers& readers) {
  const Node* producer = n.numOperands() == 1 && n.operand(0) ? n.operand(0)->producer() : nullptr;
  return n.is("gelu") && producer && producer->is("linear") && n.operand(0)->hasOneUse() && readers.others.empty() && !n.result()->isOutput();
}

}  // namespace

bool isSmoothable(const Node& node) {
  const Readers readers = node.numResults() == 1 ? readersOf(node.result()) : Readers();
  return !readers.linears.empty() && node.result()->type().shape.back().isStatic() && (isFoldable(node) || isDivisible(node, readers));
}

Status smoothQuant(Graph& graph, PassContext& cx) {
  const double spread = cx.options.real("spread");
  const auto* known = cx.get<ChannelsByValue>();
  int layers = 0;
  for (Node* node : graph.nodes()) {
    if (!isSmoothable(*node)) continue;
    const Readers readers = readersOf(node->result());
    const int64_t channels = node->result()->type().shape.back().size();
    ChannelStatistics x;
    if (spread > 0) {
      x = standIn(channels, spread);
    } else if (known) {
      if (const auto it = known->find(node->result()->name()); it != known->end()) x = it->second;
    }
    if (static_cast<int64_t>(x.max.size()) != channels) continue;
    const std::vector<double> s = bestFactors(readers.linears, x, isFoldable(*node) ? kWorthwhile : kWorthMultiply);
    if (s.empty()) continue;
    QC_TRY(isFoldable(*node) ? fold(graph, node, readers, s) : divide(graph, node, readers, s));
    ++layers;
  }
  cx.countHits({{"layers", layers}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
