// The table of recipes, and what follows from its rows.
#include "runtime/workflow/recipes.h"

#include <gmock/gmock.h>

#include "ir/text.h"
#include "passes/pass_manager.h"
#include "runtime/workflow/prepared_model.h"
#include "runtime/workflow/recover.h"

namespace qc {
namespace {

using testing::Contains;
using testing::HasSubstr;

TEST(Recipes, RowsAreWhole) {
  for (const Recipe& recipe : recipes()) {
    EXPECT_THAT(recipe.choices, Contains(recipe.byDefault)) << recipe.name;
    EXPECT_THAT(recipe.choices, Contains(recipe.off)) << recipe.name;
    EXPECT_TRUE(PassRegistry::get().find(recipe.pass)) << recipe.pass;
    EXPECT_FALSE(recipe.movesChannels() && recipe.wantsProducts) << recipe.name << " is of channels or of layers";
    EXPECT_TRUE(!recipe.helpsDynamic || Pipeline::parse(std::string(recipe.pass) + "{dynamic=1}")) << recipe.pass;
  }
}

TEST(Recipes, UnknownNamesAndChoicesAreRefused) {
  EXPECT_TRUE(RecoverOptions().choose("equalize", "off").checkChoices());
  const Status name = RecoverOptions().choose("equalise", "off").checkChoices();
  ASSERT_FALSE(name);
  EXPECT_THAT(name.error().render(), HasSubstr("equalize"));
  const Status choice = RecoverOptions().choose("bias-correction", "slow").checkChoices();
  ASSERT_FALSE(choice);
  EXPECT_THAT(choice.error().render(), HasSubstr("choose off or fast or full"));
}

// The rules choose where the caller does not.
TEST(Recipes, AreNamedInRules) {
  const QConfigMapping rules = QConfigMapping::parse(R"({"recipes": {"equalize": "off", "bias-correction": "full"}})").value();
  EXPECT_EQ(QConfigMapping::parse(rules.toJson()).value().recipes(), rules.recipes());
  const RecoverOptions options = RecoverOptions().choose("bias-correction", "off").under(rules);
  for (const Recipe& recipe : recipes())
    EXPECT_EQ(options.choiceOf(recipe),
              recipe.name == "equalize" || recipe.name == "bias-correction" ? std::string_view("off") : recipe.byDefault)
        << recipe.name;
  const Model model(parseGraph("graph @g(%x: f32[4]) {\n  %y = relu %x : f32[4]\n  return %y\n}\n").value(), "g");
  const auto told = [&](const char* text) {
    const auto prepared = prepareModel(model, QConfigMapping::parse(text).value());
    return prepared ? std::string("no error") : prepared.error().render();
  };
  EXPECT_EQ(told(R"({"recipes": {"equalize": "off"}})"), "no error");
  EXPECT_THAT(told(R"({"recipes": {"equalise": "off"}})"), HasSubstr("did you mean 'equalize'"));
  EXPECT_THAT(told(R"({"recipes": {"equalize": "maybe"}})"), HasSubstr("choose on or off"));
}

// A pass that cannot do without data is refused where nothing provides it, before any pass of the pipeline has run.
TEST(Passes, NeedTheirData) {
  for (const auto& [name, pass] : PassRegistry::get().passes()) {
    if (pass.needs.empty()) continue;
    for (const PassNeed& need : pass.needs) {
      Graph graph("g");
      PassContext cx;
      const Status refused = runPipeline("cse," + name, graph, cx);
      ASSERT_FALSE(refused) << name;
      EXPECT_THAT(refused.error().render(), HasSubstr(need.what)) << name;
      EXPECT_TRUE(cx.timings.empty()) << "nothing ran";
      ASSERT_FALSE(need.instead.empty()) << name;
      const Status given = runPipeline(name + "{" + need.instead.front() + "=1}", graph, cx);
      EXPECT_TRUE(given || given.error().render().find(need.what) == std::string::npos) << given.error().render();
    }
  }
}

}  // namespace
}  // namespace qc
