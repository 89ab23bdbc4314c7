#include "frontend/file_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

namespace qc {
namespace {

using namespace std::string_view_literals;

constexpr auto kExport = "export it in Python: torch.onnx.export(model, inputs, 'm.onnx')"sv;
constexpr auto kTensorFlow = "convert it with tf2onnx: python -m tf2onnx.convert"sv;
constexpr auto kUnpack = "unpack it first"sv;

struct Signature {
  size_t offset;
  std::string_view bytes, what, remedy;
};
constexpr Signature kSignatures[] = {
    {0, "version https://git-lfs"sv, "a Git LFS pointer, not the file it stands for", "fetch the file itself: git lfs pull"},
    {4, "TFL3"sv, "a TensorFlow Lite model", "convert it with tf2onnx: python -m tf2onnx.convert --tflite FILE --output m.onnx"},
    {0, "\x1f\x8b"sv, "a gzip archive", kUnpack},
    {0, "BZh"sv, "a bzip2 archive", kUnpack},
    {0, "\xfd\x37zXZ\0"sv, "an xz archive", kUnpack},
    {0, "\x28\xb5\x2f\xfd"sv, "a zstd archive", kUnpack},
    {0, "7z\xbc\xaf"sv, "a 7z archive", kUnpack},
    {257, "ustar"sv, "a tar archive", kUnpack},
    {0, "\x89HDF"sv, "an HDF5 file, as Keras writes", kTensorFlow},
    {0, "\x93NUMPY"sv, "a numpy array", "a model is wanted here; arrays are inputs or samples"},
    {0, "\x89PNG"sv, "an image", "a model is wanted here"},
    {0, "\xff\xd8\xff"sv, "an image", "a model is wanted here"},
    {0, "GGUF"sv, "a GGUF file, weights of llama.cpp without a graph", "export the model to ONNX from its source"},
    {0, "ORTM"sv, "a model in ONNX Runtime's own format", "give the .onnx file that it was made from"},
    {4, "ORTM"sv, "a model in ONNX Runtime's own format", "give the .onnx file that it was made from"},
    {0,
     "\x7f"
     "ELF"sv,
     "a program or library", "a model is wanted here"},
    {0, "qcal 1 "sv, "a ranges file of calibrate", "give the model that the ranges are of"},
    {8, "{\""sv, "a safetensors file, weights without a graph", kExport},
    {0, "\x08\x01\x12"sv, "a TensorFlow SavedModel", kTensorFlow},
};

bool startsWithWord(std::string_view text, std::string_view word) {
  while (!text.empty() && (std::isspace(static_cast<unsigned char>(text[0])) || static_cast<unsigned char>(text[0]) >= 0x80))
    text.remove_prefix(1);
  return text.size() >= word.size() && std::equal(word.begin(), word.end(), text.begin(),
                                                  [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); });
}

FileKind zipKind(std::string_view bytes) {
  const std::string_view head = bytes.substr(0, 1 << 16);
  const auto holds = [&](std::string_view name) { return head.find(name) != std::string_view::npos; };
  if (holds("data.pkl") || holds("/byteorder") || holds(".data/serialization_id"))
    return {"a PyTorch file (.pt, .pth)", std::string(kExport)};
  if (holds(".npy")) return {"an archive of numpy arrays (.npz)", "a model is wanted here; arrays are samples: npz:FILE"};
  if (holds("model.weights.h5")) return {"a Keras model", std::string(kTensorFlow)};
  return {"a zip archive", std::string(kUnpack)};
}

bool isText(std::string_view bytes) {
  const std::string_view head = bytes.substr(0, 512);
  const auto beyondAscii = std::count_if(head.begin(), head.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
  if (beyondAscii * 3 > static_cast<std::ptrdiff_t>(head.size())) return false;
  return std::all_of(head.begin(), head.end(), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return u >= 0x20 ? u != 0x7f : u == '\n' || u == '\r' || u == '\t';
  });
}

}  // namespace

FileKind kindOfBytes(std::string_view bytes) {
  if (bytes.empty()) return {"empty", "the download or the export did not end well; make it anew"};
  for (const Signature& s : kSignatures)
    if (bytes.size() > s.offset && bytes.substr(s.offset).starts_with(s.bytes)) return {std::string(s.what), std::string(s.remedy)};
  if (bytes.starts_with("PK\x03\x04")) return zipKind(bytes);
  if (bytes.size() > 1 && bytes[0] == '\x80' && bytes[1] >= 2 && bytes[1] <= 5)
    return {"a Python pickle, as older PyTorch writes (.pt, .pth)", std::string(kExport)};
  if (startsWithWord(bytes, "<!doctype html") || startsWithWord(bytes, "<html"))
    return {"a web page", "the link led to a page about the file; download the file itself"};
  if (startsWithWord(bytes, "<?xml")) return {"an XML file, as OpenVINO's models are", "give the ONNX model that it was made from"};
  if (startsWithWord(bytes, "graph @") || startsWithWord(bytes, "const #")) return {"a graph in text form", "let its name end in .qir"};
  if (isText(bytes)) return {startsWithWord(bytes, "{") ? "a JSON file" : "a text file", "a model is wanted here"};
  if (bytes[0] == '\x08' && bytes.size() > 1 && bytes[1] > 0 && bytes[1] < 32)
    return {fmt::format("an ONNX model that is cut off or damaged ({} bytes)", bytes.size()),
            "compare its size with the original, and copy or download it anew"};
  return {"in a format that is not known here", "an ONNX model is wanted"};
}

FileKind kindOfFolder(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  std::string models;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name == "saved_model.pb")
      return {"a folder, a TensorFlow SavedModel", "convert it: python -m tf2onnx.convert --saved-model FOLDER --output m.onnx"};
    if (name.ends_with(".mlmodel")) return {"a folder, a Core ML package", "export the model to ONNX from its source"};
    if (name.ends_with(".onnx") && models.size() < 200) models += (models.empty() ? "" : ", ") + name;
  }
  return {"a folder", models.empty() ? "give the model's file" : fmt::format("give one of the files in it: {}", models)};
}

}  // namespace qc
