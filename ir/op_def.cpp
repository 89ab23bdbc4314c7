#include "ir/op_def.h"

#include "ir/custom_op.h"
#include "ir/edit_distance.h"
#include "ir/gradient.h"
#include "ir/guarded.h"
#include "ir/verify.h"

#include <algorithm>

namespace qc {
namespace {

constexpr std::string_view kStageNames[] = {"float", "observed", "qdq", "quant", "kernel"};

}  // namespace

std::string_view toString(Stage stage) { return nth(kStageNames, stage); }

Result<Stage> parseStage(std::string_view text) {
  for (size_t i = 0; i < std::size(kStageNames); ++i)
    if (text == kStageNames[i]) return static_cast<Stage>(i);
  return fail(ErrorCode::kInvalidArgument, "unknown stage '{}'", text).help("stages are float, observed, qdq, quant, kernel");
}

int OpDef::operandIndex(std::string_view operand) const {
  const auto it = std::find_if(operands.begin(), operands.end(), [&](const OperandSpec& spec) { return spec.name == operand; });
  return it == operands.end() ? -1 : static_cast<int>(it - operands.begin());
}

// Never destroyed: graphs of static lifetime may outlive it.
static OpRegistry& mutableRegistry() {
  static auto* const registry = [] {
    OpRegistry r;
    registerElementwiseOps(r);
    registerConvOps(r);
    registerMatmulOps(r);
    registerPoolOps(r);
    registerReduceOps(r);
    registerNormOps(r);
    registerShapeOps(r);
    registerIndexOps(r);
    registerResizeOps(r);
    registerSamplingOps(r);
    registerFourierOps(r);
    registerBitOps(r);
    registerQuantOps(r);
    registerRecurrentOps(r);
    registerKernelOps(r);
    registerDecidingOps(r);
    registerLoopOps(r);
    return new OpRegistry(std::move(r));
  }();
  return *registry;
}

const OpRegistry& OpRegistry::get() { return mutableRegistry(); }

Status registerOp(OpDef def) {
  if (def.name.find('.') == std::string::npos || def.name.starts_with("q.") || def.name.starts_with("k."))
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a name for an op of one's own", def.name)
        .help("use a prefix and a dot: acme.swoosh");
  QC_TRY(checkDeclaration(def));
  if (OpRegistry::get().find(def.name)) return fail(ErrorCode::kInvalidArgument, "an op named '{}' exists", def.name);
  def.infer = [name = def.name, infer = std::move(def.infer)](const InferContext& c) {
    return guarded(fmt::format("the inference of '{}'", name), [&] { return infer(c); });
  };
  def.eval = [name = def.name, eval = std::move(def.eval)](const EvalContext& c) {
    return guarded(fmt::format("the evaluation of '{}'", name), [&] { return eval(c); });
  };
  if (def.gradient)
    def.gradient = [name = def.name, gradient = std::move(def.gradient)](GradientContext& c) {
      return guarded(fmt::format("the gradient of '{}'", name), [&] { return gradient(c); });
    };
  mutableRegistry().add(std::move(def));
  return {};
}

// The name of an op says what family it is of: integer ops come with lower-quant, kernels with select-kernels.  Integer ops over
// parameters found at run time come with convert: no dequantize around a float op could say the same.
static StageSet stagesOfFamily(std::string_view name) {
  if (name.starts_with("q.dynamic_")) return kAllStages & ~(stageBit(Stage::kFloat) | stageBit(Stage::kObserved));
  if (name.starts_with("q.")) return stageBit(Stage::kQuant) | stageBit(Stage::kKernel);
  if (name.starts_with("k.")) return stageBit(Stage::kKernel);
  return kAllStages;
}

void OpRegistry::add(OpDef def) {
  def.stages &= stagesOfFamily(def.name);
  if (!def.gradient && def.has(kElementwise) && def.scalar) def.gradient = elementwiseGradient;
  std::string name = def.name;
  const bool added = ops_.emplace(std::move(name), std::move(def)).second;
  QC_CHECK(added, "an op is registered twice");
}

const OpDef* OpRegistry::find(std::string_view name) const {
  const auto it = ops_.find(name);
  return it == ops_.end() ? nullptr : &it->second;
}

const OpDef& OpRegistry::at(std::string_view name) const {
  const OpDef* def = find(name);
  QC_REQUIRE("OpRegistry::at", def, "no op '{}'", name);
  return *def;
}

std::vector<std::string> nearestNames(std::string_view name, std::vector<std::string> candidates, int count) {
  const auto wanted = static_cast<ptrdiff_t>(std::min<size_t>(candidates.size(), usize(count)));
  std::partial_sort(candidates.begin(), candidates.begin() + wanted, candidates.end(), [&](const std::string& a, const std::string& b) {
    const int da = editDistance(name, a), db = editDistance(name, b);
    return da != db ? da < db : a < b;
  });
  candidates.resize(usize(wanted));
  return candidates;
}

std::vector<std::string> OpRegistry::nearest(std::string_view name, int count) const {
  std::vector<std::string> all;
  for (const auto& [key, def] : ops_) all.push_back(key);
  return nearestNames(name, std::move(all), count);
}

}  // namespace qc
