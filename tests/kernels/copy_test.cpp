// Kernels that move elements against the reference evaluation: every kind of piece, sizes around vectors and tiles, every width of
// element, and sizes that make several work units.
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr const char* kTypes = "!a = q<u8, scale=0.037, zp=113>\n!s = q<s8, scale=0.05, zp=-3>\n!w = q<u16, scale=0.0003, zp=30001>\n";
constexpr const char* kElements[] = {"u8", "f16", "f32", "s64"};

void check(const std::string& op, const std::string& from, const std::string& attrs, const std::string& to) {
  checkRows(fmt::format("{}graph @g(%x: {}) {{\n%y = {} %x {{{}}} : {}\nreturn %y\n}}\n", kTypes, from, op, attrs, to));
}

TEST(Copy, Planes) {
  for (const char* t : kElements)
    for (const int rows : {2, 3, 5, 8, 40})
      for (const int columns : {2, 4, 7, 16, 35})
        check("transpose", fmt::format("{}[{},{}]", t, rows, columns), "perm=[1,0]", fmt::format("{}[{},{}]", t, columns, rows));
}

TEST(Copy, Transposes) {
  for (const char* t : {"!a", "f32"}) {
    check("transpose", fmt::format("{}[2,3,70,90]", t), "perm=[0,2,3,1]", fmt::format("{}[2,70,90,3]", t));
    check("transpose", fmt::format("{}[2,70,90,3]", t), "perm=[0,3,1,2]", fmt::format("{}[2,3,70,90]", t));
    check("transpose", fmt::format("{}[1,120,130]", t), "perm=[0,2,1]", fmt::format("{}[1,130,120]", t));
    check("transpose", fmt::format("{}[5,6,2,29]", t), "perm=[0,1,3,2]", fmt::format("{}[5,6,29,2]", t));
    check("transpose", fmt::format("{}[3,12,4,32]", t), "perm=[0,2,1,3]", fmt::format("{}[3,4,12,32]", t));
    check("transpose", fmt::format("{}[3,4,5,6]", t), "perm=[3,1,2,0]", fmt::format("{}[6,4,5,3]", t));
    check("transpose", fmt::format("{}[7,9,2]", t), "perm=[1,0,2]", fmt::format("{}[9,7,2]", t));
  }
}

TEST(Copy, Slices) {
  for (const char* t : kElements) {
    for (const int n : {1, 5, 16, 33, 100})
      for (const int step : {1, 2, 3, 5}) {
        check("slice", fmt::format("{}[3,{}]", t, n * step), fmt::format("starts=[0,{}], sizes=[3,{}], steps=[1,{}]", step - 1, n, step),
              fmt::format("{}[3,{}]", t, n));
        check("slice", fmt::format("{}[3,{}]", t, n * step),
              fmt::format("starts=[2,{}], sizes=[3,{}], steps=[-1,{}]", n * step - 1, n, -step), fmt::format("{}[3,{}]", t, n));
      }
    check("slice", fmt::format("{}[4,50,60]", t), "starts=[1,3,5], sizes=[2,40,50], steps=[1,1,1]", fmt::format("{}[2,40,50]", t));
    check("slice", fmt::format("{}[1,40,40,3]", t), "starts=[0,1,0,0], sizes=[1,20,20,3], steps=[1,2,2,1]",
          fmt::format("{}[1,20,20,3]", t));
  }
}

TEST(Copy, ConcatAndSplit) {
  for (const char* t : kElements) {
    checkRows(
        fmt::format("graph @g(%x: {0}[5,4], %y: {0}[5,1], %z: {0}[5,80], %e: {0}[5,0]) {{\n%r = concat %x, %y, %z, %e {{axis=1}} : "
                    "{0}[5,85]\nreturn %r\n}}\n",
                    t));
    checkRows(fmt::format(
        "graph @g(%x: {0}[1,30,20,24], %y: {0}[1,30,20,40]) {{\n%r = concat %x, %y {{axis=3}} : {0}[1,30,20,64]\nreturn %r\n}}\n", t));
    checkRows(
        fmt::format("graph @g(%x: {0}[1,90,100], %y: {0}[1,7,100]) {{\n%r = concat %x, %y {{axis=1}} : {0}[1,97,100]\nreturn %r\n}}\n", t));
    checkRows(
        fmt::format("graph @g(%x: {0}[40,30,116]) {{\n%a, %b, %c = split %x {{axis=2, sizes=[58,57,1]}} : {0}[40,30,58], {0}[40,30,57], "
                    "{0}[40,30,1]\nreturn %a, %b, %c\n}}\n",
                    t));
  }
}

TEST(Copy, Pads) {
  for (const char* t : {"f32", "!a", "!s", "!w", "s64", "bool"})
    for (const char* mode : {"constant", "reflect", "edge", "wrap"}) {
      check("pad", fmt::format("{}[2,5,6,3]", t), fmt::format("pads=[0,2,1,0,0,1,3,0], value=1, mode=\"{}\"", mode),
            fmt::format("{}[2,8,10,3]", t));
      check("pad", fmt::format("{}[4,7]", t), fmt::format("pads=[1,2,0,20], value=-0.75, mode=\"{}\"", mode), fmt::format("{}[5,29]", t));
      check("pad", fmt::format("{}[1,60,70,8]", t), fmt::format("pads=[0,2,2,0,0,2,2,0], mode=\"{}\"", mode),
            fmt::format("{}[1,64,74,8]", t));
      check("pad", fmt::format("{}[3]", t), fmt::format("pads=[1,0], mode=\"{}\"", mode), fmt::format("{}[4]", t));
    }
}

TEST(Copy, Repeats) {
  for (const char* t : kElements) {
    check("expand", fmt::format("{}[1]", t), "shape=[70]", fmt::format("{}[70]", t));
    check("expand", fmt::format("{}[3,1,5]", t), "shape=[2,3,4,5]", fmt::format("{}[2,3,4,5]", t));
    check("expand", fmt::format("{}[30,1]", t), "shape=[30,90]", fmt::format("{}[30,90]", t));
    check("tile", fmt::format("{}[2,3]", t), "repeats=[2,3]", fmt::format("{}[4,9]", t));
    check("tile", fmt::format("{}[2,1,40]", t), "repeats=[1,60,2]", fmt::format("{}[2,60,80]", t));
  }
}

TEST(Copy, DepthAndSpace) {
  for (const char* t : {"!a", "f32"})
    for (const int channels : {1, 3, 8}) {
      for (const char* mode : {"DCR", "CRD"})
        check("depth_to_space", fmt::format("{}[2,5,6,{}]", t, 4 * channels),
              fmt::format("blocksize=2, mode=\"{}\", layout=\"channels_last\"", mode), fmt::format("{}[2,10,12,{}]", t, channels));
      check("space_to_depth", fmt::format("{}[2,9,6,{}]", t, channels), "blocksize=3, layout=\"channels_last\"",
            fmt::format("{}[2,3,2,{}]", t, 9 * channels));
      check("space_to_depth", fmt::format("{}[1,{},40,50]", t, channels), "blocksize=2", fmt::format("{}[1,{},20,25]", t, 4 * channels));
    }
}

}  // namespace
}  // namespace qc::testing
