// The end of a convolution or matrix product: accumulators to stored results, composed from the node's form.
//
// The formulas are those of ir/epilogue_form.h, the factors of a quantized layer its operand `scale`.
//
// Accumulators come as rows x vectors of columns.  On x86 four vectors leave at a time through vpackssdw and vpackuswb;
// the packed column order (ir/packing.h) makes their lane-wise interleaving come out in natural channel order:
// one row of four vectors, two rows of two, or four rows of one.
#pragma once

#include <vector>

#include "codegen/emit/emit.h"
#include "ir/epilogue_form.h"
#include "ir/packing.h"

namespace qc {

class Epilogue {
 public:
  // Reads the form of a k.conv or k.weight_linear node.  Emits the loop-invariant values where the builder stands.
  Epilogue(KernelEmitter& e, const Node& node, const Packing& packing);

  bool hasResidual() const { return residualBytes_ > 0; }
  int resultBytes() const { return resultBytes_; }      // of one element
  int residualBytes() const { return residualBytes_; }  // 0 without residual

  // Stores a tile.  acc[row * vectors + vector]: i32 (bias already added) or f32 accumulators.  channels: byte pointers
  // to the panel's part of scale and bias.  results and residuals: one pointer per row, to the panel's first channel.
  // valid: which of the panel's columns exist, one bit each (i64), for targets with masks; null: all of them.
  struct Channels {
    Reg scale = nullptr, bias = nullptr, valid = nullptr;
  };
  // Whether `valid` may be used; else the caller keeps rows whole.
  static bool takesMasks(const KernelEmitter& e, const Packing& packing) { return e.has(Isa::avx512) && packing.panel <= 64; }
  void store(const std::vector<Reg>& acc, int rows, int vectors, const Channels& channels, const std::vector<Reg>& results,
             const std::vector<Reg>& residuals);

 private:
  struct Chunk;  // four vectors that are packed together
  Reg value(Reg acc, const Channels& channels, int vector, Reg residual);
  Reg quantizedBytes(const std::vector<Reg>& values);
  std::vector<Reg> residualOf(const Chunk& chunk, const Channels& channels, const std::vector<Reg>& residuals);
  Reg loadBytes(const Chunk& chunk, const Channels& channels, const std::vector<Reg>& rows);
  void storeBytes(const Chunk& chunk, const Channels& channels, Reg bytes, const std::vector<Reg>& rows);
  // `count` elements of a row from column `column` on, those that exist.
  Reg mask(const Channels& channels, int64_t column, int count);
  Reg loadColumns(llvm::Type* type, Reg row, const Channels& channels, int64_t column);
  void storeColumns(Reg value, Reg row, const Channels& channels, int64_t column);
  std::vector<Chunk> chunks(int rows, int vectors) const;
  void storeNatural(const std::vector<Reg>& acc, int rows, int vectors, const Channels& channels, const std::vector<Reg>& results,
                    const std::vector<Reg>& residuals);

  KernelEmitter& e_;
  Packing packing_;
  EpilogueForm form_;
  bool packs_ = false, bounded_ = false, residualQuantized_ = false;
  DType result_ = DType::f32, residual_ = DType::f32;
  int resultBytes_ = 4, residualBytes_ = 0;
  Reg zeroWords_ = nullptr, lowBytes_ = nullptr, highBytes_ = nullptr, inverse_ = nullptr;
  Reg residualScale_ = nullptr, residualZero_ = nullptr;
  KernelEmitter::Bounds bounds_{};
};

}  // namespace qc
