#include "tools/report_flags.h"

#include "ir/files.h"
#include "ir/guarded.h"
#include "ir/visible.h"

namespace qc::tools {

void ReportFlags::addTo(CLI::App& verb) {
  verb.add_option("--report", path, "the same and more as a page for a browser: one file of HTML with charts and tables that sort")
      ->type_name("FILE");
}

void ReportFlags::addTo(std::vector<std::string>& outputs) const {
  if (!path.empty()) outputs.push_back(path);
}

Status ReportFlags::write(ReportData data) const {
  if (path.empty()) return {};
  data.facts.emplace_back("version", "qcompile " QC_VERSION);
  const std::string page = reportPage(data);
  QC_TRY(writeFileAtomically(path, page));
  fmt::print(stderr, "{}: report, {}\n", visible(path), megabytes(static_cast<int64_t>(page.size())));
  return {};
}

std::string shellWord(std::string_view text) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-:=,@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string_view::npos) return std::string(text);
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

Result<Graph> graphForReport(const Model& model) {
  return withoutExceptions([&]() -> Result<Graph> {
    PassContext cx;
    return lowerModel(model, cx);
  });
}

}  // namespace qc::tools
