#include "ir/loops.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "ir/decided_sizes.h"
#include "ir/dim_expr_terms.h"
#include "ir/memory_limit.h"

namespace qc {
namespace {

constexpr int64_t kMaxRounds = int64_t{1} << 20;

// What the dims of the body's inputs are called, by what its operands have there.
class Sizes {
 public:
  Status take(const Value& input, const TensorType& type) {
    const TensorType& own = input.type();
    const auto wrong = [&] {
      return fail(ErrorCode::kInvalidModel, "the body takes {} as '{}', and is given {}", own.str(), input.name(), type.str());
    };
    if (own.dtype != type.dtype || own.rank() != type.rank() || !(QuantAttr{own.quant} == QuantAttr{type.quant})) return wrong();
    for (int d = 0; d < own.rank(); ++d) {
      const Dim &mine = nth(own.shape, d), &given = nth(type.shape, d);
      if (mine.isStatic()) {
        if (given.isStatic() && mine != given) return wrong();
        continue;
      }
      const auto symbol = symbolName(mine.expr());
      if (!symbol)
        return fail(ErrorCode::kInvalidModel, "dim {} of '{}' in the body is {}", d, input.name(), mine.str())
            .help("the dims of a body's inputs are sizes and symbols");
      const auto [known, isNew] = values_.emplace(*symbol, given.expr());
      if (!isNew && known->second.constant() && given.isStatic() && *known->second.constant() != given.size())
        return fail(ErrorCode::kInvalidModel, "'{}' is {} and {} in the body", *symbol, *known->second.constant(), given.size())
            .on(input.name());
      if (!isNew && given.isStatic()) known->second = given.expr();
    }
    return {};
  }
  // Rounds give it other sizes.
  void forget(const std::string& symbol) { values_.erase(symbol); }
  bool settles(const DimExpr& e) const {
    const std::set<std::string> symbols = e.symbols();
    return !e.isUnknown() && std::ranges::all_of(symbols, [&](const std::string& s) { return values_.contains(s); });
  }
  DimExpr of(const DimExpr& e) const { return substituted(e, values_); }

 private:
  std::map<std::string, DimExpr> values_;
};

Status checkBody(const Graph& body, size_t values, int64_t carried) {
  const auto isOne = [](const Value* v, DType dtype) {
    return v->type().dtype == dtype && !v->type().isQuantized() && v->type().isStatic() && v->type().numElements() == 1;
  };
  if (carried < 0 || carried > std::ssize(body.outputs()) - 1 || usize(carried) > values || body.inputs().size() != values + 1)
    return fail(ErrorCode::kInvalidModel, "a loop of {} values, {} of them carried, with a body of {} inputs and {} outputs", values,
                carried, body.inputs().size(), body.outputs().size());
  if (const Value* round = body.inputs().front(); !isOne(round, DType::s64) || round->type().rank() != 0)
    return fail(ErrorCode::kInvalidModel, "the body takes the number of the round as {}, expected s64[]", round->type().str())
        .on(round->name());
  if (const Value* more = body.outputs().front(); !isOne(more, DType::boolean))
    return fail(ErrorCode::kInvalidModel, "whether another round follows is {}, expected one bool", more->type().str()).on(more->name());
  return {};
}

Result<Tensor> stacked(std::span<const Tensor> rounds) {
  std::vector<int64_t> sizes = rounds.front().sizes();
  sizes.insert(sizes.begin(), std::ssize(rounds));
  QC_TRY(checkMemory(numElements(sizes) * sizeOf(rounds.front().dtype()), "the results of all rounds"));
  Tensor all(rounds.front().dtype(), std::move(sizes));
  char* to = static_cast<char*>(all.mutableData());
  for (const Tensor& t : rounds) {
    if (t.byteSize() > 0) std::memcpy(to, t.data(), usize(t.byteSize()));
    to += t.byteSize();
  }
  return all;
}

}  // namespace

const Graph* bodyOf(const Node& node) { return node.is("loop") ? &node.attrs().graph("body") : nullptr; }

Status editBodies(Graph& graph, const std::function<Status(Graph&)>& edit) {
  for (Node* node = graph.front(); node; node = node->next()) {
    const Graph* body = bodyOf(*node);
    if (!body) continue;
    Graph own = body->clone();
    if (auto edited = edit(own); !edited) return tl::make_unexpected(std::move(edited.error()).at(node->location()));
    node->attrs().set("body", GraphAttr(std::move(own)));
  }
  return {};
}

Result<std::vector<TensorType>> loopResults(const Graph& body, std::span<const TensorType> values, int64_t carried,
                                            const std::function<DimExpr()>& count, const std::function<DimExpr()>& decided) {
  QC_TRY(checkBody(body, values.size(), carried));
  Sizes sizes;
  for (size_t k = 0; k < values.size(); ++k) QC_TRY(sizes.take(*body.inputs()[1 + k], values[k]));
  std::vector<TensorType> results;
  for (int64_t k = 0; k < carried; ++k) {
    const Value &before = *nth(body.inputs(), 1 + k), &after = *nth(body.outputs(), 1 + k);
    const TensorType &from = before.type(), &to = after.type();
    const auto wrong = [&] {
      return fail(ErrorCode::kInvalidModel, "a round takes '{}' as {} and hands on {}", before.name(), from.str(), to.str())
          .on(after.name());
    };
    if (from.dtype != to.dtype || from.rank() != to.rank() || !(QuantAttr{from.quant} == QuantAttr{to.quant})) return wrong();
    for (int d = 0; d < from.rank(); ++d) {
      const Dim &a = nth(from.shape, d), &b = nth(to.shape, d);
      if (a.isStatic() && b.isStatic() && a != b) return wrong();
      if (const auto symbol = symbolName(a.expr()); symbol && !(a.expr() == b.expr())) sizes.forget(*symbol);
    }
  }
  for (int64_t k = 0; k < carried; ++k) {
    TensorType type = nth(body.inputs(), 1 + k)->type();
    for (Dim& dim : type.shape)
      if (!dim.isStatic()) dim = Dim(sizes.settles(dim.expr()) ? sizes.of(dim.expr()) : decided());
    results.push_back(std::move(type));
  }
  const int64_t outputs = std::ssize(body.outputs());
  const DimExpr rounds = outputs > 1 + carried ? count() : DimExpr(0);
  for (int64_t k = 1 + carried; k < outputs; ++k) {
    TensorType type = nth(body.outputs(), k)->type();
    if (type.quant && type.quant->perChannel())
      return fail(ErrorCode::kUnsupported, "rounds of {} are not stacked", type.str()).on(nth(body.outputs(), k)->name());
    for (Dim& dim : type.shape)
      if (!dim.isStatic()) dim = Dim(sizes.settles(dim.expr()) ? sizes.of(dim.expr()) : decided());
    type.shape.insert(type.shape.begin(), Dim(rounds));
    results.push_back(std::move(type));
  }
  return results;
}

Result<std::vector<Tensor>> runLoop(const Node& loop, std::span<const Tensor* const> operands, const RunBody& runBody) {
  const Graph& body = *bodyOf(loop);
  const int64_t carried = loop.integer("carried");
  const auto given = [&](size_t i) { return i < operands.size() ? operands[i] : nullptr; };
  const int64_t most = given(0) ? given(0)->toInts().front() : kMaxRounds + 1;
  bool more = !given(1) || given(1)->at(0) != 0;
  std::vector<Tensor> inputs(1);
  for (size_t k = 2; k < operands.size(); ++k) inputs.push_back(*operands[k]);
  std::vector<std::vector<Tensor>> stacks(body.outputs().size() - usize(1 + carried));
  int64_t round = 0, bytes = 0;
  for (; round < most && more; ++round) {
    if (round == kMaxRounds) return fail(ErrorCode::kResource, "a loop of more than {} rounds", kMaxRounds);
    inputs[0] = Tensor::ofInts({}, std::vector{round});
    auto outputs = runBody(inputs);
    if (!outputs) return tl::make_unexpected(std::move(outputs.error()));
    more = (*outputs)[0].at(0) != 0;
    std::move(outputs->begin() + 1, outputs->begin() + 1 + carried, inputs.begin() + 1);
    for (size_t s = 0; s < stacks.size(); ++s) {
      Tensor& own = nth(*outputs, 1 + carried + static_cast<int64_t>(s));
      if (!stacks[s].empty() && stacks[s].front().sizes() != own.sizes())
        return fail(ErrorCode::kInvalidData, "round {} gives {}, the rounds before gave {}", round, own.type().str(),
                    stacks[s].front().type().str())
            .on(loop.result(static_cast<int>(carried + static_cast<int64_t>(s)))->name());
      bytes += own.byteSize();
      stacks[s].push_back(std::move(own));
    }
    QC_TRY(checkMemory(bytes, "the results of all rounds"));
  }
  std::vector<Tensor> results(inputs.begin() + 1, inputs.begin() + 1 + carried);
  if (round == 0) {  // types alone say what would be stacked
    const auto nothing = [] { return DimExpr(0); };
    std::vector<TensorType> types;
    for (size_t k = 2; k < operands.size(); ++k)
      types.push_back(loop.operand(static_cast<int>(k))->type().withShape(toShape(operands[k]->sizes())));
    QC_ASSIGN(const std::vector<TensorType> ofNone, loopResults(body, types, carried, nothing, nothing));
    for (size_t s = 0; s < stacks.size(); ++s) results.emplace_back(ofNone[usize(carried) + s].dtype, ofNone[usize(carried) + s].sizes());
    return results;
  }
  for (const std::vector<Tensor>& stack : stacks) {
    QC_ASSIGN(Tensor all, stacked(stack));
    results.push_back(std::move(all));
  }
  return results;
}

}  // namespace qc
