#include "frontend/onnx/tensor.h"

#include <onnx/onnx_pb.h>

#include <charconv>
#include <cstring>

#include "ir/memory_limit.h"

namespace qc {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 36;

constexpr std::pair<int, DType> kTypes[] = {
    {1, DType::f32},  {2, DType::u8},   {3, DType::s8},      {4, DType::u16},  {5, DType::s16},
    {6, DType::s32},  {7, DType::s64},  {9, DType::boolean}, {10, DType::f16}, {11, DType::f64},
    {12, DType::u32}, {13, DType::u64}, {16, DType::bf16},   {21, DType::u4},  {22, DType::s4},
};

bool isHalfByte(DType d) { return d == DType::u4 || d == DType::s4; }

Result<int64_t> parseNumber(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    return fail(ErrorCode::kInvalidModel, "external data: bad number '{}'", text);
  return value;
}

// Where the bytes lie: the one place that opens a file named by a model.
struct External {
  InputFile file;
  uint64_t offset = 0;
};

Result<External> openExternal(const onnx::TensorProto& proto, const Descriptor& folder, int64_t bytes) {
  if (!folder) return fail(ErrorCode::kInvalidModel, "external data is not allowed here");
  std::string location;
  int64_t offset = 0, length = bytes;
  for (const auto& entry : proto.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") {
      QC_ASSIGN(offset, parseNumber(entry.value()));
    }
    if (entry.key() == "length") {
      QC_ASSIGN(length, parseNumber(entry.value()));
    }
  }
  if (length != bytes) return fail(ErrorCode::kInvalidModel, "external data '{}' gives {} bytes, {} are needed", location, length, bytes);
  auto file = openBeneath(folder, location);
  if (!file) {
    const Error& e = file.error();
    return fail(e.code(), "external data: {}", e.message()).help("keep the data file beside the model");
  }
  const auto size = static_cast<int64_t>(file->size());
  if (offset > size || bytes > size - offset)
    return fail(ErrorCode::kInvalidModel, "external data '{}' is too short for {} bytes at {}", location, bytes, offset);
  return External{*std::move(file), static_cast<uint64_t>(offset)};
}

void unpackHalfBytes(std::string_view packed, DType dtype, Tensor& out) {
  auto* to = static_cast<uint8_t*>(out.mutableData());
  for (int64_t i = 0; i < out.numElements(); ++i) {
    const auto byte = static_cast<uint8_t>(nth(packed, i / 2));
    const int nibble = i % 2 ? byte >> 4 : byte & 15;
    to[i] = static_cast<uint8_t>(dtype == DType::s4 && nibble > 7 ? nibble - 16 : nibble);
  }
}

Result<Tensor> readExternal(const onnx::TensorProto& proto, const Descriptor& folder, DType dtype, std::vector<int64_t> sizes,
                            int64_t bytes) {
  auto external = openExternal(proto, folder, bytes);
  if (!external) return tl::make_unexpected(std::move(external).error().on(proto.name()));
  Tensor tensor(dtype, std::move(sizes));
  if (isHalfByte(dtype)) {
    QC_ASSIGN(const std::string packed, external->file.head(external->offset, usize(bytes)));
    unpackHalfBytes(packed, dtype, tensor);
  } else {
    QC_TRY(external->file.read(external->offset, tensor.mutableData(), usize(bytes)));
  }
  return tensor;
}

// Typed fields: which one holds a dtype, and how an entry becomes an element.
template <class Field>
Status fromTyped(const Field& field, Tensor& out) {
  if (field.size() != out.numElements())
    return fail(ErrorCode::kInvalidModel, "{} values for {} elements", field.size(), out.numElements());
  void* data = out.mutableData();
  for (int64_t i = 0; i < out.numElements(); ++i) {
    const auto v = field.Get(static_cast<int>(i));
    if (out.dtype() == DType::f16 || out.dtype() == DType::bf16)
      static_cast<uint16_t*>(data)[i] = static_cast<uint16_t>(v);  // bits
    else if (out.dtype() == DType::s64 || out.dtype() == DType::u64)
      static_cast<int64_t*>(data)[i] = static_cast<int64_t>(v);
    else
      storeElement(out.dtype(), data, i, static_cast<double>(v));
  }
  return {};
}

Status fillTyped(const onnx::TensorProto& proto, Tensor& out) {
  switch (out.dtype()) {
    case DType::f32: return fromTyped(proto.float_data(), out);
    case DType::f64: return fromTyped(proto.double_data(), out);
    case DType::s64: return fromTyped(proto.int64_data(), out);
    case DType::u64:
    case DType::u32: return fromTyped(proto.uint64_data(), out);
    default: break;
  }
  if (!isHalfByte(out.dtype())) return fromTyped(proto.int32_data(), out);
  if (proto.int32_data_size() != (out.numElements() + 1) / 2)
    return fail(ErrorCode::kInvalidModel, "{} packed values for {} elements", proto.int32_data_size(), out.numElements());
  std::string packed;
  for (const int32_t v : proto.int32_data()) packed.push_back(static_cast<char>(v));
  unpackHalfBytes(packed, out.dtype(), out);
  return {};
}

}  // namespace

Result<DType> dtypeFromOnnx(int64_t dataType) {
  for (const auto& [code, dtype] : kTypes)
    if (code == dataType) return dtype;
  const int narrow = static_cast<int>(dataType);
  const std::string name = narrow == dataType && onnx::TensorProto::DataType_IsValid(narrow)
                               ? onnx::TensorProto::DataType_Name(static_cast<onnx::TensorProto::DataType>(narrow))
                               : std::to_string(dataType);
  Failure failure = fail(ErrorCode::kUnsupported, "tensors of type {} are not supported", name);
  if (dataType != onnx::TensorProto::STRING)
    return std::move(failure).help("export the model with tensors of numbers that are not complex");
  return std::move(failure).help(
      fmt::format("tensors hold numbers: give labels and categories as integers, or cut the strings off: {}, with the inputs and outputs "
                  "that are numbers",
                  kExtractModel));
}

int dtypeToOnnx(DType dtype) {
  for (const auto& [code, d] : kTypes)
    if (d == dtype) return code;
  return 0;
}

Result<TensorHeader> headerFromOnnx(const onnx::TensorProto& proto) {
  auto known = dtypeFromOnnx(proto.data_type());
  if (!known) return tl::make_unexpected(std::move(known.error()).on(proto.name()));
  const DType dtype = *known;
  if (proto.has_segment()) return fail(ErrorCode::kUnsupported, "segmented tensor data").on(proto.name());
  std::vector<int64_t> sizes(proto.dims().begin(), proto.dims().end());
  int64_t count = 1;
  for (const int64_t s : sizes) {
    if (s < 0 || (s > 0 && count > kMaxBytes / s)) return fail(ErrorCode::kInvalidModel, "a dim of {} is not possible", s).on(proto.name());
    count *= s;
  }
  const int64_t bytes = isHalfByte(dtype) ? (count + 1) / 2 : count * sizeOf(dtype);
  if (bytes > kMaxBytes) return fail(ErrorCode::kResource, "{} bytes in one tensor", bytes).on(proto.name());
  return TensorHeader{dtype, std::move(sizes), count, bytes};
}

Status checkExternal(const onnx::TensorProto& proto, const TensorHeader& header, const Descriptor& folder) {
  const auto external = openExternal(proto, folder, header.bytes);
  return external ? Status() : tl::make_unexpected(Error(external.error()).on(proto.name()));
}

Result<Tensor> tensorFromOnnx(const onnx::TensorProto& proto, const Descriptor& folder, const std::shared_ptr<const std::string>& taken) {
  QC_ASSIGN(TensorHeader header, headerFromOnnx(proto));
  const DType dtype = header.dtype;
  const int64_t count = header.elements, bytes = header.bytes;
  std::vector<int64_t>& sizes = header.sizes;
  if (auto s = checkMemory(count * sizeOf(dtype), "this tensor"); !s) return tl::make_unexpected(std::move(s).error().on(proto.name()));
  if (proto.data_location() == onnx::TensorProto::EXTERNAL) return readExternal(proto, folder, dtype, std::move(sizes), bytes);
  const std::string_view raw = taken ? *taken : proto.raw_data();
  const bool isRaw = taken || proto.has_raw_data();
  // Compare before allocating: a dim is a claim, the bytes are there or not.
  const int64_t typed = static_cast<int64_t>(proto.float_data_size()) + proto.int32_data_size() + proto.int64_data_size() +
                        proto.double_data_size() + proto.uint64_data_size();
  if (isRaw ? static_cast<int64_t>(raw.size()) != bytes : typed < (isHalfByte(dtype) ? (count + 1) / 2 : count))
    return fail(ErrorCode::kInvalidModel, "the data has {} {}, {} are needed", isRaw ? static_cast<int64_t>(raw.size()) : typed,
                isRaw ? "bytes" : "values", isRaw ? bytes : count)
        .on(proto.name());
  if (taken && !isHalfByte(dtype)) return Tensor(dtype, std::move(sizes), taken, raw.data());
  Tensor tensor(dtype, std::move(sizes));
  if (isRaw && isHalfByte(dtype)) {
    unpackHalfBytes(raw, dtype, tensor);
  } else if (isRaw) {
    std::memcpy(tensor.mutableData(), raw.data(), usize(bytes));
  } else if (auto s = fillTyped(proto, tensor); !s) {
    return tl::make_unexpected(std::move(s.error()).on(proto.name()));
  }
  return tensor;
}

Tensor withoutHalves(Tensor t) {
  if (t.dtype() != DType::f16 && t.dtype() != DType::bf16) return t;
  const std::vector<float> values = t.toFloats();
  return Tensor::ofFloats(t.sizes(), values);
}

}  // namespace qc
