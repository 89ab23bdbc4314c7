#include "tests/kernels/harness.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "ir/op_def.h"
#include "ir/text.h"

namespace qc::testing {
namespace {

// One case for the emulator: buffers in the order of the kernel's arguments.
struct CrossCase {
  size_t kernel = 0;
  KernelShape shape;
  std::vector<std::vector<uint8_t>> buffers;
  std::vector<bool> present;
  size_t firstResult = 0;
  std::vector<Tensor> expected;
  std::string what;
};

constexpr std::string_view kCrossCompiler = QC_AARCH64_CC, kEmulator = QC_AARCH64_EMULATOR;

bool emulates(const Target& target) { return target.arch == Arch::aarch64 && !kCrossCompiler.empty() && !kEmulator.empty(); }

void reportDifference(const std::vector<uint8_t>& actual, const Tensor& reference, const std::string& what) {
  ASSERT_EQ(static_cast<int64_t>(actual.size()), reference.byteSize()) << what;
  if (std::memcmp(actual.data(), reference.data(), actual.size()) == 0) return;
  int64_t wrong = 0, first = -1;
  const int64_t size = sizeOf(reference.dtype());
  for (int64_t i = 0; i < reference.numElements(); ++i) {
    if (std::memcmp(actual.data() + i * size, static_cast<const uint8_t*>(reference.data()) + i * size, usize(size)) == 0) continue;
    if (wrong++ == 0) first = i;
  }
  ADD_FAILURE() << what << ": " << wrong << " of " << reference.numElements() << " differ, first at " << first << ": "
                << loadElement(reference.dtype(), actual.data(), first) << " instead of " << reference.at(first);
}

// Collects cases of a test program and runs them in one go when its tests are done.
class CrossBatch : public ::testing::Environment {
 public:
  static CrossBatch& get() {
    static auto* batch = static_cast<CrossBatch*>(::testing::AddGlobalTestEnvironment(new CrossBatch));
    return *batch;
  }

  Status add(const KernelDef& def, const Node& node, const Target& target, CrossCase testCase) {
    const KernelPlanPtr plan = def.plan(node, target);
    const auto [place, isNew] = kernels_.try_emplace(codeKey(def, node, target, *plan), objects_.size());
    if (isNew) {
      const KernelJob job{&def, &node, plan, fmt::format("kernel{}", objects_.size())};
      QC_ASSIGN(std::vector<KernelObject> objects, compileKernels({&job, 1}, target));
      objects_.push_back(std::move(objects[0]));
    }
    testCase.kernel = place->second;
    testCase.shape = plan->shapeOf(objects_[place->second].shape);
    cases_.push_back(std::move(testCase));
    return {};
  }

  void TearDown() override {
    if (cases_.empty()) return;
    std::string folder = (std::filesystem::temp_directory_path() / "qcompile-cross-XXXXXX").string();
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    run(folder);
    std::filesystem::remove_all(folder);
  }

 private:
  void run(const std::string& folder) {
    std::ofstream table(folder + "/table.c");
    std::string list;
    table << "#include <stdint.h>\n";
    for (size_t i = 0; i < objects_.size(); ++i) {
      std::ofstream(fmt::format("{}/kernel{}.o", folder, i), std::ios::binary) << objects_[i].bytes;
      table << fmt::format("int32_t kernel{}(void* const*, int64_t, int64_t, void*);\n", i);
      list += fmt::format("kernel{}, ", i);
    }
    table << "int32_t (*const kernels[])(void* const*, int64_t, int64_t, void*) = {" << list << "};\n";
    table.close();
    writeCases(folder + "/cases");
    const std::string build =
        fmt::format("{} -O1 -static -o {}/run {} {}/table.c {}/*.o", kCrossCompiler, folder, QC_CROSS_RUNNER, folder, folder);
    ASSERT_EQ(std::system(build.c_str()), 0) << build;
    const std::string start = fmt::format("{} -cpu max {}/run {}/cases {}/results", kEmulator, folder, folder, folder);
    ASSERT_EQ(std::system(start.c_str()), 0) << start;
    std::ifstream results(folder + "/results", std::ios::binary);
    for (const CrossCase& c : cases_) {
      for (size_t i = 0; i < c.expected.size(); ++i) {
        std::vector<uint8_t> actual(c.buffers[c.firstResult + i].size());
        results.read(reinterpret_cast<char*>(actual.data()), static_cast<std::streamsize>(actual.size()));
        ASSERT_TRUE(results.good()) << c.what;
        reportDifference(actual, c.expected[i], c.what);
      }
    }
  }

  void writeCases(const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    auto number = [&](int64_t value) { file.write(reinterpret_cast<const char*>(&value), sizeof value); };
    number(static_cast<int64_t>(cases_.size()));
    for (const CrossCase& c : cases_) {
      for (const int64_t value : {static_cast<int64_t>(c.kernel), static_cast<int64_t>(c.buffers.size()), c.shape.units,
                                  c.shape.scratchBytes, static_cast<int64_t>(c.firstResult), static_cast<int64_t>(c.expected.size())})
        number(value);
      for (size_t i = 0; i < c.buffers.size(); ++i) {
        number(c.present[i] ? static_cast<int64_t>(c.buffers[i].size()) : -1);
        file.write(reinterpret_cast<const char*>(c.buffers[i].data()), static_cast<std::streamsize>(c.buffers[i].size()));
      }
    }
  }

  std::map<std::string, size_t> kernels_;
  std::vector<KernelObject> objects_;
  std::vector<CrossCase> cases_;
};

Result<const Node*> packedNode(const KernelDef& def, Node& node) {
  if (!def.pack) return &node;
  Builder builder(node.graph());
  builder.before(&node);
  const KernelChoice choice{&def, def.supports(node, targetOf(def))};
  if (!choice.plan) return fail(ErrorCode::kUnsupported, "kernel '{}' does not take the node", def.id);
  QC_ASSIGN(Node* const packed, packKernel(choice, node, builder));
  if (packed != &node) packed->result()->setType(node.result()->type());  // which says what dims were free
  return packed;
}

// The operands of the packed node that are not constants are those of the node itself.
std::vector<const Tensor*> operandsOf(const Node& packed, const Node& node, const std::vector<const Tensor*>& operands) {
  std::vector<const Tensor*> given;
  for (Value* v : packed.operands()) {
    const Tensor* tensor = v ? v->constant() : nullptr;
    for (int i = 0; v && i < node.numOperands(); ++i)
      if (node.operand(i) == v) tensor = nth(operands, i);
    given.push_back(tensor);
  }
  return given;
}

std::vector<uint8_t> bytesOf(const void* data, int64_t count) {
  const auto* from = static_cast<const uint8_t*>(data);
  return {from, from + count};
}

CrossCase crossCase(const Node& node, const std::vector<int64_t>& numbers, const std::vector<const Tensor*>& operands,
                    const std::vector<Tensor>& expected, const std::string& what) {
  CrossCase c;
  auto add = [&](bool present, std::vector<uint8_t> bytes) {
    c.present.push_back(present);
    c.buffers.push_back(std::move(bytes));
  };
  for (const Tensor* tensor : operands)
    add(tensor != nullptr, tensor ? bytesOf(tensor->data(), tensor->byteSize()) : std::vector<uint8_t>{});
  c.firstResult = c.buffers.size();
  for (const Tensor& result : expected) add(true, std::vector<uint8_t>(usize(result.byteSize()), 0xa5));
  const std::vector<ParamRecord> params = kernelParams(node, numbers);
  add(true, bytesOf(params.data(), static_cast<int64_t>(params.size() * sizeof(ParamRecord))));
  c.expected = expected;
  c.what = what;
  return c;
}

// Dims of what flows through a node, as if bind-shapes had just given them their sizes; for as long as it lives.
class FreedDims {
 public:
  enum class Which { all, leading, image };  // image: number, height and width of channel-last ones
  FreedDims(const Node& node, Which which) : which_(which) {
    const std::vector<OperandSpec>& specs = node.def().operands;
    for (int i = 0; i < node.numOperands(); ++i) {
      Value* v = node.operand(i);
      const bool isData = specs[std::min(usize(i), specs.size() - 1)].role == OperandRole::data;
      if (v && !v->constant() && (isData || which != Which::image)) free(v);
    }
    for (int i = 0; i < node.numResults(); ++i) free(node.result(i));
  }
  FreedDims(const FreedDims&) = delete;
  ~FreedDims() {
    for (size_t i = before_.size(); i-- > 0;) before_[i].first->setType(before_[i].second);
  }

 private:
  void free(Value* v) {
    before_.emplace_back(v, v->type());
    Shape shape;
    for (const Dim& dim : v->type().shape) shape.push_back(frees(shape.size(), v->type().shape.size()) ? Dim::bound(dim.size()) : dim);
    v->setType(v->type().withShape(std::move(shape)));
  }
  bool frees(size_t d, size_t rank) const {
    return which_ == Which::all || d == 0 || (which_ == Which::image && d + 1 < rank && d + 3 >= rank);
  }
  const Which which_;
  std::vector<std::pair<Value*, TensorType>> before_;
};

// What follows with the dims as they are, and with `anySizes` once more with dims that were free, all or the leading ones or those of
// images, if the row has code for any sizes.
void withAndWithoutFreeDims(const KernelDef& def, const Node& node, const Target& target, bool anySizes,
                            const std::function<void(std::string_view how)>& body) {
  body("");
  if (!anySizes) return;
  std::string before;  // of products, whose rows lead, both are one
  using enum FreedDims::Which;
  const Shape first = node.numOperands() && node.operand(0) ? node.operand(0)->type().shape : Shape();
  const bool isOneImage = first.size() > 2 && first[0] == Dim(1);
  for (const auto& [which, how] : {std::pair(all, ", any sizes"), std::pair(leading, ", any batch"), std::pair(image, ", any image")}) {
    if (which == leading && isOneImage) continue;  // which is no batch to learn from
    const FreedDims freed(node, which);
    const KernelPlanPtr plan = def.supports(node, target);
    if (!plan || plan->numbers.empty()) continue;
    const std::string key = codeKey(def, node, target, *plan);
    if (key != before) body(how);
    before = key;
  }
}

// A row for any target on the other architecture too, without extensions and with them, where it can be emulated.
void addEmulated(const KernelDef& row, const Node& node, const std::vector<const Tensor*>& operands, const std::vector<Tensor>& expected,
                 const std::string& what) {
  for (const char* name : {"aarch64", "aarch64+i8mm"}) {
    const Target target = Target::parse(name).value();
    if (row.isas || target.arch == Target::host().arch || !emulates(target) || !row.supports(node, target)) return;
    withAndWithoutFreeDims(row, node, target, true, [&](std::string_view how) {
      const std::string context = fmt::format("{} for {}{}", what, name, how);
      const Status added =
          CrossBatch::get().add(row, node, target, crossCase(node, row.plan(node, target)->numbers, operands, expected, context));
      EXPECT_TRUE(added.has_value()) << what << ": " << added.error().render();
    });
  }
}

// Cases that differ in values share code, and in sizes, where it serves any.
Result<CompiledKernel> compiledOnce(const KernelDef& def, const Node& packed, const Target& target) {
  static std::map<std::string, CompiledKernel> compiled;
  const KernelPlanPtr plan = def.plan(packed, target);
  CompiledKernel& kernel = compiled[codeKey(def, packed, target, *plan)];
  if (!kernel.fn) {
    QC_ASSIGN(kernel, compilePacked(def, packed, target));
  }
  return kernel.forNode(packed, *plan);
}

// The row's code for the target, and where `emulates` that for the other architecture, beside the evaluation.
void beside(const KernelDef& row, const Node& node, const Target& target, const std::vector<const Tensor*>& operands, bool emulates,
            bool anySizes, const std::string& text) {
  const auto expected = evaluateNode(node, operands);
  ASSERT_TRUE(expected) << expected.error().render();
  if (emulates) addEmulated(row, node, operands, *expected, fmt::format("{}\n{}", row.id, text));
  withAndWithoutFreeDims(row, node, target, anySizes, [&](std::string_view how) {
    const std::string context = fmt::format("{} for {}{}\n{}", row.id, target.str(), how, text);
    const auto compiled = compiledOnce(row, node, target);
    ASSERT_TRUE(compiled) << compiled.error().render() << context;
    const KernelRun run = runGuardedAll(*compiled, operands);
    EXPECT_EQ(run.status, 0) << context;
    for (size_t i = 0; i < run.results.size(); ++i) reportDifference(run.results[i], (*expected)[i], context);
  });
}

}  // namespace

GuardedBuffer::GuardedBuffer(int64_t bytes) {
  const auto page = usize(sysconf(_SC_PAGESIZE));
  const size_t payload = (usize(bytes) + page - 1) / page * page;
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
  const Target emulated = Target::parse("amx-emulated").value();
  return target.has(Isa::amxInt8) && !target.runsOn(Target::host()) ? emulated : target;
}

bool takes(const KernelDef& def, const Node& node) { return def.supports(node, targetOf(def)) != nullptr; }

std::vector<const KernelDef*> rowsFor(std::string_view op) {
  std::vector<const KernelDef*> rows;
  for (const KernelDef& def : kernelTable()) {
    if (std::find(def.ops.begin(), def.ops.end(), op) == def.ops.end()) continue;
    if (targetOf(def).runsOn(Target::host()) || emulates(targetOf(def)))
      rows.push_back(&def);
    else
      fmt::print("[ LEFT OUT ] {} needs {}\n", def.id, targetOf(def).str());
  }
  return rows;
}

Result<CompiledKernel> compilePacked(const KernelDef& def, const Node& node, const Target& target) {
  CompiledKernel result;
  result.node = &node;
  const KernelJob job{&def, &node, def.plan(node, target), "kernel"};
  QC_ASSIGN(const std::vector<KernelObject> objects, compileKernels({&job, 1}, target));
  result.shape = job.plan->shapeOf(objects[0].shape);
  result.numbers = job.plan->numbers;
  result.irInstructions = objects[0].irInstructions;
  QC_ASSIGN(result.jit, Jit::create(target));
  QC_TRY(result.jit->add(objects));
  QC_ASSIGN(result.fn, result.jit->lookup("kernel"));
  return result;
}

CompiledKernel CompiledKernel::forNode(const Node& other, const KernelPlan& plan) const {
  CompiledKernel result = *this;
  result.node = &other;
  result.shape = plan.shapeOf(shape);
  result.numbers = plan.numbers;
  return result;
}

KernelRun runGuardedAll(const CompiledKernel& kernel, const std::vector<const Tensor*>& operands) {
  const Node& node = *kernel.node;
  std::vector<GuardedBuffer> owned;
  std::vector<void*> buffers;
  for (int i = 0; i < node.numOperands(); ++i) {
    const Tensor* tensor = i < static_cast<int>(operands.size()) ? nth(operands, i) : nullptr;
    if (!tensor && node.operand(i)) tensor = node.operand(i)->constant();
    if (!tensor) {
      buffers.push_back(nullptr);
      continue;
    }
    owned.emplace_back(tensor->byteSize());
    std::memcpy(owned.back().data(), tensor->data(), usize(tensor->byteSize()));
    buffers.push_back(owned.back().data());
  }
  const size_t firstResult = buffers.size();
  for (int i = 0; i < node.numResults(); ++i) {
    const int64_t bytes = node.result(i)->type().byteSize();
    owned.emplace_back(bytes);
    std::memset(owned.back().data(), 0xa5, usize(bytes));
    buffers.push_back(owned.back().data());
  }
  std::vector<ParamRecord> params = kernelParams(node, kernel.numbers);
  buffers.push_back(params.data());
  Tensor scratch(DType::u8, {std::max<int64_t>(kernel.shape.scratchBytes, 1)});
  std::memset(scratch.mutableData(), 0x7f, usize(scratch.byteSize()));
  // The second half first, in single units, then the first half at once.
  const int64_t half = kernel.shape.units / 2;
  KernelRun run;
  for (int64_t unit = kernel.shape.units; unit-- > half;) run.status |= kernel.fn(buffers.data(), unit, unit + 1, scratch.mutableData());
  run.status |= kernel.fn(buffers.data(), 0, half, scratch.mutableData());
  for (int i = 0; i < node.numResults(); ++i)
    run.results.push_back(bytesOf(buffers[firstResult + usize(i)], node.result(i)->type().byteSize()));
  return run;
}

std::vector<uint8_t> runGuarded(const CompiledKernel& kernel, const std::vector<const Tensor*>& operands) {
  KernelRun run = runGuardedAll(kernel, operands);
  EXPECT_EQ(run.status, 0);
  return std::move(run.results.front());
}

void checkRows(const std::string& text, bool mayBeNone, const std::vector<const char*>& targets) {
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render() << text;
  Node* node = graph->back();
  std::mt19937 rng(7);
  int supported = 0;
  for (const KernelDef* row : rowsFor(node->op())) {
    if (row->pack) continue;  // its code is that of the packed node
    for (const char* name : targets) {
      const Target target = row->isas ? targetOf(*row) : Target::host().cap(Target::parse(name).value());
      if (!row->supports(*node, target)) continue;
      ++supported;
      for (const bool extremes : {false, true}) {
        std::vector<Tensor> tensors;
        for (const Value* v : node->operands())
          tensors.push_back(!v              ? Tensor()
                            : v->constant() ? *v->constant()
                                            : randomTensor(v->type().dtype, v->type().sizes(), rng, extremes));
        std::vector<const Tensor*> operands;
        for (size_t i = 0; i < tensors.size(); ++i) operands.push_back(node->operand(static_cast<int>(i)) ? &tensors[i] : nullptr);
        beside(*row, *node, target, operands, name == targets.front(), !extremes, text);
      }
      if (row->isas) break;
    }
  }
  EXPECT_TRUE(supported > 0 || mayBeNone) << "no row for " << text;
}

void checkRowsOn(const std::string& text, const std::vector<const Tensor*>& operands) {
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render() << text;
  const Node& node = *graph->back();
  int supported = 0;
  for (const KernelDef* row : rowsFor(node.op()))
    for (const char* name : kEveryWidth) {
      const Target target = row->isas ? targetOf(*row) : Target::host().cap(Target::parse(name).value());
      if (row->pack || !row->supports(node, target)) continue;
      beside(*row, node, target, operands, supported++ == 0, true, text);
      if (row->isas) break;
    }
  EXPECT_GT(supported, 0) << "no row for " << text;
}

void expectExact(const KernelDef& def, Node& node, const std::vector<const Tensor*>& operands, const std::string& what, bool anySizes) {
  const std::string context = fmt::format("{}: {}", def.id, what);
  const Result<std::vector<Tensor>> expected = evaluateNode(node, operands);
  ASSERT_TRUE(expected.has_value()) << context << ": " << expected.error().render();
  const Target target = targetOf(def);
  // Packed anew each time: where dims were free, the form of weights is the one for all sizes.
  std::set<std::string> forms;
  withAndWithoutFreeDims(def, node, target, anySizes, [&](std::string_view how) {
    const std::string which = context + std::string(how);
    const Result<const Node*> packed = packedNode(def, node);
    ASSERT_TRUE(packed.has_value()) << which << ": " << packed.error().render();
    const std::vector<const Tensor*> given = operandsOf(**packed, node, operands);
    const Attr* packing = (*packed)->attrs().find("packing");
    if (*packed != &node && forms.insert(packing ? toString(*packing) : "").second) {
      const Result<std::vector<Tensor>> same = evaluateNode(**packed, given);
      ASSERT_TRUE(same.has_value()) << which << ": " << same.error().render();
      EXPECT_TRUE((*same)[0].sameBytes((*expected)[0])) << which << ": the packed node has another meaning";
    }
    if (!target.runsOn(Target::host())) {
      const auto numbers = def.plan(**packed, target)->numbers;
      const Status added = CrossBatch::get().add(def, **packed, target, crossCase(**packed, numbers, given, *expected, which));
      EXPECT_TRUE(added.has_value()) << which << ": " << added.error().render();
      return;
    }
    const Result<CompiledKernel> kernel = compiledOnce(def, **packed, target);
    ASSERT_TRUE(kernel.has_value()) << which << ": " << kernel.error().render();
    reportDifference(runGuarded(*kernel, given), (*expected)[0], which);
  });
}

void expectRefused(const std::string& text, int indexOperand, const std::vector<int64_t>& bad) {
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render();
  Node* node = graph->back();
  std::mt19937 rng(3);
  std::vector<Tensor> tensors;
  for (const Value* v : node->operands()) tensors.push_back(v ? randomTensor(v->type().dtype, v->type().sizes(), rng) : Tensor());
  std::vector<const Tensor*> operands;
  for (size_t i = 0; i < tensors.size(); ++i) operands.push_back(node->operand(static_cast<int>(i)) ? &tensors[i] : nullptr);
  Tensor& indices = nth(tensors, indexOperand);
  for (const KernelDef* row : rowsFor(node->op()))
    for (const char* name : {"generic", "avx2", "avx512vnni"}) {
      const auto kernel = compilePacked(*row, *node, Target::host().cap(Target::parse(name).value()));
      ASSERT_TRUE(kernel) << kernel.error().render();
      for (const int64_t index : bad)
        for (int64_t place = 0; place < indices.numElements(); ++place) {
          for (int64_t i = 0; i < indices.numElements(); ++i) storeElement(indices.dtype(), indices.mutableData(), i, 0.0);
          EXPECT_EQ(runGuardedAll(*kernel, operands).status, 0);
          if (indices.dtype() == DType::s64)
            nth(indices.mutableAs<int64_t>(), place) = index;
          else
            nth(indices.mutableAs<int32_t>(), place) = static_cast<int32_t>(index);
          const auto expected = evaluateNode(*node, operands);
          EXPECT_EQ(runGuardedAll(*kernel, operands).status, expected ? 0 : 1) << index << " at " << place;
          EXPECT_FALSE(expected) << index;
        }
    }
}

std::string someIntegers(int64_t count, int64_t low, int64_t high) {
  std::mt19937 rng(static_cast<unsigned>(17 * count + high));
  std::string text = "[";
  for (int64_t i = 0; i < count; ++i) text += (i ? "," : "") + std::to_string(std::uniform_int_distribution<int64_t>(low, high)(rng));
  return text + "]";
}

Tensor randomTensor(DType dtype, std::vector<int64_t> sizes, std::mt19937& rng, bool extremes) {
  Tensor tensor(dtype, std::move(sizes));
  for (int64_t i = 0; i < tensor.numElements(); ++i) {
    double value = 0;
    if (isFloat(dtype)) {
      value = extremes ? (rng() % 2 ? 1e4 : -1e4) : std::uniform_real_distribution<double>(-1, 1)(rng);
    } else {
      const IntRange range = dtype == DType::boolean ? IntRange{0, 1}
                             : sizeOf(dtype) == 8    ? IntRange{isSigned(dtype) ? -1000 : 0, 1000}
                                                     : rangeOf(dtype);
      value = extremes ? static_cast<double>(rng() % 2 ? range.min : range.max)
                       : static_cast<double>(std::uniform_int_distribution<int64_t>(range.min, range.max)(rng));
    }
    storeElement(dtype, tensor.mutableData(), i, value);
  }
  return tensor;
}

}  // namespace qc::testing
