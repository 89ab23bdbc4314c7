// Arrays: npy and npz, whole and row by row.
#include <algorithm>

#include "frontend/data/array_file.h"
#include "frontend/data/npy.h"
#include "ir/guarded.h"
#include "tests/fuzz/targets/scratch_file.h"
#include "tests/fuzz/targets/target.h"

using namespace qc::testing;

namespace {

qc::Status rows(const qc::ArrayFile& array) {
  QC_TRY(array.check());
  const int64_t n = array.rows();
  for (const int64_t i : {int64_t{0}, n / 2, n - 1, int64_t{1}})
    if (i >= 0 && i < n) {
      QC_ASSIGN(const qc::Tensor row, array.row(i));
      if (row.numElements() > 0) static_cast<void>(row.at(row.numElements() - 1));
    }
  return {};
}

qc::Status readAll(const std::string& path, std::string_view bytes) {
  if (bytes.starts_with("PK")) {
    QC_ASSIGN(const auto arrays, qc::openNpz(path));
    for (const auto& [name, array] : arrays) QC_TRY(rows(*array));
    return {};
  }
  const auto whole = qc::parseNpy(bytes, "fuzz"), file = qc::readNpy(path);
  if (whole && (!file || !whole->sameBytes(*file))) complain("the two readers differ");
  QC_ASSIGN(const auto array, qc::openNpy(path));
  return rows(*array);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ScratchFile file;
  const std::string_view bytes = bytesOf(data, size);
  file.write(bytes);
  static_cast<void>(qc::withoutExceptions([&] { return readAll(file.path(), bytes); }));
  return 0;
}
