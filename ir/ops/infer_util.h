// What the op declarations share when they infer types: sizes computed without overflow, checks that speak of operands by
// name, and short forms for attribute declarations.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ir/op_def.h"
#include "ir/verify.h"

namespace qc {

using Types = std::vector<TensorType>;

constexpr uint32_t kMove = kPure | kMovesData | kSharesQuant;  // of an op that only moves elements

inline std::vector<int64_t> sizesOf(const TensorRef& t) { return {t.sizes.begin(), t.sizes.end()}; }

// A model may claim any size; nothing above this many bytes is ever built.
constexpr int64_t kMaxTensorBytes = int64_t{1} << 40;

// The product of the static dims (unknown dims count as 1), refused when a tensor of `bytesPerElement` would pass kMaxTensorBytes.
Result<int64_t> checkedNumElements(const Shape& shape, int64_t bytesPerElement = 1);

// The result types of an op, each of a size that can exist.
Result<Types> checkedResults(Types types);

// A size that was worked out from that of a dim: where the one was free, so is the other.
inline Dim sizedBy(Dim from, int64_t size) { return from.wasFree() ? Dim::bound(size) : Dim(size); }

// "x f32[1,3,8,8]": the operand as messages name it.
std::string describe(const InferContext& c, int operand);
std::string_view operandName(const InferContext& c, int operand);

// Checks of one operand.  All of them name the operand and what it is.
Status requireRank(const InferContext& c, int operand, int low, int high = 1 << 20);
Status requirePlainFloat(const InferContext& c, int operand);                 // f32, f16, bf16, f64
Status requirePlainNumber(const InferContext& c, int operand);                // float or integer, not quantized
Status requireSameDType(const InferContext& c, int operand, int as);          // plain types of one dtype
Status requirePerTensor8Bit(const InferContext& c, int operand);              // quantized u8 or s8, one scale
Status requirePerTensor8Or16Bit(const InferContext& c, int operand);          // the same, or u16 or s16
Status requireVector(const InferContext& c, int operand, Dim length);         // one dim, of that length
Status requireShape(const InferContext& c, int operand, const Shape& shape);  // symbolic dims match anything

bool compatible(Dim a, Dim b);  // equal, or not both static

// Attributes.
Status requireAxis(const InferContext& c, std::string_view attr, int rank);  // 0 <= axis < rank
Status requireAxes(const InferContext& c, std::string_view attr, int rank);  // sorted, distinct, each in range
Status requireOneOf(const InferContext& c, std::string_view attr, std::initializer_list<std::string_view> values);

// The attribute `to` as parameters of a per-tensor result of 8 or 16 bits.
Status requirePerTensorTo(const QuantPtr& to);

// The post expression of conv and linear: parses, and reads only the operands that are there.
Status requirePost(const InferContext& c, bool hasResidual);

// Declarations.
AttrSpec integerAttr(std::string name);
AttrSpec integerAttr(std::string name, int64_t byDefault);
AttrSpec realAttr(std::string name, double byDefault);
AttrSpec stringAttr(std::string name, std::string byDefault);
AttrSpec integersAttr(std::string name);         // required
AttrSpec dimsAttr(std::string name);             // required
AttrSpec integersOrEmptyAttr(std::string name);  // [] by default
AttrSpec exprAttr(std::string name);             // required
AttrSpec postAttr();                             // empty by default
AttrSpec axisAttr(std::string name = "axis");
AttrSpec axesAttr();
AttrSpec perDimAttr(std::string name, AttrKind kind = AttrKind::dims);  // required
AttrSpec perSpatialDimAttr(std::string name, int64_t neutral);          // [] by default
AttrSpec meaning(AttrMeaning what, AttrSpec spec);                      // the same attribute, with what it says of dims
AttrSpec resultQuantAttr(bool required);  // `to`: the parameters that the result is quantized with; none: it is not
AttrSpec layoutAttr();
AttrSpec clampMinAttr();  // bounds narrower than those of `to`; the defaults bound nothing
AttrSpec clampMaxAttr();

inline bool isChannelsLast(const AttrDict& attrs) { return attrs.string("layout") == "channels_last"; }
Status requireLayout(const InferContext& c);
inline int channelAxisOf(const AttrDict& attrs, int rank) { return isChannelsLast(attrs) ? rank - 1 : 1; }

}  // namespace qc
