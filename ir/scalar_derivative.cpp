// One sweep over the tree; the rule of each operator once, named functions by their row.
#include "ir/scalar_derivative.h"

#include "ir/expr_internal.h"

namespace qc {
namespace {

using E = ScalarExpr;
using Op = ScalarExpr::Op;
using Args = std::span<const ScalarExpr>;

bool is(const E& e, float value) { return e.op() == Op::constant && e.value() == value; }
bool isZero(const E& e) { return is(e, 0); }

// The operators with what is known of 0 and 1 taken out: most parts of a derivative are one of them.
E plus(const E& a, const E& b) { return isZero(a) ? b : isZero(b) ? a : a + b; }
E minus(const E& a) { return isZero(a) ? a : a.op() == Op::constant ? E(-a.value()) : -a; }
E minus(const E& a, const E& b) { return isZero(b) ? a : isZero(a) ? minus(b) : a - b; }
E times(const E& a, const E& b) {
  if (isZero(a) || isZero(b)) return 0.f;
  return is(a, 1) ? b : is(b, 1) ? a : a * b;
}
E over(const E& a, const E& b) { return isZero(a) ? a : a / b; }
E choose(const E& condition, const E& a, const E& b) {
  const bool same = a.op() == Op::constant ? is(b, a.value()) : a.id() == b.id();
  return same ? a : expr::select(condition, a, b);
}

// Of a where it is the one that counts, else of b.
struct Chosen {
  const E &a, &da, &b, &db;
  E when(const E& aCounts, const E& bCounts) const {
    if (a.op() == Op::constant) return choose(bCounts, db, 0.f);
    if (b.op() == Op::constant) return choose(aCounts, da, 0.f);
    if (isZero(da) && isZero(db)) return 0.f;
    return choose(expr::eq(a, b), times(0.5f, plus(da, db)), choose(aCounts, da, db));
  }
};

// ---- named functions ----

E call(const char* function, const E& x) { return E::call(function, {x}); }

E ofTanh(Args a, int) {
  const E t = call("tanh", a[0]);
  return 1.f - t * t;
}
E ofSigmoid(Args a, int) {
  const E s = call("sigmoid", a[0]);
  return s * (1.f - s);
}
E ofTan(Args a, int) {
  const E t = call("tan", a[0]);
  return 1.f + t * t;
}
// By the base y x^(y - 1), 0 for an exponent of 0; by the exponent x^y log x, 0 for a base of 0.
E ofPow(Args a, int index) {
  const E &x = a[0], &y = a[1];
  if (index == 1) return expr::select(expr::eq(x, 0.f), 0.f, E::call("pow", {x, y}) * call("log", x));
  if (y.op() == Op::constant) return y.value() == 0 ? E(0.f) : y * E::call("pow", {x, y.value() - 1.f});
  return expr::select(expr::eq(y, 0.f), 0.f, y * E::call("pow", {x, y - 1.f}));
}
E root(const E& x) { return expr::unary(Op::sqrt, x); }

// By args[index].
struct DerivativeRow {
  std::string_view function;
  E (*derivative)(Args args, int index);
};
constexpr DerivativeRow kRows[] = {
    {"exp", [](Args a, int) { return call("exp", a[0]); }},
    {"expm1", [](Args a, int) { return call("exp", a[0]); }},
    {"log", [](Args a, int) { return 1.f / a[0]; }},
    {"log1p", [](Args a, int) { return 1.f / (1.f + a[0]); }},
    {"tanh", ofTanh},
    {"sigmoid", ofSigmoid},
    {"erf", [](Args a, int) { return 1.1283792f * call("exp", -(a[0] * a[0])); }},
    {"normal_cdf", [](Args a, int) { return 0.3989423f * call("exp", -0.5f * (a[0] * a[0])); }},
    {"sin", [](Args a, int) { return call("cos", a[0]); }},
    {"cos", [](Args a, int) { return -call("sin", a[0]); }},
    {"tan", ofTan},
    {"asin", [](Args a, int) { return 1.f / root((1.f - a[0]) * (1.f + a[0])); }},
    {"acos", [](Args a, int) { return -1.f / root((1.f - a[0]) * (1.f + a[0])); }},
    {"atan", [](Args a, int) { return 1.f / (1.f + a[0] * a[0]); }},
    {"sinh", [](Args a, int) { return call("cosh", a[0]); }},
    {"cosh", [](Args a, int) { return call("sinh", a[0]); }},
    {"asinh", [](Args a, int) { return 1.f / root(a[0] * a[0] + 1.f); }},
    {"acosh", [](Args a, int) { return 1.f / root((a[0] - 1.f) * (a[0] + 1.f)); }},
    {"atanh", [](Args a, int) { return 1.f / ((1.f - a[0]) * (1.f + a[0])); }},
    {"pow", ofPow},
    {"fmod", [](Args a, int i) { return i == 0 ? E(1.f) : -expr::unary(Op::trunc, a[0] / a[1]); }},
    {"mod", [](Args a, int i) { return i == 0 ? E(1.f) : -expr::unary(Op::floor, a[0] / a[1]); }},
};

E ofCall(const E& e, int index) {
  const DerivativeRow* row =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const DerivativeRow& r) { return r.function == e.function().name; });
  QC_CHECK(row != std::end(kRows), "no derivative of {}", e.function().name);
  return row->derivative(e.operands(), index);
}

// The derivative of one operator, of those of its operands.
E rule(const E& e, std::span<const E> d) {
  const auto x = e.operands();
  switch (e.op()) {
    case Op::arg:
    case Op::constant:
    case Op::floor:
    case Op::ceil:
    case Op::round:
    case Op::trunc:
    case Op::exponent:
    case Op::lt:
    case Op::le:
    case Op::eq: return 0.f;
    case Op::neg: return minus(d[0]);
    case Op::abs: return times(expr::select(expr::lt(0.f, x[0]), 1.f, expr::select(expr::lt(x[0], 0.f), -1.f, 0.f)), d[0]);
    case Op::sqrt: return over(times(0.5f, d[0]), e);
    case Op::pow2: return times(times(0.6931472f, e), d[0]);
    case Op::mantissa: return times(expr::unary(Op::pow2, -expr::unary(Op::exponent, x[0])), d[0]);
    case Op::add: return plus(d[0], d[1]);
    case Op::sub: return minus(d[0], d[1]);
    case Op::mul: return plus(times(d[0], x[1]), times(x[0], d[1]));
    case Op::div: return minus(over(d[0], x[1]), over(times(e, d[1]), x[1]));
    case Op::min: return Chosen{x[0], d[0], x[1], d[1]}.when(expr::lt(x[0], x[1]), expr::lt(x[1], x[0]));
    case Op::max: return Chosen{x[0], d[0], x[1], d[1]}.when(expr::lt(x[1], x[0]), expr::lt(x[0], x[1]));
    case Op::select: return choose(x[0], d[1], d[2]);
    case Op::fma: return plus(plus(times(d[0], x[1]), times(x[0], d[1])), d[2]);
    case Op::call: {
      E sum = 0.f;
      for (size_t i = 0; i < x.size(); ++i)
        if (!isZero(d[i])) sum = plus(sum, times(ofCall(e, static_cast<int>(i)), d[i]));
      return sum;
    }
  }
  return 0.f;
}

}  // namespace

ScalarExpr derivative(const ScalarExpr& expression, int index) {
  IdNumbering numbers;
  std::vector<ScalarExpr> done;  // by number
  postorder(expression, [&](const ScalarExpr& e) {
    std::vector<ScalarExpr> operands;
    for (const ScalarExpr& o : e.operands()) operands.push_back(nth(done, numbers.add(o.id()).first));
    numbers.add(e.id());
    done.push_back(e.isArg(index) ? ScalarExpr(1.f) : rule(e, operands));
  });
  return done.back();
}

}  // namespace qc
