#include "tests/fuzz/onnx_damage.h"
#include "tests/onnx_models.h"

namespace qc::testing {
namespace {

constexpr int kU8 = onnx::TensorProto::UINT8, kS8 = onnx::TensorProto::INT8, kS32 = onnx::TensorProto::INT32;
constexpr int kS64 = onnx::TensorProto::INT64, kBool = onnx::TensorProto::BOOL;

}  // namespace

std::vector<std::string> onnxSeeds() {
  std::vector<std::string> all;
  const auto add = [&](Model& m) { all.push_back(m.bytes()); };
  add(Model(11)
          .input("x", {1, 3, 8, 8})
          .floats("w", {4, 3, 3, 3})
          .floats("b", {4})
          .floats("v", {4}, {1, 2, 3, 4})
          .node("Conv", {"x", "w", "b"}, {"c"}, {ints("pads", {1, 1, 1, 1}), ints("strides", {2, 2}), ints("kernel_shape", {3, 3})}, "conv")
          .node("BatchNormalization", {"c", "b", "b", "b", "v"}, {"n"}, {real("epsilon", 1e-3f)})
          .node("Clip", {"n", "", "six"}, {"r"})
          .floats("six", {}, {6})
          .node("MaxPool", {"r"}, {"p"}, {ints("kernel_shape", {2, 2}), text("auto_pad", "SAME_UPPER")})
          .node("GlobalAveragePool", {"p"}, {"g"})
          .node("Flatten", {"g"}, {"f"})
          .node("Softmax", {"f"}, {"y"})
          .output("y"));
  add(Model()
          .input("x", {-1, 6})
          .floats("w", {6, 5})
          .floats("c", {5})
          .node("Gemm", {"x", "w", "c"}, {"h"}, {real("alpha", 0.5f), integer("transA", 0)})
          .node("Gelu", {"h"}, {"g"})
          .floats("m", {5, 2})
          .node("MatMul", {"g", "m"}, {"y"})
          .output("y"));
  add(Model()
          .input("x", {1, 2, 4, 4})
          .floats("s", {}, {0.1f})
          .small("z", {}, kU8, {7})
          .node("QuantizeLinear", {"x", "s", "z"}, {"q"})
          .node("DequantizeLinear", {"q", "s", "z"}, {"d"})
          .small("w", {3, 2, 1, 1}, kS8)
          .floats("sw", {3}, {0.1f, 0.2f, 0.3f})
          .small("zw", {3}, kS8, {0, 0, 0})
          .node("DequantizeLinear", {"w", "sw", "zw"}, {"wd"}, {integer("axis", 0)})
          .small("b", {3}, kS32)
          .floats("sb", {3}, {0.01f, 0.02f, 0.03f})
          .node("DequantizeLinear", {"b", "sb"}, {"bd"}, {integer("axis", 0)})
          .node("Conv", {"d", "wd", "bd"}, {"y"})
          .output("y"));
  add(Model()
          .input("x", {1, 2, 4, 4}, kU8)
          .floats("s", {}, {0.1f})
          .small("z", {}, kU8, {7})
          .small("w", {3, 2, 3, 3}, kS8)
          .small("zw", {}, kS8, {0})
          .small("b", {3}, kS32)
          .node("QLinearConv", {"x", "s", "z", "w", "s", "zw", "s", "z", "b"}, {"c"}, {ints("pads", {1, 1, 1, 1})})
          .node("QLinearConcat", {"s", "z", "c", "s", "z", "x", "s", "z"}, {"k"}, {integer("axis", 1)}, "", "com.microsoft")
          .node("QLinearAdd", {"k", "s", "z", "k", "s", "z", "s", "z"}, {"y"}, {}, "", "com.microsoft")
          .output("y", kU8));
  add(Model()
          .input("x", {2, 3, 4})
          .node("Shape", {"x"}, {"sh"})
          .int64s("i", {}, {0})
          .node("Gather", {"sh", "i"}, {"n"})
          .int64s("ax", {0})
          .node("Unsqueeze", {"n", "ax"}, {"n1"})
          .int64s("m1", {-1})
          .node("Concat", {"n1", "m1"}, {"to"}, {integer("axis", 0)})
          .node("Reshape", {"x", "to"}, {"f"})
          .int64s("st", {1})
          .int64s("en", {9})
          .int64s("a1", {1})
          .int64s("sp", {2})
          .node("Slice", {"f", "st", "en", "a1", "sp"}, {"y"})
          .output("y"));
  add(Model()
          .input("x", {1, 2, 4, 4})
          .floats("sc", {4}, {1, 1, 2, 1.5f})
          .node("Resize", {"x", "", "sc"}, {"r"}, {text("mode", "linear"), text("coordinate_transformation_mode", "half_pixel")})
          .int64s("pads", {0, 0, 1, -1, 0, 0, 1, 1})
          .node("Pad", {"r", "pads"}, {"p"}, {text("mode", "reflect")})
          .int64s("sp", {1, 1})
          .node("Split", {"p", "sp"}, {"a", "b"}, {integer("axis", 1)})
          .node("Concat", {"b", "a"}, {"c"}, {integer("axis", 1)})
          .node("Transpose", {"c"}, {"t"}, {ints("perm", {0, 2, 3, 1})})
          .node("SpaceToDepth", {"c"}, {"d"}, {integer("blocksize", 2)})
          .output("t")
          .output("d"));
  add(Model(14)
          .input("x", {5, 1, 3})
          .floats("w", {1, 8, 3})
          .floats("r", {1, 8, 2})
          .floats("b", {1, 16})
          .node("LSTM", {"x", "w", "r", "b"}, {"y", "h", "c"}, {integer("hidden_size", 2), text("direction", "forward")})
          .output("y")
          .output("h"));
  add(Model(11)
          .input("x", {2, 6})
          .int64s("k", {2})
          .node("TopK", {"x", "k"}, {"v", "i"}, {integer("axis", -1)})
          .node("ArgMax", {"x"}, {"am"}, {integer("axis", 1)})
          .int64s("cs", {}, {1})
          .node("CumSum", {"x", "cs"}, {"u"})
          .node("ReduceMean", {"u"}, {"m"}, {ints("axes", {1})})
          .node("Tile", {"m", "rep"}, {"y"})
          .int64s("rep", {1, 3})
          .output("y")
          .output("i", onnx::TensorProto::INT64));
  add(Model()
          .input("x", {1, 2, 3, 3})
          .floats("w", {2, 3, 2, 2})
          .node("ConvTranspose", {"x", "w"}, {"t"}, {ints("strides", {2, 2}), ints("output_shape", {7, 7})})
          .node("InstanceNormalization", {"t", "s", "s"}, {"n"})
          .floats("s", {3})
          .node("LRN", {"n"}, {"l"}, {integer("size", 3)})
          .node("AveragePool", {"l"}, {"y"}, {ints("kernel_shape", {3, 3}), ints("pads", {1, 1, 1, 1}), integer("ceil_mode", 1)})
          .output("y"));
  add(Model()
          .int64s("start", {}, {0})
          .int64s("limit", {}, {10})
          .int64s("delta", {}, {3})
          .node("Range", {"start", "limit", "delta"}, {"r"})
          .int64s("shape", {2, 4})
          .node("ConstantOfShape", {"shape"}, {"z"})
          .node("Expand", {"z", "e"}, {"x"})
          .int64s("e", {3, 1, 1})
          .node("Cast", {"r"}, {"f"}, {integer("to", 1)})
          .node("Add", {"x", "f"}, {"a"})
          .input("g", {1})
          .node("Mul", {"a", "g"}, {"y"})
          .int64s("dep", {}, {5})
          .floats("val", {2}, {0, 1})
          .node("OneHot", {"r", "dep", "val"}, {"o"})
          .output("y")
          .output("o"));
  add(Model()
          .input("x", {2, 3})
          .node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"})
          .small("w", {3, 4}, kS8)
          .node("MatMulInteger", {"q", "w", "z"}, {"m"})
          .node("Cast", {"m"}, {"f"}, {integer("to", 1)})
          .node("Mul", {"f", "s"}, {"y"})
          .output("y"));
  add(Model(23)
          .input("q", {1, 4, 8})
          .input("k", {1, 4, 4})
          .small("mask", {4, 4}, onnx::TensorProto::BOOL)
          .floats("sc", {8})
          .node("Attention", {"q", "k", "k", "mask"}, {"a", "pk", "pv", "s"},
                {integer("q_num_heads", 2), integer("kv_num_heads", 1), integer("is_causal", 1), real("softcap", 2)})
          .floats("c", {1, 4, 2})
          .node("RotaryEmbedding", {"a", "c", "c"}, {"r"}, {integer("num_heads", 2), integer("interleaved", 1)})
          .node("RMSNormalization", {"r", "sc"}, {"y"}, {integer("axis", -1)})
          .output("y")
          .output("s"));
  add(Model(17)
          .input("x", {1, 2, 4})
          .floats("w", {4, 12})
          .floats("b", {12})
          .floats("g", {4})
          .small("m", {1, 2}, onnx::TensorProto::INT32, {1, 0})
          .small("q", {3, 1, 2}, onnx::TensorProto::UINT8)
          .floats("s", {3, 1}, {0.5f, -0.25f, 1})
          .node("Attention", {"x", "w", "b", "m"}, {"a"}, {integer("num_heads", 2), integer("unidirectional", 1)}, "", "com.microsoft")
          .node("MultiHeadAttention", {"a", "x", "x"}, {"h"}, {integer("num_heads", 2)}, "", "com.microsoft")
          .node("SkipLayerNormalization", {"h", "x", "g", "g"}, {"l"}, {}, "", "com.microsoft")
          .node("MatMulNBits", {"l", "q", "s"}, {"y"}, {integer("K", 4), integer("N", 3), integer("bits", 4), integer("block_size", 4)}, "",
                "com.microsoft")
          .output("y"));
  add(Model(21)
          .input("x", {1, 2, 4, 4})
          .node("LpPool", {"x"}, {"p"}, {ints("kernel_shape", {3, 3}), ints("strides", {2, 2}), integer("ceil_mode", 1), integer("p", 3)})
          .int64s("to", {3, 1})
          .node("CenterCropPad", {"p", "to"}, {"c"}, {ints("axes", {2, 3})})
          .node("Hardmax", {"c"}, {"h"})
          .node("Shrink", {"h"}, {"s"}, {real("lambd", 0.25f)})
          .floats("w", {2, 3, 2})
          .node("Einsum", {"s", "w"}, {"e"}, {text("equation", "bchw,chk->b...k")})
          .output("c")
          .output("s"));
  add(Model(21)
          .input("x", {2, 4})
          .floats("sb", {2, 2}, {0.1f, 0.2f, 0.3f, 0.4f})
          .small("w", {4, 2}, kS8)
          .node("DequantizeLinear", {"w", "sb"}, {"d"}, {integer("block_size", 2), integer("axis", 0)})
          .node("MatMul", {"x", "d"}, {"m"})
          .floats("v", {2, 2, 3})
          .node("Einsum", {"m", "v"}, {"y"}, {text("equation", "ni,iij->nj")})
          .output("y"));
  Model branches;
  onnx::AttributeProto branch = testing::attribute("then_branch", onnx::AttributeProto::GRAPH);
  branch.mutable_g()->add_node()->set_op_type("Relu");
  branch.mutable_g()->mutable_node(0)->add_input("x");
  branch.mutable_g()->mutable_node(0)->add_output("t");
  branch.mutable_g()->add_output()->set_name("t");
  onnx::AttributeProto otherwise = branch;
  otherwise.set_name("else_branch");
  add(branches.input("x", {2}).small("on", {}, onnx::TensorProto::BOOL, {1}).node("If", {"on"}, {"y"}, {branch, otherwise}).output("y"));
  Model loop, body;
  body.input("i", {}, kS64).input("c", {}, kBool).input("s", {2}).node("Add", {"s", "x"}, {"t"}).node("Identity", {"c"}, {"on"});
  body.output("on", kBool).output("t");
  loop.input("x", {2}).node("ArgMax", {"x"}, {"n"}, {integer("axis", 0), integer("keepdims", 0)});
  add(loop.node("Loop", {"n", "", "x"}, {"y"}, {subgraph("body", body.graph())}).output("y"));
  return all;
}

}  // namespace qc::testing
