// Sizes, axes and indices are signed throughout, so that differences and "none" (-1) are plain; the standard containers count in size_t.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

namespace qc {

// A count or an index that is not negative, or an entry of a table of one row per enumerator, as the standard containers take it.
template <typename Index>
  requires std::integral<Index> || std::is_enum_v<Index>
constexpr size_t usize(Index i) {
  return static_cast<size_t>(i);
}

// The element with a signed index: nth(sizes, axis) is sizes[axis].
template <typename Container, typename Index>
constexpr decltype(auto) nth(Container&& container, Index i) {
  return container[usize(i)];
}

}  // namespace qc
