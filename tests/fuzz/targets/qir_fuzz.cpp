// Graphs in text form; the passes to run are chosen by the length.
#include "tests/fuzz/targets/target.h"
#include "tests/fuzz/text_way.h"

using namespace qc::testing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  int accepted = 0;
  complain(complaintAboutText(std::string(bytesOf(data, size)), size, accepted));
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t maxSize, unsigned seed) {
  static const std::vector<std::string> texts = goldenTexts();
  if (seed % 4 == 0 && size > 0) return LLVMFuzzerMutate(data, size, maxSize);
  const bool fresh = size < 20 || seed % 20 == 1;
  return put(damagedText(fresh ? texts[seed / 20 % texts.size()] : std::string(bytesOf(data, size)), texts, seed), data, maxSize);
}
