#include <algorithm>
#include <cmath>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "ir/interp.h"
#include "passes/lower/bound_graph.h"
#include "quantizer/quantizer.h"
#include "runtime/insight/debug.h"

namespace qc {
namespace {

class NonFiniteSearch {
 public:
  // Both kinds were found.
  bool done() const { return nan_ && infinite_; }
  void look(const Tensor& t, std::string_view value, const Node* node) {
    if (t.dtype() != DType::f32) return;
    const auto x = t.as<float>();
    for (size_t i = 0; i < x.size() && !done(); ++i) {
      if (std::isfinite(x[i])) continue;
      const bool nan = std::isnan(x[i]);
      bool& known = nan ? nan_ : infinite_;
      if (known) continue;
      known = true;
      found.push_back({.nan = nan,
                       .value = std::string(value),
                       .node = node ? displayName(*node) : std::string(),
                       .op = node ? std::string(node->op()) : std::string(),
                       .element = static_cast<int64_t>(i),
                       .input = !node});
    }
  }

  std::vector<NonFinite> found;

 private:
  bool nan_ = false, infinite_ = false;
};

}  // namespace

Result<std::vector<NonFinite>> firstNonFinite(const Graph& graph, const Sample& sample) {
  return withoutExceptions([&]() -> Result<std::vector<NonFinite>> {
    const DefinedArithmetic defined;
    std::map<std::string, std::vector<int64_t>> shapes;
    for (const auto& [name, tensor] : sample) shapes[name] = tensor.sizes();
    Graph bound = graph.clone();
    if (hasFreeDims(graph)) {
      QC_ASSIGN(bound, boundGraph(graph, shapes));
    }
    NonFiniteSearch search;
    std::vector<Tensor> inputs;
    for (const Value* v : bound.inputs()) {
      const auto it = sample.find(v->name());
      if (it == sample.end()) return fail(ErrorCode::kInvalidData, "a sample has no array for this input").on(v->name());
      search.look(it->second, v->name(), nullptr);
      inputs.push_back(it->second);
    }
    // Values in front of a finding cannot tell more; the rest of the model need not run.
    const Failure stop = fail(ErrorCode::kInternal, "found");
    const auto onNode = [&](const Node& node, std::span<const Tensor> results) -> Status {
      if (!node.is("const"))
        for (size_t i = 0; i < results.size(); ++i) search.look(results[i], node.result(static_cast<int>(i))->name(), &node);
      if (search.done()) return Failure(stop);
      return {};
    };
    const auto run = interpret(bound, inputs, {.onNode = onNode});
    if (!run && !search.done()) return tl::make_unexpected(run.error());
    return std::move(search.found);
  });
}

}  // namespace qc
