// annotate: the quantizer's decisions, written on the nodes.  The rules come from cx.provide(QConfigMapping), else from the
// option `backend`; the report goes to cx.provide(CoverageReport).  Tests: tests/golden/annotate.
#include "passes/passes.h"
#include "quantizer/quantizer.h"

namespace qc {

Status annotate(Graph& graph, PassContext& cx) {
  const QConfigMapping* given = cx.get<QConfigMapping>();
  QC_ASSIGN(const Backend backend, parseBackend(cx.options.string("backend")));
  BackendOptions options;
  options.quantizedOutputs = cx.options.integers("quantized_outputs");
  QC_ASSIGN(CoverageReport report, annotateGraph(graph, given ? *given : defaultQConfigMapping(backend), options));
  cx.countHits({{"quantized", report.quantizedCount()}});
  cx.provide(std::move(report));
  return {};
}

}  // namespace qc
