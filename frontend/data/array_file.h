// Arrays in npy and npz files, read row by row: memory does not grow with the file.  The first axis counts the rows.
//
// A stored array is read where it stands in the file, in any order.  A deflated member of an npz is unpacked as a stream: rows in rising
// order cost one pass over it, a step back starts again.  Limits: a row has at most 1 GiB, a deflated member unpacks to at most 8 GiB
// (save without compression, or as npy, beyond that), a directory of an archive has at most 64 MiB.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ir/tensor.h"

namespace qc {

// What the head of an npy file says.
struct NpyHeader {
  DType dtype = DType::f32;
  std::vector<int64_t> sizes;
  size_t dataOffset = 0;
};
inline constexpr size_t kMaxNpyHead = 64 << 10;  // bytes
// `bytes` start with the file and hold the whole head.  The product of the sizes is below 2^40.
Result<NpyHeader> parseNpyHeader(std::string_view bytes, std::string_view name);

class ArrayFile {
 public:
  virtual ~ArrayFile() = default;
  const NpyHeader& header() const { return header_; }
  int64_t rows() const { return header_.sizes.empty() ? 1 : header_.sizes[0]; }
  // Compares the whole of a member of an npz with its checksum, in one pass over it; to be asked once before rows are read.
  virtual Status check() const = 0;
  // [1, the other sizes].  Safe to call from several threads.
  virtual Result<Tensor> row(int64_t i) const = 0;

 protected:
  explicit ArrayFile(NpyHeader header) : header_(std::move(header)) {}
  NpyHeader header_;
};

Result<std::unique_ptr<ArrayFile>> openNpy(const std::string& path);
Result<std::map<std::string, std::unique_ptr<ArrayFile>>> openNpz(const std::string& path);

}  // namespace qc
