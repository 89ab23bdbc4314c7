// std::stable_partition of the standard library of GCC 12 is deprecated in what it builds on, which Clang reports.
#pragma once

#include <utility>
#include <vector>

namespace qc {

// Those that `isFirst` in front of the others, both in their order.
template <class T, class Predicate>
void putFirst(std::vector<T>& list, Predicate isFirst) {
  std::vector<T> sorted, others;
  for (T& one : list) (isFirst(std::as_const(one)) ? sorted : others).push_back(std::move(one));
  for (T& one : others) sorted.push_back(std::move(one));
  list = std::move(sorted);
}

}  // namespace qc
