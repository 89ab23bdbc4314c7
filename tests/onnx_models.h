// Small ONNX models for tests, written in a line or two each.
//
//   Model m;
//   m.input("x", {1, 3, 8, 8}).floats("w", {4, 3, 3, 3}).node("Conv", {"x", "w"}, {"y"}, {ints("pads", {1, 1, 1, 1})}).output("y");
//   importOnnx(m.bytes(), {});
#pragma once

#include <onnx/onnx_pb.h>

#include <string>
#include <vector>

#include "ir/signed_index.h"

namespace qc::testing {

using Ints = std::vector<int64_t>;

inline onnx::AttributeProto attribute(const std::string& name, onnx::AttributeProto::AttributeType type) {
  onnx::AttributeProto a;
  a.set_name(name);
  a.set_type(type);
  return a;
}
inline onnx::AttributeProto integer(const std::string& name, int64_t value) {
  auto a = attribute(name, onnx::AttributeProto::INT);
  a.set_i(value);
  return a;
}
inline onnx::AttributeProto real(const std::string& name, float value) {
  auto a = attribute(name, onnx::AttributeProto::FLOAT);
  a.set_f(value);
  return a;
}
inline onnx::AttributeProto text(const std::string& name, const std::string& value) {
  auto a = attribute(name, onnx::AttributeProto::STRING);
  a.set_s(value);
  return a;
}
inline onnx::AttributeProto ints(const std::string& name, const Ints& values) {
  auto a = attribute(name, onnx::AttributeProto::INTS);
  for (const int64_t v : values) a.add_ints(v);
  return a;
}

inline onnx::AttributeProto subgraph(const std::string& name, const onnx::GraphProto& graph) {
  auto a = attribute(name, onnx::AttributeProto::GRAPH);
  *a.mutable_g() = graph;
  return a;
}

class Model {
 public:
  explicit Model(int opset = 13) {
    proto_.set_ir_version(8);
    proto_.add_opset_import()->set_version(opset);
    proto_.mutable_graph()->set_name("test");
  }
  onnx::ModelProto& proto() { return proto_; }
  onnx::GraphProto& graph() { return *proto_.mutable_graph(); }
  std::string bytes() const { return proto_.SerializeAsString(); }

  // Sizes below 0 are symbols: dim -1 is "N1".
  Model& input(const std::string& name, const Ints& sizes, int type = onnx::TensorProto::FLOAT) {
    describe(*graph().add_input(), name, type);
    auto& shape = *graph().mutable_input(graph().input_size() - 1)->mutable_type()->mutable_tensor_type()->mutable_shape();
    for (const int64_t s : sizes) s < 0 ? shape.add_dim()->set_dim_param("N" + std::to_string(-s)) : shape.add_dim()->set_dim_value(s);
    return *this;
  }
  Model& output(const std::string& name, int type = onnx::TensorProto::FLOAT) {
    describe(*graph().add_output(), name, type);
    return *this;
  }
  // Without values: small numbers that differ.
  Model& floats(const std::string& name, const Ints& sizes, std::vector<float> values = {}) {
    auto& t = tensor(name, sizes, onnx::TensorProto::FLOAT);
    for (int64_t i = 0; values.empty() ? i < count(sizes) : i < static_cast<int64_t>(values.size()); ++i)
      t.add_float_data(values.empty() ? static_cast<float>(i * 7 % 11) * 0.125f - 0.5f : nth(values, i));
    return *this;
  }
  Model& int64s(const std::string& name, const Ints& values) { return int64s(name, {static_cast<int64_t>(values.size())}, values); }
  Model& int64s(const std::string& name, const Ints& sizes, const Ints& values) {
    auto& t = tensor(name, sizes, onnx::TensorProto::INT64);
    for (const int64_t v : values) t.add_int64_data(v);
    return *this;
  }
  // The integer types of 32 bits and fewer.
  Model& small(const std::string& name, const Ints& sizes, int type, const std::vector<int32_t>& values = {}) {
    auto& t = tensor(name, sizes, type);
    for (int64_t i = 0; values.empty() ? i < count(sizes) : i < static_cast<int64_t>(values.size()); ++i)
      t.add_int32_data(values.empty() ? static_cast<int32_t>(i * 5 % 13) : nth(values, i));
    return *this;
  }
  Model& node(const std::string& op, const std::vector<std::string>& inputs, const std::vector<std::string>& outputs,
              const std::vector<onnx::AttributeProto>& attributes = {}, const std::string& name = "", const std::string& domain = "") {
    auto& n = *graph().add_node();
    n.set_op_type(op);
    n.set_name(name);
    n.set_domain(domain);
    for (const auto& i : inputs) n.add_input(i);
    for (const auto& o : outputs) n.add_output(o);
    for (const auto& a : attributes) *n.add_attribute() = a;
    return *this;
  }

 private:
  static int64_t count(const Ints& sizes) {
    int64_t n = 1;
    for (const int64_t s : sizes) n *= s;
    return n;
  }
  static void describe(onnx::ValueInfoProto& info, const std::string& name, int type) {
    info.set_name(name);
    info.mutable_type()->mutable_tensor_type()->set_elem_type(type);
  }
  onnx::TensorProto& tensor(const std::string& name, const Ints& sizes, int type) {
    auto& t = *graph().add_initializer();
    t.set_name(name);
    t.set_data_type(type);
    for (const int64_t s : sizes) t.add_dims(s);
    return t;
  }
  onnx::ModelProto proto_;
};

}  // namespace qc::testing
