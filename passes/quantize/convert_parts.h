// Parts of convert that have a file of their own: embedding tables, derived parameters, branches without ranges.
#pragma once

#include <map>
#include <set>
#include <string>

#include "ir/graph.h"
#include "passes/pass.h"
#include "quantizer/group_params.h"

namespace qc {

// Replaces the result of `gather`, whose operand 0 is a float32 constant, by bytes with a float scale and zero point per row.
// Errors: anything but a u8 table whose rows are gathered.
Status quantizeTable(Node* gather, const ObservedSpec& spec);

// Operand `operand` of `node`, or its result with -1, is rounded with the parameters that `spec` derives.  Everything the spec starts
// from is converted already.  Errors: a source that is not quantized, or not yet.
Status convertDerived(Node* node, int operand, const DerivedSpec& spec);

// The conditions that decide whether something runs that computes with parameters of samples, by name.
std::set<std::string> calibratedConditions(const Graph& observed);
// Takes observers and annotations from what computes with parameters of samples in branches that none takes, with a remark.
void keepUnseenFloat(Graph& graph, const GroupParams& params, PassContext& cx);
// Those nodes, with the words: "no sample takes the branch where 'c' is false".
std::map<const Node*, std::string> unseenNodes(const Graph& graph, const GroupParams& params);

}  // namespace qc
