// Builds one op on given operands and evaluates it with the reference interpreter.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/interp.h"
#include "ir/op_def.h"

namespace qc::test {

using Ints = std::vector<int64_t>;

struct Operand {
  Tensor tensor;
  QuantPtr quant = nullptr;
  bool absent = false;
  bool isConstant = false;

  Operand(Tensor t, QuantPtr q = nullptr) : tensor(std::move(t)), quant(std::move(q)) {}  // NOLINT(google-explicit-constructor)
  static Operand none() {
    Operand o{Tensor()};
    o.absent = true;
    return o;
  }
  static Operand constant(Tensor t, QuantPtr q = nullptr) {
    Operand o{std::move(t), std::move(q)};
    o.isConstant = true;
    return o;
  }
};

// All results, or the error of building or running.
inline Result<std::vector<Tensor>> tryRun(std::string_view op, const std::vector<Operand>& operands, AttrDict attrs = {}) {
  Graph g;
  Builder b(g);
  std::vector<Value*> values;
  std::vector<Tensor> inputs;
  for (const Operand& o : operands) {
    if (o.absent) {
      values.push_back(nullptr);
    } else if (o.isConstant) {
      values.push_back(b.constant("c", o.tensor, o.quant));
    } else {
      values.push_back(g.addInput("x", o.quant ? TensorType(o.quant, toShape(o.tensor.sizes())) : o.tensor.type()));
      inputs.push_back(o.tensor);
    }
  }
  QC_ASSIGN(Node * node, b.createNode(op, values, std::move(attrs)));
  std::vector<Value*> results;
  for (int i = 0; i < node->numResults(); ++i) results.push_back(node->result(i));
  g.setOutputs(results);
  return interpret(g, inputs);
}

inline std::vector<Tensor> runAll(std::string_view op, const std::vector<Operand>& operands, AttrDict attrs = {}) {
  auto out = tryRun(op, operands, std::move(attrs));
  EXPECT_TRUE(out) << op << ": " << (out ? "" : out.error().render());
  return out ? *out : std::vector<Tensor>(4);
}
inline Tensor run(std::string_view op, const std::vector<Operand>& operands, AttrDict attrs = {}) {
  return runAll(op, operands, std::move(attrs))[0];
}

// The result type that inference gives, or "error: ..."
inline std::string inferred(std::string_view op, const std::vector<TensorType>& types, AttrDict attrs = {}) {
  Graph g;
  std::vector<Value*> values;
  for (const TensorType& t : types) values.push_back(g.addInput("x", t));
  auto y = Builder(g).create(op, values, std::move(attrs));
  return y ? (*y)->type().str() : "error: " + y.error().message();
}

inline Tensor floats(Ints sizes, std::vector<float> values) { return Tensor::ofFloats(std::move(sizes), values); }
inline Tensor tensorOf(DType dtype, Ints sizes, const std::vector<int64_t>& values) {
  Tensor t(dtype, std::move(sizes));
  for (int64_t i = 0; i < t.numElements(); ++i) storeElement(dtype, t.mutableData(), i, static_cast<double>(values.at(usize(i))));
  return t;
}
inline std::vector<double> list(const Tensor& t) {
  std::vector<double> v;
  for (int64_t i = 0; i < t.numElements(); ++i) v.push_back(t.at(i));
  return v;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int64_t integer(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  int64_t pick(std::initializer_list<int64_t> values) { return values.begin()[integer(0, static_cast<int64_t>(values.size()) - 1)]; }
  Ints pickMany(size_t n, std::initializer_list<int64_t> values) {
    Ints list;
    for (size_t i = 0; i < n; ++i) list.push_back(pick(values));
    return list;
  }
  Tensor normal(Ints sizes) {
    Tensor t(DType::f32, std::move(sizes));
    for (float& v : t.mutableAs<float>()) v = std::normal_distribution<float>()(engine_);
    return t;
  }
  Tensor integers(DType dtype, Ints sizes, int64_t low, int64_t high) {
    Tensor t(dtype, std::move(sizes));
    for (int64_t i = 0; i < t.numElements(); ++i) storeElement(dtype, t.mutableData(), i, static_cast<double>(integer(low, high)));
    return t;
  }
  Tensor full(DType dtype, Ints sizes) { return integers(dtype, std::move(sizes), rangeOf(dtype).min, rangeOf(dtype).max); }

 private:
  std::mt19937 engine_;
};

inline QuantPtr perChannel(DType storage, int axis, std::vector<float> scales, std::vector<int32_t> zeroPoints) {
  const IntRange range = rangeOf(storage);
  return std::make_shared<QuantParams>(QuantParams{storage, range.min, range.max, axis, 0, std::move(scales), std::move(zeroPoints)});
}

// Moves channels from dim 1 to the end.
inline Tensor channelsLast(const Tensor& t) {
  Ints perm{0};
  for (int64_t i = 2; i < t.rank(); ++i) perm.push_back(i);
  perm.push_back(1);
  return run("transpose", {t}, {{"perm", perm}});
}
inline Tensor channelsFirst(const Tensor& t) {
  Ints perm{0, t.rank() - 1};
  for (int64_t i = 1; i + 1 < t.rank(); ++i) perm.push_back(i);
  return run("transpose", {t}, {{"perm", perm}});
}

}  // namespace qc::test
