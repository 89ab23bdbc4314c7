#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>

#include "ir/files.h"
#include "ir/memory_limit.h"
#include "tools/cmd.h"
#include "tools/option_table.h"
#include "tools/streams.h"

namespace {

using AddCommand = void (*)(CLI::App&, int&);
constexpr AddCommand kCommands[] = {
    qc::tools::addInspectCommand,    qc::tools::addCalibrateCommand, qc::tools::addMergeCommand,       qc::tools::addQuantizeCommand,
    qc::tools::addRunCommand,        qc::tools::addEvalCommand,      qc::tools::addBenchCommand,       qc::tools::addCompileCommand,
    qc::tools::addProfileCommand,    qc::tools::addReduceCommand,    qc::tools::addOptCommand,         qc::tools::addDoctorCommand,
    qc::tools::addCompletionCommand, qc::tools::addManCommand,       qc::tools::addSensitivityCommand, qc::tools::addDebugCommand,
    qc::tools::addCompareCommand,    qc::tools::addExplainCommand,   qc::tools::addFinetuneCommand,
};

int run(int argc, char** argv) {
  CLI::App app("qcompile takes an fp32 ONNX model and gives back int8 machine code", "qcompile");
  app.require_subcommand(1);
  app.set_version_flag("--version", QC_VERSION, "print the version and exit");
  app.set_help_flag("-h,--help", "say what may be given, and exit");
  app.option_defaults()->always_capture_default();
  app.formatter_fn([](const CLI::App* shown, const std::string&, CLI::AppFormatMode) { return qc::tools::helpText(*shown); });
  int exitCode = qc::tools::kDone;
  for (const AddCommand add : kCommands) add(app, exitCode);
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; }))
    for (CLI::Option* option : verb->get_options())
      if (!option->get_positional() && option->get_items_expected_max() > 1) option->allow_extra_args(false);  // one value each time
  std::vector<std::string> words(argv + 1, argv + argc);
  if (!words.empty() && words[0] == "help") {  // `help VERB` is `VERB --help`
    words.erase(words.begin());
    words.emplace_back("--help");
  }
  if (const std::string error = qc::tools::commandLineError(app, words); !error.empty()) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return qc::tools::kUsage;
  }
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::fprintf(stderr, "qcompile: %s\n", error.what());
    return qc::tools::kUsage;
  }
  return exitCode;
}

}  // namespace

int main(int argc, char** argv) {
  qc::tools::StandardStreams streams;
  qc::protectInputs();
  qc::removeTemporariesOnSignals();
  if (const std::string wanted = qc::unusedMemoryLimit(); !wanted.empty())
    std::fprintf(stderr, "warning: QC_MEMORY_LIMIT=%s is not a size such as 2G, 500M or 1000000: the limit stays %lld bytes\n",
                 wanted.c_str(), static_cast<long long>(qc::memoryLimit()));
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
