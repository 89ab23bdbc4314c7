// Types: element type, shape (sizes, or expressions of free ones) and quantization.  Quantization lives in the type:
// a value of type `!q0[1,8,4,4]` holds integers q that stand for scale * (q - zeroPoint).
//
// Text:  f32[1,3,N,N]      f32[N,(T+1)//2,384]      q<u8, scale=0.02, zp=114>[1,8]      q<s8[-127:127], axis=0, scale=[...], zp=0>[8,3]
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/dim_expr.h"
#include "ir/signed_index.h"

namespace qc {

enum class DType : uint8_t { f32, f16, bf16, f64, u8, s8, u16, s16, u32, s32, u64, s64, boolean, u4, s4 };

std::string_view toString(DType dtype);  // "f32", "s8", "bool", ...
std::optional<DType> parseDType(std::string_view text);

// Bytes of one element in a Tensor.  u4 and s4 are held one per byte in memory; only packed
// kernel constants and files put two in a byte.
int64_t sizeOf(DType dtype);
bool isFloat(DType dtype);
bool isInteger(DType dtype);  // any integer, bool excluded
bool isSigned(DType dtype);
struct IntRange {
  int64_t min, max;
};
IntRange rangeOf(DType dtype);  // integer dtypes up to 32 bits; QC_CHECK otherwise

// A dim is a size >= 0 or an expression over symbols (dim_expr.h) by its number.  Expressions compare equal if they are identical in their
// canonical form; `?` is never equal to anything.
class Dim {
 public:
  Dim(int64_t size = 0) : size_(size) {}
  Dim(const DimExpr& expr);  // a negative constant is not a size: unknown
  static Dim symbol(std::string_view name) { return DimExpr::symbol(name); }
  static Dim unknown() { return DimExpr::unknown(); }

  // A size that a free dim was given.  It is equal to any other dim of that size; who plans for more than one size may ask.
  static Dim bound(int64_t size);

  bool isStatic() const { return size_ >= 0; }
  int64_t size() const;  // QC_CHECK(isStatic())
  bool wasFree() const { return wasFree_; }
  DimExpr expr() const;
  std::string str() const;
  friend bool operator==(Dim a, Dim b) { return a.size_ == b.size_ && a.size_ != kUnknown; }

 private:
  static constexpr int64_t kUnknown = -1;  // other expressions are numbered as -2, -3, ...
  int64_t size_;
  bool wasFree_ = false;
};

using Shape = std::vector<Dim>;
Shape toShape(const std::vector<int64_t>& sizes);
bool isStatic(const Shape& shape);
std::vector<int64_t> sizesOf(const Shape& shape);  // QC_CHECK(isStatic(shape))
int64_t numElements(const std::vector<int64_t>& sizes);
std::string toString(const Shape& shape);  // "1,3,N,N"

// Parameters of uniform quantization, as spec'd by ONNX Quantize/DequantizeLinear.
// axis < 0: one scale, one zero point.  axis >= 0: one per slice along that axis (zero_points may hold
// a single common value).  Scales are finite and > 0; zero points lie in [qmin, qmax].
// blockSize > 0: scales[i] covers blockSize consecutive elements of `axis` (group-wise); the scales then
// form a tensor whose dim at `axis` is ceil(dim / blockSize), flattened row-major.
struct QuantParams {
  DType storage = DType::u8;
  int64_t qmin = 0, qmax = 255;
  int axis = -1;
  int64_t blockSize = 0;
  std::vector<float> scales;
  std::vector<int32_t> zeroPoints;

  bool perChannel() const { return axis >= 0; }
  float scale(int64_t channel = 0) const { return scales.size() == 1 ? scales[0] : nth(scales, channel); }
  int32_t zeroPoint(int64_t channel = 0) const { return zeroPoints.size() == 1 ? zeroPoints[0] : nth(zeroPoints, channel); }
  bool operator==(const QuantParams&) const = default;
};
using QuantPtr = std::shared_ptr<const QuantParams>;

// Per-tensor parameters over the storage type's full range.
QuantPtr quantPerTensor(DType storage, float scale, int32_t zeroPoint);

struct TensorType {
  DType dtype = DType::f32;  // storage type when quantized
  Shape shape;
  QuantPtr quant;  // null: plain

  TensorType() = default;
  TensorType(DType d, Shape s) : dtype(d), shape(std::move(s)) {}
  TensorType(QuantPtr q, Shape s) : dtype(q->storage), shape(std::move(s)), quant(std::move(q)) {}

  int rank() const { return static_cast<int>(shape.size()); }
  bool isQuantized() const { return quant != nullptr; }
  bool isStatic() const { return qc::isStatic(shape); }
  std::vector<int64_t> sizes() const { return sizesOf(shape); }
  int64_t numElements() const { return qc::numElements(sizes()); }
  int64_t byteSize() const { return numElements() * sizeOf(dtype); }
  TensorType withShape(Shape s) const;
  TensorType withDType(DType d) const;  // plain type of the same shape
  std::string str() const;              // quantization printed in full, never as an alias
  friend bool operator==(const TensorType& a, const TensorType& b);
};

std::string toString(const QuantParams& quant);  // "q<u8, scale=0.02, zp=114>"

}  // namespace qc
