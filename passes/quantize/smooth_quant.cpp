// smooth-quant: a few channels of what linear layers read are much larger than the rest and take the range of all.  The value is divided by
// a factor per channel and the weights that read it are multiplied by it: the same function, with inputs that fit 8 bits better.
// Behind a layer_norm its scale and bias are divided, and other readers (the residual add) multiply the factor back.  Of rows that are
// looked up in constant tables, joined or not, the tables are.  An input of the model is divided before it is rounded, in the same pass
// over memory.  Behind an activation that does not commute with the factor (gelu) the division is a multiply of its own, which the layer
// that computes the activation takes in before it rounds; it has to gain more.
// The factors are those for which rounding inputs and weights is expected to disturb the results least (channel_noise.h); without a clear
// gain the layers stay as they are.
// Statistics come from cx.provide(ChannelsByValue); the option `spread` stands in for them.
// dynamic=1 needs none: of layers that quantize what they read at run time those behind a norm are helped, whose scale and bias tell what
// its channels look like.  As nobody has seen them, it has to gain more here, too.
// Tests: tests/golden/smooth_quant.
#include <algorithm>
#include <cmath>

#include "passes/correspondence.h"
#include "passes/graph_util.h"
#include "passes/passes.h"
#include "passes/quantize/channel_noise.h"

namespace qc {
namespace {

constexpr double kClearlyWorthwhile = 0.4;
// Of a normal distribution one value of 16000, about as many as are quantized together, lies further out than so many deviations.
constexpr double kMaxDeviations = 4;

struct Readers {
  std::vector<Node*> linears, others;
};

Readers readersOf(const Value& value, bool dynamic) {
  Readers readers;
  for (Node* user : value.users()) {
    const Tensor* w = user->is("linear") ? floatConstant(user->operand("w")) : nullptr;
    const bool simple = w && w->rank() == 2 && user->operand(0) == &value && user->operand("residual") != &value &&
                        user->operand("w") != &value && (!dynamic || (user->annotation() && user->annotation()->dynamicInput(0)));
    (simple ? readers.linears : readers.others).push_back(user);
  }
  return readers;
}

// Divides the value itself, for the linear layers alone.
Status divide(Graph& graph, Value* value, const Readers& readers, const std::vector<double>& s, Moves& moves) {
  Tensor ones(DType::f32, {static_cast<int64_t>(s.size())});
  std::fill(ones.mutableAs<float>().begin(), ones.mutableAs<float>().end(), 1.0f);
  const std::string& name = value->name();
  Builder b(graph);
  b.before(value->producer() ? value->producer()->next() : graph.front());
  if (value->producer()) b.at(value->producer()->location());
  QC_ASSIGN(Value * divided, b.create("mul", {value, b.constant(name + "_factor", scaledLast(ones, s, true))}, {}, name + "_smoothed"));
  moves.add({{divided->name(), name}}, value->type().rank() - 1, reciprocals(s));
  for (Node* linear : readers.linears) {
    linear->setOperand(0, divided);
    scaleInputs(graph, linear, s);
  }
  return {};
}

Status fold(Graph& graph, Node* norm, const Readers& readers, const std::vector<double>& s, Moves& moves) {
  const auto channels = static_cast<int64_t>(s.size());
  const std::string& name = norm->result()->name();
  moves.add({{name, name}}, norm->result()->type().rank() - 1, reciprocals(s));
  Builder b(graph);
  b.before(norm);
  const Tensor* scale = floatConstant(norm->operand("scale"));
  Tensor ones(DType::f32, {channels});
  std::fill(ones.mutableAs<float>().begin(), ones.mutableAs<float>().end(), 1.0f);
  while (norm->numOperands() < 2) norm->addOperand(nullptr);
  norm->setOperand("scale", b.constant(norm->result()->name() + "_smoothed_scale", scaledLast(scale ? *scale : ones, s, true)));
  if (norm->operand("bias"))
    norm->setOperand("bias",
                     b.constant(norm->result()->name() + "_smoothed_bias", scaledLast(*floatConstant(norm->operand("bias")), s, true)));
  for (Node* linear : readers.linears) scaleInputs(graph, linear, s);
  if (readers.others.empty() && !norm->result()->isOutput()) return {};
  Builder after(graph);
  after.before(norm->next());
  after.at(norm->location());
  Value* factor = after.constant(norm->result()->name() + "_factor", scaledLast(ones, s, false));
  QC_ASSIGN(Value * restored, after.create("mul", {norm->result(), factor}, {}, name + "_restored"));
  moves.add({{restored->name(), name}});
  for (Node* other : readers.others)
    for (int i = 0; i < other->numOperands(); ++i)
      if (other->operand(i) == norm->result()) other->setOperand(i, restored);
  std::vector<Value*> outputs = graph.outputs();
  std::replace(outputs.begin(), outputs.end(), norm->result(), restored);
  graph.setOutputs(std::move(outputs));
  return {};
}

// A layer_norm over the last dim with constants, one per channel.
bool isFoldable(const Node& n) {
  const auto fits = [&](const Value* v) {
    const Tensor* t = floatConstant(v);
    return !v || (t && t->rank() == 1 && Dim(t->sizes()[0]) == n.result()->type().shape.back());
  };
  return n.is("layer_norm") && n.integer("axis") == n.result()->type().rank() - 1 && fits(n.operand("scale")) && fits(n.operand("bias"));
}

// The activation of a linear layer, read by linear layers alone.
bool isDivisible(const Node& n, const Readers& readers) {
  const Node* producer = n.numOperands() == 1 && n.operand(0) ? n.operand(0)->producer() : nullptr;
  return n.is("gelu") && producer && producer->is("linear") && n.operand(0)->hasOneUse() && readers.others.empty() &&
         !n.result()->isOutput();
}

// Rows of a constant table, or several such side by side, where nothing else reads the tables.
bool isLookup(const Value& value) {
  const Node* n = value.producer();
  if (!n || n->numResults() != 1) return false;
  if (n->is("gather")) {
    const Tensor* table = floatConstant(n->operand(0));
    return table && table->rank() == 2 && n->integer("axis") == 0 && n->operand(0)->hasOneUse();
  }
  if (!n->is("concat") || n->integer("axis") != value.type().rank() - 1) return false;
  const std::vector<Value*> parts = n->operands();
  return std::all_of(parts.begin(), parts.end(), [](const Value* v) { return v->hasOneUse() && !v->isOutput() && isLookup(*v); });
}

void divideTables(Graph& graph, Node* lookup, const std::vector<double>& s, Moves& moves) {
  const Value& result = *lookup->result();
  moves.add({{result.name(), result.name()}}, result.type().rank() - 1, reciprocals(s));
  if (lookup->is("gather")) {
    Builder b(graph);
    b.before(lookup);
    lookup->setOperand(0, b.constant(lookup->operand(0)->name() + "_smoothed", scaledLast(*floatConstant(lookup->operand(0)), s, true)));
    return;
  }
  size_t from = 0;
  for (Value* part : lookup->operands()) {
    const auto width = usize(part->type().shape.back().size());
    divideTables(graph, part->producer(), {s.begin() + static_cast<ptrdiff_t>(from), s.begin() + static_cast<ptrdiff_t>(from + width)},
                 moves);
    from += width;
  }
}

enum class Way { none, norm, tables, input, activation };

Way wayOf(const Value& value, const Readers& readers) {
  const TensorType& type = value.type();
  if (readers.linears.empty() || type.dtype != DType::f32 || type.isQuantized() || type.rank() < 1 || !type.shape.back().isStatic())
    return Way::none;
  const Node* producer = value.producer();
  const bool linearsAlone = readers.others.empty() && !value.isOutput();
  if (!producer) return linearsAlone ? Way::input : Way::none;
  if (producer->numResults() != 1) return Way::none;
  if (isFoldable(*producer)) return Way::norm;
  if (linearsAlone && isLookup(value)) return Way::tables;
  return isDivisible(*producer, readers) ? Way::activation : Way::none;
}

Status smooth(Graph& graph, Value* value, const Readers& readers, Way way, const std::vector<double>& s, Moves& moves) {
  if (way == Way::norm) return fold(graph, value->producer(), readers, s, moves);
  if (way != Way::tables) return divide(graph, value, readers, s, moves);
  divideTables(graph, value->producer(), s, moves);
  for (Node* linear : readers.linears) scaleInputs(graph, linear, s);
  return {};
}

// The channels of a norm: scale times values of mean 0 and variance 1, plus bias.
ChannelStatistics normalChannels(const Node& norm, int64_t channels) {
  const Tensor *scale = floatConstant(norm.operand("scale")), *bias = floatConstant(norm.operand("bias"));
  ChannelStatistics x;
  for (size_t c = 0; c < usize(channels); ++c) {
    const double deviation = scale ? std::fabs(scale->as<float>()[c]) : 1.0, mean = bias ? bias->as<float>()[c] : 0.0;
    x.min.push_back(static_cast<float>(mean - kMaxDeviations * deviation));
    x.max.push_back(static_cast<float>(mean + kMaxDeviations * deviation));
    x.square.push_back(mean * mean + deviation * deviation);
  }
  return x;
}

std::vector<Value*> valuesOf(const Graph& graph) {
  std::vector<Value*> values = graph.inputs();
  for (Node* node : graph.nodes())
    if (node->numResults() == 1) values.push_back(node->result());
  return values;
}

}  // namespace

int smoothableAxis(const Value& value) { return wayOf(value, readersOf(value, false)) != Way::none ? value.type().rank() - 1 : -1; }

Status smoothQuant(Graph& graph, PassContext& cx) {
  const double spread = cx.options.real("spread");
  const bool dynamic = cx.options.integer("dynamic") != 0;
  const auto* known = cx.get<ChannelsByValue>();
  int layers = 0;
  Moves moves("smooth_quant");
  for (Value* value : valuesOf(graph)) {
    const Readers readers = readersOf(*value, dynamic);
    const Way way = wayOf(*value, readers);
    if (way == Way::none || (dynamic && way != Way::norm)) continue;
    const int64_t channels = value->type().shape.back().size();
    ChannelStatistics x;
    if (spread > 0) {
      x = spreadChannels(channels, spread);
    } else if (dynamic) {
      x = normalChannels(*value->producer(), channels);
    } else if (known) {
      if (const auto it = known->find(value->name()); it != known->end()) x = it->second;
    }
    if (static_cast<int64_t>(x.max.size()) != channels) continue;
    const std::vector<double> s =
        bestFactors(readers.linears, x, dynamic || way == Way::activation ? kClearlyWorthwhile : kWorthwhile, weightSteps(cx));
    if (s.empty()) continue;
    QC_TRY(smooth(graph, value, readers, way, s, moves));
    ++layers;
  }
  moves.addTo(graph);
  cx.countHits({{"layers", layers}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
