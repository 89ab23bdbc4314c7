// completion and man: what the table of verbs and options is for shells and readers of manual pages.
#include <nlohmann/json.hpp>

#include "frontend/data/dataset.h"
#include "tools/cmd.h"
#include "tools/option_table.h"

namespace qc::tools {
namespace {

std::string joinedWords(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& w : words) text += (text.empty() ? "" : " ") + w;
  return text;
}

std::vector<std::string> spellings(const OptionInfo& o) {
  std::vector<std::string> names;
  for (const std::string& name : {o.shortName, o.longName})
    if (!name.empty()) names.push_back(name);
  return names;
}

// Inside single quotes of a shell.
std::string shellQuoted(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out;
}

// ---- bash -------------------------------------------------------------------------------------

std::string sourcePrefixes() {
  std::string text;
  for (const DataSourceKind& kind : dataSourceKinds()) text += (text.empty() ? "" : " ") + std::string(kind.name) + ":";
  return text;
}

std::string bashValues(const OptionInfo& o) {
  if (!o.choices.empty()) return fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$cur\"))", joinedWords(o.choices));
  if (o.isFolder()) return "COMPREPLY=($(compgen -d -- \"$cur\"))";
  if (o.value == "SOURCE") return fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$cur\")); compopt -o nospace", sourcePrefixes());
  return o.isFile() ? "COMPREPLY=($(compgen -f -- \"$cur\"))" : "COMPREPLY=()";
}

std::string zshText(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return shellQuoted(out);
}

std::string zshAction(const OptionInfo& o) {
  if (!o.choices.empty()) return fmt::format("({})", joinedWords(o.choices));
  if (o.isFolder()) return "_files -/";
  if (o.value == "SOURCE") {
    std::string list = sourcePrefixes(), out;
    for (const char c : list) out += c == ':' ? std::string("\\:") : std::string(1, c);
    return fmt::format("({})", out);
  }
  return o.isFile() || o.positional() ? "_files" : " ";
}

std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '\\' ? std::string("\\e") : c == '-' ? std::string("\\-") : std::string(1, c);
  return out.starts_with(".") || out.starts_with("'") ? "\\&" + out : out;
}

}  // namespace

std::string bashCompletion(const CLI::App& app) {
  std::vector<std::string> verbs;
  std::string values, options;
  for (const CLI::App* verb : verbsOf(app)) {
    verbs.push_back(verb->get_name());
    std::vector<std::string> names;
    for (const OptionInfo& o : optionsOf(*verb)) {
      if (o.positional()) continue;
      names.push_back(o.name());
      if (o.value.empty()) continue;
      std::string keys;
      for (const std::string& name : spellings(o)) keys += (keys.empty() ? "" : "|") + fmt::format("'{} {}'", verb->get_name(), name);
      values += fmt::format("    {}) {}; return ;;\n", keys, bashValues(o));
    }
    options += fmt::format("    '{}') options='{}' ;;\n", verb->get_name(), joinedWords(names));
  }
  return fmt::format(R"(# Completion of qcompile for bash, made by `qcompile completion bash`.
_qcompile() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}} options=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '{0} --help --version' -- "$cur"))
    return
  fi
  case "$verb $prev" in
{1}  esac
  case "$verb" in
{2}  esac
  case "$cur" in
    -*) COMPREPLY=($(compgen -W "$options" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -f -- "$cur")) ;;
  esac
}}
complete -o filenames -F _qcompile qcompile
)",
                     joinedWords(verbs), values, options);
}

// ---- zsh --------------------------------------------------------------------------------------

std::string zshCompletion(const CLI::App& app) {
  std::string verbs, cases;
  for (const CLI::App* verb : verbsOf(app)) {
    verbs += fmt::format("    '{}:{}'\n", verb->get_name(), zshText(verb->get_description()));
    std::string lines;
    for (const OptionInfo& o : optionsOf(*verb)) {
      if (o.positional()) {
        lines += fmt::format(" \\\n        '{}:{}:{}'", o.repeatable ? "*" : "", zshText(o.value), zshAction(o));
        continue;
      }
      for (const std::string& name : spellings(o))
        lines += fmt::format(" \\\n        '{}{}[{}]{}'", o.repeatable ? "*" : "", name, zshText(o.help),
                             o.value.empty() ? "" : fmt::format(":{}:{}", zshText(o.value), zshAction(o)));
    }
    cases += fmt::format("    {})\n      _arguments{} ;;\n", verb->get_name(), lines);
  }
  return fmt::format(R"(#compdef qcompile
# Completion of qcompile for zsh, made by `qcompile completion zsh`.
_qcompile() {{
  local -a verbs
  verbs=(
{}  )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    return
  fi
  local verb=$words[2]
  shift words
  (( CURRENT-- ))
  case $verb in
{}  esac
}}
_qcompile "$@"
)",
                     verbs, cases);
}

// ---- manual page ------------------------------------------------------------------------------

std::string manualPage(const CLI::App& app, const std::string& version) {
  std::string text = fmt::format(".TH QCOMPILE 1 \"\" \"qcompile {}\" \"User Commands\"\n.SH NAME\nqcompile \\- {}\n", roff(version),
                                 "quantizing graph compiler: fp32 ONNX in, calibrated int8 machine code out");
  text += ".SH SYNOPSIS\n.B qcompile\n.I VERB\n[\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n" + roff(app.get_description()) +
          ".\nThe result goes to standard output, everything else that is said to standard error.\n.SH VERBS\n";
  for (const CLI::App* verb : verbsOf(app)) {
    text += fmt::format(".SS {}\n{}.\n", roff(verb->get_name()), roff(verb->get_description()));
    for (const OptionInfo& o : optionsOf(*verb)) {
      const std::string facts = o.facts();
      const std::string names = o.positional() ? o.value : o.shortName.empty() ? o.longName : o.shortName + ", " + o.longName;
      text +=
          fmt::format(".TP\n\\fB{}\\fR{}\n{}{}\n", roff(names), o.positional() || o.value.empty() ? "" : " \\fI" + roff(o.value) + "\\fR",
                      roff(o.help), facts.empty() ? "" : roff(fmt::format(" ({})", facts)));
    }
    text += fmt::format(".PP\nExample:\n.PP\n.nf\n    {}\n.fi\n", roff(exampleOf(*verb)));
  }
  text += ".SH SOURCES OF SAMPLES\nOptions follow the path: \\fIKIND\\fR:\\fIPATH\\fR?\\fIoption\\fR=\\fIvalue\\fR&...\n";
  for (const DataSourceKind& kind : dataSourceKinds()) {
    text += fmt::format(".SS {}\n{}.\n", roff(std::string(kind.form)), roff(std::string(kind.help)));
    for (const DataSourceOption& o : kind.options)
      text +=
          fmt::format(".TP\n\\fB{}\\fR=\\fI{}\\fR\n{}\n", roff(std::string(o.name)), roff(std::string(o.value)), roff(std::string(o.help)));
  }
  text +=
      ".SH EXIT STATUS\n.TP\n0\ndone\n.TP\n1\nthe input, the data or the request is at fault\n.TP\n2\nthe command line is not understood\n"
      ".TP\n3\nthe compiler or the host is at fault\n";
  text +=
      ".SH ENVIRONMENT\n.TP\nQC_CACHE_DIR\nwhere compiled kernels are kept; ~/.cache/qcompile without it\n"
      ".TP\nQC_MEMORY_LIMIT\nhow much memory a model may take: 2G, 500M or plain bytes\n";
  return text;
}

void addCompletionCommand(CLI::App& app, int& exitCode) {
  CLI::App* verb = app.add_subcommand("completion", "completion of verbs, options and values for a shell, on standard output");
  verb->footer("qcompile completion bash > ~/.local/share/bash-completion/completions/qcompile");
  auto shell = std::make_shared<std::string>();
  verb->add_option("shell", *shell, "whose")->required()->check(CLI::IsMember({"bash", "zsh"}));
  verb->callback([&app, shell, &exitCode] {
    fmt::print("{}", *shell == "bash" ? bashCompletion(app) : zshCompletion(app));
    exitCode = kDone;
  });
}

void addManCommand(CLI::App& app, int& exitCode) {
  CLI::App* verb = app.add_subcommand("man", "the manual page, on standard output");
  verb->footer("qcompile man | man -l -");
  verb->callback([&app, &exitCode] {
    fmt::print("{}", manualPage(app, QC_VERSION));
    exitCode = kDone;
  });
}

}  // namespace qc::tools
