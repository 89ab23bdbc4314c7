// Sharing groups against their definition: on random graphs, in every order of nodes and of operands, the groups are the classes of the
// relation that explicit and implicit shares span; what cannot be grouped is refused in every order.
#include "quantizer/sharing.h"

#include <gmock/gmock.h>

#include <array>
#include <functional>
#include <random>
#include <set>

#include "ir/text.h"

namespace qc {
namespace {

using testing::HasSubstr;

// Two-operand nodes over two inputs, every point with a spec: a text, or a share with the point `node`:`operand` (-1: its output).
struct Spec {
  std::string text;
  int node = -1, operand = -1;
  bool shared() const { return node >= 0; }
};
struct Member {
  std::array<int, 2> from;    // operand values; 0 and 1 are the inputs, node i gives value 2 + i
  std::array<Spec, 3> specs;  // operands, output
  bool implicit = true;       // allows implicit sharing
};
using Net = std::vector<Member>;
using Point = std::pair<int, int>;  // node, operand or -1
using Partition = std::set<std::set<Point>>;

const Spec& specOf(const Net& net, Point p) { return nth(nth(net, p.first).specs, p.second < 0 ? 2 : p.second); }

class Generator {
 public:
  explicit Generator(unsigned seed) : engine_(seed) {}
  int pick(int n) { return std::uniform_int_distribution<int>(0, n - 1)(engine_); }
  template <typename T>
  void shuffle(std::vector<T>& list) {
    std::shuffle(list.begin(), list.end(), engine_);
  }

  // Shares point at points that come earlier in this order: operands before the output of a node.
  Net net() {
    Net net;
    const int nodes = 2 + pick(7);
    for (int i = 0; i < nodes; ++i) {
      Member m;
      m.from = {pick(2 + i), pick(2 + i)};
      m.implicit = pick(4) != 0;
      for (int s = 0; s < 3; ++s) nth(m.specs, s) = spec(net, i, s == 2, m);
      net.push_back(m);
    }
    return net;
  }

 private:
  Spec spec(const Net& net, int i, bool output, const Member& self) {
    static const char* const kTexts[] = {"-", "u8.minmax", "u8.minmax", "s8.minmax", "fixed(q<u8, scale=0.5, zp=3>)"};
    if (pick(3) > 0 || i == 0) {
      if (output && pick(4) == 0 && self.specs[0].text != "-") return {"", i, 0};  // like a pool
      return {kTexts[pick(5)], -1, -1};
    }
    for (int attempt = 0; attempt < 8; ++attempt) {
      const Point target = {pick(i), pick(3) - 1};
      const Spec& there = specOf(net, target);
      if (there.shared() || there.text != "-") return {"", target.first, target.second};
    }
    return {"-", -1, -1};
  }
  std::mt19937 engine_;
};

// The text of a graph with its nodes in `order`, and the operands of some nodes the other way round.
std::string textOf(const Net& net, const std::vector<int>& order, const std::vector<bool>& swapped) {
  const auto place = [&](int node, int operand) { return operand < 0 || !nth(swapped, node) ? operand : 1 - operand; };
  const auto say = [&](const Spec& s) {
    if (!s.shared()) return s.text;
    return s.operand < 0 ? fmt::format("shared(%v{})", s.node + 2) : fmt::format("shared(%v{}:{})", s.node + 2, place(s.node, s.operand));
  };
  std::string text = "graph @g(%v0: f32[4], %v1: f32[4]) -> (\"y\") {\n";
  for (const int i : order) {
    const Member& m = nth(net, i);
    const auto a = usize(place(i, 0)), b = usize(place(i, 1));
    text += fmt::format("  %v{} = add %v{}, %v{} : f32[4] @q(in=[{}, {}], out={}{})\n", i + 2, m.from[a], m.from[b], say(m.specs[a]),
                        say(m.specs[b]), say(m.specs[2]), m.implicit ? "" : ", no_sharing");
  }
  return text + fmt::format("  return %v{}\n}}\n", order.back() + 2);
}

// Any order in which values and the targets of shares come first.
std::vector<int> anotherOrder(const Net& net, Generator& random) {
  std::vector<int> order, left(net.size());
  for (size_t i = 0; i < left.size(); ++i) left[i] = static_cast<int>(i);
  std::set<int> done;
  while (!left.empty()) {
    random.shuffle(left);
    const auto ready = std::find_if(left.begin(), left.end(), [&](int i) {
      const Member& m = nth(net, i);
      const auto there = [&](int node) { return node < 0 || node == i || done.contains(node); };
      return there(m.from[0] - 2) && there(m.from[1] - 2) &&
             std::all_of(m.specs.begin(), m.specs.end(), [&](const Spec& s) { return there(s.node); });
    });
    order.push_back(*ready);
    done.insert(*ready);
    left.erase(ready);
  }
  return order;
}

// The definition: classes of what shares name, of equal edges from one value, and of an edge with its value's own output.
Partition byDefinition(const Net& net) {
  std::map<Point, Point> parent;
  for (int i = 0; i < static_cast<int>(net.size()); ++i)
    for (const int k : {0, 1, -1})
      if (specOf(net, {i, k}).text != "-") parent[{i, k}] = {i, k};
  const std::function<Point(Point)> root = [&](Point p) { return parent.at(p) == p ? p : root(parent.at(p)); };
  const std::function<std::string(Point)> meaning = [&](Point p) {
    const Spec& s = specOf(net, p);
    return s.shared() ? meaning({s.node, s.operand}) : s.text;
  };
  for (const auto& [p, unused] : parent) {
    const Spec& s = specOf(net, p);
    if (s.shared()) parent[root(p)] = root({s.node, s.operand});
    if (p.second < 0) continue;
    const Member& reader = nth(net, p.first);
    const int value = nth(reader.from, p.second);
    for (const auto& [q, alsoUnused] : parent) {
      const Member& other = nth(net, q.first);
      const bool edge = q.second >= 0 && nth(other.from, q.second) == value && (reader.implicit || other.implicit);
      const bool producer = q == Point(value - 2, -1) && reader.implicit;
      if ((edge || producer) && meaning(p) == meaning(q)) parent[root(p)] = root(q);
    }
  }
  std::map<Point, std::set<Point>> classes;
  for (const auto& [p, unused] : parent) classes[root(p)].insert(p);
  Partition result;
  for (const auto& [r, members] : classes) result.insert(members);
  return result;
}

Partition found(const SharingGroups& groups, const std::vector<bool>& swapped) {
  Partition result;
  for (const auto& members : groups.members) {
    std::set<Point> points;
    for (const EdgeOrNode& p : members) {
      const int node = std::stoi(p.value.substr(1)) - 2;
      points.insert({node, p.operand >= 0 && nth(swapped, node) ? 1 - p.operand : p.operand});
    }
    result.insert(points);
  }
  return result;
}

TEST(Sharing, SamePartitionInAnyOrder) {
  Generator random(17);
  int joined = 0, moved = 0;
  for (int round = 0; round < 300; ++round) {
    const Net net = random.net();
    const Partition wanted = byDefinition(net);
    for (const auto& points : wanted) joined += points.size() > 1;
    std::vector<int> order(net.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    const std::vector<int> first = order;
    for (int variant = 0; variant < 5; ++variant) {
      std::vector<bool> swapped(net.size());
      for (size_t i = 0; i < net.size() && variant > 0; ++i) swapped[i] = random.pick(2);
      if (variant > 1) order = anotherOrder(net, random);
      moved += order != first;
      const std::string text = textOf(net, order, swapped);
      const auto graph = parseGraph(text);
      ASSERT_TRUE(graph) << graph.error().render() << text;
      const auto groups = computeSharingGroups(*graph);
      ASSERT_TRUE(groups) << groups.error().render() << text;
      EXPECT_EQ(found(*groups, swapped), wanted) << text;
      for (size_t g = 0; g < groups->specs.size(); ++g) EXPECT_FALSE(std::holds_alternative<SharedSpec>(groups->specs[g])) << text;
    }
  }
  EXPECT_GT(joined, 300);
  EXPECT_GT(moved, 300);
}

// One share bent to a point without a spec, to itself, or around a circle: refused in every order of the operands, with the chain.
TEST(Sharing, BrokenSharesAreNamedInAnyOrder) {
  Generator random(23);
  std::map<std::string, int> seen;
  for (int round = 0; round < 300; ++round) {
    Net net = random.net();
    const int nodes = static_cast<int>(net.size()), victim = random.pick(nodes);
    const std::string kind = std::array{"not annotated", "with itself", "with itself"}[usize(round % 3)];
    if (round % 3 == 0) {
      nth(net, victim).specs[0] = {"-", -1, -1};
      net.back().specs[2] = {"", victim, 0};
    } else if (round % 3 == 1) {
      nth(net, victim).specs[1] = {"", victim, 1};
    } else {
      nth(net, victim).specs[0] = {"", nodes - 1, -1};
      net.back().specs[2] = {"", victim, 0};
    }
    std::vector<int> order(net.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    for (int variant = 0; variant < 3; ++variant) {
      std::vector<bool> swapped(net.size());
      for (size_t i = 0; i < net.size() && variant > 0; ++i) swapped[i] = random.pick(2);
      const auto graph = parseGraph(textOf(net, order, swapped));
      ASSERT_TRUE(graph);
      const auto groups = computeSharingGroups(*graph);
      ASSERT_FALSE(groups) << graph->str();
      EXPECT_THAT(groups.error().message(), HasSubstr(kind)) << graph->str();
      EXPECT_THAT(groups.error().message(), HasSubstr(" -> "));
      ++seen[kind];
    }
  }
  EXPECT_GT(seen["not annotated"], 100);
  EXPECT_GT(seen["with itself"], 100);
}

}  // namespace
}  // namespace qc
