// The meaning of an elementwise op as data: a tree over float arguments.  The interpreter, the builder of
// 256-entry int8 tables and the LLVM emitter walk the same tree, so an op is defined once.
//
//   const ScalarExpr x = ScalarExpr::arg(0);
//   ScalarExpr hardswish = x * clamp(x + 3.f, 0.f, 6.f) / 6.f;
//   hardswish.str()  ->  "a0 * min(6, max(0, a0 + 3)) / 6"      parse(str()) gives the same tree
//
// Text: infix + - * /, calls, numbers, inf, nan; `-3` is a constant, `-(3)` a negation.  Large trees whose parts are
// shared print with temporaries:  "t0 = exp(a0); t0 / (t0 + 1)".
//
// Named functions (exp, tanh, sigmoid, erf, log, ...) print by name and expand() into primitives whose float32
// result IEEE-754 fixes, so a tree evaluates to the same bits in the interpreter and on every ISA.
// Primitives:  + - * /  min max  neg abs floor ceil round(half to even) trunc sqrt
//              lt le eq (1 or 0)  select(c, a, b) (a where c != 0)
//              pow2(n) = 2^n for integral n in [-126, 127]; exponent(x), mantissa(x): x = m * 2^e, 1 <= m < 2, x normal and > 0
//   min(a, b) = a < b ? a : b  and  max(a, b) = a > b ? a : b : with a NaN the second operand wins.
//   On every float32 bit pattern, the last three are these operations on bits (no float -> int conversion is needed):
//     pow2(n)     = float(bits(n + 12583039.0f) << 23)              12583039 = 1.5 * 2^23 + 127
//     exponent(x) = int((bits(x) >> 23) & 255) - 127, as a float    mantissa(x) = float((bits(x) & 0x7fffff) | 0x3f800000)
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/status.h"

namespace qc {

class ScalarExpr {
 public:
  enum class Op : uint8_t {
    arg,
    constant,
    neg,
    abs,
    floor,
    ceil,
    round,
    trunc,
    sqrt,
    pow2,
    exponent,
    mantissa,  // unary
    add,
    sub,
    mul,
    div,
    min,
    max,
    lt,
    le,
    eq,  // binary
    select,
    fma,   // ternary; fma rounds once
    call,  // a named function
  };
  struct Function {  // a row of the table in scalar_expr.cpp
    const char* name;
    int arity;
    ScalarExpr (*expansion)(std::span<const ScalarExpr> args);  // the float32 meaning, in primitives only
    double (*real)(const double* args);                         // the float64 meaning
    int64_t (*integer)(const int64_t* args);                    // null: not defined on integers
    uint64_t (*natural)(const uint64_t* args) = nullptr;        // the same of uint64_t, whose upper half int64_t has below 0
  };

  ScalarExpr(float value);           // NOLINT(google-explicit-constructor): constants read as numbers in formulas
  static ScalarExpr arg(int index);  // requires: >= 0
  static ScalarExpr make(Op op, std::vector<ScalarExpr> operands);                  // requires: as many as the op has
  static ScalarExpr call(std::string_view function, std::vector<ScalarExpr> args);  // requires: known, right arity
  static Result<ScalarExpr> parse(std::string_view text);
  static Status checkText(size_t bytes, int arity);  // within what parse() takes

  Op op() const;
  int argIndex() const;              // Op::arg
  float value() const;               // Op::constant
  const Function& function() const;  // Op::call
  std::span<const ScalarExpr> operands() const;
  const void* id() const { return node_.get(); }  // shared sub-trees have one id

  int arity() const;  // 1 + the highest argument index; 0 without arguments
  bool isArg(int index) const;
  std::string str() const;
  ScalarExpr expand() const;                                         // no Op::call left
  ScalarExpr substitute(std::span<const ScalarExpr> args) const;     // arg(i) -> args[i]: composition of ops.  Requires: i < args.size()
  friend bool operator==(const ScalarExpr& a, const ScalarExpr& b);  // structural

  static std::span<const Function> functions();

  struct Node;

 private:
  explicit ScalarExpr(std::shared_ptr<const Node> node) : node_(std::move(node)) {}
  std::shared_ptr<const Node> node_;
};

ScalarExpr operator+(ScalarExpr a, ScalarExpr b);
ScalarExpr operator-(ScalarExpr a, ScalarExpr b);
ScalarExpr operator*(ScalarExpr a, ScalarExpr b);
ScalarExpr operator/(ScalarExpr a, ScalarExpr b);
ScalarExpr operator-(ScalarExpr a);
namespace expr {
ScalarExpr min(ScalarExpr a, ScalarExpr b);
ScalarExpr max(ScalarExpr a, ScalarExpr b);
ScalarExpr clamp(ScalarExpr x, ScalarExpr lo, ScalarExpr hi);  // min(max(lo, x)...) ordered so that NaN passes through
ScalarExpr lt(ScalarExpr a, ScalarExpr b);
ScalarExpr le(ScalarExpr a, ScalarExpr b);
ScalarExpr eq(ScalarExpr a, ScalarExpr b);
ScalarExpr select(ScalarExpr c, ScalarExpr a, ScalarExpr b);
ScalarExpr fma(ScalarExpr a, ScalarExpr b, ScalarExpr c);  // a * b + c, rounded once
ScalarExpr unary(ScalarExpr::Op op, ScalarExpr x);
ScalarExpr exp(ScalarExpr x);
ScalarExpr expm1(ScalarExpr x);
ScalarExpr log(ScalarExpr x);
ScalarExpr log1p(ScalarExpr x);
ScalarExpr tanh(ScalarExpr x);
ScalarExpr sigmoid(ScalarExpr x);
ScalarExpr erf(ScalarExpr x);
ScalarExpr normalCdf(ScalarExpr x);  // (1 + erf(x / sqrt(2))) / 2, of the standard normal distribution
ScalarExpr pow(ScalarExpr x, ScalarExpr y);
ScalarExpr sin(ScalarExpr x);
ScalarExpr cos(ScalarExpr x);
ScalarExpr tan(ScalarExpr x);
ScalarExpr abs(ScalarExpr x);
}  // namespace expr

// A tree flattened into a straight list of instructions over virtual registers, shared sub-trees computed once.
// T is float (the reference arithmetic: named functions expanded), double (named functions from <cmath>), or int64_t
// and uint64_t (integer tensors: wraps, / truncates, x / 0 = 0; float-only trees are refused by supportsInteger()).
class ExprProgram {
 public:
  explicit ExprProgram(const ScalarExpr& expression);

  int arity() const { return arity_; }
  bool supportsInteger() const;
  // out[i] = f(args[0][i * strides[0]], args[1][i * strides[1]], ...) for i < n.  Strides are 0 or 1: a broadcast or
  // dense operand.  `out` may be one of the dense arguments.  Requires: arity() arguments with a stride each; for integers
  // supportsInteger().
  template <class T>
  void run(std::span<const T* const> args, std::span<const int> strides, T* out, int64_t n) const;
  float operator()(std::span<const float> args) const;

  struct Instruction {
    ScalarExpr::Op op;
    int operand[3];  // registers; -1: none
    float value;     // constant
    int index;       // argument; for Op::call the row of ScalarExpr::functions()
  };
  // The float32 form: no Op::call.  Instruction i writes register i; the result is the last one.
  std::span<const Instruction> instructions() const { return code_; }

 private:
  std::vector<Instruction> code_;
  std::vector<Instruction> calls_;  // before expansion
  int arity_ = 0;
};

// The instructions of a tree before expansion, structurally equal parts once, operands first.
std::vector<ExprProgram::Instruction> flatten(const ScalarExpr& expression);

}  // namespace qc
