// Attributes: a small sorted dictionary of named values on a node.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ir/packing.h"
#include "ir/scalar_expr.h"
#include "ir/status.h"
#include "ir/type.h"

namespace qc {

class Graph;

// Quantization parameters as an attribute: what a result shall be quantized to.  Null means: stay float.
struct QuantAttr {
  QuantPtr params;
  friend bool operator==(const QuantAttr& a, const QuantAttr& b) {
    return a.params == b.params || (a.params && b.params && *a.params == *b.params);
  }
};

// A scalar expression as an attribute, parsed once: when a node is made from text, or never, when a pass has the tree.  Without a
// tree the op computes nothing of the kind, which prints as "".
class ExprAttr {
 public:
  ExprAttr() = default;
  ExprAttr(ScalarExpr tree) : text_(tree.str()), tree_(std::move(tree)) {}  // NOLINT(google-explicit-constructor): as Attr itself
  static Result<ExprAttr> parse(std::string_view text);
  Status check() const;  // that parse() takes its text

  const ScalarExpr* tree() const { return tree_ ? &*tree_ : nullptr; }
  const std::string& text() const { return text_; }  // as it was written
  friend bool operator==(const ExprAttr& a, const ExprAttr& b) { return a.text_ == b.text_; }

 private:
  std::string text_;
  std::optional<ScalarExpr> tree_;
};

// A graph that a node holds and runs, as a loop does its body.  It does not change; who has another makes a new attribute.
class GraphAttr {
 public:
  GraphAttr() = default;  // none: of no node
  explicit GraphAttr(Graph graph);
  const Graph* get() const { return graph_.get(); }
  friend bool operator==(const GraphAttr& a, const GraphAttr& b);  // the same graph, or one of the same text

 private:
  std::shared_ptr<const Graph> graph_;
};

// Text forms in this order:  7   0.5   "same"   [1,2]   [0.5,1.0]   u8   !q0 (or none)   "a0 + 1"   "s8 panel=64 .."   [N,2*T]
// { graph @body(..) {..} }.  Those of expressions and packings are read as strings, and become what the op's declaration says when the node
// is made.
using Attr = std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>, DType, QuantAttr, ExprAttr, Packing,
                          std::vector<DimExpr>, GraphAttr>;

// dims: sizes, starts and the like that may follow from free dims.  Where none does the value is a list of integers, and is read as such.
enum class AttrKind { integer, real, string, integers, reals, dtype, quant, expression, packing, dims, graph };
AttrKind kindOf(const Attr& attr);
std::string_view toString(AttrKind kind);
std::string toString(const Attr& attr);  // floats in shortest round-trip form, always with a '.' or exponent

// What an attribute says of the op's data.  Of its dims: passes that move dims rename it by this.  Of its elements: the text form leaves it
// to the type of the result.
enum class AttrMeaning : uint8_t {
  plain,
  axis,               // one axis; none where it is negative
  axes,               // a sorted list of axes
  perDim,             // one entry for each dim
  perDimPair,         // begins of all dims, then ends
  permutation,        // an axis for each dim
  shape,              // the sizes of the result
  perSpatialDim,      // one entry for each dim behind batch and channels; may be empty
  perSpatialDimPair,  // begins of the spatial dims, then ends; may be empty
  element,            // the element type of result 0, or the parameters that it is quantized with
};

// As AttrSpec::neutral of an entry for each dim: the size of that dim of operand 0.
constexpr int64_t kWholeDim = -1;

// What an op declares about one attribute.  Without a default the attribute is required.
struct AttrSpec {
  std::string name;
  AttrKind kind;
  std::optional<Attr> byDefault;
  AttrMeaning meaning = AttrMeaning::plain;
  int64_t neutral = 0;  // the entry for a dim where nothing changes (perDim, perDimPair), or for one of size 1 (perSpatialDim..)
};

// What the type of result 0 says of an attribute whose meaning is `element`; nothing: a plain type of one that holds parameters, or a
// quantized one of one that holds a dtype.
std::optional<Attr> elementOf(const TensorType& result, AttrKind kind);

// Copies share their items until one of them is changed: graphs are cloned for every combination of sizes, and most of their attributes
// stay as they are.
class AttrDict {
 public:
  using Items = std::vector<std::pair<std::string, Attr>>;  // sorted by name
  AttrDict() = default;
  AttrDict(std::initializer_list<std::pair<std::string, Attr>> items);

  const Attr* find(std::string_view name) const;
  void set(std::string_view name, Attr value);
  void erase(std::string_view name);
  bool empty() const { return items().empty(); }
  Items::const_iterator begin() const { return items().begin(); }
  Items::const_iterator end() const { return items().end(); }
  friend bool operator==(const AttrDict& a, const AttrDict& b) { return a.items_ == b.items_ || a.items() == b.items(); }

  // The value, which the op's declaration has already guaranteed.  Requires: it is there, and of this kind.
  int64_t integer(std::string_view name) const;
  double real(std::string_view name) const;
  const std::string& string(std::string_view name) const;
  const std::vector<int64_t>& integers(std::string_view name) const;  // of dims: requires that none is free
  std::vector<DimExpr> dims(std::string_view name) const;             // integers as well
  const std::vector<double>& reals(std::string_view name) const;
  DType dtype(std::string_view name) const;
  const QuantPtr& quant(std::string_view name) const;
  const Packing& packing(std::string_view name) const;
  const Graph& graph(std::string_view name) const;
  // Null where the expression is empty, or the op declares none.
  const ScalarExpr* expr(std::string_view name) const;

 private:
  template <class T>
  const T& get(std::string_view name) const;
  const Items& items() const;
  Items& own(size_t size);  // nobody else's, with room for so many

  std::shared_ptr<Items> items_;  // null: none
};

}  // namespace qc
