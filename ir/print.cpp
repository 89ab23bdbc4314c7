#include <bit>
#include <map>
#include <unordered_map>

#include "ir/op_def.h"
#include "ir/payload.h"
#include "ir/text.h"
#include "ir/text_lexer.h"

namespace qc {
namespace {

// Equal in every bit, so that a default of 0.0 does not swallow -0.0 and nan equals itself.
bool sameAttr(const Attr& a, const Attr& b) {
  const auto* x = std::get_if<double>(&a);
  const auto* y = std::get_if<double>(&b);
  return x && y ? std::bit_cast<uint64_t>(*x) == std::bit_cast<uint64_t>(*y) : a == b;
}

std::string shapeText(const Shape& shape) { return "[" + toString(shape) + "]"; }

class Printer {
 public:
  explicit Printer(const PrintOptions& options) : options_(options) {}

  std::string graph(const Graph& g) {
    collectAliases(g);
    std::string text;
    properties(g, text);
    for (size_t i = 0; i < aliasTexts_.size(); ++i) text += fmt::format("!q{} = {}\n", i, aliasTexts_[i]);
    program(g, text);
    return text;
  }

  std::string node(const Node& n) {
    std::string text;
    for (int i = 0; i < n.numResults(); ++i) text += (i ? ", " : "") + valueName(n.result(i));
    text += fmt::format(" = {}", n.op());
    if (n.is("const")) text += " " + sigilName('#', n.constantName());
    for (int i = 0; i < n.numOperands(); ++i) text += fmt::format("{} {}", i ? "," : "", n.operand(i) ? valueName(n.operand(i)) : "_");
    attrs(n, text);
    text += " :";
    for (int i = 0; i < n.numResults(); ++i) text += fmt::format("{} {}", i ? "," : "", type(n.result(i)->type()));
    if (options_.annotations && n.annotation()) text += " " + toString(*n.annotation());
    if (options_.locations && !n.location().empty()) text += fmt::format(" loc({})", quoted(n.location()));
    return text;
  }

 private:
  void properties(const Graph& g, std::string& text) const {
    for (const auto& [key, value] : g.info().properties) text += fmt::format("{}property {} = {}\n", indent(), quoted(key), quoted(value));
  }

  void program(const Graph& g, std::string& text) {
    constants(g, text);
    header(g, text);
    for (const Node* n = g.front(); n; n = n->next()) text += fmt::format("{}  {}\n", indent(), node(*n));
    text += indent() + "  return";
    for (size_t i = 0; i < g.outputs().size(); ++i) text += fmt::format("{} {}", i ? "," : "", valueName(g.outputs()[i]));
    text += "\n" + indent() + "}\n";
  }

  // Lines of their own, further in than the node's.
  std::string held(const Graph& g) {
    std::string text = "{\n";
    depth_ += 2;
    properties(g, text);
    program(g, text);
    --depth_;
    text += indent() + "}";
    --depth_;
    return text;
  }

  std::string indent() const { return std::string(2 * depth_, ' '); }
  static std::string valueName(const Value* v) { return sigilName('%', v->name()); }

  void addAlias(const QuantPtr& params) {
    if (!params || aliases_.contains(params.get())) return;
    const std::string text = toString(*params);
    const auto [it, added] = aliasesByText_.emplace(text, aliasTexts_.size());
    if (added) aliasTexts_.push_back(text);
    aliases_.emplace(params.get(), it->second);
  }

  void collectAliases(const Graph& g) {
    for (const Value* v : g.inputs()) addAlias(v->type().quant);
    for (const Node* n = g.front(); n; n = n->next()) {
      for (const auto& [name, value] : n->attrs())
        if (const auto* quant = std::get_if<QuantAttr>(&value))
          addAlias(quant->params);
        else if (const auto* held = std::get_if<GraphAttr>(&value))
          collectAliases(*held->get());
      for (int i = 0; i < n->numResults(); ++i) addAlias(n->result(i)->type().quant);
    }
  }

  std::string quant(const QuantPtr& params) const {
    const auto it = aliases_.find(params.get());
    return it == aliases_.end() ? toString(*params) : fmt::format("!q{}", it->second);
  }
  std::string type(const TensorType& t) const { return (t.quant ? quant(t.quant) : std::string(toString(t.dtype))) + shapeText(t.shape); }

  void constants(const Graph& g, std::string& text) const {
    std::map<std::string_view, bool> printed;
    for (const Node* n = g.front(); n; n = n->next()) {
      if (!n->is("const") || !printed.emplace(n->constantName(), true).second) continue;
      const Tensor* payload = g.constants().find(n->constantName());
      if (!payload) continue;  // the verifier's to report; a dump must still print
      text += fmt::format("{}const {} : {} = {}\n", indent(), sigilName('#', n->constantName()), type(payload->type()),
                          payloadText(*payload, options_.payloads ? PayloadForm::exact : PayloadForm::brief));
    }
  }

  void header(const Graph& g, std::string& text) const {
    text += fmt::format("{}graph {}(", indent(), sigilName('@', g.name()));
    for (size_t i = 0; i < g.inputs().size(); ++i)
      text += fmt::format("{}{}: {}", i ? ", " : "", valueName(g.inputs()[i]), type(g.inputs()[i]->type()));
    text += ")";
    bool own = false;  // outputs have names of their own
    for (size_t i = 0; i < g.outputNames().size() && i < g.outputs().size(); ++i) own |= g.outputNames()[i] != g.outputs()[i]->name();
    if (own) {
      text += " -> (";
      for (size_t i = 0; i < g.outputNames().size(); ++i) text += (i ? ", " : "") + quoted(g.outputNames()[i]);
      text += ")";
    }
    text += " {\n";
  }

  // By the op's declaration, or by the type of the result that stands behind the node.
  static bool isSaidElsewhere(const Node& n, const AttrSpec& spec, const Attr& value) {
    if (spec.meaning == AttrMeaning::element && n.numResults() > 0)
      if (const auto said = elementOf(n.result()->type(), spec.kind)) return sameAttr(*said, value);
    return spec.byDefault && sameAttr(*spec.byDefault, value);
  }

  void attrs(const Node& n, std::string& text) {
    bool first = true;
    for (const auto& [name, value] : n.attrs()) {
      const AttrSpec* spec = nullptr;
      for (const AttrSpec& s : n.def().attrs)
        if (s.name == name) spec = &s;
      if (spec && isSaidElsewhere(n, *spec, value)) continue;
      const auto* q = std::get_if<QuantAttr>(&value);
      const auto* graph = std::get_if<GraphAttr>(&value);
      text += fmt::format("{}{}={}", first ? " {" : ", ", name,
                          q && q->params ? quant(q->params)
                          : graph        ? held(*graph->get())
                                         : toString(value));
      first = false;
    }
    if (!first) text += "}";
  }

  const PrintOptions& options_;
  std::unordered_map<const QuantParams*, size_t> aliases_;
  std::map<std::string, size_t> aliasesByText_;
  std::vector<std::string> aliasTexts_;
  size_t depth_ = 0;  // of graphs that nodes hold
};

}  // namespace

std::string print(const Graph& graph, const PrintOptions& options) { return Printer(options).graph(graph); }
std::string print(const Node& node, const PrintOptions& options) { return Printer(options).node(node); }

}  // namespace qc
