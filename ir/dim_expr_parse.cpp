// The text of an expression of dims, read.
#include <algorithm>
#include <charconv>

#include "ir/dim_expr.h"
#include "ir/text_lexer.h"

namespace qc {
namespace {

// sum = product {("+" | "-") product}; product = unary {("*" | "//" | "%") unary}
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<DimExpr> run() {
    QC_ASSIGN(const DimExpr e, sum(0));
    if (skip(); at_ < text_.size()) return bad("nothing more");
    return e;
  }

 private:
  static constexpr int kMaxDepth = 64;

  Result<DimExpr> sum(int depth) {
    if (depth > kMaxDepth) return fail(ErrorCode::kInvalidModel, "a dim nests deeper than {} levels", kMaxDepth);
    QC_ASSIGN(DimExpr e, product(depth));
    for (;;) {
      const bool plus = take("+"), minus = !plus && take("-");
      if (!plus && !minus) return e;
      QC_ASSIGN(const DimExpr next, product(depth));
      e = plus ? e + next : e - next;
    }
  }
  Result<DimExpr> product(int depth) {
    QC_ASSIGN(DimExpr e, unary(depth));
    for (;;) {
      const bool times = take("*"), over = !times && take("//"), modulo = !times && !over && take("%");
      if (!times && !over && !modulo) return e;
      QC_ASSIGN(const DimExpr next, unary(depth));
      e = times ? e * next : over ? floorDiv(e, next) : mod(e, next);
    }
  }
  Result<DimExpr> unary(int depth) {
    bool negative = false;
    while (take("-")) negative = !negative;
    QC_ASSIGN(const DimExpr e, primary(depth));
    return negative ? -e : e;
  }
  Result<DimExpr> primary(int depth) {
    if (take("?")) return DimExpr::unknown();
    if (take("(")) {
      QC_ASSIGN(const DimExpr e, sum(depth + 1));
      if (!take(")")) return bad("')'");
      return e;
    }
    skip();
    Lexer lexer(text_, at_);
    const Token token = lexer.next();
    if (token.kind == Token::Kind::number) {
      const size_t digits = std::min(text_.find_first_not_of("0123456789", at_), text_.size());
      int64_t value = 0;
      const auto [stop, error] = std::from_chars(text_.data() + at_, text_.data() + digits, value);
      if (error != std::errc() || digits == at_) return bad("a size that fits 64 bits");
      at_ = digits;
      return DimExpr(value);
    }
    if (token.kind != Token::Kind::word && token.kind != Token::Kind::string) return bad("a size, a symbol or an expression of them");
    at_ = token.offset + token.text.size();
    if (token.kind == Token::Kind::string) return token.content.empty() ? bad("a name") : Result<DimExpr>(DimExpr::symbol(token.content));
    if (!take("(")) return DimExpr::symbol(token.text);
    QC_ASSIGN(DimExpr e, sum(depth + 1));
    while (take(",")) {
      QC_ASSIGN(const DimExpr next, sum(depth + 1));
      if (token.text != "min" && token.text != "max" && token.text != "ceildiv") break;
      e = token.text == "min" ? min(e, next) : token.text == "max" ? max(e, next) : ceilDiv(e, next);
    }
    if (token.text != "min" && token.text != "max" && token.text != "ceildiv") return bad("min, max or ceildiv");
    if (!take(")")) return bad("')'");
    return e;
  }

  Failure bad(std::string_view wanted) const {
    return fail(ErrorCode::kInvalidModel, "'{}' is not a dim: at character {} {} is expected", text_, at_ + 1, wanted);
  }
  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }
  bool take(std::string_view what) {
    skip();
    if (!text_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Result<DimExpr> DimExpr::parse(std::string_view text) { return Parser(text).run(); }

}  // namespace qc
