#include "quantizer/rules/qconfig.h"

namespace qc {

QConfigMapping& QConfigMapping::backendConfig(std::optional<BackendConfig> config) {
  backendConfig_ = std::move(config);
  return *this;
}

QConfigMapping& QConfigMapping::guards(Guards guards) {
  guards_ = guards;
  return *this;
}

QConfigMapping& QConfigMapping::quantizedInputs(std::vector<int64_t> indexes) {
  quantizedInputs_ = std::move(indexes);
  return *this;
}

QConfigMapping& QConfigMapping::quantizedOutputs(std::vector<int64_t> indexes) {
  quantizedOutputs_ = std::move(indexes);
  return *this;
}

QConfigMapping& QConfigMapping::set(Rule rule) {
  for (Rule& known : rules_) {
    if (!known.namesTheSame(rule)) continue;
    known.entry = std::move(rule.entry);
    known.optional = rule.optional;
    known.force = rule.force;
    given_ = usize(&known - rules_.data());
    return *this;
  }
  given_ = rules_.size();
  rules_.push_back(std::move(rule));
  return *this;
}

bool QConfigMapping::Rule::namesTheSame(const Rule& other) const {
  return level == other.level && name == other.name && type == other.type && order == other.order;
}

QConfigMapping& QConfigMapping::noteReplaced(Rule rule) {
  replaced_.push_back(std::move(rule));
  return *this;
}

QConfigMapping QConfigMapping::with(size_t index, std::optional<Rule> rule) const {
  QConfigMapping other = *this;
  if (index >= rules_.size()) return other;
  if (rule)
    other.rules_[index] = std::move(*rule);
  else
    other.rules_.erase(other.rules_.begin() + static_cast<std::ptrdiff_t>(index));
  return other;
}

QConfigMapping& QConfigMapping::recipe(std::string name, std::string choice) {
  recipes_.insert_or_assign(std::move(name), std::move(choice));
  return *this;
}

QConfigMapping& QConfigMapping::force() {
  if (given_ < rules_.size()) rules_[given_].force = true;
  return *this;
}
QConfigMapping& QConfigMapping::standalone(std::string from, std::string to, QConfigMapping rules) {
  standalone_.push_back({std::move(from), std::move(to), std::make_shared<const QConfigMapping>(std::move(rules))});
  return *this;
}
QConfigMapping& QConfigMapping::global(QConfigEntry e) { return set({Level::global, {}, {}, 0, std::move(e), false}); }
QConfigMapping& QConfigMapping::objectType(std::string type, QConfigEntry e) {
  return set({Level::objectType, {}, std::move(type), 0, std::move(e), false});
}
QConfigMapping& QConfigMapping::nameRegex(std::string regex, QConfigEntry e) {
  return set({Level::nameRegex, std::move(regex), {}, 0, std::move(e), false});
}
QConfigMapping& QConfigMapping::name(std::string name, QConfigEntry e) {
  return set({Level::name, std::move(name), {}, 0, std::move(e), false});
}
QConfigMapping& QConfigMapping::nameTypeOrder(std::string module, std::string type, int64_t index, QConfigEntry e) {
  return set({Level::nameTypeOrder, std::move(module), std::move(type), index, std::move(e), false});
}
QConfigMapping& QConfigMapping::between(std::string from, std::string to, QConfigEntry e) {
  return set({Level::between, std::move(from), std::move(to), 0, std::move(e), false});
}

std::string QConfigMapping::Rule::str() const {
  switch (level) {
    case Level::global: return "the global rule";
    case Level::objectType: return fmt::format("the rule for type '{}'", type);
    case Level::nameRegex: return fmt::format("the rule for names like '{}'", name);
    case Level::between: return fmt::format("the rule from '{}' to '{}'", name, type);
    case Level::name: return fmt::format("the rule for '{}'", name);
    case Level::nameTypeOrder: return fmt::format("the rule for {} number {} in '{}'", type, order, name);
  }
  return {};
}

}  // namespace qc
