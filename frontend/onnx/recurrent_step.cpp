// Tests: tests/unit/onnx_loops_test.cpp.
#include "frontend/onnx/recurrent_step.h"

#include <algorithm>
#include <vector>

#include "frontend/onnx/dim_values.h"
#include "ir/onnx_names.h"
#include "ir/op_def.h"
#include "ir/ops/recurrent.h"

namespace qc {
namespace {

constexpr int64_t kMaxHidden = 1 << 16;  // far beyond any layer; a shape alone can say more
constexpr int kMaxTerms = 1000;          // looked at: sums of sums of one value double with each

// Columns [first, first + count) of a value [rows, columns].
struct Columns {
  const Value* v = nullptr;
  int64_t first = 0, count = 0;
  bool operator==(const Columns&) const = default;
};

bool is(const Columns& c, std::string_view op) { return c.v->producer() && c.v->producer()->is(op); }

// Columns of a constant [depth, columns], to be multiplied by rows of that depth.
struct Factor {
  const Tensor* matrix;
  int64_t first;
};

// A sum of products, biases and what is neither.
struct Sum {
  std::vector<Factor> ofInput, ofState, ofGated;  // one each, or it is none of a step
  std::optional<Columns> reset;                   // of the gated state: the factor of the state
  std::vector<float> bias;                        // empty: none
  std::vector<Columns> rest;
};

struct Gate {
  std::string activation;  // as ONNX names it
  Sum sum;
};

class Reader {
 public:
  explicit Reader(const RecurrentRound& round) : round_(round), hidden_(columnsOf(round.state)) {}

  std::optional<ReadStep> read(const Value* next, const Value* nextCell) {
    if (hidden_ < 1 || hidden_ > kMaxHidden || !sameShape(next, round_.state)) return std::nullopt;
    const Columns result = origin({next, 0, hidden_});
    if (round_.cell)
      return sameShape(nextCell, round_.cell) && sameShape(next, nextCell) ? asLstm(result, origin({nextCell, 0, hidden_})) : std::nullopt;
    auto step = asGru(result);
    return step ? step : asRnn(result);
  }

 private:
  static int64_t columnsOf(const Value* v) {
    const Shape& shape = v->type().shape;
    return shape.size() == 2 && shape[1].isStatic() ? shape[1].size() : 0;
  }
  static bool sameShape(const Value* a, const Value* b) { return a->type() == b->type(); }

  // Through what only cuts columns out.
  static Columns origin(Columns c) {
    while (const Node* n = c.v->producer()) {
      const bool isSplit = n->is("split");
      if (!isSplit && !n->is("slice")) break;
      const Value* from = n->operand(0);
      if (columnsOf(from) == 0 || from->type().shape[0] != c.v->type().shape[0]) break;
      if (isSplit) {
        if (n->integer("axis") != 1) break;
        const std::vector<DimExpr> sizes = n->attrs().dims("sizes");
        int64_t first = 0;
        for (int i = 0; i < c.v->resultIndex(); ++i) first += nth(sizes, i).constant().value_or(columnsOf(from));
        c = {from, c.first + first, c.count};
      } else {
        const std::vector<DimExpr> starts = n->attrs().dims("starts");
        const auto first = nth(starts, 1).constant();
        if (!(nth(starts, 0) == DimExpr(0)) || !first || n->integers("steps") != std::vector<int64_t>{1, 1}) break;
        c = {from, c.first + *first, c.count};
      }
    }
    return c;
  }
  // The same columns of an operand of an elementwise op.
  std::optional<Columns> operandOf(const Columns& c, int i) const {
    const Value* v = c.v->producer()->operand(i);
    return sameShape(v, c.v) ? std::optional(origin({v, c.first, c.count})) : std::nullopt;
  }
  // The numbers of a constant that is the same in all rows.
  static std::optional<std::vector<float>> rowOf(const Value* v, const Columns& like) {
    const Tensor* t = v->constant();
    if (!t || t->dtype() != DType::f32 || v->type().isQuantized() || t->rank() > 2 || (t->rank() == 2 && t->sizes()[0] != 1))
      return std::nullopt;
    if (t->numElements() != 1 && t->numElements() != columnsOf(like.v)) return std::nullopt;
    std::vector<float> row;
    for (int64_t i = 0; i < like.count; ++i) row.push_back(static_cast<float>(t->at(t->numElements() == 1 ? 0 : like.first + i)));
    return row;
  }
  bool isOnes(const Value* v, const Columns& like) const {
    const auto row = rowOf(v, like);
    return row && std::all_of(row->begin(), row->end(), [](float x) { return x == 1.0f; });
  }

  bool isOutside(const Value* v) const {
    const Node* n = v->producer();
    return !n || (round_.before && !round_.before->isBefore(n));
  }
  // x[round], of one sequence.
  bool isInput(const Value* v) {
    const Node* n = v->producer();
    if (!n || !n->is("gather") || n->integer("axis") != 0 || v->type().rank() != 2) return false;
    Value* sequence = n->operand(0);
    const auto at = dimValuesOf(n->operand(1));
    if (!at || !at->sizes.empty() || !(at->elements.front() == round_.number) || !isOutside(sequence)) return false;
    if (sequence->type().dtype != DType::f32 || sequence->type().isQuantized() || !sequence->type().shape[2].isStatic()) return false;
    if (sequence_ && sequence_ != sequence) return false;
    sequence_ = sequence;
    return true;
  }

  // False: it is not a sum of a step.
  bool collect(const Columns& c, Sum& sum) {
    if (++terms_ > kMaxTerms) return false;
    if (is(c, "add")) {
      for (int i = 0; i < 2; ++i) {
        const Value* v = c.v->producer()->operand(i);
        if (const auto row = rowOf(v, c)) {
          sum.bias.resize(row->size(), 0.0f);
          std::transform(row->begin(), row->end(), sum.bias.begin(), sum.bias.begin(), std::plus());
        } else if (const auto part = operandOf(c, i); !part || !collect(*part, sum)) {
          return false;
        }
      }
      return true;
    }
    if (!is(c, "matmul")) {
      sum.rest.push_back(c);
      return true;
    }
    const Value* rows = c.v->producer()->operand(0);
    const Tensor* matrix = c.v->producer()->operand(1)->constant();
    if (!matrix || matrix->rank() != 2 || matrix->dtype() != DType::f32 || c.v->producer()->operand(1)->type().isQuantized() ||
        c.first + c.count > matrix->sizes()[1])
      return false;
    const Factor factor{matrix, c.first};
    if (isInput(rows)) {
      sum.ofInput.push_back(factor);
    } else if (rows == round_.state) {
      sum.ofState.push_back(factor);
    } else if (const auto reset = otherFactor({rows, 0, hidden_}, round_.state)) {
      if (sum.reset && !(*sum.reset == *reset)) return false;
      sum.reset = reset;
      sum.ofGated.push_back(factor);
    } else {
      return false;
    }
    return true;
  }

  // Of a product with this state: what it is multiplied by.
  std::optional<Columns> otherFactor(const Columns& c, const Value* state) const {
    if (columnsOf(c.v) != hidden_ || !is(c, "mul")) return std::nullopt;
    for (int i = 0; i < 2; ++i) {
      const auto one = operandOf(c, i), other = operandOf(c, 1 - i);
      if (one && other && *one == Columns{state, 0, hidden_}) return other;
    }
    return std::nullopt;
  }

  // As ONNX names it, and what it is of.
  std::optional<std::pair<std::string, Columns>> activation(const Columns& c) const {
    const Node* n = c.v->producer();
    if (!n || n->numOperands() != 1 || !n->attrs().empty() || !n->def().scalar) return std::nullopt;
    const auto names = onnxNames();
    const auto name = std::find_if(names.begin(), names.end(), [&](const OnnxName& row) { return row.ours == n->op() && row.writes(); });
    const auto under = operandOf(c, 0);
    return name != names.end() && under ? std::optional(std::pair(name->theirs, *under)) : std::nullopt;
  }
  std::optional<Gate> gate(const Columns& c) {
    const auto of = activation(c);
    Gate gate;
    if (!of || !collect(of->second, gate.sum)) return std::nullopt;
    gate.activation = of->first;
    return gate;
  }
  // Of the input and of the state.
  std::optional<Gate> plainGate(const Columns& c) {
    auto g = gate(c);
    return g && isOfBoth(g->sum) ? std::move(g) : std::nullopt;
  }
  static bool isOfBoth(const Sum& s) { return s.ofInput.size() == 1 && s.ofState.size() == 1 && s.ofGated.empty() && s.rest.empty(); }

  std::optional<ReadStep> asRnn(const Columns& c) {
    const auto h = plainGate(c);
    if (!h) return std::nullopt;
    return built("rnn", {h->sum}, {}, h->activation);
  }

  // (1 - z) * candidate + z * state
  std::optional<ReadStep> asGru(const Columns& c) {
    if (!is(c, "add")) return std::nullopt;
    for (int i = 0; i < 2; ++i) {
      const auto kept = operandOf(c, i), fresh = operandOf(c, 1 - i);
      const auto z = kept ? otherFactor(*kept, round_.state) : std::nullopt;
      if (!z || !fresh || !is(*fresh, "mul")) continue;
      for (int k = 0; k < 2; ++k) {
        const auto left = operandOf(*fresh, k), candidate = operandOf(*fresh, 1 - k);
        if (!left || !candidate || !is(*left, "sub") || !isOnes(left->v->producer()->operand(0), *left)) continue;
        const auto subtracted = operandOf(*left, 1);
        if (subtracted && *subtracted == *z) return gruOf(*z, *candidate);
      }
    }
    return std::nullopt;
  }

  std::optional<ReadStep> gruOf(const Columns& z, const Columns& candidate) {
    auto h = gate(candidate);
    if (!h || h->sum.ofInput.size() != 1 || !h->sum.ofState.empty()) return std::nullopt;
    std::vector<float> stateBias;
    const bool linearBeforeReset = h->sum.ofGated.empty();
    if (linearBeforeReset) {  // r * (product of the state + bias)
      if (h->sum.rest.size() != 1 || !is(h->sum.rest.front(), "mul")) return std::nullopt;
      const Columns product = h->sum.rest.front();
      h->sum.rest.clear();
      for (int i = 0; i < 2 && !h->sum.reset; ++i) {
        const auto reset = operandOf(product, i), inner = operandOf(product, 1 - i);
        Sum sum;
        if (!reset || !inner || !collect(*inner, sum) || sum.ofState.size() != 1 || !sum.ofInput.empty() || !sum.ofGated.empty() ||
            !sum.rest.empty())
          continue;
        h->sum.reset = reset;
        h->sum.ofState = sum.ofState;
        stateBias = sum.bias;
      }
    } else {
      if (h->sum.ofGated.size() != 1 || !h->sum.rest.empty()) return std::nullopt;
      h->sum.ofState = h->sum.ofGated;
    }
    if (!h->sum.reset) return std::nullopt;
    const auto update = plainGate(z), reset = plainGate(*h->sum.reset);
    if (!update || !reset || update->activation != reset->activation) return std::nullopt;
    auto step = built("gru", {update->sum, reset->sum, h->sum}, {{}, {}, stateBias}, update->activation + "," + h->activation);
    if (step) step->attrs.set("linear_before_reset", int64_t{linearBeforeReset});
    return step;
  }

  // cell' = f * cell + i * g, state' = o * h(cell')
  std::optional<ReadStep> asLstm(const Columns& state, const Columns& cell) {
    if (!is(state, "mul") || !is(cell, "add")) return std::nullopt;
    std::optional<Gate> o, f, i, g;
    std::string ofCell;
    for (int k = 0; k < 2 && !o; ++k) {
      const auto left = operandOf(state, k), right = operandOf(state, 1 - k);
      const auto squashed = right ? activation(*right) : std::nullopt;
      if (!left || !squashed || !(squashed->second == cell)) continue;
      o = plainGate(*left);
      ofCell = squashed->first;
    }
    for (int k = 0; k < 2 && o && !f; ++k) {
      const auto kept = operandOf(cell, k), fresh = operandOf(cell, 1 - k);
      const auto forget = kept ? otherFactor(*kept, round_.cell) : std::nullopt;
      if (!forget || !fresh || !is(*fresh, "mul")) continue;
      f = plainGate(*forget);
      for (int j = 0; j < 2 && f && !i; ++j) {
        const auto in = operandOf(*fresh, j), candidate = operandOf(*fresh, 1 - j);
        i = in ? plainGate(*in) : std::nullopt;
        g = candidate ? plainGate(*candidate) : std::nullopt;
        if (!g || (i && (i->activation != f->activation || i->activation != o->activation))) i = std::nullopt;
      }
    }
    if (!i) return std::nullopt;
    return built("lstm", {i->sum, o->sum, f->sum, g->sum}, {}, fmt::format("{},{},{}", f->activation, g->activation, ofCell));
  }

  // [1, gates * hidden, depth], of one factor for each gate.
  std::optional<Tensor> weights(const std::vector<Factor>& gates, int64_t depth) const {
    Tensor t(DType::f32, {1, static_cast<int64_t>(gates.size()) * hidden_, depth});
    void* data = t.mutableData();
    int64_t at = 0;
    for (const Factor& f : gates) {
      if (f.matrix->sizes()[0] != depth) return std::nullopt;
      for (int64_t row = 0; row < hidden_; ++row)
        for (int64_t k = 0; k < depth; ++k) storeElement(DType::f32, data, at++, f.matrix->at(k * f.matrix->sizes()[1] + f.first + row));
    }
    return t;
  }
  std::optional<ReadStep> built(const char* op, const std::vector<Sum>& gates, const std::vector<std::vector<float>>& stateBias,
                                const std::string& activations) const {
    std::vector<Factor> ofInput, ofState;
    std::vector<float> bias;
    bool isBiased = false;
    const auto append = [&](std::vector<float> row) {
      isBiased |= !row.empty();
      row.resize(usize(hidden_), 0.0f);
      bias.insert(bias.end(), row.begin(), row.end());
    };
    for (const Sum& s : gates) {
      ofInput.push_back(s.ofInput.front());
      ofState.push_back(s.ofState.front());
      append(s.bias);
    }
    for (size_t g = 0; g < gates.size(); ++g) append(g < stateBias.size() ? stateBias[g] : std::vector<float>());
    ReadStep step;
    step.op = op;
    step.attrs = {{"hidden_size", hidden_}, {"activations", activations}};
    step.sequence = sequence_;
    auto w = weights(ofInput, sequence_->type().shape[2].size()), r = weights(ofState, hidden_);
    if (!w || !r) return std::nullopt;
    step.w = std::move(*w);
    step.r = std::move(*r);
    if (isBiased) step.b = Tensor::ofFloats({1, static_cast<int64_t>(bias.size())}, bias);
    return step;
  }

  const RecurrentRound& round_;
  int64_t hidden_;
  Value* sequence_ = nullptr;
  int terms_ = 0;
};

}  // namespace

std::optional<ReadStep> readStep(const RecurrentRound& round, const Value* next, const Value* nextCell) {
  return Reader(round).read(next, nextCell);
}

}  // namespace qc
