#include "quantizer/pattern_quantizer.h"

#include <algorithm>
#include <cmath>

#include "quantizer/observers/qparams.h"
#include "quantizer/rules/op_policy.h"

namespace qc {
namespace {

bool isFloat32(const Value* v) { return v && v->type().dtype == DType::f32 && !v->type().isQuantized(); }

// A constant of one element so large that a histogram over it has no steps left.
bool tooLarge(const Value* v) {
  constexpr double kLargest = 3.4028235e15;
  const Tensor* t = v->constant();
  return t && t->numElements() == 1 && std::fabs(t->at(0)) > kLargest;
}

QuantAnnotation& annotationOf(Node* node) {
  if (!node->annotation()) node->annotation() = QuantAnnotation{};
  node->annotation()->inputs.resize(usize(node->numOperands()));
  return *node->annotation();
}

EdgeOrNode edge(const Node* node, int operand) { return {node->result()->name(), operand}; }

bool isOneOf(const Node& node, std::initializer_list<std::string_view> ops) {
  return std::find(ops.begin(), ops.end(), node.op()) != ops.end();
}

// Means over all spatial dims are what exporters write for adaptive pools.
bool isSpatialMean(const Node& node) {
  if (!node.is("reduce_mean")) return false;
  const auto& axes = node.integers("axes");
  return node.operand(0)->type().rank() == static_cast<int>(axes.size()) + 2 && axes.front() == 2;
}

const std::vector<std::string> kClamps = {"relu", "clip"};

}  // namespace

PatternQuantizer& PatternQuantizer::setGlobal(QConfigEntry entry) {
  settings_.global(std::move(entry));
  return *this;
}
PatternQuantizer& PatternQuantizer::setOperatorType(std::string op, QConfigEntry entry) {
  settings_.objectType(std::move(op), std::move(entry));
  return *this;
}
PatternQuantizer& PatternQuantizer::setName(std::string name, QConfigEntry entry) {
  settings_.name(std::move(name), std::move(entry));
  return *this;
}
PatternQuantizer& PatternQuantizer::setFilter(std::function<bool(const Node&)> filter) {
  filter_ = std::move(filter);
  return *this;
}

bool PatternQuantizer::claimed(const Node* node) const { return node->annotation() && isClaim(*node->annotation()); }

const QConfig* PatternQuantizer::configOf(const Node& node) const {
  if (node.is("const") || node.numResults() == 0 || (filter_ && !filter_(node))) return nullptr;
  return rules_.of(node).config();
}

void PatternQuantizer::claim(Node* node, std::string reason) { annotationOf(node).reason = std::move(reason); }

bool PatternQuantizer::roundsOutput(const Value* value) const {
  const Node* producer = value->producer();
  return producer && value->resultIndex() == 0 && producer->annotation() && isSet(producer->annotation()->output);
}

Status PatternQuantizer::annotate(Graph& graph) {
  QC_ASSIGN(rules_, settings_.resolve(graph));
  patternEnds_.clear();
  const std::vector<Node*> nodes = graph.nodes();
  for (Node* node : nodes) {
    const auto decision = rules_.of(*node);
    if (!decision.rule || decision.config() || node->is("const") || node->numResults() == 0 || claimed(node) ||
        (filter_ && !filter_(*node)))
      continue;
    annotationOf(node).keepFloat = true;
    node->annotation()->reason = decision.str();
  }
  for (const Row& row : recipe().rows)
    for (Node* node : nodes) apply(row, node);
  propagate(graph);
  return {};
}

// Follows the row's chain from its first op: each value inside has one reader.
bool PatternQuantizer::apply(const Row& row, Node* first) {
  std::vector<Node*> chain;
  for (const auto& alternatives : row.chain) {
    Node* next = first;
    if (!chain.empty()) {
      const Value* v = chain.back()->result();
      if (!v->hasOneUse() || v->isOutput()) return false;
      next = v->users().front();
    }
    if (std::find(alternatives.begin(), alternatives.end(), next->op()) == alternatives.end()) return false;
    chain.push_back(next);
  }
  if (!hold(chain, row)) return false;
  annotateChain(row, chain);
  patternEnds_.insert(chain.back());
  return true;
}

bool PatternQuantizer::hold(const std::vector<Node*>& chain, const Row& row) const {
  const QConfig* config = configOf(*chain.front());
  for (const Node* node : chain) {
    const QConfig* own = configOf(*node);
    if (claimed(node) || !own || !(*own == *config)) return false;
  }
  const Node& first = *chain.front();
  // Parameters of run time: products with a weight only, and no depthwise ones.
  const bool dynamic = config->activation.dynamic;
  if (dynamic && (row.kind != Kind::weighted || (!first.is("linear") && first.integer("group") != 1))) return false;
  const auto decision = rules_.of(first);
  if (row.onRequest && decision.rule->level == QConfigMapping::Level::global) return false;
  const auto fitsBinary = [&](const Node& n) {
    if (!isFloat32(n.operand(0)) || !isFloat32(n.operand(1)) || tooLarge(n.operand(0)) || tooLarge(n.operand(1))) return false;
    return !row.equalShapes ||
           (n.operand(0)->type().shape == n.operand(1)->type().shape && !n.operand(0)->constant() && !n.operand(1)->constant());
  };
  switch (row.kind) {
    case Kind::weightedAdd:
      // The other operand is a tensor of the same shape; a bias in disguise is not.
      for (const Node* n : chain)
        if (n->is("add") && (n->operand(0)->constant() || n->operand(1)->constant() || !(n->operand(0)->type() == n->operand(1)->type())))
          return false;
      [[fallthrough]];
    case Kind::weighted: return refusal(first, policyOf(first)).empty() && !(first.is("conv_transpose") && first.integer("group") != 1);
    case Kind::binary:
    case Kind::product: return fitsBinary(first);
    case Kind::concat: {
      const std::vector<Value*> parts = first.operands();
      return std::all_of(parts.begin(), parts.end(), [](const Value* v) { return isFloat32(v) && !v->constant(); });
    }
    case Kind::mean: return isSpatialMean(first);
  }
  return false;
}

void PatternQuantizer::annotateChain(const Row& row, const std::vector<Node*>& chain) {
  Node *first = chain.front(), *last = chain.back();
  const QConfig config = *configOf(*first);
  std::string name;
  for (const Node* n : chain) name += (name.empty() ? "" : " + ") + std::string(n->op());
  for (Node* n : chain) claim(n, name + ", " + rules_.of(*first).str());
  std::vector<QuantSpec>& inputs = annotationOf(first).inputs;
  QuantSpec output = config.activation;
  switch (row.kind) {
    case Kind::weightedAdd:
      for (size_t i = 1; i < chain.size(); ++i)
        if (chain[i]->is("add")) annotationOf(chain[i]).inputs[chain[i]->operand(0) == chain[i - 1]->result() ? 1 : 0] = config.activation;
      [[fallthrough]];
    case Kind::weighted: {
      inputs[0] = config.activation;
      ObservedSpec weight = config.weight;
      if (weight.axis >= 0) weight.axis = weightOf(first->def())->weight->channel;
      inputs[1] = weight;
      break;
    }
    case Kind::binary:
    case Kind::product: inputs[0] = inputs[1] = config.activation; break;
    case Kind::concat: {
      // The operand that owns the observer: the first one that is rounded already.
      size_t owner = 0;
      while (owner < inputs.size() && !roundsOutput(first->operand(static_cast<int>(owner)))) ++owner;
      if (owner == inputs.size()) owner = 0;
      for (size_t i = 0; i < inputs.size(); ++i)
        inputs[i] = i == owner ? QuantSpec(config.activation) : QuantSpec(SharedSpec{edge(first, static_cast<int>(owner))});
      output = SharedSpec{edge(first, static_cast<int>(owner))};
      break;
    }
    case Kind::mean:
      inputs[0] = roundsOutput(first->operand(0)) ? QuantSpec(SharedSpec{{first->operand(0)->name(), -1}}) : QuantSpec(config.activation);
      output = SharedSpec{edge(first, 0)};
      break;
  }
  if (recipe().outputs && !config.activation.dynamic) annotationOf(last).output = output;
}

// ---- X86 ----------------------------------------------------------------------------------------

const PatternQuantizer::Recipe& X86Quantizer::recipe() const {
  static const Recipe kRecipe = {{
                                     {{{"conv"}, {"add"}, {"relu"}}, Kind::weightedAdd},
                                     {{{"conv"}, {"add"}}, Kind::weightedAdd},
                                     {{{"conv"}, {"relu", "clip", "hardswish", "silu"}}, Kind::weighted},
                                     {{{"conv"}}, Kind::weighted},
                                     {{{"linear"}, {"add"}, {"relu"}}, Kind::weighted},
                                     {{{"linear"}, {"add"}}, Kind::weighted},
                                     {{{"linear"}, {"relu", "clip", "leaky_relu", "tanh", "gelu"}}, Kind::weighted},
                                     {{{"linear"}}, Kind::weighted},
                                     {{{"matmul"}}, Kind::product, true},
                                     {{{"mul"}}, Kind::product, false, true},
                                 },
                                 false};
  return kRecipe;
}

// Pools, concatenation and reshapes between int8 patterns take part; their result has the parameters of their input.
void X86Quantizer::propagate(Graph& graph) {
  for (Node* n : graph.nodes()) {
    const bool carries = isOneOf(*n, {"max_pool", "concat", "avg_pool", "reshape"}) || isSpatialMean(*n);
    const QConfig* config = configOf(*n);
    if (!carries || claimed(n) || !config) continue;
    const int data = n->is("concat") ? n->numOperands() : 1;
    bool fromPatterns = true;
    for (int i = 0; i < data; ++i)
      fromPatterns = fromPatterns && isFloat32(n->operand(i)) && patternEnds_.contains(n->operand(i)->producer());
    if (!fromPatterns) continue;
    const auto quantizable = [](const Node* user) {
      return isOneOf(*user, {"conv", "linear", "matmul", "max_pool", "concat", "avg_pool", "reshape"}) || isSpatialMean(*user);
    };
    const auto users = n->result()->users();
    if (n->is("reshape") && !users.empty() && std::none_of(users.begin(), users.end(), quantizable)) continue;
    claim(n, fmt::format("{} between int8 ops, {}", n->op(), "by its input"));
    std::vector<QuantSpec>& inputs = annotationOf(n).inputs;
    inputs[0] = config->activation;
    for (int i = 1; i < data; ++i) nth(inputs, i) = SharedSpec{edge(n, 0)};
    annotationOf(n).output = SharedSpec{edge(n, 0)};
    patternEnds_.insert(n);
  }
}

// ---- XNNPACK ------------------------------------------------------------------------------------

const PatternQuantizer::Recipe& XnnpackQuantizer::recipe() const {
  static const Recipe kRecipe = {{
      {{{"linear"}, kClamps}, Kind::weighted},
      {{{"linear"}}, Kind::weighted},
      {{{"conv"}, kClamps}, Kind::weighted},
      {{{"conv_transpose"}, kClamps}, Kind::weighted},
      {{{"conv"}}, Kind::weighted},
      {{{"conv_transpose"}}, Kind::weighted},
      {{{"reduce_mean"}}, Kind::mean},
      {{{"add"}, {"relu"}}, Kind::binary},
      {{{"add"}}, Kind::binary},
      {{{"mul"}, {"relu"}}, Kind::binary},
      {{{"mul"}}, Kind::binary},
      {{{"concat"}}, Kind::concat},
  }};
  return kRecipe;
}

void XnnpackQuantizer::propagate(Graph& graph) {
  for (Node* n : graph.nodes()) {
    const bool carries = isOneOf(*n, {"relu", "clip", "max_pool", "reduce_mean", "transpose", "reshape", "slice"});
    if (!carries || claimed(n) || !configOf(*n) || !isFloat32(n->operand(0)) || !roundsOutput(n->operand(0))) continue;
    claim(n, fmt::format("{} behind an int8 op, by its input", n->op()));
    const SharedSpec shared{{n->operand(0)->name(), -1}};
    annotationOf(n).inputs[0] = shared;
    annotationOf(n).output = shared;
  }
}

// ---- Embedding ----------------------------------------------------------------------------------

ObservedSpec EmbeddingQuantizer::tableSpec() {
  ObservedSpec spec;
  spec.dtype = DType::u8;
  spec.scheme = QScheme::floatQparams;
  spec.axis = 0;
  spec.eps = kEpsXnnpack;
  spec.observer = "per_channel_minmax";
  return spec;
}

Status EmbeddingQuantizer::annotate(Graph& graph) {
  for (Node* n : graph.nodes()) {
    if (!n->is("gather") || n->integer("axis") != 0 || (n->annotation() && isClaim(*n->annotation()))) continue;
    const Tensor* table = n->operand(0)->constant();
    if (!table || table->dtype() != DType::f32 || table->rank() != 2 || minMaxOf(table->as<float>()).nonFinite > 0) continue;
    annotationOf(n).inputs[0] = tableSpec();
    n->annotation()->reason = "embedding table, a scale and zero point per row";
  }
  return {};
}

}  // namespace qc
