#include "ir/op_def.h"

#include "ir/custom_op.h"
#include "ir/edit_distance.h"
#include "ir/gradient.h"
#include "ir/guarded.h"
#include "ir/ops/infer_util.h"
#include "ir/verify.h"

#include <algorithm>
#include <numeric>

namespace qc {
namespace {

constexpr std::string_view kStageNames[] = {"float", "observed", "qdq", "quant", "kernel"};

// For attributed() around a function that returns no Result.
[[noreturn]] void refuse(Status failed) { throw detail::Attributed(std::move(failed.error())); }

// Answers of an integrator's declaration about a node, and about attributes, held to what they are about.
std::optional<BatchDims> fitting(std::optional<BatchDims> at, const Node& node) {
  const auto fit = [](const std::vector<int>& dims, int count, auto&& valueAt) {
    if (std::ssize(dims) != count) return false;
    for (int i = 0; i < count; ++i)
      if (const Value* v = valueAt(i); nth(dims, i) < -1 || nth(dims, i) >= (v ? v->type().rank() : 0)) return false;
    return true;
  };
  const bool fits = !at || (fit(at->operands, node.numOperands(), [&](int i) { return node.operand(i); }) &&
                            fit(at->results, node.numResults(), [&](int i) { return node.result(i); }));
  if (!fits)
    refuse(fail(ErrorCode::kInvalidArgument, "the batch of '{}' does not fit: it is a dim, or -1, for each operand and each result",
                node.op()));
  return at;
}

ScalarExpr fitting(ScalarExpr meaning, const OpDef& def) {
  const bool fits = def.operands.back().variadic || meaning.arity() <= static_cast<int>(def.operands.size());
  if (!fits)
    refuse(fail(ErrorCode::kInvalidArgument, "the scalar meaning '{}' reads more than the operands of '{}'", meaning.str(), def.name));
  return meaning;
}

// What a declaration says of attributes and weights, against the dims of the operands: an axis is one of them, a list for dims has as many
// entries.
Status requireFacts(const OpDef& def, const InferContext& c) {
  const int64_t rank = c.has(0) ? c.type(0).rank() : 0, spatial = std::max<int64_t>(rank - 2, 0);
  for (const AttrSpec& spec : def.attrs) {
    const Attr* attr = c.attrs.find(spec.name);
    if (!attr) continue;
    const auto entries = [&](int64_t wanted) -> Status {
      const auto* reals = std::get_if<std::vector<double>>(attr);
      const auto found = reals ? std::ssize(*reals) : std::ssize(c.attrs.dims(spec.name));
      if (found == 0 || found == wanted) return {};
      return fail(ErrorCode::kInvalidModel, "'{}': {}={} has {} entries, {} dims of the first operand need {}", def.name, spec.name,
                  toString(*attr), found, rank, wanted);
    };
    switch (spec.meaning) {
      case AttrMeaning::axis:
        if (c.attrs.integer(spec.name) >= 0) QC_TRY(requireAxis(c, spec.name, static_cast<int>(rank)));
        break;
      case AttrMeaning::axes: QC_TRY(requireAxes(c, spec.name, static_cast<int>(rank))); break;
      case AttrMeaning::permutation: {
        std::vector<int64_t> sorted = c.attrs.integers(spec.name);
        std::sort(sorted.begin(), sorted.end());
        std::vector<int64_t> all(usize(rank));
        std::iota(all.begin(), all.end(), 0);
        if (sorted != all)
          return fail(ErrorCode::kInvalidModel, "'{}': {}={} is not an order of {} dims", def.name, spec.name, toString(*attr), rank);
        break;
      }
      case AttrMeaning::perDim: QC_TRY(entries(rank)); break;
      case AttrMeaning::perDimPair: QC_TRY(entries(2 * rank)); break;
      case AttrMeaning::perSpatialDim: QC_TRY(entries(spatial)); break;
      case AttrMeaning::perSpatialDimPair: QC_TRY(entries(2 * spatial)); break;
      default: break;
    }
  }
  for (size_t i = 0; i < def.operands.size(); ++i) {
    const std::optional<WeightAxes>& axes = def.operands[i].weight;
    if (const auto at = static_cast<int>(i); axes && c.has(at) && std::max(axes->channel, axes->group) >= c.type(at).rank())
      return fail(ErrorCode::kInvalidModel, "'{}': operand '{}' is {}, and a weight with an axis {}", def.name, def.operands[i].name,
                  c.type(at).str(), std::max(axes->channel, axes->group));
  }
  return {};
}

// The functions of an integrator's declaration, so that what they throw, break or answer wrongly is an error that says whose it is.
void guard(OpDef& def) {
  const auto whose = [name = def.name](const char* what) { return fmt::format("the {} of '{}'", what, name); };
  def.infer = [who = whose("inference"), infer = std::move(def.infer)](const InferContext& c) -> Result<std::vector<TensorType>> {
    QC_TRY(requireFacts(OpRegistry::get().at(c.op), c));
    return guarded(who, [&] { return infer(c); });
  };
  def.eval = [who = whose("evaluation"), eval = std::move(def.eval)](const EvalContext& c) {
    return guarded(who, [&] { return eval(c); });
  };
  if (def.gradient)
    def.gradient = [who = whose("gradient"), gradient = std::move(def.gradient)](GradientContext& c) {
      return guarded(who, [&] { return gradient(c); });
    };
  if (def.decides) {
    def.decides->bounds = [who = whose("bounds"), bounds = std::move(def.decides->bounds)](const InferContext& c) {
      return attributed(who, [&] { return bounds(c); });
    };
    def.decides->eval = [who = whose("evaluation"), eval = std::move(def.decides->eval)](const EvalContext& c) {
      return guarded(who, [&] { return eval(c); });
    };
  }
  if (def.scalar)
    def.scalar = [who = whose("scalar meaning"), name = def.name, scalar = std::move(def.scalar)](const AttrDict& attrs) {
      return attributed(who, [&] { return fitting(scalar(attrs), OpRegistry::get().at(name)); });
    };
  if (def.batch)
    def.batch = [who = whose("batch"), batch = std::move(def.batch)](const Node& node, std::span<const int> dims) {
      return attributed(who, [&] { return fitting(batch(node, dims), node); }, node.location());
    };
  if (def.products)
    def.products = [who = whose("products"), products = std::move(def.products)](const Node& node, SizeOfDim sizeOf) {
      return attributed(who, [&] { return products(node, sizeOf); }, node.location());
    };
}

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
  guard(def);
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
