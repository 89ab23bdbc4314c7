#include "passes/correspondence.h"

#include <algorithm>
#include <cmath>

#include "ir/payload.h"
#include "ir/text_lexer.h"
#include "ir/text_reader.h"

namespace qc {
namespace {

constexpr std::string_view kProperty = "qcompile.moved";

Result<Move> readMove(TextReader& in) {
  Move move;
  if (in.peek().kind != Token::Kind::word) return in.unexpected("the name of a pass");
  move.by = in.take().text;
  do {
    Move::Pair pair;
    QC_ASSIGN(pair.value, in.name('%', "a value: %name"));
    pair.of = pair.value;
    if (in.takeIf("of")) {
      QC_ASSIGN(pair.of, in.name('%', "a value of the float model: %name"));
    }
    move.values.push_back(std::move(pair));
  } while (in.takeIf(","));
  if (!in.takeIf("axis")) return move;
  QC_TRY(in.expect("=", "behind 'axis'"));
  const size_t offset = in.peek().offset;
  QC_ASSIGN(const int64_t axis, in.integer("the axis of the channels"));
  QC_ASSIGN(const TensorType type, in.type());
  // A text has a character for each factor at least.
  if (axis < 0 || axis > 64 || type.quant || type.dtype != DType::f32 || type.rank() != 1 || !type.isStatic() ||
      type.shape[0].size() > static_cast<int64_t>(in.remaining()))
    return in.failAt(offset, "factors are f32, one for each channel of an axis");
  move.axis = static_cast<int>(axis);
  QC_TRY(in.expect("=", "before factors"));
  QC_ASSIGN(const Tensor factors, readPayload(in, type));
  move.factors = factors.toFloats();
  if (std::any_of(move.factors.begin(), move.factors.end(), [](float f) { return !std::isfinite(f) || !(f > 0); }))
    return in.failAt(offset, "factors are finite and above zero");
  return move;
}

}  // namespace

void Moves::add(std::vector<Move::Pair> values, int axis, std::vector<float> factors) {
  if (values.empty()) return;
  std::string line = by_;
  for (size_t i = 0; i < values.size(); ++i) {
    line += fmt::format("{} {}", i ? "," : "", sigilName('%', values[i].value));
    if (values[i].of != values[i].value) line += fmt::format(" of {}", sigilName('%', values[i].of));
  }
  if (!factors.empty()) {
    const Tensor t = Tensor::ofFloats({static_cast<int64_t>(factors.size())}, factors);
    line += fmt::format(" axis={} {} = {}", axis, t.type().str(), payloadText(t, PayloadForm::exact));
  }
  lines_ += line + "\n";
}

void Moves::addTo(Graph& graph) const {
  if (lines_.empty()) return;
  ModelInfo info = graph.info();
  const auto known = std::find_if(info.properties.begin(), info.properties.end(), [](const auto& p) { return p.first == kProperty; });
  if (known == info.properties.end())
    info.properties.emplace_back(kProperty, lines_);
  else
    known->second += lines_;
  graph.setInfo(std::move(info));
}

Result<std::vector<Move>> movesOf(const Graph& graph) {
  std::vector<Move> moves;
  for (const auto& [key, text] : graph.info().properties) {
    if (key != kProperty) continue;
    TextReader in(text, key);
    while (in.peek().kind != Token::Kind::end) {
      QC_ASSIGN(Move move, readMove(in));
      moves.push_back(std::move(move));
    }
  }
  return moves;
}

void forgetMoves(Graph& graph) {
  ModelInfo info = graph.info();
  if (std::erase_if(info.properties, [](const auto& p) { return p.first == kProperty; })) graph.setInfo(std::move(info));
}

}  // namespace qc
