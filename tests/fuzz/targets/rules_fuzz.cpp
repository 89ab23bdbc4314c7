// Rules and backends in JSON: what is accepted can be written, and reads back as the same.
#include "quantizer/rules/backend_config.h"
#include "quantizer/rules/qconfig.h"
#include "tests/fuzz/targets/target.h"

using namespace qc::testing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(bytesOf(data, size));
  if (const auto rules = qc::QConfigMapping::parse(text, "fuzz")) {
    const std::string once = rules->toJson();
    const auto again = qc::QConfigMapping::parse(once, "again");
    if (!again) complain(again.error().render() + "\n" + once);
    if (again->toJson() != once) complain("reads something else than it wrote:\n" + once);
  }
  if (const auto backend = qc::BackendConfig::parse(text, "fuzz")) {
    const std::string once = backend->toJson();
    const auto again = qc::BackendConfig::parse(once, "again");
    if (!again) complain(again.error().render() + "\n" + once);
    if (again->toJson() != once) complain("reads something else than it wrote:\n" + once);
  }
  return 0;
}
