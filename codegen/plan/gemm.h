// The family of implicit-GEMM kernels: what distinguishes its rows (GemmIsa) and how a convolution is cut into work
// units, strips, panels and tiles (GemmPlan).  Selection, packing and the emitter all derive from these.
//
//   unit   = (conv group, block of panels, plane of the result, strip of output rows); an image has one plane, or in 3-d outD
//   strip  : its input rows, of every plane of the kernel, are copied once into scratch, padded with the zero point and widened if the
//            row needs it (staged), or read in place; where most taps lie in the padding (sparse: far dilated ones) each is looked up
//   tile   = `tileRows` consecutive output pixels of the strip x one panel of channels, accumulated in registers.
//            The last tile of a strip overlaps the one before, so there is no second, smaller kernel.
// Panels are the outer loop of a unit and tiles the inner one: a panel of weights stays in a near cache.  One too large for that is cut
// into chunks of kernel rows; the sums of all tiles then wait in scratch between chunks.
//
// On the matrix unit (Product::tiles) a tile's pixels must lie at one constant distance.  The strip is one line of pixels
// if that holds for all of it, else every output row is a line; tiles overlap at the end of a line, and two of them
// are computed at a time, for each weight that is loaded to meet both.
#pragma once

#include <array>

#include "codegen/plan/any_size.h"
#include "codegen/plan/kernel_family.h"
#include "codegen/plan/product.h"
#include "codegen/plan/staged_strip.h"
#include "ir/packed_layout.h"

namespace qc {

struct GemmIsa {
  struct Block {
    int vectors, rows;  // registers: vectors of columns x rows of pixels (of one matrix tile, if the row computes by tiles)
  };
  Product product;
  DType input, weight;  // as multiplied
  int lanes;
  int group;  // elements of k per 32-bit lane
  std::array<Block, 3> blocks;

  int64_t laneBytes() const { return int64_t{group} * sizeOf(weight); }  // of weights that meet a lane of the input
  bool takesWords() const { return input == DType::s16; }                // as they are, or widened bytes
  int inputOffset() const { return product == Product::signedBytes ? 128 : 0; }
  bool usesTiles() const { return product == Product::tiles; }
  bool packs() const { return lanes >= 8; }  // has the lane-wise saturating packs
};

struct GemmPlan {
  const GemmIsa* isa = nullptr;  // of the row
  // As the loops see it: one row of pixels (1-d, linear) is turned into a column of single pixels, so that strips cut
  // it; kernelW and dilationW keep their meaning along k.
  ConvGeometry conv;
  int64_t extentH = 1, extentW = 1;  // input pixels under one output pixel
  Packing packing;
  bool words = false;                   // activations of 16 bits, which are multiplied as they are
  bool wideWeights = false;             // as the problem has them
  int64_t rowsToChooseBy = 0;           // the same
  bool staged = false, sparse = false;  // at most one
  int tileRows = 1;
  int64_t stripRows = 1, strips = 1;                   // output rows; strips per plane
  int64_t panels = 1, panelsPerBlock = 1, blocks = 1;  // of one conv group
  int64_t stagedWidth = 0, stagedRows = 0;             // pixels, rows of one plane of a strip's input
  int64_t chunkRows = 1;  // rows of the kernel, of all its planes, whose weights meet all tiles of a strip before the next do
  // Of Product::tiles.
  bool flat = false;                       // the strip is one line
  int together = 1;                        // tiles of pixels that meet the same tiles of weights at a time
  int depth = 0;                           // elements of k per tile
  int pieceRows = 1;                       // rows of sums that become results together
  int64_t tilesOf(int64_t pixels) const {  // of a strip
    const int64_t line = flat ? pixels : conv.outW;
    return line == 0 ? 0 : pixels / line * ((line + tileRows - 1) / tileRows);
  }

  int64_t units() const { return conv.groups * blocks * conv.planes() * strips; }

  // Sizes as the loops see them.  Where some were free, so is what was cut by them, and the code serves any: any number of rows of a
  // product, any number of images, any height and width (any_size.h).
  AnySize size;
  struct Cut {
    Number stripRows, strips, panelsPerBlock, blocks, planes;
    Number stagedLines, stagedPixels, stripBytes;
    Number tileRows, tilesPerLine, fetchedLines;  // of Product::tiles; cache lines of the next panel that are fetched per step of a block
    void eachNumber(const NumberVisitor& visit) {
      for (Number* n : {&stripRows, &strips, &panelsPerBlock, &blocks, &planes, &stagedLines, &stagedPixels, &stripBytes, &tileRows,
                        &tilesPerLine, &fetchedLines})
        visit(*n);
    }
  } cut;
  int tableSlot = -1;
  bool swapped = false;       // rows and columns were
  int64_t scratchBytes = -1;  // where they depend on sizes that were free
  // Every row of pixels is a row of the product.
  bool isProductOfRows() const { return conv.isMatrixProduct(); }
  bool servesAnySize() const { return size.isFree(); }
  void eachNumber(const NumberVisitor& visit) { size.eachNumber(visit), cut.eachNumber(visit); }
  std::string form() const;
  KernelShape shape() const { return {units(), scratchBytes}; }
  // On the matrix unit: input offsets of the steps of k, in the order of the packed weights.
  std::vector<int32_t> stepOffsets() const;
  bool hasTable() const { return isa->usesTiles() && conv.kernelRows() > 1 && size.hasFreePixels(); }
  std::vector<int32_t> table() const { return hasTable() ? stepOffsets() : std::vector<int32_t>(); }

  StagedStrip strip() const {
    return {conv, size.inH, size.inW, cut.stagedLines, cut.stagedPixels, conv.groupChannels(), isa->input, isa->takesWords() && !words};
  }
  int64_t pixelStride() const { return (staged ? conv.groupChannels() : conv.channels) * sizeOf(isa->input); }  // bytes
  int64_t rowStride() const { return (staged ? stagedWidth * conv.groupChannels() : conv.inW * conv.channels) * sizeOf(isa->input); }
  int64_t planeStride() const { return staged ? stagedRows * rowStride() : conv.dilationD * conv.inH * rowStride(); }
  int64_t pixelBytesOfGroup() const { return conv.groupChannels() * sizeOf(isa->input); }
  int64_t paddingPixelBytes() const { return (pixelBytesOfGroup() + StagedStrip::kSlack + 63) / 64 * 64; }  // in scratch, if sparse
  // Consecutive output pixels lie at one constant distance in the input; not by chance, where the code is for any size.
  bool isLinear() const {
    return conv.outW == 1 || (stripRows == 1 && !size.hasFreePixels()) ||
           conv.strideH * rowStride() == conv.outW * conv.strideW * pixelStride();
  }
};

// What of a convolution the family can compute, before or after packing.
struct GemmProblem {
  ConvGeometry conv;
  bool words = false;                          // activations of 16 bits
  bool packedResult = false;                   // 8-bit, and so is a residual: packed stores
  int64_t resultBytes = 0, residualBytes = 0;  // of an element
  bool wideWeights = false;                    // integers that leave s8 around their zero point
  bool rowsWereFree = false;
  // Rows of a product, and pixels of a plane, by which a kernel and the form of its weights are chosen: the same for every size where they
  // were free, so that the weights are packed once.
  int64_t rowsToChooseBy() const { return rowsWereFree && conv.isMatrixProduct() ? kUsualRows : conv.pixels(); }
  int64_t pixelsToChooseBy() const { return size.hasFreePixels() ? kUsualSide * kUsualSide : conv.outH * conv.outW; }
  static constexpr int64_t kUsualRows = 64, kUsualSide = 40;
  AnySize size;
  static Result<GemmProblem> of(const Node& node);
  // The same where rows, height and width that were free have sizes as they usually do; nothing if none was.
  std::optional<GemmProblem> usual() const;
};
GemmPlan planGemm(const KernelRow<GemmIsa>& row, const GemmProblem& problem, const Target& target);
// GemmPlan::size and cut of a plan whose other members are there: plan/gemm_sizes.cpp.
void serveSizes(GemmPlan& plan, const GemmProblem& problem);
Work workOfGemm(const GemmPlan& plan, const Node& node);  // cost.h

// Those of rows that compute in floats, for families that differ in what the weights are.
extern const GemmIsa kGemmF32Avx512, kGemmF32Avx2, kGemmF32Neon, kGemmF32Generic;

Result<KernelShape> emitGemm(KernelEmitter& e, const Node& node, const GemmPlan& plan);  // emit/conv_gemm.cpp

// --- the node, before or after packing: plan/gemm_weights.cpp ---

// Types that kernels of convolutions take: u8, s16 or f32 activations, a residual of the result's shape; weights and bias of integers are
// constants.
bool hasConvTypes(const Node& node);
bool computesInIntegers(const Node& node);
std::vector<int64_t> weightShapeOf(const Node& node);

// --- before packing ---

// Constant weights of at most 8 bits, some of which leave s8 around their zero point.
bool hasWideWeights(const Node& node);
// Whether the weights are what kernels with such elements take: f32, f32 constants that are f16 as well to the bit, or bytes that are s8,
// or two halves of it, around their zero point.
bool takesWeights(const Node& node, DType element);
// vpmaddubsw adds two products of u8 and s8 with 16-bit saturation: no pair of weights may reach it for any input.
bool pairsStayExact(const Node& node, const GemmPlan& plan);

// The k.conv node in front of the builder's position with `node`'s weights, scales and bias in the given layout.  Floats that are computed
// are packed by nodes in front of it.
// `node` is one of conv, linear, q.conv, q.linear whose weights the kernel takes.
Result<Node*> packConv(const Node& node, const PackedLayout& layout, Builder& builder);

}  // namespace qc
