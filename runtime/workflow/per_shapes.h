// What runs samples of one combination of shapes, kept for the next of them.
#pragma once

#include <list>
#include <utility>

#include "runtime/model.h"

namespace qc {

// A few things, one for every combination of shapes; the one used longest ago makes room.
template <class T>
class PerShapes {
 public:
  template <class Make>  // Make: (const Shapes&) -> Result<T>
  Result<T*> at(const Shapes& shapes, Make make) {
    for (auto it = recent_.begin(); it != recent_.end(); ++it) {
      if (it->first != shapes) continue;
      recent_.splice(recent_.begin(), recent_, it);
      return &recent_.front().second;
    }
    QC_ASSIGN(T made, make(shapes));
    recent_.emplace_front(shapes, std::move(made));
    if (recent_.size() > kRemembered) recent_.pop_back();
    return &recent_.front().second;
  }

 private:
  static constexpr size_t kRemembered = 64;
  std::list<std::pair<Shapes, T>> recent_;  // latest first
};

}  // namespace qc
