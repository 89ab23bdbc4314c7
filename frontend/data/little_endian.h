// Numbers in files.
#pragma once

#include <cstring>

namespace qc {

template <class T>
T littleEndian(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

}  // namespace qc
