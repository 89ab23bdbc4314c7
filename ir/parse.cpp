#include <algorithm>
#include <charconv>
#include <cmath>
#include <new>
#include <optional>

#include "ir/op_def.h"
#include "ir/text.h"
#include "ir/text_reader.h"
#include "ir/verify.h"

namespace qc {
namespace {

// Payloads of one text together; what is larger belongs into a model file.
constexpr int64_t kMaxPayloadBytes = int64_t{1} << 30;

// splitmix64 at position `index` of the stream that starts at `seed`: any element without the ones before it.
uint64_t randomBits(uint64_t seed, uint64_t index) {
  uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::optional<int> nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

class GraphParser {
 public:
  GraphParser(std::string_view text, std::string_view sourceName) : in_(text, sourceName) {}

  Result<Graph> run() {
    while (!in_.peek().is("graph")) {
      if (in_.peek().isName('!'))
        QC_TRY(alias());
      else if (in_.peek().is("const"))
        QC_TRY(constant());
      else
        return in_.unexpected("'graph', 'const #name' or an alias '!name = q<...>'");
    }
    in_.take();
    QC_TRY(header());
    while (!in_.peek().is("return")) QC_TRY(node());
    QC_TRY(returns());
    QC_TRY(in_.expect("}", "behind the returned values"));
    if (in_.peek().kind != Token::Kind::end) return in_.unexpected("nothing more: a text holds one graph");
    return std::move(graph_);
  }

 private:
  // ---- Above the graph ----
  Status alias() {
    const Token name = in_.take();
    if (in_.aliases.contains(name.content)) return in_.failAt(name.offset, fmt::format("the alias !{} is defined twice", name.content));
    QC_TRY(in_.expect("=", "behind an alias"));
    QC_ASSIGN(in_.aliases[name.content], in_.quant());
    return {};
  }

  Status constant() {
    in_.take();
    const size_t offset = in_.peek().offset;
    QC_ASSIGN(const std::string name, in_.name('#', "the name of a constant: #name"));
    if (constants_.contains(name)) return in_.failAt(offset, fmt::format("the constant #{} is defined twice", name));
    QC_TRY(in_.expect(":", "before the type of a constant"));
    const size_t typeOffset = in_.peek().offset;
    QC_ASSIGN(const TensorType type, in_.type());
    if (type.quant) return in_.failAt(typeOffset, "a payload has a plain type; quantization belongs to the value of the const node");
    if (!type.isStatic()) return in_.failAt(typeOffset, "a constant has a static shape");
    payloadBytes_ += type.byteSize();
    if (payloadBytes_ > kMaxPayloadBytes)
      return in_.failAt(typeOffset, fmt::format("the constants of this text exceed {} bytes", kMaxPayloadBytes));
    QC_TRY(in_.expect("=", "before the payload of a constant"));
    QC_ASSIGN(Tensor payload, this->payload(type));
    constants_.emplace(name, std::move(payload));
    return {};
  }

  Result<Tensor> payload(const TensorType& type) {
    if (in_.peek().is("[")) return list(type);
    const Token form = in_.take();
    if (form.is("splat")) return splat(type);
    if (form.is("rand")) return random(type);
    if (form.is("hex")) return hex(type);
    if (form.is("iota")) {
      Tensor t(type.dtype, type.sizes());
      for (int64_t i = 0; i < t.numElements(); ++i) storeElement(type.dtype, t.mutableData(), i, static_cast<double>(i));
      return t;
    }
    if (form.is("elided"))
      return in_.failAt(form.offset, "the payload of this constant was elided when the text was printed; print it with payloads");
    return in_.failAt(form.offset, "expected a payload: splat, rand(seed, low, high), iota, hex\"...\" or a [list]");
  }

  // One element as written, in the precision of its type.
  Status element(DType dtype, void* data, int64_t i) {
    const Token token = in_.peek();
    if (dtype == DType::f64 || isFloat(dtype)) {
      if (dtype == DType::f64) {
        QC_ASSIGN(const double value, in_.real("a number"));
        storeElement(dtype, data, i, value);
      } else {
        QC_ASSIGN(const float value, in_.realFloat("a number"));
        storeElement(dtype, data, i, value);
      }
      return {};
    }
    if (dtype == DType::boolean && (token.is("true") || token.is("false"))) {
      storeElement(dtype, data, i, in_.take().is("true") ? 1 : 0);
      return {};
    }
    if (dtype == DType::u64) {
      uint64_t value = 0;
      const char* end = token.text.data() + token.text.size();
      const auto [stop, error] = std::from_chars(token.text.data(), end, value);
      if (token.kind != Token::Kind::number || error != std::errc() || stop != end) return in_.unexpected("an integer of type u64");
      in_.take();
      static_cast<uint64_t*>(data)[i] = value;
      return {};
    }
    QC_ASSIGN(const int64_t value, in_.integer("an integer"));
    if (dtype == DType::s64) {
      static_cast<int64_t*>(data)[i] = value;
      return {};
    }
    const IntRange range = dtype == DType::boolean ? IntRange{0, 1} : rangeOf(dtype);
    if (value < range.min || value > range.max)
      return in_.failAt(token.offset, fmt::format("{} does not fit into {}", value, toString(dtype)));
    storeElement(dtype, data, i, static_cast<double>(value));
    return {};
  }

  Result<Tensor> list(const TensorType& type) {
    const size_t offset = in_.take().offset;
    // Each element takes a character at least: a short text cannot ask for a large allocation.
    if (type.numElements() > static_cast<int64_t>(in_.remaining()))
      return in_.failAt(offset, fmt::format("the text is too short for the {} elements of {}", type.numElements(), type.str()));
    Tensor t(type.dtype, type.sizes());
    int64_t i = 0;
    if (!in_.peek().is("]")) {
      do {
        if (i == t.numElements()) return in_.fail("more than the {} elements of {}", t.numElements(), type.str());
        QC_TRY(element(type.dtype, t.mutableData(), i++));
      } while (in_.takeIf(","));
    }
    QC_TRY(in_.expect("]", "behind a payload"));
    if (i != t.numElements()) return in_.failAt(offset, fmt::format("{} elements for {}, which has {}", i, type.str(), t.numElements()));
    return t;
  }

  Result<Tensor> splat(const TensorType& type) {
    const std::vector<int64_t> one{1};
    Tensor single(type.dtype, one);
    QC_TRY(element(type.dtype, single.mutableData(), 0));
    Tensor t(type.dtype, type.sizes());
    const auto width = static_cast<size_t>(sizeOf(type.dtype));
    auto* out = static_cast<char*>(t.mutableData());
    const auto* from = static_cast<const char*>(single.data());
    for (int64_t i = 0; i < t.numElements(); ++i, out += width) std::copy(from, from + width, out);
    return t;
  }

  // Uniform in [low, high) for floats, among the integers low..high otherwise.
  Result<Tensor> random(const TensorType& type) {
    QC_TRY(in_.expect("(", "behind 'rand'"));
    QC_ASSIGN(const int64_t seed, in_.integer("a seed"));
    QC_TRY(in_.expect(",", "behind the seed"));
    const size_t offset = in_.peek().offset;
    QC_ASSIGN(const double low, in_.real("the low end"));
    QC_TRY(in_.expect(",", "behind the low end"));
    QC_ASSIGN(const double high, in_.real("the high end"));
    QC_TRY(in_.expect(")", "behind the high end"));
    if (!std::isfinite(low) || !std::isfinite(high) || low > high)
      return in_.failAt(offset, "the ends of a random range are finite and in order");
    const bool real = isFloat(type.dtype);
    Tensor t(type.dtype, type.sizes());
    for (int64_t i = 0; i < t.numElements(); ++i) {
      const double u = static_cast<double>(randomBits(static_cast<uint64_t>(seed), static_cast<uint64_t>(i)) >> 11) * 0x1p-53;
      storeElement(type.dtype, t.mutableData(), i, real ? low + u * (high - low) : std::floor(low + u * (high - low + 1)));
    }
    return t;
  }

  Result<Tensor> hex(const TensorType& type) {
    const size_t offset = in_.peek().offset;
    QC_ASSIGN(const std::string digits, in_.string("hexadecimal bytes in quotes"));
    if (static_cast<int64_t>(digits.size()) != 2 * type.byteSize())
      return in_.failAt(offset,
                        fmt::format("{} hexadecimal digits for {}, which has {} bytes", digits.size(), type.str(), type.byteSize()));
    Tensor t(type.dtype, type.sizes());
    auto* bytes = static_cast<unsigned char*>(t.mutableData());
    for (size_t i = 0; i < digits.size(); i += 2) {
      const auto high = nibble(digits[i]), low = nibble(digits[i + 1]);
      if (!high || !low) return in_.failAt(offset, "this is not a string of hexadecimal digits");
      bytes[i / 2] = static_cast<unsigned char>(*high * 16 + *low);
    }
    if (auto s = checkStored(t); !s) return in_.placed(offset, s.error());
    return t;
  }

  // Types narrower than their byte hold no other values.
  static Status checkStored(const Tensor& t) {
    const bool narrow = t.dtype() == DType::boolean || t.dtype() == DType::u4 || t.dtype() == DType::s4;
    const IntRange range = t.dtype() == DType::boolean ? IntRange{0, 1} : narrow ? rangeOf(t.dtype()) : IntRange{0, 0};
    for (int64_t i = 0; narrow && i < t.numElements(); ++i)
      if (const double v = t.at(i); v < static_cast<double>(range.min) || v > static_cast<double>(range.max))
        return fail(ErrorCode::kInvalidModel, "byte {} holds {}, which is no {}", i, v, toString(t.dtype()));
    return {};
  }

  // ---- The graph ----
  Status header() {
    QC_ASSIGN(std::string name, in_.name('@', "the name of a graph: @name"));
    graph_.setName(std::move(name));
    QC_TRY(in_.expect("(", "before the inputs of a graph"));
    if (!in_.takeIf(")")) {
      do {
        const size_t offset = in_.peek().offset;
        QC_ASSIGN(const std::string input, in_.name('%', "an input: %name"));
        if (graph_.findValue(input)) return in_.failAt(offset, fmt::format("%{} is defined twice", input));
        QC_TRY(in_.expect(":", "before the type of an input"));
        QC_ASSIGN(TensorType type, in_.type());
        graph_.addInput(input, std::move(type));
      } while (in_.takeIf(","));
      QC_TRY(in_.expect(")", "behind the inputs of a graph"));
    }
    if (in_.takeIf("->")) {
      QC_TRY(in_.expect("(", "before the names of the outputs"));
      do {
        QC_ASSIGN(std::string output, in_.string("the name of an output in quotes"));
        outputNames_.push_back(std::move(output));
      } while (in_.takeIf(","));
      QC_TRY(in_.expect(")", "behind the names of the outputs"));
    }
    return in_.expect("{", "before the nodes of a graph");
  }

  Result<Value*> value() {
    if (!in_.peek().isName('%')) return in_.unexpected("a value: %name");
    Value* v = graph_.findValue(in_.peek().content);
    if (!v) return in_.fail("{} is not defined above", in_.peek().text);
    in_.take();
    return v;
  }

  Result<std::vector<std::string>> resultNames() {
    std::vector<std::string> names;
    do {
      const size_t offset = in_.peek().offset;
      QC_ASSIGN(std::string name, in_.name('%', "a node '%name = op ...' or 'return'"));
      if (graph_.findValue(name) || std::find(names.begin(), names.end(), name) != names.end())
        return in_.failAt(offset, fmt::format("%{} is defined twice", name));
      names.push_back(std::move(name));
    } while (in_.takeIf(","));
    QC_TRY(in_.expect("=", "behind the names of a node's results"));
    return names;
  }

  Result<std::vector<TensorType>> resultTypes() {
    QC_TRY(in_.expect(":", "before the types of a node's results"));
    std::vector<TensorType> types;
    do {
      QC_ASSIGN(TensorType type, in_.type());
      types.push_back(std::move(type));
    } while (in_.takeIf(","));
    return types;
  }

  Status node() {
    const size_t offset = in_.peek().offset;
    QC_ASSIGN(const std::vector<std::string> names, resultNames());
    if (in_.peek().kind != Token::Kind::word) return in_.unexpected("the name of an op");
    const Token op = in_.take();
    if (!OpRegistry::get().find(op.text)) {
      std::string near;
      for (const std::string& candidate : OpRegistry::get().nearest(op.text)) near += (near.empty() ? "'" : ", '") + candidate + "'";
      return in_.failAt(op.offset, fmt::format("unknown op '{}'; the nearest are {}", op.text, near));
    }
    QC_ASSIGN(Node * node, op.is("const") ? constantNode(op) : plainNode(op, names.size()));
    if (static_cast<int>(names.size()) != node->numResults())
      return in_.failAt(offset, fmt::format("'{}' has {} results, but {} names", op.text, node->numResults(), names.size()));
    // Through names longer than all of them, so that a result's final name is not held by one of its siblings.
    std::string scratch;
    for (const std::string& name : names) scratch += name;
    for (int i = 0; i < node->numResults(); ++i) graph_.rename(node->result(i), fmt::format("{} {}", scratch, i));
    for (int i = 0; i < node->numResults(); ++i) graph_.rename(node->result(i), names[static_cast<size_t>(i)]);
    node->setLocation(fmt::format("{}:{}", in_.sourceName(), in_.line(offset)));
    return trailer(*node);
  }

  Result<Node*> constantNode(const Token& op) {
    const size_t offset = in_.peek().offset;
    QC_ASSIGN(const std::string name, in_.name('#', "a constant: #name"));
    const auto it = constants_.find(name);
    if (it == constants_.end()) return in_.failAt(offset, fmt::format("the constant #{} is not defined above", name));
    const size_t typeOffset = in_.peek().offset;
    QC_ASSIGN(const std::vector<TensorType> types, resultTypes());
    const Tensor& payload = it->second;
    if (types.size() != 1) return in_.failAt(op.offset, "a constant has one result");
    if (types[0].dtype != payload.dtype() || types[0].shape != toShape(payload.sizes()))
      return in_.failAt(typeOffset, fmt::format("the constant #{} is {}, not {}", name, payload.type().str(), types[0].str()));
    return Builder(graph_).constant(name, payload, types[0].quant)->producer();
  }

  Result<Node*> plainNode(const Token& op, size_t numNames) {
    std::vector<Value*> operands;
    if (in_.peek().isName('%') || in_.peek().is("_")) {
      do {
        if (in_.takeIf("_")) {
          operands.push_back(nullptr);
        } else {
          QC_ASSIGN(operands.emplace_back(), value());
        }
      } while (in_.takeIf(","));
    }
    AttrDict attrs;
    if (in_.peek().is("{")) {
      QC_ASSIGN(attrs, in_.attrs());
    }
    const size_t typeOffset = in_.peek().offset;
    QC_ASSIGN(std::vector<TensorType> types, resultTypes());
    auto created = Builder(graph_).createNode(op.text, std::move(operands), std::move(attrs));
    if (!created) return in_.placed(op.offset, created.error());
    Node* node = *created;
    if (static_cast<int>(types.size()) != node->numResults())
      return in_.failAt(typeOffset, fmt::format("'{}' has {} results, but {} types", op.text, node->numResults(), types.size()));
    for (size_t i = 0; i < types.size(); ++i) {
      Value* result = node->result(static_cast<int>(i));
      if (!agrees(result->type(), types[i]))
        return in_.failAt(typeOffset,
                          fmt::format("{} of '{}' is {}, not {} as written", numNames == 1 ? "the result" : fmt::format("result {}", i),
                                      op.text, result->type().str(), types[i].str()));
      result->setType(std::move(types[i]));
    }
    return node;
  }

  Status trailer(Node& node) {
    if (in_.peek().isName('@') && in_.peek().content == "q") {
      const size_t offset = in_.peek().offset;
      QC_ASSIGN(QuantAnnotation annotation, readAnnotation(in_));
      if (static_cast<int>(annotation.inputs.size()) > node.numOperands())
        return in_.failAt(offset, fmt::format("'{}' has {} operands, but annotations for {}", node.op(), node.numOperands(),
                                              annotation.inputs.size()));
      node.annotation() = std::move(annotation);
    }
    if (in_.takeIf("loc")) {
      QC_TRY(in_.expect("(", "behind 'loc'"));
      QC_ASSIGN(std::string location, in_.string("a location in quotes"));
      QC_TRY(in_.expect(")", "behind a location"));
      node.setLocation(std::move(location));
    }
    return {};
  }

  Status returns() {
    const size_t offset = in_.take().offset;
    std::vector<Value*> outputs;
    if (in_.peek().isName('%')) {
      do {
        QC_ASSIGN(outputs.emplace_back(), value());
      } while (in_.takeIf(","));
    }
    if (!outputNames_.empty() && outputNames_.size() != outputs.size())
      return in_.failAt(offset, fmt::format("{} values are returned, but {} outputs have names", outputs.size(), outputNames_.size()));
    graph_.setOutputs(std::move(outputs));
    if (!outputNames_.empty()) graph_.setOutputNames(std::move(outputNames_));
    return {};
  }

  TextReader in_;
  Graph graph_;
  std::map<std::string, Tensor, std::less<>> constants_;
  int64_t payloadBytes_ = 0;
  std::vector<std::string> outputNames_;
};

}  // namespace

Result<Graph> parseGraph(std::string_view text, std::string_view sourceName) {
  try {
    return GraphParser(text, sourceName).run();
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kResource, "{}: not enough memory for the constants of this text", sourceName);
  }
}

}  // namespace qc
