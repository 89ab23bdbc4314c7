#include "runtime/training/batches.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ir/arithmetic.h"
#include "runtime/any_batch.h"
#include "runtime/model.h"

namespace qc {
namespace {

constexpr int64_t kUnchanged = -1;  // an epoch in which no image is changed

}  // namespace

Result<Batches> Batches::of(const Dataset& samples, BatchOptions options) {
  const int64_t batch = options.batch, count = samples.size();
  if (batch < 1) return fail(ErrorCode::kInvalidArgument, "a batch of {}", batch);
  if (count < batch)
    return fail(ErrorCode::kInvalidData, "{} samples do not fill a batch of {}", count, batch)
        .help("give more samples, or a smaller batch");
  Batches made(samples, std::move(options));
  QC_ASSIGN(made.augmentation_, Augmentation::parse(made.o_.augment));
  QC_ASSIGN(const TensorMap first, samples.sample(0));
  made.sample_ = shapesOf(first);
  for (int64_t i = 1; i < count; ++i) {  // now, and not after hours of training
    const auto sample = made.ofOneShape(i);
    if (!sample) return tl::make_unexpected(sample.error());
  }
  int64_t heldOut = 0;
  if (made.o_.heldOutShare > 0 && count >= fewestToHoldOutOf(batch)) {
    const double wanted = made.o_.heldOutShare * static_cast<double>(count) / static_cast<double>(batch);
    const int64_t most = count / batch - kFewestBatches, least = std::min((kFewestHeldOut + batch - 1) / batch, most);
    heldOut = std::clamp<int64_t>(std::llround(wanted), least, most) * batch;
  }
  for (int64_t i = 0; i < count; ++i)  // evenly spread
    ((i + 1) * heldOut / count > i * heldOut / count ? made.heldOut_ : made.trained_).push_back(i);
  return made;
}

Status Batches::bind(const std::vector<Port>& ports, BatchLayout layout, std::string labels) {
  layout_ = std::move(layout);
  labels_ = std::move(labels);
  for (const Port& p : ports) {
    if (!layout_.dims.contains(p.name)) continue;
    ports_.insert(p.name);
    if (layout_.dims.at(p.name) == 0 && Augmentation::takes(p.type)) images_.insert(p.name);
  }
  if (augmentation_ && images_.empty())
    return fail(ErrorCode::kInvalidArgument, "no input of the model is an image to change")
        .help("images are f32 of rank 4 with 1 to 4 channels, first or last; leave the augmentation out");
  return {};
}

const int64_t* Batches::orderAt(int64_t epoch, int64_t place) {
  if (epoch != ordered_) {
    order_ = trained_;
    Draws draws(o_.seed * 0x100000001b3 + static_cast<uint64_t>(epoch));
    for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[draws.below(i)]);
    ordered_ = epoch;
  }
  return order_.data() + place * o_.batch;
}

Result<TensorMap> Batches::at(int64_t epoch, int64_t place) { return of({orderAt(epoch, place), usize(o_.batch)}, epoch); }
Result<TensorMap> Batches::heldOutAt(int64_t first, int64_t count) const {
  return of(std::span(heldOut_).subspan(usize(first), usize(count)), kUnchanged);
}
int64_t Batches::labelAt(int64_t epoch, int64_t place, int64_t sample) { return nth(o_.labels, orderAt(epoch, place)[sample]); }

Result<TensorMap> Batches::ofOneShape(int64_t index) const {
  QC_ASSIGN(TensorMap sample, samples_->sample(index));
  for (const auto& [name, value] : sample)
    if (value.sizes() != sample_.at(name))
      return fail(ErrorCode::kInvalidData, "sample '{}' is [{}], and '{}' is [{}]", samples_->sampleName(index),
                  toString(toShape(value.sizes())), samples_->sampleName(0), toString(toShape(sample_.at(name))))
          .on(name)
          .help("train with samples of one shape: bring them to one size, or leave out those of others");
  return sample;
}

Result<TensorMap> Batches::sampleAt(int64_t index, int64_t changedIn) const {
  QC_ASSIGN(TensorMap sample, ofOneShape(index));
  std::erase_if(sample, [&](const auto& array) { return !ports_.contains(array.first); });  // of nothing that is trained through
  for (auto& [name, value] : sample) {
    if (!augmentation_ || changedIn == kUnchanged || !images_.contains(name)) continue;
    Draws draws(hashOf(fmt::format("{} {} {}", o_.seed, changedIn, index)));  // the same for every image of a sample
    augmentation_.apply(value.type(), value.mutableAs<float>(), draws);
  }
  return sample;
}

Status Batches::checkShared(const TensorMap& sample, const TensorMap& first, int64_t index) const {
  for (const auto& [name, value] : sample)
    if (layout_.dims.at(name) == BatchLayout::kShared && !value.sameBytes(first.at(name)))
      return fail(ErrorCode::kInvalidData, "sample '{}' differs from others of its batch in an input that has no dim for samples",
                  samples_->sampleName(index))
          .on(name)
          .help("train with a batch of 1, or with samples that have it in common");
  return {};
}

Result<TensorMap> Batches::of(std::span<const int64_t> indices, int64_t changedIn) const {
  std::vector<TensorMap> samples;
  for (const int64_t index : indices) {
    QC_ASSIGN(samples.emplace_back(), sampleAt(index, changedIn));
    QC_TRY(checkShared(samples.back(), samples.front(), index));
  }
  TensorMap batch;
  BatchPlaces places;
  for (const auto& [name, value] : samples.front())
    if (const int dim = layout_.dims.at(name); dim == BatchLayout::kShared)
      batch[name] = value;
    else
      places.inputs[name] = dim;
  QC_ASSIGN(TensorMap stacked, stackedSamples(samples, places));
  batch.merge(std::move(stacked));
  if (!o_.labels.empty() && !labels_.empty()) {
    Tensor labels(DType::s64, {std::ssize(indices)});
    for (int64_t i = 0; i < std::ssize(indices); ++i) nth(labels.mutableAs<int64_t>(), i) = nth(o_.labels, indices[usize(i)]);
    batch[labels_] = std::move(labels);
  }
  return batch;
}

}  // namespace qc
