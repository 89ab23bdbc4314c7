// Random nodes for the test of gradients: for every op operands and attributes, with values where the op is smooth.
#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "ir/op_def.h"
#include "ir/tensor.h"
#include "tests/unit/random_values.h"

namespace qc::test {

class Random : public RandomValues {
 public:
  using RandomValues::RandomValues;
  Ints sizes(int64_t rank, int64_t low = 1, int64_t high = 4) { return RandomValues::sizes(rank, low, high); }
  Ints axes(int64_t rank) {
    Ints list;
    for (int64_t d = 0; d < rank; ++d)
      if (coin()) list.push_back(d);
    return list;
  }
  Tensor tensor(const TensorType& type, double low, double high) {
    Tensor t(type.dtype, type.sizes());
    for (int64_t i = 0; i < t.numElements(); ++i)
      storeElement(t.dtype(), t.mutableData(), i, type.dtype == DType::boolean ? static_cast<double>(in(0, 1)) : real(low, high));
    return t;
  }
  Tensor reals(const Ints& sizes, double low = -2, double high = 2) { return tensor({DType::f64, toShape(sizes)}, low, high); }
  Tensor floats(const Ints& sizes, double low = -1, double high = 1) { return tensor({DType::f32, toShape(sizes)}, low, high); }
  Tensor indices(const Ints& sizes, int64_t dim) {  // of elements of a dim, some counted from its end
    Tensor t(coin() ? DType::s64 : DType::s32, sizes);
    for (int64_t i = 0; i < t.numElements(); ++i) storeElement(t.dtype(), t.mutableData(), i, static_cast<double>(in(-dim, dim - 1)));
    return t;
  }
  // All different by some margin, and none near 0: for ops that choose among numbers.
  Tensor distinct(const Ints& sizes) {
    Tensor t(DType::f64, sizes);
    std::vector<double> values;
    for (int64_t i = 0; i < t.numElements(); ++i) values.push_back(0.05 * (static_cast<double>(i - t.numElements() / 2) + 0.5));
    std::shuffle(values.begin(), values.end(), engine_);
    for (int64_t i = 0; i < t.numElements(); ++i) storeElement(t.dtype(), t.mutableData(), i, nth(values, i));
    return t;
  }
};

struct GradientCase {
  std::vector<std::optional<Tensor>> operands;  // none: absent
  AttrDict attrs;
  std::set<int> fixed = {};  // operands that are not differentiable
};
using GradientMaker = std::function<GradientCase(Random&)>;

inline std::string describe(const GradientCase& c) {
  std::string text;
  for (const auto& tensor : c.operands) text += tensor ? tensor->type().str() + " " : "none ";
  for (const auto& [name, value] : c.attrs) text += name + "=" + toString(value) + " ";
  return text;
}

// ---- elementwise ops: by their declaration --------------------------------------------------------------------------------------

inline GradientCase elementwiseCase(Random& r, const OpDef& def) {
  static const std::map<std::string, std::pair<double, double>> kDomains = {
      {"log", {0.2, 2}},     {"sqrt", {0.2, 2}},     {"acosh", {1.2, 3}}, {"asin", {-0.9, 0.9}},
      {"acos", {-0.9, 0.9}}, {"atanh", {-0.9, 0.9}}, {"tan", {-1, 1}},    {"pow", {0.3, 2}}};
  const auto domain = kDomains.find(def.name);
  const Ints result = r.sizes(r.in(1, 4));
  GradientCase c;
  std::vector<TensorType> types;
  for (size_t i = 0; i < def.operands.size(); ++i) {
    Ints own(result.begin() + r.in(0, static_cast<int64_t>(result.size())), result.end());
    for (int64_t& size : own)
      if (r.in(0, 2) == 0) size = 1;
    types.emplace_back(DType::f64, toShape(own));
  }
  for (const AttrSpec& spec : def.attrs) c.attrs.set(spec.name, *spec.byDefault);
  if (def.name == "clip") c.attrs = {{"min", -1.0}, {"max", 0.5}};
  if (def.name == "gelu" && r.coin()) c.attrs.set("approximate", std::string("tanh"));
  // What is not for floats is for booleans, or has a condition in front.
  Graph g;
  const auto taken = [&] {
    std::vector<Value*> values;
    for (const TensorType& t : types) values.push_back(g.addInput("x", t));
    return Builder(g).create(def.name, values, c.attrs).has_value();
  };
  if (!taken()) types[0].dtype = DType::boolean;
  if (!taken())
    for (TensorType& t : types) t.dtype = DType::boolean;
  for (const TensorType& t : types) {
    Tensor x = domain == kDomains.end() ? r.tensor(t, 0.1, 2) : r.tensor(t, domain->second.first, domain->second.second);
    if (domain == kDomains.end() && t.dtype == DType::f64)
      for (double& v : x.mutableAs<double>()) v = r.coin() ? v : -v;
    c.operands.emplace_back(std::move(x));
  }
  return c;
}

std::map<std::string, GradientMaker> gradientCasesOfOps();

inline std::map<std::string, GradientMaker> gradientCases() {
  std::map<std::string, GradientMaker> cases = gradientCasesOfOps();
  for (const auto& [name, def] : OpRegistry::get().ops())
    if (def.has(kElementwise) && def.scalar && !cases.contains(name))
      cases[name] = [&def = def](Random& r) { return elementwiseCase(r, def); };
  return cases;
}

// Where no integer lies inside the range: there what is rounded has a slope, as has the scale.
inline GradientCase saturatedCase(Random& r) {
  const Ints sizes = r.sizes(r.in(1, 4));
  GradientCase c{{r.reals(sizes, 20, 30), r.reals(r.coin() ? Ints{sizes.back()} : Ints{}, 0.05, 0.1), r.reals({}, 3, 3)},
                 {{"qmin", int64_t{-8}}, {"qmax", int64_t{7}}, {"learnable", int64_t{1}}},
                 {2}};
  for (double& v : c.operands[0]->mutableAs<double>()) v = r.coin() ? v : -v;
  return c;
}

// ---- the others -----------------------------------------------------------------------------------------------------------------

inline GradientCase reduceCase(Random& r, bool distinct = false) {
  const Ints sizes = r.sizes(r.in(1, 4));
  return {{distinct ? r.distinct(sizes) : r.reals(sizes)}, {{"axes", r.axes(std::ssize(sizes))}, {"keepdims", r.in(0, 1)}}};
}

inline GradientCase prodCase(Random& r) {
  GradientCase c = reduceCase(r);
  for (double& v : c.operands[0]->mutableAs<double>())
    if (r.in(0, 6) == 0) v = 0;
  return c;
}

// Data [N, C, spatial...] of 1 to 3 spatial dims, in either layout.
struct Pixels {
  Ints sizes;
  size_t spatial;
  bool last;
};
inline Pixels pixels(Random& r, int64_t channels, int64_t low = 4) {
  Pixels p{{r.in(1, 2)}, usize(r.in(1, 3)), r.coin()};
  if (!p.last) p.sizes.push_back(channels);
  for (size_t d = 0; d < p.spatial; ++d) p.sizes.push_back(r.in(low, p.spatial == 3 ? 5 : 7));
  if (p.last) p.sizes.push_back(channels);
  return p;
}
inline std::string layoutOf(const Pixels& p) { return p.last ? "channels_last" : "channels_first"; }

inline AttrDict windowAttrs(Random& r, const Pixels& p) {
  const auto n = static_cast<int64_t>(p.spatial);
  return {{"strides", r.sizes(n, 1, 3)}, {"dilations", r.sizes(n, 1, 2)}, {"pads", r.sizes(2 * n, 0, 2)}, {"layout", layoutOf(p)}};
}

inline GradientCase convCase(Random& r, bool transposed) {
  const int64_t group = r.in(1, 3), in = r.in(1, 2), out = r.in(1, 2);
  const Pixels p = pixels(r, group * in);
  Ints w = transposed ? Ints{group * in, out} : Ints{group * out, in};
  for (size_t d = 0; d < p.spatial; ++d) w.push_back(r.in(1, 3));
  GradientCase c{{r.reals(p.sizes), r.reals(w)}, windowAttrs(r, p)};
  c.attrs.set("group", group);
  if (r.coin()) c.operands.emplace_back(r.reals({group * out}));
  if (transposed) {
    if (r.coin()) c.attrs.set("output_padding", r.sizes(static_cast<int64_t>(p.spatial), 0, 2));
    for (int64_t& pad : std::get<Ints>(const_cast<Attr&>(*c.attrs.find("pads")))) pad = std::min<int64_t>(pad, 1);
    return c;
  }
  if (r.coin()) return c;
  // With an epilogue, and what it adds: of the result's sizes.
  Graph g;
  std::vector<Value*> values;
  for (const auto& t : c.operands) values.push_back(g.addInput("x", t->type()));
  const auto y = Builder(g).create("conv", values, c.attrs);
  if (!y) return c;
  c.operands.resize(3);
  c.operands.emplace_back(r.reals((*y)->type().sizes()));
  c.attrs.set("post", ExprAttr(*ScalarExpr::parse("tanh(0.3 * a0) * a1 + a1")));
  return c;
}

inline GradientCase linearCase(Random& r) {
  Ints x = r.sizes(r.in(1, 3));
  const int64_t outputs = r.in(1, 4);
  GradientCase c{{r.reals(x), r.reals({outputs, x.back()}), std::nullopt}, {}};
  if (r.coin()) c.operands[2] = r.reals({outputs});
  if (r.coin()) return c;
  x.back() = outputs;
  c.operands.emplace_back(r.reals(x));
  c.attrs.set("post", ExprAttr(*ScalarExpr::parse("sigmoid(a0 + a1)")));
  return c;
}

inline GradientCase matmulCase(Random& r) {
  const int64_t m = r.in(1, 3), k = r.in(1, 3), n = r.in(1, 3);
  const Ints batch = r.sizes(2);
  const auto operand = [&](int64_t rows, int64_t columns, int64_t one) {
    if (r.in(0, 3) == 0) return Ints{one};
    Ints sizes(batch.begin() + r.in(0, 2), batch.end());
    for (int64_t& size : sizes)
      if (r.coin()) size = 1;
    sizes.insert(sizes.end(), {rows, columns});
    return sizes;
  };
  return {{r.reals(operand(m, k, k)), r.reals(operand(k, n, k))}, {}};
}

inline GradientCase poolCase(Random& r, bool largest) {
  const Pixels p = pixels(r, r.in(1, 2));
  AttrDict attrs = windowAttrs(r, p);
  Ints kernel, pads(2 * p.spatial);
  for (size_t d = 0; d < p.spatial; ++d) {
    kernel.push_back(r.in(1, 2));
    const int64_t most = attrs.integers("dilations")[d] * (kernel[d] - 1);
    pads[d] = r.in(0, most);
    pads[d + p.spatial] = r.in(0, most);
  }
  attrs.set("pads", pads);
  attrs.set("kernel_shape", kernel);
  attrs.set("ceil_mode", r.in(0, 1));
  if (!largest) attrs.set("count_include_pad", r.in(0, 1));
  return {{largest ? r.distinct(p.sizes) : r.reals(p.sizes)}, attrs};
}

inline GradientCase batchNormCase(Random& r) {
  const int64_t channels = r.in(1, 3);
  const Pixels p = pixels(r, channels, 2);
  return {{r.reals(p.sizes), r.reals({channels}), r.reals({channels}), r.reals({channels}), r.reals({channels}, 0.3, 2)},
          {{"layout", layoutOf(p)}}};
}

inline GradientCase groupNormCase(Random& r, bool instance) {
  const int64_t groups = r.in(1, 2), channels = groups * r.in(1, 2);
  const Pixels p = pixels(r, channels, 3);
  GradientCase c{{r.reals(p.sizes), r.reals({channels}), r.reals({channels})}, {{"layout", layoutOf(p)}, {"epsilon", 0.1}}};
  if (!instance) c.attrs.set("num_groups", groups);
  return c;
}

inline GradientCase layerNormCase(Random& r) {
  const Ints sizes = r.sizes(r.in(2, 4), 2, 4);
  const int64_t axis = r.in(0, std::ssize(sizes) - 1);
  const Ints own(sizes.begin() + axis, sizes.end());
  GradientCase c{{r.reals(sizes), std::nullopt, std::nullopt}, {{"axis", axis}, {"epsilon", 0.1}}};
  if (r.coin()) c.operands[1] = r.reals(own);
  if (r.coin()) c.operands[2] = r.reals({own.back()});
  return c;
}

inline GradientCase sliceCase(Random& r) {
  const Ints whole = r.sizes(r.in(1, 3), 1, 7);
  Ints starts, sizes, steps;
  for (const int64_t dim : whole) {
    const bool backwards = r.coin();
    const int64_t step = r.in(1, 3), start = r.in(0, dim - 1), most = (backwards ? start : dim - 1 - start) / step + 1;
    starts.push_back(start);
    sizes.push_back(r.in(1, most));
    steps.push_back(backwards ? -step : step);
  }
  return {{r.reals(whole)}, {{"starts", starts}, {"sizes", sizes}, {"steps", steps}}};
}

inline GradientCase padCase(Random& r) {
  const Ints sizes = r.sizes(r.in(1, 3), 2, 4);
  static const char* const kModes[] = {"constant", "reflect", "edge", "wrap"};
  return {{r.reals(sizes)}, {{"pads", r.sizes(2 * std::ssize(sizes), 0, 3)}, {"mode", std::string(kModes[r.in(0, 3)])}, {"value", 0.5}}};
}

inline GradientCase concatCase(Random& r) {
  Ints sizes = r.sizes(r.in(1, 3));
  const int64_t axis = r.in(0, std::ssize(sizes) - 1);
  GradientCase c{{}, {{"axis", axis}}};
  for (int64_t n = r.in(1, 3); n > 0; --n) {
    nth(sizes, axis) = r.in(1, 3);
    c.operands.emplace_back(r.reals(sizes));
  }
  return c;
}

inline GradientCase splitCase(Random& r) {
  Ints sizes = r.sizes(r.in(1, 3)), pieces = r.sizes(r.in(1, 3));
  const int64_t axis = r.in(0, std::ssize(sizes) - 1);
  nth(sizes, axis) = std::accumulate(pieces.begin(), pieces.end(), int64_t{0});
  return {{r.reals(sizes)}, {{"axis", axis}, {"sizes", pieces}}};
}

inline GradientCase expandCase(Random& r) {
  const Ints result = r.sizes(r.in(1, 4));
  Ints own(result.begin() + r.in(0, std::ssize(result)), result.end());
  for (int64_t& size : own)
    if (r.coin()) size = 1;
  return {{r.reals(own)}, {{"shape", result}}};
}

inline GradientCase depthSpaceCase(Random& r, bool toSpace) {
  const int64_t block = r.in(1, 3), factor = toSpace ? block * block : 1, wide = toSpace ? 1 : block;
  const bool last = r.coin();
  const int64_t n = r.in(1, 2), channels = factor * r.in(1, 2), h = wide * r.in(1, 2), w = wide * r.in(1, 3);
  GradientCase c{{r.reals(last ? Ints{n, h, w, channels} : Ints{n, channels, h, w})},
                 {{"blocksize", block}, {"layout", std::string(last ? "channels_last" : "channels_first")}}};
  if (toSpace) c.attrs.set("mode", std::string(r.coin() ? "DCR" : "CRD"));
  return c;
}

inline GradientCase resizeCase(Random& r) {
  static const char* const kModes[] = {"nearest", "linear", "cubic"};
  static const char* const kCoordinates[] = {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_crop_and_resize"};
  const Ints in = {1, r.in(1, 2), r.in(2, 4), r.in(2, 5)}, out = {1, in[1], r.in(1, 6), r.in(1, 7)};
  std::vector<double> scales, roi = {0, 0, 0.2, 0.1, 1, 1, 0.9, 1.3};
  for (size_t d = 0; d < in.size(); ++d) scales.push_back(static_cast<double>(out[d]) / static_cast<double>(in[d]));
  GradientCase c{{r.floats(in)},
                 {{"sizes", out},
                  {"scales", scales},
                  {"mode", std::string(kModes[r.in(0, 2)])},
                  {"coordinate", std::string(kCoordinates[r.in(0, 4)])},
                  {"exclude_outside", r.in(0, 1)}}};
  if (c.attrs.string("coordinate") == "tf_crop_and_resize") c.attrs.set("roi", roi);
  return c;
}

inline GradientCase gatherCase(Random& r) {
  const Ints sizes = r.sizes(r.in(1, 3));
  const int64_t axis = r.in(0, std::ssize(sizes) - 1);
  return {{r.reals(sizes), r.indices(r.sizes(r.in(0, 2)), nth(sizes, axis))}, {{"axis", axis}}};
}

// Indices along an axis of x of which no two in a line are the same.
inline Tensor places(Random& r, const Ints& x, int64_t axis) {
  Ints sizes = x;
  nth(sizes, axis) = r.in(1, nth(x, axis));
  int64_t inner = 1;
  for (size_t d = usize(axis) + 1; d < sizes.size(); ++d) inner *= sizes[d];
  Tensor t(DType::s64, sizes);
  const int64_t shift = r.in(0, 5);
  for (int64_t i = 0; i < t.numElements(); ++i)
    storeElement(t.dtype(), t.mutableData(), i, static_cast<double>((i / inner % nth(sizes, axis) + shift + i % inner) % nth(x, axis)));
  return t;
}

inline GradientCase gatherElementsCase(Random& r) {
  const Ints sizes = r.sizes(r.in(1, 3));
  const int64_t axis = r.in(0, std::ssize(sizes) - 1);
  Ints own = sizes;
  nth(own, axis) = r.in(1, 5);
  return {{r.reals(sizes), r.indices(own, nth(sizes, axis))}, {{"axis", axis}}};
}

// A scattering node: what it writes differs from what stands there, with an update of 0 now and then.
inline GradientCase scatterCase(Random& r, const Ints& sizes, Tensor indices, const Ints& updates, const char* reduction, AttrDict attrs) {
  Tensor x(DType::f64, sizes), u(DType::f64, updates);
  const Tensor all = r.distinct({x.numElements() + u.numElements()});
  for (int64_t i = 0; i < x.numElements(); ++i) storeElement(DType::f64, x.mutableData(), i, all.at(i));
  for (int64_t i = 0; i < u.numElements(); ++i) storeElement(DType::f64, u.mutableData(), i, all.at(x.numElements() + i));
  if (reduction == std::string_view("mul"))
    for (int64_t i = 0; i < u.numElements(); ++i)
      if (r.in(0, 4) == 0) storeElement(DType::f64, u.mutableData(), i, 0);
  attrs.set("reduction", std::string(reduction));
  return {{x, std::move(indices), u}, std::move(attrs)};
}

inline const char* reductionOf(Random& r) {
  constexpr const char* kAll[] = {"none", "add", "mul", "max", "min"};
  return kAll[r.in(0, 4)];
}

// With a reduction, several updates may meet in an element.
inline GradientCase scatterElementsCase(Random& r) {
  const Ints sizes = r.sizes(r.in(1, 3));
  const int64_t axis = r.in(0, std::ssize(sizes) - 1);
  const char* reduction = reductionOf(r);
  Tensor indices = places(r, sizes, axis);
  if (reduction != std::string_view("none")) {
    Ints own = sizes;
    nth(own, axis) = r.in(1, 6);
    indices = r.indices(own, nth(sizes, axis));
  }
  const Ints updates = indices.sizes();
  return scatterCase(r, sizes, std::move(indices), updates, reduction, {{"axis", axis}});
}

inline GradientCase gatherNdCase(Random& r) {
  const Ints sizes = r.sizes(r.in(2, 4), 2, 3);
  const int64_t batch = r.in(0, 1), depth = r.in(1, std::ssize(sizes) - batch);
  Ints own(sizes.begin(), sizes.begin() + batch);
  own.insert(own.end(), {r.in(1, 4), depth});
  return {{r.reals(sizes), r.indices(own, 2)}, {{"batch_dims", batch}}};
}

inline GradientCase scatterNdCase(Random& r) {
  const Ints sizes = r.sizes(r.in(1, 3), 2, 4);
  const char* reduction = reductionOf(r);
  Ints rows = r.permutation(sizes[0]);
  rows.resize(usize(r.in(1, sizes[0])));
  if (reduction != std::string_view("none"))
    for (int64_t more = r.in(0, 3); more > 0; --more) rows.push_back(r.in(0, sizes[0] - 1));
  Ints updates = sizes;
  updates[0] = std::ssize(rows);
  return scatterCase(r, sizes, Tensor::ofInts({updates[0], 1}, rows), updates, reduction, {});
}

inline GradientCase recurrentCase(Random& r, const std::string& op) {
  const int64_t gates = op == "lstm"  ? 4
                        : op == "gru" ? 3
                                      : 1,
                hidden = r.in(1, 3), inputs = r.in(1, 3), batch = r.in(1, 3), steps = r.in(1, 4);
  static const char* const kDirections[] = {"forward", "reverse", "bidirectional"};
  const std::string direction = kDirections[r.in(0, 2)];
  const int64_t directions = direction == "bidirectional" ? 2 : 1, first = r.in(0, 1);
  const Ints state = first ? Ints{batch, directions, hidden} : Ints{directions, batch, hidden};
  GradientCase c{{r.floats(first ? Ints{batch, steps, inputs} : Ints{steps, batch, inputs}), r.floats({directions, gates * hidden, inputs}),
                  r.floats({directions, gates * hidden, hidden}), std::nullopt, std::nullopt, std::nullopt},
                 {{"hidden_size", hidden}, {"direction", direction}, {"batch_first", first}}};
  if (r.coin()) c.operands[3] = r.floats({directions, 2 * gates * hidden});
  if (r.coin()) {
    Tensor lengths(DType::s32, {batch});
    for (int64_t b = 0; b < batch; ++b) storeElement(DType::s32, lengths.mutableData(), b, static_cast<double>(r.in(0, steps)));
    c.operands[4] = lengths;
  }
  if (r.coin()) c.operands[5] = r.floats(state);
  if (op == "gru") c.attrs.set("linear_before_reset", r.in(0, 1));
  if (op != "lstm") return c;
  c.operands.emplace_back(r.floats(state));
  if (r.coin()) c.operands.emplace_back(r.floats({directions, 3 * hidden}));
  c.attrs.set("input_forget", r.in(0, 1));
  return c;
}

inline GradientCase alongAxis(Random& r) {
  const Ints sizes = r.sizes(r.in(1, 4));
  return {{r.reals(sizes)}, {{"axis", r.in(0, std::ssize(sizes) - 1)}}};
}

inline std::map<std::string, GradientMaker> gradientCasesOfOps() {
  return {
      {"map",
       [](Random& r) {
         const Ints sizes = r.sizes(3);
         return GradientCase{{r.reals(sizes), r.reals({sizes[1], 1}), r.reals({})},
                             {{"expr", ExprAttr(*ScalarExpr::parse("t0 = a0 * a1; sigmoid(t0) * max(t0, a1) + 2"))}}};
       }},
      {"reduce_mean", [](Random& r) { return reduceCase(r); }},
      {"reduce_sum", [](Random& r) { return reduceCase(r); }},
      {"reduce_max", [](Random& r) { return reduceCase(r, true); }},
      {"reduce_min", [](Random& r) { return reduceCase(r, true); }},
      {"reduce_prod", prodCase},
      {"cumsum",
       [](Random& r) {
         const Ints sizes = r.sizes(r.in(1, 4));
         return GradientCase{{r.reals(sizes)},
                             {{"axis", r.in(0, std::ssize(sizes) - 1)}, {"exclusive", r.in(0, 1)}, {"reverse", r.in(0, 1)}}};
       }},
      {"topk",
       [](Random& r) {
         const Ints sizes = r.sizes(r.in(1, 3));
         const int64_t axis = r.in(0, std::ssize(sizes) - 1);
         return GradientCase{{r.distinct(sizes)}, {{"axis", axis}, {"k", Ints{r.in(1, nth(sizes, axis))}}, {"largest", r.in(0, 1)}}};
       }},
      {"conv", [](Random& r) { return convCase(r, false); }},
      {"conv_transpose", [](Random& r) { return convCase(r, true); }},
      {"linear", linearCase},
      {"matmul", matmulCase},
      {"max_pool", [](Random& r) { return poolCase(r, true); }},
      {"avg_pool", [](Random& r) { return poolCase(r, false); }},
      {"batch_norm", batchNormCase},
      {"layer_norm", layerNormCase},
      {"instance_norm", [](Random& r) { return groupNormCase(r, true); }},
      {"group_norm", [](Random& r) { return groupNormCase(r, false); }},
      {"lrn",
       [](Random& r) {
         const Pixels p = pixels(r, r.in(1, 4), 2);
         return GradientCase{{r.reals(p.sizes)}, {{"size", r.in(1, 5)}, {"alpha", 0.5}, {"layout", layoutOf(p)}}};
       }},
      {"softmax", alongAxis},
      {"log_softmax", alongAxis},
      {"reshape",
       [](Random& r) {
         Ints sizes = r.sizes(r.in(1, 4));
         const Tensor x = r.reals(sizes);
         const Ints order = r.permutation(std::ssize(sizes));
         for (size_t i = 0; i < order.size(); ++i) sizes[i] = nth(x.sizes(), order[i]);
         return GradientCase{{x}, {{"shape", sizes}}};
       }},
      {"transpose",
       [](Random& r) {
         const Ints sizes = r.sizes(r.in(1, 4));
         return GradientCase{{r.reals(sizes)}, {{"perm", r.permutation(std::ssize(sizes))}}};
       }},
      {"slice", sliceCase},
      {"pad", padCase},
      {"concat", concatCase},
      {"split", splitCase},
      {"expand", expandCase},
      {"tile",
       [](Random& r) {
         const Ints sizes = r.sizes(r.in(1, 3));
         return GradientCase{{r.reals(sizes)}, {{"repeats", r.sizes(std::ssize(sizes), 1, 3)}}};
       }},
      {"depth_to_space", [](Random& r) { return depthSpaceCase(r, true); }},
      {"space_to_depth", [](Random& r) { return depthSpaceCase(r, false); }},
      {"resize", resizeCase},
      {"cast", [](Random& r) { return GradientCase{{r.reals(r.sizes(2))}, {{"to", DType::f64}}}; }},
      {"fake_quantize_with", saturatedCase},
      {"gather", gatherCase},
      {"observe", [](Random& r) { return GradientCase{{r.reals(r.sizes(2))}, {{"id", int64_t{0}}}}; }},
      {"gather_elements", gatherElementsCase},
      {"gather_nd", gatherNdCase},
      {"scatter_elements", scatterElementsCase},
      {"scatter_nd", scatterNdCase},
      {"one_hot",
       [](Random& r) { return GradientCase{{r.indices(r.sizes(2), 5), r.reals({2})}, {{"axis", r.in(0, 2)}, {"depth", r.in(1, 5)}}}; }},
      {"trilu", [](Random& r) { return GradientCase{{r.reals(r.sizes(r.in(2, 3)))}, {{"upper", r.in(0, 1)}, {"k", r.in(-2, 2)}}}; }},
      {"reverse_sequence",
       [](Random& r) {
         const Ints sizes = r.sizes(3);
         const int64_t batch = r.in(0, 1);
         Tensor lengths(DType::s64, {nth(sizes, batch)});
         for (int64_t b = 0; b < lengths.numElements(); ++b)
           storeElement(DType::s64, lengths.mutableData(), b, static_cast<double>(r.in(0, nth(sizes, 1 - batch))));
         return GradientCase{{r.reals(sizes), lengths}, {{"batch_axis", batch}, {"time_axis", 1 - batch}}};
       }},
      {"lstm", [](Random& r) { return recurrentCase(r, "lstm"); }},
      {"gru", [](Random& r) { return recurrentCase(r, "gru"); }},
      {"rnn", [](Random& r) { return recurrentCase(r, "rnn"); }},
  };
}

}  // namespace qc::test
