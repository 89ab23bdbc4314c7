// Ops on the bits of integers.
#include <gmock/gmock.h>

#include "tests/unit/one_node.h"

namespace qc {
namespace {

using namespace qc::test;
using testing::ElementsAre;
using testing::HasSubstr;

using Ints = std::vector<int64_t>;

Tensor ints(Ints sizes, const Ints& values) { return Tensor::ofInts(std::move(sizes), values); }

TEST(Bits, Logic) {
  const Tensor a = tensor(DType::u8, {2, 1}, {0xf0, 0x3c}), b = tensor(DType::u8, {2}, {0xff, 0x0f});
  EXPECT_THAT(list(evaluate("bitwise_and", {{a}, {b}})), ElementsAre(0xf0, 0x00, 0x3c, 0x0c));
  EXPECT_THAT(list(evaluate("bitwise_or", {{a}, {b}})), ElementsAre(0xff, 0xff, 0xff, 0x3f));
  EXPECT_THAT(list(evaluate("bitwise_xor", {{a}, {b}})), ElementsAre(0x0f, 0xff, 0xc3, 0x33));
  EXPECT_THAT(list(evaluate("bitwise_not", {{b}})), ElementsAre(0x00, 0xf0));
}

// The sign is a bit like the others.
TEST(Bits, OfSignedAndWideIntegers) {
  EXPECT_THAT(list(evaluate("bitwise_not", {{tensor(DType::s16, {3}, {0, -1, 32767})}})), ElementsAre(-1, 0, -32768));
  const Tensor wide = ints({2}, {INT64_MIN, (int64_t{1} << 53) + 1});
  EXPECT_EQ(evaluate("bitwise_xor", {{wide}, {ints({}, {1})}}).toInts(), (std::vector<int64_t>{INT64_MIN + 1, int64_t{1} << 53}));
}

TEST(Bits, Shift) {
  const Tensor x = tensor(DType::u8, {4}, {1, 0x81, 0xff, 7}), by = tensor(DType::u8, {4}, {3, 1, 8, 200});
  EXPECT_THAT(list(evaluate("bit_shift", {{x}, {by}}, {{"direction", std::string("LEFT")}})), ElementsAre(8, 2, 0, 0));
  EXPECT_THAT(list(evaluate("bit_shift", {{x}, {by}}, {{"direction", std::string("RIGHT")}})), ElementsAre(0, 0x40, 0, 0));
}

TEST(Bits, Refusals) {
  const Tensor f = tensor(DType::f32, {1}, {1}), s = tensor(DType::s32, {1}, {1}), u = tensor(DType::u32, {1}, {1});
  EXPECT_THAT(errorOf("bitwise_and", {{f}, {f}}), HasSubstr("not of integers"));
  EXPECT_THAT(errorOf("bitwise_and", {{s}, {u}}), HasSubstr("b"));
  EXPECT_THAT(errorOf("bit_shift", {{s}, {s}}), HasSubstr("unsigned"));
  EXPECT_THAT(errorOf("bit_shift", {{u}, {u}}, {{"direction", std::string("UP")}}), HasSubstr("UP"));
}

}  // namespace
}  // namespace qc
