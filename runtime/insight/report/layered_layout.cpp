#include "runtime/insight/report/layered_layout.h"

#include <algorithm>
#include <numeric>

#include "ir/signed_index.h"

namespace qc::report {
namespace {

// A node, or a bend of a line in a row that it crosses.
struct Item {
  int row = 0;
  double x = 0;
  bool bend = false;
  std::vector<size_t> above = {}, below = {};
};

using Row = std::vector<size_t>;

double meanOf(const std::vector<Item>& items, const std::vector<size_t>& of, double otherwise) {
  if (of.empty()) return otherwise;
  double sum = 0;
  for (const size_t i : of) sum += items[i].x;
  return sum / static_cast<double>(of.size());
}

double room(const Item& a, const Item& b, const BoxSize& box) {
  const auto half = [&](const Item& i) { return i.bend ? 3.0 : box.width / 2; };
  return half(a) + half(b) + box.across;
}

// Moves the items of a row as near to what they want as their order allows: the mean of packing them from the left and from the right.
void settle(std::vector<Item>& items, const Row& row, const std::vector<double>& wanted, const BoxSize& box) {
  std::vector<double> left(wanted), right(wanted);
  for (size_t i = 1; i < row.size(); ++i) left[i] = std::max(left[i], left[i - 1] + room(items[row[i - 1]], items[row[i]], box));
  for (size_t i = row.size(); i-- > 1;) right[i - 1] = std::min(right[i - 1], right[i] - room(items[row[i - 1]], items[row[i]], box));
  for (size_t i = 0; i < row.size(); ++i) items[row[i]].x = (left[i] + right[i]) / 2;
}

// One pass over the rows, down or up: first the order, while that is still sought, then the places.
void sweep(std::vector<Item>& items, std::vector<Row>& rows, bool down, bool reorder, const BoxSize& box) {
  for (size_t k = 0; k < rows.size(); ++k) {
    Row& row = rows[down ? k : rows.size() - 1 - k];
    const auto wants = [&](size_t i) { return meanOf(items, down ? items[i].above : items[i].below, items[i].x); };
    if (reorder) {
      std::vector<std::pair<double, size_t>> order;
      for (const size_t i : row) order.emplace_back(wants(i), i);
      std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (size_t i = 0; i < row.size(); ++i) row[i] = order[i].second;
    }
    std::vector<double> wanted;
    for (const size_t i : row) wanted.push_back(wants(i));
    settle(items, row, wanted, box);
  }
}

}  // namespace

Layout layered(size_t nodes, std::span<const std::pair<int, int>> edges, const BoxSize& box) {
  constexpr size_t kMostBends = 50000;
  Layout layout;
  const auto isGood = [&](const std::pair<int, int>& e) { return e.first >= 0 && e.first < e.second && usize(e.second) < nodes; };
  std::vector<Item> items(nodes);
  std::vector<std::pair<int, int>> inOrder(edges.begin(), edges.end());
  std::stable_sort(inOrder.begin(), inOrder.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& e : inOrder)
    if (isGood(e)) items[usize(e.second)].row = std::max(items[usize(e.second)].row, items[usize(e.first)].row + 1);
  // What comes into the graph late stands right above what reads it first.
  std::vector<bool> isRead(nodes);
  for (const auto& e : inOrder)
    if (isGood(e)) isRead[usize(e.second)] = true;
  std::vector<int> firstUse(nodes, -1);
  for (const auto& e : inOrder)
    if (isGood(e) && !isRead[usize(e.first)]) {
      int& first = firstUse[usize(e.first)];
      first = first < 0 ? items[usize(e.second)].row : std::min(first, items[usize(e.second)].row);
    }
  for (size_t i = 0; i < nodes; ++i)
    if (firstUse[i] > 0) items[i].row = firstUse[i] - 1;

  std::vector<std::vector<size_t>> chains(edges.size());
  for (size_t e = 0; e < edges.size(); ++e) {
    if (!isGood(edges[e])) continue;
    std::vector<size_t>& chain = chains[e];
    const size_t from = usize(edges[e].first), to = usize(edges[e].second);
    chain.push_back(from);
    for (int row = items[from].row + 1; row < items[to].row && items.size() < nodes + kMostBends; ++row) {
      chain.push_back(items.size());
      items.push_back({.row = row, .bend = true});
    }
    chain.push_back(to);
    for (size_t i = 1; i < chain.size(); ++i) {
      items[chain[i - 1]].below.push_back(chain[i]);
      items[chain[i]].above.push_back(chain[i - 1]);
    }
  }
  int last = 0;
  for (const Item& item : items) last = std::max(last, item.row);
  std::vector<Row> rows(items.empty() ? 0 : usize(last) + 1);
  for (size_t i = 0; i < items.size(); ++i) rows[usize(items[i].row)].push_back(i);
  for (Row& row : rows) {
    double x = 0;
    for (size_t i = 0; i < row.size(); ++i) items[row[i]].x = x += i ? room(items[row[i - 1]], items[row[i]], box) : 0;
    for (const size_t i : row) items[i].x -= x / 2;
  }
  constexpr int kOrderings = 6, kPlacings = 6;
  for (int pass = 0; pass < kOrderings + kPlacings; ++pass) sweep(items, rows, pass % 2 == 0, pass < kOrderings, box);

  double left = 0, right = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const double half = items[i].bend ? 3.0 : box.width / 2;
    left = i ? std::min(left, items[i].x - half) : items[i].x - half;
    right = i ? std::max(right, items[i].x + half) : items[i].x + half;
  }
  constexpr double kEdge = 6;
  const auto placeOf = [&](size_t i) {
    return Place{items[i].x - left + kEdge, kEdge + box.height / 2 + items[i].row * (box.height + box.down)};
  };
  for (size_t i = 0; i < nodes; ++i) layout.nodes.push_back(placeOf(i));
  for (const auto& chain : chains) {
    layout.lines.emplace_back();
    for (const size_t i : chain) layout.lines.back().push_back(placeOf(i));
  }
  layout.width = right - left + 2 * kEdge;
  layout.height = rows.empty() ? 0 : static_cast<double>(rows.size()) * (box.height + box.down) - box.down + 2 * kEdge;
  return layout;
}

}  // namespace qc::report
