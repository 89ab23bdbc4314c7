// Ranges files.  Half of the inputs are bodies, sealed here, since noise does not guess a checksum.
#include "quantizer/observers/convergence.h"
#include "quantizer/ranges.h"
#include "tests/fuzz/targets/target.h"

using namespace qc::testing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(bytesOf(data, size));
  if (!bytes.starts_with("qcal")) bytes = qc::sealed(bytes);
  auto ranges = qc::Ranges::deserialize(bytes, "fuzz");
  if (!ranges) return 0;
  static_cast<void>(ranges->params());
  static_cast<void>(qc::assess(*ranges));
  const std::string again = ranges->serialize();
  auto same = qc::Ranges::deserialize(again, "again");
  if (!same) complain("does not read what it wrote: " + same.error().render());
  if (same->serialize() != again) complain("reads something else than it wrote");
  static_cast<void>(ranges->merge(*same, true));
  return 0;
}
