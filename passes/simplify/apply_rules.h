// What a pass does that is nothing but a list of rewrite rules.
#pragma once

#include <vector>

#include "ir/rewriter.h"
#include "passes/pass_manager.h"

namespace qc {

// Sweeps until no rule fires, counts the hits of each and erases what died.
Status applyRules(const std::vector<RewriteRule>& rules, Graph& graph, PassContext& cx);

}  // namespace qc
