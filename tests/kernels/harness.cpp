#include "tests/kernels/harness.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace qc::testing {

GuardedBuffer::GuardedBuffer(int64_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t payload = (static_cast<size_t>(bytes) + page - 1) / page * page;
  mapped_ = payload + page;
  mapping_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  QC_CHECK(mapping_ != MAP_FAILED, "no memory for a test buffer");
  char* guard = static_cast<char*>(mapping_) + payload;
  QC_CHECK(mprotect(guard, page, PROT_NONE) == 0, "no guard page");
  data_ = guard - bytes;
}

GuardedBuffer::GuardedBuffer(GuardedBuffer&& other) noexcept : mapping_(other.mapping_), mapped_(other.mapped_), data_(other.data_) {
  other.mapping_ = nullptr;
}

GuardedBuffer::~GuardedBuffer() {
  if (mapping_) munmap(mapping_, mapped_);
}

Target targetOf(const KernelDef& def) {
  Target target{Target::host().arch, 0};
  for (const IsaInfo& info : isaTable())
    if (def.isas & isaBit(info.isa)) {
      target.isas |= info.implies;
      target.arch = info.arch;
    }
  return target;
}

std::vector<const KernelDef*> rowsFor(std::string_view op) {
  std::vector<const KernelDef*> rows;
  for (const KernelDef& def : kernelTable()) {
    if (std::find(def.ops.begin(), def.ops.end(), op) == def.ops.end()) continue;
    if (targetOf(def).runsOn(Target::host()))
      rows.push_back(&def);
    else
      ::testing::Test::RecordProperty("left_out", std::string(def.id));
  }
  return rows;
}

Result<CompiledKernel> compileNode(const KernelDef& def, Node& node, const Target& target) {
  CompiledKernel result;
  result.node = &node;
  if (def.pack) {
    Builder builder(node.graph());
    builder.before(&node);
    QC_ASSIGN(result.node, def.pack(def, node, builder));
  }
  const KernelJob job{&def, result.node, "kernel"};
  QC_ASSIGN(const std::vector<KernelObject> objects, compileKernels({&job, 1}, target));
  result.shape = objects[0].shape;
  result.irInstructions = objects[0].irInstructions;
  QC_ASSIGN(result.jit, Jit::create(target));
  QC_TRY(result.jit->add(objects));
  QC_ASSIGN(result.fn, result.jit->lookup("kernel"));
  return result;
}

std::vector<uint8_t> runGuarded(const CompiledKernel& kernel, const std::vector<const Tensor*>& operands) {
  const Node& node = *kernel.node;
  std::vector<GuardedBuffer> owned;
  std::vector<void*> buffers;
  for (int i = 0; i < node.numOperands(); ++i) {
    const Tensor* tensor = i < static_cast<int>(operands.size()) ? operands[static_cast<size_t>(i)] : nullptr;
    if (!tensor && node.operand(i)) tensor = node.operand(i)->constant();
    if (!tensor) {
      buffers.push_back(nullptr);
      continue;
    }
    owned.emplace_back(tensor->byteSize());
    std::memcpy(owned.back().data(), tensor->data(), static_cast<size_t>(tensor->byteSize()));
    buffers.push_back(owned.back().data());
  }
  const int64_t bytes = node.result()->type().byteSize();
  owned.emplace_back(bytes);
  void* result = owned.back().data();
  std::memset(result, 0xa5, static_cast<size_t>(bytes));
  buffers.push_back(result);
  std::vector<ParamRecord> params = kernelParams(node);
  buffers.push_back(params.data());
  Tensor scratch(DType::u8, {std::max<int64_t>(kernel.shape.scratchBytes, 1)});
  std::memset(scratch.mutableData(), 0x7f, static_cast<size_t>(scratch.byteSize()));
  // The second half first, in single units, then the first half at once.
  const int64_t half = kernel.shape.units / 2;
  for (int64_t unit = kernel.shape.units; unit-- > half;) kernel.fn(buffers.data(), unit, unit + 1, scratch.mutableData());
  kernel.fn(buffers.data(), 0, half, scratch.mutableData());
  const auto* from = static_cast<const uint8_t*>(result);
  return {from, from + bytes};
}

void expectExact(const KernelDef& def, Node& node, const std::vector<const Tensor*>& operands, const std::string& what) {
  const std::string context = fmt::format("{}: {}", def.id, what);
  const Result<std::vector<Tensor>> expected = evaluateNode(node, operands);
  ASSERT_TRUE(expected.has_value()) << context << ": " << expected.error().render();
  const Result<CompiledKernel> kernel = compileNode(def, node, targetOf(def));
  ASSERT_TRUE(kernel.has_value()) << context << ": " << kernel.error().render();
  // Operands of a packed node that are not constants are those of the node itself, found by value.
  std::vector<const Tensor*> given;
  for (Value* v : kernel->node->operands()) {
    const Tensor* tensor = nullptr;
    for (int i = 0; v && i < node.numOperands(); ++i)
      if (node.operand(i) == v) tensor = operands[static_cast<size_t>(i)];
    given.push_back(tensor);
  }
  if (kernel->node != &node) {
    std::vector<const Tensor*> all = given;
    for (size_t i = 0; i < all.size(); ++i)
      if (Value* v = kernel->node->operand(static_cast<int>(i)); !all[i] && v) all[i] = v->constant();
    const Result<std::vector<Tensor>> packed = evaluateNode(*kernel->node, all);
    ASSERT_TRUE(packed.has_value()) << context << ": " << packed.error().render();
    EXPECT_TRUE((*packed)[0].sameBytes((*expected)[0])) << context << ": the packed node has another meaning";
  }
  const std::vector<uint8_t> actual = runGuarded(*kernel, given);
  const Tensor& reference = (*expected)[0];
  ASSERT_EQ(static_cast<int64_t>(actual.size()), reference.byteSize()) << context;
  if (std::memcmp(actual.data(), reference.data(), actual.size()) == 0) return;
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < reference.numElements(); ++i) {
    const int64_t size = sizeOf(reference.dtype());
    if (std::memcmp(actual.data() + i * size, static_cast<const uint8_t*>(reference.data()) + i * size, static_cast<size_t>(size)) == 0)
      continue;
    if (wrong++ == 0) first = i;
  }
  ADD_FAILURE() << context << ": " << wrong << " of " << reference.numElements() << " differ, first at " << first << ": "
                << loadElement(reference.dtype(), actual.data(), first) << " instead of " << reference.at(first);
}

Tensor randomTensor(DType dtype, std::vector<int64_t> sizes, std::mt19937& rng, bool extremes) {
  Tensor tensor(dtype, std::move(sizes));
  for (int64_t i = 0; i < tensor.numElements(); ++i) {
    double value = 0;
    if (isFloat(dtype)) {
      value = extremes ? (rng() % 2 ? 1e4 : -1e4) : std::uniform_real_distribution<double>(-1, 1)(rng);
    } else {
      const IntRange range = rangeOf(dtype);
      value = extremes ? static_cast<double>(rng() % 2 ? range.min : range.max)
                       : static_cast<double>(std::uniform_int_distribution<int64_t>(range.min, range.max)(rng));
    }
    storeElement(dtype, tensor.mutableData(), i, value);
  }
  return tensor;
}

}  // namespace qc::testing
