// Observers: worked examples, merging and saving, awkward data, and the recorded PyTorch states.
#include "quantizer/observers/observer.h"

#include <chrono>
#include <random>

#include "ir/qmath.h"
#include "quantizer/observers/grid_histogram.h"
#include "quantizer/observers/histogram.h"
#include "vectors.h"

namespace qc {
namespace {

using nlohmann::json;
using test::fromBits;

std::unique_ptr<Observer> make(const std::string& name, AttrDict args = {}, int axis = -1, DType dtype = DType::u8) {
  ObservedSpec spec;
  spec.dtype = dtype;
  spec.qmin = rangeOf(dtype).min;
  spec.qmax = rangeOf(dtype).max;
  spec.axis = axis;
  spec.observer = name;
  spec.observerArgs = std::move(args);
  auto made = makeObserver(spec);
  EXPECT_TRUE(made) << made.error().render();
  return made ? std::move(*made) : nullptr;
}

void watch(Observer& observer, const std::vector<float>& data, std::vector<int64_t> sizes = {}) {
  if (sizes.empty()) sizes = {static_cast<int64_t>(data.size())};
  const Tensor tensor = Tensor::ofFloats(sizes, data);
  const Status status = observer.observe(tensor.ref());
  ASSERT_TRUE(status) << status.error().render();
}

std::vector<float> normal(size_t n, unsigned seed, float scale = 1, float shift = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(shift, scale);
  std::vector<float> x(n);
  for (float& v : x) v = distribution(random);
  return x;
}

TEST(Observer, MovingAverage) {
  const auto o = make("moving_average");
  watch(*o, {-1, 1});
  watch(*o, {-2, 5});
  EXPECT_FLOAT_EQ(o->ranges()[0].min, -1.01f);
  EXPECT_FLOAT_EQ(o->ranges()[0].max, 1.04f);
}

TEST(Observer, UnobservedAndEmpty) {
  for (const ObserverDef* def : observerTable()) {
    if (!def->computesQParams() || def->perChannel() || def->name == "fixed" || def->name == "per_block") continue;
    const auto o = make(def->name);
    watch(*o, {}, {0, 3});
    EXPECT_FALSE(o->observed());
    const auto q = o->qparams();
    ASSERT_TRUE(q) << def->name;
    EXPECT_EQ(q->scales, std::vector<float>{1.0f}) << def->name;
    EXPECT_EQ(q->zeroPoints, std::vector<int32_t>{0}) << def->name;
  }
}

TEST(Observer, NonFiniteIsIgnoredAndCounted) {
  for (const char* name : {"minmax", "histogram", "percentile", "entropy", "mse"}) {
    const auto o = make(name);
    watch(*o, {NAN, INFINITY, -INFINITY});
    EXPECT_FALSE(o->observed());
    watch(*o, {-1, NAN, 3, -INFINITY});
    EXPECT_EQ(o->nonFinite(), 5);
    EXPECT_EQ(o->elements(), 7);
    EXPECT_EQ(o->batches(), 1);
    const auto q = o->qparams();
    ASSERT_TRUE(q);
    EXPECT_TRUE(std::isfinite(q->scale()));
  }
  const auto o = make("minmax");
  watch(*o, {-1, NAN, 3, INFINITY});
  EXPECT_EQ(o->qparams()->scale(), 0.01568627543747425f);
  EXPECT_EQ(o->qparams()->zeroPoint(), 64);
}

TEST(Observer, PerChannelAlongAnyAxis) {
  const auto o = make("per_channel_minmax", {}, 1, DType::s8);
  watch(*o, {1, -2, 3, -4, 5, NAN}, {1, 3, 2});
  ASSERT_EQ(o->ranges().size(), 3u);
  EXPECT_EQ(o->ranges()[0].min, -2);
  EXPECT_EQ(o->ranges()[1].min, -4);
  EXPECT_EQ(o->ranges()[2].max, 5);
  const auto q = o->qparams();
  ASSERT_TRUE(q);
  EXPECT_EQ(q->axis, 1);
  const Tensor wrong(DType::f32, {1, 4, 2});
  EXPECT_FALSE(o->observe(wrong.ref()));
  const Tensor flat(DType::f32, {4});
  EXPECT_FALSE(o->observe(flat.ref()));
}

TEST(Observer, OtherTypes) {
  const auto o = make("minmax");
  const Tensor half = Tensor::of<uint16_t>(DType::f16, {2}, std::vector<uint16_t>{floatToHalf(-1.0f), floatToHalf(3.0f)});
  ASSERT_TRUE(o->observe(half.ref()));
  EXPECT_EQ(o->qparams()->zeroPoint(), 64);
  const Tensor integers(DType::s64, {3});
  EXPECT_FALSE(o->observe(integers.ref()));
}

TEST(Observer, BadSpecsAreErrors) {
  const auto refused = [](const std::string& name, AttrDict args, int axis = -1) {
    ObservedSpec spec;
    spec.observer = name;
    spec.observerArgs = std::move(args);
    spec.axis = axis;
    return !makeObserver(spec);
  };
  EXPECT_TRUE(refused("histogramm", {}));
  EXPECT_TRUE(refused("histogram", {{"bins", int64_t{0}}}));
  EXPECT_TRUE(refused("histogram", {{"bins", 3.5}}));
  EXPECT_TRUE(refused("histogram", {{"bin", int64_t{8}}}));
  EXPECT_TRUE(refused("histogram", {{"search", "best"}}));
  EXPECT_TRUE(refused("moving_average", {{"averaging_constant", 0.0}}));
  EXPECT_TRUE(refused("percentile", {{"percentile", 101.0}}));
  EXPECT_TRUE(refused("per_channel_minmax", {}));
  EXPECT_TRUE(refused("minmax", {}, 0));
  EXPECT_TRUE(refused("fixed", {}));
  ObservedSpec typo;
  typo.observer = "histogramm";
  EXPECT_NE(makeObserver(typo).error().render().find("did you mean 'histogram'"), std::string::npos) << makeObserver(typo).error().render();
}

TEST(Observer, FixedAndPlaceholder) {
  const auto fixed = make("fixed", {{"scale", 1.0 / 256}});
  watch(*fixed, {5, 6});
  EXPECT_EQ(fixed->qparams()->scale(), 1.0f / 256);
  EXPECT_FALSE(make("placeholder")->qparams());
  EXPECT_FALSE(make("noop")->qparams());
  const auto recording = make("recording", {{"limit", int64_t{1}}});
  watch(*recording, {5, 6});
  watch(*recording, {7});
  EXPECT_EQ(recording->save().at("tensor0"), (std::vector<double>{5, 6}));
  EXPECT_FALSE(recording->save().contains("tensor1"));
}

TEST(Observer, SaveAndLoadAreExact) {
  for (const ObserverDef* def : observerTable()) {
    if (def->name == "fixed" || def->perGroup() || def->name == "per_block") continue;
    const auto o = make(def->name, {}, def->perChannel() ? 0 : -1, DType::s8);
    for (unsigned i = 0; i < 3; ++i) watch(*o, normal(300, i, 1.0f + static_cast<float>(i)), {3, 100});
    const auto copy = make(def->name, {}, def->perChannel() ? 0 : -1, DType::s8);
    const Status loaded = copy->load(o->save());
    ASSERT_TRUE(loaded) << loaded.error().render();
    EXPECT_EQ(copy->save(), o->save()) << def->name;
    if (def->computesQParams()) {
      EXPECT_EQ(*copy->qparams(), *o->qparams());
    }
    const auto clone = o->clone();
    o->reset();
    EXPECT_EQ(clone->save(), copy->save());
    EXPECT_FALSE(o->observed());
  }
}

TEST(Observer, LoadRefusesNonsense) {
  const auto o = make("histogram", {{"bins", int64_t{4}}});
  watch(*o, {1, 2, 3});
  const ObserverState good = o->save();
  for (const auto& [name, value] : good) {
    ObserverState bad = good;
    bad.erase(name);
    EXPECT_FALSE(o->clone()->load(bad)) << name;
    bad[name] = {NAN};
    EXPECT_FALSE(o->clone()->load(bad)) << name;
    bad[name] = {-5, 1};
    EXPECT_FALSE(o->clone()->load(bad)) << name;
  }
  EXPECT_TRUE(o->clone()->load(good));
}

// Whatever the order and the parts: the same state to the bit.
TEST(Observer, MergingIsExact) {
  for (const char* name : {"minmax", "histogram", "percentile", "entropy", "mse"}) {
    std::vector<std::vector<float>> batches;
    for (unsigned i = 0; i < 7; ++i) {
      batches.push_back(normal(3000, i, std::exp(2.0f * static_cast<float>(i % 4) - 3.0f)));
      for (size_t k = 0; k < batches.back().size(); k += 3) batches.back()[k] = std::max(0.0f, batches.back()[k]);
    }
    batches.push_back({1e-45f, -1e-45f, 3e-39f, 0.0f, -0.0f});
    batches.push_back({5.0f, 5.0f});
    for (const float largest : {10.0f, 1e6f, 3.4e38f}) {
      batches.push_back({-largest, largest});
      const auto all = make(name);
      EXPECT_FALSE(all->dependsOnOrder());
      for (const auto& x : batches) watch(*all, x);
      std::vector<std::unique_ptr<Observer>> parts;
      for (int k = 0; k < 3; ++k) parts.push_back(make(name));
      for (size_t i = batches.size(); i-- > 0;) watch(*parts[i % 3], batches[i]);
      ASSERT_TRUE(parts[2]->merge(*parts[0]));
      ASSERT_TRUE(parts[1]->merge(*parts[2]));
      EXPECT_EQ(parts[1]->save(), all->save()) << name << " up to " << largest;
      const auto restored = make(name);
      ASSERT_TRUE(restored->load(all->save()));
      EXPECT_EQ(restored->save(), all->save());
    }
  }
  EXPECT_TRUE(make("moving_average")->dependsOnOrder());
  EXPECT_TRUE(make("per_token")->dependsOnOrder());
  EXPECT_TRUE(make("histogram", {{"merge", "split"}})->dependsOnOrder());
}

TEST(Observer, MergeEqualsSeeingAll) {
  for (const char* name : {"minmax", "histogram", "percentile", "mse"}) {
    const auto all = make(name), a = make(name), b = make(name);
    for (unsigned i = 0; i < 6; ++i) {
      const auto x = normal(5000, i, 1.0f + 0.1f * static_cast<float>(i));
      watch(*all, x);
      watch(i % 2 ? *a : *b, x);
    }
    ASSERT_TRUE(a->merge(*b));
    EXPECT_EQ(a->elements(), all->elements());
    const auto merged = a->qparams(), direct = all->qparams();
    ASSERT_TRUE(merged && direct);
    EXPECT_NEAR(merged->scale(), direct->scale(), direct->scale() * 0.03) << name;
    EXPECT_NEAR(merged->zeroPoint(), direct->zeroPoint(), 4) << name;
  }
  EXPECT_FALSE(make("minmax")->merge(*make("histogram")));
}

// A user's own: a number of standard deviations around the mean.
class DeviationObserver final : public Observer {
 public:
  explicit DeviationObserver(const ObservedSpec& spec) : Observer(spec), width_(spec.observerArgs.real("width")) {}
  std::vector<ValueRange> ranges() const override {
    if (n_ == 0) return {ValueRange{INFINITY, -INFINITY}};
    const double mean = sum_ / n_, spread = width_ * std::sqrt(std::max(0.0, squares_ / n_ - mean * mean));
    return {{static_cast<float>(mean - spread), static_cast<float>(mean + spread)}};
  }
  Result<QuantParams> qparams() const override {
    const ValueRange r = ranges()[0];
    QC_ASSIGN(const ScaleZero sz, calculateQParams(r.min, r.max, requestFor(spec())));
    return QuantParams{spec().dtype, spec().qmin, spec().qmax, -1, 0, {sz.scale}, {sz.zeroPoint}};
  }
  std::unique_ptr<Observer> clone() const override { return std::make_unique<DeviationObserver>(*this); }

 private:
  Status update(const Batch& batch) override {
    for (const float v : batch.data) add(1, v, static_cast<double>(v) * v);
    return {};
  }
  Status mergeState(const Observer& other) override {
    const auto& o = static_cast<const DeviationObserver&>(other);
    add(o.n_, o.sum_, o.squares_);
    return {};
  }
  void resetState() override { n_ = sum_ = squares_ = 0; }
  void saveState(ObserverState& state) const override { state["moments"] = {n_, sum_, squares_}; }
  Status loadState(const ObserverState& state) override {
    const auto it = state.find("moments");
    if (it == state.end() || it->second.size() != 3) return fail(ErrorCode::kInvalidData, "no moments");
    n_ = it->second[0];
    sum_ = it->second[1];
    squares_ = it->second[2];
    return {};
  }
  void add(double n, double sum, double squares) {
    n_ += n;
    sum_ += sum;
    squares_ += squares;
  }
  double width_, n_ = 0, sum_ = 0, squares_ = 0;
};

TEST(Observer, RegisteredByAUser) {
  const ObserverDef def{
      .name = "deviation",
      .summary = "test",
      .args = {{"width", AttrKind::real, 3.0}},
      .create = [](const ObservedSpec& spec) -> Result<std::unique_ptr<Observer>> { return std::make_unique<DeviationObserver>(spec); }};
  ASSERT_TRUE(registerObserver(def));
  EXPECT_FALSE(registerObserver(def)) << "the name is taken";
  const auto a = make("deviation"), b = make("deviation", {{"width", 3.0}});
  watch(*a, {1, 3, NAN});
  watch(*b, {1, 3});
  ASSERT_TRUE(a->merge(*b));
  EXPECT_EQ(a->ranges()[0].min, -1);
  EXPECT_EQ(a->ranges()[0].max, 5);
  EXPECT_EQ(a->nonFinite(), 1);
  const auto copy = make("deviation");
  ASSERT_TRUE(copy->load(a->save()));
  EXPECT_EQ(*copy->qparams(), *a->qparams());
}

ObservedSpec blockSpec(const std::string& name, int axis, int64_t blockSize, QScheme scheme = QScheme::symmetric) {
  ObservedSpec spec;
  spec.dtype = DType::s8;
  spec.qmin = -128;
  spec.qmax = 127;
  spec.axis = axis;
  spec.blockSize = blockSize;
  spec.scheme = scheme;
  spec.observer = name;
  return spec;
}

TEST(Observer, GroupsBlocksAndTokens) {
  const std::vector<float> x = {1, -2, 3, 4, -5, 6, 7, 8, 9, 10, 11, 12};
  const auto group = *makeObserver(blockSpec("per_group", 1, 4));
  watch(*group, x, {2, 6});
  const auto q = group->qparams();
  ASSERT_TRUE(q) << q.error().render();
  EXPECT_EQ(q->axis, 1);
  EXPECT_EQ(q->blockSize, 4);
  EXPECT_EQ(q->scales, (std::vector<float>{4 / 127.5f, 6 / 127.5f, 10 / 127.5f, 12 / 127.5f})) << "the last group of a row is shorter";
  EXPECT_EQ(q->scales, groupwiseQParams(x, std::vector<int64_t>{2, 6}, DType::s8, -128, 127, 1, 4, BlockMapping::symmetric)->scales);
  EXPECT_EQ(q->zeroPoints, std::vector<int32_t>{0});
  EXPECT_FALSE(group->observe(Tensor(DType::f32, {2, 7}).ref()));

  ObservedSpec spec = blockSpec("per_block", -1, 0);
  spec.observerArgs.set("block_size", std::vector<int64_t>{2, 3});
  const auto block = *makeObserver(spec);
  watch(*block, x, {2, 6});
  const auto b = block->qparams();
  ASSERT_TRUE(b);
  EXPECT_EQ(b->blockSize, 3);
  EXPECT_EQ(b->scales, (std::vector<float>{9 / 127.5f, 12 / 127.5f, 9 / 127.5f, 12 / 127.5f})) << "repeated for either row";
  EXPECT_FALSE(block->observe(Tensor(DType::f32, {12}).ref()));

  const auto token = *makeObserver(blockSpec("per_token", -1, 0, QScheme::affine));
  watch(*token, x, {4, 3});
  watch(*token, {-1, 0.5f, 2, 0.1f, 0.2f, 0.4f}, {2, 3});
  const auto t = token->qparams();
  ASSERT_TRUE(t);
  EXPECT_FLOAT_EQ(t->scales[0], 0.0117647061f);
  EXPECT_FLOAT_EQ(t->scales[1], 0.0015686274f);
  EXPECT_EQ(t->zeroPoints, (std::vector<int32_t>{-43, -128}));
  for (const auto* o : {group.get(), block.get(), token.get()}) {
    const auto copy = *makeObserver(o->spec());
    ASSERT_TRUE(copy->load(o->save()));
    EXPECT_EQ(*copy->qparams(), *o->qparams());
    ObserverState bad = o->save();
    bad["sizes"] = {3, 1e300};
    EXPECT_FALSE(copy->load(bad));
    bad["sizes"] = {};
    EXPECT_FALSE(copy->load(bad));
  }
  EXPECT_FALSE(makeObserver(blockSpec("per_group", 1, 0)));
  EXPECT_FALSE(makeObserver(blockSpec("per_group", -1, 4)));
  EXPECT_FALSE(makeObserver(blockSpec("per_channel_minmax", 0, 4)));
  EXPECT_FALSE(makeObserver(blockSpec("per_block", -1, 0))) << "no block_size";
}

TEST(Observer, FloatZeroPointsOfEmbeddings) {
  ObservedSpec spec = blockSpec("per_channel_minmax", 0, 0, QScheme::floatQparams);
  spec.dtype = DType::u8;
  spec.qmin = 0;
  spec.qmax = 255;
  const auto o = *makeObserver(spec);
  watch(*o, {-0.3f, 0, 0.25f, 0.7f, 1, 1, 1, 1}, {2, 4});
  const auto q = o->floatQParams();
  ASSERT_TRUE(q);
  EXPECT_EQ((*q)[0].scale, 0.003921568859368563f);
  EXPECT_EQ((*q)[0].zeroPoint, 76.5f);
  EXPECT_EQ((*q)[1].scale, 1.0f);
  EXPECT_FALSE(o->qparams());
  EXPECT_FALSE(make("minmax")->floatQParams());
  spec.axis = -1;
  spec.observer = "minmax";
  EXPECT_FALSE(makeObserver(spec));
}

// Batches of any shape: sequences of different lengths, images of different sizes.
TEST(Observer, ShapesMayVary) {
  for (const ObserverDef* def : observerTable()) {
    if (!def->computesQParams() || def->perGroup() || def->name == "fixed" || def->name == "per_block") continue;
    const auto o = make(def->name, {}, def->perChannel() ? 1 : -1, DType::s8);
    watch(*o, normal(12, 1), {2, 3, 2});
    watch(*o, normal(21, 2), {1, 3, 7});
    EXPECT_TRUE(o->qparams()) << def->name;
    EXPECT_EQ(o->elements(), 33);
  }
}

TEST(Histogram, GrowthConservesMass) {
  Histogram h(8);
  const std::vector<float> first = {0, .1f, .2f, .3f, .4f, .5f, .6f, .7f, .8f, 1}, second = {-.5f, 0, .25f, .5f, 2};
  h.add(first, 0, 1);
  EXPECT_EQ(std::vector<double>(h.mass().begin(), h.mass().end()), (std::vector<double>{2, 1, 1, 1, 2, 1, 1, 1}));
  Histogram old = h;
  h.add(second, -.5f, 2);
  const std::vector<double> merged = {1, 3, 3.5, 4.5, 2, 0, 0, 1};
  EXPECT_EQ(std::vector<double>(h.mass().begin(), h.mass().end()), merged);
  old.add(second, -.5f, 2, Histogram::Growth::upsample);
  EXPECT_EQ(std::vector<double>(old.mass().begin(), old.mass().end()), merged);
}

TEST(Histogram, ExtremesStayInBounds) {
  for (const auto growth : {Histogram::Growth::split, Histogram::Growth::upsample}) {
    Histogram h(64);
    for (const float v : {1e-38f, 0.0f, 3e38f, -3e38f, 1.0f, 1e-45f}) h.add(std::span(&v, 1), v, v, growth);
    double total = 0;
    for (const double m : h.mass()) total += m;
    EXPECT_TRUE(std::isfinite(total));
    for (const bool scored : {false, true}) {
      const ValueRange r = searchL2(h, 256, scored);
      EXPECT_LE(r.min, r.max);
    }
  }
  const float same = 5.0f;
  Histogram flat(16);
  flat.add(std::span(&same, 1), same, same);
  flat.add(std::span(&same, 1), same, same);
  EXPECT_EQ(searchL2(flat, 256, true).max, 5.0f);
}

TEST(Histogram, SearchWorkedExample) {
  const auto h = Histogram::restore(-2, 6, {1, 0, 0, 0, 10, 40, 100, 80, 30, 6, 1, 0, 0, 0, 0, 1});
  ASSERT_TRUE(h);
  EXPECT_NEAR(quantizationError(*h, 0, 14, 4), 87.592448, 1e-5);
  EXPECT_NEAR(quantizationError(*h, 0, 9, 4), 46.557292, 1e-5);
  EXPECT_NEAR(quantizationError(*h, 0, 15, 256), 0.021891, 1e-6);
  EXPECT_EQ(searchL2(*h, 4, false).max, 3.0f);
  EXPECT_EQ(searchL2(*h, 16, false).max, 5.5f);
  EXPECT_EQ(searchL2(*h, 256, false).max, 5.5f);  // the first trim is taken whatever it costs ...
  EXPECT_EQ(searchL2(*h, 256, true).max, 6.0f);   // ... unless the full range is scored too
}

TEST(Histogram, SearchesCutOutliers) {
  auto x = normal(200000, 7);
  x.push_back(60);
  for (const char* name : {"percentile", "entropy", "mse"}) {
    const auto o = make(name);
    watch(*o, x);
    const ValueRange r = o->ranges()[0];
    EXPECT_LT(r.max, 58.0f) << name;
    EXPECT_GT(r.max, 2.0f) << name;
    EXPECT_LT(r.min, -2.0f) << name;
  }
}

// Cells hold every value where the grid says, and pouring them into bins moves nothing by more than a cell.
// A cluster far out stops the trimming of tails at once, although cutting it off altogether would pay.
TEST(Histogram, GridOfRangesFindsWhatTrimmingMisses) {
  std::vector<float> x;
  for (int i = 0; i < 200000; ++i) x.push_back(static_cast<float>(i % 1000) / 1000.0f);
  for (int i = 0; i < 3; ++i) x.push_back(30.0f - 0.001f * static_cast<float>(i));
  const auto squaredError = [&](const char* search) {
    const auto o = make("histogram", {{"search", search}});
    watch(*o, x);
    const QuantParams p = *o->qparams();
    double sum = 0;
    for (const float v : x) {
      const double d = v - p.scale(0) * static_cast<float>(qmath::quantize(v, p.scale(0), p.zeroPoint(0), 0, 255) - p.zeroPoint(0));
      sum += d * d;
    }
    return sum;
  };
  const double grid = squaredError("grid");
  EXPECT_LE(grid, 1.01 * squaredError("scored"));
  EXPECT_LE(grid, 1.01 * squaredError("reference"));
  EXPECT_EQ(make("histogram")->spec(), make("histogram", {{"search", "grid"}})->spec()) << "the default";
}

TEST(Histogram, GridAgreesWithPlainCounting) {
  auto x = normal(50000, 11, 2.5f);
  for (size_t i = 0; i < x.size(); i += 2) x[i] = std::max(x[i], 0.0f);
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  GridHistogram grid(256);
  grid.add(x, *low, *high);
  EXPECT_EQ(grid.total(), static_cast<int64_t>(x.size()));
  EXPECT_EQ(grid.zeros(), std::count(x.begin(), x.end(), 0.0f));
  EXPECT_LE(grid.cells().size(), 256u * 4);
  EXPECT_GE(grid.cells().size(), 256u * 2 - 1);
  const std::vector<double> plain = histc(x, 256, *low, *high);
  const Histogram poured = grid.histogram();
  double total = 0, moved = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    total += poured.mass()[i];
    moved += std::abs(poured.mass()[i] - plain[i]);
  }
  EXPECT_NEAR(total, static_cast<double>(x.size()), 1e-6);
  EXPECT_LT(moved / total, 0.02);
}

// Half of what leaves a ReLU is 0, which is exact whatever the range.
TEST(Histogram, SearchesIgnoreTheSpikeAtZero) {
  auto x = normal(100000, 3);
  for (float& v : x) v = std::max(v, 0.0f);
  for (const char* name : {"histogram", "entropy", "mse", "percentile"}) {
    const auto o = make(name);
    watch(*o, x);
    EXPECT_GT(o->ranges()[0].max, 2.0f) << name;
    EXPECT_LE(o->ranges()[0].min, 1e-3f) << name;
  }
}

TEST(Histogram, FastEnoughForEveryActivation) {
  const auto o = make("histogram");
  const auto x = normal(1 << 20, 1);
  watch(*o, x);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 10; ++i) watch(*o, x);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  RecordProperty("elements_per_second", std::to_string(10.0 * (1 << 20) / seconds));
  std::printf("histogram: %.0f million elements per second\n", 10.0 * (1 << 20) / seconds / 1e6);
}

TEST(Histogram, RecordedSearch) {
  QC_VECTORS(file, "histogram_search");
  for (const json& c : file["cases"]) {
    std::vector<double> mass(c["bins"].get<size_t>(), 0.0);
    for (size_t i = 0; i < c["hist_bins"].size(); ++i) mass[c["hist_bins"][i].get<size_t>()] = c["hist_values"][i];
    const auto h = Histogram::restore(test::number(c["min"]), test::number(c["max"]), mass);
    ASSERT_TRUE(h);
    const double levels = c["dst_nbins"];
    for (const json& e : c["errors"]) {
      const double expected = e["error"];
      EXPECT_NEAR(quantizationError(*h, e["start"], e["end"], levels), expected, std::abs(expected) * 1e-3 + 1e-12);
    }
    const ValueRange r = searchL2(*h, levels, false);
    EXPECT_NEAR(r.min, fromBits(c["search_min_bits"]), h->binWidth() * 1e-3 + 1e-6) << c["bins"] << " " << c["dst_nbins"];
    EXPECT_NEAR(r.max, fromBits(c["search_max_bits"]), h->binWidth() * 1e-3 + 1e-6) << c["bins"] << " " << c["dst_nbins"];
  }
}

void checkRecorded(const json& c) {
  const std::map<std::string, std::string> names = {{"MinMaxObserver", "minmax"},
                                                    {"MovingAverageMinMaxObserver", "moving_average"},
                                                    {"PerChannelMinMaxObserver", "per_channel_minmax"},
                                                    {"MovingAveragePerChannelMinMaxObserver", "per_channel_moving_average"},
                                                    {"HistogramObserver", "histogram"}};
  ObservedSpec spec;
  const json& args = c["args"];
  spec.observer = names.at(c["observer"]);
  spec.dtype = test::dtypeOf(args["dtype"]);
  spec.qmin = rangeOf(spec.dtype).min;
  spec.qmax = rangeOf(spec.dtype).max;
  spec.scheme = args["scheme"] == "affine" ? QScheme::affine : QScheme::symmetric;
  spec.eps = args["eps"];
  spec.axis = args.value("ch_axis", -1);
  if (args.contains("averaging_constant")) spec.observerArgs.set("averaging_constant", args["averaging_constant"].get<double>());
  const bool histogram = spec.observer == "histogram";
  if (histogram) {
    spec.observerArgs.set("bins", args["bins"].get<int64_t>());
    spec.observerArgs.set("search", "reference");
    spec.observerArgs.set("merge", "split");
  }
  const auto made = makeObserver(spec);
  ASSERT_TRUE(made) << made.error().render();
  for (size_t b = 0; b < c["batches"].size(); ++b) {
    watch(**made, test::numbers(c["batches"][b]["data"]), c["batches"][b]["shape"]);
    const json& state = c["states"][b];
    const auto q = (*made)->qparams();
    ASSERT_TRUE(q);
    const ObserverState saved = (*made)->save();
    for (size_t i = 0; i < state["scale_bits"].size(); ++i) {
      if (!saved.at("min").empty()) {
        EXPECT_EQ(static_cast<float>(saved.at("min")[i]), fromBits(state["min_bits"][i]));
        EXPECT_EQ(static_cast<float>(saved.at("max")[i]), fromBits(state["max_bits"][i]));
      }
      const float scale = fromBits(state["scale_bits"][i]);
      const int32_t zp = state["zero_point"][i];
      const auto channel = static_cast<int64_t>(i);
      if (!histogram) {
        EXPECT_EQ(q->scale(channel), scale) << c["observer"];
        EXPECT_EQ(q->zeroPoint(channel), zp) << c["observer"];
        continue;
      }
      const double bin = (saved.at("max").empty() ? 0.0 : saved.at("max")[0] - saved.at("min")[0]) / args["bins"].get<double>();
      EXPECT_NEAR(q->scale(), scale, bin / 255 + scale * 1e-6);
      EXPECT_NEAR(q->zeroPoint(), zp, 1 + bin / scale);
      double moved = 0;
      if (!saved.contains("histogram")) continue;
      std::vector<double> mass = saved.at("histogram"), expected(mass.size(), 0.0);
      for (size_t k = 0; k < state["hist_bins"].size(); ++k) expected[state["hist_bins"][k].get<size_t>()] = state["hist_values"][k];
      for (size_t k = 0; k < mass.size(); ++k) moved += std::abs(mass[k] - expected[k]);
      EXPECT_LE(moved, 0.25 + 1e-3) << c["args"] << " batch " << b;
    }
  }
}

TEST(Observer, RecordedStates) {
  QC_VECTORS(file, "observers");
  for (const json& c : file["cases"]) checkRecorded(c);
}

}  // namespace
}  // namespace qc
