#include "frontend/onnx/order.h"

#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <unordered_map>

#include "ir/signed_index.h"

namespace qc {
namespace {

using Visit = std::function<void(const std::string&)>;

void readsOf(const onnx::NodeProto& node, const Visit& visit, bool capturedOnly);

// What a subgraph reads and returns; with `capturedOnly`, the values of the graphs around it alone.
void readsOf(const onnx::GraphProto& graph, const Visit& visit, bool capturedOnly) {
  std::unordered_set<std::string> own;
  if (capturedOnly) {
    for (const auto& input : graph.input()) own.insert(input.name());
    for (const auto& initializer : graph.initializer()) own.insert(initializer.name());
    for (const auto& inner : graph.node()) own.insert(inner.output().begin(), inner.output().end());
  }
  const Visit foreign = [&](const std::string& name) {
    if (!own.contains(name)) visit(name);
  };
  for (const auto& inner : graph.node()) readsOf(inner, foreign, capturedOnly);
  for (const auto& output : graph.output()) foreign(output.name());
}

// As deep as the reader of the file let graphs be nested.
void readsOf(const onnx::NodeProto& node, const Visit& visit, bool capturedOnly) {
  for (const auto& name : node.input())
    if (!name.empty()) visit(name);
  for (const auto& attribute : node.attribute())
    if (attribute.has_g()) readsOf(attribute.g(), visit, capturedOnly);
}

// Nodes of a circle, in the order in which they feed one another.
std::vector<int> circleAmong(const std::vector<std::vector<int>>& feeders, const std::vector<bool>& done) {
  std::vector<int> seen(feeders.size(), -1), path;
  int at = static_cast<int>(std::find(done.begin(), done.end(), false) - done.begin());
  while (nth(seen, at) < 0) {
    nth(seen, at) = static_cast<int>(path.size());
    path.push_back(at);
    const auto& from = nth(feeders, at);
    at = *std::find_if(from.begin(), from.end(), [&](int f) { return !nth(done, f); });
  }
  path.erase(path.begin(), path.begin() + nth(seen, at));
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace

void collectReads(const OnnxNodes& nodes, std::unordered_set<std::string>& names) {
  for (const auto& node : nodes) readsOf(node, [&](const std::string& name) { names.insert(name); }, false);
}

std::unordered_map<std::string, std::vector<int>> readersByName(const OnnxNodes& nodes) {
  std::unordered_map<std::string, std::vector<int>> readers;
  for (int i = 0; i < nodes.size(); ++i) readsOf(nodes[i], [&](const std::string& name) { readers[name].push_back(i); }, true);
  return readers;
}

Result<std::vector<int>> scheduleOf(const OnnxNodes& nodes) {
  std::unordered_map<std::string, int> producers;
  for (int i = 0; i < nodes.size(); ++i)
    for (const auto& name : nodes[i].output())
      if (!name.empty()) producers.emplace(name, i);
  const auto count = usize(nodes.size());
  std::vector<std::vector<int>> feeders(count), users(count);
  bool inOrder = true;
  for (int i = 0; i < nodes.size(); ++i) {
    auto& from = nth(feeders, i);
    const auto feed = [&](const std::string& name) {
      if (const auto it = producers.find(name); it != producers.end()) from.push_back(it->second);
    };
    readsOf(nodes[i], feed, true);
    std::sort(from.begin(), from.end());
    from.erase(std::unique(from.begin(), from.end()), from.end());
    inOrder = inOrder && (from.empty() || from.back() < i);
  }
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (inOrder) return order;
  std::vector<size_t> missing(count);
  std::priority_queue<int, std::vector<int>, std::greater<>> ready;
  for (size_t i = 0; i < count; ++i) {
    for (const int f : feeders[i]) nth(users, f).push_back(static_cast<int>(i));
    if ((missing[i] = feeders[i].size()) == 0) ready.push(static_cast<int>(i));
  }
  order.clear();
  std::vector<bool> done(count, false);
  while (!ready.empty()) {
    const int next = ready.top();
    ready.pop();
    nth(done, next) = true;
    order.push_back(next);
    for (const int u : nth(users, next))
      if (--nth(missing, u) == 0) ready.push(u);
  }
  if (order.size() == count) return order;
  std::vector<std::string> names;
  for (const int i : circleAmong(feeders, done)) {
    const auto& node = nodes[i];
    names.push_back(node.name().empty() ? node.op_type() + ":" + (node.output_size() ? node.output(0) : "") : node.name());
    if (names.size() == 8) break;
  }
  return fail(ErrorCode::kInvalidModel, "nodes feed one another in a circle: '{}'", fmt::join(names, "' -> '")).at(names.front());
}

}  // namespace qc
