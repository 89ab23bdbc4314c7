#include "ir/text_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "ir/visible.h"

namespace qc {
namespace {

// The classification of <cctype> depends on the locale; that of a file format must not.
bool isDigit(char c) { return c >= '0' && c <= '9'; }
bool isLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool isNameChar(char c) { return isLetter(c) || isDigit(c) || c == '.' || c == '$'; }

std::optional<int> hexDigit(char c) {
  if (isDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

template <class T>
std::string shortest(T value) {
  if (std::isnan(value)) return "nan";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

std::string realText(double value) { return shortest(value); }
std::string realText(float value) { return shortest(value); }

std::string quoted(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const char c = text[0];
    const size_t n = printableLength(text);
    if (c == '"' || c == '\\')
      (out += '\\') += c;
    else if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (n == 0)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += text.substr(0, n);
    text.remove_prefix(std::max<size_t>(n, 1));
  }
  return out + "\"";
}

bool isPlainName(std::string_view name) { return !name.empty() && std::all_of(name.begin(), name.end(), isNameChar); }

bool isWord(std::string_view text) {
  return !text.empty() && isLetter(text[0]) && std::all_of(text.begin(), text.end(), [](char c) { return isLetter(c) || isDigit(c); });
}

std::string sigilName(char sigil, std::string_view name) {
  return isPlainName(name) ? fmt::format("{}{}", sigil, name) : fmt::format("{}{}", sigil, quoted(name));
}

void Lexer::skipBlanks() {
  while (position_ < text_.size()) {
    const char c = text_[position_];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      ++position_;
    } else if (c == '/' && at(position_ + 1) == '/') {
      const size_t end = text_.find('\n', position_);
      position_ = end == std::string_view::npos ? text_.size() : end;
    } else {
      return;
    }
  }
}

// The end of the number that starts at i, or i if none does.
size_t Lexer::numberEnd(size_t i) const {
  const size_t start = i;
  if (at(i) == '-') ++i;
  if (text_.substr(std::min(i, text_.size()), 3) == "inf" && i > start && !isNameChar(at(i + 3))) return i + 3;
  if (!isDigit(at(i))) return start;
  while (isDigit(at(i))) ++i;
  if (at(i) == '.' && isDigit(at(i + 1))) {
    ++i;
    while (isDigit(at(i))) ++i;
  }
  if (at(i) == 'e' || at(i) == 'E') {
    size_t j = i + 1;
    if (at(j) == '-' || at(j) == '+') ++j;
    if (isDigit(at(j))) {
      while (isDigit(at(j))) ++j;
      i = j;
    }
  }
  return i;
}

bool Lexer::readQuoted(Token& token) {
  size_t i = position_ + 1;
  for (; i < text_.size() && text_[i] != '"' && text_[i] != '\n'; ++i) {
    if (text_[i] != '\\') {
      token.content += text_[i];
      continue;
    }
    const char c = at(++i);
    const auto high = hexDigit(at(i + 1)), low = hexDigit(at(i + 2));
    if (c == '"' || c == '\\') {
      token.content += c;
    } else if (c == 'n' || c == 't') {
      token.content += c == 'n' ? '\n' : '\t';
    } else if (c == 'x' && high && low) {
      token.content += static_cast<char>(*high * 16 + *low);
      i += 2;
    } else {
      token.kind = Token::Kind::bad;
      token.content = "unknown escape in a string; known are \\\" \\\\ \\n \\t \\xNN";
      token.offset = i - 1;
      position_ = text_.size();
      return false;
    }
  }
  if (at(i) != '"') {
    token.kind = Token::Kind::bad;
    token.content = "this string does not end on its line";
    position_ = text_.size();
    return false;
  }
  position_ = i + 1;
  return true;
}

Token Lexer::next() {
  skipBlanks();
  Token token;
  token.offset = position_;
  if (position_ >= text_.size()) return token;
  const char c = text_[position_];
  const auto finish = [&](Token::Kind kind, size_t end) {
    token.kind = kind;
    position_ = end;
    token.text = text_.substr(token.offset, end - token.offset);
    return token;
  };

  if (c == '"') {
    token.kind = Token::Kind::string;
    if (readQuoted(token)) token.text = text_.substr(token.offset, position_ - token.offset);
    return token;
  }
  if (c == '%' || c == '#' || c == '!' || c == '@') {
    token.sigil = c;
    ++position_;
    token.kind = Token::Kind::name;
    if (at(position_) == '"') {
      if (readQuoted(token)) token.text = text_.substr(token.offset, position_ - token.offset);
      return token;
    }
    size_t end = position_;
    while (isNameChar(at(end))) ++end;
    token.content = text_.substr(position_, end - position_);
    if (!token.content.empty()) return finish(Token::Kind::name, end);
    token.content = fmt::format("'{}' needs a name", c);
    return finish(Token::Kind::bad, text_.size());
  }
  if (isLetter(c)) {
    size_t end = position_;
    // A dot belongs to a word only if the word goes on behind it: `q.conv`, but not `u8."observer"`.
    while (isNameChar(at(end)) && (at(end) != '.' || (isNameChar(at(end + 1)) && at(end + 1) != '.'))) ++end;
    return finish(Token::Kind::word, end);
  }
  if (const size_t end = numberEnd(position_); end > position_) return finish(Token::Kind::number, end);
  if (c == '-' && at(position_ + 1) == '>') return finish(Token::Kind::punct, position_ + 2);
  if (std::string_view("(){}[]<>,:=/-.?").find(c) != std::string_view::npos) return finish(Token::Kind::punct, position_ + 1);
  const auto byte = static_cast<unsigned char>(c);
  token.content = byte >= 0x20 && byte < 0x7f ? fmt::format("unexpected character '{}'", c) : fmt::format("unexpected byte 0x{:02x}", byte);
  return finish(Token::Kind::bad, text_.size());
}

}  // namespace qc
