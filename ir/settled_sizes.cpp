#include "ir/settled_sizes.h"

#include <fmt/ranges.h>

#include <set>

namespace qc {

std::string misfitOf(const Shape& declared, const std::vector<int64_t>& given) {
  const auto because = [&](const std::string& why) {
    return fmt::format("the shape [{}] does not fit the declared [{}]: {}", toString(toShape(given)), toString(declared), why);
  };
  if (given.size() != declared.size()) return because(fmt::format("it has {} dims, not {}", declared.size(), given.size()));
  for (size_t d = 0; d < given.size(); ++d)
    if (declared[d].isStatic() && declared[d] != Dim(given[d]))
      return because(fmt::format("dim {} is {}, not {}", d, declared[d].str(), given[d]));
  return {};
}

Result<std::map<std::string, std::vector<int64_t>>> settledSizes(std::span<const NamedShape> shapes, SymbolSizes sizes,
                                                                 std::string_view why) {
  std::set<std::string> leading, inner;
  for (const NamedShape& s : shapes)
    for (size_t d = 0; d < s.shape.size(); ++d) (d == 0 ? leading : inner).merge(s.shape[d].expr().symbols());
  for (const std::string& symbol : leading)
    if (!inner.contains(symbol)) sizes.emplace(symbol, 1);
  std::map<std::string, std::vector<int64_t>> settled;
  std::vector<std::string> open;
  std::set<std::string> missing;
  std::string first;
  for (const NamedShape& s : shapes) {
    std::vector<int64_t>& own = settled[s.name];
    for (size_t d = 0; d < s.shape.size(); ++d) {
      const Dim& dim = s.shape[d];
      const std::optional<int64_t> size = dim.isStatic() ? dim.size() : dim.expr().evaluate(sizes);
      own.push_back(size.value_or(-1));
      if (size && *size >= 0) continue;
      if (open.empty()) first = s.name;
      open.push_back(fmt::format("dim {} of '{}' [{}]", d, s.name, toString(s.shape)));
      for (const std::string& symbol : dim.expr().symbols())
        if (!sizes.contains(symbol)) missing.insert(fmt::format("LoadOptions::shapes {}=N", symbol));
    }
  }
  if (open.empty()) return settled;
  return fail(ErrorCode::kInvalidArgument, "{} {} free{}{}", fmt::join(open, ", "), open.size() == 1 ? "is" : "are",
              why.empty() ? "" : ", and ", why)
      .on(first)
      .help(fmt::format("bind {}: {}", missing.size() == 1 ? "it" : "them", fmt::join(missing, " ")));
}

Result<SymbolSizes> bindingsOf(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes) {
  SymbolSizes sizes;
  struct Place {
    std::string input;
    size_t dim;
  };
  std::map<std::string, Place> from;
  const auto each = [&](auto visit) -> Status {
    for (const Value* input : graph.inputs()) {
      const auto given = shapes.find(input->name());
      if (given == shapes.end()) return fail(ErrorCode::kInvalidArgument, "no shape is given for this input").on(input->name());
      if (std::ssize(given->second) != input->type().rank())
        return fail(ErrorCode::kInvalidArgument, "this input is {}, and [{}] was given", input->type().str(),
                    toString(toShape(given->second)))
            .on(input->name());
      for (size_t d = 0; d < given->second.size(); ++d) QC_TRY(visit(*input, d, given->second[d]));
    }
    return {};
  };
  // Symbols that stand alone first: the others follow from them.
  QC_TRY(each([&](const Value& input, size_t d, int64_t size) -> Status {
    const Dim& dim = input.type().shape[d];
    const auto symbols = dim.isStatic() ? std::set<std::string>() : dim.expr().symbols();
    if (symbols.size() != 1 || Dim::symbol(*symbols.begin()) != dim) return {};
    const auto [known, isNew] = sizes.emplace(*symbols.begin(), size);
    if (isNew) from[*symbols.begin()] = {input.name(), d};
    if (known->second == size) return {};
    const Place& first = from.at(*symbols.begin());
    return fail(ErrorCode::kInvalidArgument, "dim {} is {}, which is {} here and {} in dim {} of '{}'", d, dim.str(), size, known->second,
                first.dim, first.input)
        .on(input.name());
  }));
  QC_TRY(each([&](const Value& input, size_t d, int64_t size) -> Status {
    const Dim& dim = input.type().shape[d];
    const auto wanted = dim.expr().evaluate(sizes);
    if (!wanted)
      return fail(ErrorCode::kInvalidArgument, "dim {} is {}, which the shapes of the inputs do not settle", d, dim.str()).on(input.name());
    if (*wanted == size) return {};
    return fail(ErrorCode::kInvalidArgument, "dim {} is {}{}, and {} was given", d, dim.str(),
                dim.isStatic() ? std::string() : fmt::format(", here {}", *wanted), size)
        .on(input.name());
  }));
  return sizes;
}

}  // namespace qc
