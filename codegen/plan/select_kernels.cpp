#include "codegen/plan/select_kernels.h"

#include "codegen/plan/packed_nodes.h"
#include "ir/rewriter.h"

namespace qc {
namespace {

Result<Target> targetFor(PassContext& cx) {
  if (const Target* given = cx.get<Target>()) return *given;
  return Target::parse(cx.options.string("target"));
}

// The rows that only name how a node is served without generated code.
std::string_view servedWithoutCode(const Node& node) { return node.def().has(kView) ? "view" : "reference"; }

}  // namespace

Status selectKernels(Graph& graph, PassContext& cx) {
  QC_ASSIGN(const Target target, targetFor(cx));
  PackedNodes* const* packed = cx.get<PackedNodes*>();
  Rewriter rw(graph);
  KernelPlans plans;
  std::map<std::string, int> chosen;
  const auto choose = [&](Node* node, std::vector<Node*>& made) -> Status {
    Builder b = rw.before(node);
    const Node* before = node->previous();
    QC_ASSIGN(const SelectedKernel selected, packed ? (*packed)->select(*node, target, b) : selectAndPack(*node, target, b));
    Node* const final = selected.node;
    for (Node* n = node->previous(); n != before; n = n->previous())
      if (n != final && !n->is("const")) made.push_back(n);
    if (selected.choice) plans[final] = selected.choice->plan;
    const std::string id(selected.choice ? selected.choice->def->id : servedWithoutCode(*node));
    ++chosen[id];
    final->attrs().set("kernel", id);
    if (packed) (*packed)->share(final->attrs());
    if (final == node) return {};
    // Of what was inferred anew only the sizes are known; the type says which of them were free.
    if (final->result()->type() == node->result()->type()) final->result()->setType(node->result()->type());
    rw.replace(node, {final->result()});
    return {};
  };
  for (Node* node : graph.nodes()) {
    if (node->is("const") || rw.wasErased(node)) continue;
    std::vector<Node*> made, madeOfThese;
    QC_TRY(choose(node, made));
    // What packs while the program runs are kernels as well, that pack nothing.
    for (Node* packing : made) QC_TRY(choose(packing, madeOfThese));
  }
  cx.provide(std::move(plans));
  cx.countHits(chosen);
  graph.eraseDeadNodes();
  return {};
}

void registerCodegenPasses() {
  static const bool once = [] {
    const Status added = PassRegistry::get().add({"select-kernels",
                                                  "chooses a kernel for every node and packs weights",
                                                  {{"target", AttrKind::string, Attr(std::string("host"))}},
                                                  Stage::kKernel,
                                                  selectKernels,
                                                  kBeforeKernel},
                                                 false);
    QC_CHECK(added.has_value(), "{}", added.error().message());
    return true;
  }();
  (void)once;
}

}  // namespace qc
