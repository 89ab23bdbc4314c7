#include "frontend/onnx/export_dims.h"

#include <algorithm>

#include "frontend/onnx/exporter.h"
#include "frontend/onnx/put_first.h"

namespace qc {

void DimWriter::defined(const Value* v) {
  for (int d = 0; d < v->type().rank(); ++d)
    if (const auto name = symbolName(nth(v->type().shape, d).expr())) known_.places.try_emplace(*name, Place{v, d});
}

std::string DimWriter::ints(const std::vector<int64_t>& values) {
  std::string& name = known_.constants[values];
  return name.empty() ? name = file_.ints(values) : name;
}

std::string DimWriter::apply(const std::string& op, std::vector<std::string> inputs, const std::string& base) {
  std::string& result = known_.made[fmt::format("{}\n{}", op, fmt::join(inputs, "\n"))];
  if (result.empty()) {
    result = file_.fresh(base);
    auto& proto = file_.addUnlocated(op, std::move(inputs), result);
    if (op == "Concat") setInt(proto, "axis", 0);
  }
  return result;
}

Result<std::string> DimWriter::symbol(const std::string& name) {
  if (const auto number = known_.numbers.find(name); number != known_.numbers.end()) return number->second;
  const auto place = known_.places.find(name);
  if (place == known_.places.end())
    return fail(ErrorCode::kUnsupported, "'{}' is the size of no input, and of nothing that is computed before", name)
        .help("bind it with bind-shapes, or save as .qir instead");
  const auto [value, axis] = place->second;
  const std::string& known = file_.name(value);
  return apply("Gather", {apply("Shape", {known}, known + "_shape"), ints({axis})}, "size_" + name);
}

Result<std::string> DimWriter::factor(const DimFactor& f) {
  if (f.kind == DimFactor::Kind::symbol) return symbol(f.name);
  std::vector<std::string> args;
  for (const DimExpr& e : f.args) {
    QC_ASSIGN(args.emplace_back(), number(e));
  }
  if (f.kind != DimFactor::Kind::floorDiv) return apply(f.kind == DimFactor::Kind::min ? "Min" : "Max", args);
  // ONNX divides towards 0, which is the floor of what is not negative or comes out even; its Mod has the sign of the divisor.
  const bool truncates = f.args[0].isNonNegative() && f.args[1].isNonNegative();
  const std::string dividend = truncates ? args[0] : apply("Sub", {args[0], apply("Mod", args)});
  return apply("Div", {dividend, args[1]});
}

Result<std::string> DimWriter::product(const std::vector<DimFactor>& factors, int64_t coefficient) {
  std::string result = coefficient != 1 || factors.empty() ? ints({coefficient}) : std::string();
  for (const DimFactor& f : factors) {
    QC_ASSIGN(std::string next, factor(f));
    result = result.empty() ? std::move(next) : apply("Mul", {next, result});
  }
  return result;
}

Result<std::string> DimWriter::number(const DimExpr& e) {
  if (const auto constant = e.constant()) return ints({*constant});
  if (e.isUnknown())
    return fail(ErrorCode::kUnsupported, "a size that cannot be written in those of the inputs")
        .help("bind the free dims with bind-shapes");
  std::vector<DimTerm> terms = dimTerms(e);
  putFirst(terms, [](const DimTerm& t) { return t.coefficient > 0; });
  std::string total;
  for (const DimTerm& term : terms) {
    const bool less = !total.empty() && term.coefficient < 0;
    QC_ASSIGN(std::string next, product(term.factors, less ? -term.coefficient : term.coefficient));
    total = total.empty() ? std::move(next) : apply(less ? "Sub" : "Add", {total, next});
  }
  return total;
}

Result<std::string> DimWriter::vector(std::span<const DimExpr> elements) {
  std::vector<std::string> pieces;
  std::vector<int64_t> known;  // those in a row behind the pieces
  const auto close = [&] {
    if (!known.empty()) pieces.push_back(ints(known));
    known.clear();
  };
  for (const DimExpr& e : elements) {
    if (const auto constant = e.constant()) {
      known.push_back(*constant);
      continue;
    }
    close();
    QC_ASSIGN(pieces.emplace_back(), number(e));
  }
  if (pieces.empty()) return ints(known);
  close();
  return pieces.size() == 1 ? pieces[0] : apply("Concat", std::move(pieces), "sizes");
}

}  // namespace qc
