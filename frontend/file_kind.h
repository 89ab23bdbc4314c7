// What a file is that was given as a model and is none, in plain words, and what to do with it.
#pragma once

#include <string>
#include <string_view>

namespace qc {

struct FileKind {
  std::string what;    // "a PyTorch file", to stand behind "is"
  std::string remedy;  // may be empty
};

// By its first bytes; what ONNX files begin with and cannot be read to the end counts as damaged.
FileKind kindOfBytes(std::string_view bytes);
// Of a folder, by what lies in it.
FileKind kindOfFolder(const std::string& path);

}  // namespace qc
