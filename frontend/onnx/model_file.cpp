// An ONNX file or its bytes, read into messages and imported.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <onnx/onnx_pb.h>

#include <algorithm>

#include "frontend/file_kind.h"
#include "frontend/onnx/bind.h"
#include "frontend/onnx/import.h"
#include "frontend/onnx/importer.h"
#include "frontend/onnx/tensor.h"
#include "ir/files.h"
#include "ir/guarded.h"
#include "ir/memory_limit.h"

namespace qc {
namespace {

namespace io = google::protobuf::io;

// Levels of messages inside one another: a subgraph takes three.
constexpr int kMaxMessages = 64;

bool parsed(io::CodedInputStream& stream, int levels, onnx::ModelProto& model) {
  stream.SetTotalBytesLimit(INT32_MAX);
  stream.SetRecursionLimit(levels);
  if (!model.ParseFromCodedStream(&stream) || !stream.ConsumedEntireMessage() || !model.has_graph()) return false;
  nameLengthsApart(*model.mutable_graph());
  return true;
}

bool parsed(std::string_view bytes, int levels, onnx::ModelProto& model) {
  io::CodedInputStream stream(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
  return parsed(stream, levels, model);
}

Result<onnx::ModelProto> parseModel(std::string_view bytes, const std::string& name = {}) {
  if (bytes.size() > usize(INT32_MAX))
    return fail(ErrorCode::kResource, "a model of {} bytes; protobuf ends at 2 GB", bytes.size()).help("keep the weights as external data");
  onnx::ModelProto model;
  if (!parsed(bytes, kMaxMessages, model)) {
    if (onnx::ModelProto deep; parsed(bytes, 4 * kMaxMessages, deep))
      return fail(ErrorCode::kResource, "subgraphs nested deeper than {}", kMaxOnnxDepth);
    const FileKind kind = kindOfBytes(bytes);
    return fail(ErrorCode::kInvalidModel, "{} no ONNX model, but {}", name.empty() ? "these bytes are" : fmt::format("'{}' is", name),
                kind.what)
        .help(kind.remedy);
  }
  return model;
}

// A file from its beginning, a piece at a time.
class FileBytes final : public io::CopyingInputStream {
 public:
  explicit FileBytes(const InputFile& file) : file_(file) {}
  int Read(void* buffer, int size) override {
    const auto count = static_cast<size_t>(std::min<uint64_t>(static_cast<uint64_t>(size), file_.size() - offset_));
    if (count > 0 && !file_.read(offset_, buffer, count)) return -1;
    offset_ += count;
    return static_cast<int>(count);
  }

 private:
  const InputFile& file_;
  uint64_t offset_ = 0;
};

// As parseModel(), without the bytes of the file beside the parsed form.  What is wrong with them is said by the whole of them.
Result<onnx::ModelProto> parseFile(const InputFile& file, const std::string& path) {
  if (file.size() <= static_cast<uint64_t>(INT32_MAX)) {
    FileBytes bytes(file);
    io::CopyingInputStreamAdaptor pieces(&bytes, 1 << 16);
    io::CodedInputStream stream(&pieces);
    if (onnx::ModelProto model; parsed(stream, kMaxMessages, model)) return model;
  }
  QC_ASSIGN(const std::string whole, file.whole(INT32_MAX));
  return parseModel(whole, path);
}

// Takes the bytes of large weights out of the model, for tensors to hold as they are.
TensorBytes takenOf(onnx::ModelProto& model) {
  constexpr size_t kLarge = 4096;
  TensorBytes taken;
  for (onnx::TensorProto& weight : *model.mutable_graph()->mutable_initializer())
    if (weight.raw_data().size() >= kLarge) taken.emplace(&weight, std::shared_ptr<const std::string>(weight.release_raw_data()));
  return taken;
}

}  // namespace

Result<Graph> importOnnx(std::string_view bytes, const std::filesystem::path& folder, const ImportOptions& options) {
  return withoutExceptions([&]() -> Result<Graph> {
    QC_ASSIGN(const onnx::ModelProto model, parseModel(bytes));
    Descriptor opened;
    if (!folder.empty()) {
      QC_ASSIGN(opened, openFolder(folder.string()));
    }
    return OnnxImporter::import(model, opened, options);
  });
}

Result<OnnxFile> OnnxFile::read(const std::string& path) {
  if (std::error_code error; std::filesystem::is_directory(path, error)) {
    const FileKind kind = kindOfFolder(path);
    return fail(ErrorCode::kInvalidArgument, "'{}' is {}, not a model's file", path, kind.what).help(kind.remedy);
  }
  QC_ASSIGN(const InputFile file, InputFile::open(path));
  QC_ASSIGN(Descriptor folder, openFolder(std::filesystem::path(path).parent_path().string()));
  const auto size = static_cast<int64_t>(file.size());
  // The parsed form takes about as much as the bytes.
  QC_ASSIGN(MemoryClaim claim, MemoryClaim::make(size, fmt::format("the parsed form of '{}'", path)));
  QC_ASSIGN(onnx::ModelProto model, parseFile(file, path));
  return OnnxFile{std::move(model), std::move(folder), std::move(claim), size};
}

Result<Graph> importOnnxFile(const std::string& path, const ImportOptions& options) {
  return withoutExceptions([&]() -> Result<Graph> {
    QC_ASSIGN(OnnxFile file, OnnxFile::read(path));
    const TensorBytes taken = takenOf(file.model);
    return OnnxImporter::import(file.model, file.folder, options, &taken);
  });
}

Result<Graph> importOnnxInputs(const std::string& path, const ImportOptions& options) {
  return withoutExceptions([&]() -> Result<Graph> {
    QC_ASSIGN(const OnnxFile file, OnnxFile::read(path));
    return OnnxImporter(file.model, file.folder, options, OnnxImporter::Weights::headers).inputs();
  });
}

Result<int64_t> modelBytes(const std::string& path) {
  QC_ASSIGN(const OnnxFile file, OnnxFile::read(path));
  int64_t total = file.bytes;
  for (const auto& initializer : file.model.graph().initializer()) {
    if (initializer.data_location() != onnx::TensorProto::EXTERNAL) continue;
    QC_ASSIGN(const TensorHeader header, headerFromOnnx(initializer));
    total += header.bytes;
  }
  return total;
}

}  // namespace qc
