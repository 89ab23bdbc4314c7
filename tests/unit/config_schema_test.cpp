// The published schemas against the parsers: what one takes the other takes, but for what only a program can know (names of observers,
// ranges that leave out 0).
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "json_schema.h"
#include "quantizer/observers/observer.h"
#include "quantizer/rules/backend_config.h"
#include "quantizer/rules/qconfig.h"

namespace qc {
namespace {

using nlohmann::json;

json schemaText(const std::string& name) {
  std::ifstream in(std::string(QC_SOURCE_DIR) + "/quantizer/rules/" + name + ".schema.json");
  EXPECT_TRUE(in) << name;
  return json::parse(in);
}

struct Example {
  const char* text;
  bool good;
};

template <class Parse>
void compare(const std::string& name, const std::vector<Example>& examples, Parse parse) {
  const test::JsonSchema schema(schemaText(name));
  for (const auto& [text, good] : examples) {
    const auto parsed = parse(text);
    EXPECT_EQ(parsed.has_value(), good) << text << "\n" << (parsed ? "" : parsed.error().render());
    EXPECT_EQ(schema.accepts(json::parse(text)), good) << text;
    if (!parsed) continue;
    const std::string again = parsed->toJson();
    EXPECT_TRUE(schema.accepts(json::parse(again))) << again;
    const auto reread = parse(again.c_str());
    ASSERT_TRUE(reread) << reread.error().render();
    EXPECT_EQ(reread->toJson(), again);
  }
}

TEST(ConfigSchema, Rules) {
  compare(
      "rules",
      {
          {R"({})", true},
          {R"([])", false},
          {R"({"backend": "tensorrt"})", true},
          {R"({"backend": "tpu"})", false},
          {R"({"rulez": []})", false},
          {R"({"guards": {"masked_scores": false}})", true},
          {R"({"guards": {"masked_scores": false, "biases": true}})", true},
          {R"({"guards": {"biases": "off"}})", false},
          {R"({"guards": {"scores": false}})", false},
          {R"({"guards": false})", false},
          {R"({"recipes": {"equalize": "off", "round-weights": "nearest"}})", true},
          {R"({"recipes": {}})", true},
          {R"({"recipes": {"equalize": false}})", false},
          {R"({"recipes": ["equalize"]})", false},
          {R"({"standalone": [{"from": "x", "to": "y", "rules": {"recipes": {"equalize": "off"}}}]})", false},
          {R"({"force": true})", true},
          {R"({"force": 1})", false},
          {R"({"rules": [{"name": "/fc", "qconfig": "default", "force": true}]})", true},
          {R"({"rules": [{"name": "/fc", "qconfig": "default", "force": true, "optional": true}]})", true},
          {R"({"rules": [{"name": "/fc", "qconfig": "default", "force": "yes"}]})", false},
          {R"({"standalone": [{"from": "a", "to": "b", "rules": {"backend": "xnnpack"}}]})", true},
          {R"({"standalone": [{"from": "a", "to": "b"}]})", false},
          {R"({"standalone": [{"from": "a", "to": "b", "rules": {"standalone": []}}]})", false},
          {R"({"standalone": {"from": "a", "to": "b", "rules": {}}})", false},
          {R"({"quantized_inputs": [0, 2], "quantized_outputs": [1]})", true},
          {R"({"quantized_inputs": [-1]})", false},
          {R"({"quantized_outputs": 0})", false},
          {R"({"quantized_outputs": ["y"]})", false},
          {R"({"rules": {}})", false},
          {R"({"global": "float"})", true},
          {R"({"global": null})", true},
          {R"({"global": "int8"})", false},
          {R"({"global": {"activation": {"observer": "minmax", "eps": 0.001}, "weight": {}}})", true},
          {R"({"global": {"bias": {}}})", false},
          {R"({"global": {"activation": {"eps": 0}}})", false},
          {R"({"global": {"activation": {"dtype": "f32"}}})", false},
          {R"({"global": {"activation": {"dtype": "s16"}}})", true},
          {R"({"global": {"activation": {"range": [0]}}})", false},
          {R"({"global": {"activation": {"range": [0, 127]}}})", true},
          {R"({"global": {"activation": {"range": [0, 12.5]}}})", false},
          {R"({"global": {"activation": {"scheme": "log"}}})", false},
          {R"({"global": {"weight": {"axis": 40}}})", false},
          {R"({"global": {"weight": {"scheme": "float_qparams"}}})", true},
          {R"({"global": {"weight": {"observer": "per_group", "axis": 1, "block_size": 32}}})", true},
          {R"({"global": {"weight": {"observer": "per_block", "axis": -1, "args": {"block_size": [1, 32]}}}})", true},
          {R"({"global": {"weight": {"observer": "per_block", "axis": -1, "args": {"block_size": [1, "x"]}}}})", false},
          {R"({"global": {"activation": {"observer": "histogram", "args": {"bins": {}}}}})", false},
          {R"({"global": {"activation": {"dynamic": 1}}})", false},
          {R"({"rules": [{"object_type": "softmax", "qconfig": "float"}]})", true},
          {R"({"rules": [{"object_type": "softmax", "qconfig": "float", "optional": true}]})", true},
          {R"({"rules": [{"object_type": "softmax", "qconfig": "float", "optional": "yes"}]})", false},
          {R"({"rules": [{"object_type": "softmax"}]})", false},
          {R"({"rules": [{"qconfig": "float"}]})", false},
          {R"({"global": "float16_weights", "rules": [{"name": "a", "qconfig": "weight_only_int4"}, {"name_regex": "b.*", "qconfig": "dynamic"}]})",
           true},
          {R"({"rules": [{"name": "a", "name_regex": "b.*", "qconfig": "dynamic"}]})", false},
          {R"({"rules": [{"name": "a", "object_type": "Conv", "order": 2, "qconfig": "float"}]})", true},
          {R"({"rules": [{"name": "a", "object_type": "Conv", "order": -1, "qconfig": "float"}]})", false},
          {R"({"rules": [{"name": "a", "object_type": "Conv", "qconfig": "float"}]})", false},
          {R"({"rules": [{"from": "a", "to": "b", "qconfig": "float"}]})", true},
          {R"({"rules": [{"from": "a", "qconfig": "float"}]})", false},
          {R"({"rules": [{"name": 5, "qconfig": "float"}]})", false},
          {R"({"backend_config": "qnnpack"})", true},
          {R"({"backend_config": "qnpack"})", false},
          {R"({"backend_config": null})", true},
          {R"({"backend_config": {"extends": "x86"}})", true},
          {R"({"backend_config": 3})", false},
      },
      [](const char* text) { return QConfigMapping::parse(text); });
}

TEST(ConfigSchema, BackendTables) {
  compare(
      "backend_config",
      {
          {R"({})", true},
          {R"({"name": "npu", "extends": "qnnpack"})", true},
          {R"({"extends": "abc"})", false},
          {R"({"patterns": [{"ops": ["conv", "relu"], "dtypes": [{"input": "s8", "output": "s8", "weight": "s8", "bias": "f32"}]}]})",
           true},
          {R"({"patterns": [{"ops": ["conv"], "observation": "share_input", "dtypes": [{}]}]})", true},
          {R"({"patterns": [{"ops": ["conv"], "observation": "shared", "dtypes": [{}]}]})", false},
          {R"({"patterns": [{"ops": [], "dtypes": [{}]}]})", false},
          {R"({"patterns": [{"ops": ["conv"], "dtypes": []}]})", false},
          {R"({"patterns": [{"ops": ["conv"]}]})", false},
          {R"({"patterns": [{"dtypes": [{}]}]})", false},
          {R"({"extends": "x86", "patterns": [{"ops": ["sigmoid"], "remove": true}]})", true},
          {R"({"extends": "x86", "patterns": [{"ops": ["sigmoid"], "remove": false}]})", false},
          {R"({"extends": "x86", "patterns": [{"ops": ["sigmoid"], "remove": true, "dtypes": [{}]}]})", false},
          {R"({"patterns": [{"ops": ["conv"], "dtypes": [{"input": {"dtype": "s8", "qmin_lowest": -127, "qmax_highest": 127, "scale_min": 0.1}}]}]})",
           true},
          {R"({"patterns": [{"ops": ["tanh"], "dtypes": [{"output": {"dtype": "u8", "exact_scale": 0.0078125, "exact_zero_point": 128}}]}]})",
           true},
          {R"({"patterns": [{"ops": ["conv"], "dtypes": [{"input": {"qmin_lowest": -127}}]}]})", false},
          {R"({"patterns": [{"ops": ["conv"], "dtypes": [{"input": "int8"}]}]})", false},
          {R"({"patterns": [{"ops": ["conv"], "dtypes": [{"input": {"dtype": "s8", "scale_min": "x"}}]}]})", false},
          {R"({"patterns": [{"ops": ["conv"], "dtypes": [{"dynamic": "no"}]}]})", false},
          {R"({"patterns": [{"ops": ["conv"], "dtypes": [{"activation": "s8"}]}]})", false},
      },
      [](const char* text) { return BackendConfig::parse(text); });
}

TEST(ConfigSchema, ListsWhatExists) {
  const json rules = schemaText("rules"), tables = schemaText("backend_config");
  auto observers = rules["$defs"]["spec"]["properties"]["observer"]["examples"].get<std::vector<std::string>>();
  std::sort(observers.begin(), observers.end());
  std::vector<std::string> known;
  for (const ObserverDef* def : observerTable()) known.push_back(def->name);
  EXPECT_EQ(observers, known);
  const auto names = builtinBackendNames();
  EXPECT_EQ(tables["properties"]["extends"]["enum"].get<std::vector<std::string>>(), names);
  EXPECT_EQ(rules["properties"]["backend_config"]["anyOf"][1]["enum"].get<std::vector<std::string>>(), names);
  for (const std::string backend : rules["properties"]["backend"]["enum"]) EXPECT_TRUE(parseBackend(backend)) << backend;
}

}  // namespace
}  // namespace qc
