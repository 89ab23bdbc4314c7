#include "runtime/any_shape.h"

#include <algorithm>
#include <filesystem>

#include "passes/lower/bound_graph.h"

namespace qc {

const Model* ModelOfAnyShape::free() {
  std::call_once(read_, [&] {
    LoadOptions options = options_;
    options.freeDims = true;
    if (auto model = load(path_, options)) free_ = std::move(*model);
  });
  return free_ ? &*free_ : nullptr;
}

Result<Model> ModelOfAnyShape::at(const Shapes& shapes) {
  LoadOptions options = options_;
  for (const auto& [input, sizes] : shapes)
    if (!options.values.contains(input)) options.shapes[input] = sizes;
  const Graph* graph = free() ? &free()->graph() : nullptr;
  const bool all = graph && std::all_of(graph->inputs().begin(), graph->inputs().end(),
                                        [&](const Value* v) { return v->type().isStatic() || shapes.contains(v->name()); });
  if (isFile() && (!all || brokenAt(*graph, shapes))) return load(path_, options);
  Shapes whole;
  for (const Value* input : graph->inputs()) {
    const auto given = shapes.find(input->name());
    if (given != shapes.end()) whole[input->name()] = given->second;
    if (given == shapes.end() && input->type().isStatic()) whole[input->name()] = input->type().sizes();
  }
  QC_ASSIGN(Graph bound, boundGraph(*graph, whole));
  return Model(std::move(bound), free_->name());
}

}  // namespace qc
