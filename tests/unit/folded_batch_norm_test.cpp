// BatchNorm that training takes out of the layers it was folded into: what it computes by either statistics, and its gradients.
#include "passes/training/folded_batch_norm.h"

#include <gmock/gmock.h>

#include <cmath>

#include "ir/gradient.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "passes/pass_manager.h"
#include "tests/unit/random_values.h"

namespace qc {
namespace {

constexpr int64_t kBatch = 5, kChannels = 3, kPixels = 9;
constexpr double kMomentum = 0.25, kEpsilon = 0.01;

struct Kind {
  const char *layer, *input, *weight, *result;
  std::vector<int64_t> sizes;
};
const Kind kKinds[] = {
    {"conv %x, %w, %b", "[5,2,3,3]", "[3,2,1,1]", "[5,3,3,3]", {kBatch, 2, 3, 3}},
    {"linear %x, %w, %b", "[5,2]", "[3,2]", "[5,3]", {kBatch, 2}},
    {"conv_transpose %x, %w, %b", "[5,2,3,3]", "[2,3,1,1]", "[5,3,3,3]", {kBatch, 2, 3, 3}},
    {"conv_transpose %x, %w, %b {group=3}", "[5,6,3,3]", "[6,1,1,1]", "[5,3,3,3]", {kBatch, 6, 3, 3}},
};

struct Network {
  Graph folded{"g"}, unfolded{"g"};
  FoldedBatchNorms table;
  Unfolding made;
  std::vector<int64_t> sizes;
  int64_t pixels() const { return sizes.size() == 4 ? kPixels : 1; }
};

// gamma is negative once and zero once.
Network network(const Kind& kind) {
  const auto f32 = [](const char* sizes) { return fmt::format("f32{}", sizes); };
  const std::string text = fmt::format(
      "const #w : {0} = rand(1, -1.0, 1.0)\nconst #b : f32[3] = rand(2, -1.0, 1.0)\nconst #gamma : f32[3] = [1.5, -0.7, 0.0]\n"
      "const #beta : f32[3] = [0.1, 0.2, 0.3]\nconst #mean : f32[3] = [0.3, -0.2, 0.1]\nconst #var : f32[3] = [0.5, 2.0, 1.0]\n"
      "graph @g(%x: {1}) -> (\"y\") {{\n%w = const #w : {0}\n%b = const #b : f32[3]\n%gamma = const #gamma : f32[3]\n"
      "%beta = const #beta : f32[3]\n%mean = const #mean : f32[3]\n%var = const #var : f32[3]\n%c = {2} : {3}\n"
      "%y = batch_norm %c, %gamma, %beta, %mean, %var {{epsilon=0.01}} : {3}\nreturn %y\n}}\n",
      f32(kind.weight), f32(kind.input), kind.layer, f32(kind.result));
  Network n{parseGraph(text, "test").value(), Graph("g"), {}, {}, kind.sizes};
  PassContext cx;
  EXPECT_TRUE(runPipeline("fold-batch-norm{keep=1}", n.folded, cx));
  n.table = *cx.get<FoldedBatchNorms>();
  n.unfolded = n.folded.clone();
  Node* layer = n.unfolded.findValue("y")->producer();
  Value* byBatch = n.unfolded.addInput("by_batch", {DType::f32, {}});
  n.made = unfoldBatchNorm(n.unfolded, layer, n.table.at("y"), {}, byBatch, kMomentum).value();
  layer->setOperand(1, n.made.scaled);
  n.unfolded.setOutputs({n.unfolded.findValue("y"), n.made.nextMean, n.made.nextVar});
  n.unfolded.setOutputNames({"y", "next.mean", "next.var"});
  n.unfolded.eraseDeadNodes();
  return n;
}

Tensor random(const std::vector<int64_t>& sizes, uint32_t seed) {
  test::RandomValues values(seed);
  Tensor t(DType::f32, sizes);
  for (float& x : t.mutableAs<float>()) x = static_cast<float>(values.real(-2, 2));
  return t;
}

Tensor flag(bool on) { return Tensor::ofFloats({}, std::vector<float>{on ? 1.f : 0.f}); }

std::vector<Tensor> results(const Network& n, const Tensor& x, bool byBatch) {
  return interpret(n.unfolded, std::vector<Tensor>{x, flag(byBatch), n.made.mean, n.made.var}).value();
}

double largestDifference(const Tensor& a, const Tensor& b) {
  double worst = 0;
  for (int64_t i = 0; i < a.numElements(); ++i) worst = std::max(worst, std::fabs(a.at(i) - b.at(i)));
  return worst;
}

TEST(FoldedBatchNorm, IsTheFoldedLayerByRunningStatistics) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.layer);
    const Network n = network(kind);
    const Tensor x = random(n.sizes, 3);
    const auto y = results(n, x, false);
    EXPECT_LT(largestDifference(y[0], interpret(n.folded, std::vector<Tensor>{x}).value()[0]), 1e-5);
    EXPECT_EQ(largestDifference(y[1], n.made.mean), 0);
    EXPECT_EQ(largestDifference(y[2], n.made.var), 0);
    const auto again = foldedAgain(n.made.names, {{n.made.names.unfolded, *n.unfolded.findValue(n.made.names.unfolded)->constant()},
                                                  {n.made.names.gamma, *n.unfolded.findValue(n.made.names.gamma)->constant()},
                                                  {n.made.names.beta, *n.unfolded.findValue(n.made.names.beta)->constant()},
                                                  {n.made.names.mean, n.made.mean},
                                                  {n.made.names.var, n.made.var}});
    ASSERT_EQ(again.size(), 2u);
    for (const auto& [name, value] : again) EXPECT_LT(largestDifference(value, *n.folded.findValue(name)->constant()), 1e-6) << name;
    EXPECT_TRUE(foldedAgain(n.made.names, {}).empty());
  }
}

TEST(FoldedBatchNorm, NormalisesByTheBatchAndFollowsIt) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.layer);
    const Network n = network(kind);
    const Tensor x = random(n.sizes, 4);
    const auto y = results(n, x, true);
    const auto folded = interpret(n.folded, std::vector<Tensor>{x}).value()[0];
    const double gamma[] = {1.5, -0.7, 0}, beta[] = {0.1, 0.2, 0.3}, mean[] = {0.3, -0.2, 0.1}, var[] = {0.5, 2, 1};
    const int64_t each = kBatch * n.pixels();
    for (int64_t c = 0; c < 2; ++c) {  // of the third nothing is left to see
      const auto at = [&](int64_t i) { return (i / n.pixels() * kChannels + c) * n.pixels() + i % n.pixels(); };
      // What the layer gave, from what the folded one gives; without the bias, by which the mean alone is another.
      const double root = std::sqrt(var[c] + kEpsilon), bias = mean[c] - n.made.mean.at(c);
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < each; ++i) sum += (folded.at(at(i)) - beta[c]) / gamma[c] * root + mean[c];
      for (int64_t i = 0; i < each; ++i)
        squares += std::pow((folded.at(at(i)) - beta[c]) / gamma[c] * root + mean[c] - sum / static_cast<double>(each), 2);
      const double own = sum / static_cast<double>(each), spread = squares / static_cast<double>(each);
      for (int64_t i = 0; i < each; ++i) {
        const double layer = (folded.at(at(i)) - beta[c]) / gamma[c] * root + mean[c];
        EXPECT_NEAR(y[0].at(at(i)), (layer - own) / std::sqrt(spread + kEpsilon) * gamma[c] + beta[c], 1e-4);
      }
      EXPECT_NEAR(y[1].at(c), mean[c] - bias + kMomentum * (own - mean[c]), 1e-5);
      EXPECT_NEAR(y[2].at(c), var[c] + kMomentum * (squares / static_cast<double>(each - 1) - var[c]), 1e-5);
    }
  }
}

// Of weights, gamma and beta, in float64.
TEST(FoldedBatchNorm, HasTheGradientsThatDifferencesShow) {
  for (const Kind& kind : kKinds)
    for (const bool byBatch : {true, false}) {
      SCOPED_TRACE(kind.layer);
      const Network n = network(kind);
      std::string text = print(n.unfolded, {.payloads = true});
      for (size_t at = 0; (at = text.find("f32[", at)) != std::string::npos;) text.replace(at, 3, "f64");
      Graph graph = parseGraph(text, "test").value();
      std::vector<Tensor> inputs;
      for (const Tensor& t : std::vector<Tensor>{random(n.sizes, 5), flag(byBatch), n.made.mean, n.made.var}) {
        inputs.emplace_back(DType::f64, t.sizes());
        for (int64_t i = 0; i < t.numElements(); ++i) inputs.back().mutableAs<double>()[usize(i)] = t.at(i);
      }
      std::vector<Value*> trained;
      for (const std::string& name : {n.made.names.unfolded, n.made.names.gamma, n.made.names.beta}) {
        Value* constant = graph.findValue(name);
        Tensor value(DType::f64, constant->type().sizes());
        for (int64_t i = 0; i < value.numElements(); ++i) value.mutableAs<double>()[usize(i)] = constant->constant()->at(i);
        inputs.push_back(std::move(value));
        trained.push_back(graph.addInput("trained." + name, constant->type()));
        constant->replaceAllUsesWith(trained.back());
      }
      inputs[5].mutableAs<double>()[2] = 0.4;  // where gamma is zero there is no slope to compare
      graph.eraseDeadNodes();
      const auto y = interpret(graph, inputs).value()[0];
      test::RandomValues values(6);
      Tensor weights(DType::f64, y.sizes());
      for (double& w : weights.mutableAs<double>()) w = values.real(-1, 1);
      Graph backward = graph.clone();
      Builder b(backward);
      std::vector<Value*> of;
      for (const Value* v : trained) of.push_back(backward.findValue(v->name()));
      const auto gradients = backpropagate(b, {{backward.findValue("y"), b.constant("", weights)}}, of);
      ASSERT_TRUE(gradients) << gradients.error().render();
      backward.setOutputs(*gradients);
      const auto got = interpret(backward, inputs).value();
      const auto loss = [&](const std::vector<Tensor>& at) {
        const Tensor y = interpret(graph, at).value()[0];
        double sum = 0;
        for (int64_t i = 0; i < y.numElements(); ++i) sum += y.at(i) * weights.at(i);
        return sum;
      };
      for (size_t k = 0; k < trained.size(); ++k)
        for (int64_t i = 0; i < got[k].numElements(); ++i) {
          const auto moved = [&](double step) {
            std::vector<Tensor> at = inputs;
            at[4 + k] = Tensor(DType::f64, inputs[4 + k].sizes());
            for (int64_t j = 0; j < at[4 + k].numElements(); ++j)
              at[4 + k].mutableAs<double>()[usize(j)] = inputs[4 + k].at(j) + (j == i ? step : 0);
            return loss(at);
          };
          EXPECT_NEAR(got[k].at(i), (moved(1e-5) - moved(-1e-5)) / 2e-5, 1e-6 * std::max(1.0, std::fabs(got[k].at(i))))
              << trained[k]->name() << " " << i << " by batch " << byBatch;
        }
    }
}

TEST(FoldedBatchNorm, IsLeftWhereTheLayerIsAnother) {
  Network n = network(kKinds[0]);
  keepUnchanged(n.table, n.folded);
  EXPECT_EQ(n.table.size(), 1u);
  n.table.at("y").bias.mutableAs<float>()[0] += 1;
  keepUnchanged(n.table, n.folded);
  EXPECT_TRUE(n.table.empty());
}

}  // namespace
}  // namespace qc
