// Words of the text form: the lexer behind parseGraph, and the spelling rules the printer shares with it
// (quoting, names with sigils, floats), so that what one writes the other reads.
//
// The lexer works on demand and never fails: what it cannot read comes back as a token of kind `bad`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qc {

struct Token {
  enum class Kind : uint8_t {
    end,
    bad,     // content: what is wrong
    word,    // conv, q.conv, f32, _
    number,  // 7, -0.5, 1e-05, -inf
    string,  // "..."; content: without quotes and escapes
    name,    // %x #w !q0 @net, also as %"any text"; content: without the sigil, in `sigil`
    punct,   // ( ) { } [ ] < > , : = / - . ? and ->
  };
  Kind kind = Kind::end;
  char sigil = 0;
  size_t offset = 0;
  std::string_view text;  // as written
  std::string content;

  bool is(std::string_view spelling) const { return (kind == Kind::punct || kind == Kind::word) && text == spelling; }
  bool isName(char s) const { return kind == Kind::name && sigil == s; }
};

class Lexer {
 public:
  explicit Lexer(std::string_view text, size_t position = 0) : text_(text), position_(position) {}
  Token next();

 private:
  void skipBlanks();
  char at(size_t i) const { return i < text_.size() ? text_[i] : '\0'; }
  size_t numberEnd(size_t i) const;
  bool readQuoted(Token& token);  // at the opening quote
  std::string_view text_;
  size_t position_;
};

// "a \"quoted\" text", control bytes as \xNN.
std::string quoted(std::string_view text);
// Without quotes if every character is a letter, a digit or one of _ . $
bool isPlainName(std::string_view name);
bool isWord(std::string_view text);  // a letter or _, then also digits
std::string sigilName(char sigil, std::string_view name);

// Shortest text that reads back as the same number, always with '.' or exponent; inf, -inf, nan.
std::string realText(double value);
std::string realText(float value);

}  // namespace qc
