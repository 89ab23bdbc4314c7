#include <algorithm>
#include <new>
#include <optional>

#include "ir/decided_sizes.h"
#include "ir/op_def.h"
#include "ir/payload.h"
#include "ir/text.h"
#include "ir/text_reader.h"
#include "ir/verify.h"

namespace qc {
namespace {

// Payloads of one text together; what is larger belongs into a model file.
constexpr int64_t kMaxPayloadBytes = int64_t{1} << 30;

constexpr int kMaxDepth = 16;  // of graphs that nodes hold

class GraphParser {
 public:
  // payloadBytes: of the whole text so far.
  GraphParser(TextReader& in, int64_t& payloadBytes, int depth = 0) : in_(in), payloadBytes_(payloadBytes), depth_(depth) {}

  // The reader stands behind the graph then.
  Result<Graph> run() {
    while (!in_.peek().is("graph")) {
      if (in_.peek().isName('!'))
        QC_TRY(alias());
      else if (in_.peek().is("const"))
        QC_TRY(constant());
      else if (in_.takeIf("property"))
        QC_TRY(property());
      else
        return in_.unexpected("'graph', 'const #name', 'property \"key\"' or an alias '!name = q<...>'");
    }
    in_.take();
    QC_TRY(header());
    while (!in_.peek().is("return")) QC_TRY(node());
    QC_TRY(returns());
    QC_TRY(in_.expect("}", "behind the returned values"));
    QC_TRY(checkDecidedOnce(graph_));
    return std::move(graph_);
  }

 private:
  Result<Attr> heldGraph() {
    if (depth_ == kMaxDepth) return in_.fail("graphs are held by one another more than {} deep", kMaxDepth);
    QC_TRY(in_.expect("{", "before a graph that a node holds"));
    QC_ASSIGN(Graph graph, GraphParser(in_, payloadBytes_, depth_ + 1).run());
    in_.heldGraph = [this] { return heldGraph(); };  // not the inner one's
    QC_TRY(in_.expect("}", "behind a graph that a node holds"));
    return Attr(GraphAttr(std::move(graph)));
  }

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
    QC_ASSIGN(Tensor payload, readPayload(in_, type));
    constants_.emplace(name, std::move(payload));
    return {};
  }

  // What a file says of its model beside the program.
  Status property() {
    ModelInfo info = graph_.info();
    QC_ASSIGN(std::string key, in_.string("the key of a property in quotes"));
    QC_TRY(in_.expect("=", "before the value of a property"));
    QC_ASSIGN(std::string value, in_.string("the value of a property in quotes"));
    info.properties.emplace_back(std::move(key), std::move(value));
    graph_.setInfo(std::move(info));
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
    for (int i = 0; i < node->numResults(); ++i) graph_.rename(node->result(i), nth(names, i));
    node->setLocation(fmt::format("{}:{}", in_.sourceName(), in_.line(offset)));
    return trailer(*node);
  }

  Result<Node*> constantNode(const Token& op) {
    const size_t offset = in_.peek().offset;
    QC_ASSIGN(const std::string name, in_.name('#', "a constant: #name"));
    const auto it = constants_.find(name);
    if (it == constants_.end()) return in_.failAt(offset, fmt::format("the constant #{} is not defined above", name));
    AttrDict attrs;
    if (in_.peek().is("{")) {
      QC_ASSIGN(attrs, in_.attrs());
      AttrDict complete = attrs;
      if (const Status declared = checkAgainstDeclaration(*OpRegistry::get().find(op.text), 0, complete); !declared)
        return in_.placed(op.offset, declared.error());
    }
    const size_t typeOffset = in_.peek().offset;
    QC_ASSIGN(const std::vector<TensorType> types, resultTypes());
    const Tensor& payload = it->second;
    if (types.size() != 1) return in_.failAt(op.offset, "a constant has one result");
    if (types[0].dtype != payload.dtype() || types[0].shape != toShape(payload.sizes()))
      return in_.failAt(typeOffset, fmt::format("the constant #{} is {}, not {}", name, payload.type().str(), types[0].str()));
    Node* node = Builder(graph_).constant(name, payload, types[0].quant)->producer();
    for (const auto& [key, value] : attrs) node->attrs().set(key, value);
    return node;
  }

  // What the type of the result says is not written among the attributes.
  static void completeByType(std::string_view op, const std::vector<TensorType>& types, AttrDict& attrs) {
    const OpDef* def = OpRegistry::get().find(op);
    if (!def || types.empty()) return;
    for (const AttrSpec& spec : def->attrs) {
      if (spec.meaning != AttrMeaning::element || attrs.find(spec.name)) continue;
      if (auto said = elementOf(types[0], spec.kind)) attrs.set(spec.name, *std::move(said));
    }
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
      in_.heldGraph = [this] { return heldGraph(); };
      QC_ASSIGN(attrs, in_.attrs());
    }
    const size_t typeOffset = in_.peek().offset;
    QC_ASSIGN(std::vector<TensorType> types, resultTypes());
    completeByType(op.text, types, attrs);
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
        return in_.failAt(
            offset, fmt::format("'{}' has {} operands, but annotations for {}", node.op(), node.numOperands(), annotation.inputs.size()));
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

  TextReader& in_;
  int64_t& payloadBytes_;
  const int depth_;
  Graph graph_;
  std::map<std::string, Tensor, std::less<>> constants_;
  std::vector<std::string> outputNames_;
};

}  // namespace

Result<Graph> parseGraph(std::string_view text, std::string_view sourceName) {
  try {
    TextReader in(text, sourceName);
    int64_t payloadBytes = 0;
    QC_ASSIGN(Graph graph, GraphParser(in, payloadBytes).run());
    if (in.peek().kind != Token::Kind::end) return in.unexpected("nothing more: a text holds one graph");
    return graph;
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kResource, "{}: not enough memory for the constants of this text", sourceName);
  }
}

}  // namespace qc
