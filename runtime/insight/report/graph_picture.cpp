#include "runtime/insight/report/graph_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "ir/visible.h"
#include "runtime/insight/report/html.h"
#include "runtime/insight/report/layered_layout.h"

namespace qc::report {
namespace {

struct Look {
  const char *word, *fill;
};
const Look& lookOf(Fate fate) {
  static constexpr Look kLooks[] = {{"int8", "#8fd3c1"}, {"float", "#f6d58a"}, {"border", "#d5cdea"}, {"end", "#e8ebee"}};
  return nth(kLooks, static_cast<int>(fate));
}

Fate fateOf(const qc::Node& node) {
  if (node.is("quantize") || node.is("dequantize")) return Fate::border;
  for (const Value* v : node.operands())
    if (v && v->type().isQuantized()) return Fate::integer;
  for (int i = 0; i < node.numResults(); ++i)
    if (node.result(i)->type().isQuantized()) return Fate::integer;
  return Fate::real;
}

// Of a label of Graphviz, in quotes: backslashes begin its escapes, ampersands its entities.
std::string dotText(std::string_view text) {
  std::string out;
  for (const char c : visible(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '&' ? "&amp;" : std::string(1, c);
  }
  return out;
}

// What a picture says under the pointer keeps its lines; a line break within a name is shown as text (see readable()).
std::string escapedLines(std::string_view text) {
  std::string out;
  while (true) {
    const size_t end = text.find('\n');
    out += escaped(shortened(text.substr(0, end), 2 * kLongest));
    if (end == std::string_view::npos) return out;
    out += '\n';
    text.remove_prefix(end + 1);
  }
}

std::string pathOf(const std::vector<Place>& line, double half) {
  std::string path = fmt::format("M{:.0f} {:.0f}", line[0].x, line[0].y + half);
  for (size_t i = 1; i < line.size(); ++i) {
    const double y0 = line[i - 1].y + half, y1 = line[i].y - half, middle = (y0 + y1) / 2;
    path += fmt::format("C{:.0f} {:.0f} {:.0f} {:.0f} {:.0f} {:.0f}", line[i - 1].x, middle, line[i].x, middle, line[i].x, y1);
    if (i + 1 < line.size()) path += fmt::format("V{:.0f}", line[i].y + half);
  }
  return path;
}

}  // namespace

const char* wordOf(Fate fate) { return lookOf(fate).word; }

GraphPicture GraphPicture::of(const Graph& graph, const std::map<std::string, std::string>& details) {
  GraphPicture picture;
  std::unordered_map<const Value*, int> made;
  const auto add = [&](Node node) {
    picture.nodes.push_back(std::move(node));
    return static_cast<int>(picture.nodes.size()) - 1;
  };
  const auto connect = [&](const Value* from, int to) {
    const auto found = made.find(from);
    if (found != made.end()) picture.edges.emplace_back(found->second, to);
  };
  for (const Value* input : graph.inputs()) made[input] = add({"input", input->name(), input->type().str(), Fate::end});
  for (const qc::Node* n = graph.front(); n; n = n->next()) {
    if (n->is("const")) continue;
    std::string detail = n->numResults() ? visible(n->result()->type().str()) : "";
    if (const auto more = details.find(n->location()); more != details.end()) detail += "\n" + more->second;
    const std::string& name = n->location().empty() && n->numResults() ? n->result()->name() : n->location();
    const int index = add({std::string(n->op()), name, detail, fateOf(*n)});
    std::unordered_set<const Value*> seen;
    for (const Value* v : n->operands())
      if (v && seen.insert(v).second) connect(v, index);
    for (int i = 0; i < n->numResults(); ++i) made[n->result(i)] = index;
  }
  for (size_t i = 0; i < graph.outputs().size(); ++i)
    connect(graph.outputs()[i], add({"output", nth(graph.outputNames(), i), graph.outputs()[i]->type().str(), Fate::end}));
  return picture;
}

GraphPicture GraphPicture::readable(size_t most) const {
  if (nodes.size() <= most) return *this;
  std::vector<int> in(nodes.size()), out(nodes.size()), before(nodes.size(), -1);
  for (const auto& [from, to] : edges) {
    ++out[usize(from)];
    ++in[usize(to)];
    before[usize(to)] = from;
  }
  GraphPicture small;
  std::vector<int> box(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    const int p = before[i];
    if (in[i] == 1 && out[usize(p)] == 1 && nodes[i].fate == nodes[usize(p)].fate && nodes[i].fate != Fate::end) {
      box[i] = box[usize(p)];
      Node& chain = small.nodes[usize(box[i])];
      if (chain.count == 1) chain.detail = chain.op + " " + visible(chain.name);
      if (++chain.count <= 20) chain.detail += "\n" + nodes[i].op + " " + visible(nodes[i].name);
      chain.op = fmt::format("{} nodes, to {}", chain.count, nodes[i].op);
      continue;
    }
    box[i] = static_cast<int>(small.nodes.size());
    small.nodes.push_back(nodes[i]);
  }
  // A chain stands where its last node stood: what else it leads to comes later, what leads to it comes earlier.
  for (const auto& [from, to] : edges)
    if (box[usize(from)] != box[usize(to)]) small.edges.emplace_back(box[usize(from)], box[usize(to)]);
  small.note = fmt::format("{} nodes are drawn as {} boxes: chains of one kind are one box.", nodes.size(), small.nodes.size());
  if (small.nodes.size() <= most) return small;
  small.note = fmt::format("The graph has {} nodes; chains of one kind are one box, and the first {} of {} boxes are drawn.", nodes.size(),
                           most, small.nodes.size());
  small.nodes.resize(most);
  std::erase_if(small.edges, [&](const auto& e) { return usize(e.first) >= most || usize(e.second) >= most; });
  return small;
}

std::string GraphPicture::dot() const {
  std::string text = "digraph {\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"];\n";
  for (size_t i = 0; i < nodes.size(); ++i)
    text += fmt::format("  n{} [label=\"{}\\n{}\", tooltip=\"{}\", fillcolor=\"{}\", class=\"{}\"];\n", i, dotText(nodes[i].op),
                        dotText(shortened(nodes[i].name, 40)), dotText(nodes[i].name + ": " + nodes[i].detail), lookOf(nodes[i].fate).fill,
                        lookOf(nodes[i].fate).word);
  for (const auto& [from, to] : edges) text += fmt::format("  n{} -> n{};\n", from, to);
  return text + "}\n";
}

std::string GraphPicture::svg() const {
  const BoxSize box;
  const Layout layout = layered(nodes.size(), edges, box);
  std::string out = fmt::format("<svg class=\"graph\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\">\n",
                                layout.width, layout.height);
  out += "<g class=\"lines\">\n";
  for (const auto& line : layout.lines)
    if (line.size() > 1) out += fmt::format("<path d=\"{}\"/>\n", pathOf(line, box.height / 2));
  out += "</g>\n";
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Place& at = layout.nodes[i];
    const Node& n = nodes[i];
    out += fmt::format(
        "<g class=\"{}\"><title>{}: {}\n{}</title><rect x=\"{:.0f}\" y=\"{:.0f}\" width=\"{}\" height=\"{}\" rx=\"5\"/>"
        "<text class=\"op\" x=\"{:.0f}\" y=\"{:.0f}\">{}</text><text x=\"{:.0f}\" y=\"{:.0f}\">{}</text></g>\n",
        lookOf(n.fate).word, escaped(n.op), escaped(shortened(n.name, kLongest)), escapedLines(n.detail), at.x - box.width / 2,
        at.y - box.height / 2, box.width, box.height, at.x, at.y - 3, escaped(shortened(n.op, 22)), at.x, at.y + 11,
        escaped(shortened(n.name, 24)));
  }
  return out + "</svg>\n";
}

}  // namespace qc::report
