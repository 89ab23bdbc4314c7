// How a family of kernels is written down: what it computes, how it plans a node, what that costs, how it packs and emits; and its rows, of
// which each says what it needs and, in the family's own type, what sets it apart.
//
//   std::optional<FooPlan> planFoo(const KernelRow<FooTraits>& row, const Node& node, const Target& target);
//   std::vector<KernelDef> fooKernels() {                       // named by QC_FAMILY(foo) in kernels.def
//     return kernelsOf<FooPlan, FooTraits>({.ops = {"foo"},
//                                           .rows = {{"foo_avx512", isaBit(Isa::avx512), {.lanes = 16}}, {"foo_generic", 0, {.lanes = 4}}},
//                                           .plan = planFoo, .work = workOfFoo, .emit = emitFoo});
//   }
//
// A plan is made once per node and row.  Whoever holds it hands it on, unseen, from selection over packing to emission; so it keeps what
// the code depends on, nothing of the node that may change meanwhile.
#pragma once

#include <concepts>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include "codegen/plan/kernel.h"
#include "codegen/plan/number.h"

namespace qc {

struct NoTraits {};  // of a family whose rows differ in nothing, or with one row

template <class Traits>
struct KernelRow {
  std::string_view id;
  IsaSet isas = 0;  // all required; 0: any target
  Traits traits = {};
};

template <class Plan, class Traits = NoTraits>
struct KernelFamily {
  using Row = KernelRow<Traits>;
  using PlanFunction = std::conditional_t<std::is_same_v<Traits, NoTraits>, std::optional<Plan>(const Node&, const Target&),
                                          std::optional<Plan>(const Row&, const Node&, const Target&)>;

  std::vector<std::string_view> ops;  // before packing
  std::vector<Row> rows;
  // Nothing where the family has no code for such a node, to the bit.  With `pack`: of the node before and after packing alike.
  PlanFunction* plan;
  // Where dims were free: the plan at usual sizes of them, by whose time a row is chosen for all sizes.  Else nothing.
  PlanFunction* planUsual = nullptr;
  // What else is asked of a node before it is packed, such as a proof over its weights.
  bool (*supports)(const Plan&, const Node&, const Target&) = nullptr;
  Work (*work)(const Plan&, const Node&, const Target&);  // what the time is reckoned from: cost.h
  // Of plans with numbers: whether the code of this node depends on its shapes through them alone.
  bool (*onlyNumbers)(const Plan&, const Node&) = nullptr;
  // The packed k.* node in front of `node`; the caller replaces the uses.  Plan::packing (ir/packing.h) says into which form.
  Result<Node*> (*pack)(const Plan&, const Node&, Builder&) = nullptr;
  Result<KernelShape> (*emit)(KernelEmitter&, const Node&, const Plan&);
};

// A plan whose code serves any size of dims that were free: see number.h.
template <class Plan>
concept HasNumbers = requires(Plan& plan, const Plan& made, const NumberVisitor& visit) {
  plan.eachNumber(visit);
  { made.form() } -> std::convertible_to<std::string>;
  { made.shape() } -> std::convertible_to<KernelShape>;
};

// One whose code also reads a table that free sizes decide: it stands behind the numbers, from `tableSlot` on.
template <class Plan>
concept HasTable = HasNumbers<Plan> && requires(Plan& plan, const Plan& made) {
  { made.table() } -> std::convertible_to<std::vector<int32_t>>;
  { plan.tableSlot } -> std::convertible_to<int>;
};

// Gives free numbers their places, where the node's code depends on nothing else of its shapes.  Else all of them are part of the code.
template <class Plan>
void placeNumbers(Plan& plan, KernelPlan& held) {
  std::string form;
  plan.eachNumber([&](Number& n) {
    if (n.isFree) {
      n.slot = static_cast<int>(held.numbers.size());
      held.numbers.push_back(n.value);
    }
    form += n.isFree ? "?," : fmt::format("{},", n.value);
  });
  if constexpr (HasTable<Plan>) {
    const std::vector<int32_t> words = plan.table();
    plan.tableSlot = static_cast<int>(held.numbers.size());
    held.numbers.resize(held.numbers.size() + (words.size() + 1) / 2);
    if (!words.empty()) std::memcpy(held.numbers.data() + plan.tableSlot, words.data(), words.size() * sizeof(int32_t));
  }
  held.form = form + plan.form();
  held.shape = plan.shape();
}

// KernelFamily::onlyNumbers of families for which that holds of every node.
template <class Plan>
bool always(const Plan&, const Node&) {
  return true;
}

template <class Plan>
struct PlanOf : KernelPlan {
  explicit PlanOf(Plan given) : plan(std::move(given)) {}
  Plan plan;
};

// Null if the plan is another family's.
template <class Plan>
const Plan* planAs(const KernelPlan& plan) {
  const auto* held = dynamic_cast<const PlanOf<Plan>*>(&plan);
  return held ? &held->plan : nullptr;
}

// The rows for the table.
template <class Plan, class Traits = NoTraits>
std::vector<KernelDef> kernelsOf(KernelFamily<Plan, Traits> given) {
  const auto family = std::make_shared<const KernelFamily<Plan, Traits>>(std::move(given));
  const auto own = [](const KernelPlan& plan) -> const Plan& {
    const Plan* p = planAs<Plan>(plan);
    QC_CHECK(p, "a kernel is given the plan of another");
    return *p;
  };
  std::vector<KernelDef> defs;
  for (const auto& row : family->rows) {
    KernelDef def{row.id, family->ops, row.isas};
    const KernelRow<Traits>* const ofRow = &row;
    const auto planned = [=](auto* function, const Node& node, const Target& target) {
      if constexpr (std::is_same_v<Traits, NoTraits>)
        return function(node, target);
      else
        return function(*ofRow, node, target);
    };
    const auto time = [family, id = row.id](const Plan& plan, const Node& node, const Target& target) {
      return nanosecondsOf(id, target.cpuClass(), family->work(plan, node, target));
    };
    const auto held = [family, time](Plan plan, const Node& node, const Target& target) {
      auto result = std::make_shared<PlanOf<Plan>>(std::move(plan));
      result->nanoseconds = result->usualNanoseconds = time(result->plan, node, target);
      if constexpr (HasNumbers<Plan>) {
        if (family->onlyNumbers && family->onlyNumbers(result->plan, node))
          placeNumbers(result->plan, *result);
        else
          result->plan.eachNumber([](Number& n) { n.isFree = false; });
      }
      return result;
    };
    def.plan = [family, planned, held](const Node& node, const Target& target) -> KernelPlanPtr {
      std::optional<Plan> plan = planned(family->plan, node, target);
      return plan ? held(*std::move(plan), node, target) : nullptr;
    };
    def.supports = [family, planned, held, time](const Node& node, const Target& target) -> KernelPlanPtr {
      std::optional<Plan> plan = planned(family->plan, node, target);
      if (!plan || (family->supports && !family->supports(*plan, node, target))) return nullptr;
      auto result = held(*std::move(plan), node, target);
      if (const auto usual = family->planUsual ? planned(family->planUsual, node, target) : std::optional<Plan>()) {
        result->usualNanoseconds = time(*usual, node, target);
        result->isForAllSizes = true;
      }
      return result;
    };
    def.work = [family, own](const Node& node, const Target& target, const KernelPlan& plan) {
      return family->work(own(plan), node, target);
    };
    def.emit = [family, own](KernelEmitter& e, const Node& node, const KernelPlan& plan) { return family->emit(e, node, own(plan)); };
    if constexpr (requires(const Plan& plan) { plan.packing.str(); }) {
      def.packing = [own](const KernelPlan& plan) { return own(plan).packing.str(); };
      if (family->pack)
        def.pack = [family, own](const Node& node, const KernelPlan& plan, Builder& builder) {
          return family->pack(own(plan), node, builder);
        };
    }
    QC_CHECK(!family->pack || def.pack, "the plan of kernel '{}', which packs, does not say into which form", def.id);
    defs.push_back(std::move(def));
  }
  return defs;
}

}  // namespace qc
