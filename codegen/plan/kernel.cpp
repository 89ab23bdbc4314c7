#include "codegen/plan/kernel.h"

#include <algorithm>
#include <cstring>

#include "ir/epilogue_form.h"
#include "ir/op_def.h"

namespace qc {

#define QC_FAMILY(name) std::vector<KernelDef> name##Kernels();
#include "codegen/plan/kernels.def"
#undef QC_FAMILY

std::span<const KernelDef> kernelTable() {
  static const std::vector<KernelDef> table = [] {
    std::vector<KernelDef> all;
    for (const auto family : {
#define QC_FAMILY(name) name##Kernels,
#include "codegen/plan/kernels.def"
#undef QC_FAMILY
         })
      for (KernelDef& def : family()) all.push_back(std::move(def));
    return all;
  }();
  return table;
}

const KernelDef* findKernel(std::string_view id) {
  static const std::unordered_map<std::string_view, const KernelDef*> byId = [] {
    std::unordered_map<std::string_view, const KernelDef*> all;
    for (const KernelDef& def : kernelTable()) all.emplace(def.id, &def);
    return all;
  }();
  const auto it = byId.find(id);
  return it == byId.end() ? nullptr : it->second;
}

namespace {

// In the order of the table.
std::span<const KernelDef* const> rowsOf(std::string_view op) {
  static const std::unordered_map<std::string_view, std::vector<const KernelDef*>> rows = [] {
    std::unordered_map<std::string_view, std::vector<const KernelDef*>> byOp;
    for (const KernelDef& def : kernelTable())
      for (const std::string_view each : def.ops) byOp[each].push_back(&def);
    return byOp;
  }();
  const auto it = rows.find(op);
  return it == rows.end() ? std::span<const KernelDef* const>() : it->second;
}

}  // namespace

bool isPackedBySome(std::string_view op) {
  const auto rows = rowsOf(op);
  return std::any_of(rows.begin(), rows.end(), [](const KernelDef* def) { return static_cast<bool>(def->pack); });
}

std::vector<KernelChoice> candidateKernels(const Node& node, const Target& target) {
  std::vector<KernelChoice> found;
  for (const KernelDef* def : rowsOf(node.op())) {
    if (!target.has(def->isas)) continue;
    if (KernelPlanPtr plan = def->supports(node, target)) found.push_back({def, std::move(plan)});
  }
  // Equal costs: in the order of the table.
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::pair(a.plan->usualNanoseconds, a.def) < std::pair(b.plan->usualNanoseconds, b.def);
  });
  return found;
}

std::optional<KernelChoice> selectKernel(const Node& node, const Target& target) {
  const std::vector<KernelChoice> candidates = candidateKernels(node, target);
  if (candidates.empty()) return std::nullopt;
  return candidates.front();
}

Result<Node*> packKernel(const KernelChoice& choice, Node& node, Builder& builder) {
  if (!choice.def->pack) return &node;
  return choice.def->pack(node, *choice.plan, builder);
}

Result<SelectedKernel> selectAndPack(Node& node, const Target& target, Builder& builder) {
  std::optional<KernelChoice> choice = selectKernel(node, target);
  if (!choice) return SelectedKernel{std::nullopt, &node};
  QC_ASSIGN(Node* const compiled, packKernel(*choice, node, builder));
  return SelectedKernel{std::move(choice), compiled};
}

namespace {

ParamRecord recordOf(const QuantParams& quant) {
  ParamRecord record;
  record.qmin = static_cast<int32_t>(quant.qmin);
  record.qmax = static_cast<int32_t>(quant.qmax);
  if (quant.perChannel()) return record;
  record.scale = quant.scale();
  record.inverseScale = 1.0f / quant.scale();
  record.zeroPoint = quant.zeroPoint();
  return record;
}

ParamRecord recordOf(const TensorType& type) {
  if (type.isQuantized()) return recordOf(*type.quant);
  ParamRecord record;
  if (isInteger(type.dtype) && sizeOf(type.dtype) <= 2) {
    const IntRange range = rangeOf(type.dtype);
    record.qmin = static_cast<int32_t>(range.min);
    record.qmax = static_cast<int32_t>(range.max);
  }
  return record;
}

// What a result is quantized to, if only on the way to real numbers.
QuantPtr quantOf(const Node& node, int result) {
  if (const QuantPtr& own = node.result(result)->type().quant) return own;
  const Attr* to = node.attrs().find("to");
  const auto* quant = to ? std::get_if<QuantAttr>(to) : nullptr;
  return quant ? quant->params : nullptr;
}

// What the code depends on of parameters: not their values.
std::string signatureOf(const TensorType& type) {
  if (!type.isQuantized()) return {};
  return type.quant->perChannel() ? fmt::format("/q{}", type.quant->axis) : "/q";
}

// A list of sizes or places, one for each dim, without those of dims that were free, which are numbers of the plan.
std::string withoutFreeSizes(const Node& node, const std::vector<DimExpr>& sizes) {
  const Shape& result = node.result()->type().shape;
  const Shape data = node.numOperands() && node.operand(0) ? node.operand(0)->type().shape : Shape();
  const auto wasFree = [](const Shape& shape, size_t d) { return d < shape.size() && shape[d].wasFree(); };
  std::string text;
  for (size_t d = 0; d < sizes.size(); ++d)
    text += (wasFree(result, d) || (data.size() == result.size() && wasFree(data, d)) ? "?" : sizes[d].str()) + ",";
  return text;
}

std::string keyOf(const KernelDef& def, const Node& node, const Target& target,
                  const std::function<std::string(const TensorType&)>& signature, bool anySizes) {
  std::string key = fmt::format("{} {} {}", def.id, target.str(), node.op());
  for (const auto& [name, attr] : node.attrs()) {
    if (name == "kernel" || name == "clamp_min" || name == "clamp_max") continue;
    const auto& specs = node.def().attrs;
    const auto spec = std::find_if(specs.begin(), specs.end(), [&, n = std::string_view(name)](const AttrSpec& s) { return s.name == n; });
    const bool perDim = spec != specs.end() && spec->kind == AttrKind::dims &&
                        (spec->meaning == AttrMeaning::perDim || spec->meaning == AttrMeaning::shape);
    if (anySizes && perDim)
      key += fmt::format(" {}={}", name, withoutFreeSizes(node, node.attrs().dims(name)));
    else if (const auto* quant = std::get_if<QuantAttr>(&attr))
      key += fmt::format(" {}={}", name, quant->params ? toString(quant->params->storage) : "none");
    else
      key += fmt::format(" {}={}", name, toString(attr));
  }
  for (int i = 0; i < node.numOperands(); ++i) key += node.operand(i) ? " " + signature(node.operand(i)->type()) : " _";
  key += " ->";
  for (int i = 0; i < node.numResults(); ++i) key += " " + signature(node.result(i)->type());
  return key;
}

}  // namespace

std::vector<ParamRecord> kernelParams(const Node& node, const std::vector<int64_t>& numbers) {
  const size_t values = usize(node.numOperands() + node.numResults()), perRecord = sizeof(ParamRecord) / sizeof(int64_t);
  std::vector<ParamRecord> records;
  records.reserve(values + (numbers.size() + perRecord - 1) / perRecord);
  for (int i = 0; i < node.numOperands(); ++i) records.push_back(node.operand(i) ? recordOf(node.operand(i)->type()) : ParamRecord{});
  for (int i = 0; i < node.numResults(); ++i) {
    const QuantPtr to = quantOf(node, i);
    ParamRecord record = to ? recordOf(*to) : recordOf(node.result(i)->type());
    if (to) {
      const ResultBounds bounds = resultBounds(*to, node.attrs());
      record.qmin = bounds.low;
      record.qmax = bounds.high;
    }
    records.push_back(record);
  }
  records.resize(values + (numbers.size() + perRecord - 1) / perRecord);
  std::memcpy(static_cast<void*>(records.data() + values), numbers.data(), numbers.size() * sizeof(int64_t));
  return records;
}

std::string kernelKey(const KernelDef& def, const Node& node, const Target& target) {
  return keyOf(
      def, node, target,
      [](const TensorType& type) { return fmt::format("{}[{}]", toString(type.dtype), toString(type.shape)) + signatureOf(type); }, false);
}

std::string codeKey(const KernelDef& def, const Node& node, const Target& target, const KernelPlan& plan) {
  if (plan.form.empty()) return kernelKey(def, node, target);
  return keyOf(
             def, node, target, [](const TensorType& type) { return std::string(toString(type.dtype)) + signatureOf(type); }, true) +
         " " + plan.form;
}

}  // namespace qc
