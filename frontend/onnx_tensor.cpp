#include "frontend/onnx_tensor.h"

#include <fcntl.h>
#include <onnx/onnx_pb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

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

// The one place that opens a file named by a model.  The path must stay inside the folder, also through links.
Result<std::string> readExternal(const onnx::TensorProto& proto, const std::filesystem::path& folder, int64_t bytes) {
  if (folder.empty()) return fail(ErrorCode::kInvalidModel, "external data is not allowed here");
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
  const std::filesystem::path relative(location);
  bool escapes = location.empty() || relative.is_absolute() || location.find('\0') != std::string::npos;
  for (const auto& part : relative) escapes = escapes || part == "..";
  if (escapes) return fail(ErrorCode::kInvalidModel, "external data '{}' is outside the model's folder", location);
  if (length != bytes) return fail(ErrorCode::kInvalidModel, "external data '{}' gives {} bytes, {} are needed", location, length, bytes);
  std::error_code error;
  const auto root = std::filesystem::canonical(folder, error);
  const auto path = error ? std::filesystem::path() : std::filesystem::canonical(root / relative, error);
  if (error) return fail(ErrorCode::kNotFound, "external data '{}' is not there", location).help("keep the data file beside the model");
  const auto inside = std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
  if (!inside) return fail(ErrorCode::kInvalidModel, "external data '{}' leads out of the model's folder", location);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  struct stat info{};
  if (fd < 0 || ::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    if (fd >= 0) ::close(fd);
    return fail(ErrorCode::kIo, "cannot read external data '{}'", location);
  }
  std::string data;
  bool good = offset <= info.st_size && bytes <= info.st_size - offset;
  if (good) {
    data.resize(static_cast<size_t>(bytes));
    for (int64_t done = 0; good && done < bytes;) {
      const ssize_t n = ::pread(fd, data.data() + done, static_cast<size_t>(bytes - done), offset + done);
      good = n > 0 || (n < 0 && errno == EINTR);
      if (n > 0) done += n;
    }
  }
  ::close(fd);
  if (!good) return fail(ErrorCode::kInvalidModel, "external data '{}' is too short for {} bytes at {}", location, bytes, offset);
  return data;
}

void unpackHalfBytes(std::string_view packed, DType dtype, Tensor& out) {
  auto* to = static_cast<uint8_t*>(out.mutableData());
  for (int64_t i = 0; i < out.numElements(); ++i) {
    const auto byte = static_cast<uint8_t>(packed[static_cast<size_t>(i / 2)]);
    const int nibble = i % 2 ? byte >> 4 : byte & 15;
    to[i] = static_cast<uint8_t>(dtype == DType::s4 && nibble > 7 ? nibble - 16 : nibble);
  }
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

Result<DType> dtypeFromOnnx(int dataType) {
  for (const auto& [code, dtype] : kTypes)
    if (code == dataType) return dtype;
  const std::string name = onnx::TensorProto::DataType_IsValid(dataType)
                               ? onnx::TensorProto::DataType_Name(static_cast<onnx::TensorProto::DataType>(dataType))
                               : std::to_string(dataType);
  return fail(ErrorCode::kUnsupported, "tensors of type {} are not supported", name);
}

int dtypeToOnnx(DType dtype) {
  for (const auto& [code, d] : kTypes)
    if (d == dtype) return code;
  return 0;
}

Result<Tensor> tensorFromOnnx(const onnx::TensorProto& proto, const std::filesystem::path& folder) {
  QC_ASSIGN(const DType dtype, dtypeFromOnnx(proto.data_type()));
  if (proto.has_segment()) return fail(ErrorCode::kUnsupported, "segmented tensor data").on(proto.name());
  std::vector<int64_t> sizes(proto.dims().begin(), proto.dims().end());
  int64_t count = 1;
  for (const int64_t s : sizes) {
    if (s < 0 || (s > 0 && count > kMaxBytes / s)) return fail(ErrorCode::kInvalidModel, "a dim of {} is not possible", s).on(proto.name());
    count *= s;
  }
  const int64_t bytes = isHalfByte(dtype) ? (count + 1) / 2 : count * sizeOf(dtype);
  if (bytes > kMaxBytes) return fail(ErrorCode::kResource, "{} bytes in one tensor", bytes).on(proto.name());
  std::string external;
  std::string_view raw = proto.raw_data();
  if (proto.data_location() == onnx::TensorProto::EXTERNAL) {
    auto data = readExternal(proto, folder, bytes);
    if (!data) return tl::make_unexpected(std::move(data.error()).on(proto.name()));
    external = std::move(*data);
    raw = external;
  }
  const bool isRaw = proto.has_raw_data() || !external.empty();
  // Compare before allocating: a dim is a claim, the bytes are there or not.
  const int64_t typed = static_cast<int64_t>(proto.float_data_size()) + proto.int32_data_size() + proto.int64_data_size() +
                        proto.double_data_size() + proto.uint64_data_size();
  if (isRaw ? static_cast<int64_t>(raw.size()) != bytes : typed < (isHalfByte(dtype) ? (count + 1) / 2 : count))
    return fail(ErrorCode::kInvalidModel, "the data has {} {}, {} are needed", isRaw ? static_cast<int64_t>(raw.size()) : typed,
                isRaw ? "bytes" : "values", isRaw ? bytes : count)
        .on(proto.name());
  Tensor tensor(dtype, std::move(sizes));
  if (isRaw && isHalfByte(dtype)) {
    unpackHalfBytes(raw, dtype, tensor);
  } else if (isRaw) {
    std::memcpy(tensor.mutableData(), raw.data(), static_cast<size_t>(bytes));
  } else if (auto s = fillTyped(proto, tensor); !s) {
    return tl::make_unexpected(std::move(s.error()).on(proto.name()));
  }
  return tensor;
}

}  // namespace qc
