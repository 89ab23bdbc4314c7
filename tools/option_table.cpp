#include "tools/option_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "frontend/data/dataset.h"

namespace qc::tools {
namespace {

// CLI11 describes a validator behind the type: "INT:INT in [1 - 1024]", "TEXT:{on,off}", "FLOAT:NONNEGATIVE".
void readType(OptionInfo& info, const std::string& type) {
  const size_t colon = type.find(':');
  const std::string base = type.substr(0, colon), check = colon == std::string::npos ? "" : type.substr(colon + 1);
  if (base == "INT" || base == "UINT") info.number = OptionInfo::Number::whole;
  if (base == "FLOAT") info.number = OptionInfo::Number::real;
  info.value = info.number == OptionInfo::Number::whole ? "N" : info.number == OptionInfo::Number::real ? "X" : base;
  if (const size_t open = check.find('{'); open != std::string::npos) {
    const std::string list = check.substr(open + 1, check.find('}', open) - open - 1);
    for (size_t at = 0; at <= list.size();) {
      const size_t end = std::min(list.find(',', at), list.size());
      info.choices.push_back(list.substr(at, end - at));
      at = end + 1;
    }
    info.value = fmt::format("{}", fmt::join(info.choices, "|"));
    info.number = OptionInfo::Number::none;
  }
  if (const size_t open = check.find("in ["); open != std::string::npos) {
    const size_t dash = check.find(" - ", open);
    const std::string low = check.substr(open + 4, dash - open - 4), high = check.substr(dash + 3, check.find(']', dash) - dash - 3);
    info.range = high.size() > 8 ? fmt::format("{} or more", low) : fmt::format("from {} to {}", low, high);
    if (!info.byDefault.empty() && info.byDefault[0] == '-' && low[0] != '-') info.byDefault.clear();  // stands for none
  } else if (check.find("NONNEGATIVE") != std::string::npos) {
    info.range = "0 or more";
  } else if (check.find("POSITIVE") != std::string::npos) {
    info.range = "above 0";
  }
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

// `text` in lines of at most 120 characters, the later ones behind `indent` blanks.
std::string wrapped(const std::string& text, size_t used, size_t indent) {
  constexpr size_t kWidth = 120;
  std::string out;
  size_t column = used;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (column + word.size() + 1 > kWidth && column > indent) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (!out.empty()) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    at = end + 1;
  }
  return out;
}

std::string row(const std::string& left, const std::string& right) {
  constexpr size_t kIndent = 30;
  std::string text = "  " + left;
  text += text.size() + 2 > kIndent ? "\n" + std::string(kIndent, ' ') : std::string(kIndent - text.size(), ' ');
  return text + wrapped(right, kIndent, kIndent) + "\n";
}

std::string sourcesText() {
  std::string text = "\nSources of samples, in name order, one behind another where there are several:\n";
  for (const DataSourceKind& kind : dataSourceKinds()) {
    text += row(std::string(kind.form), std::string(kind.help));
    for (const DataSourceOption& o : kind.options) text += row(fmt::format("  {}={}", o.name, o.value), std::string(o.help));
  }
  text +=
      "  Options follow a question mark and are joined by &: 'images:calib?size=224&mean=123.675,116.28,103.53' (in quotes, for the "
      "shell)\n";
  return text;
}

}  // namespace

std::string OptionInfo::name() const { return !longName.empty() ? longName : !shortName.empty() ? shortName : value; }

std::string OptionInfo::usage() const { return positional() || value.empty() ? name() : name() + " " + value; }

std::string OptionInfo::facts() const {
  std::string text;
  const auto add = [&](const std::string& fact) { text += (text.empty() ? "" : ", ") + fact; };
  if (required) add("required");
  if (repeatable) add("may be repeated");
  if (!range.empty()) add(range);
  if (!byDefault.empty()) add("default " + byDefault);
  return text;
}

std::vector<OptionInfo> optionsOf(const CLI::App& verb) {
  std::vector<OptionInfo> all;
  for (const CLI::Option* option : verb.get_options()) {
    OptionInfo info;
    info.option = option;
    if (!option->get_snames().empty()) info.shortName = "-" + option->get_snames().front();
    if (!option->get_lnames().empty()) info.longName = "--" + option->get_lnames().front();
    info.byDefault = option->get_default_str();
    info.help = option->get_description();
    if (option->get_items_expected_max() > 0) readType(info, option->get_type_name());
    if (info.positional()) {
      if (info.choices.empty()) info.value = upper(option->get_name(true));
      if (info.value.ends_with("...")) info.value.erase(info.value.size() - 3);
    }
    info.required = option->get_required();
    info.repeatable = option->get_items_expected_max() > 1;
    if (info.byDefault == "[]" || info.byDefault == "{}") info.byDefault.clear();
    all.push_back(std::move(info));
  }
  return all;
}

std::vector<const CLI::App*> verbsOf(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::string exampleOf(const CLI::App& verb) { return verb.get_footer(); }

std::string helpText(const CLI::App& app) {
  if (!app.get_parent()) {
    std::string text = app.get_description() + "\n\nUsage: qcompile VERB [OPTIONS]\n\nVerbs:\n";
    for (const CLI::App* verb : verbsOf(app)) text += row(verb->get_name(), verb->get_description());
    text += "\nOptions:\n";
    for (const OptionInfo& o : optionsOf(app)) text += row(o.shortName.empty() ? o.longName : o.shortName + ", " + o.longName, o.help);
    return text +
           "\nExample:\n  qcompile quantize m.onnx -d 'images:calib?size=224' -o m.int8.onnx\n"
           "\nExit codes: 0 done, 1 the input or the request is at fault, 2 the command line is not understood, 3 the compiler is at "
           "fault.\n"
           "`qcompile VERB --help` says more of a verb, `qcompile man` gives all of it as a manual page.\n";
  }
  std::string usage, places, options;
  bool takesSamples = false;
  for (const OptionInfo& o : optionsOf(app)) {
    const std::string facts = o.facts(), help = o.help + (facts.empty() ? "" : fmt::format(" ({})", facts));
    takesSamples |= o.value == "SOURCE";
    if (o.positional()) {
      usage += (o.required ? " " + o.value : " [" + o.value + "]") + (o.repeatable ? "..." : "");
      places += row(o.value, help);
    } else {
      if (o.required) usage += " " + (o.shortName.empty() ? o.usage() : o.shortName + " " + o.value);
      options += row((o.shortName.empty() ? "    " : o.shortName + (o.longName.empty() ? "" : ", ")) + o.longName +
                         (o.value.empty() ? "" : " " + o.value),
                     help);
    }
  }
  std::string text = fmt::format("{}\n\nUsage: qcompile {}{} [OPTIONS]\n", app.get_description(), app.get_name(), usage);
  if (!places.empty()) text += "\nArguments:\n" + places;
  text += "\nOptions:\n" + options;
  if (takesSamples) text += sourcesText();
  if (!exampleOf(app).empty()) text += "\nExample:\n  " + exampleOf(app) + "\n";
  return text;
}

}  // namespace qc::tools
