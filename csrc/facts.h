// What the native core says of itself, for Python to compare with its own lists: rules, options and their codes.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace extrap {

// One for each variant of a rule, by the number of its buffers.
struct RuleFacts {
  std::string name;
  std::vector<bool> is_signed;  // of each buffer
  std::string norm;             // "none", or what the rule needs the norm of besides that of x
  bool own_decay;               // the rule does the weight decay itself
};

std::vector<RuleFacts> rule_facts();

using NamedType = std::pair<std::string, std::string>;

// (name, "float64", "int64" or "uint64") of the scalars of a launch, in the order of a row.
std::vector<NamedType> scalar_facts();

using NamedChoices = std::pair<std::string, std::vector<std::string>>;

// The names of an option's values, in the order of their codes.
std::vector<NamedChoices> choice_facts();

}  // namespace extrap
