// ONNX models.
#include "tests/fuzz/model_way.h"
#include "tests/fuzz/onnx_damage.h"
#include "tests/fuzz/targets/target.h"

using namespace qc::testing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ModelCount count;
  complain(complaintAboutModel(std::string(bytesOf(data, size)), count));
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t maxSize, unsigned seed) {
  static const std::vector<std::string> seeds = onnxSeeds();
  const bool fresh = size < 20 || seed % 50 == 0;
  const std::string damaged = damagedOnnx(fresh ? seeds[seed / 50 % seeds.size()] : std::string(bytesOf(data, size)), seed);
  const size_t done = put(damaged, data, maxSize);
  return done > 0 ? done : LLVMFuzzerMutate(data, size, maxSize);
}
