// No integer of a model becomes a size unchecked: sizes in attributes and in constants, of every op that has some, hold each of the
// integers below in each of their entries.  The outcome is an error with a message, or a graph whose dims are sizes.
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "frontend/onnx/import.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using testing::integer;
using testing::ints;
using testing::Ints;
using testing::Model;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max(), kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kHostile[] = {
    0,        -1,       -2,       -3,   -1000000, INT32_MIN, INT32_MAX, int64_t{1} << 32, int64_t{1} << 40, int64_t{1} << 62,
    kMax / 2, kMin / 2, kMin + 1, kMax, kMin};

// A model whose sizes are an argument, and sizes with which it is valid.
struct Case {
  const char* what;
  Ints valid;
  std::function<Model(const Ints&)> make;
};

// The op on x[1,4,6,6], its sizes in an attribute.
Case attributeOf(const char* op, const char* name, Ints valid, std::vector<onnx::AttributeProto> more = {},
                 std::vector<std::string> operands = {"x"}, int opset = 13) {
  return {op, std::move(valid), [=](const Ints& sizes) {
            Model m(opset);
            auto attributes = more;
            attributes.push_back(ints(name, sizes));
            return m.input("x", {1, 4, 6, 6}).floats("w", {4, 4, 2, 2}).node(op, operands, {"y"}, attributes).output("y");
          }};
}
// The op on x[1,4,6,6], its sizes in the constant "sizes".
Case constantOf(const char* op, std::vector<std::string> operands, Ints valid, std::vector<onnx::AttributeProto> attributes = {},
                std::vector<std::string> results = {"y"}) {
  return {op, std::move(valid), [=](const Ints& sizes) {
            Model m;
            m.input("x", {1, 4, 6, 6})
                .int64s("sizes", sizes)
                .int64s("zeros", {0, 0, 0, 0})
                .int64s("axes", {0, 1, 2, 3})
                .floats("pair", {2}, {0, 1})
                .floats("none", {0}, {});
            return m.node(op, operands, results, attributes).output(results[0]);
          }};
}
// The op on integers alone.
Case scalarOf(const char* op, std::vector<std::string> operands, int64_t valid, std::vector<onnx::AttributeProto> attributes = {}) {
  return {op, {valid}, [=](const Ints& sizes) {
            Model m;
            m.int64s("size", {}, {sizes.empty() ? 0 : sizes[0]})
                .int64s("zero", {}, {0})
                .int64s("one", {}, {1})
                .floats("pair", {2}, {0, 1})
                .input("i", {3}, onnx::TensorProto::INT64);
            return m.node(op, operands, {"y"}, attributes).output("y");
          }};
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      constantOf("Reshape", {"x", "sizes"}, {2, 2, 36}),
      constantOf("Expand", {"x", "sizes"}, {2, 1, 4, 6, 6}),
      constantOf("ConstantOfShape", {"sizes"}, {2, 3}),
      constantOf("Tile", {"x", "sizes"}, {1, 2, 1, 2}),
      constantOf("Pad", {"x", "sizes"}, {0, 0, 1, 1, 0, 0, 1, 2}),
      constantOf("Slice", {"x", "zeros", "sizes"}, {1, 2, 3, 4}),
      constantOf("Slice", {"x", "sizes", "axes"}, {0, 1, 0, 1}),
      constantOf("Slice", {"x", "zeros", "axes", "axes", "sizes"}, {1, 2, 1, 2}),
      constantOf("Resize", {"x", "", "", "sizes"}, {1, 4, 12, 9}),
      constantOf("Split", {"x", "sizes"}, {1, 3}, {integer("axis", 1)}, {"y", "z"}),
      constantOf("TopK", {"x", "sizes"}, {2}, {}, {"y", "z"}),
      constantOf("Unsqueeze", {"x", "sizes"}, {0, 5}),
      constantOf("Squeeze", {"x", "sizes"}, {0}),
      constantOf("ReduceSum", {"x", "sizes"}, {1, 2}),
      constantOf("CumSum", {"x", "sizes"}, {1}),
      scalarOf("Range", {"zero", "size", "one"}, 5),
      scalarOf("Range", {"size", "zero", "one"}, -5),
      scalarOf("Range", {"zero", "one", "size"}, 1),
      scalarOf("OneHot", {"i", "size", "pair"}, 4),
      attributeOf("MaxPool", "kernel_shape", {2, 3}),
      attributeOf("MaxPool", "strides", {2, 1}, {ints("kernel_shape", {2, 2})}),
      attributeOf("MaxPool", "pads", {1, 0, 0, 1}, {ints("kernel_shape", {2, 2})}),
      attributeOf("MaxPool", "dilations", {2, 1}, {ints("kernel_shape", {2, 2})}),
      attributeOf("AveragePool", "kernel_shape", {2, 3}),
      attributeOf("AveragePool", "strides", {2, 1}, {ints("kernel_shape", {2, 2})}),
      attributeOf("LpPool", "kernel_shape", {2, 2}),
      attributeOf("Conv", "kernel_shape", {2, 2}, {}, {"x", "w"}),
      attributeOf("Conv", "strides", {2, 1}, {}, {"x", "w"}),
      attributeOf("Conv", "pads", {1, 0, 0, 1}, {}, {"x", "w"}),
      attributeOf("Conv", "dilations", {2, 1}, {}, {"x", "w"}),
      attributeOf("ConvTranspose", "strides", {2, 1}, {}, {"x", "w"}),
      attributeOf("ConvTranspose", "pads", {1, 0, 0, 1}, {}, {"x", "w"}),
      attributeOf("ConvTranspose", "output_padding", {1, 0}, {ints("strides", {2, 2})}, {"x", "w"}),
      attributeOf("ConvTranspose", "output_shape", {7, 7}, {}, {"x", "w"}),
      attributeOf("ConvTranspose", "dilations", {2, 1}, {}, {"x", "w"}),
      attributeOf("Pad", "pads", {0, 0, 1, 1, 0, 0, 1, 2}, {}, {"x"}, 7),
      attributeOf("Slice", "ends", {1, 2, 3, 4}, {ints("starts", {0, 0, 0, 0})}, {"x"}, 7),
      attributeOf("Split", "split", {4}, {integer("axis", 1)}, {"x"}, 7),
      attributeOf("Transpose", "perm", {3, 1, 2, 0}),
      {"Flatten",
       {2},
       [](const Ints& s) {
         return Model().input("x", {1, 4, 6, 6}).node("Flatten", {"x"}, {"y"}, {integer("axis", s.empty() ? 0 : s[0])}).output("y");
       }},
      {"DepthToSpace",
       {2},
       [](const Ints& s) {
         return Model()
             .input("x", {1, 4, 6, 6})
             .node("DepthToSpace", {"x"}, {"y"}, {integer("blocksize", s.empty() ? 0 : s[0])})
             .output("y");
       }},
      {"Conv group",
       {1},
       [](const Ints& s) {
         return Model()
             .input("x", {1, 4, 6, 6})
             .floats("w", {4, 4, 2, 2})
             .node("Conv", {"x", "w"}, {"y"}, {integer("group", s.empty() ? 0 : s[0])})
             .output("y");
       }},
      // The declared dims of an input, an output and an initializer.
      {"input",
       {2, 3},
       [](const Ints& s) {
         Model m;
         m.input("x", {}).node("Relu", {"x"}, {"y"}).output("y");
         for (const int64_t d : s)
           m.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->mutable_shape()->add_dim()->set_dim_value(d);
         return m;
       }},
      {"output",
       {2, 3},
       [](const Ints& s) {
         Model m;
         m.input("x", {2, 3}).node("Relu", {"x"}, {"y"}).output("y");
         for (const int64_t d : s)
           m.graph().mutable_output(0)->mutable_type()->mutable_tensor_type()->mutable_shape()->add_dim()->set_dim_value(d);
         return m;
       }},
      {"initializer",
       {2, 3},
       [](const Ints& s) {
         Model m;
         m.input("x", {2, 3}).floats("w", {}, {1, 2, 3, 4, 5, 6}).node("Add", {"x", "w"}, {"y"}).output("y");
         for (const int64_t d : s) m.graph().mutable_initializer(0)->add_dims(d);
         return m;
       }},
      {"initializer of raw bytes",
       {2, 3},
       [](const Ints& s) {
         Model m;
         m.input("x", {2, 3}).floats("w", {}, {0}).node("Add", {"x", "w"}, {"y"}).output("y");
         m.graph().mutable_initializer(0)->clear_float_data();
         m.graph().mutable_initializer(0)->set_raw_data(std::string(24, '\1'));
         for (const int64_t d : s) m.graph().mutable_initializer(0)->add_dims(d);
         return m;
       }},
  };
  return all;
}

std::string faultOf(const Case& c, const Ints& sizes) {
  const auto graph = importOnnx(c.make(sizes).bytes(), {}, {});
  if (!graph) return graph.error().message().empty() ? "an error without a message" : "";
  for (const Node* n = graph->front(); n; n = n->next())
    for (int i = 0; i < n->numResults(); ++i)
      if (const TensorType& t = n->result(i)->type(); !t.isStatic() || t.numElements() < 0) return t.str();
  return graph->str().empty() ? "no text" : "";
}

TEST(OnnxSizes, AreChecked) {
  for (const Case& c : cases()) {
    const auto graph = importOnnx(c.make(c.valid).bytes(), {}, {});
    EXPECT_TRUE(graph) << c.what << ": " << (graph ? "" : graph.error().render());
    const auto tryWith = [&](const Ints& sizes) { EXPECT_EQ(faultOf(c, sizes), "") << c.what << " " << toString(Attr(sizes)); };
    for (const int64_t value : kHostile) {
      for (size_t i = 0; i < c.valid.size(); ++i) {
        Ints sizes = c.valid;
        sizes[i] = value;
        tryWith(sizes);
      }
      tryWith(Ints(c.valid.size(), value));
      Ints longer = c.valid;
      longer.push_back(value);
      tryWith(longer);
    }
    tryWith({});
  }
}

// As a user gives them: --shape.
TEST(OnnxSizes, OfShapesThatAreGivenAreChecked) {
  const std::string bytes = Model().input("x", {-1, 4, -2}).node("Relu", {"x"}, {"y"}).output("y").bytes();
  for (const int64_t value : kHostile)
    for (const Ints& sizes : {Ints{value, 4, 2}, Ints{2, value, 2}, Ints{value, 4, value}, Ints{value}}) {
      const auto graph = importOnnx(bytes, {}, {.shapes = {{"x", sizes}}});
      if (!graph) {
        EXPECT_NE(graph.error().message(), "") << toString(Attr(sizes));
        continue;
      }
      EXPECT_TRUE(graph->outputs()[0]->type().isStatic()) << toString(Attr(sizes));
      EXPECT_GE(graph->outputs()[0]->type().numElements(), 0);
    }
}

}  // namespace
}  // namespace qc
