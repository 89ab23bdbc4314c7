// Damaged models: bytes cut and flipped, and fields of the protobuf edited, dropped, doubled and swapped, so that most of the damage passes
// the parser and reaches the converters.  The outcome must be a graph or an error.  A graph that comes out is verified, exported and
// simplified; when it is tiny it is evaluated, calibrated, quantized, lowered and evaluated again.  Seeds are fixed: a failure repeats.
// The model at hand stands in qc_onnx_fuzz_PID.onnx in the temporary folder, and stays there after a crash; QC_FUZZ_MODEL=FILE runs that
// file alone, QC_FUZZ_SEED=N moves all seeds.  Files of tests/fuzz/corpus once led to a crash or a hang and are run every time.
#include <google/protobuf/message.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <set>

#include "frontend/npy.h"
#include "frontend/onnx_export.h"
#include "frontend/onnx_import.h"
#include "ir/interp.h"
#include "ir/verify.h"
#include "passes/group_params.h"
#include "passes/pass_manager.h"
#include "quantizer/qconfig.h"
#include "quantizer/ranges.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

namespace fs = std::filesystem;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using testing::integer;
using testing::ints;
using testing::Model;
using testing::real;
using testing::text;

constexpr int kU8 = onnx::TensorProto::UINT8, kS8 = onnx::TensorProto::INT8, kS32 = onnx::TensorProto::INT32;

std::vector<std::string> seeds() {
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
  return all;
}

// ---- damage -----------------------------------------------------------------------------------------------------------------

class Damage {
 public:
  explicit Damage(uint32_t seed) : random_(seed) {}

  std::string apply(const std::string& bytes) {
    onnx::ModelProto model;
    if (pick(5) == 0 || !model.ParseFromString(bytes)) return ofBytes(bytes);
    for (size_t edits = 1 + pick(3); edits > 0; --edits) editSomewhere(model);
    return model.SerializeAsString();
  }

 private:
  struct Place {
    Message* message;
    const FieldDescriptor* field;
  };

  size_t pick(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

  std::string ofBytes(std::string bytes) {
    for (size_t edits = 1 + pick(4); edits > 0 && !bytes.empty(); --edits) {
      const size_t at = pick(bytes.size());
      switch (pick(4)) {
        case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << pick(8))); break;
        case 1: bytes[at] = static_cast<char>(0xff); break;
        case 2: bytes.insert(at, bytes.substr(pick(bytes.size()), 8)); break;
        default: bytes.resize(at); break;
      }
    }
    return bytes;
  }

  // Every field that is set, and the words to swap in.
  void collect(Message& message, std::vector<Place>& places, int depth = 0) {
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      places.push_back({&message, field});
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || depth > 12) continue;
      if (!field->is_repeated()) collect(*message.GetReflection()->MutableMessage(&message, field), places, depth + 1);
      for (int i = 0; field->is_repeated() && i < message.GetReflection()->FieldSize(message, field); ++i)
        collect(*message.GetReflection()->MutableRepeatedMessage(&message, field, i), places, depth + 1);
    }
  }

  void editSomewhere(onnx::ModelProto& model) {
    std::vector<Place> places;
    collect(model, places);
    if (places.empty()) return;
    words_.assign({"", "x", "y", "w", "nothing", "Relu", "Conv", "Reshape", "Resize", "axis", "com.microsoft"});
    for (const auto& node : model.graph().node()) {
      words_.push_back(node.op_type());
      words_.insert(words_.end(), node.input().begin(), node.input().end());
      words_.insert(words_.end(), node.output().begin(), node.output().end());
    }
    const Place place = places[pick(places.size())];
    place.field->is_repeated() ? editList(place) : editOne(place);
  }

  void editList(const Place& place) {
    const auto& reflection = *place.message->GetReflection();
    const int size = reflection.FieldSize(*place.message, place.field);
    const int at = static_cast<int>(pick(static_cast<size_t>(size)));
    switch (pick(4)) {
      case 0: reflection.SwapElements(place.message, place.field, at, static_cast<int>(pick(static_cast<size_t>(size)))); break;
      case 1: reflection.RemoveLast(place.message, place.field); break;
      case 2: addElement(place, at); break;
      default: setElement(place, at); break;
    }
  }

  void addElement(const Place& place, int from) {
    const auto& r = *place.message->GetReflection();
    Message* m = place.message;
    const FieldDescriptor* f = place.field;
    switch (f->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE: r.AddMessage(m, f)->CopyFrom(r.GetRepeatedMessage(*m, f, from)); break;
      case FieldDescriptor::CPPTYPE_STRING: r.AddString(m, f, word()); break;
      case FieldDescriptor::CPPTYPE_INT64: r.AddInt64(m, f, number()); break;
      case FieldDescriptor::CPPTYPE_INT32: r.AddInt32(m, f, static_cast<int32_t>(number())); break;
      case FieldDescriptor::CPPTYPE_FLOAT: r.AddFloat(m, f, fraction()); break;
      default: break;
    }
  }

  void setElement(const Place& place, int at) {
    const auto& r = *place.message->GetReflection();
    Message* m = place.message;
    const FieldDescriptor* f = place.field;
    switch (f->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING: r.SetRepeatedString(m, f, at, word()); break;
      case FieldDescriptor::CPPTYPE_INT64: r.SetRepeatedInt64(m, f, at, number()); break;
      case FieldDescriptor::CPPTYPE_INT32: r.SetRepeatedInt32(m, f, at, static_cast<int32_t>(number())); break;
      case FieldDescriptor::CPPTYPE_FLOAT: r.SetRepeatedFloat(m, f, at, fraction()); break;
      default: r.RemoveLast(m, f); break;
    }
  }

  void editOne(const Place& place) {
    const auto& r = *place.message->GetReflection();
    Message* m = place.message;
    const FieldDescriptor* f = place.field;
    if (pick(6) == 0) return r.ClearField(m, f);
    switch (f->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING: r.SetString(m, f, word()); break;
      case FieldDescriptor::CPPTYPE_INT64: r.SetInt64(m, f, number()); break;
      case FieldDescriptor::CPPTYPE_INT32: r.SetInt32(m, f, static_cast<int32_t>(number())); break;
      case FieldDescriptor::CPPTYPE_FLOAT: r.SetFloat(m, f, fraction()); break;
      case FieldDescriptor::CPPTYPE_ENUM: r.SetEnumValue(m, f, static_cast<int>(pick(16))); break;
      default: r.ClearField(m, f); break;
    }
  }

  std::string word() { return words_[pick(words_.size())]; }
  int64_t number() {
    constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
    constexpr int64_t kValues[] = {0,
                                   1,
                                   2,
                                   3,
                                   4,
                                   5,
                                   7,
                                   8,
                                   10,
                                   13,
                                   17,
                                   -1,
                                   -2,
                                   -3,
                                   64,
                                   127,
                                   128,
                                   255,
                                   256,
                                   4096,
                                   65537,
                                   1 << 20,
                                   int64_t{1} << 31,
                                   (int64_t{1} << 31) - 1,
                                   -(int64_t{1} << 31),
                                   int64_t{1} << 40,
                                   int64_t{1} << 62,
                                   kMin,
                                   kMin + 1,
                                   kMax,
                                   kMax - 1};
    return kValues[pick(std::size(kValues))];
  }
  float fraction() {
    constexpr float kInf = std::numeric_limits<float>::infinity();
    const float values[] = {0.0f, -0.0f, 1.0f, -1.0f, 0.5f, 3.0f, 1e-30f, 1e30f, 1e-45f, kInf, -kInf, std::nanf("")};
    return values[pick(std::size(values))];
  }

  std::mt19937 random_;
  std::vector<std::string> words_;
};

// ---- what a model goes through ------------------------------------------------------------------------------------------------

struct Count {
  int graphs = 0, evaluated = 0, quantized = 0, errors = 0;
};

// Small enough that even a matrix product of the two largest values takes no time.
bool isTiny(const Graph& graph) {
  int64_t total = 0, largest = 1;
  const auto add = [&](const Value* v) {
    if (!v->type().isStatic()) return false;
    int64_t n = 1;
    for (const int64_t s : v->type().sizes()) {
      if (s > 4096) return false;
      n *= s;
      if (n > 1 << 16) return false;
    }
    total += n;
    largest = std::max(largest, n);
    return total < 1 << 18;
  };
  for (const Value* v : graph.inputs())
    if (!add(v)) return false;
  for (const Node* n : graph.nodes()) {
    for (int i = 0; i < n->numResults(); ++i)
      if (!add(n->result(i))) return false;
    for (const auto& [name, attr] : n->attrs())  // windows may be larger than what they slide over
      if (const auto* list = std::get_if<std::vector<int64_t>>(&attr))
        for (const int64_t v : *list)
          if (v > 1 << 10 || v < -(1 << 10)) return false;
  }
  return largest * graph.numNodes() < 1 << 20;
}

// Values of both signs, other ones at every call.
std::vector<Tensor> inputsOf(const Graph& graph, int round) {
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) {
    Tensor t(v->type().dtype, v->type().sizes());
    for (int64_t i = 0; i < t.numElements(); ++i)
      storeElement(t.dtype(), t.mutableData(), i, static_cast<double>((i * 7 + round * 5) % 23) * 0.25 - 2);
    inputs.push_back(std::move(t));
  }
  return inputs;
}

// The whole way from float to integers, as the library goes it, with the interpreter as the engine.
Status quantizeAndRun(Graph graph) {
  PassContext cx;
  cx.provide(defaultQConfigMapping(Backend::x86));
  QC_TRY(runPipeline("annotate,prepare", graph, cx));
  QC_ASSIGN(Ranges ranges, Ranges::forGraph(graph));
  InterpOptions watch;
  watch.onNode = [&](const Node& node, std::span<const Tensor> results) -> Status {
    return node.is("observe") ? ranges.observe(node.integer("id"), results[0].ref()) : Status();
  };
  for (const int round : {0, 1}) {
    QC_TRY(interpret(graph, inputsOf(graph, round), watch));
    ranges.countSample();
  }
  QC_ASSIGN(GroupParams params, ranges.params());
  cx.provide(std::move(params));
  QC_TRY(runPipeline("convert", graph, cx));
  static_cast<void>(exportOnnx(graph));
  QC_TRY(runPipeline("lower", graph, cx));
  return interpret(graph, inputsOf(graph, 2)).map([](const auto&) {});
}

void run(const std::string& bytes, Count& count) {
  const auto start = std::chrono::steady_clock::now();
  auto graph = importOnnx(bytes, {});
  if (graph) {
    ++count.graphs;
    const Status valid = verify(*graph);
    EXPECT_TRUE(valid) << valid.error().render();
    static_cast<void>(exportOnnx(*graph));
    const bool tiny = isTiny(*graph);
    if (tiny) count.evaluated += interpret(*graph, inputsOf(*graph, 0)).has_value();
    PassContext cx;
    const Status simplified = runPipeline("simplify", *graph, cx);
    const Status still = simplified ? verify(*graph) : Status();
    EXPECT_TRUE(still) << still.error().render();
    if (simplified && tiny && isTiny(*graph)) count.quantized += quantizeAndRun(graph->clone()).has_value();
  } else {
    ++count.errors;
    EXPECT_FALSE(graph.error().message().empty());
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

class OnnxFuzz : public ::testing::Test {
 protected:
  void SetUp() override { ::alarm(300); }
  void TearDown() override {
    ::alarm(0);
    std::error_code ignored;
    fs::remove(current_, ignored);
  }

  void mutate(const std::string& bytes, uint32_t seed, Count& count) {
    static const char* const moved = std::getenv("QC_FUZZ_SEED");
    if (moved) seed += static_cast<uint32_t>(std::strtoul(moved, nullptr, 10)) * 1000003u;
    const std::string damaged = Damage(seed).apply(bytes);
    std::ofstream(current_, std::ios::binary) << damaged;
    SCOPED_TRACE("seed " + std::to_string(seed));
    run(damaged, count);
  }

  const fs::path current_ = fs::temp_directory_path() / ("qc_onnx_fuzz_" + std::to_string(::getpid()) + ".onnx");
};

TEST_F(OnnxFuzz, OneFile) {
  const char* path = std::getenv("QC_FUZZ_MODEL");
  if (!path) GTEST_SKIP() << "QC_FUZZ_MODEL is not set";
  Count count;
  run(readFile(path).value(), count);
}

TEST_F(OnnxFuzz, Corpus) {
  int files = 0;
  for (const auto& entry : fs::directory_iterator(QC_TEST_DATA "/../fuzz/corpus")) {
    if (entry.path().extension() != ".onnx") continue;
    SCOPED_TRACE(entry.path().string());
    Count count;
    run(readFile(entry.path().string()).value(), count);
    ++files;
  }
  EXPECT_GT(files, 0);
}

TEST_F(OnnxFuzz, SeedsAreSound) {
  for (const std::string& bytes : seeds()) {
    Count count;
    run(bytes, count);
    const auto graph = importOnnx(bytes, {});
    EXPECT_EQ(count.evaluated + count.quantized, 2) << (graph ? graph->str() : graph.error().render());
  }
}

TEST_F(OnnxFuzz, SmallModels) {
  Count count;
  uint32_t seed = 1;
  for (const std::string& bytes : seeds())
    for (int i = 0; i < 250; ++i) mutate(bytes, seed++, count);
  EXPECT_GT(count.graphs, 400);
  EXPECT_GT(count.evaluated, 300);
  EXPECT_GT(count.quantized, 200);
  EXPECT_GT(count.errors, 1000);
}

// One op each: every converter meets damage.
TEST_F(OnnxFuzz, NodeTests) {
  std::set<fs::path> models;
  for (const fs::path folder : {QC_ONNX_NODE_TESTS, QC_SHARED_DIR "/onnx-node-tests/head"})
    if (fs::is_directory(folder))
      for (const auto& entry : fs::directory_iterator(folder)) models.insert(entry.path() / "model.onnx");
  if (models.empty()) GTEST_SKIP() << "the node tests of ONNX are not installed";
  Count count;
  uint32_t seed = 100000;
  for (const fs::path& path : models) {
    const auto bytes = readFile(path.string());
    for (int i = 0; bytes && bytes->size() < 20000 && i < 4; ++i) mutate(*bytes, seed++, count);
  }
  EXPECT_GT(count.graphs, 100);
}

}  // namespace
}  // namespace qc
