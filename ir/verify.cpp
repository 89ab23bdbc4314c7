#include "ir/verify.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_set>

#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "ir/dim_expr_terms.h"
#include "ir/text_lexer.h"

namespace qc {
namespace {

// On every op: the row of the kernel table that was chosen for the node.
const AttrSpec kUniversalAttrs[] = {{"kernel", AttrKind::string, std::string()}};

// Attributes that passes know by their name.
constexpr std::pair<std::string_view, AttrKind> kKnownAttrs[] = {
    {"keepdims", AttrKind::integer},  // 0: dims that are reduced go
    {"layout", AttrKind::string},     // "channels_first", or "channels_last" once the layout pass has moved the channels
    {"post", AttrKind::expression}};  // of the result, and of a residual

// What the text form takes for a name.
constexpr std::string_view kWords = "letters, digits and '_', no digit first";

const AttrSpec* findSpec(std::span<const AttrSpec> specs, std::string_view name) {
  const auto it = std::find_if(specs.begin(), specs.end(), [&](const AttrSpec& spec) { return spec.name == name; });
  return it == specs.end() ? nullptr : &*it;
}

// Whether attributes of this kind can hold what this meaning says.
bool canMean(AttrKind kind, AttrMeaning meaning) {
  const bool list = kind == AttrKind::integers || kind == AttrKind::dims;
  switch (meaning) {
    case AttrMeaning::plain: return true;
    case AttrMeaning::axis: return kind == AttrKind::integer;
    case AttrMeaning::element: return kind == AttrKind::dtype || kind == AttrKind::quant;
    case AttrMeaning::shape: return list;
    case AttrMeaning::perDim:
    case AttrMeaning::perDimPair: return list || kind == AttrKind::reals;
    default: return kind == AttrKind::integers;
  }
}

// Whether a value is of the declared kind as it stands.
Result<bool> isTyped(const Attr& value, AttrKind kind) {
  if (const auto* expression = std::get_if<ExprAttr>(&value)) QC_TRY(expression->check());
  if (const auto* packing = std::get_if<Packing>(&value)) QC_TRY(packing->check());
  if (const auto* dims = std::get_if<std::vector<DimExpr>>(&value); dims && constants(*dims)) return false;
  if (const auto* graph = std::get_if<GraphAttr>(&value); graph && !graph->get()) return false;
  return kindOf(value) == kind || (kind == AttrKind::dims && kindOf(value) == AttrKind::integers);
}

// Turns a value into the declared kind where that loses nothing: 1 for 1.0, [] for any empty list, text that parses.
Result<bool> coerce(Attr& value, const AttrSpec& spec) {
  const AttrKind kind = spec.kind;
  if (const auto* text = std::get_if<std::string>(&value); text && kind == AttrKind::expression) {
    // Where an expression is required, "" is not an expression: the parser's to say.
    if (text->empty() && !spec.byDefault) QC_TRY(ScalarExpr::parse(*text));
    QC_ASSIGN(value, ExprAttr::parse(*text));
    return true;
  }
  if (const auto* text = std::get_if<std::string>(&value); text && kind == AttrKind::packing) {
    QC_ASSIGN(value, Packing::parse(*text));
    return true;
  }
  if (const auto* dims = std::get_if<std::vector<DimExpr>>(&value); dims && kind == AttrKind::dims)
    if (auto sizes = constants(*dims)) value = std::move(*sizes);
  QC_ASSIGN(const bool typed, isTyped(value, kind));
  if (typed) return true;
  if (const auto* number = std::get_if<int64_t>(&value); number && kind == AttrKind::real) {
    value = static_cast<double>(*number);
    return true;
  }
  if (const auto* list = std::get_if<std::vector<int64_t>>(&value); list && kind == AttrKind::reals) {
    value = std::vector<double>(list->begin(), list->end());
    return true;
  }
  if (const auto* number = std::get_if<int64_t>(&value); number && kind == AttrKind::dims) {
    value = std::vector<int64_t>{*number};
    return true;
  }
  if (const auto* list = std::get_if<std::vector<double>>(&value);
      list && list->empty() && (kind == AttrKind::integers || kind == AttrKind::dims)) {
    value = std::vector<int64_t>();
    return true;
  }
  return false;
}

Failure unknownAttr(std::string_view owner, std::span<const AttrSpec> specs, std::string_view noun, std::string_view name) {
  std::vector<std::string> known;
  for (const AttrSpec& spec : specs) known.push_back(spec.name);
  std::string hint;
  for (const std::string& near : nearestNames(name, known)) hint += (hint.empty() ? "; did you mean '" : "', '") + near;
  return fail(ErrorCode::kInvalidModel, "'{}' has no {} '{}'{}", owner, noun, name, hint.empty() ? "" : hint + "'?");
}

Status checkOperandCount(const OpDef& def, int numOperands) {
  int least = 0;
  for (size_t i = 0; i < def.operands.size(); ++i)
    if (!def.operands[i].optional && !def.operands[i].variadic) least = static_cast<int>(i) + 1;
  const bool open = !def.operands.empty() && def.operands.back().variadic;
  const int most = static_cast<int>(def.operands.size());
  if (numOperands >= least && (open || numOperands <= most)) return {};
  std::string wanted = fmt::format("{} to {}", least, most);
  if (open) wanted = fmt::format("at least {}", least);
  if (least == most) wanted = std::to_string(least);
  return fail(ErrorCode::kInvalidModel, "'{}' takes {} operand{}, found {}", def.name, wanted, wanted == "1" ? "" : "s", numOperands);
}

Status checkDict(std::string_view owner, std::string_view noun, std::span<const AttrSpec> specs, std::span<const AttrSpec> universal,
                 AttrDict& attrs) {
  AttrDict complete = attrs;
  for (const auto& [name, value] : attrs) {
    const AttrSpec* spec = findSpec(specs, name);
    if (!spec) spec = findSpec(universal, name);
    if (!spec) return unknownAttr(owner, specs, noun, name);
    QC_ASSIGN(const bool isOfKind, isTyped(value, spec->kind));
    if (isOfKind) continue;
    Attr typed = value;
    QC_ASSIGN(const bool fits, coerce(typed, *spec));
    if (!fits)
      return fail(ErrorCode::kInvalidModel, "{} '{}' of '{}' is of kind {}, found {} {}", noun, name, owner, toString(spec->kind),
                  toString(kindOf(value)), toString(value));
    complete.set(name, std::move(typed));
  }
  for (const AttrSpec& spec : specs) {
    if (complete.find(spec.name)) continue;
    if (!spec.byDefault && spec.meaning == AttrMeaning::element)
      return fail(ErrorCode::kInvalidModel, "'{}' lacks its {} '{}', the {} of its result", owner, noun, spec.name,
                  spec.kind == AttrKind::quant ? "quantized type" : "element type");
    if (!spec.byDefault) return fail(ErrorCode::kInvalidModel, "'{}' lacks its {} '{}'", owner, noun, spec.name);
    Attr value = *spec.byDefault;
    if (!coerce(value, spec).value_or(false))
      return fail(ErrorCode::kInvalidArgument, "the default of {} '{}' of '{}' is of kind {}, not {}", noun, spec.name, owner,
                  toString(kindOf(*spec.byDefault)), toString(spec.kind));
    complete.set(spec.name, std::move(value));
  }
  attrs = std::move(complete);
  return {};
}

// Collects violations; the report ends after a screenful.
class Verifier {
 public:
  Verifier(const Graph& graph, std::optional<Stage> stage) : graph_(graph), stage_(stage) {}

  Status run() {
    structure();
    // With broken structure nothing else can be trusted, not even that operands exist.
    if (count_ == 0) {
      sizes();
      for (const Node* n = graph_.front(); n; n = n->next()) node(*n);
      if (count_ > 0) return result();
      if (auto once = checkDecidedOnce(graph_); !once) report(std::move(once.error()), nullptr);
    }
    return result();
  }

  Status runStage() {
    sizes();
    for (const Node* n = graph_.front(); n; n = n->next()) stage(*n);
    return result();
  }

 private:
  static constexpr int kShown = 20;

  Status result() const {
    if (count_ == 0) return {};
    std::string message = message_;
    if (count_ > kShown) message += fmt::format("\n... and {} more", count_ - kShown);
    return Failure(Error(first_->code(), message)).at(first_->node()).on(first_->tensor()).help(first_->remedy());
  }

  void report(Error error, const Node* node, const Value* value = nullptr) {
    if (node) static_cast<void>(std::move(error).at(node->location()));  // fills in place
    if (value) static_cast<void>(std::move(error).on(value->name()));
    if (++count_ <= kShown) {
      if (first_) {
        message_ += '\n';
        if (!error.node().empty()) message_ += fmt::format("node '{}': ", error.node());
      }
      message_ += error.message();
    }
    if (!first_) first_ = std::move(error);
  }

  void structure() {
    std::unordered_set<const Value*> defined;
    defined.reserve(usize(graph_.numNodes()) + graph_.inputs().size());
    int64_t slots = 0, uses = 0;
    const auto define = [&](const Value* v, const Node* producer) {
      defined.insert(v);
      if (graph_.findValue(v->name()) != v) report(fail(ErrorCode::kInternal, "the name of %{} is not its own", v->name()), producer, v);
      for (const Use* u = v->firstUse(); u; u = u->next()) {
        ++uses;
        if (u->get() != v || u->user()->operand(u->index()) != v)
          report(fail(ErrorCode::kInternal, "the use list of %{} is corrupt", v->name()), producer, v);
      }
    };
    for (const Value* v : graph_.inputs()) {
      define(v, nullptr);
      if (auto s = checkType(v->type()); !s) report(std::move(s.error()), nullptr, v);
    }
    for (const Node* n = graph_.front(); n; n = n->next()) {
      for (int i = 0; i < n->numOperands(); ++i) {
        const Value* v = n->operand(i);
        if (!v) continue;
        ++slots;
        if (!defined.contains(v)) report(fail(ErrorCode::kInternal, "'{}' uses %{} before it is defined", n->op(), v->name()), n, v);
      }
      for (int i = 0; i < n->numResults(); ++i) define(n->result(i), n);
    }
    if (slots != uses) report(fail(ErrorCode::kInternal, "{} operands, but {} uses in the use lists", slots, uses), nullptr);
    for (const Value* v : graph_.outputs())
      if (!defined.contains(v)) report(fail(ErrorCode::kInternal, "an output is not defined in the graph"), nullptr);
    if (graph_.outputNames().size() != graph_.outputs().size())
      report(fail(ErrorCode::kInternal, "{} outputs have {} names", graph_.outputs().size(), graph_.outputNames().size()), nullptr);
  }

  void sizes() {
    if (!stage_ || allowsFreeDims(*stage_)) return;
    if (auto s = checkSizesKnown(graph_); !s) report(std::move(s.error()), nullptr);
  }

  void stage(const Node& n) {
    if (!stage_) return;
    const auto illegal = [&](std::string_view what) {
      report(fail(ErrorCode::kInvalidModel, "'{}' {} in stage '{}'", n.op(), what, toString(*stage_)), &n);
    };
    if (!n.def().legalIn(*stage_)) return illegal("is not legal");
    const bool isKernelStage = *stage_ == Stage::kKernel;
    const Attr* kernel = n.attrs().find("kernel");
    const bool hasKernel = kernel && *kernel != Attr(std::string());
    if (!isKernelStage && hasKernel) illegal("has a kernel already");
    if (isKernelStage && !hasKernel && !n.is("const")) illegal("has no kernel");
    // What convert should have consumed.  The annotations of observers say how they observe, and calibration compiles those.
    if ((*stage_ == Stage::kQdq || *stage_ == Stage::kQuant) && n.annotation()) illegal("is still annotated");
    // A fused expression reads integers only once lower-quant has made them.
    if (*stage_ < Stage::kQuant && n.is("map") && readsOrMakesIntegers(n)) illegal("of quantized tensors is not legal");
  }

  static bool readsOrMakesIntegers(const Node& n) {
    const auto quantized = [](const Value* v) { return v && v->type().isQuantized(); };
    const std::vector<Value*> operands = n.operands();
    return quantized(n.result()) || std::any_of(operands.begin(), operands.end(), quantized);
  }

  void node(const Node& n) {
    const OpDef& def = n.def();
    stage(n);
    AttrDict attrs = n.attrs();
    if (auto s = checkAgainstDeclaration(def, n.numOperands(), attrs); !s) return report(std::move(s.error()), &n);
    for (const auto& [name, value] : attrs)
      if (const Attr* own = n.attrs().find(name); !own || kindOf(*own) != kindOf(value))
        return report(fail(ErrorCode::kInternal, "'{}' lacks its attribute '{}' in the declared kind", def.name, name), &n);
    for (int i = 0; i < n.numOperands(); ++i)
      if (!n.operand(i) && !optionalOperand(def, i))
        return report(fail(ErrorCode::kInvalidModel, "'{}' lacks operand {}", def.name, i), &n);
    for (const auto& [name, value] : attrs) {
      if (const auto* quant = std::get_if<QuantAttr>(&value); quant && quant->params)
        if (auto s = checkQuantParams(*quant->params); !s) return report(std::move(s.error()), &n);
      if (const auto* graph = std::get_if<GraphAttr>(&value))
        if (auto s = Verifier(*graph->get(), std::nullopt).run(); !s) return report(std::move(s.error()), &n);
    }
    for (int i = 0; i < n.numResults(); ++i)
      if (auto s = checkType(n.result(i)->type()); !s) return report(std::move(s.error()), &n, n.result(i));
    if (n.annotation() && static_cast<int>(n.annotation()->inputs.size()) > n.numOperands())
      report(fail(ErrorCode::kInvalidModel, "'{}' has {} operands, but annotations for {}", def.name, n.numOperands(),
                  n.annotation()->inputs.size()),
             &n);
    n.is("const") ? constant(n) : types(n, attrs);
  }

  static bool optionalOperand(const OpDef& def, int i) {
    return i < static_cast<int>(def.operands.size()) && nth(def.operands, i).optional;
  }

  void constant(const Node& n) {
    if (n.constantName().empty()) return report(fail(ErrorCode::kInternal, "a constant without a payload"), &n, n.result());
    const Tensor* payload = &n.constant();
    const TensorType& type = n.result()->type();
    if (type.dtype != payload->dtype() || type.shape != toShape(payload->sizes()))
      report(fail(ErrorCode::kInvalidModel, "constant #{} is {}, its value %{} is {}", n.constantName(), payload->type().str(),
                  n.result()->name(), type.str()),
             &n, n.result());
  }

  void types(const Node& n, const AttrDict& attrs) {
    if (!n.def().infer) return report(fail(ErrorCode::kInternal, "'{}' has no type inference", n.op()), &n);
    const std::vector<Value*> operands = n.operands();
    auto inferred = n.def().infer(InferContext{n.op(), operands, attrs});
    if (!inferred) return report(std::move(inferred.error()), &n);
    if (static_cast<int>(inferred->size()) != n.numResults())
      return report(fail(ErrorCode::kInvalidModel, "'{}' has {} results, inference says {}", n.op(), n.numResults(), inferred->size()), &n);
    for (int i = 0; i < n.numResults(); ++i)
      if (const TensorType& wanted = nth((*inferred), i); !agrees(wanted, n.result(i)->type()))
        report(fail(ErrorCode::kInvalidModel, "result {} of '{}' is {}, inference says {}", i, n.op(), n.result(i)->type().str(),
                    wanted.str()),
               &n, n.result(i));
  }

  const Graph& graph_;
  std::optional<Stage> stage_;
  int count_ = 0;
  std::optional<Error> first_;
  std::string message_;
};

}  // namespace

Status verify(const Graph& graph, std::optional<Stage> stage) { return Verifier(graph, stage).run(); }
Status checkStage(const Graph& graph, Stage stage) { return Verifier(graph, stage).runStage(); }

bool allowsFreeDims(Stage stage) { return stage != Stage::kKernel; }

Status checkSizesKnown(const Graph& graph) {
  std::string inputs, names;
  std::set<std::string> symbols;
  for (const Value* v : graph.inputs()) {
    if (v->type().isStatic()) continue;
    inputs += fmt::format("{}'{}' is {}", inputs.empty() ? "" : ", ", v->name(), v->type().str());
    for (const Dim& dim : v->type().shape)
      if (!dim.isStatic()) symbols.merge(dim.expr().symbols());
  }
  for (const std::string& symbol : symbols) names += (names.empty() ? "" : ", ") + DimExpr::symbol(symbol).str();
  if (!inputs.empty())
    return fail(ErrorCode::kInvalidArgument, "free dims have no size yet: {}", inputs)
        .help(fmt::format("give every symbol its size with bind-shapes: {}", names));
  QC_TRY(checkNoSizesDecided(graph));
  for (const Node* n = graph.front(); n; n = n->next()) {
    QC_TRY(checkAttributesKnown(*n));
    for (int i = 0; i < n->numResults(); ++i)
      if (const Value* v = n->result(i); !v->type().isStatic())
        return fail(ErrorCode::kInvalidArgument, "the size of {} is not known before running", v->type().str())
            .at(n->location())
            .on(v->name());
  }
  return {};
}

Status checkNoSizesDecided(const Graph& graph) {
  const Node* n = firstDeciding(graph);
  if (!n) return {};
  const Value* condition = conditionOf(*n);
  std::string fixed;  // small inputs of the graph decide: what is large is data
  for (const Value* v : n->operands())
    if (v && !v->producer() && v->type().isStatic() && v->type().numElements() == 1 && (!condition || v == condition))
      fixed += fmt::format("{}'{}'", fixed.empty() ? "" : " and ", v->name());
  if (!fixed.empty()) fixed = fmt::format("; or fix {} with LoadOptions::values", fixed);
  return fail(ErrorCode::kUnsupported, "the data decides {}, so that no one program is planned for what comes behind",
              condition    ? "which of two tensors is taken"
              : bodyOf(*n) ? "how often a loop goes round"
                           : fmt::format("how large {} is", n->result()->type().str()))
      .at(n->location())
      .on(n->result()->name())
      .help(fmt::format("run it with `qcompile run`, in C++ with DynamicSession, which {}{}{}",
                        condition ? "runs the branch that is taken" : "plans for the sizes that come out", fixed,
                        condition && !fixed.empty() ? "" : "; or cut the model in front of this node"));
}

Status checkAttrSpecs(std::string_view owner, std::span<const AttrSpec> specs) {
  std::set<std::string_view> seen;
  for (const AttrSpec& spec : specs) {
    if (!isWord(spec.name))
      return fail(ErrorCode::kInvalidArgument, "'{}' declares '{}', which is not a name", owner, spec.name).help(kWords);
    if (!seen.insert(spec.name).second) return fail(ErrorCode::kInvalidArgument, "'{}' declares '{}' twice", owner, spec.name);
    Attr value = spec.byDefault.value_or(Attr());
    if (spec.byDefault && !coerce(value, spec).value_or(false))
      return fail(ErrorCode::kInvalidArgument, "the default of {}.{} is of kind {}, not {}", owner, spec.name,
                  toString(kindOf(*spec.byDefault)), toString(spec.kind));
  }
  return {};
}

Status checkDeclaration(const OpDef& def) {
  const auto wrong = [&](std::string_view what) { return fail(ErrorCode::kInvalidArgument, "op '{}' {}", def.name, what); };
  std::set<std::string_view> seen;
  for (size_t begin = 0; begin <= def.name.size();) {
    const size_t end = std::min(def.name.find('.', begin), def.name.size());
    if (!isWord(std::string_view(def.name).substr(begin, end - begin)))
      return wrong("has a name that the text form cannot hold").help(kWords);
    begin = end + 1;
  }
  for (size_t i = 0; i < def.operands.size(); ++i) {
    const OperandSpec& operand = def.operands[i];
    if (!isWord(operand.name)) return wrong(fmt::format("has an operand '{}', which is not a name", operand.name)).help(kWords);
    if (!seen.insert(operand.name).second) return wrong(fmt::format("has two operands '{}'", operand.name));
    if (operand.variadic && i + 1 < def.operands.size()) return wrong("has operands behind the one that may be many");
  }
  QC_TRY(checkAttrSpecs(def.name, def.attrs));
  for (const AttrSpec& spec : def.attrs)
    if (spec.meaning != AttrMeaning::plain && def.operands.empty())
      return wrong(fmt::format("has an attribute '{}' that speaks of the dims of its first operand, and no operands", spec.name));
  for (const AttrSpec& spec : def.attrs) {
    if (findSpec(kUniversalAttrs, spec.name)) return wrong(fmt::format("has an attribute '{}', which every op has", spec.name));
    for (const auto& [name, kind] : kKnownAttrs)
      if (spec.name == name && spec.kind != kind)
        return wrong(fmt::format("has an attribute '{}' of kind {}; passes know it by its name as of kind {}", name, toString(spec.kind),
                                 toString(kind)))
            .help("give it another name");
    if (!canMean(spec.kind, spec.meaning))
      return wrong(fmt::format("has an attribute '{}' of kind {}, which cannot mean what it says of it", spec.name, toString(spec.kind)))
          .help("an axis is an integer; lists for dims are integers, dims or reals (AttrMeaning)");
  }
  if (!def.infer) return wrong("does not say what type it has").help("set OpDef::infer");
  if (!def.eval) return wrong("has no evaluation").help("set OpDef::eval: nothing else runs it");
  if (def.decides) {
    if (!def.decides->bounds || !def.decides->eval) return wrong("decides sizes without saying their bounds or how it comes to them");
    const AttrSpec* sizes = findSpec(def.attrs, "sizes");
    if (!sizes || sizes->kind != AttrKind::dims) return wrong("decides sizes and has no attribute `sizes` of kind dims");
    if (def.has(kPure))
      return wrong("decides sizes and is pure, but others may need its symbols where nobody reads it").help("leave kPure out");
  }
  if (def.numResults < -1 || def.numResults == 0)
    return wrong(fmt::format("has {} results", def.numResults)).help("1 or more, or -1: as infer says");
  if (def.has(kElementwise) && !def.scalar) return wrong("is elementwise and has no scalar expression").help("set OpDef::scalar");
  if (def.has(kCommutative) && def.operands.size() < 2) return wrong("is commutative and has less than two operands");
  if ((def.traits & (kElementwise | kMovesData | kSharesQuant | kView | kPermutable)) && def.operands.empty())
    return wrong("has traits that speak of its operands, and no operands");
  if (!(def.stages & kAllStages)) return wrong("is legal in no stage").help("leave OpDef::stages as it is");
  return {};
}

Status checkAttrs(std::string_view owner, std::span<const AttrSpec> specs, AttrDict& attrs, std::string_view noun) {
  return checkDict(owner, noun, specs, {}, attrs);
}

Status checkAgainstDeclaration(const OpDef& def, int numOperands, AttrDict& attrs) {
  QC_TRY(checkOperandCount(def, numOperands));
  return checkDict(def.name, "attribute", def.attrs, kUniversalAttrs, attrs);
}

Status checkQuantParams(const QuantParams& q) {
  if (!isInteger(q.storage) || q.storage == DType::s64 || q.storage == DType::u64)
    return fail(ErrorCode::kInvalidModel, "{} cannot store quantized values", toString(q.storage));
  const IntRange range = rangeOf(q.storage);
  if (q.qmin > q.qmax || q.qmin < range.min || q.qmax > range.max)
    return fail(ErrorCode::kInvalidModel, "the range {}..{} is not within {}", q.qmin, q.qmax, toString(q.storage));
  if (q.scales.empty() || q.zeroPoints.empty())
    return fail(ErrorCode::kInvalidModel, "quantization parameters need a scale and a zero point");
  for (const float s : q.scales)
    if (!std::isfinite(s) || s <= 0) return fail(ErrorCode::kInvalidModel, "a scale is finite and positive, but this is {}", s);
  for (const int32_t z : q.zeroPoints)
    if (z < q.qmin || z > q.qmax) return fail(ErrorCode::kInvalidModel, "the zero point {} is not within {}..{}", z, q.qmin, q.qmax);
  if (q.zeroPoints.size() != 1 && q.zeroPoints.size() != q.scales.size())
    return fail(ErrorCode::kInvalidModel, "{} scales, but {} zero points", q.scales.size(), q.zeroPoints.size());
  if (q.axis < 0 && q.scales.size() != 1) return fail(ErrorCode::kInvalidModel, "{} scales need an axis", q.scales.size());
  constexpr int64_t kLargestBlock = int64_t{1} << 40;  // numbers of elements are added to it
  if (q.blockSize < 0 || q.blockSize > kLargestBlock || (q.blockSize > 0 && q.axis < 0))
    return fail(ErrorCode::kInvalidModel, "a block of {} along axis {} makes no sense", q.blockSize, q.axis);
  return {};
}

Status checkQuantParams(const QuantParams& q, const Shape& shape) {
  QC_TRY(checkQuantParams(q));
  if (!q.perChannel()) return {};
  const int rank = static_cast<int>(shape.size());
  if (q.axis >= rank) return fail(ErrorCode::kInvalidModel, "axis {} of the scales on a tensor of rank {}", q.axis, rank);
  int64_t wanted = 1;
  for (int i = 0; i < rank; ++i) {
    if (i != q.axis && q.blockSize == 0) continue;
    const Dim dim = nth(shape, i);
    if (!dim.isStatic()) return {};
    const bool inBlocks = i == q.axis && q.blockSize > 0;
    const int64_t count = inBlocks ? dim.size() / q.blockSize + (dim.size() % q.blockSize != 0) : dim.size();
    if (__builtin_mul_overflow(wanted, count, &wanted))
      return fail(ErrorCode::kInvalidModel, "more blocks of {} than can be counted in [{}]", q.blockSize, toString(shape));
  }
  if (wanted == static_cast<int64_t>(q.scales.size())) return {};
  return fail(ErrorCode::kInvalidModel, "{} scales along axis {} of [{}], expected {}", q.scales.size(), q.axis, toString(shape), wanted);
}

Status checkType(const TensorType& type) {
  if (!type.quant) return {};
  const QuantParams& q = *type.quant;
  if (q.storage != type.dtype)
    return fail(ErrorCode::kInvalidModel, "parameters for {} on a tensor of {}", toString(q.storage), toString(type.dtype));
  return checkQuantParams(q, type.shape);
}

bool agrees(const TensorType& inferred, const TensorType& actual) {
  if (inferred.rank() != actual.rank()) return false;
  if (inferred.isStatic() && inferred == actual) return true;
  Shape shape = actual.shape;
  for (size_t i = 0; i < shape.size(); ++i)
    if (inferred.shape[i].str() == "?") shape[i] = inferred.shape[i];
  // Two unknown dims are never equal as dims; as text they are.
  return inferred.dtype == actual.dtype && toString(inferred.shape) == toString(shape) &&
         QuantAttr{inferred.quant} == QuantAttr{actual.quant};
}

}  // namespace qc
