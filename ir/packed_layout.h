// Packed weights and the geometry of channel-last convolutions, for k.conv: where each weight of a Packing (ir/packing.h) stands.
#pragma once

#include <cstdint>
#include <vector>

#include "ir/attr.h"
#include "ir/packing.h"
#include "ir/status.h"
#include "ir/tensor.h"

namespace qc {

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
