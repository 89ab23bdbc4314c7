#include "tests/fuzz/text_way.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "ir/decided_sizes.h"
#include "ir/guarded.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "ir/text_lexer.h"
#include "ir/verify.h"
#include "passes/lower/bound_graph.h"
#include "passes/lower/segments.h"
#include "passes/pass_manager.h"

namespace qc::testing {
namespace {

class TextRandom {
 public:
  explicit TextRandom(uint64_t seed) : state_(seed) {}
  size_t below(size_t limit) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return usize(state_ >> 33) % limit;
  }

 private:
  uint64_t state_;
};

std::vector<Token> tokens(std::string_view text) {
  std::vector<Token> all;
  Lexer lexer(text);
  for (Token t = lexer.next(); t.kind != Token::Kind::end && t.kind != Token::Kind::bad; t = lexer.next()) all.push_back(t);
  return all;
}

constexpr std::string_view kNumbers[] = {
    "0",   "1",    "-1",   "2",   "3",    "7",  "255", "-128", "4096", "2147483647", "9223372036854775807", "-9223372036854775808",
    "0.0", "-0.5", "1e38", "inf", "-inf", "nan"};

std::string mutate(const std::string& seed, const std::vector<std::string>& all, TextRandom& random) {
  std::string text = seed;
  for (size_t edits = 1 + random.below(3); edits > 0; --edits) {
    const std::vector<Token> words = tokens(text);
    if (words.empty()) return text;
    const Token& word = words[random.below(words.size())];
    switch (random.below(8)) {
      case 0: text.erase(word.offset, word.text.size()); break;
      case 1: text[random.below(text.size())] = static_cast<char>(random.below(256)); break;
      case 2: text.insert(word.offset, std::string(word.text) + ","); break;
      default: {
        std::string other(word.text);
        if (word.kind == Token::Kind::number) {
          other = kNumbers[random.below(std::size(kNumbers))];
        } else {
          // From another seed half of the time: ops, attributes and types meet that never met.
          const std::string& donor = random.below(2) ? text : all[random.below(all.size())];
          const std::vector<Token> choices = tokens(donor);
          for (size_t tries = 0; tries < 50 && !choices.empty(); ++tries) {
            const Token& choice = choices[random.below(choices.size())];
            if (choice.kind != word.kind || choice.sigil != word.sigil) continue;
            other = choice.text;
            break;
          }
        }
        text.replace(word.offset, word.text.size(), other);
      }
    }
  }
  return text;
}

constexpr std::string_view kPipelines[] = {"simplify", "lower", "simplify,annotate,prepare,convert{range=[-1.0,1.0]},lower",
                                           "annotate{backend=qnnpack},prepare,convert{range=[0.0,1.0]},lower,layout"};

bool isSmall(const Graph& graph) {
  constexpr int64_t kMaxElements = 1 << 14;
  const auto small = [](const Value* v) { return v->type().isStatic() && v->type().numElements() <= kMaxElements; };
  for (const Value* v : graph.inputs())
    if (!small(v)) return false;
  for (const Node* n = graph.front(); n; n = n->next())
    for (int i = 0; i < n->numResults(); ++i)
      if (!small(n->result(i))) return false;
  return true;
}

// Cut where data decides sizes every piece is a graph of its own; with all free sizes the same and no data but zeros they run, or an error
// says why not.
void cutIntoPieces(const Graph& graph, std::string& complaint) {
  constexpr int64_t kSize = 3;
  constexpr int kMaxRounds = 100;
  int rounds = 0;
  const auto cut = cutAtDecidedSizes(graph);
  if (!cut) return;
  for (const Segment& s : cut->segments)
    if (const Status sound = verify(s.graph); !sound) complaint = sound.error().render() + "\n" + print(s.graph);
  CutGraph::Tensors inputs;
  for (const Value* v : graph.inputs()) {
    std::vector<int64_t> sizes;
    for (const Dim& dim : v->type().shape) {
      SymbolSizes all;
      for (const std::string& symbol : dim.expr().symbols()) all[symbol] = kSize;
      sizes.push_back(dim.expr().evaluate(all).value_or(-1));
      if (sizes.back() < 0 || sizes.back() > 64) return;
    }
    if (sizes.size() > 2 && numElements(sizes) > (1 << 14)) return;
    inputs.emplace(v->name(), Tensor(v->type().dtype, sizes));
  }
  const auto ran = cut->run(inputs, [&](size_t i, const CutGraph::Tensors& own) -> Result<CutGraph::Tensors> {
    const Graph& piece = *cut->segments[i].program();
    if (cut->segments[i].decides && ++rounds > kMaxRounds) return fail(ErrorCode::kResource, "too many rounds for a test");
    std::map<std::string, std::vector<int64_t>> shapes;
    std::vector<Tensor> in;
    for (const Value* v : piece.inputs()) {
      in.push_back(own.at(v->name()));
      shapes[v->name()] = in.back().sizes();
    }
    QC_ASSIGN(const Graph bound, boundGraph(piece, shapes));
    if (!isSmall(bound)) return fail(ErrorCode::kResource, "too large for a test");
    QC_ASSIGN(const std::vector<Tensor> results, interpret(bound, in));
    CutGraph::Tensors out;
    for (size_t k = 0; k < results.size(); ++k) out.emplace(piece.outputNames()[k], results[k]);
    return out;
  });
  if (!ran && ran.error().code() == ErrorCode::kInternal) complaint = ran.error().render();
}

Status textGoesThrough(const std::string& text, std::string_view passes, int& accepted, std::string& complaint) {
  QC_ASSIGN(Graph graph, parseGraph(text, "test"));
  ++accepted;
  if (const Status s = verify(graph); !s) complaint = s.error().render();
  const PrintOptions exact{.locations = true, .payloads = true};
  const std::string once = print(graph, exact);
  const auto again = parseGraph(once, "again");
  if (!again) complaint = again.error().render() + "\n" + once;
  if (again && print(*again, exact) != once) complaint = "printed differently a second time:\n" + once;
  if (!complaint.empty()) return {};
  if (firstDeciding(graph)) cutIntoPieces(graph, complaint);
  if (!complaint.empty() || !isSmall(graph)) return {};
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) inputs.emplace_back(v->type().dtype, v->type().sizes());
  static_cast<void>(interpret(graph, inputs));
  QC_ASSIGN(const Pipeline pipeline, Pipeline::parse(passes));
  PassManagerOptions options;
  options.verifyEach = true;
  PassManager manager(pipeline, options);
  PassContext cx;
  const Status status = manager.run(graph, cx);
  if (!status && status.error().code() == ErrorCode::kInternal) complaint = status.error().render();
  return {};
}

}  // namespace

// One text per graph.
std::vector<std::string> goldenTexts() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(QC_TEST_DATA "/../golden"))
    if (entry.path().extension() == ".qir") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<std::string> all;
  for (const auto& file : files) {
    std::ifstream in(file);
    std::string text;
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("// -----")) all.push_back(std::exchange(text, {}));
      if (line.find("//") == std::string::npos) text += line + "\n";
    }
    all.push_back(text);
  }
  std::erase_if(all, [](const std::string& text) { return text.size() < 20 || text.size() > 20000; });
  return all;
}

std::string damagedText(const std::string& text, const std::vector<std::string>& donors, uint64_t seed) {
  TextRandom random(seed);
  return mutate(text, donors, random);
}

std::string complaintAboutText(const std::string& text, uint64_t round, int& accepted) {
  std::string complaint;
  static_cast<void>(
      withoutExceptions([&] { return textGoesThrough(text, kPipelines[round % std::size(kPipelines)], accepted, complaint); }));
  return complaint;
}

}  // namespace qc::testing
