// Interpolation kernels against the reference evaluation.
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr const char* kTypes = "!a = q<u8, scale=0.037, zp=113>\n!b = q<u8, scale=0.021, zp=7>\n!s = q<s8, scale=0.05, zp=-3>\n";

struct Geometry {
  const char *from, *to, *scales;  // [n,h,w], [n,h,w], h and w
};
constexpr Geometry kGeometries[] = {
    {"2,3,4", "2,6,8", "2, 2"}, {"1,5,3", "1,7,4", "1.4, 1.4"}, {"2,6,7", "2,3,2", "0.5, 0.34"}, {"1,1,1", "1,4,3", "4, 3"}};

std::string resize(const char* op, const char* from, const char* to, const Geometry& g, int channels, const std::string& attrs) {
  return fmt::format(
      "{}graph @g(%x: {}[{},{}]) {{\n%y = {} %x {{sizes=[{},{}], scales=[1, {}, 1], layout=\"channels_last\", {}}} : {}[{},{}]\nreturn "
      "%y\n}}\n",
      kTypes, from, g.from, channels, op, g.to, channels, g.scales, attrs, to, g.to, channels);
}

TEST(Resize, Nearest) {
  for (const Geometry& g : kGeometries)
    for (const int channels : {1, 3, 16, 70})
      for (const char* type : {"f32", "!a", "s64"})
        checkRows(resize("resize", type, type, g, channels, "mode=\"nearest\", coordinate=\"asymmetric\", nearest=\"floor\""));
}

TEST(Resize, LinearAndCubic) {
  for (const Geometry& g : kGeometries)
    for (const int channels : {1, 5, 16, 33})
      for (const char* attrs : {"mode=\"linear\"", "mode=\"linear\", coordinate=\"align_corners\"", "mode=\"cubic\""}) {
        checkRows(resize("resize", "f32", "f32", g, channels, attrs));
        checkRows(resize("q.resize", "!a", "!b", g, channels, fmt::format("{}, to=!b", attrs)));
        checkRows(resize("q.resize", "!s", "!a", g, channels, fmt::format("{}, to=!a", attrs)));
      }
}

// Images that become much smaller: filters stretched over what a result stands for, written out and looped over.
TEST(Resize, Antialiased) {
  for (const Geometry& g :
       {Geometry{"2,7,6", "2,3,3", "0.4, 0.5"}, Geometry{"1,20,33", "1,4,5", "0.2, 0.15"}, Geometry{"1,9,4", "1,2,8", "0.25, 2"}})
    for (const int channels : {1, 3, 16, 21})
      for (const char* attrs : {"mode=\"linear\", antialias=1", "mode=\"cubic\", antialias=1, exclude_outside=1"}) {
        checkRows(resize("resize", "f32", "f32", g, channels, attrs));
        checkRows(resize("q.resize", "!a", "!b", g, channels, fmt::format("{}, to=!b", attrs)));
      }
  checkRows(
      "graph @g(%x: f32[1,2,9,12,11]) {\n%y = resize %x {sizes=[1,2,3,4,3], scales=[1,1,0.33,0.33,0.25], mode=\"linear\", antialias=1} : "
      "f32[1,2,3,4,3]\nreturn %y\n}\n");
}

TEST(Resize, OtherDims) {
  checkRows(
      "graph @g(%x: f32[2,3,4,5]) {\n%y = resize %x {sizes=[2,3,8,10], scales=[1,1,2,2], mode=\"linear\"} : f32[2,3,8,10]\nreturn %y\n}\n");
  checkRows(
      "graph @g(%x: f32[2,4,5]) {\n%y = resize %x {sizes=[2,8,5], scales=[1,2,1], mode=\"linear\", layout=\"channels_last\"} : "
      "f32[2,8,5]\nreturn %y\n}\n");
  checkRows(
      "graph @g(%x: f32[1,2,3,4,5]) {\n%y = resize %x {sizes=[1,4,3,6,5], scales=[1,2,1,1.5,1], mode=\"linear\", layout=\"channels_last\"} "
      ": f32[1,4,3,6,5]\nreturn %y\n}\n");
  checkRows("graph @g(%x: f32[2,3]) {\n%y = resize %x {sizes=[4,3], scales=[2,1], mode=\"linear\"} : f32[4,3]\nreturn %y\n}\n");
}

// What samples outside the source is left to the reference evaluation.
TEST(Resize, CropsHaveNoRow) {
  checkRows(
      "graph @g(%x: f32[1,4,4,2]) {\n%y = resize %x {sizes=[1,3,3,2], scales=[1,1,1,1], mode=\"linear\", "
      "coordinate=\"tf_crop_and_resize\", "
      "roi=[0,-0.5,0,0,1,1.5,1,1], layout=\"channels_last\"} : f32[1,3,3,2]\nreturn %y\n}\n",
      true);
}

}  // namespace
}  // namespace qc::testing
