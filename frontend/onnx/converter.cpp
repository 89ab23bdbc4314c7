#include "frontend/onnx/converter.h"

#include <list>
#include <map>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/exporter.h"
#include "ir/custom_op.h"
#include "ir/guarded.h"

namespace qc {
namespace {

struct OwnConverters {
  std::vector<OnnxOp> readers;
  std::map<std::string, OnnxWriteFn, std::less<>> writers;
  static OwnConverters& get() {
    static auto* const own = new OwnConverters;
    return *own;
  }
};

bool fitsOnnx(AttrKind kind) {
  return kind == AttrKind::integer || kind == AttrKind::real || kind == AttrKind::string || kind == AttrKind::integers ||
         kind == AttrKind::reals;
}

}  // namespace

std::vector<std::string> OnnxWriter::operandNames(const Node& node) { return file_.operandNames(node); }
std::vector<std::string> OnnxWriter::resultNames(const Node& node) { return file_.resultNames(node); }
std::string OnnxWriter::fresh(const std::string& base) { return file_.fresh(base); }
std::string OnnxWriter::constant(const std::string& base, const Tensor& tensor) { return file_.initializer(base, tensor); }

Status OnnxWriter::add(const Node& node, OnnxNodeText text) {
  if (text.op.empty() || text.outputs.empty() || text.since < 1)
    return fail(ErrorCode::kInvalidArgument, "a node '{}' needs a name, results and a version from 1 on", text.op);
  for (const auto& [name, value] : text.attrs)
    if (!fitsOnnx(kindOf(value)))
      return fail(ErrorCode::kInvalidArgument, "attribute `{}` of '{}' is {}, which ONNX does not have", name, text.op,
                  toString(kindOf(value)));
  auto& proto = file_.add(node, text.op, std::move(text.inputs), std::move(text.outputs));
  if (text.domain.empty()) {
    file_.needOpset(text.since);
  } else {
    file_.needDomain(text.domain, text.since);
    proto.set_domain(text.domain);
  }
  for (const auto& [name, value] : text.attrs) setAttr(proto, name.c_str(), value);
  return {};
}

Status registerOnnxReader(OnnxOp row) {
  if (!row.convert) return fail(ErrorCode::kInvalidArgument, "the reader of '{}' has no function", row.name);
  if (row.minInputs < 0 || row.minInputs > 32 || (row.maxInputs != -1 && row.maxInputs < row.minInputs))
    return fail(ErrorCode::kInvalidArgument, "'{}' takes {} to {} inputs", row.name, row.minInputs, row.maxInputs)
        .help("give 0 to 32, and -1 where there may be any number");
  QC_TRY(claimOnnxNode(row.domain, row.name));
  row.convert = [convert = std::move(row.convert), name = row.name](OnnxNode& node) -> Status {
    QC_TRY(guarded(fmt::format("the reader of '{}'", name), [&] { return convert(node); }));
    return node.setOutputs(node.outputs());  // also where it set none
  };
  OwnConverters::get().readers.push_back(std::move(row));
  return {};
}

Status registerOnnxWriter(std::string_view op, OnnxWriteFn write) {
  if (!write) return fail(ErrorCode::kInvalidArgument, "the writer of '{}' has no function", op);
  QC_TRY(claimOnnxOp(op));
  OwnConverters::get().writers.emplace(op, std::move(write));
  return {};
}

std::span<const OnnxOp> onnxOwnOps() { return OwnConverters::get().readers; }

void addOwnExportRows(OnnxExportRows& rows) {
  for (const auto& [op, own] : OwnConverters::get().writers)
    rows.emplace(op, [&write = own](OnnxExporter& file, const Node& node) -> Status {
      OnnxWriter writer(file);
      auto written = guarded(fmt::format("the writer of '{}'", node.op()), [&] { return write(writer, node); });
      if (!written) return tl::make_unexpected(std::move(written).error().at(node.location()));
      return {};
    });
}

}  // namespace qc
