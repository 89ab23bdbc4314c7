#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>

#include "ir/files.h"
#include "ir/memory_limit.h"
#include "tools/cmd.h"
#include "tools/streams.h"

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
  qc::tools::StandardStreams streams;
  qc::protectInputs();
  qc::removeTemporariesOnSignals();
  qc::limitMemoryOfProcess();
  try {
    return streams.finish(run(argc, argv));
  } catch (const std::bad_alloc&) {
    return streams.finish(qc::tools::report(qc::memoryExhausted()));
  } catch (const std::length_error&) {  // a container that could never be that large
    return streams.finish(qc::tools::report(qc::memoryExhausted()));
  } catch (const std::exception& error) {
    // What cannot be printed comes here, and is told by finish(); everything else is a Result.
    const int code = streams.finish(qc::tools::kDone);
    if (code != qc::tools::kDone) return code;
    fmt::print(stderr, "qcompile: {}\n", error.what());
    return qc::tools::kInternalError;
  }
}
