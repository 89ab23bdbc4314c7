// Class labels of evaluation data.  A text file has a line for each sample, separated by tabs, commas or spaces:
//
//   cat.jpg<TAB>281          file name or running index, class index: the second column, and any column after it is passed over
//   file,wnid,index          a header (a first line without numbers) may name another column: index, class_index, label_index, class, label
//   cat.jpg,n02123045,281
//   tst_0.bin,12,7           MLPerf Tiny's files: the second of three columns is the number of classes, the same on every line
//
// Two lines of one sample say the same.  Lines that start with # are comments.  A .npy file holds one axis of integers, the classes of the
// samples in their order.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/status.h"

namespace qc {

class Labels {
 public:
  static Result<Labels> read(const std::string& path);
  // Looked up by file name where the labels have names, else by running index.
  Result<int64_t> of(const std::string& sampleName, int64_t index) const;
  size_t size() const { return byName_.size() + byIndex_.size(); }

 private:
  std::string path_;
  std::map<std::string, int64_t> byName_;
  std::map<int64_t, int64_t> byIndex_;
};

// What samples should give where that is not a class: one number or several, spaces between those of a sample.
//
//   a.npy<TAB>3.75           as above; a header may name the column: score, value, target, label, text
//   b.npy<TAB>12 7 7 40      a sequence
//
// A .npy file holds a number, or a row of numbers, for each sample.
class Answers {
 public:
  static Result<Answers> read(const std::string& path);
  Result<std::vector<double>> of(const std::string& sampleName, int64_t index) const;

 private:
  std::string path_;
  std::map<std::string, std::vector<double>> byName_;
  std::map<int64_t, std::vector<double>> byIndex_;
};

}  // namespace qc
