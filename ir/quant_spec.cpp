// The text of annotations, written and read in one place.
//
//   @q(in=[u8.histogram{bins=2048}, s8[-127:127].minmax/sym/ch0, derived(%y:0, %y:1), -], out=shared(%x), reason="...")
//
// An observed spec is dtype[range].observer{arguments} followed by /sym /floatq /chN /blockN /dyn /eps=E.
#include "ir/quant_spec.h"

#include <array>
#include <utility>

#include "ir/text_reader.h"

namespace qc {
namespace {

constexpr std::array<std::pair<QScheme, std::string_view>, 3> kSchemes = {{
    {QScheme::affine, ""},
    {QScheme::symmetric, "sym"},
    {QScheme::floatQparams, "floatq"},
}};

// The range that an observed spec has unless its text says otherwise.
IntRange usualRange(DType dtype) {
  if (isInteger(dtype) && sizeOf(dtype) <= 4) return rangeOf(dtype);
  return {ObservedSpec{}.qmin, ObservedSpec{}.qmax};
}

std::string pointText(const EdgeOrNode& point) {
  std::string text = sigilName('%', point.value);
  if (point.operand >= 0) text += fmt::format(":{}", point.operand);
  return text;
}

struct SpecPrinter {
  std::string operator()(const std::monostate&) const { return "-"; }
  std::string operator()(const ObservedSpec& s) const {
    std::string text(toString(s.dtype));
    if (const IntRange usual = usualRange(s.dtype); s.qmin != usual.min || s.qmax != usual.max)
      text += fmt::format("[{}:{}]", s.qmin, s.qmax);
    text += "." + (isWord(s.observer) ? s.observer : quoted(s.observer));
    if (!s.observerArgs.empty()) {
      text += "{";
      for (const auto& [name, value] : s.observerArgs)
        text += fmt::format("{}{}={}", text.back() == '{' ? "" : ", ", name, toString(value));
      text += "}";
    }
    for (const auto& [scheme, word] : kSchemes)
      if (s.scheme == scheme && !word.empty()) text += fmt::format("/{}", word);
    if (s.axis >= 0) text += fmt::format("/ch{}", s.axis);
    if (s.blockSize > 0) text += fmt::format("/block{}", s.blockSize);
    if (s.dynamic) text += "/dyn";
    if (s.eps != ObservedSpec{}.eps) text += "/eps=" + realText(s.eps);
    return text;
  }
  std::string operator()(const FixedSpec& s) const { return fmt::format("fixed({})", toString(s.params)); }
  std::string operator()(const SharedSpec& s) const { return fmt::format("shared({})", pointText(s.with)); }
  std::string operator()(const DerivedSpec& s) const {
    std::string text = "derived(";
    for (const EdgeOrNode& point : s.from) text += pointText(point) + ", ";
    if (s.function != DerivedSpec{}.function) text += fmt::format("function={}, ", quoted(s.function));
    if (s.dtype != DerivedSpec{}.dtype) text += fmt::format("dtype={}, ", toString(s.dtype));
    if (text.ends_with(", ")) text.resize(text.size() - 2);
    return text + ")";
  }
  std::string operator()(const CastSpec& s) const { return fmt::format("cast({})", toString(s.dtype)); }
};

// ---- Reading ----------------------------------------------------------------------------------

Result<DType> readDType(TextReader& in) {
  const auto dtype = in.peek().kind == Token::Kind::word ? parseDType(in.peek().text) : std::nullopt;
  if (!dtype) return in.unexpected("an element type");
  in.take();
  return *dtype;
}

Result<EdgeOrNode> readPoint(TextReader& in) {
  EdgeOrNode point;
  QC_ASSIGN(point.value, in.name('%', "a point: %value or %value:operand"));
  if (in.takeIf(":")) {
    const size_t offset = in.peek().offset;
    QC_ASSIGN(const int64_t operand, in.integer("the index of an operand"));
    if (operand < 0 || operand > 1'000'000) return in.failAt(offset, "the index of an operand is out of range");
    point.operand = static_cast<int>(operand);
  }
  return point;
}

// A number glued to a word: ch0, block32.
std::optional<int64_t> suffixNumber(std::string_view text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return std::nullopt;
  text.remove_prefix(prefix.size());
  if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  int64_t value = 0;
  for (const char c : text) value = value * 10 + (c - '0');
  return value;
}

Status readObservedFlags(TextReader& in, ObservedSpec& spec) {
  while (in.takeIf("/")) {
    const Token flag = in.take();
    bool known = false;
    for (const auto& [scheme, word] : kSchemes)
      if (!word.empty() && flag.text == word) {
        spec.scheme = scheme;
        known = true;
      }
    if (flag.text == "dyn") {
      spec.dynamic = known = true;
    } else if (flag.text == "eps") {
      known = true;
      QC_TRY(in.expect("=", "behind 'eps'"));
      QC_ASSIGN(spec.eps, in.real("the smallest scale"));
    } else if (const auto axis = suffixNumber(flag.text, "ch")) {
      spec.axis = static_cast<int>(*axis);
      known = true;
    } else if (const auto block = suffixNumber(flag.text, "block")) {
      spec.blockSize = *block;
      known = true;
    }
    if (!known) return in.failAt(flag.offset, "unknown property of a spec; known are sym, floatq, chN, blockN, dyn, eps=E");
  }
  return {};
}

// The lexer has read `u8.histogram` as one word; a range or quotes break it up.
Result<QuantSpec> readObserved(TextReader& in) {
  if (in.peek().kind != Token::Kind::word) return in.unexpected("a spec: '-', dtype.observer, fixed, shared, derived or cast");
  const Token head = in.take();
  const size_t dot = head.text.find('.');
  const auto dtype = parseDType(head.text.substr(0, dot));
  if (!dtype) return in.failAt(head.offset, fmt::format("'{}' is not an element type", head.text.substr(0, dot)));
  ObservedSpec spec;
  spec.dtype = *dtype;
  spec.qmin = usualRange(*dtype).min;
  spec.qmax = usualRange(*dtype).max;
  if (dot != std::string_view::npos) {
    spec.observer = head.text.substr(dot + 1);
  } else {
    if (in.takeIf("[")) {
      QC_ASSIGN(spec.qmin, in.integer("the smallest quantized value"));
      QC_TRY(in.expect(":", "between the ends of a range"));
      QC_ASSIGN(spec.qmax, in.integer("the largest quantized value"));
      QC_TRY(in.expect("]", "behind a range"));
    }
    QC_TRY(in.expect(".", "before the name of an observer"));
    if (in.peek().kind == Token::Kind::string)
      spec.observer = in.take().content;
    else if (in.peek().kind == Token::Kind::word)
      spec.observer = in.take().text;
    else
      return in.unexpected("the name of an observer");
  }
  if (in.peek().is("{")) {
    QC_ASSIGN(spec.observerArgs, in.attrs());
  }
  QC_TRY(readObservedFlags(in, spec));
  return QuantSpec(std::move(spec));
}

Result<QuantSpec> readDerived(TextReader& in) {
  DerivedSpec spec;
  while (!in.peek().is(")")) {
    if (in.takeIf("function")) {
      QC_TRY(in.expect("=", "behind 'function'"));
      QC_ASSIGN(spec.function, in.string("a function's name in quotes"));
    } else if (in.takeIf("dtype")) {
      QC_TRY(in.expect("=", "behind 'dtype'"));
      QC_ASSIGN(spec.dtype, readDType(in));
    } else {
      QC_ASSIGN(EdgeOrNode point, readPoint(in));
      spec.from.push_back(std::move(point));
    }
    if (!in.takeIf(",")) break;
  }
  return QuantSpec(std::move(spec));
}

Result<QuantSpec> readFixed(TextReader& in) {
  QC_ASSIGN(const QuantPtr params, in.quant());
  return QuantSpec(FixedSpec{*params});
}
Result<QuantSpec> readShared(TextReader& in) {
  QC_ASSIGN(EdgeOrNode with, readPoint(in));
  return QuantSpec(SharedSpec{std::move(with)});
}
Result<QuantSpec> readCast(TextReader& in) {
  QC_ASSIGN(const DType dtype, readDType(in));
  return QuantSpec(CastSpec{dtype});
}

constexpr std::pair<std::string_view, Result<QuantSpec> (*)(TextReader&)> kSpecForms[] = {
    {"fixed", readFixed}, {"shared", readShared}, {"derived", readDerived}, {"cast", readCast}};

Result<QuantSpec> readSpec(TextReader& in) {
  if (in.takeIf("-")) return QuantSpec();
  for (const auto& [word, read] : kSpecForms) {
    if (!in.takeIf(word)) continue;
    QC_TRY(in.expect("(", "behind the kind of a spec"));
    QC_ASSIGN(QuantSpec spec, read(in));
    QC_TRY(in.expect(")", "behind a spec"));
    return spec;
  }
  return readObserved(in);
}

Status readAnnotationItem(TextReader& in, QuantAnnotation& annotation) {
  if (in.takeIf("keep_float")) {
    annotation.keepFloat = true;
    return {};
  }
  if (in.takeIf("no_sharing")) {
    annotation.allowImplicitSharing = false;
    return {};
  }
  if (in.takeIf("reason")) {
    QC_TRY(in.expect("=", "behind 'reason'"));
    QC_ASSIGN(annotation.reason, in.string("a reason in quotes"));
    return {};
  }
  if (in.takeIf("out")) {
    QC_TRY(in.expect("=", "behind 'out'"));
    QC_ASSIGN(annotation.output, readSpec(in));
    return {};
  }
  if (!in.takeIf("in")) return in.unexpected("in, out, keep_float, no_sharing or reason");
  QC_TRY(in.expect("=", "behind 'in'"));
  QC_TRY(in.expect("[", "before the specs of the operands"));
  annotation.inputs.clear();
  if (in.takeIf("]")) return {};
  do {
    QC_ASSIGN(QuantSpec spec, readSpec(in));
    annotation.inputs.push_back(std::move(spec));
  } while (in.takeIf(","));
  return in.expect("]", "behind the specs of the operands");
}

}  // namespace

std::string toString(const QuantSpec& spec) { return std::visit(SpecPrinter{}, spec); }

const ObservedSpec* QuantAnnotation::dynamicInput(int operand) const {
  const auto i = usize(operand);
  const auto* spec = i < inputs.size() ? std::get_if<ObservedSpec>(&inputs[i]) : nullptr;
  return spec && spec->dynamic ? spec : nullptr;
}

std::string toString(const QuantAnnotation& annotation) {
  std::string text = "@q(";
  const auto item = [&](const std::string& what) { text += (text.back() == '(' ? "" : ", ") + what; };
  if (!annotation.inputs.empty()) {
    std::string list;
    for (const QuantSpec& spec : annotation.inputs) list += (list.empty() ? "" : ", ") + toString(spec);
    item("in=[" + list + "]");
  }
  if (!annotation.inputs.empty() || isSet(annotation.output)) item("out=" + toString(annotation.output));
  if (!annotation.allowImplicitSharing) item("no_sharing");
  if (annotation.keepFloat) item("keep_float");
  if (!annotation.reason.empty()) item("reason=" + quoted(annotation.reason));
  return text + ")";
}

Result<QuantAnnotation> readAnnotation(TextReader& in) {
  in.take();  // @q
  QC_TRY(in.expect("(", "behind '@q'"));
  QuantAnnotation annotation;
  if (in.takeIf(")")) return annotation;
  do QC_TRY(readAnnotationItem(in, annotation));
  while (in.takeIf(","));
  QC_TRY(in.expect(")", "behind an annotation"));
  return annotation;
}

}  // namespace qc
