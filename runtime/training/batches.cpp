#include "runtime/training/batches.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "ir/arithmetic.h"

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
  int64_t heldOut = 0;
  if (made.o_.heldOutShare > 0 && count / batch > kFewestBatches) {
    const double wanted = made.o_.heldOutShare * static_cast<double>(count) / static_cast<double>(batch);
    heldOut = std::clamp<int64_t>(std::llround(wanted), 1, count / batch - kFewestBatches) * batch;
  }
  for (int64_t i = 0; i < count; ++i)  // evenly spread
    ((i + 1) * heldOut / count > i * heldOut / count ? made.heldOut_ : made.trained_).push_back(i);
  return made;
}

Status Batches::bind(const std::vector<Port>& ports, const std::vector<std::string>& modelInputs) {
  for (const Port& p : ports) ports_[p.name] = p.type;
  QC_ASSIGN(augmentation_, Augmentation::parse(o_.augment));
  for (const std::string& name : modelInputs)
    if (const auto port = ports_.find(name); port != ports_.end() && Augmentation::takes(port->second)) images_.insert(name);
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

Result<TensorMap> Batches::at(int64_t epoch, int64_t place) { return of(orderAt(epoch, place), epoch); }
Result<TensorMap> Batches::heldOutAt(int64_t place) const { return of(heldOut_.data() + place * o_.batch, kUnchanged); }
int64_t Batches::labelAt(int64_t epoch, int64_t place, int64_t sample) { return nth(o_.labels, orderAt(epoch, place)[sample]); }

Result<TensorMap> Batches::of(const int64_t* indices, int64_t changedIn) const {
  TensorMap batch;
  for (int64_t i = 0; i < o_.batch; ++i) {
    const int64_t index = indices[i];
    QC_ASSIGN(const TensorMap sample, samples_->sample(index));
    for (const auto& [name, value] : sample) {
      const auto port = ports_.find(name);
      if (port == ports_.end()) continue;  // of nothing that is trained through
      Tensor& whole = batch[name];
      if (i == 0) whole = Tensor(port->second.dtype, port->second.sizes());
      std::vector<int64_t> each = port->second.sizes();
      if (!each.empty()) each[0] = 1;
      if (value.sizes() != each || value.dtype() != port->second.dtype)
        return fail(ErrorCode::kInvalidData, "sample '{}' is {}, the others are {}", samples_->sampleName(index), value.type().str(),
                    TensorType(port->second.dtype, toShape(each)).str())
            .on(name)
            .help("train with samples of one shape, one in each array");
      std::memcpy(static_cast<char*>(whole.mutableData()) + i * value.byteSize(), value.data(), usize(value.byteSize()));
      if (!augmentation_ || changedIn == kUnchanged || !images_.contains(name)) continue;
      Draws draws(hashOf(fmt::format("{} {} {}", o_.seed, changedIn, index)));  // the same for every image of a sample
      const auto elements = usize(value.numElements());
      augmentation_.apply(port->second, whole.mutableAs<float>().subspan(usize(i) * elements, elements), draws);
    }
  }
  if (!o_.labels.empty() && ports_.contains("labels")) {
    Tensor labels(DType::s64, {o_.batch});
    for (int64_t i = 0; i < o_.batch; ++i) nth(labels.mutableAs<int64_t>(), i) = nth(o_.labels, indices[i]);
    batch["labels"] = std::move(labels);
  }
  return batch;
}

}  // namespace qc
