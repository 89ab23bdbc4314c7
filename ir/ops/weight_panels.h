// The weights of k.weight_linear: integers in the panels of a float kernel, which turns one panel at a time into floats.
//
//   weights   8 bits: [panel][k][column of the panel], s8 or u8
//             4 bits: [panel][k / 2][column of the panel], u8: the first of two in the low half; an odd last line has only low halves
//   sets      f32 [panel][set of `group` lines][scale, zero point if there are any][column of the panel]
//
// A float is scale * float(q - zero point), as ir/qmath.h defines it; zero points are small integers, so that subtracting them as floats
// is exact.  Columns beyond the last row of the weights are zero.  Lines of the same byte belong to one set.
#pragma once

#include "ir/op_def.h"
#include "ir/packing.h"

namespace qc {

struct WeightPanels {
  int64_t outputs = 0, depth = 0, group = 0;
  int panel = 0;
  bool half = false, isSigned = true, hasZeroPoint = false;

  // Of a k.weight_linear's attributes.
  static Result<WeightPanels> of(const AttrDict& attrs);

  int64_t panels() const { return (outputs + panel - 1) / panel; }
  int64_t lines() const { return half ? (depth + 1) / 2 : depth; }
  int64_t sets() const { return (depth + group - 1) / group; }
  int64_t parameters() const { return hasZeroPoint ? 2 : 1; }  // per set and column
  int64_t weightSize() const { return panels() * lines() * panel; }
  int64_t setsSize() const { return panels() * sets() * parameters() * panel; }
  int64_t weightIndex(int64_t row, int64_t k) const { return (row / panel * lines() + (half ? k / 2 : k)) * panel + row % panel; }
  int64_t setIndex(int64_t row, int64_t set) const { return (row / panel * sets() + set) * parameters() * panel + row % panel; }

  // From and to the integer of one weight.
  void put(uint8_t* weights, int64_t row, int64_t k, int32_t q) const;
  int32_t get(const uint8_t* weights, int64_t row, int64_t k) const;
};

// Zero points up to this size are subtracted as floats.
constexpr int32_t kMaxZeroPoint = 1 << 20;

void registerWeightPanelOps(OpRegistry& registry);  // called by registerKernelOps

}  // namespace qc
