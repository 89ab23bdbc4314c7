#include "codegen/emit/epilogue.h"

#include <algorithm>

#include "codegen/emit/vector_loop.h"

namespace qc {
// Which (row, vector) each of the four packed vectors is.
struct Epilogue::Chunk {
  int row[4], vector[4];
  int rows;  // distinct rows: 1, 2 or 4 pointers, the valid ones first
  int valid;
  int firstVector;
};

Epilogue::Epilogue(KernelEmitter& e, const Node& node, const Packing& packing) : e_(e), packing_(packing), form_(EpilogueForm::of(node)) {
  const TensorType& y = node.result()->type();
  bounded_ = form_.integers && node.integer("bounded") != 0;
  resultBytes_ = static_cast<int>(sizeOf(y.dtype));
  result_ = y.dtype;
  const bool natural = packing.columns == Packing::Columns::natural && packing.panel > packing.lanes;
  if (const qc::Value* residual = form_.residual) {
    residualQuantized_ = residual->type().isQuantized();
    residual_ = residual->type().dtype;
    residualBytes_ = static_cast<int>(sizeOf(residual->type().dtype));
    if (residualQuantized_) {
      residualScale_ = e.splat(e.operandParam("residual", ParamField::scale), packing.lanes);
      residualZero_ = e.splat(e.operandParam("residual", ParamField::zeroPoint), packing.lanes);
    }
  }
  packs_ = form_.to && resultBytes_ == 1 && !natural && residualBytes_ <= 1 && e.target().arch != Arch::aarch64 && packing.lanes >= 8;
  if (!form_.to) return;
  inverse_ = e.resultParam(0, ParamField::inverseScale);
  Reg zero = e.resultParam(0, ParamField::zeroPoint), low = e.resultParam(0, ParamField::qmin), high = e.resultParam(0, ParamField::qmax);
  if (!packs_) {
    bounds_ = e.bounds(zero, low, high);
    return;
  }
  zeroWords_ = e.splat(e.b.CreateTrunc(zero, e.b.getInt16Ty()), 2 * packing.lanes);
  lowBytes_ = e.splat(e.b.CreateTrunc(low, e.b.getInt8Ty()), 4 * packing.lanes);
  highBytes_ = e.splat(e.b.CreateTrunc(high, e.b.getInt8Ty()), 4 * packing.lanes);
}

// Accumulator -> float, before rounding: times 1/scale already, if the result is quantized in the float form.
Reg Epilogue::value(Reg acc, const Channels& channels, int vector, Reg residual) {
  const int lanes = packing_.lanes;
  Reg y = acc;
  if (form_.integers)
    y = e_.b.CreateFMul(e_.toFloat(acc), e_.load(e_.f32(lanes), e_.at(channels.scale, vector * lanes * 4)));
  else if (channels.bias)
    y = e_.b.CreateFAdd(acc, e_.load(e_.f32(lanes), e_.at(channels.bias, vector * lanes * 4)));
  if (form_.post) {
    const Reg args[2] = {y, residual};
    y = e_.expression(*form_.post, std::span<const Reg>(args, residual ? 2 : 1));
  }
  if (form_.to && !form_.integerForm()) y = e_.b.CreateFMul(y, e_.splat(inverse_, lanes));
  return y;
}

// Four float vectors -> bytes, clamped.
Reg Epilogue::quantizedBytes(const std::vector<Reg>& values) {
  const int lanes = packing_.lanes;
  const bool wide = lanes == 16;
  const bool mayBeNan = !form_.integerForm() && !bounded_;
  Reg q[4];
  for (size_t i = 0; i < 4; ++i) {
    // Beyond the bound the conversion would turn negative.  NaN gives zero: its lanes are masked out where that is free.
    Reg number = mayBeNan && !wide ? e_.nanToZero(values[i]) : values[i];
    Reg bounded = bounded_ ? number : e_.min(number, e_.floats(2147483520.0f, lanes));
    if (mayBeNan && wide) {
      Reg numbers = e_.bitcast(e_.b.CreateFCmpORD(values[i], values[i]), e_.b.getInt16Ty());
      q[i] = e_.intrinsic(llvm::Intrinsic::x86_avx512_mask_cvtps2dq_512,
                          {bounded, llvm::Constant::getNullValue(e_.i32(16)), numbers, e_.b.getInt32(4)});
    } else {
      q[i] = e_.roundToInt(bounded);
    }
  }
  using namespace llvm;
  const auto packWords = wide ? Intrinsic::x86_avx512_packssdw_512 : Intrinsic::x86_avx2_packssdw;
  const auto packBytes = isSigned(result_) ? (wide ? Intrinsic::x86_avx512_packsswb_512 : Intrinsic::x86_avx2_packsswb)
                                           : (wide ? Intrinsic::x86_avx512_packuswb_512 : Intrinsic::x86_avx2_packuswb);
  const auto addZero = [&](Reg words) { return e_.b.CreateBinaryIntrinsic(Intrinsic::sadd_sat, words, zeroWords_); };
  Reg bytes = e_.intrinsic(packBytes, {addZero(e_.intrinsic(packWords, {q[0], q[1]})), addZero(e_.intrinsic(packWords, {q[2], q[3]}))});
  bytes = e_.b.CreateBinaryIntrinsic(isSigned(result_) ? Intrinsic::smax : Intrinsic::umax, bytes, lowBytes_);
  return e_.b.CreateBinaryIntrinsic(isSigned(result_) ? Intrinsic::smin : Intrinsic::umin, bytes, highBytes_);
}

std::vector<Epilogue::Chunk> Epilogue::chunks(int rows, int vectors) const {
  std::vector<Chunk> result;
  const int perRow = packing_.columns == Packing::Columns::quad ? 4 : packing_.columns == Packing::Columns::pair ? 2 : 1;
  const int rowsPer = 4 / perRow;
  for (int row = 0; row < rows; row += rowsPer)
    for (int vector = 0; vector < vectors; vector += perRow) {
      Chunk chunk{};
      chunk.rows = rowsPer;
      chunk.valid = std::min(rowsPer, rows - row);
      chunk.firstVector = vector;
      for (int i = 0; i < 4; ++i) {
        chunk.row[i] = std::min(row + i / perRow, rows - 1);
        chunk.vector[i] = vector + i % perRow;
      }
      result.push_back(chunk);
    }
  return result;
}

namespace {

// Element order of `pieces` rows interleaved by pieces within each 128-bit lane <-> rows one after another.
llvm::SmallVector<int> interleaved(int pieces, int lanes128) {
  llvm::SmallVector<int> order;
  for (int lane = 0; lane < lanes128; ++lane)
    for (int piece = 0; piece < pieces; ++piece) order.push_back(piece * lanes128 + lane);
  return order;
}

}  // namespace

Reg Epilogue::mask(const Channels& channels, int64_t column, int count) {
  Reg bits = column ? e_.b.CreateLShr(channels.valid, e_.i64(column)) : channels.valid;
  return e_.bitcast(e_.b.CreateTrunc(bits, e_.b.getIntNTy(static_cast<unsigned>(count))), KernelEmitter::vectorOf(e_.b.getInt1Ty(), count));
}

Reg Epilogue::loadColumns(llvm::Type* type, Reg row, const Channels& channels, int64_t column) {
  auto* vector = llvm::cast<llvm::FixedVectorType>(type);
  Reg from = e_.at(row, column * (vector->getScalarSizeInBits() / 8));
  if (!channels.valid) return e_.load(type, from);
  Reg exist = mask(channels, column, static_cast<int>(vector->getNumElements()));
  return e_.b.CreateMaskedLoad(type, from, llvm::Align(1), exist, llvm::Constant::getNullValue(type));
}

void Epilogue::storeColumns(Reg value, Reg row, const Channels& channels, int64_t column) {
  Reg to = e_.at(row, column * (value->getType()->getScalarSizeInBits() / 8));
  if (!channels.valid) return e_.store(value, to);
  e_.b.CreateMaskedStore(value, to, llvm::Align(1), mask(channels, column, KernelEmitter::lanesOf(value)));
}

void Epilogue::storeBytes(const Chunk& chunk, const Channels& channels, Reg bytes, const std::vector<Reg>& rows) {
  const int lanes128 = packing_.lanes / 4;
  const int64_t column = static_cast<int64_t>(chunk.firstVector) * packing_.lanes;
  if (chunk.rows == 1) return storeColumns(bytes, nth(rows, chunk.row[0]), channels, column);
  llvm::Type* piece = chunk.rows == 2 ? e_.b.getInt64Ty() : static_cast<llvm::Type*>(e_.b.getInt32Ty());
  Reg pieces = e_.bitcast(bytes, KernelEmitter::vectorOf(piece, lanes128 * chunk.rows));
  llvm::SmallVector<int> gather;  // all pieces of row 0, then of row 1, ...
  for (int row = 0; row < chunk.rows; ++row)
    for (int lane = 0; lane < lanes128; ++lane) gather.push_back(lane * chunk.rows + row);
  pieces = e_.b.CreateShuffleVector(pieces, gather);
  for (int row = 0; row < chunk.valid; ++row) {
    llvm::SmallVector<int> part;
    for (int lane = 0; lane < lanes128; ++lane) part.push_back(row * lanes128 + lane);
    Reg columns = e_.bitcast(e_.b.CreateShuffleVector(pieces, part), e_.i8(16 * lanes128 / chunk.rows));
    storeColumns(columns, nth(rows, chunk.row[0] + row), channels, column);
  }
}

// The inverse of storeBytes: bytes of the chunk's rows in the order of packed results.
Reg Epilogue::loadBytes(const Chunk& chunk, const Channels& channels, const std::vector<Reg>& rows) {
  const int lanes128 = packing_.lanes / 4;
  const int64_t column = static_cast<int64_t>(chunk.firstVector) * packing_.lanes;
  llvm::Type* all = e_.i8(4 * packing_.lanes);
  if (chunk.rows == 1) return loadColumns(all, nth(rows, chunk.row[0]), channels, column);
  llvm::Type* piece = chunk.rows == 2 ? e_.b.getInt64Ty() : static_cast<llvm::Type*>(e_.b.getInt32Ty());
  std::vector<Reg> parts;
  for (int row = 0; row < chunk.rows; ++row) {
    const int source = std::min(row, chunk.valid - 1);
    if (source < row) {
      parts.push_back(nth(parts, source));
      continue;
    }
    Reg bytes = loadColumns(e_.i8(16 * lanes128 / chunk.rows), nth(rows, chunk.row[0] + source), channels, column);
    parts.push_back(e_.bitcast(bytes, KernelEmitter::vectorOf(piece, lanes128)));
  }
  while (parts.size() > 1) {  // concatenate
    std::vector<Reg> joined;
    for (size_t i = 0; i < parts.size(); i += 2) {
      llvm::SmallVector<int> order;
      for (int k = 0; k < 2 * KernelEmitter::lanesOf(parts[i]); ++k) order.push_back(k);
      joined.push_back(e_.b.CreateShuffleVector(parts[i], parts[i + 1], order));
    }
    parts = std::move(joined);
  }
  return e_.bitcast(e_.b.CreateShuffleVector(parts[0], interleaved(chunk.rows, lanes128)), all);
}

// The four dequantized residual vectors of a chunk.
std::vector<Reg> Epilogue::residualOf(const Chunk& chunk, const Channels& channels, const std::vector<Reg>& residuals) {
  if (!hasResidual()) return {nullptr, nullptr, nullptr, nullptr};
  const int lanes = packing_.lanes, bytes = 4 * lanes;
  Reg all = loadBytes(chunk, channels, residuals);
  Reg zero = llvm::Constant::getNullValue(all->getType());
  std::vector<Reg> result;
  for (int q = 0; q < 4; ++q) {
    // Byte 4q+i of each 128-bit lane into dword i: its low byte, or its high byte to be shifted down with its sign.
    llvm::SmallVector<int> order;
    for (int lane = 0; lane < lanes / 4; ++lane)
      for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 4; ++k) {
          const bool here = k == (isSigned(residual_) ? 3 : 0);
          order.push_back(here ? 16 * lane + 4 * q + i : bytes + 16 * lane + 4 * q + i);
        }
    Reg ints = e_.bitcast(e_.b.CreateShuffleVector(all, zero, order), e_.i32(lanes));
    if (isSigned(residual_)) ints = e_.b.CreateAShr(ints, e_.ints(24, e_.i32(lanes)));
    result.push_back(e_.b.CreateFMul(residualScale_, e_.toFloat(e_.b.CreateSub(ints, residualZero_))));
  }
  return result;
}

void Epilogue::store(const std::vector<Reg>& acc, int rows, int vectors, const Channels& channels, const std::vector<Reg>& results,
                     const std::vector<Reg>& residuals) {
  if (!packs_) return storeNatural(acc, rows, vectors, channels, results, residuals);
  for (const Chunk& chunk : chunks(rows, vectors)) {
    const std::vector<Reg> residual = residualOf(chunk, channels, residuals);
    std::vector<Reg> values;
    for (size_t i = 0; i < 4; ++i) {
      const bool repeats = i > 0 && chunk.row[i] == chunk.row[0] + chunk.valid - 1 && static_cast<int>(i) / (4 / chunk.rows) >= chunk.valid;
      values.push_back(repeats ? values[i - usize(4 / chunk.rows)]
                               : value(nth(acc, chunk.row[i] * vectors + chunk.vector[i]), channels, chunk.vector[i], residual[i]));
    }
    storeBytes(chunk, channels, quantizedBytes(values), results);
  }
}

// Vector by vector, columns in natural order, with plain vector code.
void Epilogue::storeNatural(const std::vector<Reg>& acc, int rows, int vectors, const Channels& channels, const std::vector<Reg>& results,
                            const std::vector<Reg>& residuals) {
  const int lanes = packing_.lanes;
  for (int row = 0; row < rows; ++row)
    for (int vector = 0; vector < vectors; ++vector) {
      const int64_t column = static_cast<int64_t>(vector) * lanes;
      Reg residual = nullptr;
      if (hasResidual()) {
        residual =
            loadColumns(residualQuantized_ ? integersOf(e_, residual_, lanes) : e_.f32(lanes), nth(residuals, row), channels, column);
        if (residualQuantized_) {
          Reg ints = widened(e_, residual, isSigned(residual_));
          residual = e_.b.CreateFMul(residualScale_, e_.toFloat(e_.b.CreateSub(ints, residualZero_)));
        }
      }
      Reg y = value(nth(acc, row * vectors + vector), channels, vector, residual);
      if (form_.to) y = narrowed(e_, e_.roundClamp(y, bounds_), result_);
      storeColumns(y, nth(results, row), channels, column);
    }
}

}  // namespace qc
