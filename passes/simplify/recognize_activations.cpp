// recognize-activations: exporters write some functions as several ops; this pass puts the one op back, so that it can
// be fused, tabulated and reported under its own name.  Forms: HardSwish, HardSigmoid, SiLU, GELU, Mish, LayerNorm.
// Tests: tests/golden/recognize_activations.
#include <cmath>

#include "passes/graph_util.h"
#include "passes/passes.h"
#include "passes/simplify/apply_rules.h"

namespace qc {
namespace {

constexpr double kTolerance = 1e-5;

// Whether a number is the expected one, or what a model of float16 or bfloat16 has in its place: that is next to it, not near it.
bool isNumber(double value, double expected, double tolerance) {
  const auto narrowed = [&](DType dtype) {
    Tensor t(dtype, {});
    storeElement(dtype, t.mutableData(), 0, expected);
    return t.at(0);
  };
  return std::fabs(value - expected) <= tolerance || value == narrowed(DType::f16) || value == narrowed(DType::bf16);
}
bool isNumber(const Value* value, double expected) {
  const auto v = scalarConstant(value);
  return v && isNumber(*v, expected, kTolerance);
}

Result<bool> replaceBy(Rewriter& rw, Node* root, std::string_view name, Value* x, AttrDict attrs = {}) {
  if (x->type() != root->result()->type()) return false;
  QC_ASSIGN(Value * y, rw.before(root).create(name, {x}, std::move(attrs)));
  rw.replace(root, {y});
  return true;
}

// clip(x + 3, 0, 6), the heart of the hard functions
Pattern shiftedRelu6() {
  return op("clip", {op("add", {any("x"), constant("three")}).oneUse()}).where([](const Node& n) {
    return n.real("min") == 0 && n.real("max") == 6;
  });
}

bool sameX(const Match& m) { return m["x"] == m["x2"] && isScalar(m["three"], 3); }

Result<bool> hardSwish(const Match& m, Rewriter& rw) {
  if (!sameX(m) || !isNumber(m["six"], m.root()->is("div") || m.node("scaled")->is("div") ? 6 : 1.0 / 6)) return false;
  return replaceBy(rw, m.root(), "hardswish", m["x"]);
}

Result<bool> hardSigmoid(const Match& m, Rewriter& rw) {
  if (!isScalar(m["three"], 3) || !isNumber(m["six"], m.root()->is("div") ? 6 : 1.0 / 6)) return false;
  return replaceBy(rw, m.root(), "hardsigmoid", m["x"], {{"alpha", 1.0 / 6}, {"beta", 0.5}});
}

Result<bool> hardSwishOfSigmoid(const Match& m, Rewriter& rw) {
  const Node* h = m.node("h");
  if (m["x"] != m["x2"] || std::fabs(h->real("alpha") - 1.0 / 6) > kTolerance || h->real("beta") != 0.5) return false;
  return replaceBy(rw, m.root(), "hardswish", m["x"]);
}

template <const char* name>
Result<bool> gated(const Match& m, Rewriter& rw) {
  if (m["x"] != m["x2"]) return false;
  return replaceBy(rw, m.root(), name, m["x"]);
}
constexpr char kSilu[] = "silu";
constexpr char kMish[] = "mish";

// 0.5 * x * (1 + erf(x / sqrt(2))) in the orders that exporters use
Result<bool> gelu(const Match& m, Rewriter& rw) {
  const Node* inner = m["t"]->producer();
  const bool divides = inner->is("div");
  if (inner->operand(0) != m["x"] || !isScalar(m["one"], 1) || !isScalar(m["half"], 0.5)) return false;
  if (!isNumber(inner->operand(1), divides ? std::sqrt(2.0) : std::sqrt(0.5))) return false;
  return replaceBy(rw, m.root(), "gelu", m["x"]);
}

// A product taken apart: number * x^power * rest, where `rest` is at most one other value.
struct Product {
  double number = 1;
  int power = 0;
  Value* rest = nullptr;
};
bool takeApart(Value* v, const Value* x, Product& p, int depth = 6) {
  if (v == x) {
    ++p.power;
    return true;
  }
  if (const auto c = scalarConstant(v)) {
    p.number *= *c;
    return true;
  }
  const Node* n = v->producer();
  if (n && n->is("mul") && depth > 0) return takeApart(n->operand(0), x, p, depth - 1) && takeApart(n->operand(1), x, p, depth - 1);
  if (n && n->is("pow") && n->operand(0) == x && isScalar(n->operand(1), 3)) {
    p.power += 3;
    return true;
  }
  if (p.rest) return false;
  p.rest = v;
  return true;
}

bool close(double value, double expected) { return isNumber(value, expected, 1e-4 * expected); }

// 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))), the products in any order; `last` is the add of 1
Result<bool> geluTanh(Rewriter& rw, Node* root, Value* last) {
  const Node* sum = last->producer();
  const int one = scalarConstant(sum->operand(0)) ? 0 : 1;
  const Node* tanh = sum->operand(1 - one)->producer();
  if (!isScalar(sum->operand(one), 1) || !tanh || !tanh->is("tanh")) return false;
  Product inner;
  if (!takeApart(tanh->operand(0), nullptr, inner) || !close(inner.number, 0.7978845608) || !inner.rest) return false;
  const Node* polynomial = inner.rest->producer();
  if (!polynomial || !polynomial->is("add")) return false;
  for (const int i : {0, 1}) {
    Value* x = polynomial->operand(i);
    Product cubic, outer;
    if (!takeApart(polynomial->operand(1 - i), x, cubic) || cubic.power != 3 || cubic.rest || !close(cubic.number, 0.044715)) continue;
    if (!takeApart(root->result(), x, outer) || outer.power != 1 || outer.rest != last || !close(outer.number, 0.5)) continue;
    return replaceBy(rw, root, "gelu", x, {{"approximate", "tanh"}});
  }
  return false;
}

Result<bool> geluTanhOfProduct(const Match& m, Rewriter& rw) {
  // The factor with the tanh is at most two products down.
  for (Value* a : m.root()->operands()) {
    std::vector<Value*> candidates = {a};
    if (a->producer() && a->producer()->is("mul")) {
      const auto inner = a->producer()->operands();
      candidates.insert(candidates.end(), inner.begin(), inner.end());
    }
    for (Value* c : candidates) {
      if (!c->producer() || !c->producer()->is("add")) continue;
      QC_ASSIGN(const bool done, geluTanh(rw, m.root(), c));
      if (done) return true;
    }
  }
  return false;
}

// (x - mean(x)) / sqrt(mean((x - mean)^2) + eps) over the last axes
Result<bool> layerNorm(const Match& m, Rewriter& rw) {
  Node* root = m.root();
  const Node* mean = m.node("mean");
  const Node* square = m.node("square");
  const Node* variance = m.node("variance");
  Value* x = m["x"];
  if (m["x2"] != x) return false;
  if (square->is("pow") ? !isScalar(square->operand(1), 2) : square->operand(1) != m["d"]) return false;
  if (square->operand(0) != m["d"]) return false;
  const auto& axes = mean->integers("axes");
  const int rank = x->type().rank();
  if (axes != variance->integers("axes") || axes.empty() || mean->integer("keepdims") != 1 || variance->integer("keepdims") != 1)
    return false;
  for (size_t i = 0; i < axes.size(); ++i)
    if (axes[i] != rank - static_cast<int64_t>(axes.size()) + static_cast<int64_t>(i)) return false;
  const auto epsilon = scalarConstant(m["eps"]);
  if (!epsilon || *epsilon < 0) return false;
  QC_ASSIGN(Value * y, rw.before(root).create("layer_norm", {x}, {{"axis", axes.front()}, {"epsilon", *epsilon}}));
  rw.replace(root, {y});
  return true;
}

// layer_norm(x) * gamma (+ beta) with constants over the normalised axes
Result<bool> layerNormAffine(const Match& m, Rewriter& rw) {
  Node* root = m.root();
  const Node* norm = m.node("norm");
  const bool isScale = root->is("mul");
  if (isScale ? norm->operand(1) != nullptr || norm->operand(2) != nullptr : norm->operand(1) == nullptr || norm->operand(2) != nullptr)
    return false;
  const auto& shape = norm->result()->type().shape;
  const auto axis = usize(norm->integer("axis"));
  const std::vector<int64_t> normalised = sizesOf(Shape(shape.begin() + static_cast<ptrdiff_t>(axis), shape.end()));
  const Tensor* c = floatConstant(m["c"]);
  if (!c || c->numElements() != numElements(normalised) || root->result()->type() != norm->result()->type()) return false;
  Builder b = rw.before(root);
  QC_ASSIGN(Value * parameter, b.create("reshape", {m["c"]}, {{"shape", normalised}}));
  QC_ASSIGN(Value * y, b.create("layer_norm", {norm->operand(0), isScale ? parameter : norm->operand(1), isScale ? nullptr : parameter},
                                norm->attrs()));
  rw.replace(root, {y});
  return true;
}

std::vector<RewriteRule> activationRules() {
  const auto erfPart = [] { return op("add", {op("erf", {oneOf({"div", "mul"}).as("t")}).oneUse(), constant("one")}).oneUse(); };
  return {
      {"hardswish", oneOf({"div", "mul"}, {op("mul", {any("x2"), shiftedRelu6().oneUse()}).as("scaled").oneUse(), constant("six")}),
       hardSwish},
      {"hardswish-inner", op("mul", {any("x2"), oneOf({"div", "mul"}, {shiftedRelu6().oneUse(), constant("six")}).as("scaled").oneUse()}),
       hardSwish},
      {"hardsigmoid", oneOf({"div", "mul"}, {shiftedRelu6().oneUse(), constant("six")}), hardSigmoid},
      {"hardswish-sigmoid", op("mul", {any("x2"), op("hardsigmoid", {any("x")}).as("h").oneUse()}), hardSwishOfSigmoid},
      {"silu", op("mul", {any("x2"), op("sigmoid", {any("x")}).oneUse()}), gated<kSilu>},
      {"mish", op("mul", {any("x2"), op("tanh", {op("softplus", {any("x")}).oneUse()}).oneUse()}), gated<kMish>},
      {"gelu-half-last", op("mul", {op("mul", {any("x"), erfPart()}).as("p").oneUse(), constant("half")}), gelu},
      {"gelu-half-first", op("mul", {op("mul", {any("x"), constant("half")}).oneUse(), erfPart()}), gelu},
      {"gelu-half-inner", op("mul", {any("x"), op("mul", {erfPart(), constant("half")}).oneUse()}), gelu},
      {"gelu-tanh", op("mul"), geluTanhOfProduct},
      {"layer-norm",
       op("div", {op("sub", {any("x"), op("reduce_mean", {any("x2")}).as("mean")}).as("d"),
                  op("sqrt",
                     {op("add", {op("reduce_mean", {oneOf({"pow", "mul"}).as("square").oneUse()}).as("variance").oneUse(), constant("eps")})
                          .oneUse()})
                      .oneUse()}),
       layerNorm},
      {"layer-norm-affine", oneOf({"mul", "add"}, {op("layer_norm").as("norm").oneUse(), constant("c")}), layerNormAffine},
  };
}

}  // namespace

Status recognizeActivations(Graph& graph, PassContext& cx) {
  static const std::vector<RewriteRule> kRules = activationRules();
  return applyRules(kRules, graph, cx);
}

}  // namespace qc
