// Observers with one range per block of a tensor: groups along one axis, blocks of any shape, tokens (rows of the last axis).
// Formulas: blockQParams and tokenQParams.  Groups and blocks belong to tensors of one shape (weights); tokens remember the newest
// batch only, as parameters computed at run time do.
#include <algorithm>
#include <cmath>
#include <limits>

#include "quantizer/observers/observer_table.h"

namespace qc {
namespace {

using Sizes = std::vector<int64_t>;

// How a tensor falls into blocks: `block` elements along each dim, the last block of a dim may be cut short.
struct Blocking {
  Sizes sizes, block, counts;
  int64_t blocks = 1;
  Blocking(std::span<const int64_t> tensor, Sizes blockSizes) : sizes(tensor.begin(), tensor.end()), block(std::move(blockSizes)) {
    for (size_t d = 0; d < sizes.size(); ++d) {
      block[d] = std::clamp<int64_t>(block[d], 1, std::max<int64_t>(sizes[d], 1));
      counts.push_back((sizes[d] + block[d] - 1) / block[d]);
      blocks *= counts.back();
    }
  }
  // Calls f with the block and the position of every element, in row-major order.
  template <class F>
  void forEach(F&& f) const {
    const int64_t n = qc::numElements(sizes);
    Sizes at(sizes.size(), 0);
    for (int64_t i = 0; i < n; ++i) {
      int64_t b = 0;
      for (size_t d = 0; d < sizes.size(); ++d) b = b * counts[d] + at[d] / block[d];
      f(usize(b), usize(i));
      for (size_t d = sizes.size(); d-- > 0;) {
        if (++at[d] < sizes[d]) break;
        at[d] = 0;
      }
    }
  }
};

class BlockObserver final : public Observer {
 public:
  enum class Kind { group, block, token };
  BlockObserver(const ObservedSpec& spec, Kind kind) : Observer(spec), kind_(kind) {}
  std::vector<ValueRange> ranges() const override { return ranges_; }
  std::unique_ptr<Observer> clone() const override { return std::make_unique<BlockObserver>(*this); }

  Result<QuantParams> qparams() const override {
    if (ranges_.empty()) return QuantParams{spec().dtype, spec().qmin, spec().qmax, -1, 0, {1.0f}, {0}};
    const Blocking blocking(sizes_, blockOf(sizes_));
    // The type has blocks along one axis; along the others a scale is repeated for every element.
    size_t axis = sizes_.size() - 1;
    for (size_t d = 0; d < sizes_.size(); ++d)
      if (blocking.block[d] > 1) axis = d;
    QuantParams q{spec().dtype, spec().qmin, spec().qmax, static_cast<int>(axis), blocking.block[axis], {}, {}};
    std::vector<ScaleZero> each;
    for (const ValueRange& r : ranges_) {
      QC_ASSIGN(const ScaleZero sz, paramsOf(r));
      each.push_back(sz);
    }
    Sizes fine = blocking.block;
    for (size_t d = 0; d < fine.size(); ++d)
      if (d == axis) fine[d] = 1;
    Sizes shape = sizes_;
    shape[axis] = blocking.counts[axis];
    Blocking(shape, fine).forEach([&](size_t block, size_t) {
      q.scales.push_back(each[block].scale);
      q.zeroPoints.push_back(each[block].zeroPoint);
    });
    if (std::all_of(q.zeroPoints.begin(), q.zeroPoints.end(), [&](int32_t z) { return z == q.zeroPoints[0]; })) q.zeroPoints.resize(1);
    return q;
  }
  bool dependsOnOrder() const override { return kind_ == Kind::token; }  // the newest batch's rows

 private:
  bool needsLayout() const override { return true; }

  Sizes blockOf(std::span<const int64_t> sizes) const {
    Sizes block(sizes.size(), 1);
    if (kind_ == Kind::group) {
      nth(block, spec().axis) = spec().blockSize;
    } else if (kind_ == Kind::token) {
      block.back() = sizes.back();
    } else {
      block = spec().observerArgs.integers("block_size");
      for (size_t d = 0; d < block.size(); ++d)
        if (block[d] == 0) block[d] = sizes[d];
    }
    return block;
  }

  Result<ScaleZero> paramsOf(ValueRange r) const {
    if (r.min > r.max) return ScaleZero{};
    const ObservedSpec& s = spec();
    if (kind_ == Kind::token && s.dtype == DType::s8 && s.qmin == -128 && s.qmax == 127) {
      const float ends[] = {r.min, r.max};
      QC_ASSIGN(const TokenQParams t, tokenQParams(ends, s.scheme == QScheme::symmetric, s.eps));
      return ScaleZero{static_cast<float>(t.scale), t.zeroPoint};
    }
    const BlockMapping mapping = s.scheme == QScheme::affine                  ? BlockMapping::asymmetric
                                 : s.observerArgs.integer("no_clipping") != 0 ? BlockMapping::symmetricNoClipping
                                                                              : BlockMapping::symmetric;
    return blockQParams(r.min, r.max, mapping, s.qmin, s.qmax, s.eps);
  }

  Status update(const Batch& batch) override {
    const Sizes sizes(batch.sizes.begin(), batch.sizes.end());
    if (kind_ == Kind::token) resetState();
    if (!ranges_.empty() && sizes != sizes_)
      return fail(ErrorCode::kInvalidData, "a tensor of [{}] behind one of [{}]: blocks belong to one shape", fmt::join(sizes, ","),
                  fmt::join(sizes_, ","));
    if (sizes.empty() || (kind_ == Kind::group && spec().axis >= static_cast<int>(sizes.size())) ||
        (kind_ == Kind::block && spec().observerArgs.integers("block_size").size() != sizes.size()))
      return fail(ErrorCode::kInvalidArgument, "the blocks of observer '{}' do not fit a tensor of rank {}", name(), sizes.size());
    const Blocking blocking(sizes, blockOf(sizes));
    sizes_ = sizes;
    ranges_.resize(usize(blocking.blocks), ValueRange{kInfinity, -kInfinity});
    blocking.forEach([&](size_t block, size_t i) {
      const float v = batch.data[i];
      if (!std::isfinite(v)) return;
      ranges_[block] = {std::min(ranges_[block].min, v), std::max(ranges_[block].max, v)};
    });
    return {};
  }
  Status mergeState(const Observer& other) override {
    const auto& o = static_cast<const BlockObserver&>(other);
    if (o.ranges_.empty()) return {};
    if (ranges_.empty() || kind_ == Kind::token) {
      ranges_ = o.ranges_;
      sizes_ = o.sizes_;
      return {};
    }
    if (sizes_ != o.sizes_) return fail(ErrorCode::kInvalidData, "observers of blocks of different tensors cannot be merged");
    for (size_t i = 0; i < ranges_.size(); ++i)
      ranges_[i] = {std::min(ranges_[i].min, o.ranges_[i].min), std::max(ranges_[i].max, o.ranges_[i].max)};
    return {};
  }
  void resetState() override {
    ranges_.clear();
    sizes_.clear();
  }
  void saveState(ObserverState& state) const override {
    saveRanges(state, ranges_);
    state["sizes"] = {sizes_.begin(), sizes_.end()};
  }
  Status loadState(const ObserverState& state) override {
    QC_ASSIGN(std::vector<ValueRange> ranges, loadRanges(state));
    QC_ASSIGN(const std::vector<double> saved, stateField(state, "sizes"));
    Sizes sizes;
    double elements = 1;
    for (const double s : saved) {
      if (!(s >= 1 && s < 9e15) || s != std::floor(s) || (elements *= s) > 9e15)
        return fail(ErrorCode::kInvalidData, "a saved observer is of a dim of {}", s);
      sizes.push_back(static_cast<int64_t>(s));
    }
    const bool fits = kind_ == Kind::token   ? true
                      : kind_ == Kind::group ? spec().axis < static_cast<int>(sizes.size())
                                             : spec().observerArgs.integers("block_size").size() == sizes.size();
    if (ranges.empty() != sizes.empty() ||
        (!ranges.empty() && (!fits || Blocking(sizes, blockOf(sizes)).blocks != static_cast<int64_t>(ranges.size()))))
      return fail(ErrorCode::kInvalidData, "a saved observer has {} blocks, which do not fit its tensor", ranges.size());
    ranges_ = std::move(ranges);
    sizes_ = std::move(sizes);
    return {};
  }

  Kind kind_;
  Sizes sizes_;
  std::vector<ValueRange> ranges_;
};

Result<std::unique_ptr<Observer>> makeGroup(const ObservedSpec& spec) {
  return std::make_unique<BlockObserver>(spec, BlockObserver::Kind::group);
}
Result<std::unique_ptr<Observer>> makeToken(const ObservedSpec& spec) {
  return std::make_unique<BlockObserver>(spec, BlockObserver::Kind::token);
}
Result<std::unique_ptr<Observer>> makeBlock(const ObservedSpec& spec) {
  for (const int64_t b : spec.observerArgs.integers("block_size"))
    if (b < 0) return fail(ErrorCode::kInvalidArgument, "a block of {} elements", b).help("0 stands for the whole dim");
  return std::make_unique<BlockObserver>(spec, BlockObserver::Kind::block);
}

}  // namespace

std::vector<ObserverDef> blockObservers() {
  const AttrSpec noClipping{"no_clipping", AttrKind::integer, int64_t{0}};
  return {
      {.name = "per_group",
       .summary = "smallest and largest value of each group of block_size elements along the axis",
       .args = {noClipping},
       .scales = ScalesPer::group,
       .create = makeGroup},
      {.name = "per_block",
       .summary = "smallest and largest value of each block; block_size has one entry per dim, 0 for the whole dim",
       .args = {{"block_size", AttrKind::integers, std::nullopt}, noClipping},
       .scales = ScalesPer::block,
       .create = makeBlock},
      {.name = "per_token",
       .summary = "smallest and largest value of each row of the newest batch",
       .args = {noClipping},
       .scales = ScalesPer::token,
       .create = makeToken,
       .runsWithModel = true},
  };
}

}  // namespace qc
