#include "frontend/data/npy.h"

#include <algorithm>
#include <cstring>

#include "frontend/data/array_file.h"
#include "frontend/data/little_endian.h"
#include "frontend/data/npy_dict.h"
#include "ir/files.h"
#include "ir/memory_limit.h"

namespace qc {
namespace {

constexpr std::pair<std::string_view, DType> kDescriptors[] = {
    {"f4", DType::f32}, {"f2", DType::f16}, {"f8", DType::f64}, {"u1", DType::u8},  {"i1", DType::s8},  {"u2", DType::u16},
    {"i2", DType::s16}, {"u4", DType::u32}, {"i4", DType::s32}, {"u8", DType::u64}, {"i8", DType::s64}, {"b1", DType::boolean},
};

}  // namespace

Result<std::string> npyHead(const Tensor& tensor) {
  std::string_view descriptor;
  for (const auto& [code, dtype] : kDescriptors)
    if (dtype == tensor.dtype()) descriptor = code;
  if (descriptor.empty()) return fail(ErrorCode::kUnsupported, "npy has no type for {}", toString(tensor.dtype()));
  std::string shape;
  for (const int64_t s : tensor.sizes()) shape += fmt::format("{}, ", s);
  std::string header = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}", sizeOf(tensor.dtype()) == 1 ? '|' : '<',
                                   descriptor, shape);
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  const auto length = static_cast<uint16_t>(header.size());
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(length & 255) + static_cast<char>(length >> 8) + header;
}

Result<NpyHeader> parseNpyHeader(std::string_view bytes, std::string_view name) {
  if (bytes.size() < 10 || bytes.substr(0, 6) != std::string_view("\x93NUMPY", 6))
    return fail(ErrorCode::kInvalidData, "'{}' is not an npy file", name);
  const int version = static_cast<unsigned char>(bytes[6]);
  if (version < 1 || version > 3 || bytes[7] != 0)
    return fail(ErrorCode::kUnsupported, "'{}' has version {}.{} of the npy format; 1.0 to 3.0 are known", name, version,
                static_cast<unsigned char>(bytes[7]));
  const bool longHeader = version >= 2;
  const size_t prefix = longHeader ? 12 : 10;
  if (bytes.size() < prefix) return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
  const size_t length = longHeader ? littleEndian<uint32_t>(bytes.data() + 8) : littleEndian<uint16_t>(bytes.data() + 8);
  if (length > bytes.size() - prefix) return fail(ErrorCode::kInvalidData, "'{}' is truncated", name);
  QC_ASSIGN(NpyDict dict, parseNpyDict(bytes.substr(prefix, length), name));
  NpyHeader result;
  result.dataOffset = prefix + length;
  result.sizes = std::move(dict.shape);
  if (dict.fortranOrder && result.sizes.size() > 1)
    return fail(ErrorCode::kUnsupported, "'{}' is in Fortran order", name).help("save numpy.ascontiguousarray(x)");
  std::string_view descriptor = dict.descr;
  if (!descriptor.empty() && (descriptor[0] == '<' || descriptor[0] == '|' || descriptor[0] == '=')) descriptor.remove_prefix(1);
  const auto* found = std::find_if(std::begin(kDescriptors), std::end(kDescriptors), [&](const auto& d) { return d.first == descriptor; });
  if (found == std::end(kDescriptors))
    return fail(ErrorCode::kUnsupported, "'{}' holds elements of type '{}'", name, dict.descr).help("save a little-endian numeric array");
  result.dtype = found->second;
  int64_t count = 1;  // empty axes aside, so that the size of a row is bounded as well
  for (const int64_t s : result.sizes) {
    if (s > 0 && count > (int64_t{1} << 40) / s) return fail(ErrorCode::kInvalidData, "'{}' claims more than 2^40 elements", name);
    count *= std::max<int64_t>(s, 1);
  }
  return result;
}

Result<Tensor> parseNpy(std::string_view bytes, std::string_view name) {
  QC_ASSIGN(NpyHeader header, parseNpyHeader(bytes, name));
  const std::string_view data = bytes.substr(header.dataOffset);
  const int64_t wanted = numElements(header.sizes) * sizeOf(header.dtype);
  if (static_cast<int64_t>(data.size()) < wanted)
    return fail(ErrorCode::kInvalidData, "'{}' is truncated: {} bytes for {}", name, data.size(), wanted);
  QC_TRY(checkMemory(wanted, fmt::format("the array '{}'", name)));
  Tensor t(header.dtype, std::move(header.sizes));
  std::memcpy(t.mutableData(), data.data(), usize(wanted));
  return t;
}

Result<Tensor> readNpy(const std::string& path) {
  QC_ASSIGN(const InputFile file, InputFile::open(path));
  QC_ASSIGN(const std::string head, file.head(0, kMaxNpyHead));
  QC_ASSIGN(NpyHeader header, parseNpyHeader(head, path));
  const int64_t wanted = numElements(header.sizes) * sizeOf(header.dtype);
  if (file.size() - header.dataOffset < static_cast<uint64_t>(wanted))
    return fail(ErrorCode::kInvalidData, "'{}' is truncated: {} bytes for {}", path, file.size() - header.dataOffset, wanted);
  QC_TRY(checkMemory(wanted, fmt::format("the array '{}'", path)));
  Tensor t(header.dtype, std::move(header.sizes));
  QC_TRY(file.read(header.dataOffset, t.mutableData(), usize(wanted)));
  return t;
}

Status writeNpy(const std::string& path, const Tensor& tensor) {
  OutputFiles file;
  QC_TRY(addNpy(file, path, tensor));
  return file.publish();
}

Status addNpy(OutputFiles& files, const std::string& path, const Tensor& tensor) {
  QC_ASSIGN(const std::string head, npyHead(tensor));
  return files.add(path, {head, {static_cast<const char*>(tensor.data()), usize(tensor.byteSize())}});
}

}  // namespace qc
