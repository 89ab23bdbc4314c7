#include "ir/ops/products.h"

#include "ir/ops/recurrent.h"

namespace qc {
namespace {

double elements(const Shape& shape, SizeOfDim sizeOf) {
  double count = 1;
  for (const Dim& dim : shape) count *= sizeOf(dim);
  return count;
}
double elements(const Value* v, SizeOfDim sizeOf) { return elements(v->type().shape, sizeOf); }

// Of each entry of the first axis: of a kernel's packed weights the node tells what sizes they had.
double weightsOfChannel(const Node& node, SizeOfDim sizeOf) {
  Shape shape = node.attrs().find("weight_shape") ? toShape(node.integers("weight_shape")) : node.operand(1)->type().shape;
  shape.erase(shape.begin());
  return elements(shape, sizeOf);
}

}  // namespace

double productsOfConv(const Node& node, SizeOfDim sizeOf) { return elements(node.result(), sizeOf) * weightsOfChannel(node, sizeOf); }

double productsOfTransposed(const Node& node, SizeOfDim sizeOf) {
  return elements(node.operand(0), sizeOf) * weightsOfChannel(node, sizeOf);
}

double productsOfRows(const Node& node, SizeOfDim sizeOf) {
  return elements(node.result(), sizeOf) * sizeOf(node.operand(0)->type().shape.back());
}

double productsOfRecurrence(const Node& node, SizeOfDim sizeOf) {
  const auto form = RecurrentForm::of(node.op(), node.attrs());
  if (!form) return 0;
  const Shape& x = node.operand(0)->type().shape;
  const double depth = (form->steps ? 0 : sizeOf(x[2])) + static_cast<double>(form->hidden);
  return sizeOf(x[0]) * sizeOf(x[1]) * static_cast<double>(form->directions * form->gates * form->hidden) * depth;
}

double productsOfWeightGradient(const Node& node, SizeOfDim sizeOf) {
  Shape positions = node.operand(1)->type().shape;
  positions.pop_back();
  return elements(node.result(), sizeOf) * elements(positions, sizeOf);
}

}  // namespace qc
