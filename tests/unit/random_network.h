// Random float networks for tests of the quantizer and of passes.
#pragma once

#include <cmath>

#include "op_testing.h"

namespace qc::test {

// A stack of layers over [1,4,6,6], with branches that meet again, and a classifier.
class Network {
 public:
  explicit Network(Random& random) : random_(random), b_(graph) {
    values_ = {graph.addInput("x", {DType::f32, toShape({1, 4, 6, 6})})};
    for (int64_t n = random_.integer(3, 10); n > 0; --n) values_.push_back(step());
    std::vector<Value*> outputs = {head()};
    if (random_.integer(0, 1)) outputs.push_back(values_.back());
    graph.setOutputs(outputs);
    graph.eraseDeadNodes();
  }
  Graph graph;

 private:
  Value* any() { return nth(values_, random_.integer(static_cast<int64_t>(values_.size()) / 2, static_cast<int64_t>(values_.size()) - 1)); }
  Value* weight(const Ints& sizes) {
    Tensor w = random_.normal(sizes);
    int64_t terms = 1;
    for (size_t d = 1; d < sizes.size(); ++d) terms *= sizes[d];
    for (float& v : w.mutableAs<float>()) v /= std::sqrt(static_cast<float>(terms));
    return b_.constant("w", w);
  }
  Value* conv(Value* x, int64_t out) {
    const int64_t in = x->type().sizes()[1], group = in == out && random_.integer(0, 3) == 0 ? in : 1, k = random_.pick({1, 3});
    std::vector<Value*> operands = {x, weight({out, in / group, k, k})};
    if (random_.integer(0, 1)) operands.push_back(b_.constant("b", random_.normal({out})));
    return b_.make("conv", operands, {{"pads", Ints(4, k / 2)}, {"group", group}});
  }
  Value* step() {
    static const char* const kActivations[] = {"relu", "sigmoid", "hardswish", "silu", "tanh", "leaky_relu", "gelu"};
    Value* x = any();
    switch (random_.integer(0, 9)) {
      case 0: return b_.make("add", {x, any()});
      case 1: return b_.make("mul", {x, b_.make("sigmoid", {any()})});
      case 2: return b_.make("max_pool", {x}, {{"kernel_shape", Ints{3, 3}}, {"pads", Ints(4, 1)}});
      case 3: return b_.make("avg_pool", {x}, {{"kernel_shape", Ints{3, 3}}, {"pads", Ints(4, 1)}});
      case 4: return conv(b_.make("concat", {x, any()}, {{"axis", int64_t{1}}}), 4);
      case 5: {
        auto halves = b_.createNode("split", {x}, {{"axis", int64_t{1}}, {"sizes", Ints{2, 2}}});
        return b_.make("concat", {(*halves)->result(1), b_.make("relu", {(*halves)->result(0)})}, {{"axis", int64_t{1}}});
      }
      case 6: return b_.make("mul", {x, b_.constant("k", floats({1}, {0.5f}))});
      default: return random_.integer(0, 3) ? b_.make(kActivations[random_.integer(0, 6)], {conv(x, 4)}) : conv(x, 4);
    }
  }
  Value* head() {
    Value* pooled = b_.make("reshape", {b_.make("reduce_mean", {values_.back()}, {{"axes", Ints{2, 3}}})}, {{"shape", Ints{1, 4}}});
    return b_.make("linear", {pooled, weight({3, 4})});
  }
  Random& random_;
  Builder b_;
  std::vector<Value*> values_;
};

}  // namespace qc::test
