// Helpers for the tests of data-movement and recurrent ops: build one node, infer, evaluate.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ir/interp.h"
#include "ir/op_def.h"

namespace qc::test {

struct Operand {
  Tensor tensor;
  QuantPtr quant = nullptr;
  bool absent = false;
};

inline Result<Node*> build(Graph& g, std::string_view op, const std::vector<TensorType>& types, AttrDict attrs = {}) {
  std::vector<Value*> operands;
  for (const TensorType& t : types) operands.push_back(g.addInput("x", t));
  return Builder(g).createNode(op, operands, std::move(attrs));
}

// All results, or the error of building or of evaluating.
inline Result<std::vector<Tensor>> tryEvaluate(std::string_view op, const std::vector<Operand>& operands, AttrDict attrs = {}) {
  Graph g;
  std::vector<Value*> values;
  std::vector<Tensor> tensors;
  for (const Operand& o : operands) {
    values.push_back(o.absent ? nullptr : g.addInput("x", o.quant ? TensorType(o.quant, toShape(o.tensor.sizes())) : o.tensor.type()));
    if (!o.absent) tensors.push_back(o.tensor);
  }
  QC_ASSIGN(Node * node, Builder(g).createNode(op, values, std::move(attrs)));
  std::vector<Value*> outputs;
  for (int i = 0; i < node->numResults(); ++i) outputs.push_back(node->result(i));
  g.setOutputs(outputs);
  return interpret(g, tensors);
}

inline std::vector<Tensor> evaluateAll(std::string_view op, const std::vector<Operand>& operands, AttrDict attrs = {}) {
  auto results = tryEvaluate(op, operands, std::move(attrs));
  EXPECT_TRUE(results) << op << ": " << (results ? "" : results.error().render());
  return results ? *results : std::vector<Tensor>(3);
}

inline Tensor evaluate(std::string_view op, const std::vector<Operand>& operands, AttrDict attrs = {}) {
  return evaluateAll(op, operands, std::move(attrs)).front();
}

// The first result type, or "error: ...".
inline std::string inferred(std::string_view op, const std::vector<TensorType>& types, AttrDict attrs = {}) {
  Graph g;
  const auto node = build(g, op, types, std::move(attrs));
  return node ? (*node)->result()->type().str() : "error: " + node.error().message();
}

inline std::string errorOf(std::string_view op, const std::vector<Operand>& operands, AttrDict attrs = {}) {
  const auto results = tryEvaluate(op, operands, std::move(attrs));
  return results ? "no error" : results.error().message();
}

inline std::vector<double> list(const Tensor& t) {
  std::vector<double> v;
  for (int64_t i = 0; i < t.numElements(); ++i) v.push_back(t.at(i));
  return v;
}

inline Tensor tensor(DType dtype, std::vector<int64_t> sizes, const std::vector<double>& values) {
  Tensor t(dtype, std::move(sizes));
  EXPECT_EQ(t.numElements(), static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) storeElement(dtype, t.mutableData(), static_cast<int64_t>(i), values[i]);
  return t;
}

// 0, 1, 2, ... (modulo what the dtype holds)
inline Tensor iota(DType dtype, std::vector<int64_t> sizes) {
  Tensor t(dtype, std::move(sizes));
  for (int64_t i = 0; i < t.numElements(); ++i)
    storeElement(dtype, t.mutableData(), i, static_cast<double>(sizeOf(dtype) == 1 ? i % 127 : i));
  return t;
}

// Values in -0.8..0.8 that the scripts behind the recorded expectations make too.
inline Tensor data(int64_t seed, std::vector<int64_t> sizes) {
  Tensor t(DType::f32, std::move(sizes));
  for (int64_t i = 0; i < t.numElements(); ++i) nth(t.mutableAs<float>(), i) = static_cast<float>((i * 37 + 11 * seed) % 101 - 50) / 64.0f;
  return t;
}

}  // namespace qc::test
