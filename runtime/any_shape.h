// A model in a file, at any shapes of its inputs.  The file is read once, with its free dims kept; where what it holds does not allow that
// (a Resize that needs their sizes), or what had to be assumed of sizes does not hold, it is read again for that shape, to the same result.
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "runtime/model.h"

namespace qc {

class ModelOfAnyShape {
 public:
  explicit ModelOfAnyShape(std::string path, LoadOptions options = {}) : path_(std::move(path)), options_(std::move(options)) {}
  explicit ModelOfAnyShape(Model model) : free_(std::move(model)) {
    std::call_once(read_, [] {});
  }  // that was read with its free dims

  // Errors: what load() says, or which input contradicts the model or another input.  Any number of threads may ask.
  Result<Model> at(const Shapes& shapes);
  // As it was read; null: it has to be read for every shape.
  const Model* free();
  bool isFile() const { return !path_.empty(); }
  // Gives back the memory, where nothing else will be asked.  Not while another thread asks.
  void forget() { free_.reset(); }

 private:
  const std::string path_;  // empty: it was read before
  const LoadOptions options_;
  std::once_flag read_;
  std::optional<Model> free_;
};

}  // namespace qc
