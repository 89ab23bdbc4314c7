#include "runtime/workflow/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "frontend/data/sample_error.h"
#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "ir/qmath.h"
#include "quantizer/signal_error.h"
#include "runtime/workflow/layer_observer.h"
#include "runtime/workflow/measured_ends.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

Result<Comparison> compared(const Graph& prepared, const Graph& quantized, const Dataset& samples, const CompareOptions& options) {
  const DefinedArithmetic defined;
  struct Sums {
    double signal = 0, noise = 0, own = 0;
    int64_t elements = 0;
  };
  if (prepared.outputs().size() != quantized.outputs().size())
    return fail(ErrorCode::kInvalidArgument, "one graph has {} outputs, the other {}: they are not of one model", prepared.outputs().size(),
                quantized.outputs().size());
  Comparison result;
  std::vector<LayerNoise>& layers = result.layers;
  std::vector<std::string> before, after;
  std::vector<QuantPtr> params;
  // Behind each layer the first value that is rounded: its own result, or that of the ops it ends in.
  for (const Node* n = quantized.front(); n && !options.outputsAlone; n = n->next()) {
    if (!n->is("quantize") || !n->operand(0)->producer() || n->operand(0)->producer()->is("dequantize")) continue;
    const Node* producer = n->operand(0)->producer();
    const std::string& name = n->operand(0)->name();
    const auto users = n->result()->users();
    if (users.empty() || !users.front()->is("dequantize") || !prepared.findValue(name)) continue;
    before.push_back(name);
    after.push_back(users.front()->result()->name());
    params.push_back(n->result()->type().quant);
    layers.push_back({producer->location().empty() ? name : producer->location(), std::string(producer->op()), 0, 0});
  }
  const Graph& model = options.original ? *options.original : prepared;
  const std::vector<const Value*> ends = measuredEnds(model), theirs = measuredEnds(quantized);
  std::vector<std::string> results;
  for (size_t i = 0; i < ends.size(); ++i) {
    results.push_back(ends[i]->name());
    after.push_back(theirs[i]->name());
    params.push_back(nullptr);
    layers.push_back({quantized.outputNames()[i], "output", 0, 0});
  }
  const std::vector<int64_t> indices = spreadSamples(samples.size(), options.samples);
  result.samples = static_cast<int64_t>(indices.size());
  if (indices.empty()) return Comparison();
  const size_t inner = before.size();
  std::vector<Taps> references;  // of what lies inside, and of the outputs, as far as those are two graphs
  if (!options.original) before.insert(before.end(), results.begin(), results.end());
  for (const auto& [graph, names] : {std::pair(&prepared, &before), std::pair(options.original, &results)}) {
    if (!graph || names->empty()) continue;
    QC_ASSIGN(Taps taps, Taps::open(*graph, *names, {.threads = options.threads}));
    references.push_back(std::move(taps));
  }
  const auto referenceOf = [&](size_t k) -> const Tensor& {
    return options.original && k >= inner ? references.back().value(k - inner) : references.front().value(k);
  };
  QC_ASSIGN(Taps int8, Taps::open(quantized, after, {.threads = options.threads}));
  std::vector<Sums> sums(layers.size());
  for (size_t i = 0; i < indices.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, samples.sample(indices[i]));
    if (options.progress) options.progress(static_cast<int64_t>(i) + 1, result.samples);
    for (Taps& taps : references)
      if (Status run = taps.run(sample); !run) return inSample(samples, indices[i], run.error());
    if (Status run = int8.run(sample); !run) return inSample(samples, indices[i], run.error());
    for (size_t k = 0; k < layers.size(); ++k) {
      const Tensor &x = referenceOf(k), &y = int8.value(k);
      if (x.dtype() != DType::f32 || y.dtype() != DType::f32) continue;
      Sums& s = sums[k];
      const auto a = x.as<float>(), b = y.as<float>();
      s.elements += x.numElements();
      for (size_t e = 0; e < a.size(); ++e) {
        if (!std::isfinite(a[e])) continue;  // there is nothing to be near to
        const double power = static_cast<double>(a[e]) * a[e];
        s.signal += power;
        // Where data decides another size, what has no counterpart is lost.
        const double d = a.size() == b.size() ? static_cast<double>(a[e]) - b[e] : a[e];
        s.noise += std::isfinite(d) ? d * d : std::numeric_limits<double>::infinity();
        if (!params[k]) continue;
        const QuantParams& p = *params[k];
        const float scale = p.scale(0);
        const int32_t q = qmath::quantize(a[e], scale, p.zeroPoint(0), static_cast<int32_t>(p.qmin), static_cast<int32_t>(p.qmax));
        const double own = static_cast<double>(a[e]) - static_cast<double>(scale * static_cast<float>(q - p.zeroPoint(0)));
        s.own += own * own;
      }
    }
  }
  for (size_t k = 0; k < layers.size(); ++k) {
    layers[k].total = decibels(sums[k].signal, sums[k].noise);
    layers[k].own = decibels(sums[k].signal, sums[k].own);
  }
  // Integers (indices, labels) have no noise.
  for (size_t k = layers.size(); k-- > 0;)
    if (sums[k].elements == 0) layers.erase(layers.begin() + static_cast<std::ptrdiff_t>(k));
  return result;
}

}  // namespace

Result<Comparison> compareLayers(const Graph& prepared, const Graph& quantized, const Dataset& samples, const CompareOptions& options) {
  return withoutExceptions([&] { return compared(prepared, quantized, samples, options); });
}

bool Comparison::hasOutputs() const {
  return std::any_of(layers.begin(), layers.end(), [](const LayerNoise& layer) { return layer.op == "output"; });
}

double Comparison::outputs() const {
  double sum = 0;
  int count = 0;
  for (const LayerNoise& layer : layers) {
    if (layer.op != "output") continue;
    sum += layer.total;
    ++count;
  }
  return count ? sum / count : 0;
}

}  // namespace qc
