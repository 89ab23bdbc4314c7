#include "runtime/insight/signals.h"

#include <algorithm>
#include <array>

#include "passes/correspondence.h"
#include "quantizer/rules/op_policy.h"

namespace qc {
namespace {

// What tools hang on the name of a value for its integers and for what is read back of them, and on that of a node.
constexpr std::array kSuffixes = {"_QuantizeLinear_Input",
                                  "_QuantizeLinear_Output",
                                  "_DequantizeLinear_Output",
                                  "_QuantizeLinear",
                                  "_DequantizeLinear",
                                  "_quantize_linear",
                                  "_dequantize_linear",
                                  "_quantized",
                                  "_dequantized",
                                  "_quant",
                                  "_q",
                                  "_dq",
                                  "/QuantizeLinear",
                                  "/DequantizeLinear",
                                  "/duplicated"};

bool isRounding(const Node& n) { return n.is("quantize") || n.is("quantize_with"); }
// The same integers, as such or with the meaning that they have: exporters write a Cast between QuantizeLinear and DequantizeLinear.
bool isRelabelling(const Node& n) {
  return n.is("storage_cast") || (n.is("cast") && n.operand(0)->type().dtype == n.result()->type().dtype);
}
bool isReading(const Node& n) { return n.is("dequantize") || n.is("dequantize_with"); }

// Computed from constants alone.
bool isConstant(const Value* value) {
  for (int depth = 0; value && depth < 16; ++depth) {
    const Node* n = value->producer();
    if (!n) return false;
    if (n->is("const")) return true;
    if (n->numOperands() == 0 || !n->operand(0)) return false;
    for (int i = 1; i < n->numOperands(); ++i)
      if (n->operand(i) && !n->operand(i)->constant()) return false;
    value = n->operand(0);
  }
  return false;
}

}  // namespace

std::string plainName(std::string_view name) {
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view suffix : kSuffixes) {
      if (name.size() <= suffix.size() || !name.ends_with(suffix)) continue;
      name.remove_suffix(suffix.size());
      again = true;
    }
  }
  return std::string(name);
}

std::vector<int> weightOperands(const Node& node) {
  std::vector<int> found;
  if (!weightOf(node.def()) && policyOf(node).role != Role::product) return found;
  for (int i = 0; i < node.numOperands(); ++i) {
    const bool weights = weightOf(node.def()) ? node.def().operand(i).role == OperandRole::weight : true;
    if (weights && node.operand(i) && isConstant(node.operand(i))) found.push_back(i);
  }
  return found;
}

int Signals::indexOf(const Value* value) const {
  const auto it = byValue_.find(value);
  return it == byValue_.end() ? -1 : it->second;
}

int Signals::find(std::string_view name) const {
  const auto it = byName_.find(name);
  return it == byName_.end() ? -1 : it->second;
}

int Signals::start(const Value* value) {
  const int index = static_cast<int>(all_.size());
  Signal signal;
  if (value->type().dtype == DType::f32 && !value->type().isQuantized()) signal.raw = value;
  all_.push_back(std::move(signal));
  byValue_.emplace(value, index);
  return index;
}

void Signals::add(const Node& node) {
  if (node.is("const")) return;
  const std::vector<Value*> operands = node.operands();
  const int first = operands.empty() ? -1 : indexOf(operands[0]);
  if (isRelabelling(node)) {
    if (first >= 0) byValue_.emplace(node.result(), first);
    return;
  }
  if (isRounding(node) || isReading(node)) {
    if (first < 0) return;  // of a constant
    Signal& signal = nth(all_, first);
    byValue_.emplace(node.result(), first);
    if (isReading(node)) {
      if (!signal.seen) signal.seen = node.result();
    } else if (!signal.rounded) {
      signal.rounded = true;
      signal.params = node.result()->type().quant;
    }
    return;
  }
  if (node.is("dynamic_qparams") ||
      std::none_of(operands.begin(), operands.end(), [&](const Value* v) { return v && byValue_.contains(v); }))
    return;
  for (int i = 0; i < node.numResults(); ++i) start(node.result(i));
}

// Names: first what the graph itself says, then those of its values, then these without what tools hang on them.
void Signals::rename(const Graph& graph, std::vector<std::string>& notes) {
  const auto moves = movesOf(graph);
  if (!moves) notes.push_back(fmt::format("what the file says of its float model is not used: {}", moves.error().message()));
  for (const Move& move : moves ? *moves : std::vector<Move>()) {
    if (move.folded()) continue;
    for (const auto& [value, of] : move.values) {
      const Value* v = graph.findValue(value);
      const int index = v ? indexOf(v) : -1;
      if (index < 0) continue;  // it went into another one since
      Signal& signal = nth(all_, index);
      const int rank = v->type().rank();
      const auto channels = static_cast<int64_t>(move.factors.size());
      if (!move.factors.empty() &&
          (move.axis >= rank || !nth(v->type().shape, move.axis).isStatic() || nth(v->type().shape, move.axis).size() != channels ||
           (!signal.factors.empty() && signal.factors.size() != move.factors.size()))) {
        notes.push_back(fmt::format("what the file says was moved at '{}' does not fit it, and is not used", value));
        continue;
      }
      signal.names.push_back(of);
      if (move.factors.empty()) continue;
      signal.axis = move.axis;
      signal.factors.resize(move.factors.size(), 1);
      for (size_t c = 0; c < move.factors.size(); ++c) signal.factors[c] *= move.factors[c];
    }
  }
  // The value that readers get, then the one that is computed: where a tool leaves out a relu in front of integers that clamp, the latter
  // has its name, and the former its values.
  std::vector<std::vector<std::string>> own(all_.size());
  for (const Value* input : graph.inputs())
    if (const int index = indexOf(input); index >= 0) nth(own, index).push_back(input->name());
  for (const Node* n = graph.front(); n; n = n->next())
    for (int i = 0; i < n->numResults(); ++i)
      if (const int index = indexOf(n->result(i)); index >= 0) nth(own, index).push_back(n->result(i)->name());
  for (size_t k = 0; k < all_.size(); ++k) {
    if (all_[k].names.empty()) {
      all_[k].names = own[k];
      for (const std::string& name : own[k])
        if (std::string plain = plainName(name); plain != name) all_[k].names.push_back(std::move(plain));
    }
    for (const std::string& name : own[k]) byName_.emplace(name, static_cast<int>(k));
  }
  for (size_t k = 0; k < all_.size(); ++k)
    for (const std::string& name : all_[k].names) byName_.emplace(name, static_cast<int>(k));
}

Signals Signals::of(const Graph& graph, std::vector<std::string>& notes) {
  Signals signals;
  for (const Value* input : graph.inputs()) signals.start(input);
  for (const Node* n = graph.front(); n; n = n->next()) signals.add(*n);
  signals.rename(graph, notes);
  return signals;
}

}  // namespace qc
