#include "frontend/onnx/dim_values.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

#include "ir/dim_expr_terms.h"
#include "ir/interp.h"
#include "ir/op_def.h"
#include "ir/ops/broadcast.h"
#include "ir/ops/resize.h"

namespace qc {
namespace {

constexpr int64_t kMaxElements = 256;  // shapes, starts, pads and grids of them

// Floats hold whole numbers here: sizes that exporters cast, scale and cast back.
bool isReal(DType dtype) { return dtype == DType::f32 || dtype == DType::f64; }
bool isCounting(DType dtype) { return dtype == DType::s64 || dtype == DType::s32 || isReal(dtype); }

// Whether a < b (below), a == b (equal) for all sizes; nothing: some decide otherwise.
std::optional<bool> isBelow(const DimExpr& a, const DimExpr& b) {
  if ((b - a - 1).isNonNegative()) return true;
  if ((a - b).isNonNegative()) return false;
  return std::nullopt;
}
std::optional<bool> isEqual(const DimExpr& a, const DimExpr& b) {
  if (a == b) return true;
  if (isBelow(a, b).value_or(false) || isBelow(b, a).value_or(false)) return false;
  return std::nullopt;
}

using Maybe = std::optional<DimExpr>;
Maybe known(const DimExpr& e) { return e.isUnknown() ? std::nullopt : Maybe(e); }
Maybe truth(std::optional<bool> holds) { return holds ? Maybe(DimExpr(*holds ? 1 : 0)) : std::nullopt; }

// Integers are divided towards 0. That is the floor where neither is negative, or nothing is left; where the numerator is no further below
// 0 than a rest may be, as in the (size - 1) / 2 + 1 of a strided layer, it is so for the sizes that layers take.
Maybe truncated(const DimExpr& a, const DimExpr& b, const TakeWay& isTaken) {
  if ((a.isNonNegative() && b.isNonNegative()) || mod(a, b) == 0) return known(floorDiv(a, b));
  if ((-a).isNonNegative() && b.isNonNegative()) return known(-floorDiv(-a, b));
  if (!b.constant() || *b.constant() < 2 || !(a + *b.constant() - 1).isNonNegative()) return std::nullopt;
  return isTaken({Assumption::Kind::atMost, 0, a, {}}) ? known(floorDiv(a, b)) : DimExpr(0);
}

Maybe evaluate(const ScalarExpr& e, std::span<const DimExpr> args, DType dtype, const TakeWay& isTaken) {
  using Op = ScalarExpr::Op;
  if (e.op() == Op::arg) return args[usize(e.argIndex())];
  if (e.op() == Op::constant) {
    const double value = e.value();
    return value == std::floor(value) && std::abs(value) < 1e15 ? Maybe(DimExpr(static_cast<int64_t>(value))) : std::nullopt;
  }
  std::vector<Maybe> v;
  for (const ScalarExpr& operand : e.operands()) v.push_back(evaluate(operand, args, dtype, isTaken));
  // Only the operand that is taken needs to be known.
  if (e.op() == Op::select) {
    if (!v[0] || !v[0]->constant()) return v[1] && v[2] && *v[1] == *v[2] ? v[1] : std::nullopt;
    return *v[0]->constant() != 0 ? v[1] : v[2];
  }
  if (!std::all_of(v.begin(), v.end(), [](const Maybe& m) { return m.has_value(); })) return std::nullopt;
  switch (e.op()) {
    case Op::neg: return known(-*v[0]);
    case Op::abs: return v[0]->isNonNegative() ? v[0] : std::nullopt;
    case Op::add: return known(*v[0] + *v[1]);
    case Op::sub: return known(*v[0] - *v[1]);
    case Op::mul: return known(*v[0] * *v[1]);
    case Op::floor:
    case Op::ceil:
    case Op::round: return v[0];
    case Op::div:
      if (isReal(dtype)) return mod(*v[0], *v[1]) == 0 ? known(floorDiv(*v[0], *v[1])) : std::nullopt;
      return truncated(*v[0], *v[1], isTaken);
    case Op::min: return known(min(*v[0], *v[1]));
    case Op::max: return known(max(*v[0], *v[1]));
    case Op::lt: return truth(isBelow(*v[0], *v[1]));
    case Op::le: {
      const auto above = isBelow(*v[1], *v[0]);
      return above ? truth(!*above) : std::nullopt;
    }
    case Op::eq: return truth(isEqual(*v[0], *v[1]));
    case Op::call: return std::string_view(e.function().name) == "mod" && !isReal(dtype) ? known(mod(*v[0], *v[1])) : std::nullopt;
    default: return std::nullopt;
  }
}

std::optional<DimValues> elementwise(const Node& node, const std::vector<DimValues>& operands, const TakeWay& isTaken) {
  const ScalarExpr formula = node.def().scalar(node.attrs());
  const TensorType& type = node.result()->type();
  DimValues result{type.dtype, type.sizes(), {}};
  std::vector<BroadcastView> views;
  for (const DimValues& operand : operands) views.emplace_back(result.sizes, operand.sizes);
  for (int64_t i = 0; i < type.numElements(); ++i) {
    std::vector<DimExpr> args;
    for (size_t k = 0; k < operands.size(); ++k) args.push_back(nth(operands[k].elements, views[k].offset(i)));
    const Maybe element = evaluate(formula, args, operands[0].dtype, isTaken);
    if (!element) return std::nullopt;
    result.elements.push_back(*element);
  }
  return result;
}

// The op on numbers that stand for elements: what it moves where says what becomes of these.
Result<std::optional<std::vector<DimValues>>> moved(const Node& node, const std::vector<DimValues>& operands) {
  std::vector<DimExpr> all;
  std::vector<Tensor> numbers;
  std::vector<const Tensor*> given;
  numbers.reserve(operands.size());
  for (int i = 0; i < node.numOperands(); ++i) {
    if (node.is("gather") && i == 1) {  // places, not data
      given.push_back(node.operand(1)->constant());
      if (!given.back()) return std::nullopt;
      continue;
    }
    const DimValues& operand = nth(operands, i);
    Tensor& t = numbers.emplace_back(operand.dtype, operand.sizes);
    for (int64_t k = 0; k < t.numElements(); ++k) storeElement(t.dtype(), t.mutableData(), k, static_cast<double>(std::ssize(all) + k));
    all.insert(all.end(), operand.elements.begin(), operand.elements.end());
    given.push_back(&t);
  }
  QC_ASSIGN(const std::vector<Tensor> results, evaluateNode(node, given));
  std::vector<DimValues> values;
  for (const Tensor& t : results) {
    DimValues& v = values.emplace_back(DimValues{t.dtype(), t.sizes(), {}});
    for (const int64_t place : t.toInts()) v.elements.push_back(nth(all, place));
  }
  return std::optional(std::move(values));
}

using Join = DimExpr (*)(const DimExpr&, const DimExpr&);
Join reductionOf(std::string_view op) {
  static const std::map<std::string_view, Join> kJoins = {
      {"reduce_sum", [](const DimExpr& a, const DimExpr& b) { return a + b; }},
      {"reduce_prod", [](const DimExpr& a, const DimExpr& b) { return a * b; }},
      {"reduce_min", [](const DimExpr& a, const DimExpr& b) { return min(a, b); }},
      {"reduce_max", [](const DimExpr& a, const DimExpr& b) { return max(a, b); }},
  };
  const auto it = kJoins.find(op);
  return it == kJoins.end() ? nullptr : it->second;
}

// Of all elements to one.
std::optional<DimValues> reduced(const Node& node, const DimValues& x, Join join) {
  const TensorType& type = node.result()->type();
  if (type.numElements() != 1 || x.elements.empty()) return std::nullopt;
  DimExpr total = x.elements.front();
  for (const DimExpr& e : std::span(x.elements).subspan(1)) total = join(total, e);
  return total.isUnknown() ? std::nullopt : std::optional(DimValues{x.dtype, type.sizes(), {total}});
}

// Floats that are whole numbers times or through a constant, perhaps with whole numbers added, rounded down (a cast to integers among them,
// of what is not negative) or up.
std::optional<DimValues> rounded(const Node& node) {
  const bool casts = node.is("cast") && (node.result()->type().dtype == DType::s64 || node.result()->type().dtype == DType::s32);
  if (!casts && !node.is("floor") && !node.is("ceil")) return std::nullopt;
  const auto keepsReal = [](const Node& n) {
    return n.is("cast") && isReal(n.operand(0)->type().dtype) && n.result()->type().dtype == n.operand(0)->type().dtype;
  };
  std::vector<std::pair<DimValues, int>> added;  // and its sign
  const Node* scaled = node.operand(0)->producer();
  while (scaled && (keepsReal(*scaled) || scaled->is("add") || scaled->is("sub"))) {
    int at = 0;
    if (!scaled->is("cast")) {
      at = scaled->is("add") && dimValuesOf(scaled->operand(0)) ? 1 : 0;
      auto whole = dimValuesOf(scaled->operand(1 - at));
      if (!whole) return std::nullopt;
      added.emplace_back(*std::move(whole), scaled->is("sub") ? -1 : 1);
    }
    scaled = scaled->operand(at)->producer();
  }
  const bool divides = scaled && scaled->is("div");
  if (!divides && (!scaled || !scaled->is("mul"))) return std::nullopt;
  const int at = followsFromDims(scaled->operand(0)) ? 0 : 1;
  const Tensor* factors = scaled->operand(1 - at)->constant();
  if (!factors || !isReal(factors->dtype()) || !followsFromDims(scaled->operand(at)) || (divides && at == 1)) return std::nullopt;
  const DimValues dims = *dimValuesOf(scaled->operand(at));
  const TensorType& type = node.result()->type();
  DimValues result{type.dtype, type.sizes(), {}};
  const bool up = node.is("ceil");
  const BroadcastView ofDims(result.sizes, dims.sizes), ofFactors(result.sizes, factors->sizes());
  for (int64_t i = 0; i < type.numElements(); ++i) {
    const DimExpr& dim = nth(dims.elements, ofDims.offset(i));
    const double factor = factors->at(ofFactors.offset(i));
    std::optional<std::pair<int64_t, int64_t>> fraction;
    if (!divides) fraction = factors->dtype() == DType::f32 ? fractionOf(static_cast<float>(factor), up) : fractionOf(factor, up);
    if (divides && factor >= 1 && factor <= (1 << 20) && factor == std::floor(factor)) fraction = {1, static_cast<int64_t>(factor)};
    if (!fraction || (!divides && !dim.isNonNegative())) return std::nullopt;
    const DimExpr numerator = dim * fraction->first;
    DimExpr element = up ? ceilDiv(numerator, fraction->second) : floorDiv(numerator, fraction->second);
    for (const auto& [whole, sign] : added)
      element = element + nth(whole.elements, BroadcastView(result.sizes, whole.sizes).offset(i)) * sign;
    if (element.isUnknown() || (casts && !element.isNonNegative())) return std::nullopt;
    result.elements.push_back(std::move(element));
  }
  return result;
}

}  // namespace

bool followsFromDims(const Value* v) { return v && v->producer() && v->producer()->is("dims"); }

std::optional<DimValues> dimValuesOf(const Value* v) {
  if (!v) return std::nullopt;
  if (followsFromDims(v)) return DimValues{v->type().dtype, v->type().sizes(), v->producer()->attrs().dims("values")};
  const Tensor* t = v->constant();
  if (!t || !(isCounting(t->dtype()) || t->dtype() == DType::boolean) || t->numElements() > kMaxElements) return std::nullopt;
  constexpr double kExact = 1 << 24;  // whole numbers of float32, and enough of double
  for (int64_t i = 0; isReal(t->dtype()) && i < t->numElements(); ++i)
    if (!(std::abs(t->at(i)) <= kExact) || t->at(i) != std::floor(t->at(i)) || (t->at(i) == 0 && std::signbit(t->at(i))))
      return std::nullopt;
  const std::vector<int64_t> values = t->toInts();
  return DimValues{t->dtype(), t->sizes(), {values.begin(), values.end()}};
}

Value* makeDimValues(Builder& b, const DimValues& values) {
  if (const auto sizes = constants(values.elements)) {
    if (values.dtype == DType::s64) return b.constant({}, Tensor::ofInts(values.sizes, *sizes));
    Tensor t(values.dtype, values.sizes);
    for (int64_t i = 0; i < t.numElements(); ++i) storeElement(t.dtype(), t.mutableData(), i, static_cast<double>(nth(*sizes, i)));
    return b.constant({}, std::move(t));
  }
  return b.make("dims", {}, {{"values", values.elements}, {"shape", values.sizes}, {"dtype", values.dtype}});
}

SymbolSizes unlikeSizes(const std::set<std::string>& symbols, int64_t first) {
  SymbolSizes sizes;
  for (const std::string& symbol : symbols) sizes.emplace(symbol, first + 4 * std::ssize(sizes));
  return sizes;
}

DimExpr product(std::span<const DimExpr> dims) { return std::accumulate(dims.begin(), dims.end(), DimExpr(1), std::multiplies<>()); }

Result<std::optional<std::vector<DimValues>>> foldDims(const Node& node, const TakeWay& isTaken) {
  const std::vector<Value*> inputs = node.operands();
  if (auto sizes = rounded(node)) return std::optional(std::vector{std::move(*sizes)});
  if (std::none_of(inputs.begin(), inputs.end(), followsFromDims)) return std::nullopt;
  std::vector<DimValues> operands;
  for (const Value* v : inputs) {
    auto values = dimValuesOf(v);
    if (!values) return std::nullopt;
    operands.push_back(std::move(*values));
  }
  if (!node.def().has(kPure)) return std::nullopt;
  for (int i = 0; i < node.numResults(); ++i) {
    const TensorType& type = node.result(i)->type();
    if (!type.isStatic() || type.numElements() > kMaxElements || !(isCounting(type.dtype) || type.dtype == DType::boolean))
      return std::nullopt;
  }
  if (node.is("gather") || (node.def().has(kMovesData) && !node.is("pad"))) return moved(node, operands);
  std::optional<DimValues> one;
  if (node.def().scalar) one = elementwise(node, operands, isTaken);
  if (node.is("cast") && isCounting(node.result()->type().dtype))
    one = DimValues{node.result()->type().dtype, operands[0].sizes, operands[0].elements};
  if (const Join join = reductionOf(node.op())) one = reduced(node, operands[0], join);
  if (!one) return std::nullopt;
  // A truth that is not known is not an integer.
  if (one->dtype == DType::boolean && !constants(one->elements)) return std::nullopt;
  return std::optional(std::vector{std::move(*one)});
}

std::optional<Assumption> comparisonOf(const Value* truth) {
  using Kind = Assumption::Kind;
  const Node* node = truth->producer();
  if (!node || truth->type().dtype != DType::boolean) return std::nullopt;
  if (node->is("not")) {
    auto inner = comparisonOf(node->operand(0));
    return inner ? std::optional(inner->negated()) : std::nullopt;
  }
  const auto one = [&](int i) -> Maybe {
    const auto values = dimValuesOf(node->operand(i));
    return values && values->elements.size() == 1 ? known(values->elements[0]) : std::nullopt;
  };
  if (node->is("cast") || node->is("reshape")) {
    if (node->operand(0)->type().dtype == DType::boolean) return comparisonOf(node->operand(0));
    const Maybe size = one(0);
    return size ? std::optional(Assumption{Kind::differ, *size, 0, {}}) : std::nullopt;
  }
  if (node->numOperands() != 2) return std::nullopt;
  const Maybe a = one(0), b = one(1);
  if (!a || !b) return std::nullopt;
  if (node->is("equal")) return Assumption{Kind::equal, *a, *b, {}};
  if (node->is("less")) return Assumption{Kind::atMost, *a + 1, *b, {}};
  if (node->is("less_equal")) return Assumption{Kind::atMost, *a, *b, {}};
  if (node->is("greater")) return Assumption{Kind::atMost, *b + 1, *a, {}};
  if (node->is("greater_equal")) return Assumption{Kind::atMost, *b, *a, {}};
  return std::nullopt;
}

bool asksForElements(const Assumption& comparison) {
  if (comparison.kind == Assumption::Kind::atMost || comparison.right != 0) return false;
  const std::vector<DimTerm> terms = dimTerms(comparison.left);
  const auto isSize = [](const DimFactor& f) { return f.kind == DimFactor::Kind::symbol; };
  return terms.size() == 1 && std::all_of(terms[0].factors.begin(), terms[0].factors.end(), isSize);
}

}  // namespace qc
