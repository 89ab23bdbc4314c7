// Rules that match and have no effect.  Each rule, and each setting in which it differs from the configurations that come by name, is left
// out in turn, and what the graph would then be told is compared: so no table of settings can forget one.
#pragma once

#include <vector>

#include "passes/pass.h"
#include "runtime/workflow/prepared_model.h"

namespace qc {

// One message for each, with the reason and what to do.  Rules that may match nothing ("optional") are left alone.  Those are among them
// that a later rule of the same file replaces.
Result<std::vector<Remark>> idleRules(const PreparedModel& model);

}  // namespace qc
