// The verbs and their options as a table: what stands in the add...Command functions, read back.  Help, error messages, completions and the
// manual page are all made from it, so a verb says everything about an option in the one line that adds it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace qc::tools {

struct OptionInfo {
  const CLI::Option* option = nullptr;
  std::string shortName, longName;   // "-o", "--output"; both empty: positional
  std::string value;                 // what follows it: "FILE", "N", "a|b"; empty: a flag
  std::vector<std::string> choices;  // all values, where they are few
  std::string range;                 // of numbers, in words: "from 1 to 1024"
  std::string byDefault, help;
  enum class Number { none, whole, real } number = Number::none;
  bool required = false, repeatable = false;

  bool positional() const { return shortName.empty() && longName.empty(); }
  std::string name() const;   // "--output", "-h" or "MODEL"
  std::string usage() const;  // "--output FILE"
  std::string facts() const;  // "from 1 to 1024, default 1"; may be empty
  bool isFile() const { return value == "FILE"; }
  bool isFolder() const { return value == "DIR"; }
};

std::vector<OptionInfo> optionsOf(const CLI::App& verb);
std::vector<const CLI::App*> verbsOf(const CLI::App& app);
// The verb's example, a command line.
std::string exampleOf(const CLI::App& verb);

std::string helpText(const CLI::App& app);
std::string bashCompletion(const CLI::App& app);
std::string zshCompletion(const CLI::App& app);
std::string manualPage(const CLI::App& app, const std::string& version);

// What is wrong with the words of a command line, before anything is done; empty: nothing that the table can tell.  Joins options and
// values that begin with a minus ("--seconds -1") in `words`, so that what reads them next sees a value.
std::string commandLineError(const CLI::App& app, std::vector<std::string>& words);

}  // namespace qc::tools
