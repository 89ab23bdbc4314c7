#include "tests/fuzz/model_way.h"

#include <chrono>

#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "ir/guarded.h"
#include "ir/interp.h"
#include "ir/verify.h"
#include "passes/pass_manager.h"
#include "quantizer/group_params.h"
#include "quantizer/ranges.h"
#include "quantizer/rules/qconfig.h"

namespace qc::testing {
namespace {

// Small enough that even a matrix product of the two largest values takes no time.
bool isTiny(const Graph& graph) {
  int64_t total = 0, largest = 1;
  const auto add = [&](const Value* v) {
    if (!v->type().isStatic()) return false;
    int64_t n = 1;
    for (const int64_t s : v->type().sizes()) {
      if (s > 4096) return false;
      n *= s;
      if (n > 1 << 16) return false;
    }
    total += n;
    largest = std::max(largest, n);
    return total < 1 << 18;
  };
  for (const Value* v : graph.inputs())
    if (!add(v)) return false;
  for (const Node* n : graph.nodes()) {
    for (int i = 0; i < n->numResults(); ++i)
      if (!add(n->result(i))) return false;
    for (const auto& [name, attr] : n->attrs())  // windows may be larger than what they slide over
      if (const auto* list = std::get_if<std::vector<int64_t>>(&attr))
        for (const int64_t v : *list)
          if (v > 1 << 10 || v < -(1 << 10)) return false;
  }
  return largest * graph.numNodes() < 1 << 20;
}

// Values of both signs, other ones at every call.
std::vector<Tensor> inputsOf(const Graph& graph, int round) {
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) {
    Tensor t(v->type().dtype, v->type().sizes());
    for (int64_t i = 0; i < t.numElements(); ++i)
      storeElement(t.dtype(), t.mutableData(), i, static_cast<double>((i * 7 + round * 5) % 23) * 0.25 - 2);
    inputs.push_back(std::move(t));
  }
  return inputs;
}

// The whole way from float to integers, as the library goes it, with the interpreter as the engine.
Status quantizeAndRun(Graph graph) {
  PassContext cx;
  cx.provide(defaultQConfigMapping(Backend::x86));
  QC_TRY(runPipeline("annotate,prepare", graph, cx));
  QC_ASSIGN(Ranges ranges, Ranges::forGraph(graph));
  InterpOptions watch;
  watch.onNode = [&](const Node& node, std::span<const Tensor> results) -> Status {
    return node.is("observe") ? ranges.observe(node.integer("id"), results[0].ref()) : Status();
  };
  for (const int round : {0, 1}) {
    QC_TRY(interpret(graph, inputsOf(graph, round), watch));
    ranges.countSample();
  }
  QC_ASSIGN(GroupParams params, ranges.params());
  cx.provide(std::move(params));
  QC_TRY(runPipeline("convert", graph, cx));
  static_cast<void>(exportOnnx(graph));
  QC_TRY(runPipeline("lower", graph, cx));
  return interpret(graph, inputsOf(graph, 2)).map([](const auto&) {});
}

Status modelGoesThrough(const std::string& bytes, ModelCount& count, std::string& complaint) {
  QC_ASSIGN(Graph graph, importOnnx(bytes, {}));
  ++count.graphs;
  if (const Status valid = verify(graph); !valid) complaint = "imported: " + valid.error().render();
  static_cast<void>(exportOnnx(graph));
  const bool tiny = isTiny(graph);
  if (tiny) count.evaluated += interpret(graph, inputsOf(graph, 0)).has_value();
  PassContext cx;
  if (!runPipeline("simplify", graph, cx)) return {};
  if (const Status still = verify(graph); !still) complaint = "simplified: " + still.error().render();
  if (tiny && isTiny(graph)) count.quantized += quantizeAndRun(graph.clone()).has_value();
  return {};
}

}  // namespace

std::string complaintAboutModel(const std::string& bytes, ModelCount& count) {
  const auto start = std::chrono::steady_clock::now();
  std::string complaint;
  const Status done = withoutExceptions([&] { return modelGoesThrough(bytes, count, complaint); });
  if (!done) {
    ++count.errors;
    if (done.error().message().empty()) complaint = "an error says nothing";
  }
  if (std::chrono::steady_clock::now() - start > std::chrono::seconds(20)) complaint = "it took more than 20 seconds";
  return complaint;
}

}  // namespace qc::testing
