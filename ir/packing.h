// Packed weights and the geometry of channel-last convolutions, for k.conv.
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
#include <vector>

#include "ir/attr.h"
#include "ir/status.h"
#include "ir/tensor.h"

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
  friend bool operator==(const Packing&, const Packing&) = default;
};

// A convolution over channel-last tensors, 1-d as one row, 2-d as one plane, linear as rows * 1 pixels.
struct ConvGeometry {
  int64_t batch = 1, inD = 1, inH = 1, inW = 1, channels = 1;  // of the input, all groups
  int64_t outD = 1, outH = 1, outW = 1, outputs = 1;
  int64_t kernelD = 1, kernelH = 1, kernelW = 1, strideD = 1, strideH = 1, strideW = 1, dilationD = 1, dilationH = 1, dilationW = 1;
  int64_t padFront = 0, padTop = 0, padLeft = 0, padBack = 0, padBottom = 0, padRight = 0;
  int64_t groups = 1;

  int64_t groupChannels() const { return channels / groups; }
  int64_t groupOutputs() const { return outputs / groups; }
  int64_t planes() const { return batch * outD; }  // of the result
  int64_t pixels() const { return planes() * outH * outW; }
  int64_t kernelRows() const { return kernelD * kernelH; }
  int64_t depth() const { return kernelRows() * kernelW * groupChannels(); }  // k of one output
  int64_t macs() const { return pixels() * outputs * depth(); }
  bool isPadded() const { return padFront || padBack || padTop || padLeft || padBottom || padRight; }
  bool isMatrixProduct() const;  // every output pixel reads one input pixel, in order

  // x [..., K] with weights [N, K], or x [n, spatial..., C] with weights [O, C/g, k...] of 1 to 3 spatial dims.
  // Attributes strides, pads, dilations, group may be absent (linear).
  static Result<ConvGeometry> of(const std::vector<int64_t>& xSizes, const std::vector<int64_t>& weightShape, const AttrDict& attrs);
  std::vector<int64_t> resultSizes(const std::vector<int64_t>& xSizes, const std::vector<int64_t>& weightShape) const;
};

// Where each weight and each channel stands in the packed form.
class PackedLayout {
 public:
  PackedLayout(const Packing& packing, const ConvGeometry& conv) : p_(packing), conv_(conv) {
    if (p_.taps) conv_.groups = conv_.channels = 1;
  }

  const Packing& packing() const { return p_; }
  int64_t runs() const { return p_.rowRuns ? conv_.kernelRows() : conv_.kernelRows() * conv_.kernelW; }
  int64_t runLength() const { return p_.rowRuns ? conv_.kernelW * conv_.groupChannels() : conv_.groupChannels(); }
  int64_t paddedRun() const { return (runLength() + p_.runPad - 1) / p_.runPad * p_.runPad; }
  int64_t panels() const { return (conv_.groupOutputs() * p_.copies + p_.panel - 1) / p_.panel; }  // of one conv group
  int64_t biasEntries() const { return p_.sums ? columns() * (1 + runs()) : columns(); }
  int64_t columns() const { return conv_.groups * panels() * p_.panel; }
  int64_t halfElements() const { return runs() * paddedRun() * p_.panel; }
  int64_t panelElements() const { return p_.halves * halfElements(); }
  int64_t size() const { return conv_.groups * panels() * panelElements(); }

  // Output channel c (over all groups) -> entry of scale and bias.
  int64_t column(int64_t channel, int64_t copy = 0) const;
  // Weight (channel, ic within the group, ky of all kernel rows, kx) -> element of the packed tensor.
  int64_t index(int64_t channel, int64_t ic, int64_t ky, int64_t kx, int64_t copy = 0, int64_t half = 0) const;

  // Weights as a dense tensor [O, C/g, kd * kh, kw] (any rank with that element order) of s8, s16 or f32 -> packed.
  Tensor pack(const Tensor& weights) const;
  Tensor unpack(const Tensor& packed) const;            // [O, C/g, kd * kh, kw]; of two halves: s16
  Tensor packChannels(const Tensor& perChannel) const;  // [O] or [1] of s32 or f32 -> [columns()], padding zero

 private:
  Packing p_;
  ConvGeometry conv_;
};

}  // namespace qc
