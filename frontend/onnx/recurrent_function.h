// The ONNX function that computes a gru or rnn whose products are integers: ONNX has an op of that meaning for LSTM alone.
//   inputs   X, W [directions, depth, rows], R [directions, hidden, rows], B, initial_h, sequence_lens, W_scale, W_zero_point, R_scale,
//            R_zero_point (parameters are [directions, rows]); all are given, but for sequence_lens, which some of the functions do not
//            have
//   outputs  Y, Y_h
// The body is standard ops: DynamicQuantizeLinear and MatMulInteger for the products, a Scan over the steps, and in it the formulas of the
// cell (RecurrentStep), op by op.  Its attributes are those of the GRU or RNN that it stands for, and `eps`: the body is made for their
// values and reads none; they are for who takes the function as one op, as ops_recurrent.cpp does.
#pragma once

#include <onnx/onnx_pb.h>

#include "ir/ops/recurrent.h"

namespace qc {

// Without name, domain and opset.
Result<onnx::FunctionProto> recurrentFunction(const RecurrentForm& form, bool hasLengths);

}  // namespace qc
