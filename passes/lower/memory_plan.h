// Memory plan: where in one arena each intermediate value lives, from its lifetime in schedule order.
//
//   MemoryPlan plan = planMemory(graph, external);     // external: values that live in buffers of the caller
//   QC_CHECK(checkPlan(graph, external, plan));         // independent of how the plan was found
#pragma once

#include <set>
#include <string>
#include <unordered_map>

#include "ir/graph.h"

namespace qc {

// The value whose bytes `value` shares: reshape is a view of its operand.
const Value* storageOf(const Value* value);

struct MemoryPlan {
  std::unordered_map<const Value*, int64_t> offsets;  // bytes from the start of the arena, 64-aligned; storage values only
  int64_t bytes = 0;
};

// Best fit by decreasing size.  Values in `external`, graph inputs and constants get no place.
MemoryPlan planMemory(const Graph& graph, const std::set<const Value*>& external);

// Replays the schedule and reports any two values that are alive together and overlap, or a value without a place.
Status checkPlan(const Graph& graph, const std::set<const Value*>& external, const MemoryPlan& plan);

// One line per value in schedule order, `  64..96  %name : type`, behind the size of the arena.
std::string print(const Graph& graph, const MemoryPlan& plan);

}  // namespace qc
