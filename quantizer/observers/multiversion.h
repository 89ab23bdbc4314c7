// QC_MULTIVERSION in front of a hot, vectorisable function compiles it for the instruction sets that matter here and lets the
// loader pick one.  The arithmetic is the same in each: no contraction, no reassociation.  Off where the tools cannot do it.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define QC_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#define QC_MULTIVERSION
#endif

namespace qc {

// Elements that such a function takes at a time where what it makes of them is read again at once, from the first cache.
inline constexpr int64_t kBlockElements = 2048;

}  // namespace qc
