// Evaluation of scalar expressions: straight-line code over blocks of elements, one loop per instruction.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>

#include "ir/expr_internal.h"
#include "ir/signed_index.h"

// The float loops are compiled for the baseline and for AVX2 with FMA and chosen at load time; the bits are the same.  Sanitizers
// instrument the resolver too early to allow it.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define QC_VECTOR_CLONES __attribute__((target_clones("default", "arch=haswell")))
#else
#define QC_VECTOR_CLONES
#endif

namespace qc {
namespace {

using Op = ScalarExpr::Op;
using Instruction = ExprProgram::Instruction;

constexpr int kBlock = 256;

template <class T>
T fromConstant(float value) {
  if constexpr (std::is_floating_point_v<T>) {
    return value;
  } else {
    constexpr T low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
    if (std::isnan(value)) return 0;
    if (value <= static_cast<float>(low)) return low;
    return value >= static_cast<float>(high) ? high : static_cast<T>(value);
  }
}

// ---- what each primitive does to one element ----------------------------------------------------------------------

template <class T>
struct Scalar {  // integers: unsigned arithmetic, so that overflow wraps
  using U = std::make_unsigned_t<T>;
  static T add(T a, T b) { return static_cast<T>(static_cast<U>(a) + static_cast<U>(b)); }
  static T sub(T a, T b) { return static_cast<T>(static_cast<U>(a) - static_cast<U>(b)); }
  static T mul(T a, T b) { return static_cast<T>(static_cast<U>(a) * static_cast<U>(b)); }
  static T div(T a, T b) {
    if (b == 0) return 0;
    return std::is_signed_v<T> && b == static_cast<T>(-1) ? neg(a) : static_cast<T>(a / b);
  }
  static T neg(T a) { return static_cast<T>(U{0} - static_cast<U>(a)); }
  static T abs(T a) { return a < 0 ? neg(a) : a; }
  static T fma(T a, T b, T c) { return add(mul(a, b), c); }
  static T floor(T a) { return a; }
  static T ceil(T a) { return a; }
  static T round(T a) { return a; }
  static T trunc(T a) { return a; }
  // Refused by supportsInteger().
  static T sqrt(T) { return 0; }
  static T pow2(T) { return 0; }
  static T exponent(T) { return 0; }
  static T mantissa(T) { return 0; }
};

template <class T>
struct RealScalar {
  static T add(T a, T b) { return a + b; }
  static T sub(T a, T b) { return a - b; }
  static T mul(T a, T b) { return a * b; }
  static T div(T a, T b) { return a / b; }
  static T neg(T a) { return -a; }
  static T abs(T a) { return std::fabs(a); }
  static T floor(T a) { return std::floor(a); }
  static T ceil(T a) { return std::ceil(a); }
  static T round(T a) { return std::nearbyint(a); }
  static T trunc(T a) { return std::trunc(a); }
  static T sqrt(T a) { return std::sqrt(a); }
  static T fma(T a, T b, T c) { return std::fma(a, b, c); }
};

template <>
struct Scalar<float> : RealScalar<float> {
  static float pow2(float n) { return std::bit_cast<float>(std::bit_cast<uint32_t>(n + 12583039.0f) << 23); }
  static float exponent(float x) { return static_cast<float>(static_cast<int32_t>((std::bit_cast<uint32_t>(x) >> 23) & 255) - 127); }
  static float mantissa(float x) { return std::bit_cast<float>((std::bit_cast<uint32_t>(x) & 0x7fffffu) | 0x3f800000u); }
};

template <>
struct Scalar<double> : RealScalar<double> {
  static double pow2(double n) { return std::exp2(n); }
  static double exponent(double x) { return static_cast<double>(static_cast<int64_t>((std::bit_cast<uint64_t>(x) >> 52) & 2047) - 1023); }
  static double mantissa(double x) { return std::bit_cast<double>((std::bit_cast<uint64_t>(x) & 0xfffffffffffffu) | 0x3ff0000000000000u); }
};

// r[i] = op(a[i], b[i], c[i]).
template <class T>
[[gnu::always_inline]] inline void applyInline(Op op, const T* a, const T* b, const T* c, T* r, int n) {
  using S = Scalar<T>;
  const auto each = [&](auto f) __attribute__((always_inline)) {
    for (int i = 0; i < n; ++i) r[i] = f(i);
  };
  switch (op) {
    case Op::neg: return each([&](int i) { return S::neg(a[i]); });
    case Op::abs: return each([&](int i) { return S::abs(a[i]); });
    case Op::floor: return each([&](int i) { return S::floor(a[i]); });
    case Op::ceil: return each([&](int i) { return S::ceil(a[i]); });
    case Op::round: return each([&](int i) { return S::round(a[i]); });
    case Op::trunc: return each([&](int i) { return S::trunc(a[i]); });
    case Op::sqrt: return each([&](int i) { return S::sqrt(a[i]); });
    case Op::pow2: return each([&](int i) { return S::pow2(a[i]); });
    case Op::exponent: return each([&](int i) { return S::exponent(a[i]); });
    case Op::mantissa: return each([&](int i) { return S::mantissa(a[i]); });
    case Op::add: return each([&](int i) { return S::add(a[i], b[i]); });
    case Op::sub: return each([&](int i) { return S::sub(a[i], b[i]); });
    case Op::mul: return each([&](int i) { return S::mul(a[i], b[i]); });
    case Op::div: return each([&](int i) { return S::div(a[i], b[i]); });
    case Op::min: return each([&](int i) { return a[i] < b[i] ? a[i] : b[i]; });
    case Op::max: return each([&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
    case Op::lt: return each([&](int i) { return a[i] < b[i] ? T{1} : T{0}; });
    case Op::le: return each([&](int i) { return a[i] <= b[i] ? T{1} : T{0}; });
    case Op::eq: return each([&](int i) { return a[i] == b[i] ? T{1} : T{0}; });
    case Op::select: return each([&](int i) { return a[i] != T{0} ? b[i] : c[i]; });
    case Op::fma: return each([&](int i) { return S::fma(a[i], b[i], c[i]); });
    case Op::arg:
    case Op::constant:
    case Op::call: return;
  }
}

QC_VECTOR_CLONES void apply(Op op, const float* a, const float* b, const float* c, float* r, int n) { applyInline(op, a, b, c, r, n); }

template <class T>
void apply(Op op, const T* a, const T* b, const T* c, T* r, int n) {
  applyInline(op, a, b, c, r, n);
}

template <class T>
void applyCall(int row, const T* const* operands, T* r, int n) {
  const ScalarExpr::Function& f = nth(ScalarExpr::functions(), row);
  for (int i = 0; i < n; ++i) {
    if constexpr (std::is_floating_point_v<T>) {
      const double args[2] = {static_cast<double>(operands[0][i]), f.arity > 1 ? static_cast<double>(operands[1][i]) : 0};
      r[i] = static_cast<T>(f.real(args));
    } else {
      const T args[2] = {operands[0][i], f.arity > 1 ? operands[1][i] : T{0}};
      if constexpr (std::is_signed_v<T>)
        r[i] = f.integer(args);
      else
        r[i] = f.natural(args);
    }
  }
}

// ---- where the blocks live ----------------------------------------------------------------------------------------

// Slots of scratch memory: constants and broadcast arguments keep theirs (filled once per run), results share by
// lifetime, dense arguments are read where they are.
struct Layout {
  std::vector<int> slot;  // per instruction; -1: a dense argument, or the result, written in place
  int count = 0;
};

Layout assignSlots(std::span<const Instruction> code, std::span<const int> strides) {
  Layout layout{std::vector<int>(code.size(), -1), 0};
  std::vector<size_t> lastUse(code.size(), 0);
  for (size_t i = 0; i < code.size(); ++i)
    for (const int o : code[i].operand)
      if (o >= 0) nth(lastUse, o) = i;
  std::vector<int> free;
  const auto isResult = [&](size_t i) { return code[i].op != Op::constant && code[i].op != Op::arg; };
  for (size_t i = 0; i < code.size(); ++i) {
    if (code[i].op == Op::constant || (code[i].op == Op::arg && nth(strides, code[i].index) == 0)) layout.slot[i] = layout.count++;
    if (!isResult(i) || i + 1 == code.size()) continue;
    if (free.empty()) free.push_back(layout.count++);
    layout.slot[i] = free.back();  // taken before the operands die: no block is read and written by one instruction
    free.pop_back();
    for (int k = 0; k < 3; ++k) {
      const int o = code[i].operand[k];
      const bool repeated = std::find(code[i].operand, code[i].operand + k, o) != code[i].operand + k;
      if (o >= 0 && !repeated && isResult(usize(o)) && nth(lastUse, o) == i) free.push_back(nth(layout.slot, o));
    }
  }
  return layout;
}

template <class T>
class Runner {
 public:
  Runner(std::span<const Instruction> code, std::span<const T* const> args, std::span<const int> strides, int block)
      : code_(code), layout_(assignSlots(code, strides)), place_(code.size(), nullptr) {
    scratch_ = std::make_unique_for_overwrite<T[]>(usize(layout_.count) * usize(block));
    for (size_t i = 0; i < code.size(); ++i) {
      if (layout_.slot[i] >= 0) place_[i] = scratch_.get() + layout_.slot[i] * block;
      if (code[i].op == Op::constant) std::fill_n(place_[i], block, fromConstant<T>(code[i].value));
      if (code[i].op == Op::arg && layout_.slot[i] >= 0) std::fill_n(place_[i], block, *nth(args, code[i].index));
    }
  }

  void run(std::span<const T* const> args, int64_t start, T* out, int n) {
    const T* operands[3] = {};
    for (size_t i = 0; i < code_.size(); ++i) {
      const Instruction& in = code_[i];
      if (in.op == Op::constant || in.op == Op::arg) continue;
      for (int k = 0; k < 3; ++k) operands[k] = in.operand[k] < 0 ? nullptr : read(args, start, usize(in.operand[k]));
      T* result = place_[i] ? place_[i] : out;
      if (in.op == Op::call)
        applyCall(in.index, operands, result, n);
      else
        apply(in.op, operands[0], operands[1], operands[2], result, n);
    }
    const Op last = code_.back().op;
    if (last == Op::constant || last == Op::arg) std::copy_n(read(args, start, code_.size() - 1), n, out);
  }

 private:
  const T* read(std::span<const T* const> args, int64_t start, size_t i) const {
    return place_[i] ? place_[i] : nth(args, code_[i].index) + start;
  }

  std::span<const Instruction> code_;
  Layout layout_;
  std::unique_ptr<T[]> scratch_;
  std::vector<T*> place_;
};

}  // namespace

ExprProgram::ExprProgram(const ScalarExpr& expression)
    : code_(flatten(expression.expand())), calls_(flatten(expression)), arity_(expression.arity()) {}

bool ExprProgram::supportsInteger() const {
  return std::all_of(calls_.begin(), calls_.end(), [](const Instruction& i) {
    switch (i.op) {
      case Op::sqrt:
      case Op::pow2:
      case Op::exponent:
      case Op::mantissa: return false;
      case Op::constant: return std::isinf(i.value) || std::trunc(i.value) == i.value;
      case Op::call: return nth(ScalarExpr::functions(), i.index).integer != nullptr;
      default: return true;
    }
  });
}

template <class T>
void ExprProgram::run(std::span<const T* const> args, std::span<const int> strides, T* out, int64_t n) const {
  QC_REQUIRE("ExprProgram::run", static_cast<int>(args.size()) >= arity_ && strides.size() == args.size(),
             "{} arguments and {} strides for {}", args.size(), strides.size(), arity_);
  QC_REQUIRE("ExprProgram::run", std::is_floating_point_v<T> || supportsInteger(), "an expression of floats on integers");
  if (n <= 0) return;
  const int block = static_cast<int>(std::min<int64_t>(n, kBlock));
  Runner<T> runner(std::is_same_v<T, float> ? code_ : calls_, args, strides, block);
  for (int64_t start = 0; start < n; start += block)
    runner.run(args, start, out + start, static_cast<int>(std::min<int64_t>(block, n - start)));
}

template void ExprProgram::run<float>(std::span<const float* const>, std::span<const int>, float*, int64_t) const;
template void ExprProgram::run<double>(std::span<const double* const>, std::span<const int>, double*, int64_t) const;
template void ExprProgram::run<int64_t>(std::span<const int64_t* const>, std::span<const int>, int64_t*, int64_t) const;
template void ExprProgram::run<uint64_t>(std::span<const uint64_t* const>, std::span<const int>, uint64_t*, int64_t) const;

float ExprProgram::operator()(std::span<const float> args) const {
  std::vector<const float*> pointers;
  for (const float& a : args) pointers.push_back(&a);
  const std::vector<int> strides(args.size(), 0);
  float result = 0;
  run<float>(pointers, strides, &result, 1);
  return result;
}

}  // namespace qc
