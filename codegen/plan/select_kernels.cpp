#include "codegen/plan/select_kernels.h"

#include "codegen/plan/kernel.h"
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
  Rewriter rw(graph);
  std::map<std::string, int> chosen;
  for (Node* node : graph.nodes()) {
    if (node->is("const") || rw.wasErased(node)) continue;
    const KernelDef* def = selectKernel(*node, target);
    const std::string id(def ? def->id : servedWithoutCode(*node));
    ++chosen[id];
    if (def && def->pack) {
      Builder b = rw.before(node);
      QC_ASSIGN(Node * packed, def->pack(*def, *node, b));
      packed->attrs().set("kernel", id);
      rw.replace(node, {packed->result()});
    } else {
      node->attrs().set("kernel", id);
    }
  }
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
                                                  kBeforeKernel});
    QC_CHECK(added.has_value(), "{}", added.error().message());
    return true;
  }();
  (void)once;
}

}  // namespace qc
