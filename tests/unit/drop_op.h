// For tests of passes: what comes out tells whether one ran.
#pragma once

#include <string_view>

#include "ir/graph.h"

namespace qc::test {

// Every node of an op with one operand and one result becomes identity.
inline Status dropOp(Graph& graph, std::string_view op) {
  for (Node* n = graph.front(); n;) {
    Node* next = n->next();
    if (n->is(op)) {
      n->result()->replaceAllUsesWith(n->operand(0));
      graph.erase(n);
    }
    n = next;
  }
  return {};
}

}  // namespace qc::test
