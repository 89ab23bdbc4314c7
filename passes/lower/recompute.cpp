// recompute: values that wait long for their last readers are computed again in front of them, until the memory plan fits into `limit`
// bytes.  A training step keeps what the forward part computes for the gradients at its end; where that is a rounding, an activation or a
// copy of something that is kept anyway, computing it again is nearly as fast as reading it.
//
// One at a time, at the place where most bytes are alive: of the values that nothing reads there the one whose second computation costs
// least for each byte it frees.  What it is computed from must be alive then, or be worth keeping alive.  The same nodes on the same bytes
// give the same results.  Runs behind select-kernels, so that no pass takes the two for one.  Tests: tests/golden/recompute.
#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>

#include "ir/op_def.h"
#include "passes/lower/memory_plan.h"
#include "passes/passes.h"

namespace qc {
namespace {

constexpr double kProductsPerByte = 16;  // that a core computes while it moves a byte

class Recomputation {
 public:
  Recomputation(Graph& graph, int64_t limit) : graph_(graph), limit_(limit) {
    for (const Value* v : graph.outputs()) external_.insert(storageOf(v));
  }

  Result<int> run() {
    int done = 0;
    // A value can be computed again in front of each of its readers.
    for (size_t most = graph_.nodes().size() * 2 + 16; most > 0; --most, ++done) {
      const int64_t bytes = planMemory(graph_, external_).bytes;
      if (bytes <= limit_) return done;
      look();
      const std::optional<Choice> choice = best();
      if (!choice)
        return fail(ErrorCode::kResource, "values of {} bytes are alive together{}, the limit is {} bytes", bytes,
                    done ? fmt::format(" with {} of them computed twice", done) : "", limit_)
            .at(nodes_[usize(peak_)]->location())
            .help("take a smaller batch, or a higher limit");
      apply(*choice);
    }
    return fail(ErrorCode::kResource, "no order of computing fits into {} bytes", limit_).help("take a smaller batch, or a higher limit");
  }

 private:
  struct Life {
    int first = 0, last = 0;
    std::vector<int> reads;  // positions, ascending
    bool throughView = false;
  };
  struct Choice {
    Node* node;
    int from;  // the first reader that gets the new one
  };

  bool hasPlace(const Value* storage) const { return storage->producer() && !storage->constant() && !external_.contains(storage); }

  // Lifetimes, and the place where most bytes are alive.
  void look() {
    nodes_ = graph_.nodes();
    lives_.clear();
    std::vector<int64_t> change(nodes_.size() + 1);
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const int at = static_cast<int>(i);
      for (const Value* v : nodes_[i]->operands()) {
        const Value* storage = v ? storageOf(v) : nullptr;
        const auto it = storage ? lives_.find(storage) : lives_.end();
        if (it == lives_.end()) continue;
        it->second.last = at;
        if (it->second.reads.empty() || it->second.reads.back() != at) it->second.reads.push_back(at);
        it->second.throughView |= v != storage || nodes_[i]->def().has(kView);
      }
      for (int r = 0; r < nodes_[i]->numResults(); ++r)
        if (const Value* v = nodes_[i]->result(r); storageOf(v) == v && hasPlace(v)) lives_[v] = {at, at, {}, false};
    }
    for (const auto& [v, life] : lives_) {
      change[usize(life.first)] += v->type().byteSize();
      change[usize(life.last) + 1] -= v->type().byteSize();
    }
    int64_t alive = 0, most = -1;
    for (size_t i = 0; i < nodes_.size(); ++i)
      if ((alive += change[i]) > most) most = alive, peak_ = static_cast<int>(i);
  }

  std::optional<Choice> best() const {
    std::optional<Choice> found;
    double least = 0;
    for (int at = 0; at < peak_; ++at) {
      Node* node = nodes_[usize(at)];
      if (node->numResults() != 1 || !node->def().has(kPure) || node->is("const")) continue;
      const auto it = lives_.find(node->result());
      if (it == lives_.end() || it->second.throughView || it->second.last <= peak_) continue;
      const std::vector<int>& reads = it->second.reads;
      const auto next = std::upper_bound(reads.begin(), reads.end(), peak_);
      if (std::find(reads.begin(), next, peak_) != next) continue;
      const int64_t frees = node->result()->type().byteSize() - keeps(*node);
      if (frees <= 0) continue;
      const double cost = costOf(*node) / static_cast<double>(frees);
      if (!found || cost < least) found = Choice{node, *next}, least = cost;
    }
    return found;
  }

  // Bytes of operands that would have to stay alive at the peak for it.
  int64_t keeps(const Node& node) const {
    int64_t bytes = 0;
    std::set<const Value*> seen;
    for (const Value* v : node.operands()) {
      const Value* storage = v ? storageOf(v) : nullptr;
      const auto it = storage ? lives_.find(storage) : lives_.end();
      if (it == lives_.end() || it->second.last >= peak_ || !seen.insert(storage).second) continue;
      bytes += storage->type().byteSize();
    }
    return bytes;
  }

  static double costOf(const Node& node) {
    double bytes = static_cast<double>(node.result()->type().byteSize());
    for (const Value* v : node.operands())
      if (v) bytes += static_cast<double>(v->type().byteSize());
    const auto size = [](const Dim& d) { return static_cast<double>(d.size()); };
    return bytes + (node.def().products ? node.def().products(node, size) / kProductsPerByte : 0);
  }

  void apply(const Choice& choice) {
    Node *node = choice.node, *before = nodes_[usize(choice.from)];
    const TensorType type = node->result()->type();
    Node* again = graph_.insert(node->def(), node->operands(), node->attrs(), {type}, before, node->result()->name() + "_again");
    again->setLocation(node->location());
    for (size_t i = usize(choice.from); i < nodes_.size(); ++i)
      for (int k = 0; k < nodes_[i]->numOperands(); ++k)
        if (nodes_[i]->operand(k) == node->result()) nodes_[i]->setOperand(k, again->result());
  }

  Graph& graph_;
  const int64_t limit_;
  std::set<const Value*> external_;
  std::vector<Node*> nodes_;
  std::unordered_map<const Value*, Life> lives_;
  int peak_ = 0;
};

}  // namespace

Status recompute(Graph& graph, PassContext& cx) {
  const int64_t limit = cx.options.integer("limit");
  if (limit <= 0) return {};
  for (const Node* node = graph.front(); node; node = node->next())
    for (int i = 0; i < node->numResults(); ++i)
      if (!node->result(i)->type().isStatic())
        return fail(ErrorCode::kUnsupported, "memory can be limited where sizes are known, this is {}", node->result(i)->type().str())
            .at(node->location())
            .on(node->result(i)->name())
            .help("bind its shapes first");
  QC_ASSIGN(const int again, Recomputation(graph, limit).run());
  cx.countHits({{"again", again}});
  return {};
}

}  // namespace qc
