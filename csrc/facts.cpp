#include "facts.h"

#include <type_traits>

#include "core/config.h"
#include "core/dispatch.h"

namespace extrap {
namespace {

template <class Facts>
std::vector<bool> signs() {
  std::vector<bool> is_signed;
  for (int k = 0; k < Facts::Buffers::kCount; ++k) is_signed.push_back(Facts::Buffers::is_signed(k));
  return is_signed;
}

template <class Type>
std::string type_name() {
  if (std::is_same_v<Type, double>) return "float64";
  return std::is_same_v<Type, uint64_t> ? "uint64" : "int64";
}

template <size_t kCount>
NamedChoices choices(const char* option, const char* const (&names)[kCount]) {
  return {option, {names, names + kCount}};
}

}  // namespace

std::vector<RuleFacts> rule_facts() {
  std::vector<RuleFacts> facts;
  for_each_rule([&](const char* name, auto tag) {
    using Facts = typename decltype(tag)::Facts;
    facts.push_back({name, signs<Facts>(), kNormNames[static_cast<size_t>(Facts::kNorm)], Facts::kOwnDecay});
  });
  return facts;
}

std::vector<NamedType> scalar_facts() {
#define EXTRAP_NAMED_TYPE(Type, name, initial) {#name, type_name<Type>()},
  return {EXTRAP_FOR_EACH_SCALAR(EXTRAP_NAMED_TYPE)};
#undef EXTRAP_NAMED_TYPE
}

std::vector<NamedChoices> choice_facts() {
  return {choices("phase", kPhaseNames), choices("extrapolation", kExtrapolationNames),
          choices("extrap_scale", kExtrapolationScaleNames), choices("noise", kNoiseNames),
          choices("noise_scale", kNoiseScaleNames)};
}

}  // namespace extrap
