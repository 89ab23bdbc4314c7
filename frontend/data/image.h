// Photographs as model inputs: JPEG and PNG decoding, antialiased resize, centre crop, normalisation.
#pragma once

#include <string>
#include <vector>

#include "ir/tensor.h"

namespace qc {

struct ImageOptions {
  int64_t resize = 0;                         // short side after resizing; 0: leave
  int64_t width = 0, height = 0;              // centre crop; 0: all (then, without `resize`, stretched to the model's size by the reader)
  std::vector<double> mean = {0}, std = {1};  // in 0..255 units, one or one per channel after `order`
  bool channelsFirst = true;                  // nchw
  enum class Order : uint8_t { rgb, bgr, grey } order = Order::rgb;
  enum class Filter : uint8_t { nearest, bilinear, bicubic } filter = Filter::bilinear;
};

// 8-bit pixels, rows from the top, RGB.
struct Image {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
  std::string name = {};  // the file, for messages
};

Result<Image> readImage(const std::string& path);  // by content, not by suffix
Result<Image> decodeImage(const std::string& bytes, const std::string& name);
bool looksLikeImage(const std::string& path);  // by suffix: which files of a folder to take

// Separable resampling whose support grows with the reduction, 8-bit between the passes, as Pillow does.
Image resized(const Image& image, int64_t width, int64_t height, ImageOptions::Filter filter);

// f32 [1,C,H,W] or [1,H,W,C].
Result<Tensor> imageTensor(const Image& image, const ImageOptions& options);

}  // namespace qc
