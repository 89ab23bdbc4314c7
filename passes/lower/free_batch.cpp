// free-batch: a graph whose inputs hold one sample, fixed by the file that it came from, becomes one for any number: the dims of size 1
// along which samples are stacked are a symbol, and all that follows of them, with every sample computed as if it were alone.
//
//   free-batch{symbol="N"}      %x: f32[1,3,8,8]  ->  f32[N,3,8,8];  reshape {shape=[1,-1]}  ->  reshape {shape=[N,192]}
//
// What shows that it may be so: for every node its declaration says that samples which lie in one dim of its operands stay apart, and in
// which dim of its results they are then (ir/batch_dims.h); the types that inference gives must be those of one sample with that dim N
// times as long.  Where an op mixes samples, or reads them elsewhere than they lie, they are first moved to another dim; an operand that is
// the same for all samples is repeated where the op reads samples.  A node that cannot be had so is refused, by name.
#include "passes/lower/free_batch.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "ir/batch_dims.h"
#include "ir/decided_sizes.h"
#include "passes/passes.h"

namespace qc {
namespace {

using Dims = std::vector<int>;

bool isOne(const Value* v, int dim) { return dim >= 0 && dim < v->type().rank() && nth(v->type().shape, dim) == Dim(1); }

Result<int> stackedDim(const Value* input, const StackedInputs& told) {
  if (const auto named = told.dims.find(input->name()); named != told.dims.end()) {
    if (named->second < 0 || isOne(input, named->second)) return named->second;
    return fail(ErrorCode::kInvalidArgument, "samples cannot be stacked along dim {} of {}: it is not 1", named->second,
                input->type().str())
        .on(input->name());
  }
  const Shape& shape = input->type().shape;
  const auto first = std::find(shape.begin(), shape.end(), Dim(1));
  return first == shape.end() ? -1 : static_cast<int>(first - shape.begin());
}

// Where the samples of each value are to lie, found on the graph of one sample.
class Placement {
 public:
  void put(const Value* v, int dim) {
    if (dim >= 0) dims_[v] = dim;
  }
  int of(const Value* v) const {
    const auto it = v ? dims_.find(v) : dims_.end();
    return it == dims_.end() ? -1 : it->second;
  }

  // Nothing: the node is the same for all samples.
  Result<std::optional<BatchDims>> place(const Node& node) {
    Dims dims;
    for (int i = 0; i < node.numOperands(); ++i) dims.push_back(of(node.operand(i)));
    if (std::all_of(dims.begin(), dims.end(), [](int d) { return d < 0; })) return std::optional<BatchDims>();
    const std::optional<BatchDims> at = found(node, dims);
    if (!at) return refuse(node, dims);
    for (int i = 0; i < node.numResults(); ++i) put(node.result(i), nth(at->results, i));
    return at;
  }

 private:
  // As they lie; else with the first operand that holds samples holding them in another dim, of size 1 if possible.
  static std::optional<BatchDims> found(const Node& node, Dims dims) {
    if (auto at = batchDims(node, dims)) return at;
    const auto first = std::find_if(dims.begin(), dims.end(), [](int d) { return d >= 0; });
    const Value* v = node.operand(static_cast<int>(first - dims.begin()));
    Dims others;
    for (const bool one : {true, false})
      for (int d = 0; d < v->type().rank(); ++d)
        if (isOne(v, d) == one) others.push_back(d);
    const int before = *first;
    for (const int d : others) {
      if (d == before) continue;
      *first = d;
      if (auto at = batchDims(node, dims)) return at;
    }
    return std::nullopt;
  }

  static Failure refuse(const Node& node, const Dims& dims) {
    std::string where;
    for (size_t i = 0; i < dims.size(); ++i)
      if (dims[i] >= 0) {
        const Value* v = node.operand(static_cast<int>(i));
        where += fmt::format("{}dim {} of '{}' {}", where.empty() ? "" : ", ", dims[i], v->name(), v->type().str());
      }
    return fail(ErrorCode::kUnsupported, "this model is made for one sample at a time, and '{}' would mix the samples of a batch, in {}",
                node.op(), where)
        .at(node.location())
        .on(node.numResults() ? node.result()->name() : std::string())
        .help("run single samples, or export the model with a free batch");
  }

  std::unordered_map<const Value*, int> dims_;
};

// The edits: every value that holds samples gets N times the size in its dim.
class Stacker {
 public:
  Stacker(const Placement& placement, DimExpr samples) : placement_(placement), samples_(std::move(samples)) {}

  void stackInput(Value* input) {
    const int dim = placement_.of(input);
    if (dim < 0) return;
    remember(input);
    input->setType(stackedType(input, dim));
  }

  Status stackNode(Node* node, const BatchDims& at) {
    for (int i = 0; i < node->numOperands(); ++i) QC_TRY(giveSamples(node, i, nth(at.operands, i)));
    AttrDict attrs = node->attrs();
    for (const AttrSpec& spec : node->def().attrs) {
      const bool result = spec.meaning == AttrMeaning::shape;
      if (!result && !(spec.meaning == AttrMeaning::perDim && spec.neutral == kWholeDim)) continue;
      const int dim = result ? at.results[0] : at.operands[0];
      std::vector<DimExpr> sizes = attrs.dims(spec.name);
      if (dim < 0 || sizes.empty()) continue;
      nth(sizes, dim) = nth(sizes, dim) * samples_;
      attrs.set(spec.name, std::move(sizes));
    }
    const std::vector<Value*> operands = node->operands();
    auto types = node->def().infer(InferContext{node->op(), operands, attrs});
    if (!types) return Failure(types.error()).at(node->location()).on(node->result()->name());
    for (int i = 0; i < node->numResults(); ++i) {
      Value* y = node->result(i);
      remember(y);
      const int dim = nth(at.results, i);
      const TensorType wanted = dim < 0 ? y->type() : stackedType(y, dim);
      if (nth(*types, i).shape != wanted.shape)
        return fail(ErrorCode::kUnsupported, "'{}' of a batch is {}; of samples that stay apart it would be {}", node->op(),
                    nth(*types, i).str(), wanted.str())
            .at(node->location())
            .on(y->name());
      y->setType(wanted);
    }
    node->attrs() = std::move(attrs);
    return {};
  }

 private:
  void remember(const Value* v) { one_.emplace(v, v->type().shape); }
  const Shape& ofOne(const Value* v) const {
    const auto it = one_.find(v);
    return it == one_.end() ? v->type().shape : it->second;
  }
  TensorType stackedType(const Value* v, int dim) const {
    Shape shape = v->type().shape;
    nth(shape, dim) = nth(shape, dim).expr() * samples_;
    return v->type().withShape(std::move(shape));
  }

  // Makes an operand hold its samples in this dim; -1: it holds none.
  Status giveSamples(Node* node, int operand, int dim) {
    Value* v = node->operand(operand);
    const int now = placement_.of(v);
    if (now == dim) return {};
    Builder b(node->graph());
    b.before(node);
    if (now < 0) {
      std::vector<DimExpr> repeats(usize(v->type().rank()), DimExpr(1));
      nth(repeats, dim) = samples_;
      QC_ASSIGN(v, b.create("tile", {v}, {{"repeats", std::move(repeats)}}));
    } else {
      QC_ASSIGN(v, moved(b, v, now, dim));
    }
    node->setOperand(operand, v);
    return {};
  }

  // From one dim to another: a dim of its own for the samples, which then goes where it is wanted and joins what is there.
  Result<Value*> moved(Builder& b, Value* v, int from, int to) {
    std::vector<DimExpr> apart, joined;
    for (const Dim& dim : ofOne(v)) joined.push_back(dim.expr());
    apart = joined;
    apart.insert(apart.begin() + from, samples_);
    std::vector<int64_t> perm(apart.size());
    std::iota(perm.begin(), perm.end(), 0);
    perm.erase(perm.begin() + from);
    perm.insert(perm.begin() + to, from);
    nth(joined, to) = nth(joined, to) * samples_;
    QC_ASSIGN(v, b.create("reshape", {v}, {{"shape", std::move(apart)}}));
    QC_ASSIGN(v, b.create("transpose", {v}, {{"perm", std::move(perm)}}));
    return b.create("reshape", {v}, {{"shape", std::move(joined)}});
  }

  const Placement& placement_;
  const DimExpr samples_;
  std::unordered_map<const Value*, Shape> one_;  // of one sample
};

// An input of which the file leaves the leading dim free, so that a dim of size 1 behind it is rather that of a single channel.
const Value* inputOfFreeSize(const Graph& graph) {
  for (const Value* input : graph.inputs())
    if (const Shape& shape = input->type().shape; !shape.empty() && !shape[0].isStatic() && std::ranges::find(shape, Dim(1)) != shape.end())
      return input;
  return nullptr;
}

// Whether samples lie in free leading dims already: every node computes them apart, and leaves them where they lie.  It does not where such
// a dim is another thing, as the length of a sequence.
bool isFreeBatch(const Graph& graph) {
  Placement placement;
  for (const Value* input : graph.inputs())
    if (const Shape& shape = input->type().shape; !shape.empty() && !shape[0].isStatic()) placement.put(input, 0);
  for (const Node* node = graph.front(); node; node = node->next()) {
    Dims dims;
    for (int i = 0; i < node->numOperands(); ++i) dims.push_back(placement.of(node->operand(i)));
    if (std::ranges::all_of(dims, [](int d) { return d < 0; })) continue;
    const std::optional<BatchDims> at = batchDims(*node, dims);
    if (!at) return false;
    for (size_t i = 0; i < dims.size(); ++i)
      if (dims[i] >= 0 && at->operands[i] != dims[i]) return false;
    for (int i = 0; i < node->numResults(); ++i) placement.put(node->result(i), nth(at->results, i));
  }
  return true;
}

// As asked for, unless the graph has it already.
std::string unusedSymbol(const Graph& graph, std::string name) {
  std::set<std::string> used;
  for (const Value* input : graph.inputs())
    for (const Dim& dim : input->type().shape) used.merge(dim.expr().symbols());
  for (const Node* n = graph.front(); n; n = n->next()) used.merge(symbolsOf(*n));
  while (used.contains(name)) name = "batch_" + name;
  return name;
}

}  // namespace

Status freeBatch(Graph& graph, PassContext& cx) {
  const auto* told = cx.get<StackedInputs>();
  if (const Value* input = told && !told->dims.empty() ? nullptr : inputOfFreeSize(graph); input && isFreeBatch(graph))
    return fail(ErrorCode::kInvalidArgument, "dim 0 of {} holds the samples of a batch already, of any size", input->type().str())
        .on(input->name())
        .help("the batch of this model is free: take it as it is");
  Placement placement;
  int stacked = 0;
  for (const Value* input : graph.inputs()) {
    QC_ASSIGN(const int dim, stackedDim(input, told ? *told : StackedInputs()));
    placement.put(input, dim);
    stacked += dim >= 0;
  }
  if (stacked == 0)
    return fail(ErrorCode::kInvalidArgument, "no input has a dim of size 1, along which samples could be stacked")
        .help("the batch of this model is another size than 1, or free");
  std::vector<std::pair<Node*, BatchDims>> places;
  for (Node* node : graph.nodes()) {
    QC_ASSIGN(auto at, placement.place(*node));
    if (at) places.emplace_back(node, std::move(*at));
  }
  Stacker stacker(placement, DimExpr::symbol(unusedSymbol(graph, cx.options.string("symbol"))));
  for (Value* input : graph.inputs()) stacker.stackInput(input);
  for (const auto& [node, at] : places) QC_TRY(stacker.stackNode(node, at));
  cx.countHits({{"stacked", static_cast<int>(places.size())}});
  return {};
}

}  // namespace qc
