// The verbs of the one binary.  Each verb is a file cmd_VERB.cpp with one function that adds a CLI11 subcommand
// whose callback stores the exit code; the list stands in main.cpp.
//
// stdout carries the result and nothing else, stderr the chatter.  Exit codes:
//   0  done
//   1  the input, the data or the request is at fault; the message says what, where and what to do
//   2  the command line is not understood
//   3  the compiler or the host is at fault; the message names a file that reproduces it where there is one
#pragma once

#include <CLI/CLI.hpp>

#include "ir/status.h"

namespace qc::tools {

enum ExitCode : int { kDone = 0, kUserError = 1, kUsage = 2, kInternalError = 3 };

// The words of the API that an error or a note speaks of, as the flags that stand for them.
std::string inFlags(std::string text);
// Prints the error on stderr and says which exit code it is.
int report(const Error& error);
inline int report(const Status& status) { return status ? kDone : report(status.error()); }

Result<std::string> readTextFile(const std::string& path);  // "-" is stdin

void addInspectCommand(CLI::App& app, int& exitCode);
void addCalibrateCommand(CLI::App& app, int& exitCode);
void addMergeCommand(CLI::App& app, int& exitCode);
void addCompileCommand(CLI::App& app, int& exitCode);
void addDebugCommand(CLI::App& app, int& exitCode);
void addProfileCommand(CLI::App& app, int& exitCode);
void addReduceCommand(CLI::App& app, int& exitCode);
void addQuantizeCommand(CLI::App& app, int& exitCode);
void addSensitivityCommand(CLI::App& app, int& exitCode);
void addExplainCommand(CLI::App& app, int& exitCode);
void addFinetuneCommand(CLI::App& app, int& exitCode);
void addRunCommand(CLI::App& app, int& exitCode);
void addEvalCommand(CLI::App& app, int& exitCode);
void addCompareCommand(CLI::App& app, int& exitCode);
void addBenchCommand(CLI::App& app, int& exitCode);
void addOptCommand(CLI::App& app, int& exitCode);
void addDoctorCommand(CLI::App& app, int& exitCode);
void addCompletionCommand(CLI::App& app, int& exitCode);
void addManCommand(CLI::App& app, int& exitCode);

}  // namespace qc::tools
