// Small changes of images that leave their class alone, drawn anew for every sample of every epoch.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ir/status.h"
#include "ir/tensor.h"

namespace qc {

// splitmix64: a sequence that is the same with every library.
class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed) {}
  uint64_t below(uint64_t count) { return next() % count; }  // requires: count > 0

 private:
  uint64_t next();
  uint64_t state_;
};

// FNV-1a: a seed out of words, the same everywhere.
uint64_t hashOf(std::string_view text);

class Augmentation {
 public:
  // "flip,crop": mirrored left to right, one in two; moved by up to an eighth of the size, with the edge repeated.  Empty: nothing.
  // Error: another word.
  static Result<Augmentation> parse(const std::string& words);
  explicit operator bool() const { return flips_ || crops_; }
  // Whether inputs of these sizes, batch first, are images: channels first or last, 1 to 4 of them.
  static bool takes(const TensorType& type);
  // One image of the batch.  Requires: takes(type).
  void apply(const TensorType& type, std::span<float> image, Draws& draws) const;

 private:
  bool flips_ = false, crops_ = false;
};

}  // namespace qc
