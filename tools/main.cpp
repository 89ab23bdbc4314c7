#include <cstdio>
#include <exception>

#include "tools/cmd.h"

namespace {

using AddCommand = void (*)(CLI::App&, int&);
constexpr AddCommand kCommands[] = {
    qc::tools::addInspectCommand, qc::tools::addCalibrateCommand, qc::tools::addMergeCommand, qc::tools::addQuantizeCommand,
    qc::tools::addRunCommand,     qc::tools::addEvalCommand,      qc::tools::addBenchCommand, qc::tools::addCompileCommand,
    qc::tools::addProfileCommand, qc::tools::addReduceCommand,    qc::tools::addOptCommand,   qc::tools::addDoctorCommand,
};

int run(int argc, char** argv) {
  CLI::App app("qcompile takes an fp32 ONNX model and gives back int8 machine code", "qcompile");
  app.require_subcommand(1);
  app.set_version_flag("--version", QC_VERSION);
  int exitCode = qc::tools::kDone;
  for (const AddCommand add : kCommands) add(app, exitCode);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? qc::tools::kDone : qc::tools::kUsage;
  }
  return exitCode;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    // Only memory exhaustion and the like come here: everything else is a Result.
    std::fprintf(stderr, "qcompile: %s\n", error.what());
    return qc::tools::kInternalError;
  }
}
