// How many products ops sum: the functions that declarations name (OpDef::products).
#pragma once

#include "ir/op_def.h"

namespace qc {

using ProductsOf = double(const Node& node, SizeOfDim sizeOf);

ProductsOf productsOfConv;        // an element of the result meets all weights of its output channel
ProductsOf productsOfTransposed;  // an element of the input does
ProductsOf productsOfRows;        // an element of the result sums over the last dim of operand 0
ProductsOf productsOfRecurrence;  // every vector of the sequence meets W, which the split form leaves out, and R
ProductsOf productsOfWeightGradient;

}  // namespace qc
