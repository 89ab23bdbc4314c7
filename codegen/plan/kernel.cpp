#include "codegen/plan/kernel.h"

#include <algorithm>

#include "codegen/plan/families.h"
#include "ir/epilogue_form.h"

namespace qc {

std::span<const KernelDef> kernelTable() {
  static const std::vector<KernelDef> table = {
#include "codegen/plan/kernels.def"
  };
  return table;
}

const KernelDef* findKernel(std::string_view id) {
  for (const KernelDef& def : kernelTable())
    if (def.id == id) return &def;
  return nullptr;
}

std::vector<const KernelDef*> candidateKernels(const Node& node, const Target& target) {
  std::vector<std::pair<double, const KernelDef*>> found;
  for (const KernelDef& def : kernelTable()) {
    const bool forOp = std::find(def.ops.begin(), def.ops.end(), node.op()) != def.ops.end();
    if (forOp && target.has(def.isas) && def.supports(def, node, target)) found.emplace_back(def.cost(def, node, target), &def);
  }
  std::sort(found.begin(), found.end());  // equal costs: in the order of the table
  std::vector<const KernelDef*> result;
  for (const auto& [cost, def] : found) result.push_back(def);
  return result;
}

const KernelDef* selectKernel(const Node& node, const Target& target) {
  const std::vector<const KernelDef*> candidates = candidateKernels(node, target);
  return candidates.empty() ? nullptr : candidates.front();
}

namespace {

ParamRecord recordOf(const TensorType& type) {
  ParamRecord record;
  if (!type.isQuantized()) {
    if (isInteger(type.dtype) && sizeOf(type.dtype) <= 2) {
      const IntRange range = rangeOf(type.dtype);
      record.qmin = static_cast<int32_t>(range.min);
      record.qmax = static_cast<int32_t>(range.max);
    }
    return record;
  }
  const QuantParams& quant = *type.quant;
  record.qmin = static_cast<int32_t>(quant.qmin);
  record.qmax = static_cast<int32_t>(quant.qmax);
  if (quant.perChannel()) return record;
  record.scale = quant.scale();
  record.inverseScale = 1.0f / quant.scale();
  record.zeroPoint = quant.zeroPoint();
  return record;
}

// What the code depends on of a type: not the values of its parameters.
std::string signatureOf(const TensorType& type) {
  std::string text = fmt::format("{}[{}]", toString(type.dtype), toString(type.shape));
  if (type.isQuantized()) text += type.quant->perChannel() ? fmt::format("/q{}", type.quant->axis) : "/q";
  return text;
}

}  // namespace

std::vector<ParamRecord> kernelParams(const Node& node) {
  std::vector<ParamRecord> records;
  for (int i = 0; i < node.numOperands(); ++i) records.push_back(node.operand(i) ? recordOf(node.operand(i)->type()) : ParamRecord{});
  for (int i = 0; i < node.numResults(); ++i) {
    ParamRecord record = recordOf(node.result(i)->type());
    if (const QuantPtr& to = node.result(i)->type().quant) {
      const ResultBounds bounds = resultBounds(*to, node.attrs());
      record.qmin = bounds.low;
      record.qmax = bounds.high;
    }
    records.push_back(record);
  }
  return records;
}

std::string kernelKey(const KernelDef& def, const Node& node, const Target& target) {
  std::string key = fmt::format("{} {} {}", def.id, target.str(), node.op());
  for (const auto& [name, attr] : node.attrs()) {
    if (name == "kernel" || name == "clamp_min" || name == "clamp_max") continue;
    if (const auto* quant = std::get_if<QuantAttr>(&attr))
      key += fmt::format(" {}={}", name, quant->params ? toString(quant->params->storage) : "none");
    else
      key += fmt::format(" {}={}", name, toString(attr));
  }
  for (int i = 0; i < node.numOperands(); ++i) key += node.operand(i) ? " " + signatureOf(node.operand(i)->type()) : " _";
  key += " ->";
  for (int i = 0; i < node.numResults(); ++i) key += " " + signatureOf(node.result(i)->type());
  return key;
}

}  // namespace qc
