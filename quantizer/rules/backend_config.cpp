#include "quantizer/rules/backend_config.h"

#include <algorithm>

#include "quantizer/observers/observer.h"
#include "quantizer/rules/op_policy.h"
#include "quantizer/rules/qconfig.h"

namespace qc {
namespace {

bool isPassive(const ObservedSpec& spec) {
  const ObserverRole role = roleOf(spec);
  return role == ObserverRole::keepFloat || role == ObserverRole::leaveAlone;
}

// Why a spec does not fit; empty when it does.
std::string misfit(std::string_view what, const ObservedSpec& spec, const DTypeWithConstraints& c,
                   const std::optional<QuantParams>& fixed) {
  if (isPassive(spec))
    return c.dtype == DType::f32 || c.dtype == DType::f16 ? std::string() : fmt::format("{} {}, not float", what, toString(c.dtype));
  if (spec.dtype != c.dtype) return fmt::format("{} {}, not {}", what, toString(c.dtype), toString(spec.dtype));
  if ((c.qminLowest && spec.qmin < *c.qminLowest) || (c.qmaxHighest && spec.qmax > *c.qmaxHighest))
    return fmt::format("{} within [{}, {}], not [{}, {}]", what, c.qminLowest.value_or(spec.qmin), c.qmaxHighest.value_or(spec.qmax),
                       spec.qmin, spec.qmax);
  if (c.scaleMin && spec.eps < *c.scaleMin) return fmt::format("{} scales of at least {}, not {}", what, *c.scaleMin, spec.eps);
  if (c.exactZeroPoint && !c.exactScale) {
    const bool symmetric = spec.scheme == QScheme::symmetric && isSigned(spec.dtype) && *c.exactZeroPoint == 0;
    if (!symmetric && !(fixed && fixed->zeroPoint() == *c.exactZeroPoint))
      return fmt::format("{} zero point {}: the symmetric scheme", what, *c.exactZeroPoint);
  }
  if (c.exactScale) {
    const bool same =
        fixed && fixed->scale() == static_cast<float>(*c.exactScale) && fixed->zeroPoint() == c.exactZeroPoint.value_or(fixed->zeroPoint());
    if (!same) return fmt::format("{} scale {} and zero point {} exactly", what, *c.exactScale, c.exactZeroPoint.value_or(0));
  }
  return {};
}

std::string misfit(const DTypeConfig& d, const Node& node, const QConfig& config) {
  const OpPolicy& policy = policyOf(node);
  if (d.dynamic != config.activation.dynamic) return d.dynamic ? "run-time parameters" : "parameters known beforehand";
  std::string why;
  if (d.input) why = misfit("input", config.activation, *d.input, std::nullopt);
  if (why.empty() && d.weight && policy.role == Role::weighted) why = misfit("weight", config.weight, *d.weight, std::nullopt);
  if (why.empty() && d.output && !d.dynamic && !isPassive(config.activation))
    why = misfit("output", config.activation, *d.output,
                 fixedParams(policy, config.activation.dtype, config.activation.qmin, config.activation.qmax));
  return why;
}

// Whether a pattern starts with these ops, with or without what is folded into the layer in front of it.
bool startsWith(const BackendPattern& pattern, std::span<const std::string_view> ops, bool folded, bool whole) {
  size_t at = 0;
  for (size_t i = 0; i < pattern.ops.size(); ++i) {
    if (folded && i > 0 && pattern.ops[i] == "batch_norm") continue;
    if (at == ops.size()) return !whole;
    if (pattern.ops[i] != ops[at]) return false;
    ++at;
  }
  return at == ops.size();
}

}  // namespace

std::string_view toString(Observation observation) {
  constexpr std::string_view kNames[] = {"different", "share_input", "by_operands", "none"};
  return nth(kNames, observation);
}

BackendConfig& BackendConfig::set(BackendPattern pattern) {
  const auto known = std::find_if(patterns_.begin(), patterns_.end(), [&](const BackendPattern& p) { return p.ops == pattern.ops; });
  if (known != patterns_.end())
    *known = std::move(pattern);
  else
    patterns_.push_back(std::move(pattern));
  return *this;
}

BackendConfig& BackendConfig::remove(const std::vector<std::string>& ops) {
  std::erase_if(patterns_, [&](const BackendPattern& p) { return p.ops == ops; });
  return *this;
}

const BackendPattern* BackendConfig::find(std::span<const std::string_view> ops) const {
  for (const bool folded : {false, true})
    for (const BackendPattern& p : patterns_)
      if (startsWith(p, ops, folded, true)) return &p;
  return nullptr;
}

bool BackendConfig::begins(std::span<const std::string_view> ops) const {
  return std::any_of(patterns_.begin(), patterns_.end(), [&](const BackendPattern& p) { return startsWith(p, ops, true, false); });
}

Result<const DTypeConfig*> BackendConfig::accept(const Node& node, const QConfig& config) const {
  std::vector<const BackendPattern*> candidates;
  if (const BackendPattern* own = find({node.op()})) {
    candidates.push_back(own);
  } else {
    for (const BackendPattern& p : patterns_)
      if (std::find(p.ops.begin(), p.ops.end(), node.op()) != p.ops.end()) candidates.push_back(&p);
  }
  if (candidates.empty()) return fail(ErrorCode::kUnsupported, "backend '{}' has no pattern for {}", name_, node.op());
  std::string wanted;
  for (const BackendPattern* pattern : candidates)
    for (const DTypeConfig& d : pattern->dtypes) {
      const std::string why = misfit(d, node, config);
      if (why.empty()) return &d;
      if (wanted.find(why) == std::string::npos) wanted += (wanted.empty() ? "" : ", or ") + why;
    }
  return fail(ErrorCode::kUnsupported, "backend '{}' wants for {}: {}", name_, node.op(), wanted.empty() ? "nothing in integers" : wanted);
}

}  // namespace qc
