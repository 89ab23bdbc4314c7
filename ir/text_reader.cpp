#include "ir/text_reader.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>

#include "ir/verify.h"

namespace qc {
namespace {

constexpr size_t kMaxRank = 16;
// Element counts stay far from overflow in the arithmetic of inference and planning.
constexpr int64_t kMaxElements = int64_t{1} << 40;

std::string describe(const Token& token) {
  if (token.kind == Token::Kind::end) return "the end of the text";
  constexpr size_t kShown = 40;
  if (token.text.size() > kShown) return fmt::format("'{}...'", token.text.substr(0, kShown));
  return fmt::format("'{}'", token.text);
}

bool isReal(const Token& token) { return token.is("inf") || token.is("nan") || token.text.find_first_of(".eEn") != std::string_view::npos; }

}  // namespace

TextReader::TextReader(std::string_view text, std::string_view sourceName) : text_(text), sourceName_(sourceName), lexer_(text) {
  token_ = lexer_.next();
}

Token TextReader::take() { return std::exchange(token_, lexer_.next()); }

bool TextReader::takeIf(std::string_view spelling) {
  if (!token_.is(spelling)) return false;
  take();
  return true;
}

int TextReader::line(size_t offset) const {
  offset = std::min(offset, text_.size());
  if (offset < counted_) {
    counted_ = 0;
    newlines_ = 0;
  }
  // From where the last question ended: each node asks for its line.
  newlines_ +=
      static_cast<int>(std::count(text_.begin() + static_cast<ptrdiff_t>(counted_), text_.begin() + static_cast<ptrdiff_t>(offset), '\n'));
  counted_ = offset;
  return 1 + newlines_;
}

Failure TextReader::failAt(size_t offset, std::string_view message) const {
  offset = std::min(offset, text_.size());
  const size_t newline = offset == 0 ? std::string_view::npos : text_.rfind('\n', offset - 1);
  const size_t column = newline == std::string_view::npos ? offset + 1 : offset - newline;
  return qc::fail(ErrorCode::kInvalidModel, "{}:{}:{}: {}", sourceName_, line(offset), column, message);
}

Failure TextReader::placed(size_t offset, const Error& error) const {
  const Error place = failAt(offset, error.message());
  return Failure(Error(error.code(), place.message())).on(error.tensor()).help(error.remedy());
}

Failure TextReader::unexpected(std::string_view wanted) const {
  if (token_.kind == Token::Kind::bad) return fail("{}", token_.content);
  return fail("expected {}, found {}", wanted, describe(token_));
}

Status TextReader::expect(std::string_view spelling, std::string_view where) {
  if (takeIf(spelling)) return {};
  return unexpected(fmt::format("'{}' {}", spelling, where));
}

Result<std::string> TextReader::name(char sigil, std::string_view what) {
  if (!token_.isName(sigil)) return unexpected(what);
  return take().content;
}

Result<std::string> TextReader::string(std::string_view what) {
  if (token_.kind != Token::Kind::string) return unexpected(what);
  return take().content;
}

template <class T>
Result<T> TextReader::number(std::string_view what) {
  const bool special = std::is_floating_point_v<T> && (token_.is("inf") || token_.is("nan"));
  if (token_.kind != Token::Kind::number && !special) return unexpected(what);
  T value{};
  const char* end = token_.text.data() + token_.text.size();
  const auto [stop, error] = std::from_chars(token_.text.data(), end, value);
  if (error == std::errc::result_out_of_range) return fail("{} does not fit into {} bits", token_.text, sizeof(T) * 8);
  if (error != std::errc() || stop != end) return unexpected(what);
  take();
  return value;
}

Result<int64_t> TextReader::integer(std::string_view what) { return number<int64_t>(what); }
Result<double> TextReader::real(std::string_view what) { return number<double>(what); }
Result<float> TextReader::realFloat(std::string_view what) { return number<float>(what); }

// From the token on to the end of a dim.  As written: in expressions `//` divides, elsewhere it begins a comment.
std::string_view TextReader::dimText() const {
  int depth = 0;
  size_t end = token_.offset;
  for (bool inQuotes = false; end < text_.size(); ++end) {
    const char c = text_[end];
    if (c == '\n') break;
    if (c == '"') inQuotes = !inQuotes;
    if (inQuotes && c == '\\') ++end;
    if (inQuotes) continue;
    if (depth == 0 && (c == ',' || c == ']')) break;
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
  }
  end = std::min(end, text_.size());
  while (end > token_.offset && (text_[end - 1] == ' ' || text_[end - 1] == '\t')) --end;
  return text_.substr(token_.offset, end - token_.offset);
}

Result<DimExpr> TextReader::dimExpr(std::string_view text) {
  const size_t offset = token_.offset;
  auto expr = DimExpr::parse(text);
  if (!expr) return failAt(offset, expr.error().message());
  lexer_ = Lexer(text_, offset + text.size());
  token_ = lexer_.next();
  return expr;
}

Result<Shape> TextReader::shape() {
  QC_TRY(expect("[", "before the dims of a type"));
  Shape shape;
  int64_t elements = 1;
  if (takeIf("]")) return shape;
  do {
    const size_t offset = token_.offset;
    if (shape.size() == kMaxRank) return fail("a type has at most {} dims", kMaxRank);
    const std::string_view text = dimText();
    if (text.find_first_not_of("-0123456789") != std::string_view::npos) {
      QC_ASSIGN(const DimExpr expr, dimExpr(text));
      const auto constant = expr.constant();
      if (constant && *constant < 0) return failAt(offset, fmt::format("a dim is not negative, but this is {}", *constant));
      shape.emplace_back(expr);
    } else {
      QC_ASSIGN(const int64_t size, integer("a dim: a size, a symbol, '?' or an expression of them"));
      if (size < 0) return failAt(offset, fmt::format("a dim is not negative, but this is {}", size));
      if (size > 0 && elements > kMaxElements / size) return failAt(offset, fmt::format("a tensor has at most {} elements", kMaxElements));
      elements *= std::max<int64_t>(size, 1);
      shape.emplace_back(size);
    }
  } while (takeIf(","));
  QC_TRY(expect("]", "behind the dims of a type"));
  return shape;
}

Result<TensorType> TextReader::type() {
  const size_t offset = token_.offset;
  if (token_.isName('!') || token_.is("q")) {
    QC_ASSIGN(QuantPtr params, quant());
    QC_ASSIGN(Shape dims, shape());
    TensorType type(std::move(params), std::move(dims));
    if (auto s = checkType(type); !s) return placed(offset, s.error());
    return type;
  }
  const auto dtype = token_.kind == Token::Kind::word ? parseDType(token_.text) : std::nullopt;
  if (!dtype) return unexpected("a type such as f32[1,3] or !q0[1,3]");
  take();
  QC_ASSIGN(Shape dims, shape());
  return TensorType(*dtype, std::move(dims));
}

Result<QuantPtr> TextReader::quant() {
  if (token_.isName('!')) {
    const auto it = aliases.find(token_.content);
    if (it == aliases.end()) return fail("the alias !{} is not defined", token_.content);
    take();
    return it->second;
  }
  QC_TRY(expect("q", "or an alias !name for quantization parameters"));
  return quantLiteral();
}

// q<s8[-127:127], axis=0, block=32, scale=[0.5,0.25], zp=0>
Result<QuantPtr> TextReader::quantLiteral() {
  const size_t offset = token_.offset;
  QC_TRY(expect("<", "behind 'q'"));
  const auto storage = token_.kind == Token::Kind::word ? parseDType(token_.text) : std::nullopt;
  if (!storage || !isInteger(*storage) || *storage == DType::s64 || *storage == DType::u64)
    return unexpected("a storage type: an integer of at most 32 bits");
  take();
  QuantParams params;
  params.storage = *storage;
  params.qmin = rangeOf(*storage).min;
  params.qmax = rangeOf(*storage).max;
  if (takeIf("[")) {
    QC_ASSIGN(params.qmin, integer("the smallest quantized value"));
    QC_TRY(expect(":", "between the ends of a range"));
    QC_ASSIGN(params.qmax, integer("the largest quantized value"));
    QC_TRY(expect("]", "behind a range"));
  }
  std::set<std::string, std::less<>> seen;
  while (takeIf(",")) {
    const Token key = take();
    QC_TRY(expect("=", "behind a parameter's name"));
    if (!seen.emplace(key.text).second) return failAt(key.offset, fmt::format("'{}' is given twice", key.text));
    QC_TRY(quantField(params, key.text, key.offset));
  }
  QC_TRY(expect(">", "behind quantization parameters"));
  if (auto s = checkQuantParams(params); !s) return placed(offset, s.error());
  return std::make_shared<const QuantParams>(std::move(params));
}

Status TextReader::quantField(QuantParams& params, std::string_view key, size_t offset) {
  const auto smallInt = [&](std::string_view what) -> Result<int32_t> {
    const size_t at = token_.offset;
    QC_ASSIGN(const int64_t value, integer(what));
    if (value != static_cast<int32_t>(value)) return failAt(at, fmt::format("{} does not fit into 32 bits", value));
    return static_cast<int32_t>(value);
  };
  const auto list = [&](auto& values, auto element) -> Status {
    if (!takeIf("[")) {
      QC_ASSIGN(auto value, element());
      values.push_back(value);
      return {};
    }
    do {
      QC_ASSIGN(auto value, element());
      values.push_back(value);
    } while (takeIf(","));
    return expect("]", "behind a list");
  };
  if (key == "axis") {
    QC_ASSIGN(params.axis, smallInt("an axis"));
    if (params.axis < 0) return failAt(offset, "an axis is not negative");
    return {};
  }
  if (key == "block") {
    QC_ASSIGN(params.blockSize, integer("a block size"));
    return {};
  }
  if (key == "scale") return list(params.scales, [&] { return realFloat("a scale"); });
  if (key == "zp") return list(params.zeroPoints, [&] { return smallInt("a zero point"); });
  return failAt(offset, fmt::format("unknown parameter '{}'; known are axis, block, scale, zp", key));
}

Result<Attr> TextReader::attrList() {
  QC_TRY(expect("[", "before a list"));
  std::vector<int64_t> integers;
  std::vector<double> reals;
  std::vector<DimExpr> dims;
  bool anyReal = false;
  if (takeIf("]")) return Attr(std::move(integers));
  do {
    if (const std::string_view text = dimText();
        !anyReal &&
        (!dims.empty() || text != token_.text || token_.kind == Token::Kind::word || token_.kind == Token::Kind::string || text == "?") &&
        !(token_.is("inf") || token_.is("nan"))) {
      // A list with one free dim is a list of dims.
      if (dims.empty()) dims.assign(integers.begin(), integers.end());
      QC_ASSIGN(DimExpr dim, dimExpr(text));
      dims.push_back(std::move(dim));
      continue;
    }
    if (isReal(token_)) anyReal = true;
    if (anyReal) {
      // A list with one real is a list of reals: what was read as integers is kept as such.
      if (reals.empty()) reals.assign(integers.begin(), integers.end());
      QC_ASSIGN(const double value, real("a number"));
      reals.push_back(value);
    } else {
      QC_ASSIGN(const int64_t value, integer("a number"));
      integers.push_back(value);
    }
  } while (takeIf(","));
  QC_TRY(expect("]", "behind a list"));
  if (!dims.empty()) return Attr(std::move(dims));
  return anyReal ? Attr(std::move(reals)) : Attr(std::move(integers));
}

Result<Attr> TextReader::attr() {
  if (token_.kind == Token::Kind::string) return Attr(take().content);
  if (token_.is("[")) return attrList();
  if (token_.is("{") && heldGraph) return heldGraph();
  if (token_.is("none")) {
    take();
    return Attr(QuantAttr{});
  }
  if (token_.isName('!') || token_.is("q")) {
    QC_ASSIGN(QuantPtr params, quant());
    return Attr(QuantAttr{std::move(params)});
  }
  if (token_.kind == Token::Kind::number || token_.is("inf") || token_.is("nan")) {
    if (isReal(token_)) {
      QC_ASSIGN(const double value, real("a number"));
      return Attr(value);
    }
    QC_ASSIGN(const int64_t value, integer("a number"));
    return Attr(value);
  }
  const auto dtype = token_.kind == Token::Kind::word ? parseDType(token_.text) : std::nullopt;
  if (!dtype) return unexpected("a value: a number, a \"string\", a [list], an element type, !alias or none");
  take();
  return Attr(*dtype);
}

Result<std::string> TextReader::bareText(std::string_view what) {
  const size_t end = std::min(text_.find_first_of(" \t\r\n,{}\"", token_.offset), text_.size());
  if (end == token_.offset) return unexpected(what);
  std::string text(text_.substr(token_.offset, end - token_.offset));
  lexer_ = Lexer(text_, end);
  token_ = lexer_.next();
  return text;
}

Result<AttrDict> TextReader::attrs() {
  QC_TRY(expect("{", "before attributes"));
  AttrDict dict;
  if (takeIf("}")) return dict;
  do {
    if (token_.kind != Token::Kind::word) return unexpected("the name of an attribute");
    const Token key = take();
    if (dict.find(key.text)) return failAt(key.offset, fmt::format("attribute '{}' is given twice", key.text));
    QC_TRY(expect("=", "behind the name of an attribute"));
    QC_ASSIGN(Attr value, attr());
    dict.set(key.text, std::move(value));
  } while (takeIf(","));
  QC_TRY(expect("}", "behind attributes"));
  return dict;
}

}  // namespace qc
