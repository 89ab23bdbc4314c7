// gradient_probe MODEL.onnx FOLDER jit|interpreter: runs a model together with its gradients, for comparison with other implementations
// (gradients_vs_torch.py).  FOLDER/inputs.txt names the model's inputs, a line each; FOLDER/in0.npy, .. are their values.  The output
// "loss", of one element, is differentiated by every input of floats.  Outputs come as FOLDER/outputs.txt and out0.npy, ..
#include <fmt/core.h>

#include <fstream>

#include "frontend/data/npy.h"
#include "ir/interp.h"
#include "passes/pass_manager.h"
#include "runtime/model.h"

namespace qc {
namespace {

Status probe(const std::string& path, const std::string& folder, const std::string& engine) {
  LoadOptions load;
  TensorMap inputs;
  std::ifstream names(folder + "/inputs.txt");
  for (std::string name; std::getline(names, name);) {
    QC_ASSIGN(Tensor value, readNpy(fmt::format("{}/in{}.npy", folder, inputs.size())));
    load.shapes[name] = value.sizes();
    inputs.emplace(name, std::move(value));
  }
  QC_ASSIGN(const Model model, qc::load(path, load));
  Graph graph = model.graph().clone();
  PassContext cx;
  QC_TRY(runPipeline("fold-constants,differentiate{of=\"loss\"},cse,dce", graph, cx));
  TensorMap outputs;
  if (engine == "interpreter") {
    std::vector<Tensor> values;
    for (const Value* input : graph.inputs()) values.push_back(inputs.at(input->name()));
    QC_ASSIGN(const std::vector<Tensor> results, interpret(graph, values));
    for (size_t i = 0; i < results.size(); ++i) outputs[graph.outputNames()[i]] = results[i];
  } else {
    QC_ASSIGN(const Executable exe, compile(Model(std::move(graph), model.name())));
    QC_ASSIGN(Session session, exe.session());
    QC_ASSIGN(outputs, session.run(inputs));
  }
  std::ofstream list(folder + "/outputs.txt");
  size_t i = 0;
  for (const auto& [name, value] : outputs) {
    QC_TRY(writeNpy(fmt::format("{}/out{}.npy", folder, i++), value));
    list << name << "\n";
  }
  return {};
}

}  // namespace
}  // namespace qc

int main(int argc, char** argv) {
  if (argc != 4) return fmt::print(stderr, "gradient_probe MODEL.onnx FOLDER jit|interpreter\n"), 2;
  const qc::Status status = qc::probe(argv[1], argv[2], argv[3]);
  if (!status) fmt::print(stderr, "{}\n", status.error().render());
  return status ? 0 : 1;
}
