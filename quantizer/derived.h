// How derived specs get their parameters: functions by name, from the parameters of the points that a spec names.  "bias" is built in:
// scale = the product of the scales, zero point 0.
//
//   QC_TRY(registerDerivation("coarsest", [](std::span<const QuantPtr> from, DType dtype) -> Result<QuantParams> { ... }));
//   annotation.inputs[1] = DerivedSpec{{{"y", 0}, {"z", -1}}, "coarsest", DType::u8};
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "ir/quant_spec.h"
#include "ir/status.h"
#include "ir/type.h"

namespace qc {

using Derivation = std::function<Result<QuantParams>(std::span<const QuantPtr> from, DType dtype)>;

// From one thread, before graphs are converted.  Error: the name is taken or empty.
Status registerDerivation(std::string name, Derivation derivation);

// Errors: no such function, with the nearest names; those of the function; parameters that do not fit their type.
Result<QuantPtr> deriveParams(const DerivedSpec& spec, std::span<const QuantPtr> from);
Status checkDerivation(const DerivedSpec& spec);  // that the function exists

}  // namespace qc
