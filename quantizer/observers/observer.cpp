#include "quantizer/observers/observer.h"

#include <algorithm>
#include <cmath>

#include "ir/guarded.h"
#include "ir/verify.h"
#include "quantizer/observers/observer_table.h"
#include "quantizer/rules/nearest.h"

namespace qc {
namespace {

std::map<std::string, ObserverDef, std::less<>>& registered() {
  static auto* const rows = [] {
    auto* t = new std::map<std::string, ObserverDef, std::less<>>;
    for (const auto& list : {builtinObservers(), blockObservers()})
      for (const ObserverDef& def : list) t->emplace(def.name, def);
    return t;
  }();
  return *rows;
}

// The elements as float32: in place where they are already.
Result<std::span<const float>> asFloats(const TensorRef& tensor, std::vector<float>& scratch) {
  const auto n = usize(tensor.numElements());
  if (tensor.dtype == DType::f32) return std::span<const float>(tensor.as<const float>(), n);
  if (!isFloat(tensor.dtype))
    return fail(ErrorCode::kInvalidArgument, "a {} tensor cannot be observed", toString(tensor.dtype))
        .help("only float values have ranges");
  scratch.resize(n);
  for (size_t i = 0; i < n; ++i) scratch[i] = static_cast<float>(loadElement(tensor.dtype, tensor.data, static_cast<int64_t>(i)));
  return std::span<const float>(scratch);
}

Result<int64_t> count(const ObserverState& state, const std::string& name) {
  const auto it = state.find(name);
  if (it == state.end() || it->second.size() != 1) return fail(ErrorCode::kInvalidData, "a saved observer lacks the count '{}'", name);
  const double value = it->second[0];
  if (!(value >= 0 && value < 9e15) || value != std::floor(value))
    return fail(ErrorCode::kInvalidData, "a saved observer has {} = {}", name, value);
  return static_cast<int64_t>(value);
}

}  // namespace

// An observer may be an integrator's.
template <class Call>
auto Observer::called(Call&& call) const -> decltype(call()) {
  return guarded(fmt::format("observer '{}'", name()), std::forward<Call>(call));
}

Result<QuantParams> Observer::checkedParams() const {
  return called([&] { return qparams(); });
}

Status Observer::observe(const TensorRef& tensor) {
  std::vector<float> scratch, finite;
  QC_ASSIGN(std::span<const float> data, asFloats(tensor, scratch));
  if (data.empty()) return {};
  const MinMax range = minMaxOf(data);
  if (range.finite > 0) {
    if (range.nonFinite > 0 && !needsLayout()) {
      finite.reserve(usize(range.finite));
      std::copy_if(data.begin(), data.end(), std::back_inserter(finite), [](float v) { return std::isfinite(v); });
      data = finite;
    }
    QC_TRY(called([&] { return update({data, tensor.sizes, range}); }));
    ++batches_;
  }
  latest_ = range;
  elements_ += range.finite + range.nonFinite;
  nonFinite_ += range.nonFinite;
  return {};
}

Status Observer::merge(const Observer& other) {
  if (!(spec_ == other.spec_))
    return fail(ErrorCode::kInvalidData, "observers '{}' and '{}' with different settings cannot be merged", name(), other.name());
  QC_TRY(called([&] { return mergeState(other); }));
  batches_ += other.batches_;
  elements_ += other.elements_;
  nonFinite_ += other.nonFinite_;
  return {};
}

void Observer::reset() {
  resetState();
  batches_ = elements_ = nonFinite_ = 0;
}

ObserverState Observer::save() const {
  ObserverState state;
  saveState(state);
  state["batches"] = {static_cast<double>(batches_)};
  state["elements"] = {static_cast<double>(elements_)};
  state["non_finite"] = {static_cast<double>(nonFinite_)};
  return state;
}

Status Observer::load(const ObserverState& state) {
  QC_ASSIGN(const int64_t batches, count(state, "batches"));
  QC_ASSIGN(const int64_t elements, count(state, "elements"));
  QC_ASSIGN(const int64_t nonFinite, count(state, "non_finite"));
  if (nonFinite > elements) return fail(ErrorCode::kInvalidData, "a saved observer counts {} bad elements of {}", nonFinite, elements);
  QC_TRY(called([&] { return loadState(state); }));
  batches_ = batches;
  elements_ = elements;
  nonFinite_ = nonFinite;
  return {};
}

const ObserverDef* findObserver(std::string_view name) {
  const auto it = registered().find(name);
  return it == registered().end() ? nullptr : &it->second;
}

std::vector<const ObserverDef*> observerTable() {
  std::vector<const ObserverDef*> rows;
  for (const auto& [name, def] : registered()) rows.push_back(&def);
  return rows;
}

ObserverRole roleOf(const ObservedSpec& spec) {
  const ObserverDef* def = findObserver(spec.observer);
  return def ? def->role : ObserverRole::range;
}

ScalesPer scalesOf(const ObservedSpec& spec) {
  const ObserverDef* def = findObserver(spec.observer);
  return def ? def->scales : ScalesPer::tensor;
}

Status registerObserver(ObserverDef def) {
  if (def.name.empty() || !def.create) return fail(ErrorCode::kInvalidArgument, "an observer needs a name and a factory");
  QC_TRY(checkAttrSpecs(def.name, def.args));
  const std::string name = def.name;
  if (!registered().emplace(name, std::move(def)).second) return fail(ErrorCode::kInvalidArgument, "an observer named '{}' exists", name);
  return {};
}

Status checkObservedSpec(ObservedSpec& spec) {
  const ObserverDef* def = findObserver(spec.observer);
  if (!def) {
    std::vector<std::string> names;
    for (const ObserverDef* row : observerTable()) names.push_back(row->name);
    return fail(ErrorCode::kInvalidArgument, "there is no observer '{}'", spec.observer).help(didYouMean(spec.observer, names));
  }
  if (def->computesQParams()) {
    QC_TRY(selectRange(spec.dtype, IntRange{spec.qmin, spec.qmax}));
    if (spec.scheme == QScheme::floatQparams && (!def->perChannel() || def->perGroup()))
      return fail(ErrorCode::kUnsupported, "observer '{}' does not compute float zero points", def->name).help("use per_channel_minmax");
    if (!(spec.eps > 0) || !std::isfinite(spec.eps))
      return fail(ErrorCode::kInvalidArgument, "eps = {} is not a positive number", spec.eps);
  }
  if (def->perChannel() && spec.axis < 0) return fail(ErrorCode::kInvalidArgument, "observer '{}' needs a channel axis", def->name);
  if (!def->perChannel() && def->computesQParams() && spec.axis >= 0)
    return fail(ErrorCode::kInvalidArgument, "observer '{}' has one range for the whole tensor, but axis = {}", def->name, spec.axis);
  if (def->perGroup() != (spec.blockSize > 0))
    return fail(ErrorCode::kInvalidArgument, "observer '{}' {}", def->name,
                def->perGroup() ? "needs a block size" : "has no blocks; per_group has");
  for (const auto& [name, value] : spec.observerArgs) {
    const auto declared = std::find_if(def->args.begin(), def->args.end(), [&](const AttrSpec& a) { return a.name == name; });
    if (declared == def->args.end()) return fail(ErrorCode::kInvalidArgument, "observer '{}' has no argument '{}'", def->name, name);
    if (kindOf(value) != declared->kind)
      return fail(ErrorCode::kInvalidArgument, "argument '{}' of observer '{}' is a {}, not a {}", name, def->name,
                  toString(declared->kind), toString(kindOf(value)));
  }
  for (const AttrSpec& arg : def->args) {
    if (spec.observerArgs.find(arg.name)) continue;
    if (!arg.byDefault) return fail(ErrorCode::kInvalidArgument, "observer '{}' needs the argument '{}'", def->name, arg.name);
    spec.observerArgs.set(arg.name, *arg.byDefault);
  }
  return {};
}

Result<std::unique_ptr<Observer>> makeObserver(ObservedSpec spec) {
  QC_TRY(checkObservedSpec(spec));
  QC_ASSIGN(std::unique_ptr<Observer> made,
            guarded(fmt::format("the factory of observer '{}'", spec.observer), [&] { return findObserver(spec.observer)->create(spec); }));
  if (!made) return fail(ErrorCode::kInvalidArgument, "the factory of observer '{}' made none", spec.observer);
  return made;
}

Result<std::vector<FloatQParams>> Observer::floatQParams() const {
  if (spec_.scheme != QScheme::floatQparams) return fail(ErrorCode::kInvalidArgument, "observer '{}' has integer zero points", name());
  std::vector<FloatQParams> params;
  for (const ValueRange& r : ranges()) {
    if (r.min > r.max) {
      params.emplace_back();  // saw nothing
      continue;
    }
    QC_ASSIGN(const FloatQParams q, calculateFloatQParams(r.min, r.max, spec_.qmin, spec_.qmax, spec_.eps));
    params.push_back(q);
  }
  return params;
}

Result<QuantParams> observeConstant(const Tensor& tensor, const ObservedSpec& spec) {
  QC_ASSIGN(const std::unique_ptr<Observer> observer, makeObserver(spec));
  QC_TRY(observer->observe(tensor.ref()));
  if (observer->nonFinite() > 0)
    return fail(ErrorCode::kInvalidModel, "a constant holds {} values that are not finite", observer->nonFinite());
  return observer->checkedParams();
}

}  // namespace qc
