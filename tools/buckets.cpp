#include "tools/buckets.h"

#include <algorithm>

#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"
#include "runtime/any_batch.h"

namespace qc::tools {
namespace {

constexpr size_t kMostBuckets = 256;

Result<std::vector<Shapes>> combinations(const std::vector<SizeList>& lists) {
  std::vector<Shapes> all{{}};
  for (const SizeList& list : lists) {
    if (all.size() * list.each.size() > kMostBuckets)
      return fail(ErrorCode::kInvalidArgument, "more than {} buckets: every size of each --shape goes with every size of the others",
                  kMostBuckets)
          .on(list.name)
          .help("give fewer sizes");
    std::vector<Shapes> more;
    for (const Shapes& shapes : all)
      for (const auto& sizes : list.each) {
        more.push_back(shapes);
        more.back().emplace(list.name, sizes);
      }
    all = std::move(more);
  }
  return all;
}

// Errors of the import speak of the node that needs a size.
Result<Model> freeModel(const ModelOptions& options, const std::vector<SizeList>& lists) {
  QC_ASSIGN(LoadOptions loading, options.options());
  loading.freeDims = true;
  auto model = load(options.path, loading);
  if (model) return model;
  // Perhaps dims that have one size in all buckets need not stay free.
  for (const SizeList& list : lists)
    if (list.isOne()) loading.shapes[list.name] = list.each[0];
  if (!loading.shapes.empty()) model = load(options.path, loading);
  if (model) return model;
  const Error& e = model.error();
  return fail(e.code(), "{}", e.message())
      .at(e.node())
      .on(e.tensor())
      .help("compile an object for each size: this model cannot be had at several at once");
}

int64_t bytesOfInputs(const Graph& graph) {
  int64_t bytes = 0;
  for (const Value* v : graph.inputs()) bytes += v->type().byteSize();
  return bytes;
}

}  // namespace

bool hasSeveral(const std::vector<SizeList>& lists) {
  return std::any_of(lists.begin(), lists.end(), [](const SizeList& list) { return !list.isOne(); });
}

Result<AotBuckets> bucketsOf(const ModelOptions& options, const std::vector<SizeList>& lists) {
  QC_ASSIGN(const std::vector<Shapes> wanted, combinations(lists));
  QC_ASSIGN(Model model, freeModel(options, lists));
  for (const Shapes& own : wanted) {
    QC_ASSIGN(model, atSamplesOf(std::move(model), own));
  }
  const Graph& free = model.graph();
  if (!hasFreeDims(free))
    return fail(ErrorCode::kInvalidArgument, "several sizes are given, and all dims of '{}' are fixed", options.path)
        .help("export the model with free dims, or leave the sizes out");
  std::vector<Shapes> shapes;
  for (const Shapes& own : wanted) {
    QC_ASSIGN(Shapes whole, wholeShapes(free, own));
    shapes.push_back(std::move(whole));
  }
  PassContext cx;
  QC_ASSIGN(Graph lowered, lowerModel(model, cx));
  PassContext own;
  QC_TRY(runPipeline("expand-dynamic", lowered, own));  // looks through weights: once for all
  AotBuckets buckets;
  buckets.parts = std::make_shared<ProgramParts>(lowered);
  for (const Shapes& sizes : shapes) {
    QC_ASSIGN(const SymbolSizes bound, bindingsOf(lowered, sizes));
    AotBucket bucket;
    for (const auto& [symbol, size] : bound) bucket.sizes.push_back(size);
    if (buckets.symbols.empty())
      for (const auto& [symbol, size] : bound) buckets.symbols.push_back(symbol);
    QC_ASSIGN(bucket.graph, boundGraph(lowered, sizes));
    buckets.buckets.push_back(std::move(bucket));
  }
  std::stable_sort(buckets.buckets.begin(), buckets.buckets.end(),
                   [](const AotBucket& a, const AotBucket& b) { return bytesOfInputs(a.graph) < bytesOfInputs(b.graph); });
  return buckets;
}

}  // namespace qc::tools
