// The table of recipes, and what follows from its rows.
#include "runtime/workflow/recipes.h"

#include <gmock/gmock.h>

#include "ir/files.h"
#include "passes/pass_manager.h"
#include "runtime/workflow/recover.h"

namespace qc {
namespace {

using testing::Contains;
using testing::HasSubstr;

TEST(Recipes, RowsAreWhole) {
  for (const Recipe& recipe : recipes()) {
    EXPECT_THAT(recipe.choices, Contains(recipe.byDefault)) << recipe.name;
    EXPECT_THAT(recipe.choices, Contains(recipe.off)) << recipe.name;
    EXPECT_NE(recipe.movesChannels(), recipe.apply != nullptr) << recipe.name << " is of channels or of layers";
    EXPECT_EQ(recipe.movesChannels(), PassRegistry::get().find(recipe.pass) != nullptr) << recipe.pass;
    EXPECT_TRUE(!recipe.helpsDynamic || Pipeline::parse(std::string(recipe.pass) + "{dynamic=1}")) << recipe.pass;
  }
}

TEST(Recipes, AreInTheHandbook) {
  const std::string page = readFile(QC_SOURCE_DIR "/quantizer/README.md", 1 << 20).value();
  for (const Recipe& recipe : recipes()) EXPECT_THAT(page, HasSubstr("| `--" + std::string(recipe.name))) << "a row of the table";
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
