// Quantization with parameters that are known already, as training finds them (runtime/training/trainer.h).
#pragma once

#include "quantizer/group_params.h"
#include "runtime/workflow/quantize.h"

namespace qc {

// Conversion alone, no recipes.  params: of the observers of the prepared model, by their id.
Result<QuantizedModel> quantize(const PreparedModel& model, const GroupParams& params);

}  // namespace qc
