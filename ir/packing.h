// The form of packed weights, for k.conv: an attribute of its own kind.  ir/packed_layout.h places weights by it.
//
// A kernel computes panels of `panel` output channels.  The packed tensor is one-dimensional:
//
//   [conv group][panel][run][step of `group` elements along k][column of the panel][element of the step]
//
// A run is a stretch of k that is contiguous in the input: all of (kx, ic) for one ky if rowRuns, else all of ic for one
// (ky, kx).  In three dims ky counts the rows of all planes of the kernel: kz * kernelH + ky.  Runs are padded with zeros to a multiple of
// `runPad`.  Columns beyond the last channel are zero, and so are their scale and bias.  Columns are permuted within a panel so that the
// saturating packs of the vector unit, which work within 128-bit lanes, leave channels in their natural order:
//
//   natural  vector t, lane j holds channel t*lanes + j
//   pair     two vectors interleave by fours: (t/2)*2*lanes + (j/4)*8 + (t%2)*4 + j%4
//   quad     four vectors interleave by fours: (t/4)*4*lanes + (j/4)*16 + (t%4)*4 + j%4
//
// Scale and bias of k.conv are vectors of columns() entries in the same order.  For quantized kernels the bias holds
// bias[c] - (zx - offset) * sum of the channel's weights (then maybe sums of runs, see Packing::sums), so kernels multiply raw storage
// values, minus the offset. Linear layers are convolutions with a 1x1 kernel over one row of pixels.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ir/status.h"
#include "ir/type.h"

namespace qc {

struct Packing {
  enum class Columns : uint8_t { natural, pair, quad };
  DType element = DType::s8;  // s8, s16 (widened s8) or f32
  int panel = 64;             // columns per panel, a multiple of lanes
  int lanes = 16;             // 32-bit lanes of a vector
  int group = 4;              // elements of k that one 32-bit lane holds
  int runPad = 4;             // a multiple of group
  Columns columns = Columns::quad;
  bool rowRuns = true;
  // Depthwise: every channel has weights of its own for its own input channel.  Channels of all groups are the columns,
  // a run is the taps of one ky.  rowRuns is true as well.
  bool taps = false;
  int offset = 0;  // subtracted from every input value: 128 where the instruction wants signed operands
  // Depthwise over few channels: all of them stand so many times in the one panel, for as many neighbouring pixels.
  int copies = 1;
  // 2: weights of up to nine bits (-256..254) as sums of two s8; a panel holds all first ones, then all second ones.
  int halves = 1;

  // The bias is followed by what each run adds where all it reads is padding, (zx - offset) * sum of its weights: kernels may leave it out.
  bool sums = false;

  std::string str()
      const;  // "s8 panel=64 lanes=16 group=4 pad=4 quad rows", then "offset=128" if not 0, "copies=4", "halves=2" if not 1, "sums"
  static Result<Packing> parse(std::string_view text);
  Status check() const;  // what parse() holds as well
  friend bool operator==(const Packing&, const Packing&) = default;
};

}  // namespace qc
