#include "ir/expr_counter.h"

#include "ir/expr_internal.h"

namespace qc {
namespace {

using Instruction = ExprProgram::Instruction;
using Op = ScalarExpr::Op;

// A formula without calls as code whose arguments are registers of another program.
using Code = std::vector<Instruction>;

// What the named functions are over arguments, by row.
const std::vector<Code>& expansions() {
  static const std::vector<Code> all = [] {
    std::vector<Code> codes;
    for (const ScalarExpr::Function& f : ScalarExpr::functions()) {
      std::vector<ScalarExpr> args;
      for (int k = 0; k < f.arity; ++k) args.push_back(ScalarExpr::arg(k));
      codes.push_back(flatten(f.expansion(args).expand()));
    }
    return codes;
  }();
  return all;
}

}  // namespace

struct ExprCounter::State {
  InstructionNumbering code;

  int call(const Instruction& i) {
    const ScalarExpr::Function& function = nth(ScalarExpr::functions(), i.index);
    std::vector<ScalarExpr> operands;
    std::vector<int> registers;
    bool constants = false;
    for (int k = 0; k < function.arity; ++k) {
      const Instruction operand = nth(code.keys(), i.operand[k]);
      registers.push_back(i.operand[k]);
      constants = constants || operand.op == Op::constant;
      operands.push_back(operand.op == Op::constant ? ScalarExpr(operand.value) : ScalarExpr::arg(k));
    }
    // What a function is made of may depend on the value of a constant.
    if (constants) return replay(flatten(function.expansion(operands).expand()), registers);
    return replay(nth(expansions(), i.index), registers);
  }

  int replay(const Code& formula, std::span<const int> args) {
    std::vector<int> registers;
    registers.reserve(formula.size());
    for (Instruction i : formula) {
      for (int& o : i.operand) o = o < 0 ? o : nth(registers, o);
      registers.push_back(i.op == Op::arg ? nth(args, i.index) : i.op == Op::call ? call(i) : code.add(i).first);
    }
    return registers.back();
  }
};

ExprCounter::ExprCounter() : state_(std::make_unique<State>()) {}
ExprCounter::~ExprCounter() = default;

int ExprCounter::add(const ScalarExpr& leaf) { return state_->code.add(instructionOf(leaf)).first; }

int ExprCounter::add(const ScalarExpr& formula, std::span<const int> args) { return state_->replay(flatten(formula), args); }

size_t ExprCounter::size(int value) const {
  std::vector<bool> needed(usize(value) + 1, false);
  needed.back() = true;
  size_t count = 0;
  for (size_t i = needed.size(); i-- > 0;) {
    if (!needed[i]) continue;
    ++count;
    for (const int operand : state_->code.keys()[i].operand)
      if (operand >= 0) needed[usize(operand)] = true;  // in front of it
  }
  return count;
}

bool ExprCounter::exceeds(int value, size_t most) const { return state_->code.keys().size() > most && size(value) > most; }

void ExprCounter::clear() { state_->code.clear(); }

}  // namespace qc
