#include "runtime/training/augment.h"

#include <algorithm>
#include <vector>

namespace qc {
namespace {

bool isChannels(const Dim& d) { return d.isStatic() && d.size() >= 1 && d.size() <= 4; }

}  // namespace

uint64_t Draws::next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t hashOf(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

Result<Augmentation> Augmentation::parse(const std::string& words) {
  Augmentation a;
  for (size_t at = 0; at < words.size();) {
    const size_t end = std::min(words.find(',', at), words.size());
    const std::string word = words.substr(at, end - at);
    if (word != "flip" && word != "crop")
      return fail(ErrorCode::kInvalidArgument, "there is no augmentation '{}'", word).help("flip, crop, or both with a comma");
    (word == "flip" ? a.flips_ : a.crops_) = true;
    at = end + 1;
  }
  return a;
}

bool Augmentation::takes(const TensorType& type) {
  return type.dtype == DType::f32 && type.rank() == 4 && type.isStatic() && (isChannels(type.shape[1]) || isChannels(type.shape[3]));
}

void Augmentation::apply(const TensorType& type, std::span<float> image, Draws& draws) const {
  const std::vector<int64_t> sizes = type.sizes();
  const bool first = isChannels(type.shape[1]);
  const int64_t height = first ? sizes[2] : sizes[1], width = first ? sizes[3] : sizes[2], channels = first ? sizes[1] : sizes[3];
  const bool mirrored = flips_ && draws.below(2) == 1;
  const auto moved = [&](int64_t size) {
    const int64_t most = crops_ ? size / 8 : 0;
    return most == 0 ? 0 : static_cast<int64_t>(draws.below(static_cast<uint64_t>(2 * most + 1))) - most;
  };
  const int64_t down = moved(height), right = moved(width);
  if (!mirrored && down == 0 && right == 0) return;
  const std::vector<float> before(image.begin(), image.end());
  const auto at = [&](int64_t c, int64_t y, int64_t x) {
    return usize(first ? (c * height + y) * width + x : (y * width + x) * channels + c);
  };
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const int64_t from = std::clamp<int64_t>(x - right, 0, width - 1);
        image[at(c, y, x)] = before[at(c, std::clamp<int64_t>(y - down, 0, height - 1), mirrored ? width - 1 - from : from)];
      }
}

}  // namespace qc
