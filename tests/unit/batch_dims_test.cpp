// What declarations say of samples (traits, roles, attributes, OpDef::batch) against the reference evaluation: every op of the registry
// that a model may hold, on random operands and attributes.  Made by free-batch for any number of samples, it computes each of them as it
// does alone.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "gradient_cases.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "passes/lower/free_batch.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

using test::Ints;
using test::Random;
using Tensors = std::vector<Tensor>;

constexpr int64_t kSamples = 3;

// ---- one node with random attributes ----------------------------------------------------------------------------------------

struct Case : test::GradientCase {
  QuantPtr quant = {};  // of operand 0
};
using Maker = std::function<Case(Random&)>;

const QuantPtr& bytes() {
  static const QuantPtr kQuant = quantPerTensor(DType::u8, 0.05f, 7);
  return kQuant;
}

Tensor integers(Random& r, DType dtype, const Ints& sizes, int64_t high) {
  Tensor t(dtype, sizes);
  for (int64_t i = 0; i < t.numElements(); ++i) storeElement(dtype, t.mutableData(), i, static_cast<double>(r.in(0, high)));
  return t;
}

Case realsCase(Random& r, AttrDict attrs = {}) { return {{{r.floats(r.sizes(r.in(1, 4)))}, std::move(attrs)}}; }
Case bytesCase(Random& r) { return {{{integers(r, DType::u8, r.sizes(r.in(1, 4)), 255)}, {}}}; }

Case argCase(Random& r) {
  Case c = realsCase(r, {{"keepdims", r.in(0, 1)}});
  c.attrs.set("axis", r.in(0, c.operands[0]->rank() - 1));
  return c;
}

// Operands that broadcast.
Case bitsCase(Random& r, int operands, DType dtype) {
  const Ints result = r.sizes(r.in(1, 4), 1, 3);
  Case c;
  for (int i = 0; i < operands; ++i) {
    Ints own(result.begin() + (operands > 1 ? r.in(0, std::ssize(result) - 1) : 0), result.end());
    for (int64_t& size : own)
      if (r.in(0, 2) == 0) size = 1;
    c.operands.emplace_back(integers(r, dtype, own, 15));
  }
  return c;
}

Case gridCase(Random& r) {
  const int64_t spatial = r.in(1, 3);
  Ints x = r.sizes(2 + spatial, 1, 3), grid = r.sizes(2 + spatial, 1, 3);
  grid[0] = x[0];
  grid.back() = spatial;
  static const char* const kModes[] = {"linear", "nearest", "cubic"};
  return {{{r.floats(x), r.floats(grid)}, {{"mode", std::string(kModes[r.in(0, 2)])}}}};
}

Case dftCase(Random& r) {
  Ints sizes = r.sizes(r.in(2, 4));
  sizes.back() = r.in(1, 2);
  return {{{r.floats(sizes)}, {{"length", Ints{r.in(1, 5)}}, {"onesided", int64_t{sizes.back() == 1 && r.coin()}}}}};
}

// Parameters of the whole tensor, of the slices along an axis, or of rows.
Case givenParamsCase(Random& r, Case c) {
  const Ints x = c.operands[0]->sizes();
  Ints own;
  if (const int64_t kind = r.in(0, 2); kind == 1) {
    const int64_t axis = r.in(0, std::ssize(x) - 1);
    c.attrs.set("axis", axis);
    own = {nth(x, axis)};
  } else if (kind == 2) {
    own = x;
    own.back() = 1;
  }
  c.operands.emplace_back(r.floats(own, 0.01, 0.1));
  return c;
}

Case layerNormCase(Random& r) {
  const Ints sizes = r.sizes(r.in(2, 4));
  const int64_t axis = r.in(0, std::ssize(sizes) - 1);
  const Ints own(sizes.begin() + axis, sizes.end());
  return {{{r.floats(sizes), r.floats(own), std::nullopt}, {{"axis", axis}}}};
}

Case padCase(Random& r) {
  const Ints sizes = r.sizes(r.in(1, 3));
  return {{{r.floats(sizes)}, {{"pads", r.sizes(2 * std::ssize(sizes), 0, 1)}, {"mode", std::string(r.coin() ? "constant" : "edge")}}}};
}

std::map<std::string, Maker> makers() {
  std::map<std::string, Maker> all;
  for (const auto& [op, maker] : test::gradientCases()) all[op] = [maker = maker](Random& r) { return Case{maker(r)}; };
  for (const char* op : {"bitwise_and", "bitwise_or", "bitwise_xor"}) all[op] = [](Random& r) { return bitsCase(r, 2, DType::s32); };
  all["bitwise_not"] = [](Random& r) { return bitsCase(r, 1, DType::s32); };
  all["bit_shift"] = [](Random& r) { return bitsCase(r, 2, DType::u8); };
  all["grid_sample"] = gridCase;
  all["dft"] = dftCase;
  all["layer_norm"] = layerNormCase;
  all["pad"] = padCase;
  all["argmax"] = all["argmin"] = argCase;
  all["cumprod"] = all["cumsum"];
  all["quantize"] = all["fake_quantize"] = [](Random& r) { return realsCase(r, {{"to", QuantAttr{bytes()}}}); };
  all["dequantize"] = all["storage_cast"] = [](Random& r) { return Case{bytesCase(r), bytes()}; };
  all["dynamic_qparams"] = [](Random& r) { return realsCase(r, {{"granularity", std::string("token")}}); };
  all["quantize_with"] = [](Random& r) { return givenParamsCase(r, realsCase(r)); };
  all["dequantize_with"] = [](Random& r) { return givenParamsCase(r, bytesCase(r)); };
  return all;
}

// What one of their results is computed of, or how large it is, is not a matter of one sample.
const std::set<std::string_view> kMixSamples = {
    "choose",  "compress", "conv_weight_gradient", "loop", "max_pool_gradient", "non_max_suppression", "nonzero", "roi_align",
    "size_of", "unique"};
// Made when a graph is compiled, which is behind free-batch.
const std::set<std::string_view> kMadeLater = {"gru_steps", "lstm_steps", "rnn_steps"};

// ---- samples, stacked and alone ---------------------------------------------------------------------------------------------

// The same elements in another order: what an op takes of the one, it takes of the other.
Tensor shuffled(const Tensor& t, Random& r) {
  const Ints from = r.permutation(t.numElements());
  Tensor to(t.dtype(), t.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i) storeElement(t.dtype(), to.mutableData(), i, t.at(nth(from, i)));
  return to;
}

// One after another along a dim.
Tensor stacked(const Tensors& samples, int dim) {
  Ints sizes = samples[0].sizes();
  int64_t run = 1;
  for (size_t d = usize(dim); d < sizes.size(); ++d) run *= sizes[d];
  nth(sizes, dim) *= kSamples;
  Tensor all(samples[0].dtype(), sizes);
  for (int64_t i = 0; i < all.numElements(); ++i)
    storeElement(all.dtype(), all.mutableData(), i, nth(samples, i / run % kSamples).at(i / run / kSamples * run + i % run));
  return all;
}

bool sameNumbers(const Tensor& a, const Tensor& b) {
  if (a.type() != b.type()) return false;
  for (int64_t i = 0; i < a.numElements(); ++i)
    if (a.at(i) != b.at(i) && !(std::isnan(a.at(i)) && std::isnan(b.at(i)))) return false;
  return true;
}

int freeDim(const TensorType& type) {
  for (int d = 0; d < type.rank(); ++d)
    if (!nth(type.shape, d).isStatic()) return d;
  return -1;
}

// Whether the node can be had for many samples, in dims of size 1 of some operands; then it is compared.
bool compareSamples(const OpDef& def, const Case& c, Random& r) {
  Graph alone;
  StackedInputs told;
  Tensors given;
  std::vector<Value*> operands;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    operands.push_back(nullptr);
    if (!c.operands[i]) continue;
    const TensorType type = c.operands[i]->type();
    operands[i] = alone.addInput(fmt::format("x{}", i), i == 0 && c.quant ? TensorType(c.quant, type.shape) : type);
    given.push_back(*c.operands[i]);
    int& dim = told.dims[operands[i]->name()] = -1;
    for (int d = 0; d < type.rank(); ++d)
      if (nth(type.shape, d) == Dim(1) && r.coin()) dim = d;
  }
  const Result<Node*> node = Builder(alone).createNode(def.name, operands, c.attrs);
  if (!node) return false;  // a window that does not fit
  std::vector<Value*> results;
  for (int i = 0; i < (*node)->numResults(); ++i) results.push_back((*node)->result(i));
  alone.setOutputs(results);
  Graph batch = alone.clone();
  PassContext cx;
  cx.provide(told);
  if (const Status freed = runPipeline("free-batch", batch, cx); !freed) {
    EXPECT_EQ(freed.error().message().find("of samples that stay apart it would be"), std::string::npos) << freed.error().render();
    return false;
  }

  const std::string text = alone.str() + batch.str();
  std::vector<Tensors> inputs(usize(kSamples)), expected;  // by sample
  for (Tensors& sample : inputs)
    for (size_t i = 0; i < given.size(); ++i) sample.push_back(freeDim(batch.inputs()[i]->type()) < 0 ? given[i] : shuffled(given[i], r));
  const auto together = [](const std::vector<Tensors>& samples, size_t i, const Value* v) {
    Tensors parts;
    for (const Tensors& sample : samples) parts.push_back(sample[i]);
    const int dim = freeDim(v->type());
    return dim < 0 ? parts[0] : stacked(parts, dim);
  };
  Tensors all;
  for (size_t i = 0; i < given.size(); ++i) all.push_back(together(inputs, i, batch.inputs()[i]));
  for (const Tensors& sample : inputs) {
    auto y = interpret(alone, sample);
    if (!y) return ADD_FAILURE() << y.error().render() << text, true;
    expected.push_back(std::move(*y));
  }
  const auto found = interpret(batch, all);
  if (!found) return ADD_FAILURE() << found.error().render() << text, true;
  for (size_t i = 0; i < found->size(); ++i)
    EXPECT_TRUE(sameNumbers((*found)[i], together(expected, i, batch.outputs()[i]))) << "result " << i << "\n" << text;
  return true;
}

TEST(BatchDims, OfEveryOpKeepSamplesApart) {
  const auto cases = makers();
  for (const auto& [name, def] : OpRegistry::get().ops()) {
    if (!def.legalIn(Stage::kFloat) || def.operands.empty() || name.starts_with("test.")) continue;
    const auto maker = cases.find(name);
    if (maker == cases.end()) {
      EXPECT_TRUE(kMixSamples.contains(name) || kMadeLater.contains(name)) << name << " has no case here";
      continue;
    }
    const auto* result = ::testing::UnitTest::GetInstance()->current_test_info()->result();
    const int failures = result->total_part_count();  // of the ops before
    int compared = 0;
    for (uint32_t seed = 0; seed < 400 && compared < 60 && result->total_part_count() == failures; ++seed) {
      Random r(seed);
      compared += compareSamples(def, maker->second(r), r);
    }
    EXPECT_GT(compared, 5) << name << " does not keep samples apart, or its declaration does not say so (OpDef::batch)";
  }
}

}  // namespace
}  // namespace qc
