// Spectra: DFT and STFT, and the constants that go with them.
#include <array>
#include <cmath>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/exporter.h"
#include "frontend/onnx/tensor.h"
#include "ir/unit_root.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Dims = std::vector<DimExpr>;

constexpr int64_t kMaxLength = 1 << 24;  // of what is made when the model is read

// ---- transforms -------------------------------------------------------------------------------

// An operand that may be absent.
Result<std::optional<DimExpr>> sizeAt(OnnxNode& n, int operand, std::string_view what) {
  if (!n.input(operand)) return std::nullopt;
  QC_ASSIGN(const Dims size, n.constantDims(operand, what));
  if (size.size() != 1) return n.error(ErrorCode::kInvalidModel, "{} of {} values", what, size.size());
  return size[0];
}

Status readDft(OnnxNode& n) {
  const auto rank = static_cast<int64_t>(n.type(0).rank());
  if (rank < 2) return n.error(ErrorCode::kInvalidModel, "input {}", n.type(0).str());
  QC_ASSIGN(const int64_t inverse, n.integer("inverse", 0));
  QC_ASSIGN(const int64_t onesided, n.integer("onesided", 0));
  int64_t raw = -2;
  if (n.opset() < 20) {
    QC_ASSIGN(raw, n.integer("axis", 1));
  } else if (n.input(2)) {
    QC_ASSIGN(raw, n.constantInteger(2, "the axis"));
  }
  QC_ASSIGN(const int64_t axis, n.axis(raw, rank));
  if (axis == rank - 1) return n.error(ErrorCode::kInvalidModel, "axis {} holds real and imaginary parts", raw);
  const DimExpr own = nth(n.dims(0), axis);
  QC_ASSIGN(const auto given, sizeAt(n, 1, "the length"));
  const DimExpr length = given ? *given : inverse && onesided ? (own - 1) * 2 : own;

  Value* x = n.input(0);
  Ints perm(usize(rank));
  for (int64_t d = 0; d < rank; ++d) nth(perm, d) = d;
  std::swap(nth(perm, axis), nth(perm, rank - 2));
  if (axis != rank - 2) {
    QC_ASSIGN(x, n.create("transpose", {x}, {{"perm", perm}}));
  }
  QC_ASSIGN(Value * y, n.create("dft", {x}, {{"length", Dims{length}}, {"inverse", inverse}, {"onesided", onesided}}));
  if (axis != rank - 2) {
    QC_ASSIGN(y, n.create("transpose", {y}, {{"perm", perm}}));
  }
  return n.setOutput(y);
}

// Opset 20, whose axis is the last but one where none is given.
Status writeDft(OnnxExporter& e, const Node& n) {
  const DimExpr length = n.attrs().dims("length")[0], own = n.operand(0)->type().shape.end()[-2].expr();
  const bool mirrored = n.integer("inverse") && n.integer("onesided");
  std::vector<std::string> inputs = {e.name(n.operand(0))};
  if (const auto known = length.constant(); known) {
    inputs.push_back(e.integer(*known));
  } else if (!(length == (mirrored ? (own - 1) * 2 : own))) {
    QC_ASSIGN(std::string vector, e.dims({{length}}));
    inputs.push_back(e.step(n, "Squeeze", {std::move(vector)}, "length"));
  }
  auto& proto = e.add(n, "DFT", std::move(inputs), e.resultNames(n));
  for (const char* attr : {"inverse", "onesided"}) setInt(proto, attr, n.integer(attr));
  e.needOpset(20);
  return {};
}

// signal [B, L] or [B, L, 1 or 2] -> [B, frames, bins, 2]: transforms of pieces that begin every so many samples, times the window.
Status readStft(OnnxNode& n) {
  const auto rank = static_cast<int64_t>(n.type(0).rank());
  if (rank != 2 && rank != 3) return n.error(ErrorCode::kInvalidModel, "signal {}", n.type(0).str());
  QC_ASSIGN(const int64_t onesided, n.integer("onesided", 1));
  QC_ASSIGN(const int64_t step, n.constantInteger(1, "the step"));
  if (step < 1 || step > kMaxLength) return n.error(ErrorCode::kInvalidModel, "a step of {}", step);
  Dims shape = n.dims(0);
  shape.resize(3, 1);
  QC_ASSIGN(const auto given, sizeAt(n, 3, "the length of a frame"));
  Value* const window = n.input(2);
  if (window && n.type(2).rank() != 1) return n.error(ErrorCode::kInvalidModel, "window {}", n.type(2).str());
  const DimExpr length = given ? *given : window ? n.dims(2)[0] : shape[1];
  if (window && length.constant() && n.dims(2)[0].constant() && !(n.dims(2)[0] == length))
    return n.error(ErrorCode::kInvalidModel, "a window of {} for frames of {}", n.dims(2)[0].str(), length.str());
  const DimExpr frames = floorDiv(shape[1] - length, step) + 1;
  if (const auto known = frames.constant(); known && *known < 1)
    return n.error(ErrorCode::kInvalidModel, "frames of {} in a signal of {}", length.str(), shape[1].str());

  QC_ASSIGN(Value * signal, n.reshapeToDims(n.input(0), shape));
  QC_ASSIGN(Value * begins, countedUp(n, 0, frames, step));
  QC_ASSIGN(begins, n.reshapeToDims(begins, {frames, 1}));
  QC_ASSIGN(Value * within, countedUp(n, 0, length));
  QC_ASSIGN(Value * places, n.create("add", {begins, within}));
  QC_ASSIGN(Value * pieces, n.create("gather", {signal, places}, {{"axis", int64_t{1}}}));
  if (window) {
    QC_ASSIGN(Value * factors, n.reshapeToDims(window, {length, 1}));
    QC_ASSIGN(pieces, n.create("mul", {pieces, factors}));
  }
  QC_ASSIGN(Value * y, n.create("dft", {pieces}, {{"length", Dims{length}}, {"onesided", onesided}}));
  return n.setOutput(y);
}

// ---- constants --------------------------------------------------------------------------------

// What these are made in: ONNX has them in double and rounds once.
Result<DType> outputDtype(OnnxNode& n) {
  QC_ASSIGN(const int64_t code, n.integer("output_datatype", 1));
  QC_ASSIGN(const DType dtype, dtypeFromOnnx(code));
  return withoutHalf(dtype);
}

Result<int64_t> sizeOfConstant(OnnxNode& n, int operand, std::string_view what) {
  QC_ASSIGN(const int64_t size, n.constantInteger(operand, what));
  if (size < 1 || size > kMaxLength) return n.error(ErrorCode::kInvalidModel, "{} of {}", what, size);
  return size;
}

// a[0] - a[1] cos(2 pi i / N) + a[2] cos(4 pi i / N), with N the size, or of a symmetric one the last i.
Status cosineWindow(OnnxNode& n, std::array<double, 3> a) {
  QC_ASSIGN(const int64_t size, sizeOfConstant(n, 0, "a size"));
  QC_ASSIGN(const int64_t periodic, n.integer("periodic", 1));
  QC_ASSIGN(const DType dtype, outputDtype(n));
  const int64_t period = periodic ? size : size - 1;
  if (period == 0) return n.error(ErrorCode::kUnsupported, "a symmetric window of one element, which ONNX's formula divides by 0");
  Tensor t(dtype, {size});
  void* data = t.mutableData();
  for (int64_t i = 0; i < size; ++i)
    storeElement(dtype, data, i, a[0] - a[1] * unitRoot(i, period).cos + a[2] * unitRoot(2 * i, period).cos);
  return n.setOutput(n.constantValue(std::move(t)));
}

// [dft_length / 2 + 1, bins]: triangles over the bins of a spectrum, whose corners lie evenly on the mel scale.
Status melWeightMatrix(OnnxNode& n) {
  QC_ASSIGN(const int64_t bins, sizeOfConstant(n, 0, "a number of bins"));
  QC_ASSIGN(const int64_t length, sizeOfConstant(n, 1, "a length"));
  QC_ASSIGN(const int64_t rate, sizeOfConstant(n, 2, "a rate"));
  QC_ASSIGN(const double low, n.constantScalar(3, "the lower edge"));
  QC_ASSIGN(const double high, n.constantScalar(4, "the upper edge"));
  QC_ASSIGN(const DType dtype, outputDtype(n));
  const int64_t rows = length / 2 + 1;
  if (!(low >= 0 && high > low && high <= static_cast<double>(rate)))
    return n.error(ErrorCode::kInvalidModel, "from {} to {} Hz of a signal with {} samples a second", low, high, rate);
  if (rows > kMaxLength / bins) return n.error(ErrorCode::kResource, "{} bins of {} frequencies", bins, rows);
  const auto mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
  const double step = (mel(high) - mel(low)) / static_cast<double>(bins + 2);
  Ints corners;
  for (int64_t i = 0; i < bins + 2; ++i) {
    const double hertz = 700 * (std::pow(10.0, (static_cast<double>(i) * step + mel(low)) / 2595) - 1);
    corners.push_back(static_cast<int64_t>(std::floor(static_cast<double>(length + 1) * hertz / static_cast<double>(rate))));
  }
  if (corners.back() > rows || nth(corners, bins) >= rows)
    return n.error(ErrorCode::kInvalidModel, "the upper edge of {} Hz lies above half of {} samples a second", high, rate);
  Tensor t(dtype, {rows, bins});
  void* data = t.mutableData();
  const auto set = [&](int64_t row, int64_t bin, double value) { storeElement(dtype, data, row * bins + bin, value); };
  for (int64_t i = 0; i < rows * bins; ++i) storeElement(dtype, data, i, 0);
  for (int64_t bin = 0; bin < bins; ++bin) {
    const int64_t from = nth(corners, bin), middle = nth(corners, bin + 1), to = nth(corners, bin + 2);
    if (from == middle) set(middle, bin, 1);
    for (int64_t row = from + 1; row <= middle; ++row) set(row, bin, static_cast<double>(row - from) / static_cast<double>(middle - from));
    for (int64_t row = middle; row < to; ++row) set(row, bin, static_cast<double>(to - row) / static_cast<double>(to - middle));
  }
  return n.setOutput(n.constantValue(std::move(t)));
}

}  // namespace

std::span<const OnnxOp> onnxSignalOps() {
  static const std::vector<OnnxOp> rows = [] {
    std::vector<OnnxOp> list = {
        {.name = "DFT", .minInputs = 1, .maxInputs = 3, .convert = readDft, .freeDims = true},
        {.name = "STFT", .minInputs = 2, .maxInputs = 4, .convert = readStft, .freeDims = true},
        {.name = "MelWeightMatrix", .minInputs = 5, .maxInputs = 5, .convert = melWeightMatrix},
    };
    // Hamming's shares are those of ONNX's function; 0.54 and 0.46 elsewhere.
    const std::pair<const char*, std::array<double, 3>> windows[] = {
        {"HannWindow", {0.5, 0.5, 0}}, {"HammingWindow", {25.0 / 46, 21.0 / 46, 0}}, {"BlackmanWindow", {0.42, 0.5, 0.08}}};
    for (const auto& [name, shares] : windows)
      list.push_back({.name = name, .minInputs = 1, .maxInputs = 1, .convert = [shares](OnnxNode& n) { return cosineWindow(n, shares); }});
    return list;
  }();
  return rows;
}

void addSignalExportRows(OnnxExportRows& rows) { rows.emplace("dft", writeDft); }

}  // namespace qc
