#include "passes/lower/memory_plan.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "ir/op_def.h"

namespace qc {
namespace {

constexpr int64_t kAlignment = 64;

int64_t alignUp(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

struct Lifetime {
  const Value* value;
  int first, last;  // node positions, both inclusive: a result may not share bytes with an operand of its node
  int64_t bytes;
};

bool hasPlace(const Value* v, const std::set<const Value*>& external) {
  return v->producer() && !v->constant() && storageOf(v) == v && !external.contains(v);
}

std::vector<Lifetime> lifetimes(const Graph& graph, const std::set<const Value*>& external) {
  std::vector<Lifetime> all;
  std::unordered_map<const Value*, size_t> index;
  int position = 0;
  for (const Node* node = graph.front(); node; node = node->next(), ++position) {
    for (const Value* v : node->operands())
      if (v)
        if (const auto it = index.find(storageOf(v)); it != index.end()) all[it->second].last = position;
    for (int i = 0; i < node->numResults(); ++i) {
      const Value* v = node->result(i);
      if (!hasPlace(v, external)) continue;
      index[v] = all.size();
      all.push_back({v, position, position, std::max<int64_t>(alignUp(v->type().byteSize()), kAlignment)});
    }
  }
  for (const Value* v : graph.outputs())
    if (const auto it = index.find(storageOf(v)); it != index.end()) all[it->second].last = position;
  return all;
}

}  // namespace

const Value* storageOf(const Value* value) {
  while (value->producer() && value->producer()->def().has(kView)) value = value->producer()->operand(0);
  return value;
}

MemoryPlan planMemory(const Graph& graph, const std::set<const Value*>& external) {
  std::vector<Lifetime> values = lifetimes(graph, external);
  // The largest first; in schedule order among equals.
  std::sort(values.begin(), values.end(), [](const Lifetime& a, const Lifetime& b) {
    return std::tuple(b.bytes, a.first, a.value->resultIndex()) < std::tuple(a.bytes, b.first, b.value->resultIndex());
  });
  MemoryPlan plan;
  struct Placed {
    Lifetime life;
    int64_t offset;
  };
  std::vector<Placed> placed;  // by offset
  for (const Lifetime& v : values) {
    // The smallest gap between values alive at the same time that is large enough; else behind the last of them.
    int64_t best = -1, bestGap = 0, end = 0;
    for (const Placed& p : placed) {
      if (p.life.last < v.first || p.life.first > v.last) continue;
      const int64_t gap = p.offset - end;
      if (gap >= v.bytes && (best < 0 || gap < bestGap)) {
        best = end;
        bestGap = gap;
      }
      end = std::max(end, p.offset + p.life.bytes);
    }
    const int64_t offset = best >= 0 ? best : end;
    placed.insert(std::upper_bound(placed.begin(), placed.end(), offset, [](int64_t o, const Placed& p) { return o < p.offset; }),
                  {v, offset});
    plan.offsets[v.value] = offset;
    plan.bytes = std::max(plan.bytes, offset + v.bytes);
  }
  return plan;
}

Status checkPlan(const Graph& graph, const std::set<const Value*>& external, const MemoryPlan& plan) {
  std::unordered_map<const Value*, int> pending;  // uses left, in nodes
  for (const Node* node = graph.front(); node; node = node->next())
    for (const Value* v : node->operands())
      if (v) ++pending[storageOf(v)];
  for (const Value* v : graph.outputs()) ++pending[storageOf(v)];
  std::map<int64_t, const Value*> live;  // by offset
  for (const Node* node = graph.front(); node; node = node->next()) {
    for (int i = 0; i < node->numResults(); ++i) {
      const Value* v = node->result(i);
      if (!hasPlace(v, external)) continue;
      const auto place = plan.offsets.find(v);
      if (place == plan.offsets.end())
        return fail(ErrorCode::kInternal, "the memory plan has no place for it").at(node->location()).on(v->name());
      const int64_t begin = place->second, end = begin + v->type().byteSize();
      if (begin < 0 || begin % kAlignment || end > plan.bytes)
        return fail(ErrorCode::kInternal, "bytes {} to {} are outside the arena of {}", begin, end, plan.bytes).on(v->name());
      for (const auto& [offset, other] : live)
        if (offset < end && begin < offset + other->type().byteSize())
          return fail(ErrorCode::kInternal, "overlaps '{}' in the arena while both are alive", other->name())
              .at(node->location())
              .on(v->name());
      if (v->type().byteSize() > 0) live[begin] = v;
    }
    const auto release = [&](const Value* v) {
      if (const auto place = plan.offsets.find(v); place != plan.offsets.end()) {
        if (const auto it = live.find(place->second); it != live.end() && it->second == v) live.erase(it);
      }
    };
    for (const Value* v : node->operands())
      if (v && --pending[storageOf(v)] == 0) release(storageOf(v));
    for (int i = 0; i < node->numResults(); ++i)
      if (!pending.contains(node->result(i))) release(node->result(i));
  }
  return {};
}

std::string print(const Graph& graph, const MemoryPlan& plan) {
  std::string text = fmt::format("arena of {} bytes\n", plan.bytes);
  for (const Node* node = graph.front(); node; node = node->next())
    for (int i = 0; i < node->numResults(); ++i) {
      const Value* v = node->result(i);
      const auto place = plan.offsets.find(v);
      if (place == plan.offsets.end()) continue;
      text += fmt::format("  {}..{}  %{} : {}\n", place->second, place->second + v->type().byteSize(), v->name(), v->type().str());
    }
  return text;
}

}  // namespace qc
