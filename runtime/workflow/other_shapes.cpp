#include "runtime/workflow/other_shapes.h"

#include "ir/guarded.h"
#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"

namespace qc {

Result<std::map<std::string, Tensor>> anySample(const Graph& graph, const Model::Reshaper& reshaper, const Dataset& samples,
                                                int64_t index) {
  return reshaper || hasFreeDims(graph) ? samples.sampleOfAnySize(index) : samples.sample(index);
}

bool takes(const Graph& graph, const std::map<std::string, Tensor>& sample) {
  return hasFreeDims(graph) || shapesOf(sample) == inputShapes(graph);
}

Result<Graph> simplifiedAt(const Model::Reshaper& reshaper, const Shapes& shapes) {
  std::string list;
  for (const auto& [name, sizes] : shapes) list += fmt::format("{}{}=[{}]", list.empty() ? "" : ", ", name, toString(toShape(sizes)));
  if (!reshaper)
    return fail(ErrorCode::kInvalidData, "a sample has {}, and this model has one shape", list)
        .help("give samples of the model's shape, or an ONNX model whose dims are free");
  const auto other = guarded("the reshaper of the model", [&] { return reshaper(shapes); });
  if (!other)
    return fail(ErrorCode::kInvalidData, "a sample has {}, which the model does not take: {}", list, other.error().message())
        .at(other.error().node())
        .on(other.error().tensor())
        .help("prepare the data for the model's shape");
  Graph graph = other->graph().clone();
  PassContext cx;
  QC_TRY(runPipeline("simplify", graph, cx));
  return graph;
}

Value* sameValue(const Graph& other, const Value& value) {
  const Node* producer = value.producer();
  if (producer && producer->is("observe")) return sameValue(other, *producer->operand(0));
  Value* found = other.findValue(value.name());
  if (!found || found->type().dtype != value.type().dtype) return nullptr;
  const Node* theirs = found->producer();
  const bool same = producer && theirs ? producer->op() == theirs->op() && producer->location() == theirs->location() : producer == theirs;
  return same ? found : nullptr;
}

}  // namespace qc
