// Runs ONNX's own node tests through the importer and the interpreter and compares with the recorded outputs (relative 1e-3, absolute 1e-7,
// dtypes and shapes exactly), as ONNX's reference runner does.  A model that passes must pass again after export and import.
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

namespace qc {
namespace {

namespace fs = std::filesystem;

enum class Outcome { passed, passedBound, unsupported, failed };

// What imports but has no form to be exported in, with the reason.
const std::pair<const char*, const char*> kNotExportable[] = {
    {"test_resize_downsample_sizes_nearest_not_smaller", "one scale for all axes and sizes rounded up: neither sizes nor scales say both"},
};

struct Verdict {
  Outcome outcome;
  std::string reason;
  std::string exportFault = {};  // of a test that passed
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
  const std::string there = returned(imported->graph, fed, *expected);
  return {imported->bound.empty() ? Outcome::passed : Outcome::passedBound, "", there};
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
  int lost = 0, unlisted = 0, unexported = 0;
  for (const auto& [set, root] : options.sets) {
    std::map<Outcome, int> counts;
    std::set<fs::path> folders;
    for (const auto& entry : fs::directory_iterator(root))
      if (fs::exists(entry.path() / "model.onnx")) folders.insert(entry.path());
    int notListed = 0, here = 0, notReturned = 0;
    for (const fs::path& folder : folders) {
      const std::string name = set + " " + folder.filename().string();
      const Verdict verdict = runTest(folder);
      const bool passed = verdict.outcome == Outcome::passed || verdict.outcome == Outcome::passedBound;
      ++counts[verdict.outcome];
      if (passed) passing.insert(name);
      notListed += passed && !listed.contains(name);
      here += listed.contains(name);
      if (passed && !verdict.exportFault.empty()) {
        const auto excused = std::find_if(std::begin(kNotExportable), std::end(kNotExportable),
                                          [&](const auto& row) { return folder.filename() == row.first; });
        if (excused != std::end(kNotExportable)) {
          fmt::print("NO ONNX FORM {}: {}\n", name, excused->second);
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
        "after export\n",
        set, folders.size(), counts[Outcome::passed], counts[Outcome::passedBound], counts[Outcome::unsupported], counts[Outcome::failed],
        notListed, notReturned);
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
  return lost || unexported || (unlisted && !options.update) ? 1 : 0;
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
