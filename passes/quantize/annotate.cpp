// annotate: the quantizer's decisions, written on the nodes.  The rules come from cx.provide(QConfigMapping), else from the
// options `backend` and `guard_masked_scores`; the report goes to cx.provide(CoverageReport).  backend="recipe:x86" (xnnpack, embedding,
// several joined by +) runs a ready quantizer instead.  Tests: tests/golden/annotate.
#include <fmt/ranges.h>

#include "passes/passes.h"
#include "quantizer/pattern_quantizer.h"
#include "quantizer/quantizer.h"

namespace qc {
namespace {

template <class Q>
std::shared_ptr<Quantizer> withDefaults(Backend backend) {
  auto q = std::make_shared<Q>();
  q->setGlobal(defaultQConfig(backend));
  return q;
}

// The ready quantizers with their default configuration.
struct ReadyQuantizer {
  std::string_view name;
  std::shared_ptr<Quantizer> (*make)();
};
const ReadyQuantizer kReadyQuantizers[] = {
    {"x86", [] { return withDefaults<X86Quantizer>(Backend::x86); }},
    {"xnnpack", [] { return withDefaults<XnnpackQuantizer>(Backend::xnnpack); }},
    {"embedding", []() -> std::shared_ptr<Quantizer> { return std::make_shared<EmbeddingQuantizer>(); }},
};

Result<std::shared_ptr<Quantizer>> readyQuantizer(std::string_view name) {
  std::vector<std::string_view> names;
  for (const ReadyQuantizer& row : kReadyQuantizers) {
    if (row.name == name) return row.make();
    names.push_back(row.name);
  }
  return fail(ErrorCode::kInvalidArgument, "there is no quantizer '{}'", name)
      .help(fmt::format("{}, one or several joined by '+'", fmt::join(names, ", ")));
}

// "embedding+xnnpack": several in order.
Status annotateWith(Graph& graph, std::string_view names) {
  std::vector<std::shared_ptr<Quantizer>> parts;
  for (size_t start = 0; start <= names.size();) {
    const size_t end = std::min(names.find('+', start), names.size());
    const std::string_view name = names.substr(start, end - start);
    QC_ASSIGN(parts.emplace_back(), readyQuantizer(name));
    start = end + 1;
  }
  ComposableQuantizer all(std::move(parts));
  QC_TRY(all.transform(graph));
  QC_TRY(all.annotate(graph));
  return all.validate(graph);
}

}  // namespace

Status annotate(Graph& graph, PassContext& cx) {
  constexpr std::string_view kRecipe = "recipe:";
  if (const std::string& name = cx.options.string("backend"); name.starts_with(kRecipe))
    return annotateWith(graph, std::string_view(name).substr(kRecipe.size()));
  const QConfigMapping* given = cx.get<QConfigMapping>();
  QConfigMapping rules;
  if (given) {
    rules = *given;
  } else {
    QC_ASSIGN(const Backend backend, parseBackend(cx.options.string("backend")));
    rules = defaultQConfigMapping(backend).guards({.maskedScores = cx.options.integer("guard_masked_scores") != 0});
  }
  BackendOptions options;
  options.quantizedOutputs = given ? given->quantizedOutputs() : cx.options.integers("quantized_outputs");
  QC_ASSIGN(CoverageReport report, annotateGraph(graph, rules, options));
  cx.countHits({{"quantized", report.quantizedCount()}});
  cx.provide(std::move(report));
  return {};
}

}  // namespace qc
