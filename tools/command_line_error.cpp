// What is wrong with a command line, told by the table of options in the words that the user typed.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <map>

#include "ir/edit_distance.h"
#include "quantizer/rules/nearest.h"
#include "tools/option_table.h"

namespace qc::tools {
namespace {

std::string suggestion(const std::string& word, const std::vector<std::string>& known) {
  std::vector<std::string> close;
  for (const std::string& name : known) {
    const bool part = word.size() > 2 && (name.find(word) != std::string::npos || word.find(name) != std::string::npos);
    if (!name.empty() && (part || editDistance(word, name) <= std::max<int>(2, static_cast<int>(word.size()) / 3))) close.push_back(name);
  }
  const std::string meant = didYouMean(word, close);
  return meant.empty() ? "" : "\n  help: " + meant;
}

bool looksLikeNumber(const std::string& word) {
  if (word.size() < 2 || word[0] != '-') return false;
  return std::isdigit(static_cast<unsigned char>(word[1])) || word[1] == '.' || word == "-inf" || word == "-nan" || word == "-infinity";
}

bool looksLikeOption(const std::string& word) { return word.size() > 1 && word[0] == '-' && !looksLikeNumber(word); }

std::string expected(const OptionInfo& o) {
  if (!o.choices.empty()) return fmt::format("one of {}", fmt::join(o.choices, ", "));
  const char* kind = o.number == OptionInfo::Number::whole ? "a whole number" : "a number";
  return o.range.empty() ? kind
                         : fmt::format("{} {}{}", kind, o.range.starts_with("from") || o.range.starts_with("above") ? "" : "of ", o.range);
}

// The range is the validator's to check; here it is whether the text is a finite number at all.
bool isNumber(const std::string& text, OptionInfo::Number kind) {
  const char* end = text.data() + text.size();
  const char* begin = text.data() + (text.starts_with("+") ? 1 : 0);
  if (kind == OptionInfo::Number::whole) {
    int64_t value = 0;
    const auto [rest, error] = std::from_chars(begin, end, value);
    return error == std::errc() && rest == end;
  }
  double value = 0;
  const auto [rest, error] = std::from_chars(begin, end, value);
  return error == std::errc() && rest == end && std::isfinite(value);
}

class Checker {
 public:
  Checker(const CLI::App& app, const CLI::App& verb, std::vector<std::string>& words, size_t first)
      : app_(app), verb_(verb), words_(words), at_(first), options_(optionsOf(verb)) {}

  std::string run() {
    for (; at_ < words_.size(); ++at_) {
      const std::string word = words_[at_];
      if (word == "--help" || word == "-h") return {};
      std::string error = onlyPlaces_ || !looksLikeOption(word) ? placed(word) : word == "--" ? endOfOptions() : named(word);
      if (!error.empty()) return error;
    }
    return missing();
  }

 private:
  std::string said(const std::string& what) const { return fmt::format("qcompile {}: {}", verb_.get_name(), what); }

  std::string endOfOptions() {
    onlyPlaces_ = true;
    return {};
  }

  const OptionInfo* find(const std::string& spelling) const {
    for (const OptionInfo& o : options_)
      if (spelling == o.longName || spelling == o.shortName) return &o;
    return nullptr;
  }

  std::string placed(const std::string& word) {
    std::vector<std::string> names;
    for (const OptionInfo& o : options_) {
      if (!o.positional()) continue;
      if (o.repeatable || given_[&o] == 0) {
        ++given_[&o];
        return wrongValue(o, o.name(), word);
      }
      names.push_back(o.value);
    }
    return said(names.empty() ? fmt::format("'{}' is too much: this verb takes options only", word)
                              : fmt::format("'{}' is too much: {} is given already", word, fmt::join(names, ", "))) +
           "\n  help: an option that takes one value is followed by one; names with blanks stand in quotes";
  }

  std::string named(const std::string& word) {
    const size_t equals = word.find('=');
    std::string spelling = word.starts_with("--") ? word.substr(0, equals) : word.substr(0, 2);
    const OptionInfo* o = find(spelling);
    if (!o) return unknown(word.starts_with("--") ? spelling : word);
    if (++given_[o] > 1 && !o->repeatable) return said(fmt::format("{} is given twice", spelling)) + "\n  help: leave one of them out";
    const bool joined = word.size() > spelling.size();
    std::string value = !joined ? "" : word.substr(spelling.size() + (word[spelling.size()] == '=' ? 1 : 0));
    if (o->value.empty()) return joined ? said(fmt::format("{} takes no value, and has '{}'", spelling, value)) : "";
    if (!joined) {
      if (at_ + 1 >= words_.size() || looksLikeOption(words_[at_ + 1]))
        return said(fmt::format("{} lacks its value, {}", spelling,
                                o->choices.empty() && o->number == OptionInfo::Number::none ? o->value : expected(*o)));
      value = words_[at_ + 1];
      if (looksLikeNumber(value)) {
        words_[at_] += (word.starts_with("--") ? "=" : "") + value;
        words_.erase(words_.begin() + static_cast<std::ptrdiff_t>(at_) + 1);
      } else {
        ++at_;
      }
      // "--input a=1 b=2": the option counts for each of them.
      const size_t next = at_ + 1;
      if (o->repeatable && o->value.starts_with("NAME=") && next < words_.size() && !looksLikeOption(words_[next]) &&
          words_[next].find('=') != std::string::npos)
        words_.insert(words_.begin() + static_cast<std::ptrdiff_t>(next), spelling);
    }
    return wrongValue(*o, spelling, value);
  }

  std::string unknown(const std::string& spelling) const {
    std::vector<std::string> names;
    for (const OptionInfo& o : options_)
      if (!o.positional()) names.push_back(o.name());
    std::string elsewhere;
    for (const CLI::App* other : verbsOf(app_))
      for (const OptionInfo& o : optionsOf(*other))
        if (o.longName == spelling) elsewhere += (elsewhere.empty() ? "" : ", ") + other->get_name();
    if (!elsewhere.empty()) elsewhere = fmt::format("; it is one of {}", elsewhere);
    return said(fmt::format("there is no option {}{}", spelling, elsewhere)) + suggestion(spelling, names) +
           fmt::format("\n  options: {}", fmt::join(names, ", "));
  }

  std::string wrongValue(const OptionInfo& o, const std::string& spelling, const std::string& value) const {
    if (!o.choices.empty() && std::find(o.choices.begin(), o.choices.end(), value) == o.choices.end())
      return said(fmt::format("{} takes {}, not '{}'", spelling, expected(o), value)) + suggestion(value, o.choices);
    if (o.number == OptionInfo::Number::none) {
      if (value.empty()) return said(fmt::format("{} has an empty value", spelling));
      return {};
    }
    const bool number = isNumber(value, o.number);
    // The validators' own check, told in our words.
    std::string text = value;
    for (int i = 0; number; ++i) {
      const CLI::Validator* check = nullptr;
      try {
        check = const_cast<CLI::Option*>(o.option)->get_validator(i);
      } catch (const CLI::OptionNotFound&) {
        return {};
      }
      if (!(*check)(text).empty()) break;
    }
    return said(fmt::format("{} takes {}, not '{}'", spelling, expected(o), value));
  }

  std::string missing() const {
    std::vector<std::string> lacking;
    for (const OptionInfo& o : options_)
      if (o.required && !given_.contains(&o))
        lacking.push_back(o.positional() ? o.value : o.shortName.empty() ? o.usage() : o.shortName + " " + o.value);
    if (lacking.empty()) return {};
    return said(fmt::format("{} is missing", fmt::join(lacking, " and "))) + "\n  example: " + exampleOf(verb_);
  }

  const CLI::App& app_;
  const CLI::App& verb_;
  std::vector<std::string>& words_;
  size_t at_;
  std::vector<OptionInfo> options_;
  mutable std::map<const OptionInfo*, int> given_;
  bool onlyPlaces_ = false;
};

}  // namespace

std::string commandLineError(const CLI::App& app, std::vector<std::string>& words) {
  std::vector<std::string> names, globals;
  for (const CLI::App* verb : verbsOf(app)) names.push_back(verb->get_name());
  for (const OptionInfo& o : optionsOf(app)) globals.insert(globals.end(), {o.longName, o.shortName});
  const std::string list = fmt::format("\n  verbs: {}\n  `qcompile --help` says what they do", fmt::join(names, ", "));
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (looksLikeOption(word)) {
      if (std::find(globals.begin(), globals.end(), word) != globals.end()) return {};
      return fmt::format("qcompile: there is no option {} before the verb", word) + suggestion(word, globals) + list;
    }
    for (const CLI::App* verb : verbsOf(app))
      if (verb->get_name() == word) return Checker(app, *verb, words, i + 1).run();
    return fmt::format("qcompile: there is no verb '{}'", word) + suggestion(word, names) + list;
  }
  return "qcompile: no verb is given" + list;
}

}  // namespace qc::tools
