#include "ir/gradient.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "ir/expr_internal.h"
#include "ir/memory_limit.h"
#include "ir/scalar_derivative.h"

namespace qc {
namespace {

bool carriesGradient(const Value* v) { return isFloat(v->type().dtype) && !v->type().isQuantized(); }

// Which values lie between the seeds and what is asked for, and the nodes that compute them, operands first.
class Paths {
 public:
  Paths(const std::vector<GradientSeed>& seeds, std::span<Value* const> of, std::span<Value* const> boundary)
      : wanted_(of.begin(), of.end()), stops_(boundary.begin(), boundary.end()) {
    for (const GradientSeed& seed : seeds) visit(seed.value);
  }
  bool isActive(const Value* v) const {
    if (!v || !carriesGradient(v)) return false;
    return wanted_.contains(v) || (!stops_.contains(v) && v->producer() && activeNodes_.contains(v->producer()));
  }
  bool isWanted(const Value* v) const { return wanted_.contains(v); }
  const std::vector<const Node*>& nodes() const { return order_; }  // active ones

 private:
  void visit(const Value* seed) {
    struct Frame {
      const Node* node;
      int next;
    };
    std::vector<Frame> stack;
    const auto enter = [&](const Value* v) {
      if (!v || stops_.contains(v) || !v->producer() || !seen_.insert(v->producer()).second) return;
      stack.push_back({v->producer(), 0});
    };
    enter(seed);
    while (!stack.empty()) {
      Frame& top = stack.back();
      if (top.next < top.node->numOperands()) {
        enter(top.node->operand(top.next++));
        continue;
      }
      const Node* node = top.node;
      stack.pop_back();
      bool active = false;
      for (int i = 0; i < node->numOperands(); ++i) active = active || isActive(node->operand(i));
      if (!active) continue;
      activeNodes_.insert(node);
      order_.push_back(node);
    }
  }

  std::unordered_set<const Value*> wanted_, stops_;
  std::unordered_set<const Node*> seen_, activeNodes_;
  std::vector<const Node*> order_;
};

std::string nameOf(const Node& n) {
  return n.location().empty() ? fmt::format("{} %{}", n.op(), n.result()->name()) : fmt::format("{} '{}'", n.op(), n.location());
}

class Backpropagation {
 public:
  Backpropagation(Builder& builder, const std::vector<GradientSeed>& seeds, std::span<Value* const> of, std::span<Value* const> boundary)
      : builder_(builder), paths_(seeds, of, boundary) {
    for (const GradientSeed& seed : seeds) parts_[seed.value].push_back(seed.gradient);
  }

  Result<Gradients> run(std::span<Value* const> of) {
    for (auto it = paths_.nodes().rbegin(); it != paths_.nodes().rend(); ++it) QC_TRY(node(**it));
    Gradients all;
    for (Value* v : of) {
      QC_ASSIGN(Value * gradient, total(v));
      all.push_back(gradient);
    }
    return all;
  }

 private:
  // What has arrived at a value, in one; null: nothing.
  Result<Value*> total(Value* v) {
    const auto it = parts_.find(v);
    if (it == parts_.end()) return nullptr;
    std::vector<Value*>& parts = it->second;
    while (parts.size() > 1) {
      Value* last = parts.back();
      parts.pop_back();
      QC_ASSIGN(parts.back(), builder_.create("add", {parts.back(), last}));
    }
    return parts.front();
  }

  Status node(const Node& n) {
    builder_.at(n.location());
    Gradients upstream;
    bool arrives = false;
    for (int i = 0; i < n.numResults(); ++i) {
      QC_ASSIGN(Value * gradient, total(const_cast<Node&>(n).result(i)));
      upstream.push_back(gradient);
      arrives = arrives || gradient;
    }
    if (!arrives) return {};
    const OpDef& def = n.def();
    if (!def.gradient)
      return fail(ErrorCode::kUnsupported, "'{}' has no gradient{}{}: {}", n.op(), def.noGradient.empty() ? "" : ", since ", def.noGradient,
                  path(n))
          .at(n.location());
    std::vector<bool> wanted;
    for (int i = 0; i < n.numOperands(); ++i) {
      if (Value* v = n.operand(i); v && !v->type().isStatic())
        return fail(ErrorCode::kUnsupported, "the gradient of '{}' needs sizes, {} is {}", n.op(), v->name(), v->type().str())
            .at(n.location())
            .help("bind its shapes first");
      wanted.push_back(paths_.isActive(n.operand(i)));
    }
    GradientContext context(builder_, n, upstream, wanted);
    auto gradients = def.gradient(context);
    if (gradients && !context.status()) gradients = tl::make_unexpected(context.status().error());
    if (!gradients) return tl::make_unexpected(std::move(gradients.error()).at(n.location()));
    if (std::ssize(*gradients) != n.numOperands())
      return fail(ErrorCode::kInternal, "the gradient of '{}' gives {} values for {} operands", n.op(), gradients->size(), n.numOperands())
          .at(n.location());
    for (int i = 0; i < n.numOperands(); ++i) {
      Value* gradient = nth(*gradients, i);
      if (!gradient || !nth(wanted, i)) continue;
      if (gradient->type() != n.operand(i)->type())
        return fail(ErrorCode::kInternal, "the gradient of '{}' for operand {} is {}, the operand {}", n.op(), i, gradient->type().str(),
                    n.operand(i)->type().str())
            .at(n.location());
      parts_[n.operand(i)].push_back(gradient);
      cameFrom_.emplace(n.operand(i), &n);
    }
    return {};
  }

  // From what is differentiated, through the node, to one of what the gradients are asked of.
  std::string path(const Node& through) const {
    std::vector<std::string> names{nameOf(through)};
    for (const Node* n = &through;;) {
      const Node* up = nullptr;
      for (int i = 0; i < n->numResults() && !up; ++i)
        if (const auto it = cameFrom_.find(n->result(i)); it != cameFrom_.end()) up = it->second;
      if (!up) break;
      names.insert(names.begin(), nameOf(*up));
      n = up;
    }
    for (const Node* n = &through; n;) {
      const Node* down = nullptr;
      for (int i = 0; i < n->numOperands(); ++i) {
        const Value* v = n->operand(i);
        if (!paths_.isActive(v)) continue;
        if (paths_.isWanted(v)) {
          names.push_back(fmt::format("%{}", v->name()));
          down = nullptr;
          break;
        }
        if (!down) down = v->producer();
      }
      n = down;
      if (n) names.push_back(nameOf(*n));
    }
    if (constexpr size_t kShown = 12; names.size() > kShown) {
      const auto cut = static_cast<ptrdiff_t>(kShown / 2);
      names.erase(names.begin() + cut, names.end() - cut);
      names.insert(names.begin() + cut, "...");
    }
    return fmt::format("{}", fmt::join(names, " <- "));
  }

  Builder& builder_;
  Paths paths_;
  std::unordered_map<const Value*, std::vector<Value*>> parts_;
  std::unordered_map<const Value*, const Node*> cameFrom_;
};

}  // namespace

Result<Gradients> backpropagate(Builder& builder, const std::vector<GradientSeed>& seeds, std::span<Value* const> of,
                                std::span<Value* const> boundary) {
  return Backpropagation(builder, seeds, of, boundary).run(of);
}

// ---- building ---------------------------------------------------------------------------------

Value* GradientContext::stand() const {
  for (Value* v : node_.operands())
    if (v) return v;
  return const_cast<Node&>(node_).result();
}

Value* GradientContext::keep(Result<Value*> built) {
  if (built && status_) return *built;
  if (status_) status_ = tl::make_unexpected(std::move(built.error()));
  return stand();
}

Value* GradientContext::op(std::string_view name, std::vector<Value*> operands, AttrDict attrs) {
  if (!status_) return stand();
  return keep(builder_.create(name, std::move(operands), std::move(attrs)));
}

std::vector<Value*> GradientContext::ops(std::string_view name, std::vector<Value*> operands, AttrDict attrs, size_t results) {
  std::vector<Value*> all(results, stand());
  if (!status_) return all;
  auto node = builder_.createNode(name, std::move(operands), std::move(attrs));
  if (!node) {
    status_ = tl::make_unexpected(std::move(node.error()));
    return all;
  }
  for (size_t i = 0; i < results; ++i) all[i] = (*node)->result(static_cast<int>(i));
  return all;
}

Value* GradientContext::map(const ScalarExpr& expression, std::vector<Value*> operands) {
  std::vector<Value*> used;
  std::vector<ScalarExpr> renumbered(operands.size(), ScalarExpr(0.f));
  std::vector<bool> speaks(operands.size());
  postorder(expression, [&](const ScalarExpr& e) {
    if (e.op() == ScalarExpr::Op::arg) nth(speaks, e.argIndex()) = true;
  });
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!speaks[i]) continue;
    const auto at = std::find(used.begin(), used.end(), operands[i]) - used.begin();
    if (at == std::ssize(used)) used.push_back(operands[i]);
    renumbered[i] = ScalarExpr::arg(static_cast<int>(at));
  }
  const ScalarExpr own = expression.substitute(renumbered);
  if (own.isArg(0)) return used.front();
  // An expression without variables is one of its first operand all the same, for its type.
  if (used.empty()) used.push_back(operands.front());
  return op("map", std::move(used), {{"expr", own}});
}

Value* GradientContext::constant(Tensor tensor) { return builder_.constant("", std::move(tensor)); }

Value* GradientContext::filled(double value, const TensorType& type) {
  Tensor one(type.dtype, {});
  storeElement(type.dtype, one.mutableData(), 0, value);
  return expand(constant(std::move(one)), type.shape);
}

Value* GradientContext::reshape(Value* x, const Shape& shape) {
  return x->type().shape == shape ? x : op("reshape", {x}, {{"shape", sizesOf(shape)}});
}

Value* GradientContext::transpose(Value* x, std::vector<int64_t> perm) {
  return std::ranges::is_sorted(perm) ? x : op("transpose", {x}, {{"perm", std::move(perm)}});
}

Value* GradientContext::sum(Value* x, std::vector<int64_t> axes, bool keepDims) {
  return axes.empty() ? x : op("reduce_sum", {x}, {{"axes", std::move(axes)}, {"keepdims", int64_t{keepDims}}});
}

Value* GradientContext::mean(Value* x, std::vector<int64_t> axes) {
  return axes.empty() ? x : op("reduce_mean", {x}, {{"axes", std::move(axes)}, {"keepdims", int64_t{1}}});
}

Value* GradientContext::expand(Value* x, const Shape& shape) {
  return x->type().shape == shape ? x : op("expand", {x}, {{"shape", sizesOf(shape)}});
}

Value* GradientContext::sumTo(Value* x, const Shape& shape) {
  const Shape& from = x->type().shape;
  const size_t lead = from.size() - std::min(from.size(), shape.size());
  std::vector<int64_t> axes;
  for (size_t i = 0; i < from.size(); ++i)
    if (i < lead || (i - lead < shape.size() && shape[i - lead] == Dim(1) && from[i] != Dim(1))) axes.push_back(static_cast<int64_t>(i));
  return reshape(sum(x, std::move(axes)), shape);
}

Value* GradientContext::slice(Value* x, int axis, int64_t start, int64_t size) {
  if (!status_ || x->type().rank() <= axis || (start == 0 && nth(x->type().shape, axis) == Dim(size))) return x;
  std::vector<int64_t> sizes, starts, steps;
  for (const int64_t own : x->type().sizes()) {
    const bool here = std::ssize(sizes) == axis;
    sizes.push_back(here ? size : own);
    starts.push_back(here ? start : 0);
    steps.push_back(1);
  }
  return op("slice", {x}, {{"starts", starts}, {"sizes", sizes}, {"steps", steps}});
}

Status GradientContext::checkMatrix(int64_t rows, int64_t columns) const {
  int64_t elements = 0, bytes = 0;
  if (__builtin_mul_overflow(rows, columns, &elements) || __builtin_mul_overflow(elements, 2 * sizeOf(DType::f64), &bytes))
    return fail(ErrorCode::kResource, "the gradient of '{}' takes a matrix of {} by {}", node_.op(), rows, columns);
  return checkMemory(bytes, fmt::format("the gradient of '{}', as a matrix of {} by {},", node_.op(), rows, columns));
}

Value* GradientContext::contract(Value* x, int axis, const std::vector<double>& matrix, int64_t columns) {
  if (!status_) return x;
  const TensorType type = x->type();
  Tensor weights(type.dtype, {type.sizes()[usize(axis)], columns});
  for (int64_t i = 0; i < weights.numElements(); ++i) storeElement(type.dtype, weights.mutableData(), i, nth(matrix, i));
  std::vector<int64_t> perm(type.shape.size());
  std::iota(perm.begin(), perm.end(), 0);
  std::swap(nth(perm, axis), perm.back());
  return transpose(op("matmul", {transpose(x, perm), constant(std::move(weights))}), perm);
}

Result<Gradients> GradientContext::through(const std::vector<Value*>& results) {
  if (!status_) return tl::make_unexpected(status_.error());
  std::vector<GradientSeed> seeds;
  for (size_t i = 0; i < results.size(); ++i)
    if (upstream_[i]) seeds.push_back({results[i], upstream_[i]});
  std::vector<Value*> boundary, of;
  for (Value* v : node_.operands())
    if (v) boundary.push_back(v);
  for (int i = 0; i < node_.numOperands(); ++i)
    if (wants(i) && std::find(of.begin(), of.end(), operand(i)) == of.end()) of.push_back(operand(i));
  QC_ASSIGN(const Gradients found, backpropagate(builder_, seeds, of, boundary));
  builder_.at(node_.location());
  // An operand that stands in two places has its whole gradient in the first.
  Gradients all = none();
  for (size_t i = 0; i < of.size(); ++i)
    for (int k = 0; k < node_.numOperands(); ++k)
      if (operand(k) == of[i]) {
        nth(all, k) = found[i];
        break;
      }
  return all;
}

// ---- elementwise ------------------------------------------------------------------------------

Result<Gradients> scalarGradient(GradientContext& c, const std::vector<ScalarExpr>& slopes) {
  const int n = c.node().numOperands();
  std::vector<Value*> values;
  Gradients all = c.none();
  const TensorType& type = c.result()->type();
  for (Value* v : c.node().operands()) {
    const bool condition = v->type().dtype == DType::boolean;
    values.push_back(condition ? c.op("cast", {v}, {{"to", type.dtype}}) : v);
  }
  values.push_back(c.upstream());
  for (int i = 0; i < n; ++i) {
    if (!c.wants(i)) continue;
    const ScalarExpr slope = nth(slopes, i);
    const bool constant = slope.op() == ScalarExpr::Op::constant;
    if (constant && slope.value() == 0) continue;
    Value* full = constant && slope.value() == 1 ? c.upstream() : c.map(ScalarExpr::arg(n) * slope, values);
    nth(all, i) = c.sumTo(full, c.type(i).shape);
  }
  return all;
}

Result<Gradients> elementwiseGradient(GradientContext& c) {
  const ScalarExpr meaning = c.node().def().scalar(c.node().attrs());
  std::vector<ScalarExpr> slopes;
  for (int i = 0; i < c.node().numOperands(); ++i) slopes.push_back(derivative(meaning, i));
  return scalarGradient(c, slopes);
}

}  // namespace qc
