// A Loop whose rounds do nothing with a sequence but append to it, as scripted models keep what their steps give, is read as one that gives
// the appended tensors as results of its rounds: stacked, they are the sequence.
// Tests: tests/unit/onnx_loops_test.cpp, tests/differential/loops_vs_ort.py.
#include <algorithm>
#include <set>

#include "frontend/onnx/loop_form.h"
#include "ir/decided_sizes.h"

namespace qc {
namespace {

struct Appending {
  std::vector<std::string> elements;  // by round, in their order
  std::set<int> nodes;                // that append them
};

class Appendings {
 public:
  explicit Appendings(const onnx::GraphProto& body) : body_(body), readers_(readersByName(body.node())) {
    for (const auto& info : body.output()) ++returned_[info.name()];
  }

  // Nothing: the body does something else with the sequence that it takes as `input` and hands on as `output`.
  std::optional<Appending> of(const std::string& input, const std::string& output) const {
    Appending found;
    std::string name = input;
    while (name != output) {
      const auto readers = readers_.find(name);
      if (readers == readers_.end() || readers->second.size() != 1 || returned_.contains(name)) return std::nullopt;
      const onnx::NodeProto& reader = body_.node(readers->second[0]);
      if (!isStandard(reader) || reader.output_size() != 1 || !found.nodes.insert(readers->second[0]).second) return std::nullopt;
      const bool hasPosition = reader.input_size() > 2 && !reader.input(2).empty();
      const bool appends = reader.op_type() == "SequenceInsert" && reader.input_size() > 1 && reader.input(0) == name && !hasPosition;
      if (!appends && reader.op_type() != "Identity") return std::nullopt;
      if (appends) found.elements.push_back(reader.input(1));
      name = reader.output(0);
    }
    if (found.elements.empty() || readers_.contains(output) || returned_.at(output) != 1) return std::nullopt;
    return found;
  }

 private:
  const onnx::GraphProto& body_;
  const std::unordered_map<std::string, std::vector<int>> readers_;
  std::map<std::string, int> returned_;
};

// The sequence behind the last round.
Result<Value*> behindRounds(OnnxNode& n, const OnnxValue& before, std::vector<Value*> appended) {
  for (const Value* v : appended) {
    // Rounds of unlike sizes have no stack.
    std::set<std::string> own = v->producer() ? decidedSymbols(*v->producer()) : std::set<std::string>();
    for (const Dim& d : std::span(v->type().shape).subspan(1))
      for (const std::string& symbol : d.expr().symbols())
        if (own.contains(symbol))
          return n.error(ErrorCode::kUnsupported, "its rounds append tensors of unlike sizes to a sequence, as {} is", v->type().str())
              .help("export with a fixed number of rounds, or with tensors of one size");
  }
  Value* stack = appended.front();
  if (appended.size() > 1) {
    const auto each = static_cast<int64_t>(appended.size());
    QC_ASSIGN(stack, joined(n, std::move(appended), 1, true));
    std::vector<DimExpr> sizes = OnnxNode::dims(stack);
    sizes.erase(sizes.begin() + 1);
    sizes[0] = sizes[0] * each;
    QC_ASSIGN(stack, n.reshapeToDims(stack, std::move(sizes)));
  }
  if (before.sequence && before.sequence->empty()) return stack;
  QC_ASSIGN(Value * first, stackOf(n, before));
  const Shape &a = first->type().shape, &b = stack->type().shape;
  if (first->type().dtype != stack->type().dtype || !std::equal(a.begin() + 1, a.end(), b.begin() + 1, b.end()))
    return n.error(ErrorCode::kUnsupported, "its rounds append {} to a sequence of {}", stack->type().str(), first->type().str());
  return n.create("concat", {first, stack}, {{"axis", 0}});
}

}  // namespace

const OnnxImporter::CollectingLoop* OnnxImporter::asCollecting(const onnx::GraphProto& body, const LoopForm& form,
                                                               const OnnxValues& operands) {
  std::set<int64_t> sequences;
  for (int64_t k = 0; k < form.states; ++k)
    if (nth(operands, form.firstState + k).isSequence()) sequences.insert(k);
  if (sequences.empty()) return nullptr;
  const auto [known, isNew] = collecting_.try_emplace({&body, sequences});
  if (isNew) known->second = collectingOf(body, form, sequences);
  return known->second ? &*known->second : nullptr;
}

std::optional<OnnxImporter::CollectingLoop> OnnxImporter::collectingOf(const onnx::GraphProto& body, const LoopForm& form,
                                                                       const std::set<int64_t>& sequences) {
  CollectingLoop loop{body, {}};
  std::set<int> nodes;
  std::vector<std::string> elements;
  const Appendings appendings(body);
  for (const int64_t k : sequences) {
    auto appending =
        appendings.of(body.input(static_cast<int>(form.firstState + k)).name(), body.output(static_cast<int>(form.firstOutput + k)).name());
    if (!appending) return std::nullopt;
    loop.states.emplace(k, appending->elements.size());
    nodes.merge(appending->nodes);
    elements.insert(elements.end(), appending->elements.begin(), appending->elements.end());
  }
  for (auto k = sequences.rbegin(); k != sequences.rend(); ++k) {
    loop.body.mutable_input()->DeleteSubrange(static_cast<int>(form.firstState + *k), 1);
    loop.body.mutable_output()->DeleteSubrange(static_cast<int>(form.firstOutput + *k), 1);
  }
  loop.body.clear_node();
  for (int i = 0; i < body.node_size(); ++i)
    if (!nodes.contains(i)) *loop.body.add_node() = body.node(i);
  for (const std::string& element : elements) loop.body.add_output()->set_name(element);
  return loop;
}

Result<OnnxValues> OnnxImporter::withSequences(OnnxNode& node, const CollectingLoop& loop, const LoopForm& form, const OnnxValues& operands,
                                               OnnxValues outputs) {
  size_t appended = 0;
  for (const auto& [k, count] : loop.states) appended += count;
  std::vector<Value*> values;
  for (size_t i = outputs.size() - appended; i < outputs.size(); ++i) values.push_back(outputs[i].tensor);
  outputs.resize(outputs.size() - appended);
  auto next = values.begin();
  for (const auto& [k, count] : loop.states) {
    const auto end = next + static_cast<ptrdiff_t>(count);
    QC_ASSIGN(Value * stack, behindRounds(node, nth(operands, form.firstState + k), {next, end}));
    outputs.insert(outputs.begin() + k, {.stack = stack});
    next = end;
  }
  return outputs;
}

}  // namespace qc
