// What ops of ai.onnx.ml have in common: rows of features, scores, and labels.
#pragma once

#include "frontend/onnx/node.h"

namespace qc {

// The operand as f32[rows, features]; one dim alone is one row.  keepDoubles: f64 stays f64.
Result<Value*> featureRows(OnnxNode& n, bool keepDoubles = false);

// `post_transform` of scores [rows, classes].
Result<Value*> postTransformed(OnnxNode& n, Value* scores);

// Of two classes whose one score [rows, 1] is of the second: [rows, 2].  LOGISTIC: of the probabilities; else 1 - s beside s, or -s.
Result<Value*> bothClasses(OnnxNode& n, Value* score, bool isProbability);

// Class labels of a classifier: [rows], of the greatest score, or of the second of two where the one score exceeds the threshold.  Labels
// that are strings are an error where something reads them, else null.
struct ClassLabels {
  std::vector<int64_t> values;
  int64_t count = 0;
  bool areStrings = false;
};
Result<ClassLabels> labelsOf(OnnxNode& n, const char* integers, const char* strings);
Result<Value*> labelOfGreatest(OnnxNode& n, const ClassLabels& labels, Value* scores);
Result<Value*> labelAbove(OnnxNode& n, const ClassLabels& labels, Value* score, float threshold);

// A constant of numbers.
Value* realList(OnnxNode& n, DType dtype, std::vector<int64_t> sizes, const std::vector<double>& values);

}  // namespace qc
