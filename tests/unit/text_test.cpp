// The text form where golden tests cannot reach: arbitrary bytes, exact floats, annotations built in code, and
// graphs that no text can describe because the verifier must refuse them.
#include "ir/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ir/op_def.h"
#include "ir/payload.h"
#include "ir/text_lexer.h"
#include "ir/verify.h"

namespace qc {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

Graph parsed(std::string_view text) {
  auto graph = parseGraph(text, "test");
  EXPECT_TRUE(graph.has_value()) << graph.error().render();
  return graph ? std::move(*graph) : Graph();
}

std::string errorOf(std::string_view text) {
  auto graph = parseGraph(text, "test");
  return graph ? "no error" : graph.error().message();
}

TEST(RealText, ReadsBackExactly) {
  EXPECT_EQ(realText(1.0), "1.0");
  EXPECT_EQ(realText(-0.0), "-0.0");
  EXPECT_EQ(realText(1e-05), "1e-05");
  EXPECT_EQ(realText(0.1f), "0.1");
  EXPECT_EQ(realText(1e20), "1e+20");
  EXPECT_EQ(realText(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(realText(-std::numeric_limits<double>::infinity()), "-inf");
  EXPECT_EQ(realText(-std::numeric_limits<double>::quiet_NaN()), "nan");
  for (const double value : {1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789.0, 2.5e-7, 0x1p-149})
    EXPECT_EQ(std::strtod(realText(value).c_str(), nullptr), value) << realText(value);
}

TEST(AttrText, EveryKind) {
  EXPECT_EQ(toString(Attr(int64_t{-7})), "-7");
  EXPECT_EQ(toString(Attr(2.0)), "2.0");
  EXPECT_EQ(toString(Attr(std::string("a\n\"b\"\\\x01"))), R"("a\n\"b\"\\\x01")");
  EXPECT_EQ(toString(Attr(std::vector<int64_t>{1, 2})), "[1,2]");
  EXPECT_EQ(toString(Attr(std::vector<double>{1, 0.5})), "[1.0,0.5]");
  EXPECT_EQ(toString(Attr(DType::bf16)), "bf16");
  EXPECT_EQ(toString(Attr(QuantAttr{})), "none");
  EXPECT_EQ(toString(Attr(ScalarExpr::arg(0) + 1.0f)), "\"a0 + 1\"");
  EXPECT_EQ(toString(Attr(ExprAttr())), "\"\"");
  EXPECT_EQ(toString(Attr(Packing())), "\"s8 panel=64 lanes=16 group=4 pad=4 quad rows\"");
  EXPECT_EQ(toString(Attr(QuantAttr{quantPerTensor(DType::u8, 0.5f, 3)})), "q<u8, scale=0.5, zp=3>");
}

TEST(AttrDict, StaysSorted) {
  AttrDict dict{{"b", int64_t{2}}, {"a", 1.0}};
  dict.set("c", std::string("x"));
  dict.set("a", 3.0);
  std::string names;
  for (const auto& [name, value] : dict) names += name;
  EXPECT_EQ(names, "abc");
  EXPECT_EQ(dict.real("a"), 3.0);
  dict.erase("b");
  dict.erase("missing");
  EXPECT_EQ(dict.find("b"), nullptr);
}

// Trees and packings that code builds are held to what their text could say.
TEST(AttrDict, ChecksWhatIsBuilt) {
  Graph graph;
  Builder b(graph);
  Value* x = graph.addInput("x", TensorType(DType::f32, Shape{4}));
  const auto map = [&](const ScalarExpr& e) { return b.create("map", {x}, {{"expr", e}}); };
  ASSERT_TRUE(map(ScalarExpr::arg(0) * 2.0f));
  EXPECT_EQ(graph.back()->expr("expr")->str(), "a0 * 2");
  EXPECT_EQ(graph.back()->expr("post"), nullptr);
  ScalarExpr large = ScalarExpr::arg(0);
  for (int i = 0; i < 10000; ++i) large = large + static_cast<float>(i);
  ASSERT_FALSE(map(large));
  EXPECT_THAT(map(large).error().message(), HasSubstr("the limit is 65536"));
  EXPECT_THAT(map(ScalarExpr::arg(256)).error().message(), HasSubstr("the limit is 256"));
  AttrDict attrs{{"packing", Packing{.panel = 0}}};
  const AttrSpec spec{"packing", AttrKind::packing, std::nullopt};
  EXPECT_FALSE(checkAttrs("op", std::span(&spec, 1), attrs));
}

TEST(Lexer, TokensAtTheEdges) {
  const auto kinds = [](std::string_view text) {
    Lexer lexer(text);
    std::string all;
    for (Token t = lexer.next(); t.kind != Token::Kind::end; t = lexer.next()) {
      if (t.kind == Token::Kind::bad) return all + " BAD";
      all += (all.empty() ? "" : " ") + std::string(t.text);
    }
    return all;
  };
  EXPECT_EQ(kinds("q.conv%x->-1.5e-3:-inf"), "q.conv %x -> -1.5e-3 : -inf");
  EXPECT_EQ(kinds("u8.\"x\" -127:127"), "u8 . \"x\" -127 : 127");
  EXPECT_EQ(kinds("1e 1.x"), "1 e 1 . x");
  EXPECT_EQ(kinds("a//b\nc"), "a c");
  EXPECT_EQ(kinds("-"), "-");
  EXPECT_EQ(kinds("-info"), "- info");
  EXPECT_EQ(kinds("%\"open"), " BAD");
  EXPECT_EQ(kinds("\"a\\x4\""), " BAD");
}

TEST(Parse, ErrorsCarryThePlace) {
  EXPECT_EQ(errorOf("graph @g(%x: f32[2]) {\n  return %y\n}"), "test:2:10: %y is not defined above");
  EXPECT_THAT(errorOf(""), StartsWith("test:1:1: "));
  EXPECT_THAT(errorOf("graph @g() {\n  %0 = nop : f32[1]\n"), HasSubstr("test:2:8: unknown op 'nop'"));
}

TEST(Parse, InternsNothingStrange) {
  EXPECT_THAT(errorOf(std::string_view("graph @g\0", 9)), HasSubstr("unexpected byte 0x00"));
  EXPECT_THAT(errorOf("\xff\xfe"), HasSubstr("unexpected byte 0xff"));
}

constexpr std::string_view kSample = R"(!q0 = q<s8[-127:127], axis=0, scale=[0.5,0.25], zp=0>
graph @sample(%x: f32[2,N], %"a b": f32[2,1]) -> ("out put") {
  %0 = add %x, %"a b" : f32[2,N] @q(in=[u8.histogram{bins=2048}/sym, shared(%x:1)], out=-, reason="r")
  %y = clip %0 {max=6.0} : f32[2,N] loc("/a/b")
  return %y
}
)";

TEST(Parse, CanonicalTextIsAFixedPoint) {
  const std::string once = print(parsed(kSample), {.locations = true});
  EXPECT_EQ(print(parsed(once), {.locations = true}), once);
}

// Bytes changed, removed and doubled at random: an error or a graph, and a graph prints to a fixed point.
TEST(Parse, SurvivesMutations) {
  uint64_t state = 1;
  const auto random = [&](size_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return usize(state >> 33) % limit;
  };
  const std::string_view pieces[] = {"%",   "\"",  "q<",  "[", "]",    "{",  "}", "-", "99999999999999999999",
                                     "inf", "nan", "@q(", "_", "\xff", "\\", "/"};
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text(kSample);
    for (size_t edits = 1 + random(4); edits > 0 && !text.empty(); --edits) {
      const size_t at = random(text.size());
      switch (random(4)) {
        case 0: text[at] = static_cast<char>(random(256)); break;
        case 1: text.erase(at, 1 + random(8)); break;
        case 2: text.insert(at, text.substr(at, 1 + random(16))); break;
        default: text.insert(at, pieces[random(std::size(pieces))]);
      }
    }
    const auto graph = parseGraph(text, "test");
    if (!graph) continue;
    ++accepted;
    const std::string once = print(*graph, {.locations = true, .payloads = true});
    const auto again = parseGraph(once, "again");
    ASSERT_TRUE(again.has_value()) << text << "\n" << again.error().render();
    ASSERT_EQ(print(*again, {.locations = true, .payloads = true}), once) << text;
  }
  EXPECT_GT(accepted, 100);
}

TEST(Parse, EveryPrefixOfATextIsAnError) {
  for (size_t size = 0; size + 2 < kSample.size(); ++size)
    EXPECT_FALSE(parseGraph(kSample.substr(0, size), "test").has_value()) << kSample.substr(0, size);
}

TEST(Payload, EveryDTypeSurvives) {
  for (int d = 0; d <= static_cast<int>(DType::s4); ++d) {
    const auto dtype = static_cast<DType>(d);
    for (const int64_t count : {5, 40}) {
      Tensor tensor(dtype, {count});
      for (int64_t i = 0; i < count; ++i) {
        const auto x = static_cast<double>(i % 7);
        storeElement(dtype, tensor.mutableData(), i, isFloat(dtype) ? 0.1 * (x - 2) : x);
      }
      const std::string text = payloadText(tensor, PayloadForm::exact);
      TextReader in(text, "test");
      const auto back = readPayload(in, tensor.type());
      ASSERT_TRUE(back.has_value()) << text << back.error().render();
      EXPECT_TRUE(back->sameBytes(tensor)) << toString(dtype) << " " << text;
    }
  }
}

TEST(Annotation, BuiltInCodeRoundTrips) {
  QuantAnnotation a;
  ObservedSpec observed;
  observed.dtype = DType::s8;
  observed.qmin = -127;
  observed.qmax = 127;
  observed.scheme = QScheme::symmetric;
  observed.axis = 3;
  observed.blockSize = 32;
  observed.dynamic = true;
  observed.eps = 1e-12;
  observed.observer = "percentile 99/9";
  observed.observerArgs = {{"p", 99.9}, {"bins", int64_t{7}}, {"how", std::string("l2")}, {"l", std::vector<int64_t>{1}}};
  ObservedSpec half;
  half.dtype = DType::f16;
  half.observer = "placeholder";
  a.inputs = {observed,
              half,
              FixedSpec{*quantPerTensor(DType::u8, 1.0f / 256, 0)},
              SharedSpec{{"x y", 2}},
              DerivedSpec{{{"a", 0}, {"a", 1}}, "bias", DType::s32},
              DerivedSpec{{}, "other", DType::s16},
              CastSpec{DType::bf16},
              QuantSpec()};
  a.output = SharedSpec{{"a", -1}};
  a.allowImplicitSharing = false;
  a.keepFloat = true;
  a.reason = "rule \"x\"\n";
  const std::string text = toString(a);
  TextReader reader(text, "test");
  const auto back = readAnnotation(reader);
  ASSERT_TRUE(back.has_value()) << text << "\n" << back.error().render();
  EXPECT_TRUE(*back == a) << text << "\n" << toString(*back);
}

// ---- The verifier on graphs that no text describes ----

TEST(Verify, RefusesATypeThatInferenceDenies) {
  Graph g = parsed("graph @g(%x: f32[2]) {\n  %y = relu %x : f32[2]\n  return %y\n}");
  ASSERT_TRUE(verify(g).has_value());
  g.findValue("y")->setType({DType::f32, {3}});
  const auto status = verify(g);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().tensor(), "y");
  EXPECT_EQ(status.error().node(), "test:2");
  EXPECT_THAT(status.error().message(), HasSubstr("result 0 of 'relu' is f32[3], inference says f32[2]"));
}

TEST(Verify, RefusesAWrongOrder) {
  Graph g = parsed("graph @g(%x: f32[2]) {\n  %y = relu %x : f32[2]\n  %z = neg %y : f32[2]\n  return %z\n}");
  g.moveBefore(g.back(), g.front());
  const auto status = verify(g);
  ASSERT_FALSE(status.has_value());
  EXPECT_THAT(status.error().message(), HasSubstr("'neg' uses %y before it is defined"));
}

TEST(Verify, TellsAllViolations) {
  Graph g = parsed("graph @g(%x: f32[2]) {\n  %y = relu %x : f32[2]\n  %z = neg %x : f32[2]\n  return %y, %z\n}");
  g.findValue("y")->setType({DType::f32, {3}});
  g.findValue("z")->producer()->attrs().set("alpha", 1.0);
  const auto status = verify(g);
  ASSERT_FALSE(status.has_value());
  EXPECT_THAT(status.error().message(), HasSubstr("result 0 of 'relu'"));
  EXPECT_THAT(status.error().message(), HasSubstr("\nnode 'test:3': 'neg' has no attribute 'alpha'"));
}

TEST(Verify, RefusesLostDefaults) {
  Graph g = parsed("graph @g(%x: f32[2]) {\n  %y = clip %x : f32[2]\n  return %y\n}");
  g.front()->attrs().erase("max");
  EXPECT_FALSE(verify(g).has_value());
}

TEST(Verify, UnknownDimsAgreeWithAny) {
  const TensorType unknown(DType::f32, {Dim::unknown(), 3}), known(DType::f32, {2, 3}), other(DType::f32, {2, 4});
  EXPECT_TRUE(agrees(unknown, unknown));
  EXPECT_TRUE(agrees(unknown, known));
  EXPECT_FALSE(agrees(known, unknown));
  EXPECT_FALSE(agrees(unknown, other));
}

TEST(Verify, NamesTheStage) {
  for (const auto& [name, def] : OpRegistry::get().ops()) EXPECT_NE(def.stages, 0) << name << " is legal nowhere";
}

}  // namespace
}  // namespace qc
