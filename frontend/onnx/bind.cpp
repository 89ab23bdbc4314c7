#include "frontend/onnx/bind.h"

#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "frontend/onnx/put_first.h"
#include "ir/op_def.h"
#include "ir/settled_sizes.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Dimension = onnx::TensorShapeProto::Dimension;

const onnx::TensorShapeProto& shapeOf(const onnx::ValueInfoProto& info) { return info.type().tensor_type().shape(); }

// Exporters that know nothing of a dim write a question mark, or no name: then it is called by its place.
std::string symbolOf(const onnx::ValueInfoProto& info, int d) {
  const Dimension& dim = shapeOf(info).dim(d);
  const bool isNamed = dim.has_dim_param() && dim.dim_param() != "?" && !dim.dim_param().empty();
  return isNamed ? dim.dim_param() : fmt::format("{}.{}", info.name(), d);
}

// "did you mean 'sequence'? the model has 'sequence', 'batch', .."; known: some.  Half of a name is the commonest mistake with long ones.
std::string namesLike(const std::string& name, const std::vector<std::string>& known) {
  std::vector<std::string> near = nearestNames(name, known, 8);
  putFirst(near, [&](const std::string& n) { return n.find(name) != std::string::npos; });
  return fmt::format("did you mean '{}'? the model has '{}'", near.front(), fmt::join(near, "', '"));
}

class Binder {
 public:
  Binder(const onnx::GraphProto& graph, const ImportOptions& options) : options_(options) {
    std::set<std::string> constants;
    for (const auto& initializer : graph.initializer()) constants.insert(initializer.name());
    for (const auto& info : graph.input())
      if (!constants.contains(info.name()) && names_.insert(info.name()).second) inputs_.push_back(&info);
  }

  Result<std::map<std::string, Shape>> run() {
    QC_TRY(takeGiven());
    std::map<std::string, Shape> sizes;
    for (const auto* info : inputs_) {
      if (options_.values.contains(info->name())) continue;
      const auto given = options_.shapes.find(info->name());
      sizes[info->name()] = given != options_.shapes.end() ? toShape(given->second) : inferred(*info);
    }
    QC_TRY(reportFree());
    return sizes;
  }

  Result<std::vector<FreeDim>> free() {
    QC_TRY(takeGiven());
    std::vector<FreeDim> all;
    std::map<std::string, size_t> bySymbol;
    for (const auto* info : inputs_) {
      if (options_.values.contains(info->name()) || options_.shapes.contains(info->name())) continue;
      const auto& shape = shapeOf(*info);
      if (!info->type().tensor_type().has_shape() && info->type().has_tensor_type())
        all.push_back({"", {fmt::format("'{}', of any number of dims", info->name())}, fmt::format("{}=1x3x224x224", info->name()), false});
      for (int d = 0; d < shape.dim_size(); ++d) {
        const std::string symbol = symbolOf(*info, d);
        if (isFixed(shape.dim(d)) || known_.contains(symbol)) continue;
        const auto [at, isNew] = bySymbol.emplace(symbol, all.size());
        if (isNew) all.push_back({symbol, {}, symbol + "=N"});
        FreeDim& dim = isNew ? all.back() : all[at->second];
        dim.places.push_back(fmt::format("dim {} of '{}'", d, info->name()));
        dim.isBatch = dim.isBatch && d == 0;
      }
    }
    return all;
  }

 private:
  struct Known {
    int64_t size;
    std::string from;  // what said so
  };

  bool isInput(const std::string& name) const { return names_.contains(name); }

  std::set<std::string> symbols() const {
    std::set<std::string> names;
    for (const auto* info : inputs_)
      for (int d = 0; d < shapeOf(*info).dim_size(); ++d)
        if (!isFixed(shapeOf(*info).dim(d))) names.insert(symbolOf(*info, d));
    return names;
  }

  Status takeGiven() {
    QC_TRY(checkNames());
    for (const auto* info : inputs_) {
      if (const auto given = options_.shapes.find(info->name()); given != options_.shapes.end()) QC_TRY(takeSizes(*info, given->second));
      if (const auto value = options_.values.find(info->name()); value != options_.values.end()) takeValue(*info, value->second);
    }
    return {};
  }

  // First, so that a misspelt name is not reported as a free dim of the right one.
  Status checkNames() {
    const std::set<std::string> symbols = this->symbols();
    std::vector<std::string> known(symbols.begin(), symbols.end());
    for (const auto* info : inputs_) known.push_back(info->name());
    const auto unknown = [&](const std::string& name, const char* what) {
      return fail(ErrorCode::kInvalidArgument, "{} is given for '{}', which is neither an input of the model nor a symbol of one", what,
                  name)
          .on(name)
          .help(known.empty() ? "the model has no inputs" : namesLike(name, known));
    };
    for (const auto& [name, sizes] : options_.shapes) {
      if (std::any_of(sizes.begin(), sizes.end(), [](int64_t s) { return s < 0; }))
        return fail(ErrorCode::kInvalidArgument, "a size below 0 in {}", toString(Attr(sizes))).on(name);
      if (isInput(name)) continue;
      if (!symbols.contains(name)) return unknown(name, "a shape");
      if (sizes.size() != 1)
        return fail(ErrorCode::kInvalidArgument, "{} sizes for one symbol", sizes.size()).on(name).help(fmt::format("write {}=N", name));
      known_[name] = {sizes[0], fmt::format("{}={}", name, sizes[0])};
    }
    for (const auto& [name, value] : options_.values)
      if (!isInput(name)) return unknown(name, "a value");
    return {};
  }

  Status takeSizes(const onnx::ValueInfoProto& info, const Ints& sizes) {
    const auto& shape = shapeOf(info);
    Shape declared;
    for (int d = 0; d < shape.dim_size(); ++d)
      declared.push_back(isFixed(shape.dim(d)) ? Dim(shape.dim(d).dim_value()) : Dim::symbol(symbolOf(info, d)));
    if (const std::string why = misfitOf(declared, sizes); !why.empty() && info.type().tensor_type().has_shape())
      return fail(ErrorCode::kInvalidArgument, "{}", why).on(info.name());
    for (int d = 0; d < shape.dim_size(); ++d) {
      if (isFixed(shape.dim(d))) continue;
      const std::string symbol = symbolOf(info, d);
      const Known here{nth(sizes, d), fmt::format("{}={}", info.name(), fmt::join(sizes, "x"))};
      const auto [before, isNew] = known_.emplace(symbol, here);
      if (!isNew && before->second.size != here.size)
        return fail(ErrorCode::kInvalidArgument, "'{}' is {} by {} and {} by {}", symbol, before->second.size, before->second.from,
                    here.size, here.from)
            .on(info.name())
            .help(fmt::format("dim {} of [{}] has the same size wherever the model names it", d, declaredShape(info)));
    }
    return {};
  }

  // Whether the value fits is for those to say who make a constant of it.
  void takeValue(const onnx::ValueInfoProto& info, const Tensor& value) {
    if (value.rank() == shapeOf(info).dim_size()) static_cast<void>(takeSizes(info, value.sizes()));
  }

  Shape inferred(const onnx::ValueInfoProto& info) {
    if (!info.type().tensor_type().has_shape() && info.type().has_tensor_type()) {
      free_.push_back(fmt::format("'{}' (of any number of dims)", info.name()));
      remedies_.insert(fmt::format("{}=1x3x224x224", info.name()));
      return {};
    }
    Shape sizes;
    std::string example;
    bool isFree = false;
    const auto& shape = shapeOf(info);
    for (int d = 0; d < shape.dim_size(); ++d) {
      const Dimension& dim = shape.dim(d);
      const std::string symbol = symbolOf(info, d);
      const auto known = isFixed(dim) ? known_.end() : known_.find(symbol);
      if (isFixed(dim) || known != known_.end()) {
        sizes.emplace_back(isFixed(dim) ? dim.dim_value() : known->second.size);
      } else if (options_.freeDims) {
        sizes.push_back(Dim::symbol(symbol));
      } else {
        if (d > 0) {
          free_.push_back(fmt::format("dim {} of '{}' [{}]", d, info.name(), declaredShape(info)));
          isFree = true;
          freeSymbols_.insert(symbol);
        }
        sizes.emplace_back(1);
      }
      example += (d ? "x" : "") + (isFixed(dim) || known != known_.end() || d == 0 ? sizes.back().str() : "N");
    }
    if (isFree) {
      if (firstFree_.empty()) firstFree_ = info.name();
      if (firstExample_.empty()) firstExample_ = fmt::format("{}={}", info.name(), example);
    }
    return sizes;
  }

  Status reportFree() {
    if (free_.empty()) return {};
    for (const std::string& symbol : freeSymbols_) remedies_.insert(symbol + "=N");
    std::string remedy = "bind by input or by symbol: ";
    if (!firstExample_.empty()) remedy += fmt::format("LoadOptions::shapes {}, or ", firstExample_);
    remedy += fmt::format("LoadOptions::shapes {}", fmt::join(remedies_, " LoadOptions::shapes "));
    return fail(ErrorCode::kInvalidArgument, "{} {} free", fmt::join(free_, ", "), free_.size() == 1 ? "is" : "are")
        .on(firstFree_)
        .help(remedy);
  }

  const ImportOptions& options_;
  std::vector<const onnx::ValueInfoProto*> inputs_;
  std::unordered_set<std::string> names_;  // of them
  std::map<std::string, Known> known_;
  std::vector<std::string> free_;
  std::set<std::string> freeSymbols_, remedies_;
  std::string firstFree_, firstExample_;
};

}  // namespace

void nameLengthsApart(onnx::GraphProto& graph) {
  std::unordered_set<std::string> inputs;
  for (const auto& info : graph.input()) inputs.insert(info.name());
  const auto isSwitched = [&](const auto& node) {
    return node.op_type() == "If" && node.input_size() == 1 && inputs.contains(node.input(0));
  };
  if (std::none_of(graph.node().begin(), graph.node().end(), isSwitched)) return;
  std::set<std::string> taken;
  for (auto& info : *graph.mutable_input()) {
    auto& type = *info.mutable_type()->mutable_tensor_type();
    if (type.elem_type() != onnx::TensorProto::INT64 && type.elem_type() != onnx::TensorProto::INT32) continue;
    for (int d = 1; d < type.shape().dim_size(); ++d)
      if (!isFixed(type.shape().dim(d)) && !taken.insert(symbolOf(info, d)).second)
        type.mutable_shape()->mutable_dim(d)->set_dim_param(fmt::format("{}.{}", info.name(), d));
  }
}

std::string declaredShape(const onnx::ValueInfoProto& info) {
  std::string text;
  for (int d = 0; d < shapeOf(info).dim_size(); ++d) {
    const Dimension& dim = shapeOf(info).dim(d);
    text += (text.empty() ? "" : ",") + (isFixed(dim) ? std::to_string(dim.dim_value()) : symbolOf(info, d));
  }
  return text;
}

std::optional<std::string> freeDimName(const onnx::ValueInfoProto& info, int d) {
  const bool isFree = d < shapeOf(info).dim_size() && !isFixed(shapeOf(info).dim(d));
  return isFree ? std::optional(symbolOf(info, d)) : std::nullopt;
}

bool isFixed(const Dimension& dim) { return dim.has_dim_value() && dim.dim_value() >= 0; }

Result<std::map<std::string, Shape>> bindShapes(const onnx::GraphProto& graph, const ImportOptions& options) {
  return Binder(graph, options).run();
}

Result<std::vector<FreeDim>> freeDims(const onnx::GraphProto& graph, const ImportOptions& options) { return Binder(graph, options).free(); }

}  // namespace qc
