// A cursor over the words of a text, with the small grammars that several readers share: numbers, types,
// quantization parameters, attributes.  Nothing here recurses, so no text can exhaust the stack: graphs that nodes hold are read by who
// reads graphs. Every error reads "name:line:column: message".
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "ir/attr.h"
#include "ir/quant_spec.h"
#include "ir/status.h"
#include "ir/text_lexer.h"
#include "ir/type.h"

namespace qc {

class TextReader {
 public:
  TextReader(std::string_view text, std::string_view sourceName);

  const Token& peek() const { return token_; }
  Token take();
  bool takeIf(std::string_view spelling);  // a word or punctuation
  Status expect(std::string_view spelling, std::string_view where);
  Result<std::string> name(char sigil, std::string_view what);  // %x -> "x"
  Result<std::string> string(std::string_view what);
  Result<int64_t> integer(std::string_view what);
  Result<double> real(std::string_view what);
  Result<float> realFloat(std::string_view what);

  Result<Shape> shape();      // [1,3,N]
  Result<TensorType> type();  // f32[...], !q0[...], q<...>[...]
  Result<QuantPtr> quant();   // !q0 or q<...>
  Result<Attr> attr();
  Result<std::string> bareText(std::string_view what);  // up to a blank, comma, brace or quote: /a-b.*/
  Result<AttrDict> attrs();                             // {a=1, b=[2,3]}

  // Errors at the current token, or at a place remembered from Token::offset.
  template <class... Args>
  Failure fail(fmt::format_string<Args...> format, Args&&... args) const {
    return failAt(token_.offset, fmt::format(format, std::forward<Args>(args)...));
  }
  Failure failAt(size_t offset, std::string_view message) const;
  Failure unexpected(std::string_view wanted) const;
  // An error from elsewhere, placed in this text.
  Failure placed(size_t offset, const Error& error) const;
  int line(size_t offset) const;
  size_t remaining() const { return text_.size() - token_.offset; }
  const std::string& sourceName() const { return sourceName_; }

  std::map<std::string, QuantPtr, std::less<>> aliases;  // !q0 and so on
  std::function<Result<Attr>()> heldGraph;               // reads an attribute that is a graph, from its brace on; none: there are no such

 private:
  std::string_view dimText() const;
  Result<DimExpr> dimExpr(std::string_view text);  // which dimText() found
  template <class T>
  Result<T> number(std::string_view what);
  Result<QuantPtr> quantLiteral();  // behind `q`
  Status quantField(QuantParams& params, std::string_view key, size_t offset);
  Result<Attr> attrList();
  std::string_view text_;
  std::string sourceName_;
  Lexer lexer_;
  Token token_;
  mutable size_t counted_ = 0;  // line(): newlines in front of this offset
  mutable int newlines_ = 0;
};

// @q(...), in quant_spec.cpp; the reader stands at `@q`.
Result<QuantAnnotation> readAnnotation(TextReader& reader);

}  // namespace qc
