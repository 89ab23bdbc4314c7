// ONNX bytes -> float-stage graph.  IR 3 and later, opset 7 to 28.
// Inputs with symbolic or unnamed dims are bound by `shapes`. A dim that is not bound is an error, but a leading batch dim is 1 then; or it
// stays free, if `freeDims` says so: a symbol of the name that the model has for it, or "INPUT.AXIS", which bind-shapes settles later.
// ONNX tensor names become value names, node names become locations.  Whatever the bytes, the outcome is a graph or an error:
// nothing outside the model's folder is read, nothing is allocated before its size was checked.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct ImportOptions {
  std::map<std::string, std::vector<int64_t>> shapes = {};  // input name -> sizes
  std::map<std::string, Tensor> values = {};                // input name -> its value: no input of the graph then, but a constant
  bool freeDims = false;                                    // keep those that `shapes` does not bind
};

Result<Graph> importOnnx(std::string_view bytes, const std::filesystem::path& folder, const ImportOptions& options = {});
Result<Graph> importOnnxFile(const std::string& path, const ImportOptions& options = {});

// A graph of the inputs of the model alone, for what looks at them where the whole cannot be read with its dims free.
Result<Graph> importOnnxInputs(const std::string& path, const ImportOptions& options = {});

// Bytes of the file and of the weights that it keeps beside itself.
Result<int64_t> modelBytes(const std::string& path);

}  // namespace qc
