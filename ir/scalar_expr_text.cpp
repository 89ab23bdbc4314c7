// Parser and printer of scalar expressions.
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "ir/expr_internal.h"
#include "ir/signed_index.h"

namespace qc {
namespace {

using Op = ScalarExpr::Op;
using Instruction = ExprProgram::Instruction;

constexpr size_t kMaxText = size_t{1} << 16;
constexpr int kMaxExprDepth = 256;   // of nesting in the text: bounds the parser's recursion
constexpr int kTemporaryDepth = 48;  // the printer names a sub-tree before it gets near that
constexpr int64_t kInlineSize = 64;  // trees up to this many nodes print in one formula
constexpr int kMaxArgument = 255;

// Primitives that are written as calls.
struct Primitive {
  std::string_view name;
  Op op;
  int arity;
};
constexpr Primitive kPrimitives[] = {
    {"abs", Op::abs, 1},
    {"floor", Op::floor, 1},
    {"ceil", Op::ceil, 1},
    {"round", Op::round, 1},
    {"trunc", Op::trunc, 1},
    {"sqrt", Op::sqrt, 1},
    {"pow2", Op::pow2, 1},
    {"exponent", Op::exponent, 1},
    {"mantissa", Op::mantissa, 1},
    {"min", Op::min, 2},
    {"max", Op::max, 2},
    {"lt", Op::lt, 2},
    {"le", Op::le, 2},
    {"eq", Op::eq, 2},
    {"select", Op::select, 3},
    {"fma", Op::fma, 3},
};

const Primitive* findPrimitive(std::string_view name) {
  for (const Primitive& p : kPrimitives)
    if (p.name == name) return &p;
  return nullptr;
}

struct Infix {
  char symbol;
  Op op;
  int precedence;
};
constexpr Infix kInfix[] = {{'+', Op::add, 1}, {'-', Op::sub, 1}, {'*', Op::mul, 2}, {'/', Op::div, 2}};
constexpr int kUnary = 3, kPrimary = 4;

class ExprParser {
 public:
  explicit ExprParser(std::string_view text) : text_(text) {}

  Result<ScalarExpr> parse() {
    QC_TRY(ScalarExpr::checkText(text_.size(), 0));
    for (;;) {
      const size_t start = at_;
      const std::string_view name = word();
      if (isIndexed(name, 't') && take('=')) {
        if (name.substr(1) != std::to_string(temporaries_.size())) return error(fmt::format("expected t{} here", temporaries_.size()));
        QC_ASSIGN(ScalarExpr value, formula(1));
        if (!take(';')) return error("expected ';'");
        temporaries_.push_back(std::move(value));
        continue;
      }
      at_ = start;
      QC_ASSIGN(ScalarExpr result, formula(1));
      skipSpace();
      if (at_ != text_.size()) return error("expected the end or an operator");
      return result;
    }
  }

 private:
  Failure error(std::string_view what) const {
    const std::string_view rest = text_.substr(at_, 16);
    return fail(ErrorCode::kInvalidModel, "scalar expression, column {}: {}, found '{}'", at_ + 1, what, rest);
  }

  void skipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n')) ++at_;
  }
  bool take(char c) {
    skipSpace();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  static bool isDigit(char c) { return c >= '0' && c <= '9'; }
  static bool isLetter(char c) { return (c >= 'a' && c <= 'z') || c == '_'; }
  std::string_view word() {
    skipSpace();
    const size_t start = at_;
    if (at_ < text_.size() && isLetter(text_[at_]))
      while (at_ < text_.size() && (isLetter(text_[at_]) || isDigit(text_[at_]))) ++at_;
    return text_.substr(start, at_ - start);
  }
  static bool isIndexed(std::string_view name, char prefix) {
    if (name.size() < 2 || name[0] != prefix) return false;
    for (const char c : name.substr(1))
      if (!isDigit(c)) return false;
    return true;
  }
  static std::optional<int> indexOf(std::string_view name) {
    int index = -1;
    const auto [end, status] = std::from_chars(name.data() + 1, name.data() + name.size(), index);
    if (status != std::errc() || end != name.data() + name.size()) return std::nullopt;
    return index;
  }

  // Precedence climbing: operators of at least this precedence, left associative.
  Result<ScalarExpr> formula(int precedence) {
    if (++depth_ > kMaxExprDepth) return error("nested too deeply");
    QC_ASSIGN(ScalarExpr left, factor());
    for (;;) {
      skipSpace();
      const Infix* infix = nullptr;
      for (const Infix& i : kInfix)
        if (at_ < text_.size() && text_[at_] == i.symbol && i.precedence >= precedence) infix = &i;
      if (!infix) break;
      ++at_;
      QC_ASSIGN(ScalarExpr right, formula(infix->precedence + 1));
      left = ScalarExpr::make(infix->op, {std::move(left), std::move(right)});
    }
    --depth_;
    return left;
  }

  Result<ScalarExpr> factor() {
    if (++depth_ > kMaxExprDepth) return error("nested too deeply");
    QC_ASSIGN(ScalarExpr e, take('-') ? negated() : primary());
    --depth_;
    return e;
  }

  Result<ScalarExpr> negated() {
    skipSpace();
    const size_t start = at_;
    QC_ASSIGN(std::optional<float> number, literal());
    if (number) return ScalarExpr(-*number);
    at_ = start;
    QC_ASSIGN(ScalarExpr operand, factor());
    return -std::move(operand);
  }

  // A number, inf or nan; nothing if something else stands here.
  Result<std::optional<float>> literal() {
    skipSpace();
    if (at_ < text_.size() && (isDigit(text_[at_]) || text_[at_] == '.')) {
      float value = 0;
      const char* begin = text_.data() + at_;
      const auto [end, status] = std::from_chars(begin, text_.data() + text_.size(), value);
      if (status != std::errc()) return error("expected a float32 number");
      at_ += usize(end - begin);
      return value;
    }
    const size_t start = at_;
    const std::string_view name = word();
    if (name == "inf") return std::numeric_limits<float>::infinity();
    if (name == "nan") return std::numeric_limits<float>::quiet_NaN();
    at_ = start;
    return std::nullopt;
  }

  Result<ScalarExpr> primary() {
    QC_ASSIGN(std::optional<float> number, literal());
    if (number) return ScalarExpr(*number);
    if (take('(')) {
      QC_ASSIGN(ScalarExpr inner, formula(1));
      if (!take(')')) return error("expected ')'");
      return inner;
    }
    const size_t start = at_;
    const std::string_view name = word();
    if (isIndexed(name, 'a')) {
      const std::optional<int> index = indexOf(name);
      if (index && *index <= kMaxArgument) return ScalarExpr::arg(*index);
    } else if (isIndexed(name, 't')) {
      const std::optional<int> index = indexOf(name);
      if (index && *index < static_cast<int>(temporaries_.size())) return nth(temporaries_, *index);
    } else if (const Primitive* primitive = findPrimitive(name)) {
      QC_ASSIGN(std::vector<ScalarExpr> args, arguments(name, primitive->arity));
      return ScalarExpr::make(primitive->op, std::move(args));
    } else if (const ScalarExpr::Function* function = findFunction(name)) {
      QC_ASSIGN(std::vector<ScalarExpr> args, arguments(name, function->arity));
      return ScalarExpr::call(name, std::move(args));
    }
    at_ = start;
    return error("expected a number, an argument or a function");
  }

  Result<std::vector<ScalarExpr>> arguments(std::string_view name, int arity) {
    if (!take('(')) return error("expected '('");
    std::vector<ScalarExpr> args;
    do {
      QC_ASSIGN(ScalarExpr argument, formula(1));
      args.push_back(std::move(argument));
    } while (take(','));
    if (!take(')')) return error("expected ')' or ','");
    if (static_cast<int>(args.size()) != arity) return error(fmt::format("{} takes {} arguments", name, arity));
    return args;
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;  // not restored on errors: the first one ends the parse
  std::vector<ScalarExpr> temporaries_;
};

// Prints the flattened tree bottom-up, so that neither depth nor sharing costs more than it must.
class ExprPrinter {
 public:
  explicit ExprPrinter(std::vector<Instruction> code) : code_(std::move(code)), parts_(code_.size()), uses_(code_.size()) {}

  std::string print() {
    std::vector<int64_t> sizes(code_.size(), 1);
    for (size_t i = 0; i < code_.size(); ++i)
      for (const int o : code_[i].operand)
        if (o >= 0) {
          ++nth(uses_, o);
          sizes[i] = std::min<int64_t>(sizes[i] + nth(sizes, o), kInlineSize + 1);
        }
    const bool large = sizes.back() > kInlineSize;
    std::string text;
    int temporaries = 0;
    for (size_t i = 0; i < code_.size(); ++i) {
      Part& p = parts_[i];
      p = part(code_[i]);
      const bool leaf = code_[i].op == Op::arg || code_[i].op == Op::constant;
      if (leaf || i + 1 == code_.size() || !((large && uses_[i] > 1) || p.depth >= kTemporaryDepth)) continue;
      text += fmt::format("t{} = {}; ", temporaries, p.text);
      p = {fmt::format("t{}", temporaries++), kPrimary, 0};
    }
    return text + parts_.back().text;
  }

 private:
  struct Part {
    std::string text;
    int precedence = kPrimary;
    int depth = 0;
  };

  const Part& operand(const Instruction& i, int k) const { return nth(parts_, i.operand[k]); }
  static std::string wrapped(const Part& p, int precedence) { return p.precedence >= precedence ? p.text : fmt::format("({})", p.text); }

  Part part(const Instruction& i) const {
    if (i.op == Op::arg) return {fmt::format("a{}", i.index), kPrimary, 0};
    if (i.op == Op::constant) return {fmt::format("{}", i.value), kPrimary, 0};
    int depth = 0;
    for (int k = 0; k < 3 && i.operand[k] >= 0; ++k) depth = std::max(depth, operand(i, k).depth + 1);
    if (i.op == Op::neg) {
      // A minus in front of a number would read as a negative constant.
      const bool number = nth(code_, i.operand[0]).op == Op::constant;
      return {fmt::format("-{}", wrapped(operand(i, 0), number ? kPrimary + 1 : kUnary)), kUnary, depth};
    }
    for (const Infix& infix : kInfix)
      if (infix.op == i.op)
        return {
            fmt::format("{} {} {}", wrapped(operand(i, 0), infix.precedence), infix.symbol, wrapped(operand(i, 1), infix.precedence + 1)),
            infix.precedence, depth};
    std::string text(nameOf(i));
    for (int k = 0; k < 3 && i.operand[k] >= 0; ++k) text += (k ? ", " : "(") + operand(i, k).text;
    return {text + ")", kPrimary, depth};
  }

  static std::string_view nameOf(const Instruction& i) {
    if (i.op == Op::call) return nth(ScalarExpr::functions(), i.index).name;
    for (const Primitive& p : kPrimitives)
      if (p.op == i.op) return p.name;
    QC_CHECK(false, "a primitive without a name");
    return {};
  }

  std::vector<Instruction> code_;
  std::vector<Part> parts_;
  std::vector<int> uses_;
};

}  // namespace

Status ScalarExpr::checkText(size_t bytes, int arity) {
  if (bytes > kMaxText) return fail(ErrorCode::kResource, "expression of {} bytes; the limit is {}", bytes, kMaxText);
  if (arity > kMaxArgument + 1) return fail(ErrorCode::kResource, "expression of {} arguments; the limit is {}", arity, kMaxArgument + 1);
  return {};
}

Result<ScalarExpr> ScalarExpr::parse(std::string_view text) { return ExprParser(text).parse(); }

std::string ScalarExpr::str() const { return ExprPrinter(flatten(*this)).print(); }

}  // namespace qc
