#include <algorithm>
#include <memory>
#include <mutex>

#include "ir/dim_expr_internal.h"
#include "ir/text_lexer.h"

namespace qc {

const DimExpr::Sum kUnknownSum{{}, "?"};

namespace {

constexpr auto& isBefore = DimExpr::Sum::isBefore;

// Expressions and atoms by their text.  Never shrinks; a model has a handful.
template <class T>
class Interned {
 public:
  const T* get(T value) {
    const std::lock_guard lock(mutex_);
    auto& place = known_[value.text];
    if (!place) place = std::make_unique<const T>(std::move(value));
    return place.get();
  }
  static Interned& all() {
    static auto* const table = new Interned;
    return *table;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<const T>, std::less<>> known_;
};

bool isSimple(const DimExpr& e) {
  const DimExpr::Sum* sum = DimExprAccess::sumOf(e);
  if (!sum) return *e.constant() >= 0;
  const auto& [product, coefficient] = *sum->terms.begin();
  return sum->terms.size() == 1 && coefficient == 1 && product.size() == 1 && product[0]->kind != Atom::Kind::floorDiv;
}

std::string inParentheses(const DimExpr& e) { return isSimple(e) ? e.str() : "(" + e.str() + ")"; }

std::string textOf(const Terms& terms) {
  std::string text;
  for (const auto& [product, coefficient] : terms) {
    if (coefficient < 0 || !text.empty()) text += coefficient < 0 ? "-" : "+";
    const uint64_t size = coefficient < 0 ? 0 - static_cast<uint64_t>(coefficient) : static_cast<uint64_t>(coefficient);
    std::string factors = size != 1 || product.empty() ? std::to_string(size) : "";
    const bool alone = product.size() == 1 && coefficient == 1;
    for (const Atom* atom : product)
      factors += (factors.empty() ? "" : "*") + (atom->kind == Atom::Kind::floorDiv && !alone ? "(" + atom->text + ")" : atom->text);
    text += factors;
  }
  return text;
}

}  // namespace

const Atom* atomOf(Atom::Kind kind, std::vector<DimExpr> args, std::string name) {
  Atom atom{{kind, std::move(name), std::move(args)}, {}};
  switch (kind) {
    case Atom::Kind::symbol:
      atom.text = isWord(atom.name) && atom.name != "min" && atom.name != "max" && atom.name != "ceildiv" ? atom.name : quoted(atom.name);
      break;
    case Atom::Kind::floorDiv: atom.text = inParentheses(atom.args[0]) + "//" + inParentheses(atom.args[1]); break;
    case Atom::Kind::min:
    case Atom::Kind::max:
      atom.text = kind == Atom::Kind::min ? "min(" : "max(";
      for (const DimExpr& e : atom.args) atom.text += e.str() + (&e == &atom.args.back() ? ")" : ",");
  }
  return Interned<Atom>::all().get(std::move(atom));
}

DimExpr made(Terms terms) {
  std::erase_if(terms, [](const auto& term) { return term.second == 0; });
  if (terms.empty()) return 0;
  // Its text would not read back.
  if (std::any_of(terms.begin(), terms.end(), [](const auto& term) { return term.second == INT64_MIN; })) return DimExpr::unknown();
  if (terms.size() == 1 && terms.begin()->first.empty()) return terms.begin()->second;
  if (terms.size() > DimExpr::kMaxTerms) return DimExpr::unknown();
  std::string text = textOf(terms);
  if (text.size() > DimExpr::kMaxText) return DimExpr::unknown();
  return DimExprAccess::of(Interned<DimExpr::Sum>::all().get({std::move(terms), std::move(text)}));
}

DimExpr made(const Atom* atom) { return made(Terms{{{atom}, 1}}); }

Terms termsOf(const DimExpr& e) {
  if (const DimExpr::Sum* sum = DimExprAccess::sumOf(e)) return sum->terms;
  return *e.constant() ? Terms{{{}, *e.constant()}} : Terms{};
}

bool addTo(Terms& terms, const Product& product, int64_t coefficient) {
  int64_t& place = terms[product];
  return !__builtin_add_overflow(place, coefficient, &place);
}

int64_t floorOf(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

std::optional<Terms> scaledSum(const Terms& a, int64_t scale, const Terms& b) {
  Terms sum = b;
  for (const auto& [product, coefficient] : a) {
    int64_t scaled = 0;
    if (__builtin_mul_overflow(coefficient, scale, &scaled) || !addTo(sum, product, scaled)) return std::nullopt;
  }
  return sum;
}

std::optional<Terms> productOf(const Terms& a, const Terms& b) {
  Terms result;
  for (const auto& [x, cx] : a)
    for (const auto& [y, cy] : b) {
      int64_t coefficient = 0;
      if (__builtin_mul_overflow(cx, cy, &coefficient)) return std::nullopt;
      Product product;
      std::merge(x.begin(), x.end(), y.begin(), y.end(), std::back_inserter(product), isBefore);
      if (!addTo(result, product, coefficient)) return std::nullopt;
      if (result.size() > 4 * DimExpr::kMaxTerms) return std::nullopt;
    }
  return result;
}

DimExpr made(std::optional<Terms> terms) { return terms ? made(*std::move(terms)) : DimExpr::unknown(); }

std::optional<std::pair<Product, int64_t>> quotient(const std::pair<const Product, int64_t>& x,
                                                    const std::pair<const Product, int64_t>& y) {
  if (y.second == 0 || x.second % y.second != 0 || (y.second == -1 && x.second == INT64_MIN)) return std::nullopt;
  Product rest;
  if (!std::includes(x.first.begin(), x.first.end(), y.first.begin(), y.first.end(), isBefore)) return std::nullopt;
  std::set_difference(x.first.begin(), x.first.end(), y.first.begin(), y.first.end(), std::back_inserter(rest), isBefore);
  return std::pair(std::move(rest), x.second / y.second);
}

std::optional<DimExpr> exactly(Terms a, const Terms& b) {
  Terms result;
  for (size_t steps = 0; !a.empty(); ++steps) {
    const auto part = quotient(*a.begin(), *b.begin());
    if (!part || steps == DimExpr::kMaxTerms || !addTo(result, part->first, part->second)) return std::nullopt;
    const auto taken = productOf(Terms{{part->first, part->second}}, b);
    const auto rest = taken ? scaledSum(*taken, -1, a) : std::nullopt;
    if (!rest) return std::nullopt;
    a = *rest;
    std::erase_if(a, [](const auto& term) { return term.second == 0; });
  }
  return made(std::move(result));
}

}  // namespace qc
