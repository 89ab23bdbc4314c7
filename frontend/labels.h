// Class labels of evaluation data: TSV or CSV of (file name or running index, class index), or an npy of class indices.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/status.h"

namespace qc {

class Labels {
 public:
  // A first line whose last column is no number is a header.  The class is the last column that is a number.
  static Result<Labels> read(const std::string& path);
  // Looked up by file name where the labels have names, else by running index.
  Result<int64_t> of(const std::string& sampleName, int64_t index) const;
  size_t size() const { return byName_.size() + byIndex_.size(); }

 private:
  std::string path_;
  std::map<std::string, int64_t> byName_;
  std::map<int64_t, int64_t> byIndex_;
};

}  // namespace qc
