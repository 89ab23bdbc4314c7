// The ready quantizers: where settings apply, call sites, composition; properties of sharing on random graphs.
#include "quantizer/pattern_quantizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "ir/text.h"
#include "passes/pass_manager.h"
#include "quantizer/derived.h"
#include "quantizer/sharing.h"

namespace qc {
namespace {

using testing::HasSubstr;

constexpr const char* kNet = R"(
const #w : f32[8,8,3,3] = rand(7, -1.0, 1.0)
graph @g(%x: f32[1,8,8,8]) -> ("y") {
  %w = const #w : f32[8,8,3,3]
  %a = conv %x, %w {pads=[1,1,1,1]} : f32[1,8,8,8] loc("/body/Conv")
  %b = clip %a {min=0.0, max=6.0} : f32[1,8,8,8] loc("/body/Clip")
  %c = conv %b, %w {pads=[1,1,1,1]} : f32[1,8,8,8] loc("/head/Conv")
  %d = clip %c {min=0.0, max=6.0} : f32[1,8,8,8] loc("/head/Clip")
  %e = transpose %d {perm=[0,2,3,1]} : f32[1,8,8,8] loc("/head/Transpose")
  %y = matmul %e, %e : f32[1,8,8,8] loc("/head/MatMul")
  return %y
})";

class Ready : public testing::Test {
 protected:
  void SetUp() override {
    auto parsed = parseGraph(kNet);
    ASSERT_TRUE(parsed) << parsed.error().render();
    graph_ = std::move(*parsed);
  }
  void annotate(Quantizer& q) {
    const Status annotated = q.annotate(graph_);
    ASSERT_TRUE(annotated) << annotated.error().render();
    const Status valid = q.validate(graph_);
    ASSERT_TRUE(valid) << valid.error().render();
  }
  const QuantAnnotation* of(const std::string& value) {
    const auto& a = graph_.findValue(value)->producer()->annotation();
    return a ? &*a : nullptr;
  }
  std::string out(const std::string& value) { return of(value) ? toString(of(value)->output) : "none"; }
  Graph graph_;
};

TEST_F(Ready, EveryCallSiteIsFusedWithWhatFollows) {
  XnnpackQuantizer q;
  q.setGlobal(defaultQConfig(Backend::xnnpack));
  annotate(q);
  for (const char* inner : {"a", "c"}) EXPECT_EQ(out(inner), "-") << "not rounded in front of its clip";
  for (const char* last : {"b", "d"}) EXPECT_THAT(out(last), HasSubstr("s8.histogram"));
  EXPECT_EQ(out("e"), "shared(%d)");
  EXPECT_EQ(of("y"), nullptr) << "no matmul in this recipe";
}

TEST_F(Ready, SettingsByNameTypeAndFilter) {
  XnnpackQuantizer q;
  QConfig mine = defaultQConfig(Backend::xnnpack);
  mine.activation.observer = "minmax";
  q.setGlobal(defaultQConfig(Backend::xnnpack)).setOperatorType("clip", keepFloat()).setName("/head", mine);
  annotate(q);
  EXPECT_THAT(out("a"), HasSubstr("s8.histogram")) << "its clip is kept out";
  EXPECT_TRUE(of("b")->keepFloat);
  EXPECT_THAT(out("d"), HasSubstr("s8.minmax")) << "the name wins over the type";
  SetUp();
  XnnpackQuantizer filtered;
  filtered.setGlobal(mine).setFilter([](const Node& n) { return n.location().starts_with("/head"); });
  annotate(filtered);
  EXPECT_EQ(of("a"), nullptr);
  EXPECT_THAT(out("d"), HasSubstr("s8.minmax"));
  XnnpackQuantizer wrong;
  wrong.setName("/heat", mine);
  const Status refused = wrong.annotate(graph_);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().render(), HasSubstr("'/head'"));
}

TEST_F(Ready, X86RoundsInputsAndMatmulOnRequest) {
  X86Quantizer q;
  q.setGlobal(defaultQConfig(Backend::x86));
  annotate(q);
  EXPECT_EQ(out("b"), "-");
  EXPECT_EQ(of("y"), nullptr);
  SetUp();
  q.setOperatorType("matmul", defaultQConfig(Backend::x86));
  annotate(q);
  EXPECT_THAT(toString(of("y")->inputs[0]), HasSubstr("u8.histogram"));
}

TEST_F(Ready, ComposedQuantizersRespectClaims) {
  auto head = std::make_shared<X86Quantizer>();
  head->setName("/head", defaultQConfig(Backend::x86));
  auto rest = std::make_shared<XnnpackQuantizer>();
  rest->setGlobal(defaultQConfig(Backend::xnnpack));
  ComposableQuantizer both({head, rest});
  annotate(both);
  EXPECT_THAT(toString(of("c")->inputs[0]), HasSubstr("u8.histogram"));
  EXPECT_EQ(out("d"), "-") << "inside the first one's pattern";
  EXPECT_THAT(out("b"), HasSubstr("s8.histogram"));
}

TEST_F(Ready, ADerivedSpecNeedsAnAnnotatedSource) {
  Node* c = graph_.findValue("c")->producer();
  c->annotation() = QuantAnnotation{{ObservedSpec{}, DerivedSpec{{{"c", 0}, {"y", 1}}, "bias", DType::s32}}, {}, true, false, {}};
  const Status status = validateAnnotations(graph_);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().render(), HasSubstr("'%y:1', which is not annotated"));
}

TEST(Annotations, FitTheirValues) {
  const auto message = [](const std::string& weights) {
    const auto graph = parseGraph(R"(
const #w : f32[4,2] = splat 1.0
graph @g(%x: f32[1,2]) {
  %w = const #w : f32[4,2]
  %y = linear %x, %w : f32[1,4] @q(in=[-, )" +
                                  weights + R"(], out=-)
  return %y
})");
    const Status status = validateAnnotations(*graph);
    return status ? "no error" : status.error().render();
  };
  EXPECT_EQ(message("fixed(q<s8, scale=[0.5,0.5,0.25,1.0], zp=0, axis=0>)"), "no error");
  EXPECT_THAT(message("fixed(q<s8, scale=[0.5,0.25], zp=0, axis=0>)"), HasSubstr("2 scales along axis 0 of [4,2], expected 4"));
  EXPECT_THAT(message("fixed(q<s8, scale=[0.5,0.25], zp=0, axis=2>)"), HasSubstr("axis 2 of the scales on a tensor of rank 2"));
  EXPECT_EQ(message("cast(f16)"), "no error");
  EXPECT_THAT(message("cast(bf16)"), HasSubstr("a cast to bf16"));
}

// A derivation of one's own: the coarser of two, for the two inputs of an add.
TEST(Derived, ByAFunctionOfOnesOwn) {
  const Derivation coarser = [](std::span<const QuantPtr> from, DType) -> Result<QuantParams> {
    return from[0]->scale() > from[1]->scale() ? *from[0] : *from[1];
  };
  ASSERT_TRUE(registerDerivation("coarser", coarser));
  EXPECT_FALSE(registerDerivation("coarser", coarser)) << "the name is taken";
  const auto graph = [](const std::string& function, const std::string& from) {
    return parseGraph(R"(
graph @g(%x: f32[4], %z: f32[4]) -> ("y") {
  %a = relu %x : f32[4] @q(out=fixed(q<u8, scale=0.5, zp=0>))
  %b = neg %z : f32[4] @q(out=fixed(q<u8, scale=0.25, zp=10>))
  %c = sigmoid %z : f32[4]
  %y = mul %b, %c : f32[4] @q(in=[-, derived()" +
                      from + ", function=\"" + function + R"(", dtype=u8)], out=derived(%a, %b, function="coarser", dtype=u8))
  return %y
})");
  };
  auto good = graph("coarser", "%b, %a");
  ASSERT_TRUE(good) << good.error().render();
  ASSERT_TRUE(validateAnnotations(*good)) << validateAnnotations(*good).error().render();
  PassContext cx;
  const Status converted = runPipeline("prepare,convert", *good, cx);
  ASSERT_TRUE(converted) << converted.error().render();
  EXPECT_THAT(good->str(), HasSubstr("%c_q = quantize %c : !q1[")) << good->str();
  EXPECT_THAT(good->str(), HasSubstr("%y_q = quantize %y : !q1["));
  EXPECT_THAT(good->str(), HasSubstr("!q1 = q<u8, scale=0.5, zp=0>"));
  EXPECT_THAT(validateAnnotations(*graph("coarse", "%b, %a")).error().render(), HasSubstr("did you mean 'coarser'"));
  EXPECT_THAT(validateAnnotations(*graph("coarser", "%b, %c")).error().render(), HasSubstr("'%c', which is not annotated"));
}

// Random graphs with random specs: whatever sharing gives is a partition in which explicit shares hold, specs agree, and edges joined
// implicitly read one value; what cannot be grouped is refused with a chain.
TEST(SharingProperties, OnRandomGraphs) {
  std::mt19937 random(5);
  const auto pick = [&](int n) { return std::uniform_int_distribution<int>(0, n - 1)(random); };
  int grouped = 0, refused = 0;
  for (int round = 0; round < 400; ++round) {
    std::string text = "graph @g(%v0: f32[4], %v1: f32[4]) -> (\"y\") {\n";
    const int nodes = 2 + pick(7);
    const auto spec = [&](int upTo) -> std::string {
      switch (pick(6)) {
        case 0: return "-";
        case 1: return "u8.minmax";
        case 2: return "s8.minmax";
        case 3: return fmt::format("shared(%v{})", 2 + pick(upTo));
        case 4: return fmt::format("shared(%v{}:{})", 2 + pick(upTo), pick(2));
        default: return "u8.minmax";
      }
    };
    for (int i = 0; i < nodes; ++i) {
      const int v = 2 + i;
      text += fmt::format("  %v{} = add %v{}, %v{} : f32[4] @q(in=[{}, {}], out={}{})\n", v, pick(v), pick(v), spec(i + 1), spec(i + 1),
                          spec(i + 1), pick(4) == 0 ? ", no_sharing" : "");
    }
    text += fmt::format("  return %v{}\n}}\n", nodes + 1);
    const auto graph = parseGraph(text);
    ASSERT_TRUE(graph) << graph.error().render();
    const auto groups = computeSharingGroups(*graph);
    if (!groups) {
      EXPECT_THAT(groups.error().message(), HasSubstr(" -> "));
      ++refused;
      continue;
    }
    ++grouped;
    size_t members = 0;
    for (size_t g = 0; g < groups->members.size(); ++g) {
      members += groups->members[g].size();
      for (const EdgeOrNode& point : groups->members[g]) {
        EXPECT_EQ(groups->groupOf.at(point), static_cast<int>(g));
        const QuantAnnotation& a = *graph->findValue(point.value)->producer()->annotation();
        const QuantSpec& own = point.operand < 0 ? a.output : nth(a.inputs, point.operand);
        if (const auto* shared = std::get_if<SharedSpec>(&own))
          EXPECT_EQ(groups->groupOf.at(shared->with), static_cast<int>(g)) << text;
        else
          EXPECT_EQ(toString(own), toString(groups->specs[g])) << text;
      }
    }
    EXPECT_EQ(members, groups->groupOf.size());
  }
  EXPECT_GT(grouped, 50);
  EXPECT_GT(refused, 50);
}

}  // namespace
}  // namespace qc
