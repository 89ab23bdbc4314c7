#include "codegen/emit/products.h"

#include <algorithm>

namespace qc {

using namespace llvm::Intrinsic;

struct ProductRow {
  // How the instruction takes its operands.
  enum class Way : uint8_t {
    accumulates,  // (sum, a, b), all as 32-bit lanes
    overloaded,   // the same; a and b as bytes, in one intrinsic for vectors of all lengths
    addsWords,    // sum + f(a, b) of 16-bit elements
    pairsBytes,   // 16-bit sums of two, f(a, b) of bytes, which a product of words with ones adds up
    evenAndOdd,   // as two products of words: of the even bytes and of the odd ones
  };
  Product form;
  int lanes;
  Isa isa;
  llvm::Intrinsic::ID id;
  Way way;
};

namespace {

using Way = ProductRow::Way;

// The first that is there is taken.
constexpr ProductRow kTable[] = {
    {Product::bytes, 16, Isa::avx512vnni, x86_avx512_vpdpbusd_512, Way::accumulates},
    {Product::bytes, 8, Isa::avxvnni, x86_avx512_vpdpbusd_256, Way::accumulates},
    {Product::bytes, 4, Isa::i8mm, aarch64_neon_usdot, Way::overloaded},
    {Product::bytes, 8, Isa::avx2, x86_avx2_pmadd_wd, Way::evenAndOdd},
    {Product::signedBytes, 4, Isa::dotprod, aarch64_neon_sdot, Way::overloaded},
    {Product::bytePairs, 16, Isa::avx512, x86_avx512_pmaddubs_w_512, Way::pairsBytes},
    {Product::bytePairs, 8, Isa::avx2, x86_avx2_pmadd_ub_sw, Way::pairsBytes},
    {Product::words, 16, Isa::avx512vnni, x86_avx512_vpdpwssd_512, Way::accumulates},
    {Product::words, 8, Isa::avxvnni, x86_avx512_vpdpwssd_256, Way::accumulates},
    {Product::words, 16, Isa::avx512, x86_avx512_pmaddw_d_512, Way::addsWords},
    {Product::words, 8, Isa::avx2, x86_avx2_pmadd_wd, Way::addsWords},
};

const ProductRow* rowFor(Product form, int lanes, IsaSet isas) {
  const auto* const found = std::find_if(std::begin(kTable), std::end(kTable), [&](const ProductRow& row) {
    return row.form == form && row.lanes == lanes && (isas & isaBit(row.isa)) != 0;
  });
  return found == std::end(kTable) ? nullptr : found;
}

}  // namespace

Products::Products(KernelEmitter& e, Product form, int lanes, IsaSet isas)
    : e_(e), form_(form), lanes_(lanes), isas_(isas), row_(rowFor(form, lanes, isas)) {
  QC_CHECK(row_ || form == Product::bytes || form == Product::words || form == Product::floats,
           "no instruction and no plain code for product {} on {} lanes", static_cast<int>(form), lanes);
  if (row_ && row_->way == Way::pairsBytes) ones_ = e.ints(1, e.i16(2 * lanes));
}

Reg Products::addPairs(KernelEmitter& e, Reg sum, Reg a, Reg b) {
  return Products(e, Product::words, KernelEmitter::lanesOf(sum), e.target().isas).add(sum, a, b);
}

bool Products::isSingle(Product form, int lanes, IsaSet isas) {
  const ProductRow* row = rowFor(form, lanes, isas);
  return form == Product::floats || (row && (row->way == Way::accumulates || row->way == Way::overloaded));
}
bool Products::isSingle() const { return isSingle(form_, lanes_, isas_); }

Reg Products::add(Reg sum, Reg a, Reg b) const {
  if (!row_) return addPlain(sum, a, b);
  llvm::Type *bytes = e_.i8(4 * lanes_), *words = e_.i16(2 * lanes_);
  const auto as = [&](Reg v, llvm::Type* type) { return e_.bitcast(v, type); };
  switch (row_->way) {
    case Way::accumulates: return e_.intrinsic(row_->id, {sum, a, b});
    case Way::overloaded: return e_.b.CreateIntrinsic(row_->id, {e_.i32(lanes_), bytes}, {sum, as(a, bytes), as(b, bytes)});
    case Way::addsWords: return e_.b.CreateAdd(sum, e_.intrinsic(row_->id, {as(a, words), as(b, words)}));
    case Way::pairsBytes: {
      Reg pairs = e_.intrinsic(row_->id, {as(a, bytes), as(b, bytes)});
      return Products(e_, Product::words, lanes_, isas_).add(sum, as(pairs, e_.i32(lanes_)), as(ones_, e_.i32(lanes_)));
    }
    case Way::evenAndOdd: {
      // As 16-bit words: a unsigned, b signed.
      Reg x = as(a, words), w = as(b, words), eight = e_.ints(8, words);
      const auto add = [&](Reg p, Reg q) { sum = e_.b.CreateAdd(sum, e_.intrinsic(row_->id, {p, q})); };
      add(e_.b.CreateAnd(x, e_.ints(255, words)), e_.b.CreateAShr(e_.b.CreateShl(w, eight), eight));
      add(e_.b.CreateLShr(x, eight), e_.b.CreateAShr(w, eight));
      return sum;
    }
  }
  return nullptr;
}

Reg Products::addPlain(Reg sum, Reg a, Reg b) const {
  if (form_ == Product::floats) return e_.fma(e_.bitcast(a, e_.f32(lanes_)), e_.bitcast(b, e_.f32(lanes_)), sum);
  llvm::Type* ints = e_.i32(lanes_);
  if (form_ == Product::words) {
    Reg half = e_.ints(16, ints);
    const auto high = [&](Reg v) { return e_.b.CreateAShr(v, half); };
    const auto low = [&](Reg v) { return high(e_.b.CreateShl(v, half)); };
    return e_.b.CreateAdd(sum, e_.b.CreateAdd(e_.b.CreateMul(low(a), low(b)), e_.b.CreateMul(high(a), high(b))));
  }
  for (int k = 0; k < 4; ++k) {
    Reg x = e_.b.CreateAnd(e_.b.CreateLShr(a, e_.ints(8 * k, ints)), e_.ints(255, ints));
    Reg w = e_.b.CreateAShr(e_.b.CreateShl(b, e_.ints(24 - 8 * k, ints)), e_.ints(24, ints));
    sum = e_.b.CreateAdd(sum, e_.b.CreateMul(x, w));
  }
  return sum;
}

}  // namespace qc
