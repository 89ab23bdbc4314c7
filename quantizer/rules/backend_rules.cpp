// The rules that a table of one's own asks for.
#include <algorithm>

#include "quantizer/rules/qconfig.h"

namespace qc {
namespace {

void follow(ObservedSpec& spec, const std::optional<DTypeWithConstraints>& wanted) {
  if (!wanted || !isInteger(wanted->dtype)) {
    if (wanted) spec.observer = "placeholder";
    return;
  }
  const IntRange whole = rangeOf(wanted->dtype);
  if (spec.dtype != wanted->dtype) {
    spec.dtype = wanted->dtype;
    spec.qmin = whole.min;
    spec.qmax = whole.max;
  }
  spec.qmin = std::max(spec.qmin, wanted->qminLowest.value_or(whole.min));
  spec.qmax = std::min(spec.qmax, wanted->qmaxHighest.value_or(whole.max));
  if (wanted->scaleMin) spec.eps = std::max(spec.eps, *wanted->scaleMin);
  if (wanted->exactZeroPoint && isSigned(wanted->dtype)) spec.scheme = QScheme::symmetric;
}

QConfig configFor(const DTypeConfig& types) {
  if (types.weight && types.weight->dtype == DType::f16) return halfWeightsQConfig();
  QConfig config = types.dynamic ? dynamicQConfig(Backend::x86) : defaultQConfig(Backend::x86);
  follow(config.activation, types.input);
  follow(config.weight, types.weight);
  return config;
}

}  // namespace

QConfigMapping defaultQConfigMapping(const BackendConfig& backend) {
  QConfigMapping mapping;
  const DTypeConfig* chosen = nullptr;
  for (const BackendPattern& p : backend.patterns())
    for (const DTypeConfig& d : p.dtypes)
      if (!chosen || (d.weight && !chosen->weight)) chosen = &d;
  mapping.global(chosen ? configFor(*chosen) : defaultQConfig(Backend::x86));
  return mapping.backendConfig(backend);
}

}  // namespace qc
