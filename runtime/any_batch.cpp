#include "runtime/any_batch.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

// The dim that is 1 in the model and something else here; -1: none is; nothing: others differ as well, or samples have a dim of their own
// in front of it, which is free: then it is that of a single channel.
std::optional<int> stackedDim(const Shape& own, const std::vector<int64_t>& sizes) {
  if (own.size() != sizes.size()) return std::nullopt;
  int dim = -1;
  const bool hasBatch = !own.empty() && !own[0].isStatic();
  for (size_t d = 0; d < own.size(); ++d) {
    if (!own[d].isStatic() || own[d] == Dim(sizes[d])) continue;
    if (dim >= 0 || hasBatch || !(own[d] == Dim(1))) return std::nullopt;
    dim = static_cast<int>(d);
  }
  return dim;
}

bool hasSymbol(const std::map<std::string, Shape>& inputs, const std::string& name) {
  for (const auto& [input, shape] : inputs)
    for (const Dim& dim : shape)
      if (dim.expr().symbols().contains(name)) return true;
  return false;
}

constexpr const char* kBatchProperty = "qcompile.batch";

// The dim that is this symbol alone; -1: none, or several.
int dimOf(const Shape& shape, const DimExpr& symbol) {
  const auto is = [&](const Dim& dim) { return dim.expr() == symbol; };
  const auto at = std::find_if(shape.begin(), shape.end(), is);
  return std::count_if(shape.begin(), shape.end(), is) == 1 ? static_cast<int>(at - shape.begin()) : -1;
}

std::optional<DimExpr> symbolOfBatch(const Graph& graph) {
  if (graph.inputs().empty()) return std::nullopt;
  for (const Dim& dim : graph.inputs().front()->type().shape) {
    const std::set<std::string> names = dim.expr().symbols();
    if (names.size() != 1 || dim.expr() != DimExpr::symbol(*names.begin())) continue;
    const auto has = [&](const Value* v) { return dimOf(v->type().shape, dim.expr()) >= 0; };
    if (std::all_of(graph.inputs().begin(), graph.inputs().end(), has)) return dim.expr();
  }
  return std::nullopt;
}

// Bytes of a tensor as `outer` times a line of `dim` and what is behind it.
struct Lines {
  int64_t outer, bytes;
  Lines(const Tensor& t, int dim) {
    const std::vector<int64_t> sizes = t.sizes();
    outer = std::accumulate(sizes.begin(), sizes.begin() + dim, int64_t{1}, std::multiplies<>());
    bytes = outer == 0 ? 0 : t.byteSize() / outer;
  }
};

}  // namespace

std::string batchNote(const Model& model) {
  for (const auto& [key, value] : model.graph().info().properties)
    if (key == kBatchProperty) return value;
  return {};
}

Result<std::optional<BatchAsked>> batchAsked(const std::map<std::string, Shape>& inputs, const Shapes& shapes) {
  BatchAsked asked;
  std::string by;  // what said so
  const auto take = [&](int64_t samples, const std::string& from) -> Status {
    if (!by.empty() && samples != asked.samples)
      return fail(ErrorCode::kInvalidArgument, "{} samples by {}, and {} by {}", samples, from, asked.samples, by)
          .help("give all inputs of a batch the same number of samples");
    asked.samples = samples;
    by = from;
    return {};
  };
  std::map<std::string, int> single;  // dims of inputs that are given one sample
  for (const auto& [name, sizes] : shapes) {
    const auto input = inputs.find(name);
    if (input == inputs.end()) {
      if (name != kBatchSymbol || sizes.size() != 1 || hasSymbol(inputs, name)) {
        asked.ofOne[name] = sizes;
        continue;
      }
      QC_TRY(take(sizes[0], fmt::format("{}={}", name, sizes[0])));
      continue;
    }
    const std::optional<int> dim = stackedDim(input->second, sizes);
    if (!dim) return std::optional<BatchAsked>();
    asked.stacked.dims[name] = *dim;
    auto& ofOne = asked.ofOne[name] = sizes;
    if (*dim < 0) continue;
    nth(ofOne, *dim) = 1;
    QC_TRY(take(nth(sizes, *dim), fmt::format("dim {} of '{}'", *dim, name)));
  }
  return by.empty() ? std::optional<BatchAsked>() : std::optional(std::move(asked));
}

Result<Model> withFreeBatch(const Model& model, const StackedInputs& stacked) {
  return withoutExceptions([&]() -> Result<Model> {
    const DefinedArithmetic defined;
    Graph graph = model.graph().clone();
    PassContext cx;
    cx.provide(stacked);
    QC_TRY(runPipeline(fmt::format("free-batch{{symbol=\"{}\"}}", kBatchSymbol), graph, cx));
    std::string where, symbol;
    for (size_t i = 0; i < graph.inputs().size(); ++i) {
      const Shape &before = model.graph().inputs()[i]->type().shape, &now = graph.inputs()[i]->type().shape;
      for (size_t d = 0; d < now.size(); ++d) {
        if (now[d] == before[d]) continue;
        symbol = now[d].str();
        where += fmt::format("{}dim {} of '{}'", where.empty() ? "" : ", ", d, graph.inputs()[i]->name());
      }
    }
    ModelInfo info = graph.info();
    info.properties.emplace_back(
        kBatchProperty,
        fmt::format("made for one sample at a time; {} of them are stacked along {}, each computed as if it were alone", symbol, where));
    graph.setInfo(std::move(info));
    return Model(std::move(graph), model.name());
  });
}

Result<Model> atSamplesOf(Model model, const Shapes& shapes) {
  QC_ASSIGN(const auto asked, batchAsked(freeInputShapes(model.graph()), shapes));
  if (!asked) return model;
  return withFreeBatch(model, asked->stacked);
}

Result<std::optional<BatchPlaces>> batchPlaces(const Model& model) {
  const Graph& graph = model.graph();
  const std::optional<DimExpr> symbol = symbolOfBatch(graph);
  if (!symbol) return std::optional<BatchPlaces>();
  BatchPlaces places;
  for (const Value* v : graph.inputs()) places.inputs[v->name()] = dimOf(v->type().shape, *symbol);
  const std::string name = *symbol->symbols().begin();
  for (const Port& port : model.outputs()) {
    std::vector<int> holding;
    for (int d = 0; d < port.type.rank(); ++d)
      if (nth(port.type.shape, d).expr().symbols().contains(name)) holding.push_back(d);
    const DimExpr size = holding.size() == 1 ? nth(port.type.shape, holding[0]).expr() : DimExpr(0);
    if (holding.size() != 1 || floorDiv(size, *symbol) * *symbol != size)
      return fail(ErrorCode::kUnsupported, "output {} does not hold the samples of a batch apart, {} of them", port.type.str(), name)
          .on(port.name)
          .help("run single samples");
    places.outputs[port.name] = holding[0];
  }
  return std::optional(std::move(places));
}

Result<TensorMap> stackedSamples(const std::vector<TensorMap>& samples, const BatchPlaces& places) {
  TensorMap all;
  for (const auto& [name, dim] : places.inputs) {
    std::vector<const Tensor*> parts;
    for (const TensorMap& sample : samples) {
      const auto part = sample.find(name);
      if (part == sample.end()) return fail(ErrorCode::kInvalidData, "a sample has no array for this input").on(name);
      parts.push_back(&part->second);
    }
    std::vector<int64_t> sizes = parts.front()->sizes();
    if (dim >= std::ssize(sizes))
      return fail(ErrorCode::kInvalidData, "a sample is {}, which has no dim {} for a batch", parts.front()->type().str(), dim).on(name);
    nth(sizes, dim) *= std::ssize(samples);
    Tensor stacked(parts.front()->dtype(), sizes);
    char* to = static_cast<char*>(stacked.mutableData());
    const Lines lines(*parts.front(), dim);
    for (int64_t o = 0; o < lines.outer; ++o)
      for (const Tensor* part : parts) {
        std::memcpy(to, static_cast<const char*>(part->data()) + o * lines.bytes, usize(lines.bytes));
        to += lines.bytes;
      }
    all.emplace(name, std::move(stacked));
  }
  return all;
}

std::vector<TensorMap> samplesApart(const TensorMap& outputs, size_t samples, const BatchPlaces& places) {
  std::vector<TensorMap> apart(samples);
  for (const auto& [name, all] : outputs) {
    const int dim = places.outputs.at(name);
    std::vector<int64_t> sizes = all.sizes();
    nth(sizes, dim) /= static_cast<int64_t>(samples);
    const Lines lines(all, dim);
    const int64_t bytes = lines.bytes / static_cast<int64_t>(samples);
    for (size_t i = 0; i < samples; ++i) {
      Tensor own(all.dtype(), sizes);
      char* to = static_cast<char*>(own.mutableData());
      for (int64_t o = 0; o < lines.outer; ++o)
        std::memcpy(to + o * bytes, static_cast<const char*>(all.data()) + o * lines.bytes + static_cast<int64_t>(i) * bytes, usize(bytes));
      apart[i].emplace(name, std::move(own));
    }
  }
  return apart;
}

std::map<std::string, Shape> freeInputShapes(const Graph& graph) {
  std::map<std::string, Shape> shapes;
  for (const Value* input : graph.inputs()) shapes[input->name()] = input->type().shape;
  return shapes;
}

}  // namespace qc
