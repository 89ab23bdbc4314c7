// The discrete Fourier transform of several rows at once, a lane each: their numbers are brought side by side as doubles, transformed as
// ir/ops/fourier.h has it, and brought back.  A unit is a vector of rows.  The meaning is that of ir/ops/dft.cpp.  Tests:
// tests/kernels/spectrum_test.cpp.
#include <algorithm>
#include <array>
#include <bit>

#include "codegen/emit/numbers.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/fourier.h"

namespace qc {
namespace {

struct SpectrumPlan {
  Number rows, given;  // numbers in a row of x
  int64_t parts = 1;   // of a number of x
  int64_t length = 1;
  int width = 1;  // rows of a unit

  int64_t units() const { return (rows.value + width - 1) / width; }
  int64_t bufferBytes() const { return length * width * 16; }
  void eachNumber(const NumberVisitor& visit) { visit(rows), visit(given); }
  std::string form() const { return fmt::format("{} rows of {}", width, parts); }
  KernelShape shape() const { return {units(), 2 * bufferBytes()}; }
};

std::optional<SpectrumPlan> planSpectrum(const Node& node, const Target& target) {
  constexpr int64_t kMostBytes = int64_t{1} << 20, kMostLength = int64_t{1} << 20;  // of a buffer, where rows need not be alone
  const Shape& x = node.operand(0)->type().shape;
  if (!isReal(node.operand(0)->type().dtype) || node.result()->type().numElements() == 0) return std::nullopt;
  SpectrumPlan plan{product(std::span(x).first(x.size() - 2)), Number(x[x.size() - 2]), x.back().size(),
                    constants(node.attrs().dims("length")).value()[0], static_cast<int>(target.vectorBytes() / 8)};
  if (plan.length > kMostLength) return std::nullopt;
  const auto isWide = [&] { return (!plan.rows.isFree && plan.width / 2 >= plan.rows.value) || plan.bufferBytes() > kMostBytes; };
  while (plan.width > 1 && isWide()) plan.width /= 2;
  return plan;
}

Work workOfSpectrum(const SpectrumPlan& plan, const Node& node, const Target&) {
  const auto units = static_cast<double>(plan.units()), length = static_cast<double>(plan.length);
  double passes = 0, terms = 0;
  for (const int64_t factor : fourierFactors(plan.length)) {
    if (factor <= kLargestWrittenFactor)
      passes += length;
    else
      terms += length * static_cast<double>(factor);
  }
  const auto elements = [](const Value* v) { return static_cast<double>(v->type().numElements()); };
  return {{"call", 1},
          {"moved", elements(node.operand(0)) + elements(node.result())},
          {"number", units * length},
          {"pass", units * passes},
          {"term", units * terms}};
}

// Registers with the operators that FourierTransform writes with.
struct DoubleLanes {
  KernelEmitter* e = nullptr;
  Reg reg = nullptr;

  friend DoubleLanes operator+(DoubleLanes a, DoubleLanes b) { return {a.e, a.e->b.CreateFAdd(a.reg, b.reg)}; }
  friend DoubleLanes operator-(DoubleLanes a, DoubleLanes b) { return {a.e, a.e->b.CreateFSub(a.reg, b.reg)}; }
  friend DoubleLanes operator*(DoubleLanes a, DoubleLanes b) { return {a.e, a.e->b.CreateFMul(a.reg, b.reg)}; }
  friend DoubleLanes operator*(double factor, DoubleLanes a) {
    return {a.e, a.e->b.CreateFMul(llvm::ConstantFP::get(a.reg->getType(), factor), a.reg)};
  }
  DoubleLanes operator-() const { return {e, e->b.CreateFNeg(reg)}; }
};

struct RunningPlace {
  KernelEmitter* e = nullptr;
  Reg reg = nullptr;

  friend RunningPlace operator+(RunningPlace a, RunningPlace b) { return {a.e, a.e->b.CreateAdd(a.reg, b.reg)}; }
  friend RunningPlace operator+(RunningPlace a, int64_t b) { return {a.e, a.e->b.CreateAdd(a.reg, a.e->i64(b))}; }
  friend RunningPlace operator*(RunningPlace a, RunningPlace b) { return {a.e, a.e->b.CreateMul(a.reg, b.reg)}; }
  friend RunningPlace operator*(RunningPlace a, int64_t b) { return {a.e, a.e->b.CreateMul(a.reg, a.e->i64(b))}; }
};

// Of FourierTransform: the code of it, on rows that lie side by side in scratch memory, and how they come and go.
class SpectrumEmitter {
 public:
  using Number = DoubleLanes;
  using Place = RunningPlace;
  using Complex = ComplexOf<DoubleLanes>;

  SpectrumEmitter(KernelEmitter& e, const Node& node, const SpectrumPlan& plan)
      : e_(e),
        plan_(plan),
        elements_(e, node.operand(0)->type().dtype),
        made_(node.result()->type().sizes().back()),
        inverse_(node.integer("inverse") != 0),
        mirrored_(inverse_ && node.integer("onesided") != 0),
        wanted_(made_ == 2 && node.integer("onesided") != 0 ? plan.length / 2 + 1 : plan.length),
        doubles_(KernelEmitter::vectorOf(e.b.getDoubleTy(), plan.width)) {
    std::vector<int32_t> words;
    for (const UnitRoot& root : fourierRoots(plan.length))
      for (const double part : {root.cos, root.sin}) {
        const auto halves = std::bit_cast<std::array<int32_t, 2>>(part);
        words.insert(words.end(), halves.begin(), halves.end());
      }
    roots_ = e.table(words);
  }

  KernelShape emit() {
    llvm::IRBuilder<>& b = e_.b;
    Reg last = b.CreateSub(e_.number(plan_.rows), e_.i64(1)), given = e_.number(plan_.given);
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) {
      std::vector<Reg> from, to;  // the addresses of the rows; those beyond the last one are it
      for (int lane = 0; lane < plan_.width; ++lane) {
        Reg row = e_.minOf(b.CreateAdd(b.CreateMul(unit, e_.i64(plan_.width)), e_.i64(lane)), last);
        from.push_back(elements_.place(e_.operand(0), b.CreateMul(row, b.CreateMul(given, e_.i64(plan_.parts)))));
        to.push_back(elements_.place(e_.result(), b.CreateMul(row, e_.i64(wanted_ * made_))));
      }
      bring(from, given);
      const int result = FourierTransform(*this, plan_.length).run();
      e_.loop(e_.i64(0), e_.i64(wanted_), 1, [&](Reg k) { take(to, k, read(result, {&e_, k})); }, true);
    });
    return plan_.shape();
  }

  template <class Body>
  void each(int64_t from, int64_t to, Body&& body) {
    if (to == from + 1) return body(Place{&e_, e_.i64(from)});
    e_.loop(e_.i64(from), e_.i64(to), 1, [&](Reg i) { body(Place{&e_, i}); }, true);
  }
  Complex read(int buffer, Place place) {
    Reg at = address(buffer, place);
    return {{&e_, e_.load(doubles_, at)}, {&e_, e_.load(doubles_, e_.at(at, int64_t{8} * plan_.width))}};
  }
  void write(int buffer, Place place, Complex z) {
    Reg at = address(buffer, place);
    e_.store(z.re.reg, at);
    e_.store(z.im.reg, e_.at(at, int64_t{8} * plan_.width));
  }
  Complex root(Place k) {
    Reg at = e_.at(roots_, e_.b.CreateShl(k.reg, 4));
    const auto part = [&](int64_t offset) { return e_.splat(e_.load(e_.b.getDoubleTy(), e_.at(at, offset)), plan_.width); };
    return {{&e_, part(0)}, {&e_, part(8)}};
  }
  template <class Term>
  Complex sum(Complex first, int64_t count, Place step, Term&& term) {
    const KernelEmitter::Values all = e_.loop(
        e_.i64(1), e_.i64(count), 1, {first.re.reg, first.im.reg, step.reg},
        [&](Reg r, KernelEmitter::Values& carried) {
          Reg turns = carried[2], next = e_.b.CreateAdd(turns, step.reg);
          const Complex sum = Complex{{&e_, carried[0]}, {&e_, carried[1]}} + term(Place{&e_, r}, Place{&e_, turns});
          Reg around = e_.b.CreateSub(next, e_.i64(count));
          carried = {sum.re.reg, sum.im.reg, e_.b.CreateSelect(e_.b.CreateICmpSLT(next, e_.i64(count)), next, around)};
        },
        true);
    return {{&e_, all[0]}, {&e_, all[1]}};
  }

 private:
  Reg address(int buffer, Place place) {
    return e_.at(e_.scratch(),
                 e_.b.CreateAdd(e_.b.CreateMul(place.reg, e_.i64(int64_t{16} * plan_.width)), e_.i64(buffer * plan_.bufferBytes())));
  }
  Complex swapped(Complex z) const { return inverse_ ? Complex{z.im, z.re} : z; }
  Number zero() { return {&e_, llvm::Constant::getNullValue(doubles_)}; }

  // The rows side by side in buffer 0, zeros behind them.
  void bring(const std::vector<Reg>& rows, Reg given) {
    llvm::IRBuilder<>& b = e_.b;
    const int64_t most = mirrored_ ? plan_.length / 2 + 1 : plan_.length;
    Reg used = e_.minOf(given, e_.i64(most));
    e_.loop(used, e_.i64(plan_.length), 1, [&](Reg k) { write(0, {&e_, k}, {zero(), zero()}); });
    if (!mirrored_) {
      e_.loop(e_.i64(0), used, 1,
              [&](Reg k) { write(0, {&e_, k}, swapped({part(rows, k, 0), plan_.parts == 2 ? part(rows, k, 1) : zero()})); });
      return;
    }
    const auto own = [&](Reg k) { write(0, {&e_, k}, swapped({part(rows, k, 0), zero()})); };  // that is its own conjugate
    e_.ifThen(b.CreateICmpSGT(used, e_.i64(0)), [&] { own(e_.i64(0)); });
    e_.loop(e_.i64(1), e_.minOf(used, e_.i64((plan_.length + 1) / 2)), 1, [&](Reg k) {
      const Number re = part(rows, k, 0), im = part(rows, k, 1);
      write(0, {&e_, k}, swapped({re, im}));
      write(0, {&e_, b.CreateSub(e_.i64(plan_.length), k)}, swapped({re, -im}));
    });
    if (plan_.length % 2 == 0) e_.ifThen(b.CreateICmpEQ(used, e_.i64(most)), [&] { own(e_.i64(plan_.length / 2)); });
  }

  // Part 0 or 1 of number k of every row.
  Number part(const std::vector<Reg>& rows, Reg k, int64_t which) {
    Reg place = e_.b.CreateAdd(e_.b.CreateMul(k, e_.i64(plan_.parts)), e_.i64(which));
    Reg all = llvm::PoisonValue::get(KernelEmitter::vectorOf(elements_.storage(), plan_.width));
    for (size_t lane = 0; lane < rows.size(); ++lane)
      all = e_.b.CreateInsertElement(all, e_.load(elements_.storage(), elements_.place(rows[lane], place)), lane);
    return {&e_, e_.b.CreateFPExt(all, doubles_)};
  }

  // Number k of every row of the result.
  void take(const std::vector<Reg>& rows, Reg k, Complex z) {
    z = swapped(z);
    const auto final = [&](Number v) {
      if (inverse_) v = 1 / static_cast<double>(plan_.length) * v;
      return e_.b.CreateFPTrunc(v.reg, KernelEmitter::vectorOf(elements_.storage(), plan_.width));
    };
    Reg re = final(z.re), im = made_ == 2 ? final(z.im) : re, place = e_.b.CreateMul(k, e_.i64(made_));
    for (size_t lane = 0; lane < rows.size(); ++lane) {
      const auto at = static_cast<int>(lane);
      const std::array<int, 2> picked{at, at + plan_.width};
      e_.store(e_.b.CreateShuffleVector(re, im, llvm::ArrayRef(picked.data(), usize(made_))), elements_.place(rows[lane], place));
    }
  }

  KernelEmitter& e_;
  const SpectrumPlan& plan_;
  const Numbers elements_;
  const int64_t made_;  // parts of a number of the result
  const bool inverse_, mirrored_;
  const int64_t wanted_;
  llvm::Type* const doubles_;
  Reg roots_ = nullptr;
};

Result<KernelShape> emitSpectrum(KernelEmitter& e, const Node& node, const SpectrumPlan& plan) {
  return SpectrumEmitter(e, node, plan).emit();
}

}  // namespace

std::vector<KernelDef> dftKernels() {
  return kernelsOf(KernelFamily<SpectrumPlan>{.ops = {"dft"},
                                              .rows = {{"dft"}},
                                              .plan = planSpectrum,
                                              .work = workOfSpectrum,
                                              .onlyNumbers = always<SpectrumPlan>,
                                              .emit = emitSpectrum});
}

}  // namespace qc
