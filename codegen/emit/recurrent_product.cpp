// Several panels of rows at a time, so that the chains of sums overlap.  Tests: tests/kernels/recurrent_test.cpp.
#include "codegen/emit/recurrent_product.h"

#include <algorithm>

#include "codegen/emit/dynamic.h"
#include "codegen/emit/products.h"
#include "codegen/emit/vector_loop.h"

namespace qc {
namespace {

using Operand = RecurrentForm::Operand;
using Values = KernelEmitter::Values;
constexpr int64_t kPanel = RecurrentForm::kPanel;
constexpr int64_t kChains = 8;  // of sums, and twice as many where there are registers for them

int lanesOf(const KernelEmitter& e) { return std::min<int>(e.lanes(), kPanel); }

class FloatProduct : public RecurrentProductEmitter {
 public:
  FloatProduct(KernelEmitter& e, const RecurrentForm& form) : RecurrentProductEmitter(e, form, kPanel / lanesOf(e)) {}

  void begin(int64_t direction, Reg /*scratch*/) override {
    weights_ = e_.opaque(e_.at(e_.operand(form_.place(Operand::r)), direction * form_.gates * form_.panels() * panelBytes()));
  }
  int64_t mostAtOnce() const override { return std::clamp<int64_t>(chains(4) / perPanel_, 1, 4); }

 private:
  int64_t panelBytes() const { return form_.panelSize() * 4; }

  void multiplyPanels(std::span<const Entry> entries, Reg first, int64_t count) override {
    Reg base = e_.opaque(e_.at(weights_, mul(first, panelBytes())));
    Values acc(entries.size() * usize(count * perPanel_), e_.floats(0, lanes_));  // those of one register side by side
    acc = e_.loop(
        e_.i64(0), e_.i64(form_.hidden), 1, acc,
        [&](Reg k, Values& values) {
          Values factors;
          for (const Entry& entry : entries) factors.push_back(e_.splat(e_.load(e_.f32(), e_.at(entry.vector, mul(k, 4))), lanes_));
          Reg line = e_.at(base, mul(k, kPanel * 4));
          auto sum = values.begin();
          for (int64_t i = 0; i < count * perPanel_; ++i) {
            Reg w = e_.load(e_.f32(lanes_), e_.at(line, i / perPanel_ * panelBytes() + i % perPanel_ * lanes_ * 4));
            for (Reg factor : factors) {
              *sum = e_.fma(w, factor, *sum);
              ++sum;
            }
          }
        },
        true);
    for (size_t i = 0; i < acc.size(); ++i) {
      Reg to = e_.at(entries[i % entries.size()].sums, mul(first, kPanel * 4));
      e_.store(acc[i], e_.at(to, static_cast<int64_t>(i / entries.size()) * lanes_ * 4));
    }
  }

  Reg weights_ = nullptr;
};

// A line of a panel is kGroup products for each of its rows.  Where the target sums four products of bytes in a lane, the state is kept
// as u8 and a lane is a row; else as 16-bit integers, and two neighbouring lanes hold two products each of one row.
class IntegerProduct : public RecurrentProductEmitter {
 public:
  IntegerProduct(KernelEmitter& e, const Node& node, const RecurrentForm& form)
      : RecurrentProductEmitter(e, form, kPanel / lanesOf(e) * (sumsBytes(e, node, form) ? 1 : 2)),
        range_(dynamicRangeOf(node.attrs())),
        lowest_(static_cast<int32_t>(rangeOf(range_.storage).min)),
        weight_(node.operand(form.place(Operand::r))->type().dtype),
        inBytes_(sumsBytes(e, node, form)) {}

  bool takesWholeBatch() const override { return true; }
  int64_t scratchBytes(int64_t batch) const override { return batch * stateBytes(); }

  void begin(int64_t direction, Reg scratch) override {
    const int64_t panels = direction * form_.gates * form_.panels();
    const auto operand = [&](Operand o, int64_t bytes) { return e_.opaque(e_.at(e_.operand(form_.place(o)), panels * bytes)); };
    weights_ = operand(Operand::r, panelBytes());
    scales_ = operand(Operand::scale, kPanel * 4);
    sums_ = operand(Operand::sums, kPanel * 4);
    integers_ = scratch;
  }

  void prepare(int64_t batch, const VectorOf& vectorOf, const VectorOf& runs) override {
    const Rows rows(e_, {1, form_.hidden, 1}, e_.i64(0), nullptr, laneCount(e_, form_.hidden), 1);
    Values extremes = noExtremes(rows);
    const auto entries = [&](const std::function<void(Reg, Values&)>& body) {
      extremes = e_.loop(e_.i64(0), e_.i64(batch), 1, extremes, body, true);
    };
    entries([&](Reg entry, Values& found) {
      if (!runs) return void(found = takeExtremes(rows, vectorOf(entry), found));
      found = e_.loop(e_.i64(0), e_.b.CreateZExt(runs(entry), e_.b.getInt64Ty()), 1, found,
                      [&](Reg, Values& ofRunning) { ofRunning = takeExtremes(rows, vectorOf(entry), ofRunning); });
    });
    const auto [scale, zeroPoint] = paramsFromExtremes(rows, extremes, range_);
    const auto scalar = [&](Reg v) { return e_.b.CreateExtractElement(v, uint64_t{0}); };
    const auto bounds = e_.bounds(scalar(zeroPoint), e_.i32c(range_.qmin), e_.i32c(range_.qmax));
    Reg lowest = e_.ints(lowest_, e_.i32(rows.width()));
    entries([&, scale = scale](Reg entry, Values&) {
      Reg from = vectorOf(entry), to = stateOf(entry);
      rows.each([&](Reg i, LaneCount lanes) {
        Reg q = e_.b.CreateSub(e_.roundClamp(e_.b.CreateFDiv(rows.load(from, i, lanes), scale), bounds), lowest);
        static_assert(RecurrentForm::kGroup <= 4, "a vector, of at least 4, fills the last group");
        q = rows.masked(q, lanes, e_.ints(0, e_.i32(rows.width())));  // behind the last element the weights may be anything
        e_.store(e_.b.CreateTrunc(q, inBytes_ ? e_.i8(rows.width()) : e_.i16(rows.width())), e_.at(to, mul(i, elementBytes())));
      });
    });
    scale_ = e_.splat(scalar(scale), lanes_);
    zero_ = e_.splat(e_.b.CreateSub(scalar(zeroPoint), e_.i32c(lowest_)), lanes_);
  }

 private:
  static bool sumsBytes(const KernelEmitter& e, const Node& node, const RecurrentForm& form) {
    return node.operand(form.place(Operand::r))->type().dtype == DType::s8 &&
           Products::isSingle(Product::bytes, lanesOf(e), e.target().isas);
  }

  int64_t panelBytes() const { return form_.panelSize() * sizeOf(weight_); }
  int64_t elementBytes() const { return inBytes_ ? 1 : 2; }
  int64_t stateBytes() const { return form_.panels() * kPanel * elementBytes(); }  // whole vectors
  Reg stateOf(Reg entry) { return e_.at(integers_, mul(entry, stateBytes())); }

  void multiplyPanels(std::span<const Entry> entries, Reg first, int64_t count) override {
    Reg factors = stateOf(entries[0].index), sums = entries[0].sums;
    Reg base = e_.opaque(e_.at(weights_, mul(first, panelBytes())));
    Values acc(usize(count * perPanel_), e_.ints(0, e_.i32(lanes_)));
    acc = e_.loop(
        e_.i64(0), e_.i64(form_.lines()), 1, acc,
        [&](Reg line, Values& values) {
          const int64_t lineBytes = kPanel * form_.group() * sizeOf(weight_);
          Reg factor = splatGroup(e_.at(factors, mul(line, form_.group() * elementBytes()))), from = e_.at(base, mul(line, lineBytes));
          for (int64_t i = 0; i < count * perPanel_; ++i) {
            Reg& sum = nth(values, i);
            sum = addProducts(sum, factor, e_.at(from, i / perPanel_ * panelBytes() + i % perPanel_ * (lineBytes / perPanel_)));
          }
        },
        true);
    if (!inBytes_) acc = pairsJoined(acc);
    Reg start = mul(first, kPanel * 4), to = e_.at(sums, start), scales = e_.at(scales_, start), rowSums = e_.at(sums_, start);
    for (size_t i = 0; i < acc.size(); ++i) {
      const int64_t place = static_cast<int64_t>(i) * lanes_ * 4;
      Reg offset = e_.b.CreateMul(zero_, e_.load(e_.i32(lanes_), e_.at(rowSums, place)));
      Reg scale = e_.b.CreateFMul(scale_, e_.load(e_.f32(lanes_), e_.at(scales, place)));
      e_.store(e_.b.CreateFMul(e_.toFloat(e_.b.CreateSub(acc[i], offset)), scale), e_.at(to, place));
    }
  }

  // One group of the state for every row.
  Reg splatGroup(Reg address) {
    if (inBytes_) return e_.splat(e_.load(e_.b.getInt32Ty(), address), lanes_);
    return e_.bitcast(e_.splat(e_.load(e_.b.getInt64Ty(), address), lanes_ / 2), e_.i32(lanes_));
  }
  Reg addProducts(Reg sum, Reg factor, Reg weights) {
    if (inBytes_) return Products(e_, Product::bytes, lanes_, e_.target().isas).add(sum, factor, e_.load(e_.i32(lanes_), weights));
    Reg words = weight_ == DType::s16 ? e_.load(e_.i16(2 * lanes_), weights)
                                      : e_.b.CreateSExt(e_.load(e_.i8(2 * lanes_), weights), e_.i16(2 * lanes_));
    return Products::addPairs(e_, sum, factor, e_.bitcast(words, e_.i32(lanes_)));
  }
  // One lane per row.
  Values pairsJoined(const Values& acc) {
    Values joined;
    llvm::SmallVector<int> even, odd;
    for (int i = 0; i < lanes_; ++i) {
      even.push_back(2 * i);
      odd.push_back(2 * i + 1);
    }
    for (size_t i = 0; i < acc.size(); i += 2)
      joined.push_back(
          e_.b.CreateAdd(e_.b.CreateShuffleVector(acc[i], acc[i + 1], even), e_.b.CreateShuffleVector(acc[i], acc[i + 1], odd)));
    return joined;
  }

  DynamicRange range_;
  int32_t lowest_;  // of the storage type: the state is kept relative to it
  DType weight_;
  bool inBytes_;
  Reg weights_ = nullptr, scales_ = nullptr, sums_ = nullptr, integers_ = nullptr;
  Reg scale_ = nullptr, zero_ = nullptr;  // of the product under way
};

}  // namespace

std::unique_ptr<RecurrentProductEmitter> RecurrentProductEmitter::of(KernelEmitter& e, const Node& node, const RecurrentForm& form) {
  if (form.dynamic) return std::make_unique<IntegerProduct>(e, node, form);
  return std::make_unique<FloatProduct>(e, form);
}

int64_t RecurrentProductEmitter::chains(int64_t entries) const {
  const bool manyRegisters = e_.target().arch == Arch::aarch64 || lanes_ == 16;
  return entries > 1 && manyRegisters ? 2 * kChains : kChains;
}

void RecurrentProductEmitter::multiply(std::span<const Entry> entries, int64_t first, int64_t count) {
  const auto size = static_cast<int64_t>(entries.size());
  const int64_t most = std::max<int64_t>(chains(size) / (perPanel_ * size), 1), panels = count * form_.panels();
  const int64_t groups = (panels + most - 1) / most, each = (panels + groups - 1) / groups, from = first * form_.panels();
  e_.loop(
      e_.i64(0), e_.i64(panels / each), 1, [&](Reg i) { multiplyPanels(entries, e_.b.CreateAdd(mul(i, each), e_.i64(from)), each); }, true);
  if (panels % each) multiplyPanels(entries, e_.i64(from + panels / each * each), panels % each);
}

}  // namespace qc
