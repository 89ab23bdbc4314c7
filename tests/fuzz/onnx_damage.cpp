#include "tests/fuzz/onnx_damage.h"

#include <google/protobuf/message.h>
#include <onnx/onnx_pb.h>

#include <cmath>
#include <limits>
#include <random>

#include "ir/signed_index.h"

namespace qc::testing {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

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
    const int at = static_cast<int>(pick(usize(size)));
    switch (pick(4)) {
      case 0: reflection.SwapElements(place.message, place.field, at, static_cast<int>(pick(usize(size)))); break;
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

}  // namespace

std::string damagedOnnx(const std::string& bytes, uint32_t seed) { return Damage(seed).apply(bytes); }

}  // namespace qc::testing
