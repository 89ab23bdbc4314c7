// What the files that implement ScalarExpr share and no one else needs: lookup by name.
#pragma once

#include <string_view>

#include "ir/scalar_expr.h"

namespace qc {

// The row of ScalarExpr::functions() with this name, or null.
const ScalarExpr::Function* findFunction(std::string_view name);

}  // namespace qc
