// Twelve small networks as PyTorch's quantizers prepare and convert them, against ours: which edges are observed, by which shared
// observer, and with which parameters after the same calibration.  Where we differ on purpose the list below says why.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "ir/interp.h"
#include "passes/pass_manager.h"
#include "quantizer/group_params.h"
#include "quantizer/pattern_quantizer.h"
#include "quantizer/ranges.h"
#include "vectors.h"

namespace qc {
namespace {

using namespace test;
using nlohmann::json;
using Ints = std::vector<int64_t>;

struct Deviation {
  const char *model, *quantizer, *why;
  bool covers(const json& model, const std::string& name) const {
    const std::string wanted = quantizer;
    return model["model"] == this->model && (wanted == name || (wanted == "any xnnpack" && name.find("xnnpack") != std::string::npos));
  }
};
const Deviation kDeviations[] = {
    {"depthwise_separable", "any xnnpack",
     "clip is fused behind the conv; theirs is observed twice, unclamped values included, which wastes range"},
    {"attention", "xnnpack_per_channel", "transpose takes its input's parameters, as in ExecuTorch's newer quantizer"},
    {"conv_transpose", "xnnpack_per_channel", "transposed convolutions are annotated, as ExecuTorch's newer quantizer does"},
    {"conv_transpose", "xnnpack_per_tensor", "transposed convolutions are annotated, as ExecuTorch's newer quantizer does"},
    {"shared_weight", "any xnnpack", "the second call of a reused linear is fused with its relu; theirs sees the first call only"},
};
const Deviation* deviation(const json& model, const std::string& name) {
  const auto it = std::find_if(std::begin(kDeviations), std::end(kDeviations), [&](const Deviation& d) { return d.covers(model, name); });
  return it == std::end(kDeviations) ? nullptr : it;
}

// ---- The float graph ----------------------------------------------------------------------------

class Importer {
 public:
  explicit Importer(const json& model) : model_(model), builder_(graph_) {}

  Graph run() {
    for (const json& n : model_["float_graph"]) {
      const std::string name = n["name"], op = n["op"];
      if (op == "get_attr") {
        constants_[name] = tensor(n["value"]);
      } else if (op == "placeholder") {
        const json& x = model_["input"];
        values_[name] = graph_.addInput(name, {x["dtype"] == "float32" ? DType::f32 : DType::s64, toShape(x["shape"].get<Ints>())});
      } else if (op == "output") {
        graph_.setOutputs({values_.at(n["args"][0][0]["node"])});
      } else {
        values_[name] = call(n["target"], n["args"], name);
      }
    }
    return std::move(graph_);
  }

  static Tensor tensor(const json& j) {
    if (j["dtype"] == "float32") return Tensor::ofFloats(j["shape"].get<Ints>(), numbers(j["data"]));
    return Tensor::ofInts(j["shape"].get<Ints>(), j["data"].get<Ints>());
  }

 private:
  Value* operand(const json& arg) {
    if (arg.is_null()) return nullptr;
    if (arg.is_number())
      return builder_.constant("_tensor_constant_" + std::to_string(scalars_++), Tensor::ofFloats({}, std::vector{arg.get<float>()}));
    const std::string name = arg["node"];
    if (const auto c = constants_.find(name); c != constants_.end() && !values_.contains(name))
      values_[name] = builder_.constant(name, c->second);
    return values_.at(name);
  }
  static Ints list(const json& args, size_t i, Ints otherwise) { return i < args.size() ? args[i].get<Ints>() : otherwise; }
  static Ints twice(Ints v) {
    const Ints copy = v;
    v.insert(v.end(), copy.begin(), copy.end());
    return v;
  }

  Value* call(const std::string& target, const json& a, const std::string& name) {
    const std::string op = target.substr(5, target.find('.', 5) - 5);
    const auto make = [&](std::string_view ours, std::vector<Value*> operands, AttrDict attrs = {}) {
      return builder_.make(ours, std::move(operands), std::move(attrs), name);
    };
    const auto first = [&](size_t n) {
      std::vector<Value*> operands;
      for (size_t i = 0; i < n; ++i) operands.push_back(i < a.size() ? operand(a[i]) : nullptr);
      while (!operands.empty() && !operands.back()) operands.pop_back();
      return operands;
    };
    if (op == "conv2d")
      return make("conv", first(3),
                  {{"strides", list(a, 3, {1, 1})},
                   {"pads", twice(list(a, 4, {0, 0}))},
                   {"dilations", list(a, 5, {1, 1})},
                   {"group", a.size() > 6 ? a[6].get<int64_t>() : 1}});
    if (op == "conv_transpose2d")
      return make("conv_transpose", first(3), {{"strides", list(a, 3, {1, 1})}, {"pads", twice(list(a, 4, {0, 0}))}});
    if (op == "linear") return make("linear", first(3));
    if (op == "batch_norm") return make("batch_norm", first(5), {{"epsilon", a[7].get<double>()}});
    if (op == "layer_norm")
      return make("layer_norm", {operand(a[0]), operand(a[2]), operand(a[3])},
                  {{"axis", int64_t{operand(a[0])->type().rank() - 1}}, {"epsilon", a[4].get<double>()}});
    if (op == "hardtanh") return make("clip", first(1), {{"min", a[1].get<double>()}, {"max", a[2].get<double>()}});
    if (op == "add" || op == "mul" || op == "matmul") return make(op, first(2));
    if (op == "relu" || op == "sigmoid" || op == "gelu") return make(op, first(1));
    if (op == "softmax") return make("softmax", first(1), {{"axis", operand(a[0])->type().rank() + a[1].get<int64_t>()}});
    if (op == "max_pool2d" || op == "avg_pool2d")
      return make(op.substr(0, 8), first(1), {{"kernel_shape", a[1].get<Ints>()}, {"strides", list(a, 2, a[1].get<Ints>())}});
    if (op == "adaptive_avg_pool2d") return make("reduce_mean", first(1), {{"axes", Ints{2, 3}}});
    if (op == "embedding") return make("gather", first(2), {{"axis", int64_t{0}}});
    const Shape shape = op == "cat" ? Shape() : operand(a[0])->type().shape;
    if (op == "flatten")
      return make("reshape", first(1), {{"shape", Ints{shape[0].size(), numElements(sizesOf(shape)) / shape[0].size()}}});
    if (op == "transpose") return make("transpose", first(1), {{"perm", shape.size() == 3 ? Ints{0, 2, 1} : Ints{0, 1, 3, 2}}});
    if (op == "cat") {
      std::vector<Value*> parts;
      for (const json& part : a[0]) parts.push_back(operand(part));
      return make("concat", parts, {{"axis", a[1].get<int64_t>()}});
    }
    throw std::runtime_error("no form for " + target);
  }

  const json& model_;
  Graph graph_;
  Builder builder_;
  std::map<std::string, Tensor> constants_;
  std::map<std::string, Value*> values_;
  int scalars_ = 0;
};

// ---- Placement ----------------------------------------------------------------------------------

struct Params {
  std::vector<float> scales;
  std::vector<int32_t> zeroPoints;
  bool checked = true;  // false: known at run time only, or float zero points
};
// "consumer:operand <- producer" -> observers in between, nearest to the producer first.
struct Placement {
  std::map<std::string, std::vector<int>> groups;
  std::map<int, Params> params;

  // The same with groups numbered in order of appearance.
  std::map<std::string, std::vector<int>> canonical(std::map<int, int>& numbers) const {
    std::map<std::string, std::vector<int>> result;
    for (const auto& [point, chain] : groups)
      for (const int g : chain) result[point].push_back(numbers.try_emplace(g, static_cast<int>(numbers.size())).first->second);
    return result;
  }
};

std::string pointName(const std::string& consumer, size_t i, const std::string& producer) {
  return consumer + ":" + std::to_string(i) + " <- " + producer;
}

Placement recorded(const json& prepared) {
  Placement p;
  std::map<std::string, const json*> observers;
  for (const json& n : prepared) {
    if (n["op"] == "observer") observers[n["name"]] = &n;
    if (n["op"] != "call_function" && n["op"] != "output") continue;
    size_t i = 0;
    const std::function<void(const json&)> walk = [&](const json& arg) {
      if (arg.is_array()) {
        for (const json& item : arg) walk(item);
        return;
      }
      if (!arg.is_object()) {
        ++i;
        return;
      }
      std::vector<int> chain;
      std::string source = arg["node"];
      for (auto it = observers.find(source); it != observers.end(); it = observers.find(source)) {
        const json& o = *it->second;
        chain.insert(chain.begin(), o["group"].get<int>());
        source = o["args"][0]["node"];
        Params& params = p.params[chain.front()];
        params.checked = !o.value("is_dynamic", false) && o.contains("scale") && !o["scale"].is_null() &&
                         !o["scheme"].get<std::string>().ends_with("float_qparams");
        if (!params.checked) continue;
        params.scales = numbers(o["scale"]);
        params.zeroPoints.clear();
        for (const json& z : o["zero_point"]) params.zeroPoints.push_back(static_cast<int32_t>(z.get<double>()));
      }
      if (!chain.empty()) p.groups[pointName(n["name"], i, source)] = chain;
      ++i;
    };
    for (const json& arg : n["args"]) walk(arg);
  }
  return p;
}

struct Prepared {
  Graph graph;
  GroupParams params;
};

Result<Prepared> prepared(const json& model, Quantizer& quantizer) {
  Prepared p{Importer(model).run(), {}};
  PassContext cx;
  QC_TRY(runPipeline("fold-batch-norm", p.graph, cx));
  if (Value* folded = p.graph.findValue("batch_norm")) {  // the names that PyTorch keeps
    Value* weight = folded->producer()->operand(1);
    p.graph.rename(weight, weight->name().substr(0, weight->name().rfind('_')));
    p.graph.rename(folded, "conv2d");
  }
  QC_TRY(quantizer.annotate(p.graph));
  QC_TRY(quantizer.validate(p.graph));
  QC_TRY(runPipeline("prepare", p.graph, cx));
  QC_ASSIGN(Ranges ranges, Ranges::forGraph(p.graph));
  for (const json& batch : model["calibration"]) {
    const std::vector<Tensor> inputs = {Importer::tensor(batch)};
    const auto observe = [&](const Node& node, std::span<const Tensor> results) -> Status {
      return node.is("observe") ? ranges.observe(node.integer("id"), results[0].ref()) : Status();
    };
    QC_TRY(interpret(p.graph, inputs, {.onNode = observe}));
  }
  QC_ASSIGN(p.params, ranges.params());
  return p;
}

Result<Placement> placementOf(const Prepared& prepared) {
  Placement p;
  int next = 1000;
  std::map<std::string, int> byValue;
  const auto follow = [&](const std::string& consumer, size_t i, const Value* v) {
    std::vector<int> chain;
    while (v->producer() && v->producer()->is("observe")) {
      const int id = static_cast<int>(v->producer()->integer("id"));
      chain.insert(chain.begin(), id);
      Params& params = p.params[id];
      const auto it = prepared.params.find(id);
      params.checked = it != prepared.params.end();
      if (params.checked) params = {it->second->scales, it->second->zeroPoints, true};
      v = v->producer()->operand(0);
    }
    if (!chain.empty()) p.groups[pointName(consumer, i, v->name())] = chain;
  };
  for (const Node* n = prepared.graph.front(); n; n = n->next()) {
    if (n->is("const") || n->is("observe")) continue;
    for (int i = 0; i < n->numOperands(); ++i) {
      if (!n->operand(i)) continue;
      const Tensor* constant = n->operand(i)->constant();
      const auto* a = n->annotation() && i < static_cast<int>(n->annotation()->inputs.size()) ? &nth(n->annotation()->inputs, i) : nullptr;
      const auto* spec = a ? std::get_if<ObservedSpec>(a) : nullptr;
      const bool foundAtRunTime = spec && spec->dynamic;  // has no observer: PyTorch gives it one that does nothing
      if (!constant && !foundAtRunTime) {
        follow(n->result()->name(), usize(i), n->operand(i));
        continue;
      }
      if (!spec) continue;
      const int id = byValue.try_emplace(n->operand(i)->name(), next).first->second;
      next += id == next;
      p.groups[pointName(n->result()->name(), usize(i), n->operand(i)->name())] = {id};
      Params& params = p.params[id];
      params.checked = !foundAtRunTime && spec->scheme != QScheme::floatQparams;
      if (!params.checked) continue;
      QC_ASSIGN(const QuantParams q, observeConstant(*constant, *spec));
      params = {q.scales, q.zeroPoints, true};
    }
  }
  follow("output", 0, prepared.graph.outputs()[0]);
  return p;
}

// ---- Comparison ---------------------------------------------------------------------------------

QConfig withReferenceSearch(QConfig config) {
  config.activation.observer = "histogram";
  config.activation.observerArgs = {};
  config.activation.observerArgs.set("search", std::string("reference"));
  return config;
}
QConfig xnnpackConfig(bool perChannel) {
  QConfig c = withReferenceSearch(defaultQConfig(Backend::xnnpack));
  if (perChannel) return c;
  c.weight.observer = "minmax";
  c.weight.axis = -1;
  return c;
}
QConfig x86Config() {
  QConfig c = withReferenceSearch(defaultQConfig(Backend::x86));
  c.activation.eps = c.weight.eps = kEpsXnnpack;
  return c;
}

std::shared_ptr<Quantizer> quantizerOf(const std::string& name) {
  if (name.starts_with("x86")) {
    auto q = std::make_shared<X86Quantizer>();
    q->setGlobal(x86Config());
    if (name.ends_with("+matmul")) q->setOperatorType("matmul", x86Config());
    return q;
  }
  auto q = std::make_shared<XnnpackQuantizer>();
  QConfig config = xnnpackConfig(!name.ends_with("per_tensor"));
  config.activation.dynamic = name.ends_with("dynamic");
  if (config.activation.dynamic) {
    config.activation.observer = "minmax";
    config.activation.observerArgs = {};
  }
  q->setGlobal(config);
  if (!name.starts_with("embedding")) return q;
  return std::make_shared<ComposableQuantizer>(std::vector<std::shared_ptr<Quantizer>>{std::make_shared<EmbeddingQuantizer>(), q});
}

// What differs, in words; empty: nothing.
std::string difference(const Placement& ours, const Placement& theirs) {
  std::map<int, int> ourNumbers, theirNumbers;
  const auto a = ours.canonical(ourNumbers), b = theirs.canonical(theirNumbers);
  std::string text;
  for (const auto& [point, chain] : a)
    if (const auto it = b.find(point); it == b.end() || it->second != chain)
      text += fmt::format("  ours   {} [{}]\n", point, fmt::join(chain, ","));
  for (const auto& [point, chain] : b)
    if (const auto it = a.find(point); it == a.end() || it->second != chain)
      text += fmt::format("  theirs {} [{}]\n", point, fmt::join(chain, ","));
  if (!text.empty()) return text;
  for (const auto& [id, number] : ourNumbers) {
    const auto their = std::find_if(theirNumbers.begin(), theirNumbers.end(), [n = number](const auto& t) { return t.second == n; });
    const Params &x = ours.params.at(id), &y = theirs.params.at(their->first);
    if (!x.checked || !y.checked) continue;
    for (size_t c = 0; c < y.scales.size(); ++c) {
      const float scale = x.scales[x.scales.size() == 1 ? 0 : c];
      const int32_t zp = x.zeroPoints[x.zeroPoints.size() == 1 ? 0 : c];
      if (std::abs(scale - y.scales[c]) > 1e-5f * y.scales[c] || std::abs(zp - y.zeroPoints[c]) > 1)
        text += fmt::format("  group {}: ours {} {}, theirs {} {}\n", number, scale, zp, y.scales[c], y.zeroPoints[c]);
    }
  }
  return text;
}

TEST(RecordedGraphs, PlacementAndParameters) {
  QC_VECTORS(file, "graphs");
  std::set<const Deviation*> used;
  int same = 0;
  for (const json& model : file["models"]) {
    for (const json& q : model["quantized"]) {
      const std::string name = q["quantizer"], title = model["model"].get<std::string>() + " by " + name;
      const auto ours = prepared(model, *quantizerOf(name));
      ASSERT_TRUE(ours) << title << ": " << ours.error().render();
      const auto placement = placementOf(*ours);
      ASSERT_TRUE(placement) << title << ": " << placement.error().render();
      const std::string text = difference(*placement, recorded(q["prepared"]));
      const Deviation* known = deviation(model, name);
      if (known && !text.empty()) {
        used.insert(known);
        continue;
      }
      EXPECT_EQ(text, "") << title;
      same += text.empty();
    }
  }
  EXPECT_EQ(used.size(), std::size(kDeviations)) << "a listed deviation is none any more";
  EXPECT_GE(same, 30);
}

// The converted graph computes what PyTorch's does.
TEST(RecordedGraphs, ConvertedOutputs) {
  QC_VECTORS(file, "graphs");
  size_t off = 0, total = 0;
  for (const json& model : file["models"]) {
    for (const json& q : model["quantized"]) {
      const std::string name = q["quantizer"], title = model["model"].get<std::string>() + " by " + name;
      if (deviation(model, name)) continue;
      if (name.ends_with("dynamic")) continue;  // parameters of run time: tested with the dynamic ops
      auto ours = prepared(model, *quantizerOf(name));
      ASSERT_TRUE(ours) << title;
      PassContext cx;
      cx.provide(GroupParams(ours->params));
      const Status converted = runPipeline("convert", ours->graph, cx);
      ASSERT_TRUE(converted) << title << ": " << converted.error().render();
      const auto y = interpret(ours->graph, std::vector<Tensor>{Importer::tensor(model["input"])});
      ASSERT_TRUE(y) << title << ": " << y.error().render();
      float coarsest = 0;
      for (const auto& [id, params] : ours->params) coarsest = std::max(coarsest, params->scale());
      const auto expected = numbers(q["output"]["data"]);
      double worst = 0;
      total += expected.size();
      for (size_t i = 0; i < expected.size(); ++i) {
        const double d = std::abs(static_cast<double>((*y)[0].as<float>()[i]) - expected[i]);
        worst = std::max(worst, d);
        off += d > 1e-5;
      }
      EXPECT_LE(worst, 2 * coarsest + 1e-6) << title;
    }
  }
  EXPECT_LE(off * 10, total) << "more than ties: we divide by the scale, they multiply by its reciprocal";
}

}  // namespace
}  // namespace qc
