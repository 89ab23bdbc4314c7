// compile: a model as an object file and a C header, for this machine or another.
#include <filesystem>

#include "codegen/aot.h"
#include "ir/files.h"
#include "tools/cmd.h"
#include "tools/common.h"

namespace qc::tools {
namespace {

namespace fs = std::filesystem;

struct CompileFlags {
  ModelOptions model;
  std::string target = "host", output, header, name;
};

// The file's name as a C identifier.
std::string identifierFor(const std::string& path) {
  std::string name = fs::path(path).stem().string();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  if (name.empty() || std::isdigit(static_cast<unsigned char>(name[0]))) name.insert(0, "m_");
  return name;
}

Status runCompile(const CompileFlags& o) {
  const double start = now();
  QC_ASSIGN(const Target target, Target::parse(o.target));
  QC_ASSIGN(const Model model, o.model.load());
  PassContext cx;
  QC_ASSIGN(Graph graph, lowerModel(model, cx));
  const std::string name = o.name.empty() ? identifierFor(o.output) : o.name;
  const std::string header = o.header.empty() ? fs::path(o.output).replace_extension(".h").string() : o.header;
  if (header == o.output)
    return fail(ErrorCode::kInvalidArgument, "the object and its header are both '{}'", header).help("name the object NAME.o");
  QC_ASSIGN(const AotModel aot, compileToObject(std::move(graph), target, name));
  QC_TRY(writeFileAtomically(o.output, aot.object));
  QC_TRY(writeFileAtomically(header, aot.header));
  fmt::print("{}: {}_run, {}, {}, {:.1f} s; {}\n", o.output, name, target.str(), megabytes(static_cast<int64_t>(aot.object.size())),
             now() - start, header);
  return {};
}

}  // namespace

void addCompileCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<CompileFlags>();
  CLI::App* verb = app.add_subcommand("compile", "an object file and a C header, to be linked with qcompile_rt");
  o->model.addTo(*verb);
  verb->add_option("--target", o->target, "host, avx2, avx512vnni, aarch64+dotprod, ...; another machine's as well");
  verb->add_option("-o,--output", o->output, "object file (.o)")->required();
  verb->add_option("--header", o->header, "C header; default: beside the object");
  verb->add_option("--name", o->name, "prefix of the symbols; default: the name of the object file");
  verb->callback([o, &exitCode] { exitCode = report(runCompile(*o)); });
}

}  // namespace qc::tools
