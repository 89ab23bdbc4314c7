// What a constant is of a tensor that the model stores once: the same elements in another order, in other dims, or some of them.  A weight
// that is read in two forms, as an embedding and transposed by the layer of the scores, becomes two constants when movements are folded,
// and is one parameter all the same.  Each of them says so in an attribute, and the stored one as well, without steps:
//
//   %w = const #w {view="%w f32[30,4]"} : f32[30,4]
//   %w.t = const #w.t {view="%w f32[30,4], transpose {perm=[1,0]}"} : f32[4,30]
//
// Where a tensor is left in one form the attribute is left out.  Who changes a constant makes a new one, which is a view of nothing.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct ConstantView {
  struct Step {  // a node of one operand, and which of its results
    std::string op;
    AttrDict attrs;
    int result = 0;
  };
  std::string of;   // the name of the stored tensor, which need not be a value of the graph any more
  TensorType type;  // its type
  std::vector<Step> steps;
};

// For those that fold: `constants` are what the results of `node` become.
void recordViews(const Node& node, std::span<Value* const> constants);
// Takes the attribute from constants whose tensor is left in no other form.
void forgetLoneViews(Graph& graph);
// Whether other constants are made of the same tensor.
bool isOneOfSeveralViews(const Value* v);
// Whether the node reads such a constant, or one that others read as well; numbers apart, which have no form.
bool readsSharedConstant(const Node& node);

// Nothing: it is a view of nothing.  Error: the attribute, which any text may bring, is not of this form or gives another type.
Result<std::optional<ConstantView>> viewOf(const Value* constant);
// The nodes that make it of the stored tensor, which may also be one of another dtype.
Result<Value*> buildView(Builder& b, const ConstantView& view, Value* stored);
Result<Tensor> evaluateView(const ConstantView& view, const Tensor& stored);

}  // namespace qc
