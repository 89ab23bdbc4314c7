// The one generator of convolutions and matrix products: see gemm.h for how the work is cut.
#include "codegen/emit/gemm_panels.h"

namespace qc {

Result<KernelShape> emitGemm(KernelEmitter& e, const Node& node, const GemmPlan& plan) {
  if (node.packing("packing") != plan.packing)
    return fail(ErrorCode::kInvalidModel, "kernel '{}' takes packing '{}', the node has '{}'", e.def().id, plan.packing.str(),
                node.packing("packing").str());
  if (plan.staged && plan.conv.kernelD * plan.stagedRows * plan.stagedWidth * plan.conv.groupChannels() > INT32_MAX / 8)
    return fail(ErrorCode::kUnsupported, "one strip of the input exceeds the address range of a kernel").at(node.location());
  if (plan.isa->usesTiles()) return emitOnTiles(e, node, plan);
  if (!node.is("k.weight_linear")) return emitOnRegisters(e, node, plan, nullptr);
  QC_ASSIGN(const WeightPanels panels, WeightPanels::of(node.attrs()));
  return emitOnRegisters(e, node, plan, &panels);
}

}  // namespace qc
