// Numbers that kernels are made from and that come from the shapes: part of the code, or read by it from the parameter block where they
// come from a dim that was free.  Such code serves every size of that dim.
//
//   struct FooPlan {
//     Number rows, length;
//     void eachNumber(const NumberVisitor& visit) { visit(rows), visit(length); }   // gives free ones their place in the block
//     std::string form() const;                                                     // what else of the plan the code depends on
//     int64_t units() const;
//   };
//   e.number(plan.rows)                                                             // in an emitter: a constant, or a register
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "ir/type.h"

namespace qc {

struct Number {
  int64_t value = 0;
  bool isFree = false;
  int slot = -1;  // of a free one: its place among the numbers of the parameter block

  Number(int64_t v = 0) : value(v) {}
  explicit Number(const Dim& dim) : value(dim.size()), isFree(dim.wasFree()) {}
  // What some arithmetic gives for the sizes, and what it gives for sizesElsewhere(): where these differ, it is free.
  Number(int64_t here, int64_t elsewhere) : value(here), isFree(here != elsewhere) {}

  bool is(int64_t v) const { return !isFree && value == v; }
  friend Number operator*(const Number& a, const Number& b) { return of(a.value * b.value, a, b); }
  friend Number operator+(const Number& a, const Number& b) { return of(a.value + b.value, a, b); }

 private:
  static Number of(int64_t v, const Number& a, const Number& b) {
    Number n(v);
    n.isFree = a.isFree || b.isFree;
    return n;
  }
};

inline Number product(std::span<const Dim> dims) {
  Number all = 1;
  for (const Dim& dim : dims) all = all * Number(dim);
  return all;
}

using NumberVisitor = std::function<void(Number&)>;

// The sizes, but for dims that were free: those have others.
inline std::vector<int64_t> sizesElsewhere(const Shape& shape) {
  constexpr int64_t kStep = 1009;
  std::vector<int64_t> sizes;
  for (const Dim& dim : shape) sizes.push_back(dim.size() + (dim.wasFree() ? kStep : 0));
  return sizes;
}

// The lanes of the widest float vector, of `lanes`, that so many elements fill at least half of; 4 at least.  Of any number: all of it.
inline int laneCount(int lanes, const Number& elements) {
  while (!elements.isFree && lanes > 4 && lanes / 2 >= elements.value) lanes /= 2;
  return lanes;
}

inline bool wasFree(const Shape& shape) {
  for (const Dim& dim : shape)
    if (dim.wasFree()) return true;
  return false;
}

}  // namespace qc
