// What the quantizer decides about one value, as data on the graph: the four spec kinds of PT2E and the
// annotation that carries them.  The quantizer room fills these in; the prepare pass reads them.
//
// Text, behind an op's type:   @q(in=[u8.histogram, s8.minmax/ch0, -], out=u8.histogram)
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "ir/attr.h"
#include "ir/type.h"

namespace qc {

// The smallest scale: whatever it is multiplied with or divided by, be it as small, float32 holds the result as a normal number
// (sx * sw of a bias, sx * sw / sy of a result).
inline constexpr double kSmallestScale = 0x1p-62;

enum class QScheme : uint8_t { affine, symmetric, floatQparams };

// A point of the graph where a spec can sit, named so that it survives printing: a value, or the use of a
// value by one consumer (operand `operand` of the node that defines `value`).
struct EdgeOrNode {
  std::string value;  // name of the consumer's first result (edge) or of the value itself (node output)
  int operand = -1;   // -1: the value itself
  auto operator<=>(const EdgeOrNode&) const = default;
};

// Parameters from data seen by an observer.
struct ObservedSpec {
  DType dtype = DType::u8;
  int64_t qmin = 0, qmax = 255;
  QScheme scheme = QScheme::affine;
  int axis = -1;                    // >= 0: per channel
  int64_t blockSize = 0;            // > 0: group-wise along `axis`
  bool dynamic = false;             // parameters computed at run time from each input
  double eps = kSmallestScale;      // no scale is smaller
  std::string observer = "minmax";  // a row of the observer table (quantizer/observers/observer.h)
  AttrDict observerArgs;            // bins, averaging_constant, percentile, ...
  bool operator==(const ObservedSpec&) const = default;
};
// Parameters known beforehand: sigmoid, softmax, tanh.
struct FixedSpec {
  QuantParams params;
  bool operator==(const FixedSpec&) const = default;
};
// The same parameters, hence the same observer, as another point.
struct SharedSpec {
  EdgeOrNode with;
  bool operator==(const SharedSpec&) const = default;
};
// Computed from the parameters of other points: the int32 bias, scale = product of scales, zp = 0.
struct DerivedSpec {
  std::vector<EdgeOrNode> from;
  std::string function = "bias";
  DType dtype = DType::s32;
  bool operator==(const DerivedSpec&) const = default;
};
// A cast, for float16 weights and placeholders.
struct CastSpec {
  DType dtype = DType::f16;
  bool operator==(const CastSpec&) const = default;
};

using QuantSpec = std::variant<std::monostate, ObservedSpec, FixedSpec, SharedSpec, DerivedSpec, CastSpec>;
inline bool isSet(const QuantSpec& spec) { return !std::holds_alternative<std::monostate>(spec); }

struct QuantAnnotation {
  std::vector<QuantSpec> inputs;  // one per operand
  QuantSpec output;               // result 0
  bool allowImplicitSharing = true;
  bool keepFloat = false;  // claimed by a rule that says: not this one
  std::string reason;      // why: the rule or pattern that wrote this
  bool operator==(const QuantAnnotation&) const = default;

  // The spec of an operand whose parameters are found at run time; null for any other.
  const ObservedSpec* dynamicInput(int operand) const;
};

std::string toString(const QuantSpec& spec);
std::string toString(const QuantAnnotation& annotation);

}  // namespace qc
