// Spectra of every kind of length against the reference evaluation: whole and of one side, forward and back, of fewer and more numbers.
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

std::string spectrum(const char* type, const std::string& x, int length, const std::string& y, const char* attrs = "") {
  return fmt::format("graph @g(%x: {0}[{1}]) {{\n%y = dft %x {{length=[{2}]{4}}} : {0}[{3}]\nreturn %y\n}}\n", type, x, length, y, attrs);
}

// Every form of a transform of `length` of `given` numbers in each of `rows`.
void checkForms(const char* type, int rows, int given, int length) {
  const auto shape = [&](int numbers, int parts) { return fmt::format("{},{},{}", rows, numbers, parts); };
  for (const char* inverse : {"", ", inverse=1"}) {
    checkRows(spectrum(type, shape(given, 1), length, shape(length, 2), inverse));
    checkRows(spectrum(type, shape(given, 2), length, shape(length, 2), inverse));
  }
  checkRows(spectrum(type, shape(given, 1), length, shape(length / 2 + 1, 2), ", onesided=1"));
  checkRows(spectrum(type, shape(given, 2), length, shape(length, 1), ", inverse=1, onesided=1"));
}

TEST(Spectrum, Lengths) {
  for (const int length : {1, 2, 3, 5, 7, 8, 12, 49}) checkForms("f32", 3, length, length);
  for (const int length : {4, 16, 60, 143, 256, 400})
    checkRows(spectrum("f32", fmt::format("2,{},1", length), length, fmt::format("2,{},2", length)));
}

TEST(Spectrum, FewerNumbersAndMore) {
  for (const int given : {1, 4, 5, 12}) checkForms("f32", 2, given, 6);
  for (const int given : {4, 12}) checkForms("f32", 2, given, 9);
}

TEST(Spectrum, Rows) {
  for (const int rows : {1, 9, 21}) checkForms("f32", rows, 10, 10);
  checkRows(spectrum("f32", "12,2", 12, "12,2"));
  checkRows(spectrum("f32", "2,3,4,6,1", 6, "2,3,4,4,2", ", onesided=1"));
}

TEST(Spectrum, Doubles) {
  for (const int length : {8, 15}) checkForms("f64", 5, length, length);
}

// Vectors of rows that would not fit into the cache together are made of fewer.
TEST(Spectrum, LongRows) {
  checkRows(spectrum("f32", "3,20000,1", 20000, "3,20000,2"));
  checkRows(spectrum("f32", "0,8,1", 8, "0,8,2"), true);
}

}  // namespace
}  // namespace qc::testing
