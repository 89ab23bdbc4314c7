#include "ir/scalar_expr.h"

#include <limits>

#include "ir/expr_internal.h"
#include "ir/signed_index.h"

namespace qc {

struct ScalarExpr::Node {
  Op op = Op::constant;
  float value = 0;
  int index = 0;
  int arity = 0;  // ScalarExpr::arity(): asked for wherever types are inferred
  std::vector<ScalarExpr> operands;

  Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  // A tree may be as deep as a program is long: taken apart in a loop, not by recursion.
  ~Node() {
    std::vector<ScalarExpr> pending = std::move(operands);
    while (!pending.empty()) {
      const std::shared_ptr<const Node> node = std::move(pending.back().node_);
      pending.pop_back();
      if (!node || node.use_count() > 1) continue;
      auto& rest = const_cast<Node&>(*node).operands;  // this is the last owner
      for (ScalarExpr& e : rest) pending.push_back(std::move(e));
      rest.clear();
    }
  }
};

namespace {

int largestArity(std::span<const ScalarExpr> operands) {
  int largest = 0;
  for (const ScalarExpr& e : operands) largest = std::max(largest, e.arity());
  return largest;
}

int expectedOperands(ScalarExpr::Op op) {
  using Op = ScalarExpr::Op;
  if (op <= Op::constant || op == Op::call) return 0;
  if (op <= Op::mantissa) return 1;
  return op == Op::select || op == Op::fma ? 3 : 2;
}

// Rebuilds a tree bottom-up: make(node, rebuilt operands) -> node.
template <class Make>
ScalarExpr rebuild(const ScalarExpr& root, const Make& make) {
  IdNumbering numbers;
  std::vector<ScalarExpr> done;  // by number
  postorder(root, [&](const ScalarExpr& e) {
    std::vector<ScalarExpr> operands;
    operands.reserve(e.operands().size());
    for (const ScalarExpr& o : e.operands()) operands.push_back(nth(done, numbers.add(o.id()).first));
    numbers.add(e.id());
    done.push_back(make(e, std::move(operands)));
  });
  return done.back();
}

ScalarExpr withOperands(const ScalarExpr& e, std::vector<ScalarExpr> operands) {
  bool same = true;
  for (size_t i = 0; i < operands.size(); ++i) same = same && operands[i].id() == e.operands()[i].id();
  if (same) return e;
  return e.op() == ScalarExpr::Op::call ? ScalarExpr::call(e.function().name, std::move(operands))
                                        : ScalarExpr::make(e.op(), std::move(operands));
}

// Numbers structurally equal nodes alike.
class Interner {
 public:
  using Instruction = ExprProgram::Instruction;

  int add(const ScalarExpr& root) {
    int last = 0;
    postorder(root, [&](const ScalarExpr& e) {
      const auto [id, fresh] = ids_.add(e.id());
      if (!fresh) {
        last = nth(registers_, id);
        return;
      }
      Instruction i = instructionOf(e);
      for (size_t k = 0; k < e.operands().size(); ++k) i.operand[k] = nth(registers_, ids_.add(e.operands()[k].id()).first);
      registers_.push_back(last = code_.add(i).first);
    });
    return last;
  }
  std::vector<Instruction> take() { return code_.take(); }

 private:
  InstructionNumbering code_;
  IdNumbering ids_;
  std::vector<int> registers_;  // by number of the id
};

}  // namespace

ScalarExpr::ScalarExpr(float value) {
  auto node = std::make_shared<Node>();
  node->value = value == value ? value : std::numeric_limits<float>::quiet_NaN();  // one NaN, so that text round-trips
  node_ = std::move(node);
}

ScalarExpr ScalarExpr::arg(int index) {
  QC_REQUIRE("ScalarExpr::arg", index >= 0, "argument {}", index);
  auto node = std::make_shared<Node>();
  node->op = Op::arg;
  node->index = index;
  node->arity = index + 1;
  return ScalarExpr(std::shared_ptr<const Node>(std::move(node)));
}

ScalarExpr ScalarExpr::make(Op op, std::vector<ScalarExpr> operands) {
  QC_REQUIRE("ScalarExpr::make", expectedOperands(op) != 0 && static_cast<int>(operands.size()) == expectedOperands(op),
             "{} operands for operator {}", operands.size(), static_cast<int>(op));
  auto node = std::make_shared<Node>();
  node->op = op;
  node->arity = largestArity(operands);
  node->operands = std::move(operands);
  return ScalarExpr(std::shared_ptr<const Node>(std::move(node)));
}

ScalarExpr ScalarExpr::call(std::string_view function, std::vector<ScalarExpr> args) {
  const Function* f = findFunction(function);
  QC_REQUIRE("ScalarExpr::call", f && f->arity == static_cast<int>(args.size()), "call of '{}' with {} arguments", function, args.size());
  auto node = std::make_shared<Node>();
  node->op = Op::call;
  node->index = static_cast<int>(f - functions().data());
  node->arity = largestArity(args);
  node->operands = std::move(args);
  return ScalarExpr(std::shared_ptr<const Node>(std::move(node)));
}

ScalarExpr::Op ScalarExpr::op() const { return node_->op; }
int ScalarExpr::argIndex() const { return node_->index; }
float ScalarExpr::value() const { return node_->value; }
const ScalarExpr::Function& ScalarExpr::function() const { return nth(functions(), node_->index); }
std::span<const ScalarExpr> ScalarExpr::operands() const { return node_->operands; }

int ScalarExpr::arity() const { return node_->arity; }

bool ScalarExpr::isArg(int index) const { return op() == Op::arg && argIndex() == index; }

ScalarExpr ScalarExpr::expand() const {
  return rebuild(*this, [](const ScalarExpr& e, std::vector<ScalarExpr> operands) {
    return e.op() == Op::call ? e.function().expansion(operands) : withOperands(e, std::move(operands));
  });
}

ScalarExpr ScalarExpr::substitute(std::span<const ScalarExpr> args) const {
  return rebuild(*this, [&](const ScalarExpr& e, std::vector<ScalarExpr> operands) {
    if (e.op() != Op::arg) return withOperands(e, std::move(operands));
    QC_REQUIRE("ScalarExpr::substitute", usize(e.argIndex()) < args.size(), "no substitute for a{}", e.argIndex());
    return nth(args, e.argIndex());
  });
}

bool operator==(const ScalarExpr& a, const ScalarExpr& b) {
  Interner interner;
  return interner.add(a) == interner.add(b);
}

std::vector<ExprProgram::Instruction> flatten(const ScalarExpr& expression) {
  Interner interner;
  interner.add(expression);
  return interner.take();
}

ExprProgram::Instruction instructionOf(const ScalarExpr& e) {
  ExprProgram::Instruction i{e.op(), {-1, -1, -1}, 0, 0};
  if (e.op() == ScalarExpr::Op::constant) i.value = e.value();
  if (e.op() == ScalarExpr::Op::arg) i.index = e.argIndex();
  if (e.op() == ScalarExpr::Op::call) i.index = static_cast<int>(&e.function() - ScalarExpr::functions().data());
  return i;
}

const ScalarExpr::Function* findFunction(std::string_view name) {
  for (const ScalarExpr::Function& f : ScalarExpr::functions())
    if (name == f.name) return &f;
  return nullptr;
}

ScalarExpr operator+(ScalarExpr a, ScalarExpr b) { return ScalarExpr::make(ScalarExpr::Op::add, {std::move(a), std::move(b)}); }
ScalarExpr operator-(ScalarExpr a, ScalarExpr b) { return ScalarExpr::make(ScalarExpr::Op::sub, {std::move(a), std::move(b)}); }
ScalarExpr operator*(ScalarExpr a, ScalarExpr b) { return ScalarExpr::make(ScalarExpr::Op::mul, {std::move(a), std::move(b)}); }
ScalarExpr operator/(ScalarExpr a, ScalarExpr b) { return ScalarExpr::make(ScalarExpr::Op::div, {std::move(a), std::move(b)}); }
ScalarExpr operator-(ScalarExpr a) { return ScalarExpr::make(ScalarExpr::Op::neg, {std::move(a)}); }

namespace expr {
using Op = ScalarExpr::Op;
ScalarExpr unary(Op op, ScalarExpr x) { return ScalarExpr::make(op, {std::move(x)}); }
ScalarExpr min(ScalarExpr a, ScalarExpr b) { return ScalarExpr::make(Op::min, {std::move(a), std::move(b)}); }
ScalarExpr max(ScalarExpr a, ScalarExpr b) { return ScalarExpr::make(Op::max, {std::move(a), std::move(b)}); }
ScalarExpr lt(ScalarExpr a, ScalarExpr b) { return ScalarExpr::make(Op::lt, {std::move(a), std::move(b)}); }
ScalarExpr le(ScalarExpr a, ScalarExpr b) { return ScalarExpr::make(Op::le, {std::move(a), std::move(b)}); }
ScalarExpr eq(ScalarExpr a, ScalarExpr b) { return ScalarExpr::make(Op::eq, {std::move(a), std::move(b)}); }
ScalarExpr select(ScalarExpr c, ScalarExpr a, ScalarExpr b) {
  return ScalarExpr::make(Op::select, {std::move(c), std::move(a), std::move(b)});
}
ScalarExpr fma(ScalarExpr a, ScalarExpr b, ScalarExpr c) { return ScalarExpr::make(Op::fma, {std::move(a), std::move(b), std::move(c)}); }
ScalarExpr clamp(ScalarExpr x, ScalarExpr lo, ScalarExpr hi) { return min(std::move(hi), max(std::move(lo), std::move(x))); }
ScalarExpr abs(ScalarExpr x) { return unary(Op::abs, std::move(x)); }
ScalarExpr exp(ScalarExpr x) { return ScalarExpr::call("exp", {std::move(x)}); }
ScalarExpr expm1(ScalarExpr x) { return ScalarExpr::call("expm1", {std::move(x)}); }
ScalarExpr log(ScalarExpr x) { return ScalarExpr::call("log", {std::move(x)}); }
ScalarExpr log1p(ScalarExpr x) { return ScalarExpr::call("log1p", {std::move(x)}); }
ScalarExpr tanh(ScalarExpr x) { return ScalarExpr::call("tanh", {std::move(x)}); }
ScalarExpr sigmoid(ScalarExpr x) { return ScalarExpr::call("sigmoid", {std::move(x)}); }
ScalarExpr normalCdf(ScalarExpr x) { return ScalarExpr::call("normal_cdf", {std::move(x)}); }
ScalarExpr erf(ScalarExpr x) { return ScalarExpr::call("erf", {std::move(x)}); }
ScalarExpr pow(ScalarExpr x, ScalarExpr y) { return ScalarExpr::call("pow", {std::move(x), std::move(y)}); }
ScalarExpr sin(ScalarExpr x) { return ScalarExpr::call("sin", {std::move(x)}); }
ScalarExpr cos(ScalarExpr x) { return ScalarExpr::call("cos", {std::move(x)}); }
ScalarExpr tan(ScalarExpr x) { return ScalarExpr::call("tan", {std::move(x)}); }
}  // namespace expr

}  // namespace qc
