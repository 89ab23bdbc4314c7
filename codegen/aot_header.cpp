#include "codegen/aot_header.h"

#include <algorithm>
#include <set>

namespace qc {
namespace {

// In a comment: an end of it inside a name would end it.
std::string shownName(std::string name) {
  for (size_t at; (at = name.find("*/")) != std::string::npos;) name.replace(at, 2, "* /");
  for (char& c : name)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return name;
}

std::string portLine(const char* kind, size_t i, const std::string& name, const TensorType& type) {
  return fmt::format("   {}[{}]  {}: {}, {} bytes\n", kind, i, shownName(name), type.str(), type.byteSize());
}

std::string portLines(const Graph& g) {
  std::string ports;
  for (size_t i = 0; i < g.inputs().size(); ++i) ports += portLine("inputs", i, g.inputs()[i]->name(), g.inputs()[i]->type());
  for (size_t i = 0; i < g.outputs().size(); ++i) ports += portLine("outputs", i, g.outputNames()[i], g.outputs()[i]->type());
  return ports;
}

// The symbols as members of a struct, each of its own name.
std::vector<std::string> memberNames(const std::vector<std::string>& symbols) {
  static const std::set<std::string> kTaken = {
      "alignas", "alignof",   "and",      "asm",     "auto",     "bool",      "break",   "case",     "catch",    "char",    "class",
      "const",   "constexpr", "continue", "default", "delete",   "do",        "double",  "else",     "enum",     "export",  "extern",
      "false",   "float",     "for",      "friend",  "goto",     "if",        "inline",  "int",      "long",     "mutable", "namespace",
      "new",     "not",       "operator", "or",      "private",  "protected", "public",  "register", "restrict", "return",  "short",
      "signed",  "sizeof",    "static",   "struct",  "switch",   "template",  "this",    "throw",    "true",     "try",     "typedef",
      "typeid",  "typename",  "typeof",   "union",   "unsigned", "using",     "virtual", "void",     "volatile", "while",   "xor"};
  std::set<std::string> used = kTaken;
  std::vector<std::string> members;
  for (const std::string& symbol : symbols) {
    std::string member;
    for (const char c : symbol) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
      member += plain ? c : '_';
    }
    // Names that begin with an underscore, and macros in capitals, are others'.
    if (member.empty() || member[0] == '_' || (member[0] >= '0' && member[0] <= '9')) member.insert(0, "dim_");
    std::string own = member;
    for (int i = 2; !used.insert(own).second; ++i) own = fmt::format("{}_{}", member, i);
    members.push_back(own);
  }
  return members;
}

// What stands in front of the functions where there are buckets, and the function that chooses among them.
std::string bucketDeclarations(const AotContent& content, const std::string& name) {
  const std::vector<std::string> members = memberNames(content.symbols);
  std::string fields;
  for (size_t i = 0; i < members.size(); ++i) fields += fmt::format("  int64_t {}; /* {} */\n", members[i], shownName(content.symbols[i]));
  const Graph& graph = content.programs.front().graph();
  return fmt::format(
      "/* Sizes of the dims that the model leaves free. */\n"
      "typedef struct {0}_sizes {{\n{1}}} {0}_sizes;\n\n"
      "#define {0}_BUCKETS {2}\n\n"
      "typedef struct {0}_bucket {{\n"
      "  int64_t index;\n"
      "  {0}_sizes sizes;   /* those that the bucket runs at: all arrays have them, in the shapes above */\n"
      "  {0}_sizes padding; /* what the caller adds to each dim in every input that has it, at its end; 0: nothing */\n"
      "  int64_t input_bytes[{3}], output_bytes[{4}];\n"
      "}} {0}_bucket;\n\n"
      "/* The smallest bucket that holds these sizes.  0: done.  2: none does, and *bucket is as it was.  What padding is filled with is "
      "the\n"
      "   model's matter: a mask of 0 where it has one.  Outputs have the sizes of the bucket. */\n"
      "int {0}_pick(const {0}_sizes* wanted, {0}_bucket* bucket);\n\n",
      name, fields, content.programs.size(), graph.inputs().size(), graph.outputs().size());
}

}  // namespace

std::string aotHeader(const AotContent& content, const std::string& name, bool needsRt) {
  std::string ports, first, buckets, including;
  const std::string more = "the run met bad data, such as an index outside a table,\n   and the outputs are of no use.";
  for (size_t p = 0; p < content.programs.size(); ++p) {
    if (content.hasBuckets()) {
      std::string sizes;
      for (size_t i = 0; i < content.symbols.size(); ++i)
        sizes += fmt::format("{}{} = {}", i ? ", " : "", shownName(content.symbols[i]), content.sizes[p][i]);
      ports += fmt::format("   bucket {}: {}\n", p, sizes);
    }
    ports += portLines(content.programs[p].graph());
  }
  if (content.hasBuckets()) {
    first = "int bucket, ";
    buckets = bucketDeclarations(content, name);
    including = "#include <stdint.h>\n";
  }
  return fmt::format(
      "/* {0}, compiled for {1}.  {4}\n{2}*/\n"
      "#pragma once\n\n#include <stddef.h>\n{6}\n#include \"runtime/rt/pool.h\"\n\n"
      "#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n{5}"
      "/* Working memory of a run on a pool of that many threads, in bytes; aligned to {3}. */\n"
      "size_t {0}_memory_bytes(int threads);\n\n"
      "/* 0: done.  1: this CPU lacks what the code needs, and nothing was done.  {8}More: {9}  One run at a time for each pool and "
      "memory. */\n"
      "int {0}_run({7}const void* const* inputs, void* const* outputs, void* memory, qcrt_pool* pool);\n"
      "/* What a status that {0}_run returned means, with the node's name. */\n"
      "const char* {0}_error(int status);\n\n"
      "#ifdef __cplusplus\n}}\n#endif\n",
      name, content.programs.front().target().str(), ports, kAotAlignment,
      needsRt ? "Link with qcompile_rt, pthread and m." : "The library holds qcompile_rt: its functions are there, too.", buckets,
      including, first, content.hasBuckets() ? "2: there is no such bucket.\n   " : "", more);
}

}  // namespace qc
