// select-kernels: gives every node the cheapest kernel of the table that supports it here, and packs weights in that
// kernel's layout.  The choice is the node's attribute `kernel`: readable, testable and editable as text.
//   kernel="view"       reshape: no code, the bytes of the operand
//   kernel="reference"  no row fits: the op's reference evaluation runs (data movement ops are at home there)
// Tests: tests/golden/select_kernels.
#pragma once

#include "codegen/target.h"
#include "passes/pass.h"

namespace qc {

// The target comes from the pass option `target` or from cx.provide(Target).
Status selectKernels(Graph& graph, PassContext& cx);

// Adds select-kernels to the pass registry, for tools that drive pipelines by name.
void registerCodegenPasses();

}  // namespace qc
