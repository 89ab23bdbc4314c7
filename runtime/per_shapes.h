// What was made for a combination of input shapes, kept for the next use of it.
#pragma once

#include <algorithm>
#include <list>
#include <map>
#include <utility>

#include "runtime/model.h"

namespace qc {

// A bounded number of things, one for every combination; the one used longest ago makes room.  Not for several threads at once.
template <class T>
class PerShapes {
 public:
  PerShapes() = default;
  explicit PerShapes(size_t most) : most_(std::max<size_t>(most, 1)) {}

  // The latest from now on; null: there is none.
  T* find(const Shapes& shapes) {
    const auto it = places_.find(shapes);
    if (it == places_.end()) return nullptr;
    recent_.splice(recent_.begin(), recent_, it->second);
    return &recent_.front().second;
  }
  T* add(const Shapes& shapes, T made) {
    if (const auto old = places_.find(shapes); old != places_.end()) recent_.erase(old->second);
    recent_.emplace_front(shapes, std::move(made));
    places_[shapes] = recent_.begin();
    if (recent_.size() > most_) {
      places_.erase(recent_.back().first);
      recent_.pop_back();
    }
    return &recent_.front().second;
  }
  template <class Make>  // Make: (const Shapes&) -> Result<T>
  Result<T*> at(const Shapes& shapes, Make make) {
    if (T* known = find(shapes)) return known;
    QC_ASSIGN(T made, make(shapes));
    return add(shapes, std::move(made));
  }
  size_t size() const { return recent_.size(); }
  auto begin() const { return recent_.begin(); }  // pairs of shapes and what was made for them, latest first
  auto end() const { return recent_.end(); }

 private:
  using Recent = std::list<std::pair<Shapes, T>>;
  size_t most_ = 64;
  Recent recent_;  // latest first
  std::map<Shapes, typename Recent::iterator> places_;
};

}  // namespace qc
