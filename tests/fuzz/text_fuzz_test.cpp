// Mutations of every golden .qir file: whatever the text, parsing gives an error or a graph that verifies and prints to a
// fixed point, and the passes over such a graph give an error or a graph that verifies.
// QC_FUZZ_ROUNDS=N and QC_FUZZ_SEED=N for more; the text at work is written to QC_FUZZ_LAST if set, so that a crash leaves it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "ir/interp.h"
#include "ir/text.h"
#include "ir/text_lexer.h"
#include "ir/verify.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  size_t below(size_t limit) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>(state_ >> 33) % limit;
  }

 private:
  uint64_t state_;
};

uint64_t fromEnvironment(const char* name, uint64_t usual) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : usual;
}

// One text per graph.
std::vector<std::string> seeds() {
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

std::vector<Token> tokens(std::string_view text) {
  std::vector<Token> all;
  Lexer lexer(text);
  for (Token t = lexer.next(); t.kind != Token::Kind::end && t.kind != Token::Kind::bad; t = lexer.next()) all.push_back(t);
  return all;
}

constexpr std::string_view kNumbers[] = {
    "0",   "1",    "-1",   "2",   "3",    "7",  "255", "-128", "4096", "2147483647", "9223372036854775807", "-9223372036854775808",
    "0.0", "-0.5", "1e38", "inf", "-inf", "nan"};

// Exchanges words for others of their kind, mostly: plain noise rarely gets past the parser.
std::string mutate(const std::string& seed, const std::vector<std::string>& all, Random& random) {
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
  constexpr int64_t kMost = 1 << 14;
  const auto small = [](const Value* v) { return v->type().isStatic() && v->type().numElements() <= kMost; };
  for (const Value* v : graph.inputs())
    if (!small(v)) return false;
  for (const Node* n = graph.front(); n; n = n->next())
    for (int i = 0; i < n->numResults(); ++i)
      if (!small(n->result(i))) return false;
  return true;
}

void checkText(const std::string& text, std::string_view passes, int& accepted) {
  auto graph = parseGraph(text, "test");
  if (!graph) return;
  ++accepted;
  if (const Status s = verify(*graph); !s) FAIL() << s.error().render() << "\n" << text;
  const PrintOptions exact{.locations = true, .payloads = true};
  const std::string once = print(*graph, exact);
  const auto again = parseGraph(once, "again");
  ASSERT_TRUE(again.has_value()) << again.error().render() << "\n" << once;
  ASSERT_EQ(print(*again, exact), once);
  if (!isSmall(*graph)) return;
  std::vector<Tensor> inputs;
  for (const Value* v : graph->inputs()) inputs.emplace_back(v->type().dtype, v->type().sizes());
  static_cast<void>(interpret(*graph, inputs));
  const auto pipeline = Pipeline::parse(passes);
  ASSERT_TRUE(pipeline.has_value()) << pipeline.error().render();
  PassManagerOptions options;
  options.verifyEach = true;
  PassManager manager(*pipeline, options);
  PassContext cx;
  const Status status = manager.run(*graph, cx);
  ASSERT_TRUE(status || status.error().code() != ErrorCode::kInternal) << status.error().render() << "\n" << text;
}

TEST(TextFuzz, ErrorsOrValidGraphs) {
  const std::vector<std::string> all = seeds();
  ASSERT_GT(all.size(), 20u);
  Random random(fromEnvironment("QC_FUZZ_SEED", 1));
  const char* last = std::getenv("QC_FUZZ_LAST");
  int accepted = 0;
  const uint64_t rounds = fromEnvironment("QC_FUZZ_ROUNDS", 3000);
  for (uint64_t i = 0; i < rounds && !HasFatalFailure(); ++i) {
    const std::string text = mutate(all[i % all.size()], all, random);
    if (last) std::ofstream(last) << text;
    checkText(text, kPipelines[i % std::size(kPipelines)], accepted);
  }
  EXPECT_GT(accepted, static_cast<int>(rounds / 50));
}

}  // namespace
}  // namespace qc
