#include "passes/lower/bound_graph.h"

#include <algorithm>

#include "passes/pass_manager.h"

namespace qc {
namespace {

struct Place {
  std::string input;
  size_t dim;
};

}  // namespace

bool hasFreeDims(const Graph& graph) {
  return std::any_of(graph.inputs().begin(), graph.inputs().end(), [](const Value* v) { return !v->type().isStatic(); });
}

Result<ShapeBindings> bindingsOf(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes) {
  ShapeBindings sizes;
  std::map<std::string, Place> from;
  const auto each = [&](auto visit) -> Status {
    for (const Value* input : graph.inputs()) {
      const auto given = shapes.find(input->name());
      if (given == shapes.end()) return fail(ErrorCode::kInvalidArgument, "no shape is given for this input").on(input->name());
      if (std::ssize(given->second) != input->type().rank())
        return fail(ErrorCode::kInvalidArgument, "this input is {}, and [{}] was given", input->type().str(),
                    toString(toShape(given->second)))
            .on(input->name());
      for (size_t d = 0; d < given->second.size(); ++d) QC_TRY(visit(*input, d, given->second[d]));
    }
    return {};
  };
  // Symbols that stand alone first: the others follow from them.
  QC_TRY(each([&](const Value& input, size_t d, int64_t size) -> Status {
    const Dim& dim = input.type().shape[d];
    const auto symbols = dim.isStatic() ? std::set<std::string>() : dim.expr().symbols();
    if (symbols.size() != 1 || Dim::symbol(*symbols.begin()) != dim) return {};
    const auto [known, isNew] = sizes.emplace(*symbols.begin(), size);
    if (isNew) from[*symbols.begin()] = {input.name(), d};
    if (known->second == size) return {};
    const Place& first = from.at(*symbols.begin());
    return fail(ErrorCode::kInvalidArgument, "dim {} is {}, which is {} here and {} in dim {} of '{}'", d, dim.str(), size, known->second,
                first.dim, first.input)
        .on(input.name());
  }));
  QC_TRY(each([&](const Value& input, size_t d, int64_t size) -> Status {
    const Dim& dim = input.type().shape[d];
    const auto wanted = dim.expr().evaluate(sizes);
    if (!wanted)
      return fail(ErrorCode::kInvalidArgument, "dim {} is {}, which the shapes of the inputs do not settle", d, dim.str()).on(input.name());
    if (*wanted == size) return {};
    return fail(ErrorCode::kInvalidArgument, "dim {} is {}{}, and {} was given", d, dim.str(),
                dim.isStatic() ? std::string() : fmt::format(", here {}", *wanted), size)
        .on(input.name());
  }));
  return sizes;
}

Result<Graph> boundGraph(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes) {
  PassContext cx;
  QC_ASSIGN(ShapeBindings sizes, bindingsOf(graph, shapes));
  cx.provide(std::move(sizes));
  Graph copy = graph.clone();
  QC_TRY(runPipeline("bind-shapes", copy, cx));
  return copy;
}

}  // namespace qc
