#include "ir/graph.h"

#include <algorithm>
#include <set>
#include <utility>

#include "ir/decided_sizes.h"
#include "ir/op_def.h"
#include "ir/text.h"
#include "ir/verify.h"

namespace qc {

// The first name of the form NAME_I that `fits`, where at most a few are free below the last one that is taken: of thousands of values that
// want one name each finds its own in a number of steps that grows with the logarithm.
template <class Fits>
static std::string withSuffix(std::string_view name, const Fits& fits) {
  constexpr int64_t kTriedInTurn = 16;
  const auto at = [&](int64_t i) { return fmt::format("{}_{}", name, i); };
  for (int64_t i = 1; i < kTriedInTurn; ++i)
    if (fits(at(i))) return at(i);
  int64_t taken = kTriedInTurn - 1, free = 2 * taken;
  while (!fits(at(free))) taken = std::exchange(free, 2 * free);
  while (free - taken > 1) {
    const int64_t middle = taken + (free - taken) / 2;
    (fits(at(middle)) ? free : taken) = middle;
  }
  return at(free);
}

// ---- ConstantPool -----------------------------------------------------------------------------

std::string ConstantPool::add(std::string_view name, Tensor tensor) {
  // Free, or held by the same tensor.
  const auto fits = [&](const std::string& wanted) {
    const auto it = entries_.find(wanted);
    return it == entries_.end() || it->second.sameBytes(tensor);
  };
  std::string unique(name.empty() ? "c" : name);
  if (!fits(unique)) unique = withSuffix(name, fits);
  entries_.emplace(unique, std::move(tensor));
  mayHoldUnused_ = true;
  return unique;
}

const Tensor* ConstantPool::find(std::string_view name) const {
  const auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : &it->second;
}

void ConstantPool::eraseUnused(const Graph& graph) {
  if (!mayHoldUnused_) return;
  mayHoldUnused_ = false;
  std::unordered_set<const Tensor*> used;
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->is("const")) used.insert(&n->constant());
  std::erase_if(entries_, [&](const auto& entry) { return !used.contains(&entry.second); });
}

// Numbers of neighbours are this far apart, so that a new node finds one between them: an edit does not number the whole list anew.
constexpr int64_t kOrderStep = int64_t{1} << 32;

// The number of a node between two others; 0: none is left.
static int64_t orderBetween(const int64_t* previous, const int64_t* next) {
  const int64_t low = previous ? *previous : 0;
  if (!next) return low + kOrderStep;  // 2^31 nodes do not fit into memory
  return *next - low > 1 ? low + (*next - low) / 2 : 0;
}

bool Node::isBefore(const Node* other) const {
  QC_REQUIRE("Node::isBefore", other && graph_ == other->graph_, "'{}' and a node of another graph", op());
  if (!graph_->orderValid_) {
    int64_t order = 0;
    for (Node* n = graph_->front_; n; n = n->next_) n->order_ = order += kOrderStep;
    graph_->orderValid_ = true;
  }
  return order_ < other->order_;
}

// ---- Graph ------------------------------------------------------------------------------------

Graph::Graph(std::string name) : name_(std::move(name)) {}

Graph::~Graph() {
  for (Node* n = back_; n;) {
    Node* previous = n->previous_;
    for (Use& u : n->operands_) u.set(nullptr);
    delete n;
    n = previous;
  }
}

void Graph::adopt() {
  for (auto& v : inputs_) v->graph_ = this;
  for (Node* n = front_; n; n = n->next_) {
    n->graph_ = this;
    for (int i = 0; i < n->numResults_; ++i) n->result(i)->graph_ = this;
  }
}

Graph::Graph(Graph&& other) noexcept
    : name_(std::move(other.name_)),
      info_(std::move(other.info_)),
      inputs_(std::move(other.inputs_)),
      inputViews_(std::move(other.inputViews_)),
      outputs_(std::move(other.outputs_)),
      outputPlaces_(std::move(other.outputPlaces_)),
      outputNames_(std::move(other.outputNames_)),
      front_(std::exchange(other.front_, nullptr)),
      back_(std::exchange(other.back_, nullptr)),
      numNodes_(std::exchange(other.numNodes_, 0)),
      orderValid_(other.orderValid_),
      byName_(std::move(other.byName_)),
      nextNumber_(other.nextNumber_),
      constants_(std::move(other.constants_)) {
  adopt();
}

Graph& Graph::operator=(Graph&& other) noexcept {
  if (this != &other) {
    this->~Graph();
    new (this) Graph(std::move(other));
  }
  return *this;
}

const ModelInfo& Graph::info() const {
  static const ModelInfo kNothing;
  return info_ ? *info_ : kNothing;
}

Graph Graph::clone() const {
  Graph copy(name_);
  copy.info_ = info_;
  std::unordered_map<const Value*, Value*> map;
  map.reserve(byName_.size());
  copy.byName_.reserve(byName_.size());
  copy.constants_ = constants_;
  for (const Value* v : inputViews_) map[v] = copy.addInput(v->name(), v->type());
  for (const Node* n = front_; n; n = n->next_) {
    std::vector<Value*> operands;
    std::vector<TensorType> types;
    for (const Use& u : n->operands_) operands.push_back(u.get() ? map.at(u.get()) : nullptr);
    for (int i = 0; i < n->numResults_; ++i) types.push_back(n->result(i)->type());
    const std::string_view name = n->numResults_ > 0 ? std::string_view(n->result(0)->name()) : std::string_view();
    Node* twin = copy.insert(*n->def_, std::move(operands), n->attrs_, std::move(types), nullptr, name);
    twin->location_ = n->location_;
    twin->annotation_ = n->annotation_;
    if (n->constant_) twin->constant_ = &*copy.constants_.entries_.find(n->constant_->first);
    for (int i = 0; i < n->numResults(); ++i) {
      if (i > 0) copy.rename(twin->result(i), n->result(i)->name());
      map[n->result(i)] = twin->result(i);
    }
  }
  std::vector<Value*> outputs;
  for (const Value* v : outputs_) outputs.push_back(map.at(v));
  copy.setOutputs(std::move(outputs));
  copy.outputNames_ = outputNames_;
  copy.nextNumber_ = nextNumber_;
  return copy;
}

std::string Graph::uniqueName(std::string_view wanted) {
  if (wanted.empty()) {
    std::string name;
    do name = std::to_string(nextNumber_++);
    while (byName_.contains(name));
    return name;
  }
  const auto isFree = [&](const std::string& name) { return !byName_.contains(name); };
  const std::string name(wanted);
  return isFree(name) ? name : withSuffix(wanted, isFree);
}

Value* Graph::addInput(std::string_view name, TensorType type) {
  auto value = std::make_unique<Value>();
  value->graph_ = this;
  value->type_ = std::move(type);
  value->name_ = uniqueName(name);
  value->resultIndex_ = static_cast<int>(inputs_.size());
  byName_.insert(value.get());
  inputViews_.push_back(value.get());
  inputs_.push_back(std::move(value));
  return inputViews_.back();
}

void Graph::eraseInput(Value* input) {
  QC_REQUIRE("Graph::eraseInput", input && input->graph_ == this && !input->producer(), "not an input of '{}'", name_);
  QC_REQUIRE("Graph::eraseInput", !input->hasUses() && !input->isOutput(), "%{} is used", input->name_);
  byName_.erase(input);
  std::erase(inputViews_, input);
  std::erase_if(inputs_, [&](const auto& v) { return v.get() == input; });
  for (size_t i = 0; i < inputs_.size(); ++i) inputs_[i]->resultIndex_ = static_cast<int>(i);
}

void Graph::setOutputs(std::vector<Value*> outputs) {
  for (const Value* v : outputs) QC_REQUIRE("Graph::setOutputs", v && v->graph_ == this, "an output is a value of the graph");
  for (Value* v : outputs_) v->isOutput_ = false;
  outputs_ = std::move(outputs);
  outputPlaces_.clear();
  for (size_t i = 0; i < outputs_.size(); ++i) {
    outputs_[i]->isOutput_ = true;
    outputPlaces_[outputs_[i]].push_back(i);
  }
  if (outputNames_.size() == outputs_.size()) return;
  outputNames_.clear();
  for (const Value* v : outputs_) outputNames_.push_back(v->name());
}

void Graph::setOutputNames(std::vector<std::string> names) {
  QC_REQUIRE("Graph::setOutputNames", names.size() == outputs_.size(), "{} names for {} outputs", names.size(), outputs_.size());
  outputNames_ = std::move(names);
}

std::vector<Node*> Graph::nodes() const {
  std::vector<Node*> all;
  all.reserve(usize(numNodes_));
  for (Node* n = front_; n; n = n->next_) all.push_back(n);
  return all;
}

Value* Graph::findValue(std::string_view name) const {
  const auto it = byName_.find(name);
  return it == byName_.end() ? nullptr : *it;
}

Node* Graph::insert(const OpDef& def, std::vector<Value*> operands, AttrDict attrs, std::vector<TensorType> types, Node* before,
                    std::string_view name) {
  for (const Value* v : operands) QC_REQUIRE("Graph::insert", !v || v->graph_ == this, "'{}' is given a value of another graph", def.name);
  QC_REQUIRE("Graph::insert", !before || before->graph_ == this, "'{}' in front of a node of another graph", def.name);
  auto* node = new Node;
  node->def_ = &def;
  node->graph_ = this;
  node->attrs_ = std::move(attrs);
  node->operands_.resize(operands.size());
  for (size_t i = 0; i < operands.size(); ++i) {
    node->operands_[i].user_ = node;
    node->operands_[i].index_ = static_cast<int>(i);
    node->operands_[i].set(operands[i]);
  }
  node->results_ = std::make_unique<Value[]>(types.size());
  node->numResults_ = static_cast<int>(types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    Value& value = node->results_[i];
    value.graph_ = this;
    value.producer_ = node;
    value.resultIndex_ = static_cast<int>(i);
    value.type_ = std::move(types[i]);
    value.name_ = uniqueName(i == 0 ? name : std::string_view());
    byName_.insert(&value);
  }
  node->next_ = before;
  node->previous_ = before ? before->previous_ : back_;
  (node->previous_ ? node->previous_->next_ : front_) = node;
  (before ? before->previous_ : back_) = node;
  ++numNodes_;
  node->order_ = orderBetween(node->previous_ ? &node->previous_->order_ : nullptr, before ? &before->order_ : nullptr);
  orderValid_ = orderValid_ && node->order_ != 0;
  return node;
}

void Graph::erase(Node* node) {
  QC_REQUIRE("Graph::erase", node && node->graph_ == this, "not a node of '{}'", name_);
  for (int i = 0; i < node->numResults_; ++i)
    QC_REQUIRE("Graph::erase", !node->result(i)->hasUses() && !node->result(i)->isOutput(), "the result %{} of '{}' is used",
               node->result(i)->name(), node->op());
  for (int i = 0; i < node->numResults_; ++i) byName_.erase(node->result(i));
  constants_.mayHoldUnused_ = constants_.mayHoldUnused_ || node->constant_;
  for (Use& u : node->operands_) u.set(nullptr);
  (node->previous_ ? node->previous_->next_ : front_) = node->next_;
  (node->next_ ? node->next_->previous_ : back_) = node->previous_;
  --numNodes_;
  delete node;
}

void Graph::moveBefore(Node* node, Node* before) {
  QC_REQUIRE("Graph::moveBefore", node && node->graph_ == this && (!before || before->graph_ == this), "not nodes of '{}'", name_);
  if (node == before || node->next_ == before) return;
  (node->previous_ ? node->previous_->next_ : front_) = node->next_;
  (node->next_ ? node->next_->previous_ : back_) = node->previous_;
  node->next_ = before;
  node->previous_ = before ? before->previous_ : back_;
  (node->previous_ ? node->previous_->next_ : front_) = node;
  (before ? before->previous_ : back_) = node;
  node->order_ = orderBetween(node->previous_ ? &node->previous_->order_ : nullptr, before ? &before->order_ : nullptr);
  orderValid_ = orderValid_ && node->order_ != 0;
}

void Graph::rename(Value* value, std::string_view name) {
  QC_REQUIRE("Graph::rename", value && value->graph_ == this, "not a value of '{}'", name_);
  if (value->name_ == name) return;
  byName_.erase(value);
  value->name_ = uniqueName(name);
  byName_.insert(value);
}

int Graph::eraseDeadNodes() {
  int erased = 0;
  // A size that data decides keeps its node alive while it stands anywhere behind it.
  const bool decided = firstDeciding(*this) != nullptr;
  std::set<std::string> symbols;
  const auto keep = [&](const Node& n) {
    if (!decided) return;
    for (const std::string& symbol : symbolsOf(n)) symbols.insert(symbol);
  };
  const auto stands = [&](const std::string& symbol) { return symbols.contains(symbol); };
  for (Node* n = back_; n;) {
    Node* previous = n->previous_;
    const std::set<std::string> own = decided ? decidedSymbols(*n) : std::set<std::string>();
    bool dead = n->def_->has(kPure) || (decidesSizes(*n) && std::none_of(own.begin(), own.end(), stands));
    for (int i = 0; dead && i < n->numResults_; ++i) dead = !n->result(i)->hasUses() && !n->result(i)->isOutput();
    if (dead) {
      erase(n);
      ++erased;
    } else {
      keep(*n);
    }
    n = previous;
  }
  constants_.eraseUnused(*this);
  return erased;
}

std::string Graph::str() const { return print(*this); }

}  // namespace qc
