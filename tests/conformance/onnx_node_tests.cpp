// Runs ONNX's own node tests through the importer and the interpreter and compares with the recorded outputs (relative 1e-3, absolute 1e-7,
// dtypes and shapes exactly), as ONNX's reference runner does.  A model that passes must pass again after export and import, and with the
// dims of its inputs free, all or all but channels or features, where the import takes them so: bound to the recorded shapes, as read and
// after export and import.
//
//   onnx_node_tests PASSING.txt [--update] [--show] SET=FOLDER ...
//
// PASSING.txt lists "SET NAME" of the tests that must pass.  A listed test that fails is an error, and so is one that passes but is not
// listed: the list is complete, and only grows.  --update adds what passes now; --show says why the others do not.  Sets that are not given
// are not checked, which is said.
//
// Some node tests feed shapes, axes and the like as inputs at run time.  Here these must be known when a model is loaded, so an input that
// the importer asks for is bound to its recorded value and the import repeated; such passes are counted apart.
#include <fmt/format.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "frontend/data/npy.h"
#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "frontend/onnx/tensor.h"
#include "ir/interp.h"
#include "passes/lower/bound_graph.h"

namespace qc {
namespace {

namespace fs = std::filesystem;

enum class Outcome { passed, passedBound, unsupported, failed };

// What cannot be right at all sizes, with the reason.
const std::pair<const char*, const char*> kNotFree[] = {
    {"test_attention_4d_diff_heads_mask4d_padded_kv", "of a mask and keys whose sizes are free it takes that they are the same"},
};

// What imports but has no form to be exported in, with the reason.
const std::pair<const char*, const char*> kNotExportable[] = {
    {"test_resize_downsample_sizes_nearest_not_smaller", "one scale for all axes and sizes rounded up: neither sizes nor scales say both"},
};

struct Verdict {
  Outcome outcome;
  std::string reason;
  std::string exportFault = {};  // of a test that passed
  std::string freeFault = {};    // of one that imports with free dims
  bool isFree = false;
};

Verdict verdictOf(const Error& error) {
  return {error.code() == ErrorCode::kUnsupported ? Outcome::unsupported : Outcome::failed, error.render()};
}

// input_0.pb, input_1.pb, ...; a sequence or optional does not parse as a tensor with a known dtype.
Result<std::vector<Tensor>> readTensors(const fs::path& folder, const std::string& kind) {
  std::vector<Tensor> tensors;
  for (int i = 0; fs::exists(folder / fmt::format("{}_{}.pb", kind, i)); ++i) {
    QC_ASSIGN(const std::string bytes, readFile((folder / fmt::format("{}_{}.pb", kind, i)).string()));
    onnx::TensorProto proto;
    if (!proto.ParseFromString(bytes)) return fail(ErrorCode::kUnsupported, "{} {} is not a tensor", kind, i);
    QC_ASSIGN(Tensor tensor, tensorFromOnnx(proto, {}));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

bool close(double actual, double expected) {
  if (std::isnan(expected)) return std::isnan(actual);
  if (std::isinf(expected)) return actual == expected;
  return std::abs(actual - expected) <= 1e-7 + 1e-3 * std::abs(expected);
}

std::string difference(const Tensor& actual, const Tensor& expected) {
  if (actual.dtype() != expected.dtype() || actual.sizes() != expected.sizes())
    return fmt::format("{} instead of {}", actual.type().str(), expected.type().str());
  for (int64_t i = 0; i < actual.numElements(); ++i)
    if (!close(actual.at(i), expected.at(i)))
      return fmt::format("element {} of {}: {} instead of {}", i, actual.type().str(), actual.at(i), expected.at(i));
  return {};
}

// Names of the model's inputs that are fed, in the order of the files.
std::vector<std::string> fedInputs(const std::string& bytes) {
  onnx::ModelProto model;
  std::vector<std::string> names;
  if (!model.ParseFromString(bytes)) return names;
  std::set<std::string> constants;
  for (const auto& initializer : model.graph().initializer()) constants.insert(initializer.name());
  for (const auto& input : model.graph().input())
    if (!constants.contains(input.name())) names.push_back(input.name());
  return names;
}

struct Imported {
  Graph graph;
  std::set<std::string> bound;
};

Result<Imported> importBinding(const std::string& bytes, const fs::path& folder, const std::vector<std::string>& names,
                               const std::vector<Tensor>& inputs) {
  ImportOptions options;
  std::set<std::string> bound;
  for (size_t i = 0; i < names.size() && i < inputs.size(); ++i) options.shapes[names[i]] = inputs[i].sizes();
  while (true) {
    auto graph = importOnnx(bytes, folder, options);
    if (graph) return Imported{*std::move(graph), std::move(bound)};
    const Error& error = graph.error();
    if (error.message().find("must be known when the model is loaded") == std::string::npos) return tl::make_unexpected(graph.error());
    // The input that is asked for, or all that may decide a size.
    bool more = false;
    for (size_t i = 0; i < names.size() && i < inputs.size(); ++i) {
      const bool decides = inputs[i].rank() <= 1 && isInteger(inputs[i].dtype());
      const bool asked = names[i] == error.tensor() || (std::find(names.begin(), names.end(), error.tensor()) == names.end() && decides);
      if (!asked || !bound.insert(names[i]).second) continue;
      options.values.emplace(names[i], inputs[i]);
      options.shapes.erase(names[i]);
      more = true;
    }
    if (!more) return tl::make_unexpected(graph.error());
  }
}

// Empty, or what is wrong with the outputs.
std::string evaluated(const Graph& graph, const std::vector<Tensor>& inputs, const std::vector<Tensor>& expected) {
  const auto outputs = interpret(graph, inputs);
  if (!outputs) return outputs.error().render();
  if (outputs->size() != expected.size()) return fmt::format("{} outputs instead of {}", outputs->size(), expected.size());
  for (size_t i = 0; i < outputs->size(); ++i)
    if (std::string text = difference((*outputs)[i], expected[i]); !text.empty()) return fmt::format("output {}: {}", i, text);
  return {};
}

// Exported, imported again, evaluated again.
std::string returned(const Graph& graph, const std::vector<Tensor>& inputs, const std::vector<Tensor>& expected) {
  const auto bytes = exportOnnx(graph);
  if (!bytes) return bytes.error().render();
  const auto again = importOnnx(*bytes, {});
  return again ? evaluated(*again, inputs, expected) : again.error().render();
}

using NamedTensors = std::map<std::string, Tensor>;

// Which dims stay as they are: the second one (channels, heads), the last one (features), both or neither.
struct Kept {
  bool second, last;
};
constexpr Kept kKept[] = {{false, false}, {true, false}, {false, true}, {true, true}};

// The model with symbols for the other dims of these inputs; nothing where the import does not take it so.
std::optional<Graph> importFree(const std::string& bytes, const fs::path& folder, const NamedTensors& fed, const NamedTensors& bound,
                                Kept kept) {
  onnx::ModelProto model;
  if (!model.ParseFromString(bytes)) return std::nullopt;
  for (auto& input : *model.mutable_graph()->mutable_input()) {
    if (!fed.contains(input.name())) continue;
    auto& dims = *input.mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim();
    for (int axis = 0; axis < dims.size(); ++axis)
      if (!(kept.second && axis == 1) && !(kept.last && axis == dims.size() - 1))
        dims[axis].set_dim_param(fmt::format("{}_{}", input.name(), axis));
  }
  for (auto& output : *model.mutable_graph()->mutable_output())
    if (output.type().has_tensor_type()) output.mutable_type()->mutable_tensor_type()->clear_shape();
  auto graph = importOnnx(model.SerializeAsString(), folder, {.shapes = {}, .values = bound, .freeDims = true});
  return graph ? std::optional(*std::move(graph)) : std::nullopt;
}

std::string evaluatedAt(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes, const std::vector<Tensor>& inputs,
                        const std::vector<Tensor>& expected) {
  const auto bound = boundGraph(graph, shapes);
  return bound ? evaluated(*bound, inputs, expected) : bound.error().render();
}

std::string freed(const Graph& graph, const NamedTensors& fed, const std::vector<Tensor>& inputs, const std::vector<Tensor>& expected) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& [name, tensor] : fed) shapes[name] = tensor.sizes();
  if (std::string text = evaluatedAt(graph, shapes, inputs, expected); !text.empty()) return "as read: " + text;
  const auto bytes = exportOnnx(graph);
  if (!bytes) return bytes.error().render();
  const auto again = importOnnx(*bytes, {}, {.shapes = {}, .values = {}, .freeDims = true});
  return again ? evaluatedAt(*again, shapes, inputs, expected) : again.error().render();
}

Verdict runDataSet(const std::string& bytes, const fs::path& folder, const fs::path& data) {
  const auto inputs = readTensors(data, "input");
  if (!inputs) return verdictOf(inputs.error());
  const auto expected = readTensors(data, "output");
  if (!expected) return verdictOf(expected.error());
  const std::vector<std::string> names = fedInputs(bytes);
  if (names.size() != inputs->size()) return {Outcome::unsupported, fmt::format("{} inputs, {} files", names.size(), inputs->size())};
  const auto imported = importBinding(bytes, folder, names, *inputs);
  if (!imported) return verdictOf(imported.error());
  std::vector<Tensor> fed;
  for (size_t i = 0; i < names.size(); ++i)
    if (!imported->bound.contains(names[i])) fed.push_back((*inputs)[i]);
  if (std::string text = evaluated(imported->graph, fed, *expected); !text.empty()) return {Outcome::failed, text};
  Verdict verdict{imported->bound.empty() ? Outcome::passed : Outcome::passedBound, "", returned(imported->graph, fed, *expected)};
  NamedTensors open, bound;
  for (size_t i = 0; i < names.size(); ++i) (imported->bound.contains(names[i]) ? bound : open).emplace(names[i], (*inputs)[i]);
  for (const Kept kept : kKept) {
    const auto graph = importFree(bytes, folder, open, bound, kept);
    verdict.isFree = verdict.isFree || graph;
    if (graph && verdict.freeFault.empty()) verdict.freeFault = freed(*graph, open, fed, *expected);
  }
  return verdict;
}

Verdict runTest(const fs::path& folder) {
  const auto bytes = readFile((folder / "model.onnx").string());
  if (!bytes) return verdictOf(bytes.error());
  Verdict verdict{Outcome::unsupported, "no data"};
  for (int i = 0; fs::exists(folder / fmt::format("test_data_set_{}", i)); ++i) {
    verdict = runDataSet(*bytes, folder, folder / fmt::format("test_data_set_{}", i));
    if (verdict.outcome == Outcome::failed || verdict.outcome == Outcome::unsupported) return verdict;
  }
  return verdict;
}

struct Options {
  std::string list;
  bool update = false, show = false;
  std::map<std::string, fs::path> sets;
};

std::set<std::string> readList(const std::string& path) {
  std::set<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (!line.empty() && line[0] != '#') lines.insert(line);
  return lines;
}

int run(const Options& options) {
  std::set<std::string> listed = readList(options.list), passing;
  std::set<std::string> leftOut;
  for (const std::string& line : listed)
    if (const std::string set = line.substr(0, line.find(' ')); !options.sets.contains(set)) leftOut.insert(set);
  for (const std::string& set : leftOut) fmt::print("{}: LEFT OUT, no folder is given\n", set);
  int lost = 0, unlisted = 0, unexported = 0, notFree = 0;
  for (const auto& [set, root] : options.sets) {
    std::map<Outcome, int> counts;
    std::set<fs::path> folders;
    for (const auto& entry : fs::directory_iterator(root))
      if (fs::exists(entry.path() / "model.onnx")) folders.insert(entry.path());
    int notListed = 0, here = 0, notReturned = 0, free = 0;
    for (const fs::path& folder : folders) {
      const std::string name = set + " " + folder.filename().string();
      const Verdict verdict = runTest(folder);
      const bool passed = verdict.outcome == Outcome::passed || verdict.outcome == Outcome::passedBound;
      ++counts[verdict.outcome];
      if (passed) passing.insert(name);
      notListed += passed && !listed.contains(name);
      here += listed.contains(name);
      const auto excuse = [&](std::span<const std::pair<const char*, const char*>> rows) {
        const auto row = std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return folder.filename() == r.first; });
        return row == rows.end() ? nullptr : row->second;
      };
      free += passed && verdict.isFree;
      if (passed && !verdict.freeFault.empty() && !excuse(kNotExportable)) {
        if (!excuse(kNotFree)) ++notFree;
        fmt::print("{} {}: {}\n", excuse(kNotFree) ? "NOT OF ALL SIZES" : "NOT FREE", name,
                   excuse(kNotFree) ? excuse(kNotFree) : verdict.freeFault);
      }
      if (passed && !verdict.exportFault.empty()) {
        if (const char* reason = excuse(kNotExportable)) {
          fmt::print("NO ONNX FORM {}: {}\n", name, reason);
          continue;
        }
        ++notReturned;
        fmt::print("NOT EXPORTED {}: {}\n", name, verdict.exportFault);
      }
      if (passed && !listed.contains(name) && !options.update) fmt::print("NOT LISTED {}\n", name);
      if (!passed && listed.contains(name)) {
        ++lost;
        fmt::print("LOST {}: {}\n", name, verdict.reason);
      } else if (!passed && options.show) {
        fmt::print("{} {}: {}\n", verdict.outcome == Outcome::failed ? "FAILED" : "UNSUPPORTED", name, verdict.reason);
      }
    }
    const auto ofSet = std::count_if(listed.begin(), listed.end(), [&](const std::string& l) { return l.rfind(set + " ", 0) == 0; });
    if (here != ofSet) {
      lost += static_cast<int>(ofSet) - here;
      fmt::print("{} listed tests of {} are not in {}\n", ofSet - here, set, root.string());
    }
    fmt::print(
        "{}: {} tests; {} passed, {} more with inputs bound when loading, {} unsupported, {} failed; {} passed but not listed; {} differ "
        "after export; {} import with free dims\n",
        set, folders.size(), counts[Outcome::passed], counts[Outcome::passedBound], counts[Outcome::unsupported], counts[Outcome::failed],
        notListed, notReturned, free);
    unexported += notReturned;
    unlisted += notListed;
  }
  if (options.update) {
    listed.insert(passing.begin(), passing.end());
    std::ofstream file(options.list);
    file << "# ONNX node tests that must pass: set and name.  Add lines with onnx_node_tests --update; do not take any away.\n";
    for (const std::string& line : listed) file << line << "\n";
  } else if (unlisted) {
    fmt::print("{} tests pass that the list does not name: add them with onnx_node_tests --update\n", unlisted);
  }
  return lost || unexported || notFree || (unlisted && !options.update) ? 1 : 0;
}

}  // namespace
}  // namespace qc

int main(int argc, char** argv) {
  qc::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (argument == "--update")
      options.update = true;
    else if (argument == "--show")
      options.show = true;
    else if (equals != std::string::npos)
      options.sets[argument.substr(0, equals)] = argument.substr(equals + 1);
    else
      options.list = argument;
  }
  if (options.list.empty() || options.sets.empty()) {
    fmt::print(stderr, "usage: onnx_node_tests PASSING.txt [--update] [--show] SET=FOLDER ...\n");
    return 2;
  }
  return qc::run(options);
}
