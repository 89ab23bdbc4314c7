// Photographs, decoded and made to a model's input.
#include "frontend/data/image.h"
#include "ir/guarded.h"
#include "tests/fuzz/targets/target.h"

using namespace qc::testing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(bytesOf(data, size));
  static_cast<void>(qc::withoutExceptions([&]() -> qc::Status {
    QC_ASSIGN(const qc::Image image, qc::decodeImage(bytes, "fuzz"));
    if (image.width * image.height > 1 << 18) return {};
    for (const auto filter : {qc::ImageOptions::Filter::nearest, qc::ImageOptions::Filter::bilinear, qc::ImageOptions::Filter::bicubic})
      QC_TRY(qc::imageTensor(image, {.resize = 9, .width = 8, .height = 8, .filter = filter}));
    return {};
  }));
  return 0;
}
