#include "tools/answer_data.h"

#include "runtime/insight/scores.h"

namespace qc::tools {

Result<std::string> scoresOutput(const Model& model, const std::string& named) {
  std::string names;
  for (const Port& p : model.outputs()) {
    if (!named.empty() && p.name != named) {
      names += (names.empty() ? "'" : ", '") + p.name + "'";
      continue;
    }
    if (p.type.isStatic() && p.type.numElements() == 0) return fail(ErrorCode::kInvalidModel, "the output holds no scores").on(p.name);
    return p.name;
  }
  return fail(ErrorCode::kInvalidArgument, "the model has no output '{}'", named).help("it has " + names);
}

Result<int64_t> labelOf(const Labels& labels, const Dataset& data, int64_t i, const Tensor& output, const std::string& name) {
  QC_ASSIGN(const int64_t label, labels.of(data.sampleName(i), data.sampleIndex(i)));
  if (const Status fits = checkLabel(label, output, data.sampleName(i)); !fits)
    return fail(fits.error().code(), "{}", fits.error().message()).on(name).help(fits.error().remedy());
  return label;
}

std::string csvCell(std::string_view text) {
  std::string cell(text);
  if (!cell.empty() && std::string_view("=+-@\t\r").find(cell[0]) != std::string_view::npos) cell.insert(0, "'");
  if (cell.find_first_of(",\"\r\n") == std::string::npos) return cell;
  std::string quoted = "\"";
  for (const char c : cell) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace qc::tools
