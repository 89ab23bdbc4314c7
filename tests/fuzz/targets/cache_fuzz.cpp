// Files of the cache of compiled kernels.  What does not begin like one is taken as the contents of one, with its right checksum.
#include "codegen/object_cache.h"
#include "tests/fuzz/targets/target.h"

using namespace qc::testing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes = bytesOf(data, size);
  constexpr std::string_view kKey = "key";
  const std::string file = bytes.starts_with("qco") ? std::string(bytes) : qc::sealedObject(bytes);
  if (const auto object = qc::decodeObject(file, kKey)) {
    if (qc::encodeObject(kKey, *object) != file) complain("reads something else than it wrote");
    if (qc::decodeObject(file, "other")) complain("takes what was made for another key");
  }
  return 0;
}
