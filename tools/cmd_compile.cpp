// compile: a model as an object file, a static or a shared library, and a C header, for this machine or another.
#include <fmt/ranges.h>

#include <filesystem>

#include "codegen/aot.h"
#include "ir/files.h"
#include "ir/visible.h"
#include "tools/buckets.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/linker.h"

namespace qc::tools {
namespace {

namespace fs = std::filesystem;

struct CompileFlags {
  ModelOptions model;
  std::string target = "host", output, header, name;
  LinkOptions link;
  bool packWeights = false;
};

enum class Kind { object, archive, library };

struct CodeFile {
  Kind kind;
  fs::path base;  // without the suffix that says the kind
};

// The suffix says what is written: NAME.o, NAME.a, NAME.so or NAME.so.1.2.
Result<CodeFile> codeFile(const std::string& path) {
  fs::path base = path;
  if (base.extension() == ".o") return CodeFile{Kind::object, base.replace_extension()};
  if (base.extension() == ".a") return CodeFile{Kind::archive, base.replace_extension()};
  const auto isVersion = [](const std::string& e) { return e.size() > 1 && e.find_first_not_of("0123456789", 1) == std::string::npos; };
  while (isVersion(base.extension().string())) base.replace_extension();
  if (base.extension() == ".so") return CodeFile{Kind::library, base.replace_extension()};
  return fail(ErrorCode::kInvalidArgument, "'{}' does not say what to write", path)
      .help("end it in .o for an object file, .a for a static library, or .so for a shared library");
}

// The file's name as a C identifier.
std::string identifierFor(const fs::path& base) {
  std::string name = base.filename().string();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  if (name.empty() || std::isdigit(static_cast<unsigned char>(name[0]))) name.insert(0, "m_");
  return name;
}

Status runCompile(const CompileFlags& o) {
  const double start = now();
  QC_ASSIGN(const CodeFile output, codeFile(o.output));
  if (output.kind != Kind::library && !(o.link.linker.empty() && o.link.rt.empty()))
    return fail(ErrorCode::kInvalidArgument, "{} is for shared libraries, and '{}' is none", o.link.rt.empty() ? "--linker" : "--rt",
                o.output)
        .help("leave it out, or write NAME.so");
  QC_ASSIGN(const Target target, Target::parse(o.target));
  const std::string name = o.name.empty() ? identifierFor(output.base) : o.name;
  const std::string header = o.header.empty() ? output.base.string() + ".h" : o.header;
  if (header == o.output)
    return fail(ErrorCode::kInvalidArgument, "the code and its header are both '{}'", header)
        .help("give the header another name with --header");
  QC_ASSIGN(const std::vector<SizeList> sizes, parseSizeLists(o.model.shapes));
  const AotOptions options{.needsRt = output.kind != Kind::library, .packsNibbles = o.packWeights};
  AotModel aot;
  std::string held;  // what it holds, where that is not plain
  if (hasSeveral(sizes)) {
    ModelOptions free = o.model;
    free.shapes.clear();
    QC_ASSIGN(AotBuckets buckets, bucketsOf(free, sizes));
    QC_TRY(checkOutputs({o.output, header}));
    held = fmt::format("{} buckets of {}, ", buckets.buckets.size(), fmt::join(buckets.symbols, ", "));
    QC_ASSIGN(aot, compileToObject(std::move(buckets), target, name, options));
  } else {
    QC_ASSIGN(const Model model, o.model.load());
    QC_TRY(checkOutputs({o.output, header}));
    PassContext cx;
    QC_ASSIGN(Graph graph, lowerModel(model, cx));
    QC_ASSIGN(aot, compileToObject(std::move(graph), target, name, options));
  }
  if (output.kind == Kind::archive) {
    QC_ASSIGN(aot.object, archiveOf(aot.object, name + ".o"));
  } else if (output.kind == Kind::library) {
    std::vector<std::string> functions;
    for (const std::string& function : aot.exports) functions.push_back(name + "_" + function);
    QC_ASSIGN(aot.object, sharedLibrary(aot.object, functions, fs::path(o.output).filename().string(), target, o.link));
  }
  OutputFiles files;
  QC_TRY(files.add(o.output, {aot.object}));
  QC_TRY(files.add(header, {aot.header}));
  QC_TRY(files.publish());
  fmt::print("{}: {}_run, {}{}, {}, {:.1f} s; {}\n", o.output, name, visible(held), target.str(),
             megabytes(static_cast<int64_t>(aot.object.size())), now() - start, header);
  return {};
}

}  // namespace

void addCompileCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<CompileFlags>();
  CLI::App* verb = app.add_subcommand("compile", "an object file, static or shared library and a C header, to be called from C");
  verb->footer("qcompile compile m.int8.onnx --target avx2 -o m.o");
  o->model.addTo(*verb);
  verb->get_option("--shape")->description(
      verb->get_option("--shape")->get_description() +
      "; several, SYMBOL=16,32,64 or SYMBOL=16..256:16, are buckets of one object that share weights and "
      "code, every size of one symbol with every size of the others");
  verb->add_option("--target", o->target, "host, avx2, avx512vnni, aarch64+dotprod, riscv64, armv7, ...; another machine's as well")
      ->type_name("TARGET");
  verb->add_option("-o,--output", o->output,
                   "NAME.o: object file, to be linked with qcompile_rt; NAME.a: the same as a static library; NAME.so: shared library with "
                   "qcompile_rt in it")
      ->type_name("FILE")
      ->required();
  verb->add_option("--header", o->header, "C header; default: NAME.h beside the output")->type_name("FILE");
  verb->add_option("--name", o->name, "prefix of the symbols; default: the name of the output without its suffix")->type_name("PREFIX");
  verb->add_flag(
      "--pack-weights", o->packWeights,
      "weights of 4 bits take half a byte each of the file, and every run unpacks them, layer by layer, into its memory: smaller, "
      "and a little slower");
  verb->add_option("--linker", o->link.linker,
                   "for .so: the C compiler or linker; default: the first of cc, gcc, clang, ld.lld, ld that is here, or "
                   "TRIPLE-gcc for another machine")
      ->type_name("PROGRAM");
  verb->add_option("--rt", o->link.rt, "for .so: libqcompile_rt.a of the target's machine; default: the one that came with this program")
      ->type_name("FILE");
  verb->callback([o, &exitCode] { exitCode = report(runCompile(*o)); });
}

}  // namespace qc::tools
