// fuse-elementwise: elementwise float ops join what computes their input.
//   activation(conv)              ->  conv {post}          a residual operand may join too
//   quantize(f(dequantize a, b))  ->  map a, b {expr, to}  one pass over memory instead of four
//   map of one 8-bit operand      ->  lut                  256 entries computed now
// A fused quantize multiplies by the reciprocal of the scale (qmath::finish).
// Tests: tests/golden/fuse_elementwise.
#include <algorithm>
#include <array>
#include <optional>

#include "ir/expr_counter.h"
#include "ir/join.h"
#include "ir/lut.h"
#include "ir/rewriter.h"
#include "passes/graph_util.h"
#include "passes/lower/fuse_maps.h"
#include "passes/passes.h"

namespace qc {
namespace {

constexpr size_t kMaxInstructions = 160;  // of ops in one expression; beyond this registers spill, as those of one op may
constexpr size_t kMaxOperands = 8;
constexpr int kMaxDepth = 24;  // of the ops that one map is made of

bool isSmallQuantized(const Value* v) { return v->type().isQuantized() && !v->type().quant->perChannel() && sizeOf(v->type().dtype) <= 2; }

// ---- into conv and linear ---------------------------------------------------------------------

struct Chain {
  ScalarExpr post = ScalarExpr::arg(0);
  Value* residual = nullptr;
  Node* last = nullptr;
  ExprCounter counter;
  int value = counter.add(post);  // post in the counter
};

bool extend(Chain& chain, const Node& user, const Value* current, bool residualAllowed) {
  const std::optional<Join> join = joining(user, current);
  if (!join || (join->residual && (chain.residual || !residualAllowed))) return false;
  const ScalarExpr other = ScalarExpr::arg(1);
  const int value = chain.counter.add(join->formula, std::array{chain.value, join->residual ? chain.counter.add(other) : chain.value});
  if (chain.counter.exceeds(value, kMaxInstructions)) return false;
  chain.value = value;
  chain.post = join->formula.substitute(std::array{chain.post, other});
  if (join->residual) chain.residual = join->residual;
  return true;
}

Result<bool> fuseIntoProducer(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  if (node->result()->type().dtype != DType::f32 || node->result()->type().isQuantized() || node->operand("residual") || node->expr("post"))
    return false;
  Chain chain;
  const bool integer = node->op().starts_with("q.");
  for (const Value* current = node->result(); Node* user = onlyUser(current); current = user->result()) {
    if (!extend(chain, *user, current, !integer)) break;
    chain.last = user;
  }
  if (!chain.last) return false;
  AttrDict attrs = node->attrs();
  attrs.set("post", chain.post);
  std::vector<Value*> operands = node->operands();
  if (chain.residual) {
    operands.resize(4, nullptr);
    operands[3] = chain.residual;
  }
  Builder b = rw.before(chain.last);
  b.at(node->location());
  QC_ASSIGN(Value * y, b.create(node->op(), std::move(operands), std::move(attrs)));
  rw.replace(chain.last, {y});
  return true;
}

// ---- into maps --------------------------------------------------------------------------------

// An elementwise op of floats, or a map of floats that is there already, as gradients are.
bool computes(const Node& node) {
  if (!node.is("map")) return computesFloats(node);
  const auto isFloats = [](const Value* v) { return v && v->type().dtype == DType::f32 && !v->type().isQuantized(); };
  const std::vector<Value*>& operands = node.operands();
  return isFloats(node.result()) && std::all_of(operands.begin(), operands.end(), isFloats);
}

struct MapParts {
  ScalarExpr expr = ScalarExpr::arg(0);
  std::vector<Value*> operands;
};

// What one map would compute, op by op.  Whether it is too much for a map is known before an expression is made of it.
class MapBuilder {
 public:
  MapBuilder(const Shape& shape, int maxDepth, ExprCounter& counter) : shape_(shape), maxDepth_(maxDepth), counter_(counter) {
    counter_.clear();
  }

  // Takes in what computes v, and returns its number.  Inlines producers that serve nothing else.
  int add(Value* v, int depth) {
    Node* producer = v->producer();
    if (const auto constant = v->type().dtype == DType::f32 ? scalarConstant(v) : std::nullopt)
      return leaf(ScalarExpr(static_cast<float>(*constant)));
    if (producer && producer->is("dequantize") && isSmallQuantized(producer->operand(0))) return operand(producer->operand(0));
    if (producer && depth < maxDepth_ && computes(*producer) && onlyUser(v) && v->type().shape == shape_) {
      ++inlined_;
      return compute(*producer, depth);
    }
    return operand(v);
  }
  int compute(const Node& node, int depth) {
    Part part{node.def().scalar(node.attrs()), {}, 0};
    ++ops_;
    std::vector<int> registers;
    for (Value* input : node.operands()) {
      part.args.push_back(add(input, depth + 1));
      if (tooMuch_) return 0;
      registers.push_back(nth(parts_, part.args.back()).inCounter);
    }
    part.inCounter = counter_.add(part.formula, registers);
    tooMuch_ = ops_ > 1 && counter_.exceeds(part.inCounter, kMaxInstructions);
    parts_.push_back(std::move(part));
    return static_cast<int>(parts_.size()) - 1;
  }
  bool tooMuch() const { return tooMuch_; }
  int inlined() const { return inlined_; }

  // What was taken in last, in one expression.
  MapParts take() {
    std::vector<ScalarExpr> done;
    done.reserve(parts_.size());
    for (const Part& part : parts_) {
      std::vector<ScalarExpr> args;
      for (const int i : part.args) args.push_back(nth(done, i));
      done.push_back(args.empty() ? part.formula : part.formula.substitute(args));
    }
    return {done.back(), std::move(operands_)};
  }

 private:
  struct Part {
    ScalarExpr formula;
    std::vector<int> args;  // parts in front of it; none: a leaf
    int inCounter;
  };
  int leaf(ScalarExpr expression) {
    const int counted = counter_.add(expression);
    parts_.push_back({std::move(expression), {}, counted});
    return static_cast<int>(parts_.size()) - 1;
  }
  int operand(Value* v) {
    auto it = std::find(operands_.begin(), operands_.end(), v);
    if (it == operands_.end()) it = operands_.insert(operands_.end(), v);
    tooMuch_ = operands_.size() > kMaxOperands;
    return leaf(ScalarExpr::arg(static_cast<int>(it - operands_.begin())));
  }
  const Shape& shape_;
  const int maxDepth_;
  ExprCounter& counter_;
  std::vector<Part> parts_;
  std::vector<Value*> operands_;
  int ops_ = 0;      // that are taken in, the root among them
  int inlined_ = 0;  // of them, and maps
  bool tooMuch_ = false;
};

// What `root` and up to maxDepth ops before it compute; nothing if that is too much for one map.
std::optional<MapParts> partsOf(const Node& root, int maxDepth, ExprCounter& counter) {
  MapBuilder builder(root.result()->type().shape, maxDepth, counter);
  if (root.is("quantize")) {
    builder.add(root.operand(0), 0);
  } else {
    builder.compute(root, 0);
  }
  if (builder.tooMuch() || (builder.inlined() == 0 && (root.is("quantize") || root.is("map")))) return std::nullopt;
  MapParts parts = builder.take();
  if (parts.operands.empty()) return std::nullopt;
  return parts;
}

// `root` is the last elementwise op or the quantize behind it.  A chain that is too long for one map is taken in pieces.
Result<bool> buildMap(Node* root, ExprCounter& counter, Rewriter& rw) {
  const bool quantizes = root->is("quantize");
  if (quantizes && (root->attrs().quant("to")->perChannel() || sizeOf(root->attrs().quant("to")->storage) > 2)) return false;
  if (quantizes && !hasReciprocal(*root->attrs().quant("to"))) return false;
  if (!quantizes && !computes(*root)) return false;
  std::optional<MapParts> parts;
  for (int depth = kMaxDepth; depth > 0 && !parts; depth /= 2) parts = partsOf(*root, depth, counter);
  if (!parts) return false;
  AttrDict attrs{{"expr", parts->expr}};
  if (quantizes) attrs.set("to", QuantAttr{root->attrs().quant("to")});
  QC_ASSIGN(Value * y, rw.before(root).create("map", parts->operands, std::move(attrs)));
  if (y->type() != root->result()->type()) {
    rw.eraseIfDead(y->producer());
    return false;
  }
  rw.replace(root, {y});
  return true;
}

Result<bool> mapToLut(const Match& m, Rewriter& rw) {
  Node* map = m.root();
  if (map->numOperands() != 1 || !isSmallQuantized(map->operand(0))) return false;
  const QuantPtr& to = map->attrs().quant("to");
  if (!hasLut(*map->operand(0)->type().quant, to.get())) return false;
  Builder b = rw.before(map);
  Value* table = b.constant({}, buildLut(*map->expr("expr"), *map->operand(0)->type().quant, to.get()));
  QC_ASSIGN(Value * y, b.create("lut", {map->operand(0), table}, {{"to", QuantAttr{to}}}));
  rw.replace(map, {y});
  return true;
}

}  // namespace

Result<int> fuseMaps(Graph& graph) {
  // From the end, so that a root swallows as much of what is before it as it can.
  int built = 0;
  ExprCounter counter;
  Rewriter rw(graph);
  std::vector<Node*> nodes = graph.nodes();
  for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) {
    if (rw.wasErased(*it)) continue;
    QC_ASSIGN(const bool changed, buildMap(*it, counter, rw));
    built += changed;
  }
  return built;
}

Status fuseElementwise(Graph& graph, PassContext& cx) {
  QC_ASSIGN(auto hits, rewritePatterns(graph, {{"into-producer", oneOf({"conv", "linear", "q.conv", "q.linear"}), fuseIntoProducer}}));
  cx.countHits(hits);
  QC_ASSIGN(const int maps, fuseMaps(graph));
  cx.countHits({{"map", maps}});
  QC_ASSIGN(hits, rewritePatterns(graph, {{"lut", op("map"), mapToLut}}));
  cx.countHits(hits);
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
