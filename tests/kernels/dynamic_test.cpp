// Parameters found at run time, of whole tensors and of rows.
#include <cmath>
#include <limits>

#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

std::string textOf(int rows, int columns, const char* granularity, const std::string& attrs) {
  const std::string sets = std::string(granularity) == "token" ? fmt::format("[{},1]", rows) : "[]";
  return fmt::format(
      "graph @g(%x: f32[{},{}]) {{\n%s, %z = dynamic_qparams %x {{granularity=\"{}\"{}}} : f32{}, s32{}\nreturn %s, %z\n}}\n", rows,
      columns, granularity, attrs, sets, sets);
}

TEST(DynamicParams, TensorsAndRows) {
  const std::string kRanges[] = {"", ", eps=0.0", ", scheme=\"symmetric\"", ", qmax=127, qmin=-128, storage=s8",
                                 ", qmax=127, qmin=-127, scheme=\"symmetric\", storage=s8"};
  for (const char* granularity : {"tensor", "token"})
    for (const int columns : {1, 3, 16, 17, 40, 100})
      for (const std::string& range : kRanges) checkRows(textOf(3, columns, granularity, range));
}

}  // namespace
}  // namespace qc::testing
