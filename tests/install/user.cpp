// Compiles and runs a model through the installed headers and libraries.
#include <cstdio>

#include <qcompile/runtime/qcompile.h>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto model = qc::load(argv[1]);
  if (!model) return std::puts(model.error().render().c_str()), 1;
  const auto exe = qc::compile(*model);
  if (!exe) return std::puts(exe.error().render().c_str()), 1;
  auto session = exe->session();
  if (!session) return std::puts(session.error().render().c_str()), 1;
  std::map<std::string, qc::Tensor> inputs;
  for (const auto& input : exe->inputs()) inputs[input.name] = qc::Tensor(input.type.dtype, input.type.sizes());
  const auto outputs = session->run(inputs);
  if (!outputs) return std::puts(outputs.error().render().c_str()), 1;
  for (const auto& [name, tensor] : *outputs) std::printf("%s %s\n", name.c_str(), tensor.type().str().c_str());
  return outputs->empty();
}
