// What dynamicParams (ir/ops/dynamic.h) finds, as code: for dynamic_qparams and for kernels that quantize as they go.
//
//   KernelEmitter::Values extremes = noExtremes(rows);
//   extremes = takeExtremes(rows, x, std::move(extremes));          // once for every row that shares the parameters
//   const auto [scale, zeroPoint] = paramsFromExtremes(rows, extremes, range);
#pragma once

#include "codegen/plan/rows.h"
#include "ir/ops/dynamic.h"

namespace qc {

// Of the finite elements met so far, lane by lane: the lowest and the highest, or 0.
KernelEmitter::Values noExtremes(const Rows& rows);
KernelEmitter::Values takeExtremes(const Rows& rows, Reg x, KernelEmitter::Values extremes);

// Vectors of rows.width() lanes: floats and i32.
struct DynamicParamRegs {
  Reg scale, zeroPoint;
};
DynamicParamRegs paramsFromExtremes(const Rows& rows, const KernelEmitter::Values& extremes, const DynamicRange& range);

}  // namespace qc
