// Answers questions about the quantizer, one JSON object per line on stdin and stdout, for comparison with other implementations
// (compare_torch.py).  Floats travel as the bits of float32.  A question that cannot be answered gets {"error": text}.
#include <bit>
#include <iostream>
#include <nlohmann/json.hpp>

#include "ir/interp.h"
#include "ir/qmath.h"
#include "ir/text.h"
#include "passes/pass_manager.h"
#include "quantizer/embedding.h"
#include "quantizer/group_params.h"
#include "quantizer/observers/fake_quantize.h"
#include "quantizer/observers/observer.h"
#include "quantizer/pattern_quantizer.h"
#include "quantizer/ranges.h"
#include "quantizer/rules/spec_json.h"

namespace qc {
namespace {

using nlohmann::json;
using Ints = std::vector<int64_t>;

std::vector<float> floats(const json& bits) {
  std::vector<float> v;
  for (const json& j : bits) v.push_back(std::bit_cast<float>(j.get<uint32_t>()));
  return v;
}
json bitsOf(std::span<const float> values) {
  json list = json::array();
  for (const float v : values) list.push_back(std::bit_cast<uint32_t>(v));
  return list;
}
Tensor tensor(const json& j) { return Tensor::ofFloats(j["shape"].get<Ints>(), floats(j["bits"])); }

json paramsJson(const QuantParams& q) { return {{"scale", bitsOf(q.scales)}, {"zero_point", q.zeroPoints}}; }

QuantParams paramsOf(const json& j) {
  return {DType::s32, j["qmin"], j["qmax"], j.value("axis", -1), 0, floats(j["scale"]), j["zero_point"].get<std::vector<int32_t>>()};
}

Result<json> observe(const json& j) {
  QC_ASSIGN(const ObservedSpec spec, readSpec(j["spec"], ObservedSpec{}, "spec"));
  QC_ASSIGN(const std::unique_ptr<Observer> observer, makeObserver(spec));
  for (const json& batch : j["batches"]) QC_TRY(observer->observe(tensor(batch).ref()));
  if (spec.scheme == QScheme::floatQparams) {
    QC_ASSIGN(const std::vector<FloatQParams> params, observer->floatQParams());
    std::vector<float> scales, zeros;
    for (const FloatQParams& q : params) {
      scales.push_back(q.scale);
      zeros.push_back(q.zeroPoint);
    }
    return json{{"scale", bitsOf(scales)}, {"zero_point", bitsOf(zeros)}};
  }
  QC_ASSIGN(const QuantParams q, observer->qparams());
  return paramsJson(q);
}

Result<json> qparams(const json& j) {
  const auto ends = floats(j["range"]);
  if (j.contains("variant")) {
    QC_ASSIGN(const ScaleZero q,
              chooseQParams(ends[0], ends[1], j["qmin"], j["qmax"], j["variant"] == "aten" ? ChooseVariant::aten : ChooseVariant::fbgemm));
    return json{{"scale", bitsOf(std::vector{q.scale})}, {"zero_point", {q.zeroPoint}}};
  }
  QC_ASSIGN(const ObservedSpec spec, readSpec(j["spec"], ObservedSpec{}, "spec"));
  QC_ASSIGN(const ScaleZero q, calculateQParams(ends[0], ends[1], requestFor(spec)));
  return json{{"scale", bitsOf(std::vector{q.scale})}, {"zero_point", {q.zeroPoint}}};
}

Result<json> fake(const json& j) {
  const FakeQuantized f = fakeQuantize(floats(j["x"]["bits"]), j["x"]["shape"].get<Ints>(), paramsOf(j));
  return json{{"y", bitsOf(f.y)}, {"passes", f.passes}};
}

// One step after another of an observer that fake-quantizes.
Result<json> fused(const json& j) {
  MovingAverageFakeQuantize f({.qmin = j["qmin"],
                               .qmax = j["qmax"],
                               .symmetric = j["symmetric"],
                               .perChannel = j["per_channel"],
                               .averagingConstant = j["averaging_constant"],
                               .eps = kEpsRunTime});
  json steps = json::array();
  for (const json& x : j["batches"]) {
    QC_ASSIGN(const FakeQuantized q, f.step(floats(x["bits"]), x["shape"].get<Ints>()));
    steps.push_back({{"y", bitsOf(q.y)}, {"passes", q.passes}, {"params", paramsJson(f.params())}});
  }
  return json{{"steps", steps}};
}

// Groups of a matrix along its rows, or one per row by the rule for tokens.
Result<json> groups(const json& j) {
  const Tensor x = tensor(j["x"]);
  if (j["mapping"] == "token" || j["mapping"] == "token_symmetric") {
    std::vector<float> scales;
    std::vector<int32_t> zeroPoints;
    const auto width = usize(x.sizes()[1]);
    for (size_t i = 0; i < usize(x.numElements()); i += width) {
      QC_ASSIGN(const TokenQParams q, tokenQParams(x.as<float>().subspan(i, width), j["mapping"] == "token_symmetric"));
      scales.push_back(static_cast<float>(q.scale));
      zeroPoints.push_back(q.zeroPoint);
    }
    return json{{"scale", bitsOf(scales)}, {"zero_point", zeroPoints}};
  }
  const BlockMapping mapping = j["mapping"] == "asymmetric"  ? BlockMapping::asymmetric
                               : j["mapping"] == "symmetric" ? BlockMapping::symmetric
                                                             : BlockMapping::symmetricNoClipping;
  QC_ASSIGN(QuantParams q, groupwiseQParams(x.as<float>(), x.sizes(), DType::s8, j["qmin"], j["qmax"], 1, j["group"], mapping));
  q.zeroPoints.resize(q.scales.size(), q.zeroPoints.empty() ? 0 : q.zeroPoints[0]);
  return paramsJson(q);
}

Result<json> learn(const json& j) {
  const LearnableParams p{j["qmin"], j["qmax"], j.value("axis", -1), floats(j["scale"]), floats(j["zero_point"]), j["grad_factor"]};
  const auto x = floats(j["x"]["bits"]);
  const Ints sizes = j["x"]["shape"];
  const LearnableGradients g = learnableBackward(x, floats(j["dy"]), sizes, p);
  return json{{"y", bitsOf(learnableForward(x, sizes, p))},
              {"dx", bitsOf(g.dx)},
              {"dscale", bitsOf(g.dscale)},
              {"dzero_point", bitsOf(g.dzeroPoint)}};
}

Result<json> quantizeValues(const json& j) {
  const QuantParams q = paramsOf(j);
  json out = json::array();
  for (const float x : floats(j["x"]["bits"]))
    out.push_back(qmath::quantize(x, q.scale(), q.zeroPoint(), static_cast<int32_t>(q.qmin), static_cast<int32_t>(q.qmax)));
  return json{{"q", out}};
}

Result<json> packEmbedding(const json& j) {
  const Tensor t = tensor(j["weight"]);
  QC_ASSIGN(const PackedRows rows, packRows(t.as<float>(), t.sizes()[0], t.sizes()[1], j["bits"]));
  return json{{"bytes", rows.bytes}};
}

// A float graph in text form, quantized, calibrated, converted and run.
Result<json> model(const json& j) {
  QC_ASSIGN(Graph graph, parseGraph(j["qir"].get<std::string>()));
  PassContext cx;
  QC_TRY(runPipeline("fold-batch-norm", graph, cx));
  std::unique_ptr<PatternQuantizer> quantizer;
  QConfig config = defaultQConfig(Backend::xnnpack);
  if (j["quantizer"] == "x86") {
    quantizer = std::make_unique<X86Quantizer>();
    config = defaultQConfig(Backend::x86);
    config.activation.eps = config.weight.eps = kEpsXnnpack;
  } else {
    quantizer = std::make_unique<XnnpackQuantizer>();
  }
  config.activation.observerArgs.set("search", std::string("reference"));
  QC_TRY(quantizer->setGlobal(config).annotate(graph));
  QC_TRY(quantizer->validate(graph));
  QC_TRY(runPipeline("prepare", graph, cx));
  QC_ASSIGN(Ranges ranges, Ranges::forGraph(graph));
  const auto watch = [&](const Node& node, std::span<const Tensor> results) -> Status {
    return node.is("observe") ? ranges.observe(node.integer("id"), results[0].ref()) : Status();
  };
  for (const json& batch : j["calibration"]) QC_TRY(interpret(graph, std::vector{tensor(batch)}, {.onNode = watch}));
  QC_ASSIGN(GroupParams params, ranges.params());
  float coarsest = 0;
  for (const auto& [id, q] : params) coarsest = std::max(coarsest, q->scale());
  cx.provide(std::move(params));
  QC_TRY(runPipeline("convert", graph, cx));
  QC_ASSIGN(const std::vector<Tensor> y, interpret(graph, std::vector{tensor(j["input"])}));
  return json{{"y", bitsOf(y[0].as<float>())}, {"step", coarsest}};
}

constexpr std::pair<const char*, Result<json> (*)(const json&)> kQuestions[] = {
    {"observe", observe}, {"qparams", qparams},         {"fake_quantize", fake}, {"fused", fused}, {"groups", groups},
    {"learn", learn},     {"quantize", quantizeValues}, {"pack", packEmbedding}, {"model", model}};

json answer(const std::string& line) {
  try {
    const json j = json::parse(line);
    for (const auto& [name, run] : kQuestions) {
      if (j["ask"] != name) continue;
      const Result<json> result = run(j);
      return result ? *result : json{{"error", result.error().render()}};
    }
    return {{"error", "no such question"}};
  } catch (const json::exception& e) {
    return {{"error", e.what()}};
  }
}

}  // namespace
}  // namespace qc

int main() {
  for (std::string line; std::getline(std::cin, line);) std::cout << qc::answer(line).dump() << std::endl;
}
