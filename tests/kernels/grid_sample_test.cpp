// Images read at the positions of a grid, against the reference evaluation: every mode, padding and number of dims, far positions too.
#include <cmath>

#include "ir/text.h"
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

std::string sampling(const std::string& x, const std::string& grid, const std::string& y, const std::string& attrs) {
  return fmt::format("graph @g(%x: f32[{}], %g: f32[{}]) {{\n%y = grid_sample %x, %g {{{}}} : f32[{}]\nreturn %y\n}}\n", x, grid, attrs, y);
}

std::vector<std::string> forms() {
  std::vector<std::string> all;
  for (const char* mode : {"linear", "nearest", "cubic"})
    for (const char* padding : {"zeros", "border", "reflection"})
      for (const int aligned : {0, 1})
        all.push_back(fmt::format("mode=\"{}\", padding_mode=\"{}\", align_corners={}", mode, padding, aligned));
  return all;
}

TEST(GridSample, Images) {
  for (const std::string& form : forms()) checkRows(sampling("2,3,5,4", "2,3,7,2", "2,3,3,7", form));
  for (const char* form : {"", "padding_mode=\"reflection\", align_corners=1", "mode=\"cubic\", padding_mode=\"border\""}) {
    checkRows(sampling("1,2,1,6", "1,4,4,2", "1,2,4,4", form));
    checkRows(sampling("1,1,3,1", "1,1,1,2", "1,1,1,1", form));
  }
}

TEST(GridSample, OtherDims) {
  for (const char* form : {"", "mode=\"nearest\", padding_mode=\"reflection\"", "padding_mode=\"border\", align_corners=1"}) {
    checkRows(sampling("2,3,9", "2,5,1", "2,3,5", form));
    checkRows(sampling("1,2,3,4,2", "1,3,2,3,3", "1,2,3,2,3", form));
  }
  checkRows(sampling("1,1,3,4,2", "1,1,2,3,3", "1,1,1,2,3", "mode=\"cubic\""));
  checkRows(sampling("1,2,3,2,2,2", "1,1,1,1,5,4", "1,2,1,1,1,5", ""));
}

// Three powers of four corners are left to the evaluation, and images of nothing.
TEST(GridSample, HasNoRow) {
  checkRows(sampling("1,1,2,2,2,2", "1,1,1,1,1,4", "1,1,1,1,1,1", "mode=\"cubic\""), true);
  checkRows(sampling("1,2,3,4", "1,0,2,2", "1,2,0,2", ""), true);
}

void checkAt(const std::string& text, const std::vector<float>& positions) {
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render();
  std::mt19937 rng(3);
  const Node& node = *graph->back();
  const Tensor x = randomTensor(DType::f32, node.operand(0)->type().sizes(), rng);
  Tensor grid(DType::f32, node.operand(1)->type().sizes());
  for (float& v : grid.mutableAs<float>()) v = positions[rng() % positions.size()];
  checkRowsOn(text, {&x, &grid});
}

// On the ends of an image, between and beyond them, where every position is a tie for nearest.
TEST(GridSample, Ends) {
  std::vector<float> positions;
  for (int i = -24; i <= 24; ++i) positions.push_back(static_cast<float>(i) / 8);
  for (const std::string& form : forms()) {
    checkAt(sampling("1,2,4,4", "1,6,50,2", "1,2,6,50", form), positions);
    checkAt(sampling("1,2,3,5", "1,6,50,2", "1,2,6,50", form), positions);
  }
}

// Where nothing is to be read but the image; what is not a number has no bits to compare but of the nearest.
TEST(GridSample, FarOutside) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kMost = std::numeric_limits<float>::max();
  for (const std::string& form : forms()) {
    const bool whole = form.find("nearest") != std::string::npos;
    const std::vector<float> finite = {1e7f, -1e7f, 3e9f, -3e9f, 1e20f, -1e20f, 0.25f};
    checkAt(sampling("2,3,5,4", "2,3,7,2", "2,3,3,7", form), finite);
    if (whole) checkAt(sampling("2,3,5,4", "2,3,7,2", "2,3,3,7", form), {kInf, -kInf, kMost, -kMost, std::nanf(""), 0.25f});
  }
}

}  // namespace
}  // namespace qc::testing
