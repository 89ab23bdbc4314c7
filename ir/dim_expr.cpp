#include "ir/dim_expr.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "ir/dim_expr_internal.h"

namespace qc {

namespace {

// e // c for c > 1.  With coefficient c*q + r the q goes outside, since all terms are whole.
DimExpr dividedBy(const DimExpr& e, int64_t c) {
  Terms whole, rest;
  int64_t common = c, constant = 0;
  for (const auto& [product, coefficient] : termsOf(e)) {
    const int64_t q = floorOf(coefficient, c), r = coefficient - q * c;
    if (q) whole.emplace(product, q);
    if (product.empty()) constant = r;
    if (r && !product.empty()) {
      rest.emplace(product, r);
      common = std::gcd(common, r);
    }
  }
  const DimExpr outside = made(std::move(whole));
  if (rest.empty()) return outside;  // the constant is less than c
  for (auto& [product, coefficient] : rest) coefficient /= common;
  const int64_t divisor = c / common;
  constant /= common;
  const DimExpr inner = made(rest);
  if (divisor == 1) return outside + inner + constant;
  // (-x)//m, which is ((m-1)*x)//m - x, as -((x+m-1)//m): what pads to a multiple of 4, h + (-h)%4, is 4*((h+3)//4).
  if (divisor > 2 && std::ranges::all_of(rest, [&](const auto& term) { return term.second == divisor - 1; })) {
    Terms once = rest;
    for (auto& [x, r] : once) r = 1;
    const DimExpr sum = made(std::move(once));
    return outside + sum - floorDiv(sum + (divisor - 1 - constant), divisor);
  }
  const auto& [product, coefficient] = *rest.begin();
  if (rest.size() == 1 && coefficient == 1 && product.size() == 1 && product[0]->kind == Atom::Kind::floorDiv) {
    // (x//d + k) // c = (x + k*d) // (c*d)
    const Atom& atom = *product[0];
    const auto inside = atom.args[1].constant();
    int64_t both = 0;
    if (inside && !__builtin_mul_overflow(*inside, divisor, &both))
      return outside + floorDiv(atom.args[0] + DimExpr(constant) * atom.args[1], both);
  }
  return outside + made(atomOf(Atom::Kind::floorDiv, {inner + constant, divisor}));
}

// The one atom that an expression is, of this kind.
const Atom* soleAtom(const DimExpr& e, Atom::Kind kind) {
  const DimExpr::Sum* sum = DimExprAccess::sumOf(e);
  const bool sole = sum && sum->terms.size() == 1 && sum->terms.begin()->second == 1 && sum->terms.begin()->first.size() == 1;
  return sole && sum->terms.begin()->first[0]->kind == kind ? sum->terms.begin()->first[0] : nullptr;
}

// a <= b for all sizes, as far as the signs of their parts tell.
bool isAtMost(const DimExpr& a, const DimExpr& b) {
  if ((b - a).isNonNegative()) return true;
  const auto below = [&](const DimExpr& x) { return (b - x).isNonNegative(); };
  const auto above = [&](const DimExpr& x) { return (x - a).isNonNegative(); };
  using Kind = Atom::Kind;
  if (const Atom* m = soleAtom(a, Kind::min); m && std::any_of(m->args.begin(), m->args.end(), below)) return true;
  if (const Atom* m = soleAtom(a, Kind::max); m && std::all_of(m->args.begin(), m->args.end(), below)) return true;
  if (const Atom* m = soleAtom(b, Kind::max); m && std::any_of(m->args.begin(), m->args.end(), above)) return true;
  const Atom* m = soleAtom(b, Kind::min);
  return m && std::all_of(m->args.begin(), m->args.end(), above);
}

DimExpr extreme(Atom::Kind kind, const DimExpr& a, const DimExpr& b) {
  if (a.isUnknown() || b.isUnknown()) return DimExpr::unknown();
  std::vector<DimExpr> all, kept;
  for (const DimExpr& e : {a, b}) {
    const Atom* nested = soleAtom(e, kind);
    if (nested)
      all.insert(all.end(), nested->args.begin(), nested->args.end());
    else
      all.push_back(e);
  }
  // One that another is never beyond goes; of equal ones the first stays.
  const auto gives = [&](size_t i, size_t j) {
    const auto within = [&](size_t k, size_t l) { return kind == Atom::Kind::min ? isAtMost(all[l], all[k]) : isAtMost(all[k], all[l]); };
    return within(i, j) && !(i < j && within(j, i));
  };
  for (size_t i = 0; i < all.size(); ++i) {
    bool goes = false;
    for (size_t j = 0; j < all.size() && !goes; ++j) goes = i != j && gives(i, j);
    if (!goes) kept.push_back(all[i]);
  }
  if (kept.size() == 1) return kept[0];
  std::sort(kept.begin(), kept.end(), [](const DimExpr& x, const DimExpr& y) { return x.str() < y.str(); });
  return made(atomOf(kind, std::move(kept)));
}

bool isNonNegative(const Atom& atom) {
  const auto sign = [](const DimExpr& e) { return e.isNonNegative(); };
  switch (atom.kind) {
    case Atom::Kind::symbol: return true;
    case Atom::Kind::floorDiv:
    case Atom::Kind::min: return std::all_of(atom.args.begin(), atom.args.end(), sign);
    case Atom::Kind::max: return std::any_of(atom.args.begin(), atom.args.end(), sign);
  }
  return false;
}

// Another expression; this one is not negative if that is not.  x - divisor + 1 <= divisor * (x // divisor) <= x takes the place of its
// first quotient, and a whole number above -1 is not negative.  So padding up to a multiple, 32*((h+31)//32) - h, is seen to be at least 0.
// Nothing: it has no quotient by a number.
std::optional<DimExpr> withoutQuotient(const Terms& terms) {
  for (const auto& [product, coefficient] : terms) {
    if (product.size() != 1 || product[0]->kind != Atom::Kind::floorDiv) continue;
    const Atom& quotient = *product[0];
    const auto divisor = quotient.args[1].constant();
    if (!divisor || *divisor <= 0) continue;
    Terms rest = terms;
    rest.erase(product);
    const DimExpr bound = coefficient < 0 ? quotient.args[0] : quotient.args[0] - (*divisor - 1);
    const DimExpr below = made(std::move(rest)) * *divisor + bound * coefficient + (*divisor - 1);
    return below.isUnknown() ? std::nullopt : std::optional(below);
  }
  return std::nullopt;
}

std::optional<int64_t> evaluated(const Atom& atom, const SymbolSizes& sizes) {
  if (atom.kind == Atom::Kind::symbol) {
    const auto it = sizes.find(atom.name);
    return it == sizes.end() ? std::nullopt : std::optional(it->second);
  }
  std::vector<int64_t> values;
  for (const DimExpr& e : atom.args) {
    const auto value = e.evaluate(sizes);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  if (atom.kind == Atom::Kind::min) return *std::min_element(values.begin(), values.end());
  if (atom.kind == Atom::Kind::max) return *std::max_element(values.begin(), values.end());
  if (values[1] == 0 || (values[1] == -1 && values[0] == INT64_MIN)) return std::nullopt;
  return floorOf(values[0], values[1]);
}

DimExpr substituted(const DimFactor& f, const std::map<std::string, DimExpr>& values) {
  if (f.kind == DimFactor::Kind::symbol) {
    const auto it = values.find(f.name);
    return it == values.end() ? DimExpr::symbol(f.name) : it->second;
  }
  const DimExpr a = qc::substituted(f.args[0], values), b = qc::substituted(f.args[1], values);
  if (f.kind == DimFactor::Kind::floorDiv) return floorDiv(a, b);
  DimExpr all = f.kind == DimFactor::Kind::min ? min(a, b) : max(a, b);
  for (size_t i = 2; i < f.args.size(); ++i) {
    const DimExpr next = qc::substituted(f.args[i], values);
    all = f.kind == DimFactor::Kind::min ? min(all, next) : max(all, next);
  }
  return all;
}

}  // namespace

DimExpr DimExpr::symbol(std::string_view name) {
  if (name == "?") return unknown();
  return made(atomOf(Atom::Kind::symbol, {}, std::string(name)));
}

DimExpr DimExpr::unknown() { return DimExprAccess::of(&kUnknownSum); }

bool DimExpr::isUnknown() const { return sum_ == &kUnknownSum; }

std::set<std::string> DimExpr::symbols() const {
  std::set<std::string> names;
  for (const auto& [product, coefficient] : termsOf(*this))
    for (const Atom* atom : product) {
      if (atom->kind == Atom::Kind::symbol) names.insert(atom->name);
      for (const DimExpr& e : atom->args) names.merge(e.symbols());
    }
  return names;
}

bool DimExpr::isNonNegative() const {
  if (isUnknown()) return false;
  const Terms terms = termsOf(*this);
  if (std::all_of(terms.begin(), terms.end(), [](const auto& term) {
        return term.second >= 0 && std::all_of(term.first.begin(), term.first.end(), [](const Atom* a) { return qc::isNonNegative(*a); });
      }))
    return true;
  const std::optional<DimExpr> below = withoutQuotient(terms);
  return below && below->isNonNegative();
}

std::optional<int64_t> DimExpr::evaluate(const SymbolSizes& sizes) const {
  if (isUnknown()) return std::nullopt;
  int64_t sum = 0;
  for (const auto& [product, coefficient] : termsOf(*this)) {
    int64_t term = coefficient;
    for (const Atom* atom : product) {
      const auto value = evaluated(*atom, sizes);
      if (!value || __builtin_mul_overflow(term, *value, &term)) return std::nullopt;
    }
    if (__builtin_add_overflow(sum, term, &sum)) return std::nullopt;
  }
  return sum;
}

std::vector<DimTerm> dimTerms(const DimExpr& e) {
  std::vector<DimTerm> list;
  for (const auto& [product, coefficient] : termsOf(e)) {
    DimTerm& term = list.emplace_back(DimTerm{coefficient, {}});
    for (const Atom* atom : product) term.factors.push_back(*atom);
  }
  return list;
}

DimExpr substituted(const DimExpr& e, const std::map<std::string, DimExpr>& values) {
  if (e.isUnknown()) return e;
  DimExpr sum = 0;
  for (const DimTerm& term : dimTerms(e)) {
    DimExpr product = term.coefficient;
    for (const DimFactor& f : term.factors) product = product * substituted(f, values);
    sum = sum + product;
  }
  return sum;
}

std::optional<std::string> symbolName(const DimExpr& e) {
  const std::vector<DimTerm> terms = dimTerms(e);
  const bool isSymbol =
      terms.size() == 1 && terms[0].coefficient == 1 && terms[0].factors.size() == 1 && terms[0].factors[0].kind == DimFactor::Kind::symbol;
  return isSymbol ? std::optional(terms[0].factors[0].name) : std::nullopt;
}

std::string DimExpr::str() const { return sum_ ? sum_->text : std::to_string(constant_); }

bool operator==(const DimExpr& a, const DimExpr& b) { return a.sum_ == b.sum_ && !a.isUnknown() && (a.sum_ || a.constant_ == b.constant_); }

DimExpr operator+(const DimExpr& a, const DimExpr& b) {
  if (a.isUnknown() || b.isUnknown()) return DimExpr::unknown();
  return made(scaledSum(termsOf(a), 1, termsOf(b)));
}

DimExpr operator-(const DimExpr& a, const DimExpr& b) {
  if (a.isUnknown() || b.isUnknown()) return DimExpr::unknown();
  return made(scaledSum(termsOf(b), -1, termsOf(a)));
}

DimExpr operator-(const DimExpr& a) { return DimExpr(0) - a; }

DimExpr operator*(const DimExpr& a, const DimExpr& b) {
  if (a.isUnknown() || b.isUnknown()) return DimExpr::unknown();
  return made(productOf(termsOf(a), termsOf(b)));
}

DimExpr floorDiv(const DimExpr& a, const DimExpr& b) {
  if (a.isUnknown() || b.isUnknown() || b.constant() == 0) return DimExpr::unknown();
  if (b.constant() == 1 || a.constant() == 0) return a;
  if (b.constant() == INT64_MIN || a.constant() == INT64_MIN) return DimExpr::unknown();
  if (const auto divisor = b.constant()) {
    if (*divisor < 0) return floorDiv(-a, -*divisor);
    return dividedBy(a, *divisor);
  }
  if (const auto whole = exactly(termsOf(a), termsOf(b))) return *whole;
  // Of a divisor that is one product, the terms that have it as a factor leave.
  Terms outside, rest;
  const Terms divisor = termsOf(b);
  for (const auto& term : termsOf(a)) {
    const auto part = divisor.size() == 1 ? quotient(term, *divisor.begin()) : std::nullopt;
    if (!part)
      rest.insert(term);
    else if (!addTo(outside, part->first, part->second))
      return DimExpr::unknown();
  }
  return made(std::move(outside)) + made(atomOf(Atom::Kind::floorDiv, {made(std::move(rest)), b}));
}

DimExpr ceilDiv(const DimExpr& a, const DimExpr& b) { return floorDiv(a + b - 1, b); }
DimExpr mod(const DimExpr& a, const DimExpr& b) { return a - b * floorDiv(a, b); }

std::optional<std::vector<int64_t>> constants(std::span<const DimExpr> list) {
  std::vector<int64_t> values;
  for (const DimExpr& e : list) {
    const auto value = e.constant();
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}
DimExpr min(const DimExpr& a, const DimExpr& b) { return extreme(Atom::Kind::min, a, b); }
DimExpr max(const DimExpr& a, const DimExpr& b) { return extreme(Atom::Kind::max, a, b); }

}  // namespace qc
