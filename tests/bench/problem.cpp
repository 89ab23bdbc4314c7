#include "tests/bench/problem.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "ir/files.h"
#include "ir/packed_layout.h"
#include "ir/text.h"

namespace qc::bench {
namespace {

constexpr std::string_view kSpaces = " \t\r";

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpaces);
  return first == std::string_view::npos ? "" : std::string(text.substr(first, text.find_last_not_of(kSpaces) - first + 1));
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t i = 0; i <= text.size();) {
    const size_t end = std::min(text.find(separator, i), text.size());
    parts.emplace_back(text.substr(i, end - i));
    i = end + 1;
  }
  return parts;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t i = text.find(from); i != std::string::npos; i = text.find(from, i + to.size())) text.replace(i, from.size(), to);
  return text;
}

// Parts between commas that stand outside of brackets.
std::vector<std::string> list(std::string_view text) {
  std::vector<std::string> parts;
  int depth = 0;
  std::string part;
  for (const char c : text) {
    depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
    if (c == ',' && depth == 0) {
      parts.push_back(trimmed(part));
      part.clear();
    } else {
      part += c;
    }
  }
  if (!trimmed(part).empty()) parts.push_back(trimmed(part));
  return parts;
}

std::vector<int64_t> numbers(std::string_view text) {
  std::vector<int64_t> values;
  for (const std::string& part : split(text, 'x')) values.push_back(std::strtoll(part.c_str(), nullptr, 10));
  return values;
}

constexpr std::string_view kAliases =
    "!u = q<u8, scale=0.05, zp=113>\n!s = q<s8, scale=0.04, zp=-3>\n!w = q<s8, scale=0.01, zp=0>\n!n = q<s8, scale=0.02, zp=0>\n!v = q<u8, "
    "scale=0.01, zp=100>\n!k = q<s8, scale=0.02, zp=0>\n!h = "
    "q<s16, scale=0.0003, zp=-90>\n!b = "
    "q<s32, scale=0.0005, zp=0>\n";

// What constants of a type hold.
std::string payloadFor(const std::string& type) {
  if (type.starts_with("!n")) return "rand(1, -60, 60)";
  if (type.starts_with("!k")) return "rand(1, -20, 20)";
  if (type.starts_with("!v")) return "rand(1, 0, 255)";
  if (type.starts_with("!f")) return "splat 0.5";
  if (type.starts_with("f32")) return "rand(1, 0.01, 1.0)";
  return type.starts_with("s32") || type.starts_with("!b") ? "rand(1, -1000, 1000)"
         : type.starts_with("u8")                          ? "iota"
                                                           : "rand(1, -127, 127)";
}

// "softmax f32[4,9] {axis=1} : f32[4,9]"
Result<std::string> textOfNode(const std::string& problem) {
  const size_t op = problem.find(' ');
  const size_t results = problem.rfind(" : ");
  if (op == std::string::npos || results == std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "a problem is an op, its operands' types, attributes and ' : ' results: '{}'", problem);
  const std::string body = problem.substr(op, results - op);
  const size_t brace = body.find(" {");
  std::string constants, inputs, nodes;
  std::vector<std::string> operands, names;
  for (const std::string& operand : list(body.substr(0, brace))) {
    const std::string name = fmt::format("%{}", operands.size());
    operands.push_back(operand == "_" ? operand : name);
    if (operand == "_") continue;
    if (operand[0] != '#') {
      inputs += fmt::format("{}{}: {}", inputs.empty() ? "" : ", ", name, operand);
      continue;
    }
    const std::string type = operand.substr(1),
                      plain =
                          replaced(replaced(replaced(replaced(replaced(replaced(type, "!k", "s8"), "!w", "s8"), "!n", "s8"), "!b", "s32"),
                                            "!v", "u8"),
                                   "!f", "f32");
    constants += fmt::format("const #c{} : {} = {}\n", operands.size(), plain, payloadFor(type));
    nodes += fmt::format("{} = const #c{} : {}\n", name, operands.size(), replaced(type, "!f", "f32"));
  }
  const std::string types = problem.substr(results + 3);
  for (size_t i = 0; i < list(types).size(); ++i) names.push_back(fmt::format("%y{}", i));
  return fmt::format("{}{}graph @problem({}) {{\n{}{} = {} {}{} : {}\nreturn {}\n}}\n", kAliases, constants, inputs, nodes,
                     fmt::join(names, ", "), problem.substr(0, op), fmt::join(operands, ", "),
                     brace == std::string::npos ? "" : body.substr(brace), types, fmt::join(names, ", "));
}

// "int8:56x56x64:64x3x3:p1" in that form; int16: activations of 16 bits; f16: float32 with weights that are float16 numbers.
Result<std::string> productProblem(const std::string& problem) {
  const std::vector<std::string> parts = split(problem, ':');
  if (parts.size() < 3) return fail(ErrorCode::kInvalidArgument, "malformed problem '{}'", problem);
  const bool words = parts[0] == "int16", quantized = words || parts[0] == "int8";
  std::vector<int64_t> x = numbers(parts[1]), w = numbers(parts[2]);
  const bool linear = x.size() == 2;
  if ((x.size() != 2 && x.size() != 3) || (w.size() != 1 && w.size() != 3))
    return fail(ErrorCode::kInvalidArgument, "the sizes of '{}' are not HxWxC and OxKHxKW, or MxK and N", problem);
  int64_t group = 1, stride = 1, pad = 0, dilation = 1;
  bool residual = false, activation = false, narrow = false;
  for (size_t i = 3; i < parts.size(); ++i) {
    const int64_t value = parts[i].empty() ? 0 : std::strtoll(parts[i].c_str() + 1, nullptr, 10);
    if (parts[i] == "res")
      residual = true;
    else if (parts[i] == "hs")
      activation = true;
    else if (parts[i] == "nw")
      narrow = true;
    else if (parts[i].starts_with('s'))
      stride = value;
    else if (parts[i].starts_with('p'))
      pad = value;
    else if (parts[i].starts_with('d'))
      dilation = value;
    else if (parts[i].starts_with('g'))
      group = value;
    else if (!parts[i].empty())
      return fail(ErrorCode::kInvalidArgument, "what is '{}' of '{}'?", parts[i], problem);
  }
  if (group < 1 || stride < 1) return fail(ErrorCode::kInvalidArgument, "groups and strides of '{}' begin at 1", problem);
  AttrDict attrs;
  if (linear) {
    w.push_back(x[1]);
  } else {
    x.insert(x.begin(), 1);
    w.insert(w.begin() + 1, x.back() / group);
    if (w.size() == 2) w.insert(w.end(), {1, 1});
    attrs = {{"strides", std::vector<int64_t>{stride, stride}},
             {"pads", std::vector<int64_t>{pad, pad, pad, pad}},
             {"dilations", std::vector<int64_t>{dilation, dilation}},
             {"group", group},
             {"layout", std::string("channels_last")}};
  }
  QC_ASSIGN(const ConvGeometry geometry, ConvGeometry::of(x, w, attrs));
  const auto typed = [&](const char* integer, const std::vector<int64_t>& sizes, const char* real = "f32") {
    return fmt::format("{}[{}]", quantized ? integer : real, fmt::join(sizes, ","));
  };
  const char* const activations = words ? "!h" : "!u";
  const std::string y = typed(activations, geometry.resultSizes(x, w));
  std::vector<std::string> given;
  if (quantized) given.push_back(fmt::format("to={}", activations));
  if (!linear)
    given.push_back(fmt::format("strides=[{0},{0}], pads=[{1},{1},{1},{1}], dilations=[{2},{2}], group={3}, layout=\"channels_last\"",
                                stride, pad, dilation, group));
  if (activation) given.push_back("post=\"a0 * min(max(a0 * 0.16666667 + 0.5, 0), 1)\"");
  return fmt::format("{}{} {}, #{}, #{}{} {{{}}} : {}", quantized ? "q." : "", linear ? "linear" : "conv", typed(activations, x),
                     typed(words    ? "!k"
                           : narrow ? "!n"
                                    : "!w",
                           w, parts[0] == "f16" ? "!f" : "f32"),
                     typed("s32", {w[0]}), residual ? ", " + y : "", fmt::join(given, ", "), y);
}

}  // namespace

Result<std::vector<std::string>> expandLine(std::string_view line) {
  if (trimmed(line).empty() || line.starts_with("#")) return std::vector<std::string>();
  const std::vector<std::string> parts = split(line, ';');
  std::vector<std::string> problems = {trimmed(parts[0])};
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string given = trimmed(parts[i]);
    const size_t equals = given.find('=');
    if (equals == std::string::npos) return fail(ErrorCode::kInvalidArgument, "'{}' is not NAME=VALUE|VALUE", given);
    std::vector<std::string> next;
    for (const std::string& problem : problems)
      for (const std::string& value : split(given.substr(equals + 1), '|'))
        next.push_back(replaced(problem, "$" + given.substr(0, equals), value));
    problems = std::move(next);
  }
  return problems;
}

Result<std::vector<std::string>> readProblems(const std::string& file) {
  QC_ASSIGN(const std::string text, readFile(file));
  std::vector<std::string> problems;
  for (const std::string& line : split(text, '\n')) {
    QC_ASSIGN(const std::vector<std::string> some, expandLine(line));
    problems.insert(problems.end(), some.begin(), some.end());
  }
  return problems;
}

Result<Problem> buildProblem(const std::string& text) {
  std::string problem = text;
  if (text.starts_with("int8:") || text.starts_with("int16:") || text.starts_with("f32:") || text.starts_with("f16:")) {
    QC_ASSIGN(problem, productProblem(text));
  }
  QC_ASSIGN(const std::string graph, textOfNode(problem));
  QC_ASSIGN(Graph parsed, parseGraph(graph, text));
  Problem result{std::move(parsed)};
  for (Node* node : result.graph.nodes())
    if (!node->is("const")) result.node = node;
  return result;
}

}  // namespace qc::bench
