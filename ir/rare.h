// An optional that takes one word where it is empty: for what few of many hold.
#pragma once

#include <memory>
#include <utility>

namespace qc {

template <class T>
class Rare {
 public:
  Rare() = default;
  Rare(const Rare& other) : held_(other.held_ ? std::make_unique<T>(*other.held_) : nullptr) {}
  Rare(Rare&&) noexcept = default;
  Rare& operator=(Rare other) noexcept {
    held_ = std::move(other.held_);
    return *this;
  }
  Rare& operator=(T value) {
    held_ = std::make_unique<T>(std::move(value));
    return *this;
  }
  void reset() { held_.reset(); }
  explicit operator bool() const { return held_ != nullptr; }
  T& operator*() { return *held_; }
  const T& operator*() const { return *held_; }
  T* operator->() { return held_.get(); }
  const T* operator->() const { return held_.get(); }

 private:
  std::unique_ptr<T> held_;
};

}  // namespace qc
