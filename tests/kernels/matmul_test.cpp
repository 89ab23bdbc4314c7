// Products of two activations against the reference evaluation, on sizes around tiles, panels and pairs of k.
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

struct Product {
  const char *a, *b, *y;  // shapes
};
const Product kProducts[] = {
    {"1,1", "1,1", "1,1"},
    {"6,8", "8,64", "6,64"},
    {"7,5", "5,65", "7,65"},
    {"13,33", "33,19", "13,19"},
    {"1,40", "40,200", "1,200"},
    {"2,17", "17,130", "2,130"},
    {"5,3", "3,1", "5,1"},
    {"64,31", "31,300", "64,300"},
    {"3,4,9,16", "3,4,16,9", "3,4,9,9"},
    {"2,1,11,8", "5,8,12", "2,5,11,12"},
    {"12,8", "4,8,20", "4,12,20"},
    {"9,7,10", "10", "9,7"},
    {"10", "3,10,33", "3,33"},
};

TEST(Matmul, Float) {
  for (const Product& p : kProducts)
    checkRows(fmt::format("graph @g(%a: f32[{}], %b: f32[{}]) {{\n%y = matmul %a, %b : f32[{}]\nreturn %y\n}}\n", p.a, p.b, p.y));
}

TEST(Matmul, Integers) {
  for (const Product& p : kProducts)
    for (const char* b : {"!b", "!s"})
      for (const auto& [to, y] : {std::pair{"", "f32"}, std::pair{"{to=!y}", "!y"}, std::pair{"{to=!s}", "!s"}})
        checkRows(fmt::format(
            "!a = q<u8, scale=0.037, zp=113>\n!b = q<u8, scale=0.021, zp=7>\n!s = q<s8, scale=0.05, zp=-3>\n!y = q<u8, scale=0.9, zp=120>\n"
            "graph @g(%a: !a[{}], %b: {}[{}]) {{\n%y = q.matmul %a, %b {} : {}[{}]\nreturn %y\n}}\n",
            p.a, b, p.b, to, y, p.y));
}

}  // namespace
}  // namespace qc::testing
