// Ops of com.microsoft beside the standard ones that they stand for.  ONNX Runtime's own values: tests/differential/contrib_vs_ort.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::HasSubstr;
using testing::integer;
using testing::ints;
using testing::Ints;
using testing::Model;
using testing::real;
using testing::text;

constexpr int kU8 = onnx::TensorProto::UINT8, kS32 = onnx::TensorProto::INT32;
constexpr const char* kDomain = "com.microsoft";

std::vector<Tensor> run(const Model& model) {
  const auto graph = importOnnx(model.bytes(), {});
  EXPECT_TRUE(graph) << graph.error().render();
  if (!graph) return {};
  std::vector<Tensor> inputs;
  for (const Value* v : graph->inputs()) {
    Tensor t(v->type().dtype, v->type().sizes());
    for (int64_t i = 0; i < t.numElements(); ++i)
      storeElement(t.dtype(), t.mutableData(), i,
                   isInteger(t.dtype()) ? static_cast<double>(i * 3 % 4) : 0.25 * static_cast<double>(i * 5 % 9) - 1);
    inputs.push_back(std::move(t));
  }
  auto outputs = interpret(*graph, inputs);
  EXPECT_TRUE(outputs) << outputs.error().render();
  return outputs ? *std::move(outputs) : std::vector<Tensor>();
}

using Build = std::function<void(Model&)>;

// Both with the same inputs and constants, and the output y.
void expectSame(const Build& given, const Build& fused, const Build& standard) {
  std::vector<Tensor> found[2];
  for (const int k : {0, 1}) {
    Model m(20);
    given(m);
    (k ? standard : fused)(m);
    m.output("y");
    found[k] = run(m);
  }
  ASSERT_EQ(found[0].size(), 1);
  ASSERT_EQ(found[1].size(), 1);
  EXPECT_EQ(found[0][0].sizes(), found[1][0].sizes());
  EXPECT_THAT(found[0][0].toFloats(), ::testing::Pointwise(::testing::FloatNear(1e-5f), found[1][0].toFloats()));
}

std::string refusal(const Build& build) {
  Model m(20);
  build(m);
  m.output("y");
  const auto graph = importOnnx(m.bytes(), {});
  return graph ? "" : graph.error().render();
}

TEST(OnnxContrib, Activations) {
  const auto x = [](Model& m) { m.input("x", {2, 4}).floats("b", {4}); };
  expectSame(
      x, [](Model& m) { m.node("BiasGelu", {"x", "b"}, {"y"}, {}, "", kDomain); },
      [](Model& m) { m.node("Add", {"x", "b"}, {"s"}).node("Gelu", {"s"}, {"y"}); });
  expectSame(
      x, [](Model& m) { m.node("FastGelu", {"x", "b"}, {"y"}, {}, "", kDomain); },
      [](Model& m) { m.node("Add", {"x", "b"}, {"s"}).node("Gelu", {"s"}, {"y"}, {text("approximate", "tanh")}); });
  expectSame(
      x, [](Model& m) { m.node("QuickGelu", {"x"}, {"y"}, {real("alpha", 2)}, "", kDomain); },
      [](Model& m) {
        m.floats("two", {}, {2}).node("Mul", {"x", "two"}, {"d"}).node("Sigmoid", {"d"}, {"g"}).node("Mul", {"x", "g"}, {"y"});
      });
}

TEST(OnnxContrib, Products) {
  expectSame([](Model& m) { m.input("x", {2, 3, 4}).floats("w", {5, 4}).floats("half", {}, {0.5f}); },
             [](Model& m) { m.node("FusedMatMul", {"x", "w"}, {"y"}, {integer("transB", 1), real("alpha", 0.5f)}, "", kDomain); },
             [](Model& m) { m.node("Transpose", {"w"}, {"t"}).node("MatMul", {"x", "t"}, {"p"}).node("Mul", {"p", "half"}, {"y"}); });
  expectSame([](Model& m) { m.input("x", {1, 2, 4, 4}).input("z", {1, 3, 4, 4}).floats("w", {3, 2, 1, 1}).floats("b", {3}); },
             [](Model& m) { m.node("FusedConv", {"x", "w", "b", "z"}, {"y"}, {text("activation", "Relu")}, "", kDomain); },
             [](Model& m) { m.node("Conv", {"x", "w", "b"}, {"c"}).node("Add", {"c", "z"}, {"s"}).node("Relu", {"s"}, {"y"}); });
  expectSame([](Model& m) { m.input("x", {2, 3}).floats("w", {3, 4}).floats("b", {4}); },
             [](Model& m) {
               m.node("FusedGemm", {"x", "w", "b"}, {"y"}, {text("activation", "LeakyRelu"), real("activation_alpha", 0.25f)}, "", kDomain);
             },
             [](Model& m) { m.node("Gemm", {"x", "w", "b"}, {"g"}).node("LeakyRelu", {"g"}, {"y"}, {real("alpha", 0.25f)}); });
  EXPECT_THAT(refusal([](Model& m) {
                m.input("x", {1, 2, 4, 4}).floats("w", {3, 2, 1, 1});
                m.node("FusedConv", {"x", "w"}, {"y"}, {text("activation", "Snake")}, "c1", kDomain);
              }),
              HasSubstr("activation 'Snake'"));
  EXPECT_THAT(refusal([](Model& m) {
                m.input("x", {2, 3, 4}).floats("w", {2, 4, 3});
                m.node("FusedMatMul", {"x", "w"}, {"y"}, {integer("transBatchA", 1)}, "m1", kDomain);
              }),
              HasSubstr("transBatchA"));
}

// Two rows of 8 columns in blocks of 4: the lower half of a byte comes first.
TEST(OnnxContrib, WeightsOfFewBits) {
  const std::vector<int32_t> bytes{0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe};
  const auto given = [&](Model& m) {
    m.input("x", {3, 8}).small("q", {2, 2, 2}, kU8, bytes).floats("s", {2, 2}, {1, -2, 0.5f, -0.25f}).small("z", {2, 1}, kU8, {0x31, 0x8f});
  };
  const Ints zeros{1, 3, 15, 8};
  std::vector<float> weights;
  for (int i = 0; i < 16; ++i)
    weights.push_back(std::vector<float>{1, -2, 0.5f, -0.25f}[usize(i / 4)] * static_cast<float>(i - nth(zeros, i / 4)));
  expectSame(
      given,
      [](Model& m) {
        m.node("MatMulNBits", {"x", "q", "s", "z"}, {"y"}, {integer("K", 8), integer("N", 2), integer("bits", 4), integer("block_size", 4)},
               "", kDomain);
      },
      [&](Model& m) { m.floats("w", {2, 8}, weights).node("Gemm", {"x", "w"}, {"y"}, {integer("transB", 1)}); });
  for (const auto& [bits, what] : {std::pair(3, "weights of 3 bits"), std::pair(8, "for 2 x 8 in blocks of 4")})
    EXPECT_THAT(refusal([&, bits = bits](Model& m) {
                  given(m);
                  m.node("MatMulNBits", {"x", "q", "s"}, {"y"},
                         {integer("K", 8), integer("N", 2), integer("bits", bits), integer("block_size", 4)}, "", kDomain);
                }),
                HasSubstr(what));
}

TEST(OnnxContrib, Norms) {
  const auto given = [](Model& m) { m.input("x", {2, 3, 4}).input("r", {2, 3, 4}).floats("g", {4}).floats("o", {4}).floats("b", {4}); };
  expectSame(
      given, [](Model& m) { m.node("SkipLayerNormalization", {"x", "r", "g", "o", "b"}, {"y"}, {real("epsilon", 1e-3f)}, "", kDomain); },
      [](Model& m) {
        m.node("Add", {"x", "r"}, {"s"}).node("Add", {"s", "b"}, {"t"});
        m.node("LayerNormalization", {"t", "g", "o"}, {"y"}, {real("epsilon", 1e-3f)});
      });
  expectSame(
      given,
      [](Model& m) {
        m.node("SkipSimplifiedLayerNormalization", {"x", "r", "g"}, {"n", "", "", "y"}, {real("epsilon", 1e-3f)}, "", kDomain);
      },
      [](Model& m) { m.node("Add", {"x", "r"}, {"y"}); });
  expectSame(
      [](Model& m) {
        m.input("ids", {2, 3}, kS32)
            .floats("words", {4, 4})
            .floats("places", {5, 4})
            .floats("g", {4})
            .floats("o", {4})
            .int64s("p", {0, 1, 2});
      },
      [](Model& m) {
        m.node("EmbedLayerNormalization", {"ids", "", "words", "places", "", "g", "o"}, {"y"}, {real("epsilon", 1e-3f)}, "", kDomain);
      },
      [](Model& m) {
        m.node("Gather", {"words", "ids"}, {"w"}).node("Gather", {"places", "p"}, {"q"}).node("Add", {"w", "q"}, {"s"});
        m.node("LayerNormalization", {"s", "g", "o"}, {"y"}, {real("epsilon", 1e-3f)});
      });
}

// One head of two, each with a mask.
TEST(OnnxContrib, Attention) {
  const auto given = [](Model& m) {
    m.input("x", {2, 3, 4})
        .floats("w", {4, 12})
        .floats("b", {12})
        .small("lengths", {2}, kS32, {2, 3})
        .small("mask", {2, 3}, kS32, {1, 1, 0, 1, 1, 1});
  };
  const auto fused = [](const char* mask) {
    return [=](Model& m) { m.node("Attention", {"x", "w", "b", mask}, {"y"}, {integer("num_heads", 2)}, "", kDomain); };
  };
  const auto standard = [](Model& m) {
    m.floats("hide", {2, 1, 1, 3}, {0, 0, -10000, 0, 0, 0})
        .int64s("heads", {2, 3, 2, 2})
        .int64s("all", {2, 3, 4})
        .floats("root", {}, {std::sqrt(2.0f)});
    m.node("MatMul", {"x", "w"}, {"p"})
        .node("Add", {"p", "b"}, {"qkv"})
        .node("Split", {"qkv"}, {"q", "k", "v"}, {integer("axis", 2), integer("num_outputs", 3)});
    for (const std::string part : {"q", "k", "v"})
      m.node("Reshape", {part, "heads"}, {part + "4"})
          .node("Transpose", {part + "4"}, {part + "h"}, {ints("perm", {0, 2, part == "k" ? 3 : 1, part == "k" ? 1 : 3})});
    m.node("MatMul", {"qh", "kh"}, {"s"}).node("Div", {"s", "root"}, {"d"}).node("Add", {"d", "hide"}, {"t"}).node("Softmax", {"t"}, {"a"});
    m.node("MatMul", {"a", "vh"}, {"o"})
        .node("Transpose", {"o"}, {"oh"}, {ints("perm", {0, 2, 1, 3})})
        .node("Reshape", {"oh", "all"}, {"y"});
  };
  expectSame(given, fused("lengths"), standard);
  expectSame(given, fused("mask"), standard);
  EXPECT_THAT(refusal([&](Model& m) {
                given(m);
                m.node("Attention", {"x", "w", "b"}, {"y"}, {integer("num_heads", 3)}, "a1", kDomain);
              }),
              HasSubstr("3 heads in"));
}

}  // namespace
}  // namespace qc
