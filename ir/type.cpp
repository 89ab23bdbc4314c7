#include "ir/type.h"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <map>
#include <mutex>

#include "ir/attr.h"
#include "ir/status.h"

namespace qc {
namespace {

struct DTypeInfo {
  const char* name;
  int bytes;
  bool isFloat, isInteger, isSigned;
  int64_t min, max;
};

// In the order of the enum.
constexpr std::array<DTypeInfo, 15> kDTypes = {{
    {"f32", 4, true, false, true, 0, 0},
    {"f16", 2, true, false, true, 0, 0},
    {"bf16", 2, true, false, true, 0, 0},
    {"f64", 8, true, false, true, 0, 0},
    {"u8", 1, false, true, false, 0, 255},
    {"s8", 1, false, true, true, -128, 127},
    {"u16", 2, false, true, false, 0, 65535},
    {"s16", 2, false, true, true, -32768, 32767},
    {"u32", 4, false, true, false, 0, 4294967295},
    {"s32", 4, false, true, true, -2147483648LL, 2147483647LL},
    {"u64", 8, false, true, false, 0, 0},
    {"s64", 8, false, true, true, 0, 0},
    {"bool", 1, false, false, false, 0, 1},
    {"u4", 1, false, true, false, 0, 15},
    {"s4", 1, false, true, true, -8, 7},
}};

const DTypeInfo& info(DType dtype) { return nth(kDTypes, dtype); }

// Expressions by number, so that a Dim stays small.  Never shrinks; models have a handful.
class DimTable {
 public:
  int64_t number(const DimExpr& expr) {
    const std::lock_guard lock(mutex_);
    const auto [it, isNew] = numbers_.emplace(expr.str(), -static_cast<int64_t>(exprs_.size()) - 2);
    if (isNew) exprs_.push_back(expr);
    return it->second;
  }
  // A size that nobody checked may look like a number of this table: then it is that constant.
  DimExpr at(int64_t number) {
    const std::lock_guard lock(mutex_);
    const auto place = static_cast<uint64_t>(-(number + 2));
    return place < exprs_.size() ? exprs_[place] : DimExpr(number);
  }
  static DimTable& get() {
    static auto* const table = new DimTable;
    return *table;
  }

 private:
  std::mutex mutex_;
  std::vector<DimExpr> exprs_;
  std::map<std::string, int64_t, std::less<>> numbers_;
};

}  // namespace

std::string_view toString(DType dtype) { return info(dtype).name; }

std::optional<DType> parseDType(std::string_view text) {
  for (size_t i = 0; i < kDTypes.size(); ++i)
    if (text == kDTypes[i].name) return static_cast<DType>(i);
  return std::nullopt;
}

int64_t sizeOf(DType dtype) { return info(dtype).bytes; }
bool isFloat(DType dtype) { return info(dtype).isFloat; }
bool isInteger(DType dtype) { return info(dtype).isInteger; }
bool isSigned(DType dtype) { return info(dtype).isSigned; }

IntRange rangeOf(DType dtype) {
  const DTypeInfo& i = info(dtype);
  QC_REQUIRE("rangeOf", i.isInteger && i.max != 0, "of {}", i.name);
  return {i.min, i.max};
}

Dim::Dim(const DimExpr& expr) : size_(expr.constant().value_or(kUnknown)) {
  if (!expr.constant() && !expr.isUnknown()) size_ = DimTable::get().number(expr);
  if (expr.constant() && size_ < 0) size_ = kUnknown;
}

Dim Dim::bound(int64_t size) {
  Dim dim(size);
  dim.wasFree_ = true;
  return dim;
}

int64_t Dim::size() const {
  QC_REQUIRE("Dim::size", isStatic(), "of the symbolic dim {}", str());
  return size_;
}

DimExpr Dim::expr() const {
  if (isStatic()) return size_;
  return size_ == kUnknown ? DimExpr::unknown() : DimTable::get().at(size_);
}

std::string Dim::str() const { return expr().str(); }

Shape toShape(const std::vector<int64_t>& sizes) { return {sizes.begin(), sizes.end()}; }

bool isStatic(const Shape& shape) {
  for (const Dim& d : shape)
    if (!d.isStatic()) return false;
  return true;
}

std::vector<int64_t> sizesOf(const Shape& shape) {
  std::vector<int64_t> sizes;
  sizes.reserve(shape.size());
  for (const Dim& d : shape) sizes.push_back(d.size());
  return sizes;
}

int64_t numElements(const std::vector<int64_t>& sizes) {
  uint64_t n = 1;  // wraps where a size of 0 follows sizes whose product has no meaning
  for (const int64_t s : sizes) n *= static_cast<uint64_t>(s);
  return static_cast<int64_t>(n);
}

std::string toString(const Shape& shape) {
  std::string text;
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? "," : "") + shape[i].str();
  return text;
}

QuantPtr quantPerTensor(DType storage, float scale, int32_t zeroPoint) {
  const IntRange range = rangeOf(storage);
  return std::make_shared<QuantParams>(QuantParams{storage, range.min, range.max, -1, 0, {scale}, {zeroPoint}});
}

TensorType TensorType::withShape(Shape s) const {
  TensorType t = *this;
  t.shape = std::move(s);
  return t;
}

TensorType TensorType::withDType(DType d) const { return {d, shape}; }

std::string TensorType::str() const { return fmt::format("{}[{}]", quant ? toString(*quant) : toString(dtype), toString(shape)); }

bool operator==(const TensorType& a, const TensorType& b) {
  if (a.dtype != b.dtype || a.shape != b.shape) return false;
  if (a.quant == b.quant) return true;
  return a.quant && b.quant && *a.quant == *b.quant;
}

std::string toString(const QuantParams& q) {
  const auto list = [](const auto& values, auto print) {
    if (values.size() == 1) return print(values[0]);
    std::string text = "[";
    for (size_t i = 0; i < values.size(); ++i) text += (i ? "," : "") + print(values[i]);
    return text + "]";
  };
  std::string text = fmt::format("q<{}", toString(q.storage));
  if (const IntRange full = rangeOf(q.storage); q.qmin != full.min || q.qmax != full.max) text += fmt::format("[{}:{}]", q.qmin, q.qmax);
  if (q.axis >= 0) text += fmt::format(", axis={}", q.axis);
  if (q.blockSize > 0) text += fmt::format(", block={}", q.blockSize);
  text += ", scale=" + list(q.scales, [](float s) { return fmt::format("{}", s); });
  text += ", zp=" + list(q.zeroPoints, [](int32_t z) { return fmt::format("{}", z); });
  return text + ">";
}

}  // namespace qc
