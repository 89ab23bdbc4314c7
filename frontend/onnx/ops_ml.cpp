// Ops of ai.onnx.ml that are arithmetic: scaling, selection and encoding of features, linear models, support vectors.  What the standard
// leaves open is as ONNX Runtime has it.
#include "frontend/onnx/ml.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/tensor.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Reals = std::vector<double>;

std::string cutInFront() { return fmt::format("cut the model in front of it: {}, with the outputs that are numbers", kExtractModel); }

Failure ofStrings(const OnnxNode& n, std::string_view what) {
  return n.error(ErrorCode::kUnsupported, "{} are strings, and tensors hold numbers", what)
      .help(fmt::format("train with classes and categories that are integers, or {}", cutInFront()));
}

// One number for each feature, or one for all.
Result<Value*> perFeature(OnnxNode& n, const char* name, Reals values, DType dtype, const Value* x) {
  const auto count = static_cast<int64_t>(values.size());
  const Dim features = x->type().shape.back();
  if (count == 0 || (count > 1 && features.isStatic() && features.size() != count))
    return n.error(ErrorCode::kInvalidModel, "`{}` has {} entries, input {}", name, count, x->type().str());
  return realList(n, dtype, count == 1 ? Ints{} : Ints{count}, values);
}

Result<Value*> asFloat(OnnxNode& n, Value* v) {
  if (v->type().dtype == DType::f32) return v;
  return n.create("cast", {v}, {{"to", DType::f32}});
}

// ---- features ---------------------------------------------------------------------------------------------------------------

// (x - offset) * scale
Status scaler(OnnxNode& n) {
  if (n.type(0).rank() < 1) return n.error(ErrorCode::kInvalidModel, "input {}", n.type(0).str());
  const DType dtype = n.type(0).dtype == DType::f64 ? DType::f64 : DType::f32;
  QC_ASSIGN(Reals offset, n.reals("offset"));
  QC_ASSIGN(Reals scale, n.reals("scale"));
  Value* x = n.input(0);
  if (x->type().dtype != dtype) {
    QC_ASSIGN(x, asFloat(n, x));
  }
  QC_ASSIGN(Value * o, perFeature(n, "offset", std::move(offset), dtype, x));
  QC_ASSIGN(Value * s, perFeature(n, "scale", std::move(scale), dtype, x));
  QC_ASSIGN(Value * y, n.create("sub", {x, o}));
  QC_ASSIGN(y, n.create("mul", {y, s}));
  QC_ASSIGN(y, asFloat(n, y));
  return n.setOutput(y);
}

// Rows of which the norm is 0 stay as they are; MAX is the greatest element, whatever the signs.
Status normalizer(OnnxNode& n) {
  QC_ASSIGN(const std::string norm, n.string("norm", "MAX"));
  const int rank = n.type(0).rank();
  if (rank != 1 && rank != 2) return n.error(ErrorCode::kInvalidModel, "input {}", n.type(0).str());
  QC_ASSIGN(Value * x, asFloat(n, n.input(0)));
  const AttrDict axis = {{"axes", Ints{rank - 1}}};
  Value* divisor = nullptr;
  if (norm == "MAX") {
    QC_ASSIGN(divisor, n.create("reduce_max", {x}, axis));
  } else if (norm == "L1") {
    QC_ASSIGN(divisor, n.create("abs", {x}));
    QC_ASSIGN(divisor, n.create("reduce_sum", {divisor}, axis));
  } else if (norm == "L2") {
    QC_ASSIGN(divisor, n.create("mul", {x, x}));
    QC_ASSIGN(divisor, n.create("reduce_sum", {divisor}, axis));
    QC_ASSIGN(divisor, n.create("sqrt", {divisor}));
  } else {
    return n.error(ErrorCode::kInvalidModel, "norm '{}'", norm);
  }
  QC_ASSIGN(Value * isZero, n.create("equal", {divisor, n.scalar(0)}));
  QC_ASSIGN(divisor, n.create("where", {isZero, n.scalar(1), divisor}));
  QC_ASSIGN(Value * y, n.create("div", {x, divisor}));
  return n.setOutput(y);
}

Status binarizer(OnnxNode& n) {
  QC_ASSIGN(const double threshold, n.real("threshold", 0.0));
  Value* x = n.input(0);
  const DType dtype = x->type().dtype;
  Value* compared = x;
  if (!isFloat(dtype)) {
    QC_ASSIGN(compared, n.create("cast", {x}, {{"to", DType::f64}}));
  }
  QC_ASSIGN(Value * y, n.create("greater", {compared, realList(n, compared->type().dtype, {}, {threshold})}));
  QC_ASSIGN(y, n.create("cast", {y}, {{"to", dtype}}));
  return n.setOutput(y);
}

Status imputer(OnnxNode& n) {
  Value* x = n.input(0);
  const bool real = isFloat(x->type().dtype);
  if (x->type().rank() < 1) return n.error(ErrorCode::kInvalidModel, "input {}", x->type().str());
  Reals values;
  double replaced = 0;
  if (real) {
    QC_ASSIGN(values, n.reals("imputed_value_floats"));
    QC_ASSIGN(replaced, n.real("replaced_value_float", 0.0));
  } else {
    QC_ASSIGN(const Ints list, n.integers("imputed_value_int64s"));
    QC_ASSIGN(const int64_t value, n.integer("replaced_value_int64", 0));
    values.assign(list.begin(), list.end());
    replaced = static_cast<double>(value);
  }
  const DType dtype = x->type().dtype;
  QC_ASSIGN(Value * by, perFeature(n, "imputed_value", std::move(values), dtype, x));
  QC_ASSIGN(Value * missing, std::isnan(replaced) ? n.create("isnan", {x}) : n.create("equal", {x, realList(n, dtype, {}, {replaced})}));
  QC_ASSIGN(Value * y, n.create("where", {missing, by, x}));
  return n.setOutput(y);
}

// Columns by index; of one dim: a row.
Status arrayFeatureExtractor(OnnxNode& n) {
  Value *x = n.input(0), *indices = n.input(1);
  if (x->type().rank() < 1) return n.error(ErrorCode::kInvalidModel, "input {}", x->type().str());
  const DimExpr count = product(n.dims(1));
  QC_ASSIGN(indices, n.reshapeToDims(indices, {count}));
  QC_ASSIGN(Value * y, n.create("gather", {x, indices}, {{"axis", int64_t{x->type().rank() - 1}}}));
  if (x->type().rank() == 1) {
    QC_ASSIGN(y, n.reshapeToDims(y, {1, count}));
  }
  return n.setOutput(y);
}

Status featureVectorizer(OnnxNode& n) {
  QC_ASSIGN(const Ints sizes, n.integers("inputdimensions"));
  if (static_cast<int>(sizes.size()) != n.numInputs()) return n.error(ErrorCode::kInvalidModel, "{} sizes", sizes.size());
  std::vector<Value*> parts;
  for (int i = 0; i < n.numInputs(); ++i) {
    const TensorType& type = n.type(i);
    if (type.rank() != 2 || type.shape[1] != Dim(nth(sizes, i)))
      return n.error(ErrorCode::kUnsupported, "input {} as {} features", type.str(), nth(sizes, i)).help(cutInFront());
    QC_ASSIGN(Value * part, asFloat(n, n.input(i)));
    parts.push_back(part);
  }
  QC_ASSIGN(Value * y, n.create("concat", std::move(parts), {{"axis", int64_t{1}}}));
  return n.setOutput(y);
}

// A value that is not a category: zeros, also where the model asks for an error.
Status oneHotEncoder(OnnxNode& n) {
  if (n.has("cats_strings") || !n.has("cats_int64s")) return ofStrings(n, "categories");
  QC_ASSIGN(const Ints categories, n.integers("cats_int64s"));
  if (categories.empty()) return n.error(ErrorCode::kInvalidModel, "no categories");
  Value* x = n.input(0);
  if (x->type().dtype != DType::s64) {
    QC_ASSIGN(x, n.create("cast", {x}, {{"to", DType::s64}}));
  }
  std::vector<DimExpr> column = OnnxNode::dims(x);
  column.push_back(1);
  QC_ASSIGN(x, n.reshapeToDims(x, std::move(column)));
  QC_ASSIGN(Value * y, n.create("equal", {x, n.ints(categories)}));
  QC_ASSIGN(y, asFloat(n, y));
  return n.setOutput(y);
}

struct Table {
  Tensor keys, values;
  double otherwise;
};

// One of the two kinds of attributes that hold numbers, or a tensor since version 4.
Result<std::optional<Tensor>> numbers(OnnxNode& n, const std::string& name) {
  if (n.has(name + "_strings")) return ofStrings(n, name);
  if (n.has(name + "_int64s")) {
    QC_ASSIGN(const Ints list, n.integers(name + "_int64s"));
    return std::optional(Tensor::ofInts({static_cast<int64_t>(list.size())}, list));
  }
  if (n.has(name + "_floats")) {
    QC_ASSIGN(const Reals list, n.reals(name + "_floats"));
    return std::optional(Tensor::ofFloats({static_cast<int64_t>(list.size())}, std::vector<float>(list.begin(), list.end())));
  }
  if (!n.has(name + "_tensor")) return std::optional<Tensor>();
  QC_ASSIGN(Tensor t, n.tensor(name + "_tensor"));
  return std::optional(std::move(t));
}

// What a key stands for: the first of equal ones.
Status labelEncoder(OnnxNode& n) {
  QC_ASSIGN(std::optional<Tensor> keys, numbers(n, "keys"));
  QC_ASSIGN(std::optional<Tensor> values, numbers(n, "values"));
  if (!keys || !values) return ofStrings(n, "its keys or values");
  Value* x = n.input(0);
  const int64_t count = keys->numElements();
  if (count == 0 || values->numElements() != count || keys->rank() != 1 || values->rank() != 1 || keys->dtype() != x->type().dtype)
    return n.error(ErrorCode::kInvalidModel, "keys {} and values {} for input {}", keys->type().str(), values->type().str(),
                   x->type().str());
  Tensor otherwise(values->dtype(), {});
  if (n.has("default_tensor")) {
    QC_ASSIGN(const Tensor given, n.tensor("default_tensor"));
    if (given.numElements() != 1) return n.error(ErrorCode::kInvalidModel, "default {}", given.type().str());
    storeElement(otherwise.dtype(), otherwise.mutableData(), 0, given.at(0));
  } else if (isFloat(otherwise.dtype())) {
    QC_ASSIGN(const double given, n.real("default_float", -0.0));
    storeElement(otherwise.dtype(), otherwise.mutableData(), 0, given);
  } else {
    QC_ASSIGN(const int64_t given, n.integer("default_int64", -1));
    storeElement(otherwise.dtype(), otherwise.mutableData(), 0, static_cast<double>(given));
  }
  const auto last = static_cast<int64_t>(x->type().rank());
  std::vector<DimExpr> column = OnnxNode::dims(x);
  column.push_back(1);
  QC_ASSIGN(x, n.reshapeToDims(x, std::move(column)));
  Value* theirs = n.constantValue(std::move(*keys));
  QC_ASSIGN(Value * hit, n.create("equal", {x, theirs}));
  if (isFloat(theirs->type().dtype)) {  // a NaN is the key NaN
    QC_ASSIGN(Value * noNumber, n.create("isnan", {x}));
    QC_ASSIGN(Value * noKey, n.create("isnan", {theirs}));
    QC_ASSIGN(noNumber, n.create("and", {noNumber, noKey}));
    QC_ASSIGN(hit, n.create("or", {hit, noNumber}));
  }
  QC_ASSIGN(hit, n.create("cast", {hit}, {{"to", DType::s32}}));
  QC_ASSIGN(Value * place, n.create("argmax", {hit}, {{"axis", last}, {"keepdims", int64_t{0}}}));
  QC_ASSIGN(Value * known, n.create("reduce_max", {hit}, {{"axes", Ints{last}}, {"keepdims", int64_t{0}}}));
  QC_ASSIGN(known, n.create("cast", {known}, {{"to", DType::boolean}}));
  QC_ASSIGN(Value * y, n.create("gather", {n.constantValue(std::move(*values)), place}, {{"axis", int64_t{0}}}));
  QC_ASSIGN(y, n.create("where", {known, y, n.constantValue(std::move(otherwise))}));
  return n.setOutput(y);
}

// ---- linear models ----------------------------------------------------------------------------------------------------------

// rows times the coefficients [outputs, features], and the intercepts
Result<Value*> linearScores(OnnxNode& n, int64_t outputs, const Reals& intercepts) {
  QC_ASSIGN(const Reals coefficients, n.reals("coefficients"));
  const auto count = static_cast<int64_t>(coefficients.size());
  if (outputs < 1 || count == 0 || count % outputs != 0 || (!intercepts.empty() && static_cast<int64_t>(intercepts.size()) != outputs))
    return n.error(ErrorCode::kInvalidModel, "{} coefficients and {} intercepts for {} scores", count, intercepts.size(), outputs);
  QC_ASSIGN(Value * x, featureRows(n));
  Value* weights = realList(n, DType::f32, {outputs, count / outputs}, coefficients);
  return n.create("linear", {x, weights, intercepts.empty() ? nullptr : realList(n, DType::f32, {outputs}, intercepts)});
}

Status linearRegressor(OnnxNode& n) {
  QC_ASSIGN(const int64_t targets, n.integer("targets", 1));
  QC_ASSIGN(const Reals intercepts, n.reals("intercepts", Reals{}));
  QC_ASSIGN(Value * y, linearScores(n, targets, intercepts));
  if (targets > 1) {
    QC_ASSIGN(y, postTransformed(n, y));
  }
  return n.setOutput(y);
}

// One score of two classes is of the second.
Status linearClassifier(OnnxNode& n) {
  QC_ASSIGN(const ClassLabels labels, labelsOf(n, "classlabels_ints", "classlabels_strings"));
  QC_ASSIGN(const Reals intercepts, n.reals("intercepts", Reals{}));
  const bool isOne = labels.count == 2 && intercepts.size() == 1;
  QC_ASSIGN(Value * scores, linearScores(n, isOne ? 1 : labels.count, intercepts));
  QC_ASSIGN(Value * label, isOne ? labelAbove(n, labels, scores, 0) : labelOfGreatest(n, labels, scores));
  QC_ASSIGN(scores, isOne ? bothClasses(n, scores, true) : postTransformed(n, scores));
  return n.setOutputs({label, scores});
}

// ---- support vectors --------------------------------------------------------------------------------------------------------

Result<Value*> kernelOf(OnnxNode& n, Value* x, const Reals& vectors, int64_t count) {
  QC_ASSIGN(const std::string kind, n.string("kernel_type", "LINEAR"));
  QC_ASSIGN(Reals parameters, n.reals("kernel_params", Reals{}));
  parameters.resize(3);
  const auto gamma = static_cast<float>(parameters[0]), constant = static_cast<float>(parameters[1]);
  const auto features = static_cast<int64_t>(vectors.size()) / count;
  Value* support = realList(n, DType::f32, {count, features}, vectors);
  if (kind == "RBF") {  // exp(-gamma |x - v|^2), of the differences as they are: squares would cancel
    std::vector<DimExpr> row = OnnxNode::dims(x);
    row.insert(row.begin() + 1, 1);
    QC_ASSIGN(Value * y, n.reshapeToDims(x, std::move(row)));
    QC_ASSIGN(y, n.create("sub", {y, support}));
    QC_ASSIGN(y, n.create("mul", {y, y}));
    QC_ASSIGN(y, n.create("reduce_sum", {y}, {{"axes", Ints{2}}, {"keepdims", int64_t{0}}}));
    QC_ASSIGN(y, n.create("mul", {y, n.scalar(-gamma)}));
    return n.create("exp", {y});
  }
  QC_ASSIGN(Value * y, n.create("linear", {x, support, nullptr}));
  if (kind == "LINEAR") return y;
  QC_ASSIGN(y, n.create("mul", {y, n.scalar(gamma)}));
  QC_ASSIGN(y, n.create("add", {y, n.scalar(constant)}));
  if (kind == "POLY") return n.create("pow", {y, n.scalar(static_cast<float>(parameters[2]))});
  if (kind == "SIGMOID") return n.create("tanh", {y});
  return n.error(ErrorCode::kInvalidModel, "kernel_type '{}'", kind);
}

Status svmRegressor(OnnxNode& n) {
  QC_ASSIGN(const int64_t count, n.integer("n_supports", 0));
  QC_ASSIGN(const Reals coefficients, n.reals("coefficients"));
  QC_ASSIGN(const Reals rho, n.reals("rho", Reals{0.0}));
  QC_ASSIGN(const Reals vectors, n.reals("support_vectors", Reals{}));
  QC_ASSIGN(const int64_t oneClass, n.integer("one_class", 0));
  const auto given = static_cast<int64_t>(coefficients.size());
  if (given == 0 || rho.size() != 1 || (count > 0 && (given != count || vectors.empty() || static_cast<int64_t>(vectors.size()) % count)))
    return n.error(ErrorCode::kInvalidModel, "{} coefficients and {} numbers of {} support vectors", given, vectors.size(), count);
  QC_ASSIGN(Value * y, featureRows(n));
  if (count > 0) {
    QC_ASSIGN(y, kernelOf(n, y, vectors, count));
  }
  QC_ASSIGN(y, n.create("linear", {y, realList(n, DType::f32, {1, given}, coefficients), realList(n, DType::f32, {1}, rho)}));
  if (oneClass) {
    QC_ASSIGN(Value * isInside, n.create("greater", {y, n.scalar(0)}));
    QC_ASSIGN(y, n.create("where", {isInside, n.scalar(1), n.scalar(-1)}));
  }
  return n.setOutput(y);
}

// ---- what tensors cannot hold, or no arithmetic says ------------------------------------------------------------------------

std::function<Status(OnnxNode&)> refused(const char* why, std::string remedy) {
  return [=](OnnxNode& n) -> Status { return n.error(ErrorCode::kUnsupported, "{}", why).help(remedy); };
}

}  // namespace

Value* realList(OnnxNode& n, DType dtype, std::vector<int64_t> sizes, const std::vector<double>& values) {
  Tensor t(dtype, std::move(sizes));
  for (size_t i = 0; i < values.size(); ++i) storeElement(dtype, t.mutableData(), static_cast<int64_t>(i), values[i]);
  return n.constantValue(std::move(t));
}

Result<Value*> featureRows(OnnxNode& n, bool keepDoubles) {
  Value* x = n.input(0);
  if (x->type().rank() == 1) {
    std::vector<DimExpr> row = OnnxNode::dims(x);
    row.insert(row.begin(), 1);
    QC_ASSIGN(x, n.reshapeToDims(x, std::move(row)));
  }
  if (x->type().rank() != 2) return n.error(ErrorCode::kInvalidModel, "input {}", x->type().str());
  if (keepDoubles && x->type().dtype == DType::f64) return x;
  return asFloat(n, x);
}

Result<Value*> postTransformed(OnnxNode& n, Value* scores) {
  QC_ASSIGN(const std::string how, n.string("post_transform", "NONE"));
  if (how == "NONE") return scores;
  if (how == "LOGISTIC") return n.create("sigmoid", {scores});
  if (how == "SOFTMAX") return n.create("softmax", {scores}, {{"axis", int64_t{1}}});
  return n.error(ErrorCode::kUnsupported, "post_transform '{}'", how).help("export with NONE, LOGISTIC or SOFTMAX");
}

Result<Value*> bothClasses(OnnxNode& n, Value* score, bool isProbability) {
  QC_ASSIGN(const std::string how, n.string("post_transform", "NONE"));
  if (how == "PROBIT") return postTransformed(n, score);
  QC_ASSIGN(Value * other, n.create("neg", {score}));
  if (how == "LOGISTIC") {
    QC_ASSIGN(other, n.create("sigmoid", {other}));
    QC_ASSIGN(score, n.create("sigmoid", {score}));
  } else if (isProbability) {
    QC_ASSIGN(other, n.create("add", {other, n.scalar(1)}));
  }
  return n.create("concat", {other, score}, {{"axis", int64_t{1}}});
}

Result<ClassLabels> labelsOf(OnnxNode& n, const char* integers, const char* strings) {
  ClassLabels labels;
  QC_ASSIGN(labels.values, n.integers(integers, Ints{}));
  QC_ASSIGN(const std::vector<std::string> names, n.strings(strings, std::vector<std::string>{}));
  labels.areStrings = !names.empty();
  labels.count = static_cast<int64_t>(labels.areStrings ? names.size() : labels.values.size());
  if (labels.count == 0) return n.error(ErrorCode::kInvalidModel, "no class labels");
  if (labels.areStrings && n.outputUsed(0)) return ofStrings(n, "its class labels");
  return labels;
}

Result<Value*> labelOfGreatest(OnnxNode& n, const ClassLabels& labels, Value* scores) {
  if (labels.areStrings) return nullptr;
  QC_ASSIGN(Value * place, n.create("argmax", {scores}, {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}}));
  return n.create("gather", {n.ints(labels.values), place}, {{"axis", int64_t{0}}});
}

Result<Value*> labelAbove(OnnxNode& n, const ClassLabels& labels, Value* score, float threshold) {
  if (labels.areStrings) return nullptr;
  QC_ASSIGN(Value * isSecond, n.create("greater", {score, n.scalar(threshold)}));
  QC_ASSIGN(isSecond, n.reshapeToDims(isSecond, {OnnxNode::dims(score)[0]}));
  return n.create("where", {isSecond, n.ints({labels.values[1]}), n.ints({labels.values[0]})});
}

std::span<const OnnxOp> onnxMlOps() {
  static const std::vector<OnnxOp> kOps = [] {
    const std::string cut = cutInFront();
    std::vector<OnnxOp> rows = {
        {"Scaler", 1, 1, scaler},
        {"Normalizer", 1, 1, normalizer},
        {"Binarizer", 1, 1, binarizer},
        {"Imputer", 1, 1, imputer},
        {"ArrayFeatureExtractor", 2, 2, arrayFeatureExtractor},
        {"FeatureVectorizer", 1, -1, featureVectorizer},
        {"OneHotEncoder", 1, 1, oneHotEncoder},
        {"LabelEncoder", 1, 1, labelEncoder},
        {"LinearRegressor", 1, 1, linearRegressor},
        {"LinearClassifier", 1, 1, linearClassifier},
        {"SVMRegressor", 1, 1, svmRegressor},
        {"ZipMap", 1, 1,
         refused("its output is a list of dictionaries, and outputs are tensors",
                 "convert with options={'zipmap': False}, which gives the probabilities as a tensor, or " + cut)},
        {"CastMap", 1, 1,
         refused("its input is a dictionary, and inputs are tensors", "give the features as a tensor, or cut the model behind it")},
        {"DictVectorizer", 1, 1,
         refused("its input is a dictionary, and inputs are tensors", "give the features as a tensor, or cut the model behind it")},
        {"CategoryMapper", 1, 1,
         refused("it maps strings, and tensors hold numbers", "give the categories as integers, or cut the model behind it")},
        {"SVMClassifier", 1, 1,
         refused("a vote among pairs of classes with probabilities that are found by iteration",
                 "take a model with linear scores (LinearSVC, LogisticRegression) or a SVMRegressor in its place, or " + cut)},
    };
    for (OnnxOp& row : rows) row.domain = "ai.onnx.ml", row.freeDims = true;
    return rows;
  }();
  return kOps;
}

}  // namespace qc
