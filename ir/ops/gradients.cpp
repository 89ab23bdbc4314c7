// The gradient of every op that has one and is not elementwise: a row each.
#include "ir/ops/gradients.h"

#include <map>

#include "ir/guarded.h"

namespace qc {
namespace {

// The kinks in its meaning cancel out, those in the derivative of it would not.
Result<Gradients> softplusGradient(GradientContext& c) { return scalarGradient(c, {expr::sigmoid(ScalarExpr::arg(0))}); }

using Table = std::map<std::string, GradientFn, std::less<>>;

Table& table() {
  static Table* const rows = new Table{
      {"avg_pool", averageGradient},
      {"batch_norm", batchNormGradient},
      {"cast", castGradient},
      {"concat", concatGradient},
      {"conv", convGradient},
      {"conv_transpose", convTransposeGradient},
      {"cumsum", cumsumGradient},
      {"depth_to_space", depthToSpaceGradient},
      {"expand", expandGradient},
      {"fake_quantize_with", fakeQuantizeGradient},
      {"gather", gatherGradient},
      {"gather_elements", gatherElementsGradient},
      {"gather_nd", gatherNdGradient},
      {"group_norm", groupNormGradient},
      {"gru", recurrentGradient},
      {"instance_norm", groupNormGradient},
      {"layer_norm", layerNormGradient},
      {"linear", linearGradient},
      {"log_softmax", logSoftmaxGradient},
      {"lrn", lrnGradient},
      {"lstm", recurrentGradient},
      {"matmul", matmulGradient},
      {"max_pool", maxPoolGradient},
      {"one_hot", oneHotGradient},
      {"pad", padGradient},
      {"reduce_max", extremeGradient},
      {"reduce_mean", meanGradient},
      {"reduce_min", extremeGradient},
      {"reduce_prod", productGradient},
      {"reduce_sum", sumGradient},
      {"reshape", reshapeGradient},
      {"resize", resizeGradient},
      {"reverse_sequence", reverseSequenceGradient},
      {"rnn", recurrentGradient},
      {"scatter_elements", scatterElementsGradient},
      {"scatter_nd", scatterNdGradient},
      {"slice", sliceGradient},
      {"softmax", softmaxGradient},
      {"softplus", softplusGradient},
      {"space_to_depth", spaceToDepthGradient},
      {"split", splitGradient},
      {"tile", tileGradient},
      {"topk", topkGradient},
      {"transpose", transposeGradient},
      {"trilu", triluGradient},
  };
  return *rows;
}

}  // namespace

GradientFn gradientOf(const OpDef& def) {
  if (const auto row = table().find(def.name); row != table().end()) return row->second;
  return def.has(kElementwise) && def.scalar ? GradientFn(elementwiseGradient) : GradientFn();
}

Status registerGradient(std::string_view op, GradientFn gradient) {
  if (!OpRegistry::get().find(op)) return fail(ErrorCode::kInvalidArgument, "no op is named '{}'", op).help("registerOp() comes first");
  if (!gradient) return fail(ErrorCode::kInvalidArgument, "the gradient of '{}' is no function", op);
  const auto guardedGradient = [name = std::string(op), gradient = std::move(gradient)](GradientContext& c) {
    return guarded(fmt::format("the gradient of '{}'", name), [&] { return gradient(c); });
  };
  if (!table().emplace(op, guardedGradient).second) return fail(ErrorCode::kInvalidArgument, "'{}' has a gradient", op);
  return {};
}

}  // namespace qc
