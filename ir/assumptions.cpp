#include "ir/assumptions.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "ir/text_reader.h"

namespace qc {
namespace {

// {differ=[T,1]} by "/squeeze/If", one on a line.
constexpr const char* kProperty = "qcompile.assumes";

struct KindRow {
  Assumption::Kind kind;
  const char *name, *sign;
};
constexpr std::array<KindRow, 3> kKinds = {
    {{Assumption::Kind::equal, "equal", "="}, {Assumption::Kind::differ, "differ", "!="}, {Assumption::Kind::atMost, "at_most", "<="}}};

const KindRow& rowOf(Assumption::Kind kind) { return kKinds.at(static_cast<size_t>(kind)); }

std::string lineOf(const Assumption& a) {
  return fmt::format("{{{}=[{},{}]}} by {}\n", rowOf(a.kind).name, a.left.str(), a.right.str(), quoted(a.node));
}

Result<Assumption> readLine(TextReader& in) {
  const size_t offset = in.peek().offset;
  QC_ASSIGN(const AttrDict sides, in.attrs());
  QC_TRY(in.expect("by", "behind what is assumed"));
  QC_ASSIGN(std::string node, in.string("the node that needs it"));
  for (const KindRow& row : kKinds) {
    const Attr* both = sides.find(row.name);
    if (!both) continue;
    std::vector<DimExpr> dims;
    if (const auto* list = std::get_if<std::vector<DimExpr>>(both)) dims = *list;
    if (const auto* list = std::get_if<std::vector<int64_t>>(both)) dims.assign(list->begin(), list->end());
    if (dims.size() == 2) return Assumption{row.kind, dims[0], dims[1], std::move(node)};
  }
  return in.failAt(offset, "expected equal, differ or at_most of two sizes");
}

}  // namespace

Assumption Assumption::negated() const {
  switch (kind) {
    case Kind::equal: return {Kind::differ, left, right, node};
    case Kind::differ: return {Kind::equal, left, right, node};
    case Kind::atMost: return {Kind::atMost, right + 1, left, node};
  }
  return *this;
}

std::optional<bool> Assumption::holdsAt(const SymbolSizes& sizes) const {
  const auto a = left.evaluate(sizes), b = right.evaluate(sizes);
  if (!a || !b) return std::nullopt;
  return kind == Kind::equal ? *a == *b : kind == Kind::differ ? *a != *b : *a <= *b;
}

std::set<std::string> Assumption::symbols() const {
  std::set<std::string> all = left.symbols();
  all.merge(right.symbols());
  return all;
}

std::string Assumption::str() const { return fmt::format("{} {} {}", left.str(), rowOf(kind).sign, right.str()); }

void assume(Graph& graph, std::span<const Assumption> assumptions) {
  ModelInfo info = graph.info();
  for (const Assumption& a : assumptions) {
    auto known = std::find_if(info.properties.begin(), info.properties.end(), [](const auto& p) { return p.first == kProperty; });
    if (known == info.properties.end()) known = info.properties.insert(known, {kProperty, ""});
    if (const std::string line = lineOf(a); known->second.find(line) == std::string::npos) known->second += line;
  }
  graph.setInfo(std::move(info));
}

Result<std::vector<Assumption>> assumptionsOf(const ModelInfo& info) {
  std::vector<Assumption> all;
  for (const auto& [key, text] : info.properties) {
    if (key != kProperty) continue;
    TextReader in(text, key);
    while (in.peek().kind != Token::Kind::end) {
      QC_ASSIGN(all.emplace_back(), readLine(in));
    }
  }
  return all;
}

Result<std::optional<Assumption>> brokenAssumption(const ModelInfo& info, const SymbolSizes& sizes) {
  QC_ASSIGN(const std::vector<Assumption> all, assumptionsOf(info));
  for (const Assumption& a : all)
    if (!a.holdsAt(sizes).value_or(true)) return std::optional(a);
  return std::optional<Assumption>();
}

Status checkAssumptions(const ModelInfo& info, const SymbolSizes& sizes) {
  QC_ASSIGN(const std::optional<Assumption> broken, brokenAssumption(info, sizes));
  if (!broken) return {};
  std::vector<std::string> given;
  for (const std::string& symbol : broken->symbols())
    given.push_back(fmt::format("{} is {}", DimExpr::symbol(symbol).str(), sizes.at(symbol)));
  return fail(ErrorCode::kInvalidArgument, "{}, and what this model was read for is {}: at other sizes this node does something else",
              fmt::join(given, ", "), broken->str())
      .at(broken->node)
      .help("bind that size when the model is loaded, from the file that it was made of");
}

void forgetAssumptions(Graph& graph) {
  ModelInfo info = graph.info();
  if (std::erase_if(info.properties, [](const auto& p) { return p.first == kProperty; })) graph.setInfo(std::move(info));
}

}  // namespace qc
