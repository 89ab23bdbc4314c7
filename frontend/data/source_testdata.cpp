// testdata:DIR
#include <onnx/onnx_pb.h>

#include "frontend/data/sources.h"
#include "frontend/onnx/tensor.h"
#include "ir/files.h"
#include "ir/signed_index.h"

namespace qc {
namespace {

namespace fs = std::filesystem;

bool isFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

class TestDataSource : public FolderSource {
 public:
  static Result<std::shared_ptr<const SampleSource>> open(SourceText& text, const std::vector<InputInfo>& inputs) {
    auto s = std::make_shared<TestDataSource>();
    s->inputs_ = inputs;
    QC_ASSIGN(s->files_, filesOf(
                             text.path, [](const fs::path& p) { return isFolder(p) && p.filename().string().starts_with("test_data_set"); },
                             "test_data_set_* folders"));
    return std::shared_ptr<const SampleSource>(std::move(s));
  }
  Result<Arrays> sample(int64_t i) const override {
    Arrays result;
    for (size_t k = 0; k < inputs_.size(); ++k) {
      const fs::path path = fs::path(nth(files_.paths, i)) / fmt::format("input_{}.pb", k);
      QC_ASSIGN(const std::string bytes, readFile(path.string()));
      onnx::TensorProto proto;
      if (!proto.ParseFromString(bytes)) return fail(ErrorCode::kInvalidData, "cannot read '{}'", path.string()).on(inputs_[k].name);
      QC_ASSIGN(result[inputs_[k].name], tensorFromOnnx(proto, {}));
    }
    return result;
  }
  Preprocessing preprocessing() const override { return {}; }

 private:
  std::vector<InputInfo> inputs_;
};

}  // namespace

SourceRow testdataRow() {
  return {{"testdata", "testdata:DIR", "folders test_data_set_*/input_N.pb, as ONNX's tests have them", optionsOfAll()},
          TestDataSource::open};
}

}  // namespace qc
