#include "ir/attr.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "ir/graph.h"
#include "ir/text.h"
#include "ir/text_lexer.h"

namespace qc {
namespace {

// In the order of Attr's alternatives and of AttrKind.
constexpr std::string_view kKindNames[] = {"integer", "real",       "string",  "integers", "reals", "dtype",
                                           "quant",   "expression", "packing", "dims",     "graph"};
static_assert(std::size(kKindNames) == std::variant_size_v<Attr>);

template <class T, class Print>
std::string listText(const std::vector<T>& values, Print print) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) {
    if (i) text += ',';
    text += print(values[i]);
  }
  return text += ']';
}

std::string textOf(const GraphAttr& attr) { return attr.get() ? print(*attr.get(), {.locations = true, .payloads = true}) : std::string(); }

struct AttrPrinter {
  std::string operator()(int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const { return realText(value); }
  std::string operator()(const std::string& value) const { return quoted(value); }
  std::string operator()(const std::vector<int64_t>& values) const {
    return listText(values, [](int64_t v) { return std::to_string(v); });
  }
  std::string operator()(const std::vector<double>& values) const {
    return listText(values, [](double v) { return realText(v); });
  }
  std::string operator()(DType value) const { return std::string(qc::toString(value)); }
  std::string operator()(const QuantAttr& value) const { return value.params ? qc::toString(*value.params) : "none"; }
  std::string operator()(const ExprAttr& value) const { return quoted(value.text()); }
  std::string operator()(const Packing& value) const { return quoted(value.str()); }
  std::string operator()(const std::vector<DimExpr>& values) const {
    return listText(values, [](const DimExpr& d) { return d.str(); });
  }
  std::string operator()(const GraphAttr& value) const { return "{\n" + textOf(value) + "}"; }
};

auto lowerBound(auto& items, std::string_view name) {
  return std::lower_bound(items.begin(), items.end(), name, [](const auto& item, std::string_view n) { return item.first < n; });
}

}  // namespace

Result<ExprAttr> ExprAttr::parse(std::string_view text) {
  ExprAttr attr;
  if (text.empty()) return attr;
  QC_ASSIGN(attr.tree_, ScalarExpr::parse(text));
  attr.text_ = text;
  return attr;
}

Status ExprAttr::check() const { return tree_ ? ScalarExpr::checkText(text_.size(), tree_->arity()) : Status{}; }

GraphAttr::GraphAttr(Graph graph) : graph_(std::make_shared<const Graph>(std::move(graph))) {}
bool operator==(const GraphAttr& a, const GraphAttr& b) { return a.graph_ == b.graph_ || textOf(a) == textOf(b); }

AttrKind kindOf(const Attr& attr) { return static_cast<AttrKind>(attr.index()); }
std::string_view toString(AttrKind kind) { return nth(kKindNames, kind); }
std::string toString(const Attr& attr) { return std::visit(AttrPrinter{}, attr); }

std::optional<Attr> elementOf(const TensorType& result, AttrKind kind) {
  if (kind == AttrKind::dtype) return result.isQuantized() ? std::nullopt : std::optional<Attr>(result.dtype);
  return result.isQuantized() ? std::optional<Attr>(QuantAttr{result.quant}) : std::nullopt;
}

AttrDict::AttrDict(std::initializer_list<std::pair<std::string, Attr>> items) {
  own(items.size());
  for (const auto& [name, value] : items) set(name, value);
}

const AttrDict::Items& AttrDict::items() const {
  static const Items kNone;
  return items_ ? *items_ : kNone;
}

AttrDict::Items& AttrDict::own(size_t size) {
  if (items_ && items_.use_count() == 1) {
    std::atomic_thread_fence(std::memory_order_acquire);  // what others read of it, they have read
    items_->reserve(size);
  } else {
    auto copy = std::make_shared<Items>();
    copy->reserve(std::max(size, items().size()));
    copy->assign(items().begin(), items().end());
    items_ = std::move(copy);
  }
  return *items_;
}

const Attr* AttrDict::find(std::string_view name) const {
  const auto it = lowerBound(items(), name);
  return it != end() && it->first == name ? &it->second : nullptr;
}

void AttrDict::set(std::string_view name, Attr value) {
  const auto place = lowerBound(items(), name);
  const bool isNew = place == end() || place->first != name;
  const auto at = place - begin();
  Items& all = own(items().size() + (isNew ? 1 : 0));
  if (isNew)
    all.emplace(all.begin() + at, std::string(name), std::move(value));
  else
    all[usize(at)].second = std::move(value);
}

void AttrDict::erase(std::string_view name) {
  if (!find(name)) return;
  Items& all = own(0);
  all.erase(lowerBound(all, name));
}

template <class T>
const T& AttrDict::get(std::string_view name) const {
  const Attr* attr = find(name);
  QC_REQUIRE("AttrDict", attr, "no attribute '{}'", name);
  const T* value = std::get_if<T>(attr);
  QC_REQUIRE("AttrDict", value, "attribute '{}' is of kind {}", name, toString(kindOf(*attr)));
  return *value;
}

int64_t AttrDict::integer(std::string_view name) const { return get<int64_t>(name); }
double AttrDict::real(std::string_view name) const { return get<double>(name); }
const std::string& AttrDict::string(std::string_view name) const { return get<std::string>(name); }
const std::vector<int64_t>& AttrDict::integers(std::string_view name) const { return get<std::vector<int64_t>>(name); }
std::vector<DimExpr> AttrDict::dims(std::string_view name) const {
  const Attr* attr = find(name);
  if (const auto* dims = attr ? std::get_if<std::vector<DimExpr>>(attr) : nullptr) return *dims;
  const std::vector<int64_t>& sizes = integers(name);
  return {sizes.begin(), sizes.end()};
}
const std::vector<double>& AttrDict::reals(std::string_view name) const { return get<std::vector<double>>(name); }
DType AttrDict::dtype(std::string_view name) const { return get<DType>(name); }
const QuantPtr& AttrDict::quant(std::string_view name) const { return get<QuantAttr>(name).params; }
const Packing& AttrDict::packing(std::string_view name) const { return get<Packing>(name); }
const Graph& AttrDict::graph(std::string_view name) const {
  const Graph* graph = get<GraphAttr>(name).get();
  QC_REQUIRE("AttrDict", graph, "attribute '{}' holds no graph", name);
  return *graph;
}
const ScalarExpr* AttrDict::expr(std::string_view name) const { return find(name) ? get<ExprAttr>(name).tree() : nullptr; }

}  // namespace qc
